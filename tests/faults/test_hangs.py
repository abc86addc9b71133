"""A switch that is connected but does nothing, or reads nothing: nobody else waits for it."""

import threading
import time
from contextlib import ExitStack, closing

import pytest
from lab import frames
from lab import openflow10 as of
from lab.controller import Connection
from lab.faultbed import dump, resident_memory, until
from lab.openflow10 import Type
from lab.relay import NORTHWARD, SOUTHWARD
from lab.traffic import Stream

SOON = 1.0
SWITCH_TIMEOUT = 2.0
"""Seconds: --switch_timeout of these tests."""
ANSWERED = SWITCH_TIMEOUT + SOON
"""Seconds within which every request is answered, whatever a switch does, because of
--switch_timeout.
"""
LOST = SWITCH_TIMEOUT * 4 / 3 + SOON
RIGHT = 2.0
PORT = 6640
"""Where clients connect (--listen)."""
MEGABYTE = 1 << 20


@pytest.fixture
def bed(make_bed):
    return make_bed(options=[f"--switch_timeout={SWITCH_TIMEOUT}"], relays=[2])


def freeze(bed):
    bed.network.switches[2].ovs.sigstop()


def swallow(bed):
    bed.relays[2].swallow()


def swallow_answers(bed):
    bed.relays[2].swallow(NORTHWARD)


def swallow_requests(bed):
    bed.relays[2].swallow(SOUTHWARD)


def block(bed):
    bed.relays[2].block()


def thaw(bed):
    bed.network.switches[2].ovs.sigcont()


def has_ethertype(switch, ethertype):
    """Whether a flow with this dl_type is on the switch (NXM_OF_ETH_TYPE)."""
    return any(f"00000602{ethertype:04x}" in flow.match for flow in dump(switch))


HANGS = [freeze, swallow, swallow_answers, swallow_requests, block]
each_hang = pytest.mark.parametrize("hang", HANGS, ids=[hang.__name__ for hang in HANGS])


@each_hang
def test_the_others_are_served_while_a_switch_hangs(bed, measured, hang):
    """A flow-mod is on the other switches at once. Barriers and statistics are answered in time."""
    controller, network = bed.controller, bed.network
    with ExitStack() as stack:
        streams = [
            stack.enter_context(Stream(network, port, [out])) for port, out in ((1, 2), (33, 1))
        ]
        for stream in streams:
            stream.wait_for_frames()
        # The hung switch keeps sending packet-ins, as long as its messages arrive.
        stack.enter_context(Stream(network, 18, [], dst="02:00:00:00:00:99", pace=0.05))
        hang(bed)
        started = time.monotonic()
        controller.send(of.flow_mod(of.match(dl_type=0x1234), of.output(2)))
        until(lambda: has_ethertype(network.switches[1], 0x1234), "flow on s1", SOON)
        assert controller.request(of.message(Type.ECHO_REQUEST)).type == Type.ECHO_REPLY
        measured("flow-mod on the others", time.monotonic() - started)
        controller.barrier(ANSWERED)
        measured("barrier", time.monotonic() - started)
        assert controller.request(of.message(Type.FEATURES_REQUEST), SOON)
        assert len(controller.flow_stats()) == 22
        measured("flow stats", time.monotonic() - started)
        assert time.monotonic() - started < ANSWERED + SOON
        bed.wait_for_link([17, 18], down=True, timeout=LOST)
        lost = time.monotonic()
        controller.barrier()
        assert len(controller.port_stats()) == 6
        assert time.monotonic() - lost < SOON, "nobody waits any more"
        for stream in streams:
            stream.wait_for_frames()
        bed.relays[2].flow()
        thaw(bed)
        bed.wait_for_link([17, 18], down=False, timeout=15)
        bed.wait_until_right(RIGHT)
    for stream in streams:
        stream.expect_no_loss()


TO = "02:00:00:00:00:77"
FRAME = frames.ethernet(dst=TO)
THROUGH_TABLE = [of.packet_out(FRAME, of.output(of.Port.TABLE), 1)] * 2


def swallow_behind_a_flow(bed, match):
    """Send packet-outs that meet a flow, so that the aggregator has learned how the switches handle
    them. Then let s2 hang.
    """
    bed.controller.send(of.flow_mod(match, of.output(34)), *THROUGH_TABLE)
    bed.controller.barrier()
    bed.network.expect({34: [FRAME] * 2})
    swallow(bed)


