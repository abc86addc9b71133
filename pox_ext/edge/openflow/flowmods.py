"""
Flow-mods for the switches, and the NXM matches in them.

A flow is added with an ofp_flow_mod, because that takes the controller's ofp_match as it is; its
command names the table (NXT_FLOW_MOD_TABLE_ID).  A flow is modified and deleted with an
NXT_FLOW_MOD that matches its cookie.  The formats are those of Open vSwitch's
include/openflow/nicira-ext.h.
"""

import struct
from typing import Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow import nicira as nx
from edge.openflow.match import ETH_IP, ETH_IPV6, TCI_PRESENT, VLAN_NONE
from edge.openflow.messages import NO_BUFFER

_VERSION = of.OFP_VERSION
_FLOW_MOD = struct.Struct("!BBHL40sQHHHHLHH")
_NX_FLOW_MOD = struct.Struct("!BBHLLLQHHHHLHHH6x")

# Bytes of actions that fit into an ofp_flow_mod.
LONGEST_ACTIONS = 0xFFFF - _FLOW_MOD.size

_COOKIE = struct.Struct("!LQ")
# Of an ofp_match: wildcards, dl_vlan, dl_type, nw_proto, tp_src, tp_dst.
_KIND = struct.Struct("!L14xHxxHxB10xHH")
_ICMPV6 = 58


def match_in_port(port: int) -> bytes:
    """Return an NXM match of the ingress port."""
    return struct.pack("!LH", nx.NXM_OF_IN_PORT, port)


def match_tunnel_key(key: int) -> bytes:
    """Return an NXM match of the tunnel key, all bits of it."""
    return struct.pack("!LQ", nx.NXM_NX_TUN_ID, key)


def match_cookie(cookie: int, mask: Optional[int] = None) -> bytes:
    """Return an NXM match of the flow's cookie, or of the bits of it that are in mask."""
    if mask is None:
        return _COOKIE.pack(nx.NXM_NX_COOKIE, cookie)
    return struct.pack("!LQQ", nx.NXM_NX_COOKIE_W, cookie, mask)


def match_kind(match: bytes) -> bytes:
    """
    Return an NXM match of the kind of packet (Ethernet type, protocol, tag) in a Match.wire.

    Nicira actions name fields, and a switch takes them only with a match of packets that have these
    fields.
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
    """
    Return an OFPT_FLOW_MOD with the command ADD.

    match: an ofp_match, 40 bytes
    idle_timeout, hard_timeout: in seconds; 0 for none
    flags: OFPFF_ bits
    """
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
    """
    Return an NXT_FLOW_MOD with an NXM match; the timeouts in it are 0.

    command: OFPFC_ADD and so on
    """
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
    Return a flow-mod that gives the flow with this cookie other actions.

    Its counters and timeouts stay.

    kind: match_kind() of the flow's match, or of a more general one, for actions that need it
    """
    return nicira_flow_mod(
        xid, of.OFPFC_MODIFY, table, match_cookie(cookie) + kind, cookie, actions=actions
    )


def delete_flow(xid: int, table: int, cookie: int) -> bytes:
    """Return a flow-mod that deletes the flow with this cookie."""
    return nicira_flow_mod(xid, of.OFPFC_DELETE, table, match_cookie(cookie))


def delete_flows(xid: int, table: int, cookie: int, mask: int) -> bytes:
    """Return a flow-mod that deletes the flows whose cookie, under the mask, is this one."""
    return nicira_flow_mod(xid, of.OFPFC_DELETE, table, match_cookie(cookie, mask))


# --- northward: a controller's flow-mod -----------------------------------------------------------

FLOW_MOD_MATCH = slice(8, 48)  # of the whole message
FLOW_MOD_ACTIONS = slice(72, None)

# What an OFPT_FLOW_MOD (the whole message) says between its match and its actions: cookie, command,
# idle_timeout, hard_timeout, priority, buffer_id, out_port, flags.  There is no function around it,
# since it is called for every flow-mod.
parse_flow_mod = struct.Struct("!48xQHHHHLHH").unpack_from
