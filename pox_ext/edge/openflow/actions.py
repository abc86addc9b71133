"""
Actions: parsing those of a controller, and packing those for the switches.

parse() checks a controller's actions as Open vSwitch does.  It separates the actions that are the
same on every switch from the outputs, which differ (see edge.south.translate).
"""

import struct
from collections.abc import Iterable
from typing import NamedTuple, Union

import pox.openflow.libopenflow_01 as of

from edge.openflow import nicira as nx
from edge.openflow.cache import cached
from edge.openflow.errors import OpenFlowError

_HEADER = struct.Struct("!HH")
_OUTPUT = struct.Struct("!HHHH")
_ENQUEUE = struct.Struct("!HHH6xL")
_REG_LOAD = struct.Struct("!HHLHHLQ")

_MOST_REMEMBERED = 16 << 20  # bytes of parsed actions

# The whole length of each OpenFlow 1.0 action (OpenFlow 1.0.0, 5.2.4).
_LENGTHS = {
    of.OFPAT_OUTPUT: 8,
    of.OFPAT_SET_VLAN_VID: 8,
    of.OFPAT_SET_VLAN_PCP: 8,
    of.OFPAT_STRIP_VLAN: 8,
    of.OFPAT_SET_DL_SRC: 16,
    of.OFPAT_SET_DL_DST: 16,
    of.OFPAT_SET_NW_SRC: 8,
    of.OFPAT_SET_NW_DST: 8,
    of.OFPAT_SET_NW_TOS: 8,
    of.OFPAT_SET_TP_SRC: 8,
    of.OFPAT_SET_TP_DST: 8,
    of.OFPAT_ENQUEUE: 16,
}


class _Nicira(NamedTuple):
    """
    A kind of Nicira action.

    shortest, longest: the limits of its length, in bytes, header included
    fields: the offsets in it of NXM field headers
    everywhere: whether it means the same on every switch; False if it names ports, queues, tables
        or the tunnel
    """

    shortest: int
    longest: int
    fields: tuple[int, ...] = ()
    everywhere: bool = True


_ANY_LENGTH = 0xFFFF

_NICIRA: dict[int, _Nicira] = {
    nx.NXAST_REG_MOVE: _Nicira(24, _ANY_LENGTH, (16, 20)),
    nx.NXAST_REG_LOAD: _Nicira(24, 24, (12,)),
    nx.NXAST_NOTE: _Nicira(16, _ANY_LENGTH),
    nx.NXAST_EXIT: _Nicira(16, 16),
    nx.NXAST_DEC_TTL: _Nicira(16, 16),
    nx.NXAST_CONTROLLER: _Nicira(16, 16),
    nx.NXAST_DEC_TTL_CNT_IDS: _Nicira(16, _ANY_LENGTH),
    nx.NXAST_PUSH_MPLS: _Nicira(16, 16),
    nx.NXAST_POP_MPLS: _Nicira(16, 16),
    nx.NXAST_SET_MPLS_TTL: _Nicira(16, 16),
    nx.NXAST_DEC_MPLS_TTL: _Nicira(16, 16),
    nx.NXAST_STACK_PUSH: _Nicira(24, 24, (12,)),
    nx.NXAST_STACK_POP: _Nicira(24, 24, (12,)),
    nx.NXAST_SET_MPLS_LABEL: _Nicira(16, 16),
    nx.NXAST_SET_MPLS_TC: _Nicira(16, 16),
    nx.NXAST_REG_LOAD2: _Nicira(24, _ANY_LENGTH, (16,)),
    nx.NXAST_RESUBMIT: _Nicira(16, 16, everywhere=False),
    nx.NXAST_SET_TUNNEL: _Nicira(16, 16, everywhere=False),
    nx.NXAST_SET_QUEUE: _Nicira(16, 16, everywhere=False),
    nx.NXAST_POP_QUEUE: _Nicira(16, 16, everywhere=False),
    nx.NXAST_SET_TUNNEL64: _Nicira(24, 24, everywhere=False),
    nx.NXAST_MULTIPATH: _Nicira(32, 32, everywhere=False),
    nx.NXAST_BUNDLE: _Nicira(32, _ANY_LENGTH, everywhere=False),
    nx.NXAST_BUNDLE_LOAD: _Nicira(32, _ANY_LENGTH, everywhere=False),
    nx.NXAST_RESUBMIT_TABLE: _Nicira(16, 16, everywhere=False),
    nx.NXAST_OUTPUT_REG: _Nicira(24, 24, everywhere=False),
    nx.NXAST_LEARN: _Nicira(32, _ANY_LENGTH, everywhere=False),
}


