"""Tests of the lab, which all other tests rely on."""

import os
import queue
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from lab import frames
from lab import openflow10 as of
from lab.aggregator import Aggregator
from lab.controller import Connection, Controller
from lab.namespaces import Namespace
from lab.openflow10 import Command, Message, Type
from lab.traffic import Stream

FRAMES = {
    "shortest": frames.ethernet(pad=False),
    "udp": frames.udp(payload=b"x" * 100),
    "tcp": frames.tcp(),
    "icmp": frames.icmp(),
    "arp": frames.arp(),
    "icmpv6": frames.icmpv6(),
    "lldp": frames.lldp(),
    "vlan": frames.udp(vlan=5, pcp=3),
    "priority tag": frames.udp(vlan=0, pcp=7),
    "two tags": frames.ethernet(vlan=5, ethertype=frames.ETH_VLAN, payload=b"\0\x06" + b"\x88\xb5"),
    "1514 bytes": frames.numbered(1, 1514),
    "1600 bytes": frames.numbered(2, 1600),
    "broadcast to the switch's own address": frames.arp(target_ip="10.255.0.1"),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_frames_cross_a_plain_bridge_byte_for_byte(plain_switch, frame):
    plain_switch.controller.flow_mod(of.match(in_port=1), [of.output(2), of.output(18)])
    plain_switch.wires.send(1, frame)
    plain_switch.expect({2: [frame], 18: [frame]})


def test_ovs_clears_the_cfi_bit_of_a_frame_that_enters_and_keeps_that_of_a_packet_out(plain_switch):
    """The lab does not do that: the kernel takes the tag off, and eth_push_vlan() adds a new
    one.
    """
    plain_switch.controller.flow_mod(of.match(in_port=1), of.output(2))
    plain_switch.wires.send(1, frames.udp(vlan=5, cfi=1))
    plain_switch.expect({2: [frames.udp(vlan=5, cfi=0)]})
    plain_switch.controller.packet_out(frames.udp(vlan=5, cfi=1), of.output(2))
    plain_switch.expect({2: [frames.udp(vlan=5, cfi=1)]})


def test_long_bursts_arrive_complete_and_in_order(plain_switch):
    plain_switch.controller.flow_mod(of.match(in_port=1), of.output(2))
    burst = [frames.numbered(number, 1514) for number in range(500)]
    plain_switch.wires.send(1, *burst)
    plain_switch.expect({2: burst})


def test_expect_fails_on_a_frame_too_many_too_few_or_different(plain_switch):
    wires = plain_switch.wires
    plain_switch.controller.flow_mod(of.match(in_port=1), [of.output(2), of.output(17)])
    for wrong in (
        {2: [frames.udp()]},
        {2: [frames.udp()], 17: [frames.tcp()]},
        {},
        {2: [frames.udp()], 17: [frames.udp()] * 2},
    ):
        wires.send(1, frames.udp())
        with pytest.raises(AssertionError):
            wires.expect(wrong, timeout=0.1)


def test_nothing_is_missed_by_expecting_nothing(plain_switch):
    """Frames that were just sent are seen: "nothing came" never means "nothing came yet"."""
    plain_switch.controller.flow_mod(of.match(in_port=1), of.output(2))
    for _ in range(200):
        plain_switch.wires.send(1, frames.udp())
        with pytest.raises(AssertionError):
            plain_switch.wires.expect_nothing()


def test_packet_ins_are_there_after_settling(plain_switch):
    for number in range(100):
        plain_switch.wires.send(1, frames.numbered(number))
        plain_switch.settle()
        (packet_in,) = plain_switch.controller.packet_ins()
        assert packet_in == of.PacketIn(
            of.NO_BUFFER, 60, 1, of.PacketInReason.NO_MATCH, frames.numbered(number)
        )


def test_a_port_whose_cable_is_pulled_says_so(plain_switch):
    port = plain_switch.wires.ports[17]
    for present, state in ((False, of.LINK_DOWN), (True, 0)):
        port.set_carrier(present)
        status = of.parsed(plain_switch.controller.expect(Type.PORT_STATUS))
        assert (status.port.port_no, status.port.state) == (17, state)


def test_statistics_in_parts_are_joined(plain_switch):
    controller = plain_switch.controller
    matches = [of.match(dl_src=frames.host_mac(number)) for number in range(2000)]
    controller.send(
        *(of.flow_mod(match, of.output(1), cookie=number) for number, match in enumerate(matches))
    )
    controller.barrier()
    flows = controller.flow_stats()
    assert sorted(flow.cookie for flow in flows) == list(range(2000))
    assert {flow.match["dl_src"] for flow in flows} == {
        frames.host_mac(number) for number in range(2000)
    }
    assert controller.aggregate().flow_count == 2000


def test_a_match_is_read_back_as_it_was_written():
    fields = {
        "in_port": 3,
        "dl_src": "00:00:00:00:00:01",
        "dl_dst": "00:00:00:00:00:02",
        "dl_vlan": 5,
        "dl_vlan_pcp": 6,
        "dl_type": 0x800,
        "nw_tos": 8,
        "nw_proto": 6,
        "nw_src": "10.0.0.0/8",
        "nw_dst": "10.1.2.3",
        "tp_src": 80,
        "tp_dst": 81,
    }
    assert of.unpack_match(of.match(**fields)) == fields
    assert of.unpack_match(of.match()) == {}
    for name, value in fields.items():
        assert of.unpack_match(of.match(**{name: value})) == {name: value}


def test_an_error_is_given_to_whom_it_belongs(plain_switch):
    controller = plain_switch.controller
    bad_out_port = of.flow_mod(actions=of.output(of.Port.NONE))
    error = controller.error_for(bad_out_port)
    assert (error.type, error.code) == (of.ErrorType.BAD_ACTION, of.BadAction.BAD_OUT_PORT)
    assert of.with_xid(error.data, 0) == bad_out_port[: len(error.data)]
    with pytest.raises(AssertionError, match="refused"):
        controller.do(bad_out_port)
    assert controller.take() == []


def test_a_controller_that_goes_is_found_again(make_plain_switch):
    plain_switch = make_plain_switch()
    controller = plain_switch.controller
    for count, end in enumerate(
        (lambda connection: connection.close(), lambda connection: connection.close(reset=True)), 2
    ):
        end(controller.connection)
        controller.wait_for_connection(count)
        assert controller.features().datapath_id == 1
    controller.close()
    controller.listen()
    controller.wait_until_connected()


def test_two_controller_connections_meet():
    """`Connection.open` connects to a switch that listens. `Controller` plays that switch here."""
    with Namespace() as namespace, Controller(namespace, record=True) as listening:
        caller = Connection.open(namespace, listening.port)
        called = listening.wait_for_connection()
        assert caller.wait_for_hello().version == 1
        caller.send(of.message(Type.ECHO_REQUEST, b"ping", 5))
        assert caller.expect(Type.ECHO_REPLY) == Message(1, Type.ECHO_REPLY, 5, b"ping")
        assert ("received", Message(1, Type.ECHO_REQUEST, 5, b"ping")) in called.transcript
        caller.close()
        called.wait_closed()


def wire_by_hand(network):
    """Install the rules for frames out of the tunnel by hand, and on s1 flows from every port to
    the port of the same number on s2.
    """
    for switch in network.switches.values():
        tunnel = len(switch.ports) + 1
        flows = [f"in_port={tunnel},actions=resubmit(,1)"]
        flows += [f"table=1,tun_id={port},actions=output:{port}" for port in switch.ports]
        if switch.dpid == 1:
            flows += [
                f"in_port={port},actions=set_field:{port}->tun_id,"
                f"set_field:{network.switches[2].tunnel_ip}->tun_dst,output:{tunnel}"
                for port in switch.ports
            ]
        switch.ovs.ofctl("add-flows", switch.name, "-", text="\n".join(flows))


@pytest.fixture(scope="module")
def gre(root):
    from lab.network import Network

    with Network() as network:
        wire_by_hand(network)
        yield network


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_frames_cross_a_gre_tunnel_byte_for_byte(gre, frame):
    gre.send(1, frame)
    gre.expect({17: [frame]})
    gre.send(2, frame)
    gre.expect({18: [frame]})
    gre.send(17, frame)
    gre.expect_nothing()


def test_nothing_is_missed_behind_a_tunnel(gre):
    for _ in range(200):
        gre.send(1, frames.udp())
        with pytest.raises(AssertionError):
            gre.expect_nothing()


def test_bursts_cross_a_tunnel_complete(gre):
    burst = [frames.numbered(number, 1514) for number in range(500)]
    gre.send(1, *burst)
    gre.expect({17: burst})


def test_a_cut_underlay_stops_the_tunnel_and_a_mended_one_carries_again(make_network):
    network = make_network()
    wire_by_hand(network)
    network.switches[2].cut(control=False)
    network.send(1, frames.udp())
    network.expect_nothing()
    network.switches[2].mend(control=False)
    network.send(1, frames.udp())
    network.expect({17: [frames.udp()]})


def test_ports_come_and_go(make_network):
    network = make_network(switches=2, ports=1)
    switch = network.switches[2]
    switch.add_port(5)
    switch.ovs.ofctl("add-flow", "s2", "in_port=1,actions=output:5")
    network.send(17, frames.udp())
    network.expect({21: [frames.udp()]})
    switch.remove_port(5)
    network.send(17, frames.udp())
    network.expect_nothing()


def test_faults_of_a_switch(make_network):
    """Killed and started again; restarted with its flows; restarted with an empty database;
    frozen.
    """
    network = make_network()
    wire_by_hand(network)
    first, second = network.switches.values()
    before = second.flows()

    second.ovs.restart(keep_flows=True)
    assert second.flows() == before
    second.recover()
    network.send(1, frames.udp())
    network.expect({17: [frames.udp()]})

    second.ovs.kill_vswitchd()
    assert second.ovs.vswitchd.poll() == -signal.SIGKILL
    second.ovs.start()
    assert second.flows() == []
    assert "actions" in first.ovs.ofctl("dump-flows", "s1")

    second.ovs.kill_ovsdb()
    second.ovs.start()
    assert second.ovs.vsctl("list-br").split() == ["s2", "underlay"]
    second.ovs.ofctl("add-flow", "s2", "actions=drop")

    second.ovs.sigstop()
    with pytest.raises(OSError):
        second.ovs.appctl("version", timeout=0.2)
    network.settle()  # the other switch still answers
    second.recover()
    second.ovs.appctl("version")

    second.ovs.restart(keep_db=False)
    assert second.ovs.vsctl("list-br") == ""


def test_pox_runs_in_the_lab(make_network):
    """The lab runs any component. Here it is POX's hub, which makes each switch flood."""
    network = make_network()
    hub = Aggregator(
        network.outer, os.path.join(network.directory, "hub.log"), component="forwarding.hub"
    )
    hub.start()
    try:
        hub.wait_for_log("hub running")
        network.connect("tcp:10.255.0.1:6633")
        for dpid in network.switches:
            hub.wait_for_log(f"Hubifying 00-00-00-00-00-{dpid:02}")
        assert hub.log().count("Hubifying") == 2
    finally:
        assert hub.terminate() == 0
    hub.start()
    hub.wait_for_log("hub running")
    assert hub.log().count("hub running") == 1, "the log of one life"
    assert hub.log(all_lives=True).count("hub running") == 2
    hub.kill()
    assert hub.process.returncode == -signal.SIGKILL


NETWORK_THAT_SAYS_WHAT_IT_MADE = """
import sys
sys.path[:] = %r
from lab.network import Network
network = Network()
print(network.directory, network.outer.pid)
for switch in network.switches.values():
    print(switch.namespace.pid, switch.ovs.vswitchd.pid, switch.ovs.ovsdb.pid)
sys.stdout.flush()
%s
"""


@pytest.mark.parametrize(
    "ending",
    ["network.stop()", "raise SystemExit(1)", "import os; os.kill(os.getpid(), 9)"],
    ids=["stopped", "forgotten", "killed"],
)
def test_nothing_is_left(root, ending):
    """No process and no directory is left. Namespaces have no name, and end with their
    processes.
    """
    named = set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set()
    script = NETWORK_THAT_SAYS_WHAT_IT_MADE % (sys.path, ending)
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, check=False, text=True
    )
    directory, *pids = done.stdout.split()
    assert len(pids) == 7
    from waiting import wait_until

    for pid in pids:
        wait_until(lambda pid=pid: not os.path.exists("/proc/" + pid), "end of process " + pid)
    wait_until(lambda: not os.path.exists(directory), "removal of " + directory)
    if os.path.isdir("/run/netns"):
        assert not {name for name in os.listdir("/run/netns") if name not in named}


