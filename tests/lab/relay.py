"""A relay between a switch and its controller that loses, delays, changes and forges messages.

The switch connects to the relay, and the relay connects to the controller.  A test commands the
faults that connections suffer on real networks.
"""

import contextlib
import socket
import struct
import threading
import time
from typing import Callable, Optional

from .namespaces import Namespace

NORTHWARD, SOUTHWARD = "northward", "southward"
"""Directions: to the controller, and to the switch."""

CHUNK = 1 << 16


class _Pair:
    """One connection through the relay: its two sockets, and its present faults."""

    def __init__(self, switch: socket.socket, controller: socket.socket) -> None:
        self.ends = {SOUTHWARD: switch, NORTHWARD: controller}
        for each in self.ends.values():
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A lock is held while whole messages are sent.
        self.locks = {direction: threading.Lock() for direction in self.ends}
        self.swallowed: set[str] = set()
        self.flowing = {direction: threading.Event() for direction in self.ends}
        for event in self.flowing.values():
            event.set()
        self._abandoned = False
        self._reset = False
        self._running = set(self.ends)

    def source(self, direction: str) -> socket.socket:
        return self.ends[NORTHWARD if direction == SOUTHWARD else SOUTHWARD]

    def send(self, direction: str, data: bytes) -> None:
        with self.locks[direction]:
            self.ends[direction].sendall(data)

    def close(self, reset: bool = False) -> None:
        """Close both ends; with a TCP reset when `reset` is true."""
        self._reset = self._reset or reset
        for each in self.ends.values():
            with contextlib.suppress(OSError):
                if self._reset:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RD if self._reset else socket.SHUT_RDWR)
        for event in self.flowing.values():
            event.set()

    def abandon_controller(self) -> None:
        """Close the switch's end, and leave the controller's end open and silent."""
        self.swallowed = set(self.ends)
        self._abandoned = True
        with contextlib.suppress(OSError):
            self.ends[SOUTHWARD].shutdown(socket.SHUT_RDWR)

    def ended(self, direction: str) -> None:
        """Note that nothing more goes in this direction; close the sockets after both."""
        if not (self._abandoned and direction == NORTHWARD):
            self.close()
        self._running.discard(direction)
        if not self._running:
            for each in self.ends.values():
                each.close()


class Relay:
    """Accepts connections of switches, and connects each to the controller at `target`.

    A fault holds for the connections that exist when it is called.  New connections are without
    faults, except for `mangle` and `bytes_per_second`.

    namespace: where the relay listens and connects.
    address: where the relay listens, at a free TCP port, which is then in the attribute `port`.
    """

    def __init__(self, namespace: Namespace, address: str, target: tuple[str, int]) -> None:
        self.namespace = namespace
        self.address = address
        self.target = target
        self.mangle: Optional[Callable[[str, bytes], bytes]] = None
        """Called with the direction and the bytes of each OpenFlow message; returns the bytes to
        send in its place, b"" for none.  It holds for all connections and may be set at any time.
        """
        self.bytes_per_second: Optional[float] = None
        """The speed of each connection in each direction; None for no limit."""
        self.connections = 0
        self._refusing = False
        self._pairs: list[_Pair] = []
        self._changed = threading.Condition()
        self._listener = namespace.call(self._open)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """The relay's address in Open vSwitch's notation, such as "tcp:10.255.0.1:40001"."""
        return f"tcp:{self.address}:{self.port}"

    # ---- faults ----

    def swallow(self, *directions: str) -> None:
        """Read and discard all messages, in these directions, or in both when none is given."""
        for pair in self._pairs:
            pair.swallowed = set(directions or (NORTHWARD, SOUTHWARD))

    def block(self, *directions: str) -> None:
        """Stop reading, in these directions or in both, so that the senders' buffers fill up."""
        for pair in self._pairs:
            for direction in directions or (NORTHWARD, SOUTHWARD):
                pair.flowing[direction].clear()

    def flow(self) -> None:
        """End `swallow` and `block`."""
        for pair in self._pairs:
            pair.swallowed = set()
            for event in pair.flowing.values():
                event.set()

    def drop(self, reset: bool = False) -> None:
        """Close all connections; with a TCP reset when `reset` is true."""
        for pair in list(self._pairs):
            pair.close(reset)

    def refuse(self, refused: bool = True) -> None:
        """Close each new connection at once; with False, accept new connections again."""
        self._refusing = refused

    def lose_switches(self) -> None:
        """Close the switches' ends only.  The controller's ends stay open, and nothing comes."""
        for pair in list(self._pairs):
            pair.abandon_controller()

    def forge(self, direction: str, data: bytes) -> None:
        """Send bytes on the newest connection, between two messages, as if they were relayed."""
        self._pairs[-1].send(direction, data)

    def wait_for_connection(self, count: int, timeout: float = 10) -> None:
        """Return when `count` connections have been made, including those that have ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.connections >= count, timeout), (
                f"{self.connections} connections, not {count}, within {timeout:g} s"
            )

    def close(self) -> None:
        """Close the listener and all connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # ---- the relaying threads ----

    def _open(self) -> socket.socket:
        listener = socket.socket()
        listener.bind((self.address, 0))
        listener.listen(16)
        return listener

    def _accept(self) -> None:
        while True:
            try:
                switch, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                switch.close()
                continue
            try:
                controller = self.namespace.call(socket.create_connection, self.target, 5)
                controller.settimeout(None)
            except OSError:
                switch.close()
                continue
            pair = _Pair(switch, controller)
            with self._changed:
                self._pairs.append(pair)
                self.connections += 1
                self._changed.notify_all()
            for direction in pair.ends:
                threading.Thread(target=self._pass_on, args=(pair, direction), daemon=True).start()

    def _pass_on(self, pair: _Pair, direction: str) -> None:
        source, flowing = pair.source(direction), pair.flowing[direction]
        buffer = b""
        with contextlib.suppress(OSError):
            while True:
                flowing.wait()
                rate = self.bytes_per_second
                data = source.recv(CHUNK if rate is None else max(1, int(rate / 20)))
                if not data:
                    break
                if rate is not None:
                    time.sleep(len(data) / rate)  # the time that the data takes at this speed
                flowing.wait()
                messages, buffer = _split(buffer + data)
                if direction not in pair.swallowed:
                    if self.mangle:
                        messages = [self.mangle(direction, message) for message in messages]
                    pair.send(direction, b"".join(messages))
        with self._changed:
            pair.ended(direction)
            if pair in self._pairs:
                self._pairs.remove(pair)


def _split(buffer: bytes) -> tuple[list[bytes], bytes]:
    """Return the complete OpenFlow messages in a buffer, and the bytes after them."""
    messages = []
    start = 0
    while len(buffer) - start >= 8:
        length = max(8, int.from_bytes(buffer[start + 2 : start + 4], "big"))
        if len(buffer) - start < length:
            break
        messages.append(buffer[start : start + length])
        start += length
    return messages, buffer[start:]
