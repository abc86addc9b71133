"""Statistics: all types, their filters, replies in parts, and what they count.

OpenFlow 1.0.0, 5.3.5. Errors are in test_errors.py, filters by match in test_matches.py and by
out_port in test_flow_mods.py.
"""

import struct

import pytest
from lab import frames
from lab import openflow10 as of
from lab.openflow10 import Command, Port, Stats, Type

from .both import split_flow_stats
from .specimens import FRAMES, PORTS

UDP = frames.udp()
EVERY_TABLE = 0xFF


def parts(bed, type_, body=b""):
    """Return (type, flags, length) of every part of a statistics reply, and the parts' bodies."""
    controller = bed.controller
    xid = controller.new_xid()
    controller.send(of.stats_request(type_, body, xid=xid))
    controller.barrier()
    replies = controller.take(where=lambda reply: reply.xid == xid)
    assert all(reply.type == Type.STATS_REPLY for reply in replies)
    shapes = [(*struct.unpack_from("!HH", reply.body), len(reply.body)) for reply in replies]
    return shapes, [reply.body[4:] for reply in replies]


# ---- flows ----


def test_no_flows(both):
    assert both.stats(Stats.FLOW, of.flow_stats_body()) == b""
    assert both.aggregate() == (0, 0, 0)


@pytest.mark.parametrize("table_id", [0, 1, 2, 3, 100, 253, EVERY_TABLE])
def test_table_ids(both, table_id):
    both.flow_mod(of.match(), of.output(2), priority=0)
    both.flow_mod(of.match(in_port=17), of.output(2))
    both.inject(17, UDP)
    here = table_id in (0, EVERY_TABLE)
    assert len(both.flows(table_id=table_id)) == (2 if here else 0)
    assert both.aggregate(table_id=table_id) == ((1, 60, 2) if here else (0, 0, 0))
    assert all(flow.table_id == 0 for flow in both.flows())


def test_padding_of_a_request_means_nothing(both):
    both.flow_mod(of.match(), of.output(2))
    body = bytearray(of.flow_stats_body())
    body[41] = 0xFF
    for bed in both.beds:
        assert len(of.unpack_flow_stats(bed.controller.stats(Stats.FLOW, bytes(body)))) == 1
    both.stats(Stats.QUEUE, struct.pack("!HHI", Port.ALL, 0xFFFF, 0xFFFFFFFF))


def test_every_field_of_flow_statistics(both):
    both.flow_mod(
        of.match(in_port=17, dl_type=0x800, nw_src="10.0.0.99/8"),
        [of.set_vlan_vid(5), of.output(1, 9), of.output(Port.CONTROLLER, 77)],
        priority=99,
        cookie=0x0123456789ABCDEF,
        idle_timeout=100,
        hard_timeout=200,
    )
    both.inject(17, UDP, frames.numbered(1, 1000))
    (flow,) = both.flows()
    assert flow == (
        0,
        {"in_port": 17, "dl_type": 0x800, "nw_src": "10.0.0.0/8"},
        0,
        99,
        100,
        200,
        0x0123456789ABCDEF,
        2,
        1060,
        of.set_vlan_vid(5) + of.output(1, 9) + of.output(Port.CONTROLLER, 77),
    )


def test_counters_are_summed_over_the_switches(both):
    """A flow for all ports counts each frame once, wherever it enters, through the tunnel or
    not.
    """
    both.flow_mod(of.match(), of.output(Port.FLOOD), cookie=1)
    both.flow_mod(of.match(dl_type=0x806), of.output(17), cookie=2, priority=0xFFFF)
    for count, port in enumerate(PORTS, 1):
        both.inject(port, *[frames.numbered(number, 100) for number in range(count)])
        both.inject(port, *[frames.arp()] * count)
    assert both.counters() == {1: (10, 1000), 2: (10, 600)}
    assert both.aggregate() == (20, 1600, 2)
    assert both.aggregate(of.match(dl_type=0x806)) == (10, 600, 1)
    assert both.aggregate(out_port=17) == (10, 600, 1)


def test_bytes_are_those_of_the_frame_as_it_came(both):
    both.flow_mod(of.match(), [of.set_vlan_vid(5), of.output(17)])
    total = 0
    for name, frame in FRAMES.items():
        both.inject(17 if len(name) % 2 else 1, frame)
        counted = both.aggregate().byte_count
        assert counted in (total, total + len(frame)), name
        total = counted


