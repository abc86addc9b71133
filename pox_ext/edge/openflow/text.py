"""
Matches and actions as text, in the syntax of ovs-ofctl(8).

Pure functions from bytes to text.  Fields and actions that are not known here are shown in
hexadecimal.  No function raises an exception, whatever the bytes are.
"""

import functools
import ipaddress
import struct
from collections.abc import Iterator
from typing import Callable

import pox.openflow.libopenflow_01 as of

from edge.openflow import match as matches
from edge.openflow import nicira as nx
from edge.openflow.cache import cached

_PORTS = {
    of.OFPP_IN_PORT: "IN_PORT",
    of.OFPP_TABLE: "TABLE",
    of.OFPP_NORMAL: "NORMAL",
    of.OFPP_FLOOD: "FLOOD",
    of.OFPP_ALL: "ALL",
    of.OFPP_CONTROLLER: "CONTROLLER",
    of.OFPP_LOCAL: "LOCAL",
    of.OFPP_NONE: "ANY",
}

# NXM and OXM fields by class and number, in the order of their numbers (OVS, lib/meta-flow.h).
_NXM_OF = [
    "IN_PORT",
    "ETH_DST",
    "ETH_SRC",
    "ETH_TYPE",
    "VLAN_TCI",
    "IP_TOS",
    "IP_PROTO",
    "IP_SRC",
    "IP_DST",
    "TCP_SRC",
    "TCP_DST",
    "UDP_SRC",
    "UDP_DST",
    "ICMP_TYPE",
    "ICMP_CODE",
    "ARP_OP",
    "ARP_SPA",
    "ARP_TPA",
]
_NXM_NX = [
    "REG0",
    "REG1",
    "REG2",
    "REG3",
    "REG4",
    "REG5",
    "REG6",
    "REG7",
    "REG8",
    "REG9",
    "REG10",
    "REG11",
    "REG12",
    "REG13",
    "REG14",
    "REG15",
    "TUN_ID",
    "ARP_SHA",
    "ARP_THA",
    "IPV6_SRC",
    "IPV6_DST",
    "ICMPV6_TYPE",
    "ICMPV6_CODE",
    "ND_TARGET",
    "ND_SLL",
    "ND_TLL",
    "IP_FRAG",
    "IPV6_LABEL",
    "IP_ECN",
    "IP_TTL",
    "COOKIE",
    "TUN_IPV4_SRC",
    "TUN_IPV4_DST",
    "PKT_MARK",
]
_FIELD_NAMES = {
    **{(0, number): f"NXM_OF_{name}" for number, name in enumerate(_NXM_OF)},
    **{(1, number): f"NXM_NX_{name}" for number, name in enumerate(_NXM_NX)},
}

# The fields (class, number) that ovs-ofctl has names of its own for (match_format in OVS's
# lib/match.c).
_IN_PORT, _ETH_DST, _ETH_SRC, _ETH_TYPE, _VLAN_TCI, _IP_TOS, _IP_PROTO, _IP_SRC, _IP_DST = (
    (0, number) for number in range(9)
)
_ARP_OP, _ARP_SPA, _ARP_TPA = ((0, number) for number in (15, 16, 17))
_TUN_ID, _TUN_DST = (1, 16), (1, 32)
_PORT_FIELDS = {
    # (dl_type, nw_proto) -> the protocol's name, the fields for tp_src and tp_dst, and their names
    (matches.ETH_IP, 1): ("icmp", (0, 13), (0, 14), "icmp_type", "icmp_code"),
    (matches.ETH_IP, 6): ("tcp", (0, 9), (0, 10), "tp_src", "tp_dst"),
    (matches.ETH_IP, 17): ("udp", (0, 11), (0, 12), "tp_src", "tp_dst"),
    (matches.ETH_IP, 132): ("sctp", (0x8000, 17), (0x8000, 18), "tp_src", "tp_dst"),
    (matches.ETH_IPV6, 58): ("icmp6", (1, 21), (1, 22), "icmp_type", "icmp_code"),
    (matches.ETH_IPV6, 6): ("tcp6", (0, 9), (0, 10), "tp_src", "tp_dst"),
    (matches.ETH_IPV6, 17): ("udp6", (0, 11), (0, 12), "tp_src", "tp_dst"),
    (matches.ETH_IPV6, 132): ("sctp6", (0x8000, 17), (0x8000, 18), "tp_src", "tp_dst"),
}
_NO_PROTOCOL = ("", *_PORT_FIELDS[0x0800, 6][1:])
_PROTOCOLS = {
    matches.ETH_IP: "ip",
    matches.ETH_ARP: "arp",
    matches.ETH_RARP: "rarp",
    matches.ETH_IPV6: "ipv6",
    0x8847: "mpls",
    0x8848: "mplsm",
}
_TAGGED = 0x1000  # this bit of a TCI is set if there is a tag

