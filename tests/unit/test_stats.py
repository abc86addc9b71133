"""Statistics of the switches, byte by byte as nicira-ext.h lays them out."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import openflow10 as of

from edge.openflow import stats

from .wire import padded

COOKIE = 0x1122334455667788

u64 = st.integers(0, (1 << 64) - 1)


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


def nx_flow(cookie, packets, octets, match=b"", actions=b"", table=2, priority=9, idle_age=0):
    """Build a flow of an NXST_FLOW reply (struct nx_flow_stats)."""
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
def test_copies_are_read(values):
    message = nx_flows(*(nx_flow(*value) for value in values))
    copies = list(stats.parse_copies(message))
    assert [copy[:4] for copy in copies] == [(*value[:3], value[4]) for value in values]
    assert [stats.flow_at(message, copy[4]) for copy in copies] == list(stats.parse_flows(message))


@pytest.mark.parametrize("sent, seconds", [(0, 0), (1, 0), (2, 1), (61, 60)])
def test_the_idle_age_is_sent_plus_one(sent, seconds):
    """nicira-ext.h: "Seconds since last packet, plus one"; 0 means that the age is unknown."""
    (flow,) = stats.parse_flows(nx_flows(nx_flow(1, 2, 3, idle_age=sent)))
    assert flow.idle_age == seconds
