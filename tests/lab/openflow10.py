"""OpenFlow 1.0 messages to and from bytes, by the specification and independent of POX.

A test that used POX's library on both ends would not see its mistakes.  Constants keep the names of
the OpenFlow 1.0.0 specification without their prefixes where a class stands for the prefix.
"""

import enum
import ipaddress
import struct
from typing import BinaryIO, NamedTuple, Optional, Union

VERSION = 1
NO_BUFFER = 0xFFFFFFFF
DEFAULT_PRIORITY = 0x8000
NX_VENDOR = 0x00002320


class Type(enum.IntEnum):
    """ofp_type."""

    HELLO = 0
    ERROR = 1
    ECHO_REQUEST = 2
    ECHO_REPLY = 3
    VENDOR = 4
    FEATURES_REQUEST = 5
    FEATURES_REPLY = 6
    GET_CONFIG_REQUEST = 7
    GET_CONFIG_REPLY = 8
    SET_CONFIG = 9
    PACKET_IN = 10
    FLOW_REMOVED = 11
    PORT_STATUS = 12
    PACKET_OUT = 13
    FLOW_MOD = 14
    PORT_MOD = 15
    STATS_REQUEST = 16
    STATS_REPLY = 17
    BARRIER_REQUEST = 18
    BARRIER_REPLY = 19
    QUEUE_GET_CONFIG_REQUEST = 20
    QUEUE_GET_CONFIG_REPLY = 21


class Port:
    """ofp_port."""

    MAX = 0xFF00
    IN_PORT, TABLE, NORMAL, FLOOD, ALL, CONTROLLER, LOCAL, NONE = range(0xFFF8, 0x10000)


class Stats:
    """ofp_stats_types."""

    DESC, FLOW, AGGREGATE, TABLE, PORT, QUEUE = range(6)
    VENDOR = 0xFFFF
    REPLY_MORE = 1


class Command:
    """ofp_flow_mod_command."""

    ADD, MODIFY, MODIFY_STRICT, DELETE, DELETE_STRICT = range(5)


class Flag:
    """ofp_flow_mod_flags."""

    SEND_FLOW_REM, CHECK_OVERLAP, EMERG = 1, 2, 4


class PortConfig:
    """ofp_port_config."""

    PORT_DOWN, NO_STP, NO_RECV, NO_RECV_STP, NO_FLOOD, NO_FWD, NO_PACKET_IN = (
        1 << bit for bit in range(7)
    )


LINK_DOWN = 1
"""Bit of ofp_port_state."""


class PortReason:
    """ofp_port_reason."""

    ADD, DELETE, MODIFY = range(3)


class RemovedReason:
    """ofp_flow_removed_reason."""

    IDLE_TIMEOUT, HARD_TIMEOUT, DELETE = range(3)


class PacketInReason:
    """ofp_packet_in_reason."""

    NO_MATCH, ACTION = range(2)


class ErrorType:
    """ofp_error_type."""

    HELLO_FAILED, BAD_REQUEST, BAD_ACTION, FLOW_MOD_FAILED, PORT_MOD_FAILED, QUEUE_OP_FAILED = (
        range(6)
    )


class BadRequest:
    """ofp_bad_request_code."""

    (
        BAD_VERSION,
        BAD_TYPE,
        BAD_STAT,
        BAD_VENDOR,
        BAD_SUBTYPE,
        EPERM,
        BAD_LEN,
        BUFFER_EMPTY,
        BUFFER_UNKNOWN,
    ) = range(9)


class BadAction:
    """ofp_bad_action_code."""

    (
        BAD_TYPE,
        BAD_LEN,
        BAD_VENDOR,
        BAD_VENDOR_TYPE,
        BAD_OUT_PORT,
        BAD_ARGUMENT,
        EPERM,
        TOO_MANY,
        BAD_QUEUE,
    ) = range(9)


class FlowModFailed:
    """ofp_flow_mod_failed_code."""

    (ALL_TABLES_FULL, OVERLAP, EPERM, BAD_EMERG_TIMEOUT, BAD_COMMAND, UNSUPPORTED) = range(6)


class PortModFailed:
    """ofp_port_mod_failed_code."""

    BAD_PORT, BAD_HW_ADDR = range(2)


class QueueOpFailed:
    """ofp_queue_op_failed_code."""

    BAD_PORT, BAD_QUEUE, EPERM = range(3)


