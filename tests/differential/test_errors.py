"""Refused messages: the error's type, code, xid and data, and that nothing was done.

OpenFlow 1.0.0, 5.4.4. Both switches send back the whole message.
"""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import frames
from lab import openflow10 as of
from lab.openflow10 import ActionType, Command, Flag, Port, Type

from .specimens import examples

EMPTY = b""


def refused_by(switches, message, error):
    """Both switches answer the message with this error, or with nothing when `error` is None."""
    assert switches.error(message) == error
    switches.quiet()


# ---- the header ----


@pytest.mark.parametrize("version", [0, 2, 3, 4, 5, 6, 7, 0x7F, 0x80, 0xFF])
def test_any_message_of_another_version(both, version):
    """Try each message type in several lengths. Echo requests are answered in their own version."""
    both.flow_mod(of.match(), of.output(17))
    messages = []
    for type_ in range(40):
        for length in (0, 1, 4, 8, 12, 16, 24, 56, 64, 72, 600):
            for filling in (0, 0xFF):
                body = bytes([filling]) * length
                messages.append(of.message(type_, body, version=version))
    replies = both.replies(*messages)
    echoes = [reply for reply in replies if reply.type == Type.ECHO_REPLY]
    assert {reply.version for reply in echoes} == ({version} if version else set())
    (flow,) = both.flows()
    assert flow.actions == of.output(17)


def test_unknown_type(both):
    for type_ in range(22, 256):
        for length in (0, 100):
            assert both.error(of.message(type_, bytes(length))) == "BAD_REQUEST/BAD_TYPE"
    both.quiet()


def test_a_message_that_only_switches_send(both):
    """A switch checks the length of such a message before it refuses its type."""
    for type_ in (
        Type.FEATURES_REPLY,
        Type.GET_CONFIG_REPLY,
        Type.PACKET_IN,
        Type.FLOW_REMOVED,
        Type.PORT_STATUS,
        Type.STATS_REPLY,
        Type.BARRIER_REPLY,
        Type.QUEUE_GET_CONFIG_REPLY,
        Type.HELLO,
        Type.ERROR,
    ):
        for length in (*range(29), *range(40, 121), 168, 600):
            assert both.error(of.message(type_, bytes(length))).startswith("BAD_REQUEST/BAD_")


def test_a_statistics_reply_from_the_controller(both):
    for stats_type in (*range(7), 9, 13, 0xFFFF):
        header = struct.pack("!HH", stats_type, 0)
        for length in (0, 1, 3, 4, 8, 23, 24, 32, 48, 64, 96, 104, 128, 208, 1055, 1056, 1057):
            message = of.message(Type.STATS_REPLY, header + bytes(length))
            assert both.error(message).startswith("BAD_REQUEST/BAD_")
        both.error(of.message(Type.STATS_REPLY, header + struct.pack("!III", of.NX_VENDOR, 0, 0)))


def test_unasked_echo_reply(both):
    refused_by(both, of.message(Type.ECHO_REPLY, b"hello"), None)
    refused_by(both, of.message(Type.ECHO_REPLY), None)


LENGTHS = {
    Type.FEATURES_REQUEST: 0,
    Type.GET_CONFIG_REQUEST: 0,
    Type.SET_CONFIG: 4,
    Type.PORT_MOD: 24,
    Type.BARRIER_REQUEST: 0,
    Type.QUEUE_GET_CONFIG_REQUEST: 4,
}


def test_message_too_short_or_too_long(both):
    for type_ in LENGTHS:
        right = LENGTHS[type_]
        for length in {*range(right), right + 1, right + 4, right + 8, right + 60}:
            refused_by(both, of.message(type_, bytes(length)), "BAD_REQUEST/BAD_LEN")


def test_packet_out_and_flow_mod_too_short(both):
    for length in range(8):
        refused_by(both, of.message(Type.PACKET_OUT, bytes(length)), "BAD_REQUEST/BAD_LEN")
    for length in (*range(0, 64, 5), 60, 63):
        refused_by(both, of.message(Type.FLOW_MOD, bytes(length)), "BAD_REQUEST/BAD_LEN")


def test_flow_mod_whose_actions_are_not_a_multiple_of_8(both):
    for extra in range(1, 8):
        message = of.flow_mod(of.match(in_port=1), of.output(2) + bytes(extra))
        refused_by(both, message, "BAD_REQUEST/BAD_LEN")
        assert both.flows() == []


