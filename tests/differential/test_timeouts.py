"""Timeouts: when flows end, what the controller is told, and that no packet is lost meanwhile.

OpenFlow 1.0.0, 3.5, 4.6 and 5.4.3. A flow of the big switch without in_port has a copy on each of
its switches, each with its own timers. The controller must not notice that.
"""

import random
import time

import pytest
from lab import frames
from lab import openflow10 as of
from lab.openflow10 import Command, Flag, Port, RemovedReason

from .both import wait_for
from .specimens import PORTS

REMOVED = Flag.SEND_FLOW_REM
IDLE, HARD, DELETE = (
    RemovedReason.IDLE_TIMEOUT,
    RemovedReason.HARD_TIMEOUT,
    RemovedReason.DELETE,
)


@pytest.fixture
def big_switch(quick_big_switch):
    """Durations are compared here."""
    return quick_big_switch


class Clock:
    """Seconds since the clock was made."""

    def __init__(self):
        self.start = time.monotonic()

    def until(self, seconds):
        """Sleep until this many seconds after the start."""
        time.sleep(max(0, self.start + seconds - time.monotonic()))

    @property
    def now(self):
        return time.monotonic() - self.start


def frame_for(number):
    """Return a frame that meets the flow with this cookie."""
    return frames.udp(dport=number, payload=b"%8d" % number)


def match_for(number, in_port=None):
    fields = {"dl_type": 0x800, "nw_proto": 17, "tp_dst": number}
    if in_port is not None:
        fields["in_port"] = in_port
    return of.match(**fields)


def add(both, number, in_port=None, out=18, **fields):
    """Add a flow with this cookie."""
    both.flow_mod(match_for(number, in_port), of.output(out), cookie=number, **fields)


def reasons(removed):
    return {message.cookie: message.reason for message in removed}


def packets(removed):
    return {message.cookie: message.packet_count for message in removed}


def test_flows_without_traffic(both):
    """Idle and hard timeouts and both, on one switch and on all, with and without SEND_FLOW_REM."""
    number = 0
    expected = {}
    for in_port in (None, 1, 17):
        for idle, hard, flags, reason in (
            (1, 0, REMOVED, IDLE),
            (0, 1, REMOVED, HARD),
            (1, 2, REMOVED, IDLE),
            (2, 1, REMOVED, HARD),
            (3, 0, REMOVED, IDLE),
            (1, 0, 0, None),
            (0, 1, 0, None),
            (30, 0, REMOVED, None),
            (0, 30, REMOVED, None),
            (0, 0, REMOVED, None),
        ):
            number += 1
            add(both, number, in_port, idle_timeout=idle, hard_timeout=hard, flags=flags)
            if reason is not None:
                expected[number] = reason
    assert reasons(both.removed(len(expected))) == expected
    left = {flow.cookie for flow in both.flows()}
    assert left == {number for number in range(1, 31) if number % 10 in (8, 9, 0)}
    assert len(both.inject(17, frame_for(1)).packet_ins) == 1
    both.quiet()


def test_flows_of_every_width_and_priority(both):
    matches = [
        of.match(),
        of.match(in_port=17),
        of.match(in_port=3),
        of.match(in_port=100),
        of.match(in_port=Port.NONE),
        of.match(tp_dst=80),
        of.match(dl_type=0x806),
        of.match(dl_vlan=5),
    ]
    number = 0
    for match in matches:
        for priority in (0, 1, 0xFFFF):
            number += 1
            both.flow_mod(
                match,
                of.output(1),
                priority=priority,
                cookie=number,
                hard_timeout=1 if number % 2 else 0,
                idle_timeout=1,
                flags=REMOVED,
            )
    assert len(both.removed(number)) == number
    assert both.flows() == []
    both.quiet()


