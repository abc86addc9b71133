"""Switches and ports whose identity changes: dpids, tunnel IPs, port numbers, names."""

import re
import time

import pytest
from lab import frames
from lab import openflow10 as of
from lab.faultbed import dump, until
from lab.network import HostPort
from lab.openflow10 import PortReason, Type
from lab.traffic import Stream

SOON = 1.0
RIGHT = 2.0
RECONNECT = 1.5
DISCOVERED = 12.0
"""Seconds within which a tunnel IP that has moved must be found: two probes are at most ten seconds
apart.
"""
SWAPPED = 16.0
"""Seconds within which another owner of a tunnel IP must be found: three more probes stay
unanswered first.
"""
CUT_OFF = 20.0
"""Seconds within which an unreachable switch must be reported: three more probes, of other
switches, stay unanswered first.
"""


def rows(switch):
    return {(flow.table, flow.priority, flow.match): flow for flow in dump(switch)}


def port_statuses(bed, count):
    """Return the next port-status messages as (reason, number, name)."""
    statuses = [
        of.unpack_port_status(bed.controller.expect(Type.PORT_STATUS).body) for _ in range(count)
    ]
    return [(status.reason, status.port.port_no, status.port.name) for status in statuses]


def set_dpid(switch, dpid):
    switch.ovs.vsctl("set", "bridge", switch.name, f"other_config:datapath-id={dpid:016x}")


def test_two_switches_with_one_dpid(make_bed):
    """The first switch keeps its place, untouched. The second is refused until it has another
    dpid.
    """
    bed = make_bed()
    second, third = bed.network.switches[2], bed.network.switches[3]
    before = rows(second)
    refusals = r"switch 2: another switch has the same dpid"
    with Stream(bed.network, 18, [17]) as own, Stream(bed.network, 1, [18]) as into:
        own.wait_for_frames()
        into.wait_for_frames()
        bed.controller.take()
        set_dpid(third, 2)
        bed.wait_for_link([33, 34], down=True, timeout=SOON)
        bed.aggregator.wait_for_log(refusals)
        begun = bed.aggregator.log_end()
        attempts = bed.aggregator.log().count("another switch has this dpid")
        until(
            lambda: bed.aggregator.log().count("another switch has this dpid") > attempts + 2,
            "more attempts",
        )
        said = re.findall("^(?:INFO|WARNING).*", bed.aggregator.log(since=begun), re.MULTILINE)
        assert said == [], "an attempt is no news"
        bed.wait_until_right(RIGHT, dpids=[1, 2])
        set_dpid(third, 3)
        bed.wait_for_link([33, 34], down=False, timeout=RECONNECT + RIGHT)
        bed.wait_until_right(RIGHT)
        own.wait_for_frames()
        into.wait_for_frames()
    own.expect_no_loss()
    into.expect_no_loss()
    assert len(re.findall(refusals, bed.aggregator.log())) == 1, "said once"
    assert not bed.controller.take(Type.PORT_STATUS), "nothing of s2's ports"
    after = rows(second)
    assert {key[0] for key in before if not after[key].untouched(before[key])} <= {2}, "floods"


def test_a_switch_that_connects_again_before_its_old_connection_has_ended(make_bed, measured):
    """The old connection, on which nobody answers any more, is closed. The flows are untouched."""
    bed = make_bed(relays=[2])
    relay, switch = bed.relays[2], bed.network.switches[2]
    before = rows(switch)
    with Stream(bed.network, 18, [17]) as stream:
        stream.wait_for_frames()
        connections = relay.connections
        relay.lose_switches()
        relay.wait_for_connection(connections + 1)
        started = time.monotonic()
        bed.aggregator.wait_for_log(r"switch 2: up[^$]*switch 2: up")
        measured("taken over", time.monotonic() - started)
        bed.wait_until_right(RIGHT)
        stream.wait_for_frames()
    stream.expect_no_loss()
    assert time.monotonic() - started < RIGHT + SOON
    after = rows(switch)
    assert all(after[key].untouched(before[key]) for key in before)


def test_a_switch_changes_its_tunnel_ip(make_bed, measured):
    """Discovery finds the switch at its new address (one of --ips), and all flows lead there."""
    ips = ",".join(f"172.16.0.{host}" for host in (1, 2, 3, 102))
    bed = make_bed(options=["--ips=" + ips])
    switch = bed.network.switches[2]
    with Stream(bed.network, 1, [17]) as into, Stream(bed.network, 18, [34]) as out:
        into.wait_for_frames()
        out.wait_for_frames()
        set_tunnel_ip(switch, 102)
        started = time.monotonic()
        bed.aggregator.wait_for_log("switch 2: tunnel IP is 172.16.0.102", DISCOVERED)
        measured("discovered", time.monotonic() - started)
        bed.wait_until_right(RIGHT)
        assert not any("ac100002" in flow.actions for flow in dump(bed.network.switches[1]))
        into.wait_for_frames()
        measured("traffic", time.monotonic() - started)
        out.wait_for_frames()