def test_a_thousand_frames_of_all_sizes(both):
    both.flow_mod(of.match(in_port=1), of.output(17), cookie=1)
    both.flow_mod(of.match(in_port=17), of.output(1), cookie=17)
    sizes = [60 + number % 1400 for number in range(0, 5000, 10)]
    burst = [frames.numbered(number, size) for number, size in enumerate(sizes)]
    assert both.inject(1, *burst).out == {17: burst}
    assert both.inject(17, *burst).out == {1: burst}
    assert both.counters() == {1: (500, sum(sizes)), 17: (500, sum(sizes))}


def test_twenty_thousand_flows_in_parts(both):
    """Both replies have the same parts: equal numbers of entries, and OFPSF_REPLY_MORE in all but
    the last.
    """
    count = 20000
    for start in range(0, count, 1000):
        both.send(
            *(
                of.flow_mod(of.match(dl_src=frames.host_mac(number)), of.output(17), cookie=number)
                for number in range(start, start + 1000)
            )
        )
    both.each(lambda bed: bed.controller.barrier(timeout=60))
    both.inject(1, *(frames.ethernet(src=frames.host_mac(number)) for number in range(100)))
    both.inject(18, *(frames.ethernet(src=frames.host_mac(number)) for number in range(100)))

    def ask(bed):
        xid = bed.controller.new_xid()
        bed.controller.send(of.stats_request(Stats.FLOW, of.flow_stats_body(), xid=xid))
        bed.controller.barrier(timeout=60)
        bodies = [reply.body for reply in bed.controller.take(where=lambda r: r.xid == xid)]
        shapes = [(*struct.unpack_from("!HH", body), len(body)) for body in bodies]
        entries = sorted(
            raw[:44] + bytes(8) + raw[52:] for body in bodies for raw in split_flow_stats(body[4:])
        )
        return shapes, entries

    shapes, entries = both.same(ask, "20,000 flows")
    assert len(entries) == count
    assert [flags for _, flags, _ in shapes] == [1] * (len(shapes) - 1) + [0]
    assert both.aggregate() == (200, 200 * 60, count)
    assert both.table()[0] == count
    assert both.aggregate(of.match(dl_src=frames.host_mac(7))) == (2, 120, 1)
    assert [flow.cookie for flow in both.flows(of.match(dl_src=frames.host_mac(9)))] == [9]
    both.send(of.flow_mod(command=Command.DELETE))
    both.each(lambda bed: bed.controller.barrier(timeout=60))
    assert both.aggregate().flow_count == 0


def test_replies_just_below_and_above_one_part(both):
    """682 flows with one action fit into one part, 683 do not; no flow is cut in two."""

    def shapes_of(bed):
        return parts(bed, Stats.FLOW, of.flow_stats_body())[0]

    for number in range(683):
        if number == 682:
            assert [flags for _, flags, _ in both.same(shapes_of)] == [0]
        both.send(of.flow_mod(of.match(dl_src=frames.host_mac(number)), of.output(17)))
        if number == 681:
            both.barrier()

    assert [flags for _, flags, _ in both.same(shapes_of)] == [1, 0]
    # A request between two parts is answered after the last of them.
    ask = of.stats_request(Stats.FLOW, of.flow_stats_body())

    def order(bed):
        bed.controller.send(of.with_xid(ask, 1), of.message(Type.ECHO_REQUEST, xid=2))
        bed.controller.send(of.with_xid(ask, 3), of.stats_request(Stats.DESC, xid=4))
        bed.controller.barrier()
        return [reply.xid for reply in bed.controller.take()]

    assert both.same(order) == [1, 1, 2, 3, 3, 4]


def test_flows_with_long_lists_of_actions_in_parts(both):
    actions = b"".join(of.set_tp_src(number) for number in range(1500))
    for number in range(20):
        both.flow_mod(of.match(dl_vlan=number), actions + of.output(17), cookie=number)

    def ask(bed):
        shapes, bodies = parts(bed, Stats.FLOW, of.flow_stats_body())
        return [flags for _, flags, _ in shapes], sorted(
            raw[:44] + bytes(8) + raw[52:] for body in bodies for raw in split_flow_stats(body)
        )

    flags, entries = both.same(ask, "long flows")
    assert flags == [1, 1, 1, 0]
    assert len(entries) == 20


# ---- tables ----