class Message(NamedTuple):
    """One OpenFlow message; `body` is what follows the header of eight bytes."""

    version: int
    type: int
    xid: int
    body: bytes

    def pack(self) -> bytes:
        """Return the bytes of the message."""
        return (
            struct.pack("!BBHI", self.version, self.type, 8 + len(self.body), self.xid) + self.body
        )

    def __str__(self) -> str:
        name = type_name(self.type)
        return f"{name} xid={self.xid:#x} {self.body[:64].hex()}"


def type_name(type: int) -> str:
    """Return the name of a message type, for people."""
    return Type(type).name if type in Type._value2member_map_ else f"type {type}"


def message(type: int, body: bytes = b"", xid: int = 0, version: int = VERSION) -> bytes:
    """Return the bytes of a message."""
    return Message(version, type, xid, body).pack()


def unpack(raw: bytes) -> Message:
    """Return the message whose bytes these are."""
    version, type_, _, xid = struct.unpack_from("!BBHI", raw)
    return Message(version, type_, xid, raw[8:])


def read(stream: BinaryIO) -> Message:
    """Return the next message of a connection's stream."""
    version, type_, length, xid = struct.unpack("!BBHI", stream.read(8))
    return Message(version, type_, xid, stream.read(length - 8))


# ---- match ----

_MATCH = struct.Struct("!IH6s6sHBxHBBxx4s4sHH")
WILDCARDS = {
    "in_port": 1 << 0,
    "dl_vlan": 1 << 1,
    "dl_src": 1 << 2,
    "dl_dst": 1 << 3,
    "dl_type": 1 << 4,
    "nw_proto": 1 << 5,
    "tp_src": 1 << 6,
    "tp_dst": 1 << 7,
    "dl_vlan_pcp": 1 << 20,
    "nw_tos": 1 << 21,
}
_NW_SRC_SHIFT, _NW_DST_SHIFT = 8, 14
WILDCARD_ALL = 0x3FFFFF
VLAN_NONE = 0xFFFF
"""dl_vlan of a match for frames without a VLAN tag."""

MatchValue = Union[int, str]


def _mac(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))


def _mac_text(address: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in address)


def match(**fields: MatchValue) -> bytes:
    """Return an ofp_match of 40 bytes.

    Fields by their names in the specification; what is not named is wildcarded.  Ethernet
    addresses are text, IP addresses text with an optional prefix length ("10.0.0.0/8").
    `wildcards=` overrides the word that follows from the fields.
    """
    wildcards = WILDCARD_ALL
    values: dict[str, MatchValue] = dict.fromkeys(WILDCARDS, 0)
    values.update(dl_src="00:00:00:00:00:00", dl_dst="00:00:00:00:00:00")
    networks = {"nw_src": b"\0\0\0\0", "nw_dst": b"\0\0\0\0"}
    override = fields.pop("wildcards", None)
    for name, value in fields.items():
        if name in networks:
            address, _, length = str(value).partition("/")
            shift = _NW_SRC_SHIFT if name == "nw_src" else _NW_DST_SHIFT
            wildcards &= ~(0x3F << shift)
            wildcards |= (32 - int(length or 32)) << shift
            networks[name] = ipaddress.IPv4Address(address).packed
        else:
            wildcards &= ~WILDCARDS[name]
            values[name] = value
    return _MATCH.pack(
        wildcards if override is None else override,
        values["in_port"],
        _mac(values["dl_src"]),
        _mac(values["dl_dst"]),
        values["dl_vlan"],
        values["dl_vlan_pcp"],
        values["dl_type"],
        values["nw_tos"],
        values["nw_proto"],
        networks["nw_src"],
        networks["nw_dst"],
        values["tp_src"],
        values["tp_dst"],
    )


def unpack_match(data: bytes) -> dict[str, MatchValue]:
    """Return the fields of an ofp_match that are not wildcarded, as `match` takes them."""
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
    ) = _MATCH.unpack_from(data)
    values = {
        "in_port": in_port,
        "dl_src": _mac_text(dl_src),
        "dl_dst": _mac_text(dl_dst),
        "dl_vlan": dl_vlan,
        "dl_vlan_pcp": dl_vlan_pcp,
        "dl_type": dl_type,
        "nw_tos": nw_tos,
        "nw_proto": nw_proto,
        "tp_src": tp_src,
        "tp_dst": tp_dst,
    }
    fields = {name: value for name, value in values.items() if not wildcards & WILDCARDS[name]}
    for name, address, shift in (
        ("nw_src", nw_src, _NW_SRC_SHIFT),
        ("nw_dst", nw_dst, _NW_DST_SHIFT),
    ):
        length = 32 - min(32, wildcards >> shift & 0x3F)
        if length:
            text = str(ipaddress.IPv4Address(address))
            fields[name] = text if length == 32 else f"{text}/{length}"
    return fields


