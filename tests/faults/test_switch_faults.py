"""A switch dies, hangs or loses its connection, and comes back (real daemons, real signals)."""

import itertools
import re
import struct
import threading
import time
from contextlib import ExitStack
from typing import Callable, NamedTuple

import pytest
from lab import frames
from lab import openflow10 as of
from lab.faultbed import dump, until
from lab.openflow10 import Port, RemovedReason, Type
from lab.relay import NORTHWARD, SOUTHWARD
from lab.traffic import Stream

SOON = 1.0
"""Seconds within which the controller must be told of the end of a TCP connection."""
SWITCH_TIMEOUT = 2.0
"""Seconds: --switch_timeout of these tests (5 by default)."""
RIGHT = 2.0
"""Seconds within which a switch that is back must have exactly its flows."""
RECONNECT = 1.5
"""Seconds within which Open vSwitch tries again (max_backoff is one second)."""
SENT_AGAIN = 1.0
"""Seconds within which TCP repeats what a cut line has lost (see edge.poxfixes.connection)."""


class Fault(NamedTuple):
    """What happens to s2.

    breaks, mends: functions that break it and mend it.
    lost_within: seconds within which the controller must be told that its ports are down.
    has_flows: whether the switch still has its flows when it is back.
    keeps: whether these are the same flows, with their counters.
    forwards: whether it forwards meanwhile between its own ports.
    """

    breaks: Callable
    mends: Callable
    lost_within: float
    has_flows: bool
    keeps: bool
    forwards: bool


def kill_both(switch):
    switch.ovs.kill_vswitchd()
    switch.ovs.kill_ovsdb()


def drop_connection(switch):
    """Destroy the TCP socket of the OpenFlow connection, as an operator can (ss -K)."""
    killed = switch.ovs.run("ss", "-H", "-K", "-t", "dst", "10.255.0.1")
    assert "10.255.0.1:6633" in killed, killed


SILENT = SWITCH_TIMEOUT * 4 / 3 + SOON
"""Seconds within which the silence of a switch must be noticed and the controller told."""

FAULTS = {
    "ovs-vswitchd killed": Fault(
        lambda switch: switch.ovs.kill_vswitchd(),
        lambda switch: switch.ovs.start(),
        SOON,
        has_flows=False,
        keeps=False,
        forwards=False,
    ),
    "both daemons killed": Fault(
        kill_both,
        lambda switch: switch.ovs.start(),
        SOON,
        has_flows=False,
        keeps=False,
        forwards=False,
    ),
    "ovsdb-server killed": Fault(
        lambda switch: switch.ovs.kill_ovsdb(),
        lambda switch: switch.ovs.start(),
        SILENT,
        has_flows=True,
        keeps=True,
        forwards=False,
    ),
    "all cables cut": Fault(
        lambda switch: switch.cut(),
        lambda switch: switch.mend(),
        SILENT,
        has_flows=True,
        keeps=True,
        forwards=True,
    ),
    "control cable cut": Fault(
        lambda switch: switch.cut(underlay=False),
        lambda switch: switch.mend(),
        SILENT,
        has_flows=True,
        keeps=True,
        forwards=True,
    ),
    "frozen": Fault(
        lambda switch: switch.ovs.sigstop(),
        lambda switch: switch.ovs.sigcont(),
        SILENT,
        has_flows=True,
        keeps=True,
        forwards=False,
    ),
    "restarted with empty tables": Fault(
        lambda switch: switch.ovs.restart(),
        lambda switch: None,
        SOON,
        has_flows=False,
        keeps=False,
        forwards=False,
    ),
    "restarted with its flows": Fault(
        lambda switch: switch.ovs.restart(keep_flows=True),
        lambda switch: None,
        SOON,
        has_flows=True,
        keeps=False,
        forwards=False,
    ),
    "connection dropped": Fault(
        drop_connection, lambda switch: None, SOON, has_flows=True, keeps=True, forwards=True
    ),
}


def counts(bed):
    """Return the packets of every flow as the controller sees them, by match and priority."""
    return {
        (tuple(sorted(flow.match.items())), flow.priority): flow.packet_count
        for flow in bed.controller.flow_stats()
    }


