"""The flow table, compared with a model that is a plain list."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lab import openflow10 as of

from edge.openflow import actions as act
from edge.openflow import match as matches
from edge.switch.flowtable import FlowEntry, FlowTable, with_output

from . import reference
from .strategies import any_match, frame_and_fields, wider_match

OUT_PORTS = (1, 2, 17, of.Port.FLOOD)


ANY = of.match()


def entry(match=ANY, priority=1, actions=b"", cookie=0):
    return FlowEntry(
        matches.parse(match), priority, cookie, 0, 0, 0, act.parse(of.joined(actions)), 0.0
    )


def table_of(*entries):
    table = FlowTable()
    for each in entries:
        table.put(each)
    return table


class AgainstAList(RuleBasedStateMachine):
    """Whatever is done to the table, it answers as a list of its flows would."""

    @initialize(data=st.data())
    def start(self, data):
        self.table, self.model = FlowTable(), []
        # A few matches are used again and again. Some are wider than others, and some name the same
        # fields.
        first = data.draw(st.lists(any_match(), min_size=1, max_size=3))
        wider = [data.draw(wider_match(data.draw(st.sampled_from(first)))) for _ in range(3)]
        alike = [data.draw(st.sampled_from(first))[:4] + data.draw(any_match())[4:] for _ in "1234"]
        self.matches = [of.match(), *first, *wider, *alike]

    def draw_match(self, data):
        return data.draw(st.sampled_from(self.matches))

    @rule(
        data=st.data(),
        priority=st.sampled_from((0, 1, 2)),
        ports=st.lists(st.sampled_from(OUT_PORTS), max_size=2),
    )
    def put(self, data, priority, ports):
        raw = self.draw_match(data)
        new = entry(raw, priority, [of.output(port) for port in ports])
        same = [old for old in self.model if self.key(old) == (reference.normalise(raw), priority)]
        assert self.table.put(new) is (same[0] if same else None)
        self.model = [old for old in self.model if old not in same] + [new]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data):
        old = data.draw(st.sampled_from(self.model))
        self.table.remove(old)
        self.model.remove(old)
        with pytest.raises(KeyError):
            self.table.remove(old)

    @rule()
    def clear(self):
        groups = self.table.clear()
        assert {flow for group in groups for flow in group.values()} == set(self.model)
        self.model = []

    @rule(data=st.data(), priority=st.sampled_from((0, 1, 2)), out_port=st.sampled_from(OUT_PORTS))
    def ask(self, data, priority, out_port):
        raw = self.draw_match(data)
        match = matches.parse(raw)
        same = [old for old in self.model if self.key(old) == (reference.normalise(raw), priority)]
        assert self.table.find(match, priority) is (same[0] if same else None)
        covered = [old for old in self.model if reference.covers(raw, self.south(old))]
        assert set(self.table.covered(match)) == set(covered)
        for found, expected in (
            (self.table.covered(match, out_port), covered),
            (self.table.exact(match, priority, out_port), same),
        ):
            assert set(found) == {old for old in expected if out_port in old.actions.outputs}
        overlapping = [
            old
            for old in self.model
            if old.priority == priority
            and old not in same
            and reference.overlaps(raw, self.south(old))
        ]
        assert self.table.overlapped(match, priority) == bool(overlapping)

    @rule(drawn=frame_and_fields(), in_port=st.sampled_from((1, 2, 17)))
    def look_up(self, drawn, in_port):
        frame, fields = drawn
        hit = [
            old
            for old in self.model
            if reference.hits(self.south(old), dict(fields, in_port=in_port))
        ]
        found = self.table.lookup(matches.of_frame(frame, in_port))
        if hit:
            assert found in hit
            assert found.priority == max(old.priority for old in hit)
        else:
            assert found is None

    @invariant()
    def it_holds_what_the_list_holds(self):
        if not hasattr(self, "table"):
            return
        assert len(self.table) == len(self.model)
        assert set(self.table) == set(self.model)
        assert all(old in self.table for old in self.model)

    @staticmethod
    def key(old):
        return reference.normalise(old.match.south), old.priority

    @staticmethod
    def south(old):
        return old.match.south


TestAgainstAList = AgainstAList.TestCase
TestAgainstAList.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_flow_is_in_the_table_as_itself_and_not_as_one_like_it():
    first, second = entry(), entry()
    table = table_of(first)
    assert first in table and second not in table
    assert table.put(second) is first
    assert second in table and first not in table
    with pytest.raises(KeyError):
        table.remove(first)
    assert list(table) == [second]


def test_the_same_match_with_another_priority_is_another_flow():
    low, high = entry(priority=1), entry(priority=2)
    table = table_of(low, high)
    assert len(table) == 2
    assert table.exact(matches.ANY, 1) == [low]
    assert table.exact(matches.ANY, 2) == [high]
    assert table.exact(matches.ANY, 3) == []
    assert set(table.covered(matches.ANY)) == {low, high}


def test_an_overlap_is_one_of_the_same_priority_with_another_match():
    """OpenFlow 1.0.0, 4.6. An ADD of an identical flow is no overlap, but replaces it, as in Open
    vSwitch.
    """
    table = table_of(entry(of.match(in_port=1), priority=5))
    assert table.overlapped(matches.parse(of.match(dl_dst="00:00:00:00:00:01")), 5)
    assert table.overlapped(matches.ANY, 5)
    assert not table.overlapped(matches.ANY, 6)
    assert not table.overlapped(matches.parse(of.match(in_port=1)), 5)
    assert not table.overlapped(matches.parse(of.match(in_port=2)), 5)


@pytest.mark.parametrize("out_port", OUT_PORTS)
def test_an_out_port_filter_finds_the_outputs_wherever_they_stand(out_port):
    flows = [
        entry(actions=[]),
        entry(actions=[of.output(out_port)]),
        entry(actions=[of.output(5), of.set_vlan_vid(1), of.output(out_port)]),
        entry(actions=[of.output(5)]),
    ]
    assert with_output(flows, out_port) == flows[1:3]
    assert with_output(flows, of.Port.NONE) == flows


def test_a_flow_that_goes_leaves_those_of_the_same_fields():
    flows = [entry(of.match(in_port=port)) for port in (1, 2, 3)]
    table = table_of(*flows)
    table.remove(flows[1])
    assert set(table) == {flows[0], flows[2]}
    assert table.lookup(matches.of_frame(bytes(60), 3)) is flows[2]
    table.remove(flows[0])
    table.remove(flows[2])
    assert list(table) == [] and len(table) == 0


@given(st.integers(0, 40))
def test_looking_at_one_flow_looks_at_no_other(count):
    """A flow with the same mask and priority is found, put and removed through dictionaries."""
    table = table_of(*(entry(of.match(in_port=port), cookie=port) for port in range(1, count + 1)))
    for port in range(1, count + 1):
        (found,) = table.covered(matches.parse(of.match(in_port=port)))
        assert found.cookie == port
    assert table.covered(matches.parse(of.match(in_port=count + 1))) == []


# ---- what covers and what overlaps ----


def covers(one, other):
    """Whether a loose command with `one` concerns a flow with `other`."""
    return bool(table_of(entry(other)).covered(matches.parse(one)))


def overlaps(one, other):
    """Whether an ADD with `one` and CHECK_OVERLAP is refused because of a flow with `other`."""
    return table_of(entry(other)).overlapped(matches.parse(one), 1)


@st.composite
def two_matches(draw):
    """Two matches. One of them is often wider than the other."""
    one = draw(any_match())
    other = draw(st.one_of(any_match(), wider_match(one)))
    return (one, other) if draw(st.booleans()) else (other, one)


@given(two_matches())
@settings(max_examples=300)
def test_covering_is_naming_nothing_beyond(pair):
    assert covers(*pair) == reference.covers(*pair)
    assert covers(ANY, pair[0]) and covers(pair[0], pair[0])


@given(two_matches())
@settings(max_examples=300)
def test_overlapping_is_contradicting_nowhere(pair):
    one, other = pair
    same = reference.normalise(one) == reference.normalise(other)
    expected = reference.overlaps(one, other) and not same
    assert overlaps(one, other) == overlaps(other, one) == expected


def net(text):
    return of.match(dl_type=0x0800, nw_src=text)


VLAN5 = of.match(dl_vlan=5)
VLAN5_PCP3 = of.match(dl_vlan=5, dl_vlan_pcp=3)
PCP3 = of.match(dl_vlan_pcp=3)
UNTAGGED = of.match(dl_vlan=of.VLAN_NONE)


@pytest.mark.parametrize(
    "general, special, expected",
    [
        (net("10.0.0.0/24"), net("10.0.0.1"), True),
        (net("10.0.0.0/24"), net("10.0.0.0/24"), True),
        (net("10.0.0.0/24"), net("10.0.0.0/16"), False),
        (net("10.0.0.0/24"), net("10.0.1.1"), False),
        (net("10.0.0.0/24"), of.match(dl_type=0x0800), False),
        (net("10.0.0.0/24"), of.match(dl_type=0x0806, nw_src="10.0.0.1"), False),
        (VLAN5, VLAN5_PCP3, True),
        (VLAN5_PCP3, VLAN5, False),
        (PCP3, VLAN5_PCP3, True),
        (PCP3, UNTAGGED, False),
        (of.match(dl_vlan_pcp=0), UNTAGGED, False),
        (UNTAGGED, UNTAGGED, True),
        (of.match(), of.match(tp_dst=80), True),
        (of.match(tp_dst=80), of.match(), False),
        (of.match(dl_vlan=0), UNTAGGED, False),
        (of.match(in_port=1), of.match(), False),
        (of.match(), of.match(in_port=1), True),
    ],
)
def test_what_a_loose_command_is_about(general, special, expected):
    """As measured on a plain bridge."""
    assert covers(general, special) == expected


@pytest.mark.parametrize(
    "one, other, expected",
    [
        (of.match(in_port=1), of.match(dl_dst="00:00:00:00:00:01"), True),
        (of.match(in_port=1), of.match(in_port=2), False),
        (PCP3, VLAN5, True),
        (VLAN5, UNTAGGED, False),
        (VLAN5_PCP3, of.match(dl_vlan=5, dl_vlan_pcp=4), False),
        (PCP3, UNTAGGED, False),
        (net("10.0.0.0/24"), net("10.0.0.0/16"), True),
        (net("10.0.0.0/24"), net("10.0.1.0/24"), False),
        (of.match(dl_type=0x0800), of.match(dl_type=0x0806), False),
        (
            of.match(dl_type=0x0800, nw_proto=6, tp_src=80),
            of.match(dl_type=0x0800, nw_proto=6, tp_dst=80),
            True,
        ),
        (
            of.match(dl_type=0x0800, nw_proto=6, tp_dst=80),
            of.match(dl_type=0x0800, nw_proto=17, tp_dst=80),
            False,
        ),
        (of.match(), VLAN5, True),
        (of.match(), of.match(tp_dst=80), True),
    ],
)
def test_what_check_overlap_is_about(one, other, expected):
    """As measured on a plain bridge."""
    assert overlaps(one, other) == overlaps(other, one) == expected
