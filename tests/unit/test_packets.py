"""The in_ports of packets, between the big switch and one of its switches."""

import pytest

from edge.north.datapath import Datapath
from edge.south.member import Member
from edge.switch.bigswitch import BigSwitch
from edge.switch.indexes import Indexes
from edge.switch.ports import PortNumbers

from .test_member import PORTS

OFPP_LOCAL = 0xFFFE
TUNNEL = 3


@pytest.fixture
def big():
    numbers = PortNumbers()
    return BigSwitch(numbers, Indexes(numbers), [], 5.0, Datapath(1))


def member(big, index):
    """A switch with ports 1 and 2 and the tunnel's."""
    switch = Member(big, index, index)
    switch.ports = {port.port_no: port for port in PORTS}
    switch._ports_found()
    assert switch.tunnel_port == TUNNEL
    return switch


@pytest.mark.parametrize("index", [1, 2])
def test_a_packet_comes_back_with_the_in_port_that_it_was_sent_with(big, index):
    switch = member(big, index)
    for in_port in (*range(1, 40), OFPP_LOCAL):
        local = big.packets.to_local(switch, in_port)
        assert big.packets.to_north(switch, local) == in_port
        assert local != TUNNEL


def test_only_the_number_of_the_tunnel_is_another_in_a_match(big):
    switch = member(big, 1)
    for in_port in (*range(1, 40), OFPP_LOCAL):
        same = big.packets.to_match(switch, in_port) == big.packets.to_local(switch, in_port)
        assert same == (in_port != TUNNEL)


def test_what_comes_in_at_the_tunnel_comes_from_no_port(big):
    switch = member(big, 1)
    assert big.packets.to_north(switch, TUNNEL) is None
    assert big.packets.to_north(switch, OFPP_LOCAL) is None
