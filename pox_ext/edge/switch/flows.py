"""
The flows of the big switch, and the copies of them on its switches.

A flow whose in_port is a port of a switch has one copy, on that switch.  Any other flow has a copy
on every switch.
"""

import logging
import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Callable, NamedTuple, Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow import flowmods, messages
from edge.openflow import match as matches
from edge.openflow.actions import Actions
from edge.openflow.messages import FlowRemoved
from edge.openflow.stats import FlowStats
from edge.openflow.text import actions_text, match_text
from edge.poxfixes import run_in_slices
from edge.south.member import Member
from edge.south.rules import TABLE_LOWEST, TABLE_OPENFLOW, table_and_priority
from edge.south.xids import new_xid
from edge.switch import garbage
from edge.switch.census import Census
from edge.switch.cookies import RUN_MASK, Cookies
from edge.switch.events import BigSwitchEvents
from edge.switch.expiry import Expiry
from edge.switch.flowtable import FlowEntry, FlowTable
from edge.switch.inports import InPorts
from edge.switch.removals import Removals
from edge.switch.slices import FLOWS_PER_SLICE, for_each, parts
from edge.switch.topology import Topology, Unchanged

log = logging.getLogger("edge.switch")

LARGEST_COUNT = (1 << 64) - 1  # the largest value of a counter in OpenFlow
_EARLY = 0.5  # seconds by which a switch's clock may be ahead of ours
_NO_ROOM = "has no room for all flows; those that it evicts are removed from all switches"
_BY_ITSELF = (of.OFPRR_IDLE_TIMEOUT, of.OFPRR_HARD_TIMEOUT)  # timeouts


class Copy(NamedTuple):
    """A flow as it has to be on one switch."""

    cookie: int
    table: int
    match: bytes
    priority: int
    idle_timeout: int
    hard_timeout: int
    flags: int
    actions: bytes

    def add(self, xid: int, actions: Optional[bytes] = None) -> bytes:
        """The flow-mod that adds this copy, with other actions (wire form) if they are given."""
        return flowmods.add_flow(
            xid,
            self.table,
            self.match,
            self.cookie,
            self.idle_timeout,
            self.hard_timeout,
            self.priority,
            self.flags,
            self.actions if actions is None else actions,
        )


# Sends a switch its copy of a flow, which it does not have (any more).
Reinstaller = Callable[[FlowEntry, Member], None]


