"""Idle timeouts while switches come and go: no flow in use ends, and no packet counts twice."""

import collections
import heapq
import itertools
import os
import random
import re
import time
from collections import Counter

from lab import frames
from lab import openflow10 as of
from lab.openflow10 import RemovedReason, Type

SECONDS = float(os.environ.get("EDGE_SOAK_SECONDS", "15"))
SEED = int(os.environ.get("EDGE_SOAK_SEED", "1"))
ENTRIES, EXITS = (1, 17, 33), (2, 18, 34)
FLOWS = 24
FAULTS, IDLE_ENDS = SECONDS / 10, SECONDS / 5
"""The least number of faults and of idle ends for which the test has any meaning."""
MILLISECOND = 0.001
"""Seconds. A flow-removed gives the duration in whole milliseconds."""
PROMPT = 0.3
"""Seconds that the aggregator may be late: it looks at its timers ten times a second."""
OLD = 0.6
"""Seconds for which the aggregator may rely on a switch's answer about a flow (session._STALL and
one tick of the aggregator).
"""
LOST = 2.0 * 4 / 3 + PROMPT
"""Seconds after which a switch that does not answer is lost (--switch_timeout)."""
TOLD = LOST + 2.0 + LOST
"""Seconds from a flow's end to its flow-removed. A switch that does not report its counters has to
answer a barrier, and another one after some time (removals.LONGEST_WAIT).
"""


class Flow:
    """A flow. When it ends, another Flow with another address takes its place.

    The aggregator's clock for the flow started between `added` and `known`: at `known` the echo
    request behind the flow-mod was answered.

    uses: (sent, seen) for each frame that came out: when it was sent, and when it was seen.
    """

    numbers = itertools.count(1000)

    def __init__(self, rng, priority):
        self.priority = priority
        self.address = frames.host_mac(next(self.numbers))
        self.in_port = rng.choice((None, None, *ENTRIES))
        self.out = rng.choice(EXITS)
        self.idle = rng.choice((1, 2, 3))
        self.hard = rng.choice((0, 0, 0, 4, 7))
        self.sent = 0
        self.uses = []
        self.known = None

    def add(self, controller):
        """Send the flow-mod, and an echo request behind it."""
        fields = {"dl_dst": self.address}
        if self.in_port:
            fields["in_port"] = self.in_port
        flow_mod = of.flow_mod(
            of.match(**fields),
            of.output(self.out),
            priority=self.priority,
            idle_timeout=self.idle,
            hard_timeout=self.hard,
            flags=of.Flag.SEND_FLOW_REM,
        )
        self.added = time.monotonic()
        controller.send(flow_mod, of.message(Type.ECHO_REQUEST, xid=self.priority))


class Ways:
    """How long frames and messages were on their way: a measure of how busy the machine is.

    A switch, the aggregator or this test may have to wait for the processor. Everything that they
    do then is late by as much.
    """

    def __init__(self):
        self._ended = collections.deque(maxlen=10000)

    def add(self, begin, end):
        """Note something that was on its way from `begin` to `end`."""
        self._ended.append((begin, end))

    def longest(self, since):
        """Return the longest way that ended after `since`, in seconds."""
        return max((end - begin for begin, end in self._ended if end >= since), default=0)


class Faults:
    """Cuts off switches 2 and 3, one fault at a time for each, and mends the faults.

    No switch is frozen: after a freeze Open vSwitch itself ends flows whose frames have waited.

    told: (time, text) of each fault and each repair.
    """

    def __init__(self, bed, rng):
        self.bed, self.rng = bed, rng
        self.done = Counter()
        self.told = []
        self._mends = []
        self._broken = set()
        self._next = time.monotonic() + 1

    def step(self, now):
        while self._mends and self._mends[0][0] <= now:
            _, dpid, mend = heapq.heappop(self._mends)
            self._broken.discard(dpid)
            self.told.append((now, f"s{dpid} mended"))
            mend()
        if now > self._next:
            self._next = now + self.rng.random() * 2
            dpid = self.rng.choice((2, 3))
            if dpid not in self._broken:
                self._break(dpid, now)

    def _break(self, dpid, now):
        switch, relay = self.bed.network.switches[dpid], self.bed.relays[dpid]
        kinds = {
            "away": (lambda: (relay.refuse(), relay.drop()), lambda: relay.refuse(False)),
            "cut off": (switch.lose, lambda: switch.lose(False)),
            "swallowed": (relay.swallow, relay.flow),
            "dropped": (relay.drop, lambda: None),
        }
        kind = self.rng.choice(sorted(kinds))
        self.done[kind] += 1
        self.told.append((now, f"s{dpid} {kind}"))
        break_, mend = kinds[kind]
        break_()
        self._broken.add(dpid)
        heapq.heappush(self._mends, (now + self.rng.random() * 6, dpid, mend))

    def end(self):
        for _, _, mend in self._mends:
            mend()