def test_a_packet_out_behind_a_barrier_does_not_wait_for_a_switch_that_it_does_not_concern(bed):
    """The flow before the barrier concerns the packet-out's own switch alone."""
    controller, network = bed.controller, bed.network
    match = of.match(in_port=1, dl_dst=TO)
    swallow_behind_a_flow(bed, match)
    controller.send(
        of.flow_mod(match, [of.output(2), of.output(of.Port.CONTROLLER)]),
        of.message(Type.BARRIER_REQUEST, xid=77),
        *THROUGH_TABLE,
    )
    for _ in THROUGH_TABLE:
        assert network.receive(2, SOON) == FRAME
    assert controller.take() == [], "neither the answer nor what comes behind it"
    assert controller.expect(Type.BARRIER_REPLY, ANSWERED).xid == 77
    for _ in THROUGH_TABLE:
        controller.expect(Type.PACKET_IN, SOON)
    network.expect_nothing()


@pytest.mark.parametrize(
    "match, barriers",
    [({"in_port": 1}, 2), ({}, 1)],
    ids=["second barrier", "flow on all switches"],
)
def test_a_packet_out_behind_a_barrier_waits_where_it_has_to(bed, match, barriers):
    """It waits if the flow-mod before the barrier was sent to the hung switch too, and if an
    earlier barrier is unanswered.
    """
    controller, network = bed.controller, bed.network
    match = of.match(dl_dst=TO, **match)
    swallow_behind_a_flow(bed, match)
    controller.send(
        of.flow_mod(match, of.output(2)),
        *[of.message(Type.BARRIER_REQUEST)] * barriers,
        *THROUGH_TABLE,
    )
    assert network.ports[2].receive(SOON) is None
    for _ in range(barriers):
        controller.expect(Type.BARRIER_REPLY, ANSWERED)
    network.expect({2: [FRAME] * 2})


def test_a_controller_that_sends_a_switch_more_than_it_reads_is_held_back(make_bed):
    """Nothing is lost, and no other controller and no other switch has to wait.

    If the switch reads nothing for good, it is given up, and the controller goes on.
    """
    bed = make_bed(options=[f"--switch_timeout={SWITCH_TIMEOUT}", f"--listen={PORT}"], relays=[2])
    controller, relay = bed.controller, bed.relays[2]
    match = of.match(in_port=17, dl_type=0x9999)
    controller.flow_mod(match, [], priority=50000)
    frame = frames.ethernet(ethertype=0x9999, payload=bytes(60000))
    count = 1700
    burst = [of.packet_out(frame, of.output(of.Port.TABLE), 17)] * count  # 102 MB
    sender = threading.Thread(target=controller.send, args=burst)
    before = resident_memory(bed.aggregator.pid)
    other = Connection.open(bed.network.outer, PORT)
    with closing(other), Stream(bed.network, 1, [2]) as stream:
        relay.block()
        sender.start()
        sender.join(0.7)
        assert sender.is_alive(), "it is held back"
        other.send(of.flow_mod(of.match(dl_type=0x9998, in_port=1), of.output(2)))
        until(lambda: has_ethertype(bed.network.switches[1], 0x9998), "flow on s1", SOON)
        assert other.request(of.message(Type.ECHO_REQUEST), SOON)
        assert resident_memory(bed.aggregator.pid) - before < 20 * MEGABYTE
        relay.flow()
        sender.join(20)
        controller.barrier()
        assert controller.flow_stats(match)[0].packet_count == count
        assert controller.take(Type.PORT_STATUS, Type.ERROR) == [], "never lost"
        relay.block()
        sender = threading.Thread(target=controller.send, args=burst[:800])
        sender.start()
        bed.wait_for_link([17, 18], down=True)
        sender.join(20)
        assert not sender.is_alive(), "it goes on"
        controller.barrier(SOON)
        stream.wait_for_frames()
    stream.expect_no_loss()


def test_a_slow_switch_gets_there(make_bed):
    """One switch has a link of 100 kB/s, and 3,000 flows are added at once. The other switches have
    theirs at once; the slow one gets all of them.
    """
    bed = make_bed(relays=[2])
    controller = bed.controller
    bed.relays[2].bytes_per_second = 100_000
    controller.send(
        *(
            of.flow_mod(of.match(dl_dst=frames.host_mac(1000 + number)), of.output(1))
            for number in range(3000)
        )
    )
    bed.wait_until_right(RIGHT, dpids=[1, 3])
    controller.barrier(10)
    bed.wait_until_right(10)
    assert bed.controller.take(Type.PORT_STATUS, Type.ERROR) == [], "never lost"