def test_the_whole_message_comes_back_however_long(both):
    for length in (64, 100, 1000, 30000, 65527):
        (reply,) = both.replies(of.message(99, (bytes(range(256)) * 256)[:length]))
        assert len(reply.body) == min(4 + 8 + length, 65527)


def test_the_error_has_the_xid_of_the_message(both):
    for xid in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):

        def ask(bed, xid=xid):
            bed.controller.send(of.message(99, xid=xid))
            bed.controller.barrier()
            return bed.controller.take()

        (reply,) = both.same(ask)
        assert (reply.type, reply.xid) == (Type.ERROR, xid)


# ---- vendor messages ----


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (EMPTY, "BAD_REQUEST/BAD_LEN"),
        (b"\0\0", "BAD_REQUEST/BAD_LEN"),
        (struct.pack("!I", of.NX_VENDOR), "BAD_REQUEST/BAD_LEN"),
        (struct.pack("!I", 0x1234), "BAD_REQUEST/BAD_LEN"),
        (struct.pack("!II", 0x1234, 0), "BAD_REQUEST/BAD_VENDOR"),
        (struct.pack("!II", 0, 0), "BAD_REQUEST/BAD_VENDOR"),
        (struct.pack("!II", 0xFFFFFFFF, 0), "BAD_REQUEST/BAD_VENDOR"),
        (struct.pack("!II", 0x005C16C7, 1) + bytes(64), "BAD_REQUEST/BAD_VENDOR"),
        (struct.pack("!II", of.NX_VENDOR, 9999), "BAD_REQUEST/BAD_SUBTYPE"),
        (struct.pack("!II", of.NX_VENDOR, 0xFFFFFFFF) + bytes(100), "BAD_REQUEST/BAD_SUBTYPE"),
        (struct.pack("!II", 0x4F4E4600, 9999), "BAD_REQUEST/BAD_SUBTYPE"),
    ],
)
def test_vendor_message(both, body, error):
    refused_by(both, of.message(Type.VENDOR, body), error)


# ---- statistics ----


def test_unknown_statistics(both):
    for type_ in (6, 7, 8, 9, 100, 0x7FFF, 0x8000, 0xFFFE):
        for length in (0, 8, 44):
            refused_by(both, of.stats_request(type_, bytes(length)), "BAD_REQUEST/BAD_STAT")


STATS_LENGTHS = {
    of.Stats.DESC: 0,
    of.Stats.FLOW: 44,
    of.Stats.AGGREGATE: 44,
    of.Stats.TABLE: 0,
    of.Stats.PORT: 8,
    of.Stats.QUEUE: 8,
}


def test_statistics_request_too_short_or_too_long(both):
    for type_ in STATS_LENGTHS:
        right = STATS_LENGTHS[type_]
        for length in {0, 1, 2, 4, 7, 8, 9, 12, 43, 44, 45, 48, 100} - {right}:
            message = of.stats_request(type_, bytes(length))
            refused_by(both, message, "BAD_REQUEST/BAD_LEN")


def test_statistics_request_without_its_own_header(both):
    for length in range(4):
        refused_by(both, of.message(Type.STATS_REQUEST, bytes(length)), "BAD_REQUEST/BAD_LEN")


@pytest.mark.parametrize(
    "body",
    [
        EMPTY,
        b"\0\0",
        struct.pack("!I", 0x1234),
        struct.pack("!I", 0x1234) + bytes(8),
        struct.pack("!I", of.NX_VENDOR),
        struct.pack("!I", of.NX_VENDOR) + bytes(4),
        struct.pack("!II", of.NX_VENDOR, 9999) + bytes(4),
        struct.pack("!II", of.NX_VENDOR, 0xFFFFFFFF) + bytes(100),
        struct.pack("!II", 0x4F4E4600, 9999) + bytes(4),
        struct.pack("!I", 0x4F4E4600),
    ],
    ids=lambda body: body[:8].hex() or "empty",
)
def test_vendor_statistics(both, body):
    assert both.error(of.stats_request(of.Stats.VENDOR, body)).startswith("BAD_REQUEST/")


def test_flags_of_a_statistics_request_mean_nothing(both):
    for flags in (1, 2, 0x8000, 0xFFFF):
        (reply,) = both.replies(
            of.stats_request(of.Stats.AGGREGATE, of.flow_stats_body(), flags=flags)
        )
        assert reply.type == Type.STATS_REPLY


