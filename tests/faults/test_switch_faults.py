"""A switch dies, hangs or loses its connection, and comes back (real daemons, real signals)."""

import re
import time
from contextlib import ExitStack
from typing import Callable, NamedTuple

import pytest
from lab import frames
from lab import openflow10 as of
from lab.faultbed import dump, until
from lab.openflow10 import Port, Type
from lab.relay import SOUTHWARD
from lab.traffic import Stream

SOON = 1.0
"""Seconds in which the end of a TCP connection must have been told north."""
SWITCH_TIMEOUT = 2.0
"""Seconds: --switch_timeout of these tests (5 by default)."""
RIGHT = 2.0
"""Seconds in which a switch that is back must have exactly its flows."""
RECONNECT = 1.5
"""Seconds in which Open vSwitch tries again (max_backoff is one second)."""


class Fault(NamedTuple):
    """What happens to s2.

    breaks, mends: do it, undo it
    lost_within: seconds in which the controller must hear that the ports are down
    has_flows: the switch still has its flows when it is back
    keeps: and they are the very same, with their counters
    forwards: it forwards meanwhile, between its own ports
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
"""Seconds in which the silence of a switch must have been noticed and told north."""

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
    """The packets of every flow, by its match and priority, as the controller sees them."""
    return {
        (tuple(sorted(flow.match.items())), flow.priority): flow.packet_count
        for flow in bed.controller.flow_stats()
    }


def rows(switch):
    """All that is on a switch, by table, priority and match."""
    return {(flow.table, flow.priority, flow.match): flow for flow in dump(switch)}


def assert_not_lower(now, before):
    lower = {key: (before[key], now[key]) for key in now if now[key] < before.get(key, 0)}
    assert not lower, f"counters went down: {lower}"


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_switch_goes_and_comes_back(make_bed, measured, fault):
    """Its ports go down and up north, the others forward, and it has exactly its flows again."""
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


LOAD_KEY = "00012008"  # NXM_NX_TUN_ID, in an action that loads it
FLOOD_KEYS = tuple(LOAD_KEY + f"{key:016x}" for key in (0x7E, 0x7F))


def floods(switch):
    """The actions of the flows on a switch that FLOOD or ALL into tunnels, by their cookie."""
    return {
        flow.cookie: flow.actions
        for flow in dump(switch)
        if any(key in flow.actions for key in FLOOD_KEYS)
    }


def test_flood_and_all_stop_paying_for_a_lost_switch(make_bed):
    """Nothing is sent into the tunnel to it any more; what names its ports stays as it is."""
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
    """Missing is added, stale removed, changed changed, broken repaired; the rest is untouched."""
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
    # To ports 1 (deleted), 33 (modified), 2 (replaced), 18 (put back), 34 and key 1 (repaired).
    assert len(touched) == 6, touched
    assert len(after.keys() - before.keys()) == 1, "the new one"
    frame = frames.ethernet(src=frames.host_mac(17), dst=frames.host_mac(34))
    bed.network.send(17, frame)
    bed.network.expect({34: [frame]})


def test_a_flapping_connection_does_not_stop_the_traffic(make_bed):
    """Whatever moment it is cut in: forwarding on the switch and through it goes on."""
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
        for messages in range(0, 12, 4):  # of the aggregator's, until it is cut
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
    """Every counter that the controller can read, by what it counts."""
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
    """Read all the time while a switch goes and comes back; its share stays in the sums."""
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
    """kill -9 at once after it is back, again and again; at the end all is right."""
    bed = make_bed()
    switch = bed.network.switches[2]
    with Stream(bed.network, 1, [2]) as stream:
        for _ in range(3):
            switch.ovs.kill_vswitchd()
            switch.ovs.start()
        bed.wait_until_right(RECONNECT + RIGHT)
        stream.wait_for_frames()
    stream.expect_no_loss()


def test_flows_whose_time_is_up_while_their_switch_is_away(make_bed):
    """They end when they should, once, with what they had counted; and do not come back."""
    bed = make_bed(relays=[2], flows=False)
    controller, relay, network = bed.controller, bed.relays[2], bed.network
    for number, fields in enumerate(({"idle_timeout": 2}, {"hard_timeout": 3})):
        for in_port in (None, 17):
            match = {"dl_dst": frames.host_mac(number)}
            if in_port:
                match["in_port"] = in_port
            controller.flow_mod(
                of.match(**match),
                of.output(18),
                priority=100 + (in_port or 0),
                flags=of.Flag.SEND_FLOW_REM,
                **fields,
            )
    started = time.monotonic()
    for number in range(2):
        network.send(17, frames.ethernet(dst=frames.host_mac(number)))
    network.capture()
    bed.wait_until_right()
    relay.refuse()
    relay.drop()
    removed = [
        of.unpack_flow_removed(controller.expect(Type.FLOW_REMOVED, 6).body) for _ in range(4)
    ]
    assert 2.5 < time.monotonic() - started < 5
    reasons = sorted((flow.reason, flow.priority) for flow in removed)
    assert reasons == [(0, 100), (0, 117), (1, 100), (1, 117)]
    for flow in removed:
        assert flow.duration == pytest.approx(3 if flow.reason else 2, abs=1)
    assert controller.flow_stats() == []
    relay.refuse(False)
    bed.wait_for_link([17, 18], down=False, timeout=RECONNECT + RIGHT)
    bed.wait_until_right()
    controller.barrier()
    assert controller.take(Type.FLOW_REMOVED) == []
    assert not any(flow.cookie for flow in dump(network.switches[2]))