def set_tunnel_ip(switch, host):
    """Change the address as an operator or a DHCP server does. The aggregator is not told."""
    old = switch.ovs.run("ip", "-brief", "-4", "address", "show", "dev", "underlay").split()[2]
    switch.ovs.run("ip", "address", "del", old, "dev", "underlay")
    switch.ovs.run("ip", "address", "add", f"172.16.0.{host}/16", "dev", "underlay")
    switch.ovs.vsctl("set", "interface", f"tun{switch.dpid}", f"options:local_ip=172.16.0.{host}")


@pytest.mark.parametrize("count", [2, 3])
def test_two_switches_swap_their_tunnel_ips(make_bed, measured, count):
    """Frames then come out of the wrong switch, and the probes find that out."""
    bed = make_bed(count)
    switches = bed.network.switches
    outs = [16 * (dpid - 1) + 1 for dpid in switches if dpid > 1]
    started = time.monotonic()
    set_tunnel_ip(switches[1], 2)
    set_tunnel_ip(switches[2], 1)
    bed.aggregator.wait_for_log("switch 1: tunnel IP is 172.16.0.2", SWAPPED)
    bed.aggregator.wait_for_log("switch 2: tunnel IP is 172.16.0.1", SWAPPED)
    measured("discovered", time.monotonic() - started)
    bed.wait_until_right(RIGHT)
    with Stream(bed.network, 2, outs, frames.BROADCAST) as out:
        out.wait_for_frames()
    with Stream(bed.network, 17, [1]) as back:
        back.wait_for_frames()


def test_a_switch_takes_the_tunnel_ip_of_one_that_is_gone(make_bed, measured):
    """So it is when a machine is replaced. The switch's old address is forgotten."""
    bed = make_bed(options=["--switch_timeout=2"])
    switches = bed.network.switches
    switches[3].ovs.kill_vswitchd()
    switches[3].cut()
    bed.wait_for_link([33, 34], down=True)
    started = time.monotonic()
    set_tunnel_ip(switches[2], 3)
    bed.aggregator.wait_for_log("switch 2: tunnel IP is 172.16.0.3", SWAPPED)
    measured("discovered", time.monotonic() - started)
    bed.wait_until_right(RIGHT, dpids=[1, 2])
    with Stream(bed.network, 1, [17]) as into, Stream(bed.network, 18, [2]) as out:
        into.wait_for_frames()
        out.wait_for_frames()


def test_a_switch_whose_tunnels_are_cut(make_bed, measured):
    """While the tunnels are cut, the page and the log say so. The switch's own ports still reach
    each other.
    """
    bed = make_bed()
    switch = bed.network.switches[2]
    with Stream(bed.network, 18, [17]) as own:
        own.wait_for_frames()
        switch.cut(control=False)
        started = time.monotonic()
        bed.aggregator.wait_for_log("switch 2: nothing that the others send", CUT_OFF)
        measured("told", time.monotonic() - started)
        assert bed.inside("unreached")["172.16.0.2"] == [1, 3]
        switch.mend(control=False)
        mended = time.monotonic()
        bed.aggregator.wait_for_log(
            "switch 2: is reached at tunnel IP 172.16.0.2 again", DISCOVERED
        )
        measured("told again", time.monotonic() - mended)
        until(lambda: not any(bed.inside("unreached").values()), "all reached", DISCOVERED)
        own.wait_for_frames()
    own.expect_no_loss()
    bed.wait_until_right(RIGHT)


def test_a_tunnel_port_changes_its_number(make_bed, measured):
    """The new number may be above 16. The service rules and the flows follow."""
    bed = make_bed()
    switch = bed.network.switches[2]
    bed.controller.take()
    with Stream(bed.network, 1, [17]) as into, Stream(bed.network, 18, [34]) as out:
        for number in (9, 4000, 3):
            switch.ovs.vsctl("set", "interface", "tun2", f"ofport_request={number}")
            started = time.monotonic()
            until(lambda number=number: in_ports(switch) == {number}, "service rule", RIGHT)
            bed.wait_until_right(RIGHT)
            into.wait_for_frames()
            out.wait_for_frames()
            measured(f"traffic by tunnel port {number}", time.monotonic() - started)
    assert bed.controller.take(Type.PORT_STATUS) == [], "the controller knows no tunnels"


