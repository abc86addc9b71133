"""The ends of flows by timeout. The switches are played: they answer as the test says."""

import struct
from collections import deque
from types import SimpleNamespace

import pytest
from lab import frames
from lab import openflow10 as of

from edge import poxfixes
from edge.openflow import match as matches
from edge.switch import expiry as module
from edge.switch.expiry import DEAD, Expiry
from edge.switch.flowtable import FlowEntry, FlowTable

IDLE, HARD = of.RemovedReason.IDLE_TIMEOUT, of.RemovedReason.HARD_TIMEOUT
T = 10


class Clock:
    """The time, and the callbacks for the ends of turns."""

    now = 1000.0

    def __init__(self):
        self.turns = deque()

    def monotonic(self):
        return self.now

    def end_turns(self):
        while self.turns:
            self.turns.popleft()()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    for each in (module, poxfixes):
        monkeypatch.setattr(each, "end_of_turn", clock.turns.append)
    return clock


class Switch:
    """A Member, and its Session, as Expiry sees them."""

    def __init__(self, index, clock):
        self.index = index
        self.clock = clock
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
        self.clock.end_turns()

    def is_lost(self, at):
        self.liveness.ready, self.liveness.lost_at = False, at
        asked, self.asked = self.asked, []
        for _, lost in asked:
            lost()
        self.clock.end_turns()


class Bed:
    """A flow table over three switches. `ended` has the reasons of the ends that were reported."""

    def __init__(self, clock):
        self.clock = clock
        self.switches = [Switch(index, clock) for index in (1, 2, 3)]
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
        self.clock.end_turns()

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


@pytest.mark.parametrize(
    "packets, age, ends", [(0, T - 1, True), (0, T - 2, False), (1, T - 1, False), (1, T, True)]
)
def test_a_copy_that_was_added_late_and_never_used_is_not_in_use(bed, packets, age, ends):
    """One switch was behind with its ADDs, and tells whole seconds."""
    bed.idle(2)
    for switch in bed.switches:
        switch.says(packets=packets, idle_age=age if switch.index == 3 else T)
    assert bed.ended == [IDLE] * ends


def test_a_flow_that_was_just_replaced_is_young(clock):
    bed = Bed(clock)
    bed.add()
    clock.now += T
    (old,) = bed.table
    bed.expiry.removed(old)
    new = bed.add()
    new.inherit_from(old)
    bed.idle(2, packets=0)
    for switch in bed.switches:
        switch.says(idle_age=T - 1 if switch.index == 3 else T)
    assert bed.ended == []


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
    clock.end_turns()
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
    clock.end_turns()
    assert not bed.nobody_is_asked(), "that was not yet so: it was idle there"
    for switch in bed.switches:
        switch.asked.clear()
    clock.now += 1
    assert not bed.expiry.ended_while_lost(bed.switches[2], entry), "it has to be put there"
    clock.end_turns()
    assert bed.nobody_is_asked() and bed.ended == []


def test_on_no_switch_it_ends_when_all_are_taken_for_dead(bed, clock):
    for switch in bed.switches:
        switch.is_lost(clock.now)
        bed.expiry.lost(switch)
    bed.expiry.tick(clock.now + DEAD - 1)
    assert bed.ended == []
    bed.expiry.tick(clock.now + DEAD)
    assert bed.ended == [IDLE]


def test_a_switch_cannot_die_while_the_aggregator_is_paused(bed, clock, monkeypatch):
    """It could not come back in that time."""
    for switch in bed.switches:
        switch.is_lost(clock.now)
        bed.expiry.lost(switch)
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
    assert not bed.expiry.lacking


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


MANY = 5000
"""So many flows that they are not handled in one slice."""


class Crowd(Bed):
    """The same with many flows, whose cookies are their numbers (from 1) in this run."""

    RUN = 7 << 32

    def __init__(self, clock, hard=0):
        super().__init__(clock)
        self.entries = []
        numbers = {}
        self.ends = 0
        self.expiry = Expiry(
            self.table,
            lambda entry: self.switches,
            lambda entry: self.RUN | numbers[entry],
            lambda entry, member: self.put.append((numbers[entry], member.index)),
            self._end,
        )
        for number in range(1, MANY + 1):
            match = matches.parse(of.match(dl_type=0x800, nw_proto=17, tp_dst=number))
            entry = FlowEntry(match, 1, 0, T, hard, 0, None, clock.now)
            numbers[entry] = number
            self.entries.append(entry)
            self.table.put(entry)
            self.expiry.added(entry)
        clock.now += T + 1

    def _end(self, entries, reason, told=None):
        self.ends += bool(entries)
        super()._end(entries, reason, told)

    def idle(self, index, numbers, packets=0, seconds=T):
        """A switch reports that these copies have idled out, in one turn."""
        for number in numbers:
            entry = self.entries[number - 1]
            if entry in self.table:
                self.expiry.copy_idle(self.switches[index - 1], entry, packets, seconds)
        self.clock.end_turns()

    def says(self, index, used=(), there=range(1, MANY + 1)):
        """A switch answers its oldest question with these of its copies; `used` are not idle."""
        answer, _ = self.switches[index - 1].asked.pop(0)
        flows = b"".join(
            struct.pack(
                "!HBxIIHHHHHHQQQ",
                *(48, 2, 0, 0, 1, T, 0, 0, 1 if number in used else T + 1, 0),
                *(self.RUN | number, number in used, 0),
            )
            for number in there
        )
        body = struct.pack("!HHII4x", 0xFFFF, 0, of.NX_VENDOR, 0) + flows
        answer(of.Type.STATS_REPLY, of.message(of.Type.STATS_REPLY, b"") + body)
        self.clock.end_turns()

    def questions(self):
        return [len(switch.asked) for switch in self.switches]