# ---- actions, in flow-mods and packet-outs alike ----

LONG = 0xFFFF
BAD_ACTIONS = {
    "type 12": (of.action(12, bytes(4)), "BAD_TYPE"),
    "type 13, long": (of.action(13, bytes(12)), "BAD_TYPE"),
    "type 0x7fff": (of.action(0x7FFF, bytes(4)), "BAD_TYPE"),
    "type 0xfffe": (of.action(0xFFFE, bytes(4)), "BAD_TYPE"),
    "vendor unknown": (of.vendor_action(EMPTY, 0x1234), "BAD_VENDOR"),
    "vendor unknown, long": (of.vendor_action(bytes(8), 0x1234), "BAD_VENDOR"),
    "vendor 0": (of.vendor_action(EMPTY, 0), "BAD_VENDOR"),
    "nicira subtype 9999": (of.vendor_action(struct.pack("!H6x", 9999)), "BAD_VENDOR_TYPE"),
    "nicira subtype 0xffff": (of.vendor_action(struct.pack("!H6x", 0xFFFF)), "BAD_VENDOR_TYPE"),
    "onf subtype 9999": (
        of.vendor_action(struct.pack("!H6x", 9999), 0x4F4E4600),
        "BAD_VENDOR_TYPE",
    ),
    "length 0": (struct.pack("!HHHH", 0, 0, 2, 0), "BAD_LEN"),
    "length 4": (struct.pack("!HHHH", 0, 4, 2, 0), "BAD_LEN"),
    "length 7": (struct.pack("!HHHH", 0, 7, 2, 0), "BAD_LEN"),
    "length 9": (struct.pack("!HHHH8x", 0, 9, 2, 0), "BAD_LEN"),
    "length 12": (struct.pack("!HHHH8x", 0, 12, 2, 0), "BAD_LEN"),
    "type 12 of length 0": (struct.pack("!HHI", 12, 0, 0), "BAD_TYPE"),
    "type 12 of length 7": (struct.pack("!HHI", 12, 7, 0), "BAD_TYPE"),
    "type 12 of length 0xffff": (struct.pack("!HHI", 12, LONG, 0), "BAD_TYPE"),
    "vendor unknown, length 0": (struct.pack("!HHI", LONG, 0, 7), "BAD_VENDOR"),
    "nicira subtype 9999, length 0": (
        struct.pack("!HHIH6x", LONG, 0, of.NX_VENDOR, 9999),
        "BAD_VENDOR_TYPE",
    ),
    "longer than the list": (struct.pack("!HHHH", 0, 16, 2, 0), "BAD_LEN"),
    "length 0xfff8": (struct.pack("!HHHH", 0, 0xFFF8, 2, 0), "BAD_LEN"),
    "length 0xffff": (struct.pack("!HHHH", 0, 0xFFFF, 2, 0), "BAD_LEN"),
    "all zeros": (bytes(8), "BAD_LEN"),
    "all ones": (b"\xff" * 8, "BAD_VENDOR"),
    **{
        f"type {type_} of length {length}": (of.action(type_, bytes(length - 4)), "BAD_LEN")
        for type_, right in enumerate((8, 8, 8, 8, 16, 16, 8, 8, 8, 8, 8, 16))
        for length in {8, 16, 24, 32} - {right}
    },
    "vlan id 4096": (of.set_vlan_vid(0x1000), "BAD_ARGUMENT"),
    "vlan id 0xffff": (of.set_vlan_vid(0xFFFF), "BAD_ARGUMENT"),
    "vlan id 0x8005": (of.set_vlan_vid(0x8005), "BAD_ARGUMENT"),
    "vlan priority 8": (of.set_vlan_pcp(8), "BAD_ARGUMENT"),
    "vlan priority 255": (of.set_vlan_pcp(255), "BAD_ARGUMENT"),
    "tos 1": (of.set_nw_tos(1), "BAD_ARGUMENT"),
    "tos 3": (of.set_nw_tos(3), "BAD_ARGUMENT"),
    "tos 255": (of.set_nw_tos(255), "BAD_ARGUMENT"),
    **{
        f"output to {port:#x}": (of.output(port), "BAD_OUT_PORT")
        for port in (0xFF00, 0xFF01, 0xFF80, 0xFFF0, 0xFFF7, Port.NONE)
    },
    **{
        f"enqueue to {port:#x}": (of.enqueue(port, 1), "BAD_OUT_PORT")
        for port in (
            0xFF00,
            0xFFF7,
            Port.TABLE,
            Port.NORMAL,
            Port.FLOOD,
            Port.ALL,
            Port.CONTROLLER,
            Port.NONE,
        )
    },
}