def test_traffic_anywhere_keeps_a_flow(both):
    """Each cookie is another pattern of use.

    1 and 2 are used on one switch alone, and 3 on both in turn. 4 is used for the first half, and 5
    not at all. 6 is used all the time, but has a hard timeout. 7 and 8 are for one port, and are
    used there.
    """
    both.patient = True
    used = {1: [17], 2: [1], 3: [2, 18], 4: [18], 6: [1, 17], 7: [17], 8: [1]}
    sent = dict.fromkeys(range(1, 9), 0)
    for number in range(1, 9):
        in_port = {7: 17, 8: 1}.get(number)
        add(
            both,
            number,
            in_port,
            idle_timeout=2,
            hard_timeout=4 if number == 6 else 0,
            flags=REMOVED,
            out=Port.FLOOD,
        )
    clock = Clock()
    step = 0
    while clock.now < 5.2:
        clock.until(step * 0.6)
        for number, ports in used.items():
            if number == 4 and step > 4 or number == 6 and clock.now > 3:
                continue
            outcome = both.inject(ports[step % len(ports)], frame_for(number))
            assert len(outcome.ports) == 3, f"flow {number} at {clock.now:.2f} s"
            sent[number] += 1
        step += 1
    # The switch where a flow was not used still has its copy, or has got it back in time.
    for number, port in ((1, 1), (2, 17), (2, 18), (1, 2)):
        outcome = both.inject(port, frame_for(number))
        assert (len(outcome.ports), outcome.packet_ins) == (3, [])
        sent[number] += 1
    counters = both.counters()
    assert counters == {number: (sent[number], 60 * sent[number]) for number in (1, 2, 3, 7, 8)}
    removed = both.removed(8)
    assert reasons(removed) == {**dict.fromkeys(range(1, 9), IDLE), 6: HARD}
    assert packets(removed) == sent
    assert both.flows() == []
    both.quiet()


def test_packets_in_the_gap_are_forwarded(both):
    """Packets enter one switch around the moment when the unused copy there expires."""
    both.patient = True
    count = 40
    sent = dict.fromkeys(range(1, count + 1), 0)
    for number in sent:
        add(both, number, idle_timeout=2, flags=REMOVED, out=17)
    clock = Clock()

    def use_all_elsewhere():
        used_at = clock.now
        both.each(lambda bed: bed.wires.send(18, *(frame_for(number) for number in sent)))
        both.outcome()
        for number in sent:
            sent[number] += 1
        return used_at

    use_all_elsewhere()
    clock.until(1.4)
    used_at = use_all_elsewhere()
    for number in sent:
        clock.until(1.95 + 0.02 * number)
        if clock.now > used_at + 0.7:  # on a busy machine this is often
            used_at = use_all_elsewhere()
        entry = 1 + number % 2
        assert both.inject(entry, frame_for(number)) == ({17: [frame_for(number)]}, [])
        sent[number] += 1
    assert {cookie: n for cookie, (n, _) in both.counters().items()} == sent
    use_all_elsewhere()
    assert packets(both.removed(count)) == sent
    both.quiet()


