"""
Statistics: requests to the switches, and their replies, which may come in several parts.

The formats of NXST_FLOW are those of Open vSwitch's include/openflow/nicira-ext.h.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow import nicira as nx
from edge.openflow.flowmods import match_cookie

_STATS = struct.Struct("!BBHLHH")
_NX_FLOW_STATS = struct.Struct("!HBxLLHHHHHHQQQ")

ALL_TABLES = 0xFF


def dump_flows(
    xid: int, cookie: Optional[int] = None, mask: Optional[int] = None, table: int = ALL_TABLES
) -> bytes:
    """
    Return an NXST_FLOW request for all flows, or for those with this cookie.

    mask: the bits of the cookie that count; None for all
    """
    match = b"" if cookie is None else match_cookie(cookie, mask)
    body = struct.pack("!LL4xHHB3x", nx.NX_VENDOR_ID, nx.NXST_FLOW, of.OFPP_NONE, len(match), table)
    return stats_request(xid, of.OFPST_VENDOR, body + match + bytes(-len(match) % 8))


def stats_request(xid: int, kind: int, body: bytes) -> bytes:
    """
    Return an OFPT_STATS_REQUEST.

    kind: OFPST_FLOW and so on
    """
    return _STATS.pack(of.OFP_VERSION, of.OFPT_STATS_REQUEST, 12 + len(body), xid, kind, 0) + body


def is_more(message: bytes) -> bool:
    """Return whether more parts of this statistics reply follow (OFPSF_REPLY_MORE)."""
    return bool(message[11] & of.OFPSF_REPLY_MORE)


class FlowStats(NamedTuple):
    """
    One flow of an NXST_FLOW reply (struct nx_flow_stats).

    idle_age: seconds since a packet met the flow; 0 if the switch does not know
    match: NXM, without padding
    """

    table: int
    priority: int
    idle_timeout: int
    hard_timeout: int
    idle_age: int
    cookie: int
    packets: int
    octets: int
    match: bytes
    actions: bytes


def parse_flows(message: bytes) -> Iterator[FlowStats]:
    """
    Yield the flows in one part of an NXST_FLOW reply.

    message: all of the part.  Raises ValueError or struct.error if it is malformed.
    """
    offset = 24
    while offset < len(message):
        flow, length = _flow_at(message, offset)
        yield flow
        offset += length


def flow_at(message: bytes, offset: int) -> FlowStats:
    """The flow that begins at this offset of one part of an NXST_FLOW reply."""
    return _flow_at(message, offset)[0]


def _flow_at(message: bytes, offset: int) -> tuple[FlowStats, int]:
    """A flow, and the length of its entry."""
    (
        length,
        table,
        _,
        _,
        priority,
        idle_timeout,
        hard_timeout,
        match_len,
        idle_age,
        _,
        cookie,
        packets,
        octets,
    ) = _NX_FLOW_STATS.unpack_from(message, offset)
    start = offset + _NX_FLOW_STATS.size
    after = start + match_len + -match_len % 8
    _check_entry(length, after - offset, message, offset)
    flow = FlowStats(
        table,
        priority,
        idle_timeout,
        hard_timeout,
        # Open vSwitch sends the age plus one, and 0 if it does not know the age.
        max(idle_age - 1, 0),
        cookie,
        packets,
        octets,
        message[start : start + match_len],
        message[after : offset + length],
    )
    return flow, length


def _check_entry(length: int, least: int, message: bytes, offset: int) -> None:
    if length < least or offset + length > len(message):
        raise ValueError("broken flow statistics")


_COPY = struct.Struct("!H16xH4xQQQ")


def parse_copies(message: bytes) -> Iterator[tuple[int, int, int, bytes, int]]:
    """
    Yield (cookie, packets, octets, actions, offset) of each flow in one part of an NXST_FLOW reply.

    It costs a third of parse_flows().  flow_at() has the rest of the flow at an offset.

    message: all of the part.  Raises ValueError or struct.error if it is malformed.
    """
    offset, end = 24, len(message)
    unpack = _COPY.unpack_from
    while offset < end:
        length, match_len, cookie, packets, octets = unpack(message, offset)
        actions = offset + _NX_FLOW_STATS.size + (match_len + 7 & ~7)
        after = offset + length
        if not actions <= after <= end:
            raise ValueError("broken flow statistics")
        yield cookie, packets, octets, message[actions:after], offset
        offset = after


_AGES = struct.Struct("!H18xH2xQQ8x")


def parse_ages(message: bytes) -> Iterator[tuple[int, int, int]]:
    """
    Yield (cookie, packets, idle_age) of each flow in one part of an NXST_FLOW reply.

    See FlowStats.  Raises ValueError or struct.error if the message is malformed.
    """
    offset, end = 24, len(message)
    unpack = _AGES.unpack_from
    while offset < end:
        length, idle_age, cookie, packets = unpack(message, offset)
        _check_entry(length, _NX_FLOW_STATS.size, message, offset)
        yield cookie, packets, max(idle_age - 1, 0)
        offset += length


# --- northward: the replies to a controller, and what they are made of ----------------------------

OFPST_PORT_DESC = 13  # not of OpenFlow 1.0, but Open vSwitch answers it there too

_LONGEST_BODY = 0xFFFF - _STATS.size
_FLOW = struct.Struct("!HBx40sLLHHH6xQQQ")
_AGGREGATE = struct.Struct("!QQL4x")
_TABLE = struct.Struct("!B3x32sLLLQQ")
_QUEUE = struct.Struct("!H2xLQQQ")
_PORT_LEN = 104
_DESC = struct.Struct("!256s256s256s32s256s")

# The longest actions that one flow's statistics have room for.
LONGEST_FLOW_ACTIONS = _LONGEST_BODY - _FLOW.size
# What is said of a port of which nothing has been counted (see parse_port_stats).
NO_PORT_STATS = bytes(_PORT_LEN - 2)


def parse_request(message: bytes) -> tuple[int, bytes]:
    """The type and the body of an OFPT_STATS_REQUEST of 12 bytes at least."""
    return int.from_bytes(message[8:10], "big"), message[12:]


def pack_reply(xid: int, kind: int, entries: Iterable[bytes]) -> Iterator[bytes]:
    """
    OFPT_STATS_REPLY messages, as many as these entries need (OFPSF_REPLY_MORE).

    An empty message stands for a pause.  There is one behind each part but the last, and one for
    each empty entry.
    """

    def part(body: list[bytes], size: int, flags: int) -> bytes:
        head = _STATS.pack(of.OFP_VERSION, of.OFPT_STATS_REPLY, 12 + size, xid, kind, flags)
        return head + b"".join(body)

    body: list[bytes] = []
    size = 0
    for entry in entries:
        if not entry:
            yield b""
            continue
        if size + len(entry) > _LONGEST_BODY:
            yield part(body, size, of.OFPSF_REPLY_MORE)
            yield b""
            body, size = [], 0
        body.append(entry)
        size += len(entry)
    yield part(body, size, 0)


def parse_flow_request(body: bytes) -> tuple[bytes, int, int]:
    """The match, the table_id and the out_port of an ofp_flow_stats_request."""
    table, out_port = struct.unpack_from("!BxH", body, 40)
    return body[:40], table, out_port


def pack_flow_stats(
    match: bytes,
    seconds: int,
    nanoseconds: int,
    priority: int,
    idle_timeout: int,
    hard_timeout: int,
    cookie: int,
    packets: int,
    octets: int,
    actions: bytes,
) -> bytes:
    """An ofp_flow_stats of table 0.  Its actions are not longer than LONGEST_FLOW_ACTIONS."""
    return (
        _FLOW.pack(
            _FLOW.size + len(actions),
            0,
            match,
            seconds,
            nanoseconds,
            priority,
            idle_timeout,
            hard_timeout,
            cookie,
            packets,
            octets,
        )
        + actions
    )


def pack_aggregate_stats(packets: int, octets: int, flows: int) -> bytes:
    """An ofp_aggregate_stats_reply."""
    return _AGGREGATE.pack(packets, octets, flows)


def pack_table_stats(table: int, most: int, active: int, lookups: int, matched: int) -> bytes:
    """An ofp_table_stats without a name; most is the number of flows that it has room for."""
    return _TABLE.pack(table, b"", of.OFPFW_ALL, most, active, lookups, matched)


def parse_table_stats(message: bytes) -> Iterator[tuple[int, int, int]]:
    """(table_id, lookup_count, matched_count) of each table in an OFPST_TABLE reply."""
    for offset in range(12, len(message) - _TABLE.size + 1, _TABLE.size):
        table, _, _, _, _, lookups, matched = _TABLE.unpack_from(message, offset)
        yield table, lookups, matched


def is_vendor_reply(message: bytes) -> bool:
    """True for a reply of vendor statistics, such as NXST_FLOW."""
    return message[8:10] == b"\xff\xff"


def port_request(xid: int, port: int) -> bytes:
    """OFPST_PORT for one port, or for all (OFPP_NONE)."""
    return stats_request(xid, of.OFPST_PORT, struct.pack("!H6x", port))


def parse_port_stats(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The port of each ofp_port_stats in an OFPST_PORT reply, and all that follows its number."""
    for offset in range(12, len(message) - _PORT_LEN + 1, _PORT_LEN):
        port = int.from_bytes(message[offset : offset + 2], "big")
        yield port, message[offset + 2 : offset + _PORT_LEN]


