"""A relay between a switch and its controller that loses, delays, swallows and forges.

The switch connects to the relay, the relay to the controller.  What goes wrong on real networks
and in real programs is done to the connection from here, message by message.
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
    """One connection through the relay: two sockets, and what is done to it."""

    def __init__(self, switch: socket.socket, controller: socket.socket) -> None:
        self.ends = {SOUTHWARD: switch, NORTHWARD: controller}
        for each in self.ends.values():
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.locks = {direction: threading.Lock() for direction in self.ends}  # whole messages
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
        """Have both directions end."""
        self._reset = self._reset or reset
        for each in self.ends.values():
            with contextlib.suppress(OSError):
                if self._reset:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RD if self._reset else socket.SHUT_RDWR)
        for event in self.flowing.values():
            event.set()

    def abandon_controller(self) -> None:
        """Close the switch's end only."""
        self.swallowed = set(self.ends)
        self._abandoned = True
        with contextlib.suppress(OSError):
            self.ends[SOUTHWARD].shutdown(socket.SHUT_RDWR)

    def ended(self, direction: str) -> None:
        """Nothing more goes in this direction."""
        if not (self._abandoned and direction == NORTHWARD):
            self.close()
        self._running.discard(direction)
        if not self._running:
            for each in self.ends.values():
                each.close()


class Relay:
    """Accepts switches and connects each to the controller at `target`.

    Faults hold for the connections that there are; a new one is as good as new.

    namespace: where it listens and from where it connects; `port` is the one that it got.
    mangle: is given (direction, message) of each whole OpenFlow message and returns the bytes that
        go on in its place, b"" for none; may be set at any time, and holds for all connections.
    bytes_per_second: how fast all connections are; None for as fast as can be.
    """

    def __init__(self, namespace: Namespace, address: str, target: tuple[str, int]) -> None:
        self.namespace = namespace
        self.address = address
        self.target = target
        self.mangle: Optional[Callable[[str, bytes], bytes]] = None
        self.bytes_per_second: Optional[float] = None
        self.connections = 0
        self._refusing = False
        self._pairs: list[_Pair] = []
        self._changed = threading.Condition()
        self._listener = namespace.call(self._open)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """What Open vSwitch calls the relay: "tcp:10.255.0.1:40001"."""
        return f"tcp:{self.address}:{self.port}"

    # ---- faults ----

    def swallow(self, *directions: str) -> None:
        """Go on reading, and pass nothing on; in both directions if none is given."""
        for pair in self._pairs:
            pair.swallowed = set(directions or (NORTHWARD, SOUTHWARD))

    def block(self, *directions: str) -> None:
        """Read no more, so that the sender's buffers fill up."""
        for pair in self._pairs:
            for direction in directions or (NORTHWARD, SOUTHWARD):
                pair.flowing[direction].clear()

    def flow(self) -> None:
        """Pass everything on again."""
        for pair in self._pairs:
            pair.swallowed = set()
            for event in pair.flowing.values():
                event.set()

    def drop(self, reset: bool = False) -> None:
        """Close all connections that there are."""
        for pair in list(self._pairs):
            pair.close(reset)

    def refuse(self, refused: bool = True) -> None:
        """Hang up on new connections, or welcome them again."""
        self._refusing = refused

    def lose_switches(self) -> None:
        """Close the switches' ends only: the controller hears no more, and no end either."""
        for pair in list(self._pairs):
            pair.abandon_controller()

    def forge(self, direction: str, data: bytes) -> None:
        """Send bytes on the newest connection as if the other side had, between two messages."""
        self._pairs[-1].send(direction, data)

    def wait_for_connection(self, count: int, timeout: float = 10) -> None:
        """Return when `count` connections have been made, those of the past included."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.connections >= count, timeout), (
                f"{self.connections} connections, not {count}, within {timeout:g} s"
            )

    def close(self) -> None:
        """End it all."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # ---- inside ----

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
                    time.sleep(len(data) / rate)  # that is what being slow means
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
    """Return the whole OpenFlow messages in a buffer, and what is left."""
    messages = []
    start = 0
    while len(buffer) - start >= 8:
        length = max(8, int.from_bytes(buffer[start + 2 : start + 4], "big"))
        if len(buffer) - start < length:
            break
        messages.append(buffer[start : start + length])
        start += length
    return messages, buffer[start:]