def test_table_statistics(both):
    """All 254 tables are equal but for the counters. All tables but table 0 are empty."""
    both.flow_mod(of.match(in_port=1), of.output(17))

    def ask(bed):
        return [
            entry._replace(lookup_count=0, matched_count=0)
            for entry in bed.controller.table_stats()
        ]

    tables = both.same(ask, "tables")
    assert len(tables) == 254
    assert [entry.active_count for entry in tables[:3]] == [1, 0, 0]
    others = both.big.controller.table_stats()[1:]
    assert {(entry.lookup_count, entry.matched_count) for entry in others} == {(0, 0)}


def test_lookups_and_matches(both):
    """A packet is one lookup, wherever it enters and however many switches it crosses."""
    both.flow_mod(of.match(in_port=1), of.output(Port.FLOOD))
    both.flow_mod(of.match(in_port=17), of.output(Port.ALL))
    both.flow_mod(of.match(in_port=18, dl_type=0x806), priority=0)
    for port in PORTS:
        both.inject(port, UDP)
    assert both.table() == (3, 4, 2)
    both.inject(18, frames.arp(), frames.arp())
    assert both.table() == (3, 6, 4)
    both.packet_out(UDP, of.output(Port.TABLE), 1)
    both.packet_out(UDP, of.output(Port.TABLE), 2)
    both.packet_out(UDP, of.output(17), 2)
    assert both.table() == (3, 8, 5)
    both.flow_mod(command=Command.DELETE)
    assert both.table() == (0, 8, 5)
    both.inject(1, UDP)
    assert both.table() == (0, 9, 5)


# ---- ports ----


def test_port_statistics_count_frames_in_and_out(both):
    both.flow_mod(of.match(), of.output(Port.FLOOD))
    for count, port in enumerate(PORTS, 1):
        both.inject(port, *[frames.numbered(number, 200) for number in range(count)])
    counters = both.ports()
    for count, port in enumerate(PORTS, 1):
        assert counters[port] == (
            port,
            count,
            10 - count,
            200 * count,
            200 * (10 - count),
            *(0,) * 8,
        )
    both.flow_mod(of.match(in_port=1), b"", priority=0xFFFF)
    both.inject(1, UDP)
    both.packet_out(UDP, of.output(17))
    both.packet_out(UDP, of.output(Port.FLOOD), 17)
    after = both.ports()
    assert after[1].rx_packets == counters[1].rx_packets + 1
    assert after[17].tx_packets == counters[17].tx_packets + 1


NO_PORTS = [0, 3, 16, 19, 100, 0xFEFF, 0xFF00, *range(Port.IN_PORT, Port.LOCAL)]


def test_port_statistics_of_one_port(both):
    """The reply for a port that does not exist is empty. OFPP_ALL is no port here."""
    both.inject(17, UDP)

    def ask(port):
        body = struct.pack("!H6x", port)
        return both.same(
            lambda bed: list(of.unpack_port_stats(bed.controller.stats(Stats.PORT, body)))
        )

    assert [ask(port) for port in PORTS] == [[port] for port in PORTS]
    assert [ask(port) for port in NO_PORTS] == [[]] * len(NO_PORTS)


def test_port_statistics_of_all_ports_and_of_each_agree(both):
    both.flow_mod(of.match(), of.output(Port.FLOOD))
    for port in PORTS:
        both.inject(port, UDP)
    for bed in both.beds:
        everything = bed.controller.port_stats(Port.NONE)
        for port in PORTS:
            assert bed.controller.port_stats(port)[port] == everything[port]


# ---- queues, description ----


@pytest.mark.parametrize("port", [*PORTS, Port.ALL, Port.NONE])
def test_queue_statistics_without_queues(both, port):
    assert both.stats(Stats.QUEUE, struct.pack("!H2xI", port, 0xFFFFFFFF)) == b""


def test_the_description_has_its_form(both):
    """Five texts, each padded with zeros."""
    for bed in both.beds:
        body = bed.controller.stats(Stats.DESC)
        assert len(body) == 1056
        for start, size in ((0, 256), (256, 256), (512, 256), (768, 32), (800, 256)):
            text, _, rest = body[start : start + size].partition(b"\0")
            assert text and not rest.strip(b"\0")
            text.decode("ascii")


def test_port_descriptions(both):
    """A type of OpenFlow 1.3, which Open vSwitch also answers under 1.0."""

    def ask(bed):
        data = bed.controller.stats(13)
        ports = [of.unpack_phy_port(data[start : start + 48]) for start in range(0, len(data), 48)]
        return sorted(
            port._replace(name="", hw_addr="") for port in ports if port.port_no < Port.MAX
        )

    assert [port.port_no for port in both.same(ask, "port descriptions")] == list(PORTS)
