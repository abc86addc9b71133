"""Actions, from the big switch's ports to those of one real switch."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import openflow10 as of

from edge.openflow import actions as act
from edge.openflow.errors import OpenFlowError
from edge.south import translate
from edge.switch.ports import PortNumbers

BAD_ACTION = 2
BAD_TYPE, BAD_LEN, BAD_VENDOR, BAD_VENDOR_TYPE, BAD_OUT_PORT, BAD_ARGUMENT = range(6)
IN_PORT, TABLE, NORMAL, FLOOD, ALL, CONTROLLER, LOCAL, NONE = range(0xFFF8, 0x10000)

TUNNEL = 3
IP2, IP3 = 0xAC100002, 0xAC100003


def nicira(subtype, body=b""):
    return of.vendor_action(struct.pack("!H", subtype) + body)


def reg_load(field, value, bits):
    """NXAST_REG_LOAD of a whole field, as nicira-ext.h lays it out."""
    return nicira(7, struct.pack("!HIQ", bits - 1, field, value))


def key(value):
    return reg_load(0x00012008, value, 64)  # NXM_NX_TUN_ID


def destination(ip):
    return reg_load(0x00014004, ip, 32)  # NXM_NX_TUN_IPV4_DST


def to(ip):
    return destination(ip) + of.output(TUNNEL)


def s1(**changed):
    """What switch 1 of three knows: its ports 1 and 2, its tunnel port 3, both others connected."""
    numbers = PortNumbers()
    ingress = translate.Ingress(
        own=1,
        tunnel_port=TUNNEL,
        ports=(1, 2),
        remote_ips={2: IP2, 3: IP3},
        flood_ips=(IP2, IP3),
        locate=numbers.locate,
        queue_keys={(2, 2, 7): 0x100},
    )
    return ingress._replace(**changed)


def translated(actions, ingress=None):
    return translate.translate(act.parse(of.joined(actions)), ingress or s1())


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
        # What an Open vSwitch bridge has, and the big switch has not.
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
    # Whatever comes after the first wrong one, and before it.
    assert error(of.output(1) + actions + of.output(0xFFFF)) == (BAD_ACTION, code)


def test_a_nicira_action_that_ends_before_its_subtype():
    """Open vSwitch takes the subtype from whatever comes next."""
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
    # A register is nobody's business.
    own = body.replace(struct.pack("!I", field), struct.pack("!I", 0x00010004))
    assert act.parse(nicira(subtype, own)).wire == nicira(subtype, own)


FIXED = {
    **dict.fromkeys((17, 18, 20, 23, 24, 25, 26, 30, 31), 16),
    **dict.fromkeys((7, 27, 28), 24),
}
"""Nicira actions of one length: subtype -> the whole length (nicira-ext.h)."""


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
        translate.translate(actions, s1())


# ---- what is reported ----

SET_FIELDS = [
    of.set_vlan_vid(5),
    of.set_vlan_vid(0),
    of.set_vlan_vid(0xFFF),
    of.set_vlan_pcp(7),
    of.strip_vlan(),
    of.set_dl_src("00:00:00:00:00:01"),
    of.set_dl_dst("01:00:5e:00:00:01"),
    of.set_nw_src("10.0.0.1"),
    of.set_nw_dst("10.0.0.2"),
    of.set_nw_tos(0xFC),
    of.set_tp_src(80),
    of.set_tp_dst(0xFFFF),
]
ALIKE_EVERYWHERE = [
    nicira(8, b"note!!"),
    nicira(17, bytes(6)),  # exit
    nicira(18, bytes(6)),  # dec_ttl
    reg_load(0x00010004, 7, 32),  # reg0
    nicira(6, struct.pack("!HHHII", 32, 0, 0, 0x00010004, 0x00010204)),  # reg0 to reg1
    nicira(23, struct.pack("!H4x", 0x8847)),  # push_mpls
]


@pytest.mark.parametrize("action", SET_FIELDS + ALIKE_EVERYWHERE, ids=bytes.hex)
def test_an_action_that_means_the_same_everywhere_is_the_same_everywhere(action):
    assert act.parse(action).wire == action
    assert translated(action) == action


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
    assert translated(actions) == of.joined(actions)


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


# ---- where they lead ----


def test_a_port_of_the_switch_itself_is_that_port():
    assert translated(of.output(2)) == of.output(2)
    assert translated(of.output(18), s1(own=2, remote_ips={1: 1})) == of.output(2)


def test_a_port_of_another_switch_is_the_tunnel_to_it_with_its_port_as_key():
    assert translated(of.output(17)) == key(1) + to(IP2)
    assert translated(of.output(18)) == key(2) + to(IP2)
    assert translated(of.output(33)) == key(1) + to(IP3)


def test_max_len_means_nothing_for_a_port():
    assert translated(of.output(2, 128)) == of.output(2)


def test_flood_is_flood_here_and_mflood_there():
    assert translated(of.output(FLOOD)) == of.output(FLOOD) + key(0x7F) + to(IP2) + to(IP3)


def test_all_is_every_port_here_and_mall_there():
    """ALL on the switch would send into the tunnel as well."""
    assert translated(of.output(ALL)) == (
        of.output(1) + of.output(2) + key(0x7E) + to(IP2) + to(IP3)
    )


def test_only_connected_switches_are_flooded_to():
    ingress = s1(flood_ips=(IP3,))
    assert translated(of.output(FLOOD), ingress) == of.output(FLOOD) + key(0x7F) + to(IP3)
    assert translated(of.output(17), ingress) == key(1) + to(IP2)
    assert translated(of.output(FLOOD), s1(flood_ips=())) == of.output(FLOOD)


@pytest.mark.parametrize("port", [IN_PORT, TABLE])
def test_in_port_and_table_are_the_same_on_the_ingress_switch(port):
    assert translated(of.output(port)) == of.output(port)


@pytest.mark.parametrize("max_len", [0, 40, 0xFFFF])
def test_controller_keeps_its_max_len(max_len):
    assert translated(of.output(CONTROLLER, max_len)) == of.output(CONTROLLER, max_len)


def test_enqueue_is_the_queue_here_and_a_key_of_its_own_there():
    assert translated(of.enqueue(2, 7)) == of.enqueue(2, 7)
    assert translated(of.enqueue(18, 7)) == key(0x100) + to(IP2)
    ingress = s1(queue_keys={(3, 2, 9): 0x123})
    assert translated(of.enqueue(34, 9), ingress) == key(0x123) + to(IP3)
    assert translated(of.enqueue(IN_PORT, 1)) == of.enqueue(IN_PORT, 1)


def test_set_fields_hold_for_what_follows_them_only():
    """The order is kept, so the switch does that by itself, in the tunnel and out of it."""
    vid, source = of.set_vlan_vid(5), of.set_dl_src("00:00:00:00:00:09")
    tunnel = of.output(TUNNEL)
    assert translated([of.output(17), vid, of.output(18), source, of.output(2)]) == (
        key(1) + to(IP2) + vid + key(2) + tunnel + source + of.output(2)
    )


def test_key_and_destination_are_loaded_again_only_if_they_are_others():
    """Two switches, the same port number; two ports of one switch; one port twice."""
    tunnel = of.output(TUNNEL)
    assert translated([of.output(17), of.output(33)]) == key(1) + to(IP2) + to(IP3)
    assert translated([of.output(17), of.output(18), of.output(17)]) == (
        key(1) + to(IP2) + key(2) + tunnel + key(1) + tunnel
    )
    assert translated([of.output(17)] * 3) == key(1) + to(IP2) + tunnel + tunnel


def test_after_a_look_into_the_table_key_and_destination_are_loaded_again():
    """The flow that is found there may have loaded others."""
    assert translated([of.output(17), of.output(TABLE), of.output(17)]) == (
        key(1) + to(IP2) + of.output(TABLE) + key(1) + to(IP2)
    )


@pytest.mark.parametrize("port", [0, 49, 0xFEFF])
def test_a_number_that_no_port_has_is_no_output(port):
    assert translated(of.output(port)) == b""
    assert translated([of.output(port), of.output(2)]) == of.output(2)


def test_a_port_of_the_switch_that_may_come_is_left_to_it():
    """Open vSwitch drops what it is to output to a port that is not there."""
    assert translated(of.output(16)) == of.output(16)


def test_a_switch_that_is_not_known_yet_is_no_output():
    ingress = s1(remote_ips={3: IP3})
    assert translated([of.output(17), of.output(33), of.output(2)], ingress) == (
        key(1) + to(IP3) + of.output(2)
    )
    assert translated(of.enqueue(17, 1), ingress) == b""


def test_without_a_tunnel_port_only_the_own_ports_are_reached():
    ingress = s1(tunnel_port=None)
    actions = [of.output(17), of.set_vlan_vid(5), of.output(2), of.output(FLOOD), of.output(ALL)]
    assert translated(actions, ingress) == (
        of.set_vlan_vid(5) + of.output(2) + of.output(FLOOD) + of.output(1) + of.output(2)
    )


def test_the_tunnel_port_is_no_port_of_the_big_switch():
    """Its number would be one: switch 1 has it as port 3."""
    assert translated([of.output(TUNNEL), of.enqueue(TUNNEL, 1), of.output(2)]) == of.output(2)


def test_no_actions_are_no_actions():
    assert translated([]) == b""


STEPS = {
    of.output(1): of.output(1),
    of.output(17): (1, IP2),
    of.output(18): (2, IP2),
    of.output(34): (2, IP3),
    of.output(IN_PORT): of.output(IN_PORT),
    of.set_vlan_vid(5): of.set_vlan_vid(5),
    of.set_nw_dst("10.0.0.9"): of.set_nw_dst("10.0.0.9"),
}


@given(st.lists(st.sampled_from(list(STEPS)), max_size=8))
def test_each_output_leaves_with_its_own_key_and_destination(actions):
    """Played back: key and destination are as the loads before each tunnel output leave them."""
    sent, tunnel_key, tunnel_ip = [], None, None
    for kind, body in of.unpack_actions(translated(actions)):
        action = of.action(kind, body)
        if action == of.output(TUNNEL):
            sent.append((tunnel_key, tunnel_ip))
        elif kind == of.ActionType.VENDOR:
            field, value = struct.unpack_from("!IQ", action, 12)
            if field == 0x00012008:
                tunnel_key = value
            else:
                tunnel_ip = value
        else:
            sent.append(action)
    assert sent == [STEPS[action] for action in actions]


def test_all_pairs_of_switches_agree_on_the_key():
    """Whichever switch a frame enters: the egress port's number on its own switch."""
    numbers = PortNumbers()
    ips = {1: 0xAC100001, 2: IP2, 3: IP3}
    for source, target in itertools.permutations(ips, 2):
        ingress = s1(own=source, remote_ips={i: ip for i, ip in ips.items() if i != source})
        for port in (1, 2, 16):
            out = translated(of.output(numbers.number(target, port)), ingress)
            assert out == key(port) + to(ips[target])