@pytest.mark.parametrize("below", [None, 0, 5], ids=["table miss", "lowest", "low"])
def test_packets_in_a_long_gap_do_not_come_to_the_controller(both, below):
    """Nor do they meet a lower flow that sends all to the controller, as many controllers install.

    The aggregator is frozen until the copy on one switch has expired, so that the gap lasts.
    """
    if below is not None:
        both.flow_mod(of.match(), of.output(Port.CONTROLLER), priority=below, cookie=9999)
    add(both, 1, idle_timeout=1, out=17)
    used = 0
    first = both.big.network.switches[1]

    def is_on_first():
        """Use the flow on the other switch; return whether the copy is on the first switch."""
        nonlocal used
        for bed in both.beds:
            bed.wires.send(18, frame_for(1))
            assert bed.wires.capture() == {17: [frame_for(1)]}
        used += 1
        return any("tp_dst=1 " in flow for flow in first.flows())

    assert is_on_first()
    both.big.aggregator.freeze()
    try:
        wait_for(lambda: not is_on_first(), "end of the copy")
        both.each(lambda bed: bed.wires.send(1, *[frame_for(1)] * 3, frames.udp()))
        assert both.plain.wires.capture() == {17: [frame_for(1)] * 3}
        assert both.big.wires.capture() == {}
    finally:
        both.big.aggregator.thaw()
    both.patient = True
    both.plain.wires.send(1, frame_for(1))
    both.big.wires.send(1, frame_for(1))
    both.each(lambda bed: bed.settle())
    assert both.big.wires.capture() == {17: [frame_for(1)] * 4}
    assert both.plain.wires.capture() == {17: [frame_for(1)]}
    (packet_in,) = both.outcome().packet_ins
    assert packet_in.data == frames.udp()
    counters = both.counters()
    assert counters.pop(9999, (1, 60)) == (1, 60)
    assert counters == {1: (used + 4, (used + 4) * 60)}
    both.table()


def test_flows_changed_while_their_time_runs(both):
    """MODIFY and ADD restart the hard timeout. Neither restarts the idle timeout: Open vSwitch
    keeps the time of last use.

    Flows 1 to 6 and 51 to 54 are for all ports; flows with a cookie ten higher are for port 17. 52,
    53, 62 and 63 are used, on one switch alone.
    """
    clock = Clock()
    for base, in_port in ((50, None), (60, 17)):
        for number in (1, 2, 3, 4):
            add(both, base + number, in_port, idle_timeout=2, flags=REMOVED)
    for base, in_port in ((0, None), (10, 17)):
        add(both, base + 1, in_port, hard_timeout=2, flags=REMOVED)  # modified at 1
        add(both, base + 2, in_port, idle_timeout=2, flags=REMOVED)  # modified at 1
        add(both, base + 3, in_port, idle_timeout=2, flags=REMOVED)  # added again at 1
        add(both, base + 4, in_port, hard_timeout=2, flags=REMOVED)  # added again at 1
        add(both, base + 5, in_port, idle_timeout=1, flags=REMOVED)  # replaced for good
        add(both, base + 6, in_port, hard_timeout=1, flags=REMOVED)  # replaced for good
    clock.until(0.6)
    for number in (52, 53, 62, 63):
        both.inject(17, frame_for(number))
    for base, in_port in ((0, None), (10, 17)):
        add(both, base + 5, in_port)
        add(both, base + 6, in_port)
    clock.until(1)
    for base, in_port in ((0, None), (10, 17)):
        for number in (1, 2):
            both.flow_mod(
                match_for(base + number, in_port),
                of.output(1),
                Command.MODIFY if number == 1 else Command.MODIFY_STRICT,
                cookie=base + number,
                idle_timeout=9,
                hard_timeout=9,
            )
        add(both, base + 3, in_port, idle_timeout=2, flags=REMOVED)
        add(both, base + 4, in_port, hard_timeout=2, flags=REMOVED)
    clock.until(1.2)
    for base, in_port in ((50, None), (60, 17)):
        add(both, base + 1, in_port, idle_timeout=3, flags=REMOVED)
        add(both, base + 2, in_port, idle_timeout=2, flags=REMOVED)
        add(both, base + 3, in_port, idle_timeout=2, hard_timeout=1, flags=REMOVED)
        add(both, base + 4, in_port, idle_timeout=1, flags=REMOVED)
    ends = {1: HARD, 2: IDLE, 3: IDLE, 4: HARD, 51: IDLE, 52: IDLE, 53: HARD, 54: IDLE}
    ends.update({number + 10: reason for number, reason in ends.items()})
    assert reasons(both.removed(16)) == ends
    assert {flow.cookie for flow in both.flows()} == {5, 6, 15, 16}
    both.quiet()


