"""The in_ports of packets: the big switch's numbers and a switch's own."""

import pytest

from edge.south.member import Member
from edge.switch.inports import InPorts
from edge.switch.ports import PortNumbers

from .fakes import PORTS, TUNNEL, Events

OFPP_LOCAL = 0xFFFE


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


def test_only_the_number_of_the_tunnel_is_another_in_a_match(inports):
    switch = member(1)
    for in_port in (*range(1, 40), OFPP_LOCAL):
        same = inports.to_match(switch, in_port) == inports.to_packet(switch, in_port)
        assert same == (in_port != TUNNEL)


def test_what_comes_in_at_the_tunnel_comes_from_no_port(inports):
    switch = member(1)
    assert inports.to_north(switch, TUNNEL) is None
    assert inports.to_north(switch, OFPP_LOCAL) is None