def test_commands_in_the_lab_are_the_specifications():
    """A flow-mod has the bytes that section 5.3.3 of OpenFlow 1.0.0 specifies."""
    raw = of.flow_mod(
        of.match(in_port=0x0102),
        [of.output(3)],
        Command.DELETE_STRICT,
        0x1112,
        0x2122232425262728,
        0x3132,
        0x4142,
        0x51525354,
        0x6162,
        0x7172,
        0x81828384,
    )
    assert raw.hex() == (
        "010e005081828384"
        "003ffffe0102" + "00" * 34 + "2122232425262728"
        "0004"
        "3132"
        "4142"
        "1112"
        "51525354"
        "6162"
        "7172"
        "0000000800030000"
    )


def test_a_frame_crosses_the_big_switch(big_switch):
    big_switch.controller.flow_mod(of.match(in_port=1), [of.output(2), of.output(18)])
    big_switch.wires.send(1, frames.udp(vlan=5))
    big_switch.expect({2: [frames.udp(vlan=5)], 18: [frames.udp(vlan=5)]})
    big_switch.wires.send(17, frames.tcp())
    big_switch.expect(
        {}, [of.PacketIn(of.NO_BUFFER, 60, 17, of.PacketInReason.NO_MATCH, frames.tcp())]
    )


