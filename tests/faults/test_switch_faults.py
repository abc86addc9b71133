"""A switch dies, hangs or loses its connection, and comes back (real daemons, real signals)."""

import time
from contextlib import ExitStack
from typing import Callable, NamedTuple

import pytest
from lab import frames
from lab import openflow10 as of
from lab.faultbed import dump, until
from lab.traffic import Stream

SOON = 1.0
"""Seconds in which the end of a TCP connection must have been told north."""
SWITCH_TIMEOUT = 5.0
"""Seconds, the default of --switch_timeout."""
RIGHT = 2.0
"""Seconds in which a switch that is back must have exactly its flows."""
RECONNECT = 1.5
"""Seconds in which Open vSwitch tries again (max_backoff is one second)."""


class Fault(NamedTuple):
    """What happens to s2.

    breaks, mends: do it, undo it
    lost_within: seconds in which the controller must hear that the ports are down
    keeps: the switch still has its flows, with their counters, when it is back
    forwards: it forwards meanwhile, between its own ports
    """

    breaks: Callable
    mends: Callable
    lost_within: float
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

FAULTS = {
    "ovs-vswitchd killed": Fault(
        lambda switch: switch.ovs.kill_vswitchd(),
        lambda switch: switch.ovs.start(),
        SOON,
        keeps=False,
        forwards=False,
    ),
    "both daemons killed": Fault(
        kill_both, lambda switch: switch.ovs.start(), SOON, keeps=False, forwards=False
    ),
    "ovsdb-server killed": Fault(
        lambda switch: switch.ovs.kill_ovsdb(),
        lambda switch: switch.ovs.start(),
        SILENT,
        keeps=True,
        forwards=False,
    ),
    "all cables cut": Fault(
        lambda switch: switch.cut(),
        lambda switch: switch.mend(),
        SILENT,
        keeps=True,
        forwards=True,
    ),
    "control cable cut": Fault(
        lambda switch: switch.cut(underlay=False),
        lambda switch: switch.mend(),
        SILENT,
        keeps=True,
        forwards=True,
    ),
    "frozen": Fault(
        lambda switch: switch.ovs.sigstop(),
        lambda switch: switch.ovs.sigcont(),
        SILENT,
        keeps=True,
        forwards=False,
    ),
    "restarted with empty tables": Fault(
        lambda switch: switch.ovs.restart(),
        lambda switch: None,
        SOON,
        keeps=False,
        forwards=False,
    ),
    "restarted with its flows": Fault(
        lambda switch: switch.ovs.restart(keep_flows=True),
        lambda switch: None,
        SOON,
        keeps=False,
        forwards=False,
    ),
    "connection dropped": Fault(
        drop_connection, lambda switch: None, SOON, keeps=True, forwards=True
    ),
}


def counts(bed):
    """The packets of every flow, by its match and priority, as the controller sees them."""
    return {
        (tuple(sorted(flow.match.items())), flow.priority): flow.packet_count
        for flow in bed.controller.flow_stats()
    }


def assert_not_lower(now, before):
    lower = {key: (before[key], now[key]) for key in now if now[key] < before.get(key, 0)}
    assert not lower, f"counters went down: {lower}"


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_switch_goes_and_comes_back(make_bed, measured, fault):
    """Its ports go down and up north, the others forward, and it has exactly its flows again."""
    bed = make_bed()
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
        rows_before = {flow.cookie: flow for flow in dump(switch) if flow.cookie}
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
    if fault.keeps:
        rows = {flow.cookie: flow for flow in dump(switch) if flow.cookie}
        assert rows.keys() == rows_before.keys()
        for cookie, old in rows_before.items():
            new = rows[cookie]
            assert new.duration > old.duration and new.packets >= old.packets, (old, new)
