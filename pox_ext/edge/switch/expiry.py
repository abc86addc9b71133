"""
When flows come to their end by themselves.

Timeouts run on the switches, copy by copy.  This module decides what the end of a copy means for
the flow, and ends the flows of which no switch holds a copy that would tell.

It watches the hard timeouts of all flows.  A switch that hangs does not tell.  A switch that was
given its copy later can be up to a second late, since it knows whole seconds only.  A switch that
was given other actions lets the timeout begin anew.

A switch that is lost may go on forwarding, and use its copies, without anybody knowing.  As long as
it may come back, a flow that it may hold does not count as idle.
"""

import heapq
import itertools
import logging
import math
import time
from collections.abc import Iterable
from typing import Callable, Optional, Protocol

import pox.openflow.libopenflow_01 as of

from edge.openflow import match as matches
from edge.openflow import messages, stats
from edge.openflow.messages import PacketIn
from edge.openflow.text import match_text
from edge.south.gather import ask
from edge.south.member import Member
from edge.south.xids import new_xid
from edge.switch import garbage
from edge.switch.flowtable import FlowEntry, FlowTable

log = logging.getLogger("edge.expiry")

# A switch that has been lost for so long is taken for dead: what it may hold does not count any
# more.  It is also the time after which Open vSwitch forgets a MAC address (mac-aging-time).
DEAD = 300.0  # seconds


class EndFlows(Protocol):
    """Takes flows from everywhere, and tells the controllers."""

    def __call__(
        self, entries: list[FlowEntry], reason: int, told: Optional[Member] = None
    ) -> None:
        """
        reason: why they end (OFPRR_*)
        told: the switch that has told already that its copy is gone
        """


# When a hard timeout is up, a number that no other has, and the flow; empty once that has ended.
_Deadline = tuple[float, int, list[FlowEntry]]


