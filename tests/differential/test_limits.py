"""Limits: full tables, the longest messages, thousands of flows at once.

OpenFlow 1.0.0, 4.6 and 5.4.4.
"""

import contextlib

import pytest
from lab import frames
from lab import openflow10 as of
from lab.openflow10 import Command, Flag, Port, Type

from .specimens import PORTS

UDP = frames.udp()
FULL = "FLOW_MOD_FAILED/ALL_TABLES_FULL"


def match_for(number, **fields):
    return of.match(dl_src=frames.host_mac(number), **fields)


def frame_for(number):
    return frames.ethernet(src=frames.host_mac(number), ethertype=0x88B5)


# ---- full tables ----


@contextlib.contextmanager
def room_for(both, flows):
    """Limit the tables to this many flows. On real switches the table-miss rule takes one place
    more.
    """
    tables = [(both.plain.wires.ovs, both.plain.wires.name, 0, flows)]
    for switch in both.big.wires.switches.values():
        tables.append((switch.ovs, switch.name, 2, flows + 1))
    try:
        for ovs, name, table, limit in tables:
            ovs.vsctl(
                *("--", "--id=@table", "create", "flow_table", f"flow_limit={limit}"),
                *("overflow_policy=refuse", "--", "set", "bridge", name),
                f"flow_tables:{table}=@table",
            )
        yield
    finally:
        for ovs, name, _, _ in tables:
            ovs.vsctl("clear", "bridge", name, "flow_tables")


def test_a_full_table_refuses(both):
    """A full table refuses an ADD of a new flow. It accepts a replacement, a MODIFY of a flow that
    is there, and an ADD after a DELETE.
    """
    with room_for(both, 5):
        for number in range(5):
            both.flow_mod(match_for(number), of.output(17), cookie=number)
        for command in (Command.ADD, Command.MODIFY, Command.MODIFY_STRICT):
            assert both.error(of.flow_mod(match_for(9), of.output(17), command)) == FULL
        assert both.inject(1, frame_for(9)).ports == []
        both.flow_mod(match_for(3), of.output(18), cookie=33)
        both.flow_mod(match_for(4), of.output(18), Command.MODIFY, cookie=44)
        assert {flow.cookie for flow in both.flows()} == {0, 1, 2, 33, 44}
        both.flow_mod(match_for(0), command=Command.DELETE_STRICT)
        both.flow_mod(match_for(9), of.output(18), cookie=9)
        assert both.error(of.flow_mod(match_for(0), of.output(17))) == FULL
        assert both.inject(1, frame_for(9)).ports == [18]
        both.table()
    both.flow_mod(match_for(10), of.output(17))


def test_a_flow_that_one_full_switch_refuses_is_on_none(both):
    """The switch of port 17 is full of flows for that port, so a flow for all ports does not fit
    there.
    """
    with room_for(both, 5):
        for number in range(5):
            both.flow_mod(match_for(number, in_port=17), of.output(18), cookie=number)
        assert both.error(of.flow_mod(match_for(9), of.output(2), cookie=9)) == FULL
        assert {flow.cookie for flow in both.flows()} == set(range(5))
        for port in PORTS:
            (packet_in,) = both.inject(port, frame_for(9)).packet_ins
            assert packet_in.reason == of.PacketInReason.NO_MATCH
        both.flow_mod(match_for(0, in_port=17), command=Command.DELETE_STRICT)
        both.flow_mod(match_for(9), of.output(2), cookie=9)
        assert both.inject(18, frame_for(9)).ports == [2]


# ---- the longest messages ----


@pytest.mark.parametrize("count", [8100, 8173, 8174])
def test_the_longest_flow_mods(both, count):
    """72 bytes and thousands of actions of 8 bytes. With a few more there would be no room for the
    tunnel's actions.
    """
    actions = b"".join(of.set_tp_src(number) for number in range(count - 2))
    both.flow_mod(of.match(in_port=1), actions + of.output(2) + of.output(17))
    both.flow_mod(of.match(in_port=2), of.output(17), cookie=2)
    both.flows()
    both.aggregate()
    frame = frames.udp(payload=b"payload")
    assert both.inject(1, frame).ports == [2, 17]
    both.flow_mod(of.match(in_port=1), of.output(18), Command.MODIFY)
    assert both.inject(1, frame).ports == [18]


