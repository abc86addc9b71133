"""
The big switch: the flows, the real switches that hold copies of them, and the controllers.

What a controller says comes in from northbound.py, what the switches say from member.py.  Here is
what has to be done about it: which switch gets which copy of a flow, when a flow is at its end,
and what the controllers are told.
"""

import logging
import math
import struct
import time
from collections.abc import Iterable, Iterator
from typing import Any, Callable, Optional

import pox.openflow.libopenflow_01 as of
from pox.core import core

from edge.openflow import actions as act
from edge.openflow import flowmods, messages, stats
from edge.openflow import match as matches
from edge.openflow.text import actions_text, match_text
from edge.poxfixes import end_of_turn, in_turns
from edge.south import translate
from edge.south.discovery import Discovery
from edge.south.gather import Gather
from edge.south.member import FLOWS_PER_TURN, Copy, Member, new_xid
from edge.south.rules import SERVICE, TABLE_LOWEST, TABLE_OPENFLOW, table_and_priority
from edge.switch import garbage
from edge.switch.cookies import RUN_MASK, Cookies
from edge.switch.counts import Counts
from edge.switch.events import BigSwitchEvents, Requester
from edge.switch.expiry import Expiry
from edge.switch.flowtable import FlowEntry, FlowTable
from edge.switch.indexes import Indexes
from edge.switch.packets import Packets
from edge.switch.ports import PortNumbers, Unnumbered
from edge.switch.refusals import Refusals
from edge.switch.removals import Removals

log = logging.getLogger("edge.switch")

_FLOW_REMOVED = struct.Struct("!BBHL40sQHBxLLH2xQQ")

_ON_ITS_WAY = 1.0  # seconds that a packet may take through a tunnel at most
_EARLY = 0.5  # seconds by which a switch's clock may be ahead
LARGEST_COUNT = (1 << 64) - 1  # that a counter can say
_BY_ITSELF = (of.OFPRR_IDLE_TIMEOUT, of.OFPRR_HARD_TIMEOUT)  # how a flow may end