# The fields that hold a port of one switch or belong to the tunnel: NXM or OXM class -> numbers
# (OVS, lib/meta-flow.h).
_PORT_AND_TUNNEL_FIELDS = {
    0x0000: {0},  # NXM_OF_IN_PORT
    # NXM_NX_TUN_ID, _TUN_IPV4_SRC, _TUN_IPV4_DST, _PKT_MARK (the tunnel's route depends on it),
    # _TUN_GBP_ID, _TUN_GBP_FLAGS, _TUN_METADATA0 to 63, _TUN_FLAGS, _TUN_IPV6_SRC, _TUN_IPV6_DST
    0x0001: {16, 31, 32, 33, 38, 39, *range(40, 105), 109, 110},
    0x8000: {0, 1, 38},  # OXM_OF_IN_PORT, OXM_OF_IN_PHY_PORT, OXM_OF_TUNNEL_ID
}


class Output(NamedTuple):
    """An output to a port of the big switch, or to OFPP_FLOOD, OFPP_ALL or OFPP_TABLE."""

    port: int


class Enqueue(NamedTuple):
    """An output to a queue of a port of the big switch."""

    port: int
    queue: int


Step = Union[bytes, Output, Enqueue]


class Actions:
    """
    The parsed actions of a controller's message.  Immutable; flows with the same actions share one.

    wire: the actions' bytes as Open vSwitch reports them in statistics
    steps: the actions in order: bytes that are the same on every switch, and outputs to translate
    outputs: the ports by which an out_port filter finds the flow
    queues: (port, queue) of each ENQUEUE action
    refusable: whether a switch may refuse the actions though parse() has not; there are Nicira
        actions that only the switch can check
    """

    __slots__ = ("wire", "steps", "outputs", "queues", "refusable")

    def __init__(
        self, wire: bytes, steps: Iterable[Step], outputs: frozenset[int], refusable: bool
    ) -> None:
        self.wire = wire
        self.steps = tuple(steps)
        self.outputs = outputs
        self.queues = tuple(step for step in self.steps if isinstance(step, Enqueue))
        self.refusable = refusable

    @property
    def octets(self) -> int:
        """The bytes of memory that it takes, about."""
        return 500 + 2 * len(self.wire) + 140 * len(self.steps) + 130 * len(self.outputs)


def _bad_action(code: int) -> OpenFlowError:
    return OpenFlowError(of.OFPET_BAD_ACTION, code)


def _check_output(port: int) -> None:
    """
    Raise OpenFlowError for a reserved port that cannot be output to, or that is not supported.

    A port below OFPP_MAX need not exist: the flow works from the moment that it does.
    """
    if port < of.OFPP_MAX:
        return
    if port in (
        of.OFPP_IN_PORT,
        of.OFPP_TABLE,
        of.OFPP_FLOOD,
        of.OFPP_ALL,
        of.OFPP_CONTROLLER,
    ):
        return
    raise _bad_action(of.OFPBAC_BAD_OUT_PORT)


def _vendor_action(raw: bytes, offset: int) -> tuple[int, _Nicira]:
    """
    Return the subtype and the kind of the vendor action at this offset.

    Vendor and subtype are checked before the length, as in Open vSwitch: that decides which error a
    controller gets.
    """
    if len(raw) - offset < 8:
        raise _bad_action(of.OFPBAC_BAD_LEN)
    if int.from_bytes(raw[offset + 4 : offset + 8], "big") not in nx.KNOWN_VENDORS:
        raise _bad_action(of.OFPBAC_BAD_VENDOR)
    if len(raw) - offset < 10:
        raise _bad_action(of.OFPBAC_BAD_LEN)
    vendor, subtype = struct.unpack_from("!LH", raw, offset + 4)
    kind = _NICIRA.get(subtype)
    if vendor != nx.NX_VENDOR_ID or kind is None:
        raise _bad_action(of.OFPBAC_BAD_VENDOR_TYPE)
    return subtype, kind