def test_a_shared_big_switch_comes_back_after_the_aggregator_was_killed(request, root):
    """A test may break the shared big switch. The next test gets a new one."""
    shared = request.getfixturevalue("_shared_big_switch")
    broken = shared.as_new()
    broken.aggregator.kill()
    repaired = shared.as_new()
    assert repaired is not broken
    assert sorted(repaired.controller.features().ports) == [1, 2, 17, 18]


def test_each_test_gets_a_bed_as_new(bed):
    controller = bed.controller
    controller.flow_mod(of.match(in_port=1), of.output(2))
    controller.do(of.set_config(miss_send_len=64))
    address = controller.features().ports[1].hw_addr
    controller.do(of.port_mod(1, address, of.PortConfig.NO_FLOOD, of.PortConfig.NO_FLOOD))
    bed.wires.ports[2].set_carrier(False)
    bed.wires.send(17, frames.udp())
    bed.reset()
    assert controller.flow_stats() == []
    assert controller.request(of.message(Type.GET_CONFIG_REQUEST)).body == b"\0\0\0\x80"
    assert controller.features().ports[1].config == 0
    assert controller.features().ports[2].state == 0
    assert controller.take() == []
    bed.wires.expect_nothing()


class PlayedPort:
    """A port whose frames the test lets out."""

    def __init__(self, send=None):
        self.send = send
        self.out = queue.Queue()

    def receive(self, timeout=0):
        try:
            return self.out.get(timeout=timeout) if timeout else self.out.get_nowait()
        except queue.Empty:
            return None


@pytest.mark.parametrize("comes", [True, False])
def test_a_stream_tells_a_late_frame_from_a_lost_one(comes, monkeypatch):
    monkeypatch.setattr("lab.traffic.LATEST", 0.5)
    out, kept = PlayedPort(), []

    def send(frame):
        if stream.sent == 1:
            kept.append(frame)
        else:
            out.out.put(frame)

    stream = Stream(SimpleNamespace(ports={1: PlayedPort(send), 2: out}), 1, [2])
    with stream:
        stream.wait_for_frames(3)
    assert stream.lost == [(1, 2)]
    if comes:
        out.out.put(kept[0])
        stream.expect_no_loss()
    else:
        with pytest.raises(AssertionError, match="1 of them lost at"):
            stream.expect_no_loss()
