"""
The session with one switch: its connection, its requests, and whether it still answers.

Liveness decides; it is told the time and does no I/O.  Session has the connection, and sends all
messages to the switch.
"""

import enum
import itertools
import logging
import math
import time
from collections import OrderedDict
from typing import Callable, NamedTuple, Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow import messages
from edge.poxfixes import EdgeConnection, end_of_turn
from edge.poxfixes.outbox import CROWDED
from edge.south.complaints import Complaints
from edge.south.xids import new_xid

log = logging.getLogger("edge.member")

# How often a silent switch is asked whether it is there again, and for how long.
_ASK_AGAIN, _LONGEST_SILENCE = 1.0, 60.0  # seconds
# A switch that owes an answer, and sends nothing for longer than this, has stalled.
_STALL = 0.5  # seconds
# Open vSwitch answers nothing while so many FLOW_REMOVED wait to be sent (OFCONN_REPLY_MAX in its
# ofproto/connmgr.c).  So many within this time show that it may be so.
_MANY_REPORTS, _REPORTS_TIME = 100, 1.0  # seconds
# Once what we send reaches the switch's machine again, an answer takes no longer than this.
_MENDED = 0.25  # seconds

ANSWERS = frozenset(
    (
        of.OFPT_ERROR,
        of.OFPT_FEATURES_REPLY,
        of.OFPT_ECHO_REPLY,
        of.OFPT_STATS_REPLY,
        of.OFPT_BARRIER_REPLY,
        of.OFPT_QUEUE_GET_CONFIG_REPLY,
    )
)


class State(str, enum.Enum):
    """The state of a switch; the values are used in the dashboard's JSON."""

    CONNECTING = "connecting"
    SYNCING = "syncing"
    UP = "up"
    SILENT = "silent"
    GONE = "gone"


class Verdict(enum.Enum):
    """What a Session has to do about its switch."""

    FINE = enum.auto()
    ASK = enum.auto()  # send it an echo request
    FALL_SILENT = enum.auto()  # it counts as lost; keep its connection
    CLOSE = enum.auto()  # close its connection


