"""OpenFlow 1.0 matches once more, field by field: edge.openflow.match is compared with this.

normalise() has been checked against Open vSwitch 3.1 with all pairs of match_pairs.py.
"""

import struct
from typing import NamedTuple

FORMAT = "!IH6s6sHBBHBB2sIIHH"
IN_PORT, VLAN, SRC, DST, TYPE, PROTO, TPS, TPD = (1 << bit for bit in range(8))
PCP, TOS = 1 << 20, 1 << 21
_BITS = VLAN | SRC | DST | TYPE | PROTO | TPS | TPD | PCP | TOS


def normalise(raw: bytes) -> tuple[bytes, bool]:
    """Return the 40 bytes that flow statistics show, and whether the match is one of Ethernet
    frames.

    The second value is part of a match's identity, though no OpenFlow 1.0 message shows it.
    """
    (w, in_port, src, dst, vlan, pcp, _, dl_type, tos, proto, _, nw_src, nw_dst, tps, tpd) = (
        struct.unpack(FORMAT, raw)
    )
    w &= 0x3FFFFF
    src_bits, dst_bits = min(w >> 8 & 63, 32), min(w >> 14 & 63, 32)
    ethernet = bool(~w & _BITS) or src_bits < 32 or dst_bits < 32
    exact = ~w & (_BITS | IN_PORT)
    if exact & VLAN:
        if vlan == 0xFFFF:
            exact |= PCP
            pcp = 0
        else:
            vlan &= 0x0FFF
    pcp &= 7
    ip = bool(exact & TYPE) and dl_type == 0x0800
    ip6 = bool(exact & TYPE) and dl_type == 0x86DD
    arp = bool(exact & TYPE) and dl_type in (0x0806, 0x8035)
    if not (ip or ip6 or arp):
        exact &= ~PROTO
    if not (ip or ip6):
        exact &= ~TOS
    if not (ip or arp):
        src_bits = dst_bits = 32
    has_ports = (ip and proto in (1, 6, 17, 132)) or (ip6 and proto in (58, 6, 17, 132))
    if not (exact & PROTO and has_ports):
        exact &= ~(TPS | TPD)

    def kept(bit, value):
        if exact & bit:
            return value
        return bytes(6) if isinstance(value, bytes) else 0

    def prefix(address, bits):
        return address >> bits << bits if bits < 32 else 0

    wire = struct.pack(
        FORMAT,
        ~exact & (_BITS | IN_PORT) | src_bits << 8 | dst_bits << 14,
        kept(IN_PORT, in_port),
        kept(SRC, src),
        kept(DST, dst),
        kept(VLAN, vlan),
        kept(PCP, pcp),
        0,
        kept(TYPE, dl_type),
        kept(TOS, tos & 0xFC),
        kept(PROTO, proto),
        b"\0\0",
        prefix(nw_src, src_bits),
        prefix(nw_dst, dst_bits),
        kept(TPS, tps),
        kept(TPD, tpd),
    )
    return wire, ethernet


class Field(NamedTuple):
    """The bits of one field that a match compares (mask), and their values."""

    value: int
    mask: int


def fields(raw: bytes) -> dict[str, Field]:
    """Return the fields that a match names, by name."""
    wire, ethernet = normalise(raw)
    (w, in_port, src, dst, vlan, pcp, _, dl_type, tos, proto, _, nw_src, nw_dst, tps, tpd) = (
        struct.unpack(FORMAT, wire)
    )
    named = {}

    def name(bit, field, value, mask):
        if not w & bit:
            named[field] = Field(value, mask)

    name(IN_PORT, "in_port", in_port, 0xFFFF)
    name(SRC, "dl_src", int.from_bytes(src, "big"), 0xFFFFFFFFFFFF)
    name(DST, "dl_dst", int.from_bytes(dst, "big"), 0xFFFFFFFFFFFF)
    name(TYPE, "dl_type", dl_type, 0xFFFF)
    name(TOS, "nw_tos", tos, 0xFC)
    name(PROTO, "nw_proto", proto, 0xFF)
    name(TPS, "tp_src", tps, 0xFFFF)
    name(TPD, "tp_dst", tpd, 0xFFFF)
    if not w & VLAN and vlan == 0xFFFF:
        named.update(tagged=Field(0, 1), vid=Field(0, 0xFFF), pcp=Field(0, 7))
    else:
        name(VLAN, "vid", vlan, 0xFFF)
        name(PCP, "pcp", pcp, 7)
        if {"vid", "pcp"} & named.keys():
            named["tagged"] = Field(1, 1)
    for field, address, bits in (("nw_src", nw_src, w >> 8 & 63), ("nw_dst", nw_dst, w >> 14 & 63)):
        if bits < 32:
            named[field] = Field(address, 0xFFFFFFFF << bits & 0xFFFFFFFF)
    if ethernet:
        named["ethernet"] = Field(1, 1)
    return named


def covers(general: bytes, special: bytes) -> bool:
    """Whether `special` names all that `general` names, with the same values."""
    theirs = fields(special)
    return all(
        name in theirs
        and not field.mask & ~theirs[name].mask
        and not (field.value ^ theirs[name].value) & field.mask
        for name, field in fields(general).items()
    )


def overlaps(one: bytes, other: bytes) -> bool:
    """Whether the two matches contradict each other in no field."""
    theirs = fields(other)
    return all(
        not (field.value ^ theirs[name].value) & field.mask & theirs[name].mask
        for name, field in fields(one).items()
        if name in theirs
    )


def hits(raw: bytes, packet: dict[str, int]) -> bool:
    """Whether a match matches a packet.

    packet: its fields that are not 0.
    """
    return all(
        not (field.value ^ packet.get(name, 0)) & field.mask
        for name, field in fields(raw).items()
        if name != "ethernet"
    )