# ---- actions ----


class ActionType:
    """ofp_action_type."""

    (
        OUTPUT,
        SET_VLAN_VID,
        SET_VLAN_PCP,
        STRIP_VLAN,
        SET_DL_SRC,
        SET_DL_DST,
        SET_NW_SRC,
        SET_NW_DST,
        SET_NW_TOS,
        SET_TP_SRC,
        SET_TP_DST,
        ENQUEUE,
    ) = range(12)
    VENDOR = 0xFFFF


def action(type: int, body: bytes) -> bytes:
    """Return an action; `body` is what follows its type and length."""
    return struct.pack("!HH", type, 4 + len(body)) + body


def output(port: int, max_len: int = 0) -> bytes:
    """Return an output action; max_len: bytes of the frame to send when port is CONTROLLER."""
    return action(ActionType.OUTPUT, struct.pack("!HH", port, max_len))


def enqueue(port: int, queue: int) -> bytes:
    """Return an enqueue action."""
    return action(ActionType.ENQUEUE, struct.pack("!H6xI", port, queue))


def set_vlan_vid(vid: int) -> bytes:
    """Return an action that sets the VLAN id, adding a tag where there is none."""
    return action(ActionType.SET_VLAN_VID, struct.pack("!H2x", vid))


def set_vlan_pcp(pcp: int) -> bytes:
    """Return an action that sets the VLAN priority, adding a tag where there is none."""
    return action(ActionType.SET_VLAN_PCP, struct.pack("!B3x", pcp))


def strip_vlan() -> bytes:
    """Return an action that removes the VLAN tag."""
    return action(ActionType.STRIP_VLAN, bytes(4))


def set_dl_src(address: str) -> bytes:
    """Return an action that sets the Ethernet source address."""
    return action(ActionType.SET_DL_SRC, _mac(address) + bytes(6))


def set_dl_dst(address: str) -> bytes:
    """Return an action that sets the Ethernet destination address."""
    return action(ActionType.SET_DL_DST, _mac(address) + bytes(6))


def set_nw_src(address: str) -> bytes:
    """Return an action that sets the IP source address."""
    return action(ActionType.SET_NW_SRC, ipaddress.IPv4Address(address).packed)


def set_nw_dst(address: str) -> bytes:
    """Return an action that sets the IP destination address."""
    return action(ActionType.SET_NW_DST, ipaddress.IPv4Address(address).packed)


def set_nw_tos(tos: int) -> bytes:
    """Return an action that sets the IP ToS byte's upper six bits."""
    return action(ActionType.SET_NW_TOS, struct.pack("!B3x", tos))


def set_tp_src(port: int) -> bytes:
    """Return an action that sets the TCP or UDP source port."""
    return action(ActionType.SET_TP_SRC, struct.pack("!H2x", port))


def set_tp_dst(port: int) -> bytes:
    """Return an action that sets the TCP or UDP destination port."""
    return action(ActionType.SET_TP_DST, struct.pack("!H2x", port))


def vendor_action(body: bytes, vendor: int = NX_VENDOR) -> bytes:
    """Return a vendor action; `body` is what follows the vendor id."""
    return action(ActionType.VENDOR, struct.pack("!I", vendor) + body)


def unpack_actions(data: bytes) -> list[tuple[int, bytes]]:
    """Return (type, body) of every action."""
    actions = []
    while data:
        type_, length = struct.unpack_from("!HH", data)
        if not 8 <= length <= len(data):
            raise ValueError(f"action of length {length} in {data.hex()}")
        actions.append((type_, data[4:length]))
        data = data[length:]
    return actions


# ---- messages to the switch ----


def flow_mod(
    match: bytes = match(),
    actions: Union[bytes, list[bytes]] = b"",
    command: int = Command.ADD,
    priority: int = DEFAULT_PRIORITY,
    cookie: int = 0,
    idle_timeout: int = 0,
    hard_timeout: int = 0,
    buffer_id: int = NO_BUFFER,
    out_port: int = Port.NONE,
    flags: int = 0,
    xid: int = 0,
) -> bytes:
    """Return an OFPT_FLOW_MOD.  actions: bytes, or a list of them."""
    body = (
        match
        + struct.pack(
            "!QHHHHIHH",
            cookie,
            command,
            idle_timeout,
            hard_timeout,
            priority,
            buffer_id,
            out_port,
            flags,
        )
        + joined(actions)
    )
    return message(Type.FLOW_MOD, body, xid)


