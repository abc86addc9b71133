"""
Statistics of the big switch, gathered from the real ones.

One function a statistics type (OpenFlow 1.0.0, 5.3.5).  What a switch says is noted on its
Member, so that what is known of a lost switch still counts.
"""

import struct
import time
from collections.abc import Iterable, Iterator
from typing import Callable

import pox.openflow.libopenflow_01 as of

from edge.north.connections import Peer
from edge.openflow import match as matches
from edge.openflow import stats
from edge.openflow.errors import OpenFlowError
from edge.openflow.nicira import NX_VENDOR_ID
from edge.south.gather import Request, ask
from edge.south.member import Member
from edge.south.rules import TABLE_LOWEST, TABLE_OPENFLOW
from edge.switch.bigswitch import LARGEST_COUNT, BigSwitch, split_seconds
from edge.switch.cookies import RUN_MASK
from edge.switch.flowtable import FlowEntry

_REPLY = struct.Struct("!BBHLHH")
_FLOW = struct.Struct("!HBx40sLLHHH6xQQQ")
_TABLE = struct.Struct("!B3x32sLLLQQ")
_QUEUE = struct.Struct("!H2xLQQQ")
_LONGEST = 0xFFFF - _REPLY.size  # what a reply has room for
_PORT_STATS_LEN = 104
_QUEUE_STATS_LEN = 32
OFPST_PORT_DESC = 13

_TABLES = 254
_MAX_ENTRIES = 1000000
# Up to so many flows are asked for one by one; beyond, a switch is asked for all of them.
_ONE_BY_ONE = 8

_FLOWS_PER_TURN = 1000  # that are added up before it is the turn of others

_EVERY_TABLE = 0xFF
_ALL_PORTS = (of.OFPP_ALL, of.OFPP_NONE)


def _bad_request(code: int) -> OpenFlowError:
    return OpenFlowError(of.OFPET_BAD_REQUEST, code)


def answer(switch: BigSwitch, peer: Peer, message: bytes) -> None:
    """Answer an OFPT_STATS_REQUEST.  Raises OpenFlowError if it is refused."""
    if len(message) < 12:
        raise _bad_request(of.OFPBRC_BAD_LEN)
    kind = int.from_bytes(message[8:10], "big")
    body = message[12:]
    if kind == of.OFPST_VENDOR:
        refuse_vendor(body)
    if kind not in _KINDS:
        raise _bad_request(of.OFPBRC_BAD_STAT)
    length, build = _KINDS[kind]
    if len(body) != length:
        raise _bad_request(of.OFPBRC_BAD_LEN)
    xid = int.from_bytes(message[4:8], "big")
    peer.hold()

    def done(entries: Iterable[bytes]) -> None:
        peer.answer(parts(xid, kind, entries))

    def refused(error: OpenFlowError) -> None:
        peer.answer([error.reply(message)])

    try:
        build(switch, body, done, refused)
    except OpenFlowError as e:
        refused(e)


Done = Callable[[Iterable[bytes]], None]
Refused = Callable[[OpenFlowError], None]


def refuse_vendor(body: bytes) -> None:
    """Raise the OpenFlowError for vendor statistics, none of which there are."""
    if len(body) < 4:
        raise _bad_request(of.OFPBRC_BAD_LEN)
    if int.from_bytes(body[:4], "big") != NX_VENDOR_ID:
        raise _bad_request(of.OFPBRC_BAD_VENDOR)
    raise _bad_request(of.OFPBRC_BAD_LEN if len(body) < 12 else of.OFPBRC_BAD_SUBTYPE)


def parts(xid: int, kind: int, entries: Iterable[bytes]) -> Iterable[bytes]:
    """
    OFPT_STATS_REPLY messages, as many as these entries need (OFPSF_REPLY_MORE).

    Behind each part but the last, and for each empty entry, there is a pause (see Peer.answer).
    """

    def message(body: list[bytes], size: int, flags: int) -> bytes:
        head = _REPLY.pack(of.OFP_VERSION, of.OFPT_STATS_REPLY, 12 + size, xid, kind, flags)
        return head + b"".join(body)

    body: list[bytes] = []
    size = 0
    for entry in entries:
        if not entry:
            yield b""
            continue
        if size + len(entry) > _LONGEST:
            yield message(body, size, of.OFPSF_REPLY_MORE)
            yield b""
            body, size = [], 0
        body.append(entry)
        size += len(entry)
    yield message(body, size, 0)


# --- flows ----------------------------------------------------------------------------------------


