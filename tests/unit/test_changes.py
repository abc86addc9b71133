"""Changes that a switch refuses: the switches and the big switch's own state after they are undone.

The big switch is real. Its two switches are played: they refuse what the test says.
"""

import struct
import time
from types import SimpleNamespace

import pytest
from lab import openflow10 as of
from lab.openflow10 import Command, Type

from edge import poxfixes
from edge.south.session import State

from .fakes import phy_port
from .played import BARRIER, NXT_FLOW_MOD, Bed, Switch

MATCH = of.match(dl_type=0x88B5)
PORT_1 = "00:00:00:00:00:01"


@pytest.fixture
def bed(turns):
    return Bed(turns)


def refuse(switch, *numbers, kind=Type.VENDOR):
    """Have a switch refuse some of the messages of this type.

    numbers: which messages of the type, counted from 0.
    """
    seen = []

    def refuses(raw):
        if raw[1] != kind or (kind == Type.VENDOR and raw[12:16] != NXT_FLOW_MOD):
            return False
        seen.append(raw)
        return len(seen) - 1 in numbers

    switch.refuses = refuses


def settle(bed):
    """Let everything be done, and refused changes be undone; return the types of the messages that
    the controller got.
    """
    bed.send(BARRIER)
    told = []
    while Type.BARRIER_REPLY not in told:
        bed.settle()
        told += bed.told()
    bed.settle()
    return told


def modify(port):
    return of.flow_mod(MATCH, of.output(port), Command.MODIFY_STRICT)


def outputs(bed):
    """Return the ports that the one flow outputs to: in the big switch, and on each switch."""
    (entry,) = bed.big.flows.table
    north = of.unpack_actions(entry.actions.wire)
    assert [set(switch.flows) for switch in bed.switches] == [
        {bed.big.flows.cookies.cookie(entry)}
    ] * 2
    return [
        [int.from_bytes(body[:2], "big") for _, body in actions]
        for actions in (north, *(of.unpack_actions(*s.flows.values()) for s in bed.switches))
    ]


def test_a_modify_that_one_switch_refuses_is_undone_on_all(bed):
    bed.send(of.flow_mod(MATCH, of.output(1)))
    settle(bed)
    refuse(bed.switches[1], 0)
    bed.send(modify(2))
    assert settle(bed) == [Type.ERROR, Type.BARRIER_REPLY]
    assert outputs(bed) == [[1], [1], []], "port 1 of switch 1 cannot be reached from switch 2"


def test_undoing_a_refused_modify_leaves_a_later_one_alone(bed):
    """The flow outputs to 1. A MODIFY to 2 is refused by one switch. A MODIFY to 17 is accepted by
    all.
    """
    bed.send(of.flow_mod(MATCH, of.output(1)))
    settle(bed)
    refuse(bed.switches[0], 0)
    bed.send(modify(2), modify(17))
    assert settle(bed) == [Type.ERROR, Type.BARRIER_REPLY]
    assert outputs(bed) == [[17], [], [1]]


def test_of_two_refused_modifies_neither_is_what_is_gone_back_to(bed):
    bed.send(of.flow_mod(MATCH, of.output(1)))
    settle(bed)
    refuse(bed.switches[0], 0, 1)
    bed.send(modify(2), modify(17))
    assert settle(bed) == [Type.ERROR, Type.ERROR, Type.BARRIER_REPLY]
    assert outputs(bed) == [[1], [1], []]


def test_a_modify_that_is_refused_after_one_that_was_accepted_goes_back_to_that(bed):
    bed.send(of.flow_mod(MATCH, of.output(1)))
    settle(bed)
    refuse(bed.switches[0], 1)
    bed.send(modify(2), modify(17))
    assert settle(bed) == [Type.ERROR, Type.BARRIER_REPLY]
    assert outputs(bed) == [[2], [2], []]


def test_what_a_refused_add_had_replaced_comes_back_as_it_was_before_a_refused_modify(bed):
    """An ADD replaces the flow behind a MODIFY of it. Both are refused."""
    bed.send(of.flow_mod(MATCH, of.output(1)))
    settle(bed)
    modifies, adds = [], []

    def refuses(raw):
        if raw[1] == Type.FLOW_MOD:
            adds.append(raw)
            return len(adds) == 1
        if raw[1] == Type.VENDOR and raw[12:16] == NXT_FLOW_MOD:
            modifies.append(raw)
            return len(modifies) == 1
        return False

    bed.switches[0].refuses = refuses
    bed.send(modify(2), of.flow_mod(MATCH, of.output(17)))
    assert settle(bed) == [Type.ERROR, Type.ERROR, Type.BARRIER_REPLY]
    (entry,) = bed.big.flows.table
    assert entry.actions.wire == of.output(1)