class Soak:
    """The flows, the frames for them, and what becomes of both."""

    def __init__(self, bed, rng):
        self.bed, self.rng = bed, rng
        self.faults = Faults(bed, rng)
        self.ways = Ways()
        self.ended = Counter()
        self.flows = {priority: Flow(rng, priority) for priority in range(1000, 1000 + FLOWS)}
        self.used = {priority: rng.choice(ENTRIES) for priority in self.flows}
        """The port where frames for each flow enter; None while it gets no frames."""
        self._change = 0.0
        self._payloads = itertools.count()
        self._in_flight = {}
        self._looked_at = 0.0
        self._ask_for_echo()
        for flow in self.flows.values():
            flow.add(bed.controller)

    def done(self):
        """Whether enough faults and idle ends have happened."""
        faults = sum(self.faults.done.values())
        return faults >= FAULTS and self.ended[RemovedReason.IDLE_TIMEOUT] >= IDLE_ENDS

    def step(self):
        """Send some frames; look at frames and messages that have come."""
        now = time.monotonic()
        self.faults.step(now)
        if now > self._change:
            self._change = now + self.rng.random() * 1.5
            for priority in self.rng.sample(sorted(self.flows), 4):
                self.used[priority] = self.rng.choice((None, *ENTRIES))
        for priority, flow in self.flows.items():
            if self.used[priority] and self.rng.random() < 0.15:
                self._send(flow, flow.in_port or self.used[priority])
        self._receive()
        self._hear()

    def _send(self, flow, entry):
        payload = next(self._payloads).to_bytes(8, "big")
        frame = frames.ethernet(
            src=frames.host_mac(entry), dst=flow.address, ethertype=0x9000, payload=payload
        )
        self._in_flight[frame] = flow, time.monotonic()
        flow.sent += 1
        self.bed.network.ports[entry].send(frame)

    def _receive(self):
        for number in EXITS:
            while True:
                frame = self.bed.network.ports[number].receive(0.003)
                if frame is None:
                    break
                if frame in self._in_flight:
                    flow, sent = self._in_flight.pop(frame)
                    seen = time.monotonic()
                    flow.uses.append((sent, seen))
                    if flow.in_port:  # others may wait in the aggregator for a cut cable
                        self.ways.add(sent, seen)

    def _hear(self):
        controller = self.bed.controller
        looked_at, self._looked_at = self._looked_at, time.monotonic()
        for message in controller.take():
            now = time.monotonic()
            if message.type == Type.FLOW_REMOVED:
                removed = of.unpack_flow_removed(message.body)
                self._removed(removed, looked_at)
                self.flows[removed.priority] = Flow(self.rng, removed.priority)
                self.flows[removed.priority].add(controller)
            elif message.type == Type.ECHO_REPLY and message.xid:
                self.flows[message.xid].known = now
            elif message.type == Type.ECHO_REPLY:
                self.ways.add(self._echo, now)
                self._ask_for_echo()
            assert message.type != Type.ERROR, message

    def _ask_for_echo(self):
        """Send an echo request. One is always on its way."""
        self._echo = time.monotonic()
        self.bed.controller.send(of.message(Type.ECHO_REQUEST))

    def _removed(self, removed, looked_at):
        """Check a flow-removed: the flow may end, at this time, and with these counters.

        looked_at: a time at which the flow-removed had not come yet.
        """
        flow = self.flows[removed.priority]
        assert removed.match["dl_dst"] == flow.address, "it has ended twice"
        # The flow has ended between these two moments.
        earliest = flow.added + removed.duration
        latest = flow.known + removed.duration + MILLISECOND
        late = max(self.ways.longest(latest - OLD), time.monotonic() - self._echo)
        wrong = []
        assert earliest <= time.monotonic(), "it has not been there for so long"
        if removed.reason == RemovedReason.IDLE_TIMEOUT:
            if removed.duration < flow.idle:
                wrong.append("it was too young")
            asked = self._asked(flow)
            # The aggregator cannot know of a frame that a switch had not seen when it was asked.
            # Nor can it know of later frames, for as long as the answers are valid, or while the
            # switches report without being asked.
            before = earliest - late if asked is None else max(asked, earliest - OLD - late)
            for sent, seen in reversed(flow.uses):
                if sent + flow.idle > latest and seen < before:
                    wrong.append(f"it was used {earliest - seen:.3f} s before")
                    break
        else:
            assert removed.reason == RemovedReason.HARD_TIMEOUT, removed
            if not 0 <= removed.duration - flow.hard < PROMPT + late:
                wrong.append(f"after {removed.duration} s instead of {flow.hard}")
        if looked_at - latest > TOLD + late:
            wrong.append(f"told {looked_at - latest:.3f} s after that")
        if removed.packet_count > flow.sent:
            wrong.append(f"of {flow.sent} packets it has counted {removed.packet_count}")
        assert not wrong, "\n".join([*wrong, self._story(flow, removed, earliest, late)])
        self.ended[removed.reason] += 1

    def _asked(self, flow):
        """Return when the switches were asked whether this flow was idle; None if they were not."""
        told = rf"dl_dst={flow.address}\b.*: idle on all switches; asked ([\d.]+) s after"
        found = re.search(told, self.bed.aggregator.log())
        return flow.added + float(found[1]) if found else None

    def _story(self, flow, removed, end, late):
        """Describe the flow for a failure. Times are relative to its end."""
        lines = [
            f"in_port={flow.in_port} idle={flow.idle} hard={flow.hard} late={late:.3f} {removed}",
            f"added {flow.added - end:.3f} known {flow.known - end:.3f}",
            *(f"sent {sent - end:.4f} seen {seen - end:.4f}" for sent, seen in flow.uses[-10:]),
            *(f"{when - end:.4f} {what}" for when, what in self.faults.told),
            *(line for line in self.bed.aggregator.log().splitlines() if flow.address in line),
        ]
        return "\n".join(lines)


def test_no_flow_in_use_ends_while_switches_come_and_go(bed):
    """Random frames, and control connections that are cut at random, for EDGE_SOAK_SECONDS."""
    soak = Soak(bed, random.Random(SEED))
    begin = time.monotonic()
    while time.monotonic() < begin + SECONDS or not soak.done():
        soak.step()
        assert time.monotonic() < begin + SECONDS + 60, "too little has happened"
    soak.faults.end()
    print(dict(soak.faults.done), dict(soak.ended))
