"""An OpenFlow 1.0 controller that sends what the test tells it, and keeps what it receives."""

import itertools
import select
import socket
import struct
import threading
import time
from typing import Callable, Optional, Union

from . import openflow10 as of
from .namespaces import Namespace
from .openflow10 import Message, Type

Sendable = Union[bytes, "Message", object]
"""Bytes, or anything with a `pack()` that returns them: a `Message`, or one of POX's messages."""

TIMEOUT = 5.0
"""Seconds that a test waits for a message that must come."""


class Connection:
    """One OpenFlow connection, seen from the controller's side.

    A thread reads the connection.  It puts each message into `inbox`, where the message stays until
    the test takes it out.  While `answer_echo` is true, the thread answers echo requests and does
    not keep them.

    hello: bytes to send first; None for nothing.
    transcript: a list to which every message of both directions is appended as ("sent" or
        "received", Message); None keeps none.
    """

    _xids = itertools.count(0x10000)

    def __init__(
        self,
        sock: socket.socket,
        hello: Optional[bytes] = of.message(Type.HELLO),
        transcript: Optional[list[tuple[str, Message]]] = None,
    ) -> None:
        self.socket = sock
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.inbox: list[Message] = []
        self.closed = False
        self.hello: Optional[Message] = None
        self.answer_echo = True
        self.transcript = transcript
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._stop, self._stopped = socket.socketpair()
        if hello is not None:
            self.send(hello)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @classmethod
    def open(
        cls,
        namespace: Namespace,
        port: int,
        address: str = "127.0.0.1",
        hello: Optional[bytes] = of.message(Type.HELLO),
    ) -> "Connection":
        """Connect to a switch that listens, as ovs-ofctl does."""
        return cls(namespace.call(socket.create_connection, (address, port), TIMEOUT), hello)

    # ---- sending ----

    def send(self, *messages: Sendable) -> None:
        """Send messages unchanged, in one call of sendall()."""
        packed = [item if isinstance(item, bytes) else item.pack() for item in messages]
        if self.transcript is not None:
            self.transcript += [("sent", of.unpack(raw.ljust(8, b"\0"))) for raw in packed]
        with self._sending:
            self.socket.sendall(b"".join(packed))

    def request(self, message: Sendable, timeout: float = TIMEOUT) -> Message:
        """Send a message with a new xid and return the first message with that xid.

        The result may be an OFPT_ERROR.  Fails when no message comes within `timeout` seconds.
        """
        raw = message if isinstance(message, bytes) else message.pack()
        xid = self.new_xid()
        self.send(of.with_xid(raw, xid))
        return self._take(lambda reply: reply.xid == xid, timeout, f"reply to {of.unpack(raw)}")

    def new_xid(self) -> int:
        """Return a transaction id that was not used before."""
        return next(self._xids)

    def barrier(self, timeout: float = TIMEOUT) -> None:
        """Return when the switch has processed all messages that were sent before.

        Its answers to them, such as errors, are in the inbox then.
        """
        reply = self.request(of.message(Type.BARRIER_REQUEST), timeout)
        assert reply.type == Type.BARRIER_REPLY, reply

    def flow_mod(self, *args: object, **fields: object) -> None:
        """Send a flow-mod (arguments of `openflow10.flow_mod`) and wait until it is processed.

        Fails when the switch refuses it: a test of errors uses `error_for`.
        """
        self.do(of.flow_mod(*args, **fields))

    def packet_out(self, *args: object, **fields: object) -> None:
        """Send a packet-out (arguments of `openflow10.packet_out`) and wait until it is processed.

        Fails when the switch refuses it.
        """
        self.do(of.packet_out(*args, **fields))

    def do(self, message: Sendable) -> None:
        """Send a message that has no reply, wait until it is processed, fail if it is refused."""
        error = self.error_for(message)
        assert error is None, f"refused: {error}"

    def error_for(self, message: Sendable) -> Optional[of.Error]:
        """Send a message that has no reply, then a barrier; return the message's error or None."""
        raw = message if isinstance(message, bytes) else message.pack()
        xid = self.new_xid()
        self.send(of.with_xid(raw, xid))
        self.barrier()
        with self._changed:
            for reply in self.inbox:
                if reply.type == Type.ERROR and reply.xid == xid:
                    self.inbox.remove(reply)
                    return of.unpack_error(reply.body)
        return None

    # ---- receiving ----

    def expect(
        self,
        type: int,
        timeout: float = TIMEOUT,
        where: Callable[[Message], bool] = lambda message: True,
    ) -> Message:
        """Take the first message of this type out of the inbox, or wait for one; return it.

        where: only messages for which it is true count.

        Fails when none comes within `timeout` seconds.  All other messages stay in the inbox.
        """
        return self._take(
            lambda message: message.type == type and where(message), timeout, of.type_name(type)
        )

    def take(
        self, *types: int, where: Callable[[Message], bool] = lambda message: True
    ) -> list[Message]:
        """Take messages out of the inbox and return them; do not wait.

        types: which types; none for all.
        where: only messages for which it is true are taken.
        """
        with self._changed:
            taken, left = [], []
            for message in self.inbox:
                wanted = (not types or message.type in types) and where(message)
                (taken if wanted else left).append(message)
            self.inbox[:] = left
            return taken

    def packet_ins(self) -> list[of.PacketIn]:
        """Take the packet-ins that have come out of the inbox and return them; do not wait.

        After `Bed.settle` none is on its way any more.
        """
        return [of.unpack_packet_in(message.body) for message in self.take(Type.PACKET_IN)]

    def wait_for_hello(self, timeout: float = TIMEOUT) -> Message:
        """Wait for the switch's HELLO and return it.  It does not go into the inbox."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.hello or self.closed, timeout), "no HELLO"
            assert self.hello, "closed without HELLO"
            return self.hello

    def wait_closed(self, timeout: float = TIMEOUT) -> None:
        """Return when the switch has closed the connection; fail after `timeout` seconds."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.closed, timeout), "still connected"

    # ---- requests ----

    def features(self) -> of.Features:
        """Return the switch's features."""
        reply = self.request(of.message(Type.FEATURES_REQUEST))
        assert reply.type == Type.FEATURES_REPLY, reply
        return of.unpack_features(reply.body)

    def stats(self, type: int, body: bytes = b"", timeout: float = 30) -> bytes:
        """Request statistics; return the bodies of all parts of the reply, joined.

        Fails when the reply is an error, when a part has another type, and when no part comes
        within `timeout` seconds.
        """
        xid = self.new_xid()
        self.send(of.stats_request(type, body, xid=xid))
        joined = []
        more = of.Stats.REPLY_MORE
        while more:
            part = self._take(lambda reply: reply.xid == xid, timeout, f"statistics {type}")
            assert part.type == Type.STATS_REPLY, part
            part_type, flags = struct.unpack_from("!HH", part.body)
            assert part_type == type, part
            joined.append(part.body[4:])
            more = flags & of.Stats.REPLY_MORE
        return b"".join(joined)

    def flow_stats(
        self, match: bytes = of.match(), table_id: int = 0xFF, out_port: int = of.Port.NONE
    ) -> list[of.FlowStats]:
        """Return the flow statistics of all flows that the arguments select."""
        body = of.flow_stats_body(match, table_id, out_port)
        return of.unpack_flow_stats(self.stats(of.Stats.FLOW, body))

    def aggregate(
        self, match: bytes = of.match(), table_id: int = 0xFF, out_port: int = of.Port.NONE
    ) -> of.Aggregate:
        """Return the aggregate statistics of all flows that the arguments select."""
        body = of.flow_stats_body(match, table_id, out_port)
        return of.unpack_aggregate(self.stats(of.Stats.AGGREGATE, body))

    def table_stats(self) -> list[of.TableStats]:
        """Return the statistics of all tables."""
        return of.unpack_table_stats(self.stats(of.Stats.TABLE))

    def port_stats(self, port: int = of.Port.NONE) -> dict[int, of.PortStats]:
        """Return the statistics of one port or of all, by number."""
        return of.unpack_port_stats(self.stats(of.Stats.PORT, struct.pack("!H6x", port)))

    def queue_stats(self, port: int = of.Port.ALL, queue: int = 0xFFFFFFFF) -> list[of.QueueStats]:
        """Return the statistics of the queues that the arguments select."""
        return of.unpack_queue_stats(self.stats(of.Stats.QUEUE, struct.pack("!H2xI", port, queue)))

    def description(self) -> of.Description:
        """Return the description of the switch."""
        return of.unpack_description(self.stats(of.Stats.DESC))

    # ---- the end ----

    def close(self, reset: bool = False) -> None:
        """Close the connection, as a controller that ends does.

        reset: close it with a TCP reset.  The kernel does so for a process that is killed before
            it has read all data, and a machine does so after a crash.
        """
        self._stop.close()
        self._reader.join(TIMEOUT)
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    # ---- the reading thread ----

    def _take(self, wanted: Callable[[Message], bool], timeout: float, what: str) -> Message:
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                # Another thread may have taken messages out, so look at the whole inbox again.
                for index, message in enumerate(self.inbox):
                    if wanted(message):
                        return self.inbox.pop(index)
                left = deadline - time.monotonic()
                if self.closed or left <= 0 or not self._changed.wait(left):
                    state = "closed" if self.closed else "open"
                    inbox = "; ".join(map(str, self.inbox[-10:])) or "empty"
                    raise AssertionError(
                        f"no {what} within {timeout:g} s; connection {state}; inbox: {inbox}"
                    )

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        poll.register(self._stopped, select.POLLIN)
        buffer = b""
        try:
            while all(fd != self._stopped.fileno() for fd, _ in poll.poll()):
                chunk = self.socket.recv(1 << 20)
                if not chunk:
                    break
                buffer = self._consume(buffer + chunk)
        except OSError:
            pass  # reset by the other side
        self._stopped.close()
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def _consume(self, buffer: bytes) -> bytes:
        start = 0
        while len(buffer) - start >= 8:
            version, type_, length, xid = struct.unpack_from("!BBHI", buffer, start)
            if length < 8:
                raise OSError(f"message of length {length}")
            if len(buffer) - start < length:
                break
            self._received(Message(version, type_, xid, buffer[start + 8 : start + length]))
            start += length
        return buffer[start:]

    def _received(self, message: Message) -> None:
        if self.transcript is not None:
            self.transcript.append(("received", message))
        if message.type == Type.ECHO_REQUEST and self.answer_echo:
            self.send(of.message(Type.ECHO_REPLY, message.body, message.xid))
            return
        with self._changed:
            if message.type == Type.HELLO and self.hello is None:
                self.hello = message
            else:
                self.inbox.append(message)
            self._changed.notify_all()


