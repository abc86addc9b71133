"""Flow-mods, faults and traffic, all at random. At the end everything must be right."""

import contextlib
import heapq
import itertools
import os
import random
import struct
import time
from collections import Counter

from lab import frames
from lab import openflow10 as of
from lab.faultbed import dump, resident_memory, until
from lab.openflow10 import Command, Flag, Port, Stats, Type
from lab.traffic import Stream

SECONDS = float(os.environ.get("EDGE_SOAK_SECONDS", "15"))
SEED = int(os.environ.get("EDGE_SOAK_SEED", "1"))
MEGABYTE = 1 << 20
PROTECTED = 65535
"""Priority of the flows for the streams of frames, above all other flows."""


class Model:
    """The table as it should be, kept in the simplest way: by strict matches only."""

    def __init__(self, rng):
        self.rng = rng
        self.flows = {}
        """(match, priority) -> (cookie, actions), for flows without a timeout."""
        self.mortal = set()
        """Keys of flows with a timeout: they may be there, or may have ended."""
        self.cookies = itertools.count(1)
        numbers = (1, 2, 17, 18, 33, 34)
        self.matches = [of.match(dl_dst=frames.host_mac(n)) for n in range(100, 160)]
        self.matches += [
            of.match(in_port=port, dl_type=0x0800, nw_proto=17, tp_dst=n)
            for port in (*numbers, 21, 50)
            for n in range(10)
        ]
        self.matches += [of.match(dl_vlan=n) for n in range(20)] + [of.match()]
        self.outputs = [of.output(number) for number in (*numbers, 21, 50, Port.FLOOD, Port.ALL)]
        self.outputs += [of.output(Port.IN_PORT), of.output(Port.CONTROLLER, 64)]
        self.outputs += [of.enqueue(17, 1), of.enqueue(34, 2), of.set_vlan_vid(7), of.strip_vlan()]

    def flow_mod(self):
        """Choose a flow-mod, apply it to the model, and return it."""
        rng = self.rng
        key = match, priority = rng.choice(self.matches), rng.choice((0, 1, 100, 0x8000))
        actions = b"".join(rng.choices(self.outputs, k=rng.randrange(4)))
        command = rng.choice((Command.ADD,) * 4 + (Command.MODIFY_STRICT,) * 2)
        if rng.random() < 0.3:
            command = Command.DELETE_STRICT
        if command == Command.DELETE_STRICT:
            self.flows.pop(key, None)
            self.mortal.discard(key)
            return of.flow_mod(match, b"", command, priority)
        cookie = next(self.cookies)
        idle = hard = 0
        flags = rng.choice((0, Flag.SEND_FLOW_REM))
        if command == Command.ADD:
            self.flows.pop(key, None)
            self.mortal.discard(key)
            if rng.random() < 0.2:
                idle, hard = rng.choice(((1, 0), (0, 1), (2, 3)))
        if idle or hard or key in self.mortal:
            self.mortal.add(key)  # a modified flow stays mortal if it is still there
            if command == Command.MODIFY_STRICT:
                # If the flow has ended, the MODIFY adds it anew. Give the new flow timeouts too.
                idle, hard = 1, 2
        else:
            self.flows[key] = cookie, actions
        return of.flow_mod(match, actions, command, priority, cookie, idle, hard, flags=flags)

    def all_add(self):
        """Return the flow-mods that make a table like this one."""
        return [
            of.flow_mod(match, actions, Command.ADD, priority, cookie)
            for (match, priority), (cookie, actions) in self.flows.items()
        ]


