"""
Flows that end by an idle timeout or a hard timeout.

The timeouts run on the switches, for each copy of a flow.  This module decides what the end of a
copy means for the flow.  It also ends flows of which no ready switch holds a copy, since no switch
reports the end of these.

It watches the hard timeouts of all flows itself, for three reasons.  A switch that hangs reports
nothing.  A switch that was sent its copy later can end it up to a second late, since timeouts are
in whole seconds.  A switch that is sent other actions restarts the hard timeout.

A lost switch may go on forwarding by its copies, and cannot report it.  While it may still come
back, a flow that it may hold does not count as idle.
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
from edge.openflow import stats
from edge.openflow.messages import PacketIn
from edge.openflow.text import match_text
from edge.poxfixes import awake_since
from edge.south.gather import ask
from edge.south.member import Member
from edge.switch import garbage
from edge.switch.flowtable import FlowEntry, FlowTable

log = logging.getLogger("edge.expiry")

# A switch that has been lost for so long counts as dead: copies that it may hold are ignored.  Open
# vSwitch forgets a MAC address after the same time (mac-aging-time).
DEAD = 300.0  # seconds


class EndFlows(Protocol):
    """Deletes flows from the table and from all switches, and tells the controllers."""

    def __call__(
        self, entries: list[FlowEntry], reason: int, told: Optional[Member] = None
    ) -> None:
        """
        reason: why they end (OFPRR_*)
        told: the switch that has reported already that its copy has ended
        """


# When a hard timeout runs out (seconds, monotonic), a unique number, and a list with the flow.  The
# list is emptied when the flow ends.
_Deadline = tuple[float, int, list[FlowEntry]]


class Expiry:
    """
    Ends flows whose idle or hard timeout has run out.

    homes: the switches that have to have a copy of a flow, ready or not
    cookie: the cookie of a flow on the switches
    put_back: sends a switch its copy of a flow again
    end: see EndFlows
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
        self.rescued = 0  # table-miss packet-ins that hit_in_gap() has found a flow for
        self._shared = 0  # flows with an idle timeout that may be on several switches
        # Flows with an idle timeout of which no ready switch has a copy, and when they end as idle.
        self._unheld: dict[FlowEntry, float] = {}
        self._unheld_due = math.inf  # none of them ends before that
        # Flows whose hard timeout has run out, with the switches that have told later that their
        # copies were idle before.
        self._idle_late: dict[FlowEntry, set[Member]] = {}
        self._deadlines: list[_Deadline] = []  # a heap
        self._watched: dict[FlowEntry, _Deadline] = {}  # each flow's item in the heap
        self._serials = itertools.count()

    def added(self, entry: FlowEntry) -> None:
        """A flow has been put into the table."""
        if _is_shared(entry):
            self._shared += 1
        if entry.hard_timeout:
            self._watch(entry)
        if entry.idle_timeout and not self._ready(entry):
            self._leave_unheld(entry, entry.created + entry.idle_timeout)

    def removed(self, entry: FlowEntry) -> None:
        """A flow has been taken out of the table."""
        if _is_shared(entry):
            self._shared -= 1
        self._unheld.pop(entry, None)
        self._idle_late.pop(entry, None)
        deadline = self._watched.pop(entry, None)
        if deadline is not None:
            deadline[2].clear()
            if len(self._deadlines) > 2 * len(self._watched) + 64:
                self._deadlines = list(self._watched.values())
                heapq.heapify(self._deadlines)

    def cleared(self) -> list[garbage.Emptiable]:
        """All flows have been taken out of the table.  Returns the old collections, to be freed."""
        before: list[garbage.Emptiable] = [
            self._unheld,
            self._idle_late,
            self._watched,
            self._deadlines,
        ]
        self._shared = 0
        self._unheld, self._idle_late, self._watched, self._deadlines = {}, {}, {}, []
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
        """A switch is sent its copy of a flow that controllers added earlier."""
        self.kept_on(entry)
        if entry.idle_timeout:
            entry.reinstalled(member.index)

    def kept_on(self, entry: FlowEntry) -> None:
        """A reconnected switch still has its copy of a flow."""
        self._unheld.pop(entry, None)

    def tick(self, now: float) -> None:
        """End the flows whose timeout has run out without a report from a switch."""
        over: list[FlowEntry] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            for entry in heapq.heappop(self._deadlines)[2]:
                del self._watched[entry]
                if entry.hard_end <= now:
                    over.append(entry)
                else:
                    self._watch(entry)  # a MODIFY has restarted the timeout
        self._end(over, of.OFPRR_HARD_TIMEOUT)
        if self._unheld_due > now:
            return
        self._unheld_due = math.inf
        for entry, idle_end in list(self._unheld.items()):
            if idle_end > now:
                self._unheld_due = min(self._unheld_due, idle_end)
                continue
            holders = [member for member in self._homes(entry) if _may_hold(member, entry, now)]
            if holders:  # there was a pause: they could not come back in that time
                self._unheld[entry] = idle_end = max(map(_dead_at, holders))
                self._unheld_due = min(self._unheld_due, idle_end)
            else:
                self._end([entry], of.OFPRR_IDLE_TIMEOUT)

    def copy_idle(self, member: Member, entry: FlowEntry, packets: int, seconds: int) -> None:
        """
        A copy has ended by its idle timeout: end the flow, or put the copy back.

        A flow is idle only when all its copies are idle.  Until then the copy is put back, and at
        once, since packets may come.

        packets: the packets that the copy has counted
        seconds: how long the copy was on the switch, by its clock
        """
        if packets:
            entry.used_on(member.index)
        too_early = seconds < entry.idle_timeout and _too_early(entry)
        if not too_early and self._is_idle_without(member, entry):
            self._end([entry], of.OFPRR_IDLE_TIMEOUT, member)
            return
        self._put_back(entry, member)
        self.put_on(entry, member)
        if too_early:
            return
        if entry.hard_timeout and entry.hard_end <= time.monotonic():
            self._idle_before_hard_end(member, entry)
        else:
            self._ask(member, entry)

    def _idle_before_hard_end(self, member: Member, entry: FlowEntry) -> None:
        """
        A copy has been idle before the hard timeout, but that has run out since (after a pause).

        The flow ends now in any case.  It ends as idle if all its copies were.  Otherwise tick()
        ends it, when all that has come in the pause is read.
        """
        idle_on = self._idle_late.setdefault(entry, set())
        idle_on.add(member)
        now = time.monotonic()
        if not any(
            other.liveness.ready or _may_hold(other, entry, now)
            for other in self._homes(entry)
            if other not in idle_on
        ):
            self._end([entry], of.OFPRR_IDLE_TIMEOUT)

    def ended_while_lost(self, member: Member, entry: FlowEntry) -> bool:
        """
        A reconnected switch has lost its copy of a flow: end the flow if its timeout has run out.

        The switch was sent the copy before it was lost.  So the copy has ended there by its hard
        timeout or its idle timeout, or had never reached the switch.

        Returns False if the switch has to be sent its copy again.
        """
        now = time.monotonic()
        if entry.hard_timeout:
            if entry.hard_end <= now:
                self._end([entry], of.OFPRR_HARD_TIMEOUT, member)
                return True
            if entry.created + entry.hard_timeout <= now:
                return False  # it ran out there: the switch missed the MODIFY that restarted it
        if not entry.idle_timeout:
            return False  # too early: the copy never reached the switch
        put_at = entry.created
        if entry.is_reinstalled_on(member.index):
            put_at = max(put_at, member.liveness.compared_at)
        if put_at + entry.idle_timeout > now:
            return False  # too early to be idle: the copy never reached the switch
        if self._is_idle_without(member, entry):
            self._end([entry], of.OFPRR_IDLE_TIMEOUT, member)
            return True
        self._ask(member, entry)
        return entry not in self._table  # if nobody had to be asked, it has ended already

    def _is_idle_without(self, member: Member, entry: FlowEntry) -> bool:
        """True if nothing but this switch can have used a flow within its idle timeout."""
        now = time.monotonic()
        return entry.last_gap_hit + entry.idle_timeout <= now and not any(
            other.liveness.ready or _may_hold(other, entry, now)
            for other in self._homes(entry)
            if other is not member
        )

    def _ask(self, member: Member, entry: FlowEntry) -> None:
        """
        End a flow that was idle on a switch, if all ready switches say that it is idle.

        The switch itself is asked, too: the copy that was put back may have been used since.
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
            in_use.append(True)  # without an answer, the flow counts as in use

        def done() -> None:
            # In doubt the flow stays; the switches are asked again when a copy next ends as idle.
            now = time.monotonic()
            if entry not in self._table or any(in_use):
                return
            if entry.last_gap_hit + entry.idle_timeout > now:
                return
            if any(other.liveness.stalled_at > asked_at for other in others):
                return  # a switch has answered late, so the other answers are outdated
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
        """False if hit_in_gap() has nothing to do for any packet."""
        return self._shared > 0

    def hit_in_gap(
        self, packet: PacketIn, in_port: int, taker: Optional[FlowEntry]
    ) -> Optional[FlowEntry]:
        """
        The flow that a packet-in would have matched, had the flow's copy not just expired.

        While a flow is in use on other switches, its copy on one switch may be missing for a
        moment.  Another flow or the table-miss rule then sends the packet to the controller.  The
        packet counts for the flow, and has to be forwarded by it.

        in_port: the aggregator port where the packet entered
        taker: the flow that has sent the packet to the controller, None for the table-miss rule

        Returns None if the packet is for the controller.
        """
        if not self._shared or (taker is not None and not _only_to_controller(taker)):
            return None
        entry = self._table.lookup(matches.of_frame(packet.data, in_port))
        if entry is None or entry is taker or not _is_shared(entry):
            return None
        now = time.monotonic()
        if now < entry.created + entry.idle_timeout:
            return None  # no copy can have expired yet: the packet came before the flow
        if taker is not None:
            if entry.priority == taker.priority:
                return None  # either flow may match the packet
            taker.count(-1, -packet.total_len)
        else:
            self.rescued += 1
        entry.hit_in_gap(packet.total_len, now)
        return entry


def _too_early(entry: FlowEntry) -> bool:
    """
    True if a flow is too young to be idle.

    A copy ends so early if it has replaced an older flow entry with the same match, which had been
    on the switch since before it was lost.  In Open vSwitch the new flow entry inherits the
    time of last use from the old one.
    """
    return entry.first_added + entry.idle_timeout > time.monotonic()


def _may_hold(member: Member, entry: FlowEntry, now: float) -> bool:
    """True if a lost switch may still hold and use a flow, and may still come back."""
    return (
        not member.liveness.ready
        and entry.created <= member.liveness.lost_at
        and now < _dead_at(member)
    )


def _dead_at(member: Member) -> float:
    """When a lost switch counts as dead.  While this process is paused, no switch can come back."""
    return max(member.liveness.lost_at, awake_since()) + DEAD


def _only_to_controller(entry: FlowEntry) -> bool:
    """True if a flow may be a table-miss flow of the controller: it only outputs to CONTROLLER."""
    return len(entry.actions.wire) == 8 and of.OFPP_CONTROLLER in entry.actions.outputs


def _is_shared(entry: FlowEntry) -> bool:
    return bool(entry.idle_timeout) and entry.match.in_port is None