class BigSwitch:
    """
    One OpenFlow 1.0 datapath made of many.

    numbers, indexes: how ports and switches are numbered
    ips: the candidates for tunnel IPs, as numbers
    learn_ips: True if the address from which a switch connects is a candidate too
    switch_timeout: seconds after which a switch that does not answer is given up
    events: is told what the controllers, and other components, have to know
    """

    def __init__(
        self,
        numbers: PortNumbers,
        indexes: Indexes,
        ips: Iterable[int],
        switch_timeout: float,
        events: BigSwitchEvents,
        learn_ips: bool = False,
    ) -> None:
        self.numbers = numbers
        self._indexes = indexes
        self._learn_ips = learn_ips
        self.switch_timeout = switch_timeout
        self._events = events
        self.counts = Counts()
        self.table = FlowTable()
        self.cookies: Cookies[FlowEntry] = Cookies()
        self.members: dict[int, Member] = {}
        self.fragments = of.OFPC_FRAG_NORMAL
        self.discovery = Discovery(ips, self.ready_members, self._tunnel_found)
        self.ports: dict[int, messages.PhyPort] = {}  # as the controllers know them
        # There has been a flow of priority 0.  It stays so: with the tables as they are then, the
        # counts of their table-miss rules go on.
        self.has_lowest = False
        # Rules for queues that switches have been sent since others' flows or packets use them, and
        # how many of those are there for certain.
        self._queue_rules = self._sure_queue_rules = 0
        # Since when nothing has been able to use them, and how many packet-outs there had been.
        self._unused_since, self._packet_outs_before = time.monotonic(), 0
        self.refusals = Refusals(self._ask_barriers, self.counts)
        self.barrier = self.refusals.barrier
        self.removals = Removals(self._tell_removed)
        self._expiry = Expiry(self.table, self.homes, self.cookies.cookie, self.put, self._end)
        self.packets = Packets(self, self._expiry, events)
        self._topology_due = False
        self._refused_dpids: set[int] = set()

    # --- the switches --------------------------------------------------------------------------

    def ready_members(self) -> list[Member]:
        """The switches that are connected and up to date."""
        return [member for member in self.members.values() if member.ready]

    def connected(self, dpid: int, connection: object) -> None:
        """A switch's OpenFlow handshake is done."""
        try:
            index = self._indexes.index(dpid)
        except Unnumbered as e:
            if dpid not in self._refused_dpids:
                self._refused_dpids.add(dpid)
                log.warning("The switch with dpid %#x is left out: %s", dpid, e)
            return
        if self._learn_ips:
            self.discovery.add_candidate(connection.sock)
        member = self.members.get(index)
        if member is None:
            member = self.members[index] = Member(self, index, dpid)
        if member.connection is None:
            member.connect(connection)
        else:
            self._challenge(member, connection)

    def _challenge(self, member: Member, connection: object) -> None:
        """
        Two connections of one dpid: the older stays if it still answers, since then these are
        two switches; otherwise it is what is left of a lost connection.
        """
        old = member.connection
        waiting = [True]

        def decide(old_lives: bool) -> None:
            if not waiting:
                return
            waiting.clear()
            if old_lives:
                if member.dpid not in self._refused_dpids:
                    self._refused_dpids.add(member.dpid)
                    log.warning(
                        "%s: another switch has the same dpid and is refused; give each switch a "
                        "datapath-id of its own",
                        member,
                    )
                connection.disconnect("another switch has this dpid")
                return
            if member.connection is old and old is not None:
                old.disconnect("taken over by a new connection")
            if member.connection is None and not connection.disconnected:
                member.connect(connection)
            elif member.connection is not connection:
                connection.disconnect("another connection of this switch is in use")

        def answered(kind: int, message: bytes) -> bool:
            decide(True)
            return True

        member.request(messages.echo_request, answered, lambda: decide(False))
        core.callDelayed(1.0, decide, False)

    def disconnected(self, connection: object) -> None:
        """A switch's connection is gone."""
        for member in self.members.values():
            member.closed(connection)

    def member_ready(self, member: Member) -> None:
        """A switch has what it has to have."""
        self.counts.resynchronisations += 1
        self._announce_ports(member)
        self.discovery.changed(member)
        self.topology_changed()
        self._events.switch_up(member.index, member.dpid)

    def member_lost(self, member: Member, was_ready: bool, reason: str) -> None:
        """A switch is gone: the others do not flood to it, its ports are down."""
        if was_ready:
            # When POX ends, that is no alarm.
            level = logging.WARNING if core.running else logging.INFO
            log.log(level, "%s: lost: %s", member, reason)
            self.discovery.lost(member)
            self.removals.lost(member)
            self._announce_ports(member)
            self.topology_changed()
            self._expiry.lost(member.lost_at)
            self._events.switch_lost(member.index, member.dpid, reason)

    def tunnel_changed(self, member: Member) -> None:
        """A switch has another tunnel port, or none: its tunnel IP has to be found again."""
        member.tunnel_ip = None
        if member.ready:
            self.discovery.changed(member)

    def _tunnel_found(self, member: Member, ip: int) -> None:
        for other in self.members.values():
            if other.tunnel_ip == ip:
                other.tunnel_ip = None
        member.tunnel_ip = ip
        self.packets.forget_outs()
        self.topology_changed()
        self._events.tunnel_found(member.index, member.dpid, ip)

    def topology_changed(self) -> None:
        """Have every flow translated again, once, when what is going on now is done with."""
        if not self._topology_due:
            self._topology_due = True
            end_of_turn(self._translate_again)

    def _translate_again(self) -> None:
        self._topology_due = False
        same = {member: member.translate_again() for member in self.ready_members()}
        if all(each is None for each in same.values()):
            return
        in_turns(self._renew(same))

    def _renew(self, same: dict[Member, Optional[set[bytes]]]) -> Iterator[None]:
        """
        Give the flows their new actions.

        same: what has stayed as it was on each switch (see Member.translate_again); one that
            comes later is brought up to date anyway
        """
        for number, entry in enumerate(list(self.table), 1):
            for member in self.holders(entry):
                unchanged = same.get(member)
                if unchanged is not None and entry.actions.wire not in unchanged:
                    self.renew_actions(entry, member)
            if number % FLOWS_PER_TURN == 0:
                yield

    def renew_actions(self, entry: FlowEntry, member: Member) -> None:
        """Translate a flow's actions again for a switch that has it."""
        if entry in self.table:
            table, _ = table_and_priority(entry.priority)
            member.send(
                flowmods.modify_flow(
                    new_xid(),
                    table,
                    self.cookies.cookie(entry),
                    member.translated_or_none(entry.actions),
                    _kind(entry.match, entry.actions),
                )
            )

    def ingress_of(self, member: Member) -> translate.Ingress:
        """What the translation has to know when a packet enters at this switch."""
        # In the order of their indexes: it is the same after a restart.
        others = [
            other
            for _, other in sorted(self.members.items())
            if other is not member and other.tunnel_ip is not None
        ]
        return translate.Ingress(
            member.index,
            member.tunnel_port,
            tuple(sorted(member.own_ports())),
            {other.index: other.tunnel_ip for other in others},
            tuple(other.tunnel_ip for other in others if other.ready and other.tunnel_port),
            self.numbers.locate,
            self._queue_key,
        )

    def _queue_key(self, index: int, port: int, queue: int) -> int:
        member = self.members[index]
        if not member.has_queue_key(port, queue):
            self._queue_rules += 1
            self.packets.forget_outs()
        return member.queue_key(port, queue)

    def _forget_queue_keys(self, now: float) -> None:
        """
        Take the rules for queues back when there are no flows, and no packet is on its way.

        What was translated with their keys is forgotten before, so that it does not lead to another
        queue which has such a key later.
        """
        packet_outs = self.counts.packet_outs
        if self.table or packet_outs != self._packet_outs_before:
            self._unused_since, self._packet_outs_before = now, packet_outs
        elif now - self._unused_since >= _ON_ITS_WAY:
            users = [member for member in self.members.values() if member.has_queue_keys]
            if users:
                for member in self.members.values():
                    member.forget_translations()
                for member in users:
                    member.forget_queue_keys()

    def tick(self) -> None:
        """Look after what has its time.  To be called some ten times a second."""
        now = time.monotonic()
        self.discovery.tick(now)
        for member in list(self.members.values()):
            member.watch(now, self.switch_timeout)
        self.refusals.confirm()
        self._expiry.tick(now)
        self.removals.tick(now)
        self._forget_queue_keys(now)

    # --- ports ---------------------------------------------------------------------------------

    def port(self, number: int) -> Optional[tuple[Member, int]]:
        """The switch and the port on it behind a port that the big switch has."""
        where = self.numbers.locate(number)
        if number not in self.ports or where is None:
            return None
        return self.members[where[0]], where[1]

    def ports_changed(self, member: Member) -> None:
        """Something about a switch's ports is new."""
        self._announce_ports(member)

    def _announce_ports(self, member: Member, but: Optional[Requester] = None) -> None:
        """Tell the controllers what is new about a switch's ports."""
        down = 0 if member.ready else of.OFPPS_LINK_DOWN
        now = {}
        for number in member.own_ports():
            port = member.ports[number]
            north = self.numbers.number(member.index, number)
            name = b"%d.%b" % (member.index, port.name)
            now[north] = port._replace(port_no=north, name=name[:15], state=port.state | down)
        first = self.numbers.number(member.index, 1)
        for number in range(first, first + self.numbers.max_ports):
            if self.ports.get(number) != now.get(number):
                reason = of.OFPPR_MODIFY
                if number not in now:
                    reason = of.OFPPR_DELETE
                elif number not in self.ports:
                    reason = of.OFPPR_ADD
                port = now.get(number) or self.ports[number]
                self._events.port_status(reason, port, but)
        for number in range(first, first + self.numbers.max_ports):
            self.ports.pop(number, None)
        self.ports.update(now)

    def modify_port(
        self, peer: Requester, number: int, config: int, mask: int, advertise: int, message: bytes
    ) -> None:
        """A controller's PORT_MOD that has been found good."""
        member, port = self.port(number)
        xid = self.refusals.originate(peer, message)
        member.modify_port(port, config, mask, advertise, xid)
        # As Open vSwitch does: the others are told, the one who asked knows.
        self._announce_ports(member, peer)

    # --- flows ---------------------------------------------------------------------------------

    def has_cookie(self, cookie: int) -> bool:
        """True if a flow of the table bears this cookie on the switches."""
        entry = self.cookies.entry(cookie)
        return entry is not None and entry in self.table

    def home(self, in_port: int) -> Optional[Member]:
        """The switch on which a flow with this in_port lives, None if there is none (yet)."""
        where = self.numbers.locate(in_port)
        return self.members.get(where[0]) if where is not None else None

    def holders(self, entry: FlowEntry) -> list[Member]:
        """The ready switches that hold a copy of a flow."""
        return [member for member in self.homes(entry) if member.ready]

    def homes(self, entry: FlowEntry) -> Iterable[Member]:
        """The switches that have to hold a copy of a flow when they are ready."""
        in_port = entry.match.in_port
        where = self.numbers.locate(in_port) if in_port is not None else None
        if where is None:
            return self.members.values()
        member = self.members.get(where[0])
        return () if member is None else (member,)

    def _local_match(self, entry: FlowEntry, member: Member) -> bytes:
        if entry.match.in_port is None:
            return entry.match.south
        return matches.with_in_port(
            entry.match.south, self.packets.to_match(member, entry.match.in_port)
        )

    def copy(self, entry: FlowEntry, member: Member) -> Copy:
        """A flow as it is put on a switch when the controller adds it."""
        table, priority = table_and_priority(entry.priority)
        flags = 0
        if entry.flags & of.OFPFF_SEND_FLOW_REM or entry.idle_timeout or entry.hard_timeout:
            flags = of.OFPFF_SEND_FLOW_REM
        return Copy(
            self.cookies.cookie(entry),
            table,
            self._local_match(entry, member),
            priority,
            entry.idle_timeout,
            entry.hard_timeout,
            flags,
            member.translated_or_none(entry.actions),
        )

    def _copy_again(self, entry: FlowEntry, member: Member) -> Copy:
        """A flow as it is put on a switch later, when less of its time is left."""
        copy = self.copy(entry, member)
        if not entry.hard_timeout:
            return copy
        left = entry.modified + entry.hard_timeout - time.monotonic()
        return copy._replace(hard_timeout=max(1, math.ceil(left)))

    def put(self, entry: FlowEntry, member: Member, again: bool = True) -> None:
        """
        Put a flow on a switch that has it not (any more), though it should.

        A refusal may be for want of room, while the switch is brought up to date: then it is put
        there again.  A flow that is refused all the same ends: it is on all switches that should
        have it, or on none.

        again: False if it has been refused once
        """
        if entry not in self.table:
            return

        def finish(refusers: set[Member]) -> None:
            if entry not in self.table or not member.ready:
                return
            if again:
                self.put(entry, member, again=False)
                return
            member.warn_once(
                "refuses flows that it has to have; they are removed from all switches"
            )
            log.info("%s: refuses, so it is removed from all: flow %s", member, flow_text(entry))
            self._end([entry], of.OFPRR_DELETE, member)

        xid = self.refusals.originate(None, b"", lambda: finish)
        member.send(self._copy_again(entry, member).add(xid))

    def flows_for(
        self, member: Member, present: dict[int, stats.FlowStats], anew: bool
    ) -> Iterator[tuple[FlowEntry, int]]:
        """
        All flows, and their cookies, that have to be on a switch that has come (back) with the
        present ones.

        What it had counted before, and does not have any more, stays counted.

        anew: True if it has lost all that it had, so that a flow which is missing need not have
            ended there
        """
        seen, member.counters = member.counters, {}
        for entry in list(self.table):
            if member not in self.homes(entry):
                continue
            cookie = self.cookies.cookie(entry)
            flow = present.get(cookie)
            packets, octets = seen.get(cookie, (0, 0))
            if flow is None or flow.packets < packets:
                entry.packets += packets
                entry.octets += octets
            if flow is not None:
                self._expiry.kept_on(entry)
                member.counters[cookie] = (flow.packets, flow.octets)
            else:
                mortal = entry.idle_timeout or entry.hard_timeout
                if mortal and entry.created <= member.lost_at and not anew:
                    member.gone[cookie] = packets, octets
                    if entry.idle_timeout and self._expiry.ended_while_lost(member, entry):
                        continue
                self._expiry.put_on(entry, member)
            yield entry, cookie

    def add(self, entry: FlowEntry, peer: Requester, message: bytes) -> None:
        """
        ADD: put a flow in the place of the one with the same match and priority, if any.

        Raises OpenFlowError if its actions are too many.
        """
        copies = [(member, member.translated(entry.actions)) for member in self.holders(entry)]
        old = self.table.put(entry)
        self.cookies.new(entry)
        self._entered(entry)
        old_cookie = 0
        if old is not None:
            # As in Open vSwitch, a flow is not used by being replaced.
            entry.used, entry.born = old.used, old.born
            old_cookie = self.cookies.cookie(old)
            self._expiry.removed(old)
            self._release(old)
        xid = self.refusals.originate(
            peer,
            message,
            lambda: self._undo_add(entry, old, old_cookie),
            (entry,),
            entry.actions.refusable,
        )
        if log.isEnabledFor(logging.DEBUG):
            log.debug("flow %s", flow_text(entry))
        packed: dict[bytes, bytes] = {}
        first: Optional[Copy] = None
        for member, actions in copies:
            # The switches' copies differ in their actions only, if at all.
            data = packed.get(actions)
            if data is None:
                first = first or self.copy(entry, member)
                data = packed[actions] = first.add(xid, actions)
            member.send(data)

    def _entered(self, entry: FlowEntry) -> None:
        """A flow has come into the table."""
        self._expiry.added(entry)
        if entry.priority == 0 and not self.has_lowest:
            self.has_lowest = True
            for member in self.ready_members():
                member.update_service_rules()

    def _undo_add(
        self, entry: FlowEntry, old: Optional[FlowEntry], old_cookie: int
    ) -> Callable[[set[Member]], None]:
        """The flow that was there before is there again, and is still on those that refused."""
        entry.refused = True
        if old is not None and old.refused:
            old = None
        if entry not in self.table:
            return lambda refusers: None
        holders = self.holders(entry)
        table, _ = table_and_priority(entry.priority)
        delete = flowmods.delete_flow(new_xid(), table, self.cookies.cookie(entry))
        self._remove(entry)
        self._release(entry)
        if old is not None:
            self.table.put(old)
            self.cookies.restore(old, old_cookie)
            self._entered(old)

        def finish(refusers: set[Member]) -> None:
            for member in holders:
                if member in refusers:
                    continue
                if old is None:
                    member.send(delete)
                elif old in self.table:
                    self.put(old, member)
                else:
                    member.send(delete)

        return finish

    def modify(
        self,
        entries: list[FlowEntry],
        match: matches.Match,
        cookie: Optional[int],
        actions: act.Actions,
        peer: Requester,
        message: bytes,
    ) -> None:
        """
        MODIFY: give flows other actions, and another cookie unless that is None; their counters
        and timeouts stay (but a hard timeout begins anew, as in Open vSwitch).

        match: the controller's, which covers those of the flows

        Raises OpenFlowError if the actions are too many.
        """
        for member in self.ready_members():
            member.translated(actions)
        before = [(entry, entry.actions, entry.cookie, entry.modified) for entry in entries]
        xid = self.refusals.originate(
            peer,
            message,
            lambda: self._undo_modify(before),
            entries,
            actions.refusable,
        )
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%d flows now do %s", len(entries), actions_text(actions.wire))
        now = time.monotonic()
        kind = _kind(match, actions)
        for entry in entries:
            entry.actions = actions
            if cookie is not None:
                entry.cookie = cookie
            entry.modified = now
            self._send_actions(entry, xid, kind)

    def _send_actions(self, entry: FlowEntry, xid: int, kind: bytes) -> None:
        table, _ = table_and_priority(entry.priority)
        cookie = self.cookies.cookie(entry)
        packed: dict[bytes, bytes] = {}
        for member in self.holders(entry):
            actions = member.translated_or_none(entry.actions)
            data = packed.get(actions)
            if data is None:
                data = packed[actions] = flowmods.modify_flow(xid, table, cookie, actions, kind)
            member.send(data)

    def _undo_modify(
        self, before: list[tuple[FlowEntry, act.Actions, int, float]]
    ) -> Callable[[set[Member]], None]:
        changed = [each for each in before if each[0] in self.table]
        for entry, actions, cookie, modified in changed:
            entry.actions, entry.cookie, entry.modified = actions, cookie, modified

        def finish(refusers: set[Member]) -> None:
            for entry, actions, _, _ in changed:
                if entry in self.table and entry.actions is actions:
                    self._send_actions(entry, new_xid(), _kind(entry.match, actions))

        return finish

    def delete(self, entries: list[FlowEntry]) -> None:
        """DELETE: the controllers are told where they had asked for that."""
        self._end(entries, of.OFPRR_DELETE)

    def _end(self, entries: list[FlowEntry], reason: int, told: Optional[Member] = None) -> None:
        """
        Flows have come to their end: take them from the table and the switches, and tell the
        controllers when the switches have told what they had counted.

        told: a switch that has told already
        """
        if not entries:
            return
        self._delete_copies(entries)
        if len(entries) == len(self.table) > 1:
            entries = self._clear(entries)
        else:
            for entry in entries:
                self._remove(entry)
        for entry in entries:
            if entry.flags & of.OFPFF_SEND_FLOW_REM:
                waited_for = [
                    member
                    for member in self.holders(entry)
                    if member is not told and entry not in member.missing
                ]
                self.removals.begin(entry, waited_for, reason)
            else:
                self._release(entry)

    def _clear(self, entries: list[FlowEntry]) -> list[FlowEntry]:
        """
        Take all flows out of the table; those that the controllers are to be told of are returned,
        the others are released.

        What is known of them is replaced, not emptied, so that others do not wait meanwhile.
        """
        told_of = [entry for entry in entries if entry.flags & of.OFPFF_SEND_FLOW_REM]
        kept = [*told_of, *self.removals]
        before: list[Any] = [*self.table.clear(), *self._expiry.cleared()]
        before += self.cookies.clear(kept)
        cookies = [self.cookies.cookie(entry) for entry in kept]
        for member in self.members.values():
            counters = member.counters
            before.append(counters)
            member.counters = {each: counters[each] for each in cookies if each in counters}
        garbage.let_go(before)
        return told_of

    def _delete_copies(self, entries: list[FlowEntry]) -> None:
        if len(entries) == len(self.table) > 1:
            for member in self.ready_members():
                for table in (TABLE_OPENFLOW, TABLE_LOWEST):
                    member.send(flowmods.delete_flows(new_xid(), table, self.cookies.run, RUN_MASK))
            return
        for entry in entries:
            table, _ = table_and_priority(entry.priority)
            data = flowmods.delete_flow(new_xid(), table, self.cookies.cookie(entry))
            for member in self.holders(entry):
                member.send(data)

    def _tell_removed(self, entry: FlowEntry, reason: int, ended: float) -> None:
        """A flow's copies are all told of: tell the controllers."""
        packets, octets = self.counted(entry)
        seconds, nanoseconds = split_seconds(ended - entry.created)
        self._events.flow_removed(
            _FLOW_REMOVED.pack(
                of.OFP_VERSION,
                of.OFPT_FLOW_REMOVED,
                _FLOW_REMOVED.size,
                0,
                entry.match.wire,
                entry.cookie,
                entry.priority,
                reason,
                seconds,
                nanoseconds,
                entry.idle_timeout,
                packets,
                octets,
            ),
        )
        self._release(entry)

    def _remove(self, entry: FlowEntry) -> None:
        self.table.remove(entry)
        self._expiry.removed(entry)

    def _release(self, entry: FlowEntry) -> None:
        """Nobody waits any more for what a flow had counted."""
        cookie = self.cookies.cookie(entry)
        for member in self.members.values():
            if member.counters:
                member.counters.pop(cookie, None)
        self.cookies.release(entry)

    def counted(self, entry: FlowEntry) -> tuple[int, int]:
        """The packets and octets of a flow, over all its copies, as far as they are known."""
        packets, octets = entry.packets, entry.octets
        cookie = self.cookies.cookie(entry)
        for member in self.members.values():
            more = member.counters.get(cookie)
            if more is not None:
                packets += more[0]
                octets += more[1]
        # Below 0 where what it had counted in the gap was taken from it (see expiry.py), and the
        # counters of its switch are older than that.
        return max(0, min(packets, LARGEST_COUNT)), max(0, min(octets, LARGEST_COUNT))

    @property
    def matched_in_gap(self) -> int:
        """Packets that their flow has had, though a table-miss rule had counted them."""
        return self._expiry.rescued

    # --- fragments and barriers ----------------------------------------------------------------

    def set_fragments(self, flags: int) -> None:
        """OFPC_FRAG_*, on all switches."""
        if flags != self.fragments:
            self.fragments = flags
            for member in self.members.values():
                member.configure(flags)

    def unsettled(self) -> list[Member]:
        """The ready switches that need not have done yet all that they were sent."""
        return [member for member in self.ready_members() if not member.settled]

    @property
    def sure_of_queues(self) -> bool:
        """True if every rule for a queue that a switch has been sent is there for certain."""
        return self._sure_queue_rules == self._queue_rules

    def _ask_barriers(self, done: Callable[[], None]) -> None:
        """done() when every ready switch has done all that it was sent, or is lost."""
        rules = self._queue_rules

        def answered() -> None:
            self._sure_queue_rules = max(self._sure_queue_rules, rules)
            done()

        members = self.ready_members()
        gather: Gather[Member] = Gather(members, answered)
        for member in members:
            member.barrier(lambda member=member: gather.answered(member))
        gather.start()

    # --- what the switches say of flows --------------------------------------------------------

    def flow_removed(self, member: Member, removed: messages.FlowRemoved) -> None:
        """A copy of a flow has ended on a switch."""
        entry = self.cookies.entry(removed.cookie)
        if entry is None:
            if removed.cookie == SERVICE:
                member.rule_removed(removed.priority)
            return
        entry.packets += removed.packets
        entry.octets += removed.octets
        if removed.reason in _BY_ITSELF and removed.cookie in member.gone:
            # What was known of it has been added, and another copy put in its place.
            packets, octets = member.gone.pop(removed.cookie)
            entry.packets -= packets
            entry.octets -= octets
            return
        member.counters.pop(removed.cookie, None)
        if entry not in self.table:
            self.removals.told(member, entry)
        elif (
            removed.reason == of.OFPRR_HARD_TIMEOUT
            and entry.modified + entry.hard_timeout > time.monotonic() + _EARLY
        ):
            # It was modified while the switch was away, so its time has begun anew.
            self.put(entry, member)
        elif removed.reason == of.OFPRR_HARD_TIMEOUT:
            self._end([entry], of.OFPRR_HARD_TIMEOUT, member)
        elif removed.reason == of.OFPRR_IDLE_TIMEOUT:
            self._expiry.copy_idle(member, entry, removed.packets)
        else:
            log.warning("%s: somebody else has deleted a flow; it is put back", member)
            self.put(entry, member)


def _kind(match: matches.Match, actions: act.Actions) -> bytes:
    """What a change of a flow has to say of its packets, so that a switch takes these actions."""
    return flowmods.match_kind(match.wire) if actions.refusable else b""


def flow_text(entry: FlowEntry) -> str:
    """A flow as its controller gave it, in the words of ovs-ofctl."""
    words = [f"priority={entry.priority}", match_text(entry.match.wire)]
    words.append(f"actions={actions_text(entry.actions.wire)}")
    return " ".join(filter(None, words))


def split_seconds(duration: float) -> tuple[int, int]:
    """Whole seconds and nanoseconds, in whole milliseconds, as Open vSwitch counts them."""
    seconds, milliseconds = divmod(int(duration * 1000), 1000)
    return seconds, milliseconds * 1000000