_Field = tuple[int, int]
_OFP_MATCH = struct.Struct("!LH6s6sHBxHBB2x4s4sHH")


def port_text(port: int) -> str:
    """Return a port's number, or the name of a reserved port."""
    return _PORTS.get(port) or str(port)


def mac_text(address: bytes) -> str:
    """Return an Ethernet address as text, with colons."""
    return address.hex(":")


_WILD_IN_PORT, _WILD_DL_SRC, _WILD_DL_DST = of.OFPFW_IN_PORT, of.OFPFW_DL_SRC, of.OFPFW_DL_DST
_WILD_DL_TYPE, _WILD_DL_VLAN, _WILD_DL_VLAN_PCP = (
    of.OFPFW_DL_TYPE,
    of.OFPFW_DL_VLAN,
    of.OFPFW_DL_VLAN_PCP,
)
_WILD_NW_TOS, _WILD_NW_PROTO = of.OFPFW_NW_TOS, of.OFPFW_NW_PROTO
_WILD_PORTS = of.OFPFW_TP_SRC | of.OFPFW_TP_DST


@functools.lru_cache(maxsize=32768)
def match_text(wire: bytes) -> str:
    """
    Return an ofp_match as text; empty if it matches everything.

    wire: its 40 bytes (Match.wire)
    """
    fields: dict[_Field, tuple[int, int]] = {}
    (
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
    ) = _OFP_MATCH.unpack(wire)

    if not wildcards & _WILD_IN_PORT:
        fields[_IN_PORT] = in_port, 0xFFFF
    if not wildcards & _WILD_DL_SRC:
        fields[_ETH_SRC] = int.from_bytes(dl_src, "big"), (1 << 48) - 1
    if not wildcards & _WILD_DL_DST:
        fields[_ETH_DST] = int.from_bytes(dl_dst, "big"), (1 << 48) - 1
    arp = False
    if not wildcards & _WILD_DL_TYPE:
        fields[_ETH_TYPE] = dl_type, 0xFFFF
        arp = dl_type == matches.ETH_ARP or dl_type == matches.ETH_RARP
    if dl_vlan == matches.VLAN_NONE and not wildcards & _WILD_DL_VLAN:
        fields[_VLAN_TCI] = 0, 0xFFFF
    else:
        mask = 0 if wildcards & _WILD_DL_VLAN else 0x0FFF
        mask |= 0 if wildcards & _WILD_DL_VLAN_PCP else 0xE000
        if mask:
            fields[_VLAN_TCI] = (dl_vlan_pcp << 13 | dl_vlan) & mask | _TAGGED, mask | _TAGGED
    if not wildcards & _WILD_NW_TOS:
        fields[_IP_TOS] = nw_tos, 0xFF
    if not wildcards & _WILD_NW_PROTO:
        fields[_ARP_OP if arp else _IP_PROTO] = nw_proto, 0xFF
    mask = 0xFFFFFFFF << (wildcards >> of.OFPFW_NW_SRC_SHIFT & 0x3F) & 0xFFFFFFFF
    if mask:
        fields[_ARP_SPA if arp else _IP_SRC] = int.from_bytes(nw_src, "big") & mask, mask
    mask = 0xFFFFFFFF << (wildcards >> of.OFPFW_NW_DST_SHIFT & 0x3F) & 0xFFFFFFFF
    if mask:
        fields[_ARP_TPA if arp else _IP_DST] = int.from_bytes(nw_dst, "big") & mask, mask
    if wildcards & _WILD_PORTS != _WILD_PORTS:
        row = _PORT_FIELDS.get((dl_type, nw_proto), _PORT_FIELDS[0x0800, 6])
        if not wildcards & of.OFPFW_TP_SRC:
            fields[row[1]] = tp_src, 0xFFFF
        if not wildcards & of.OFPFW_TP_DST:
            fields[row[2]] = tp_dst, 0xFFFF
    return _fields_text(fields)


