"""
OpenFlow 1.0 matches in the normal form that Open vSwitch gives them.

Different bytes of an ofp_match can mean the same: bits under a wildcard, fields that the packet
cannot have (a TCP port without TCP), and host bits below a prefix do not count.  Open vSwitch
normalizes every match (ofputil_match_from_ofp10_match and ofputil_normalize_match in its
lib/ofp-match.c).  It compares normalized matches to tell whether two flows have the same match,
and reports them in statistics.  Match is that normal form.
"""

import functools
import struct
from typing import NamedTuple, Optional

import pox.openflow.libopenflow_01 as of

LENGTH = 40

ETH_IP, ETH_ARP, ETH_RARP, ETH_IPV6 = 0x0800, 0x0806, 0x8035, 0x86DD
ETH_NONE = 0x05FF  # dl_type of a frame that has none (OFP_DL_TYPE_NOT_ETH_TYPE)
VLAN_NONE = 0xFFFF  # dl_vlan of a frame without a tag (OFP_VLAN_NONE)

# After the wildcards: in_port, dl_src, dl_dst, dl_vlan, dl_vlan_pcp, pad, dl_type, nw_tos,
# nw_proto, pad, nw_src, nw_dst, tp_src, tp_dst (OpenFlow 1.0.0, 5.2.3).
_WIRE = struct.Struct("!L36s")
_LOOK = struct.Struct("!L2x6x6xHBxHBB2x")
_FIELDS = struct.Struct("!H6s6sHBxHBB2xLLHH")
_FIELD_BITS = _FIELDS.size * 8

# The protocols that have tp_src and tp_dst: ICMP, TCP, UDP and SCTP.
_PORTS_PROTOCOLS = frozenset((1, 6, 17, 132))
_IPV6_PORTS_PROTOCOLS = frozenset((58, 6, 17, 132))

_NW_SRC_ALL = 32 << of.OFPFW_NW_SRC_SHIFT
_NW_DST_ALL = 32 << of.OFPFW_NW_DST_SHIFT
_NW_ADDRESSES = _NW_SRC_ALL | _NW_DST_ALL

# A match that names a field other than in_port, possible or not, matches the packet type Ethernet
# for Open vSwitch.  So it differs from a match that names none, though both match every frame.
_ETHERNET = 1 << _FIELD_BITS
_SAYS_NOTHING = of.OFPFW_ALL & ~(of.OFPFW_NW_SRC_MASK | of.OFPFW_NW_DST_MASK) | _NW_ADDRESSES

# The VLAN tag is compared as Open vSwitch's TCI: VLAN id, priority, and this bit if there is a tag.
TCI_PRESENT = 0x1000


class Match(NamedTuple):
    """
    A match in normal form.

    wire: its ofp_match, 40 bytes, as Open vSwitch reports it
    south: the ofp_match to send to an Open vSwitch, which reads this same match from it
    value, mask: the fields as one number, and the bits of it that count
    in_port: the ingress port if the match names one, else None
    """

    wire: bytes
    south: bytes
    value: int
    mask: int
    in_port: Optional[int]


class _Shape(NamedTuple):
    """How to normalize the fields of a match: it follows from wildcards, dl_type and nw_proto."""

    wildcards: bytes
    south_wildcards: bytes
    wire_mask: int  # the bits of Match.wire's fields that stay
    mask: int  # the bits of Match.value that count
    tag_mask: int  # the bits of the TCI that are taken from the message
    ethernet: int  # _ETHERNET or 0
    has_in_port: bool


def _clamp(wildcards: int) -> int:
    """Return the wildcards without unused bits, and with 32 wherever 32 to 63 bits are ignored."""
    wildcards &= of.OFPFW_ALL
    if wildcards & _NW_SRC_ALL:
        wildcards = wildcards & ~of.OFPFW_NW_SRC_MASK | _NW_SRC_ALL
    if wildcards & _NW_DST_ALL:
        wildcards = wildcards & ~of.OFPFW_NW_DST_MASK | _NW_DST_ALL
    return wildcards


def _possible(wildcards: int, dl_type: int, nw_proto: int) -> int:
    """Return the wildcards, clamped, plus those of the fields that such a packet does not have."""
    if wildcards & of.OFPFW_DL_TYPE:
        dl_type = 0
    if dl_type == ETH_IP:
        has_ports = nw_proto in _PORTS_PROTOCOLS
    elif dl_type == ETH_IPV6:
        has_ports = nw_proto in _IPV6_PORTS_PROTOCOLS
        wildcards |= _NW_ADDRESSES
    else:
        has_ports = False
        wildcards |= of.OFPFW_NW_TOS
        if dl_type not in (ETH_ARP, ETH_RARP):
            wildcards |= of.OFPFW_NW_PROTO | _NW_ADDRESSES
    if wildcards & of.OFPFW_NW_PROTO or not has_ports:
        wildcards |= of.OFPFW_TP_SRC | of.OFPFW_TP_DST
    return _clamp(wildcards)


