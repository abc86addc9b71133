"""Switches, ports and tunnels that appear later, are missing, or cannot be numbered."""

import re
import time

import pytest
from lab import frames
from lab import openflow10 as of
from lab.bigswitch import OPENFLOW_PORT
from lab.network import CONTROL_ADDRESS, HostPort
from lab.openflow10 import Port

from .look import of_the_controller, rules, service_rules

A_FRAME = frames.udp()
TARGET = f"tcp:{CONTROL_ADDRESS}:{OPENFLOW_PORT}"


def warnings(big_switch):
    """Return the warnings and errors in the log."""
    return re.findall(r"^(?:WARNING|ERROR):edge[^:]*:(.*)$", big_switch.aggregator.log(), re.M)


def passes(big_switch, source, target):
    """Fail unless a frame gets from one port to the other, and nowhere else."""
    match = of.match(in_port=source)
    big_switch.controller.flow_mod(match, of.output(target))
    big_switch.wires.send(source, A_FRAME)
    big_switch.expect({target: [A_FRAME]})
    big_switch.controller.flow_mod(match, command=of.Command.DELETE_STRICT)
    return True


def wait_until_it_passes(big_switch, source, target):
    """Send frames until one arrives. The source's side cannot see when its tunnel is discovered."""
    frame = frames.numbered(source)
    big_switch.controller.flow_mod(of.match(in_port=source), of.output(target))
    deadline = time.monotonic() + 20
    while True:
        big_switch.wires.send(source, frame)
        if frame in big_switch.wires.capture().get(target, []):
            return
        assert time.monotonic() < deadline, f"no frame from port {source} to port {target}"


def floods_to(big_switch, source, port=Port.FLOOD):
    """Return the ports where a flooded frame comes out."""
    big_switch.controller.packet_out(A_FRAME, of.output(port), in_port=source)
    return sorted(big_switch.wires.capture())


# ---- switches and ports that appear later ----


@pytest.fixture
def half(make_prepared):
    """A big switch over s1. s2 exists, but has not connected."""

    def only_s1(network):
        network.switches[2].connect = lambda target: None

    big_switch = make_prepared(only_s1, ready=False)
    big_switch.controller.wait_until_connected()
    big_switch.wait_for_ports([1, 2])
    return big_switch


def connect_s2(big_switch):
    switch = big_switch.network.switches[2]
    switch.ovs.set_controller(switch.name, TARGET)
    big_switch.wait_for_ports([1, 2, 17, 18])


def test_flows_that_name_ports_of_a_switch_that_connects_later(half):
    half.controller.flow_mod(of.match(in_port=1), [of.output(2), of.output(17)], cookie=1)
    half.controller.flow_mod(of.match(in_port=18), of.output(1), cookie=2)
    half.controller.flow_mod(of.match(dl_type=0x0806), of.output(18), cookie=3, priority=9)
    half.wires.send(1, A_FRAME)
    half.expect({2: [A_FRAME]})
    assert len(half.controller.flow_stats()) == 3
    connect_s2(half)
    second = half.network.switches[2]
    assert {flow.match for flow in of_the_controller(second)} == {"arp", "in_port=2"}
    wait_until_it_passes(half, 2, 18)
    wait_until_it_passes(half, 17, 2)
    half.wires.send(1, A_FRAME)
    half.expect({2: [A_FRAME], 17: [A_FRAME]})
    half.wires.send(18, A_FRAME)
    half.expect({1: [A_FRAME]})
    half.wires.send(17, frames.arp())
    half.controller.flow_mod(of.match(in_port=17), command=of.Command.DELETE)
    half.wires.capture()
    half.wires.send(17, frames.arp())
    half.expect({18: [frames.arp()]})


def test_a_flow_that_grows_too_long_when_a_switch_connects_costs_only_itself(half):
    """Outputs to a switch that is not there take no room in the translation. Once it is there they
    take too much.
    """
    long = (of.set_vlan_vid(1) + of.output(17) + of.output(18)) * 2700
    half.controller.flow_mod(of.match(dl_type=0x88B5), long, cookie=1)
    half.controller.flow_mod(of.match(in_port=1), of.output(17), cookie=2, priority=9)
    connect_s2(half)
    wait_until_it_passes(half, 2, 18)
    half.wires.send(1, A_FRAME)
    half.expect({17: [A_FRAME]})
    assert {1, 2} <= {flow.cookie for flow in half.controller.flow_stats()}
    half.controller.flow_mod(of.match(dl_type=0x88B5), command=of.Command.DELETE)
    assert 1 not in {flow.cookie for flow in half.controller.flow_stats()}