class Churn:
    """The random events, and the times at which faults are mended."""

    def __init__(self, bed, rng):
        self.bed, self.rng = bed, rng
        self.model = Model(rng)
        self.done = Counter()
        self._mends = []
        self._serial = itertools.count()
        self._broken = set()

    def step(self):
        """Do one random thing. First mend the faults whose time has come."""
        while self._mends and self._mends[0][0] <= time.monotonic():
            self._mend()
        happening = self.rng.choices(
            (self.change, self.ask, self.packets, self.flap, self.port, self.switch, self.leave),
            (40, 15, 15, 5, 2, 4, 1),
        )[0]
        happening()
        self.done[happening.__name__] += 1
        removed = [
            of.unpack_flow_removed(message.body)
            for message in self.bed.controller.take(Type.FLOW_REMOVED)
        ]
        self.done["flows removed"] += len(removed)
        errors = self.bed.controller.take(Type.ERROR)
        assert not errors, errors
        self.bed.controller.take()

    def mend_all(self):
        while self._mends:
            self._mend()

    def _mend(self):
        _, _, what, mend = heapq.heappop(self._mends)
        mend()
        self._broken.discard(what)

    def _break(self, what, break_, mend, longest):
        """Break something unless it is broken, and mend it after at most `longest` seconds."""
        if what not in self._broken:
            self._broken.add(what)
            break_()
            due = time.monotonic() + self.rng.random() * longest
            heapq.heappush(self._mends, (due, next(self._serial), what, mend))

    # ---- the events ----

    def change(self):
        """Send a burst of flow-mods."""
        count = self.rng.choice((1, 1, 10, 200))
        self.bed.controller.send(*(self.model.flow_mod() for _ in range(count)))
        if self.rng.random() < 0.5:
            self.bed.controller.barrier(10)

    def ask(self):
        """Send requests of all kinds."""
        controller = self.bed.controller
        match = self.rng.choice(self.model.matches)
        controller.send(
            of.stats_request(Stats.FLOW, of.flow_stats_body(match)),
            of.stats_request(Stats.PORT, struct.pack("!H6x", Port.NONE)),
            of.stats_request(Stats.QUEUE, struct.pack("!HxxI", Port.ALL, 0xFFFFFFFF)),
            of.stats_request(Stats.TABLE),
            of.message(Type.BARRIER_REQUEST),
        )
        assert controller.aggregate(match).flow_count <= len(self.model.matches) * 4
        controller.barrier(10)

    def packets(self):
        """Send frames into some ports, and a packet-out."""
        for number in (17, 18, 34):
            port = self.bed.network.ports[number]
            if number not in self._broken:
                port.send(frames.udp(dport=self.rng.randrange(10)))
                port.send(frames.ethernet(dst=frames.host_mac(self.rng.randrange(100, 160))))
            while port.receive():
                pass
        actions = self.rng.choice(self.model.outputs)
        self.bed.controller.send(of.packet_out(frames.udp(), actions, in_port=17))

    def flap(self):
        """Pull out a cable, or set an interface down; later undo that."""
        number = self.rng.choice((17, 18, 34))
        port = self.bed.network.ports[number]
        change = self.rng.choice((port.set_carrier, port.set_up))
        self._break(number, lambda: change(False), lambda: change(True), 1)

    def port(self):
        """Add a port; later remove it."""
        switch = self.bed.network.switches[2]
        if "s2" not in self._broken:
            self._break("s2", lambda: switch.add_port(5), lambda: switch.remove_port(5), 1)

    def switch(self):
        """Break a switch or its connection in one of several ways."""
        dpid = self.rng.choice((2, 3))
        switch, relay = self.bed.network.switches[dpid], self.bed.relays[dpid]

        def away():
            relay.refuse()
            relay.drop()

        kinds = {
            "killed": (switch.ovs.kill_vswitchd, switch.ovs.start),
            "frozen": (switch.ovs.sigstop, switch.ovs.sigcont),
            "dropped": (relay.drop, lambda: None),
            "away": (away, lambda: relay.refuse(False)),
            "hung": (relay.swallow, relay.flow),
            "cut off": (switch.lose, lambda: switch.lose(False)),
            "tunnels cut": (
                lambda: switch.cut(control=False),
                lambda: switch.mend(control=False),
            ),
            "restarted with its flows": (lambda: switch.ovs.restart(True), lambda: None),
        }
        kind = self.rng.choice(list(kinds))
        if f"s{dpid}" not in self._broken:
            self.done[kind] += 1
        self._break(f"s{dpid}", *kinds[kind], 4)

    def leave(self):
        """Close the controller's connection after a barrier, and wait for the next one."""
        controller = self.bed.controller
        controller.barrier(10)
        count = len(controller.connections)
        controller.connection.close(reset=self.rng.random() < 0.5)
        controller.wait_for_connection(count + 1)


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def without_cookies(bed):
    """Return the flows of each switch, without their cookies."""
    return {
        dpid: {(*flow[:3], bool(flow.cookie), flow.actions) for flow in dump(switch)}
        for dpid, switch in bed.network.switches.items()
    }