@pytest.mark.parametrize(("bad", "code"), BAD_ACTIONS.values(), ids=BAD_ACTIONS)
def test_bad_action(both, bad, code):
    """A bad action is refused in every command, alone and behind good ones. Nothing changes, and
    nothing goes out.
    """
    match = of.match(in_port=1)
    both.flow_mod(match, of.output(17), cookie=1)
    lists = [bad] if "longer than" in code or bad[2:4] == b"\0\x10" else [bad, bad + of.output(2)]
    for actions in (*lists, of.output(2) + bad, of.strip_vlan() + of.output(17) + bad):
        for command in range(5):
            message = of.flow_mod(match, actions, command, cookie=2)
            assert both.error(message) == "BAD_ACTION/" + code
        message = of.packet_out(frames.udp(), actions)
        assert both.error(message) == "BAD_ACTION/" + code
    (flow,) = both.flows()
    assert (flow.cookie, flow.actions) == (1, of.output(17))
    assert both.outcome() == ({}, [])


def test_a_nicira_action_cut_short(both):
    short = of.vendor_action(EMPTY)
    refused_by(both, of.flow_mod(actions=short), "BAD_ACTION/BAD_LEN")
    refused_by(both, of.flow_mod(actions=of.output(2) + short), "BAD_ACTION/BAD_LEN")
    # With more actions behind it, Open vSwitch reads the subtype from them.
    for behind in (of.output(2), of.set_dl_src("00:00:00:00:00:01"), of.action(12, bytes(4))):
        both.error(of.flow_mod(actions=short + behind))
        both.error(of.packet_out(frames.udp(), short + behind))
    assert both.flows() == []


def test_the_first_bad_action_decides(both):
    bad_type, bad_port = of.action(12, bytes(4)), of.output(Port.NONE)
    bad_vid = of.set_vlan_vid(0xFFFF)
    for actions, code in (
        (bad_type + bad_port, "BAD_TYPE"),
        (bad_port + bad_type, "BAD_OUT_PORT"),
        (bad_vid + bad_port, "BAD_ARGUMENT"),
        (bad_port + bad_vid, "BAD_OUT_PORT"),
        (bad_vid + bad_type, "BAD_ARGUMENT"),
        (bad_port + bytes(8), "BAD_OUT_PORT"),
        (bytes(8) + bad_port, "BAD_LEN"),
    ):
        refused_by(both, of.flow_mod(actions=actions), "BAD_ACTION/" + code)
        refused_by(both, of.packet_out(frames.udp(), actions), "BAD_ACTION/" + code)


def test_ports_that_are_not_there_are_no_error(both):
    for number, port in enumerate((0, 3, 5, 16, 19, 33, 100, 1000, 0x7FFF, 0xFEFF)):
        actions = of.output(port) + of.enqueue(port, 1) + of.output(2)
        match = of.match(in_port=1, dl_vlan=number)
        both.flow_mod(match, actions)
        assert both.packet_out(frames.udp(), actions).ports == [2]
    assert len(both.flows()) == 10


def test_reserved_ports_that_are_no_error(both):
    for port in (Port.IN_PORT, Port.TABLE, Port.FLOOD, Port.ALL, Port.CONTROLLER):
        for max_len in (0, 1, 128, 0xFFFF):
            match = of.match(dl_vlan=port & 15)
            both.flow_mod(match, of.output(port, max_len))
            (flow,) = both.flows(match)
            assert flow.actions == of.output(port, max_len)
    both.flow_mod(of.match(in_port=1), of.enqueue(Port.IN_PORT, 3))


# ---- flow-mods ----


def test_bad_command(both):
    for command in (5, 6, 0xFF, 0x100, 0x101, 0x1FF, 0x7FFF, 0xFFFF):
        match = of.match(in_port=1)
        refused_by(both, of.flow_mod(match, command=command), "FLOW_MOD_FAILED/BAD_COMMAND")
        # A bad command is found before bad actions, bad flags and unknown buffers.
        message = of.flow_mod(match, of.output(Port.NONE), command, flags=0xFFFF, buffer_id=1)
        refused_by(both, message, "FLOW_MOD_FAILED/BAD_COMMAND")
        assert both.flows() == []