def refresh(switch: BigSwitch, entries: list[FlowEntry], done: Callable[[], None]) -> None:
    """Bring the counters of these flows up to date, but for those that are gone; then done()."""
    requests: list[Request] = []
    if len(entries) <= _ONE_BY_ONE:
        for entry in entries:
            if entry not in switch.table:
                continue
            cookie = switch.cookies.cookie(entry)
            for member in switch.holders(entry):
                requests.append((member, lambda xid, cookie=cookie: stats.dump_flows(xid, cookie)))
    else:
        for member in switch.ready_members():
            requests.append(
                (member, lambda xid: stats.dump_flows(xid, switch.cookies.run, RUN_MASK))
            )

    def take(member: Member, kind: int, message: bytes) -> None:
        if kind == of.OFPT_STATS_REPLY:
            counters, known = member.counters, switch.cookies.entry
            for cookie, packets, octets in stats.parse_counters(message):
                if known(cookie) is not None:  # else it has ended meanwhile
                    counters[cookie] = packets, octets

    ask(requests, take, done)


def _selected(switch: BigSwitch, body: bytes) -> tuple[list[FlowEntry], int]:
    """The flows that a request is about, and its out_port."""
    table, out_port = struct.unpack_from("!BxH", body, 40)
    if table not in (0, _EVERY_TABLE):
        return [], out_port
    return switch.table.covered(matches.parse(body[:40], literal=True), out_port), out_port


def _still_there(
    switch: BigSwitch, entries: Iterable[FlowEntry], out_port: int
) -> Iterator[FlowEntry]:
    """
    Those of the flows that are still there, or that stand in their place.

    A long reply takes many turns, and other controllers go on meanwhile.
    """
    table = switch.table
    for entry in entries:
        if entry in table:
            yield entry
        else:
            yield from table.exact(entry.match, entry.priority, out_port)


def _flow(switch: BigSwitch, body: bytes, done: Done, refused: Refused) -> None:
    entries, out_port = _selected(switch, body)

    def flows() -> Iterable[bytes]:
        for entry in _still_there(switch, entries, out_port):
            length = _FLOW.size + len(entry.actions.wire)
            if length > _LONGEST:
                continue  # Open vSwitch leaves it out, too: no message has room for it
            packets, octets = switch.counted(entry)
            # The time of this turn: the flow may be younger than the request.
            seconds, nanoseconds = split_seconds(time.monotonic() - entry.created)
            actions = entry.actions.wire
            yield (
                _FLOW.pack(
                    length,
                    0,
                    entry.match.wire,
                    seconds,
                    nanoseconds,
                    entry.priority,
                    entry.idle_timeout,
                    entry.hard_timeout,
                    entry.cookie,
                    packets,
                    octets,
                )
                + actions
            )

    refresh(switch, entries, lambda: done(flows()))


def _aggregate(switch: BigSwitch, body: bytes, done: Done, refused: Refused) -> None:
    """
    The sums of what is known of each flow.

    Asking the switches for sums (NXST_AGGREGATE) would be cheaper, but then what a lost switch had
    counted, or a copy that has just expired, would be missing flow by flow: sums could go down.
    """
    entries, out_port = _selected(switch, body)

    def sums() -> Iterable[bytes]:
        packets = octets = flows = 0
        for entry in _still_there(switch, entries, out_port):
            more = switch.counted(entry)
            packets += more[0]
            octets += more[1]
            flows += 1
            if flows % _FLOWS_PER_TURN == 0:
                yield b""
        yield struct.pack("!QQL4x", min(packets, LARGEST_COUNT), min(octets, LARGEST_COUNT), flows)

    refresh(switch, entries, lambda: done(sums()))


def _table(switch: BigSwitch, body: bytes, done: Done, refused: Refused) -> None:
    """
    All is in table 0, as on an Open vSwitch whose controller speaks OpenFlow 1.0.

    Packets are looked up in TABLE_OPENFLOW of the switch where they enter; those that its
    table-miss rule takes have not matched.
    """

    def take(member: Member, kind: int, message: bytes) -> None:
        if kind != of.OFPT_STATS_REPLY:
            return
        if message[8:10] == b"\xff\xff":
            for flow in stats.parse_flows(message):
                if flow.priority == 0 and flow.table in (TABLE_OPENFLOW, TABLE_LOWEST):
                    member.missed[flow.table].saw(flow.packets)
        else:
            for offset in range(12, len(message) - _TABLE.size + 1, _TABLE.size):
                table, _, _, _, _, lookups, matched = _TABLE.unpack_from(message, offset)
                if table in (TABLE_OPENFLOW, TABLE_LOWEST):
                    member.looked_up[table].saw(lookups)
                    member.matched[table].saw(matched)

    def entries() -> Iterable[bytes]:
        lookups, matched = 0, switch.matched_in_gap
        for member in switch.members.values():
            lookups += member.looked_up[TABLE_OPENFLOW].total
            for table in (TABLE_OPENFLOW, TABLE_LOWEST):
                matched += max(member.matched[table].total - member.missed[table].total, 0)
        for table in range(_TABLES):
            first = table == 0
            yield _TABLE.pack(
                table,
                b"",
                of.OFPFW_ALL,
                _MAX_ENTRIES,
                len(switch.table) if first else 0,
                lookups if first else 0,
                matched if first else 0,
            )

    requests: list[Request] = []
    for member in switch.ready_members():
        requests.append((member, lambda xid: stats.stats_request(xid, of.OFPST_TABLE, b"")))
        for table in (TABLE_OPENFLOW, TABLE_LOWEST):
            requests.append(
                (member, lambda xid, table=table: stats.dump_flows(xid, 0, table=table))
            )
    ask(requests, take, lambda: done(entries()))


