"""Networks that the formula does not fit: more ports or fewer, and switches with other indexes."""

import json
import re
import sys
from pathlib import Path

import pytest
from lab import frames
from lab import openflow10 as of
from lab.bigswitch import OPENFLOW_PORT, BigSwitch
from lab.network import CONTROL_ADDRESS
from lab.openflow10 import Port

TARGET = f"tcp:{CONTROL_ADDRESS}:{OPENFLOW_PORT}"
MACS = {1: 0x02AC10000001, 2: 0xFFEE02AC10000002, 3: 0x02AC10000003}
"""Datapath-ids that Open vSwitch derives from a MAC address, and a larger one."""


def warnings(bed):
    """The warnings and errors that the aggregator has logged since its start."""
    return re.findall(r"^(?:WARNING|ERROR):edge.*", bed.aggregator.log(), re.MULTILINE)


def check_that_all_reach_all(bed):
    """Every port reaches every other, by its number, by FLOOD and by ALL. Packet-ins name the right
    ingress port.
    """
    for ingress in bed.numbers:
        others = [number for number in bed.numbers if number != ingress]
        frame = frames.numbered(ingress)
        bed.wires.send(ingress, frame)
        bed.expect({}, [of.PacketIn(of.NO_BUFFER, 60, ingress, 0, frame)])
        for outputs in (others, [Port.FLOOD], [Port.ALL]):
            bed.controller.packet_out(frame, [of.output(n) for n in outputs], ingress)
            bed.expect({number: [frame] for number in others})
        bed.controller.flow_mod(of.match(in_port=ingress), [of.output(n) for n in others])
        bed.wires.send(ingress, frame)
        bed.expect({number: [frame] for number in others})
    counters = bed.controller.port_stats()
    assert sorted(counters) == bed.numbers
    flows = bed.controller.flow_stats()
    assert {flow.match["in_port"]: flow.packet_count for flow in flows} == dict.fromkeys(
        bed.numbers, 1
    )


# ---- --max_ports ----


@pytest.mark.parametrize("max_ports", [1, 4])
def test_few_ports_for_each_switch(make_big_switch, max_ports):
    bed = make_big_switch(switches=3, ports=max_ports, max_ports=max_ports)
    assert bed.numbers == list(range(1, 3 * max_ports + 1))
    assert sorted(bed.controller.features().ports) == bed.numbers
    check_that_all_reach_all(bed)
    assert warnings(bed) == []


def test_as_many_ports_as_there_are_tunnel_keys(make_big_switch):
    """Port 125 has the last key below 0x7e, the key of ALL."""
    bed = make_big_switch(max_ports=125, ready=False)
    for switch in bed.network.switches.values():
        switch.add_port(125)
    assert bed.numbers == [1, 2, 125, 126, 127, 250]
    bed.wait_until_ready()
    check_that_all_reach_all(bed)
    for switch in bed.network.switches.values():
        remote = switch.ovs.ofctl("dump-flows", switch.name, "--no-names", "table=1")
        assert re.search(r"tun_id=0x7d actions=output:125\n", remote)
        assert re.search(r"tun_id=0x7e actions=ALL\n", remote)
    assert warnings(bed) == []


def test_the_largest_index_with_many_ports(make_big_switch, tmp_path):
    """522 switches with 125 ports each reach up to OFPP_MAX. The 523rd is left out.

    The file of indexes was written with a smaller --max_ports.
    """
    path = tmp_path / "switches.json"
    path.write_text('{"0x1": 1, "0x2": 522, "0x3": 523}')
    bed = make_big_switch(
        switches=3,
        max_ports=125,
        ready=False,
        options=["--switches=auto", f"--switches_file={path}"],
    )
    bed.controller.wait_until_connected()
    bed.wait_for_ports([1, 2, 125 * 521 + 1, 125 * 521 + 2])
    bed.aggregator.wait_for_log("WARNING.*0x3 is left out")
    (line,) = [line for line in warnings(bed) if "tunnel IP" not in line]
    assert str(path) in line and "--max_ports" in line


