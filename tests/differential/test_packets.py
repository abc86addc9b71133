"""Packet-in and packet-out: reason, in_port, lengths, data, and where packets go.

OpenFlow 1.0.0, 5.3.6 and 5.4.1.
"""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import frames
from lab import openflow10 as of
from lab.network import BURST
from lab.openflow10 import Command, PacketInReason, Port

from .specimens import FRAMES, PORTS, examples, frame_names, match_of, matches

UDP = frames.udp(payload=b"payload")
ALL_FRAMES = list(FRAMES.values())
ELSEWHERE = [33, 100]
TUNNELS = [3, 19]  # these numbers are the tunnel ports' on their switches
"""Numbers of ports of switches that are not there."""
IN_PORTS = [*PORTS, Port.NONE, Port.CONTROLLER, Port.LOCAL, 0, 3, 4, 16, 19, 0xFEFF, *ELSEWHERE]
"""Every kind of in_port that a packet-out may have, of ports that exist and of others."""


# ---- packet-in ----


@pytest.mark.parametrize("port", PORTS)
def test_table_miss(both, port):
    """Every frame comes whole, byte for byte, with the port where it entered."""
    outcome = both.inject(port, *ALL_FRAMES)
    assert outcome.out == {}
    assert len(outcome.packet_ins) >= len(FRAMES) - 5  # Linux drops a few short ones
    for packet_in in outcome.packet_ins:
        assert packet_in.in_port == port
        assert packet_in.reason == PacketInReason.NO_MATCH
        assert packet_in.buffer_id == of.NO_BUFFER
        assert packet_in.total_len == len(packet_in.data)
    for size in (60, 127, 128, 129, 1500, 1514, 2014):
        (packet_in,) = both.inject(port, frames.numbered(size, size)).packet_ins
        assert packet_in.data == frames.numbered(size, size)


@pytest.mark.parametrize("match", [of.match(), of.match(in_port=17)], ids=["any", "in_port 17"])
@pytest.mark.parametrize("priority", [0, 0x8000, 0xFFFF])
def test_output_to_the_controller(both, match, priority):
    """The reason is always "action", also for a flow of the lowest priority."""
    for max_len in (0, 1, 40, 128, 0xFFFF):
        both.flow_mod(match, of.output(Port.CONTROLLER, max_len), priority=priority)
        for frame in (UDP, frames.numbered(1, 1514), FRAMES["14 bytes"]):
            (packet_in,) = both.inject(17, frame).packet_ins
            assert packet_in == (of.NO_BUFFER, len(frame), 17, PacketInReason.ACTION, frame)


@pytest.mark.parametrize("miss_send_len", [0, 1, 64, 128, 1000, 0xFFFF])
def test_miss_send_len(both, miss_send_len):
    both.do(of.set_config(0, miss_send_len))
    for port in (1, 17):
        for size in (60, 500, 1514):
            both.inject(port, frames.numbered(size, size))
    both.flow_mod(of.match(), of.output(Port.CONTROLLER, 32))
    for port in (1, 17):
        both.inject(port, frames.numbered(7, 500))
    both.packet_out(frames.numbered(8, 500), of.output(Port.CONTROLLER, 32))


def test_every_port_tells_its_number(both):
    both.flow_mod(of.match(dl_type=0x806), of.output(Port.CONTROLLER))
    for port in PORTS:
        for frame in (UDP, frames.arp()):
            (packet_in,) = both.inject(port, frame).packet_ins
            assert packet_in.in_port == port


def test_packet_ins_come_in_the_order_of_the_frames(both):
    burst = [frames.numbered(number) for number in range(200)]
    for port in (2, 17):
        outcome = both.inject(port, *burst)
        assert [packet_in.data for packet_in in outcome.packet_ins] == burst


def test_a_flow_stops_packet_ins_and_its_end_brings_them_back(both):
    for match in (of.match(), match_of(frames.udp(), 17)):
        assert len(both.inject(17, frames.udp()).packet_ins) == 1
        both.flow_mod(match, of.output(1))
        assert both.inject(17, frames.udp()).packet_ins == []
        both.flow_mod(match, command=Command.DELETE_STRICT)
        assert len(both.inject(17, frames.udp()).packet_ins) == 1


# ---- packet-out ----


@pytest.mark.parametrize("in_port", IN_PORTS)
def test_packet_out_to_each_port(both, in_port):
    for port in (*PORTS, 0, 3, 19, 100, Port.IN_PORT, Port.FLOOD, Port.ALL, Port.CONTROLLER):
        outcome = both.packet_out(UDP, of.output(port), in_port)
        if port == Port.CONTROLLER:
            assert outcome.packet_ins == [
                (of.NO_BUFFER, 60, in_port, PacketInReason.ACTION, UDP),
            ]
        elif port == Port.IN_PORT:
            assert outcome.ports == ([in_port] if in_port in PORTS else [])
        elif port in (Port.FLOOD, Port.ALL):
            assert outcome.ports == [other for other in PORTS if other != in_port]
        else:
            assert outcome.ports == ([port] if port in PORTS and port != in_port else [])
        both.packet_out(UDP, of.enqueue(port, 1) if port < Port.MAX else b"", in_port)


