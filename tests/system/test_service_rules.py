"""The service rules, which are on every switch whatever the controller does."""

import re

import pytest
from lab import frames
from lab import openflow10 as of
from lab.bigswitch import BigSwitch

from .look import dump, of_the_controller, rules, service_rules


@pytest.fixture(scope="module")
def fresh(root):
    """A big switch that no test has used yet."""
    big_switch = BigSwitch()
    yield big_switch
    big_switch.stop()


def test_the_service_rules_of_every_switch(fresh):
    for switch in fresh.network.switches.values():
        assert rules(switch) == service_rules()
        assert {flow.cookie for flow in dump(switch)} == {0}


def test_what_the_controller_adds_is_in_table_2_alone(fresh):
    fresh.controller.flow_mod(of.match(in_port=1), of.output(17))
    fresh.controller.flow_mod(of.match(dl_dst="00:00:00:00:00:01"), of.output(1), priority=1)
    for switch in fresh.network.switches.values():
        assert {flow.table for flow in of_the_controller(switch)} == {2}
        assert rules(switch) - {f.rule for f in of_the_controller(switch)} == service_rules()
    fresh.controller.flow_mod(command=of.Command.DELETE)
    for switch in fresh.network.switches.values():
        assert rules(switch) == service_rules()


def test_the_tunnel_port_takes_no_part_in_floods(fresh):
    """Nor does LOCAL, which the big switch does not have."""
    for switch in fresh.network.switches.values():
        shown = switch.ovs.ofctl("show", switch.name)
        config = dict(re.findall(r"^ \S+\((\S+)\): .*\n +config: +(.*)$", shown, re.MULTILINE))
        assert config == {
            switch.port_name(1): "0",
            switch.port_name(2): "0",
            switch.tunnel: "NO_FLOOD",
            switch.name: "PORT_DOWN NO_FLOOD",
        }


def test_with_three_ports_there_is_a_rule_for_each(make_big_switch):
    big_switch = make_big_switch(switches=1, ports=3)
    assert rules(big_switch.network.switches[1]) == service_rules((1, 2, 3), tunnel=4)


# ---- flows of priority 0, which the table-miss rule has too ----

A_FRAME = frames.udp()


def test_a_flow_of_priority_0_beats_the_miss_rule(big_switch):
    big_switch.controller.flow_mod(of.match(in_port=1), of.output(18), priority=0)
    big_switch.wires.send(1, A_FRAME)
    big_switch.expect({18: [A_FRAME]})
    big_switch.wires.send(2, A_FRAME)
    big_switch.expect({}, [of.PacketIn(of.NO_BUFFER, 60, 2, 0, A_FRAME)])


@pytest.mark.parametrize("actions, expected", [(of.output(18), {18: [A_FRAME]}), (b"", {})])
def test_an_all_wildcard_flow_of_priority_0_takes_every_frame(big_switch, actions, expected):
    """The flow has the miss rule's match and priority. Neither overwrites the other."""
    big_switch.controller.flow_mod(of.match(), actions, priority=0, cookie=7)
    for port in (1, 2, 17):
        big_switch.wires.send(port, A_FRAME)
        big_switch.expect(expected)
    (flow,) = big_switch.controller.flow_stats()
    assert (flow.priority, flow.cookie, flow.match, flow.packet_count) == (0, 7, {}, 3)
    big_switch.controller.flow_mod(command=of.Command.DELETE_STRICT, priority=0)
    assert big_switch.controller.flow_stats() == []
    big_switch.wires.send(1, A_FRAME)
    big_switch.expect({}, [of.PacketIn(of.NO_BUFFER, 60, 1, 0, A_FRAME)])


def test_every_other_priority_is_above_0(big_switch):
    big_switch.controller.flow_mod(of.match(in_port=1, dl_type=0x0800), of.output(18), priority=0)
    big_switch.controller.flow_mod(of.match(), of.output(2), priority=1)
    big_switch.wires.send(1, A_FRAME)
    big_switch.expect({2: [A_FRAME]})


def test_two_flows_of_priority_0(big_switch):
    """Flows for different ports: both are above the miss rule."""
    big_switch.controller.flow_mod(of.match(in_port=1), of.output(2), priority=0)
    big_switch.controller.flow_mod(of.match(in_port=17), of.output(18), priority=0)
    big_switch.wires.send(1, A_FRAME)
    big_switch.wires.send(17, A_FRAME)
    big_switch.expect({2: [A_FRAME], 18: [A_FRAME]})
    assert len(big_switch.controller.flow_stats()) == 2


def test_a_flow_of_priority_0_leaves_the_others_alone(big_switch):
    big_switch.controller.flow_mod(of.match(in_port=1), of.output(2), priority=5)
    big_switch.wires.send(1, A_FRAME)
    big_switch.expect({2: [A_FRAME]})
    switch = big_switch.network.switches[1]
    (before,) = of_the_controller(switch)
    big_switch.controller.flow_mod(of.match(), of.output(18), priority=0)
    (after,) = [flow for flow in of_the_controller(switch) if flow.cookie == before.cookie]
    assert after.packets == 1 and after.duration >= before.duration
    big_switch.controller.flow_mod(of.match(), command=of.Command.DELETE_STRICT, priority=0)
    (after,) = of_the_controller(switch)
    assert after.cookie == before.cookie and after.packets == 1
