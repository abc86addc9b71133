"""
Statistics: requests to the switches, and their replies, which may come in several parts.

The formats of NXST_FLOW are those of Open vSwitch's include/openflow/nicira-ext.h.
"""

import struct
from collections.abc import Iterator
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
        yield FlowStats(
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
        offset += length


def _check_entry(length: int, least: int, message: bytes, offset: int) -> None:
    if length < least or offset + length > len(message):
        raise ValueError("broken flow statistics")


_COUNTERS = struct.Struct("!H22xQQQ")


def parse_counters(message: bytes) -> Iterator[tuple[int, int, int]]:
    """
    Yield (cookie, packets, octets) of each flow in one part of an NXST_FLOW reply.

    message: all of the part.  Raises ValueError or struct.error if it is malformed.
    """
    offset, end = 24, len(message)
    unpack = _COUNTERS.unpack_from
    while offset < end:
        length, cookie, packets, octets = unpack(message, offset)
        _check_entry(length, _NX_FLOW_STATS.size, message, offset)
        yield cookie, packets, octets
        offset += length
