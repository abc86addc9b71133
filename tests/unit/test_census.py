"""How many copies the switches have to have, against a count of all."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from edge.switch.census import PARTS, Census
from edge.switch.portnumbers import PortNumbers

LOCATE = PortNumbers().locate
flows = st.lists(
    st.tuples(st.sampled_from([None, 1, 2, 17, 0xFFFE]), st.integers(1, 300)), unique=True
)


@given(flows, flows, st.sampled_from([1, 2, 16, PARTS]))
def test_each_part_of_each_switch_is_counted(added, others, parts):
    census = Census(LOCATE)
    for flow in added:
        census.added(*flow)
    left = [*added, *others]
    for flow in others:
        census.added(*flow)
    for flow in added[::2]:
        census.removed(*flow)
        left.remove(flow)
    for index in (1, 2, 3):
        homes = [c for p, c in left if p is None or LOCATE(p) is None or LOCATE(p)[0] == index]
        wanted = Counter(cookie % parts for cookie in homes)
        assert [census.copies(index, part, parts) for part in range(parts)] == [
            wanted[part] for part in range(parts)
        ]
        assert census.copies(index) == len(homes)


def test_an_empty_table_has_no_copies():
    census = Census(LOCATE)
    for in_port in (None, 1, 17, 0xFFFE):
        census.added(in_port, 7)
    census.cleared()
    assert [census.copies(index) for index in (1, 2, 3)] == [0, 0, 0]
    census.added(17, 8)
    assert [census.copies(index) for index in (1, 2, 3)] == [0, 1, 0]