@pytest.mark.parametrize("in_port", IN_PORTS)
def test_packet_out_to_the_table(both, in_port):
    """It is one table lookup, as if the frame had entered at that port, and counts as one."""
    (miss,) = both.packet_out(UDP, of.output(Port.TABLE), in_port).packet_ins
    assert miss == (of.NO_BUFFER, 60, in_port, PacketInReason.NO_MATCH, UDP)
    both.flow_mod(of.match(), of.output(Port.FLOOD), cookie=1, priority=0)
    both.packet_out(UDP, of.output(Port.TABLE), in_port)
    for port in PORTS:
        actions = [of.output(Port.ALL), of.output(Port.CONTROLLER), of.output(Port.IN_PORT)]
        both.flow_mod(of.match(in_port=port), actions, cookie=port)
    both.packet_out(UDP, of.output(Port.TABLE), in_port)
    if in_port not in ELSEWHERE:
        both.flow_mod(of.match(in_port=in_port), of.output(2), cookie=99, priority=0xFFFF)
        both.packet_out(UDP, of.output(Port.TABLE), in_port)
    both.counters()
    both.table()


@pytest.mark.parametrize("in_port", [1, 17, Port.NONE, Port.CONTROLLER])
@pytest.mark.parametrize(
    "port", [2, 18, Port.FLOOD, Port.ALL, Port.IN_PORT, Port.CONTROLLER, Port.TABLE]
)
def test_packet_out_of_every_frame(both, port, in_port):
    """Frames come out byte for byte, also cut, odd and long ones. The CFI bit is kept."""
    for start in range(0, len(ALL_FRAMES), BURST):
        for frame in ALL_FRAMES[start : start + BURST]:
            both.send(of.packet_out(frame, of.output(port), in_port))
        both.barrier()
        both.outcome(f"frames from number {start}, to {port:#x}")


def test_packet_out_of_too_little_data(both):
    for size in range(20):
        for actions in (of.output(2), of.output(17), of.output(Port.CONTROLLER), b""):
            both.packet_out(UDP[:size], actions)
            both.packet_out(UDP[:size], actions, 1)


def test_packet_out_without_actions_does_nothing(both):
    for in_port in IN_PORTS:
        assert both.packet_out(UDP, b"", in_port) == ({}, [])
        assert both.packet_out(b"", b"", in_port) == ({}, [])


def test_packet_out_of_data_longer_than_a_frame(both):
    for size in (2014, 2015, 2018, 3000, 9000, 60000, 65000):
        frame = frames.numbered(size, size)
        for port in (2, 17, Port.CONTROLLER):
            both.packet_out(frame, of.output(port))
            both.packet_out(frame, of.output(port), 1)
    (packet_in,) = both.packet_out(frames.numbered(1, 65000), of.output(Port.CONTROLLER)).packet_ins
    assert len(packet_in.data) == 65000


def test_packet_out_of_a_truncated_frame_with_sets(both):
    for frame in (FRAMES["14 bytes"], FRAMES["15 bytes"], FRAMES["udp header cut short"]):
        for action in (
            of.set_vlan_vid(5),
            of.strip_vlan(),
            of.set_dl_src("02:00:00:00:00:01"),
            of.set_nw_src("1.2.3.4"),
            of.set_tp_dst(5),
            of.set_nw_tos(4),
        ):
            for port in (2, 17):
                both.packet_out(frame, [action, of.output(port), of.output(Port.CONTROLLER)])


@pytest.mark.parametrize("in_port", [1, 17, Port.NONE, Port.CONTROLLER])
def test_packet_out_to_the_controller_does_not_go_the_way_of_a_flow(both, in_port):
    """The packet goes to the controller even if a flow with an idle timeout matches it."""
    both.flow_mod(of.match(dl_type=0x800), of.output(18), idle_timeout=60, cookie=1)
    to_controller = of.output(Port.CONTROLLER)
    for actions in ([to_controller], [of.output(Port.TABLE), to_controller]):
        outcome = both.packet_out(frames.udp(), actions, in_port)
        assert [packet_in.reason for packet_in in outcome.packet_ins] == [PacketInReason.ACTION]
    assert both.counters() == {1: (1, 60)}