def test_flows_changed_after_a_copy_has_expired(both):
    """All flows are used on port 17 alone until well after the other switch's copies have expired.

    Then 1 is deleted, 2 strictly deleted, 3 modified, 4 replaced, 5 only used on the other switch,
    6 modified to the same actions, 7 deleted by its out_port, and 8 only read in statistics.
    """
    both.patient = True
    sent = dict.fromkeys(range(1, 9), 0)
    for number in sent:
        add(both, number, idle_timeout=1, flags=REMOVED)
    clock = Clock()

    def use(port, *numbers):
        for number in numbers:
            assert both.inject(port, frame_for(number)).packet_ins == []
            sent[number] += 1

    seen = 0
    for step in range(6):
        clock.until(step * 0.35)
        use(17, *sent)
        total = both.aggregate().packet_count
        assert total == seen + 8, "counters never go down"
        seen = total
    both.flow_mod(match_for(1), command=Command.DELETE)
    both.flow_mod(match_for(2), command=Command.DELETE_STRICT)
    assert packets(both.removed(2)) == {1: 6, 2: 6}
    both.flow_mod(match_for(3), of.output(2), Command.MODIFY, cookie=3)
    add(both, 4, out=2, idle_timeout=1, flags=REMOVED)
    sent[4] = 0
    both.flow_mod(match_for(6), of.output(18), Command.MODIFY_STRICT, cookie=6)
    both.flow_mod(match_for(7), command=Command.DELETE, out_port=18)
    assert packets(both.removed(1)) == {7: 6}
    assert {number: n for number, (n, _) in both.counters().items()} == {
        number: sent[number] for number in (3, 4, 5, 6, 8)
    }
    use(1, 3, 4, 5, 6)
    for number in (3, 4):
        assert both.inject(1, frame_for(number)).ports == [2]
        sent[number] += 1
    assert packets(both.removed(5)) == {number: sent[number] for number in (3, 4, 5, 6, 8)}
    both.quiet()


def test_a_put_back_copy_and_a_restarted_hard_timeout(both):
    """The flows are used on one switch alone. On the other switch the copy idles out when little of
    its hard timeout is left, and is put back. A MODIFY then restarts the hard timeout of the whole
    flow.
    """
    both.patient = True
    for number in (1, 2):
        add(both, number, idle_timeout=2, hard_timeout=3, flags=REMOVED)
    clock = Clock()
    for moment in (1.7, 2.1):
        clock.until(moment)
        both.inject(18, frame_for(1))
        both.inject(1, frame_for(2))
    clock.until(2.4)
    for number in (1, 2):
        both.flow_mod(match_for(number), of.output(2), Command.MODIFY, cookie=number)
    clock.until(3.8)
    for number, port in ((1, 18), (2, 1)):
        for entry in (port, 17):
            assert both.inject(entry, frame_for(number)).ports == [2]
    removed = both.removed(2)
    assert reasons(removed) == {1: HARD, 2: HARD}
    assert packets(removed) == {1: 4, 2: 4}


def test_many_flows_end_at_once(both):
    """A thousand flows end, and each sends one message."""
    both.do(
        *(
            of.flow_mod(
                match_for(number),
                of.output(2),
                cookie=number,
                idle_timeout=number % 2,
                hard_timeout=(number + 1) % 2,
                flags=REMOVED,
            )
            for number in range(1, 1001)
        )
    )
    removed = both.removed(1000, timeout=20)
    assert reasons(removed) == {number: IDLE if number % 2 else HARD for number in range(1, 1001)}
    assert both.aggregate().flow_count == 0
    both.quiet()


def test_the_end_is_told_with_the_last_cookie_and_priority(both):
    """The cookie is that of the last MODIFY. The match is as statistics show it."""
    both.flow_mod(
        of.match(dl_type=0x800, nw_src="10.0.0.99/8", nw_tos=3),
        of.output(1),
        priority=77,
        cookie=1,
        hard_timeout=1,
        flags=REMOVED,
    )
    both.flow_mod(of.match(), of.output(2), Command.MODIFY, cookie=2)
    (removed,) = both.removed(1)
    assert (removed.cookie, removed.priority, removed.reason) == (2, 77, HARD)
    assert removed.match == {"dl_type": 0x800, "nw_src": "10.0.0.0/8", "nw_tos": 0}