def test_a_larger_max_ports_takes_back_what_a_smaller_one_has_set(make_big_switch):
    """Floods reach the port that was left out: after a kill -9, and if no flow of the earlier run
    is left on the switch. What somebody else has set stays.

    Ports whose names are too long have distinct ones, the same in both runs.
    """
    names = {5: "1.vm-~72am~1-p1", 4: "1.vm-~d2nr~1-p2", 20: "1.s1-eth20"}
    bed = make_big_switch(max_ports=32, ready=False, options=["--max_ports=16"])
    one, two = bed.network.switches.values()
    two.ovs.ofctl("mod-port", two.name, two.port_name(2), "no-flood")
    for switch in (one, two):
        switch.add_port(20)
    for number, name in ((5, "vm-customer1-p1"), (4, "vm-customer1-p2")):
        one.port_name = lambda number, name=name: name
        one.add_port(number)
    for dpid in (1, 2):
        bed.aggregator.wait_for_log(rf"switch {dpid}: port 20 \(s{dpid}-eth20\) cannot be numbered")
        bed.aggregator.wait_for_log(rf"switch {dpid}: up")
    bed.controller.wait_until_connected()
    bed.wait_for_ports([1, 2, 4, 5, 17, 18])
    assert names_of(bed, 4, 5) == [names[4], names[5]]
    assert re.search(r"20\(s1-eth20\).*\n +config: +NO_STP NO_RECV_STP NO_FLOOD\n", show(one))
    bed.aggregator.kill()
    two.ovs.ofctl("del-flows", two.name)
    bed.aggregator.options.remove("--max_ports=16")
    bed.aggregator.start()
    bed.controller.wait_for_connection(2)
    bed.wait_for_ports(bed.numbers)
    assert bed.numbers == [1, 2, 4, 5, 20, 33, 34, 52]
    assert names_of(bed, 4, 5, 20) == [names[4], names[5], names[20]]
    ports = bed.controller.features().ports
    assert {number: ports[number].config for number in bed.numbers} == {
        **dict.fromkeys(bed.numbers, 0),
        34: of.PortConfig.NO_FLOOD,
    }
    assert not re.search(r"eth20.*\n +config: .*NO_", show(one) + show(two))
    bed.wait_until_ready()  # takes back what was set on 34
    bed.controller.packet_out(frames.udp(), [of.output(Port.FLOOD)], 2)
    bed.expect({number: [frames.udp()] for number in (1, 4, 5, 20, 33, 34, 52)})


def names_of(bed, *numbers):
    """Return the names of these ports as the controller sees them."""
    ports = bed.controller.features().ports
    return [ports[number].name for number in numbers]


def show(switch):
    """Return what Open vSwitch says of the switch's ports."""
    return switch.ovs.ofctl("show", switch.name)


# ---- --switches=DPID=INDEX,... ----


class Later(BigSwitch):
    """A big switch whose switches are connected by the test."""

    def __init__(self, switches=2, options=(), datapath_ids=MACS, **more):
        super().__init__(switches, options=options, datapath_ids=datapath_ids, ready=False, **more)

    def connect_switches(self):
        pass

    def connect(self, *dpids):
        """Connect switches, one after the other: each when the one before is up."""
        for dpid in dpids:
            up = len(re.findall(": up, ", self.aggregator.log()))
            self.network.switches[dpid].connect(TARGET)
            self.aggregator.wait_for_log(rf"(?s)(: up, .*){{{up + 1}}}")

    def disconnect(self):
        """Take the controller away from all switches."""
        for switch in self.network.switches.values():
            switch.connect(None)

    def restart(self):
        """Kill the aggregator, disconnect the switches, and start the aggregator again."""
        self.aggregator.kill()
        self.disconnect()
        self.aggregator.start()
        self.aggregator.wait_until_listening(OPENFLOW_PORT)

    def names(self):
        """Return the ports' names as the controller sees them, by number."""
        self.controller.wait_until_connected()
        return {number: port.name for number, port in self.controller.features().ports.items()}

    def passes(self, ingress, egress):
        """Fail if no frame gets from one port to the other; both are (dpid, port)."""
        numbers = {name[2:]: number for number, name in self.names().items()}
        into, out = (numbers[f"s{dpid}-eth{port}"] for dpid, port in (ingress, egress))
        self.controller.wait_until_connected()
        self.aggregator.wait_for_log("tunnel IPs are discovered")
        self.controller.flow_mod(of.match(in_port=into), [of.output(out)])
        frame = frames.numbered(into)
        source, sink = (self.network.switches[dpid].ports[port] for dpid, port in (ingress, egress))
        source.send(frame)
        assert sink.receive(5) == frame


@pytest.fixture
def make_later(root):
    made = []

    def make(*args, **kwargs):
        made.append(Later(*args, **kwargs))
        return made[-1]

    yield make
    for bed in made:
        bed.stop()


def test_switches_numbered_by_the_user(make_later):
    """Datapath-ids may have any notation. A switch that is not named is left out, and the log says
    so once.
    """
    bed = make_later(3, ["--switches=ff:ee:02:ac:10:00:00:02=1,0x02ac10000001=7"])
    bed.connect(1, 2)
    bed.network.switches[3].connect(TARGET)
    bed.aggregator.wait_for_log("WARNING.*0x2ac10000003 is left out: .*--switches")
    assert bed.names() == {
        1: "1.s2-eth1",
        2: "1.s2-eth2",
        97: "7.s1-eth1",
        98: "7.s1-eth2",
    }
    bed.network.switches[3].connect(None)
    bed.network.switches[3].connect(TARGET)
    bed.aggregator.wait_for_log(r"(?s)(\[02-ac-10-00-00-03 \d+\] connected.*){2}")
    assert len([line for line in warnings(bed) if "left out" in line]) == 1
    assert bed.network.switches[3].flows() == []