def _octets(raw: bytes, text: str) -> int:
    return len(raw) + len(text)


@cached(4 << 20, _octets)
def nxm_text(match: bytes) -> str:
    """
    Return an NXM match as text; empty if it matches everything.

    match: its entries, without padding
    """
    fields: dict[_Field, tuple[int, int]] = {}
    offset = 0
    while offset + 4 <= len(match):
        nxm_class, field, length = struct.unpack_from("!HBB", match, offset)
        body = match[offset + 4 : offset + 4 + length]
        offset += 4 + length
        if len(body) < length or not length:
            return f"nxm:{match.hex()}"
        size = length // 2 if field & 1 else length
        value = int.from_bytes(body[:size], "big")
        mask = int.from_bytes(body[size:], "big") if field & 1 else (1 << 8 * size) - 1
        fields[nxm_class, field >> 1] = value, mask
    try:
        return _fields_text(fields)
    except (OverflowError, ValueError):  # a field has a length that is not its own
        return f"nxm:{match.hex()}"


def _masked(value: int, mask: int, text: str) -> str:
    return f"{value:#x}/{mask:#x}" if mask & mask + 1 else text


def _dotted(value: int) -> str:
    # Five times as quick as ipaddress.IPv4Address, and most of the time that a flow's text takes.
    return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"


def _address(value: int, mask: int) -> str:
    if mask == 0xFFFFFFFF:
        return _dotted(value)
    ones = bin(mask).count("1")
    if mask == 0xFFFFFFFF << 32 - ones & 0xFFFFFFFF:
        return f"{_dotted(value)}/{ones}"
    return f"{_dotted(value)}/{_dotted(mask)}"


def _ethernet(value: int, mask: int) -> str:
    text = mac_text(value.to_bytes(6, "big"))
    return text if mask == (1 << 48) - 1 else f"{text}/{mac_text(mask.to_bytes(6, 'big'))}"


def _numbered(name: str, value: int, mask: int) -> str:
    return f"{name}={_masked(value, mask, str(value))}"


def _tunnel_id(value: int, mask: int) -> str:
    return f"tun_id={_masked(value, mask, f'{value:#x}')}"


def _vlan(tci: int, mask: int) -> str:
    if tci & _TAGGED and mask & 0xEFFF and mask & 0x0FFF in (0, 0x0FFF):
        words = []
        if mask & 0x0FFF:
            words.append(f"dl_vlan={tci & 0x0FFF}")
        if mask & 0xE000:
            words.append(f"dl_vlan_pcp={tci >> 13}")
        return ",".join(words)
    return f"vlan_tci=0x{tci:04x}" if mask == 0xFFFF else f"vlan_tci=0x{tci:04x}/0x{mask:04x}"


# field -> its place in the text, and the function from its value and mask to its words
_SHOWN: dict[_Field, tuple[int, Callable[[int, int], str]]] = {
    _TUN_ID: (1, _tunnel_id),
    _TUN_DST: (2, lambda value, mask: f"tun_dst={_address(value, mask)}"),
    _IN_PORT: (3, lambda value, mask: f"in_port={port_text(value)}"),
    _VLAN_TCI: (4, _vlan),
    _ETH_SRC: (5, lambda value, mask: f"dl_src={_ethernet(value, mask)}"),
    _ETH_DST: (6, lambda value, mask: f"dl_dst={_ethernet(value, mask)}"),
    _IP_SRC: (8, lambda value, mask: f"nw_src={_address(value, mask)}"),
    _IP_DST: (9, lambda value, mask: f"nw_dst={_address(value, mask)}"),
    _ARP_SPA: (10, lambda value, mask: f"arp_spa={_address(value, mask)}"),
    _ARP_TPA: (11, lambda value, mask: f"arp_tpa={_address(value, mask)}"),
    _IP_PROTO: (12, lambda value, mask: _numbered("nw_proto", value, mask)),
    _ARP_OP: (13, lambda value, mask: _numbered("arp_op", value, mask)),
    _IP_TOS: (14, lambda value, mask: _numbered("nw_tos", value, mask)),
}
_AT_PROTOCOL, _AT_DL_TYPE, _AT_SOURCE, _AT_DESTINATION, _AT_END = 0, 7, 15, 16, 17


