"""A switch's OpenFlow connection that bad bytes and slow peers cannot hurt."""

import contextlib
import fcntl
import logging
import socket
import ssl
import sys
import termios
from typing import Callable, Optional, Union

import pox.openflow.libopenflow_01 as of
from pox.openflow import ConnectionDown, of_01

from .outbox import BACKLOG_LIMIT, Outbox

log = logging.getLogger("edge.pox")

# Bytes. A whole TLS record fits, so none stays behind in the TLS layer, where poll() cannot see it.
READ_SIZE = 64 << 10
MESSAGES_PER_TURN = 64  # of one connection; then other tasks have their turn
_TCP_RTO_MAX_MS = 44  # linux/tcp.h; since Linux 6.15
WARNINGS = 10  # messages of one connection that get a warning; further ones are logged at DEBUG


class Handshake(of_01.HandshakeOpenFlowHandlers):
    """POX's handshake, which asks EdgeConnection.accept_dpid before it takes a switch.

    POX: pox/openflow/of_01.py:329 takes any dpid. When two connections have one dpid,
    pox/openflow/__init__.py:401 lets the newer one take the older one's place silently.
    """

    def handle_FEATURES_REPLY(self, con: "EdgeConnection", msg: of.ofp_features_reply) -> None:
        """Take the switch, or close the connection if its dpid is not accepted."""
        accept = type(con).accept_dpid
        if accept is not None and not accept(con, msg.datapath_id):
            con.dpid = None
            con.disconnect(f"refused: dpid {msg.datapath_id:016x}")
            return
        super().handle_FEATURES_REPLY(con, msg)


