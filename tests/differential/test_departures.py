"""The departures that __init__.py lists: where the big switch differs from a bridge on purpose.

Each test also checks that the plain bridge does what the list says of it.
"""

import struct

import pytest
from lab import frames
from lab import openflow10 as of
from lab.openflow10 import Port, PortConfig, Type

from .both import error_name, wait_for
from .specimens import FRAMES, PORTS
from .test_actions import nx, reg_load, reg_move

UDP = frames.udp()


def error(bed, message):
    """Return the name of the error that answers a message, or None."""
    answer = bed.controller.error_for(message)
    return error_name(answer) if answer else None


def reply_or_error(bed, message):
    """Return the body of the reply, or the name of the error."""
    reply = bed.controller.request(message)
    return error_name(of.unpack_error(reply.body)) if reply.type == Type.ERROR else reply.body


def differ(both, message, plain, big):
    """The plain bridge must answer with one error name (or None), the big switch with the other."""
    assert [error(bed, message) for bed in both.beds] == [plain, big]


# ---- no LOCAL port, no NORMAL ----


@pytest.mark.parametrize("port", [Port.LOCAL, Port.NORMAL])
@pytest.mark.parametrize("command", range(5))
def test_output_to_local_and_normal(both, port, command):
    refused = "BAD_ACTION/BAD_OUT_PORT"
    for actions in ([of.output(port)], [of.output(1), of.output(port)]):
        message = of.flow_mod(of.match(in_port=1), actions, command)
        differ(both, message, None, refused)
    differ(both, of.packet_out(UDP, of.output(port)), None, refused)
    assert both.big.controller.flow_stats() == []


def test_enqueue_to_local(both):
    refused = "BAD_ACTION/BAD_OUT_PORT"
    differ(both, of.flow_mod(actions=of.enqueue(Port.LOCAL, 1)), None, refused)
    differ(both, of.packet_out(UDP, of.enqueue(Port.LOCAL, 1)), None, refused)


def test_no_local_port_is_shown(both):
    plain, big = (bed.controller.features().ports for bed in both.beds)
    assert set(plain) == {*PORTS, Port.LOCAL}
    assert set(big) == set(PORTS)
    plain, big = (set(bed.controller.port_stats()) for bed in both.beds)
    assert (plain, big) == ({*PORTS, Port.LOCAL}, set(PORTS))


def test_requests_for_local_are_for_no_port(both):
    hw_addr = both.plain.controller.features().ports[Port.LOCAL].hw_addr
    differ(both, of.port_mod(Port.LOCAL, hw_addr), None, "PORT_MOD_FAILED/BAD_PORT")
    bad = "QUEUE_OP_FAILED/BAD_PORT"
    ask = of.message(Type.QUEUE_GET_CONFIG_REQUEST, struct.pack("!H2x", Port.LOCAL))
    assert [reply_or_error(bed, ask) for bed in both.beds] == [bad, bad]
    queues = of.stats_request(of.Stats.QUEUE, struct.pack("!H2xI", Port.LOCAL, 0xFFFFFFFF))
    assert reply_or_error(both.plain, queues) == b"\0\5\0\0"
    assert reply_or_error(both.big, queues) == bad
    assert both.plain.controller.port_stats(Port.LOCAL)
    assert both.big.controller.port_stats(Port.LOCAL) == {}


@pytest.mark.parametrize("in_port", [33, 100])
def test_a_packet_out_from_a_port_of_a_switch_that_is_not_there(both, in_port):
    both.flow_mod(of.match(in_port=in_port), of.output(2))
    both.each(lambda bed: bed.controller.packet_out(UDP, of.output(Port.TABLE), in_port))
    assert [list(bed.wires.capture()) for bed in both.beds] == [[2], []]
    both.each(lambda bed: bed.settle())
    assert [len(bed.controller.packet_ins()) for bed in both.beds] == [0, 1]


@pytest.mark.parametrize("in_port", [3, 19])
def test_a_packet_out_from_the_number_of_a_tunnel_meets_no_flow_of_priority_0_for_it(both, in_port):
    for priority, ports in ((0, [[2], []]), (1, [[2], [2]])):
        both.flow_mod(of.match(in_port=in_port), of.output(2), priority=priority)
        both.each(lambda bed: bed.controller.packet_out(UDP, of.output(Port.TABLE), in_port))
        assert [list(bed.wires.capture()) for bed in both.beds] == ports


# ---- names and description ----


def test_names_addresses_and_description(both):
    for number, port in both.big.controller.features().ports.items():
        switch, local = both.big.wires.locate(number)
        assert port.name == f"{switch.dpid}.{switch.port_name(local)}"
        device = switch.namespace.ip(f"link show {switch.port_name(local)}")
        assert f"link/ether {port.hw_addr} " in device
    assert both.plain.controller.description().mfr_desc == "Nicira, Inc."
    assert "edge.aggregator" in str(both.big.controller.description())


# ---- Nicira extensions ----

