"""
Compares what the switches have with what they have to have, while they are up.

Somebody may change flow entries on a switch by hand.  The switch reports the end of a copy only if
the copy was added with OFPFF_SEND_FLOW_REM, and no other change.  So the aggregator looks by
itself.  Each switch is asked for all its flow entries once in ROUND, in parts, so that neither side
is busy with it for long.  The answers to other requests for flows (of controllers and of the page)
are compared, too.

What differs at the first look may be a change that is on its way.  So the switch is asked about
such a copy alone, and what differs then, too, is made right (see Audit._decide).
"""

import math
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow import stats
from edge.openflow.actions import Actions
from edge.openflow.stats import FlowStats
from edge.poxfixes import run_in_slices
from edge.south.member import Member
from edge.south.rules import SERVICE, Rule
from edge.south.session import State
from edge.south.translate import Ingress
from edge.switch.census import PARTS
from edge.switch.cookies import RUN_MASK
from edge.switch.flows import Flows, Reinstaller
from edge.switch.flowtable import FlowEntry
from edge.switch.reconcile import sort_out
from edge.switch.refusals import Refusals
from edge.switch.resync import delete_stale
from edge.switch.slices import for_each
from edge.switch.topology import Topology

ROUND = 50.0  # seconds in which all copies are looked at once
# A part of a switch's copies is no larger than this, as long as PARTS parts are enough.  For each
# part, Open vSwitch goes through all flow entries of all tables: some 4 ms for 50,000.
COPIES_PER_PART = 4096
# With more switches or flows than this allows, a round takes longer.
MOST_PARTS, MOST_COPIES = 50, 5000  # a second

# Open vSwitch sends the FLOW_REMOVED of a copy some time after the copy has gone.
_REPORTED = 2.0  # seconds
_AGAIN = 1.0  # seconds until a switch is asked again while a refused change is being undone
_MOST_DOUBTS = 200  # copies that are asked about in one turn
# A flow entry of somebody else may be in the place of a copy.  The copy has to be back before that
# entry is removed, lest packets meet a gap.
_UNTIL_REMOVED = _REPORTED + 1.0  # seconds
# Where somebody has changed one flow entry there may be others: all parts are looked at.
_PARTS_PER_TURN = 4
_HURRY = 5.0  # seconds from one such look at all parts to the next
# Actions whose translation is not remembered are compared in one of so many rounds only.
_RARELY = 16


class Look:
    """
    What a switch is asked for, and what its answer has shown so far.

    cookies: the copies that are asked for one by one; None if a part of all copies is asked for
    part, parts: which part: the cookies that are `part` modulo `parts`
    expected: how many copies that part has to have
    ingress: what the translations have to be right for; None while they are changing
    rules: the service rules that the switch has to have; None if they are not asked for
    seen: the cookies of the copies in the answer
    wrong: the cookies of the copies that have other actions
    others: the flow entries in the answer that are no copies
    """

    def __init__(
        self, member: Member, part: int, parts: int, expected: int, ingress: Optional[Ingress]
    ) -> None:
        self.member = member
        self.cookies: Optional[list[int]] = None
        self.part, self.parts = part, parts
        self.expected = expected
        self.ingress = ingress
        self.rules: Optional[dict[Rule, bytes]] = None
        self.seen: set[int] = set()
        self.wrong: list[int] = []
        self.others: list[FlowStats] = []
        self.asked_at = time.monotonic()

    def ask_for(self, cookie: int) -> None:
        """The switch is asked for this copy, too."""
        assert self.cookies is not None, "all copies of a part are asked for"
        self.cookies.append(cookie)


# A part of the flow entries of a switch: those whose cookies are `part` modulo `parts`.
Part = tuple[Member, int, int]  # the last two are part and parts


class _Doubt:
    """A copy about which a switch will be asked again (due: when; seconds, monotonic)."""

    __slots__ = ("due",)

    def __init__(self, due: float) -> None:
        self.due = due