@functools.lru_cache(maxsize=4096)
def _shape(wildcards: int, no_tag: bool, dl_type: int, nw_proto: int, literal: bool) -> _Shape:
    """
    Return the shape of a match.

    no_tag: whether its dl_vlan is VLAN_NONE
    literal: see parse()
    """
    wildcards = _clamp(wildcards)
    ethernet = _ETHERNET if wildcards | of.OFPFW_IN_PORT != _SAYS_NOTHING else 0
    if not literal:
        wildcards = _possible(wildcards, dl_type, nw_proto)

    def bits(flag: int, ones: int) -> int:
        return 0 if wildcards & flag else ones

    vid = bits(of.OFPFW_DL_VLAN, 0xFFFF)
    pcp = bits(of.OFPFW_DL_VLAN_PCP, 7)
    untagged = no_tag and bool(vid)
    if untagged:
        # Without a tag there are no priority bits: they are matched too.
        tci_mask, vid_wire, pcp_wire = 0xFFFF, 0xFFFF, 0
        wildcards &= ~of.OFPFW_DL_VLAN_PCP
    else:
        vid_wire, pcp_wire = vid & 0x0FFF, pcp
        tci_mask = vid_wire | pcp << 13
        if tci_mask:
            tci_mask |= TCI_PRESENT

    src = (wildcards & of.OFPFW_NW_SRC_MASK) >> of.OFPFW_NW_SRC_SHIFT
    dst = (wildcards & of.OFPFW_NW_DST_MASK) >> of.OFPFW_NW_DST_SHIFT

    def fields(tag: int, priority: int) -> int:
        return int.from_bytes(
            _FIELDS.pack(
                bits(of.OFPFW_IN_PORT, 0xFFFF),
                b"\xff" * 6 if not wildcards & of.OFPFW_DL_SRC else bytes(6),
                b"\xff" * 6 if not wildcards & of.OFPFW_DL_DST else bytes(6),
                tag,
                priority,
                bits(of.OFPFW_DL_TYPE, 0xFFFF),
                bits(of.OFPFW_NW_TOS, 0xFC),
                bits(of.OFPFW_NW_PROTO, 0xFF),
                0xFFFFFFFF << src & 0xFFFFFFFF,
                0xFFFFFFFF << dst & 0xFFFFFFFF,
                bits(of.OFPFW_TP_SRC, 0xFFFF),
                bits(of.OFPFW_TP_DST, 0xFFFF),
            ),
            "big",
        )

    south_wildcards = wildcards
    if ethernet and wildcards | of.OFPFW_IN_PORT == _SAYS_NOTHING:
        south_wildcards &= ~of.OFPFW_TP_DST
    return _Shape(
        struct.pack("!L", wildcards),
        struct.pack("!L", south_wildcards),
        fields(vid_wire, pcp_wire),
        fields(tci_mask, 0) | ethernet,
        0 if untagged else tci_mask,
        ethernet,
        not wildcards & of.OFPFW_IN_PORT,
    )


# The places of dl_vlan and dl_vlan_pcp in Match.value.
_VLAN_SHIFT = _FIELD_BITS - 16 * 8
_PCP_SHIFT = _FIELD_BITS - 17 * 8
_TAG_CLEAR = ~(0xFFFF << _VLAN_SHIFT | 0xFF << _PCP_SHIFT)


def parse(raw: bytes, literal: bool = False) -> Match:
    """
    Return the Match that an ofp_match of 40 bytes means to Open vSwitch.

    literal: keep fields that the packet cannot have, as Open vSwitch does in the filters of
        statistics requests
    """
    wildcards, dl_vlan, pcp, dl_type, _, nw_proto = _LOOK.unpack_from(raw)
    shape = _shape(wildcards, dl_vlan == VLAN_NONE, dl_type, nw_proto, literal)
    fields = int.from_bytes(raw[4:LENGTH], "big") & shape.wire_mask
    value = fields & _TAG_CLEAR | shape.ethernet
    if shape.tag_mask:
        tci = (dl_vlan & 0x0FFF | (pcp & 7) << 13 | TCI_PRESENT) & shape.tag_mask
        value |= tci << _VLAN_SHIFT
    in_port = fields >> _FIELD_BITS - 16 if shape.has_in_port else None
    wire_fields = fields.to_bytes(36, "big")
    wire = shape.wildcards + wire_fields
    south = wire
    if shape.south_wildcards != shape.wildcards:
        south = shape.south_wildcards + wire_fields
    return Match(wire, south, value, shape.mask, in_port)


