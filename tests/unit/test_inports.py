"""The in_ports of packets: the big switch's numbers and a switch's own."""

import pytest

from edge.south.member import Member
from edge.switch.inports import InPorts
from edge.switch.portnumbers import PortNumbers

from .fakes import PORTS, TUNNEL, Events, phy_port

OFPP_MAX, OFPP_LOCAL, OFPP_NONE = 0xFF00, 0xFFFE, 0xFFFF


@pytest.fixture
def inports():
    return InPorts(PortNumbers())


def member(index):
    """Return a switch with ports 1 and 2 and a tunnel port."""
    switch = Member(Events(), index, index, 16)
    switch.ports.read(PORTS)
    assert switch.ports.tunnel == TUNNEL
    return switch


@pytest.mark.parametrize("index", [1, 2])
def test_a_packet_comes_back_with_the_in_port_that_it_was_sent_with(inports, index):
    switch = member(index)
    for in_port in (*range(1, 40), OFPP_LOCAL):
        local = inports.to_packet(switch, in_port)
        assert inports.to_north(switch, local) == in_port
        assert local != TUNNEL


@pytest.mark.parametrize("left_out", [20, 7935, 7936, 8190, 8191, 8192, 0xFEFF])
def test_a_port_that_is_left_out_has_a_stand_in_or_none(inports, left_out):
    """There is no number left to stand for a very large one; its packets come from OFPP_NONE."""
    switch = member(1)
    switch.ports.read([*PORTS, phy_port(left_out, "s1-big")])
    local = inports.to_packet(switch, left_out)
    if left_out < 7936:
        assert local < OFPP_MAX and local not in switch.ports.all
        assert inports.to_north(switch, local) == left_out
    else:
        assert local == inports.to_north(switch, local) == OFPP_NONE
    assert inports.to_north(switch, left_out) is None


def test_only_the_number_of_the_tunnel_is_another_in_a_match(inports):
    switch = member(1)
    for in_port in (*range(1, 40), OFPP_LOCAL):
        same = inports.to_match(switch, in_port) == inports.to_packet(switch, in_port)
        assert same == (in_port != TUNNEL)


def test_what_comes_in_at_the_tunnel_comes_from_no_port(inports):
    switch = member(1)
    assert inports.to_north(switch, TUNNEL) is None
    assert inports.to_north(switch, OFPP_LOCAL) is None