def test_packet_outs_through_the_table_keep_a_flow(both):
    """A packet-out through the table counts as traffic."""
    add(both, 1, idle_timeout=1, flags=REMOVED)
    add(both, 2, in_port=17, idle_timeout=1, flags=REMOVED)
    clock = Clock()
    for step in range(7):
        clock.until(step * 0.35)
        to_table = of.output(Port.TABLE)
        assert both.packet_out(frame_for(1), to_table, 2).ports == [18]
        assert both.packet_out(frame_for(2), to_table, 17).ports == [18]
    assert packets(both.removed(2)) == {1: 7, 2: 7}


def test_flows_that_are_counted_to_their_last_packet(both):
    """Flows are deleted, replaced and expire under traffic. Every packet is counted by one flow, or
    comes as one packet-in.
    """
    sent = 0
    for number in (1, 2, 3):
        add(both, number, hard_timeout=1 if number == 3 else 0, flags=REMOVED)
    clock = Clock()
    answered = 0
    while clock.now < 1.6:
        both.each(
            lambda bed: [
                bed.wires.send(port, frame_for(number)) for port in PORTS for number in (1, 2, 3)
            ]
        )
        sent += 4
        if sent == 40:
            both.flow_mod(match_for(1), command=Command.DELETE)
        if sent == 80:
            add(both, 2, flags=REMOVED)

    def count(bed):
        bed.settle()
        bed.settle()
        counted = dict.fromkeys((1, 2, 3), 0)
        for packet_in in bed.controller.packet_ins():
            counted[int(packet_in.data[42:50])] += 1
        for message in bed.controller.take(of.Type.FLOW_REMOVED):
            removed = of.unpack_flow_removed(message.body)
            counted[removed.cookie] += removed.packet_count
        for flow in bed.controller.flow_stats():
            counted[flow.cookie] += flow.packet_count
        out = sum(len(got) for got in bed.wires.capture().values())
        return counted, out

    for bed in both.beds:
        counted, out = count(bed)
        assert counted[1] == sent
        assert counted[3] == sent
        assert 0 < counted[2] < sent, "the replaced flow took its count along"
        answered = max(answered, out)
    assert answered


def test_durations(both):
    """A duration runs from the ADD, and a MODIFY does not restart it. Another ADD does."""
    clock = Clock()
    for number, in_port in ((1, None), (2, 17), (3, None)):
        add(both, number, in_port, flags=REMOVED)
    clock.until(0.5)
    both.flow_mod(of.match(), of.output(2), Command.MODIFY, cookie=0xFFFFFFFFFFFFFFFF)
    add(both, 3, flags=REMOVED)
    clock.until(1.2)

    def ask(bed):
        return {flow.cookie: flow.duration for flow in bed.controller.flow_stats()}

    for bed in both.beds:
        durations = ask(bed)
        passed = clock.now + 0.01  # Open vSwitch's clock ticks in steps
        assert passed - 0.3 < durations[1] <= passed
        assert passed - 0.3 < durations[2] <= passed
        assert passed - 0.8 < durations[3] <= passed - 0.4
        assert {round(duration * 1e9) % 10**6 for duration in durations.values()} == {0}
    both.flow_mod(command=Command.DELETE)
    both.removed(3)