@pytest.mark.parametrize("in_port", [1, 17, Port.NONE])
def test_a_packet_that_came_before_its_flow_comes_to_the_controller(both, in_port):
    """The packet goes to the controller even if it gets there only after the flow was added."""
    miss = of.packet_out(UDP, of.output(Port.TABLE), in_port)
    both.do(miss, of.flow_mod(of.match(dl_type=0x800), of.output(18), idle_timeout=60, cookie=1))
    out, packet_ins = both.outcome()
    assert (out, [packet_in.reason for packet_in in packet_ins]) == ({}, [PacketInReason.NO_MATCH])
    both.do(miss)
    assert both.outcome().ports == [18]
    assert both.counters() == {1: (1, len(UDP))}


def test_packet_out_goes_where_a_flow_does_not_look(both):
    """Only OFPP_TABLE lets a packet-out meet flows; nothing else counts for them."""
    both.flow_mod(of.match(), b"", priority=0xFFFF)
    assert both.packet_out(UDP, of.output(17)).ports == [17]
    assert both.packet_out(UDP, of.output(Port.FLOOD), 17).ports == [1, 2, 18]
    assert both.counters() == {0: (0, 0)}
    assert both.table() == (1, 0, 0)


def test_many_packet_outs_in_one_piece(both):
    burst = [frames.numbered(number) for number in range(30)]
    both.send(*(of.packet_out(frame, [of.output(2), of.output(17)]) for frame in burst))
    both.barrier()
    assert both.outcome() == ({2: burst, 17: burst}, [])


@pytest.mark.parametrize("in_port", [Port.NONE, 3, 100])
def test_flow_mods_and_packet_outs_in_turn(both, in_port):
    """Each packet meets the table that the flow-mods before it have left."""
    messages = []
    for number in range(20):
        port = PORTS[number % 4]
        messages.append(of.flow_mod(of.match(), of.output(port), cookie=1))
        messages.append(of.packet_out(frames.numbered(number), of.output(Port.TABLE), in_port))
    both.do(*messages)
    out = both.outcome().out
    assert out == {
        port: [frames.numbered(number) for number in range(index, 20, 4)]
        for index, port in enumerate(PORTS)
    }


def test_a_learning_switch(both):
    """A learning controller: it floods a packet, learns its source, adds a flow, and gets no
    more.
    """
    hosts = {port: f"02:00:00:00:00:{port:02x}" for port in PORTS}

    def frame(source, target):
        return frames.ethernet(hosts[source], hosts[target], 0x88B5, b"%d-%d" % (source, target))

    for source in PORTS:
        for target in PORTS:
            if source == target:
                continue
            outcome = both.inject(source, frame(source, target))
            (packet_in,) = outcome.packet_ins
            flooded = both.packet_out(packet_in.data, of.output(Port.FLOOD), packet_in.in_port)
            assert flooded.ports == [port for port in PORTS if port != source]
            match = of.match(in_port=source, dl_src=hosts[source], dl_dst=hosts[target])
            both.flow_mod(match, of.output(target), idle_timeout=60, cookie=source)
            assert both.inject(source, frame(source, target)) == (
                {target: [frame(source, target)]},
                [],
            )
    assert len(both.flows()) == 12


@examples(40)
@given(
    st.sampled_from(IN_PORTS),
    frame_names,
    st.lists(st.tuples(matches, st.sampled_from([*PORTS, Port.FLOOD])), max_size=4),
    st.lists(
        st.sampled_from(
            [
                of.output(Port.TABLE),
                of.output(2),
                of.output(18),
                of.output(Port.ALL),
                of.output(Port.IN_PORT),
                of.output(Port.CONTROLLER),
                of.set_vlan_vid(5),
                of.set_nw_tos(4),
                of.strip_vlan(),
            ]
        ),
        max_size=6,
    ),
)
def test_any_packet_out(both, in_port, name, flows, actions):
    both.reset()
    for number, (match, port) in enumerate(flows):
        matched = of.unpack_match(match).get("in_port")
        if matched not in ELSEWHERE and (number or matched not in TUNNELS):
            both.send(of.flow_mod(match, of.output(port), priority=number, cookie=number))
    both.packet_out(FRAMES[name], actions, in_port)


def test_an_in_port_that_is_given_as_a_reserved_one_is_not_a_port(both):
    """Flows for ports that do not exist match packet-outs with that in_port, and no frames."""
    for number, in_port in enumerate((Port.NONE, Port.CONTROLLER, Port.LOCAL, 0, 3, 19)):
        both.flow_mod(of.match(in_port=in_port), of.output(2), cookie=number)
        assert both.packet_out(UDP, of.output(Port.TABLE), in_port).ports == [2]
        for port in (1, 17):
            assert both.inject(port, UDP).ports == []
    assert {packets for packets, _ in both.counters().values()} == {1}


def test_total_len_and_data_of_a_packet_with_a_wrong_length_field(both):
    frame = frames.ethernet(payload=struct.pack("!BBH", 0x45, 0, 5000) + bytes(100))
    for port in (1, 17):
        (packet_in,) = both.inject(port, frame).packet_ins
        assert packet_in.data == frame
