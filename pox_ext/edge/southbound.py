"""
Messages to the real switches, and what they answer: OpenFlow 1.0 with Nicira's extensions.

Pure functions between values and bytes.  Flows are added with an ofp_flow_mod whose command names
the table (NXT_FLOW_MOD_TABLE_ID), since its match can then stay the controller's; they are
modified and deleted with an NXT_FLOW_MOD that matches their cookie.  The formats are those of Open
vSwitch's include/openflow/nicira-ext.h.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple, Optional

import pox.openflow.libopenflow_01 as of

from edge import nicira as nx
from edge.match import ETH_IP, ETH_IPV6, TCI_PRESENT, VLAN_NONE

_VERSION = of.OFP_VERSION
_HEADER = struct.Struct("!BBHL")
_FLOW_MOD = struct.Struct("!BBHL40sQHHHHLHH")
_NX_HEADER = struct.Struct("!BBHLLL")
_NX_FLOW_MOD = struct.Struct("!BBHLLLQHHHHLHHH6x")
_NX_FLOW_STATS = struct.Struct("!HBxLLHHHHHHQQQ")
_NX_PACKET_IN = struct.Struct("!LHBBQH6x")
_PACKET_OUT = struct.Struct("!BBHLLHH")
_STATS = struct.Struct("!BBHLHH")
_FLOW_REMOVED = struct.Struct("!40sQHBxLLH2xQQ")

# What an ofp_flow_mod has room for.
LONGEST_ACTIONS = 0xFFFF - _FLOW_MOD.size
# What an ofp_packet_out has room for, with the frame.
LONGEST_PACKET_OUT = 0xFFFF - _PACKET_OUT.size

NO_BUFFER = 0xFFFFFFFF
ALL_TABLES = 0xFF

_COOKIE = struct.Struct("!LQ")
# Of an ofp_match: wildcards, dl_vlan, dl_type, nw_proto, tp_src, tp_dst.
_KIND = struct.Struct("!L14xHxxHxB10xHH")
_ICMPV6 = 58


def _message(kind: int, xid: int, body: bytes = b"") -> bytes:
    return _HEADER.pack(_VERSION, kind, 8 + len(body), xid) + body


def _nicira(subtype: int, xid: int, body: bytes) -> bytes:
    return (
        _NX_HEADER.pack(_VERSION, of.OFPT_VENDOR, 16 + len(body), xid, nx.NX_VENDOR_ID, subtype)
        + body
    )


def match_in_port(port: int) -> bytes:
    """NXM: the ingress port."""
    return struct.pack("!LH", nx.NXM_OF_IN_PORT, port)


def match_tunnel_key(key: int) -> bytes:
    """NXM: the whole of the tunnel key."""
    return struct.pack("!LQ", nx.NXM_NX_TUN_ID, key)


def match_cookie(cookie: int, mask: Optional[int] = None) -> bytes:
    """NXM: the flow's cookie, or the bits of it that mask names."""
    if mask is None:
        return _COOKIE.pack(nx.NXM_NX_COOKIE, cookie)
    return struct.pack("!LQQ", nx.NXM_NX_COOKIE_W, cookie, mask)


def match_kind(match: bytes) -> bytes:
    """
    NXM: what a match in its one form (Match.wire) says of the kind of packet.

    A flow-mod has to say it for the fields that its Nicira actions name.
    """
    wildcards, vlan, dl_type, proto, icmp_type, icmp_code = _KIND.unpack(match)
    said = b""
    if not wildcards & of.OFPFW_DL_TYPE:
        said += struct.pack("!LH", nx.NXM_OF_ETH_TYPE, dl_type)
        if not wildcards & of.OFPFW_NW_PROTO and dl_type in (ETH_IP, ETH_IPV6):
            said += struct.pack("!LB", nx.NXM_OF_IP_PROTO, proto)
            if (dl_type, proto) == (ETH_IPV6, _ICMPV6):
                if not wildcards & of.OFPFW_TP_SRC:
                    said += struct.pack("!LB", nx.NXM_NX_ICMPV6_TYPE, icmp_type & 0xFF)
                if not wildcards & of.OFPFW_TP_DST:
                    said += struct.pack("!LB", nx.NXM_NX_ICMPV6_CODE, icmp_code & 0xFF)
    if not wildcards & of.OFPFW_DL_VLAN and vlan != VLAN_NONE:
        said += struct.pack("!LHH", nx.NXM_OF_VLAN_TCI_W, TCI_PRESENT, TCI_PRESENT)
    return said