def _same_everywhere(nxm_class: int, field: int) -> bool:
    """
    Return False for the NXM and OXM fields that hold a port of one switch or belong to the tunnel.

    field: the third byte of the field's header, whose lowest bit says whether there is a mask
    """
    return field >> 1 not in _PORT_AND_TUNNEL_FIELDS.get(nxm_class, ())


def _check_argument(kind: int, action: bytes) -> None:
    """Raise OpenFlowError for a value that does not fit its field, as Open vSwitch does."""
    if kind == of.OFPAT_SET_VLAN_VID:
        bad = action[4] & 0xF0
    elif kind == of.OFPAT_SET_VLAN_PCP:
        bad = action[4] & 0xF8
    elif kind == of.OFPAT_SET_NW_TOS:
        bad = action[4] & 0x03
    else:
        return
    if bad:
        raise _bad_action(of.OFPBAC_BAD_ARGUMENT)


# Where the padding of an action begins and ends.  Open vSwitch reports it as zeros.
_PADDING = {
    of.OFPAT_SET_VLAN_VID: (6, 8),
    of.OFPAT_SET_VLAN_PCP: (5, 8),
    of.OFPAT_STRIP_VLAN: (4, 8),
    of.OFPAT_SET_DL_SRC: (10, 16),
    of.OFPAT_SET_DL_DST: (10, 16),
    of.OFPAT_SET_NW_TOS: (5, 8),
    of.OFPAT_SET_TP_SRC: (6, 8),
    of.OFPAT_SET_TP_DST: (6, 8),
}


# The same for Nicira actions.
_NICIRA_PADDING = {
    nx.NXAST_EXIT: (10, 16),
    nx.NXAST_DEC_TTL: (10, 16),
    nx.NXAST_CONTROLLER: (15, 16),
    nx.NXAST_PUSH_MPLS: (12, 16),
    nx.NXAST_POP_MPLS: (12, 16),
    nx.NXAST_SET_MPLS_TTL: (11, 16),
    nx.NXAST_DEC_MPLS_TTL: (10, 16),
    nx.NXAST_SET_MPLS_LABEL: (10, 12),
    nx.NXAST_SET_MPLS_TC: (11, 16),
}


def _nicira_as_reported(subtype: int, action: bytes) -> bytes:
    """Return a Nicira action as Open vSwitch reports it."""
    if subtype == nx.NXAST_REG_MOVE:
        return _without_zeros_behind(action)
    if subtype == nx.NXAST_DEC_TTL_CNT_IDS:
        return _with_its_ids_only(action)
    return _blanked(action, *_NICIRA_PADDING.get(subtype, (0, 0)))


def _blanked(action: bytes, start: int, end: int) -> bytes:
    return action[:start] + bytes(end - start) + action[end:]


