"""Flows that have ended wait for the FLOW_REMOVED of their copies. The switches are played."""

from collections import deque
from types import SimpleNamespace

import pytest

from edge import poxfixes
from edge.switch import removals as module
from edge.switch.removals import LONGEST_WAIT, Removals

DELETE = 2
MANY = 3000
"""So many flows that they are not handled in one slice."""


class Switch:
    """A Member, and its Session, as Removals sees them. It answers when the test says so."""

    def __init__(self):
        self.session = self
        self._barriers = deque()
        self.asked = 0

    def barrier(self, done):
        self.asked += 1
        self._barriers.append(done)

    def answers(self):
        """Answer all barriers."""
        while self._barriers:
            self._barriers.popleft()()


class Bed:
    """Removals over two switches. `done` has the flows whose end may be told."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        self.turns = deque()
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(poxfixes, "end_of_turn", self.turns.append)
        self.done = []
        self.removals = Removals(lambda entry, reason, ended: self.done.append(entry))
        self.quick, self.slow = Switch(), Switch()

    def begin(self, *entries):
        self.removals.begin(entries, (self.quick, self.slow), DELETE)

    def told(self, switch, *entries):
        for entry in entries:
            assert self.removals.told(switch, entry)

    def passes(self, seconds):
        """Let time pass, with a tick each tenth of a second."""
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.removals.tick(self.now)
            self.end_turns()

    def end_turns(self):
        """End all turns; return how many slices of work were done."""
        slices = 0
        while self.turns:
            self.turns.popleft()()
            slices += 1
        return slices


@pytest.fixture
def bed(monkeypatch):
    return Bed(monkeypatch)


def test_a_flow_is_done_when_all_switches_have_told(bed):
    bed.begin("a", "b")
    bed.told(bed.quick, "a", "b")
    assert bed.done == []
    bed.told(bed.slow, "b")
    assert bed.done == ["b"]
    bed.told(bed.slow, "a")
    assert bed.done == ["b", "a"] and len(bed.removals) == 0
    assert not bed.removals.told(bed.slow, "a"), "nobody waits for it any more"


def test_a_switch_that_has_not_executed_the_deletion_is_waited_for(bed):
    """Its barrier is behind what its line has still to carry."""
    bed.begin("a")
    bed.told(bed.quick, "a")
    bed.passes(10 * LONGEST_WAIT)
    assert bed.done == []
    bed.told(bed.slow, "a")
    assert bed.done == ["a"]


def test_each_flow_that_a_slow_switch_tells_gives_it_time_for_the_next(bed):
    entries = [f"flow {number}" for number in range(10)]
    bed.begin(*entries)
    bed.told(bed.quick, *entries)
    bed.passes(0.1)
    bed.slow.answers()
    for entry in entries:
        bed.passes(LONGEST_WAIT - 0.2)
        bed.slow.answers()
        bed.told(bed.slow, entry)
    assert bed.done == entries


def test_a_switch_has_had_no_copy_if_it_is_quiet_and_a_barrier_brings_nothing(bed):
    bed.begin("a")
    bed.told(bed.quick, "a")
    bed.passes(0.1)
    bed.slow.answers()
    bed.passes(LONGEST_WAIT - 0.1)
    assert bed.slow.asked == 1
    bed.passes(0.2)
    assert bed.slow.asked == 2 and bed.done == [], "it may be on the way"
    bed.passes(10 * LONGEST_WAIT)
    assert bed.slow.asked == 2 and bed.done == []
    bed.slow.answers()
    assert bed.done == ["a"]


def test_what_comes_before_the_barriers_answer_gives_more_time(bed):
    bed.begin("a", "b")
    bed.told(bed.quick, "a", "b")
    bed.passes(0.1)
    bed.slow.answers()
    bed.passes(LONGEST_WAIT + 0.1)
    assert bed.slow.asked == 2
    bed.told(bed.slow, "a")
    bed.slow.answers()
    bed.passes(LONGEST_WAIT - 0.1)
    assert bed.done == ["a"] and bed.slow.asked == 2
    bed.told(bed.slow, "b")
    assert bed.done == ["a", "b"]


def test_flows_that_go_on_ending_do_not_delay_one_that_had_no_copy(bed):
    bed.begin("a")
    bed.told(bed.quick, "a")
    for number in range(round(10 * LONGEST_WAIT) + 5):
        bed.begin(number)
        bed.told(bed.quick, number)
        bed.told(bed.slow, number)
        bed.passes(0.1)
        bed.quick.answers()
        bed.slow.answers()
    assert "a" in bed.done


def test_the_switches_are_not_asked_about_flows_that_they_have_told(bed):
    for number in range(100):
        bed.begin(number)
        bed.told(bed.quick, number)
        bed.told(bed.slow, number)
        bed.passes(0.1)
    assert (bed.quick.asked, bed.slow.asked) == (0, 0)


def test_one_barrier_at_a_time_is_enough(bed):
    for number in range(100):
        bed.begin(number)
        bed.passes(0.1)
    assert (bed.quick.asked, bed.slow.asked) == (1, 1)


def test_a_lost_switch_tells_nothing_any_more(bed):
    bed.begin("a", "b")
    bed.told(bed.quick, "a")
    bed.passes(0.1)
    bed.begin("c")
    bed.removals.lost(bed.slow)
    assert bed.done == ["a"]
    bed.removals.lost(bed.quick)
    assert bed.done == ["a", "b", "c"]


def test_a_flow_that_is_on_no_switch_is_done_at_once(bed):
    bed.removals.begin(["a"], (), DELETE)
    assert bed.done == ["a"]


@pytest.mark.parametrize("how", ["lost", "no copies", "nowhere"])
def test_many_flows_are_done_in_slices(bed, how):
    entries = list(range(MANY))
    if how == "nowhere":
        bed.removals.begin(entries, (), DELETE)
    else:
        bed.removals.begin(entries, (bed.slow,), DELETE)
        if how == "lost":
            bed.removals.lost(bed.slow)
        else:
            bed.passes(0.1)
            bed.slow.answers()
            bed.passes(LONGEST_WAIT + 0.1)
            bed.slow.answers()
    assert 0 < len(bed.done) < MANY, "others have their turn"
    bed.removals.told(bed.slow, MANY - 1)  # in the midst of it
    assert bed.end_turns() >= 2
    assert sorted(bed.done) == entries


def test_what_is_told_before_many_flows_have_been_entered_counts(bed):
    """The switches are told first, and answer while the flows are entered in slices."""
    entries = list(range(MANY))
    both = (bed.quick, bed.slow)
    bed.removals.begin_in_slices(entries, DELETE, lambda part: {both: part})
    assert len(bed.removals) == MANY
    bed.told(bed.quick, *entries)
    bed.told(bed.slow, MANY - 1, 0, "a flow that nobody is told of")
    bed.end_turns()
    assert bed.done == [0, MANY - 1]
    bed.told(bed.slow, *range(1, MANY - 1))
    assert len(bed.done) == MANY
    assert not bed.removals.told(bed.slow, "another")


class Counted:
    """A flow that counts how often it is looked up."""

    looked_up = 0

    def __hash__(self):
        Counted.looked_up += 1
        return id(self)


@pytest.mark.parametrize("many", [2000, 8000])
def test_the_cost_of_a_flow_does_not_grow_with_their_number(bed, many):
    """Flows end over some time, and their FLOW_REMOVED come in another order."""
    Counted.looked_up = 0
    entries = [Counted() for _ in range(many)]
    for start in range(0, many, many // 10):
        bed.begin(*entries[start : start + many // 10])
        bed.passes(0.1)
    for switch in (bed.quick, bed.slow):
        switch.answers()
        bed.told(switch, *entries[1::2], *entries[::2])
        bed.passes(0.1)
    assert len(bed.done) == many
    assert Counted.looked_up < 40 * many