ELSEWHERE = {
    "resubmit": nx(1, struct.pack("!H4x", 2)),
    "set tunnel": nx(2, struct.pack("!2xI", 5)),
    "set queue": nx(4, struct.pack("!2xI", 1)),
    "pop queue": nx(5),
    "set tunnel64": nx(9, struct.pack("!6xQ", 5)),
    "resubmit to a table": nx(14, struct.pack("!HB3x", 2, 1)),
    "output of a register": nx(15, struct.pack("!HIH6x", 31, 0x00010004, 128)),
    "learn": nx(16, struct.pack("!HHHQHBBHHQ", *(0,) * 10)[:22]),
}
FIELDS = {
    "tunnel id": 0x00012008,
    "in_port": 0x00000002,
    "tunnel destination": 0x00014004,
    "packet mark": 0x00014204,
}


@pytest.mark.parametrize("action", ELSEWHERE.values(), ids=ELSEWHERE)
def test_nicira_actions_that_name_ports_tables_queues_or_the_tunnel(both, action):
    refused = "BAD_ACTION/BAD_VENDOR_TYPE"
    for actions in (action, of.output(17) + action):
        differ(both, of.flow_mod(of.match(in_port=1), actions), None, refused)
    differ(both, of.packet_out(UDP, action, 18), None, refused)
    assert both.big.controller.flow_stats() == []


# Actions for TCP packets, as ovs-ofctl sends them.  They keep a state on one switch, contain other
# actions, or are not supported though they would mean the same on every switch.
NOT_SUPPORTED = {
    "multipath to a register": nx(
        10, struct.pack("!HH2xHHI2xHI", 4, 1024, 2, 3, 0, 31, 0x00010004)
    ),
    "bundle": nx(12, struct.pack("!HHHIHH10xHH", 1, 0, 0, 2, 2, 0, 1, 2)),
    "fin_timeout": nx(19, struct.pack("!HH", 5, 0)),
    "sample": nx(29, struct.pack("!HIII", 100, 1, 1, 1)),
    "conjunction": nx(34, struct.pack("!BBI", 0, 2, 1)),
    "ct": nx(35, struct.pack("!HIHB5x", 0, 0, 0, 0xFF)),
    "controller, with userdata": nx(37, struct.pack("!6xHH2s", 3, 6, b"\1\2").ljust(14, b"\0")),
    "controller, with pause": nx(37, struct.pack("!6xHH4x", 4, 4)),
    "output with max_len": nx(39, struct.pack("!HI", 1, 100)),
    "clone": nx(42, bytes(6) + of.output(1)),
    "ct_clear": nx(43),
    "check_pkt_larger": nx(49, struct.pack("!HHI", 100, 0, 0x00010004)),
}


@pytest.mark.parametrize("action", NOT_SUPPORTED.values(), ids=NOT_SUPPORTED)
def test_nicira_actions_that_are_not_supported(both, action):
    """A bridge accepts them. The list in docs/how-it-works.md names them."""
    message = of.flow_mod(of.match(in_port=1, dl_type=0x800, nw_proto=6), action)
    differ(both, message, None, "BAD_ACTION/BAD_VENDOR_TYPE")
    assert both.big.controller.flow_stats() == []


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_nicira_actions_on_fields_that_differ_between_the_switches(both, field):
    bits = (field & 0xFF) * 8
    for action in (reg_load(field, 1, bits), reg_move(field, 0x00010004, min(bits, 32))):
        message = of.flow_mod(of.match(in_port=1), action)
        assert error(both.big, message) == "BAD_ACTION/BAD_ARGUMENT"
        assert error(both.plain, message) != "BAD_ACTION/BAD_ARGUMENT"
    assert both.big.controller.flow_stats() == []


@pytest.mark.parametrize("field", [0x80000606, 0x0000050C])  # OXM_OF_ETH_DST, NXM_OF_ETH_SRC_W
def test_fields_that_have_another_number_too_are_read_back_as_they_were(both, field):
    action = reg_load(field, 1, 48)
    both.do(of.flow_mod(of.match(), action))
    plain, big = (bed.controller.flow_stats()[0].actions for bed in both.beds)
    assert plain != big == action


@pytest.mark.parametrize(
    ("subtype", "body"),
    [
        (13, bytes(32) + bytes(0)),  # NXT_FLOW_MOD
        (15, b"\1" + bytes(7)),  # NXT_FLOW_MOD_TABLE_ID
        (12, struct.pack("!I", 1)),  # NXT_SET_FLOW_FORMAT
    ],
)
def test_nicira_messages(both, subtype, body):
    message = of.message(Type.VENDOR, struct.pack("!II", of.NX_VENDOR, subtype) + body)
    assert error(both.big, message) == "BAD_REQUEST/BAD_SUBTYPE"


