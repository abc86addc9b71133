"""Brings a switch that has come (back) up to date, by the difference and in slices."""

import logging
import time
from collections.abc import Iterator
from typing import Callable

import pox.openflow.libopenflow_01 as of

from edge.openflow import flowmods
from edge.openflow.stats import FlowStats
from edge.poxfixes import run_in_slices
from edge.south.member import Member
from edge.south.rules import SERVICE, Rule, silenced
from edge.south.xids import new_xid
from edge.switch.flows import FLOWS_PER_SLICE, Flows, Reinstall
from edge.switch.flowtable import FlowEntry
from edge.switch.reconcile import Difference, Wanted, difference, sort_out

log = logging.getLogger("edge.member")


class Resync:
    """
    Brings switches up to date.

    flows: the flows that the switches have to hold
    reinstall: gives a switch its copy of a flow
    done: is told of a switch that has been sent all that it lacked
    """

    def __init__(self, flows: Flows, reinstall: Reinstall, done: Callable[[Member], None]) -> None:
        self._flows = flows
        self._reinstall = reinstall
        self._done = done

    def begin(self, member: Member, dump: list[FlowStats]) -> None:
        """A switch has told what is in its tables (dump)."""
        found = sort_out(dump, member.wanted_rules(), self._flows.is_live)
        member.counters.forget_lost()
        member.update_rules(found.rules)
        wanted = list(self._flows.returned(member, found.copies, anew=not found.rules))
        todo = difference(found, [self._wanted(entry, member) for entry in wanted])
        member.compared(time.monotonic())
        self._flows.lacks(member, todo.missing)
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
        flows.keys_for(entry.actions, (member,))
        actions = member.translations.translated_or_none(entry.actions)
        return Wanted(entry, flows.cookies.cookie(entry), actions)

    def _make_right(self, member: Member, todo: Difference) -> Iterator[None]:
        """
        Send the switch what it lacks, some of it a slice, and then say that it is up.

        What the controllers change meanwhile is sent at once.  A change of a flow that is still
        missing has no effect on the switch; the switch gets the flow later, as it is then.
        """
        connection = member.session.connection
        for number, _ in enumerate(self._corrections(member, todo), 1):
            if number % FLOWS_PER_SLICE == 0:
                yield
                if member.session.connection is not connection:
                    return
        self._flows.complete(member)
        member.synced()
        self._done(member)

    def _corrections(self, member: Member, todo: Difference) -> Iterator[None]:
        for entry in todo.missing:
            self._flows.sends(member, entry)
            self._reinstall(entry, member)
            yield
        for entry in todo.wrong:
            self._flows.renew_copy(entry, member)
            yield
        for flow in todo.stale:
            if flow.cookie == SERVICE and not flow.priority:
                # Another run's table-miss rule: its deletion must not look like somebody else's.
                member.session.send(silenced(Rule(flow.table, flow.priority, flow.match)))
            # By its cookie too: what has just been added in its place stays.
            member.session.send(
                flowmods.nicira_flow_mod(
                    new_xid(),
                    of.OFPFC_DELETE_STRICT,
                    flow.table,
                    flow.match + flowmods.match_cookie(flow.cookie),
                    priority=flow.priority,
                )
            )
            yield