class Life:
    """One flow's random life, and a model of its timers that says when not to touch the flow.

    What happens close to a timer's end may come before or after it.
    """

    STEP, DANGER = 0.3, 0.75

    def __init__(self, number, dice):
        self.number = number
        self.dice = dice
        self.in_port = dice.choice((None, None, 1, 17))
        self.home = PORTS if self.in_port is None else (self.in_port,)
        # A flow for all ports is used on one switch alone for a while, then on another.
        self.used_at = dice.choice(self.home)
        self.busy = dice.random()
        self.there = False
        self.used = self.hard_since = 0.0
        self.idle = self.hard = 0

    def ends(self):
        """When the flow will end, in seconds of the clock, as far as the model knows."""
        idle_end = self.used + self.idle if self.idle else 1e9
        hard_end = self.hard_since + self.hard if self.hard else 1e9
        return min(idle_end, hard_end)

    def tie(self, used, hard_since):
        """Whether both timers would end at nearly the same time, so that either may be the
        reason.
        """
        idle_end, hard_end = used + self.idle, hard_since + self.hard
        return self.idle and self.hard and abs(idle_end - hard_end) < self.DANGER

    def act(self, now):
        """Choose what to do with the flow now: return a message, a port for its frame, or None."""
        if self.there and now > self.ends() - 0.2:
            if now < self.ends() + self.DANGER:
                return None
            self.there = False
        match = match_for(self.number, self.in_port)
        fate = self.dice.random()
        if not self.there and fate < 0.3 or fate < 0.02:
            return self.add(now, match)
        if not self.there:
            return None
        if fate < 0.06 and not self.tie(self.used, now):
            self.hard_since = now
            command = self.dice.choice((Command.MODIFY, Command.MODIFY_STRICT))
            return of.flow_mod(match, of.output(2), command, cookie=self.number)
        if fate < 0.08:
            self.there = False
            return of.flow_mod(match, command=Command.DELETE)
        if fate < 0.15:
            self.used_at = self.dice.choice(self.home)
        if self.dice.random() < self.busy and not self.tie(now, self.hard_since):
            self.used = now
            return self.used_at
        return None

    def add(self, now, match):
        """Return an ADD. A flow that replaces another inherits the time of last use."""
        if not self.there:
            self.used = now
        self.idle, self.hard = self.dice.choice(((1, 0), (2, 0), (0, 2), (1, 3), (2, 3), (3, 2)))
        while self.idle and self.used + self.idle < now + 0.2 or self.tie(self.used, now):
            self.idle += 1
        self.there, self.hard_since = True, now
        return of.flow_mod(
            match,
            of.output(18),
            cookie=self.number,
            idle_timeout=self.idle,
            hard_timeout=self.hard,
            flags=REMOVED,
        )


def live(both, seed, count, seconds):
    """Let `count` flows live random lives for some seconds."""
    dice = random.Random(seed)
    lives = [Life(number, dice) for number in range(1, count + 1)]
    clock = Clock()
    step = 0
    while clock.now < seconds:
        step += 1
        clock.until(step * Life.STEP)
        now = clock.now
        messages = []
        sent = {}
        for life in lives:
            action = life.act(now)
            if isinstance(action, bytes):
                messages.append(action)
            elif action is not None:
                sent.setdefault(action, []).append(frame_for(life.number))
        both.do(*messages)
        for port, burst in sent.items():
            # Frames that met a gap may arrive after others, so the order is not compared.
            both.each(lambda bed, port=port, burst=burst: bed.wires.send(port, *burst))

        def arrived(bed):
            for _ in range(2):
                bed.settle()  # twice: the aggregator sends frames that met a gap once more
            assert bed.controller.packet_ins() == []
            return {port: sorted(got) for port, got in bed.wires.capture().items()}

        both.same(arrived, f"after {now:.1f} s")
    clock.until(seconds + 4)


def test_random_lives(both):
    """A hundred flows for some seconds: added, used, modified, deleted and expired at random."""
    live(both, 1, 100, 6)
    both.flow_mod(command=Command.DELETE)
    ended = both.removed_so_far()
    assert len(ended) > 100
    assert {message.reason for message in ended} == {IDLE, HARD, DELETE}
    both.quiet()