@pytest.mark.parametrize("command", range(5))
def test_emergency_flows_are_refused(both, command):
    match = of.match(in_port=1)
    both.flow_mod(match, of.output(17), cookie=1)
    for idle, hard, flags, error in (
        (0, 0, Flag.EMERG, "ALL_TABLES_FULL"),
        (0, 0, Flag.EMERG | Flag.SEND_FLOW_REM, "ALL_TABLES_FULL"),
        (0, 0, Flag.EMERG | Flag.CHECK_OVERLAP, "ALL_TABLES_FULL"),
        (0, 0, 7, "ALL_TABLES_FULL"),
        (1, 0, Flag.EMERG, "BAD_EMERG_TIMEOUT"),
        (0, 1, Flag.EMERG, "BAD_EMERG_TIMEOUT"),
        (5, 5, 7, "BAD_EMERG_TIMEOUT"),
    ):
        message = of.flow_mod(
            match,
            of.output(2),
            command,
            cookie=2,
            idle_timeout=idle,
            hard_timeout=hard,
            flags=flags,
        )
        refused_by(both, message, "FLOW_MOD_FAILED/" + error)
    message = of.flow_mod(match, of.output(Port.NONE), command, flags=Flag.EMERG)
    refused_by(both, message, "BAD_ACTION/BAD_OUT_PORT")
    (flow,) = both.flows()
    assert (flow.cookie, flow.actions) == (1, of.output(17))


def test_unknown_flags(both):
    both.flow_mod(of.match(in_port=1), of.output(17), cookie=1)
    for command in range(5):
        for flags in (8, 9, 0x10, 0x100, 0x8000, 0xFFF8, 0xFFFF):
            assert both.error(of.flow_mod(command=command, flags=flags)) == "NX 3/258"
    assert [flow.cookie for flow in both.flows()] == [1]


def test_unknown_buffer(both):
    """ADD and MODIFY with an unknown buffer do nothing. A DELETE ignores the buffer."""
    for buffer_id in (0, 1, 0x100, 0x7FFFFFFF, 0xFFFFFFFE):
        match = of.match(in_port=1)
        error = "BAD_REQUEST/BUFFER_UNKNOWN"
        for command in (Command.ADD, Command.MODIFY, Command.MODIFY_STRICT):
            refused_by(both, of.flow_mod(match, command=command, buffer_id=buffer_id), error)
        assert both.flows() == []
        both.flow_mod(match, of.output(17), cookie=1)
        for command in (Command.ADD, Command.MODIFY, Command.MODIFY_STRICT):
            refused_by(both, of.flow_mod(match, command=command, buffer_id=buffer_id), error)
        (flow,) = both.flows()
        assert (flow.cookie, flow.actions) == (1, of.output(17))
        both.flow_mod(match, command=Command.DELETE_STRICT, buffer_id=buffer_id)
        both.flow_mod(match, command=Command.DELETE, buffer_id=buffer_id)
        assert both.flows() == []
        for data in (EMPTY, frames.udp()):
            message = of.packet_out(data, of.output(2), buffer_id=buffer_id)
            refused_by(both, message, error)
        assert both.outcome() == ({}, [])


def test_unknown_buffer_is_found_last_but_before_an_overlap(both):
    both.flow_mod(of.match(in_port=1), of.output(17))
    message = of.flow_mod(of.match(dl_type=0x800), buffer_id=5, flags=Flag.CHECK_OVERLAP)
    refused_by(both, message, "BAD_REQUEST/BUFFER_UNKNOWN")
    message = of.flow_mod(actions=of.output(Port.NONE), buffer_id=5)
    refused_by(both, message, "BAD_ACTION/BAD_OUT_PORT")
    message = of.packet_out(EMPTY, of.output(Port.NONE), buffer_id=5)
    refused_by(both, message, "BAD_ACTION/BAD_OUT_PORT")
    message = of.packet_out(EMPTY, of.output(2), in_port=0xFF00, buffer_id=5)
    refused_by(both, message, "NX 1/514")


# ---- packet-outs ----