def rows(switch):
    """Return all rows of a switch's tables, by table, priority and match."""
    return {(flow.table, flow.priority, flow.match): flow for flow in dump(switch)}


def assert_not_lower(now, before):
    lower = {key: (before[key], now[key]) for key in now if now[key] < before.get(key, 0)}
    assert not lower, f"counters went down: {lower}"


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_switch_goes_and_comes_back(make_bed, measured, fault):
    """The controller sees the switch's ports go down and up. The other switches forward. Then the
    switch has exactly its flows again.
    """
    bed = make_bed(options=[f"--switch_timeout={SWITCH_TIMEOUT}"])
    controller, network = bed.controller, bed.network
    switch = network.switches[2]
    ports_before = controller.features().ports
    with ExitStack() as streams:
        others = [
            streams.enter_context(Stream(network, port, [out]))
            for port, out in ((1, 2), (2, 34), (33, 1))
        ]
        into = streams.enter_context(Stream(network, 34, [18]))
        own = streams.enter_context(Stream(network, 18, [17]))
        for stream in (*others, into, own):
            stream.wait_for_frames()
        before = counts(bed)
        rows_before = rows(switch)
        controller.take()

        broken = time.monotonic()
        fault.breaks(switch)
        bed.wait_for_link([17, 18], down=True, timeout=fault.lost_within)
        measured("ports down", time.monotonic() - broken)
        if fault.mends(switch) is None and not switch.ovs.forwarding:
            pytest.fail("not mended")
        mended = time.monotonic()
        bed.wait_for_link([17, 18], down=False, timeout=RECONNECT + RIGHT)
        measured("ports up", time.monotonic() - mended)
        bed.wait_until_right(RIGHT)
        measured("flows right", time.monotonic() - mended)
        into.wait_for_frames()
        measured("traffic into it", time.monotonic() - mended)
        own.wait_for_frames()
        for stream in others:
            stream.wait_for_frames()
    for stream in others:
        stream.expect_no_loss()
    if fault.forwards:
        own.expect_no_loss()
    assert controller.features().ports == ports_before
    assert_not_lower(counts(bed), before)
    *_, flows = re.findall(r"switch 2: up, .*flows: (.*)", bed.aggregator.log())
    assert bool(re.fullmatch(r"\d+ kept, 0 added, 0 changed, 0 removed", flows)) == fault.has_flows
    if fault.keeps:
        after = rows(switch)
        touched = [row for key, row in rows_before.items() if not after[key].untouched(row)]
        assert not touched and len(after) == len(rows_before), touched


@pytest.mark.parametrize("seconds", [3, 13])
def test_the_way_to_a_switch_is_cut_for_some_seconds(make_bed, measured, seconds):
    """When the line is mended, the switch answers on the old connection, or learns that it must
    make a new one.

    After 10 seconds it has noticed by itself, and tries to connect every other second.
    """
    bed = make_bed(options=[f"--switch_timeout={SWITCH_TIMEOUT}"])
    switch = bed.network.switches[2]
    with Stream(bed.network, 17, [18]) as own, Stream(bed.network, 1, [17]) as into:
        own.wait_for_frames()
        into.wait_for_frames()
        before = rows(switch)
        switch.lose()
        # The flow-removed of this flow says when the seconds are over.
        bed.controller.flow_mod(
            of.match(dl_type=0x1234), hard_timeout=seconds, flags=of.Flag.SEND_FLOW_REM
        )
        bed.wait_for_link([17, 18], down=True, timeout=SILENT)
        bed.controller.expect(Type.FLOW_REMOVED, seconds + SOON)
        switch.lose(False)
        mended = time.monotonic()
        bed.wait_for_link([17, 18], down=False, timeout=SENT_AGAIN + 2 * RECONNECT)
        measured("ports up", time.monotonic() - mended)
        bed.wait_until_right(SOON)
        own.wait_for_frames()
        into.wait_for_frames()
    own.expect_no_loss()
    into.expect_no_loss()
    after = rows(switch)
    assert all(after[key].untouched(before[key]) for key in before)