class Controller:
    """Listens for switches and accepts each connection.

    A method of `Connection` that is called here is called on the newest connection.

    namespace: where to listen.
    port: TCP port; 0 for a free one, which is then in the attribute `port`.
    hello: bytes to send first on each connection; None for nothing.
    record: keep a transcript of every connection.
    """

    def __init__(
        self,
        namespace: Namespace,
        port: int = 0,
        address: str = "127.0.0.1",
        hello: Optional[bytes] = of.message(Type.HELLO),
        record: bool = False,
    ) -> None:
        self.namespace = namespace
        self.address = address
        self.port = port
        self.hello = hello
        self.record = record
        self.connections: list[Connection] = []
        self._changed = threading.Condition()
        self._listener: Optional[socket.socket] = None
        self.listen()

    @property
    def target(self) -> str:
        """The controller's address in Open vSwitch's notation, such as "tcp:127.0.0.1:6653"."""
        return f"tcp:{self.address}:{self.port}"

    @property
    def connection(self) -> Connection:
        """The newest connection; fails when none was ever made."""
        assert self.connections, "the switch has not connected"
        return self.connections[-1]

    def __getattr__(self, name: str) -> object:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.connection, name)

    def listen(self) -> None:
        """Accept connections; the constructor has called this, `refuse` ends it."""
        self._listener = self.namespace.call(self._open)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Refuse new connections; existing ones stay open."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread up
            self._listener.close()
            self._listener = None

    def wait_for_connection(self, count: int = 1, timeout: float = 20) -> Connection:
        """Return the newest connection when `count` have been made and HELLO came on the newest.

        Fails after `timeout` seconds.
        """
        return self._wait(
            lambda: len(self.connections) >= count, f"connection number {count}", timeout
        )

    def wait_until_connected(self, timeout: float = 20) -> Connection:
        """Return the newest connection when it is open and HELLO came; fail after `timeout` s."""
        return self._wait(
            lambda: self.connections and not self.connection.closed, "connection", timeout
        )

    def _wait(self, condition: Callable[[], object], what: str, timeout: float) -> Connection:
        deadline = time.monotonic() + timeout
        with self._changed:
            assert self._changed.wait_for(condition, timeout), f"no {what} within {timeout:g} s"
            connection = self.connections[-1]
        connection.wait_for_hello(deadline - time.monotonic())
        return connection

    def close(self) -> None:
        """Close all, as a controller that ends does.  `listen` accepts connections again."""
        self.refuse()
        for connection in self.connections:
            connection.close()

    def __enter__(self) -> "Controller":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _open(self) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.address, self.port))
        listener.listen(16)
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return  # refuse() closed it
            try:
                connection = Connection(sock, self.hello, [] if self.record else None)
            except OSError:
                continue  # the switch has closed it already
            with self._changed:
                self.connections.append(connection)
                self._changed.notify_all()
