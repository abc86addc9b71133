"""
Changes that are sent to switches, and that a switch may refuse.

Each change is an object.  start() makes the change.  revert() undoes it on the big switch, as soon
as one switch has refused it.  finish() undoes it on the other switches, when all have answered.  So
a change that one switch refuses is in force on none.  (The model is Open vSwitch's
ofproto/ofproto.c.)

A DELETE cannot be refused: see Flows.end().
"""

import logging
import time
from collections.abc import Collection, Iterator, KeysView
from typing import Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow.actions import Actions
from edge.openflow.match import Match
from edge.openflow.text import actions_text
from edge.south.member import Member
from edge.south.memberports import Bits
from edge.south.xids import new_xid
from edge.switch.events import Requester
from edge.switch.flows import Flows, flow_text, packet_kind
from edge.switch.flowtable import FlowEntry, ModifiedState
from edge.switch.portlist import PortList
from edge.switch.refusals import OCTETS_EACH, Change, Refusals

log = logging.getLogger("edge.switch")


class Add(Change):
    """
    ADD: put a flow into the table, in place of a flow with the same match and priority.

    start: the flow is put into the table, and its copies are sent.  Raises OpenFlowError
        (OFPBAC_TOO_MANY), and changes nothing, if no message has room for its actions.
    revert: the flow is taken out of the table, and the replaced flow is put back.
    finish: the switches that accepted the flow are sent the replaced flow; if there is none, they
        delete their copy.
    """

    can_revert = True

    def __init__(
        self,
        flows: Flows,
        refusals: Refusals,
        entry: FlowEntry,
        requester: Requester,
        message: bytes,
    ) -> None:
        super().__init__(requester, message, entry.actions.refusable)
        self._flows = flows
        self._refusals = refusals
        self._entry = entry
        self._replaced: Optional[tuple[FlowEntry, int]] = None  # with its cookie
        # Cookies of flows that are gone, whose copies may be on switches that refuse this ADD.
        self._leftovers: tuple[int, ...] = ()

    def entries(self) -> Collection[FlowEntry]:
        return (self._entry,)

    def start(self) -> None:
        """Put the flow into the table and on the switches."""
        flows, entry = self._flows, self._entry
        actions = entry.actions
        holders = flows.holders(entry)
        if actions.queues:
            flows.allocate_keys(actions, holders)
        copies = [(member, member.translations.translated(actions)) for member in holders]
        self._replaced = flows.put(entry)
        xid = self._refusals.track(self)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("flow %s", flow_text(entry))
        if not copies:
            return
        # The copies for the switches differ at most in their actions.
        copy = flows.copy(entry, *copies[0])
        packed: dict[bytes, bytes] = {}
        for member, translated in copies:
            data = packed.get(translated)
            if data is None:
                data = packed[translated] = copy.add(xid, translated)
            member.session.send(data)

    def revert(self, later: Iterator[Change]) -> None:
        flows, entry = self._flows, self._entry
        self._holders: list[Member] = []
        self._cookie = 0
        if entry not in flows.table:
            for change in later:
                if isinstance(change, Add) and change.rebase(entry, self):
                    return
            # Deleted meanwhile: what it had replaced is still on the switches that refuse it.
            if self._replaced is not None:
                self._leftovers += (self._replaced[1],)
            return
        self._holders = flows.holders(entry)
        self._cookie = flows.cookies.cookie(entry)
        flows.take_out(entry)
        flows.release(entry)
        if self._replaced is not None:
            flows.put_again(*self._replaced)

    def rebase(self, entry: FlowEntry, refused: "Add") -> bool:
        """
        An earlier ADD of this entry was refused.

        If this ADD has replaced that entry, it has replaced what the refused one had replaced.
        Switches that refuse this ADD too may have a copy of that entry, which has to go.

        Returns True if this ADD has replaced the entry.
        """
        if self._replaced is None or self._replaced[0] is not entry:
            return False
        self._leftovers += (*refused._leftovers, self._replaced[1])
        self._replaced = refused._replaced
        return True

    def finish(self, refusers: set[Member]) -> None:
        flows, entry = self._flows, self._entry
        # The flow that is in its place now.  A later one has been sent to the switches after it.
        place = flows.table.find(entry.match, entry.priority)
        is_older = place is not None and flows.cookies.cookie(place) < self._cookie
        for member in self._holders:
            if member in refusers:
                continue
            if place is not None and is_older:
                Reinstall(flows, self._refusals, place, member).start()
            else:
                member.session.send(flows.delete_cookie(self._cookie, entry.priority))
        for cookie in self._leftovers:
            if not flows.is_live(cookie):
                for member in refusers:
                    member.session.send(flows.delete_cookie(cookie, entry.priority))