def empty(bed, protected):
    """Delete all flows but those of the streams."""
    bed.controller.send(of.flow_mod(command=Command.DELETE), *protected)
    bed.controller.barrier(10)
    bed.controller.flow_stats()  # the counters of all copies are known, whenever the audit looks
    bed.controller.take()


def test_after_random_changes_faults_and_traffic_everything_is_right(bed):
    """Run for EDGE_SOAK_SECONDS.

    Afterwards the table is what the controller made of it, and every switch has exactly its
    translation. Nothing else is left over. A new aggregator that gets the same table puts the same
    flows on the switches.
    """
    rng = random.Random(SEED)
    churn = Churn(bed, rng)
    controller, model = bed.controller, churn.model
    protected = [
        of.flow_mod(of.match(dl_dst=frames.host_mac(n)), of.output(n), priority=PROTECTED)
        for n in (2, 33)
    ]
    # Cause once everything that the aggregator remembers for good: queues, priority 0, statistics
    # of ports.
    controller.send(*protected, of.flow_mod(of.match(), model.outputs[-4:], priority=0))
    bed.network.switches[2].add_port(5)
    churn.ask()
    bed.network.switches[2].remove_port(5)
    churn.ask()
    empty(bed, protected)
    held, files = bed.held_when_quiet(), descriptors(bed.aggregator.pid)
    resident = resident_memory(bed.aggregator.pid)

    with Stream(bed.network, 1, [2], pace=0.01) as stream, Stream(bed.network, 1, [33]) as far:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            churn.step()
        churn.mend_all()
        far.wait_for_frames(timeout=20)
        stream.wait_for_frames()
    stream.expect_no_loss()
    print(dict(churn.done))

    until(lambda: up(bed) == bed.numbers, "all ports", 15, 0.1)
    controller.barrier(10)
    with contextlib.suppress(AssertionError):  # if mortal flows are left, the test fails below
        until(
            lambda: not any(map(is_mortal, controller.flow_stats())), "end of the mortal", 10, 0.1
        )
    got = {
        (of.match(**flow.match), flow.priority): flow
        for flow in controller.flow_stats()
        if flow.priority != PROTECTED
    }
    extra = [flow for key, flow in got.items() if key not in model.flows]
    assert not extra, extra
    assert {key: (flow.cookie, flow.actions) for key, flow in got.items()} == model.flows
    bed.wait_until_right(10)
    made = without_cookies(bed)

    empty(bed, protected)
    bed.expect_held(held)
    until(lambda: descriptors(bed.aggregator.pid) <= files, "no more descriptors")
    assert resident_memory(bed.aggregator.pid) - resident < 50 * MEGABYTE
    log = bed.aggregator.log()
    assert "Traceback" not in log and "ERROR:" not in log
    assert "somebody else" not in log and "refuses" not in log

    bed.aggregator.restart()
    count = len(controller.connections)
    controller.wait_for_connection(count + 1)
    bed.wait_for_ports(bed.numbers)
    controller.send(*protected, *model.all_add())
    controller.barrier(10)
    bed.wait_until_right(10)
    assert without_cookies(bed) == made


def is_mortal(flow):
    return flow.idle_timeout or flow.hard_timeout


def up(bed):
    """Return the numbers of the big switch's ports whose links are up."""
    ports = bed.controller.features().ports
    return sorted(number for number, port in ports.items() if not port.state & of.LINK_DOWN)