def test_floods_reach_a_switch_from_when_it_connects(half):
    half.controller.flow_mod(of.match(in_port=1), of.output(Port.FLOOD), cookie=1)
    assert floods_to(half, 1) == [2]
    connect_s2(half)
    wait_until_it_passes(half, 2, 18)
    half.wires.send(1, A_FRAME)
    half.expect({2: [A_FRAME], 17: [A_FRAME], 18: [A_FRAME]})
    assert floods_to(half, 1) == [2, 17, 18]


def test_what_no_switch_holds_is_deleted_with_all_others(half):
    """The timeouts of such a flow run in the aggregator, and end with it."""
    removed = {"flags": of.Flag.SEND_FLOW_REM, "idle_timeout": 1, "hard_timeout": 1}
    half.controller.flow_mod(of.match(in_port=18), of.output(1), cookie=1, **removed)
    half.controller.flow_mod(of.match(in_port=17), of.output(1), cookie=2, idle_timeout=1)
    half.controller.flow_mod(of.match(in_port=1), of.output(2), cookie=3)
    half.controller.flow_mod(command=of.Command.DELETE)
    message = half.controller.expect(of.Type.FLOW_REMOVED)
    flow = of.unpack_flow_removed(message.body)
    assert (flow.cookie, flow.reason) == (1, of.RemovedReason.DELETE)
    with pytest.raises(AssertionError):
        half.controller.expect(of.Type.FLOW_REMOVED, 2)  # the timeouts bring none
    assert "Timer" not in half.aggregator.log()


def test_a_packet_out_like_one_before_goes_where_the_switches_are_now(half):
    """How a packet-out is done is remembered for equal ones, as long as it holds."""
    alone, together = ([2], [1, 2]), ([2, 17, 18], [1, 2, 18])
    second = half.network.switches[2]

    def floods():
        twice = [(floods_to(half, 1), floods_to(half, 17)) for _ in range(2)]
        assert twice[0] == twice[1]
        return twice[0]

    assert floods() == alone
    connect_s2(half)
    wait_until_it_passes(half, 2, 18)
    wait_until_it_passes(half, 17, 2)
    assert floods() == together
    second.ovs.vsctl("del-controller", second.name)
    half.wait_for_ports([1, 2])
    assert floods() == alone
    connect_s2(half)
    wait_until_it_passes(half, 2, 18)
    assert floods() == together


def test_a_new_switch_has_the_service_rules_and_the_ports_of_the_formula(half):
    connect_s2(half)
    ports = half.controller.features().ports
    assert {n: port.name for n, port in ports.items()} == {
        1: "1.s1-eth1",
        2: "1.s1-eth2",
        17: "2.s2-eth1",
        18: "2.s2-eth2",
    }
    assert rules(half.network.switches[2]) == service_rules()


def test_the_controller_is_told_of_a_new_switch_s_ports(half):
    switch = half.network.switches[2]
    switch.ovs.set_controller(switch.name, TARGET)
    added = [of.parsed(half.controller.expect(of.Type.PORT_STATUS, 20)) for _ in range(2)]
    assert [status.reason for status in added] == [of.PortReason.ADD] * 2
    assert {status.port.port_no for status in added} == {17, 18}


