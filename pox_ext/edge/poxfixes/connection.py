"""A switch's OpenFlow connection that bad bytes and slow peers cannot hurt."""

import contextlib
import logging
import socket
import ssl
import time
from typing import Callable, Optional, Union

import pox.openflow.libopenflow_01 as of
from pox.openflow import ConnectionDown, of_01

from .greeting import (
    FROM_CONTROLLERS,
    hello_failed,
    reason_of_failure,
    version_names,
    versions_offered,
    what_it_is,
)
from .loglimit import LogLimit
from .outbox import BACKLOG_LIMIT, Outbox

log = logging.getLogger("edge.pox")

# Bytes. A whole TLS record fits, so none stays behind in the TLS layer, where poll() cannot see it.
READ_SIZE = 64 << 10
MESSAGES_PER_TURN = 64  # of one connection; then other tasks have their turn
_TCP_RTO_MAX_MS = 44  # linux/tcp.h; since Linux 6.15
WARNINGS = 10  # messages of one connection that get a warning; further ones are logged at DEBUG
PARTING = 2.0  # seconds that a peer has for its last words when no version suits both


class Strangers:
    """What the log says of peers that do not become switches, in one line an address and minute.

    Anybody may connect: web browsers, scanners, health checks, controllers, a switch that speaks
    another version. Most of them come again and again. What is not said is logged at DEBUG.
    """

    def __init__(self) -> None:
        self._addresses = LogLimit()
        self._versions = LogLimit(lasting=True)

    def tell(self, host: str, who: object, text: str, level: int = logging.WARNING) -> None:
        """A peer is no switch, or does not get as far as one.

        host: its address
        who: it, as the log names it
        """
        unsaid = self._addresses.due(host, time.monotonic())
        if unsaid is None:
            log.debug("%s: %s", who, text)
            return
        more = f"; {unsaid} more such lines at DEBUG" if unsaid else ""
        log.log(level, "%s: %s%s", who, text, more)

    def tell_versions(self, host: str, who: object, text: str) -> None:
        """A peer speaks no version of OpenFlow that we do: one line until that changes."""
        due = self._versions.due((host, text), time.monotonic()) is not None
        log.log(logging.WARNING if due else logging.DEBUG, "%s: %s", who, text)


strangers = Strangers()


