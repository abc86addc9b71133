"""Which switch executes a packet-out."""

import pytest
from lab import openflow10 as of
from lab.openflow10 import Port, Type

from edge.openflow import actions as act

from .played import Bed

FRAME = bytes(60)


@pytest.fixture
def bed(turns):
    bed = Bed(turns)
    for member in bed.big.topology.members.values():
        bed.big.topology.tunnel_found(member, 0xAC100000 + member.index)
    bed.big.topology.changed()
    bed.settle()
    return bed


def sent(bed, out, in_port=1):
    """Send a packet-out. Return the switch that executes it, and the actions there."""
    bed.send(of.packet_out(FRAME, out, in_port))
    found = []
    for switch in bed.switches:
        for raw in switch.waiting:
            if raw[1] == Type.PACKET_OUT:
                found.append((switch.dpid, raw[16 : len(raw) - len(FRAME)]))
        switch.waiting = type(switch.waiting)(
            raw for raw in switch.waiting if raw[1] != Type.PACKET_OUT
        )
    (one,) = found
    return one


@pytest.mark.parametrize("again", [False, True], ids=["new", "again"])
def test_a_packet_that_leaves_on_one_switch_crosses_no_tunnel(bed, again):
    for _ in range(1 + again):
        for switch in bed.switches:
            switch.work()
        bed.big.refusals.confirm()
        bed.settle()
        assert not bed.big.unsettled()
        where = sent(bed, of.output(17))
    assert where == (2, of.output(1))


@pytest.mark.parametrize("again", [False, True], ids=["new", "again"])
def test_a_packet_does_not_overtake_a_change_of_the_switch_where_it_enters(bed, again):
    if again:
        sent(bed, of.output(17))
        bed.big.refusals.confirm()
        bed.settle()
    bed.send(of.flow_mod(of.match(in_port=1), of.output(2)))
    dpid, actions = sent(bed, of.output(17))
    assert dpid == 1 and act.parse(actions[-8:]).outputs == {3}, "out of the tunnel port"


@pytest.mark.parametrize(
    "out",
    [
        of.output(17) + of.output(2),
        of.output(17) + of.output(Port.IN_PORT),
        of.output(17) + of.output(Port.CONTROLLER),
        of.output(Port.FLOOD),
        of.output(Port.TABLE),
        of.output(2),
        b"",
    ],
    ids=["both", "IN_PORT", "CONTROLLER", "FLOOD", "TABLE", "own", "drop"],
)
def test_any_other_packet_is_executed_where_it_enters(bed, out):
    assert sent(bed, out)[0] == 1


def test_a_switch_that_is_lost_executes_nothing(bed):
    assert sent(bed, of.output(17))[0] == 2
    bed.big.refusals.confirm()
    bed.settle()
    gone = bed.switches[1]
    bed.big.disconnected(gone)
    assert sent(bed, of.output(17))[0] == 1