ANY = parse(_WIRE.pack(of.OFPFW_ALL, b""))


def with_in_port(wire: bytes, port: int) -> bytes:
    """Return the same ofp_match with another ingress port."""
    return b"%b%b%b" % (wire[:4], port.to_bytes(2, "big"), wire[6:])


def of_frame(frame: bytes, in_port: int) -> int:
    """
    Return the fields of a frame as one number: it matches if it is Match.value under Match.mask.

    The fields are those of flow_extract (OVS, lib/flow.c) and of OpenFlow 1.0.0, 3.4.  Fields that
    are missing in a truncated frame are 0.
    """
    tci = nw_tos = nw_proto = nw_src = nw_dst = tp_src = tp_dst = 0
    offset = 12
    kind = int.from_bytes(frame[12:14], "big")
    if kind in (0x8100, 0x88A8) and len(frame) >= 18:
        tci = int.from_bytes(frame[14:16], "big") | TCI_PRESENT
        offset = 16
        kind = int.from_bytes(frame[16:18], "big")
    offset += 2
    if kind < 0x0600:
        # 802.3: only an LLC/SNAP header with OUI 0 has a type.
        if frame[offset : offset + 6] == b"\xaa\xaa\x03\0\0\0" and len(frame) >= offset + 8:
            kind = int.from_bytes(frame[offset + 6 : offset + 8], "big")
            offset += 8
            if kind < 0x0600:
                kind = ETH_NONE
        else:
            kind = ETH_NONE
    body = frame[offset:]
    if kind == ETH_IP and len(body) >= 20:
        header, total = (body[0] & 15) * 4, int.from_bytes(body[2:4], "big")
        if 20 <= header <= total <= len(body):
            nw_tos, nw_proto = body[1] & 0xFC, body[9]
            nw_src, nw_dst = struct.unpack_from("!LL", body, 12)
            if not int.from_bytes(body[6:8], "big") & 0x3FFF:  # no fragment
                tp_src, tp_dst = _transport_ports(nw_proto, body[header:total], 1)
    elif kind == ETH_IPV6 and len(body) >= 40:
        upper = _upper_of_ipv6(body)
        if upper is not None:
            nw_tos = int.from_bytes(body[:2], "big") >> 4 & 0xFC
            nw_proto, payload = upper
            tp_src, tp_dst = _transport_ports(nw_proto, payload, 58)
    elif kind in (ETH_ARP, ETH_RARP) and len(body) >= 28 and body[:6] == b"\0\1\x08\0\6\4":
        opcode = int.from_bytes(body[6:8], "big")
        nw_proto = opcode if opcode <= 0xFF else 0
        nw_src = int.from_bytes(body[14:18], "big")
        nw_dst = int.from_bytes(body[24:28], "big")
    return _ETHERNET | int.from_bytes(
        _FIELDS.pack(
            in_port,
            frame[6:12],
            frame[0:6],
            tci,
            0,
            kind,
            nw_tos,
            nw_proto,
            nw_src,
            nw_dst,
            tp_src,
            tp_dst,
        ),
        "big",
    )


def _transport_ports(nw_proto: int, payload: bytes, icmp: int) -> "tuple[int, int]":
    """Return tp_src and tp_dst: ports, or ICMP's type and code (OpenFlow 1.0.0, table 3)."""
    if nw_proto == icmp and len(payload) >= 8:
        return payload[0], payload[1]
    least = {6: 20, 17: 8, 132: 12}.get(nw_proto)
    if least is not None and len(payload) >= least:
        return struct.unpack_from("!HH", payload)
    return 0, 0


def _upper_of_ipv6(packet: bytes) -> Optional[tuple[int, bytes]]:
    """
    Return the upper-layer protocol of an IPv6 packet, and its payload, empty for a fragment.

    None if the packet, or one of its extension headers, is truncated.
    """
    end = 40 + int.from_bytes(packet[4:6], "big")
    if end > len(packet):
        return None
    nw_proto, rest, fragment = packet[6], packet[40:end], False
    while nw_proto in (0, 43, 44, 51, 60):
        if len(rest) < 8:
            return None
        if nw_proto == 44:
            length = 8
            where = int.from_bytes(rest[2:4], "big")
            fragment = fragment or bool(where & 0xFFF9)
            if where & 0xFFF8:
                return rest[0], b""  # a later fragment: no header follows
        elif nw_proto == 51:  # authentication
            length = (rest[1] + 2) * 4
        else:  # hop-by-hop, routing, destination options
            length = (rest[1] + 1) * 8
        if length > len(rest):
            return None
        nw_proto, rest = rest[0], rest[length:]
    return nw_proto, b"" if fragment else rest
