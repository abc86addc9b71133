"""The aggregator itself is killed, stopped or frozen: the switches go on without it."""

import signal
import time
from contextlib import ExitStack

import pytest
from lab import frames
from lab import openflow10 as of
from lab.faultbed import dump, until
from lab.traffic import Stream

READY = 10.0
"""Seconds from the start until the controller sees all ports. Python and POX need time to start,
and Open vSwitch waits for one second between its attempts to connect.
"""
RIGHT = 2.0


def streams_of(bed, stack):
    """Send frames between two ports of one switch, from one switch to another, and flooded."""
    streams = [
        stack.enter_context(Stream(bed.network, port, outs, dst))
        for port, outs, dst in ((18, [17], ""), (33, [2], ""), (1, [18, 34], frames.BROADCAST))
    ]
    for stream in streams:
        stream.wait_for_frames()
    return streams


def controller_flows(bed):
    """Return the flows of controllers on each switch: all rows with a cookie."""
    return {
        dpid: {flow[:5] for flow in dump(switch) if flow.cookie}
        for dpid, switch in bed.network.switches.items()
    }


def wait_for_ports(bed, measured):
    started = time.monotonic()
    bed.controller.wait_until_connected(READY)
    bed.wait_for_ports(bed.numbers, READY)
    measured("ports there", time.monotonic() - started)
    bed.wait_until_right(RIGHT)
    measured("old flows removed", time.monotonic() - started)


def test_killed_and_started_again(make_bed, measured):
    """kill -9: forwarding goes on. After the restart no flow of the old run is left, and the
    controller's new flows are complete.
    """
    bed = make_bed()
    before = controller_flows(bed)
    with ExitStack() as stack:
        streams = streams_of(bed, stack)
        bed.aggregator.kill()
        bed.controller.wait_closed()
        for stream in streams:
            stream.wait_for_frames(100)
    for stream in streams:
        stream.expect_no_loss()
    assert controller_flows(bed) == before

    bed.aggregator.start()
    wait_for_ports(bed, measured)
    assert bed.controller.flow_stats() == []
    assert controller_flows(bed) == {1: set(), 2: set(), 3: set()}
    bed.install_flows()
    bed.wait_until_right(RIGHT)
    after = controller_flows(bed)
    for dpid, flows in before.items():
        assert {flow[:3] + flow[4:] for flow in after[dpid]} == {
            flow[:3] + flow[4:] for flow in flows
        }
        assert not {flow[3] for flow in after[dpid]} & {flow[3] for flow in flows}, "old cookies"
    with ExitStack() as stack:
        streams_of(bed, stack)


def test_killed_while_a_switch_was_away(make_bed):
    """The switch brings flows of the old run to the new one. They are removed, and the new flows
    added.

    A flow that the new controller wants as well takes the old one's place: no frame is lost.
    """
    bed = make_bed(relays=[2])
    relay, switch = bed.relays[2], bed.network.switches[2]
    with Stream(bed.network, 18, [17]) as stream:
        stream.wait_for_frames()
        relay.refuse()
        bed.aggregator.restart()
        bed.controller.wait_for_connection(2)
        bed.wait_for_ports([1, 2, 33, 34])
        bed.controller.flow_mod(of.match(dl_dst=frames.host_mac(17)), of.output(17))
        bed.controller.flow_mod(of.match(dl_type=0x88B5), of.output(2))
        assert len(controller_flows(bed)[2]) > 10
        relay.refuse(False)
        bed.wait_for_ports(bed.numbers)
        bed.wait_until_right(RIGHT)
        assert len([flow for flow in dump(switch) if flow.cookie]) == 2
        stream.wait_for_frames()
    stream.expect_no_loss()


def test_killed_in_the_middle_of_a_burst_of_flow_mods(make_bed):
    """Afterwards no flow of the burst is left on any switch."""
    bed = make_bed(flows=False)
    burst = [
        of.flow_mod(of.match(dl_dst=frames.host_mac(number)), of.output(17))
        for number in range(5000)
    ]
    bed.controller.send(*burst)
    until(lambda: controller_flows(bed)[1], "first flows on s1", interval=0)
    bed.aggregator.kill()
    assert controller_flows(bed)[1]
    bed.aggregator.start()
    bed.controller.wait_for_connection(2)
    bed.wait_for_ports(bed.numbers)
    bed.wait_until_right(RIGHT)
    assert controller_flows(bed) == {1: set(), 2: set(), 3: set()}


@pytest.mark.parametrize("how", ["terminate", "interrupt"])
def test_a_clean_stop_leaves_the_switches_forwarding(make_bed, how):
    """SIGTERM and Ctrl-C: exit status 0, no traceback, the flows stay, and all connections are
    closed.
    """
    bed = make_bed()
    before = controller_flows(bed)
    with ExitStack() as stack:
        streams = streams_of(bed, stack)
        assert getattr(bed.aggregator, how)() in (0, -signal.SIGINT)
        bed.controller.wait_closed()
        for stream in streams:
            stream.wait_for_frames(50)
    for stream in streams:
        stream.expect_no_loss()
    assert controller_flows(bed) == before
    assert "Traceback" not in bed.aggregator.log()


def test_frozen_until_the_switches_give_it_up(make_bed):
    """The switches go on forwarding. When the aggregator goes on, it brings them up to date."""
    bed = make_bed()
    ports = bed.controller.features().ports

    def given_up(switch):
        return "true" not in switch.ovs.vsctl("get", "controller", switch.name, "is_connected")

    with ExitStack() as stack:
        streams = streams_of(bed, stack)
        bed.aggregator.freeze()
        try:
            for switch in bed.network.switches.values():
                until(lambda switch=switch: given_up(switch), "end of the connection", 20, 0.1)
        finally:
            bed.aggregator.thaw()
        bed.wait_until_right(RIGHT + 2)
        for stream in streams:
            stream.wait_for_frames()
    for stream in streams:
        stream.expect_no_loss()
    assert bed.controller.features().ports == ports