def packet_out(
    data: bytes = b"",
    actions: Union[bytes, list[bytes]] = b"",
    in_port: int = Port.NONE,
    buffer_id: int = NO_BUFFER,
    xid: int = 0,
) -> bytes:
    """Return an OFPT_PACKET_OUT.  actions: bytes, or a list of them."""
    packed = joined(actions)
    body = struct.pack("!IHH", buffer_id, in_port, len(packed)) + packed + data
    return message(Type.PACKET_OUT, body, xid)


def port_mod(
    port: int, hw_addr: str, config: int = 0, mask: int = 0, advertise: int = 0, xid: int = 0
) -> bytes:
    """Return an OFPT_PORT_MOD."""
    body = struct.pack("!H6sIII4x", port, _mac(hw_addr), config, mask, advertise)
    return message(Type.PORT_MOD, body, xid)


def set_config(flags: int = 0, miss_send_len: int = 128, xid: int = 0) -> bytes:
    """Return an OFPT_SET_CONFIG."""
    return message(Type.SET_CONFIG, struct.pack("!HH", flags, miss_send_len), xid)


def stats_request(type: int, body: bytes = b"", flags: int = 0, xid: int = 0) -> bytes:
    """Return an OFPT_STATS_REQUEST."""
    return message(Type.STATS_REQUEST, struct.pack("!HH", type, flags) + body, xid)


def flow_stats_body(
    match: bytes = match(), table_id: int = 0xFF, out_port: int = Port.NONE
) -> bytes:
    """Return the body of a request for flow or aggregate statistics."""
    return match + struct.pack("!BxH", table_id, out_port)


def joined(actions: Union[bytes, list[bytes]]) -> bytes:
    """Return actions given as bytes or as a list as bytes."""
    return actions if isinstance(actions, bytes) else b"".join(actions)


# ---- messages from the switch ----


class PhyPort(NamedTuple):
    """ofp_phy_port."""

    port_no: int
    hw_addr: str
    name: str
    config: int
    state: int
    curr: int
    advertised: int
    supported: int
    peer: int


class Features(NamedTuple):
    """ofp_switch_features; ports by their number."""

    datapath_id: int
    n_buffers: int
    n_tables: int
    capabilities: int
    actions: int
    ports: dict[int, PhyPort]


class PacketIn(NamedTuple):
    """ofp_packet_in."""

    buffer_id: int
    total_len: int
    in_port: int
    reason: int
    data: bytes


class FlowRemoved(NamedTuple):
    """ofp_flow_removed; `match` as `unpack_match` gives it, duration in seconds."""

    match: dict[str, MatchValue]
    cookie: int
    priority: int
    reason: int
    duration: float
    idle_timeout: int
    packet_count: int
    byte_count: int


class PortStatus(NamedTuple):
    """ofp_port_status."""

    reason: int
    port: PhyPort


class Error(NamedTuple):
    """ofp_error_msg; `data` begins with the refused message."""

    type: int
    code: int
    data: bytes


class FlowStats(NamedTuple):
    """ofp_flow_stats; `match` as `unpack_match` gives it, `actions` as bytes, duration in s."""

    table_id: int
    match: dict[str, MatchValue]
    duration: float
    priority: int
    idle_timeout: int
    hard_timeout: int
    cookie: int
    packet_count: int
    byte_count: int
    actions: bytes


class Aggregate(NamedTuple):
    """ofp_aggregate_stats_reply."""

    packet_count: int
    byte_count: int
    flow_count: int


class TableStats(NamedTuple):
    """ofp_table_stats."""

    table_id: int
    name: str
    wildcards: int
    max_entries: int
    active_count: int
    lookup_count: int
    matched_count: int


class PortStats(NamedTuple):
    """ofp_port_stats."""

    port_no: int
    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_dropped: int
    tx_dropped: int
    rx_errors: int
    tx_errors: int
    rx_frame_err: int
    rx_over_err: int
    rx_crc_err: int
    collisions: int


class QueueStats(NamedTuple):
    """ofp_queue_stats."""

    port_no: int
    queue_id: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int


class Description(NamedTuple):
    """ofp_desc_stats."""

    mfr_desc: str
    hw_desc: str
    sw_desc: str
    serial_num: str
    dp_desc: str


PHY_PORT = struct.Struct("!H6s16sIIIIII")
PORT_STATS = struct.Struct("!H6x12Q")
QUEUE_STATS = struct.Struct("!HxxI3Q")
TABLE_STATS = struct.Struct("!B3x32sIIIQQ")
_FLOW_STATS = struct.Struct("!IIHHH6xQQQ")


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("utf-8", "replace")


