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

Many flows may fall idle together.  Their switches are not asked about each of them by itself: there
is one question at a time, about all flows that are in doubt when it begins.
"""

import heapq
import itertools
import logging
import math
import time
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import Callable, Optional, Protocol

import pox.openflow.libopenflow_01 as of

from edge.openflow import match as matches
from edge.openflow import stats
from edge.openflow.messages import PacketIn
from edge.openflow.text import match_text
from edge.poxfixes import awake_since, end_of_turn, run_in_slices
from edge.south.gather import Request, ask
from edge.south.member import Member
from edge.switch import garbage
from edge.switch.cookies import RUN_MASK
from edge.switch.flowtable import FlowEntry, FlowTable
from edge.switch.slices import FLOWS_PER_SLICE, for_each, parts

log = logging.getLogger("edge.expiry")

# A switch that has been lost for so long counts as dead: copies that it may hold are ignored.  Open
# vSwitch forgets a MAC address after the same time (mac-aging-time).
DEAD = 300.0  # seconds

# When no more flows than this are in doubt, the copies that have ended are put back at once.
# Otherwise it takes less time to find out which flows are idle than to put all copies back.
_FEW = 32
# If the switches say nothing more for so long, the copies are put back without their answer.
_NO_NEWS = 1.0  # seconds
# A copy that has never been used may be younger than the flow by less than this, and more if that
# is rounded.  (Open vSwitch tells whole seconds.)
_BEHIND = 1  # seconds
# A request for one flow costs as much as so many flows in a dump of all (see FLOW_COST in
# north/statistics.py).
_FLOWS_FOR_A_REQUEST = 16


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


class _Question:
    """
    What switches are asked about flows that were idle on one switch.

    entries: the flows, by their cookies
    asked: the switches that are asked, each about all of these flows that it holds
    asked_at: when (seconds, monotonic)
    in_use: the flows that a switch has used within their idle timeouts
    unanswered: the switches that have not answered all requests
    """

    def __init__(self, entries: dict[int, FlowEntry], now: float) -> None:
        self.entries = entries
        self.asked: set[Member] = set()
        self.asked_at = now
        self.in_use: set[FlowEntry] = set()
        self.unanswered: set[Member] = set()

    def take(self, member: Member, kind: int, message: bytes) -> None:
        """A switch has sent a part of its answer."""
        if kind != of.OFPT_STATS_REPLY:
            self.unanswered.add(member)
            return
        for cookie, packets, idle_age in stats.parse_ages(message):
            entry = self.entries.get(cookie)
            if entry is None:
                continue
            timeout = entry.idle_timeout
            if not packets and entry.created + timeout <= self.asked_at:
                # A switch that is some time behind with its ADDs has a younger copy.
                timeout -= _BEHIND
            if idle_age < timeout and (packets or not entry.is_reinstalled_on(member.index)):
                self.in_use.add(entry)


class Expiry:
    """
    Ends flows whose idle or hard timeout has run out.

    homes: the switches that have to have a copy of a flow, ready or not
    cookie: the cookie of a flow on the switches
    put_back: sends a switch its copy of a flow again
    end: see EndFlows

    lacking: the switches where the copy of a flow has ended by its idle timeout, and is not put
        back yet
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
        self._deadlines: list[_Deadline] = []  # a heap
        self._watched: dict[FlowEntry, _Deadline] = {}  # each flow's item in the heap
        self._serials = itertools.count()
        self._ending = False  # while flows whose time is up are ended, in slices
        self.lacking: dict[FlowEntry, set[Member]] = {}
        self._over: dict[FlowEntry, None] = {}  # flows that all switches have reported in this turn
        # Flows that the next question is about, and the present question.
        self._doubted: dict[FlowEntry, None] = {}
        self._question: Optional[_Question] = None
        self._due = False  # _look() will be called at the end of the turn
        self._news = 0.0  # when a switch last said something about flows in doubt (see _NO_NEWS)

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
        self.lacking.pop(entry, None)
        self._doubted.pop(entry, None)
        self._over.pop(entry, None)
        self._unheld.pop(entry, None)
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
            self._watched,
            self._deadlines,
            self._doubted,
        ]
        self.lacking, self._doubted, self._over = {}, {}, {}
        self._shared = 0
        self._unheld, self._watched, self._deadlines = {}, {}, []
        self._unheld_due = math.inf
        return before

    def lost(self, member: Member) -> None:
        """A switch is lost: some flows may be on no ready switch any more."""
        for lacking in self.lacking.values():
            lacking.discard(member)  # if it comes back without a copy, that is found then
        lost_at = member.liveness.lost_at

        def look_at(entry: FlowEntry) -> None:
            if entry.idle_timeout and entry in self._table and not self._ready(entry):
                self._leave_unheld(entry, lost_at + max(entry.idle_timeout, DEAD))

        run_in_slices(for_each(list(self._table), look_at))

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
        """
        End the flows whose timeout has run out without a report from a switch.

        To be called some ten times a second.
        """
        if self.lacking and now - self._news > _NO_NEWS:
            # The switches do not answer soon enough.
            run_in_slices(for_each(list(self.lacking), self._put_back_lacking))
        if not self._ending:
            self._ending = True
            run_in_slices(self._end_overdue(now))

    def _end_overdue(self, now: float) -> Iterator[None]:
        try:
            over: list[FlowEntry] = []
            while self._deadlines and self._deadlines[0][0] <= now:
                for entry in heapq.heappop(self._deadlines)[2]:
                    del self._watched[entry]
                    if entry.hard_end <= now:
                        over.append(entry)
                    else:
                        self._watch(entry)  # a MODIFY has restarted the timeout
                if len(over) >= FLOWS_PER_SLICE:
                    self._end(over, of.OFPRR_HARD_TIMEOUT)
                    over = []
                    yield
            self._end(over, of.OFPRR_HARD_TIMEOUT)
            if self._unheld_due <= now:
                self._unheld_due = math.inf
                yield from for_each(
                    list(self._unheld.items()), lambda item: self._end_unheld(*item, now)
                )
        finally:
            self._ending = False

    def _end_unheld(self, entry: FlowEntry, idle_end: float, now: float) -> None:
        """End a flow of which no ready switch has a copy, if none that has may come back."""
        if entry not in self._unheld:
            return
        if idle_end <= now:
            holders = [member for member in self._homes(entry) if _may_hold(member, entry, now)]
            if not holders:
                self._end([entry], of.OFPRR_IDLE_TIMEOUT)
                return
            # There was a pause: they could not come back in that time.
            self._unheld[entry] = idle_end = max(map(_dead_at, holders))
        self._unheld_due = min(self._unheld_due, idle_end)

    # --- idle timeouts -------------------------------------------------------------------------

    def copy_idle(self, member: Member, entry: FlowEntry, packets: int, seconds: int) -> None:
        """
        A copy has ended by its idle timeout: end the flow, or put the copy back.

        A flow is idle only when all its copies are idle.  Until then the copy is put back, since
        packets may come.

        packets: the packets that the copy has counted
        seconds: how long the copy was on the switch, by its clock
        """
        self._news = max(self._news, time.monotonic())
        if packets:
            entry.used_on(member.index)
        if seconds < entry.idle_timeout and _too_early(entry):
            self._put_back(entry, member)
            self.put_on(entry, member)
            return
        lacking = self.lacking.get(entry)
        without = {member} if lacking is None else lacking | {member}
        self.lacking[entry] = without
        if self._is_idle_without(without, entry):
            self._over[entry] = None
            self._look_later()
        elif not entry.hard_timeout or entry.hard_end > time.monotonic():
            self._doubt(entry)
        # Else the hard timeout has run out since (after a pause).  tick() ends the flow, when all
        # that has come in the pause is read.  If all copies were idle before, it ends as idle.

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
        if self._is_idle_without((member,), entry):
            self._end([entry], of.OFPRR_IDLE_TIMEOUT, member)
            return True
        self._doubt(entry)
        return False

    def _is_idle_without(self, members: Collection[Member], entry: FlowEntry) -> bool:
        """True if nothing but these switches can have used a flow within its idle timeout."""
        now = time.monotonic()
        return entry.last_gap_hit + entry.idle_timeout <= now and not any(
            other.liveness.ready or _may_hold(other, entry, now)
            for other in self._homes(entry)
            if other not in members
        )

    def _doubt(self, entry: FlowEntry) -> None:
        """Ask all ready switches that hold a flow whether it is idle there, and end it if so."""
        self._doubted[entry] = None
        self._look_later()

    def _look_later(self) -> None:
        if not self._due:
            self._due = True
            end_of_turn(self._look)

    def _look(self) -> None:
        """End the flows that are over; ask about those in doubt, unless a question is pending."""
        self._due = False
        over: list[FlowEntry] = []
        for entry in self._over:
            if self._is_idle_without(self.lacking.get(entry, ()), entry):
                over.append(entry)
            else:
                self._doubted[entry] = None  # a packet has met the gap meanwhile
        self._over = {}
        self._end(over, of.OFPRR_IDLE_TIMEOUT)
        present = self._question
        if len(self._doubted) + (len(present.entries) if present is not None else 0) <= _FEW:
            for entry in self._doubted:
                self._put_back_lacking(entry)
        if present is None and self._doubted:
            doubted, self._doubted = self._doubted, {}
            self._ask(doubted)

    def _put_back_lacking(self, entry: FlowEntry) -> None:
        """Send a flow's copy to the switches where it has ended."""
        lacking = self.lacking.pop(entry, None)
        if lacking is None:
            return
        if self._question is not None:
            self._question.in_use.add(entry)  # it does not ask about these copies
        for member in lacking:
            if member.liveness.ready:
                self._put_back(entry, member)
                self.put_on(entry, member)

    def _ask(self, entries: Collection[FlowEntry]) -> None:
        """
        Ask the switches that hold these flows when they last used them.

        A switch whose copy was put back is asked, too: the copy may have been used since.
        """
        question = _Question({self._cookie(each): each for each in entries}, time.monotonic())
        self._question = question
        wanted: dict[Member, list[int]] = {}
        for cookie, entry in question.entries.items():
            lacking = self.lacking.get(entry, ())
            for member in self._ready(entry):
                if member not in lacking:
                    wanted.setdefault(member, []).append(cookie)
        question.asked.update(wanted)
        requests: list[Request] = []
        for member, cookies in wanted.items():
            if len(cookies) * _FLOWS_FOR_A_REQUEST > len(self._table) + _FLOWS_FOR_A_REQUEST:
                run = cookies[0] & RUN_MASK
                requests.append((member, partial(stats.dump_flows, cookie=run, mask=RUN_MASK)))
            else:
                requests += [(member, partial(stats.dump_flows, cookie=each)) for each in cookies]

        def take(member: Member, kind: int, message: bytes) -> None:
            self._news = time.monotonic()
            question.take(member, kind, message)

        ask(
            requests,
            take,
            lambda: run_in_slices(self._decide(question)),
            question.unanswered.add,
        )

    def _decide(self, question: _Question) -> Iterator[None]:
        """
        All switches have answered: end the flows that are idle, and put the others' copies back.

        In doubt a flow stays.  The switches are asked again when a copy next ends as idle.
        """
        # If a switch has answered late, the other answers are outdated.
        doubtful = question.unanswered.union(
            member for member in question.asked if member.liveness.stalled_at > question.asked_at
        )
        self._news = math.inf  # nothing more is waited for
        try:
            for part in parts(list(question.entries.values())):
                over: list[FlowEntry] = []
                for entry in part:
                    if entry not in self._table:
                        continue
                    if self._is_idle(entry, question, doubtful):
                        over.append(entry)
                    elif entry not in self._doubted:  # else a later question decides
                        self._put_back_lacking(entry)
                self._end(over, of.OFPRR_IDLE_TIMEOUT)
                yield
        finally:
            self._question = None
            self._news = time.monotonic()
            self._look_later()

    def _is_idle(self, entry: FlowEntry, question: _Question, doubtful: set[Member]) -> bool:
        known = question.asked.union(self.lacking.get(entry, ()))
        if (
            entry in question.in_use
            or not self._is_idle_without(known, entry)
            or not doubtful.isdisjoint(self._homes(entry))
        ):
            return False
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "flow priority=%d %s: idle on all switches; asked %.4f s after it was added",
                entry.priority,
                match_text(entry.match.wire),
                question.asked_at - entry.created,
            )
        return True

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
        self._put_back_lacking(entry)  # the next packets need not come here
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