class EdgeConnection(of_01.Connection):
    """Takes the place of of_01.Connection, with the same interface and events.

    POX, all in pox/openflow/of_01.py:
    - :904 reads 2,048 bytes at a time, and :909 and :948 copy the whole buffer for each.
    - :934 an unpack error, an unknown type (IndexError) or a wrong length raises an exception out
      of read(), and the task drops the connection (:1172) with a traceback. At :942, every
      exception of a handler is a traceback.
    - :914 a HELLO whose length is 0 is handled for ever, and all of POX stands still.
    - :877 send(): see outbox.Outbox. Without TCP_NODELAY, two small sends are 40 ms apart.
    - :838 disconnect() removes from the nexus whatever connection has this dpid
      (pox/openflow/__init__.py:402). When a switch has connected again, that is the new one.
    - :844 ConnectionDown is raised also for connections whose ConnectionUp was never raised.
    - :245 a FEATURES_REPLY changes the dpid of a connection that is up.

    Here: a message that cannot be unpacked or handled costs a line in the log and nothing else. A
    length below 8, a wrong version, or a changed dpid closes the connection. ConnectionDown is
    raised once, and only after ConnectionUp. Sending: see outbox.Outbox.

    intercept: called with (type, bytes) of each whole message before it is unpacked; POX's handlers
        do not see the messages for which it returns True. Set it on a connection, at ConnectionUp
        for example.
    accept_dpid: called with (connection, dpid) in the handshake, before the nexus learns of the
        connection, which is closed if this returns False. Set it on the class.
    max_backlog: bytes that may wait to be sent before the switch is given up; read when a
        connection is made.
    reason: why it was disconnected.
    more: whether read() has left whole messages in the buffer, for the next turn.
    """

    # POX sets these in Connection.__init__ and has no type hints.
    sock: socket.socket
    dpid: Optional[int]
    disconnected: bool
    disconnection_raised: bool
    connect_time: Optional[float]

    max_backlog = BACKLOG_LIMIT
    accept_dpid: Optional[Callable[["EdgeConnection", int], bool]] = None

    def __init__(self, sock: socket.socket) -> None:
        self.reason = ""
        self.intercept: Optional[Callable[[int, bytes], bool]] = None
        self.more = False
        self._parts: list[bytes] = []  # read, and not handled yet
        self._size = 0  # bytes in _parts
        self._wanted = 8  # bytes that _parts needs until it holds a whole message
        self._complaints = 0
        with contextlib.suppress(OSError):  # not TCP
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # When a broken link works again, TCP sends what was lost within a second.
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, 1000)
        try:
            self._peer = "{}:{}".format(*sock.getpeername()[:2])
        except (OSError, IndexError):  # the peer is gone already, or it is not TCP
            self._peer = "?"
        self._outbox = Outbox(sock, self._send_failed, self.max_backlog)
        super().__init__(sock)
        self.handlers = Handshake().handlers

    def __str__(self) -> str:
        if self.dpid is None:
            return f"[{self._peer} {self.ID}]"
        return str(super().__str__())

    # -- out

    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent."""
        return self._outbox.backlog

    @property
    def stuck(self) -> int:
        """Bytes that wait because the switch reads too slowly."""
        return self._outbox.stuck

    @property
    def unacknowledged(self) -> int:
        """Bytes in the kernel's send buffer: sent or not, but not acknowledged by the peer."""
        try:
            return int.from_bytes(fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except (OSError, ValueError):  # it is not TCP, or closed
            return 0

    def send(self, data: Union[bytes, of.ofp_header]) -> None:
        """Send bytes or a message; it leaves at the end of this task's turn (see Outbox)."""
        if self.disconnected:
            return
        self._outbox.send(data if isinstance(data, bytes) else data.pack())

    def flush(self) -> None:
        """Hand the kernel as much as it takes, now."""
        self._outbox.flush()

    def _send_failed(self, reason: str) -> None:
        # The code that sends does not expect a handler of ConnectionDown to run in between: the
        # event is raised later, when the reader notices the shutdown.
        self.disconnect("lost: " + reason, defer_event=True)

    # -- in

    def read(self) -> bool:
        """Handle what has come, without blocking. Return False to have the connection closed."""
        if self.disconnected:
            return False
        if not self.more:
            try:
                data = self.sock.recv(READ_SIZE)
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return True
            except (OSError, ValueError):
                return False
            if not data:
                return False
            if (
                not self._parts
                and self.connect_time is not None
                and len(data) >= 8
                and data[0] == of.OFP_VERSION
                and data[2] << 8 | data[3] == len(data)
                and data[1] != of.OFPT_FEATURES_REPLY
            ):  # exactly one message: the usual case, as for packet-ins
                self._handle(data[1], data)
                return not self.disconnected
            self._parts.append(data)
            self._size += len(data)
            if self._size < self._wanted:
                return True
        return self._handle_messages()

    def _handle_messages(self) -> bool:
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        start = 0
        size = len(data)
        self._wanted = 8
        self.more = False
        for _ in range(MESSAGES_PER_TURN):
            if size - start < 8:
                break
            msg_type = data[start + 1]
            length = data[start + 2] << 8 | data[start + 3]
            if data[start] != of.OFP_VERSION and msg_type != of.OFPT_HELLO:
                log.warning("%s: closing: it speaks OpenFlow version %d", self, data[start])
                return False
            if length < 8:
                log.warning("%s: closing: a message of length %d", self, length)
                return False
            if size - start < length:
                self._wanted = length
                break
            message = data[start : start + length]
            start += length
            if msg_type == of.OFPT_FEATURES_REPLY and self._is_another(message):
                log.warning("%s: closing: it says now that it is another datapath", self)
                return False
            self._handle(msg_type, message)
            if self.disconnected:
                return False
        else:
            self.more = True
        self._parts = [data[start:]] if start < size else []
        self._size = size - start
        return True

    def _is_another(self, features_reply: bytes) -> bool:
        dpid = int.from_bytes(features_reply[8:16], "big")
        return self.connect_time is not None and dpid != self.dpid

    def _handle(self, msg_type: int, message: bytes) -> None:
        try:
            if self.intercept is not None and self.intercept(msg_type, message):
                return
        except Exception as e:
            self._complain("cannot handle a message", msg_type, message, e)
            return
        try:
            end, msg = self.unpackers[msg_type](message, 0)
            if end != len(message):
                raise ValueError(f"{len(message) - end} bytes too many")
        except Exception as e:
            self._complain("cannot read a message", msg_type, message, e)
            return
        if msg_type >= len(self.handlers):
            return  # the handshake ignores this type
        try:
            self.handlers[msg_type](self, msg)
        except Exception as e:
            self._complain("cannot handle a message", msg_type, message, e)

    def _complain(self, what: str, msg_type: int, message: bytes, error: Exception) -> None:
        self._complaints += 1
        level = logging.WARNING if self._complaints <= WARNINGS else logging.DEBUG
        name = type(error).__name__
        text = str(error).partition("\n")[0].strip()
        log.log(
            level,
            "%s: %s of type %d, %d bytes: %s%s",
            self,
            what,
            msg_type,
            len(message),
            f"{name}: {text}" if text else name,
            " (further ones at DEBUG)" if self._complaints == WARNINGS else "",
        )
        log.debug("%s: %s", self, message[:64].hex(), exc_info=error)

    # -- the end

    def disconnect(self, msg: str = "disconnected", defer_event: bool = False) -> None:
        """End the connection. What waits to be sent leaves as far as the kernel takes it.

        Never raises an exception. A second call does nothing.

        msg: the reason, for the log.
        defer_event: do not raise ConnectionDown now; close() raises it, when the connection's task
            notices the end.
        """
        if not self.disconnected:
            self.disconnected = True
            self.reason = msg
            log.log(logging.DEBUG if self.dpid is None else logging.INFO, "%s %s", self, msg)
            connections = getattr(self.ofnexus, "_connections", {})
            if self.dpid is not None and connections.get(self.dpid) is self:
                self.ofnexus._disconnect(self.dpid)
            self._outbox.flush()
            self._outbox.close()
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
        if self.connect_time is not None and not self.disconnection_raised and not defer_event:
            self.disconnection_raised = True
            self.ofnexus.raiseEventNoErrors(ConnectionDown, self)
            self.raiseEventNoErrors(ConnectionDown, self)

    def close(self) -> None:
        """Disconnect, and close the socket."""
        self.disconnect("its connection was closed")
        with contextlib.suppress(OSError):
            self.sock.close()
