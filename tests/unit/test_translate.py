"""Translation of actions from the big switch's ports to those of one real switch."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import openflow10 as of

from edge.openflow import actions as act
from edge.openflow.errors import OpenFlowError
from edge.south import translate
from edge.switch.portnumbers import PortNumbers

from .wire import ALIKE_EVERYWHERE, SET_FIELDS, reg_load

IN_PORT, TABLE, NORMAL, FLOOD, ALL, CONTROLLER, LOCAL, NONE = range(0xFFF8, 0x10000)

TUNNEL = 3
IP2, IP3 = 0xAC100002, 0xAC100003


def key(value):
    return reg_load(0x00012008, value, 64)  # NXM_NX_TUN_ID


def destination(ip):
    return reg_load(0x00014004, ip, 32)  # NXM_NX_TUN_IPV4_DST


def to(ip):
    return destination(ip) + of.output(TUNNEL)


def s1(**changed):
    """Return the state of switch 1 of three: ports 1 and 2, tunnel port 3, both others
    connected.
    """
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


# ---- actions that are the same on every switch ----


@pytest.mark.parametrize("action", SET_FIELDS + ALIKE_EVERYWHERE, ids=bytes.hex)
def test_an_action_that_means_the_same_everywhere_is_the_same_everywhere(action):
    assert translated(action) == action


def test_repetition_and_order_are_kept():
    actions = [of.output(2), of.set_vlan_vid(5), of.output(2), of.strip_vlan(), of.output(2)]
    assert translated(actions) == of.joined(actions)


@given(st.binary(max_size=64))
def test_any_actions_that_are_taken_can_be_translated(raw):
    try:
        actions = act.parse(raw)
    except OpenFlowError:
        return
    translate.translate(actions, s1())


# ---- outputs ----


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
    """ALL on the switch would also output into the tunnel."""
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
    """The order of actions is kept. So the switch applies them rightly, into the tunnel and
    elsewhere.
    """
    vid, source = of.set_vlan_vid(5), of.set_dl_src("00:00:00:00:00:09")
    tunnel = of.output(TUNNEL)
    assert translated([of.output(17), vid, of.output(18), source, of.output(2)]) == (
        key(1) + to(IP2) + vid + key(2) + tunnel + source + of.output(2)
    )


def test_key_and_destination_are_loaded_again_only_if_they_are_others():
    """Outputs to two switches with the same port number; to two ports of one switch; to one port
    twice.
    """
    tunnel = of.output(TUNNEL)
    assert translated([of.output(17), of.output(33)]) == key(1) + to(IP2) + to(IP3)
    assert translated([of.output(17), of.output(18), of.output(17)]) == (
        key(1) + to(IP2) + key(2) + tunnel + key(1) + tunnel
    )
    assert translated([of.output(17)] * 3) == key(1) + to(IP2) + tunnel + tunnel


def test_after_a_look_into_the_table_key_and_destination_are_loaded_again():
    """The flow that the table lookup finds may have loaded others."""
    assert translated([of.output(17), of.output(TABLE), of.output(17)]) == (
        key(1) + to(IP2) + of.output(TABLE) + key(1) + to(IP2)
    )


@pytest.mark.parametrize("port", [0, 49, 0xFEFF])
def test_a_number_that_no_port_has_is_no_output(port):
    assert translated(of.output(port)) == b""
    assert translated([of.output(port), of.output(2)]) == of.output(2)


def test_a_port_of_the_switch_that_may_come_is_left_to_it():
    """Open vSwitch drops an output to a port that does not exist."""
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
    """Switch 1 has the tunnel at port 3, which would be a valid number."""
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
    """Play the actions: at each tunnel output, key and destination are those of the last loads."""
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
    """Whatever switch a frame enters, the key is the egress port's number on its own switch."""
    numbers = PortNumbers()
    ips = {1: 0xAC100001, 2: IP2, 3: IP3}
    for source, target in itertools.permutations(ips, 2):
        ingress = s1(own=source, remote_ips={i: ip for i, ip in ips.items() if i != source})
        for port in (1, 2, 16):
            out = translated(of.output(numbers.number(target, port)), ingress)
            assert out == key(port) + to(ips[target])
