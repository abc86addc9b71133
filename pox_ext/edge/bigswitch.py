"""
The big switch: the flows, the real switches that hold copies of them, and the controllers.

What a controller says comes in from northbound.py, what the switches say from member.py.  Here is
what has to be done about it: which switch gets which copy of a flow, when a flow is at its end,
and what the controllers are told.
"""

import heapq
import itertools
import logging
import math
import struct
import time
from collections.abc import Iterable, Iterator
from typing import Callable, Optional

import pox.openflow.libopenflow_01 as of
from pox.core import core

from edge import match as matches
from edge import southbound as south
from edge import translate
from edge.cookies import RUN_MASK, SERVICE, Cookies
from edge.counts import Counts
from edge.discovery import Discovery
from edge.errors import error_reply
from edge.flowtable import FlowEntry, FlowTable
from edge.gather import Gather
from edge.indexes import Indexes
from edge.member import (
    TABLE_LOWEST,
    TABLE_OPENFLOW,
    TABLE_REMOTE,
    Copy,
    Member,
    new_xid,
    table_and_priority,
)
from edge.nicira import NXET_VENDOR
from edge.ports import PortNumbers, Unnumbered
from edge.poxfixes import end_of_turn
from edge.upstream import Controller, Peer

log = logging.getLogger("edge.switch")

_PACKET_IN = struct.Struct("!BBHLLHHBx")
_PORT_STATUS = struct.Struct("!BBHLB7x")
_FLOW_REMOVED = struct.Struct("!BBHL40sQHBxLLH2xQQ")

_NOT_A_FLOW = 0xFFFFFFFFFFFFFFFF  # the cookie of packet-ins that a packet-out's actions cause
# Messages to switches whose refusal could still come in, before we make sure that it does not.
_UNCONFIRMED = 1000


Undo = Callable[[], Callable[["set[Member]"], None]]


class Origin:
    """
    Which message of a controller led to a message to the switches.

    undo: is called at the first refusal, and returns what is to be called when all switches have
        answered: with the set of those that have refused
    refusers: the switches that have refused it
    """

    __slots__ = ("peer", "message", "undo", "refusers")

    def __init__(self, peer: Peer, message: bytes, undo: Optional[Undo]) -> None:
        self.peer = peer
        self.message = message
        self.undo = undo
        self.refusers: Optional[set[Member]] = None