class Audit:
    """
    Finds flow entries that somebody else has changed on a switch, and makes them right.

    reinstall: sends a switch its copy of a flow
    """

    def __init__(
        self, flows: Flows, topology: Topology, refusals: Refusals, reinstall: Reinstaller
    ) -> None:
        self._flows = flows
        self._topology = topology
        self._refusals = refusals
        self._reinstall = reinstall
        self._doubts: dict[tuple[Member, int], _Doubt] = {}
        # The flow entries of others that are going to be removed, and when (seconds, monotonic).
        self._foreign: dict[tuple[Member, Rule, int], float] = {}
        self._looking: set[Member] = set()
        self._soon: deque[Part] = deque()  # parts that are looked at before the others
        self._hurried_at: dict[Member, float] = {}
        # The parts that are left of this round.
        self._left: Iterator[Part] = iter(())
        self._at_rest = True  # True while there are no flows
        self._due = 0.0  # when the next part is looked at
        self._interval = 0.0
        self._rounds = 0
        self._begun_with = 0  # flows in the table when the round began

    # --- the rounds ----------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look at what is due.  To be called some ten times a second."""
        if self._doubts:
            self._ask_about_doubts(now)
        if self._foreign:
            self._remove_foreign(now)
        if self._soon:
            self._look_at_those_due_soon()
        size = len(self._flows.table)
        was_at_rest, self._at_rest = self._at_rest, not size
        if not size:
            return
        if was_at_rest:
            self._begin_round(size)
            self._due = now + self._interval
        elif size > 4 * max(self._begun_with, COPIES_PER_PART):
            self._begin_round(size)  # the parts have become too large
            self._due = min(self._due, now + self._interval)
        if self._due < now - 1:
            self._due = now  # what was missed in a pause is not made up for at once
        while self._due <= now:
            part = next(self._left, None)
            if part is None:
                self._begin_round(size)
                part = next(self._left, None)
            self._due += self._interval
            if part is not None:
                self._look_at(*part)

    def _look_at_those_due_soon(self) -> None:
        for _ in range(min(_PARTS_PER_TURN, len(self._soon))):
            part = self._soon.popleft()
            if part[0] in self._looking:
                self._soon.append(part)
            else:
                self._look_at(*part)

    def _begin_round(self, size: int) -> None:
        self._rounds += 1
        self._begun_with = size
        parts = {
            member: self._parts(self._flows.census.copies(member.index))
            for member in self._topology.ready_members()
        }
        self._interval = max(ROUND / max(sum(parts.values()), 1), 1 / MOST_PARTS)
        self._left = _spread(parts)

    @staticmethod
    def _parts(copies: int) -> int:
        """In how many parts a switch with so many copies is looked at."""
        parts = 1
        while parts < PARTS and parts * COPIES_PER_PART < copies:
            parts *= 2
        return parts

    def _look_at(self, member: Member, part: int, parts: int) -> None:
        if not self._may_look(member):
            return  # in the next round again
        look = self.begin(member, part, parts)
        if part == SERVICE % parts:
            look.rules = member.installed_rules()
        self._looking.add(member)

        def answer(kind: int, message: bytes) -> bool:
            if kind == of.OFPT_STATS_REPLY:
                self.read(look, message)
                if stats.is_more(message):
                    return False
                self._due = max(self._due, time.monotonic() + len(look.seen) / MOST_COPIES)
                self.finish(look)
            self._looking.discard(member)
            return True

        mask = (part, parts - 1) if parts > 1 else ()
        member.session.request(
            lambda xid: stats.dump_flows(xid, *mask), answer, lambda: self._looking.discard(member)
        )

    def look_soon(self, member: Member) -> None:
        """A switch has deleted a service rule; perhaps it should not have."""
        part = member, SERVICE, self._parts(self._flows.census.copies(member.index))
        if part not in self._soon:
            self._soon.append(part)

    def _interfered(self, member: Member, what: str, number: int = 1) -> None:
        """Somebody else has changed flow entries of a switch: tell, and look at all others soon."""
        member.interfered(what, number)
        now = time.monotonic()
        if now >= self._hurried_at.get(member, -math.inf) + _HURRY:
            self._hurried_at[member] = now
            parts = self._parts(self._flows.census.copies(member.index))
            waiting = set(self._soon)
            for part in range(parts):
                if (member, part, parts) not in waiting:
                    self._soon.append((member, part, parts))

    def _may_look(self, member: Member) -> bool:
        return (
            member.state is State.UP
            and member not in self._looking
            and not member.session.congested
        )

    # --- looks ---------------------------------------------------------------------------------

    def begin(self, member: Member, part: int = 0, parts: int = 1) -> Look:
        """A switch is asked for a part of its copies now, or for all."""
        expected = self._flows.census.copies(member.index, part, parts)
        ingress = None if self._flows.renewing else member.translations.ingress
        return Look(member, part, parts, expected, ingress)

    def begin_one_by_one(self, member: Member) -> Look:
        """A switch is asked for some copies now; see Look.ask_for()."""
        look = self.begin(member)
        look.cookies = []
        return look

    def read(self, look: Look, message: bytes) -> None:
        """
        The switch has sent a part of its answer: note the counters in it, and what is wrong.

        Raises ValueError or struct.error if the message is broken.
        """
        entry_of = self._flows.cookies.entry
        saw, seen = look.member.counters.saw, look.seen
        remembered = look.member.translations.peek
        comparable = look.ingress is look.member.translations.ingress
        for cookie, packets, octets, actions, offset in stats.parse_copies(message):
            entry = entry_of(cookie)
            if entry is None or cookie in seen:
                look.others.append(stats.flow_at(message, offset))
                continue
            saw(cookie, packets, octets)
            seen.add(cookie)
            if comparable and actions != remembered(entry.actions):
                wrong = self._is_wrong(look.member, cookie, entry, actions)
                look.wrong += [cookie] * wrong

    def _is_wrong(self, member: Member, cookie: int, entry: FlowEntry, actions: bytes) -> bool:
        """True if a copy has other actions, as far as can be told without much work."""
        if member.translations.peek(entry.actions) is not None:
            return True
        now = (cookie // PARTS + self._rounds) % _RARELY == 0
        return now and actions != self._translated(entry, member)

    def _translated(self, entry: FlowEntry, member: Member) -> bytes:
        self._flows.allocate_keys(entry.actions, (member,))
        return member.translations.translated_once(entry.actions)

    def finish(self, look: Look) -> None:
        """The switch has sent all of its answer: doubt what differs."""
        if look.member.state is not State.UP:
            return
        member, run = look.member, self._flows.cookies.run
        for cookie in look.wrong:
            self._doubt(member, cookie)
        strays = [flow.cookie for flow in look.others if flow.cookie & RUN_MASK == run]
        for cookie in strays:
            self._doubt(member, cookie)
        if look.cookies is not None:
            for cookie in look.cookies:
                if cookie not in look.seen:
                    self._doubt(member, cookie)
        elif strays or len(look.seen) != look.expected:
            run_in_slices(
                for_each(self._flows.cookies.all(), partial(self._doubt_if_missing, look))
            )
        self._correct_others(look)

    def _doubt_if_missing(self, look: Look, cookie: int) -> None:
        """The answer has not as many copies as expected: doubt this one if it differs."""
        if cookie % look.parts != look.part:
            return
        flows, member = self._flows, look.member
        entry = flows.cookies.entry(cookie)
        if (
            entry is not None
            and (member in flows.homes(entry)) is not (cookie in look.seen)
            and entry in flows.table
            and entry.created <= look.asked_at
        ):
            self._doubt(member, cookie)

    def _correct_others(self, look: Look) -> None:
        """
        Make the service rules right, and delete the flow entries of others.

        These need no second look: the aggregator knows which service rules it had sent when the
        switch was asked, and whether it has changed them since.
        """
        member, rules = look.member, look.rules
        run = self._flows.cookies.run
        foreign = [flow for flow in look.others if flow.cookie & RUN_MASK != run]
        if rules is not None and rules == member.installed_rules():
            found = sort_out(foreign, rules, lambda cookie: False)
            wrong = sum(found.rules.get(rule) != actions for rule, actions in rules.items())
            if wrong:
                member.update_rules(found.rules)
                self._interfered(member, "service rules put right", wrong)
            foreign = found.stale
        else:
            foreign = [flow for flow in foreign if flow.cookie != SERVICE]
        for flow in foreign:
            key = member, Rule(flow.table, flow.priority, flow.match), flow.cookie
            self._foreign.setdefault(key, time.monotonic() + _UNTIL_REMOVED)

    def _remove_foreign(self, now: float) -> None:
        for (member, rule, cookie), due in list(self._foreign.items()):
            if due > now:
                return  # the others came later
            del self._foreign[member, rule, cookie]
            self._interfered(member, "flow entries of others removed")
            delete_stale(member, rule, cookie)

    # --- doubts --------------------------------------------------------------------------------

    def _doubt(self, member: Member, cookie: int) -> None:
        """
        Ask a switch again about a copy.

        If the switch reports the end of the copy, the report is waited for.
        """
        if (member, cookie) not in self._doubts:
            entry = self._flows.cookies.entry(cookie)
            reported = entry is not None and self._flows.is_reported(entry)
            wait = _REPORTED if reported else 0.0
            self._doubts[member, cookie] = _Doubt(time.monotonic() + wait)

    def sent_again(self, member: Member, cookie: int) -> None:
        """A switch has been sent its copy again: what is known of that copy is outdated."""
        self._doubts.pop((member, cookie), None)

    def _ask_about_doubts(self, now: float) -> None:
        asked = 0
        for (member, cookie), doubt in list(self._doubts.items()):
            if doubt.due <= now:
                self._ask(member, cookie, doubt)
                asked += 1
                if asked >= _MOST_DOUBTS:
                    return

    def _ask(self, member: Member, cookie: int, doubt: _Doubt) -> None:
        flows = self._flows
        entry = flows.cookies.entry(cookie)
        if member.state is not State.UP or (entry is not None and entry not in flows.table):
            del self._doubts[member, cookie]
            return
        if self._refusals.undoing or flows.renewing:
            # What is sent to the switch to undo or renew a change may come after the request.
            doubt.due = time.monotonic() + _AGAIN
            return
        doubt.due = math.inf
        found: list[FlowStats] = []
        actions = entry.actions if entry is not None else None
        translated = self._translated(entry, member) if entry is not None else b""

        def answer(kind: int, message: bytes) -> bool:
            told = kind == of.OFPT_STATS_REPLY
            if told:
                found.extend(stats.parse_flows(message))
                if stats.is_more(message):
                    return False
            unchanged = self._doubts.get((member, cookie)) is doubt
            settle()
            if told and unchanged:
                self._decide(member, cookie, entry, actions, translated, found)
            return True

        def settle() -> None:
            if self._doubts.get((member, cookie)) is doubt:
                del self._doubts[member, cookie]

        member.session.request(partial(stats.dump_flows, cookie=cookie), answer, settle)

    def _decide(
        self,
        member: Member,
        cookie: int,
        entry: Optional[FlowEntry],
        actions: Optional[Actions],
        translated: bytes,
        found: list[FlowStats],
    ) -> None:
        """
        Make one copy right: a switch has answered what it has with this cookie.

        A switch executes what it is sent in order.  So the answer shows all that was sent before
        the request.  It does not count if anything about the flow has changed since.

        entry, actions, translated: the flow with this cookie, its actions, and their translation
            for the switch, when the switch was asked; entry is None if there was no such flow
        found: the flow entries with this cookie that the switch has
        """
        flows = self._flows
        if entry is None or member not in flows.homes(entry):
            stray = found
        elif entry not in flows.table or member in flows.expiry.lacking.get(entry, ()):
            return  # it has ended, or its copy was idle and may be put back yet
        elif not found:
            stray = []
            self._interfered(member, "flows put back")
            flows.lost_copy(member, entry)
            self._reinstall(entry, member)
        else:
            stray = found[1:]
            same = entry.actions is actions and self._translated(entry, member) == translated
            if same and found[0].actions != translated:
                self._interfered(member, "flows changed back")
                flows.renew_copy(entry, member)
        for flow in stray:
            self._interfered(member, "flow entries of others removed")
            delete_stale(member, Rule(flow.table, flow.priority, flow.match), flow.cookie)


def _spread(parts: dict[Member, int]) -> Iterator[Part]:
    """
    Yield each part of each switch as (switch, part, parts).

    The parts of a switch are as far from one another as possible.

    parts: in how many parts each switch is looked at: powers of two
    """
    most = max(parts.values(), default=0)
    for step in range(most):
        for member, count in parts.items():
            part, rest = divmod(step, most // count)
            if not rest:
                yield member, part, count