def test_packet_out_with_an_impossible_in_port(both):
    for in_port in (0xFF00, 0xFFF7, *range(Port.IN_PORT, Port.CONTROLLER)):
        refused_by(both, of.packet_out(frames.udp(), of.output(2), in_port), "NX 1/514")
        message = of.packet_out(frames.udp(), of.output(Port.NONE), in_port)
        refused_by(both, message, "BAD_ACTION/BAD_OUT_PORT")
        assert both.outcome() == ({}, [])


def test_packet_out_whose_actions_are_longer_than_the_message(both):
    for claimed in (8, 16, 64, 0xFFF8, 1, 4, 7, 9, 12):
        body = struct.pack("!IHH", of.NO_BUFFER, Port.NONE, claimed)
        refused_by(both, of.message(Type.PACKET_OUT, body), "BAD_REQUEST/BAD_LEN")
    for claimed in (1, 4, 7, 9, 12, 15):
        body = struct.pack("!IHH", of.NO_BUFFER, Port.NONE, claimed) + of.output(2) * 4
        refused_by(both, of.message(Type.PACKET_OUT, body), "BAD_REQUEST/BAD_LEN")


def test_packet_out_whose_actions_reach_into_its_data(both):
    body = struct.pack("!IHH", of.NO_BUFFER, Port.NONE, 16) + of.output(2) + frames.udp()
    assert both.error(of.message(Type.PACKET_OUT, body)).startswith("BAD_ACTION/")
    body = struct.pack("!IHH", of.NO_BUFFER, Port.NONE, 8) + of.output(2) + frames.udp()
    refused_by(both, of.message(Type.PACKET_OUT, body), None)


# ---- ports and queues ----


NO_PORTS = [0, 3, 16, 19, 33, 100, 0xFEFF, 0xFF00, 0xFFF7, *range(Port.IN_PORT, Port.LOCAL)]


def test_port_mod_of_a_port_that_is_not_there(both):
    for port in (*NO_PORTS, Port.NONE):
        refused_by(both, of.port_mod(port, "02:00:00:00:00:01"), "PORT_MOD_FAILED/BAD_PORT")
        refused_by(both, of.port_mod(port, "00:00:00:00:00:00", 1, 1), "PORT_MOD_FAILED/BAD_PORT")


def test_port_mod_with_another_address(both):
    for port in (1, 2, 17, 18):
        for address in ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "02:00:00:00:00:77"):
            message = of.port_mod(port, address, 1, 1)
            refused_by(both, message, "PORT_MOD_FAILED/BAD_HW_ADDR")
        assert {port.config for port in both.features().values()} == {0}


def test_queue_configuration_of_a_port_that_is_not_there(both):
    for port in (*NO_PORTS, Port.NONE):
        message = of.message(Type.QUEUE_GET_CONFIG_REQUEST, struct.pack("!H2x", port))
        refused_by(both, message, "QUEUE_OP_FAILED/BAD_PORT")


def test_queue_statistics_of_a_port_that_is_not_there(both):
    for port in set(NO_PORTS) - {Port.ALL}:
        for queue in (0, 1, 0xFFFFFFFF):
            message = of.stats_request(of.Stats.QUEUE, struct.pack("!H2xI", port, queue))
            refused_by(both, message, "QUEUE_OP_FAILED/BAD_PORT")


def test_statistics_of_a_queue_that_is_not_there(both):
    for port in (1, 2, 17, 18, Port.ALL, Port.NONE):
        for queue in (0, 1, 7, 0xFFFFFFFE):
            message = of.stats_request(of.Stats.QUEUE, struct.pack("!H2xI", port, queue))
            refused_by(both, message, "QUEUE_OP_FAILED/BAD_QUEUE")


# ---- config ----


def test_unknown_config_flags(both):
    for flags in (8, 0x10, 0x8000, 0xFFFF):
        assert both.error(of.set_config(flags, 999)) == "NX 1/521"
        (reply,) = both.replies(of.message(Type.GET_CONFIG_REQUEST))
        assert struct.unpack("!HH", reply.body) == (0, 128)


# ---- any message ----

_LEFT_OUT = (Type.PORT_MOD, Type.SET_CONFIG, Type.FEATURES_REQUEST, Type.STATS_REQUEST)
"""Messages whose effect outlasts a test, and messages whose answers always differ."""


