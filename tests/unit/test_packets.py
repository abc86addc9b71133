"""The in_ports of packets, between the big switch and one of its switches."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from edge.packets import Packets
from edge.ports import PortNumbers

OFPP_LOCAL = 0xFFFE
TUNNEL = 3


def member(index, ports=(1, 2, TUNNEL)):
    return SimpleNamespace(index=index, ports=dict.fromkeys(ports), numbered=lambda n: n in (1, 2))


@pytest.fixture
def packets():
    return Packets(Mock(numbers=PortNumbers()), Mock())


@pytest.mark.parametrize("index", [1, 2])
def test_a_packet_comes_back_with_the_in_port_that_it_was_sent_with(packets, index):
    for in_port in (*range(1, 40), OFPP_LOCAL):
        local = packets.to_local(member(index), in_port)
        assert packets.to_north(member(index), local) == in_port
        assert local != TUNNEL


def test_only_the_number_of_the_tunnel_is_another_in_a_match(packets):
    for in_port in (*range(1, 40), OFPP_LOCAL):
        same = packets.to_match(member(1), in_port) == packets.to_local(member(1), in_port)
        assert same == (in_port != TUNNEL)


def test_what_comes_in_at_the_tunnel_comes_from_no_port(packets):
    assert packets.to_north(member(1), TUNNEL) is None
    assert packets.to_north(member(1), OFPP_LOCAL) is None
