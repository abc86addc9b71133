"""Discovery of tunnel IPs: which belongs to which switch. The tunnels are simulated."""

import math
import struct
from collections import Counter
from ipaddress import IPv4Address
from types import SimpleNamespace

import pytest
from lab import openflow10 as of

from edge.openflow import messages
from edge.south import discovery
from edge.south.discovery import (
    ANSWER,
    LONGEST_RETRY,
    SILENT,
    TRIES,
    Discovery,
    checks_at_once,
)

TICK = 0.1


def ip(number):
    return 0xAC100000 + number


class Switch:
    """A Member as Discovery sees it. local_ip: the real address of its tunnel port."""

    def __init__(self, network, index, tunnel_port=3):
        self.network = network
        self.index = index
        self.local_ip = ip(index)
        self.ports = SimpleNamespace(tunnel=tunnel_port)
        self.session = self
        self.tunnel_ip = None
        self.sent = 0
        self.owed = None  # answers that the switch is too busy to give; None when it is not busy

    def __str__(self):
        return f"switch {self.index}"

    def send(self, data, changes=True):
        """Take a packet-out into the tunnel. The frame will come out at its destination."""
        assert not changes, "nothing has to wait for it"
        body = of.unpack(data).body
        _, in_port, length = struct.unpack_from("!IHH", body)
        assert in_port == of.Port.NONE
        actions = of.unpack_actions(body[8 : 8 + length])
        loads = dict(struct.unpack_from("!IQ", action, 8) for _, action in actions[:2])
        key, destination = loads[0x00012008], loads[0x00014004]
        assert key == 0
        assert actions[2] == (of.ActionType.OUTPUT, struct.pack("!HH", self.ports.tunnel, 0))
        self.sent += 1
        self.network.under_way.append((self.index, destination, body[8 + length :]))

    def request(self, build, answer, lost):
        """Answer an echo request, now or when the switch is not busy any more."""
        message = build(self.sent)
        assert of.unpack(message).type == of.Type.ECHO_REQUEST
        if self.owed is None:
            answer(of.Type.ECHO_REPLY, message)
        else:
            self.owed.append((answer, lost))

    def answer_all(self):
        """It is not busy any more."""
        owed, self.owed = self.owed, None
        for answer, _ in owed:
            answer(of.Type.ECHO_REPLY, b"")


class Network:
    """Switches whose tunnels reach each other, except those that are cut off."""

    def __init__(self, switches, ips=None):
        self.switches = [Switch(self, index) for index in range(1, switches + 1)]
        self.found = []
        self.cut_off = set()
        self.under_way = []  # frames, which arrive after the tick that sends them
        self.sender = None  # the sender of the frame that is being delivered
        self.now = 1000.0
        self.awake_since = -math.inf
        given = [ip(n) for n in range(1, switches + 1)] if ips is None else ips
        self.discovery = Discovery(given, lambda: self.switches, self._found)
        for switch in self.switches:
            self.discovery.changed(switch)

    def _found(self, switch, address):
        for other in self.switches:
            if other.tunnel_ip == address:
                other.tunnel_ip = None
        switch.tunnel_ip = address
        self.found.append((switch.index, address))

    def deliver(self, destination, frame):
        for switch in self.switches:
            if switch.local_ip == destination and switch.index not in self.cut_off:
                packet = messages.PacketIn(len(frame), 1, 1, 0, 3, None, destination, frame)
                self.discovery.received(switch, packet)

    def run(self, seconds):
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            self.discovery.tick(self.now, self.awake_since)
            frames, self.under_way = self.under_way, []
            for self.sender, destination, frame in frames:
                self.deliver(destination, frame)

    def probes(self, seconds):
        """Return how many probes are sent in this many seconds."""
        before = sum(switch.sent for switch in self.switches)
        self.run(seconds)
        return sum(switch.sent for switch in self.switches) - before

    def right(self):
        return all(switch.tunnel_ip == switch.local_ip for switch in self.switches)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("count", [2, 3, 10, 50])
def test_all_are_found_within_a_second(count, caplog):
    network = Network(count)
    network.run(1)
    assert network.right() and network.discovery.complete
    assert sorted(network.found) == [(n, ip(n)) for n in range(1, count + 1)]
    assert warnings(caplog) == []


@pytest.mark.parametrize("count", [2, 10, 50])
def test_every_tunnel_is_tried_until_a_probe_has_come_through(count):
    network = Network(count)
    network.run(2)
    for number in range(1, count + 1):
        assert network.discovery.unreached(ip(number)) == []
    assert all(switch.sent >= count - 1 for switch in network.switches)