# --- ports and queues -----------------------------------------------------------------------------


def _port(switch: BigSwitch, body: bytes, done: Done, refused: Refused) -> None:
    number = int.from_bytes(body[:2], "big")
    if number == of.OFPP_NONE:
        wanted = list(switch.ports)
        asked = [(member, of.OFPP_NONE) for member in switch.ready_members()]
    else:
        where = switch.port(number)
        wanted = [number] if where is not None else []
        asked = [where] if where is not None else []

    def take(member: Member, kind: int, message: bytes) -> None:
        if kind == of.OFPT_STATS_REPLY:
            for offset in range(12, len(message) - _PORT_STATS_LEN + 1, _PORT_STATS_LEN):
                port = int.from_bytes(message[offset : offset + 2], "big")
                member.port_stats[port] = message[offset + 2 : offset + _PORT_STATS_LEN]

    def entries() -> Iterable[bytes]:
        for each in wanted:
            where = switch.port(each)
            if where is not None:
                member, port = where
                stats = member.port_stats.get(port, bytes(_PORT_STATS_LEN - 2))
                yield each.to_bytes(2, "big") + stats

    requests = [
        (
            member,
            lambda xid, port=port: stats.stats_request(
                xid, of.OFPST_PORT, struct.pack("!H6x", port)
            ),
        )
        for member, port in asked
    ]
    ask(requests, take, lambda: done(entries()))


def _queue(switch: BigSwitch, body: bytes, done: Done, refused: Refused) -> None:
    number, queue = struct.unpack("!H2xL", body)
    if number in _ALL_PORTS:
        asked = [(member, of.OFPP_ALL) for member in switch.ready_members()]
    else:
        where = switch.port(number)
        if where is None:
            raise OpenFlowError(of.OFPET_QUEUE_OP_FAILED, of.OFPQOFC_BAD_PORT)
        asked = [where]
    found: dict[tuple[int, int], bytes] = {}

    def take(member: Member, kind: int, message: bytes) -> None:
        if kind != of.OFPT_STATS_REPLY:
            return
        for offset in range(12, len(message) - _QUEUE_STATS_LEN + 1, _QUEUE_STATS_LEN):
            port, each, *counters = _QUEUE.unpack_from(message, offset)
            if member.numbered(port):
                north = switch.numbers.number(member.index, port)
                found[north, each] = _QUEUE.pack(north, each, *counters)

    def finish() -> None:
        if not found and queue != of.OFPQ_ALL:
            refused(OpenFlowError(of.OFPET_QUEUE_OP_FAILED, of.OFPQOFC_BAD_QUEUE))
        else:
            done(found.values())

    requests = [
        (
            member,
            lambda xid, port=port: stats.stats_request(
                xid, of.OFPST_QUEUE, struct.pack("!H2xL", port, queue)
            ),
        )
        for member, port in asked
    ]
    ask(requests, take, finish)


# --- the switch itself ----------------------------------------------------------------------------


def _desc(switch: BigSwitch, body: bytes, done: Done, refused: Refused) -> None:
    done(
        [
            struct.pack(
                "!256s256s256s32s256s",
                b"edge.aggregator",
                b"Open vSwitch, %d switches" % len(switch.ready_members()),
                b"POX",
                b"None",
                b"one big switch",
            )
        ]
    )


def _port_desc(switch: BigSwitch, body: bytes, done: Done, refused: Refused) -> None:
    done([port.pack() for port in switch.ports.values()])


# Type -> the length of the request's body, and what answers it.
_KINDS: dict[int, tuple[int, Callable[[BigSwitch, bytes, Done, Refused], None]]] = {
    of.OFPST_DESC: (0, _desc),
    of.OFPST_FLOW: (44, _flow),
    of.OFPST_AGGREGATE: (44, _aggregate),
    of.OFPST_TABLE: (0, _table),
    of.OFPST_PORT: (8, _port),
    of.OFPST_QUEUE: (8, _queue),
    # Not of OpenFlow 1.0, but Open vSwitch answers it there too.
    OFPST_PORT_DESC: (0, _port_desc),
}