class Modify(Change):
    """
    MODIFY: give flows other actions; they keep their counters and timeouts.

    As in Open vSwitch, the hard timeout starts again from 0.

    entries: the flows
    match: the controller's match, which covers the matches of the flows
    cookie: the flows' new cookie, None if they keep theirs

    start: the flows and their copies get the actions.  Raises OpenFlowError (OFPBAC_TOO_MANY), and
        changes nothing, if no message has room for the actions.
    revert: each flow gets its former state back.  If a later MODIFY has changed the flow, that
        MODIFY gets the former state instead, to restore it if it is refused too.
    finish: the copies of the restored flows get their former actions back.
    """

    can_revert = True

    def __init__(
        self,
        flows: Flows,
        refusals: Refusals,
        entries: list[FlowEntry],
        match: Match,
        cookie: Optional[int],
        actions: Actions,
        requester: Requester,
        message: bytes,
    ) -> None:
        super().__init__(requester, message, actions.refusable)
        self._flows = flows
        self._refusals = refusals
        self._before: dict[FlowEntry, ModifiedState] = {each: each.state() for each in entries}
        self.octets += OCTETS_EACH * len(entries)
        self._match = match
        self._cookie = cookie
        self._actions = actions

    def entries(self) -> KeysView[FlowEntry]:
        return self._before.keys()

    def start(self) -> None:
        """Modify the flows and their copies."""
        flows, actions = self._flows, self._actions
        for member in flows.holders_of_any(self._before):
            flows.translated(actions, member)  # raises if they are too many for this switch
        xid = self._refusals.track(self)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%d flows now do %s", len(self._before), actions_text(actions.wire))
        now = self._modified = time.monotonic()
        kind = packet_kind(self._match, actions)
        for entry in self._before:
            entry.modify(actions, self._cookie, now)
            flows.send_actions(entry, xid, kind)

    def revert(self, later: Iterator[Change]) -> None:
        # For each flow that was modified since: the first MODIFY after this one.
        successors: dict[FlowEntry, Modify] = {}
        if any(entry.modified != self._modified for entry in self._before):
            for change in later:
                if isinstance(change, Modify):
                    successors.update(dict.fromkeys(change.entries() & self._before.keys(), change))
        self._restored: list[FlowEntry] = []
        for entry, state in self._before.items():
            if entry in successors:
                successors[entry].rebase(entry, state)
            else:
                # A flow that is not in the table is restored too: it comes back if the flow that
                # has replaced it is refused.
                entry.restore(state)
                self._restored.append(entry)

    def rebase(self, entry: FlowEntry, state: ModifiedState) -> None:
        """The MODIFY before this one is refused: this was the flow's state before this one."""
        self._before[entry] = state

    def finish(self, refusers: set[Member]) -> None:
        for entry in self._restored:
            actions = self._before[entry][0]
            if entry in self._flows.table and entry.actions is actions:
                kind = packet_kind(entry.match, actions)
                self._flows.send_actions(entry, new_xid(), kind)


class Reinstall(Change):
    """
    Send a switch its copy of a flow, which it does not have (any more).

    start: the copy is sent, if the flow is still in the table.
    finish: the copy is sent once more, since the table may have been full only while the switch was
        brought up to date.  If the switch refuses it again, the flow ends: a flow is on all
        switches that should have it, or on none.

    again: False if the switch has refused the copy once
    """

    can_revert = True

    def __init__(
        self,
        flows: Flows,
        refusals: Refusals,
        entry: FlowEntry,
        member: Member,
        again: bool = True,
    ) -> None:
        super().__init__(None, b"")
        self._flows = flows
        self._refusals = refusals
        self._entry = entry
        self._member = member
        self._again = again

    def start(self) -> None:
        """Send the copy."""
        if self._entry in self._flows.table:
            xid = self._refusals.track(self)
            copy = self._flows.copy_again(self._entry, self._member)
            self._member.session.send(copy.add(xid))

    def finish(self, refusers: set[Member]) -> None:
        flows, entry, member = self._flows, self._entry, self._member
        if entry not in flows.table or not member.ready:
            return
        if self._again:
            Reinstall(flows, self._refusals, entry, member, again=False).start()
            return
        member.complaints.tell(
            "flows refused",
            lambda: "refuses flows that it has to have; they are removed from all switches",
        )
        log.info("%s: refuses, so it is removed from all: flow %s", member, flow_text(entry))
        flows.end([entry], of.OFPRR_DELETE, member)


class PortMod(Change):
    """
    PORT_MOD: set configuration bits of a port, now and whenever its switch reconnects.

    port: the port's number on the switch
    advertise: the features that the port is to advertise (OFPPF_*); 0 to leave them unchanged

    start: the switch is sent a PORT_MOD, and the other controllers a PORT_STATUS.
    revert: the bits get their former values back, except those that a later PORT_MOD has set.
    """

    can_revert = True

    def __init__(
        self,
        portlist: PortList,
        refusals: Refusals,
        member: Member,
        port: int,
        bits: Bits,
        advertise: int,
        requester: Requester,
        message: bytes,
    ) -> None:
        super().__init__(requester, message)
        self._portlist = portlist
        self._refusals = refusals
        self._member = member
        self._port = port
        self._bits = bits
        self._advertise = advertise
        self._set_before = member.ports.bits_set(port)
        self._port_before = member.ports.all[port]

    def start(self) -> None:
        """Set the bits."""
        xid = self._refusals.track(self)
        self._member.modify_port(self._port, self._bits, self._advertise, xid)
        self._portlist.announce(self._member, self.requester)

    def revert(self, later: Iterator[Change]) -> None:
        ports, mask = self._member.ports, self._bits.mask
        for change in reversed(list(later)):
            if isinstance(change, PortMod) and change.is_of(self._member, self._port):
                mask = change.rebase(self, mask)
        ports.take_back(self._port_before, mask, self._set_before)
        self._portlist.announce(self._member, self.requester)

    def is_of(self, member: Member, port: int) -> bool:
        """True if this is a PORT_MOD of that port."""
        return self._member is member and self._port == port

    def rebase(self, refused: "PortMod", mask: int) -> int:
        """
        An earlier PORT_MOD of the port was refused: its bits in mask had the values from before it.

        Returns the bits that this PORT_MOD leaves alone.
        """
        before = refused._set_before.only(mask)
        self._set_before = Bits(
            self._set_before.config & ~mask | before.config,
            self._set_before.mask & ~mask | before.mask,
        )
        config = self._port_before.config & ~mask | refused._port_before.config & mask
        self._port_before = self._port_before._replace(config=config)
        return mask & ~self._bits.mask
