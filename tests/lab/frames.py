"""Ethernet frames for tests as bytes, built without a library, whose mistakes tests would share."""

import ipaddress
import struct
from collections.abc import Iterable
from typing import Optional

BROADCAST = "ff:ff:ff:ff:ff:ff"
ETH_IP, ETH_ARP, ETH_IPV6, ETH_VLAN, ETH_LLDP = 0x0800, 0x0806, 0x86DD, 0x8100, 0x88CC
IP_ICMP, IP_TCP, IP_UDP, IP_ICMPV6 = 1, 6, 17, 58


def mac(address: str) -> bytes:
    """Return the six bytes of "00:00:00:00:00:01"."""
    return bytes.fromhex(address.replace(":", ""))


def host_mac(number: int) -> str:
    """Return the Ethernet address of test host `number`: 00:00:00:00:00:01 for host 1."""
    return ":".join(f"{byte:02x}" for byte in number.to_bytes(6, "big"))


def ethernet(
    src: str = "00:00:00:00:00:01",
    dst: str = "00:00:00:00:00:02",
    ethertype: int = ETH_IP,
    payload: bytes = b"",
    vlan: Optional[int] = None,
    pcp: int = 0,
    cfi: int = 0,
    pad: bool = True,
) -> bytes:
    """Return a frame.

    vlan: VLAN id of an 802.1Q tag with priority `pcp` and bit `cfi`; None for no tag.
    pad: fill up to 60 bytes, as a network card does.
    """
    tag = b"" if vlan is None else struct.pack("!HH", ETH_VLAN, pcp << 13 | cfi << 12 | vlan)
    frame = mac(dst) + mac(src) + tag + struct.pack("!H", ethertype) + payload
    return frame.ljust(60, b"\0") if pad else frame


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(
    src: str = "10.0.0.1",
    dst: str = "10.0.0.2",
    protocol: int = IP_UDP,
    payload: bytes = b"",
    tos: int = 0,
    ttl: int = 64,
    identification: int = 0,
    fragment: int = 0,
) -> bytes:
    """Return an IPv4 packet.  fragment: the 16 bits of flags and fragment offset."""

    def header(check: int) -> bytes:
        return struct.pack(
            "!BBHHHBBH4s4s",
            0x45,
            tos,
            20 + len(payload),
            identification,
            fragment,
            ttl,
            protocol,
            check,
            ipaddress.IPv4Address(src).packed,
            ipaddress.IPv4Address(dst).packed,
        )

    return header(checksum(header(0))) + payload


def _with_checksum(segment: bytes, offset: int, src: str, dst: str, protocol: int) -> bytes:
    source, destination = ipaddress.ip_address(src), ipaddress.ip_address(dst)
    pseudo = source.packed + destination.packed + struct.pack("!II", len(segment), protocol)
    check = checksum(pseudo + segment) or 0xFFFF
    return segment[:offset] + struct.pack("!H", check) + segment[offset + 2 :]


def udp(
    src: str = "10.0.0.1",
    dst: str = "10.0.0.2",
    sport: int = 1000,
    dport: int = 2000,
    payload: bytes = b"",
    tos: int = 0,
    **ether: object,
) -> bytes:
    """Return a frame with a UDP datagram; `ether` goes to `ethernet`."""
    segment = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    segment = _with_checksum(segment, 6, src, dst, IP_UDP)
    return ethernet(payload=ipv4(src, dst, IP_UDP, segment, tos=tos), **ether)


def tcp(
    src: str = "10.0.0.1",
    dst: str = "10.0.0.2",
    sport: int = 1000,
    dport: int = 2000,
    payload: bytes = b"",
    flags: int = 2,
    tos: int = 0,
    **ether: object,
) -> bytes:
    """Return a frame with a TCP segment (flags 2 is SYN); `ether` goes to `ethernet`."""
    segment = struct.pack("!HHIIBBHHH", sport, dport, 1, 0, 0x50, flags, 8192, 0, 0) + payload
    segment = _with_checksum(segment, 16, src, dst, IP_TCP)
    return ethernet(payload=ipv4(src, dst, IP_TCP, segment, tos=tos), **ether)