class Liveness:
    """
    Whether a switch is connecting, syncing, up, silent or gone.

                   connected()            flows_read()           synced()
            GONE -------------> CONNECTING ----------> SYNCING -------------> UP
             ^  ^                 |  ^  |                 |                   |
             |  |     lost()      |  |  |                 |                   |
             |  +-----------------+--|--|-----------------+-------------------+
             |                       |  |                 |                   |
             |           connected() |  | fell_silent()   |                   |
             |                       |  v                 v                   |
             +---------------------- SILENT <-----------------------------------+
                     lost()

    CONNECTING: its OpenFlow handshake is done, and it is asked for its ports and flows.
    SYNCING: it is sent every change, and is being sent what it lacked when it connected.
    UP: it is sent every change, and has been sent all that it lacked.
    SILENT: it does not answer.  It counts as lost, but its connection is kept.  A switch that hung,
        or whose cable was cut for a moment, sends on this connection as soon as it goes on.
    GONE: it has no connection.

    state: the present state
    ready: True in SYNCING and UP
    compared_at: when its flow entries were last compared with the wanted ones
    lost_at: when it last stopped being ready; -inf if it never has
    stalled_at: when it last sent something after a stall (see _STALL); -inf if it never stalled
    All times are in seconds on the monotonic clock.

    A pause of this process is no silence of the switch.  The verdicts are told when the last pause
    ended (awake_since); a switch that owed an answer then has all its time from then on.
    """

    def __init__(self) -> None:
        self.state = State.GONE
        self.ready = False
        self.compared_at = self.lost_at = self.stalled_at = -math.inf
        self._answered_at = self._heard_at = 0.0
        self._stuck = 0
        self._silent_since = self._asked_at = self._cut_until = 0.0

    def _enter(self, state: State) -> None:
        self.state = state
        self.ready = state in (State.SYNCING, State.UP)

    # --- transitions ---------------------------------------------------------------------------

    def connected(self) -> None:
        """A connection's handshake is done, or a silent switch answers."""
        self._enter(State.CONNECTING)

    def flows_read(self) -> None:
        """The switch has sent its flow entries."""
        self._enter(State.SYNCING)

    def compared(self, now: float) -> None:
        """Its flow entries have been compared with the wanted ones; it is sent the difference."""
        self.compared_at = now

    def synced(self) -> None:
        """The switch has been sent all that it lacked."""
        self._enter(State.UP)

    def lost(self, now: float) -> None:
        """The switch's connection is closed, or is not used any more."""
        if self.ready:
            self.lost_at = now
        self._enter(State.GONE)

    def fell_silent(self, now: float) -> None:
        """The switch is lost since it does not answer, and its connection is kept."""
        if self.ready:
            self.lost_at = now
        self._enter(State.SILENT)
        self._silent_since = self._asked_at = now
        self._cut_until = math.inf

    # --- what is heard -------------------------------------------------------------------------

    def asked(self, now: float) -> None:
        """A request has been sent to the switch, which owed no answer before."""
        self._answered_at = self._heard_at = now

    def heard(self, now: float, owes: bool) -> None:
        """
        The switch has sent something that shows that it is working.

        owes: True if there is a request that it has not answered
        """
        if owes and now - self._heard_at > _STALL:
            self.stalled_at = now
        self._heard_at = now

    def answered(self, now: float) -> None:
        """The switch has answered a request."""
        self._answered_at = now

    # --- verdicts ------------------------------------------------------------------------------

    def watch(
        self, now: float, awake_since: float, timeout: float, owes: bool, stuck: int
    ) -> Verdict:
        """
        Judge a switch that has a connection.

        Two things show that a switch receives what it is sent: it answers, or it reads bytes that
        wait for it.  Messages that nobody asked for do not show it.

        awake_since: when the last pause of this process ended
        timeout: seconds after which a switch that does not answer is lost
        owes: True if there is a request that it has not answered
        stuck: bytes that wait to be sent, since the switch reads too slowly
        """
        before, self._stuck = self._stuck, stuck
        if stuck < before:
            self._answered_at = now
        silence = self.silence(now)
        if not owes:
            return Verdict.FINE if silence < timeout / 3 else Verdict.ASK
        if min(silence, now - awake_since) < timeout:
            return Verdict.FINE
        # As long as a switch is silent, the bytes that wait would have to be kept.
        return Verdict.CLOSE if stuck else Verdict.FALL_SILENT

    def silence(self, now: float) -> float:
        """Seconds since the last answer, or since a request when no answer was owed."""
        return now - self._answered_at

    def watch_silent(
        self, now: float, awake_since: float, stuck: int, unacknowledged: int
    ) -> tuple[Verdict, str]:
        """
        Judge a silent switch; the second value says why its connection is to be closed.

        awake_since: when the last pause of this process ended
        stuck: bytes that wait to be sent, since the switch reads too slowly
        unacknowledged: bytes that the TCP of its machine has not acknowledged
        """
        silence = now - max(self._silent_since, awake_since)
        if silence >= _LONGEST_SILENCE or stuck:
            return Verdict.CLOSE, "silent for too long"
        if unacknowledged:
            self._cut_until = now  # the way to it is cut, until now at least
        elif max(self._cut_until, awake_since) + _MENDED < now:
            # Its machine receives what we send again.  But its kernel delays the switch's answers
            # until it retransmits the lost packets.  That can take as long as the cut has taken.  A
            # new connection is faster.
            return Verdict.CLOSE, "the way to it was cut, and it still does not answer"
        elif now - self._asked_at >= _ASK_AGAIN:
            self._asked_at = now
            return Verdict.ASK, ""
        return Verdict.FINE, ""


class _Request(NamedTuple):
    """An unanswered request: the functions to call with an answer, and if none will come."""

    answer: Callable[[int, bytes], bool]
    lost: Callable[[], None]


Intercept = Callable[[int, bytes], bool]


