"""Port numbers of the big switch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import openflow10 as of

from edge.south import rules
from edge.switch import portnumbers
from edge.switch.portnumbers import PortNumbers, Unnumbered

sizes = st.integers(1, portnumbers.LARGEST_MAX_PORTS)


@pytest.mark.parametrize(
    "dpid, port, number",
    [(1, 1, 1), (1, 2, 2), (1, 16, 16), (2, 1, 17), (2, 2, 18), (3, 1, 33), (4079, 16, 65264)],
)
def test_the_formula(dpid, port, number):
    """The formula: aggregator port = switch port + 16 * (switch dpid - 1)."""
    numbers = PortNumbers()
    assert numbers.number(dpid, port) == number
    assert numbers.locate(number) == (dpid, port)


def test_what_is_left_below_the_reserved_numbers_is_no_port():
    """There would be 15 numbers left for switch 4080. It gets none."""
    numbers = PortNumbers()
    assert numbers.locate(65264) == (4079, 16)
    assert all(numbers.locate(number) is None for number in range(65265, 0x10000))


@given(sizes, st.integers(0, 0xFFFF))
def test_every_number_has_one_port_or_none(max_ports, number):
    numbers = PortNumbers(max_ports)
    where = numbers.locate(number)
    if where is None:
        # 0, the reserved numbers, and the numbers of a switch that would reach into these.
        assert number == 0 or number > numbers.number(numbers.last_index, max_ports)
    else:
        assert numbers.number(*where) == number


@given(sizes, st.integers(1, 0xFFFF), st.integers(1, portnumbers.LARGEST_MAX_PORTS))
def test_every_port_that_has_a_number_is_found_by_it(max_ports, index, port):
    numbers = PortNumbers(max_ports)
    expected = port + max_ports * (index - 1)
    if port <= max_ports and max_ports * index < of.Port.MAX:
        assert numbers.number(index, port) == expected < of.Port.MAX
        assert numbers.locate(expected) == (index, port)
    else:
        with pytest.raises(Unnumbered):
            numbers.number(index, port)


@given(sizes)
def test_no_number_is_a_reserved_one(max_ports):
    numbers = PortNumbers(max_ports)
    assert numbers.number(numbers.last_index, max_ports) < of.Port.MAX
    assert all(numbers.locate(number) is None for number in range(of.Port.MAX, 0x10000))


@pytest.mark.parametrize("index, port", [(1, 0), (1, 17), (1, 0xFFFE), (0, 1), (-1, 1), (4080, 1)])
def test_what_the_formula_does_not_reach_is_refused(index, port):
    with pytest.raises(Unnumbered):
        PortNumbers().number(index, port)


@pytest.mark.parametrize("index", [0, -1, 4080, 0x112233445566, 1 << 64])
def test_a_switch_that_cannot_be_numbered_is_refused_as_a_whole(index):
    with pytest.raises(Unnumbered, match="1 to 4079"):
        PortNumbers().check_index(index)


@pytest.mark.parametrize("max_ports", [0, -1, 126, 127, 255, 65536])
def test_a_number_of_ports_that_would_meet_the_tunnel_keys_is_refused(max_ports):
    with pytest.raises(ValueError, match="1 to 125"):
        PortNumbers(max_ports)


def test_tunnel_keys_are_told_apart():
    """A port's key is its number. The other keys are above every number that a port can have."""
    assert (rules.KEY_DISCOVERY, rules.KEY_ALL, rules.KEY_FLOOD) == (0, 0x7E, 0x7F)
    assert min(rules.KEY_ALL, rules.KEY_FLOOD, rules.KEY_QUEUES) > portnumbers.LARGEST_MAX_PORTS
    assert max(rules.KEY_ALL, rules.KEY_FLOOD) < rules.KEY_QUEUES
