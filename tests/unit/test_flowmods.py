"""Flow-mods to the switches, byte by byte as OpenFlow 1.0 and nicira-ext.h lay them out."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import openflow10 as of

from edge.openflow import flowmods
from edge.openflow import match as matches

from .wire import padded, vendor

NX_FLOW_MOD = 13

u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))


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
    # MODIFY sets the cookie too, so it must be the flow's own.
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


def test_a_match_goes_to_a_switch_as_it_came():
    """Port 18 of the big switch is port 2 of switch 2. Nothing else changes."""
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
