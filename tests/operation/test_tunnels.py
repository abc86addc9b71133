"""Tunnels of other types, and tunnel IPs that the user need not name (--ips=auto)."""

import contextlib
import http.client
import json
import re
import socket
import struct

import pytest
from lab import frames
from lab import openflow10 as of
from lab.bigswitch import OPENFLOW_PORT, BigSwitch
from lab.faultbed import until
from lab.network import HOST_MTU, UNDERLAY_ADDRESS
from lab.openflow10 import Port

# ---- types ----


@pytest.fixture(scope="module", params=["gre", "vxlan", "geneve"])
def _bed(request, root):
    bed = BigSwitch(tunnel_type=request.param, options=["edge.dashboard"])
    bed.network.join_underlay()
    yield bed
    bed.stop()


@pytest.fixture
def bed(_bed):
    _bed.reset()
    return _bed


def test_the_tunnel_is_of_its_type(bed):
    for switch in bed.network.switches.values():
        assert switch.ovs.vsctl("get", "interface", switch.tunnel, "type").strip() == (
            bed.network.tunnel_type
        )
    found = re.findall(r"switch (\d): tunnel IP is (\S+)", bed.aggregator.log())
    assert sorted(found) == [("1", "172.16.0.1"), ("2", "172.16.0.2")]


@pytest.mark.parametrize(
    "frame",
    [
        frames.udp(),
        frames.ethernet(payload=bytes(HOST_MTU)),
        frames.ethernet(payload=b"short", pad=False),
        frames.tcp(vlan=5, pcp=3),
        frames.udp6(),
        frames.lldp(),
        frames.arp(),
    ],
    ids=["udp", "long", "short", "vlan", "ipv6", "lldp", "arp"],
)
def test_frames_cross_byte_for_byte(bed, frame):
    bed.controller.flow_mod(of.match(in_port=1), [of.output(18)])
    bed.controller.flow_mod(of.match(in_port=18), [of.output(1)])
    bed.wires.send(1, frame)
    bed.expect({18: [frame]})
    bed.wires.send(18, frame)
    bed.expect({1: [frame]})


@pytest.mark.parametrize("port", [Port.FLOOD, Port.ALL], ids=["FLOOD", "ALL"])
def test_floods_cross(bed, port):
    """A remote port has NO_FLOOD. Only FLOOD leaves it out."""
    address = bed.controller.features().ports[18].hw_addr
    bed.controller.do(of.port_mod(18, address, of.PortConfig.NO_FLOOD, of.PortConfig.NO_FLOOD))
    bed.settle()  # Open vSwitch may answer a barrier before a port-mod takes effect
    bed.controller.flow_mod(of.match(), [of.output(port)])
    frame = frames.udp()
    bed.wires.send(1, frame)
    bed.expect({number: [frame] for number in ([2, 17] if port == Port.FLOOD else [2, 17, 18])})


def test_many_outputs_with_changes_between_them(bed):
    bed.controller.flow_mod(
        of.match(in_port=2),
        [of.output(17), of.set_vlan_vid(7), of.output(18), of.strip_vlan(), of.output(1)],
    )
    frame, tagged = frames.udp(payload=bytes(50)), frames.udp(payload=bytes(50), vlan=7)
    bed.wires.send(2, frame)
    bed.expect({17: [frame], 18: [tagged], 1: [frame]})


def test_a_queue_of_a_remote_port(bed):
    """A queue's key is 0x100 or more, above the keys of ports, FLOOD and ALL."""
    bed.controller.flow_mod(of.match(in_port=1), [of.enqueue(17, 3), of.enqueue(18, 4)])
    frame = frames.udp()
    bed.wires.send(1, frame)
    bed.expect({17: [frame], 18: [frame]})
    switch = bed.network.switches[2]
    rules = switch.ovs.ofctl("dump-flows", "s2", "--no-names", "table=1")
    keys = {
        actions: (int(key, 16), int(packets))
        for packets, key, actions in re.findall(
            r"n_packets=(\d+),.*tun_id=(0x\w+) actions=(\S+)", rules
        )
    }
    for queue in ("enqueue:1:3", "enqueue:2:4"):
        key, packets = keys[queue]
        assert key >= 0x100 and packets == 1


def test_a_packet_out_crosses(bed):
    frame = frames.numbered(1)
    bed.controller.packet_out(frame, [of.output(17)])
    bed.controller.packet_out(frame, [of.output(Port.FLOOD)], in_port=18)
    bed.expect({17: [frame, frame], 1: [frame], 2: [frame]})


class Stranger:
    """A machine in the underlay that is no switch, and sends tunnel packets all the same."""

    def __init__(self, bed):
        self.type = bed.network.tunnel_type
        kind, protocol = (socket.SOCK_RAW, 47) if self.type == "gre" else (socket.SOCK_DGRAM, 0)
        self.port = {"gre": 0, "vxlan": 4789, "geneve": 6081}[self.type]
        self.socket = bed.network.outer.call(socket.socket, socket.AF_INET, kind, protocol)

    def send(self, frame, key=None):
        """Send a frame to the first switch; GRE may have no key, the others then have key 0."""
        if self.type == "gre":
            head = struct.pack("!HH", 0 if key is None else 0x2000, 0x6558)
            head += b"" if key is None else struct.pack("!I", key)
        elif self.type == "vxlan":
            head = struct.pack("!II", 0x08000000, (key or 0) << 8)
        else:
            head = struct.pack("!HHI", 0, 0x6558, (key or 0) << 8)
        self.socket.sendto(head + frame, ("172.16.0.1", self.port))