def test_a_flow_that_names_a_port_that_is_added_later(make_big_switch):
    big_switch = make_big_switch()
    big_switch.controller.flow_mod(of.match(in_port=1), of.output(21))
    big_switch.controller.flow_mod(of.match(in_port=5), of.output(1))
    big_switch.wires.send(1, A_FRAME)
    big_switch.expect({})
    for dpid, number in ((2, 21), (1, 5)):
        big_switch.network.switches[dpid].add_port(5)
        status = of.parsed(big_switch.controller.expect(of.Type.PORT_STATUS))
        assert (status.reason, status.port.port_no) == (of.PortReason.ADD, number)
        assert service_rules((1, 2, 5)) == rules(big_switch.network.switches[dpid], 0, 1, 2) - {
            flow.rule for flow in of_the_controller(big_switch.network.switches[dpid])
        }
    big_switch.wires.send(1, A_FRAME)
    big_switch.expect({21: [A_FRAME]})
    big_switch.wires.send(5, A_FRAME)
    big_switch.expect({1: [A_FRAME]})
    assert floods_to(big_switch, 1) == [2, 5, 17, 18, 21]
    assert floods_to(big_switch, 17, Port.ALL) == [1, 2, 5, 18, 21]


# ---- what cannot be numbered or reached ----


@pytest.fixture
def extra_ports():
    """Make ports beside the lab's. The test holds the other end of their cables."""
    made = []

    def add(switch, name, number):
        port = HostPort(switch.namespace, name)
        made.append(port)
        setting = ["--", "set", "interface", name, f"ofport_request={number}"]
        switch.ovs.vsctl("add-port", switch.name, name, *setting)
        return port

    yield add
    for port in made:
        port.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_port_above_the_formula_is_left_out_and_named(make_prepared, extra_ports, when):
    """It could be taken for another switch's port: 20 is port 4 of s2."""
    left_out = []

    def add(network):
        left_out.append(extra_ports(network.switches[1], "s1-big", 20))

    big_switch = make_prepared(add if when == "before" else lambda network: None)
    if when == "after":
        add(big_switch.network)
    big_switch.aggregator.wait_for_log("s1-big")
    # A barrier: then all that was sent to the switch because of the port is in force.
    big_switch.controller.barrier()
    (warning,) = warnings(big_switch)
    assert re.search(r"switch 1\b.*port 20 \(s1-big\).*left out.*--max_ports", warning)
    assert sorted(big_switch.controller.features().ports) == [1, 2, 17, 18]
    # No frame goes to that port, and no frame comes from it.
    assert floods_to(big_switch, 1) == [2, 17, 18]
    assert floods_to(big_switch, 17, Port.ALL) == [1, 2, 18]
    big_switch.controller.flow_mod(of.match(), of.output(Port.ALL))
    left_out[0].send(A_FRAME)
    big_switch.expect({})
    assert left_out[0].receive() is None
    big_switch.controller.flow_mod(command=of.Command.DELETE)
    left_out[0].send(A_FRAME)
    big_switch.expect({})
    assert passes(big_switch, 1, 17) and passes(big_switch, 18, 2) and passes(big_switch, 1, 2)


@pytest.mark.parametrize("datapath_id", [4080, 0x02AC10000002, 0xFFFFFFFFFFFFFFFF])
def test_a_switch_that_cannot_be_numbered_is_left_out_and_named(make_big_switch, datapath_id):
    big_switch = make_big_switch(switches=3, datapath_ids={2: datapath_id}, ready=False)
    big_switch.controller.wait_until_connected()
    big_switch.aggregator.wait_for_log(f"{datapath_id:#x}")
    big_switch.wait_for_ports([1, 2, 33, 34])
    wait_until_it_passes(big_switch, 1, 33)
    wait_until_it_passes(big_switch, 34, 2)
    big_switch.reset()
    assert floods_to(big_switch, 1) == [2, 33, 34]
    assert rules(big_switch.network.switches[2]) == set()
    (warning,) = [text for text in warnings(big_switch) if "tunnel IP" not in text]
    assert f"{datapath_id:#x}" in warning and "left out" in warning and "--switches" in warning


