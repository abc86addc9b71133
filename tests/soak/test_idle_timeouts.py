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
"""How many it must have been for the test to say anything."""
MILLISECOND = 0.001
"""Seconds.  A flow-removed says how long a flow was there in whole ones."""
PROMPT = 0.3
"""Seconds that the aggregator may take for what has its time: it looks at it ten times a second."""
OLD = 0.6
"""Seconds: what switches have said of a flow is not taken for true for longer (member._STALL, and
a tick of the aggregator)."""
TOLD = 2.0 + PROMPT
"""Seconds from a flow's end to its flow-removed: a switch that does not tell what it has counted
is waited for (removals.PATIENCE)."""


class Flow:
    """One flow after the other in the same place; each has an address of its own.

    The aggregator's clock for it began between `added` and `known`, when an echo request that was
    sent after the flow had been answered.

    uses: when frames were sent that have come out, and when they were seen there
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
        """Have it added."""
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
    """How long frames and messages have been on their way: how busy the machine has been.

    A switch, the aggregator or this test may have to wait for the processor; what they are late
    for then is as late.
    """

    def __init__(self):
        self._ended = collections.deque(maxlen=10000)

    def add(self, begin, end):
        """Something that was on its way from `begin` on has come."""
        self._ended.append((begin, end))

    def longest(self, since):
        """The longest of those that have come since then."""
        return max((end - begin for begin, end in self._ended if end >= since), default=0)


class Faults:
    """Cuts off switches 2 and 3, each in one way at a time, and mends that.

    None is frozen: when it goes on Open vSwitch by itself ends flows whose frames have waited.

    told: what was done, and when
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
    """Flows, frames for them, and what becomes of both."""

    def __init__(self, bed, rng):
        self.bed, self.rng = bed, rng
        self.faults = Faults(bed, rng)
        self.ways = Ways()
        self.ended = Counter()
        self.flows = {priority: Flow(rng, priority) for priority in range(1000, 1000 + FLOWS)}
        self.used = {priority: rng.choice(ENTRIES) for priority in self.flows}
        """Where frames for each flow enter; None while there are none."""
        self._change = 0.0
        self._payloads = itertools.count()
        self._in_flight = {}
        self._looked_at = 0.0
        self._ask_for_echo()
        for flow in self.flows.values():
            flow.add(bed.controller)

    def done(self):
        """Whether enough has happened."""
        faults = sum(self.faults.done.values())
        return faults >= FAULTS and self.ended[RemovedReason.IDLE_TIMEOUT] >= IDLE_ENDS

    def step(self):
        """Send some frames; look at what has come."""
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
                    if flow.in_port:  # others may go by the aggregator, and wait for a cut cable
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
        """There is always one on its way."""
        self._echo = time.monotonic()
        self.bed.controller.send(of.message(Type.ECHO_REQUEST))

    def _removed(self, removed, looked_at):
        """
        A flow has ended; fail if it should not have, or not then, or counts too much.

        looked_at: when we had not been told yet
        """
        flow = self.flows[removed.priority]
        assert removed.match["dl_dst"] == flow.address, "it has ended twice"
        # Between these moments it has ended.
        earliest = flow.added + removed.duration
        latest = flow.known + removed.duration + MILLISECOND
        late = max(self.ways.longest(latest - OLD), time.monotonic() - self._echo)
        wrong = []
        assert earliest <= time.monotonic(), "it has not been there for so long"
        if removed.reason == RemovedReason.IDLE_TIMEOUT:
            if removed.duration < flow.idle:
                wrong.append("it was too young")
            asked = self._asked(flow)
            # What the switches did not know when they were asked could not be taken into account,
            # for as long as their answers were good; nor what came while they told unasked.
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
        """When the switches were asked whether a flow was idle that has ended so, if they were."""
        told = rf"dl_dst={flow.address}\b.*: idle on all switches; asked ([\d.]+) s after"
        found = re.search(told, self.bed.aggregator.log())
        return flow.added + float(found[1]) if found else None

    def _story(self, flow, removed, end, late):
        """All that is known of a flow; times are relative to its end."""
        lines = [
            f"in_port={flow.in_port} idle={flow.idle} hard={flow.hard} late={late:.3f} {removed}",
            f"added {flow.added - end:.3f} known {flow.known - end:.3f}",
            *(f"sent {sent - end:.4f} seen {seen - end:.4f}" for sent, seen in flow.uses[-10:]),
            *(f"{when - end:.4f} {what}" for when, what in self.faults.told),
            *(line for line in self.bed.aggregator.log().splitlines() if flow.address in line),
        ]
        return "\n".join(lines)


def test_no_flow_in_use_ends_while_switches_come_and_go(bed):
    """For EDGE_SOAK_SECONDS: random frames, and control connections that are cut at random."""
    soak = Soak(bed, random.Random(SEED))
    begin = time.monotonic()
    while time.monotonic() < begin + SECONDS or not soak.done():
        soak.step()
        assert time.monotonic() < begin + SECONDS + 60, "too little has happened"
    soak.faults.end()
    print(dict(soak.faults.done), dict(soak.ended))
