"""Packet-outs that bypass a barrier, and packet-outs that must not.

The big switch is real. Its two switches are played: they do their work when the test says so.
"""

from collections import deque

import pytest
from lab import openflow10 as of
from lab.openflow10 import Type

from edge import poxfixes
from edge.north import connections
from edge.south.session import State
from edge.switch import topology

from .played import BARRIER, THROUGH_TABLE, Bed

FRAG_DROP = 1


@pytest.fixture
def bed(monkeypatch):
    turns = deque()
    for module in (poxfixes, connections, topology):
        monkeypatch.setattr(module, "end_of_turn", turns.append)
    return Bed(turns)


FLOW_ON_ONE = of.flow_mod(of.match(in_port=1), of.output(2))
FLOW_ON_ALL = of.flow_mod(of.match(dl_type=0x88B5), of.output(2))


def test_the_only_switch_with_something_to_do_gets_the_packet_behind_it(bed):
    one, other = bed.switches
    bed.send(FLOW_ON_ONE, BARRIER, THROUGH_TABLE)
    one.work()
    assert one.did == [Type.FLOW_MOD, Type.PACKET_OUT]
    assert bed.told() == [], "the other switch has not answered the barrier"
    other.work()
    assert bed.told() == [Type.BARRIER_REPLY]


def test_a_switch_that_others_need_not_wait_for_gets_the_packet_at_once(bed):
    bed.send(BARRIER, THROUGH_TABLE)
    bed.switches[0].work()
    assert bed.switches[0].did == [Type.PACKET_OUT]


@pytest.mark.parametrize(
    "before",
    [
        FLOW_ON_ALL,
        of.flow_mod(of.match(in_port=17), of.output(18)),
        of.port_mod(2, "00:00:00:00:00:02", 0x10, 0x10),
        of.set_config(FRAG_DROP),
    ],
    ids=["flow on all", "flow on the other", "port-mod", "fragments"],
)
def test_a_packet_waits_for_what_it_may_meet_before_it_is_done(bed, before):
    bed.send(before, BARRIER, THROUGH_TABLE)
    one, other = bed.switches
    one.work()
    assert Type.PACKET_OUT not in one.did
    while not bed.told():
        other.work()
        one.work()
    one.work()
    assert one.did[-1] == Type.PACKET_OUT


def test_a_packet_waits_for_what_is_undone_since_a_switch_has_refused_it(bed):
    one, other = bed.switches
    other.refuses = lambda raw: raw[1] == Type.FLOW_MOD
    bed.send(FLOW_ON_ALL)
    bed.big.refusals.confirm()  # a timer calls it ten times a second
    one.work()
    other.work()
    assert not bed.big.unsettled() and one.did == [Type.FLOW_MOD]
    bed.send(BARRIER, THROUGH_TABLE)
    for _ in range(4):
        one.work()
        other.work()
    assert one.did == [Type.FLOW_MOD, Type.VENDOR, Type.PACKET_OUT], "deleted, and then"
    assert bed.told() == [Type.ERROR, Type.BARRIER_REPLY]


def test_a_packet_waits_while_a_switch_is_given_what_it_lacks(bed):
    """The switch lacks more flows than are sent in one turn."""
    bed.big.disconnected(bed.switches[0])
    count = 2500
    for number in range(count):
        address = f"02:00:00:00:{number >> 8:02x}:{number & 0xFF:02x}"
        bed.send(of.flow_mod(of.match(in_port=1, dl_dst=address), of.output(2)))
    bed.settle()
    bed.told()
    one = bed.switches[0] = bed.connect(1)
    bed.send(THROUGH_TABLE, BARRIER, THROUGH_TABLE)
    assert bed.big.topology.members[1].state is State.SYNCING
    one.work()
    assert one.did.count(Type.PACKET_OUT) == 1, "not the one behind the barrier"
    for _ in range(5):
        bed.end_turns()
        one.work()
        bed.switches[1].work()
    assert one.did.count(Type.FLOW_MOD) >= count
    assert one.did.count(Type.PACKET_OUT) == 2


def test_a_packet_waits_for_the_rule_of_a_queue_that_another_switch_has_just_been_sent(bed):
    """The packet may meet the flow that leads to that queue."""
    one, other = bed.switches
    bed.send(of.flow_mod(of.match(in_port=1), of.enqueue(18, 7)), THROUGH_TABLE)
    one.work()
    assert one.did == [Type.FLOW_MOD]
    other.work()
    one.work()
    assert one.did == [Type.FLOW_MOD, Type.PACKET_OUT]


def test_a_probe_of_a_tunnel_has_nobody_wait(bed):
    bed.big.topology.members[2].session.send(of.packet_out(bytes(60), of.output(3)), changes=False)
    bed.send(FLOW_ON_ONE, BARRIER, THROUGH_TABLE)
    bed.switches[0].work()
    assert bed.switches[0].did == [Type.FLOW_MOD, Type.PACKET_OUT]
