"""Flow-mods: the table that they leave, and what frames meet there.

OpenFlow 1.0.0, 4.6 and 5.3.3.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import frames
from lab import openflow10 as of
from lab.openflow10 import Command, Flag, Port, RemovedReason

from .specimens import PORTS, examples, match_of

UDP = frames.udp()
KEEP = 0xFFFFFFFFFFFFFFFF
"""The cookie of a MODIFY that leaves cookies as they are."""

ALL_MATCHES = {
    "all-wild": of.match(),
    "in_port 1": of.match(in_port=1),
    "in_port 17": of.match(in_port=17),
    "ip": of.match(dl_type=0x800),
    "exact": match_of(UDP, 1),
}
"""Matches of every width for a UDP frame that enters port 1 (one is for port 17)."""


def add(both, match, port=18, **fields):
    """Add a flow that outputs to one port."""
    both.flow_mod(match, of.output(port), **fields)


# ---- ADD ----


@pytest.mark.parametrize("match", ALL_MATCHES.values(), ids=ALL_MATCHES)
@pytest.mark.parametrize("priority", [0, 1, 0x8000, 0xFFFF])
def test_add_replaces_the_flow_of_the_same_match_and_priority(both, match, priority):
    """New actions, cookie, timeouts and flags; counters from 0; no flow-removed."""
    entry = 17 if match == ALL_MATCHES["in_port 17"] else 1
    add(
        both,
        match,
        priority=priority,
        cookie=1,
        idle_timeout=100,
        hard_timeout=200,
        flags=Flag.SEND_FLOW_REM,
    )
    assert both.inject(entry, UDP, UDP).ports == [18, 18]
    assert both.counters() == {1: (2, 120)}
    add(both, match, 2, priority=priority, cookie=2)
    (flow,) = both.flows()
    assert (flow.cookie, flow.idle_timeout, flow.hard_timeout) == (2, 0, 0)
    assert (flow.packet_count, flow.byte_count) == (0, 0)
    assert both.inject(entry, UDP).ports == [2]
    # The same ADD again also restarts the counters.
    add(both, match, 2, priority=priority, cookie=2)
    assert both.counters() == {2: (0, 0)}
    both.flow_mod(command=Command.DELETE)
    assert both.flows() == []
    assert len(both.inject(entry, UDP).packet_ins) == 1
    both.quiet()


def test_the_same_match_with_other_priorities_are_other_flows(both):
    for number, priority in enumerate((0, 1, 2, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)):
        add(both, of.match(), priority=priority, cookie=number)
        add(both, of.match(in_port=17), priority=priority, cookie=100 + number)
    assert len(both.flows()) == 14
    assert both.table()[0] == 14


@pytest.mark.parametrize("cookie", [0, 1, 0x8000000000000000, KEEP - 1, KEEP])
def test_the_controllers_cookie_is_read_back(both, cookie):
    """Several flows may have the same cookie."""
    for priority in (1, 2):
        add(both, of.match(), cookie=cookie, priority=priority, flags=Flag.SEND_FLOW_REM)
        add(both, of.match(in_port=17), cookie=cookie, priority=priority, flags=Flag.SEND_FLOW_REM)
    assert [flow.cookie for flow in both.flows()] == [cookie] * 4
    both.flow_mod(command=Command.DELETE)
    assert [removed.cookie for removed in both.removed(4)] == [cookie] * 4


def test_add_takes_no_notice_of_out_port(both):
    for out_port in (1, 18, Port.NONE, Port.ALL, 0xFF00, 0):
        add(both, of.match(dl_vlan=out_port & 0xFFF), out_port=out_port)
    assert len(both.flows()) == 6


def test_a_flow_without_actions_drops(both):
    both.flow_mod(of.match(in_port=1), cookie=1)
    both.flow_mod(of.match(in_port=17), cookie=2)
    assert both.inject(1, UDP) == ({}, [])
    assert both.inject(17, UDP) == ({}, [])
    assert both.counters() == {1: (1, 60), 2: (1, 60)}


@pytest.mark.parametrize("count", [1, 2, 100, 1000, 5000])
def test_long_lists_of_actions(both, count):
    """Every 250th action is an output, the others are sets."""
    actions = [
        of.output(PORTS[number // 250 % 4]) if number % 250 == 249 else of.set_tp_src(number)
        for number in range(count)
    ]
    both.flow_mod(of.match(in_port=1), actions)
    (flow,) = both.flows()
    assert flow.actions == b"".join(actions)
    out = both.inject(1, UDP)
    assert len(out.ports) == sum(number % 4 != 0 for number in range(count // 250))


def test_timeouts_are_read_back(both):
    for number, (idle, hard) in enumerate(((0, 0), (1000, 0), (0, 1000), (0xFFFF, 0xFFFF))):
        add(both, of.match(in_port=1), priority=number, idle_timeout=idle, hard_timeout=hard)
    both.flows()


# ---- priority 0, and flows that match everything ----


@pytest.mark.parametrize("match", ALL_MATCHES.values(), ids=ALL_MATCHES)
def test_a_flow_of_priority_0_beats_the_table_miss(both, match):
    entry = 17 if match == ALL_MATCHES["in_port 17"] else 1
    add(both, match, 2, priority=0, cookie=1)
    for _ in range(3):
        assert both.inject(entry, UDP) == ({2: [UDP]}, [])
    assert both.counters() == {1: (3, 180)}
    both.flow_mod(match, priority=0, command=Command.DELETE_STRICT)
    assert len(both.inject(entry, UDP).packet_ins) == 1
    assert both.flows() == []


def test_a_dropping_flow_that_matches_everything(both):
    for priority in (0, 1, 0xFFFF):
        both.flow_mod(of.match(), priority=priority)
        for port in PORTS:
            assert both.inject(port, UDP) == ({}, [])
        both.flow_mod(of.match(), priority=priority, command=Command.DELETE_STRICT)
        for port in PORTS:
            assert len(both.inject(port, UDP).packet_ins) == 1


def test_flows_of_priority_0_among_others(both):
    """A flow of priority 0 comes after all others, but before the table miss. The highest flow is
    deleted first.
    """
    add(both, of.match(), 2, priority=0, cookie=1)
    add(both, of.match(dl_type=0x800), 17, priority=1, cookie=2)
    add(both, of.match(in_port=1, dl_type=0x800), 18, priority=2, cookie=3)
    for port, expected in ((18, 3), (17, 2), (2, 1)):
        assert both.inject(1, UDP).ports == [port]
        assert both.inject(1, frames.arp()).ports == [2]
        both.flow_mod(priority=expected - 1, command=Command.DELETE, out_port=port)
    assert both.flows() == []
    assert both.table()[1:] == (6, 6)


def test_priority_0_from_each_port(both):
    for number, port in enumerate(PORTS):
        add(both, of.match(in_port=port), PORTS[number - 1], priority=0, cookie=port)
    both.flow_mod(of.match(dl_type=0x806), of.output(Port.FLOOD), priority=0, cookie=99)
    for number, port in enumerate(PORTS):
        assert both.inject(port, UDP).ports == [PORTS[number - 1]]
    assert {cookie: packets for cookie, (packets, _) in both.counters().items()} == {
        **dict.fromkeys(PORTS, 1),
        99: 0,
    }


# ---- MODIFY ----


@pytest.mark.parametrize("command", [Command.MODIFY, Command.MODIFY_STRICT])
@pytest.mark.parametrize("match", ALL_MATCHES.values(), ids=ALL_MATCHES)
@pytest.mark.parametrize("priority", [0, 0x8000, 0xFFFF])
def test_modify_changes_actions_and_cookie_and_keeps_the_rest(both, command, match, priority):
    entry = 17 if match == ALL_MATCHES["in_port 17"] else 1
    add(
        both,
        match,
        priority=priority,
        cookie=1,
        idle_timeout=100,
        hard_timeout=200,
        flags=Flag.SEND_FLOW_REM,
    )
    assert both.inject(entry, UDP).ports == [18]
    both.flow_mod(
        match,
        of.output(2),
        command,
        priority,
        cookie=2,
        idle_timeout=7,
        hard_timeout=9,
        flags=Flag.CHECK_OVERLAP,
        out_port=17,
    )
    (flow,) = both.flows()
    assert (flow.cookie, flow.idle_timeout, flow.hard_timeout) == (2, 100, 200)
    assert (flow.packet_count, flow.actions) == (1, of.output(2))
    assert both.inject(entry, UDP).ports == [2]
    assert both.counters() == {2: (2, 120)}
    both.flow_mod(match, b"", command, priority, cookie=0)
    assert both.inject(entry, UDP) == ({}, [])
    both.flow_mod(match, of.output(Port.FLOOD), command, priority, cookie=KEEP)
    assert len(both.inject(entry, UDP).ports) == 3
    assert both.counters() == {0: (4, 240)}
    both.flow_mod(command=Command.DELETE)
    (removed,) = both.removed(1)
    assert (removed.cookie, removed.packet_count, removed.idle_timeout) == (0, 4, 100)


def test_modify_goes_to_all_flows_that_the_match_covers(both):
    inside = [
        (of.match(dl_type=0x800), 1),
        (of.match(dl_type=0x800), 0),
        (of.match(dl_type=0x800, in_port=1), 0xFFFF),
        (of.match(dl_type=0x800, in_port=18), 0),
        (of.match(dl_type=0x800, nw_src="10.0.0.0/8"), 5),
        (match_of(UDP, 17), 5),
    ]
    outside = [
        (of.match(), 1),
        (of.match(in_port=1), 2),
        (of.match(dl_type=0x806), 3),
        (of.match(dl_vlan=5), 0),
    ]
    for number, (match, priority) in enumerate(inside):
        add(both, match, priority=priority, cookie=number)
    for number, (match, priority) in enumerate(outside, 100):
        add(both, match, priority=priority, cookie=number)
    both.flow_mod(of.match(dl_type=0x800), of.output(2), Command.MODIFY, cookie=KEEP)
    assert {flow.cookie for flow in both.flows() if flow.actions == of.output(2)} == set(range(6))
    both.flow_mod(of.match(dl_type=0x800), of.output(17), Command.MODIFY_STRICT, 1, cookie=KEEP)
    assert {flow.cookie for flow in both.flows() if flow.actions == of.output(17)} == {0}
    both.flow_mod(of.match(), of.output(1), Command.MODIFY, cookie=7)
    assert {(flow.cookie, flow.actions) for flow in both.flows()} == {(7, of.output(1))}


@pytest.mark.parametrize("command", [Command.MODIFY, Command.MODIFY_STRICT])
def test_modify_of_nothing_adds(both, command):
    """The new flow has all that the message says. A MODIFY with the cookie KEEP adds nothing."""
    both.flow_mod(
        of.match(in_port=17),
        of.output(18),
        command,
        7,
        cookie=5,
        idle_timeout=30,
        hard_timeout=40,
        flags=Flag.SEND_FLOW_REM,
        out_port=3,
    )
    (flow,) = both.flows()
    assert (flow.priority, flow.cookie, flow.idle_timeout, flow.hard_timeout) == (7, 5, 30, 40)
    both.flow_mod(of.match(in_port=1), of.output(18), command, cookie=KEEP)
    assert len(both.flows()) == 1
    assert both.inject(17, UDP).ports == [18]
    both.flow_mod(command=Command.DELETE)
    both.removed(1)


def test_modify_of_a_narrower_flow_when_only_a_wider_one_is_there_adds(both):
    add(both, of.match(), cookie=1)
    both.flow_mod(of.match(in_port=1), of.output(2), Command.MODIFY, cookie=2)
    both.flow_mod(of.match(in_port=17), of.output(2), Command.MODIFY_STRICT, cookie=3)
    assert sorted(flow.cookie for flow in both.flows()) == [1, 2, 3]


def test_loose_modify_ignores_the_priority_and_strict_does_not(both):
    add(both, of.match(in_port=1), priority=5, cookie=1)
    both.flow_mod(of.match(in_port=1), of.output(2), Command.MODIFY, 9, cookie=2)
    assert [(flow.priority, flow.cookie) for flow in both.flows()] == [(5, 2)]
    both.flow_mod(of.match(in_port=1), of.output(17), Command.MODIFY_STRICT, 9, cookie=3)
    assert sorted((flow.priority, flow.cookie) for flow in both.flows()) == [(5, 2), (9, 3)]
    assert both.inject(1, UDP).ports == [17]


@pytest.mark.parametrize("command", [Command.MODIFY, Command.MODIFY_STRICT])
def test_modify_that_adds_checks_for_overlap_and_one_that_modifies_does_not(both, command):
    add(both, of.match(dl_type=0x800), cookie=1)
    add(both, of.match(in_port=1), cookie=2)
    crossing = of.flow_mod(
        of.match(nw_proto=6, dl_type=0x800), of.output(2), command, flags=Flag.CHECK_OVERLAP
    )
    assert both.error(crossing) == "FLOW_MOD_FAILED/OVERLAP"
    both.flow_mod(of.match(in_port=1), of.output(2), command, flags=Flag.CHECK_OVERLAP)
    assert len(both.flows()) == 2


def test_modify_does_not_make_a_flow_tell_of_its_end_nor_stop_it(both):
    add(both, of.match(in_port=1), cookie=1, flags=Flag.SEND_FLOW_REM)
    add(both, of.match(in_port=17), cookie=2)
    for command in (Command.MODIFY, Command.MODIFY_STRICT):
        both.flow_mod(of.match(in_port=1), of.output(2), command, cookie=1)
        both.flow_mod(
            of.match(in_port=17), of.output(2), command, cookie=2, flags=Flag.SEND_FLOW_REM
        )
    both.flow_mod(command=Command.DELETE)
    assert [removed.cookie for removed in both.removed(1)] == [1]


@pytest.mark.parametrize("priority", [0, 0x8000])
@pytest.mark.parametrize("match", [of.match(), of.match(in_port=17)], ids=["any", "in_port 17"])
def test_no_packet_is_lost_while_a_flow_changes(both, match, priority):
    """Each packet meets the old flow or the new one: there is no moment without a flow."""
    both.flow_mod(match, of.output(1), priority=priority)
    for number in range(150):
        command = (Command.ADD, Command.MODIFY, Command.MODIFY_STRICT)[number % 3]
        port = (1, 2, 18)[number % 3]
        both.send(of.flow_mod(match, of.output(port), command, priority, cookie=number))
        both.each(lambda bed: bed.wires.send(17, UDP))
    both.barrier()
    for bed in both.beds:
        out = bed.wires.capture()
        bed.controller.barrier()
        assert sum(len(got) for got in out.values()) == 150
        assert bed.controller.packet_ins() == []


# ---- DELETE ----


def test_delete_of_everything_and_of_nothing(both):
    both.flow_mod(command=Command.DELETE)
    both.flow_mod(of.match(in_port=3), command=Command.DELETE_STRICT)
    for number, match in enumerate(ALL_MATCHES.values()):
        add(both, match, priority=number)
    both.flow_mod(of.match(in_port=18), command=Command.DELETE)
    assert len(both.flows()) == 5
    both.flow_mod(command=Command.DELETE, priority=99, cookie=99)
    assert both.flows() == []


def test_delete_strict_needs_match_and_priority(both):
    for match in ALL_MATCHES.values():
        add(both, match, priority=5, cookie=1)
        both.flow_mod(match, command=Command.DELETE_STRICT, priority=6)
        if match != ALL_MATCHES["exact"]:  # an exact match always has the highest
            assert len(both.flows()) == 1
        both.flow_mod(match, command=Command.DELETE_STRICT, priority=5)
        assert both.flows() == []
    add(both, of.match(in_port=1), cookie=1)
    both.flow_mod(of.match(), command=Command.DELETE_STRICT)
    both.flow_mod(of.match(in_port=1, dl_type=0x800), command=Command.DELETE_STRICT)
    both.flow_mod(of.match(in_port=2), command=Command.DELETE_STRICT)
    assert len(both.flows()) == 1


COVERED = {
    "/24": of.match(dl_type=0x800, nw_src="10.1.2.0/24"),
    "/16": of.match(dl_type=0x800, nw_src="10.1.0.0/16"),
    "/32": of.match(dl_type=0x800, nw_src="10.1.2.3"),
    "/24 elsewhere": of.match(dl_type=0x800, nw_src="10.2.2.0/24"),
    "/24 to": of.match(dl_type=0x800, nw_dst="10.1.2.0/24"),
    "ip": of.match(dl_type=0x800),
    "arp": of.match(dl_type=0x806),
    "arp /24": of.match(dl_type=0x806, nw_src="10.1.2.0/24"),
    "tcp": of.match(dl_type=0x800, nw_proto=6),
    "tcp 80": of.match(dl_type=0x800, nw_proto=6, tp_dst=80),
    "vlan 5": of.match(dl_vlan=5),
    "vlan 5, pcp 3": of.match(dl_vlan=5, dl_vlan_pcp=3),
    "pcp 3": of.match(dl_vlan_pcp=3),
    "pcp 0": of.match(dl_vlan_pcp=0),
    "vlan 0": of.match(dl_vlan=0),
    "no vlan": of.match(dl_vlan=of.VLAN_NONE),
    "in_port 1": of.match(in_port=1),
    "in_port 17, ip": of.match(in_port=17, dl_type=0x800),
    "dl_src": of.match(dl_src="00:00:00:00:00:01"),
    "all": of.match(),
}


@pytest.mark.parametrize("deleted", COVERED)
def test_delete_takes_what_the_match_covers(both, deleted):
    for number, match in enumerate(COVERED.values()):
        add(both, match, cookie=number, priority=number)
    both.flow_mod(COVERED[deleted], command=Command.DELETE)
    left = {list(COVERED)[flow.cookie] for flow in both.flows()}
    assert deleted not in left
    assert (left == set()) == (deleted == "all")


OUT_LISTS = {
    "none": b"",
    "1": of.output(1),
    "2": of.output(2),
    "17": of.output(17),
    "2, 17": of.output(2) + of.output(17),
    "set, 17": of.set_vlan_vid(17) + of.output(17),
    "enqueue 17": of.enqueue(17, 2),
    "enqueue 2": of.enqueue(2, 17),
    "flood": of.output(Port.FLOOD),
    "all": of.output(Port.ALL),
    "in_port": of.output(Port.IN_PORT),
    "enqueue in_port": of.enqueue(Port.IN_PORT, 1),
    "controller": of.output(Port.CONTROLLER),
    "controller, 17": of.output(Port.CONTROLLER) + of.output(17),
    "table": of.output(Port.TABLE),
    "100": of.output(100),
    "0": of.output(0),
}


@pytest.mark.parametrize(
    "out_port",
    [1, 2, 17, 18, 0, 100, 3, 0xFEFF, 0xFF00, *range(Port.IN_PORT, 0x10000)],
)
def test_out_port_filters_deletes_and_statistics(both, out_port):
    for number, actions in enumerate(OUT_LISTS.values()):
        both.flow_mod(of.match(dl_type=0x800), actions, cookie=number, priority=number)
    found = both.flows(out_port=out_port)
    assert both.aggregate(out_port=out_port).flow_count == len(found)
    both.flows(of.match(dl_type=0x806), out_port=out_port)
    first = next(iter(found), None)
    if first:
        both.flow_mod(
            of.match(dl_type=0x800),
            command=Command.DELETE_STRICT,
            priority=first.priority,
            out_port=out_port,
        )
    else:
        both.flow_mod(
            of.match(dl_type=0x800), command=Command.DELETE_STRICT, priority=1, out_port=out_port
        )
    assert len(both.flows()) == len(OUT_LISTS) - bool(first)
    both.flow_mod(command=Command.DELETE, out_port=out_port)
    left = both.flows()
    assert len(left) == len(OUT_LISTS) - len(found)
    assert both.flows(out_port=out_port) == ([] if out_port != Port.NONE else left)


def test_flow_removed_of_deleted_flows(both):
    """Each deleted flow with SEND_FLOW_REM sends one message with its last counters; others send
    none.
    """
    add(both, of.match(), cookie=1, flags=Flag.SEND_FLOW_REM, priority=0, idle_timeout=77)
    add(both, of.match(in_port=1), 17, cookie=2, flags=Flag.SEND_FLOW_REM, hard_timeout=99)
    add(both, of.match(in_port=17), 1, cookie=3)
    add(both, match_of(UDP, 18), 1, cookie=4, flags=Flag.SEND_FLOW_REM, priority=3)
    for port in PORTS:
        both.inject(port, UDP, UDP, UDP)
    both.flow_mod(command=Command.DELETE)
    one, two, four = both.removed(3)
    assert (one.cookie, one.packet_count, one.byte_count, one.idle_timeout) == (1, 3, 180, 77)
    assert (two.cookie, two.packet_count, two.match) == (2, 3, {"in_port": 1})
    assert (four.cookie, four.packet_count, four.priority) == (4, 3, 0xFFFF)
    assert {removed.reason for removed in (one, two, four)} == {RemovedReason.DELETE}
    both.quiet()


def test_flow_removed_of_strictly_and_partly_deleted_flows(both):
    for number, port in enumerate(PORTS):
        add(both, of.match(in_port=port), port, cookie=number, flags=Flag.SEND_FLOW_REM)
        add(both, of.match(), port, cookie=10 + number, priority=number, flags=Flag.SEND_FLOW_REM)
    both.flow_mod(of.match(in_port=17), command=Command.DELETE_STRICT)
    assert [removed.cookie for removed in both.removed(1)] == [2]
    both.flow_mod(command=Command.DELETE, out_port=18)
    assert [removed.cookie for removed in both.removed(2)] == [3, 13]
    both.flow_mod(of.match(in_port=1), command=Command.DELETE)
    assert [removed.cookie for removed in both.removed(1)] == [0]
    both.flow_mod(command=Command.DELETE)
    assert [removed.cookie for removed in both.removed(4)] == [1, 10, 11, 12]


def test_a_flow_deleted_and_added_again_in_one_burst(both):
    match = of.match(in_port=17)
    add(both, match, cookie=1, flags=Flag.SEND_FLOW_REM)
    both.inject(17, UDP)
    both.do(
        of.flow_mod(match, command=Command.DELETE_STRICT),
        of.flow_mod(match, of.output(2), cookie=2, flags=Flag.SEND_FLOW_REM),
        of.flow_mod(command=Command.DELETE),
        of.flow_mod(match, of.output(1), cookie=3, flags=Flag.SEND_FLOW_REM),
    )
    one, two = both.removed(2)
    assert (one.cookie, one.packet_count) == (1, 1)
    assert (two.cookie, two.packet_count) == (2, 0)
    assert both.counters() == {3: (0, 0)}
    assert both.inject(17, UDP).ports == [1]


# ---- CHECK_OVERLAP ----

ADDRESSES = {"dl_type": 0x800, "nw_proto": 6}
CROSSINGS = {
    "the same": (of.match(in_port=1), of.match(in_port=1)),
    "narrower": (of.match(), of.match(in_port=1)),
    "wider": (of.match(in_port=1), of.match()),
    "crossing": (of.match(in_port=1), of.match(dl_dst="00:00:00:00:00:02")),
    "other port": (of.match(in_port=1), of.match(in_port=17)),
    "ports crossing": (of.match(**ADDRESSES, tp_src=80), of.match(**ADDRESSES, tp_dst=80)),
    "other protocol": (of.match(**ADDRESSES), of.match(dl_type=0x800, nw_proto=17)),
    "other type": (of.match(dl_type=0x800), of.match(dl_type=0x806)),
    "prefix in prefix": (
        of.match(dl_type=0x800, nw_src="10.1.0.0/16"),
        of.match(dl_type=0x800, nw_src="10.1.2.0/24"),
    ),
    "prefix beside prefix": (
        of.match(dl_type=0x800, nw_src="10.1.2.0/24"),
        of.match(dl_type=0x800, nw_src="10.1.3.0/24"),
    ),
    "source and destination": (
        of.match(dl_type=0x800, nw_src="10.1.2.0/24"),
        of.match(dl_type=0x800, nw_dst="10.1.3.0/24"),
    ),
    "vlan and priority": (of.match(dl_vlan=5), of.match(dl_vlan_pcp=3)),
    "vlan with and without priority": (of.match(dl_vlan=5), of.match(dl_vlan=5, dl_vlan_pcp=3)),
    "vlan and none": (of.match(dl_vlan=5), of.match(dl_vlan=of.VLAN_NONE)),
    "priority and no vlan": (of.match(dl_vlan_pcp=0), of.match(dl_vlan=of.VLAN_NONE)),
    "vlan 0 and none": (of.match(dl_vlan=0), of.match(dl_vlan=of.VLAN_NONE)),
    "tos": (of.match(dl_type=0x800, nw_tos=4), of.match(dl_type=0x800, nw_proto=6)),
    "everything and a field that is dropped": (of.match(), of.match(tp_dst=80)),
    "ip and a field that is dropped": (of.match(dl_type=0x800), of.match(tp_dst=80)),
}


@pytest.mark.parametrize(("there", "new"), CROSSINGS.values(), ids=CROSSINGS)
def test_check_overlap(both, there, new):
    for priority in (0, 7, 0xFFFF):
        both.flow_mod(command=Command.DELETE)
        add(both, there, priority=priority, cookie=1)
        message = of.flow_mod(
            new, of.output(2), priority=priority, cookie=2, flags=Flag.CHECK_OVERLAP
        )
        assert both.error(message) in (None, "FLOW_MOD_FAILED/OVERLAP")
        both.flows()
        other = priority ^ 1
        both.flow_mod(new, of.output(2), priority=other, cookie=3, flags=Flag.CHECK_OVERLAP)
        both.flow_mod(new, of.output(2), priority=priority, cookie=4)
        both.flows()


def test_flows_of_one_port_do_not_overlap_those_of_another(both):
    for port in PORTS:
        both.flow_mod(of.match(in_port=port), of.output(1), flags=Flag.CHECK_OVERLAP)
    for port in PORTS:
        message = of.flow_mod(
            of.match(in_port=port, dl_vlan=5), of.output(1), flags=Flag.CHECK_OVERLAP
        )
        assert both.error(message) == "FLOW_MOD_FAILED/OVERLAP"
    message = of.flow_mod(of.match(dl_vlan=5), of.output(1), flags=Flag.CHECK_OVERLAP)
    assert both.error(message) == "FLOW_MOD_FAILED/OVERLAP"


# ---- many ----


def test_a_full_burst_of_all_commands(both):
    """A thousand flow-mods in one piece. Each acts on the table that those before it have left."""
    messages = []
    for number in range(1000):
        match = of.match(dl_vlan=number % 50, in_port=PORTS[number % 4])
        command = (number * 7 + number // 50) % 5
        messages.append(
            of.flow_mod(match, of.output(PORTS[number % 3]), command, number % 3, number)
        )
    both.do(*messages)
    assert both.flows()


_KEYS = st.tuples(
    st.sampled_from(
        [
            of.match(),
            *(of.match(in_port=port) for port in PORTS),
            of.match(dl_type=0x800),
            of.match(in_port=17, dl_type=0x800),
            of.match(dl_type=0x806),
            match_of(UDP, 2),
        ]
    ),
    st.integers(0, 2),
)
_STEPS = st.one_of(
    st.tuples(
        st.just("flow-mod"),
        st.sampled_from(range(5)),
        _KEYS,
        st.sampled_from([1, 2, 17, 18, Port.FLOOD, Port.IN_PORT, Port.ALL]),
        st.sampled_from([0, Flag.SEND_FLOW_REM, Flag.CHECK_OVERLAP]),
    ),
    st.tuples(st.just("frame"), st.sampled_from(PORTS), st.sampled_from([UDP, frames.arp()])),
    st.tuples(st.just("frame"), st.sampled_from(PORTS), st.sampled_from([UDP, frames.arp()])),
)


def _ambiguous(flows, port, frame):
    """Whether two flows of one priority match a frame. Then Open vSwitch may choose either."""
    udp = frame == UDP
    priorities = [
        flow.priority
        for flow in flows
        if flow.match.get("in_port", port) == port
        and flow.match.get("dl_type", 0x800 if udp else 0x806) == (0x800 if udp else 0x806)
    ]
    return len(priorities) != len(set(priorities))


@examples(50)
@given(st.lists(_STEPS, min_size=4, max_size=25))
def test_any_flow_mods_and_frames(both, steps):
    """After any steps, tables, counters, frames, errors and flow-removed messages are equal."""
    both.reset()
    for number, (kind, *rest) in enumerate(steps, 1):
        if kind == "flow-mod":
            command, (match, priority), port, flags = rest
            both.replies(
                of.flow_mod(match, of.output(port), command, priority, number, flags=flags)
            )
        else:
            port, frame = rest
            if not _ambiguous(both.flows(), port, frame):
                both.inject(port, frame)
    both.flows()
    both.table()
    both.removed_so_far()


def test_an_add_with_the_cookie_of_all_ones_keeps_the_cookie_of_the_flow_that_it_replaces(both):
    match = of.match(in_port=1)
    for cookie in (KEEP, 7, KEEP):
        both.flow_mod(match, of.output(2), cookie=cookie)
        both.flows()