def test_what_the_first_of_two_refused_adds_had_replaced_comes_back(bed):
    bed.send(of.flow_mod(MATCH, of.output(1)))
    settle(bed)
    refuse(bed.switches[0], 0, 1, kind=Type.FLOW_MOD)
    bed.send(of.flow_mod(MATCH, of.output(2)), of.flow_mod(MATCH, of.output(17)))
    assert settle(bed) == [Type.ERROR, Type.ERROR, Type.BARRIER_REPLY]
    assert outputs(bed) == [[1], [1], []]


def test_refusals_of_two_switches_that_come_in_another_order_are_all_undone(bed):
    """M1 modifies A and B, M2 modifies A, M3 modifies B; M2's refusal comes before M1's."""
    a, b = of.match(dl_type=0x88B5), of.match(dl_type=0x88B6)
    bed.send(of.flow_mod(a, of.output(1)), of.flow_mod(b, of.output(1)))
    settle(bed)
    one, other = bed.switches
    refuse(one, 0, 1)
    refuse(other, 2)
    bed.send(
        of.flow_mod(of.match(), of.output(2), Command.MODIFY),
        of.flow_mod(a, of.output(17), Command.MODIFY_STRICT),
        of.flow_mod(b, of.output(18), Command.MODIFY_STRICT),
    )
    other.work()
    one.work()
    assert settle(bed) == [Type.ERROR, Type.ERROR, Type.BARRIER_REPLY]
    does = {entry.match.wire[22:24]: entry.actions.wire for entry in bed.big.flows.table}
    assert does == {b"\x88\xb5": of.output(1), b"\x88\xb6": of.output(18)}
    for entry in bed.big.flows.table:
        cookie = bed.big.flows.cookies.cookie(entry)
        for index, switch in enumerate(bed.switches, 1):
            member = bed.big.topology.members[index]
            assert switch.flows[cookie] == member.translations.translated(entry.actions)


def tunnels_are_known(bed):
    for index, member in bed.big.topology.members.items():
        bed.big._tunnel_found(member, 0xAC100000 + index)
    settle(bed)


def test_a_modify_is_undone_to_a_queue_of_another_switch_that_was_away_before(bed):
    """No switch but the queue's own had needed a tunnel key for it."""
    tunnels_are_known(bed)
    bed.big.disconnected(bed.switches[0])
    bed.end_turns()
    second = bed.switches.pop()
    bed.switches = [second]
    bed.send(of.flow_mod(MATCH, of.enqueue(17, 5)))
    settle(bed)
    refuse(second, 0)
    bed.send(modify(18))
    first = bed.connect(1)
    bed.switches = [first, second]
    told = [kind for kind in settle(bed) if kind != Type.PORT_STATUS]
    assert told == [Type.ERROR, Type.BARRIER_REPLY]
    (entry,) = bed.big.flows.table
    assert entry.actions.wire == of.enqueue(17, 5)
    (on_first,) = first.flows.values()
    assert len(of.unpack_actions(on_first)) == 3, "tunnel key, tunnel IP, and the tunnel"
    assert list(second.flows.values()) == [of.enqueue(1, 5)]


def nothing_is_left(bed):
    """No switch has a flow that the big switch does not know."""
    known = {bed.big.flows.cookies.cookie(entry) for entry in bed.big.flows.table}
    return all(set(switch.flows) <= known for switch in bed.switches)


def test_what_a_refused_add_was_to_replace_goes_if_the_flow_is_deleted_meanwhile(bed):
    bed.send(of.flow_mod(MATCH, of.output(1)))
    settle(bed)
    refuse(bed.switches[0], 0, kind=Type.FLOW_MOD)
    bed.send(of.flow_mod(MATCH, of.output(2)), of.flow_mod(MATCH, command=Command.DELETE_STRICT))
    settle(bed)
    assert len(bed.big.flows.table) == 0 and nothing_is_left(bed)


@pytest.mark.parametrize("first", [0, 1])
def test_two_adds_in_one_place_that_different_switches_refuse_leave_nothing(bed, first):
    one, other = bed.switches
    refuse(one, 0, kind=Type.FLOW_MOD)
    refuse(other, 1, kind=Type.FLOW_MOD)
    bed.send(of.flow_mod(MATCH, of.output(1)), of.flow_mod(MATCH, of.output(2)))
    bed.switches[first].work()
    assert settle(bed) == [Type.ERROR, Type.ERROR, Type.BARRIER_REPLY]
    assert len(bed.big.flows.table) == 0 and nothing_is_left(bed)