# ---- --switches=auto ----


def kept(path):
    """Return the indexes in the file, by the dpid that the lab uses."""
    with open(path) as file:
        content = {int(dpid, 16): index for dpid, index in json.load(file).items()}
    return {dpid: content[mac] for dpid, mac in MACS.items() if mac in content}


def test_indexes_in_order_of_first_connection_survive_a_restart(make_later, tmp_path):
    """An absent switch keeps its index until the user removes it from the file."""
    path = tmp_path / "new" / "switches.json"
    bed = make_later(3, ["--switches=auto", f"--switches_file={path}"])
    bed.connect(2, 1)
    assert kept(path) == {2: 1, 1: 2}
    first_two = {1: "1.s2-eth1", 2: "1.s2-eth2", 17: "2.s1-eth1", 18: "2.s1-eth2"}
    assert bed.names() == first_two

    bed.restart()
    bed.connect(3)
    third = {33: "3.s3-eth1", 34: "3.s3-eth2"}
    assert bed.names() == third
    bed.connect(1, 2)
    assert bed.names() == {**first_two, **third}
    assert kept(path) == {2: 1, 1: 2, 3: 3}
    bed.passes((1, 1), (2, 1))
    bed.passes((2, 2), (3, 1))
    bed.passes((3, 2), (1, 2))
    assert [line for line in warnings(bed) if "tunnel IP" not in line] == []

    bed.aggregator.kill()
    content = json.loads(path.read_text())
    path.write_text(json.dumps({dpid: n for dpid, n in content.items() if n == 3}))
    bed.restart()
    bed.connect(1, 3, 2)
    assert kept(path) == {1: 1, 2: 2, 3: 3}


def test_a_file_that_cannot_be_written(make_later):
    """The log has one clear line. The indexes hold as long as the aggregator runs."""
    bed = make_later(options=["--switches=auto", "--switches_file=/proc/nowhere/switches.json"])
    bed.connect(2, 1)
    bed.passes((2, 1), (1, 1))
    (line,) = warnings(bed)
    assert re.search("ERROR.*/proc/nowhere/switches.json.*--switches_file", line)
    bed.disconnect()
    bed.aggregator.wait_for_log(r"(?s)(: lost.*){2}")
    bed.connect(1, 2)
    assert bed.names()[1] == "1.s2-eth1"


def test_a_full_disk(make_later, tmp_path):
    """The switches work meanwhile, and the file is written as soon as there is space. The log has a
    line when it begins, and one when it is over.
    """
    disk, python = tmp_path / "disk", tmp_path / "python"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size=32k none {disk} && exec {sys.executable} "$@"'
    python.write_text(f"#!/bin/sh\nexec unshare --mount sh -c '{mount}' sh \"$@\"\n")
    python.chmod(0o755)
    path = disk / "switches.json"
    bed = make_later(options=["--switches=auto", f"--switches_file={path}"], python=str(python))
    seen = Path(f"/proc/{bed.aggregator.pid}/root{path}")
    bed.connect(2)
    assert kept(seen) == {2: 1}
    with open(seen.parent / "filler", "wb", buffering=0) as filler, pytest.raises(OSError):
        while True:
            filler.write(bytes(4096))
    bed.connect(1)
    bed.passes((2, 1), (1, 1))
    (line,) = [line for line in warnings(bed) if "tunnel IP" not in line]
    assert re.search(f"ERROR.*{path} .No space left on device", line)
    assert kept(seen) == {2: 1}
    (seen.parent / "filler").unlink()
    bed.aggregator.wait_for_log(f"INFO:edge.indexes:.*kept in {path} again")
    assert kept(seen) == kept(f"{seen}.copy") == {2: 1, 1: 2}
    assert {each.name for each in seen.parent.iterdir()} == {
        "switches.json",
        "switches.json.copy",
        "switches.json.lock",
    }
    assert [line for line in warnings(bed) if "tunnel IP" not in line] == [line]


def test_ordinary_dpids_are_numbered_alike(make_later, tmp_path):
    """With auto the order of connection decides, whatever the dpid."""
    path = tmp_path / "switches.json"
    bed = make_later(
        options=["--switches=auto", f"--switches_file={path}"], datapath_ids={1: 2, 2: 1}
    )
    bed.connect(1, 2)
    assert bed.names()[1] == "1.s1-eth1"
    assert json.loads(path.read_text()) == {
        "0x0000000000000002": 1,
        "0x0000000000000001": 2,
    }