def add_flow(
    xid: int,
    table: int,
    match: bytes,
    cookie: int,
    idle_timeout: int,
    hard_timeout: int,
    priority: int,
    flags: int,
    actions: bytes,
) -> bytes:
    """ADD with an ofp_match of 40 bytes."""
    return (
        _FLOW_MOD.pack(
            _VERSION,
            of.OFPT_FLOW_MOD,
            72 + len(actions),
            xid,
            match,
            cookie,
            table << 8,
            idle_timeout,
            hard_timeout,
            priority,
            NO_BUFFER,
            of.OFPP_NONE,
            flags,
        )
        + actions
    )


def nicira_flow_mod(
    xid: int,
    command: int,
    table: int,
    match: bytes,
    cookie: int = 0,
    priority: int = 0,
    actions: bytes = b"",
    flags: int = 0,
) -> bytes:
    """NXT_FLOW_MOD with an NXM match, for flows without timeouts, and for changes."""
    padded = match + bytes(-len(match) % 8)
    return (
        _NX_FLOW_MOD.pack(
            _VERSION,
            of.OFPT_VENDOR,
            48 + len(padded) + len(actions),
            xid,
            nx.NX_VENDOR_ID,
            nx.NXT_FLOW_MOD,
            cookie,
            table << 8 | command,
            0,
            0,
            priority,
            NO_BUFFER,
            of.OFPP_NONE,
            flags,
            len(match),
        )
        + padded
        + actions
    )


def modify_flow(xid: int, table: int, cookie: int, actions: bytes, kind: bytes = b"") -> bytes:
    """
    Give the flow with this cookie other actions; counters and timeouts stay.

    kind: match_kind() of a match that covers the flow's, for actions that need it
    """
    return nicira_flow_mod(
        xid, of.OFPFC_MODIFY, table, match_cookie(cookie) + kind, cookie, actions=actions
    )


def delete_flow(xid: int, table: int, cookie: int) -> bytes:
    """Delete the flow with this cookie."""
    return nicira_flow_mod(xid, of.OFPFC_DELETE, table, match_cookie(cookie))


def delete_flows(xid: int, table: int, cookie: int, mask: int) -> bytes:
    """Delete the flows whose cookies have these bits."""
    return nicira_flow_mod(xid, of.OFPFC_DELETE, table, match_cookie(cookie, mask))


def dump_flows(
    xid: int, cookie: Optional[int] = None, mask: Optional[int] = None, table: int = ALL_TABLES
) -> bytes:
    """NXST_FLOW for all flows, or for those with this cookie."""
    match = b"" if cookie is None else match_cookie(cookie, mask)
    body = struct.pack("!LL4xHHB3x", nx.NX_VENDOR_ID, nx.NXST_FLOW, of.OFPP_NONE, len(match), table)
    return stats_request(xid, of.OFPST_VENDOR, body + match + bytes(-len(match) % 8))


def stats_request(xid: int, kind: int, body: bytes) -> bytes:
    """OFPT_STATS_REQUEST."""
    return _STATS.pack(_VERSION, of.OFPT_STATS_REQUEST, 12 + len(body), xid, kind, 0) + body


def is_more(message: bytes) -> bool:
    """True if more parts of this statistics reply follow (OFPSF_REPLY_MORE)."""
    return bool(message[11] & of.OFPSF_REPLY_MORE)