class Flows:
    """
    The flow table, and for each flow its cookie and its copies on the switches.

    topology: the switches
    inports: translates the in_ports of matches
    events: is told of flows that have ended
    reinstall: sends a switch its copy of a flow, which it does not have (any more)
    """

    def __init__(
        self,
        topology: Topology,
        inports: InPorts,
        events: BigSwitchEvents,
        reinstall: Reinstaller,
    ) -> None:
        self.table = FlowTable()
        self.cookies: Cookies[FlowEntry] = Cookies()
        self.census = Census(topology.numbers.locate)
        self.expiry = Expiry(self.table, self.homes, self.cookies.cookie, reinstall, self.end)
        self.removals = Removals(self._tell_removed)
        self._topology = topology
        self._inports = inports
        self._events = events
        self._reinstall = reinstall
        # For each switch that is being synced: the flows that it lacks and has yet to be sent.
        self._missing: dict[Member, dict[FlowEntry, None]] = {}
        self._renewals = 0  # calls of renew() that have not sent everything yet

    # --- where a flow is -----------------------------------------------------------------------

    def homes(self, entry: FlowEntry) -> Iterable[Member]:
        """The switches that have to hold a copy of a flow when they are ready."""
        in_port = entry.match.in_port
        topology = self._topology
        where = topology.numbers.locate(in_port) if in_port is not None else None
        if where is None:
            return topology.members.values()
        member = topology.members.get(where[0])
        return () if member is None else (member,)

    def holders(self, entry: FlowEntry) -> list[Member]:
        """The ready switches that hold a copy of a flow."""
        return [member for member in self.homes(entry) if member.liveness.ready]

    def holders_of_any(self, entries: Iterable[FlowEntry]) -> Iterable[Member]:
        """The ready switches that hold copies of at least one of these flows."""
        found: dict[Member, None] = {}
        for entry in entries:
            if entry.match.in_port is None:
                return self._topology.ready_members()
            found.update(dict.fromkeys(self.holders(entry)))
        return found

    def is_live(self, cookie: int) -> bool:
        """True if a flow in the table has this cookie on the switches."""
        entry = self.cookies.entry(cookie)
        return entry is not None and entry in self.table

    def counted(self, entry: FlowEntry) -> tuple[int, int]:
        """The packets and octets of a flow: the sums of the last known counters of its copies."""
        packets, octets = entry.packets, entry.octets
        cookie = self.cookies.cookie(entry)
        for member in self.homes(entry):
            more = member.counters.copy(cookie)
            packets += more[0]
            octets += more[1]
        # The sum is below 0 if a packet was subtracted (see Expiry.hit_in_gap) which the last
        # known counters of its switch do not include yet.
        return max(0, min(packets, LARGEST_COUNT)), max(0, min(octets, LARGEST_COUNT))

    # --- copies --------------------------------------------------------------------------------

    def is_reported(self, entry: FlowEntry) -> bool:
        """True if switches report the ends of this flow's copies."""
        timeouts = entry.idle_timeout or entry.hard_timeout
        return bool(entry.flags & of.OFPFF_SEND_FLOW_REM or timeouts)

    def copy(self, entry: FlowEntry, member: Member, actions: Optional[bytes] = None) -> Copy:
        """The copy of a flow for a switch that gets it when the controller adds the flow."""
        table, priority = table_and_priority(entry.priority)
        flags = of.OFPFF_SEND_FLOW_REM if self.is_reported(entry) else 0
        in_port, match = entry.match.in_port, entry.match.south
        if in_port is not None:
            match = matches.with_in_port(match, self._inports.to_match(member, in_port))
        return Copy(
            self.cookies.cookie(entry),
            table,
            match,
            priority,
            entry.idle_timeout,
            entry.hard_timeout,
            flags,
            self.translated_or_drop(entry.actions, member) if actions is None else actions,
        )

    def copy_again(self, entry: FlowEntry, member: Member) -> Copy:
        """The copy of a flow for a switch that gets it later, with the rest of its hard timeout."""
        copy = self.copy(entry, member)
        if not entry.hard_timeout:
            return copy
        left = entry.hard_end - time.monotonic()
        return copy._replace(hard_timeout=max(1, math.ceil(left)))

    def allocate_keys(self, actions: Actions, members: Iterable[Member]) -> None:
        """Allocate the tunnel keys that these actions need on packets entering these switches."""
        if actions.queues:
            self._topology.queue_keys.give_out(actions, members)

    def translated(self, actions: Actions, member: Member) -> bytes:
        """
        The actions as a switch has to do them on a packet that enters there, keys allocated.

        Raises OpenFlowError (OFPBAC_TOO_MANY) if no message to the switch has room for them.
        """
        self.allocate_keys(actions, (member,))
        return member.translations.translated(actions)

    def translated_or_drop(self, actions: Actions, member: Member) -> bytes:
        """The same, but empty (drop) for actions that no message has room for any more."""
        self.allocate_keys(actions, (member,))
        return member.translations.translated_or_drop(actions)

    def send_actions(self, entry: FlowEntry, xid: int, kind: bytes) -> None:
        """
        Send the flow's present actions to every switch that holds a copy.

        kind: the match fields that the flow-mod has to carry (see packet_kind)
        """
        table, _ = table_and_priority(entry.priority)
        cookie = self.cookies.cookie(entry)
        packed: dict[bytes, bytes] = {}
        for member in self.holders(entry):
            actions = self.translated_or_drop(entry.actions, member)
            data = packed.get(actions)
            if data is None:
                data = packed[actions] = flowmods.modify_flow(xid, table, cookie, actions, kind)
            member.session.send(data)

    def delete_copy(self, entry: FlowEntry) -> bytes:
        """The flow-mod that deletes a copy of a flow from its switch."""
        return self.delete_cookie(self.cookies.cookie(entry), entry.priority)

    def delete_cookie(self, cookie: int, priority: int) -> bytes:
        """The flow-mod that deletes the copy with this cookie, of a flow of this priority."""
        table, _ = table_and_priority(priority)
        return flowmods.delete_flow(new_xid(), table, cookie)

    def renew(self, unchanged: Unchanged) -> Iterator[None]:
        """
        Send the new actions of every copy whose translation has changed, in slices.

        unchanged: the actions whose translation has stayed the same on each switch.  A switch that
            is not in it has connected since; its sync sends it the right actions.
        """

        def renew_copies(entry: FlowEntry) -> None:
            for member in self.holders(entry):
                same = unchanged.get(member)
                if same is not None and entry.actions.wire not in same:
                    self.renew_copy(entry, member)

        self._renewals += 1
        try:
            yield from for_each(list(self.table), renew_copies)
        finally:
            self._renewals -= 1

    @property
    def renewing(self) -> bool:
        """True while switches may have copies whose translation has changed."""
        return self._renewals > 0

    def renew_copy(self, entry: FlowEntry, member: Member) -> None:
        """Send a switch the present translation of a flow's actions, if the flow still exists."""
        if entry in self.table:
            table, _ = table_and_priority(entry.priority)
            member.session.send(
                flowmods.modify_flow(
                    new_xid(),
                    table,
                    self.cookies.cookie(entry),
                    self.translated_or_drop(entry.actions, member),
                    packet_kind(entry.match, entry.actions),
                )
            )

    # --- in and out of the table ---------------------------------------------------------------

    def put(self, entry: FlowEntry) -> Optional[tuple[FlowEntry, int]]:
        """
        Put a flow into the table; it replaces the flow with the same match and priority.

        Returns the replaced flow, which is released, and its cookie; None if there was none.
        """
        old = self.table.put(entry)
        self._entered(entry, self.cookies.new(entry))
        if old is None:
            return None
        entry.inherit_from(old)
        cookie = self.cookies.cookie(old)
        self.census.removed(old.match.in_port, cookie)
        self.expiry.removed(old)
        self.release(old)
        return old, cookie

    def put_again(self, entry: FlowEntry, cookie: int) -> None:
        """Put a released flow back into the table, with its former cookie."""
        self.table.put(entry)
        self.cookies.restore(entry, cookie)
        self._entered(entry, cookie)

    def _entered(self, entry: FlowEntry, cookie: int) -> None:
        self.census.added(entry.match.in_port, cookie)
        self.expiry.added(entry)
        if entry.priority == 0:
            self._topology.use_lowest()

    def take_out(self, entry: FlowEntry) -> None:
        """Take a flow out of the table, but keep its cookie and its counters."""
        self.table.remove(entry)
        self.census.removed(entry.match.in_port, self.cookies.cookie(entry))
        self.expiry.removed(entry)

    def release(self, entry: FlowEntry) -> None:
        """Forget a flow's cookie, and the counters of its copies."""
        cookie = self.cookies.cookie(entry)
        for member in self.homes(entry):
            member.counters.forget(cookie)
        self.cookies.release(entry)

    def end(self, entries: list[FlowEntry], reason: int, told: Optional[Member] = None) -> None:
        """
        End flows: take them out of the table, and delete their copies on the switches.

        The controllers get the FLOW_REMOVED of a flow when its switches have reported the final
        counters of its copies.

        To end all flows takes one turn of POX's loop.  Of others there must not be more than
        FLOWS_PER_SLICE (see end_in_slices).

        reason: why they end (OFPRR_*)
        told: the switch that has reported already that its copy has ended
        """
        if not entries:
            return
        if len(entries) == len(self.table) > 1:
            self._end_all(entries, reason)
            return
        lacking = self.expiry.lacking
        # The flows whose end is told to controllers, by the switches that have a copy of them.
        waited_for: dict[tuple[Member, ...], list[FlowEntry]] = {}
        for entry in entries:
            holders = self.holders(entry)
            if entry in lacking:
                holders = [member for member in holders if member not in lacking[entry]]
            if holders:
                data = self.delete_copy(entry)
                for member in holders:
                    member.session.send(data)
            self.take_out(entry)
            if entry.flags & of.OFPFF_SEND_FLOW_REM:
                having = self._having(entry, holders, told)
                waited_for.setdefault(having, []).append(entry)
            else:
                self.release(entry)
        for members, group in waited_for.items():
            self.removals.begin(group, members, reason)

    def end_in_slices(
        self, entries: list[FlowEntry], reason: int, out_port: int, done: Callable[[], None]
    ) -> None:
        """
        End any number of flows, in as many turns of POX's loop as it takes; then call done().

        A flow that another controller has replaced meanwhile by one that outputs to out_port, too
        (OFPP_NONE for any), ends in its place.
        """
        if len(entries) == len(self.table):
            self.end(entries, reason)
            done()
            return

        def end_all() -> Iterator[None]:
            try:
                for part in parts(entries):
                    present: list[FlowEntry] = []
                    for entry in part:
                        if entry in self.table:
                            present.append(entry)
                        else:
                            present += self.table.exact(entry.match, entry.priority, out_port)
                    self.end(present, reason)
                    yield
            finally:
                done()

        run_in_slices(end_all())

    def _having(
        self, entry: FlowEntry, holders: list[Member], told: Optional[Member] = None
    ) -> tuple[Member, ...]:
        """Those of these switches that have got their copy of a flow, without `told`."""
        if told is None and not self._missing:
            return tuple(holders)
        return tuple(
            member
            for member in holders
            if member is not told and entry not in self._missing.get(member, ())
        )

    def _waited_for(
        self, entries: Sequence[FlowEntry], lacking: Mapping[FlowEntry, Collection[Member]]
    ) -> dict[tuple[Member, ...], list[FlowEntry]]:
        """
        These flows, by the switches that have a copy of them.

        lacking: see Expiry
        """
        by_in_port: dict[Optional[int], list[FlowEntry]] = {}
        for entry in entries:
            by_in_port.setdefault(entry.match.in_port, []).append(entry)
        found: dict[tuple[Member, ...], list[FlowEntry]] = {}
        for group in by_in_port.values():
            holders = self.holders(group[0])
            if not self._missing and not lacking:
                found.setdefault(tuple(holders), []).extend(group)
                continue
            for entry in group:
                without = lacking.get(entry, ())
                having = self._having(entry, [each for each in holders if each not in without])
                found.setdefault(having, []).append(entry)
        return found

    def _end_all(self, entries: list[FlowEntry], reason: int) -> None:
        """
        End all flows of the table.

        The work of this turn hardly grows with the number of flows: the switches get one message
        for all, dictionaries are replaced, and the old ones are emptied in slices.  If the switches
        have to tell the final counters of many flows, the dictionaries with the cookies and
        counters stay, and the flows are handled in slices.
        """
        lacking = self.expiry.lacking
        for member in self._topology.ready_members():
            for table in (TABLE_OPENFLOW, TABLE_LOWEST):
                member.session.send(
                    flowmods.delete_flows(new_xid(), table, self.cookies.run, RUN_MASK)
                )
        before: list[garbage.Emptiable] = [*self.table.clear(), *self.expiry.cleared()]
        self.census.cleared()
        told_of = [entry for entry in entries if entry.flags & of.OFPFF_SEND_FLOW_REM]
        if len(told_of) + len(self.removals) > FLOWS_PER_SLICE:
            others = [entry for entry in entries if not entry.flags & of.OFPFF_SEND_FLOW_REM]
            run_in_slices(for_each(others, self._release_if_known))
            self.removals.begin_in_slices(
                told_of, reason, lambda part: self._waited_for(part, lacking)
            )
        else:
            kept = [*told_of, *self.removals]
            before += self.cookies.clear(kept)
            cookies = [self.cookies.cookie(entry) for entry in kept]
            for member in self._topology.members.values():
                before.append(member.counters.keep(cookies))
            for holders, group in self._waited_for(told_of, lacking).items():
                self.removals.begin(group, holders, reason)
        garbage.let_go(before)

    def _release_if_known(self, entry: FlowEntry) -> None:
        if entry in self.cookies:  # else all was released since
            self.release(entry)

    def _tell_removed(self, entry: FlowEntry, reason: int, ended: float) -> None:
        """Send the controllers the FLOW_REMOVED of a flow, whose final counters are known."""
        packets, octets = self.counted(entry)
        seconds, nanoseconds = split_seconds(ended - entry.created)
        self._events.flow_removed(
            messages.pack_flow_removed(
                entry.match.wire,
                entry.cookie,
                entry.priority,
                reason,
                seconds,
                nanoseconds,
                entry.idle_timeout,
                packets,
                octets,
            )
        )
        self.release(entry)

    # --- switches that come and go -------------------------------------------------------------

    def returned(
        self, member: Member, copies: Mapping[int, FlowStats], anew: bool
    ) -> Iterator[FlowEntry]:
        """
        Yield the flows that a switch which has (re)connected has to hold.

        If a flow with a timeout has no copy there, Expiry.ended_while_lost() decides whether the
        flow has ended.  Packets and octets that the switch had counted before, and does not
        report any more, stay in the flow's counters.

        copies: the copies that the switch has, by their cookies
        anew: True if the switch has lost all its flow entries, so that a missing copy need not have
            timed out there
        """
        seen = member.counters.start_anew()
        for entry in list(self.table):
            if member not in self.homes(entry):
                continue
            cookie = self.cookies.cookie(entry)
            copy = copies.get(cookie)
            packets, octets = seen.get(cookie, (0, 0))
            if copy is None or copy.packets < packets:
                entry.count(packets, octets)
            if copy is not None:
                self.expiry.kept_on(entry)
                member.counters.saw(cookie, copy.packets, copy.octets)
            else:
                mortal = entry.idle_timeout or entry.hard_timeout
                if mortal and entry.created <= member.liveness.lost_at and not anew:
                    member.counters.lost_copy(cookie, packets, octets)
                    if self.expiry.ended_while_lost(member, entry):
                        continue
                self.expiry.put_on(entry, member)
            yield entry

    def note_missing(self, member: Member, entries: Iterable[FlowEntry]) -> None:
        """A switch that is being synced lacks these flows, and will be sent them."""
        self._missing[member] = dict.fromkeys(entries)

    def note_sent(self, member: Member, entry: FlowEntry) -> None:
        """A switch is sent one of the flows that it lacked."""
        self._missing[member].pop(entry, None)

    def note_complete(self, member: Member) -> None:
        """Forget which flows a switch lacks: it has been sent them all, or it is lost."""
        self._missing.pop(member, None)

    def lost_copy(self, member: Member, entry: FlowEntry) -> None:
        """A switch has lost its copy of a flow without a report.  What it had counted stays."""
        cookie = self.cookies.cookie(entry)
        entry.count(*member.counters.copy(cookie))
        member.counters.forget(cookie)
        self.expiry.put_on(entry, member)

    def copy_removed(self, member: Member, removed: FlowRemoved) -> None:
        """A switch has sent the FLOW_REMOVED of a copy."""
        entry = self.cookies.entry(removed.cookie)
        if entry is None:
            return
        entry.count(removed.packets, removed.octets)
        if removed.reason in _BY_ITSELF:
            lost = member.counters.take_lost_copy(removed.cookie)
            if lost is not None:
                # Its last known counters were added in returned(), and the switch has a new copy.
                entry.count(-lost[0], -lost[1])
                return
        member.counters.forget(removed.cookie)
        if entry not in self.table:
            if self.removals.told(member, entry) and removed.reason == of.OFPRR_DELETE:
                member.session.obeyed()
        elif (
            removed.reason == of.OFPRR_HARD_TIMEOUT
            and entry.modified > entry.created
            and entry.hard_end > time.monotonic() + _EARLY
        ):
            # A MODIFY has restarted the hard timeout while the switch was lost.  (If there was no
            # MODIFY, our clock has stood still: a virtual machine was suspended.)
            self._reinstall(entry, member)
        elif removed.reason == of.OFPRR_HARD_TIMEOUT:
            self.end([entry], of.OFPRR_HARD_TIMEOUT, member)
        elif removed.reason == of.OFPRR_IDLE_TIMEOUT:
            self.expiry.copy_idle(member, entry, removed.packets, removed.seconds)
        elif removed.reason == messages.FLOW_EVICTED:
            # If it were put back, the switch would evict another flow for it, and so on.
            member.complaints.tell("no room", lambda: _NO_ROOM)
            log.debug("%s: evicts flow %s", member, flow_text(entry))
            self.end([entry], of.OFPRR_DELETE, member)
        else:
            member.interfered("flows put back")
            self._reinstall(entry, member)


def packet_kind(match: matches.Match, actions: Actions) -> bytes:
    """The match fields (NXM) that a MODIFY has to carry, so that a switch accepts the actions."""
    return flowmods.match_kind(match.wire) if actions.refusable else b""


def flow_text(entry: FlowEntry) -> str:
    """A flow as its controller gave it, in the syntax of ovs-ofctl."""
    words = [f"priority={entry.priority}", match_text(entry.match.wire)]
    words.append(f"actions={actions_text(entry.actions.wire)}")
    return " ".join(filter(None, words))


def split_seconds(duration: float) -> tuple[int, int]:
    """Seconds as (seconds, nanoseconds), cut to whole milliseconds as in Open vSwitch."""
    seconds, milliseconds = divmod(int(duration * 1000), 1000)
    return seconds, milliseconds * 1000000