class Expiry:
    """
    Ends flows that are idle, or whose time is up.

    homes: the switches that have to have a copy of a flow, ready or not
    cookie: the cookie of a flow on the switches
    put_back: puts a flow on a switch again
    end: takes flows from everywhere, and tells the controllers why (OFPRR_*); given the switch
        whose copy is gone already, if there is one
    """

    def __init__(
        self,
        table: FlowTable,
        homes: Callable[[FlowEntry], Iterable[Member]],
        cookie: Callable[[FlowEntry], int],
        put_back: Callable[[FlowEntry, Member], None],
        end: EndFlows,
    ) -> None:
        self._table = table
        self._homes = homes
        self._cookie = cookie
        self._put_back = put_back
        self._end = end
        self.rescued = 0  # packets that a table-miss rule took in the gap, and that went their way
        self._shared = 0  # flows with an idle timeout that may be on several switches
        # Flows of which no ready switch has a copy, and when they have been idle for their time.
        self._unheld: dict[FlowEntry, float] = {}
        self._unheld_due = math.inf  # none of them ends before that
        self._deadlines: list[_Deadline] = []  # a heap
        self._watched: dict[FlowEntry, _Deadline] = {}  # the flows that it is about
        self._serials = itertools.count()

    def added(self, entry: FlowEntry) -> None:
        """A flow is in the table now."""
        if _is_shared(entry):
            self._shared += 1
        if entry.hard_timeout:
            self._watch(entry)
        if entry.idle_timeout and not self._ready(entry):
            self._leave_unheld(entry, entry.created + entry.idle_timeout)

    def removed(self, entry: FlowEntry) -> None:
        """A flow is not in the table any more."""
        if _is_shared(entry):
            self._shared -= 1
        self._unheld.pop(entry, None)
        deadline = self._watched.pop(entry, None)
        if deadline is not None:
            deadline[2].clear()
            if len(self._deadlines) > 2 * len(self._watched) + 64:
                self._deadlines = list(self._watched.values())
                heapq.heapify(self._deadlines)

    def cleared(self) -> list[garbage.Emptiable]:
        """No flow is in the table any more; what was known of them is returned."""
        before: list[garbage.Emptiable] = [self._unheld, self._watched, self._deadlines]
        self._shared = 0
        self._unheld, self._watched, self._deadlines = {}, {}, []
        self._unheld_due = math.inf
        return before

    def lost(self, now: float) -> None:
        """A switch is lost: some flows may be on no ready switch any more."""
        for entry in self._table:
            if entry.idle_timeout and not self._ready(entry):
                self._leave_unheld(entry, now + max(entry.idle_timeout, DEAD))

    def _ready(self, entry: FlowEntry) -> list[Member]:
        return [member for member in self._homes(entry) if member.liveness.ready]

    def _leave_unheld(self, entry: FlowEntry, idle_end: float) -> None:
        self._unheld_due = min(self._unheld_due, self._unheld.setdefault(entry, idle_end))

    def _watch(self, entry: FlowEntry) -> None:
        deadline = self._watched[entry] = entry.hard_end, next(self._serials), [entry]
        heapq.heappush(self._deadlines, deadline)

    def put_on(self, entry: FlowEntry, member: Member) -> None:
        """A switch is given a copy of a flow that has been there for a while."""
        self.kept_on(entry)
        if entry.idle_timeout:
            entry.reinstalled(member.index)

    def kept_on(self, entry: FlowEntry) -> None:
        """A switch that has come back still has its copy."""
        self._unheld.pop(entry, None)

    def tick(self, now: float) -> None:
        """End the flows whose time is up though no switch says so."""
        over: list[FlowEntry] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            for entry in heapq.heappop(self._deadlines)[2]:
                del self._watched[entry]
                if entry.hard_end <= now:
                    over.append(entry)
                else:
                    self._watch(entry)  # it was modified meanwhile
        self._end(over, of.OFPRR_HARD_TIMEOUT)
        if self._unheld_due > now:
            return
        self._unheld_due = math.inf
        for entry, idle_end in list(self._unheld.items()):
            if idle_end <= now:
                self._end([entry], of.OFPRR_IDLE_TIMEOUT)
            else:
                self._unheld_due = min(self._unheld_due, idle_end)

    def copy_idle(self, member: Member, entry: FlowEntry, packets: int) -> None:
        """
        A copy has been idle for its time.  The flow has been if all its copies have: otherwise
        it is put back (at once: packets may come), until the last one is idle too.

        packets: what the copy had counted
        """
        if packets:
            entry.used_on(member.index)
        too_early = _too_early(entry)
        if not too_early and self._is_idle_without(member, entry):
            self._end([entry], of.OFPRR_IDLE_TIMEOUT, member)
            return
        self._put_back(entry, member)
        self.put_on(entry, member)
        if not too_early:
            self._ask(member, entry)

    def ended_while_lost(self, member: Member, entry: FlowEntry) -> bool:
        """
        A switch that has come back, and had this flow when it was lost, has it no more: its hard
        timeout was up there, or it was idle there.  False if it has to be put on it again.
        """
        now = time.monotonic()
        if entry.hard_timeout:
            if entry.hard_end <= now:
                self._end([entry], of.OFPRR_HARD_TIMEOUT, member)
                return True
            if entry.created + entry.hard_timeout <= now:
                return False  # its time was up there, since it was not told that it began anew
        put_at = entry.created
        if entry.is_reinstalled_on(member.index):
            put_at = max(put_at, member.liveness.up_since)
        if put_at + entry.idle_timeout > now:
            return False  # it has not got there
        if self._is_idle_without(member, entry):
            self._end([entry], of.OFPRR_IDLE_TIMEOUT, member)
            return True
        self._ask(member, entry)
        return entry not in self._table

    def _is_idle_without(self, member: Member, entry: FlowEntry) -> bool:
        """True if no other switch can have used a flow within its time, nor have we."""
        now = time.monotonic()
        return entry.last_gap_hit + entry.idle_timeout <= now and not any(
            other.liveness.ready or _may_hold(other, entry, now)
            for other in self._homes(entry)
            if other is not member
        )

    def _ask(self, member: Member, entry: FlowEntry) -> None:
        """
        End a flow that is idle on a switch if all the others say that it is idle there; and the
        switch itself, that what was put back has not been used since.
        """
        others = self._ready(entry)
        in_use: list[bool] = []
        asked_at = time.monotonic()
        cookie = self._cookie(entry)

        def take(other: Member, kind: int, message: bytes) -> None:
            if kind != of.OFPT_STATS_REPLY:
                unknown(other)
                return
            for flow in stats.parse_flows(message):
                unused = entry.is_reinstalled_on(other.index) and not flow.packets
                in_use.append(not unused and flow.idle_age < entry.idle_timeout)

        def unknown(other: Member) -> None:
            in_use.append(True)  # for all that we know

        def done() -> None:
            # When in doubt it stays, and we ask again when its time is up again on some switch.
            now = time.monotonic()
            if entry not in self._table or any(in_use):
                return
            if entry.last_gap_hit + entry.idle_timeout > now:
                return
            if any(other.liveness.stalled_at > asked_at for other in others):
                return  # what the others have said was true before
            if any(
                other.liveness.ready or _may_hold(other, entry, now)
                for other in self._homes(entry)
                if other is not member and other not in others
            ):
                return
            if log.isEnabledFor(logging.DEBUG):
                log.debug(
                    "flow priority=%d %s: idle on all switches; asked %.4f s after it was added",
                    entry.priority,
                    match_text(entry.match.wire),
                    asked_at - entry.created,
                )
            self._end([entry], of.OFPRR_IDLE_TIMEOUT)

        requests = [(other, lambda xid: stats.dump_flows(xid, cookie)) for other in others]
        ask(requests, take, done, unknown)

    @property
    def has_gaps(self) -> bool:
        """False if forward_in_gap() has nothing to do for any packet."""
        return self._shared > 0

    def forward_in_gap(
        self, member: Member, packet: PacketIn, in_port: int, taker: Optional[FlowEntry]
    ) -> bool:
        """
        A packet that a flow would have matched, had its copy on this switch not just expired
        while the flow is in use on others: it goes the flow's way.  False if it is none.

        in_port: the aggregator port where it entered
        taker: the flow that has sent it to the controller, None for the table-miss rule
        """
        if not self._shared or (taker is not None and not _only_to_controller(taker)):
            return False
        entry = self._table.lookup(matches.of_frame(packet.data, in_port))
        if entry is None or entry is taker or not _is_shared(entry):
            return False
        now = time.monotonic()
        if now < entry.created + entry.idle_timeout:
            return False  # no copy can have been idle for its time: the packet was there before it
        if taker is not None:
            if entry.priority == taker.priority:
                return False  # either may take it
            taker.count(-1, -packet.total_len)
        else:
            self.rescued += 1
        entry.hit_in_gap(packet.total_len, now)
        actions = member.translations.translated_or_none(entry.actions)
        member.session.send(messages.packet_out(new_xid(), packet.in_port, actions, packet.data))
        return True


def _hard_end(entry: FlowEntry) -> float:
    return entry.modified + entry.hard_timeout


def _too_early(entry: FlowEntry) -> bool:
    """
    True if a flow is too young to be idle.

    A copy that falls idle so early has taken the place of another flow's with the same match, which
    was there from before its switch was lost; Open vSwitch has it inherit when that was used.
    """
    return entry.first_added + entry.idle_timeout > time.monotonic()


def _may_hold(member: Member, entry: FlowEntry, now: float) -> bool:
    """True if a lost switch may hold a flow, use it, and come back."""
    return (
        not member.liveness.ready
        and entry.created <= member.liveness.lost_at
        and now < member.liveness.lost_at + DEAD
    )


def _only_to_controller(entry: FlowEntry) -> bool:
    """True for what is a table-miss rule of the controller's own, or might be."""
    return len(entry.actions.wire) == 8 and of.OFPP_CONTROLLER in entry.actions.outputs


def _is_shared(entry: FlowEntry) -> bool:
    return bool(entry.idle_timeout) and entry.match.in_port is None