@pytest.mark.parametrize("count", [2, 10, 50])
def test_then_there_is_one_probe_for_each_ip_in_ten_seconds(count):
    """There is not one probe for each pair of switches."""
    network = Network(count)
    network.run(60)
    assert network.probes(100) <= 11 * count


def test_one_that_does_not_answer_costs_little(caplog):
    network = Network(10, ips=[ip(n) for n in range(1, 12)])
    network.run(60)
    assert network.right()
    assert not network.discovery.complete
    assert network.probes(100) <= 11 * 12
    (warning,) = warnings(caplog)
    assert str(IPv4Address(ip(11))) in warning


def test_an_ip_that_nobody_answers_for_is_named_once_after_some_seconds(caplog):
    network = Network(2, ips=[ip(1), ip(2), ip(99)])
    network.run(4.5)
    assert warnings(caplog) == []
    network.run(600)
    (warning,) = warnings(caplog)
    assert str(IPv4Address(ip(99))) in warning


def test_many_that_nobody_answers_for_are_one_line(caplog):
    network = Network(3, ips=[ip(n) for n in range(1, 200)])
    network.run(20)
    (warning,) = warnings(caplog)
    assert "tunnel IP 172.16.0.4, 172.16.0.5, " in warning and " and 176 more: " in warning


def test_it_is_named_again_when_it_had_an_owner_meanwhile(caplog):
    network = Network(3)
    network.run(1)
    lost = network.switches.pop()
    network.discovery.lost(lost)
    network.run(60)
    (warning,) = warnings(caplog)
    assert str(IPv4Address(ip(3))) in warning
    lost.tunnel_ip = None
    network.switches.append(lost)
    network.discovery.changed(lost)
    network.run(1)
    assert network.right()
    network.switches.remove(lost)
    network.discovery.lost(lost)
    network.run(60)
    assert len(warnings(caplog)) == 2


def test_a_switch_that_is_reached_late_is_found_when_it_is_reached():
    network = Network(2)
    network.cut_off = {2}
    network.run(30)
    assert network.switches[0].tunnel_ip == ip(1)
    assert network.switches[1].tunnel_ip is None
    network.cut_off = set()
    network.run(10.1)
    assert network.right()


def test_a_new_switch_is_found_at_once_though_its_ip_was_long_silent():
    network = Network(2, ips=[ip(1), ip(2), ip(3)])
    network.run(120)
    new = Switch(network, 3)
    network.switches.append(new)
    network.discovery.changed(new)
    network.run(0.5)
    assert network.right()


def test_a_switch_that_has_another_ip_now():
    network = Network(3, ips=[ip(n) for n in range(1, 5)])
    network.run(5)
    moved = network.switches[2]
    moved.local_ip, moved.tunnel_ip = ip(4), None
    network.discovery.changed(moved)
    network.run(1)
    assert network.right()


@pytest.mark.parametrize("count", [2, 3, 10])
def test_two_switches_that_swap_their_ips_are_told_apart(count):
    """Nobody tells the aggregator. The regular probes find it out."""
    network = Network(count)
    network.run(5)
    one, other = network.switches[:2]
    one.local_ip, other.local_ip = other.local_ip, one.local_ip
    network.run(15)
    assert network.right()


@pytest.mark.parametrize("count", [2, 3, 10])
def test_a_switch_that_takes_the_ip_of_one_that_is_gone(count):
    network = Network(count + 1)
    network.run(5)
    lost = network.switches.pop()
    network.discovery.lost(lost)
    network.switches[0].local_ip = lost.local_ip
    network.run(12)
    assert network.right()


def unreached(network):
    """Return for each switch with a tunnel IP the switches that do not reach it."""
    return {
        switch.index: sorted(m.index for m in network.discovery.unreached(switch.tunnel_ip))
        for switch in network.switches
    }


@pytest.mark.parametrize("count", [2, 3, 10, 50])
def test_what_is_not_reached_any_more_is_told_and_what_is_again(count):
    """Switch 2 gets no frames. The other switches still reach each other."""
    network = Network(count)
    network.run(5)
    everyone = set(range(1, count + 1))
    network.cut_off = {2}
    network.run(40)
    found = unreached(network)
    assert found[2] == sorted(everyone - {2})
    assert not any(found[index] for index in everyone - {2})
    assert network.right(), "nobody else has its IP"
    network.cut_off = set()
    network.run(11)
    assert not any(unreached(network).values())