def test_the_longest_packet_outs(both):
    actions = b"".join(of.set_tp_src(number) for number in range(8100))
    assert both.packet_out(UDP, actions + of.output(17)).ports == [17]
    size = 65300  # test_departures.py tests longer ones
    frame = frames.numbered(1, size)
    assert both.packet_out(frame, of.output(17)).ports == []
    (packet_in,) = both.packet_out(frame, of.output(Port.CONTROLLER)).packet_ins
    assert packet_in.total_len == size


# ---- many ----


def test_five_thousand_flows_modified_and_deleted_at_once(both):
    """Each flow keeps its counters, and is reported as removed once."""
    count = 5000
    both.send(
        *(
            of.flow_mod(
                match_for(number, **({"in_port": PORTS[number % 4]} if number % 2 else {})),
                of.output(17 if number % 4 < 2 else 1),
                cookie=number,
                priority=number % 3,
                flags=Flag.SEND_FLOW_REM,
            )
            for number in range(count)
        )
    )
    both.barrier()
    for number in range(0, count, 50):
        both.each(lambda bed, n=number: bed.wires.send(2, frame_for(n), frame_for(n)))
    both.outcome()
    both.flow_mod(of.match(), of.output(18), Command.MODIFY, cookie=0xFFFFFFFFFFFFFFFF)
    assert both.aggregate(out_port=18).flow_count == count
    assert both.aggregate() == (200, 200 * 60, count)
    both.flow_mod(of.match(in_port=2), command=Command.DELETE)
    both.flow_mod(command=Command.DELETE, out_port=18)
    removed = both.removed(count, timeout=30, tolerance=10)
    assert [message.cookie for message in removed] == list(range(count))
    assert sum(message.packet_count for message in removed) == 200
    both.quiet()


def test_the_same_flow_a_thousand_times(both):
    both.do(
        *(
            of.flow_mod(of.match(in_port=17), of.output(PORTS[number % 2]), cookie=number)
            for number in range(1000)
        )
    )
    (flow,) = both.flows()
    assert flow.cookie == 999
    assert both.inject(17, UDP).ports == [2]


# ---- headers of asynchronous messages ----


def test_asynchronous_messages_have_version_1_and_the_same_xids(both):
    both.flow_mod(of.match(in_port=17), of.output(1), hard_timeout=1, flags=Flag.SEND_FLOW_REM)
    both.each(lambda bed: bed.wires.send(18, UDP))
    both.each(lambda bed: bed.wires.ports[2].set_carrier(False))
    try:

        def headers(bed):
            messages = [
                bed.controller.expect(type_)
                for type_ in (Type.PACKET_IN, Type.PORT_STATUS, Type.FLOW_REMOVED)
            ]
            return [(message.version, message.xid, len(message.body)) for message in messages]

        assert both.same(headers) == [(1, 0, 70), (1, 0, 56), (1, 0, 80)]
    finally:
        both.each(lambda bed: bed.wires.ports[2].set_carrier(True))


# ---- frames that look like the big switch's own ----


def gre_to_a_switch(key):
    """Return a frame from a host that looks like one that a switch sends to another."""
    inner = frames.udp(payload=b"from inside")
    header = b"\x20\0\x65\x58" + key.to_bytes(4, "big")
    packet = frames.ipv4("172.16.0.2", "172.16.0.1", 47, header + inner)
    return frames.ethernet("02:ac:10:00:00:02", "02:ac:10:00:00:01", payload=packet)


@pytest.mark.parametrize("key", [0, 1, 2, 0x7E, 0x7F])
def test_tunnel_frames_from_hosts_are_ordinary_frames(both, key):
    frame = gre_to_a_switch(key)
    for port in PORTS:
        (packet_in,) = both.inject(port, frame).packet_ins
        assert packet_in.data == frame
    both.flow_mod(of.match(), of.output(Port.FLOOD))
    for port in PORTS:
        out = both.inject(port, frame).out
        assert out == {other: [frame] for other in PORTS if other != port}
    both.packet_out(frame, of.output(Port.ALL))
