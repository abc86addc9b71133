"""Matches and frames for hypothesis. Few values are used, so that matches often hit frames."""

import struct

from hypothesis import strategies as st
from lab import frames

from .match_pairs import ofp
from .reference import DST, IN_PORT, PCP, PROTO, SRC, TOS, TPD, TPS, TYPE, VLAN

MACS = ("00:00:00:00:00:01", "00:00:00:00:00:02", "ff:ff:ff:ff:ff:ff")
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.1.1", "192.168.0.1", "0.0.0.0")
ADDRESSES6 = ("fd00::1", "ff02::1")
PORTS = (0, 1, 2, 17, 80, 0x108)
TYPES = (0x0800, 0x0806, 0x8035, 0x86DD, 0x88CC, 0x8100, 0x05FF, 0)
PROTOCOLS = (0, 1, 2, 6, 17, 47, 58, 132)
TAGS = (0, 1, 5, 0x0FFF)

mac = st.sampled_from(MACS)
address = st.sampled_from(ADDRESSES)
number = st.sampled_from(PORTS)


@st.composite
def any_match(draw):
    """An ofp_match as a controller may send it, sensible or not."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(min_size=40, max_size=40))
    wildcards = 0x3FFFFF
    for bit in (IN_PORT, VLAN, SRC, DST, TYPE, PROTO, TPS, TPD, PCP, TOS):
        if draw(st.booleans()):
            wildcards &= ~bit
    prefixes = st.sampled_from((0, 1, 8, 16, 24, 31, 32, 33, 63))
    wildcards = wildcards & ~0xFFF00 | draw(prefixes) << 8 | draw(prefixes) << 14
    if draw(st.integers(0, 19)) == 0:
        wildcards = 0
    return ofp(
        wildcards,
        in_port=draw(number),
        dl_src=draw(mac),
        dl_dst=draw(mac),
        dl_vlan=draw(st.sampled_from((*TAGS, 0xFFFF, 0x1005, 0xFFFE))),
        dl_vlan_pcp=draw(st.sampled_from((0, 3, 7, 11))),
        dl_type=draw(st.sampled_from(TYPES)),
        nw_tos=draw(st.sampled_from((0, 3, 4, 0xB8))),
        nw_proto=draw(st.sampled_from(PROTOCOLS)),
        nw_src=draw(address),
        nw_dst=draw(address),
        tp_src=draw(number),
        tp_dst=draw(number),
    )


@st.composite
def wider_match(draw, raw):
    """A match that names only fields of another match, and perhaps not all of them."""
    wildcards = int.from_bytes(raw[:4], "big") & 0x3FFFFF
    for bit in (IN_PORT, VLAN, SRC, DST, TYPE, PROTO, TPS, TPD, PCP, TOS):
        if draw(st.integers(0, 2)) == 0:
            wildcards |= bit
    for shift in (8, 14):
        more = draw(st.sampled_from((0, 0, 8, 32)))
        bits = min(63, (wildcards >> shift & 63) + more)
        wildcards = wildcards & ~(63 << shift) | bits << shift
    return struct.pack("!I", wildcards) + raw[4:]


@st.composite
def frame_and_fields(draw):
    """A well-formed frame, and the fields that a match can find in it (see reference.hits).

    Fields that the frame does not have, or whose value is 0, are left out.
    """
    src, dst = draw(mac), draw(mac)
    found = {"dl_src": int.from_bytes(frames.mac(src), "big")}
    found["dl_dst"] = int.from_bytes(frames.mac(dst), "big")
    ether = {"src": src, "dst": dst}
    if draw(st.booleans()):
        vlan, pcp, cfi = (
            draw(st.sampled_from(TAGS)),
            draw(st.integers(0, 7)),
            draw(st.integers(0, 1)),
        )
        ether.update(vlan=vlan, pcp=pcp, cfi=cfi)
        found.update(tagged=1, vid=vlan, pcp=pcp)
    kind = draw(st.sampled_from((0x0800, 0x0800, 0x0806, 0x8035, 0x86DD, 0x88CC, 0x05FF)))
    if kind == 0x0800:
        payload = draw(_ipv4(found))
    elif kind == 0x86DD:
        payload = draw(_ipv6(found))
    elif kind in (0x0806, 0x8035):
        payload = draw(_arp(found))
    else:
        payload = bytes(30)
    found["dl_type"] = kind
    if kind == 0x05FF:
        # A frame with an 802.3 length and an LLC header.
        kind, payload = len(payload) + 3, b"\x42\x42\x03" + payload
    elif draw(st.integers(0, 4)) == 0:
        # The type stands behind an 802.3 length, in an LLC/SNAP header.
        header = b"\xaa\xaa\x03\0\0\0" + kind.to_bytes(2, "big")
        kind, payload = min(len(payload) + 8, 1500), header + payload
    frame = frames.ethernet(ethertype=kind, payload=payload, **ether)
    return frame, {name: value for name, value in found.items() if value}


@st.composite
def _transport(draw, protocol, found):
    sport, dport = draw(number), draw(number)
    if protocol in (1, 58):
        sport, dport = sport & 0xFF, dport & 0xFF
        payload = struct.pack("!BBHI", sport, dport, 0, 0)
    elif protocol == 6:
        payload = struct.pack("!HHIIBBHHH", sport, dport, 1, 0, 0x50, 2, 0, 0, 0)
    elif protocol == 17:
        payload = struct.pack("!HHHH", sport, dport, 8, 0)
    elif protocol == 132:
        payload = struct.pack("!HHII", sport, dport, 0, 0)
    else:
        return bytes(16)
    found.update(tp_src=sport, tp_dst=dport)
    return payload


@st.composite
def _ipv4(draw, found):
    src, dst, tos = draw(address), draw(address), draw(st.sampled_from((0, 4, 7, 0xB8)))
    # 58 is ICMPv6. Over IPv4 it has no type and code.
    protocol = draw(st.sampled_from((0, 1, 2, 6, 17, 47, 132)))
    # No fragment (the second has "don't fragment" set), the first fragment, two later fragments.
    fragment = draw(st.sampled_from((0, 0x4000, 0x2000, 0x2010, 0x0001)))
    transport_fields = {}
    payload = draw(_transport(protocol, transport_fields))
    if not fragment & 0x3FFF:
        found.update(transport_fields)
    found.update(nw_src=_number(src), nw_dst=_number(dst), nw_tos=tos & 0xFC, nw_proto=protocol)
    packet = frames.ipv4(src, dst, protocol, payload, tos=tos, fragment=fragment)
    if draw(st.integers(0, 3)) == 0:
        # IP options only move the payload.
        options = b"\x01" * 4
        length = len(packet) + 4
        packet = b"\x46" + packet[1:2] + length.to_bytes(2, "big") + packet[4:20] + options
        packet += payload
    return packet


@st.composite
def _ipv6(draw, found):
    tos, protocol = (
        draw(st.sampled_from((0, 4, 7, 0xB8))),
        draw(st.sampled_from((0, 6, 17, 58, 59))),
    )
    src, dst = draw(st.sampled_from(ADDRESSES6)), draw(st.sampled_from(ADDRESSES6))
    if protocol == 0:
        protocol = 47
    header, payload = protocol, draw(_transport(protocol, found))
    for extension in draw(st.lists(st.sampled_from((0, 43, 60, 51)), max_size=2)):
        # Hop-by-hop options, routing and destination options give their length in units of 8 bytes
        # beyond the first 8. The authentication header gives it in units of 4 bytes beyond the
        # second 4.
        length = 0 if extension != 51 else 2
        rest = bytes(6) if extension != 51 else bytes(14)
        payload = bytes([header, length]) + rest + payload
        header = extension
    found.update(nw_tos=tos & 0xFC, nw_proto=protocol)
    return frames.ipv6(src, dst, header, payload, traffic_class=tos)


@st.composite
def _arp(draw, found):
    operation = draw(st.sampled_from((1, 2, 4, 255, 256, 257)))
    src, dst = draw(address), draw(address)
    found.update(nw_proto=operation if operation < 256 else 0)
    found.update(nw_src=_number(src), nw_dst=_number(dst))
    return frames.arp(operation, sender_ip=src, target_ip=dst, pad=False)[14:]


def _number(text):
    return int.from_bytes(bytes(map(int, text.split("."))), "big")