class Session:
    """
    The connection to one switch, and the requests on it.

    name: the name of the switch in the log
    complaints: tells the operator what is wrong with it
    received: is called with the type and the bytes of each message; returns False to leave the
        message to POX
    hear_again: is called in place of `received` for messages of a silent switch
    lost: is called when the switch is lost, with whether it was ready, and the reason
    crowded: is called whenever something is sent while too much waits, because the switch reads too
        slowly; whoever has it sent should be held back then (see `when_room`)
    """

    def __init__(
        self,
        name: str,
        complaints: Complaints,
        received: Intercept,
        hear_again: Intercept,
        lost: Callable[[bool, str], None],
        crowded: Callable[[], None],
    ) -> None:
        self.liveness = Liveness()
        self.connection: Optional[EdgeConnection] = None
        self._name = name
        self._complaints = complaints
        self._received = received
        self._hear_again = hear_again
        self._lost = lost
        self._crowded = crowded
        self._silent: Optional[EdgeConnection] = None  # kept while the state is SILENT
        # By xid, the oldest first.  (To find the first item of a dict takes the longer, the more
        # items have been deleted before it.)
        self._requests: OrderedDict[int, _Request] = OrderedDict()
        self._reports, self._reports_since = 0, 0.0  # see reported()
        # Messages that change something are numbered.  _sent is the number of the last that was
        # sent, _done of the last that the switch is known to have executed, _configured of the last
        # that changed its configuration, _sent_before_dump of the last before its flow entries were
        # asked for.
        self._sent = self._done = self._configured = self._sent_before_dump = 0

    # --- connection ----------------------------------------------------------------------------

    def connect(self, connection: EdgeConnection) -> None:
        """Use a connection whose handshake is done; the connection of a silent switch is closed."""
        silent, self._silent = self._silent, None
        if silent is not None and silent is not connection:
            silent.disconnect("taken over by a new connection")
        self.connection = connection
        connection.intercept = self._received
        connection.crowded = self._crowded
        self.liveness.connected()

    def silent_connection(self) -> EdgeConnection:
        """Return the connection of a switch that was silent and answers now."""
        assert self._silent is not None, "only a silent switch is heard again"
        return self._silent

    def closed(self, connection: EdgeConnection) -> None:
        """A connection is closed; perhaps it was that of this switch."""
        if connection is self._silent:
            self._silent = None
            self.liveness.lost(time.monotonic())
        elif connection is self.connection:
            was_ready = self.liveness.ready
            self.liveness.lost(time.monotonic())
            self._end(was_ready, connection.reason)

    def disconnect(self, reason: str) -> None:
        """Close the connection, if there is one."""
        if self.connection is not None:
            self.connection.disconnect(reason)

    def _end(self, was_ready: bool, reason: str) -> None:
        """
        Tell everybody who waits for the switch that it is lost.

        They may give it a new connection, if one has been waiting for the end of this one.
        """
        self.connection = None
        requests, self._requests = self._requests, OrderedDict()
        for request in requests.values():
            try:
                request.lost()
            except Exception as e:  # the others must be told all the same
                log.error("%s: %s: %s", self._name, type(e).__name__, e)
                log.debug("Details:", exc_info=True)
        self._lost(was_ready, reason)

    # --- liveness ------------------------------------------------------------------------------

    def watch(self, now: float, awake_since: float, timeout: float) -> None:
        """
        Have Liveness judge the switch, and act accordingly.  To be called some ten times a second.

        awake_since: when the last pause of this process ended
        timeout: seconds after which a switch that does not answer is lost
        """
        if self.connection is None:
            self._watch_silent(now, awake_since)
            return
        stuck = self.connection.stuck
        if stuck:
            # The kernel's own buffer holds megabytes, of which a slow line takes some seconds.
            stuck += self.connection.unacknowledged
        verdict = self.liveness.watch(now, awake_since, timeout, bool(self._requests), stuck)
        if verdict is Verdict.FINE:
            return
        if verdict is Verdict.ASK:
            self.request(messages.echo_request, lambda kind, message: True, lambda: None)
            return
        reason = f"it has not answered for {self.liveness.silence(now):.0f} s"
        if verdict is Verdict.CLOSE:
            self.connection.disconnect(reason)
        else:
            self._fall_silent(reason, now)

    def _fall_silent(self, reason: str, now: float) -> None:
        """
        Treat the switch as lost, but keep its connection.

        Open vSwitch does not know that it counts as lost.  If the connection were closed, it would
        let some time pass before it made another one.
        """
        silent = self.connection
        assert silent is not None
        was_ready = self.liveness.ready
        self._silent = silent
        silent.intercept = self._hear_again
        self.liveness.fell_silent(now)
        self._end(was_ready, reason)

    def _watch_silent(self, now: float, awake_since: float) -> None:
        silent = self._silent
        if silent is None:
            return
        verdict, reason = self.liveness.watch_silent(
            now, awake_since, silent.stuck, silent.unacknowledged
        )
        if verdict is Verdict.CLOSE:
            silent.disconnect(reason)
        elif verdict is Verdict.ASK:
            silent.send(messages.echo_request(new_xid()))

    # --- what is sent --------------------------------------------------------------------------

    def send(self, data: bytes, changes: bool = True) -> None:
        """
        Send messages; without effect if the switch is not connected.

        changes: False for messages without effect on anything that is sent later
        """
        if self.connection is not None:
            self._sent += changes
            self.connection.send(data)

    @property
    def position(self) -> int:
        """The position of the last message that was sent, counted over all connections."""
        return self._sent

    @property
    def executed(self) -> int:
        """The position of the last message that the switch is known to have executed."""
        return self._done

    @property
    def crowded(self) -> bool:
        """True if so much waits for the switch that whoever sends it more should wait."""
        return self.connection is not None and self.connection.stuck > CROWDED

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call back later: when the switch has taken most of what waits for it, or is lost."""
        if self.connection is not None:
            self.connection.when_room(callback)
        else:
            end_of_turn(callback)

    def configure(self, data: bytes) -> bool:
        """
        Send a message that changes how the switch treats packets (see `barrier`).

        Returns False if the switch is not connected.
        """
        self.send(data)
        self._configured = self._sent
        return self.connection is not None

    def request(
        self,
        build: Callable[[int], bytes],
        answer: Callable[[int, bytes], bool],
        lost: Callable[[], None],
    ) -> None:
        """
        Send a request.

        build: makes the message for a transaction id
        answer: is called with the type and the bytes of each message that answers the request;
            returns True if that was the last
        lost: is called if the connection is lost before the last answer
        """
        if self.connection is None:
            lost()
            return
        if not self._requests:
            self.liveness.asked(time.monotonic())
        xid = new_xid()
        self._requests[xid] = _Request(answer, lost)
        self.connection.send(build(xid))

    def barrier(self, done: Callable[[], None]) -> None:
        """Call done() when the switch has executed all that it was sent before, or is lost."""
        sent = self._sent

        def answer(kind: int, message: bytes) -> bool:
            self._done = max(self._done, sent)
            done()
            return True

        def again(kind: int, message: bytes) -> bool:
            # Open vSwitch answers a barrier before a new configuration is in force for packets: it
            # is in force from the next round of the main loop.  So send a second barrier.
            self.request(messages.barrier_request, answer, done)
            return True

        self.request(messages.barrier_request, again if self.configuring else answer, done)

    @property
    def congested(self) -> bool:
        """True while bytes wait to be sent, since the switch reads too slowly."""
        return self.connection is not None and self.connection.stuck > 0

    @property
    def settled(self) -> bool:
        """True if barriers have shown that the switch has executed all that it was sent."""
        return self._sent <= self._done

    @property
    def configuring(self) -> bool:
        """True if the newest configuration may not be in force on the switch yet."""
        return self._configured > self._done

    def flows_asked(self) -> None:
        """The switch is asked for its flow entries now (see `flows_told`)."""
        self._sent_before_dump = self._sent

    def flows_told(self) -> None:
        """The switch has sent its flow entries, so it has executed what came before the request."""
        self._done = max(self._done, self._sent_before_dump)
        self.liveness.flows_read()

    # --- what is received ----------------------------------------------------------------------

    def heard(self) -> float:
        """The switch has sent something that shows that it is working.  Returns the time."""
        now = time.monotonic()
        self.liveness.heard(now, bool(self._requests))
        return now

    def reported(self) -> None:
        """
        The switch has sent a FLOW_REMOVED.

        On a slow line, Open vSwitch may be busy with them for long, and answer nothing.  So many of
        them count as an answer, if its machine has received all that was sent to it.
        """
        now = self.heard()
        self._reports += 1
        if self._reports == _MANY_REPORTS:
            connection = self.connection
            quick = now - self._reports_since < _REPORTS_TIME
            if quick and connection is not None and not connection.unacknowledged:
                self.liveness.answered(now)
            self._reports, self._reports_since = 0, now

    def obeyed(self) -> None:
        """
        The switch has sent a FLOW_REMOVED of a flow that it was told to delete.

        That shows as well as an answer that it receives what it is sent.
        """
        self.liveness.answered(time.monotonic())

    def answered(self, xid: int, kind: int, message: bytes) -> bool:
        """Pass a message to the request that it answers.  Returns False if it answers none."""
        request = self._requests.get(xid)
        if request is None or kind not in ANSWERS:
            return False
        self.liveness.answered(self.heard())
        for older in list(itertools.takewhile(lambda each: each != xid, self._requests)):
            # Switches answer in order, so this one will not be answered any more.
            self._complaints.happened("unanswered", lambda: "leaves a request unanswered")
            self._requests.pop(older).lost()
        try:
            last = request.answer(kind, message)
        except Exception:
            # Whoever waits for this must not wait for ever.
            self._requests.pop(xid, None)
            request.lost()
            raise
        if last:
            self._requests.pop(xid, None)
        return True
