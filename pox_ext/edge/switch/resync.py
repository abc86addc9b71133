"""Brings a (re)connected switch up to date: sends it the difference, in slices."""

import logging
import time
from collections.abc import Iterator
from typing import Callable, Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow import flowmods
from edge.openflow.stats import FlowStats
from edge.poxfixes import When, run_in_slices
from edge.south.member import Member
from edge.south.rules import SERVICE, Rule, silenced
from edge.south.xids import new_xid
from edge.switch.flows import Flows, Reinstaller
from edge.switch.flowtable import FlowEntry
from edge.switch.reconcile import Difference, Wanted, difference, sort_out
from edge.switch.slices import FLOWS_PER_SLICE

log = logging.getLogger("edge.member")


class Resync:
    """
    Brings switches up to date.

    flows: the flows that the switches have to hold
    reinstall: sends a switch its copy of a flow
    done: is called with a switch that has been sent all that it lacked
    """

    def __init__(
        self, flows: Flows, reinstall: Reinstaller, done: Callable[[Member], None]
    ) -> None:
        self._flows = flows
        self._reinstall = reinstall
        self._done = done
        self._under_way: dict[Member, Difference] = {}

    def begin(self, member: Member, dump: list[FlowStats]) -> None:
        """A switch has sent the flow entries of all its tables (dump): bring it up to date."""
        found = sort_out(dump, member.wanted_rules(), self._flows.is_live)
        member.counters.forget_lost_copies()
        member.update_rules(found.rules)
        wanted = list(self._flows.returned(member, found.copies, anew=not found.rules))
        todo = difference(found, [self._wanted(entry, member) for entry in wanted])
        member.compared(time.monotonic())
        self._flows.note_missing(member, todo.missing)
        log.info(
            "%s: up, %d ports; flows: %d kept, %d added, %d changed, %d removed",
            member,
            len(member.ports.own()),
            todo.kept,
            len(todo.missing),
            len(todo.wrong),
            len(todo.stale),
        )
        run_in_slices(self._make_right(member, todo))

    def _wanted(self, entry: FlowEntry, member: Member) -> Wanted:
        flows = self._flows
        actions = flows.translated_or_drop(entry.actions, member)
        return Wanted(entry, flows.cookies.cookie(entry), actions)

    def _make_right(self, member: Member, todo: Difference) -> Iterator[Optional[When]]:
        """
        Send a switch the difference in slices, and then report that it is up.

        Changes that controllers make meanwhile are sent at once.  If the switch still lacks the
        flow, the change has no effect there: the switch is sent the flow later, already changed.
        """
        self._under_way[member] = todo
        for number, _ in enumerate(self._corrections(member, todo), 1):
            if number % FLOWS_PER_SLICE == 0:
                yield member.session.when_room if member.session.crowded else None
                if self._under_way.get(member) is not todo:
                    return
        self.stop(member)
        member.synced()
        self._done(member)

    def stop(self, member: Member) -> None:
        """The switch has been sent all that it lacked, or it is lost."""
        self._under_way.pop(member, None)
        self._flows.note_complete(member)

    def _corrections(self, member: Member, todo: Difference) -> Iterator[None]:
        for entry in todo.missing:
            self._flows.note_sent(member, entry)
            self._reinstall(entry, member)
            yield
        for entry in todo.wrong:
            self._flows.renew_copy(entry, member)
            yield
        for flow in todo.stale:
            delete_stale(member, Rule(flow.table, flow.priority, flow.match), flow.cookie)
            yield


def delete_stale(member: Member, rule: Rule, cookie: int) -> None:
    """Delete a flow entry that a switch must not have."""
    if cookie == SERVICE and not rule.priority:
        # The table-miss rule of another run: its deletion must not be reported to us.
        member.session.send(silenced(rule))
    # The cookie is matched too, so that a copy just added in its place stays.
    member.session.send(
        flowmods.nicira_flow_mod(
            new_xid(),
            of.OFPFC_DELETE_STRICT,
            rule.table,
            rule.match + flowmods.match_cookie(cookie),
            priority=rule.priority,
        )
    )