class BigSwitch:
    """
    One OpenFlow 1.0 datapath made of many.

    numbers, indexes: how ports and switches are numbered
    ips: the candidates for tunnel IPs, as numbers
    learn_ips: True if the address from which a switch connects is a candidate too
    datapath_id: what the controllers are told
    switch_timeout: seconds after which a switch that does not answer is given up
    """

    def __init__(
        self,
        numbers: PortNumbers,
        indexes: Indexes,
        ips: Iterable[int],
        datapath_id: int,
        switch_timeout: float,
        learn_ips: bool = False,
    ) -> None:
        self.numbers = numbers
        self._indexes = indexes
        self._learn_ips = learn_ips
        self.datapath_id = datapath_id
        self.switch_timeout = switch_timeout
        self.counts = Counts()
        self.table = FlowTable()
        self.cookies: Cookies[FlowEntry] = Cookies()
        self.members: dict[int, Member] = {}
        self.controllers: list[Controller] = []  # that it connects to, connected or not
        self.peers: list[Peer] = []  # all OpenFlow connections that there are
        self.fragments = of.OFPC_FRAG_NORMAL
        self.discovery = Discovery(ips, self.ready_members, self._tunnel_found)
        self.ports: dict[int, south.PhyPort] = {}  # as the controllers know them
        # There has been a flow of priority 0.  It stays so: with the tables as they are then, the
        # counts of their table-miss rules go on.
        self.has_lowest = False
        self._shared_idle = 0  # flows with an idle timeout that may be on several switches
        self._origins: dict[int, Origin] = {}
        self._confirming = False
        self._undone = False
        self._unheld: dict[FlowEntry, float] = {}
        self._deadlines: list[tuple[float, int, FlowEntry]] = []
        self._serials = itertools.count()
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

        def answered(kind: int, message: bytes) -> bool:
            decide(True)
            return True

        member.request(south.echo_request, answered, lambda: decide(False))
        core.callDelayed(1.0, decide, False)

    def disconnected(self, connection: object) -> None:
        """A switch's connection is gone."""
        for member in self.members.values():
            if member.connection is connection:
                member.disconnected()

    def member_ready(self, member: Member) -> None:
        """A switch has what it has to have."""
        self.counts.resynchronisations += 1
        self._announce_ports(member)
        self.discovery.changed(member)
        self.topology_changed()

    def member_lost(self, member: Member) -> None:
        """A switch is gone: the others do not flood to it, its ports are down."""
        log.warning("%s: lost", member)
        self.discovery.lost(member)
        self._announce_ports(member)
        self.topology_changed()
        now = time.monotonic()
        for entry in self.table:
            if (entry.idle_timeout or entry.hard_timeout) and not self.holders(entry):
                self._unheld.setdefault(entry, now)

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
        self.topology_changed()

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
        for entry in self.table:
            table, _ = table_and_priority(entry.priority)
            cookie = self.cookies.cookie(entry)
            for member in self.holders(entry):
                if same[member] is not None and entry.actions.wire in same[member]:
                    continue
                actions = member.translated(entry.actions)
                member.send(south.modify_flow(new_xid(), table, cookie, actions))
                if entry.hard_timeout:
                    # On the switch its time begins anew; so we look after it.
                    self._expect_end(entry)

    def ingress_of(self, member: Member) -> translate.Ingress:
        """What the translation has to know when a packet enters at this switch."""
        others = [m for m in self.members.values() if m is not member and m.tunnel_ip is not None]
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
        return self.members[index].queue_key(port, queue)

    def tick(self) -> None:
        """Look after what has its time.  To be called some ten times a second."""
        now = time.monotonic()
        self.discovery.tick(now)
        for member in list(self.members.values()):
            member.watch(now, self.switch_timeout)
        if self._origins:
            self._confirm()
        self._end_overdue(now)

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

    def _announce_ports(self, member: Member, but: Optional[Peer] = None) -> None:
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
                self._send_port_status(reason, now.get(number) or self.ports[number], but)
        for number in range(first, first + self.numbers.max_ports):
            self.ports.pop(number, None)
        self.ports.update(now)

    def _send_port_status(self, reason: int, port: south.PhyPort, but: Optional[Peer]) -> None:
        message = _PORT_STATUS.pack(of.OFP_VERSION, of.OFPT_PORT_STATUS, 64, 0, reason)
        self.tell(of.OFPT_PORT_STATUS, message + port.pack(), but)

    def modify_port(self, peer: Peer, number: int, config: int, mask: int, message: bytes) -> None:
        """A controller's PORT_MOD that has been found good."""
        member, port = self.port(number)
        xid = self.originate(peer, message)
        member.modify_port(port, config, mask, xid)
        # As Open vSwitch does: the others are told, the one who asked knows.
        self._announce_ports(member, peer)

    # --- the controllers -----------------------------------------------------------------------

    def opened(self, peer: Peer) -> None:
        """A controller has connected."""
        self.peers.append(peer)

    def closed(self, peer: Peer) -> None:
        """A controller's connection is gone; its flows stay."""
        self.peers.remove(peer)

    def tell(self, kind: int, message: bytes, but: Optional[Peer] = None) -> None:
        """Send an asynchronous message, of this type, to the controllers that want it."""
        for peer in self.peers:
            if peer is not but and peer.wants(kind):
                peer.send(message)

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
        if entry.match.in_port is None:
            return self.ready_members()
        member = self.home(entry.match.in_port)
        return [member] if member is not None and member.ready else []

    def _local_match(self, entry: FlowEntry, member: Member) -> bytes:
        if entry.match.in_port is None:
            return entry.match.south
        _, port = self.numbers.locate(entry.match.in_port)
        return matches.with_in_port(entry.match.south, port)

    def copy(self, entry: FlowEntry, member: Member, again: bool = False) -> Copy:
        """
        A flow as it has to be on a switch.

        again: True if the flow has been there for a while, so that less of its time is left
        """
        table, priority = table_and_priority(entry.priority)
        hard_timeout = entry.hard_timeout
        if again and hard_timeout:
            left = entry.modified + hard_timeout - time.monotonic()
            hard_timeout = max(1, math.ceil(left))
        flags = 0
        if entry.flags & of.OFPFF_SEND_FLOW_REM or entry.idle_timeout or entry.hard_timeout:
            flags = of.OFPFF_SEND_FLOW_REM
        return Copy(
            self.cookies.cookie(entry),
            table,
            self._local_match(entry, member),
            priority,
            entry.idle_timeout,
            hard_timeout,
            flags,
            member.translated(entry.actions),
        )

    def copies_for(self, member: Member, present: dict[int, south.FlowStats]) -> Iterator[Copy]:
        """
        All flows as they have to be on a switch that has come (back) with the present ones.

        What it had counted before, and does not have any more, stays counted.
        """
        seen, member.counters = member.counters, {}
        for entry in list(self.table):
            if member not in self.holders(entry):
                continue
            cookie = self.cookies.cookie(entry)
            self._unheld.pop(entry, None)
            flow = present.get(cookie)
            packets, octets = seen.get(cookie, (0, 0))
            if flow is None or flow.packets < packets:
                entry.packets += packets
                entry.octets += octets
            if flow is None:
                self._mark_fresh(entry, member)
            else:
                member.counters[cookie] = (flow.packets, flow.octets)
            yield self.copy(entry, member, again=True)

    @staticmethod
    def _mark_fresh(entry: FlowEntry, member: Member) -> None:
        if entry.idle_timeout:
            if entry.fresh is None:
                entry.fresh = set()
            entry.fresh.add(member.index)

    def add(self, entry: FlowEntry, peer: Peer, message: bytes) -> None:
        """ADD: put a flow in the place of the one with the same match and priority, if any."""
        old = self.table.put(entry)
        cookie = self.cookies.new(entry)
        self._count(entry, 1)
        old_cookie = 0
        if old is not None:
            old_cookie = self.cookies.cookie(old)
            self._forget(old)
        if len(self._origins) >= _UNCONFIRMED:
            self._confirm()
        members = self.holders(entry)
        xid = self.originate(peer, message, lambda: self._undo_add(entry, old, old_cookie))
        if not members:
            if entry.idle_timeout or entry.hard_timeout:
                self._unheld[entry] = entry.created
            return
        idle_timeout, hard_timeout = entry.idle_timeout, entry.hard_timeout
        flags = 0
        if idle_timeout or hard_timeout or entry.flags & of.OFPFF_SEND_FLOW_REM:
            flags = of.OFPFF_SEND_FLOW_REM
        table, priority = table_and_priority(entry.priority)
        match = self._local_match(entry, members[0])
        packed: dict[bytes, bytes] = {}
        for member in members:
            actions = member.translated(entry.actions)
            data = packed.get(actions)
            if data is None:
                data = packed[actions] = south.add_flow(
                    xid, table, match, cookie, idle_timeout, hard_timeout, priority, flags, actions
                )
            member.send(data)

    def _undo_add(
        self, entry: FlowEntry, old: Optional[FlowEntry], old_cookie: int
    ) -> Callable[[set[Member]], None]:
        """The flow that was there before is there again, and is still on those that refused."""
        if entry not in self.table:
            return lambda refusers: None
        holders = self.holders(entry)
        table, _ = table_and_priority(entry.priority)
        delete = south.delete_flow(new_xid(), table, self.cookies.cookie(entry))
        self.table.remove(entry)
        self._forget(entry)
        if old is not None:
            self.table.put(old)
            self.cookies.restore(old, old_cookie)
            self._count(old, 1)

        def finish(refusers: set[Member]) -> None:
            for member in holders:
                if member in refusers:
                    continue
                if old is None:
                    member.send(delete)
                elif old in self.table:
                    member.send(self.copy(old, member, again=True).add(new_xid()))

        return finish

    def modify(
        self,
        entries: list[FlowEntry],
        cookie: Optional[int],
        actions: translate.Actions,
        peer: Peer,
        message: bytes,
    ) -> None:
        """
        MODIFY: give flows other actions, and another cookie unless that is None; their counters
        and timeouts stay (but a hard timeout begins anew, as in Open vSwitch).
        """
        before = [(entry, entry.actions, entry.cookie, entry.modified) for entry in entries]
        xid = self.originate(peer, message, lambda: self._undo_modify(before))
        now = time.monotonic()
        for entry in entries:
            entry.actions = actions
            if cookie is not None:
                entry.cookie = cookie
            entry.modified = now
            self._send_actions(entry, xid)

    def _send_actions(self, entry: FlowEntry, xid: int) -> None:
        table, _ = table_and_priority(entry.priority)
        cookie = self.cookies.cookie(entry)
        packed: dict[bytes, bytes] = {}
        for member in self.holders(entry):
            actions = member.translated(entry.actions)
            data = packed.get(actions)
            if data is None:
                data = packed[actions] = south.modify_flow(xid, table, cookie, actions)
            member.send(data)

    def _undo_modify(
        self, before: list[tuple[FlowEntry, translate.Actions, int, float]]
    ) -> Callable[[set[Member]], None]:
        changed = [each for each in before if each[0] in self.table]
        for entry, actions, cookie, modified in changed:
            entry.actions, entry.cookie, entry.modified = actions, cookie, modified

        def finish(refusers: set[Member]) -> None:
            for entry, actions, _, _ in changed:
                if entry in self.table and entry.actions is actions:
                    self._send_actions(entry, new_xid())

        return finish

    def delete(self, entries: list[FlowEntry]) -> None:
        """DELETE: the controllers are told where they had asked for that."""
        self._end(entries, of.OFPRR_DELETE)

    def _end(self, entries: list[FlowEntry], reason: int) -> None:
        """
        Flows have come to their end: take them from the table and the switches, and tell the
        controllers when the switches have told what they had counted.
        """
        if not entries:
            return
        self._delete_copies(entries)
        tell = []
        for entry in entries:
            self.table.remove(entry)
            self._count(entry, -1)
            self._unheld.pop(entry, None)
            if entry.flags & of.OFPFF_SEND_FLOW_REM:
                tell.append(entry)
            else:
                self._release(entry)
        if not tell:
            return
        ended = time.monotonic()

        def done() -> None:
            for entry in tell:
                self._tell_removed(entry, reason, ended)
                self._release(entry)

        self.barrier(done)

    def _delete_copies(self, entries: list[FlowEntry]) -> None:
        if len(entries) == len(self.table) > 1:
            for member in self.ready_members():
                for table in (TABLE_OPENFLOW, TABLE_LOWEST):
                    member.send(south.delete_flows(new_xid(), table, self.cookies.run, RUN_MASK))
            return
        for entry in entries:
            table, _ = table_and_priority(entry.priority)
            data = south.delete_flow(new_xid(), table, self.cookies.cookie(entry))
            for member in self.holders(entry):
                member.send(data)

    def _tell_removed(self, entry: FlowEntry, reason: int, ended: float) -> None:
        packets, octets = self.counted(entry)
        seconds, nanoseconds = split_seconds(ended - entry.created)
        self.tell(
            of.OFPT_FLOW_REMOVED,
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

    def _forget(self, entry: FlowEntry) -> None:
        """An entry is not in the table any more, and nobody waits for what it had counted."""
        self._count(entry, -1)
        self._release(entry)

    def _release(self, entry: FlowEntry) -> None:
        cookie = self.cookies.cookie(entry)
        for member in self.members.values():
            if member.counters:
                member.counters.pop(cookie, None)
        self.cookies.release(entry)
        self._unheld.pop(entry, None)

    def _count(self, entry: FlowEntry, step: int) -> None:
        if entry.idle_timeout and entry.match.in_port is None:
            self._shared_idle += step
        if entry.priority == 0 and not self.has_lowest:
            self.has_lowest = True
            for member in self.ready_members():
                member.update_service_rules()

    def counted(self, entry: FlowEntry) -> tuple[int, int]:
        """The packets and octets of a flow, over all its copies, as far as they are known."""
        packets, octets = entry.packets, entry.octets
        cookie = self.cookies.cookie(entry)
        for member in self.members.values():
            more = member.counters.get(cookie)
            if more is not None:
                packets += more[0]
                octets += more[1]
        return packets, octets

    # --- packets -------------------------------------------------------------------------------

    def packet_out(
        self, peer: Peer, message: bytes, in_port: int, actions: translate.Actions, data: bytes
    ) -> None:
        """A controller's PACKET_OUT that has been found good: one switch does it."""
        member = self.home(in_port)
        if member is not None and member.ready:
            _, in_port = self.numbers.locate(in_port)
        else:
            member = self._some_member(actions)
            if member is None:
                return
            if in_port < of.OFPP_MAX:
                in_port = of.OFPP_NONE  # whoever was there is gone
        xid = self.originate(peer, message)
        member.send(south.packet_out(xid, in_port, member.translated(actions), data))

    def _some_member(self, actions: translate.Actions) -> Optional[Member]:
        """A switch for a packet that enters nowhere: best the one where it leaves."""
        for port in actions.outputs:
            member = self.home(port)
            if member is not None and member.ready:
                return member
        ready = self.ready_members()
        return next((m for m in ready if m.tunnel_ip is not None), ready[0] if ready else None)

    def set_fragments(self, flags: int) -> None:
        """OFPC_FRAG_*, on all switches."""
        if flags != self.fragments:
            self.fragments = flags
            for member in self.members.values():
                member.configure(flags)

    # --- what is refused -----------------------------------------------------------------------

    def originate(self, peer: Peer, message: bytes, undo: Optional[Undo] = None) -> int:
        """The xid for what is sent to the switches because of a controller's message."""
        xid = new_xid()
        self._origins[xid] = Origin(peer, message, undo)
        return xid

    def refused(self, member: Member, xid: int, error: bytes) -> None:
        """A switch has refused something."""
        kind, code = struct.unpack_from("!HH", error, 8)
        self.counts.refusals += 1
        origin = self._origins.get(xid)
        if origin is None:
            log.warning("%s: refuses what it was sent (error type %d code %d)", member, kind, code)
            return
        if origin.refusers is not None:
            origin.refusers.add(member)
            return  # the controller knows, and it is being undone
        refusers = origin.refusers = {member}
        self.counts.errors += 1
        prefix = error[12:20] if kind == NXET_VENDOR else b""
        origin.peer.send(error_reply(kind, code, origin.message, prefix=prefix))
        if origin.undo is None:
            return
        log.debug("%s: refuses a flow (error type %d code %d)", member, kind, code)
        self._undone = True
        finish = origin.undo()

        def answered() -> None:
            self._undone = True
            finish(refusers)

        self.ask_barriers(answered)

    def _confirm(self) -> None:
        """Forget the origins of what all switches have taken."""
        if self._confirming:
            return
        self._confirming = True
        newest = next(reversed(self._origins))

        def done() -> None:
            self._confirming = False
            if newest in self._origins:
                for xid in list(self._origins):
                    del self._origins[xid]
                    if xid == newest:
                        break

        self.ask_barriers(done)

    def ask_barriers(self, done: Callable[[], None]) -> None:
        """done() when every ready switch has done all that it was sent, or is lost."""
        members = self.ready_members()
        gather: Gather[Member] = Gather(members, done)
        for member in members:
            member.barrier(lambda member=member: gather.answered(member))
        gather.start()

    def barrier(self, done: Callable[[], None]) -> None:
        """Like ask_barriers(), and what had to be undone meanwhile is undone too."""
        self._undone = False

        def again() -> None:
            if self._undone:
                self.barrier(done)
            else:
                done()

        self.ask_barriers(again)

    # --- what the switches say of flows and packets --------------------------------------------

    def flow_removed(self, member: Member, removed: south.FlowRemoved) -> None:
        """A copy of a flow has ended on a switch."""
        entry = self.cookies.entry(removed.cookie)
        if entry is None:
            return
        entry.packets += removed.packets
        entry.octets += removed.octets
        member.counters.pop(removed.cookie, None)
        if entry not in self.table:
            return
        if removed.reason == of.OFPRR_HARD_TIMEOUT:
            self._end([entry], of.OFPRR_HARD_TIMEOUT)
        elif removed.reason == of.OFPRR_IDLE_TIMEOUT:
            if removed.packets and entry.fresh is not None:
                entry.fresh.discard(member.index)
            self._idle(member, entry)
        else:
            log.warning("%s: somebody else has deleted a flow; it is put back", member)
            member.send(self.copy(entry, member, again=True).add(new_xid()))

    def _idle(self, member: Member, entry: FlowEntry) -> None:
        """
        A copy has been idle for its time.  The flow has been if all its copies have: otherwise
        it is put back (at once: packets may come), until the last one is idle too.
        """
        others = [other for other in self.holders(entry) if other is not member]
        if not others and entry.used + entry.idle_timeout <= time.monotonic():
            self._end([entry], of.OFPRR_IDLE_TIMEOUT)
            return
        member.send(self.copy(entry, member, again=True).add(new_xid()))
        self._mark_fresh(entry, member)
        in_use = [entry.used + entry.idle_timeout > time.monotonic()]
        cookie = self.cookies.cookie(entry)

        def done() -> None:
            if entry in self.table and not any(in_use):
                self._end([entry], of.OFPRR_IDLE_TIMEOUT)

        gather: Gather[Member] = Gather(others, done)

        def ask(other: Member) -> None:
            def answer(kind: int, message: bytes) -> bool:
                if kind == of.OFPT_STATS_REPLY:
                    for flow in south.parse_flows(message):
                        unused = entry.fresh and other.index in entry.fresh and not flow.packets
                        in_use.append(not unused and flow.idle_age < entry.idle_timeout)
                    if is_more(message):
                        return False
                gather.answered(other)
                return True

            other.request(
                lambda xid: south.dump_flows(xid, cookie),
                answer,
                lambda: gather.answered(other),
            )

        for other in others:
            ask(other)
        gather.start()

    def _expect_end(self, entry: FlowEntry) -> None:
        heapq.heappush(
            self._deadlines, (entry.modified + entry.hard_timeout, next(self._serials), entry)
        )

    def _end_overdue(self, now: float) -> None:
        """Flows whose time is up though no switch says so."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, entry = heapq.heappop(self._deadlines)
            if entry not in self.table:
                continue
            if entry.modified + entry.hard_timeout <= now:
                self._end([entry], of.OFPRR_HARD_TIMEOUT)
            else:
                self._expect_end(entry)
        for entry, since in list(self._unheld.items()):
            if entry.hard_timeout and entry.modified + entry.hard_timeout <= now:
                self._end([entry], of.OFPRR_HARD_TIMEOUT)
            elif entry.idle_timeout and since + entry.idle_timeout <= now:
                self._end([entry], of.OFPRR_IDLE_TIMEOUT)

    def packet_in(self, member: Member, packet: south.PacketIn) -> None:
        """A switch has sent a packet to its controller."""
        if packet.table == TABLE_REMOTE and packet.cookie == SERVICE:
            # Open vSwitch leaves out a key that is 0.
            if member.ready and not packet.tunnel_key:
                self.discovery.received(member, packet)
            return
        in_port = packet.in_port
        if in_port < of.OFPP_MAX:
            if not member.numbered(in_port):
                return
            in_port = self.numbers.number(member.index, in_port)
        elif in_port == of.OFPP_LOCAL and packet.cookie != _NOT_A_FLOW:
            return  # the big switch has no such port
        reason = packet.reason
        if packet.cookie == SERVICE and packet.table in (TABLE_OPENFLOW, TABLE_LOWEST):
            reason = of.OFPR_NO_MATCH
            if self._shared_idle and self._forward_in_gap(member, packet, in_port):
                return
        elif reason == of.OFPR_NO_MATCH:
            reason = of.OFPR_ACTION
        data = packet.data
        self.counts.packet_ins += 1
        self.tell(
            of.OFPT_PACKET_IN,
            _PACKET_IN.pack(
                of.OFP_VERSION,
                of.OFPT_PACKET_IN,
                _PACKET_IN.size + len(data),
                0,
                south.NO_BUFFER,
                packet.total_len,
                in_port,
                reason,
            )
            + data,
        )

    def _forward_in_gap(self, member: Member, packet: south.PacketIn, in_port: int) -> bool:
        """
        A packet that a flow would have matched, had its copy on this switch not just expired
        while the flow is in use on others: it goes the flow's way.
        """
        entry = self.table.lookup(matches.of_frame(packet.data, in_port))
        if entry is None or not entry.idle_timeout or entry.match.in_port is not None:
            return False
        entry.used = time.monotonic()
        entry.packets += 1
        entry.octets += packet.total_len
        actions = member.translated(entry.actions)
        member.send(south.packet_out(new_xid(), packet.in_port, actions, packet.data))
        return True


def is_more(message: bytes) -> bool:
    """True if more parts of this statistics reply follow (OFPSF_REPLY_MORE)."""
    return bool(message[11] & of.OFPSF_REPLY_MORE)


def split_seconds(duration: float) -> tuple[int, int]:
    """Whole seconds and nanoseconds, in whole milliseconds, as Open vSwitch counts them."""
    seconds, milliseconds = divmod(int(duration * 1000), 1000)
    return seconds, milliseconds * 1000000