@pytest.mark.parametrize("count", [3, 10])
def test_one_tunnel_that_is_broken_is_told(count):
    """Only the tunnel from switch 1 to switch 2 is broken."""
    network = Network(count)
    network.run(5)
    deliver = network.deliver
    network.deliver = lambda destination, frame: (
        network.sender == 1 and destination == ip(2) or deliver(destination, frame)
    )
    network.run(10 * count + 10)
    assert unreached(network) == {n: [1] if n == 2 else [] for n in range(1, count + 1)}
    network.deliver = deliver
    network.run(11)
    assert not any(unreached(network).values())


def test_single_probes_that_are_lost_change_nothing():
    """A tunnel may lose probes, for example while its neighbour's address is resolved."""
    network = Network(3)
    network.run(5)
    deliver, probes = network.deliver, Counter()

    def lose_two_of_three(destination, frame):
        probes[network.sender, destination] += 1
        if probes[network.sender, destination] % 3 == 0:
            deliver(destination, frame)

    network.deliver = lose_two_of_three
    for _ in range(1000):
        network.run(TICK)
        assert not any(unreached(network).values())
    assert len(probes) == 6 and min(probes.values()) > 6


@pytest.mark.parametrize("busy", [1, 2], ids=["the sender", "the receiver"])
def test_a_busy_switch_is_no_broken_tunnel(busy, caplog):
    """No probe comes through, because a switch has much else to do. That is not judged until it
    has answered.
    """
    network = Network(2)
    network.run(5)
    deliver = network.deliver
    network.deliver = lambda destination, frame: (
        (network.sender == 1 and destination == ip(2)) or deliver(destination, frame)
    )
    switch = network.switches[busy - 1]
    switch.owed = []
    network.run(30)
    assert network.discovery.unreached(ip(2)) == [] and warnings(caplog) == []
    assert len(switch.owed) == 1, "it is asked once"
    network.deliver = deliver
    network.run(ANSWER)  # the probes come first,
    switch.answer_all()  # and then the answer
    network.run(3 * LONGEST_RETRY)
    assert network.discovery.unreached(ip(2)) == [] and warnings(caplog) == []


def test_a_tunnel_is_broken_if_its_busy_switch_answers_and_no_probe_has_come(caplog):
    network = Network(2)
    network.run(5)
    network.cut_off = {2}
    sender, receiver = network.switches
    receiver.owed = []
    network.run(15)
    assert network.discovery.unreached(ip(2)) == []
    for _, lost in receiver.owed:
        lost()  # its connection has ended; it has another one now
    receiver.owed = None
    network.run(3 * ANSWER)
    assert network.discovery.unreached(ip(2)) == [sender]
    assert len(warnings(caplog)) == 1


def test_each_tunnel_is_used_before_a_switch_forgets_its_neighbour():
    """A userspace switch forgets a neighbour to which it has sent nothing for 900 s."""
    network = Network(100)
    network.run(20)
    used = set()
    deliver = network.deliver

    def note(destination, frame):
        used.add((network.sender, destination))
        deliver(destination, frame)

    network.deliver = note
    assert network.probes(510) == pytest.approx(51 * 2 * 100, rel=0.01)
    assert len(used) == 100 * 99, "each within 510 s"


def test_many_switches_are_kept_with_a_bounded_number_of_probes_for_each():
    for tunnels in range(1, 341):
        rounds = math.ceil(tunnels / checks_at_once(tunnels))
        assert rounds * (LONGEST_RETRY + TICK) < 900
    assert [checks_at_once(tunnels) for tunnels in (1, 85, 86, 341, 5000)] == [1, 1, 2, 4, 4]


def test_the_checks_of_many_tunnels_are_not_made_in_one_turn():
    network = Network(100)
    network.run(30)
    assert max(network.probes(TICK) for _ in range(300)) <= 20
    assert network.probes(10) == 200


@pytest.mark.parametrize("count", [2, 10, 50])
def test_a_broken_underlay_costs_few_probes_for_each_switch(count):
    """In ten seconds each IP gets two probes, and one from its owner. There is not one probe for
    each pair.
    """
    network = Network(count)
    network.run(5)
    network.cut_off = set(range(1, count + 1))
    network.run(20 * count)
    assert network.probes(100) <= 10 * 3 * count + 3 * count
    network.cut_off = set()
    network.run(11)
    assert network.right() and not any(unreached(network).values())


