"""The ends of flows by timeout. The switches are played: they answer as the test says."""

import struct
from types import SimpleNamespace

import pytest
from lab import openflow10 as of

from edge.openflow import match as matches
from edge.switch import expiry as module
from edge.switch.expiry import DEAD, Expiry
from edge.switch.flowtable import FlowEntry, FlowTable

IDLE, HARD = of.RemovedReason.IDLE_TIMEOUT, of.RemovedReason.HARD_TIMEOUT
T = 10


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


class Switch:
    """A Member, and its Session, as Expiry sees them."""

    def __init__(self, index):
        self.index = index
        self.liveness = SimpleNamespace(ready=True, lost_at=-1e9, compared_at=-1e9, stalled_at=-1e9)
        self.session = self
        self.asked = []

    def request(self, build, answer, lost):
        build(1)
        self.asked.append((answer, lost))

    def says(self, packets=0, idle_age=T, there=True):
        """Answer the oldest question about a copy with its packet count and its idle age."""
        flow = struct.pack(
            "!HBxIIHHHHHHQQQ", 48, 2, 0, 0, 1, T, 0, 0, idle_age + 1, 0, 7, packets, 0
        )
        body = struct.pack("!HHII4x", 0xFFFF, 0, of.NX_VENDOR, 0) + flow * there
        answer, _ = self.asked.pop(0)
        assert answer(of.Type.STATS_REPLY, of.message(of.Type.STATS_REPLY, body))

    def is_lost(self, at):
        self.liveness.ready, self.liveness.lost_at = False, at
        asked, self.asked = self.asked, []
        for _, lost in asked:
            lost()


class Bed:
    """A flow table over three switches. `ended` has the reasons of the ends that were reported."""

    def __init__(self, clock):
        self.clock = clock
        self.switches = [Switch(index) for index in (1, 2, 3)]
        self.table = FlowTable()
        self.ended = []
        self.put = []
        self.expiry = Expiry(
            self.table,
            lambda entry: self.switches,
            lambda entry: 7,
            lambda entry, member: self.put.append(member.index),
            self._end,
        )

    def _end(self, entries, reason, told=None):
        for entry in entries:
            self.table.remove(entry)
            self.expiry.removed(entry)
            self.ended.append(reason)

    def add(self, idle=T, hard=0):
        entry = FlowEntry(matches.ANY, 1, 0, idle, hard, 0, None, self.clock.now)
        self.table.put(entry)
        self.expiry.added(entry)
        return entry

    def idle(self, index, packets=5, seconds=0):
        """A switch reports that its copy has idled out, and for how many seconds it was there."""
        (entry,) = self.table
        self.expiry.copy_idle(self.switches[index - 1], entry, packets, seconds)

    def nobody_is_asked(self):
        return not any(switch.asked for switch in self.switches)


@pytest.fixture
def bed(clock):
    bed = Bed(clock)
    bed.add()
    clock.now += T + 1
    return bed


def test_what_is_idle_everywhere_ends(bed):
    bed.idle(2)
    assert bed.put == [2], "until the others have answered"
    for switch in bed.switches:
        switch.says()
    assert bed.ended == [IDLE]


@pytest.mark.parametrize("user", [1, 2, 3])
def test_what_one_switch_uses_stays(bed, user):
    """The user may also be the switch that has just reported: its new copy is already in use."""
    bed.idle(2)
    for switch in bed.switches:
        used = switch.index == user
        switch.says(packets=used, idle_age=0 if used else T)
    assert bed.ended == []


def test_a_copy_that_was_put_back_is_young_and_not_in_use(bed):
    bed.idle(2)
    for switch, age in zip(bed.switches, (T, 0, T)):
        switch.says(packets=0, idle_age=age)
    assert bed.ended == [IDLE]


def test_answers_that_have_waited_for_one_that_hung_do_not_count(bed, clock):
    """The copies on the other switches may have been used meanwhile."""
    bed.idle(2)
    for switch in bed.switches[:2]:
        switch.says()
    clock.now += 1
    bed.switches[2].liveness.stalled_at = clock.now
    bed.switches[2].says()
    assert bed.ended == []
    bed.idle(1)
    for switch in bed.switches:
        switch.says()
    assert bed.ended == [IDLE], "asked again, they answer at once"


def test_what_is_not_answered_is_not_known(bed):
    bed.idle(2)
    answer, lost = bed.switches[2].asked.pop()
    lost()
    for switch in bed.switches[:2]:
        switch.says()
    assert bed.ended == []


def test_a_lost_switch_may_use_it_until_it_is_taken_for_dead(bed, clock):
    bed.switches[2].is_lost(clock.now)
    for later in (0, DEAD - 1):
        clock.now += later
        bed.idle(2)
        for switch in bed.switches[:2]:
            switch.says()
        assert bed.ended == []
    clock.now += 1
    bed.idle(1)
    for switch in bed.switches[:2]:
        switch.says()
    assert bed.ended == [IDLE]


def test_a_switch_that_comes_back_meanwhile_has_not_been_asked(bed, clock):
    third = bed.switches[2]
    third.is_lost(clock.now)
    bed.idle(1)
    bed.switches[0].says()
    third.liveness.ready = True
    bed.switches[1].says()
    assert bed.ended == []


def test_it_was_added_while_a_switch_was_lost_so_it_is_not_there(clock):
    bed = Bed(clock)
    bed.switches[2].is_lost(clock.now)
    clock.now += 1
    bed.add()
    clock.now += T + 1
    bed.idle(1)
    for switch in bed.switches[:2]:
        switch.says()
    assert bed.ended == [IDLE]