def in_ports(switch):
    """The in_ports of the service rules in table 0 (NXM_OF_IN_PORT)."""
    return {int(flow.match[8:12], 16) for flow in dump(switch) if flow.table == 0 and flow.match}


def test_a_tunnel_port_is_deleted_and_added_again(make_bed, measured):
    """While the tunnel port is missing, the log says so, and FLOOD leaves the switch out. Then all
    is as before.
    """
    bed = make_bed()
    network, switch = bed.network, bed.network.switches[2]
    with Stream(network, 18, [17]) as own, Stream(network, 1, [34]) as others:
        own.wait_for_frames()
        others.wait_for_frames()
        before = rows(network.switches[1])
        switch.ovs.vsctl("del-port", "s2", "tun2")
        bed.aggregator.wait_for_log("switch 2: has no tunnel port")
        bed.wait_until_right(RIGHT)
        flood = next(
            flow for flow in dump(network.switches[1]) if flow.match == "00000206" + "ff" * 6
        )
        assert "ac100002" not in flood.actions and "ac100003" in flood.actions
        switch.ovs.add_tunnel("s2", "tun2", switch.tunnel_ip)
        started = time.monotonic()
        own.stop()  # from here on the other stream's frames come out of port 17
        with Stream(network, 2, [17], dst=frames.host_mac(17)) as into:
            into.wait_for_frames(timeout=DISCOVERED)
        measured("traffic into it", time.monotonic() - started)
        until(lambda: rows(network.switches[1]).keys() == before.keys(), "flows on s1")
        bed.wait_until_right(RIGHT)
        after = rows(network.switches[1])
        assert all(after[key][:5] == before[key][:5] for key in before)
        others.wait_for_frames()
    own.expect_no_loss()
    others.expect_no_loss()


def test_a_second_tunnel_port_comes_and_goes(make_bed):
    """The aggregator cannot know which of the two is right: it uses neither, and says so."""
    bed = make_bed()
    switch = bed.network.switches[2]
    with Stream(bed.network, 18, [17]) as own:
        own.wait_for_frames()
        switch.ovs.add_tunnel("s2", "tun9", switch.tunnel_ip, type="vxlan")
        bed.aggregator.wait_for_log(r"switch 2: has more than one tunnel port \(tun2, tun9\)")
        bed.wait_until_right(RIGHT)
        switch.ovs.vsctl("del-port", "s2", "tun9")
        own.wait_for_frames()
    own.expect_no_loss()
    with Stream(bed.network, 1, [17]) as into:
        into.wait_for_frames(timeout=DISCOVERED)
    bed.wait_until_right(RIGHT)


def test_ports_change_their_numbers(make_bed):
    """A port that moves to another number is another port of the big switch. Two ports that swap
    their numbers swap places. Flows follow the numbers.
    """
    bed = make_bed()
    network, switch = bed.network, bed.network.switches[2]
    bed.controller.flow_mod(of.match(dl_dst=frames.host_mac(21)), of.output(21))
    switch.ovs.vsctl("set", "interface", "s2-eth1", "ofport_request=5")
    assert sorted(port_statuses(bed, 2)) == [
        (PortReason.ADD, 21, "2.s2-eth1"),
        (PortReason.DELETE, 17, "2.s2-eth1"),
    ]
    bed.wait_until_right(RIGHT)
    network.ports[21] = network.ports.pop(17)
    frame = frames.ethernet(dst=frames.host_mac(21))
    network.send(1, frame)
    network.expect({21: [frame]})
    network.send(1, frames.ethernet(dst=frames.host_mac(17)))
    network.expect_nothing()
    assert sorted(bed.controller.features().ports) == [1, 2, 18, 21, 33, 34]

    switch.ovs.vsctl(
        "set", "interface", "s2-eth1", "ofport_request=2",
        "--", "set", "interface", "s2-eth2", "ofport_request=5",
    )  # fmt: skip
    until(lambda: names_of(bed) == {18: "2.s2-eth1", 21: "2.s2-eth2"}, "swapped ports")
    bed.wait_until_right(RIGHT)
    network.ports[21], network.ports[18] = network.ports[18], network.ports[21]
    network.send(1, frame)
    network.expect({21: [frame]})


def names_of(bed):
    """Return the names of s2's ports as the controller sees them, by number."""
    ports = bed.controller.features().ports
    return {number: port.name for number, port in ports.items() if 17 <= number <= 32}