LOAD_KEY = "00012008"  # NXM_NX_TUN_ID, as in the action that loads it
FLOOD_KEYS = tuple(LOAD_KEY + f"{key:016x}" for key in (0x7E, 0x7F))


def floods(switch):
    """Return the actions of the flows on a switch that FLOOD or ALL into tunnels, by cookie."""
    return {
        flow.cookie: flow.actions
        for flow in dump(switch)
        if any(key in flow.actions for key in FLOOD_KEYS)
    }


def test_flood_and_all_stop_paying_for_a_lost_switch(make_bed):
    """FLOOD and ALL send nothing into the tunnel to the lost switch. Outputs to its ports stay."""
    bed = make_bed()
    network = bed.network
    before = floods(network.switches[1])
    assert len(before) >= 2
    network.switches[2].ovs.kill_vswitchd()
    bed.wait_for_link([17, 18], down=True)
    bed.wait_until_right(SOON, dpids=[1, 3])
    after = {flow.cookie: flow.actions for flow in dump(network.switches[1])}
    for cookie in before:
        assert "ac100002" not in after[cookie] and "ac100003" in after[cookie]
    assert any("ac100002" in actions for actions in after.values()), "output:17 stays"
    broadcast = frames.arp()
    network.send(1, broadcast)
    network.expect({2: [broadcast], 33: [broadcast], 34: [broadcast]})
    network.switches[2].ovs.start()
    bed.wait_for_link([17, 18], down=False)
    bed.wait_until_right(SOON)
    assert floods(network.switches[1]) == before


def test_what_changed_while_a_switch_was_away_is_made_good(make_bed):
    """Missing flows are added, stale ones removed, changed ones modified and spoiled ones repaired.
    All other flows are untouched.
    """
    bed = make_bed(relays=[2])
    controller, switch, relay = bed.controller, bed.network.switches[2], bed.relays[2]
    gone = of.match(dl_dst=frames.host_mac(1))
    changed = of.match(dl_dst=frames.host_mac(33))
    replaced = of.match(dl_dst=frames.host_mac(2))
    new = of.match(dl_dst="02:00:00:00:00:01", in_port=17)
    with Stream(bed.network, 18, [17]) as stream:
        stream.wait_for_frames()
        before = rows(switch)
        relay.refuse()
        relay.drop()
        bed.wait_for_link([17, 18], down=True, timeout=SOON)

        controller.flow_mod(gone, command=of.Command.DELETE)
        controller.flow_mod(changed, of.output(34), command=of.Command.MODIFY_STRICT)
        controller.flow_mod(replaced, of.output(1))
        controller.flow_mod(new, [of.output(18), of.output(Port.FLOOD)])
        switch.ovs.ofctl("del-flows", "s2", f"dl_dst={frames.host_mac(18)}")
        switch.ovs.ofctl("mod-flows", "s2", f"table=2,dl_dst={frames.host_mac(34)},actions=drop")
        switch.ovs.ofctl("add-flow", "s2", "table=2,cookie=0x5,tcp,actions=1")
        switch.ovs.ofctl("add-flow", "s2", "table=0,priority=65535,arp,actions=drop")
        switch.ovs.ofctl("add-flow", "s2", "table=1,tun_id=1,actions=output:2")
        switch.ovs.ofctl("add-flow", "s2", "table=200,actions=drop")

        relay.refuse(False)
        bed.wait_for_link([17, 18], down=False, timeout=RECONNECT + RIGHT)
        bed.wait_until_right(RIGHT)
        stream.wait_for_frames()
    stream.expect_no_loss()
    after = rows(switch)
    touched = {key for key in before if key not in after or not after[key].untouched(before[key])}
    # The flows to ports 1 (deleted), 33 (modified), 2 (replaced), 18 (put back), 34 and the rule
    # for key 1 (both repaired).
    assert len(touched) == 6, touched
    assert len(after.keys() - before.keys()) == 1, "the new one"
    frame = frames.ethernet(src=frames.host_mac(17), dst=frames.host_mac(34))
    bed.network.send(17, frame)
    bed.network.expect({34: [frame]})