@pytest.mark.parametrize("subtype", [0, 1])
def test_nicira_statistics(both, subtype):
    """Flow and aggregate statistics with extended matches are refused."""
    body = struct.pack("!II4xHHB3x", of.NX_VENDOR, subtype, Port.NONE, 0, 0xFF)
    ask = of.stats_request(of.Stats.VENDOR, body)
    assert reply_or_error(both.big, ask) == "BAD_REQUEST/BAD_SUBTYPE"
    assert isinstance(reply_or_error(both.plain, ask), bytes)


def test_no_internal_rules_are_shown(both):
    assert len(both.plain.controller.flow_stats(table_id=254)) == 4
    assert both.big.controller.flow_stats(table_id=254) == []
    assert both.big.controller.aggregate(table_id=254) == (0, 0, 0)


# ---- what the other switch does ----


def test_a_fragment_to_another_switch_while_fragments_are_dropped(both):
    both.set_config(1)
    for name in ("first fragment", "last fragment"):
        for bed, expected in ((both.plain, {1, 17}), (both.big, {1})):
            bed.controller.packet_out(FRAMES[name], [of.output(1), of.output(17)], 2)
            assert set(bed.wires.capture()) == expected


def test_a_lower_flow_takes_what_comes_before_a_copy_is_put_back(both):
    """The aggregator is frozen here, so that the moment without the copy lasts."""
    both.flow_mod(of.match(dl_type=0x800, nw_proto=17), of.output(17), idle_timeout=1)
    both.flow_mod(of.match(), of.output(2), priority=0)
    first = both.big.network.switches[1]

    def is_on_first():
        """Use the flow on the other switch; return whether the copy is on the first switch."""
        for bed in both.beds:
            bed.wires.send(18, UDP)
            assert bed.wires.capture() == {17: [UDP]}
        return any(" udp " in flow for flow in first.flows())

    both.big.aggregator.freeze()
    try:
        wait_for(lambda: not is_on_first(), "end of the copy")
        for bed, port in zip(both.beds, (17, 2)):
            bed.wires.send(1, UDP)
            assert bed.wires.capture() == {port: [UDP]}
    finally:
        both.big.aggregator.thaw()
    wait_for(is_on_first, "copy that is put back")
    assert both.inject(1, UDP).ports == [17]


@pytest.mark.parametrize("bit", [PortConfig.NO_RECV, PortConfig.NO_RECV_STP])
def test_frames_that_a_port_does_not_receive_are_not_counted(both, bit):
    both.port_mod(17, bit)
    both.flow_mod(of.match(), of.output(1))
    frame = UDP if bit == PortConfig.NO_RECV else FRAMES["spanning tree"]
    assert both.inject(17, frame).ports == []
    counts = [bed.controller.aggregate().packet_count for bed in both.beds]
    assert counts == [1, 0]


def test_dropped_fragments_are_no_lookups(both):
    both.set_config(1)
    both.flow_mod(of.match(), of.output(1))
    before = [bed.controller.table_stats()[0].lookup_count for bed in both.beds]
    both.inject(17, FRAMES["first fragment"], UDP)
    after = [bed.controller.table_stats()[0].lookup_count for bed in both.beds]
    assert [count - then for count, then in zip(after, before)] == [2, 1]


def test_bytes_of_a_packet_out_that_has_been_through_the_tunnel(both):
    both.flow_mod(of.match(), of.output(1))
    both.packet_out(UDP, [of.output(17), of.output(18), of.output(Port.TABLE)], 2)
    counts = [bed.controller.aggregate()[:2] for bed in both.beds]
    assert counts == [(1, 60), (1, 60 + 2 * 42)]


def test_actions_that_are_too_long_with_what_the_tunnel_needs(both):
    """8,182 actions fit into a message. An output to another switch takes more than one action."""
    actions = b"".join(of.set_tp_src(number) for number in range(8181)) + of.output(17)
    differ(both, of.flow_mod(of.match(in_port=1), actions), None, "BAD_ACTION/TOO_MANY")
    assert both.big.controller.flow_stats() == []
    near = b"".join(of.set_tp_src(number) for number in range(8181)) + of.output(2)
    differ(both, of.flow_mod(of.match(in_port=1), near), None, None)


@pytest.mark.parametrize("port", [Port.CONTROLLER, Port.TABLE])
def test_a_packet_out_to_the_controller_that_is_too_long_for_niciras_packet_in(both, port):
    """The real switches would send the packet in a Nicira packet-in, which has no room for it. The
    big switch refuses the packet-out, and nothing else suffers.
    """
    both.flow_mod(of.match(in_port=1), of.output(17))
    frame = frames.numbered(1, 65535 - 16 - 8)
    for in_port in (Port.NONE, 2, 18):
        message = of.packet_out(frame, of.output(port), in_port)
        differ(both, message, None, "BAD_REQUEST/BAD_LEN")
    both.each(lambda bed: bed.settle())
    assert [len(bed.controller.packet_ins()) for bed in both.beds] == [3, 0]
    assert both.inject(1, UDP).ports == [17]
    both.quiet()