@pytest.fixture
def crowd(clock):
    return Crowd(clock)


EVERY = range(1, MANY + 1)


def test_many_that_fall_idle_together_are_one_question_and_are_not_put_back(crowd):
    crowd.idle(1, EVERY)
    assert crowd.questions() == [0, 1, 1], "the first has no copies any more"
    assert crowd.put == []
    crowd.says(2)
    assert crowd.ended == []
    crowd.says(3)
    assert crowd.ended == [IDLE] * MANY and crowd.put == []
    assert 1 < crowd.ends < 20, "in slices"
    assert crowd.expiry.lacking == {}


def test_what_one_of_many_is_used_for_is_put_back_and_stays(crowd):
    crowd.idle(1, EVERY)
    crowd.says(2, used={5})
    crowd.says(3, used={7, MANY})
    assert sorted(crowd.put) == [(5, 1), (7, 1), (MANY, 1)]
    assert len(crowd.ended) == MANY - 3 and len(crowd.table) == 3
    assert crowd.expiry.lacking == {}


def test_what_all_switches_have_reported_ends_without_a_question(crowd):
    crowd.idle(1, EVERY)
    crowd.idle(2, EVERY)
    assert crowd.ended == []
    crowd.idle(3, EVERY)
    assert crowd.ended == [IDLE] * MANY
    assert crowd.questions() == [0, 1, 1], "of the time before"


def test_what_is_reported_during_a_question_is_the_next_one(crowd):
    """Many reports arrive in many turns."""
    for start in range(0, MANY, 50):
        crowd.idle(1, EVERY[start : start + 50])
    assert crowd.questions() == [0, 50, 50], "one about each of the first, and no more at a time"
    for index in (2, 3):
        for number in range(1, 51):
            crowd.says(index, there=[number])
    assert crowd.ended == [IDLE] * 50
    assert crowd.questions() == [0, 1, 1]
    for index in (2, 3):
        crowd.says(index)
    assert crowd.ended == [IDLE] * MANY and crowd.put == []


def test_copies_are_put_back_if_the_switches_do_not_answer(crowd, clock):
    crowd.idle(1, EVERY)
    clock.now += 0.9
    crowd.expiry.tick(clock.now)
    assert crowd.put == []
    crowd.says(2)
    clock.now += 0.9
    crowd.expiry.tick(clock.now)
    assert crowd.put == [], "one of them has answered meanwhile"
    clock.now += 0.2
    crowd.expiry.tick(clock.now)
    assert 0 < len(crowd.put) < MANY, "in slices"
    clock.end_turns()
    assert sorted(crowd.put) == [(number, 1) for number in EVERY]
    crowd.says(3)
    assert crowd.ended == [], "the first has not been asked about its new copies"
    assert crowd.expiry.lacking == {}


def test_a_switch_that_goes_on_reporting_is_waited_for(crowd, clock):
    """On a slow line it does not answer meanwhile. What it reports ends."""
    crowd.idle(1, EVERY)
    crowd.says(2)
    for number in EVERY[:100]:
        clock.now += 0.5
        crowd.idle(2, [number])
        crowd.idle(3, [number])
        crowd.expiry.tick(clock.now)
        clock.end_turns()
    assert crowd.ended == [IDLE] * 100 and crowd.put == []


def test_a_packet_in_the_gap_keeps_one_of_many(crowd, clock):
    """Its copy is put back at once."""
    crowd.idle(1, EVERY)
    frame = frames.udp(dport=9)
    packet = SimpleNamespace(data=frame, total_len=len(frame))
    assert crowd.expiry.hit_in_gap(packet, 1, None) is crowd.entries[8]
    assert crowd.put == [(9, 1)]
    crowd.says(2)
    crowd.says(3)
    assert len(crowd.ended) == MANY - 1 and crowd.put == [(9, 1)]


def test_a_switch_that_is_lost_in_the_midst_of_it_is_not_sent_its_copies(crowd, clock):
    """When it is back it is found what it lacks. Until then it may hold all flows."""
    crowd.idle(1, EVERY)
    crowd.switches[0].is_lost(clock.now)
    crowd.expiry.lost(crowd.switches[0])
    crowd.says(2)
    crowd.says(3)
    assert crowd.ended == [] and crowd.put == [] and crowd.expiry.lacking == {}


def test_flows_that_end_otherwise_in_the_midst_of_it_are_not_looked_at_again(crowd):
    crowd.idle(1, EVERY)
    crowd._end(list(crowd.entries[:10]), of.RemovedReason.DELETE)
    assert len(crowd.expiry.lacking) == MANY - 10
    crowd.says(2)
    crowd.says(3)
    assert crowd.ended.count(IDLE) == MANY - 10


def test_many_hard_timeouts_are_up_in_slices(clock):
    crowd = Crowd(clock, hard=T)
    crowd.expiry.tick(clock.now)
    assert 0 < len(crowd.ended) < MANY
    crowd.expiry.tick(clock.now)
    clock.end_turns()
    assert crowd.ended == [HARD] * MANY


def test_flows_of_a_lost_switch_are_looked_at_in_slices(crowd, clock):
    for switch in crowd.switches:
        switch.is_lost(clock.now)
    crowd.expiry.lost(crowd.switches[0])
    crowd.expiry.tick(clock.now + DEAD)
    assert 0 < len(crowd.ended) < MANY
    clock.end_turns()
    crowd.expiry.tick(clock.now + DEAD)
    clock.end_turns()
    assert crowd.ended == [IDLE] * MANY