@examples(40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([type_ for type_ in range(25) if type_ not in _LEFT_OUT]),
            st.binary(max_size=120),
        ),
        min_size=1,
        max_size=10,
    )
)
def test_any_bytes(both, messages):
    both.reset()
    both.replies(*(of.message(type_, body) for type_, body in messages))
    both.flows()


_random_actions = st.lists(
    st.builds(
        lambda type_, length, body: struct.pack("!HH", type_, length) + body,
        st.sampled_from([*range(13), 0xFFFF, 0xFFFE]),
        st.sampled_from([8, 8, 8, 16, 16, 24, 0, 12, 0xFFFF]),
        st.one_of(
            st.binary(min_size=4, max_size=4),
            st.binary(min_size=12, max_size=12),
            st.just(b"\0\2\0\0"),
            st.just(struct.pack("!IHH", of.NX_VENDOR, 8, 0) + bytes(4)),
        ),
    ),
    max_size=4,
).map(b"".join)
_small = st.sampled_from([0, 1, 2, 3, 0xFFFF])


@examples(60)
@given(
    _random_actions,
    st.sampled_from([0, 1, 2, 3, 4, 5, 0x100]),
    _small,
    _small,
    st.sampled_from([of.NO_BUFFER, of.NO_BUFFER, of.NO_BUFFER, 0]),
    st.sampled_from([0, 1, 2, 3, 4, 7, 8]),
    st.sampled_from([1, 17, 0, 0xFF00, Port.ALL, Port.CONTROLLER, Port.NONE]),
)
def test_any_flow_mod_and_packet_out(both, actions, command, idle, hard, buffer_id, flags, port):
    """A message may be wrong in several ways: both switches must find the same fault first."""
    both.reset()
    both.flow_mod(of.match(in_port=1), of.output(2))
    flow_mod = of.flow_mod(
        of.match(dl_type=0x800), actions, command, 0x8000, 1, idle, hard, buffer_id, port, flags
    )
    both.replies(flow_mod, of.packet_out(frames.udp(), actions, port, buffer_id))
    both.flows()


# ---- between the messages ----


def test_errors_among_good_messages(both):
    """Each message gets its own answer, in the order of the messages, and the good ones take
    effect.
    """
    replies = both.replies(
        of.flow_mod(of.match(in_port=1), of.output(2), cookie=1),
        of.flow_mod(of.match(in_port=2), of.output(Port.NONE), cookie=2),
        of.message(Type.ECHO_REQUEST, b"between"),
        of.flow_mod(of.match(in_port=17), of.output(18), cookie=3),
        of.message(99, b"unknown"),
        of.stats_request(of.Stats.AGGREGATE, of.flow_stats_body()),
        of.flow_mod(of.match(in_port=18), actions=bytes(8), cookie=4),
        of.message(Type.BARRIER_REQUEST),
        of.message(Type.BARRIER_REQUEST, b"\0"),
        of.stats_request(77),
        of.message(Type.GET_CONFIG_REQUEST),
    )
    assert [reply.type for reply in replies] == [
        Type.ERROR,
        Type.ECHO_REPLY,
        Type.ERROR,
        Type.STATS_REPLY,
        Type.ERROR,
        Type.BARRIER_REPLY,
        Type.ERROR,
        Type.ERROR,
        Type.GET_CONFIG_REPLY,
    ]
    assert sorted(flow.cookie for flow in both.flows()) == [1, 3]


def test_a_refused_flow_mod_changes_nothing(both):
    """The entry that it would replace stays, with its counters, and frames still meet it."""
    match = of.match(in_port=1)
    both.flow_mod(match, of.output(17), cookie=1, flags=Flag.SEND_FLOW_REM)
    assert both.inject(1, frames.udp()).ports == [17]
    for message in (
        of.flow_mod(match, of.output(Port.NONE), cookie=2),
        of.flow_mod(match, of.output(2), cookie=2, flags=Flag.EMERG),
        of.flow_mod(match, of.output(2), cookie=2, buffer_id=5),
        of.flow_mod(match, of.output(2), 9, cookie=2),
        of.flow_mod(match, of.action(ActionType.SET_VLAN_PCP, b"\x09\0\0\0"), Command.MODIFY),
        of.flow_mod(of.match(), of.output(Port.NONE), Command.DELETE),
    ):
        assert both.error(message)
    assert both.inject(1, frames.udp()).ports == [17]
    assert both.counters() == {1: (2, 120)}
    both.quiet()
