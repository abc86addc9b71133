"""
Statistics of the big switch, gathered from the real ones.

Each statistics type (OpenFlow 1.0.0, 5.3.5) has one method.  POX's switch-side framework finds it
by its name (pox/datapaths/switch.py:166).  The counters that a switch reports are kept in its
Member, so that those of a lost switch still count.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Callable, NamedTuple

import pox.openflow.libopenflow_01 as of

from edge.north.connections import ControllerConnection
from edge.openflow import match as matches
from edge.openflow import messages, stats
from edge.openflow.errors import OpenFlowError, bad_request
from edge.openflow.nicira import NX_VENDOR_ID
from edge.south.gather import Request, ask
from edge.south.member import Member
from edge.south.rules import TABLE_LOWEST, TABLE_OPENFLOW
from edge.switch.audit import Look
from edge.switch.bigswitch import BigSwitch
from edge.switch.cookies import RUN_MASK
from edge.switch.flows import LARGEST_COUNT, split_seconds
from edge.switch.flowtable import FlowEntry

# As Open vSwitch reports them.
TABLES = 254
MAX_ENTRIES = 1000000

# What one more flow in a dump of all flows costs, if a request for one flow and its reply cost 1.
# Measured on two real switches with 20,000 flows (Open vSwitch 3.1, CPython 3.11; processor time of
# the aggregator and of the switch, in microseconds, medians of nine):
#
#     a request for one flow, of 8 at a time        25 + 29
#     a request for one flow, of 1,000 at a time    10 + 12
#     a flow in a dump                             0.8 + 1.3
#
# So a flow in a dump costs 0.04 requests when few flows are wanted, and 0.095 when many are.
FLOW_COST = 0.06
# Of so many flows it is not worth while to look which switches hold them, if they are all flows.
_MOST_COUNTED = 1000

_FLOWS_PER_TURN = 1000  # flows that are added up in one turn of POX's loop

_EVERY_TABLE = 0xFF
_ALL_PORTS = (of.OFPP_ALL, of.OFPP_NONE)

# The lengths that the bodies of requests have.
_REQUEST_LENGTHS = {
    of.OFPST_DESC: 0,
    of.OFPST_FLOW: 44,
    of.OFPST_AGGREGATE: 44,
    of.OFPST_TABLE: 0,
    of.OFPST_PORT: 8,
    of.OFPST_QUEUE: 8,
    stats.OFPST_PORT_DESC: 0,
}


class StatsRequest(NamedTuple):
    """An OFPT_STATS_REQUEST whose length is right."""

    message: bytes
    kind: int
    body: bytes


class Statistics:
    """
    Answers a controller's OFPT_STATS_REQUESTs.

    POX, in pox/datapaths/switch.py:
    - :343 sends the result of a handler in one message, which is a struct.error above 65,535 bytes.
      It sends the message to the last connection, whoever has asked.
    - :1007 raises KeyError for an unknown port.

    Here: a handler is given the request and the connection.  It answers when the switches have
    answered.  It raises OpenFlowError if the request is refused.
    """

    big: BigSwitch
    ports: dict[int, of.ofp_phy_port]
    stats_handlers: dict[int, Callable[[StatsRequest, ControllerConnection], None]]

    def _rx_stats_request(self, message: bytes, connection: ControllerConnection) -> None:
        if len(message) < 12:
            raise bad_request(of.OFPBRC_BAD_LEN)
        kind, body = stats.parse_request(message)
        if kind == of.OFPST_VENDOR:
            refuse_vendor(body)
        handler = self.stats_handlers.get(kind)
        if handler is None:
            raise bad_request(of.OFPBRC_BAD_STAT)
        if len(body) != _REQUEST_LENGTHS[kind]:
            raise bad_request(of.OFPBRC_BAD_LEN)
        connection.hold()
        try:
            handler(StatsRequest(message, kind, body), connection)
        except OpenFlowError as e:
            connection.answer([e.reply(message)])

    # --- flows ---------------------------------------------------------------------------------

    def _selected(self, body: bytes) -> tuple[list[FlowEntry], int]:
        """The flows that a request selects, and its out_port."""
        match, table, out_port = stats.parse_flow_request(body)
        if table not in (0, _EVERY_TABLE):
            return [], out_port
        found = self.big.flows.table.covered(matches.parse(match, literal=True), out_port)
        return found, out_port

    def _still_there(self, entries: Iterable[FlowEntry], out_port: int) -> Iterator[FlowEntry]:
        """
        The flows among these that still exist, and the flows that have replaced the others.

        A long reply takes many turns of POX's loop, in which other controllers may change flows.
        """
        table = self.big.flows.table
        for entry in entries:
            if entry in table:
                yield entry
            else:
                yield from table.exact(entry.match, entry.priority, out_port)

    def _stats_flow(self, request: StatsRequest, connection: ControllerConnection) -> None:
        entries, out_port = self._selected(request.body)
        counted = self.big.flows.counted

        def flows() -> Iterator[bytes]:
            for entry in self._still_there(entries, out_port):
                actions = entry.actions.wire
                if len(actions) > stats.LONGEST_FLOW_ACTIONS:
                    continue  # Open vSwitch leaves it out, too: no message has room for it
                packets, octets = counted(entry)
                # Not the time of the request: the flow may be younger than that.
                seconds, nanoseconds = split_seconds(time.monotonic() - entry.created)
                yield stats.pack_flow_stats(
                    entry.match.wire,
                    seconds,
                    nanoseconds,
                    entry.priority,
                    entry.idle_timeout,
                    entry.hard_timeout,
                    entry.cookie,
                    packets,
                    octets,
                    actions,
                )

        refresh(self.big, entries, lambda: _answer(request, connection, flows()))

    def _stats_aggregate(self, request: StatsRequest, connection: ControllerConnection) -> None:
        """
        Answer with the sums of the last known counters of each flow.

        Asking the switches for sums (NXST_AGGREGATE) would be cheaper.  But their sums lack what
        was counted by a lost switch, or by a copy that has just expired.  So sums could go down.
        """
        entries, out_port = self._selected(request.body)

        def sums() -> Iterator[bytes]:
            packets = octets = flows = 0
            for entry in self._still_there(entries, out_port):
                more = self.big.flows.counted(entry)
                packets += more[0]
                octets += more[1]
                flows += 1
                if flows % _FLOWS_PER_TURN == 0:
                    yield b""
            yield stats.pack_aggregate_stats(
                min(packets, LARGEST_COUNT), min(octets, LARGEST_COUNT), flows
            )

        refresh(self.big, entries, lambda: _answer(request, connection, sums()))

    def _stats_table(self, request: StatsRequest, connection: ControllerConnection) -> None:
        """
        Answer that all flows are in table 0, as Open vSwitch does to an OpenFlow 1.0 controller.

        Packets are looked up in TABLE_OPENFLOW of the switch where they enter.  Packets that match
        only the table-miss rule there do not count as matched.
        """
        big = self.big

        def take(member: Member, kind: int, message: bytes) -> None:
            if kind != of.OFPT_STATS_REPLY:
                return
            if stats.is_vendor_reply(message):
                for flow in stats.parse_flows(message):
                    if flow.priority == 0 and flow.table in (TABLE_OPENFLOW, TABLE_LOWEST):
                        member.counters.missed[flow.table].saw(flow.packets)
            else:
                for table, lookups, matched in stats.parse_table_stats(message):
                    if table in (TABLE_OPENFLOW, TABLE_LOWEST):
                        member.counters.looked_up[table].saw(lookups)
                        member.counters.matched[table].saw(matched)

        def entries() -> Iterator[bytes]:
            lookups, matched = 0, big.flows.expiry.rescued
            for member in big.topology.members.values():
                lookups += member.counters.looked_up[TABLE_OPENFLOW].total
                for table in (TABLE_OPENFLOW, TABLE_LOWEST):
                    matched += max(
                        member.counters.matched[table].total - member.counters.missed[table].total,
                        0,
                    )
            yield stats.pack_table_stats(0, MAX_ENTRIES, len(big.flows.table), lookups, matched)
            for table in range(1, TABLES):
                yield stats.pack_table_stats(table, MAX_ENTRIES, 0, 0, 0)

        requests: list[Request] = []
        for member in big.topology.ready_members():
            requests.append((member, partial(stats.stats_request, kind=of.OFPST_TABLE, body=b"")))
            for table in (TABLE_OPENFLOW, TABLE_LOWEST):
                requests.append((member, partial(stats.dump_flows, cookie=0, table=table)))
        ask(requests, take, lambda: _answer(request, connection, entries()))

    # --- ports and queues ----------------------------------------------------------------------

    def _stats_port(self, request: StatsRequest, connection: ControllerConnection) -> None:
        big = self.big
        number = int.from_bytes(request.body[:2], "big")
        if number == of.OFPP_NONE:
            wanted = list(big.portlist.ports)
            asked = [(member, of.OFPP_NONE) for member in big.topology.ready_members()]
        else:
            where = big.port(number)
            wanted = [number] if where is not None else []
            asked = [where] if where is not None else []

        def take(member: Member, kind: int, message: bytes) -> None:
            if kind == of.OFPT_STATS_REPLY:
                member.counters.ports.update(stats.parse_port_stats(message))

        def entries() -> Iterator[bytes]:
            for each in wanted:
                where = big.port(each)
                if where is not None:
                    member, port = where
                    counted = member.counters.ports.get(port, stats.NO_PORT_STATS)
                    yield stats.pack_port_stats(each, counted)

        requests = [(member, partial(stats.port_request, port=port)) for member, port in asked]
        ask(requests, take, lambda: _answer(request, connection, entries()))

    def _stats_queue(self, request: StatsRequest, connection: ControllerConnection) -> None:
        big = self.big
        number, queue = stats.parse_queue_request(request.body)
        if number in _ALL_PORTS:
            asked = [(member, of.OFPP_ALL) for member in big.topology.ready_members()]
        else:
            where = big.port(number)
            if where is None:
                raise OpenFlowError(of.OFPET_QUEUE_OP_FAILED, of.OFPQOFC_BAD_PORT)
            asked = [where]
        found: dict[tuple[int, int], bytes] = {}

        def take(member: Member, kind: int, message: bytes) -> None:
            if kind != of.OFPT_STATS_REPLY:
                return
            for port, each, counters in stats.parse_queue_stats(message):
                if member.ports.numbered(port):
                    north = big.topology.numbers.number(member.index, port)
                    found[north, each] = stats.pack_queue_stats(north, each, counters)

        def finish() -> None:
            if not found and queue != of.OFPQ_ALL:
                error = OpenFlowError(of.OFPET_QUEUE_OP_FAILED, of.OFPQOFC_BAD_QUEUE)
                connection.answer([error.reply(request.message)])
            else:
                _answer(request, connection, found.values())

        requests = [
            (member, partial(stats.queue_request, port=port, queue=queue)) for member, port in asked
        ]
        ask(requests, take, finish)

    # --- the switch itself ---------------------------------------------------------------------

    def _stats_desc(self, request: StatsRequest, connection: ControllerConnection) -> None:
        desc = stats.pack_desc(
            b"edge.aggregator",
            b"Open vSwitch, %d switches" % len(self.big.topology.ready_members()),
            b"POX",
            b"None",
            b"one big switch",
        )
        _answer(request, connection, [desc])

    def _stats_port_desc(self, request: StatsRequest, connection: ControllerConnection) -> None:
        _answer(request, connection, [port.pack() for port in self.ports.values()])


def _answer(
    request: StatsRequest, connection: ControllerConnection, entries: Iterable[bytes]
) -> None:
    """Answer a request with these entries, in as many messages as they need."""
    xid = messages.xid_of(request.message)
    connection.answer(stats.pack_reply(xid, request.kind, entries))


def refuse_vendor(body: bytes) -> None:
    """Raise the OpenFlowError for a request for vendor statistics: none are supported."""
    if len(body) < 4:
        raise bad_request(of.OFPBRC_BAD_LEN)
    if int.from_bytes(body[:4], "big") != NX_VENDOR_ID:
        raise bad_request(of.OFPBRC_BAD_VENDOR)
    raise bad_request(of.OFPBRC_BAD_LEN if len(body) < 12 else of.OFPBRC_BAD_SUBTYPE)


def refresh(switch: BigSwitch, entries: list[FlowEntry], done: Callable[[], None]) -> None:
    """
    Bring the counters of these flows up to date; then call done().

    Each switch is asked for its copies of the flows one by one, or for all that it holds, whichever
    is cheaper (see FLOW_COST).
    """
    audit, flows = switch.audit, switch.flows
    looks: dict[Member, Look] = {}

    def for_all(member: Member, xid: int) -> bytes:
        looks[member] = audit.begin(member)
        return stats.dump_flows(xid, flows.cookies.run, RUN_MASK)

    def for_one(member: Member, cookie: int, xid: int) -> bytes:
        if member not in looks:
            looks[member] = audit.begin_one_by_one(member)
        looks[member].ask_for(cookie)
        return stats.dump_flows(xid, cookie)

    requests: list[Request] = []
    if len(entries) == len(flows.table) > _MOST_COUNTED:
        requests = [(each, partial(for_all, each)) for each in switch.topology.ready_members()]
        entries = []
    for member, groups in _by_member(switch, entries).items():
        wanted = sum(map(len, groups))
        if wanted > 1 + FLOW_COST * len(flows.table):
            requests.append((member, partial(for_all, member)))
            continue
        for group in groups:
            for entry in group:
                if entry in flows.table:
                    cookie = flows.cookies.cookie(entry)
                    requests.append((member, partial(for_one, member, cookie)))

    def take(member: Member, kind: int, message: bytes) -> None:
        if kind == of.OFPT_STATS_REPLY and member in looks:
            audit.read(looks[member], message)

    def finish() -> None:
        for look in looks.values():
            audit.finish(look)
        done()

    def lost(member: Member) -> None:
        looks.pop(member, None)

    ask(requests, take, finish, lost)


def _by_member(switch: BigSwitch, entries: list[FlowEntry]) -> dict[Member, list[list[FlowEntry]]]:
    """
    The ready switches that hold copies of the flows, each with its flows, in groups.

    Flows with the same in_port are on the same switches.  So the switches are looked up once for
    each in_port, which keeps a long list of flows cheap.
    """
    by_in_port: defaultdict[object, list[FlowEntry]] = defaultdict(list)
    for entry in entries:
        by_in_port[entry.match.in_port].append(entry)
    by_member: defaultdict[Member, list[list[FlowEntry]]] = defaultdict(list)
    for group in by_in_port.values():
        for member in switch.flows.holders(group[0]):
            by_member[member].append(group)
    return by_member
