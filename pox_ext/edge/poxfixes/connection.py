"""A switch's OpenFlow connection that bad bytes and slow peers cannot hurt."""

import contextlib
import fcntl
import logging
import socket
import ssl
import sys
import termios
from typing import Any, Callable, Optional

import pox.openflow.libopenflow_01 as of
from pox.openflow import ConnectionDown, of_01

from .outbox import BACKLOG_LIMIT, Outbox

log = logging.getLogger("edge.pox")

READ_SIZE = 64 << 10  # bytes; a whole TLS record fits, so that none stays behind in the TLS layer
MESSAGES_PER_TURN = 64  # after these it is the turn of others
_TCP_RTO_MAX_MS = 44  # linux/tcp.h; since Linux 6.15
WARNINGS = 10  # messages of one connection that could not be handled; the rest is for debug


class Handshake(of_01.HandshakeOpenFlowHandlers):
    """POX's handshake, which asks EdgeConnection.accept_dpid first.

    POX: pox/openflow/of_01.py:329 takes any dpid, and pox/openflow/__init__.py:401 lets the newer
    connection take the older one's place without a word.
    """

    def handle_FEATURES_REPLY(self, con: "EdgeConnection", msg: Any) -> None:
        """The switch says who it is."""
        accept = type(con).accept_dpid
        if accept is not None and not accept(con, msg.datapath_id):
            con.dpid = None
            con.disconnect(f"refused: dpid {msg.datapath_id:016x}")
            return
        super().handle_FEATURES_REPLY(con, msg)


class EdgeConnection(of_01.Connection):
    """Takes the place of of_01.Connection, and keeps its interface and events.

    POX, all in pox/openflow/of_01.py:
    - :904 reads 2,048 bytes at a time, and :909 and :948 copy the whole buffer for each.
    - :934 an unpack error, an unknown type (IndexError) or a wrong length raises out of read(), and
      the task drops the connection (:1172) with a traceback; :942 is a traceback for every
      exception of a handler.
    - :914 a HELLO whose length is 0 is handled for ever: all of POX stands still.
    - :877 send(): see outbox.Outbox. No TCP_NODELAY: two small sends are 40 ms apart.
    - :838 disconnect() removes whatever connection has this dpid from the nexus
      (pox/openflow/__init__.py:402): of a switch that has connected again, the new one.
    - :844 ConnectionDown also comes for connections whose ConnectionUp never came.
    - :245 a FEATURES_REPLY gives a connection that is up another dpid.

    Here: a message that cannot be unpacked or handled costs a line in the log and nothing else; a
    length below 8, a wrong version, or a changed dpid closes the connection. ConnectionDown comes
    once after ConnectionUp. Sending: see outbox.Outbox.

    intercept: set per connection (say, at ConnectionUp); called with (type, bytes) of each whole
        message, before anything is unpacked; POX's handlers do not see those for which it returns
        True.
    accept_dpid: set on the class; called with (connection, dpid) in the handshake, before the nexus
        learns of the connection; it is closed if that returns False.
    max_backlog: bytes that may wait to be sent before the switch is given up; read when a
        connection is made.
    reason: why it was disconnected.
    more: read() has left whole messages in the buffer, for the next turn.
    """

    max_backlog = BACKLOG_LIMIT
    accept_dpid: Optional[Callable[["EdgeConnection", int], bool]] = None

    def __init__(self, sock: Any) -> None:
        self.reason = ""
        self.intercept: Optional[Callable[[int, bytes], bool]] = None
        self.more = False
        self._parts: list = []  # what was read and is not handled
        self._size = 0  # bytes in them
        self._wanted = 8  # bytes until there is a whole message
        self._complaints = 0
        with contextlib.suppress(OSError):  # not TCP
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # When a cable that was cut is mended, what was lost is sent again within a second.
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, 1000)
        try:
            self._peer = "{}:{}".format(*sock.getpeername()[:2])
        except (OSError, IndexError):  # gone already; not TCP
            self._peer = "?"
        self._outbox = Outbox(sock, self._send_failed, self.max_backlog)
        super().__init__(sock)
        self.handlers = Handshake().handlers

    def __str__(self) -> str:
        if self.dpid is None:
            return f"[{self._peer} {self.ID}]"
        return super().__str__()

    # -- out

    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent."""
        return self._outbox.backlog

    @property
    def stuck(self) -> int:
        """Bytes that wait since the switch reads too slowly."""
        return self._outbox.stuck

    @property
    def unacknowledged(self) -> int:
        """Bytes that the kernel has sent, or will, and the switch's kernel has not acknowledged."""
        try:
            return int.from_bytes(fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except (OSError, ValueError):  # not TCP; closed
            return 0

    def send(self, data: Any) -> None:
        """Send bytes or a message; it leaves at the end of this task's turn (see Outbox)."""
        if self.disconnected:
            return
        self._outbox.send(data if type(data) is bytes else data.pack())

    def flush(self) -> None:
        """Hand the kernel now what it takes."""
        self._outbox.flush()

    def _send_failed(self, reason: str) -> None:
        # Our caller may be in the middle of something: ConnectionDown waits until the reader
        # notices the shutdown.
        self.disconnect("lost: " + reason, defer_event=True)

    # -- in

    def read(self) -> bool:
        """Handle what has come, without blocking; False: close the connection."""
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
            ):  # one message, as nearly always: a packet-in
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
            return  # the handshake has no use for it
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
        """End it: what was sent goes out as far as the kernel takes it. Never raises; repeatable.

        defer_event: leave ConnectionDown to the close() that follows when the connection's task
        notices.
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
        """Disconnect and give the descriptor back."""
        self.disconnect("its connection was closed")
        with contextlib.suppress(OSError):
            self.sock.close()