@pytest.mark.parametrize("priority", [0, 1])
def test_a_port_gets_the_number_that_the_tunnel_had(make_bed, priority):
    """The flow was added when its number was the tunnel port's. It matches the port that gets that
    number.
    """
    bed = make_bed()
    network, switch = bed.network, bed.network.switches[2]
    bed.controller.flow_mod(of.match(), command=of.Command.DELETE)
    bed.controller.flow_mod(of.match(in_port=19), of.output(18), priority=priority)
    switch.ovs.vsctl("set", "interface", "tun2", "ofport_request=9")
    until(lambda: in_ports(switch) == {9}, "service rule", RIGHT)
    bed.controller.take()
    switch.ovs.vsctl("set", "interface", "s2-eth1", "ofport_request=3")
    deleted, added = sorted(port_statuses(bed, 2))[::-1]
    assert deleted == (PortReason.DELETE, 17, "2.s2-eth1")
    assert added == (PortReason.ADD, 19, "2.s2-eth1")
    bed.wait_until_right(RIGHT)
    with Stream(network, 17, [18]) as own:
        own.wait_for_frames()
    assert bed.controller.flow_stats()[0].packet_count > 0


def test_a_port_is_renamed(make_bed):
    """Another device gets the old one's number, in one transaction."""
    bed = make_bed()
    network, switch = bed.network, bed.network.switches[2]
    new = HostPort(switch.namespace, "s2-new")
    try:
        switch.ovs.vsctl(
            "del-port", "s2-eth1",
            "--", "add-port", "s2", "s2-new", "--", "set", "interface", "s2-new",
            "ofport_request=1",
        )  # fmt: skip
        until(lambda: names_of(bed) == {17: "2.s2-new", 18: "2.s2-eth2"}, "new name")
        bed.wait_until_right(RIGHT)
        old, network.ports[17] = network.ports[17], new
        old.close()
        with Stream(network, 1, [17]) as stream:
            stream.wait_for_frames()
        stream.expect_no_loss()
        features = bed.controller.features().ports[17]
        assert features.hw_addr == new_address(switch, "s2-new")
    finally:
        new.close()


def new_address(switch, device):
    return switch.ovs.run("ip", "-brief", "link", "show", "dev", device).split()[2]


def test_a_tunnel_port_is_renamed(make_bed):
    """A tunN with another N is still the tunnel port. With any other name it is an ordinary
    port.
    """
    bed = make_bed()
    network, switch = bed.network, bed.network.switches[2]

    def rename(old, new, number=3):
        switch.ovs.vsctl("del-port", old)  # one transaction would be refused by Open vSwitch
        switch.ovs.vsctl(
            "add-port", "s2", new, "--", "set", "interface", new, "type=gre",
            "options:remote_ip=flow", "options:key=flow", f"options:local_ip={switch.tunnel_ip}",
            f"ofport_request={number}",
        )  # fmt: skip

    rename("tun2", "tun77")
    with Stream(network, 1, [17]) as stream:
        stream.wait_for_frames(timeout=DISCOVERED)
    bed.wait_until_right(RIGHT)
    assert names_of(bed) == {17: "2.s2-eth1", 18: "2.s2-eth2"}
    rename("tun77", "gre2")
    until(lambda: names_of(bed).get(19) == "2.gre2", "an ordinary port")
    assert bed.controller.features().ports[19].config == 0, "floods reach it"
    bed.wait_until_right(RIGHT)
    rename("gre2", "tun2")
    until(lambda: 19 not in names_of(bed), "no port")
    with Stream(network, 1, [17]) as stream:
        stream.wait_for_frames(timeout=DISCOVERED)
    bed.wait_until_right(RIGHT)


def test_a_device_vanishes_and_comes_back(make_bed):
    """The device is removed under Open vSwitch's hands. Its port is down, and later up again, with
    its number and its flows.
    """
    bed = make_bed()
    network, switch = bed.network, bed.network.switches[2]
    network.ports[17].close()
    bed.wait_for_link([17], down=True)
    bed.wait_until_right(RIGHT)
    network.ports[17] = switch.ports[1] = HostPort(switch.namespace, "s2-eth1")
    bed.wait_for_link([17], down=False)
    bed.wait_until_right(RIGHT)
    with Stream(network, 1, [17]) as stream:
        stream.wait_for_frames()
    stream.expect_no_loss()


@pytest.mark.parametrize("number", [17, 20])
def test_ports_come_and_go_while_their_switch_is_away(make_bed, number):
    """The controller is told when the switch is back: one port is deleted, one added."""
    bed = make_bed(relays=[2])
    relay, switch = bed.relays[2], bed.network.switches[2]
    relay.refuse()
    relay.drop()
    bed.wait_for_link([17, 18], down=True)
    switch.remove_port(1)
    switch.add_port(number - 16)
    relay.refuse(False)
    bed.wait_for_link([18, number], down=False)
    bed.wait_until_right(RIGHT)
    ports = bed.controller.features().ports
    assert sorted(ports) == sorted({1, 2, 18, 33, 34, number})
    assert not any(port.state for port in ports.values())