def _with_its_ids_only(dec_ttl: bytes) -> bytes:
    """Return an NXAST_DEC_TTL_CNT_IDS without the bytes behind its controller ids."""
    end = 16 + 2 * int.from_bytes(dec_ttl[10:12], "big")
    length = -(-end // 8) * 8
    if length > len(dec_ttl):
        return dec_ttl  # malformed: the switch refuses it
    return dec_ttl[:2] + length.to_bytes(2, "big") + dec_ttl[4:end] + bytes(length - end)


def _without_zeros_behind(reg_move: bytes) -> bytes:
    """Return an NXAST_REG_MOVE without zeros behind its fields, as Open vSwitch reports it."""
    if any(reg_move[24:]) or b"\xff\xff" in (reg_move[16:18], reg_move[20:22]):
        return reg_move  # malformed, or with an experimenter's field, whose header is longer
    return reg_move[:2] + b"\0\x18" + reg_move[4:24]


def _octets(raw: bytes, actions: Actions) -> int:
    return len(raw) + actions.octets


@cached(_MOST_REMEMBERED, _octets)
def parse(raw: bytes) -> Actions:
    """
    Return the Actions in these bytes.

    Raises OpenFlowError with OFPET_BAD_ACTION and Open vSwitch's code for the first action that is
    wrong.
    """
    wire: list[bytes] = []
    steps: list[Step] = []
    outputs: list[int] = []
    refusable = False
    offset = 0
    while offset < len(raw):
        if len(raw) - offset < _HEADER.size:
            raise _bad_action(of.OFPBAC_BAD_LEN)
        kind, length = _HEADER.unpack_from(raw, offset)
        fields: tuple[int, ...] = ()
        everywhere = True
        if kind == of.OFPAT_VENDOR:
            refusable = True
            subtype, (shortest, longest, fields, everywhere) = _vendor_action(raw, offset)
            if subtype == nx.NXAST_CONTROLLER:
                outputs.append(of.OFPP_CONTROLLER)
        elif kind in _LENGTHS:
            shortest = longest = _LENGTHS[kind]
        else:
            raise _bad_action(of.OFPBAC_BAD_TYPE)
        if not shortest <= length <= longest or length % 8 or length > len(raw) - offset:
            raise _bad_action(of.OFPBAC_BAD_LEN)
        if not everywhere:
            raise _bad_action(of.OFPBAC_BAD_VENDOR_TYPE)
        action = raw[offset : offset + length]
        offset += length
        for field in fields:
            if not _same_everywhere(*struct.unpack_from("!HB", action, field)):
                raise _bad_action(of.OFPBAC_BAD_ARGUMENT)
        step: Step = action
        if kind == of.OFPAT_OUTPUT:
            port = int.from_bytes(action[4:6], "big")
            _check_output(port)
            outputs.append(port)
            if port < of.OFPP_MAX or port in (of.OFPP_FLOOD, of.OFPP_ALL, of.OFPP_TABLE):
                step = Output(port)
        elif kind == of.OFPAT_ENQUEUE:
            _, _, port, queue = _ENQUEUE.unpack(action)
            if port != of.OFPP_IN_PORT and port >= of.OFPP_MAX:
                raise _bad_action(of.OFPBAC_BAD_OUT_PORT)
            outputs.append(port)
            step = action = _ENQUEUE.pack(kind, length, port, queue)
            if port != of.OFPP_IN_PORT:
                step = Enqueue(port, queue)
        elif kind == of.OFPAT_VENDOR:
            step = action = _nicira_as_reported(subtype, action)
        else:
            _check_argument(kind, action)
            if kind in _PADDING:
                step = action = _blanked(action, *_PADDING[kind])
        wire.append(action)
        if steps and isinstance(step, bytes) and isinstance(steps[-1], bytes):
            steps[-1] += step
        else:
            steps.append(step)
    return Actions(b"".join(wire), steps, frozenset(outputs), refusable)


def output(port: int, max_len: int = 0) -> bytes:
    """
    Return an output action.

    max_len: bytes of the packet to send, if the port is OFPP_CONTROLLER
    """
    return _OUTPUT.pack(of.OFPAT_OUTPUT, 8, port, max_len)


def enqueue(port: int, queue: int) -> bytes:
    """Return an enqueue action."""
    return _ENQUEUE.pack(of.OFPAT_ENQUEUE, 16, port, queue)


def resubmit(table: int, in_port: int = of.OFPP_IN_PORT) -> bytes:
    """
    Return an NXAST_RESUBMIT_TABLE, which looks the packet up in another table.

    in_port: the ingress port for that lookup; OFPP_IN_PORT for the packet's own
    """
    return struct.pack(
        "!HHLHHB3x",
        of.OFPAT_VENDOR,
        16,
        nx.NX_VENDOR_ID,
        nx.NXAST_RESUBMIT_TABLE,
        in_port,
        table,
    )


def load_tunnel_key(key: int) -> bytes:
    """Return an NXAST_REG_LOAD of all bits of tun_id."""
    return _REG_LOAD.pack(
        of.OFPAT_VENDOR, 24, nx.NX_VENDOR_ID, nx.NXAST_REG_LOAD, 63, nx.NXM_NX_TUN_ID, key
    )


def load_tunnel_destination(ip: int) -> bytes:
    """
    Return an NXAST_REG_LOAD of all bits of tun_ipv4_dst.

    ip: the IPv4 address as a number, 172.16.0.1 being 0xAC100001
    """
    return _REG_LOAD.pack(
        of.OFPAT_VENDOR, 24, nx.NX_VENDOR_ID, nx.NXAST_REG_LOAD, 31, nx.NXM_NX_TUN_IPV4_DST, ip
    )
