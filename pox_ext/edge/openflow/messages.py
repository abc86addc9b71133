"""
Messages of OpenFlow 1.0 and of Nicira's extensions, except flow-mods and statistics.

Pure functions from values to bytes and back.  The formats are those of the OpenFlow 1.0.0
specification and of Open vSwitch's include/openflow/nicira-ext.h.
"""

import struct
from typing import NamedTuple, Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow import nicira as nx

_VERSION = of.OFP_VERSION
_HEADER = struct.Struct("!BBHL")
_NX_HEADER = struct.Struct("!BBHLLL")
_NX_PACKET_IN = struct.Struct("!LHBBQH6x")
_PACKET_OUT = struct.Struct("!BBHLLHH")
_FLOW_REMOVED = struct.Struct("!40sQHBxLLH2xQQ")

# Bytes of actions and frame together that fit into an ofp_packet_out.
LONGEST_PACKET_OUT = 0xFFFF - _PACKET_OUT.size

NO_BUFFER = 0xFFFFFFFF


def _message(kind: int, xid: int, body: bytes = b"") -> bytes:
    return _HEADER.pack(_VERSION, kind, 8 + len(body), xid) + body


def _nicira(subtype: int, xid: int, body: bytes) -> bytes:
    return (
        _NX_HEADER.pack(_VERSION, of.OFPT_VENDOR, 16 + len(body), xid, nx.NX_VENDOR_ID, subtype)
        + body
    )


class PacketIn(NamedTuple):
    """
    An NXT_PACKET_IN (struct nx_packet_in).

    total_len: bytes of the frame, which may be more than there are in data
    tunnel_key, tunnel_destination, tunnel_source: tun_id, tun_ipv4_dst and tun_ipv4_src; None if it
        did not come by a tunnel
    data: the frame, or the beginning of it
    """

    total_len: int
    reason: int
    table: int
    cookie: int
    in_port: int
    tunnel_key: Optional[int]
    tunnel_destination: Optional[int]
    data: bytes
    tunnel_source: Optional[int] = None


# The offset of the frame if the match holds the in_port alone.
PACKET_IN_DATA = 50
# The reason, the table, the cookie and the in_port of an NXT_PACKET_IN that has just an in_port.
PACKET_IN_KEY = slice(22, PACKET_IN_DATA)
_PACKET_IN_TOTAL_LEN = slice(20, 22)
_JUST_IN_PORT = struct.pack("!H6xL", 6, nx.NXM_OF_IN_PORT)


def has_just_in_port(message: bytes) -> bool:
    """Return whether the match of an NXT_PACKET_IN holds the in_port alone: the usual case."""
    return message[32:44] == _JUST_IN_PORT and len(message) >= PACKET_IN_DATA


def parse_packet_in(message: bytes) -> PacketIn:
    """
    Return the fields of an NXT_PACKET_IN.

    message: all of it.  Raises struct.error if it is too short.
    """
    _, total_len, reason, table, cookie, match_len = _NX_PACKET_IN.unpack_from(message, 16)
    offset = 16 + _NX_PACKET_IN.size
    end = offset + match_len
    data = message[end + -match_len % 8 + 2 :]
    in_port, key, destination, source = of.OFPP_NONE, None, None, None
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
        elif header == nx.NXM_NX_TUN_IPV4_SRC:
            source = value
        offset += 4 + length
    return PacketIn(total_len, reason, table, cookie, in_port, key, destination, data, source)


class FlowRemoved(NamedTuple):
    """The fields of an OFPT_FLOW_REMOVED (OpenFlow 1.0.0, 5.4.2) that are used."""

    cookie: int
    priority: int
    reason: int
    seconds: int
    packets: int
    octets: int


def parse_flow_removed(message: bytes) -> FlowRemoved:
    """
    Return the fields of an OFPT_FLOW_REMOVED.

    message: all of it.  Raises struct.error if it is too short.
    """
    _, cookie, priority, reason, seconds, _, _, packets, octets = _FLOW_REMOVED.unpack_from(
        message, 8
    )
    return FlowRemoved(cookie, priority, reason, seconds, packets, octets)


def packet_out(xid: int, in_port: int, actions: bytes, data: bytes) -> bytes:
    """Return an OFPT_PACKET_OUT of a frame."""
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


def repeat_packet_out(xid: int, head: bytes, data: bytes) -> bytes:
    """
    Return an OFPT_PACKET_OUT of a frame that does the same as an earlier one.

    head: what stands in the earlier one between the header and the frame
    """
    length = _HEADER.size + len(head) + len(data)
    return _HEADER.pack(_VERSION, of.OFPT_PACKET_OUT, length, xid) + head + data


def set_config(xid: int, flags: int, miss_send_len: int) -> bytes:
    """Return an OFPT_SET_CONFIG."""
    return _message(of.OFPT_SET_CONFIG, xid, struct.pack("!HH", flags, miss_send_len))


def port_mod(
    xid: int, port: int, hw_addr: bytes, config: int, mask: int, advertise: int = 0
) -> bytes:
    """Return an OFPT_PORT_MOD."""
    return _message(
        of.OFPT_PORT_MOD, xid, struct.pack("!H6sLLL4x", port, hw_addr, config, mask, advertise)
    )