def test_a_flapping_connection_does_not_stop_the_traffic(make_bed):
    """Whenever the connection is cut, frames still pass on the switch and through it."""
    bed = make_bed(relays=[2])
    relay, network = bed.relays[2], bed.network
    with ExitStack() as stack:
        streams = [
            stack.enter_context(Stream(network, port, [out]))
            for port, out in ((1, 17), (18, 34), (33, 2), (17, 18))
        ]
        for stream in streams:
            stream.wait_for_frames()
        before = rows(network.switches[2])
        for messages in range(0, 12, 4):  # how many messages of the aggregator pass before the cut
            passed = []

            def cut(direction, message, passed=passed, messages=messages):
                if direction == SOUTHWARD:
                    passed.append(message)
                    if len(passed) > messages:
                        relay.drop(reset=bool(messages % 8))
                        return b""
                return message

            relay.mangle = cut
            count = relay.connections
            relay.drop()
            relay.wait_for_connection(count + 1)
            until(lambda passed=passed, messages=messages: len(passed) > messages, "messages")
        relay.mangle = None
        relay.drop()
        bed.controller.take()
        bed.wait_until_right(RECONNECT + RIGHT)
        for stream in streams:
            stream.wait_for_frames()
    for stream in streams:
        stream.expect_no_loss()
    after = rows(network.switches[2])
    assert after.keys() == before.keys()
    assert all(after[key].untouched(before[key]) for key in before)


def sample(bed):
    """Return every counter that the controller can read, by what it counts."""
    controller = bed.controller
    found = {("flow", *key): value for key, value in counts(bed).items()}
    aggregate = controller.aggregate()
    found["aggregate packets"] = aggregate.packet_count
    found["aggregate bytes"] = aggregate.byte_count
    for number, port in controller.port_stats().items():
        found["port packets", number] = port.rx_packets, port.tx_packets
    table = controller.table_stats()[0]
    found["lookups"], found["matches"] = table.lookup_count, table.matched_count
    return found


@pytest.mark.parametrize("name", ["ovs-vswitchd killed", "control cable cut", "frozen"])
def test_counters_never_go_down(make_bed, name):
    """Read the counters while a switch goes and comes back. What it had counted stays in the
    sums.
    """
    bed = make_bed(options=["--switch_timeout=1"])
    fault, network = FAULTS[name], bed.network
    switch = network.switches[2]
    last = sample(bed)

    def read():
        nonlocal last
        now = sample(bed)
        assert_not_lower(now, last)
        last = now
        return now

    with Stream(network, 17, [18]) as own, Stream(network, 1, [2]) as other:
        own.wait_for_frames(50)
        other.wait_for_frames()
        before = read()
        counted = ("flow", (("dl_dst", frames.host_mac(18)),), of.DEFAULT_PRIORITY)
        assert before[counted] >= 50
        fault.breaks(switch)
        until(lambda: read() and bed.controller.take(Type.PORT_STATUS), "port status")
        read()
        fault.mends(switch)
        until(lambda: read() and bed.controller.take(Type.PORT_STATUS), "port status")
        own.wait_for_frames(50)
        other.wait_for_frames()
    read()
    assert last[counted] >= before[counted] + 50


def test_a_switch_that_dies_while_it_is_brought_up_to_date(make_bed):
    """The switch is killed (kill -9) as soon as it is back, several times. At the end all is
    right.
    """
    bed = make_bed()
    switch = bed.network.switches[2]
    with Stream(bed.network, 1, [2]) as stream:
        for _ in range(3):
            switch.ovs.kill_vswitchd()
            switch.ovs.start()
        bed.wait_until_right(RECONNECT + RIGHT)
        stream.wait_for_frames()
    stream.expect_no_loss()


MANY = 6000
"""So many flows that a switch is not brought up to date with them in one turn of the loop."""


def many_flows(bed, match, **fields):
    """Add MANY flows to port 18, each for another address; return their matches."""
    matches = [of.match(dl_dst=frames.host_mac(1000 + number), **match) for number in range(MANY)]
    fields.update(flags=of.Flag.SEND_FLOW_REM)
    bed.controller.send(*(of.flow_mod(match, of.output(18), **fields) for match in matches))
    bed.controller.barrier(20)
    return matches


