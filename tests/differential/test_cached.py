"""Open vSwitch with its cache of datapath flows, as it is delivered.

In the other modules every frame goes through the OpenFlow tables, so that counters are exact at
once. Here the datapath reports counters and times of last use now and then. Nothing else may
change.
"""

import pytest
from lab import frames
from lab import openflow10 as of
from lab.bigswitch import BigSwitch, PlainSwitch
from lab.openflow10 import Command, Flag, Port

from .both import Both, wait_for
from .specimens import FRAMES, PORTS
from .test_timeouts import (
    IDLE,
    Clock,
    add,
    frame_for,
    match_for,
    packets,
    reasons,
)

REMOVED = Flag.SEND_FLOW_REM
UDP = frames.udp()


@pytest.fixture(scope="module")
def _pair(root):
    plain = PlainSwitch(flow_limit=None)
    big = BigSwitch(flow_limit=None)
    yield Both(plain, big)
    big.stop()
    plain.stop()


@pytest.fixture
def both(_pair):
    """The two switches with caches, as new."""
    _pair.reset()
    revalidated(_pair)
    _pair.patient = True
    _pair.in_order = False  # the datapath handles the frames of one datapath flow together
    return _pair


def revalidated(both, how="purge"):
    """Return when the caches agree with the tables and have reported their counters.

    how: "purge" empties the caches at once, "wait" waits for the revalidator's next round.
    """
    for bed in both.beds:
        for ovs in bed.wires.daemons():
            ovs.appctl("revalidator/" + how)


def test_every_frame_twice(both):
    """The tables forward the first frame of each kind, the cache the second."""
    both.flow_mod(
        of.match(), [of.output(Port.FLOOD), of.set_vlan_vid(5), of.output(18), of.output(1)]
    )
    for frame in FRAMES.values():
        for port in (2, 17):
            both.inject(port, frame, frame)
    revalidated(both)
    both.flows()


def test_lookups_and_matches(both):
    """Lookups and matches include frames that the cache has forwarded."""
    both.flow_mod(of.match(in_port=1), of.output(Port.FLOOD))
    both.flow_mod(of.match(in_port=18), of.output(2), priority=0)
    revalidated(both)
    both.mark()
    for port in PORTS:
        both.inject(port, *[UDP] * 20)
    both.packet_out(UDP, of.output(Port.TABLE), 1)
    revalidated(both)
    assert both.table() == (2, 81, 41)


def test_counters_catch_up(both):
    both.flow_mod(of.match(), of.output(Port.FLOOD), cookie=1)
    both.flow_mod(of.match(in_port=17), of.output(1), cookie=2, priority=0xFFFF)
    for port in PORTS:
        both.inject(port, *[UDP] * 50)
    for bed in both.beds:
        wait_for(
            lambda bed=bed: (
                {
                    flow.cookie: (flow.packet_count, flow.byte_count)
                    for flow in bed.controller.flow_stats()
                }
                == {1: (150, 9000), 2: (50, 3000)}
            ),
            "right counters",
        )
    assert both.aggregate() == (200, 12000, 2)
    both.ports()


def test_a_deleted_or_expired_flow_has_counted_everything(both):
    """The flow has counted all that the cache had reported. Open vSwitch waits for no more
    either.
    """
    for number in range(1, 6):
        add(
            both,
            number,
            in_port=17 if number == 5 else None,
            hard_timeout=1 if number == 4 else 0,
            flags=REMOVED,
        )
    for port in PORTS:
        both.each(
            lambda bed, port=port: bed.wires.send(
                port, *(frame_for(number) for number in range(1, 6) for _ in range(5))
            )
        )
    both.outcome()
    revalidated(both)
    both.flow_mod(match_for(1), command=Command.DELETE)
    both.flow_mod(match_for(2), command=Command.DELETE_STRICT)
    both.flow_mod(match_for(5), command=Command.DELETE)
    assert packets(both.removed(4)) == {1: 20, 2: 20, 4: 20, 5: 5}
    assert both.counters() == {3: (20, 1200)}


def test_changes_hold_for_the_frames_after_them(both):
    """A change holds once the revalidator has run. Open vSwitch's barrier does not wait for
    that.
    """
    for number in range(6):
        port = PORTS[number % 4]
        both.flow_mod(of.match(), [of.set_tp_dst(number), of.output(port)], cookie=number)
        revalidated(both, "wait" if number < 2 else "purge")
        for entry in PORTS:
            outcome = both.inject(entry, UDP, UDP, UDP)
            assert outcome.ports == ([port] * 3 if entry != port else [])
        if number % 3 == 2:
            both.flow_mod(command=Command.DELETE)
            revalidated(both)
            assert len(both.inject(17, UDP).packet_ins) == 1


def test_a_modified_flow_keeps_what_was_counted(both):
    for match in (of.match(), of.match(in_port=17)):
        both.flow_mod(match, of.output(1), cookie=1, flags=REMOVED)
        for number in range(3):
            revalidated(both)
            both.inject(17, *[UDP] * 10)
            both.flow_mod(match, of.output(PORTS[number % 2]), Command.MODIFY, cookie=number)
        # When a change and a deletion follow in quick succession, Open vSwitch may not count
        # everything.
        revalidated(both)
        both.flow_mod(command=Command.DELETE)
        assert packets(both.removed(1)) == {2: 30}
        revalidated(both)


def test_traffic_on_one_switch_keeps_a_flow(both):
    """Traffic on one switch keeps the flow on the other switch too. Afterwards the flow idles out,
    and reports the sum of both counters.
    """
    sent = {1: 0, 2: 0}
    for number in sent:
        add(both, number, idle_timeout=2, flags=REMOVED, out=Port.FLOOD)
    clock = Clock()
    step = 0
    while clock.now < 3:
        clock.until(step * 0.25)
        step += 1
        for number, port in ((1, 17), (2, 1)):
            assert len(both.inject(port, frame_for(number)).ports) == 3
            sent[number] += 1
    for number, port in ((1, 1), (2, 17)):
        outcome = both.inject(port, frame_for(number))
        assert (len(outcome.ports), outcome.packet_ins) == (3, [])
        sent[number] += 1
    removed = both.removed(2, tolerance=2)  # the cache may report the last use a second late
    assert reasons(removed) == {1: IDLE, 2: IDLE}
    assert packets(removed) == sent
    both.quiet()


def test_fragments_and_ports_through_the_cache(both):
    both.flow_mod(of.match(), of.output(Port.FLOOD))
    names = [name for name in FRAMES if "fragment" in name]
    for flags in (0, 1):
        both.set_config(flags)
        revalidated(both)
        both.inject(17, *(FRAMES[name] for name in names), *(FRAMES[name] for name in names))
    for bit in (of.PortConfig.NO_FLOOD, of.PortConfig.NO_FWD, of.PortConfig.NO_RECV, 0):
        both.port_mod(1, bit, 0x7F)
        both.port_mod(18, bit, 0x7F)
        revalidated(both)
        for entry in PORTS:
            both.inject(entry, UDP, UDP)