def test_a_switch_without_tunnel_port_is_named_and_its_own_ports_work(make_prepared):
    def cut_off(network):
        network.switches[2].ovs.vsctl("del-port", "s2", "tun2")

    big_switch = make_prepared(cut_off, switches=3, ready=False)
    big_switch.controller.wait_until_connected()
    big_switch.wait_for_ports([1, 2, 17, 18, 33, 34])
    wait_until_it_passes(big_switch, 1, 33)
    wait_until_it_passes(big_switch, 34, 2)
    big_switch.reset()
    assert passes(big_switch, 17, 18) and passes(big_switch, 1, 2)
    assert floods_to(big_switch, 1) == [2, 33, 34]
    assert floods_to(big_switch, 17) == [18]
    big_switch.wires.send(17, A_FRAME)
    big_switch.expect({}, [of.PacketIn(of.NO_BUFFER, 60, 17, 0, A_FRAME)])
    (warning,) = [text for text in warnings(big_switch) if "tunnel IP" not in text]
    assert re.search(r"switch 2\b.*no tunnel port.*tunN", warning)
    # When it gets a tunnel port, it can reach the others and be reached.
    second = big_switch.network.switches[2]
    second.ovs.add_tunnel("s2", "tun2", second.tunnel_ip)
    wait_until_it_passes(big_switch, 1, 17)
    wait_until_it_passes(big_switch, 18, 33)


def test_a_switch_with_two_tunnel_ports_is_named_and_its_own_ports_work(make_prepared):
    """Neither is used: the aggregator cannot know which of them the other switches reach."""

    def double(network):
        network.switches[2].ovs.add_tunnel("s2", "tun22", "172.16.0.22")

    big_switch = make_prepared(double, switches=3, ready=False)
    big_switch.controller.wait_until_connected()
    big_switch.wait_for_ports([1, 2, 17, 18, 33, 34])
    wait_until_it_passes(big_switch, 1, 33)
    wait_until_it_passes(big_switch, 34, 2)
    big_switch.reset()
    assert passes(big_switch, 17, 18) and passes(big_switch, 1, 2)
    assert floods_to(big_switch, 17) == floods_to(big_switch, 17, Port.ALL) == [18]
    (warning,) = [text for text in warnings(big_switch) if "tunnel IP" not in text]
    assert re.search(r"switch 2\b.*tun2, tun22", warning)
    big_switch.network.switches[2].ovs.vsctl("del-port", "s2", "tun22")
    wait_until_it_passes(big_switch, 1, 17)
    wait_until_it_passes(big_switch, 18, 33)


def test_an_ip_that_no_switch_answers_for_is_named(make_big_switch):
    big_switch = make_big_switch(options=["--ips=172.16.0.1,172.16.0.99,172.16.0.2"])
    big_switch.aggregator.wait_for_log(r"WARNING.*172\.16\.0\.99", timeout=30)
    (warning,) = warnings(big_switch)
    assert "No switch answers" in warning and "172.16.0.99" in warning
    assert passes(big_switch, 1, 17) and passes(big_switch, 18, 2)


def test_a_switch_whose_ip_is_not_named_keeps_its_own_ports(make_big_switch):
    """The other switches do not know its address."""
    big_switch = make_big_switch(switches=3, ready=False, options=["--ips=172.16.0.1,172.16.0.3"])
    big_switch.controller.wait_until_connected()
    big_switch.wait_for_ports([1, 2, 17, 18, 33, 34])
    wait_until_it_passes(big_switch, 1, 33)
    wait_until_it_passes(big_switch, 34, 2)
    big_switch.reset()
    assert passes(big_switch, 17, 18)
    assert floods_to(big_switch, 1) == [2, 33, 34]
    # It can send to the others, though.
    wait_until_it_passes(big_switch, 17, 1)


def test_two_switches_with_one_datapath_id(make_prepared):
    """The first one stays. The second is refused and named in the log."""
    later = []

    def not_s3(network):
        switch = network.switches[3]
        later.append(switch.connect)
        switch.connect = lambda target: None

    big_switch = make_prepared(
        not_s3,
        switches=3,
        datapath_ids={3: 2},
        ready=False,
        options=["--ips=172.16.0.1,172.16.0.2"],
    )
    big_switch.controller.wait_until_connected()
    big_switch.wait_for_ports([1, 2, 17, 18])
    wait_until_it_passes(big_switch, 1, 17)
    later[0](TARGET)
    big_switch.aggregator.wait_for_log("WARNING.*same dpid")
    big_switch.reset()
    assert passes(big_switch, 1, 18) and passes(big_switch, 17, 2)
    assert sorted(big_switch.controller.features().ports) == [1, 2, 17, 18]
    (warning,) = warnings(big_switch)
    assert "switch 2" in warning