def _fields_text(fields: dict[_Field, tuple[int, int]]) -> str:
    """Return the fields, each a value and a mask, as Open vSwitch's match_format() does."""
    words: list[tuple[int, str]] = []  # each with its place
    dl_type, type_mask = fields.pop(_ETH_TYPE, (0, 0))
    if type_mask != 0xFFFF:
        dl_type = -1
    protocol, source, destination, source_name, destination_name = _PORT_FIELDS.get(
        (dl_type, fields[_IP_PROTO][0] if _IP_PROTO in fields else -1), _NO_PROTOCOL
    )
    if protocol:
        fields.pop(_IP_PROTO, None)
    else:
        protocol = _PROTOCOLS.get(dl_type, "")
    if protocol:
        words.append((_AT_PROTOCOL, protocol))
    elif type_mask:
        words.append((_AT_DL_TYPE, f"dl_type=0x{max(dl_type, 0):04x}"))
    for field, (value, mask) in fields.items():
        if field in _SHOWN:
            if mask:
                place, text = _SHOWN[field]
                words.append((place, text(value, mask)))
        elif field == source:
            if mask:
                words.append((_AT_SOURCE, _numbered(source_name, value, mask)))
        elif field == destination:
            if mask:
                words.append((_AT_DESTINATION, _numbered(destination_name, value, mask)))
        else:
            words.append((_AT_END, f"{_field_name(*field)}={value:#x}/{mask:#x}"))
    words.sort(key=lambda word: word[0])
    return ",".join([word for _, word in words])


def _field_name(nxm_class: int, number: int) -> str:
    return _FIELD_NAMES.get((nxm_class, number)) or f"field:{nxm_class:#06x}:{number}"


def _subfield(header: bytes, start: int, bits: int) -> str:
    nxm_class, field, length = struct.unpack("!HBB", header)
    name = _field_name(nxm_class, field >> 1)
    whole = length * 4 if field & 1 else length * 8
    if start == 0 and bits >= whole:
        return f"{name}[]"
    return f"{name}[{start}]" if bits == 1 else f"{name}[{start}..{start + bits - 1}]"


def split_actions(raw: bytes) -> Iterator[bytes]:
    """Yield each action.  Bytes that are no action are yielded as they are, and are the last."""
    offset = 0
    while offset < len(raw):
        length = int.from_bytes(raw[offset + 2 : offset + 4], "big")
        if length < 8 or offset + length > len(raw):
            yield raw[offset:]
            return
        yield raw[offset : offset + length]
        offset += length


@cached(16 << 20, _octets)
def actions_text(raw: bytes) -> str:
    """Return the actions as text, separated by commas; "drop" if there are none."""
    return ",".join(map(action_text, split_actions(raw))) or "drop"


def action_text(action: bytes) -> str:
    """Return one action as text."""
    try:
        kind = int.from_bytes(action[:2], "big")
        if kind == of.OFPAT_VENDOR:
            return _nicira_text(action)
        return _ACTIONS[kind](action)
    except (LookupError, struct.error, ValueError):
        return f"unknown:{action.hex()}"


def _number(action: bytes, start: int, size: int) -> int:
    if len(action) < start + size:
        raise ValueError("too short")
    return int.from_bytes(action[start : start + size], "big")


def _output_text(action: bytes) -> str:
    port = _number(action, 4, 2)
    if port == of.OFPP_CONTROLLER:
        return f"CONTROLLER:{_number(action, 6, 2)}"
    return _PORTS.get(port, f"output:{port}")


_ACTIONS: dict[int, Callable[[bytes], str]] = {
    of.OFPAT_OUTPUT: _output_text,
    of.OFPAT_SET_VLAN_VID: lambda a: f"mod_vlan_vid:{_number(a, 4, 2)}",
    of.OFPAT_SET_VLAN_PCP: lambda a: f"mod_vlan_pcp:{_number(a, 4, 1)}",
    of.OFPAT_STRIP_VLAN: lambda a: "strip_vlan",
    of.OFPAT_SET_DL_SRC: lambda a: f"mod_dl_src:{mac_text(a[4:10])}",
    of.OFPAT_SET_DL_DST: lambda a: f"mod_dl_dst:{mac_text(a[4:10])}",
    of.OFPAT_SET_NW_SRC: lambda a: f"mod_nw_src:{ipaddress.IPv4Address(a[4:8])}",
    of.OFPAT_SET_NW_DST: lambda a: f"mod_nw_dst:{ipaddress.IPv4Address(a[4:8])}",
    of.OFPAT_SET_NW_TOS: lambda a: f"mod_nw_tos:{_number(a, 4, 1)}",
    of.OFPAT_SET_TP_SRC: lambda a: f"mod_tp_src:{_number(a, 4, 2)}",
    of.OFPAT_SET_TP_DST: lambda a: f"mod_tp_dst:{_number(a, 4, 2)}",
    of.OFPAT_ENQUEUE: lambda a: f"enqueue:{port_text(_number(a, 4, 2))}:{_number(a, 12, 4)}",
}