def test_of_three_adds_in_one_place_the_first_is_back_on_all_if_two_are_refused(bed):
    """One switch refuses the last, and only then the other switch the one before it."""
    one, other = bed.switches
    refuse(one, 2, kind=Type.FLOW_MOD)
    refuse(other, 1, kind=Type.FLOW_MOD)
    bed.send(*(of.flow_mod(MATCH, of.output(port)) for port in (1, 2, 17)))
    bed.big.refusals.confirm()
    one.work()
    other.work()
    assert settle(bed) == [Type.ERROR, Type.ERROR, Type.BARRIER_REPLY]
    assert outputs(bed) == [[1], [1], []]


# ---- PORT_MOD ----


def port_mod(config, mask):
    return of.port_mod(1, PORT_1, config, mask)


def config(bed):
    """Return the bits of port 1 as the controllers see them."""
    return bed.big.portlist.ports[1].config


def sent_again(bed):
    """Return the PORT_MODs (bits, mask) that port 1 gets when its switch comes back."""
    told = []
    switch = Switch(1)
    switch.refuses = lambda raw: told.append(raw) if raw[1] == Type.PORT_MOD else False
    bed.big.disconnected(bed.switches[0])
    bed.switches[0] = bed.connect(1, switch)
    bed.settle()
    mods = [struct.unpack_from("!H6xLL", raw, 8) for raw in told]
    return [(bits, mask) for number, bits, mask in mods if number == 1]


def test_a_refused_port_mod_is_forgotten(bed):
    refuse(bed.switches[0], 0, kind=Type.PORT_MOD)
    bed.send(port_mod(0x10, 0x10))
    assert Type.ERROR in settle(bed)
    assert config(bed) == 0
    assert sent_again(bed) == []


def test_a_refused_port_mod_takes_back_no_bits_but_its_own(bed):
    """NO_FLOOD is set. Then one PORT_MOD, which clears NO_FLOOD and sets NO_RECV, is refused. Then
    NO_RECV is set alone.
    """
    bed.send(port_mod(0x10, 0x10))
    settle(bed)
    refuse(bed.switches[0], 0, kind=Type.PORT_MOD)
    bed.send(port_mod(0x04, 0x14), port_mod(0x04, 0x04))
    assert Type.ERROR in settle(bed)
    assert config(bed) == 0x14
    assert sent_again(bed) == [(0x14, 0x14)]


def test_of_two_refused_port_mods_neither_stays(bed):
    refuse(bed.switches[0], 0, 1, kind=Type.PORT_MOD)
    bed.send(port_mod(0x10, 0x10), port_mod(0x20, 0x30))
    assert settle(bed).count(Type.ERROR) == 2
    assert config(bed) == 0
    assert sent_again(bed) == []


def port_status(reason, port):
    return of.message(Type.PORT_STATUS, bytes([reason]) + bytes(7) + port.pack())


def test_a_refused_port_mod_takes_nothing_back_on_a_port_that_has_got_the_number_since(bed):
    bed.send(port_mod(0x10, 0x10))
    settle(bed)
    one = bed.switches[0]
    refuse(one, 0, kind=Type.PORT_MOD)
    bed.send(port_mod(0, 0x10))
    # Meanwhile another port is there.
    other = phy_port(1, "s1-eth9")
    for reason, port in ((of.PortReason.DELETE, one.ports[0]), (of.PortReason.ADD, other)):
        one.intercept(Type.PORT_STATUS, port_status(reason, port))
    assert Type.ERROR in settle(bed)
    assert config(bed) == 0
    one.ports[0] = other
    assert sent_again(bed) == []


def test_a_port_that_has_got_the_number_while_its_switch_was_away_does_not_get_the_bits(bed):
    bed.send(port_mod(0x10, 0x10))
    settle(bed)
    bed.big.disconnected(bed.switches[0])
    bed.switches[0] = Switch(1)
    bed.switches[0].ports[0] = phy_port(1, "s1-eth9")
    bed.connect(1, bed.switches[0])
    bed.settle()
    assert config(bed) == 0
    assert sent_again(bed) == []


def test_a_port_mod_of_a_port_that_the_switch_has_told_to_be_gone_is_refused(bed):
    """The switch has come back, and has not told its flows yet: controllers still see the port."""
    bed.big.disconnected(bed.switches[0])
    one = bed.switches[0] = Switch(1)
    del one.ports[0]
    bed.big.connected(1, one)
    one.work(only=Type.FEATURES_REQUEST)
    bed.told()
    bed.send(port_mod(0x10, 0x10))
    assert bed.told() == [Type.ERROR]


# ---- switches that are lost or refused ----