def at_flow_mod(relay, number, do):
    """Call `do` in the relay's thread at the flow-mod of this number (from 1) to the switch."""
    passed = itertools.count(1)

    def look(direction, message):
        if direction == SOUTHWARD and message[1] == Type.FLOW_MOD and next(passed) == number:
            do()
        return message

    relay.mangle = look


def test_what_changes_while_a_switch_is_brought_up_to_date(make_bed):
    """The switch gets its flows in several turns of the loop. Meanwhile flows are added, modified,
    replaced and deleted.
    """
    bed = make_bed(relays=[2], flows=False)
    matches = many_flows(bed, {})
    switch = bed.network.switches[2]
    switch.ovs.kill_vswitchd()
    bed.wait_for_link([17, 18], down=True)
    begun = threading.Event()
    at_flow_mod(bed.relays[2], 1, begun.set)
    switch.ovs.start()
    assert begun.wait(10)
    changes = []
    for number in range(0, MANY, 5):
        deleted, modified, replaced = matches[number : number + 3]
        changes += [
            of.flow_mod(deleted, command=of.Command.DELETE_STRICT),
            of.flow_mod(modified, of.output(2), of.Command.MODIFY_STRICT),
            of.flow_mod(replaced, of.output(1), cookie=7),
            of.flow_mod(of.match(dl_src=frames.host_mac(1000 + number)), of.output(17)),
        ]
    bed.controller.send(*changes)
    for _ in range(MANY // 5):
        bed.controller.expect(Type.FLOW_REMOVED)
    bed.wait_for_link([17, 18], down=False)
    bed.wait_until_right(RIGHT)
    assert len(bed.controller.flow_stats()) == MANY
    assert bed.controller.take(Type.FLOW_REMOVED) == []
    assert bed.controller.take(Type.ERROR) == []


def test_a_switch_is_lost_before_it_has_got_all_its_flows(make_bed):
    """The flows that it had not got yet were not idle on it. It gets them the next time."""
    bed = make_bed(relays=[2], flows=False)
    many_flows(bed, {"in_port": 17}, idle_timeout=8)  # a busy machine needs some to add them
    over = time.monotonic() + 8
    switch, relay = bed.network.switches[2], bed.relays[2]
    switch.ovs.kill_vswitchd()
    bed.wait_for_link([17, 18], down=True)
    until(lambda: time.monotonic() > over, "end of the time of flows that nobody uses")
    at_flow_mod(relay, MANY // 4, relay.drop)
    connections = relay.connections
    switch.ovs.start()
    relay.wait_for_connection(connections + 2)
    bed.wait_until_right(2 * RECONNECT + RIGHT)
    assert len(bed.controller.flow_stats()) == MANY
    assert bed.controller.take(Type.FLOW_REMOVED) == []
    for _ in range(MANY):
        removed = of.unpack_flow_removed(bed.controller.expect(Type.FLOW_REMOVED, 20).body)
        assert removed.reason == RemovedReason.IDLE_TIMEOUT


def mortal_flows(bed, **timeouts):
    """Add flows to port 18 that end by themselves, each once on all switches and once on s2 alone.

    Return the name of each flow by its priority.

    timeouts: the fields of the flow-mods, by name.
    """
    found = {}
    for number, (name, fields) in enumerate(timeouts.items(), 100):
        for in_port in (None, 17):
            match = {"dl_dst": frames.host_mac(number)}
            if in_port:
                match["in_port"] = in_port
            bed.controller.flow_mod(
                of.match(**match),
                of.output(18),
                priority=number + (in_port or 0),
                flags=of.Flag.SEND_FLOW_REM,
                **fields,
            )
            found[number + (in_port or 0)] = name
    bed.wait_until_right()
    return found


def cut_off(bed):
    """s2 goes on forwarding, but has no connection any more."""
    bed.relays[2].refuse()
    bed.relays[2].drop()
    bed.wait_for_link([17, 18], down=True, timeout=SOON)


def removals(bed, count, timeout):
    """Return the next flow-removed messages and the times of their arrival, by priority."""
    found = {}
    deadline = time.monotonic() + timeout
    for _ in range(count):
        left = max(0, deadline - time.monotonic())
        message = bed.controller.expect(Type.FLOW_REMOVED, left)
        flow = of.unpack_flow_removed(message.body)
        found[flow.priority] = flow, time.monotonic()
    return found


def test_flows_whose_time_is_up_while_their_switch_is_away(make_bed):
    """Hard timeouts end on time. A flow that may be in use does not end.

    When the switch is back, the flows that were idle there and elsewhere end at once. Each is
    reported once, with its counters.
    """
    bed = make_bed(relays=[2], flows=False)
    controller, network = bed.controller, bed.network
    flows = mortal_flows(bed, idle={"idle_timeout": 1}, hard={"hard_timeout": 3})
    added = time.monotonic()
    for number in (100, 101):
        network.send(17, frames.ethernet(dst=frames.host_mac(number)))
    until(lambda: sum(flow.packet_count for flow in controller.flow_stats()) == 2, "counts")
    cut_off(bed)

    ended = removals(bed, 2, 5)
    assert {flows[priority] for priority in ended} == {"hard"}
    for flow, when in ended.values():
        assert flow.reason == RemovedReason.HARD_TIMEOUT
        assert flow.duration == pytest.approx(3, abs=0.3)
        assert when - added == pytest.approx(3, abs=0.6)
    assert {flow.priority for flow in controller.flow_stats()} == flows.keys() - ended.keys()
    assert controller.take(Type.FLOW_REMOVED) == []

    bed.relays[2].refuse(False)
    bed.wait_for_link([17, 18], down=False, timeout=RECONNECT + RIGHT)
    back = time.monotonic()
    idle = removals(bed, 2, SOON)
    assert {flows[priority] for priority in idle} == {"idle"}
    for flow, when in idle.values():
        assert flow.reason == RemovedReason.IDLE_TIMEOUT
        assert when - back < 0.5
        assert flow.duration == pytest.approx(when - added, abs=0.6)
    counted = {priority: flow.packet_count for priority, (flow, _) in (ended | idle).items()}
    assert counted == {100: 0, 101: 0, 117: 1, 118: 1}
    assert controller.flow_stats() == []
    bed.wait_until_right()
    controller.barrier()
    assert controller.take(Type.FLOW_REMOVED) == []
    assert not any(flow.cookie for flow in dump(network.switches[2]))


def test_hard_timeouts_end_on_time_when_a_switch_has_begun_anew(make_bed):
    """Open vSwitch's timeouts are whole seconds, but the time that is left of a hard timeout is
    not.
    """
    bed = make_bed(flows=False)
    controller = bed.controller
    added = {}
    with Stream(bed.network, 1, [2]) as pause:
        controller.flow_mod(of.match(), of.output(2))
        for number in range(100, 105):
            pause.wait_for_frames(50)  # which takes some tenths of a second
            controller.flow_mod(
                of.match(in_port=17),
                of.output(18),
                priority=number,
                hard_timeout=3,
                flags=of.Flag.SEND_FLOW_REM,
            )
            added[number] = time.monotonic()
    bed.network.switches[2].ovs.kill_vswitchd()
    bed.network.switches[2].ovs.start()
    bed.wait_until_right(RECONNECT + RIGHT)
    assert len(controller.flow_stats()) == 1 + len(added), "no time is up yet"
    for priority, (flow, when) in removals(bed, len(added), 5).items():
        assert flow.reason == RemovedReason.HARD_TIMEOUT
        assert flow.duration == pytest.approx(3, abs=0.2)
        assert when - added[priority] == pytest.approx(3, abs=0.3)


def test_flows_in_use_on_a_switch_that_is_cut_off_do_not_end(make_bed):
    """A flow in use does not end, however long the switch is cut off, as it would not on one
    bridge.

    When the switch is back it has the same flows, with their counters. They end when they are not
    used any more.
    """
    bed = make_bed(relays=[2], flows=False)
    controller, network = bed.controller, bed.network
    fields = {"idle_timeout": 1, "flags": of.Flag.SEND_FLOW_REM}
    own, shared = frames.host_mac(100), frames.host_mac(101)
    controller.flow_mod(of.match(in_port=17, dl_dst=own), of.output(18), priority=1, **fields)
    controller.flow_mod(of.match(dl_dst=shared), of.output(17), priority=2, **fields)
    with Stream(network, 17, [18], own) as one, Stream(network, 18, [17], shared) as other:
        one.wait_for_frames()
        other.wait_for_frames()
        bed.wait_until_right()
        before = rows(network.switches[2])
        cut_off(bed)
        # This flow ends when the idle timeout has passed several times.
        controller.flow_mod(of.match(), priority=3, hard_timeout=4, flags=of.Flag.SEND_FLOW_REM)
        assert removals(bed, 1, 5).keys() == {3}
        bed.relays[2].refuse(False)
        bed.wait_for_link([17, 18], down=False, timeout=RECONNECT + RIGHT)
        bed.wait_until_right(RIGHT)
        after = rows(network.switches[2])
        assert all(after[key].untouched(before[key]) for key in before)
        one.wait_for_frames()
        other.wait_for_frames()
        assert controller.take(Type.FLOW_REMOVED) == []
    stopped = time.monotonic()
    one.expect_no_loss()
    other.expect_no_loss()
    ended = removals(bed, 2, 3)
    for priority, stream in ((1, one), (2, other)):
        flow, when = ended[priority]
        assert (flow.reason, flow.packet_count) == (RemovedReason.IDLE_TIMEOUT, stream.sent)
        assert when - stopped == pytest.approx(1, abs=0.8)
        assert flow.duration > 5
    assert controller.flow_stats() == []


def test_what_a_dead_switch_held_does_not_stay_for_ever(make_bed):
    """A lost switch may come back for some minutes (in this test, seconds). Then its flows end if
    they are idle.
    """
    bed = make_bed(relays=[2], flows=False, dead=4)
    controller, network = bed.controller, bed.network
    flows = mortal_flows(bed, short={"idle_timeout": 1}, long={"idle_timeout": 6})
    with Stream(network, 1, [], dst=frames.host_mac(102), pace=0.1):
        used = of.match(dl_dst=frames.host_mac(102))
        controller.flow_mod(used, of.output(18), priority=9, idle_timeout=1)
        bed.wait_until_right()
        cut_off(bed)
        lost = time.monotonic()
        # A flow that is added now is on no lost switch.
        new = of.match(dl_dst=frames.host_mac(103), in_port=17)
        controller.flow_mod(new, priority=10, idle_timeout=1, flags=of.Flag.SEND_FLOW_REM)
        ended = removals(bed, 5, 10)
        assert [flow.priority for flow in controller.flow_stats()] == [9], "the one in use"
    flows[10] = "new"
    expected = {"new": 1, "short": 4, "long": 6}
    for priority, (flow, when) in ended.items():
        assert flow.reason == RemovedReason.IDLE_TIMEOUT
        least = expected[flows[priority]]
        # For these flows a copy on another switch idled out meanwhile, and was put back.
        most = least + (flow.idle_timeout if priority in (100, 101) else 0)
        assert least - 0.3 < when - lost < most + 0.8, flow
    bed.relays[2].refuse(False)
    bed.wait_for_link([17, 18], down=False, timeout=RECONNECT + RIGHT)
    bed.wait_until_right(RIGHT)
    controller.barrier()
    assert controller.take(Type.FLOW_REMOVED) == []


def limit_flows(switch, limit, policy="refuse"):
    """Let table 2 of a switch hold at most this many flows."""
    switch.ovs.vsctl(
        "--", "--id=@table", "create", "Flow_Table", f"flow_limit={limit}",
        f"overflow_policy={policy}",
        "--", "set", "bridge", switch.name, "flow_tables:2=@table",
    )  # fmt: skip


def test_flows_for_which_a_switch_that_comes_back_has_no_room(make_bed):
    """A flow is on all switches or on none. So these flows end, and the controller is told."""
    bed = make_bed(relays=[2])
    controller, switch = bed.controller, bed.network.switches[2]
    before = rows(switch)
    cut_off(bed)
    limit_flows(switch, 2 + sum(table == 2 for table, _, _ in before))
    controller.flow_mod(of.match(dl_dst=frames.host_mac(1)), command=of.Command.DELETE)
    for number in range(100, 105):
        controller.flow_mod(
            of.match(dl_dst=frames.host_mac(number)),
            of.output(2),
            priority=number,
            flags=of.Flag.SEND_FLOW_REM,
        )
    bed.relays[2].refuse(False)
    bed.wait_for_link([17, 18], down=False, timeout=RECONNECT + RIGHT)
    # Two flows have room, and a third when the deleted flow has been removed from the switch.
    removed = removals(bed, 2, RIGHT)
    assert {flow.reason for flow, _ in removed.values()} == {RemovedReason.DELETE}
    left = {flow.priority for flow in controller.flow_stats() if flow.priority in range(100, 105)}
    assert sorted(left | removed.keys()) == list(range(100, 105)) and len(left) == 3
    bed.wait_until_right(RIGHT)
    after = rows(switch)
    kept = before.keys() & after.keys()
    assert len(kept) == len(before) - 1
    assert all(after[key].untouched(before[key]) for key in kept)
    controller.barrier()
    assert controller.take(Type.FLOW_REMOVED) == []
    assert bed.aggregator.log().count("switch 2: refuses flows that it has to have") == 1


def copy_on_s2(bed):
    """Return the controller's one flow as it is on s2, or None."""
    return next((flow for flow in dump(bed.network.switches[2]) if flow.cookie), None)


def five_are_known(bed, address):
    """Send five frames for the flow into s2, and read its counter. Return the flow's cookie
    there.
    """
    for _ in range(5):
        bed.network.send(17, frames.ethernet(dst=address))
    until(lambda: copy_on_s2(bed).packets == 5, "frames on s2", interval=0.001)
    bed.controller.flow_stats()
    return copy_on_s2(bed).cookie


def tell_late(bed, match, cookie, reason):
    """Send in the name of s2 that its copy has ended, with seven packets."""
    told = struct.pack("!QHBxIIH2xQQ", cookie, 0x8000, reason, 2, 0, 0, 7, 7 * 60)
    bed.relays[2].forge(NORTHWARD, of.message(Type.FLOW_REMOVED, match + told))


def test_a_copys_end_that_is_told_after_the_switch_is_back_counts_once(make_bed):
    """Open vSwitch reports a flow's end some time after it has removed the flow from its table."""
    bed = make_bed(relays=[2], flows=False)
    address = frames.host_mac(100)
    match = of.match(dl_dst=address)
    bed.controller.flow_mod(match, of.output(2), idle_timeout=1, flags=of.Flag.SEND_FLOW_REM)
    with Stream(bed.network, 1, [2], address) as stream:
        stream.wait_for_frames()
        bed.wait_until_right()
        cookie = five_are_known(bed, address)
        cut_off(bed)
        until(lambda: copy_on_s2(bed) is None, "end of the copy")
        bed.relays[2].refuse(False)
        bed.wait_for_link([17, 18], down=False, timeout=RECONNECT + RIGHT)
        tell_late(bed, match, cookie, RemovedReason.IDLE_TIMEOUT)
        stream.wait_for_frames()
    ((flow, _),) = removals(bed, 1, 5).values()
    assert flow.packet_count == stream.sent + 7


def test_the_same_when_its_time_was_up_there_and_has_begun_anew(make_bed):
    """A MODIFY restarts the hard timeout. The switch that is away does not hear of the MODIFY."""
    bed = make_bed(relays=[2], flows=False)
    controller = bed.controller
    match = of.match(dl_dst=frames.host_mac(100))
    controller.flow_mod(match, of.output(2), hard_timeout=2, flags=of.Flag.SEND_FLOW_REM)
    bed.wait_until_right()

    def modify():
        controller.flow_mod(match, of.output(2), of.Command.MODIFY_STRICT)

    cookie = five_are_known(bed, frames.host_mac(100))
    cut_off(bed)
    until(lambda: modify() or copy_on_s2(bed) is None, "end of the copy")
    bed.relays[2].refuse(False)
    until(lambda: modify() or copy_on_s2(bed), "another copy")
    tell_late(bed, match, cookie, RemovedReason.HARD_TIMEOUT)
    ((flow, _),) = removals(bed, 1, 5).values()
    assert flow.reason == RemovedReason.HARD_TIMEOUT
    assert flow.packet_count == 7
