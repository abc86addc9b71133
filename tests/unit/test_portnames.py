"""Names of the big switch's ports."""

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.switch import portnames
from edge.switch.portnames import LONGEST, port_names

LONG = [b"vm-customer1-p1", b"vm-customer1-p2", b"enp130s0f0.1001", b"enp130s0f0.1002"]
names = st.dictionaries(st.integers(1, 125), st.binary(min_size=1, max_size=15), max_size=20)


def test_a_name_with_room_for_the_index_stays_as_it_is():
    assert port_names(1, {1: b"s1-eth1", 2: b"thirteenbytes"}) == {
        1: b"1.s1-eth1",
        2: b"1.thirteenbytes",
    }
    assert port_names(4079, {16: b"ten-bytes!"}) == {16: b"4079.ten-bytes!"}


def test_longer_names_keep_head_and_tail_and_get_a_mark():
    """The very names: a port keeps its name from version to version."""
    assert port_names(1, dict(enumerate(LONG, 1))) == {
        1: b"1.vm-~72am~1-p1",
        2: b"1.vm-~d2nr~1-p2",
        3: b"1.enp~nzgu~1001",
        4: b"1.enp~fjww~1002",
    }
    assert port_names(4079, {16: LONG[3]}) == {16: b"4079.e~fjww~002"}


@pytest.mark.parametrize("index", [1, 10, 4079, 65279])
def test_a_name_does_not_depend_on_other_ports_nor_on_the_number(index):
    together = port_names(index, dict(enumerate(LONG, 1)))
    assert len(set(together.values())) == len(LONG)
    for number, name in enumerate(LONG, 1):
        assert port_names(index, {99 - number: name}) == {99 - number: together[number]}


def test_no_character_is_cut_in_half():
    for length in range(1, 7):
        (name,) = port_names(
            1, {1: ("x" * length + "\N{GREEK SMALL LETTER PI}" * 7).encode()}
        ).values()
        assert "~" in name.decode()


@given(st.integers(1, 65279), names)
def test_names_are_distinct_and_have_room(index, ports):
    found = port_names(index, ports)
    assert found.keys() == ports.keys()
    assert all(len(name) <= LONGEST for name in found.values())
    whole = {number: b"%d.%b" % (index, name) for number, name in ports.items()}
    short = {number: name for number, name in whole.items() if len(name) <= LONGEST}
    assert short.items() <= found.items(), "what fits stays"
    for one, other in itertools.combinations(ports, 2):
        if one not in short or other not in short:
            assert found[one] != found[other]


def test_equal_marks_and_equal_names_are_told_apart(monkeypatch):
    """Open vSwitch itself cuts names at 15 bytes: two ports may have one name."""
    alike = {5: LONG[0], 3: LONG[0], 4: LONG[1]}
    found = port_names(1, alike)
    assert len(set(found.values())) == 3
    assert found == port_names(1, dict(reversed(alike.items())))
    same_mark = hashlib.sha1
    monkeypatch.setattr(portnames.hashlib, "sha256", lambda data: same_mark(data[15:]))
    found = port_names(1, {1: b"vm-customer1-p1", 2: b"vm-customer2-p1", 3: b"vm-customer3-p1"})
    assert len(set(found.values())) == 3
