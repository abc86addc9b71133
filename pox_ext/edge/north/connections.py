"""
OpenFlow 1.0 connections to controllers, as a switch has them.

A connection splits the received bytes into messages, answers the hello, and makes messages wait
behind a barrier.  The messages are handled in requests.py.  Connections are opened and accepted in
workers.py.
"""

import contextlib
import logging
import socket
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Any, Callable, Optional

import pox.openflow.libopenflow_01 as of
from pox.core import core
from pox.datapaths.switch import OFConnection
from pox.lib.recoco import Sleep

from edge.openflow import messages
from edge.openflow import nicira as nx
from edge.openflow.errors import OpenFlowError
from edge.poxfixes import Outbox, Serve, When, end_of_turn, patience_left, run_in_slices
from edge.poxfixes.greeting import hello_failed, versions_offered
from edge.poxfixes.ioworkers import READ_SIZE, RobustIOWorker
from edge.poxfixes.outbox import CROWDED

log = logging.getLogger("edge.upstream")

_QUICKACK = getattr(socket, "TCP_QUICKACK", None)  # Linux has it
# Bytes that are read while a barrier is pending.  All of them are handled in one turn then.
_MOST_AHEAD = READ_SIZE
_MOST_WITHHELD = 1 << 20  # bytes of asynchronous messages that wait behind an answer
# How many messages wait for a controller that reads too slowly, as in Open vSwitch: further
# packet-ins are dropped (vswitchd/vswitch.xml, controller_queue_size), and no further message of
# the controller is read (ofproto/connmgr.c, OFCONN_REPLY_MAX).
_MOST_PACKET_INS = 100
_MOST_REPLIES = 100
_SHORT_WHILE = 0.005  # seconds
_LONGEST_SERVE = 1.0  # seconds until a connection is looked after, though it is silent
_VERSIONS_WITH_ERRORS = range(1, 7)  # versions whose error messages look like those of OpenFlow 1.0
# Messages that are handled even if the connection has been closed meanwhile.  All others only ask
# for an answer.
_CHANGES = frozenset((of.OFPT_SET_CONFIG, of.OFPT_PACKET_OUT, of.OFPT_FLOW_MOD, of.OFPT_PORT_MOD))
_ECHO_INTERVAL, _ECHO_TIMEOUT = 5.0, 5.0  # seconds, Open vSwitch's
_SERVICE_PROBE = 60.0  # seconds, for both in a service connection: a bridge's management socket's

# Is called with the connection and a whole message.  It returns False if the connection is held,
# and the message has to be handled again when the connection is released.
MessageHandler = Callable[["ControllerConnection", bytes], Optional[bool]]