def test_a_copy_falls_idle_before_its_time(clock):
    """The copy has inherited the age of an earlier flow of the same match."""
    bed = Bed(clock)
    bed.add()
    clock.now += 1
    bed.idle(3, packets=0)
    assert bed.put == [3] and bed.nobody_is_asked() and bed.ended == []


@pytest.mark.parametrize("seconds, asked", [(T - 1, False), (T, True)])
def test_the_clock_of_the_switch_decides_whether_a_flow_is_too_young_to_be_idle(
    clock, seconds, asked
):
    """Ours stands still while a virtual machine is suspended."""
    bed = Bed(clock)
    bed.add()
    clock.now += 1
    bed.idle(2, seconds=seconds)
    assert bed.put == [2] and bed.nobody_is_asked() is not asked
    if asked:
        for switch in bed.switches:
            switch.says()
    assert bed.ended == [IDLE] * asked


def test_what_a_switch_has_no_more_when_it_is_back_was_idle_there(bed, clock):
    (entry,) = bed.table
    assert not bed.expiry.ended_while_lost(bed.switches[2], entry), "the others may use it"
    for switch in bed.switches:
        switch.says()
    assert bed.ended == [IDLE]


def test_what_a_switch_has_no_more_when_its_time_is_up_was_not_idle_there(clock):
    """The switch comes back before the aggregator has looked at its timers."""
    bed = Bed(clock)
    entry = bed.add(hard=3 * T)
    clock.now += 3 * T
    assert bed.expiry.ended_while_lost(bed.switches[2], entry)
    assert bed.ended == [HARD]
    bed.expiry.tick(clock.now)
    assert bed.ended == [HARD]


def test_its_time_was_up_on_a_switch_that_did_not_hear_of_the_change(clock):
    """A MODIFY restarts the hard timeout, but that switch did not get it. So its copy may have been
    in use when it ended.
    """
    bed = Bed(clock)
    entry = bed.add(hard=3 * T)
    entry.modified += 2 * T
    clock.now += 3 * T - 1
    assert not bed.expiry.ended_while_lost(bed.switches[2], entry)
    assert not bed.nobody_is_asked(), "that was not yet so: it was idle there"
    for switch in bed.switches:
        switch.asked.clear()
    clock.now += 1
    assert not bed.expiry.ended_while_lost(bed.switches[2], entry), "it has to be put there"
    assert bed.nobody_is_asked() and bed.ended == []


def test_on_no_switch_it_ends_when_all_are_taken_for_dead(bed, clock):
    for switch in bed.switches:
        switch.is_lost(clock.now)
        bed.expiry.lost(clock.now)
    bed.expiry.tick(clock.now + DEAD - 1)
    assert bed.ended == []
    bed.expiry.tick(clock.now + DEAD)
    assert bed.ended == [IDLE]


def test_a_switch_cannot_die_while_the_aggregator_is_paused(bed, clock, monkeypatch):
    """It could not come back in that time."""
    for switch in bed.switches:
        switch.is_lost(clock.now)
        bed.expiry.lost(clock.now)
    clock.now += DEAD + 100
    monkeypatch.setattr(module, "awake_since", lambda awake=clock.now: awake)
    bed.expiry.tick(clock.now)
    clock.now += DEAD - 1
    bed.expiry.tick(clock.now)
    assert bed.ended == []
    clock.now += 1
    bed.expiry.tick(clock.now)
    assert bed.ended == [IDLE]


def test_what_was_idle_before_its_hard_timeout_ends_as_idle_though_that_is_told_late(clock):
    """The aggregator was paused until both were over."""
    bed = Bed(clock)
    bed.add(hard=2 * T)
    clock.now += 3 * T
    for index in (1, 2, 3):
        assert bed.ended == []
        bed.idle(index)
    assert bed.ended == [IDLE] and bed.nobody_is_asked()
    bed.expiry.tick(clock.now)
    assert bed.ended == [IDLE]


def test_what_was_not_idle_everywhere_before_its_hard_timeout_ends_by_that(clock):
    bed = Bed(clock)
    bed.add(hard=2 * T)
    clock.now += 3 * T
    bed.idle(1)
    bed.idle(2)
    bed.expiry.tick(clock.now)
    assert bed.ended == [HARD]
    assert not bed.expiry._idle_late


def test_a_copy_that_has_gone_ends_a_flow_without_an_idle_timeout_only_when_its_time_is_up(clock):
    bed = Bed(clock)
    entry = bed.add(idle=0, hard=T)
    clock.now += T - 1
    assert not bed.expiry.ended_while_lost(bed.switches[0], entry)
    assert bed.ended == [] and bed.nobody_is_asked()
    clock.now += 1
    assert bed.expiry.ended_while_lost(bed.switches[0], entry)
    assert bed.ended == [HARD]


def test_a_hard_timeout_is_up_whatever_the_switches_say(clock):
    bed = Bed(clock)
    entry = bed.add(idle=0, hard=T)
    bed.expiry.tick(clock.now + T - 0.1)
    assert bed.ended == []
    entry.modified += 5
    bed.expiry.tick(clock.now + T)
    assert bed.ended == [], "a MODIFY has begun it anew"
    bed.expiry.tick(clock.now + T + 5)
    assert bed.ended == [HARD]
    bed.expiry.tick(clock.now + 100)
    assert bed.ended == [HARD]
