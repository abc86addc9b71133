"""Messages to and from switches, byte by byte as OpenFlow 1.0 and nicira-ext.h lay them out."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import openflow10 as of

from edge.openflow import messages

from .wire import padded, vendor

NX_TABLE_ID, NX_PACKET_IN_FORMAT, NX_PACKET_IN, NX_ASYNC_CONFIG = 15, 16, 17, 27
COOKIE = 0x1122334455667788

u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))


# ---- to the switches ----


def test_what_a_switch_is_told_first():
    assert vendor(messages.set_packet_in_format(7), NX_PACKET_IN_FORMAT) == struct.pack("!I", 1)
    assert vendor(messages.use_table_ids(7), NX_TABLE_ID) == b"\1" + bytes(7)
    reasons = struct.pack("!HHI", 5, 8, 0b100111)
    assert vendor(messages.report_evictions(7), NX_ASYNC_CONFIG) == reasons
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


# ---- from the switches ----


def nx_packet_in(data, entries=b"", reason=1, table=1, cookie=COOKIE, total_len=None):
    """Build a packet-in (struct nx_packet_in)."""
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
        + struct.pack("!II", 0x00013E04, 0x01020304)
        + struct.pack("!II", 0x00014004, ip)
    )
    packet = messages.parse_packet_in(nx_packet_in(data, entries))
    assert packet == messages.PacketIn(len(data), 1, 1, COOKIE, in_port, key, ip, data, 0x01020304)


@pytest.mark.parametrize("in_port", [1, 2, 0xFFFD, 0xFFFF])
def test_a_packet_in_without_tunnel_is_read(in_port):
    """Open vSwitch leaves out fields that are 0, such as the tunnel key of discovery."""
    packet = messages.parse_packet_in(
        nx_packet_in(b"frame", struct.pack("!IH", 2, in_port), 0, 2, 0)
    )
    assert packet == messages.PacketIn(5, 0, 2, 0, in_port, None, None, b"frame")
    assert messages.parse_packet_in(nx_packet_in(b"frame")).in_port == of.Port.NONE


@given(u64, st.integers(0, 0xFFFF), u64, u64, st.integers(0, 2), st.integers(0, 1 << 31))
def test_a_flow_removed_is_read(cookie, priority, packets, octets, reason, seconds):
    body = of.match(in_port=1) + struct.pack(
        "!QHBxIIH2xQQ", cookie, priority, reason, seconds, 2, 30, packets, octets
    )
    removed = messages.parse_flow_removed(of.message(of.Type.FLOW_REMOVED, body))
    assert removed == messages.FlowRemoved(cookie, priority, reason, seconds, packets, octets)


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