class _Waiting:
    """
    Counts the messages of one kind that wait in an outbox, since the peer reads too slowly.

    (The model is Open vSwitch's struct rconn_packet_counter in lib/rconn.c.)
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._ends: deque[int] = deque()  # where each ends, in the bytes that the outbox has sent

    def sent(self) -> None:
        """A message of this kind has just been sent, and has to wait."""
        self._ends.append(self._outbox.end)

    def __len__(self) -> int:
        ends, taken = self._ends, self._outbox.taken
        while ends and ends[0] <= taken:
            ends.popleft()
        return len(ends)

    def when_half(self, callback: Callable[[], None]) -> None:
        """Call back later: when half of the messages that wait now are gone."""
        waiting = len(self)
        end = self._ends[waiting // 2] if waiting else self._outbox.taken
        self._outbox.when_taken(end, callback)


class ControllerConnection(OFConnection):
    """
    One OpenFlow connection to a controller.

    POX, in pox/datapaths/switch.py:
    - :1094 __init__() raises if the controller has gone already, and :1097 makes a logger for every
      connection, which is never freed.
    - :1119 read() ends the I/O of all datapaths when a message cannot be unpacked (:1151), or has
      another version (:1199).  At a message whose length is 0 it loops endlessly (:1151).
    - :1151 unpacks all messages, which costs 15 microseconds for a flow-mod.  Unpacking also loses
      wrong bytes of a message, to which Open vSwitch answers with an error.
    - :1112 send() does a look-up for every message, and :1244 close() leaves the socket open.

    Here: the message handler (see MessageHandler) is given bytes.  It raises OpenFlowError to have
    the message answered with that error.  A message of another version than 1.0 is answered here,
    unless the handler has it wait.

    io_worker: the worker of the socket, which is connected
    name: its name in the log
    service: True for a client that has connected to us, such as ovs-ofctl.  As with Open vSwitch,
        a client gets no asynchronous messages unless it asks for them with a miss_send_len.
    miss_send_len: as this controller has set it (OpenFlow 1.0.0, 5.3.2)
    role: the controller's Nicira role (NX_ROLE_*)
    greeted: True once the controller's hello has come
    heard: when the controller last sent something (seconds, monotonic)
    finished: True once the controller has sent its last message (see finish)
    settle: calls back when the switches have executed or refused all that they were sent
    processing: True while one of its messages is being handled
    dropped_packet_ins: packet-ins that were not sent, since it reads too slowly
    """

    def __init__(self, io_worker: RobustIOWorker, name: str, service: bool = False) -> None:
        OFConnection.ID += 1
        self.ID: int = OFConnection.ID
        self.io_worker = io_worker
        self.log = log
        self.name = name
        self.service = service
        self.controller_id: Optional[tuple[str, int]] = None
        with contextlib.suppress(OSError):
            self.controller_id = io_worker.socket.getpeername()
        self.miss_send_len = 0 if service else of.OFP_DEFAULT_MISS_SEND_LEN
        self.role = nx.NX_ROLE_OTHER
        self.greeted = False
        self.closed = False
        self.heard = 0.0
        self.finished = False
        self.settle: Callable[[Callable[[], None]], None] = lambda done: done()
        self._settled = False
        self.on_message_received: Optional[MessageHandler] = None
        self._received = b""
        self._held = False
        self._bypass_barrier: Optional[Callable[[bytes], bool]] = None
        self._withholds = True
        self._withheld: Optional[list[bytes]] = None  # None while no message has bypassed a barrier
        self._withheld_octets = 0
        self.processing = False
        self.dropped_packet_ins = 0
        assert io_worker.outbox is not None
        self._outbox = io_worker.outbox
        self._send_bytes = io_worker.outbox.send
        self._packet_ins = _Waiting(self._outbox)
        self._replies = _Waiting(self._outbox)
        self._pauses: set[When] = set()  # what handling its messages waits for
        self._accepted = 0  # bytes that the controller's machine had accepted when last looked at
        io_worker.rx_handler = self.read
        self.send(messages.HELLO)

    def __str__(self) -> str:
        return self.name

    def send(self, data: Any) -> None:
        """
        Send whole messages, or a message object of POX's; without effect on a closed connection.

        It counts as a reply: if too many of them wait, no more messages are read.
        """
        self._send_bytes(data if type(data) is bytes else data.pack())
        if self._outbox.blocked:
            self._replies.sent()
            if len(self._replies) >= _MOST_REPLIES:
                self.pause(self._replies.when_half)

    def close(self, reason: str = "closed") -> None:
        """Close the connection."""
        if not self.closed:
            self.closed = True
            level = logging.DEBUG if self.service else logging.INFO
            log.log(level, "%s: connection closed: %s", self, reason)
            self.io_worker.close()

    def lost(self, reason: str) -> None:
        """The connection has ended by itself.  The reason is empty if the controller closed it."""
        self.close(reason if reason and not self.finished else "by the controller")

    def finish(self) -> None:
        """
        The controller has sent its last message, but may still read (TCP half-close).

        It gets the answers to all that it has sent, also the switches' errors, and then the
        connection is closed.
        """
        self.finished = True
        if not self._held and not self._pauses:
            self._settle()

    def _settle(self) -> None:
        if not self._settled:
            self._settled = True
            self.hold()
            self.settle(self.release)
        else:
            self.close_if_answered()

    def close_if_answered(self) -> None:
        """Close a finished connection if all answers have been handed to the kernel."""
        if not self._held and not self._pauses:
            self._outbox.flush()
            if not self._outbox.backlog:
                self.close("by the controller")

    def set_role(self, role: int) -> None:
        """The controller has asked for a role (NX_ROLE_*), or another one has become the master."""
        self.role = role

    def set_miss_send_len(self, octets: int) -> None:
        """The controller has set its miss_send_len."""
        self.miss_send_len = octets

    # --- asynchronous messages -----------------------------------------------------------------

    def _wants(self, kind: int) -> bool:
        """True if this controller gets asynchronous messages of this type."""
        if not self.greeted or (self.service and not self.miss_send_len):
            return False
        return self.role != nx.NX_ROLE_SLAVE or kind == of.OFPT_PORT_STATUS

    def tell(self, kind: int, message: bytes) -> None:
        """
        Send an asynchronous message of this type, if this controller gets such messages.

        If a message has bypassed the pending barrier, the asynchronous message may be caused by it.
        It is sent after the barrier's reply then, unless too many bytes wait for that.
        """
        if not self._wants(kind):
            return
        if self._withheld is None:
            if self._outbox.blocked:
                self._tell_slow(kind, message)
            else:
                self._send_bytes(message)
            return
        self._withheld.append(message)
        self._withheld_octets += len(message)
        if self._withheld_octets > _MOST_WITHHELD:
            self._bypass_barrier = None  # no further message bypasses this barrier
            self._tell_withheld()

    def _tell_withheld(self) -> None:
        withheld, self._withheld = self._withheld, None
        self._withheld_octets = 0
        for message in withheld or ():
            self._tell_slow(message[1], message)

    def _tell_slow(self, kind: int, message: bytes) -> None:
        """
        Send an asynchronous message to a controller that may read too slowly.

        As in Open vSwitch (ofproto/connmgr.c), packet-ins are dropped if too many wait.  All others
        are sent; a FLOW_REMOVED counts as a reply, so that fewer flows are added which end later.
        """
        if kind == of.OFPT_FLOW_REMOVED:
            self.send(message)
        elif kind != of.OFPT_PACKET_IN or not self._outbox.blocked:
            self._send_bytes(message)
        elif len(self._packet_ins) < _MOST_PACKET_INS:
            self._send_bytes(message)
            self._packet_ins.sent()
        else:
            if not self.dropped_packet_ins:
                log.info("%s: reads too slowly: packet-ins for it are dropped", self)
            self.dropped_packet_ins += 1

    # --- controllers that are held back --------------------------------------------------------

    def pause(self, until: When) -> None:
        """
        Handle no further messages until `until` calls back, and read few.

        The message that is being handled is not affected.  There may be several pauses at once.
        """
        if until in self._pauses:
            return
        self._pauses.add(until)

        def go_on() -> None:
            self._pauses.remove(until)
            if not self._pauses and not self.processing:
                self._process()

        until(go_on)

    def not_read(self, patience: float) -> None:
        """
        Nothing is read at the moment, so the controller is not silent.

        If that is so because it does not read our replies, it has to read some from time to time,
        as with Open vSwitch, which sees no answer to its echo requests then.

        patience: after so many seconds in which it has read nothing, its connection is closed
        """
        now = time.monotonic()
        accepted = self._outbox.taken - self._outbox.unacknowledged
        if self._replies.when_half not in self._pauses or accepted != self._accepted:
            self._accepted = accepted
            self.heard = now
        elif patience_left(self.heard, patience) < 0:
            self.close("it does not read our replies")

    # --- waiting for an answer -----------------------------------------------------------------

    def hold(
        self,
        bypass_barrier: Optional[Callable[[bytes], bool]] = None,
        withholds: bool = True,
    ) -> None:
        """
        Handle no more messages until release(), since an answer is pending.

        bypass_barrier: is called with each message that comes meanwhile.  It handles the message
            and returns True if the message need not wait.  It returns False to stop bypassing at
            this message.
        withholds: False if what it handles causes no asynchronous messages, so that these need not
            wait for the answer
        """
        self._held = True
        self._withholds = withholds
        self._bypass_barrier = bypass_barrier

    def answer(self, answers: Iterable[bytes]) -> None:
        """
        Send the answer that has been pending since hold(), and release the connection.

        An empty message stands for a pause: the rest is made and sent in a later turn.
        """
        run_in_slices(self._answering(answers))

    def _answering(self, answers: Iterable[bytes]) -> Iterator[Optional[When]]:
        try:
            for message in answers:
                if self.closed:
                    break
                if message:
                    self.send(message)
                else:
                    yield self._outbox.when_room if self._outbox.stuck > CROWDED else None
        except Exception:
            self.release()
            raise
        self.release()

    def release(self) -> None:
        """Handle the messages that have come since hold(), and those that come from now on."""
        self._let_go()
        if not self.processing:
            self._process()

    def _let_go(self) -> None:
        self._held = False
        self._bypass_barrier = None
        self._tell_withheld()

    @property
    def wants_more(self) -> bool:
        """False while the controller is held back, or enough bytes wait behind a barrier."""
        return not self._pauses and (not self._held or len(self._received) < _MOST_AHEAD)

    # --- messages ------------------------------------------------------------------------------

    def read(self, io_worker: RobustIOWorker) -> bool:
        """Handle what the worker has received.  Return False if no more is to be read now."""
        data, io_worker.receive_buf = io_worker.receive_buf, b""
        self.heard = time.monotonic()
        self._received = self._received + data if self._received else data
        self._process()
        if _QUICKACK is not None:
            end_of_turn(self._acknowledge)
        return not self.closed and self.wants_more

    def _acknowledge(self) -> None:
        """
        Acknowledge at once what has been received.

        A controller without TCP_NODELAY, such as POX, holds its next message back until its last
        one is acknowledged.  That would take 40 ms.  Immediate answers have been sent by now.
        """
        with contextlib.suppress(OSError):
            self.io_worker.socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def _process(self) -> None:
        buffer, offset = self._received, 0
        available = len(buffer)
        pauses = self._pauses
        self.processing = True
        while (
            available - offset >= 8
            and not pauses
            and (not self._held or self._bypass_barrier is not None)
        ):
            length = buffer[offset + 2] << 8 | buffer[offset + 3]
            if length < 8 and self._held:
                break  # the messages before it are answered first
            if length < 8:
                self.close("a message that claims less than its header's length")
                break
            if available - offset < length:
                break
            message = buffer[offset : offset + length]
            if self._held:
                if not self._bypasses(message):
                    break
                offset += length
            elif (self.closed and message[1] not in _CHANGES) or self._message(message):
                offset += length
        self.processing = False
        if offset:
            self._received = buffer[offset:]
        if self.finished and not self._held and not self._pauses and not self.closed:
            self._settle()

    def _bypasses(self, message: bytes) -> bool:
        bypass = self._bypass_barrier
        assert bypass is not None
        try:
            bypasses = bypass(message)
        except Exception as e:  # the error is reported when it is the message's turn
            log.debug("%s: %s: %s", self, type(e).__name__, e, exc_info=True)
            return False
        if bypasses and self._held and self._withholds and self._withheld is None:
            self._withheld = []
        return bypasses

    def _message(self, message: bytes) -> bool:
        """Handle a message.  Return False if it has to be handled again."""
        version, kind = message[0], message[1]
        try:
            if not self.greeted:
                self._greeting(version, kind, message)
            elif self.on_message_received(self, message) is False:  # type: ignore[misc]
                return False
            elif version != of.OFP_VERSION:
                self._other_version(version, kind, message)
        except OpenFlowError as e:
            log.debug("%s: refused message type %d: %s", self, kind, e)
            self.send(e.reply(message))
        except Exception as e:
            # A fault of this program must not cost more than this message.
            log.error("%s: cannot handle message type %d: %s: %s", self, kind, type(e).__name__, e)
            log.debug("Details:", exc_info=True)
            self._let_go()
            self.send(OpenFlowError(of.OFPET_BAD_REQUEST, of.OFPBRC_EPERM).reply(message))
        return True

    def _greeting(self, version: int, kind: int, message: bytes) -> None:
        """Handle the first message, which has to be a hello."""
        if kind != of.OFPT_HELLO or version == 0:
            self.close("its first message is no hello")
            return
        theirs = versions_offered(message)
        if theirs and not theirs & 1 << of.OFP_VERSION:  # Open vSwitch accepts an empty bitmap
            self.send(hello_failed(theirs))
            self.close("it does not speak OpenFlow 1.0")
            return
        self.greeted = True
        log.log(logging.DEBUG if self.service else logging.INFO, "%s: connected", self)

    def _other_version(self, version: int, kind: int, message: bytes) -> None:
        """Answer a message whose version is not the negotiated one, as Open vSwitch does."""
        if kind == of.OFPT_ECHO_REQUEST and version:
            self.send(messages.echo_reply(message))
            return
        known = version in _VERSIONS_WITH_ERRORS
        code = of.OFPBRC_BAD_VERSION
        if kind == of.OFPT_ECHO_REPLY and version:
            return
        is_error = kind == of.OFPT_ERROR and len(message) >= 12
        if version and (is_error or kind == of.OFPT_HELLO):
            code = of.OFPBRC_BAD_TYPE
        error = OpenFlowError(of.OFPET_BAD_REQUEST, code)
        self.send(error.reply(message, version if known else of.OFP_VERSION))


def serve(
    connection: ControllerConnection, hello_timeout: float = _ECHO_INTERVAL + _ECHO_TIMEOUT
) -> Generator[Any, Any, None]:
    """
    Read a connection's messages until it is closed.  A task of POX's scheduler delegates to this.

    A controller that has sent nothing for _ECHO_INTERVAL is sent an echo request.  If it stays
    silent for _ECHO_TIMEOUT more, its connection is closed.  A client of --listen has
    _SERVICE_PROBE for both.  The connection is also closed if no hello comes within hello_timeout
    seconds.  A pause of this process is no silence: what has come meanwhile is read, and whoever
    has been asked has the whole time from then on.
    """
    worker = connection.io_worker
    interval, timeout = _ECHO_INTERVAL, _ECHO_TIMEOUT
    if connection.service:
        interval = timeout = _SERVICE_PROBE
    connection.heard = asked = begun = time.monotonic()
    while core.running and not connection.closed:
        if connection.finished:
            yield from _answer_the_rest(connection, timeout)
            return
        if not connection.wants_more:
            yield Sleep(_SHORT_WHILE)
            connection.not_read(interval + timeout)
            continue
        owes = asked > connection.heard
        if not connection.greeted:
            left = patience_left(begun, hello_timeout)
        elif owes:
            left = patience_left(asked, timeout)
        else:
            left = connection.heard + interval - time.monotonic()
        if left > 0:
            yield Serve(worker.socket, worker._do_recv, min(left, _LONGEST_SERVE))
        elif not connection.greeted:
            connection.close("no hello")
        elif owes:
            connection.close("no answer to an echo request")
        else:
            asked = time.monotonic()
            connection.send(messages.echo_request(0))
    connection.close("POX ends")


def _answer_the_rest(
    connection: ControllerConnection, patience: float
) -> Generator[Any, Any, None]:
    """
    Wait until a finished connection is closed.

    A controller that takes nothing of what waits for it, for `patience` seconds, is given up.
    """
    outbox = connection.io_worker.outbox
    assert outbox is not None
    waits, since = outbox.backlog, time.monotonic()
    while core.running and not connection.closed:
        yield Sleep(_SHORT_WHILE)
        connection.close_if_answered()
        if outbox.backlog != waits or not waits:
            waits, since = outbox.backlog, time.monotonic()
        elif patience_left(since, patience) < 0:
            connection.close("it does not read its answers")
    connection.close("POX ends")