def barrier_request(xid: int) -> bytes:
    """Return an OFPT_BARRIER_REQUEST."""
    return _message(of.OFPT_BARRIER_REQUEST, xid)


def echo_request(xid: int) -> bytes:
    """Return an OFPT_ECHO_REQUEST."""
    return _message(of.OFPT_ECHO_REQUEST, xid)


def features_request(xid: int) -> bytes:
    """Return an OFPT_FEATURES_REQUEST."""
    return _message(of.OFPT_FEATURES_REQUEST, xid)


def set_packet_in_format(xid: int) -> bytes:
    """Return an NXT_SET_PACKET_IN_FORMAT, for packet-ins with tunnel fields, cookie and table."""
    return _nicira(nx.NXT_SET_PACKET_IN_FORMAT, xid, struct.pack("!L", nx.NXPIF_NXM))


def use_table_ids(xid: int) -> bytes:
    """Return an NXT_FLOW_MOD_TABLE_ID: a flow-mod's command then names its table."""
    return _nicira(nx.NXT_FLOW_MOD_TABLE_ID, xid, struct.pack("!B7x", 1))


# OFPRR_EVICTION, which OpenFlow 1.0 does not have: the switch has made room for another flow.
FLOW_EVICTED = 5
_REASONS = (of.OFPRR_IDLE_TIMEOUT, of.OFPRR_HARD_TIMEOUT, of.OFPRR_DELETE, FLOW_EVICTED)
_OFPACPT_FLOW_REMOVED_MASTER = 5


def report_evictions(xid: int) -> bytes:
    """
    Return an NXT_SET_ASYNC_CONFIG2, after which a switch reports flows that it evicts, too.

    It reports those with OFPFF_SEND_FLOW_REM, with the reason FLOW_EVICTED.  Without this message,
    Open vSwitch does not report them to an OpenFlow 1.0 controller.
    """
    reasons = sum(1 << reason for reason in _REASONS)
    change = struct.pack("!HHL", _OFPACPT_FLOW_REMOVED_MASTER, 8, reasons)
    return _nicira(nx.NXT_SET_ASYNC_CONFIG2, xid, change)


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
        """Return its bytes."""
        return _PHY_PORT.pack(*self)


_PHY_PORT = struct.Struct("!H6s16sLLLLLL")
PHY_PORT_LEN = _PHY_PORT.size


def parse_phy_port(raw: bytes, offset: int = 0) -> PhyPort:
    """Return the ofp_phy_port at this offset.  Raises struct.error if there is not all of it."""
    port = PhyPort._make(_PHY_PORT.unpack_from(raw, offset))
    return port._replace(name=port.name.split(b"\0", 1)[0])


def parse_features(message: bytes) -> tuple[PhyPort, ...]:
    """
    Return the ports of an OFPT_FEATURES_REPLY.

    message: all of it
    """
    return tuple(
        parse_phy_port(message, offset)
        for offset in range(32, len(message) - PHY_PORT_LEN + 1, PHY_PORT_LEN)
    )


def pack_flow_removed(
    match: bytes,
    cookie: int,
    priority: int,
    reason: int,
    seconds: int,
    nanoseconds: int,
    idle_timeout: int,
    packets: int,
    octets: int,
) -> bytes:
    """
    OFPT_FLOW_REMOVED (OpenFlow 1.0.0, 5.4.2).

    match: 40 bytes
    reason: OFPRR_*
    seconds, nanoseconds: how long the flow was there
    """
    return _message(
        of.OFPT_FLOW_REMOVED,
        0,
        _FLOW_REMOVED.pack(
            match,
            cookie,
            priority,
            reason,
            seconds,
            nanoseconds,
            idle_timeout,
            packets,
            octets,
        ),
    )


# --- northward: what a controller sends, and what it is answered ----------------------------------

_PACKET_IN = struct.Struct("!BBHLLHHBx")
_PACKET_IN_HEAD = struct.Struct("!BBHLL")
_IN_PORT_AND_REASON = struct.Struct("!HBx")
_PORT_STATUS = struct.Struct("!BBHLB7x")
_FEATURES_REPLY = struct.Struct("!BBHLQLB3xLL")
_CONFIG = struct.Struct("!HH")
_PORT_MOD = struct.Struct("!H6sLLL4x")
_PACKET_OUT_HEAD = struct.Struct("!LHH")
_VENDOR = struct.Struct("!LL")
_ROLE = struct.Struct("!LLL")

HELLO = _message(of.OFPT_HELLO, 0)
# How many ports an OFPT_FEATURES_REPLY has room for.
MOST_PORTS = (0xFFFF - _FEATURES_REPLY.size) // PHY_PORT_LEN


def xid_of(message: bytes) -> int:
    """The transaction id of a message."""
    return int.from_bytes(message[4:8], "big")


def reply(request: bytes, kind: int, body: bytes) -> bytes:
    """A message of this type that answers a request: it has the request's xid."""
    return _message(kind, xid_of(request), body)