def _nicira_text(action: bytes) -> str:
    if _number(action, 4, 4) != nx.NX_VENDOR_ID:
        raise ValueError("another vendor's")
    return _NICIRA[_number(action, 8, 2)](action)


def _move_text(action: bytes) -> str:
    bits, source, destination = struct.unpack_from("!HHH", action, 10)
    return (
        f"move:{_subfield(action[16:20], source, bits)}"
        f"->{_subfield(action[20:24], destination, bits)}"
    )


def _load_text(action: bytes) -> str:
    where, value = _number(action, 10, 2), _number(action, 16, 8)
    return f"load:{value:#x}->{_subfield(action[12:16], where >> 6, (where & 0x3F) + 1)}"


def _load2_text(action: bytes) -> str:
    nxm_class, field, length = struct.unpack_from("!HBB", action, 16)
    size = length // 2 if field & 1 else length
    value = f"{_number(action, 20, size):#x}"
    if field & 1:
        value += f"/{_number(action, 20 + size, size):#x}"
    return f"set_field:{value}->{_field_name(nxm_class, field >> 1)}"


def _stack_text(name: str, action: bytes) -> str:
    start, bits = _number(action, 10, 2), _number(action, 16, 2)
    return f"{name}:{_subfield(action[12:16], start, bits)}"


def _controller_text(action: bytes) -> str:
    max_len, controller, reason = struct.unpack_from("!HHB", action, 10)
    if reason == of.OFPR_ACTION and not controller:
        return f"CONTROLLER:{max_len}"
    words = []
    if reason != of.OFPR_ACTION:
        words.append("reason=no_match" if reason == of.OFPR_NO_MATCH else f"reason={reason}")
    if max_len != 0xFFFF:
        words.append(f"max_len={max_len}")
    if controller:
        words.append(f"id={controller}")
    return f"controller({','.join(words)})"


def _dec_ttl_text(action: bytes) -> str:
    count = _number(action, 10, 2)
    return f"dec_ttl({','.join(str(_number(action, 16 + 2 * i, 2)) for i in range(count))})"


def _resubmit_text(action: bytes) -> str:
    port, table = _number(action, 10, 2), _number(action, 12, 1)
    port_word = "" if port == of.OFPP_IN_PORT else port_text(port)
    return f"resubmit({port_word},{'' if table == 255 else table})"


_NICIRA: dict[int, Callable[[bytes], str]] = {
    nx.NXAST_REG_MOVE: _move_text,
    nx.NXAST_REG_LOAD: _load_text,
    nx.NXAST_NOTE: lambda a: f"note:{a[10:].hex('.')}",
    nx.NXAST_RESUBMIT_TABLE: _resubmit_text,
    nx.NXAST_EXIT: lambda a: "exit",
    nx.NXAST_DEC_TTL: lambda a: "dec_ttl",
    nx.NXAST_CONTROLLER: _controller_text,
    nx.NXAST_DEC_TTL_CNT_IDS: _dec_ttl_text,
    nx.NXAST_PUSH_MPLS: lambda a: f"push_mpls:0x{_number(a, 10, 2):04x}",
    nx.NXAST_POP_MPLS: lambda a: f"pop_mpls:0x{_number(a, 10, 2):04x}",
    nx.NXAST_SET_MPLS_TTL: lambda a: f"set_mpls_ttl({_number(a, 10, 1)})",
    nx.NXAST_DEC_MPLS_TTL: lambda a: "dec_mpls_ttl",
    nx.NXAST_STACK_PUSH: lambda a: _stack_text("push", a),
    nx.NXAST_STACK_POP: lambda a: _stack_text("pop", a),
    nx.NXAST_SET_MPLS_LABEL: lambda a: f"set_mpls_label({_number(a, 12, 4)})",
    nx.NXAST_SET_MPLS_TC: lambda a: f"set_mpls_tc({_number(a, 10, 1)})",
    nx.NXAST_REG_LOAD2: _load2_text,
}
