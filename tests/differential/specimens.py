"""Matches and frames that are worth trying, and strategies that mix them."""

import os
import struct

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from lab import frames
from lab import openflow10 as of
from lab.openflow10 import Port

PORTS = (1, 2, 17, 18)

_SEARCH = int(os.environ.get("DIFFERENTIAL_SEARCH", "0"))


def examples(count: int) -> settings:
    """Return the settings of a property test that tries this many examples.

    The examples are the same in every run, so that a failure comes from the change under test and
    not from chance. With DIFFERENTIAL_SEARCH=N in the environment the test tries N times as many
    new examples.
    """
    return settings(
        max_examples=count * max(1, _SEARCH),
        derandomize=not _SEARCH,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


LLC = b"\x42\x42\x03" + bytes(43)  # of the spanning tree protocol: without an Ethernet type
SNAP = b"\xaa\xaa\x03\0\0\0"


def tagged(*tags: int, ethertype: int = 0x88B5, payload: bytes = b"", tpid: int = 0x8100) -> bytes:
    """Return a frame with these 802.1Q tag control informations, the outermost first."""
    tail = b"".join(struct.pack("!HH", 0x8100, tag) for tag in tags[1:])
    frame = frames.mac("00:00:00:00:00:02") + frames.mac("00:00:00:00:00:01")
    frame += struct.pack("!HH", tpid, tags[0]) + tail + struct.pack("!H", ethertype)
    return (frame + payload).ljust(60, b"\0")


def between(src: str, dst: str, frame: bytes = frames.udp()) -> bytes:
    """Return a frame with these Ethernet addresses in place of its own."""
    return frames.mac(dst) + frames.mac(src) + frame[12:]


def fragment(offset: int, more: bool, protocol: int = frames.IP_UDP) -> bytes:
    """Return a frame with an IP fragment; offset: in units of eight bytes."""
    payload = struct.pack("!HHHH", 1000, 2000, 108, 0) + bytes(16)
    packet = frames.ipv4(protocol=protocol, payload=payload, fragment=more << 13 | offset)
    return frames.ethernet(payload=packet)


def ip_options(payload: bytes = struct.pack("!HHHH", 1000, 2000, 8, 0)) -> bytes:
    """Return a UDP frame whose IP header has 4 bytes of options."""
    packet = bytearray(frames.ipv4(payload=b"\1\1\1\1" + payload))
    packet[0] = 0x46
    packet[10:12] = b"\0\0"
    packet[10:12] = struct.pack("!H", frames.checksum(bytes(packet[:24])))
    return frames.ethernet(payload=bytes(packet))


def ipv6_with(next_header: int, header: bytes) -> bytes:
    """Return a UDP over IPv6 frame with an extension header that names UDP as the next."""
    segment = struct.pack("!HHHH", 1000, 2000, 8, 0)
    packet = frames.ipv6(next_header=next_header, payload=header + segment)
    return frames.ethernet(ethertype=frames.ETH_IPV6, payload=packet)


_SCTP = struct.pack("!HHII", 1000, 2000, 0, 0) + bytes(8)
_UDP = frames.udp(payload=b"payload")
_TCP = frames.tcp(payload=b"payload")

FRAMES = {
    "udp": frames.udp(),
    "udp, other ports": frames.udp(sport=80, dport=53),
    "udp, other addresses": frames.udp("192.168.1.1", "172.16.0.1"),
    "udp, other macs": between("02:00:00:00:00:09", "02:00:00:00:00:0a"),
    "udp, tos 4": frames.udp(tos=4),
    "udp, tos 0xfc": frames.udp(tos=0xFC),
    "udp, ecn": frames.udp(tos=0x03),
    "udp, tos and ecn": frames.udp(tos=0xBB),
    "udp broadcast": between("00:00:00:00:00:01", frames.BROADCAST),
    "udp multicast": between("00:00:00:00:00:01", "01:00:5e:00:00:01"),
    "udp, no checksum": _UDP[:40] + b"\0\0" + _UDP[42:],
    "udp, wrong checksum": _UDP[:40] + b"\x12\x34" + _UDP[42:],
    "tcp syn": frames.tcp(),
    "tcp": frames.tcp(sport=80, dport=443, flags=0x18, payload=b"x" * 100),
    "tcp, odd length": frames.tcp(payload=b"odd"),
    "icmp": frames.icmp(),
    "icmp reply": frames.icmp(type=0),
    "icmp unreachable": frames.icmp(type=3, code=1),
    "icmp type 8 code 255": frames.icmp(type=8, code=255),
    "sctp": frames.ethernet(payload=frames.ipv4(protocol=132, payload=_SCTP)),
    "gre": frames.ethernet(payload=frames.ipv4(protocol=47, payload=bytes(24))),
    "igmp": frames.ethernet(payload=frames.ipv4(protocol=2, payload=bytes(8))),
    "ip protocol 0": frames.ethernet(payload=frames.ipv4(protocol=0)),
    "ip protocol 255": frames.ethernet(payload=frames.ipv4(protocol=255)),
    "ip options": ip_options(),
    "first fragment": fragment(0, True),
    "middle fragment": fragment(100, True),
    "last fragment": fragment(200, False),
    "first icmp fragment": fragment(0, True, frames.IP_ICMP),
    "arp request": frames.arp(),
    "arp reply": frames.arp(2, target_mac="00:00:00:00:00:02"),
    "arp operation 256": frames.arp(256),
    "arp operation 0": frames.arp(0, target_mac="00:00:00:00:00:02"),
    "rarp": frames.ethernet(ethertype=0x8035, payload=frames.arp(3)[14:42]),
    "arp of another kind": frames.ethernet(ethertype=0x0806, payload=b"\0\6" + bytes(40)),
    "icmpv6": frames.icmpv6(),
    "neighbour solicitation": frames.icmpv6(type=135, payload=bytes(20)),
    "udp6": frames.udp6(),
    "tcp6": frames.ethernet(
        ethertype=0x86DD, payload=frames.ipv6(next_header=6, payload=_TCP[34:])
    ),
    "ipv6, no next header": frames.ethernet(ethertype=0x86DD, payload=frames.ipv6(next_header=59)),
    "ipv6, traffic class": frames.ethernet(
        ethertype=0x86DD, payload=frames.ipv6(traffic_class=0xBB, payload=_UDP[34:])
    ),
    "ipv6, hop-by-hop": ipv6_with(0, b"\x11\0" + bytes(6)),
    "ipv6, routing": ipv6_with(43, b"\x11\0" + bytes(6)),
    "ipv6, first fragment": ipv6_with(44, b"\x11\0\0\1" + bytes(4)),
    "ipv6, later fragment": ipv6_with(44, b"\x11\0\0\x09" + bytes(4)),
    "ipv6, only fragment": ipv6_with(44, b"\x11\0\0\0" + bytes(4)),
    "vlan 5": frames.udp(vlan=5),
    "vlan 5, priority 3": frames.udp(vlan=5, pcp=3),
    "vlan 6": frames.udp(vlan=6, pcp=3),
    "vlan 4095": frames.udp(vlan=4095, pcp=7),
    "priority tag": frames.udp(vlan=0, pcp=3),
    "priority tag 0": frames.udp(vlan=0),
    "vlan 5, cfi": frames.udp(vlan=5, pcp=3, cfi=1),
    "vlan 5, arp": frames.arp(vlan=5),
    "vlan 5, icmpv6": frames.icmpv6(vlan=5),
    "two tags": tagged(0x6005, 0x0007, ethertype=0x0800, payload=_UDP[14:]),
    "two tags, the inner of vlan 5": tagged(0x0007, 0x0005),
    "three tags": tagged(1, 2, 3),
    "802.1ad": tagged(0x6005, tpid=0x88A8, ethertype=0x0800, payload=_UDP[14:]),
    "802.1ad over 802.1q": tagged(0x6005, 7, tpid=0x88A8),
    "lldp": frames.lldp(),
    "lldp of nothing": frames.lldp(()),
    "lldp, management address": frames.lldp(
        ((1, b"\4abcdef"), (2, b"\7p"), (3, b"\0x"), (8, b"\5\1\n\0\0\1\2\0\0\0\1\0"))
    ),
    "lldp, tlv longer than the frame": frames.lldp(((1, b"x"),))[:14] + b"\x03\xff",
    "lldp, only its type": frames.lldp(())[:14],
    "spanning tree": frames.ethernet(dst="01:80:c2:00:00:00", ethertype=46, payload=LLC),
    "snap, ip": frames.ethernet(ethertype=46, payload=SNAP + b"\x08\0" + _UDP[14:52]),
    "snap, arp": frames.ethernet(ethertype=36, payload=SNAP + b"\x08\x06" + frames.arp()[14:42]),
    "snap of another organisation": frames.ethernet(
        ethertype=46, payload=b"\xaa\xaa\x03\0\0\x0c\x20\0" + bytes(38)
    ),
    "snap in a vlan": tagged(5, ethertype=30, payload=SNAP + b"\x08\0" + _UDP[14:52]),
    "802.3": frames.ethernet(ethertype=46, payload=bytes(46)),
    "802.3, length 1500": frames.ethernet(ethertype=1500, payload=bytes(1500)),
    "type 0x05ff": frames.ethernet(ethertype=0x05FF, payload=bytes(46)),
    "type 0x0600": frames.ethernet(ethertype=0x0600, payload=bytes(46)),
    "type 0": frames.ethernet(ethertype=0, payload=bytes(46)),
    "type 0xffff": frames.ethernet(ethertype=0xFFFF, payload=bytes(46)),
    "mpls": frames.ethernet(ethertype=0x8847, payload=b"\0\x01\x01\x40" + bytes(42)),
    "pause": frames.ethernet(dst="01:80:c2:00:00:01", ethertype=0x8808, payload=b"\0\1\0\xff"),
    "lacp": frames.ethernet(dst="01:80:c2:00:00:02", ethertype=0x8809, payload=b"\1\1"),
    "cisco discovery": frames.ethernet(
        dst="01:00:0c:cc:cc:cc", ethertype=46, payload=b"\xaa\xaa\x03\0\0\x0c\x20\0" + bytes(38)
    ),
    "to the sender": between("00:00:00:00:00:02", "00:00:00:00:00:02"),
    "from a group": between("01:00:00:00:00:01", "00:00:00:00:00:02"),
    "from broadcast": between(frames.BROADCAST, "00:00:00:00:00:02"),
    "from and to nobody": between("00:00:00:00:00:00", "00:00:00:00:00:00"),
    "14 bytes": frames.ethernet(pad=False),
    "14 bytes, ipv6": frames.ethernet(ethertype=0x86DD, pad=False),
    "14 bytes, vlan": frames.ethernet(ethertype=0x8100, pad=False),
    "16 bytes, vlan": frames.ethernet(ethertype=0x8100, payload=b"\x60\5", pad=False),
    "18 bytes, vlan": frames.ethernet(vlan=5, pcp=3, pad=False),
    "18 bytes, vlan and vlan": frames.ethernet(vlan=5, ethertype=0x8100, pad=False),
    "15 bytes": frames.ethernet(payload=b"E", pad=False),
    "ip header cut short": _UDP[:30],
    "ip header only": _UDP[:34],
    "udp header cut short": _UDP[:40],
    "udp without its data": _UDP[:42],
    "tcp header cut short": _TCP[:50],
    "icmp header cut short": frames.icmp(pad=False)[:38],
    "arp cut short": frames.arp(pad=False)[:40],
    "ipv6 header cut short": frames.udp6(pad=False)[:50],
    "ip version 5": frames.ethernet(payload=b"\x55" + _UDP[15:]),
    "ip header length 4": frames.ethernet(payload=b"\x44" + _UDP[15:]),
    "ip header longer than the packet": frames.ethernet(payload=b"\x4f" + _UDP[15:34], pad=False),
    "ip longer than the frame": frames.ethernet(payload=_UDP[14:16] + b"\xff\xff" + _UDP[18:]),
    "ip shorter than the frame": frames.ethernet(payload=_UDP[14:] + b"trailer" * 20),
    "ip of length 0": frames.ethernet(payload=_UDP[14:16] + b"\0\0" + _UDP[18:]),
    "ip, wrong header checksum": frames.ethernet(payload=_UDP[14:24] + b"\x12\x34" + _UDP[26:]),
    "ttl 0": frames.ethernet(payload=frames.ipv4(ttl=0, payload=_UDP[34:])),
    "ttl 1": frames.ethernet(payload=frames.ipv4(ttl=1, payload=_UDP[34:])),
    "1500 bytes": frames.numbered(1, 1500),
    "1514 bytes": frames.numbered(2, 1514),
    "1518 bytes, vlan": frames.numbered(3, 1518, vlan=5),
    "1600 bytes": frames.numbered(4, 1600),
    "1900 bytes": frames.numbered(5, 1900),
}
"""Frames by name: every kind of header that a match looks at, whole and broken."""

# ---- matches ----

_FORMAT = struct.Struct("!IH6s6sHBxHBBxxIIHH")


def raw_match(
    wildcards: int,
    in_port: int = 0,
    dl_src: bytes = bytes(6),
    dl_dst: bytes = bytes(6),
    dl_vlan: int = 0,
    dl_vlan_pcp: int = 0,
    dl_type: int = 0,
    nw_tos: int = 0,
    nw_proto: int = 0,
    nw_src: int = 0,
    nw_dst: int = 0,
    tp_src: int = 0,
    tp_dst: int = 0,
) -> bytes:
    """Return an ofp_match with exactly these values, in wildcarded fields too."""
    return _FORMAT.pack(
        wildcards,
        in_port,
        dl_src,
        dl_dst,
        dl_vlan,
        dl_vlan_pcp,
        dl_type,
        nw_tos,
        nw_proto,
        nw_src,
        nw_dst,
        tp_src,
        tp_dst,
    )


_single_bits = [1 << bit for bit in (*range(8), 20, 21)]


def _wildcards(bits: set[int], src: int, dst: int, junk: int) -> int:
    return sum(bits) | src << 8 | dst << 14 | junk << 22


_prefix = st.sampled_from([0, 1, 8, 16, 24, 31, 32, 33, 63]) | st.just(32)

wildcards = st.one_of(
    st.builds(
        _wildcards,
        st.sets(st.sampled_from(_single_bits)),
        _prefix,
        _prefix,
        st.sampled_from([0, 0, 0, 1, 0x3FF]),
    ),
    st.sampled_from([0, 0xFFC00000, 0x3FFFFF, 0x3FFFFE, 1 << 20, 1 << 8]),
)

in_ports = st.sampled_from([1, 2, 17, 18, 1, 17, 0, 3, 19, 100, 0xFF00, Port.IN_PORT, Port.NONE])
macs = st.sampled_from(
    [
        frames.mac(address)
        for address in (
            "00:00:00:00:00:01",
            "00:00:00:00:00:02",
            frames.BROADCAST,
            "00:00:00:00:00:00",
            "01:80:c2:00:00:0e",
        )
    ]
)
addresses = st.sampled_from([0x0A000001, 0x0A000002, 0x0A0000FF, 0xC0A80101, 0, 0xFFFFFFFF])

matches = st.builds(
    raw_match,
    wildcards,
    in_ports,
    macs,
    macs,
    st.sampled_from([5, 5, 6, 0, 4095, 0xFFFF, 0x1005, 0xFFFE]),
    st.sampled_from([0, 3, 7, 8, 255]),
    st.sampled_from(
        [0x800, 0x800, 0x806, 0x86DD, 0x8035, 0x8100, 0x88CC, 0x5FF, 0, 0x88B5, 0x8847]
    ),
    st.sampled_from([0, 4, 7, 0xB8, 0xFC, 0xFF]),
    st.sampled_from([17, 17, 6, 1, 58, 132, 2, 0, 255]),
    addresses,
    addresses,
    st.sampled_from([1000, 80, 0, 8, 128, 0x108]),
    st.sampled_from([2000, 53, 0, 1, 0xFFFF]),
)
"""Any ofp_match: sensible, useless and impossible ones."""

frame_names = st.sampled_from(sorted(FRAMES))


def match_of(frame: bytes, in_port: int) -> bytes:
    """Return the exact match that a controller builds from an untagged UDP, TCP or ICMP frame."""
    tail = frame[34:38] if frame[23] != frames.IP_ICMP else bytes([0, frame[34], 0, frame[35]])
    return raw_match(
        0,
        in_port,
        frame[6:12],
        frame[0:6],
        of.VLAN_NONE,
        0,
        0x800,
        frame[15] & 0xFC,
        frame[23],
        *struct.unpack("!II", frame[26:34]),
        *struct.unpack("!HH", tail),
    )