def echo_reply(request: bytes) -> bytes:
    """The OFPT_ECHO_REPLY to an OFPT_ECHO_REQUEST, in the request's version."""
    return request[:1] + bytes([of.OFPT_ECHO_REPLY]) + request[2:]


def pack_features(
    request: bytes, dpid: int, n_tables: int, capabilities: int, actions: int, ports: bytes
) -> bytes:
    """
    OFPT_FEATURES_REPLY of a switch without packet buffers.

    ports: packed ofp_phy_ports, MOST_PORTS of them at most
    """
    return (
        _FEATURES_REPLY.pack(
            _VERSION,
            of.OFPT_FEATURES_REPLY,
            _FEATURES_REPLY.size + len(ports),
            xid_of(request),
            dpid,
            0,
            n_tables,
            capabilities,
            actions,
        )
        + ports
    )


def pack_config(request: bytes, flags: int, miss_send_len: int) -> bytes:
    """OFPT_GET_CONFIG_REPLY."""
    return reply(request, of.OFPT_GET_CONFIG_REPLY, _CONFIG.pack(flags, miss_send_len))


def parse_set_config(message: bytes) -> tuple[int, int]:
    """The flags and the miss_send_len of an OFPT_SET_CONFIG (the whole message)."""
    flags, miss_send_len = _CONFIG.unpack_from(message, 8)
    return flags, miss_send_len


def pack_port_status(reason: int, port: bytes) -> bytes:
    """OFPT_PORT_STATUS of a packed ofp_phy_port; reason is an OFPPR_*."""
    header = _PORT_STATUS.pack(
        _VERSION, of.OFPT_PORT_STATUS, _PORT_STATUS.size + len(port), 0, reason
    )
    return header + port


class PortMod(NamedTuple):
    """An ofp_port_mod (OpenFlow 1.0.0, 5.3.3)."""

    port_no: int
    hw_addr: bytes
    config: int
    mask: int
    advertise: int


def parse_port_mod(message: bytes) -> PortMod:
    """The fields of an OFPT_PORT_MOD (the whole message)."""
    return PortMod._make(_PORT_MOD.unpack_from(message, 8))


def parse_packet_out_head(message: bytes) -> tuple[int, int, int]:
    """The buffer_id, the in_port and the actions_len of an OFPT_PACKET_OUT (the whole message)."""
    buffer_id, in_port, actions_len = _PACKET_OUT_HEAD.unpack_from(message, 8)
    return buffer_id, in_port, actions_len


def parse_vendor(message: bytes) -> tuple[int, int]:
    """The vendor and the subtype of an OFPT_VENDOR of 16 bytes at least."""
    vendor, subtype = _VENDOR.unpack_from(message, 8)
    return vendor, subtype


def pack_role_reply(request: bytes, role: int) -> bytes:
    """NXT_ROLE_REPLY; role is an NX_ROLE_*."""
    body = _ROLE.pack(nx.NX_VENDOR_ID, nx.NXT_ROLE_REPLY, role)
    return reply(request, of.OFPT_VENDOR, body)


def queue_get_config_request(xid: int, port: int) -> bytes:
    """OFPT_QUEUE_GET_CONFIG_REQUEST."""
    return _message(of.OFPT_QUEUE_GET_CONFIG_REQUEST, xid, struct.pack("!H2x", port))


def parse_queue_config(message: bytes) -> bytes:
    """The packed queues of an OFPT_QUEUE_GET_CONFIG_REPLY (the whole message)."""
    return message[16:]


def pack_queue_config(request: bytes, port: int, queues: bytes) -> bytes:
    """OFPT_QUEUE_GET_CONFIG_REPLY with packed queues."""
    body = struct.pack("!H6x", port) + queues
    return reply(request, of.OFPT_QUEUE_GET_CONFIG_REPLY, body)


def pack_packet_in(total_len: int, in_port: int, reason: int, data: bytes) -> bytes:
    """Return an OFPT_PACKET_IN without a buffer (OpenFlow 1.0.0, 5.4.1); reason is an OFPR_*."""
    length = _PACKET_IN.size + len(data)
    return (
        _PACKET_IN.pack(
            _VERSION, of.OFPT_PACKET_IN, length, 0, NO_BUFFER, total_len, in_port, reason
        )
        + data
    )


def pack_in_port_and_reason(in_port: int, reason: int) -> bytes:
    """Return what stands in an OFPT_PACKET_IN between total_len and the frame."""
    return _IN_PORT_AND_REASON.pack(in_port, reason)


def repeat_packet_in(message: bytes, in_port_and_reason: bytes) -> bytes:
    """
    Return the OFPT_PACKET_IN for an NXT_PACKET_IN that has just an in_port.

    in_port_and_reason: see pack_in_port_and_reason()
    """
    length = len(message) - PACKET_IN_DATA + _PACKET_IN.size
    return (
        _PACKET_IN_HEAD.pack(_VERSION, of.OFPT_PACKET_IN, length, 0, NO_BUFFER)
        + message[_PACKET_IN_TOTAL_LEN]
        + in_port_and_reason
        + message[PACKET_IN_DATA:]
    )
