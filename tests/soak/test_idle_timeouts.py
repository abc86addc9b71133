"""Idle timeouts while switches come and go: no flow in use ends, and no packet counts twice."""

import heapq
import itertools
import os
import random
import time
from collections import Counter

import pytest
from lab import frames
from lab import openflow10 as of
from lab.openflow10 import RemovedReason, Type

SECONDS = float(os.environ.get("EDGE_SOAK_SECONDS", "15"))
SEED = int(os.environ.get("EDGE_SOAK_SEED", "1"))
ENTRIES, EXITS = (1, 17, 33), (2, 18, 34)
FLOWS = 24
IN_FLIGHT = 0.6
"""Seconds before its end in which a flow may be used without anybody's knowing it in time."""
TOLD = 2.6
"""Seconds after its end in which a flow-removed has come, though a switch does not tell."""
LATE = 0.3


class Flow:
    """One flow after the other in the same place; each has an address of its own."""

    numbers = itertools.count(1000)

    def __init__(self, rng, priority):
        self.priority = priority
        self.address = frames.host_mac(next(self.numbers))
        self.in_port = rng.choice((None, None, *ENTRIES))
        self.out = rng.choice(EXITS)
        self.idle = rng.choice((1, 2, 3))
        self.hard = rng.choice((0, 0, 0, 4, 7))
        self.added = time.monotonic()
        self.sent = 0
        self.uses = []
        """When frames were sent that have come out."""

    def flow_mod(self):
        fields = {"dl_dst": self.address}
        if self.in_port:
            fields["in_port"] = self.in_port
        return of.flow_mod(
            of.match(**fields),
            of.output(self.out),
            priority=self.priority,
            idle_timeout=self.idle,
            hard_timeout=self.hard,
            flags=of.Flag.SEND_FLOW_REM,
        )

    def check_end(self, removed, now):
        """Fail if it should not have ended so, or counts too much."""
        if removed.reason == RemovedReason.IDLE_TIMEOUT:
            begin, end = now - self.idle + LATE, now - IN_FLIGHT
            used = [use for use in (self.added, *self.uses) if begin < use < end]
            assert not used, f"{now - used[0]:.2f} s before its end it was used: {removed}"
        else:
            assert removed.reason == RemovedReason.HARD_TIMEOUT, removed
            assert removed.duration == pytest.approx(self.hard, abs=LATE)
            assert now - self.added < self.hard + TOLD
        assert removed.packet_count <= self.sent, removed


class Faults:
    """Cuts off switches 2 and 3, each in one way at a time, and mends that.

    None is frozen: when it goes on Open vSwitch by itself ends flows whose frames have waited.
    """

    def __init__(self, bed, rng):
        self.bed, self.rng = bed, rng
        self.done = Counter()
        self._mends = []
        self._broken = set()
        self._next = time.monotonic() + 1

    def step(self, now):
        while self._mends and self._mends[0][0] <= now:
            _, dpid, mend = heapq.heappop(self._mends)
            self._broken.discard(dpid)
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
        break_, mend = kinds[kind]
        break_()
        self._broken.add(dpid)
        heapq.heappush(self._mends, (now + self.rng.random() * 6, dpid, mend))

    def end(self):
        for _, _, mend in self._mends:
            mend()


@pytest.mark.skipif(
    "EDGE_SOAK_SECONDS" not in os.environ,
    reason="only with EDGE_SOAK_SECONDS: it fails once in some ten runs, and why is not known yet",
)
def test_no_flow_in_use_ends_while_switches_come_and_go(bed):
    """For EDGE_SOAK_SECONDS: random frames, and control connections that are cut at random."""
    rng = random.Random(SEED)
    controller, ports = bed.controller, bed.network.ports
    flows = {priority: Flow(rng, priority) for priority in range(1000, 1000 + FLOWS)}
    controller.send(*(flow.flow_mod() for flow in flows.values()))
    controller.barrier()
    used = {priority: rng.choice(ENTRIES) for priority in flows}
    """Where frames for each flow enter; None while there are none."""
    in_flight = {}
    faults = Faults(bed, rng)
    ended = Counter()
    payloads = itertools.count()
    deadline = time.monotonic() + SECONDS
    change = 0.0
    while time.monotonic() < deadline:
        now = time.monotonic()
        faults.step(now)
        if now > change:
            change = now + rng.random() * 1.5
            for priority in rng.sample(sorted(flows), 4):
                used[priority] = rng.choice((None, *ENTRIES))
        for priority, flow in flows.items():
            entry = flow.in_port or used[priority]
            if used[priority] and rng.random() < 0.15:
                payload = next(payloads).to_bytes(8, "big")
                frame = frames.ethernet(
                    src=frames.host_mac(entry), dst=flow.address, ethertype=0x9000, payload=payload
                )
                in_flight[frame] = flow, time.monotonic()
                flow.sent += 1
                ports[entry].send(frame)
        for number in EXITS:
            while True:
                frame = ports[number].receive(0.003)
                if frame is None:
                    break
                if frame in in_flight:
                    flow, sent_at = in_flight.pop(frame)
                    flow.uses.append(sent_at)
        for message in controller.take(Type.FLOW_REMOVED):
            removed = of.unpack_flow_removed(message.body)
            old = flows[removed.priority]
            assert removed.match["dl_dst"] == old.address, "it has ended twice"
            old.check_end(removed, time.monotonic())
            ended[removed.reason] += 1
            flows[removed.priority] = Flow(rng, removed.priority)
            controller.send(flows[removed.priority].flow_mod())
        assert not controller.take(Type.ERROR)
        controller.take()
    faults.end()
    print(dict(faults.done), dict(ended))
    assert sum(faults.done.values()) >= SECONDS / 10
    assert ended[RemovedReason.IDLE_TIMEOUT] >= SECONDS / 5
