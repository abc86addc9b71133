"""Messages to the switches and back, byte by byte as OpenFlow 1.0 and nicira-ext.h lay them out."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import openflow10 as of

from edge.openflow import actions as act
from edge.openflow import flowmods, messages, stats
from edge.openflow import match as matches

NX_FLOW_MOD, NX_TABLE_ID, NX_PACKET_IN_FORMAT, NX_PACKET_IN = 13, 15, 16, 17
COOKIE = 0x1122334455667788

u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))


def vendor(message, subtype):
    """What follows the header of a Nicira message, which has to be of this subtype."""
    assert struct.unpack_from("!BB", message) == (1, of.Type.VENDOR)
    assert struct.unpack_from("!H", message, 2)[0] == len(message)
    assert struct.unpack_from("!II", message, 8) == (of.NX_VENDOR, subtype)
    return message[16:]


def padded(match):
    return match + bytes(-len(match) % 8)


# ---- to the switches ----


@given(u32, u8, u64, u16, u16, u16, u16)
def test_a_flow_is_added_with_its_own_match_and_the_table_in_the_command(
    xid, table, cookie, idle, hard, priority, flags
):
    match, actions = of.match(in_port=2, dl_vlan=5), of.output(2) + of.strip_vlan()
    message = flowmods.add_flow(xid, table, match, cookie, idle, hard, priority, flags, actions)
    assert message == of.flow_mod(
        match,
        actions,
        command=table << 8 | of.Command.ADD,
        priority=priority,
        cookie=cookie,
        idle_timeout=idle,
        hard_timeout=hard,
        flags=flags,
        xid=xid,
    )


@given(u32, u8, u64)
def test_a_flow_is_modified_by_its_cookie(xid, table, cookie):
    actions = of.output(1)
    body = vendor(flowmods.modify_flow(xid, table, cookie, actions), NX_FLOW_MOD)
    given_cookie, command, idle, hard, priority, buffer_id, out_port, flags, match_len = (
        struct.unpack_from("!QHHHHIHHH6x", body)
    )
    # MODIFY takes over the cookie too: it must be the one that the flow has.
    assert given_cookie == cookie
    assert command == table << 8 | of.Command.MODIFY
    assert (idle, hard, priority, flags) == (0, 0, 0, 0)
    assert (buffer_id, out_port) == (of.NO_BUFFER, of.Port.NONE)
    match = struct.pack("!IQ", 0x00013C08, cookie)  # NXM_NX_COOKIE
    assert match_len == len(match)
    assert body[32:] == padded(match) + actions


@given(u32, u8, u64)
def test_a_flow_is_deleted_by_its_cookie(xid, table, cookie):
    body = vendor(flowmods.delete_flow(xid, table, cookie), NX_FLOW_MOD)
    assert struct.unpack_from("!8xH", body)[0] == table << 8 | of.Command.DELETE
    assert body[32:] == padded(struct.pack("!IQ", 0x00013C08, cookie))


@given(u32, u8, u64, u64)
def test_flows_are_deleted_by_some_bits_of_their_cookie(xid, table, cookie, mask):
    body = vendor(flowmods.delete_flows(xid, table, cookie, mask), NX_FLOW_MOD)
    assert struct.unpack_from("!8xH", body)[0] == table << 8 | of.Command.DELETE
    assert struct.unpack_from("!H", body, 24)[0] == 20
    assert body[32:] == padded(struct.pack("!IQQ", 0x00013D10, cookie, mask))


@pytest.mark.parametrize("length", range(25))
def test_an_nxm_match_is_padded_to_eight_bytes(length):
    body = vendor(
        flowmods.nicira_flow_mod(1, of.Command.ADD, 1, bytes(length), actions=of.output(3)),
        NX_FLOW_MOD,
    )
    assert struct.unpack_from("!H", body, 24)[0] == length
    assert len(body) % 8 == 0
    assert body[-8:] == of.output(3)
    assert len(body) - 32 - 8 - length < 8


def test_service_matches():
    assert flowmods.match_in_port(3) == bytes.fromhex("00000002 0003")
    assert flowmods.match_tunnel_key(0x7F) == bytes.fromhex("00012008 000000000000007f")


def test_what_a_switch_is_told_first():
    assert vendor(messages.set_packet_in_format(7), NX_PACKET_IN_FORMAT) == struct.pack("!I", 1)
    assert vendor(messages.use_table_ids(7), NX_TABLE_ID) == b"\1" + bytes(7)
    assert messages.set_config(7, 0, 0xFFFF) == of.set_config(0, 0xFFFF, xid=7)


def test_plain_messages():
    assert messages.barrier_request(7) == of.message(of.Type.BARRIER_REQUEST, xid=7)
    assert messages.echo_request(7) == of.message(of.Type.ECHO_REQUEST, xid=7)
    assert messages.features_request(7) == of.message(of.Type.FEATURES_REQUEST, xid=7)
    assert messages.packet_out(7, 2, of.output(1), b"frame") == of.packet_out(
        b"frame", of.output(1), in_port=2, xid=7
    )
    assert messages.port_mod(7, 2, bytes(5) + b"\1", 0x10, 0x11, 5) == of.port_mod(
        2, "00:00:00:00:00:01", 0x10, 0x11, 5, xid=7
    )


@pytest.mark.parametrize(
    "cookie, mask, match",
    [
        (None, None, b""),
        (COOKIE, None, struct.pack("!IQ", 0x00013C08, COOKIE)),
        (COOKIE, 0xFF << 32, struct.pack("!IQQ", 0x00013D10, COOKIE, 0xFF << 32)),
    ],
)
def test_flows_are_asked_for_by_cookie(cookie, mask, match):
    message = of.unpack(stats.dump_flows(7, cookie, mask, table=2))
    assert (message.type, message.xid) == (of.Type.STATS_REQUEST, 7)
    kind, flags, vendor_id, subtype, out_port, match_len, table = struct.unpack_from(
        "!HHII4xHHB3x", message.body
    )
    assert (kind, flags, vendor_id, subtype) == (0xFFFF, 0, of.NX_VENDOR, 0)
    assert (out_port, match_len, table) == (of.Port.NONE, len(match), 2)
    assert message.body[24:] == padded(match)


def test_all_tables_are_asked_for_if_none_is_named():
    assert stats.dump_flows(7)[8 + 4 + 8 + 4 + 4] == 0xFF


def test_service_actions():
    """resubmit(,2) and resubmit(,1), which `ovs-ofctl dump-flows` shows so."""
    assert act.resubmit(2) == bytes.fromhex("ffff0010 00002320 000e fff8 02 000000")


# ---- from the switches ----


def nx_flow(cookie, packets, octets, match=b"", actions=b"", table=2, priority=9, idle_age=0):
    """struct nx_flow_stats."""
    rest = padded(match) + actions
    return (
        struct.pack(
            "!HBxIIHHHHHHQQQ",
            48 + len(rest),
            table,
            1,
            2,
            priority,
            30,
            60,
            len(match),
            idle_age,
            0,
            cookie,
            packets,
            octets,
        )
        + rest
    )


def nx_flows(*flows):
    body = struct.pack("!HHII4x", 0xFFFF, 0, of.NX_VENDOR, 0) + b"".join(flows)
    return of.message(of.Type.STATS_REPLY, body, 7)


flow_values = st.tuples(
    u64,
    u64,
    u64,
    st.binary(max_size=40),
    st.lists(st.sampled_from((of.output(1), of.set_dl_src("00:00:00:00:00:01"))), max_size=3).map(
        of.joined
    ),
)


@given(st.lists(flow_values, max_size=5))
def test_flows_are_read(values):
    flows = list(stats.parse_flows(nx_flows(*(nx_flow(*value) for value in values))))
    assert [(f.cookie, f.packets, f.octets, f.match, f.actions) for f in flows] == values
    assert all(
        (f.table, f.priority, f.idle_timeout, f.hard_timeout) == (2, 9, 30, 60) for f in flows
    )


@given(st.lists(flow_values, max_size=5))
def test_counters_are_read(values):
    message = nx_flows(*(nx_flow(*value) for value in values))
    assert list(stats.parse_counters(message)) == [value[:3] for value in values]


@pytest.mark.parametrize("sent, seconds", [(0, 0), (1, 0), (2, 1), (61, 60)])
def test_the_idle_age_is_sent_plus_one(sent, seconds):
    """nicira-ext.h: "Seconds since last packet, plus one", 0 if that is not known."""
    (flow,) = stats.parse_flows(nx_flows(nx_flow(1, 2, 3, idle_age=sent)))
    assert flow.idle_age == seconds


def nx_packet_in(data, entries=b"", reason=1, table=1, cookie=COOKIE, total_len=None):
    """struct nx_packet_in."""
    body = struct.pack("!II", of.NX_VENDOR, NX_PACKET_IN)
    body += struct.pack(
        "!IHBBQH6x",
        of.NO_BUFFER,
        len(data) if total_len is None else total_len,
        reason,
        table,
        cookie,
        len(entries),
    )
    return of.message(of.Type.VENDOR, body + padded(entries) + bytes(2) + data, 0)


@given(st.binary(max_size=200), u16, u64, u32)
def test_a_packet_in_is_read(data, in_port, key, ip):
    entries = (
        struct.pack("!IH", 0x00000002, in_port)
        + struct.pack("!IQ", 0x00012008, key)
        + struct.pack("!II", 0x00013E04, 0x01020304)  # tun_ipv4_src, which nobody asks for
        + struct.pack("!II", 0x00014004, ip)
    )
    packet = messages.parse_packet_in(nx_packet_in(data, entries))
    assert packet == messages.PacketIn(len(data), 1, 1, COOKIE, in_port, key, ip, data)


@pytest.mark.parametrize("in_port", [1, 2, 0xFFFD, 0xFFFF])
def test_a_packet_in_without_tunnel_is_read(in_port):
    """Open vSwitch leaves out what is 0, such as the key of discovery."""
    packet = messages.parse_packet_in(
        nx_packet_in(b"frame", struct.pack("!IH", 2, in_port), 0, 2, 0)
    )
    assert packet == messages.PacketIn(5, 0, 2, 0, in_port, None, None, b"frame")
    assert messages.parse_packet_in(nx_packet_in(b"frame")).in_port == of.Port.NONE


@given(u64, st.integers(0, 0xFFFF), u64, u64, st.integers(0, 2))
def test_a_flow_removed_is_read(cookie, priority, packets, octets, reason):
    body = of.match(in_port=1) + struct.pack(
        "!QHBxIIH2xQQ", cookie, priority, reason, 1, 2, 30, packets, octets
    )
    removed = messages.parse_flow_removed(of.message(of.Type.FLOW_REMOVED, body))
    assert removed == messages.FlowRemoved(cookie, priority, reason, packets, octets)


PORT = of.PHY_PORT.pack(
    2, bytes.fromhex("0200 0000 0002"), b"s1-eth2\0trash", 0x10, 1, 0xC0, 1, 2, 3
)


def test_ports_are_read():
    port = messages.parse_phy_port(PORT)
    assert port == messages.PhyPort(
        2, bytes.fromhex("020000000002"), b"s1-eth2", 0x10, 1, 0xC0, 1, 2, 3
    )
    assert of.unpack_phy_port(port.pack()) == of.unpack_phy_port(PORT)
    features = struct.pack("!QIB3xII", 1, 0, 254, 0, 0)
    for count in range(3):
        message = of.message(of.Type.FEATURES_REPLY, features + PORT * count)
        assert messages.parse_features(message) == (port,) * count


def test_a_name_that_fills_its_field_is_read():
    port = messages.parse_phy_port(PORT[:8] + b"a-name-of-16-byt" + PORT[24:])
    assert port.name == b"a-name-of-16-byt"


def test_a_match_goes_to_a_switch_as_it_came():
    """Port 18 of the big switch is port 2 of switch 2; nothing else changes."""
    match = matches.parse(of.match(in_port=18, dl_type=0x0800, nw_proto=6, tp_dst=80))
    sent = of.unpack(
        flowmods.add_flow(1, 2, matches.with_in_port(match.south, 2), 5, 0, 0, 9, 0, b"")
    )
    assert of.unpack_match(sent.body) == {
        "in_port": 2,
        "dl_type": 0x0800,
        "nw_proto": 6,
        "tp_dst": 80,
    }