def unpack_phy_port(data: bytes) -> PhyPort:
    """Return an ofp_phy_port of 48 bytes."""
    number, address, name, *rest = PHY_PORT.unpack_from(data)
    return PhyPort(number, _mac_text(address), _text(name), *rest)


def unpack_features(body: bytes) -> Features:
    """Return the body of an OFPT_FEATURES_REPLY."""
    ports = [
        unpack_phy_port(body[start : start + PHY_PORT.size])
        for start in range(24, len(body), PHY_PORT.size)
    ]
    return Features(*struct.unpack_from("!QIB3xII", body), {port.port_no: port for port in ports})


def unpack_packet_in(body: bytes) -> PacketIn:
    """Return the body of an OFPT_PACKET_IN."""
    return PacketIn(*struct.unpack_from("!IHHBx", body), body[10:])


def unpack_flow_removed(body: bytes) -> FlowRemoved:
    """Return the body of an OFPT_FLOW_REMOVED."""
    cookie, priority, reason, seconds, nanoseconds, idle, packets, count = struct.unpack_from(
        "!QHBxIIH2xQQ", body, 40
    )
    return FlowRemoved(
        unpack_match(body),
        cookie,
        priority,
        reason,
        seconds + nanoseconds / 1e9,
        idle,
        packets,
        count,
    )


def unpack_port_status(body: bytes) -> PortStatus:
    """Return the body of an OFPT_PORT_STATUS."""
    return PortStatus(body[0], unpack_phy_port(body[8:]))


def unpack_error(body: bytes) -> Error:
    """Return the body of an OFPT_ERROR."""
    return Error(*struct.unpack_from("!HH", body), body[4:])


def unpack_flow_stats(data: bytes) -> list[FlowStats]:
    """Return the entries of a flow statistics reply."""
    flows = []
    while data:
        length, table_id = struct.unpack_from("!HBx", data)
        if not 88 <= length <= len(data):
            raise ValueError(f"flow statistics entry of length {length}")
        seconds, nanoseconds, priority, idle, hard, cookie, packets, count = (
            _FLOW_STATS.unpack_from(data, 44)
        )
        flows.append(
            FlowStats(
                table_id,
                unpack_match(data[4:44]),
                seconds + nanoseconds / 1e9,
                priority,
                idle,
                hard,
                cookie,
                packets,
                count,
                data[88:length],
            )
        )
        data = data[length:]
    return flows


def unpack_aggregate(data: bytes) -> Aggregate:
    """Return an aggregate statistics reply."""
    return Aggregate(*struct.unpack("!QQI4x", data))


def unpack_table_stats(data: bytes) -> list[TableStats]:
    """Return the entries of a table statistics reply."""
    return [
        TableStats(table_id, _text(name), *rest)
        for table_id, name, *rest in TABLE_STATS.iter_unpack(data)
    ]


def unpack_port_stats(data: bytes) -> dict[int, PortStats]:
    """Return the entries of a port statistics reply by port number."""
    return {entry[0]: PortStats(*entry) for entry in PORT_STATS.iter_unpack(data)}


def unpack_queue_stats(data: bytes) -> list[QueueStats]:
    """Return the entries of a queue statistics reply."""
    return [QueueStats(*entry) for entry in QUEUE_STATS.iter_unpack(data)]


def unpack_description(data: bytes) -> Description:
    """Return a description statistics reply."""
    return Description(*(_text(field) for field in struct.unpack("!256s256s256s32s256s", data)))


def xid_of(raw: bytes) -> int:
    """Return the transaction id of a message's bytes."""
    return struct.unpack_from("!I", raw, 4)[0]


def with_xid(raw: bytes, xid: int) -> bytes:
    """Return a message's bytes with another transaction id."""
    return raw[:4] + struct.pack("!I", xid) + raw[8:]


def parsed(message: Message) -> Optional[NamedTuple]:
    """Return the body of a message from the switch as the tuple of its kind, None if it has none.

    For messages of a fixed form: features, packet-in, flow-removed, port-status, error.
    """
    unpacker = _UNPACKERS.get(message.type)
    return unpacker(message.body) if unpacker else None


_UNPACKERS = {
    Type.FEATURES_REPLY: unpack_features,
    Type.PACKET_IN: unpack_packet_in,
    Type.FLOW_REMOVED: unpack_flow_removed,
    Type.PORT_STATUS: unpack_port_status,
    Type.ERROR: unpack_error,
}