class Handshake(of_01.HandshakeOpenFlowHandlers):
    """POX's handshake, which asks EdgeConnection.accept_dpid before it takes a switch.

    POX: pox/openflow/of_01.py:329 takes any dpid. When two connections have one dpid,
    pox/openflow/__init__.py:401 lets the newer one take the older one's place silently.
    """

    def handle_FEATURES_REPLY(self, con: "EdgeConnection", msg: of.ofp_features_reply) -> None:
        """Take the switch, or close the connection if its dpid is not accepted."""
        quiet = type(con).quiet_dpid
        if quiet is not None and quiet(con, msg.datapath_id):
            con.level = logging.DEBUG
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
    - :268 a HELLO of any version is answered as one of 1.0. A switch that speaks other versions
      only connects once a second, and no line of the log says so.

    Here: a message that cannot be unpacked or handled costs a line in the log and nothing else. A
    length below 8, a wrong version, or a changed dpid closes the connection. ConnectionDown is
    raised once, and only after ConnectionUp. Sending: see outbox.Outbox.

    intercept: called with (type, bytes) of each whole message before it is unpacked; POX's handlers
        do not see the messages for which it returns True. Set it on a connection, at ConnectionUp
        for example.
    accept_dpid: called with (connection, dpid) in the handshake, before the nexus learns of the
        connection, which is closed if this returns False. Set it on the class.
    quiet_dpid: called with (connection, dpid) before that; if it returns True, the log says at
        DEBUG only that this connection comes and goes. Set it on the class.
    level: at which the log says that this connection comes and goes.
    host: the peer's address.
    max_backlog: bytes that may wait to be sent before the switch is given up; read when a
        connection is made.
    crowded: called whenever something is sent while too much waits, because the switch reads too
        slowly (see Outbox). Set it on a connection.
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
    quiet_dpid: Optional[Callable[["EdgeConnection", int], bool]] = None

    def __init__(self, sock: socket.socket) -> None:
        self.reason = ""
        self.level = logging.INFO
        self._parting = ""  # what the log says of the peer's versions, if they are not ours
        self._named = False  # whether the log has said that this peer is no switch
        self._lost = "its connection was closed"
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
            self.host, port = sock.getpeername()[:2]
            self._peer = f"{self.host}:{port}"
        except (OSError, ValueError):  # the peer is gone already, or it is not TCP
            self._peer = self.host = "?"
        self._outbox = Outbox(sock, self._send_failed, self.max_backlog)
        super().__init__(sock)
        self.handlers = Handshake().handlers

    def __str__(self) -> str:
        if self.dpid is None:
            return f"[{self._peer} {self.ID}]"
        return str(super().__str__())

    @property
    def parting(self) -> bool:
        """Whether no version of OpenFlow suits both. The peer has PARTING seconds to say why."""
        return bool(self._parting)

    def info(self, m: object) -> None:
        """Log what POX says of this connection: that it is connected."""
        of_01.log.log(self.level, "%s %s", self, m)

    def err(self, m: object) -> None:
        """Log why POX gives up a handshake."""
        self.no_switch(str(m))

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
    def crowded(self) -> Callable[[], None]:
        return self._outbox.crowded

    @crowded.setter
    def crowded(self, callback: Callable[[], None]) -> None:
        self._outbox.crowded = callback

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call back when little waits to be sent, or the connection has ended (see Outbox)."""
        self._outbox.when_room(callback)

    @property
    def unacknowledged(self) -> int:
        """Bytes in the kernel's send buffer: sent or not, but not acknowledged by the peer."""
        return self._outbox.unacknowledged

    def send(self, data: Union[bytes, of.ofp_header]) -> None:
        """Send bytes or a message; it leaves at the end of this task's turn (see Outbox)."""
        if self.disconnected:
            return
        self._outbox.send(data if isinstance(data, bytes) else data.pack())

    def flush(self) -> None:
        """Hand the kernel as much as it takes, now."""
        self._outbox.flush()

    def _send_failed(self, reason: str) -> None:
        if self._outbox.broken:
            # The switch may have said something before it closed the connection.  The reader
            # handles that, and closes the connection when it meets the end.
            self._lost = "lost: " + reason
            with contextlib.suppress(OSError):
                # SSLSocket.shutdown() would make the rest unreadable.
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        else:
            # The code that sends does not expect a handler of ConnectionDown to run in between:
            # the event is raised later, when the reader notices the shutdown.
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
            strange = data[start] != of.OFP_VERSION and msg_type != of.OFPT_HELLO
            if (strange or length < 8) and not self._bears(data[start:]):
                return False
            if size - start < length:
                self._wanted = length
                break
            message = data[start : start + length]
            start += length
            if self.connect_time is None:
                if not self._greeting(msg_type, message):
                    return False
                if self.parting:
                    continue
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

    def _bears(self, rest: bytes) -> bool:
        """Whether a message of another version, or of a wrong length, may be read all the same.

        rest: what has been read, from this message on
        """
        length = rest[2] << 8 | rest[3]
        if self.connect_time is not None:
            what = f"it speaks OpenFlow version {rest[0]}" if length >= 8 else ""
            log.warning("%s: closing: %s", self, what or f"a message of length {length}")
            return False
        if rest[1] == of.OFPT_ERROR and length >= 8:
            return True  # it may be the reason for which no version suits
        self.no_switch("closing: " + what_it_is(rest))
        return False

    def _greeting(self, msg_type: int, message: bytes) -> bool:
        """Look at a message of the handshake before POX does; return False to close.

        With `parting`, POX does not see the message.
        """
        reason = reason_of_failure(message)
        if reason is not None:
            self._parting = self._parting or "it refuses OpenFlow 1.0"
            if reason:
                self._parting += f" ({reason!r})"
            return False
        if msg_type == of.OFPT_HELLO and not self.parting:
            offered = versions_offered(message)
            if not offered >> of.OFP_VERSION & 1:
                self._parting = f"it offers OpenFlow {version_names(offered) or 'of no version'}"
                self.send(hello_failed(offered))
        elif not self.parting and (message[0] != of.OFP_VERSION or msg_type in FROM_CONTROLLERS):
            self.no_switch("closing: it is a controller, not a switch")
            return False
        return True

    def no_switch(self, text: str, level: int = logging.WARNING) -> None:
        """Have the log say once why the peer has not become a switch; see Strangers."""
        if self._named:
            return
        self._named = True
        if self.parting:
            strangers.tell_versions(
                self.host,
                self,
                f"closing: {self._parting}, and 1.0 is the only version spoken here. With Open "
                "vSwitch, `ovs-vsctl set bridge BRIDGE protocols=OpenFlow10` allows it",
            )
        else:
            strangers.tell(self.host, self, text, level)

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
        text = f"{name}: {text}" if text else name
        line = f"{what} of type {msg_type}, {len(message)} bytes: {text}"
        if self.connect_time is None:
            self.no_switch(line)
        else:
            last = " (further ones at DEBUG)" if self._complaints == WARNINGS else ""
            log.log(level, "%s: %s%s", self, line, last)
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
            log.log(logging.DEBUG if self.dpid is None else self.level, "%s %s", self, msg)
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
        if self.connect_time is None and not self.disconnected:
            self.no_switch("it has closed the connection before it was a switch", logging.INFO)
        self.disconnect(self._lost)
        with contextlib.suppress(OSError):
            self.sock.close()