def pack_port_stats(port: int, counted: bytes) -> bytes:
    """An ofp_port_stats; counted is all that follows the port's number."""
    return port.to_bytes(2, "big") + counted


def queue_request(xid: int, port: int, queue: int) -> bytes:
    """OFPST_QUEUE for one port or all (OFPP_ALL), and one queue or all (OFPQ_ALL)."""
    return stats_request(xid, of.OFPST_QUEUE, struct.pack("!H2xL", port, queue))


def parse_queue_request(body: bytes) -> tuple[int, int]:
    """The port and the queue_id of an ofp_queue_stats_request."""
    port, queue = struct.unpack("!H2xL", body)
    return port, queue


def parse_queue_stats(message: bytes) -> Iterator[tuple[int, int, tuple[int, int, int]]]:
    """The port, the queue_id and the three counters of each queue in an OFPST_QUEUE reply."""
    for offset in range(12, len(message) - _QUEUE.size + 1, _QUEUE.size):
        port, queue, octets, packets, errors = _QUEUE.unpack_from(message, offset)
        yield port, queue, (octets, packets, errors)


def pack_queue_stats(port: int, queue: int, counters: tuple[int, int, int]) -> bytes:
    """An ofp_queue_stats."""
    return _QUEUE.pack(port, queue, *counters)


def pack_desc(
    manufacturer: bytes, hardware: bytes, software: bytes, serial: bytes, datapath: bytes
) -> bytes:
    """An ofp_desc_stats."""
    return _DESC.pack(manufacturer, hardware, software, serial, datapath)