def pause(network):
    """The aggregator does not run for a while."""
    network.now += 100
    network.awake_since = network.now


def test_a_probe_that_was_sent_before_a_pause_may_come_through_after_it():
    network = Network(2)
    network.run(15)
    network.cut_off.add(2)
    unconfirmed = network.discovery._targets[ip(2)].unconfirmed
    while TRIES not in unconfirmed.values():
        network.run(TICK)
        unconfirmed = network.discovery._targets[ip(2)].unconfirmed
    pause(network)
    network.run(ANSWER - TICK)
    assert network.discovery.unreached(ip(2)) == []
    network.run(2 * TICK)
    assert network.discovery.unreached(ip(2)) == [network.switches[0]]


@pytest.mark.parametrize("connected", [1, 2])
def test_nobody_is_warned_of_what_did_not_happen_in_a_pause(caplog, connected):
    """An IP without an owner, and a switch that is alone, have their time from then on."""
    network = Network(connected, ips=[ip(n) for n in range(1, connected + 2)])
    network.run(SILENT - 1)
    pause(network)
    network.run(SILENT - 0.5)
    assert warnings(caplog) == []
    network.run(LONGEST_RETRY)
    assert len(warnings(caplog)) == 1


def test_a_switch_without_tunnel_port_sends_no_probes_and_is_none_to_wait_for(caplog):
    network = Network(3, ips=[ip(1), ip(2)])
    network.switches[2].ports.tunnel = None
    network.run(60)
    assert network.switches[2].sent == 0
    assert network.discovery.complete
    assert warnings(caplog) == []


@pytest.mark.parametrize("connected, said", [(0, "No switch"), (1, "Only one switch")])
def test_with_too_few_switches_for_an_answer_that_is_said_once(caplog, connected, said):
    network = Network(connected, ips=[ip(1), ip(2)])
    network.run(600)
    (warning,) = warnings(caplog)
    assert warning.startswith(said) and "172.16.0.2" in warning


def test_one_switch_for_one_ip_is_all_there_is(caplog):
    network = Network(1)
    network.run(600)
    assert warnings(caplog) == []


def test_a_foreign_probe_is_no_answer():
    """The probe comes from another aggregator, or from another run."""
    network, foreign = Network(2), Network(2)
    for switch in foreign.switches:
        switch.network = network
    foreign.discovery.tick(1.0, -math.inf)
    assert sum(switch.sent for switch in foreign.switches) > 0
    assert network.found == []


def test_foreign_frames_cost_a_line_a_minute_for_each_address(monkeypatch, caplog):
    clock = [1000.0]
    monkeypatch.setattr(discovery.time, "monotonic", lambda: clock[0])
    network = Network(2)
    switch = network.switches[0]

    def receive(source):
        packet = messages.PacketIn(60, 1, 1, 0, 3, None, switch.local_ip, bytes(60), source)
        assert network.discovery.received(switch, packet) is False

    for _ in range(120):
        for source in (ip(9), ip(10), None):
            receive(source)
        clock[0] += 0.5
    receive(ip(9))
    said = warnings(caplog)
    assert len(said) == 4 and "172.16.0.9" in said[0] and "172.16.0.10" in said[1]
    assert "172.16.0.9" in said[3] and "119 more" in said[3]
    for number in range(5000):
        receive(number)
    assert len(warnings(caplog)) <= 4 + 1000, "an attacker may forge addresses"


def test_a_probe_for_an_ip_that_was_not_given_is_no_answer():
    network = Network(2)
    network.switches[0].send = lambda data, changes: network.discovery.received(
        network.switches[1],
        messages.PacketIn(0, 1, 1, 0, 3, None, ip(50), of.unpack(data).body),
    )
    network.run(1)
    assert all(address != ip(50) for _, address in network.found)


def test_a_probe_is_a_whole_lldp_frame_that_no_bridge_forwards():
    frames = []
    network = Network(2)
    network.deliver = lambda destination, frame: frames.append(frame)
    network.run(0.1)
    for frame in frames:
        assert len(frame) >= 60
        assert frame[:6] == bytes.fromhex("0180c200000e") and frame[12:14] == b"\x88\xcc"
        kinds, rest = [], frame[14:]
        while not kinds or kinds[-1]:
            header = int.from_bytes(rest[:2], "big")
            kinds.append(header >> 9)
            rest = rest[2 + (header & 0x1FF) :]
        assert kinds[:3] == [1, 2, 3] and kinds[-1] == 0
    assert frames