class FlowStats(NamedTuple):
    """One flow of an NXST_FLOW reply (struct nx_flow_stats)."""

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
    The flows in one part of an NXST_FLOW reply (the whole message).

    Raises ValueError or struct.error if it is broken.
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
            # Open vSwitch sends the age plus one, and 0 where it does not know it.
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
    (cookie, packets, octets) of the flows in one part of an NXST_FLOW reply.

    Raises ValueError or struct.error if it is broken.
    """
    offset, end = 24, len(message)
    unpack = _COUNTERS.unpack_from
    while offset < end:
        length, cookie, packets, octets = unpack(message, offset)
        _check_entry(length, _NX_FLOW_STATS.size, message, offset)
        yield cookie, packets, octets
        offset += length


class PacketIn(NamedTuple):
    """An NXT_PACKET_IN."""

    total_len: int
    reason: int
    table: int
    cookie: int
    in_port: int
    tunnel_key: Optional[int]
    tunnel_destination: Optional[int]
    data: bytes


# Where the frame begins if the match has just an in_port.
PACKET_IN_DATA = 50
_JUST_IN_PORT = struct.pack("!H6xL", 6, nx.NXM_OF_IN_PORT)


def has_just_in_port(message: bytes) -> bool:
    """True if an NXT_PACKET_IN has nothing in its match but the in_port, as nearly always."""
    return message[32:44] == _JUST_IN_PORT and len(message) >= PACKET_IN_DATA


def parse_packet_in(message: bytes) -> PacketIn:
    """The fields of an NXT_PACKET_IN (the whole message).  Raises ValueError if it is broken."""
    _, total_len, reason, table, cookie, match_len = _NX_PACKET_IN.unpack_from(message, 16)
    offset = 16 + _NX_PACKET_IN.size
    end = offset + match_len
    data = message[end + -match_len % 8 + 2 :]
    in_port, key, destination = of.OFPP_NONE, None, None
    while offset + 4 <= end:
        header = int.from_bytes(message[offset : offset + 4], "big")
        length = header & 0xFF
        value = int.from_bytes(message[offset + 4 : offset + 4 + length], "big")
        if header == nx.NXM_OF_IN_PORT:
            in_port = value
        elif header == nx.NXM_NX_TUN_ID:
            key = value
        elif header == nx.NXM_NX_TUN_IPV4_DST:
            destination = value
        offset += 4 + length
    return PacketIn(total_len, reason, table, cookie, in_port, key, destination, data)


class FlowRemoved(NamedTuple):
    """What matters of an OFPT_FLOW_REMOVED."""

    cookie: int
    priority: int
    reason: int
    packets: int
    octets: int


def parse_flow_removed(message: bytes) -> FlowRemoved:
    """The fields of an OFPT_FLOW_REMOVED (the whole message)."""
    _, cookie, priority, reason, _, _, _, packets, octets = _FLOW_REMOVED.unpack_from(message, 8)
    return FlowRemoved(cookie, priority, reason, packets, octets)


def packet_out(xid: int, in_port: int, actions: bytes, data: bytes) -> bytes:
    """OFPT_PACKET_OUT of a frame."""
    return (
        _PACKET_OUT.pack(
            _VERSION,
            of.OFPT_PACKET_OUT,
            16 + len(actions) + len(data),
            xid,
            NO_BUFFER,
            in_port,
            len(actions),
        )
        + actions
        + data
    )


def set_config(xid: int, flags: int, miss_send_len: int) -> bytes:
    """OFPT_SET_CONFIG."""
    return _message(of.OFPT_SET_CONFIG, xid, struct.pack("!HH", flags, miss_send_len))


def port_mod(
    xid: int, port: int, hw_addr: bytes, config: int, mask: int, advertise: int = 0
) -> bytes:
    """OFPT_PORT_MOD."""
    return _message(
        of.OFPT_PORT_MOD, xid, struct.pack("!H6sLLL4x", port, hw_addr, config, mask, advertise)
    )


def barrier_request(xid: int) -> bytes:
    """OFPT_BARRIER_REQUEST."""
    return _message(of.OFPT_BARRIER_REQUEST, xid)


def echo_request(xid: int) -> bytes:
    """OFPT_ECHO_REQUEST."""
    return _message(of.OFPT_ECHO_REQUEST, xid)


def features_request(xid: int) -> bytes:
    """OFPT_FEATURES_REQUEST."""
    return _message(of.OFPT_FEATURES_REQUEST, xid)


def set_packet_in_format(xid: int) -> bytes:
    """NXT_SET_PACKET_IN_FORMAT: packet-ins bear the tunnel's fields, a cookie and a table."""
    return _nicira(nx.NXT_SET_PACKET_IN_FORMAT, xid, struct.pack("!L", nx.NXPIF_NXM))


def use_table_ids(xid: int) -> bytes:
    """NXT_FLOW_MOD_TABLE_ID: the upper half of a flow-mod's command is its table."""
    return _nicira(nx.NXT_FLOW_MOD_TABLE_ID, xid, struct.pack("!B7x", 1))


class PhyPort(NamedTuple):
    """An ofp_phy_port (OpenFlow 1.0.0, 5.2.1)."""

    port_no: int
    hw_addr: bytes
    name: bytes
    config: int
    state: int
    curr: int
    advertised: int
    supported: int
    peer: int

    def pack(self) -> bytes:
        return _PHY_PORT.pack(*self)


_PHY_PORT = struct.Struct("!H6s16sLLLLLL")
PHY_PORT_LEN = _PHY_PORT.size


def parse_phy_port(raw: bytes, offset: int = 0) -> PhyPort:
    """The ofp_phy_port at offset."""
    port = PhyPort._make(_PHY_PORT.unpack_from(raw, offset))
    return port._replace(name=port.name.split(b"\0", 1)[0])


def parse_features(message: bytes) -> tuple[PhyPort, ...]:
    """The ports of an OFPT_FEATURES_REPLY (the whole message)."""
    return tuple(
        parse_phy_port(message, offset)
        for offset in range(32, len(message) - PHY_PORT_LEN + 1, PHY_PORT_LEN)
    )