def packet_in(frame, cookie=0, table=2, in_port=1):
    """An NXT_PACKET_IN of a table-miss."""
    match = struct.pack("!LH", 0x00000002, in_port)
    body = struct.pack("!LHBBQH6x", 0xFFFFFFFF, len(frame), 0, table, cookie, len(match))
    body += match + bytes(-len(match) % 8) + bytes(2) + frame
    return of.message(Type.VENDOR, struct.pack("!LL", of.NX_VENDOR, 17) + body)


def test_a_packet_of_a_switch_that_has_not_told_its_flows_yet_goes_the_way_of_its_flow(bed):
    """The copy has expired there while the switch was away, and the flow is in use elsewhere."""
    bed.send(of.flow_mod(of.match(), of.output(2), idle_timeout=1))
    settle(bed)
    (entry,) = bed.big.flows.table
    entry.created -= 5
    bed.big.disconnected(bed.switches[0])
    bed.end_turns()
    one = bed.switches[0] = Switch(1)
    bed.big.connected(1, one)
    assert bed.big.topology.members[1].state is State.CONNECTING
    one.waiting.clear()
    one.intercept(Type.VENDOR, packet_in(bytes(60)))
    (sent,) = one.waiting
    assert sent[1] == Type.PACKET_OUT and entry.packets == 1


def test_a_switch_that_falls_silent_while_another_connection_of_it_waits_goes_on_with_that(
    bed, monkeypatch
):
    monkeypatch.setattr(poxfixes, "after", lambda *_: None)
    closed = []
    member, old = bed.big.topology.members[1], bed.switches[0]
    old.disconnect = closed.append
    new = Switch(1)
    bed.big.connected(1, new)  # the old one is asked whether it still answers
    member.watch(time.monotonic() + 100, 0.0, 5.0)
    assert member.session.connection is new and closed == ["taken over by a new connection"]
    bed.switches[0] = new
    bed.settle()
    bed.big.disconnected(old)
    assert member.state is State.UP and member.ready
    assert bed.big.portlist.ports[1].state == 0


def test_what_a_switch_lacked_is_forgotten_when_it_is_lost_while_it_is_brought_up_to_date(bed):
    bed.big.disconnected(bed.switches[0])
    for number in range(2500):
        address = f"02:00:00:00:{number >> 8:02x}:{number & 0xFF:02x}"
        bed.send(of.flow_mod(of.match(in_port=1, dl_dst=address), of.output(2)))
    bed.settle()
    bed.switches[0] = bed.connect(1)
    assert bed.big.flows._missing, "more flows than are sent in one turn"
    bed.big.disconnected(bed.switches[0])
    bed.send(of.flow_mod(command=Command.DELETE))
    settle(bed)
    assert len(bed.big.flows.table) == 0
    assert not bed.big.flows._missing


def addressed(dpid, address):
    """Return a switch that connects from this address."""
    switch = Switch(dpid)
    switch.sock = SimpleNamespace(getpeername=lambda: (address, 50000))
    switch.ports = [phy_port(3, f"tun{dpid}")]
    return switch


@pytest.fixture
def auto(turns, monkeypatch):
    """A big switch with --ips=auto. Its switches have connected from 172.16.0.1 and .2."""
    monkeypatch.setattr(poxfixes, "after", lambda *_: None)
    monkeypatch.setattr(Bed, "connect", lambda bed, dpid, switch=None: connect(bed, dpid, switch))
    return Bed(turns, learn_ips=True)


def connect(bed, dpid, switch=None):
    switch = switch or addressed(dpid, f"172.16.0.{dpid}")
    bed.big.connected(dpid, switch)
    switch.work()
    return switch


def candidates(bed):
    return [ip & 0xFF for ip in bed.big.discovery.ips]


def test_the_address_of_a_switch_that_is_refused_is_no_candidate(auto):
    assert candidates(auto) == [1, 2]
    second = addressed(2, "172.16.0.9")
    second.disconnect = lambda reason: None
    auto.big.connected(2, second)
    auto.settle()  # the first switch still answers, so there are two switches
    assert candidates(auto) == [1, 2]


def test_the_address_that_a_switch_has_left_is_no_candidate(auto):
    auto.big.disconnected(auto.switches[1])
    auto.switches[1] = connect(auto, 2, addressed(2, "172.16.0.9"))
    auto.settle()
    assert candidates(auto) == [1, 9]


def test_a_tunnel_ip_stays_one_though_its_switch_connects_from_another_address(auto):
    member = auto.big.topology.members[2]
    member.set_tunnel_ip(0xAC100002)
    auto.big.disconnected(auto.switches[1])
    auto.switches[1] = connect(auto, 2, addressed(2, "172.16.0.9"))
    auto.settle()
    assert candidates(auto) == [1, 2, 9]
