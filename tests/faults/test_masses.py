"""Flows that end in masses: what the controller is told of them, and at what cost."""

import struct
import threading
from collections import Counter

from lab import frames
from lab import openflow10 as of
from lab.openflow10 import Command, Flag, RemovedReason, Type
from lab.relay import SOUTHWARD

NXT_FLOW_MOD = struct.pack("!II", of.NX_VENDOR, 13)
SECONDS = 30
"""Within which all has been told, on a machine with other load too."""


def match_for(number):
    return of.match(dl_type=0x800, nw_proto=17, tp_dst=number)


def add(bed, numbers, **fields):
    bed.controller.send(
        *(
            of.flow_mod(
                match_for(number),
                of.output(18),
                cookie=number,
                flags=Flag.SEND_FLOW_REM,
                **fields,
            )
            for number in numbers
        )
    )
    bed.controller.barrier(SECONDS)


def removed(bed, count):
    """Return the FLOW_REMOVED of so many flows, by cookie."""
    found = {}
    for _ in range(count):
        flow = of.unpack_flow_removed(bed.controller.expect(Type.FLOW_REMOVED, SECONDS).body)
        assert flow.cookie not in found
        found[flow.cookie] = flow
    return found


def test_a_switch_with_a_slow_line_has_the_time_to_tell_what_its_flows_have_counted(make_bed):
    """Its line carries the FLOW_REMOVED in three seconds. The other switch has told at once."""
    bed = make_bed(2, relays=[2], flows=False)
    numbers = range(1, 1601)
    add(bed, numbers)
    counted = numbers[::40]
    for start in range(0, len(counted), 25):
        bed.wires.send(17, *(frames.udp(dport=each) for each in counted[start : start + 25]))
        bed.settle()
    bed.relays[2].bytes_per_second = 44_000
    bed.controller.send(of.flow_mod(command=Command.DELETE))
    packets = {cookie: flow.packet_count for cookie, flow in removed(bed, len(numbers)).items()}
    assert packets == {number: int(number in counted) for number in numbers}
    assert bed.controller.take(Type.PORT_STATUS, Type.ERROR) == [], "never lost"


def test_flows_that_fall_idle_together_cost_few_messages(make_bed):
    """For each flow, only one switch is told to delete its copy, and is asked at most once. No copy
    is put back, but for the few that are told first.
    """
    bed = make_bed(2, relays=[1, 2], flows=False)
    numbers = range(1, 3001)
    add(bed, numbers, idle_timeout=2)
    kinds = Counter()
    lock = threading.Lock()

    def count(direction, message):
        if direction == SOUTHWARD:
            with lock:
                kinds[message[8:16] if message[1] == Type.VENDOR else message[1]] += 1
        return message

    for relay in bed.relays.values():
        relay.mangle = count
    found = removed(bed, len(numbers))
    assert {flow.reason for flow in found.values()} == {RemovedReason.IDLE_TIMEOUT}
    few = len(numbers) / 5
    assert kinds[Type.FLOW_MOD] <= few, "put back"
    assert kinds[NXT_FLOW_MOD] <= len(numbers) + few, "deleted"
    assert kinds[Type.STATS_REQUEST] <= len(numbers) + few