def icmp(
    src: str = "10.0.0.1",
    dst: str = "10.0.0.2",
    type: int = 8,
    code: int = 0,
    payload: bytes = b"\0\1\0\1",
    tos: int = 0,
    **ether: object,
) -> bytes:
    """Return a frame with an ICMP message (type 8 is an echo request)."""
    message = struct.pack("!BBH", type, code, 0) + payload
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    return ethernet(payload=ipv4(src, dst, IP_ICMP, message, tos=tos), **ether)


def arp(
    operation: int = 1,
    sender_mac: str = "00:00:00:00:00:01",
    sender_ip: str = "10.0.0.1",
    target_mac: str = "00:00:00:00:00:00",
    target_ip: str = "10.0.0.2",
    **ether: object,
) -> bytes:
    """Return a frame with an ARP packet (operation 1 is a request, to broadcast by default)."""
    packet = struct.pack("!HHBBH", 1, ETH_IP, 6, 4, operation) + b"".join(
        (
            mac(sender_mac),
            ipaddress.IPv4Address(sender_ip).packed,
            mac(target_mac),
            ipaddress.IPv4Address(target_ip).packed,
        )
    )
    ether.setdefault("src", sender_mac)
    ether.setdefault("dst", BROADCAST if operation == 1 else target_mac)
    return ethernet(ethertype=ETH_ARP, payload=packet, **ether)


def ipv6(
    src: str = "fd00::1",
    dst: str = "fd00::2",
    next_header: int = IP_UDP,
    payload: bytes = b"",
    traffic_class: int = 0,
    hop_limit: int = 64,
) -> bytes:
    """Return an IPv6 packet."""
    return struct.pack(
        "!IHBB", 6 << 28 | traffic_class << 20, len(payload), next_header, hop_limit
    ) + (ipaddress.IPv6Address(src).packed + ipaddress.IPv6Address(dst).packed + payload)


def icmpv6(
    src: str = "fd00::1",
    dst: str = "fd00::2",
    type: int = 128,
    code: int = 0,
    payload: bytes = b"\0\1\0\1",
    **ether: object,
) -> bytes:
    """Return a frame with an ICMPv6 message (type 128 is an echo request)."""
    message = _with_checksum(struct.pack("!BBH", type, code, 0) + payload, 2, src, dst, IP_ICMPV6)
    return ethernet(ethertype=ETH_IPV6, payload=ipv6(src, dst, IP_ICMPV6, message), **ether)


def udp6(
    src: str = "fd00::1",
    dst: str = "fd00::2",
    sport: int = 1000,
    dport: int = 2000,
    payload: bytes = b"",
    **ether: object,
) -> bytes:
    """Return a frame with a UDP datagram over IPv6."""
    segment = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    segment = _with_checksum(segment, 6, src, dst, IP_UDP)
    return ethernet(ethertype=ETH_IPV6, payload=ipv6(src, dst, IP_UDP, segment), **ether)


def lldp(
    tlvs: Iterable[tuple[int, bytes]] = ((1, b"\x04abcdef"), (2, b"\x07p1"), (3, b"\0x")),
    src: str = "00:00:00:00:00:01",
    pad: bool = True,
) -> bytes:
    """Return an LLDP frame with the given (type, value) TLVs and the end TLV."""
    payload = b"".join(struct.pack("!H", kind << 9 | len(value)) + value for kind, value in tlvs)
    return ethernet(src, "01:80:c2:00:00:0e", ETH_LLDP, payload + b"\0\0", pad=pad)


def numbered(number: int, size: int = 60, **ether: object) -> bytes:
    """Return a UDP frame of `size` bytes that differs from the frames of all other numbers."""
    payload = struct.pack("!I", number).ljust(max(4, size - 42), b"\xa5")
    return udp(payload=payload, pad=False, **ether)[:size]


def describe(frame: bytes) -> str:
    """Return a frame as text for a failure: its length and its bytes in hexadecimal by layers."""
    layers = (frame[0:6], frame[6:12], frame[12:14], frame[14:])
    return f"{len(frame):4}  " + " ".join(layer.hex() for layer in layers)