def shown(bed):
    """Return what the page's JSON says."""
    connection = http.client.HTTPConnection("127.0.0.1", 8000)
    connection.sock = bed.network.outer.call(socket.create_connection, ("127.0.0.1", 8000), 10)
    with contextlib.closing(connection):
        connection.request("GET", "/api/switch")
        return json.loads(connection.getresponse().read())


def test_a_foreign_frame_without_a_key_is_counted_and_nobody_gets_it(bed):
    """Not even if a controller's flow sends everything to it, and if it is LLDP, as probes are."""
    bed.controller.flow_mod(of.match(), [of.output(Port.CONTROLLER), of.output(1)])
    bed.controller.barrier()
    before = shown(bed)["counts"]["foreign_frames"]
    stranger = Stranger(bed)
    with stranger.socket:
        for _ in range(20):
            for frame in (frames.udp(), frames.lldp(), bytes(60)):
                stranger.send(frame)
                stranger.send(frame, key=0)
                stranger.send(frame, key=9)  # no port of the switch
        until(lambda: shown(bed)["counts"]["foreign_frames"] == before + 120, "count of them")
    bed.expect({})
    said = re.findall("^.*foreign frame.*$", bed.aggregator.log(), re.MULTILINE)
    assert len(said) == 1 and said[0].startswith("WARNING:edge.discovery:switch 1"), said
    assert UNDERLAY_ADDRESS in said[0]


# ---- --ips=auto ----


class OverUnderlay(BigSwitch):
    """The switches connect from their tunnel IPs."""

    target = f"tcp:{UNDERLAY_ADDRESS}:{OPENFLOW_PORT}"

    def connect_switches(self):
        self.network.join_underlay()
        self.network.connect(self.target)


@pytest.fixture
def auto(root):
    bed = OverUnderlay(options=["--ips=auto"])
    yield bed
    bed.stop()


def reaches(bed, ingress, egress):
    """Return when a frame gets from one port to the other. The first frames may be lost."""
    bed.controller.flow_mod(of.match(in_port=ingress), [of.output(egress)])
    frame = frames.numbered(ingress)
    for _ in range(200):
        bed.wires.send(ingress, frame)
        bed.settle()
        if bed.wires.ports[egress].receive(0.05) == frame:
            break
    else:
        pytest.fail(f"nothing gets from port {ingress} to port {egress}")
    bed.reset()


def test_the_address_that_a_switch_connects_from_is_its_tunnel_ip(auto):
    """Two switches connect at the start. One more connects later, and one comes back from another
    address.
    """
    found = re.findall(r"switch (\d): tunnel IP is (\S+)", auto.aggregator.log())
    assert sorted(found) == [("1", "172.16.0.1"), ("2", "172.16.0.2")]

    third = auto.network.add_switch(3, 1)
    third.connect(auto.target)
    auto.aggregator.wait_for_log(r"switch 3: tunnel IP is 172\.16\.0\.3$")
    reaches(auto, 1, 33)
    reaches(auto, 33, 17)

    second = auto.network.switches[2]
    second.connect(None)
    second.ovs.run("ip", "address", "del", f"{second.tunnel_ip}/16", "dev", "underlay")
    second.ovs.run("ip", "address", "add", "172.16.7.7/16", "dev", "underlay")
    second.ovs.vsctl("set", "interface", second.tunnel, "options:local_ip=172.16.7.7")
    second.connect(auto.target)
    auto.aggregator.wait_for_log(r"switch 2: tunnel IP is 172\.16\.7\.7$")
    for ingress, egress in ((1, 17), (33, 18), (17, 2), (18, 33)):
        reaches(auto, ingress, egress)
    auto.controller.flow_mod(of.match(in_port=1), [of.output(Port.FLOOD)])
    auto.wires.send(1, frames.udp())
    auto.expect({number: [frames.udp()] for number in (2, 17, 18, 33)})


def test_addresses_that_lead_to_no_tunnel_are_named(make_big_switch):
    """The switches connect through another network than the tunnels'."""
    bed = make_big_switch(options=["--ips=auto"], ready=False)
    bed.controller.wait_until_connected()
    bed.wait_for_ports([1, 2, 17, 18])
    for address in ("10.255.1.1", "10.255.1.2"):
        bed.aggregator.wait_for_log(f"WARNING.*{address.replace('.', '[.]')}", timeout=30)
    bed.controller.flow_mod(of.match(in_port=1), [of.output(2), of.output(17)])
    bed.wires.send(1, frames.udp())
    bed.expect({2: [frames.udp()]})
