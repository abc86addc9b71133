"""Actions of a controller: which are refused, and how the others are reported."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import openflow10 as of

from edge.openflow import actions as act
from edge.openflow.errors import OpenFlowError

from .wire import ALIKE_EVERYWHERE, SET_FIELDS, nicira, reg_load

BAD_ACTION = 2
BAD_TYPE, BAD_LEN, BAD_VENDOR, BAD_VENDOR_TYPE, BAD_OUT_PORT, BAD_ARGUMENT = range(6)
IN_PORT, TABLE, NORMAL, FLOOD, ALL, CONTROLLER, LOCAL, NONE = range(0xFFF8, 0x10000)


def error(actions):
    with pytest.raises(OpenFlowError) as raised:
        act.parse(of.joined(actions))
    return raised.value.type, raised.value.code


# ---- what is refused ----

TOO_LONG = struct.pack("!HHI", 0, 16, 0)


@pytest.mark.parametrize(
    "actions, code",
    [
        (of.action(12, bytes(4)), BAD_TYPE),
        (of.action(0xFFFE, bytes(4)), BAD_TYPE),
        (of.vendor_action(bytes(8), vendor=0x1234), BAD_VENDOR),
        (of.vendor_action(b"", vendor=0), BAD_VENDOR),
        (nicira(0x7777, bytes(6)), BAD_VENDOR_TYPE),
        (struct.pack("!HHI", 0, 0, 0), BAD_LEN),
        (struct.pack("!HHI", 0, 4, 0), BAD_LEN),
        (struct.pack("!HHI", 0, 7, 0), BAD_LEN),
        (struct.pack("!HHIQ", 0, 12, 0, 0), BAD_LEN),
        (TOO_LONG, BAD_LEN),
        (TOO_LONG + bytes(8), BAD_LEN),
        (struct.pack("!HHI", 11, 8, 0), BAD_LEN),
        (struct.pack("!HHI", 4, 8, 0), BAD_LEN),
        (of.action(1, bytes(12)), BAD_LEN),
        (of.action(3, bytes(12)), BAD_LEN),
        (of.action(4, bytes(20)), BAD_LEN),
        (of.action(11, bytes(20)), BAD_LEN),
        (bytes(4), BAD_LEN),
        (of.output(1) + bytes(4), BAD_LEN),
        (of.output(0xFF00), BAD_OUT_PORT),
        (of.output(0xFFF7), BAD_OUT_PORT),
        (of.output(NONE), BAD_OUT_PORT),
        # An Open vSwitch bridge has these ports, and the big switch does not.
        (of.output(LOCAL), BAD_OUT_PORT),
        (of.output(NORMAL), BAD_OUT_PORT),
        (of.enqueue(LOCAL, 1), BAD_OUT_PORT),
        (of.enqueue(0xFF00, 1), BAD_OUT_PORT),
        (of.enqueue(TABLE, 1), BAD_OUT_PORT),
        (of.enqueue(NORMAL, 1), BAD_OUT_PORT),
        (of.enqueue(FLOOD, 1), BAD_OUT_PORT),
        (of.enqueue(ALL, 1), BAD_OUT_PORT),
        (of.enqueue(CONTROLLER, 1), BAD_OUT_PORT),
        (of.enqueue(NONE, 1), BAD_OUT_PORT),
        (of.set_vlan_vid(0x1000), BAD_ARGUMENT),
        (of.set_vlan_vid(0xFFFF), BAD_ARGUMENT),
        (of.set_vlan_pcp(8), BAD_ARGUMENT),
        (of.set_vlan_pcp(255), BAD_ARGUMENT),
        (of.set_nw_tos(1), BAD_ARGUMENT),
        (of.set_nw_tos(0xFF), BAD_ARGUMENT),
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else str(value),
)
def test_what_is_wrong_is_refused_as_open_vswitch_does(actions, code):
    assert error(actions) == (BAD_ACTION, code)
    # The first wrong action decides, whatever stands before or behind it.
    assert error(of.output(1) + actions + of.output(0xFFFF)) == (BAD_ACTION, code)


def test_a_nicira_action_that_ends_before_its_subtype():
    """Open vSwitch reads the subtype from the bytes behind the action."""
    assert error(of.vendor_action(b"")) == (BAD_ACTION, BAD_LEN)
    assert error(of.vendor_action(b"") + of.output(2)) == (BAD_ACTION, BAD_VENDOR_TYPE)


@pytest.mark.parametrize(
    "action",
    [
        nicira(1, struct.pack("!H4x", 2)),  # resubmit to a port's number
        nicira(14, struct.pack("!HB3x", IN_PORT, 1)),  # resubmit to a table
        nicira(2, struct.pack("!2xI", 5)),  # set_tunnel
        nicira(9, struct.pack("!6xQ", 5)),  # set_tunnel64
        nicira(4, struct.pack("!2xI", 5)),  # set_queue
        nicira(5, bytes(6)),  # pop_queue
    ],
    ids=["resubmit", "resubmit_table", "set_tunnel", "set_tunnel64", "set_queue", "pop_queue"],
)
def test_vendor_actions_that_name_ports_tables_queues_or_the_tunnel_are_refused(action):
    assert error(action) == (BAD_ACTION, BAD_VENDOR_TYPE)


@pytest.mark.parametrize(
    "field",
    [0x00000002, 0x00012008, 0x00013E04, 0x00014004, 0x80000004, 0x80004C08],
    ids=["in_port", "tun_id", "tun_ipv4_src", "tun_ipv4_dst", "OXM in_port", "OXM tunnel_id"],
)
def test_a_field_that_holds_a_port_or_belongs_to_the_tunnel_is_refused(field):
    assert error(reg_load(field, 1, 16)) == (BAD_ACTION, BAD_ARGUMENT)
    move = struct.pack("!HHHII", 16, 0, 0, field, 0x00010004)
    assert error(nicira(6, move)) == (BAD_ACTION, BAD_ARGUMENT)
    move = struct.pack("!HHHII", 16, 0, 0, 0x00010004, field)
    assert error(nicira(6, move)) == (BAD_ACTION, BAD_ARGUMENT)


@pytest.mark.parametrize("field", [0x00012008, 0x00014004], ids=["tun_id", "tun_ipv4_dst"])
@pytest.mark.parametrize("subtype", [27, 28, 33], ids=["stack_push", "stack_pop", "reg_load2"])
def test_no_action_gets_at_the_tunnel_s_fields_another_way(subtype, field):
    place = 6 if subtype == 33 else 2
    body = (bytes(place) + struct.pack("!I", field)).ljust(14, b"\0")
    assert error(nicira(subtype, body)) == (BAD_ACTION, BAD_ARGUMENT)
    # The same action on a register is accepted.
    own = body.replace(struct.pack("!I", field), struct.pack("!I", 0x00010004))
    assert act.parse(nicira(subtype, own)).wire == nicira(subtype, own)


FIXED = {
    **dict.fromkeys((17, 18, 20, 23, 24, 25, 26, 30, 31), 16),
    **dict.fromkeys((7, 27, 28), 24),
}
"""Nicira actions of a fixed length: subtype -> the whole length (nicira-ext.h)."""


@pytest.mark.parametrize("subtype, length", FIXED.items())
def test_a_nicira_action_has_its_length_and_no_other(subtype, length):
    register = struct.pack("!HI", 0, 0x00010004) if length == 24 else b""
    right = nicira(subtype, register.ljust(length - 10, b"\0"))
    assert act.parse(right).wire == right
    for other in {16, 24, 32} - {length}:
        wrong = nicira(subtype, register.ljust(other - 10, b"\0"))
        assert error(wrong) == (BAD_ACTION, BAD_LEN)


@given(st.binary(max_size=64))
def test_any_bytes_are_taken_or_refused_with_an_openflow_error(raw):
    try:
        actions = act.parse(raw)
    except OpenFlowError as refused:
        assert refused.type == BAD_ACTION
        assert BAD_TYPE <= refused.code <= BAD_ARGUMENT
    else:
        assert len(actions.wire) == len(raw)


# ---- what is reported ----


@pytest.mark.parametrize("action", SET_FIELDS + ALIKE_EVERYWHERE, ids=bytes.hex)
def test_an_action_that_means_the_same_everywhere_is_reported_as_it_was_sent(action):
    assert act.parse(action).wire == action


@pytest.mark.parametrize(
    "action",
    [
        *(of.output(port, 5) for port in (0, 1, 2, 17, 5, 0xFEFF)),
        *(of.output(port) for port in (IN_PORT, TABLE, FLOOD, ALL)),
        *(of.output(CONTROLLER, max_len) for max_len in (0, 40, 128, 0xFFFF)),
        *(of.enqueue(port, queue) for port, queue in ((1, 0), (17, 7), (IN_PORT, 0xFFFFFFFF))),
    ],
    ids=bytes.hex,
)
def test_an_output_is_reported_as_it_was_sent(action):
    assert act.parse(action).wire == action


@pytest.mark.parametrize(
    "sent, reported",
    [
        (of.action(1, b"\0\5\xff\xff"), of.set_vlan_vid(5)),
        (of.action(2, b"\3\xff\xff\xff"), of.set_vlan_pcp(3)),
        (of.action(3, b"\xff" * 4), of.strip_vlan()),
        (of.action(4, b"\2" * 6 + b"\xff" * 6), of.set_dl_src("02:02:02:02:02:02")),
        (of.action(5, b"\2" * 6 + b"\xff" * 6), of.set_dl_dst("02:02:02:02:02:02")),
        (of.action(8, b"\4\xff\xff\xff"), of.set_nw_tos(4)),
        (of.action(9, b"\0\5\xff\xff"), of.set_tp_src(5)),
        (of.action(10, b"\0\5\xff\xff"), of.set_tp_dst(5)),
        (of.action(11, b"\0\1" + b"\xff" * 6 + b"\0\0\0\7"), of.enqueue(1, 7)),
    ],
    ids=bytes.hex,
)
def test_padding_is_reported_as_zeros(sent, reported):
    assert act.parse(sent).wire == reported


def test_repetition_and_order_are_kept():
    actions = [of.output(2), of.set_vlan_vid(5), of.output(2), of.strip_vlan(), of.output(2)]
    assert act.parse(of.joined(actions)).wire == of.joined(actions)


@pytest.mark.parametrize(
    "actions, ports",
    [
        ([], set()),
        ([of.output(1), of.output(17)], {1, 17}),
        ([of.set_vlan_vid(5), of.enqueue(2, 7)], {2}),
        ([of.output(FLOOD)], {FLOOD}),
        ([of.output(ALL), of.output(CONTROLLER, 5)], {ALL, CONTROLLER}),
        ([of.output(IN_PORT), of.output(TABLE)], {IN_PORT, TABLE}),
        ([nicira(20, struct.pack("!HHBx", 128, 0, 1))], {CONTROLLER}),
        ([of.set_tp_dst(2), nicira(18, bytes(6))], set()),
        ([of.output(0), of.output(100)], {0, 100}),
    ],
)
def test_what_an_out_port_filter_finds(actions, ports):
    assert act.parse(of.joined(actions)).outputs == ports


# ---- what is packed ----


def test_service_actions():
    """The bytes of resubmit(,2) and resubmit(,1), as `ovs-ofctl dump-flows` shows them."""
    assert act.resubmit(2) == bytes.fromhex("ffff0010 00002320 000e fff8 02 000000")
