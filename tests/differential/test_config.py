"""The switch's configuration: what a switch stores, and how it treats fragments.

OpenFlow 1.0.0, 5.3.2.
"""

import itertools
import struct

import pytest
from lab import frames
from lab import openflow10 as of
from lab.openflow10 import Command, Port, Type

from .specimens import FRAMES, PORTS

NORMAL, DROP, REASM, NX_MATCH, INVALID_TTL = range(5)
FRAGMENTS = [name for name in FRAMES if "fragment" in name]


def config(both):
    """Return (flags, miss_send_len)."""
    (reply,) = both.replies(of.message(Type.GET_CONFIG_REQUEST))
    assert reply.type == Type.GET_CONFIG_REPLY
    return struct.unpack("!HH", reply.body)


@pytest.mark.parametrize("miss_send_len", [0, 1, 128, 0x7FFF, 0xFFE4, 0xFFFF])
def test_miss_send_len_is_read_back(both, miss_send_len):
    assert config(both) == (0, 128)
    assert both.replies(of.set_config(0, miss_send_len)) == []
    assert config(both) == (0, miss_send_len)


@pytest.mark.parametrize("flags", range(8))
def test_flags_are_read_back(both, flags):
    """Set the flags after each other value: flags that a switch does not support leave the old
    ones.
    """
    for before in range(8):
        both.do(of.set_config(before))
        config(both)
        both.do(of.set_config(flags))
        config(both)


def test_refused_flags_change_nothing(both):
    both.do(of.set_config(DROP, 55))
    assert both.error(of.set_config(0xFF00, 66)) == "NX 1/521"
    assert config(both) == (DROP, 55)


@pytest.mark.parametrize("flags", range(8))
def test_fragments(both, flags):
    """Which flow the first and the later fragments of IPv4 and IPv6 meet, on each switch."""
    both.set_config(flags)
    ladder = [
        of.match(dl_type=0x800, nw_proto=17, tp_src=0, tp_dst=0),
        of.match(dl_type=0x800, nw_proto=17, tp_dst=2000),
        of.match(dl_type=0x800, nw_proto=1),
        of.match(dl_type=0x800),
        of.match(dl_type=0x86DD, nw_proto=17, tp_dst=2000),
        of.match(dl_type=0x86DD, nw_proto=17, tp_dst=0),
        of.match(dl_type=0x86DD, nw_proto=17),
        of.match(),
    ]
    for rung, match in enumerate(ladder):
        both.flow_mod(match, of.output(Port.FLOOD), priority=100 - rung, cookie=rung)
    for port in PORTS:
        for name in (*FRAGMENTS, "udp", "arp request", "udp6"):
            both.inject(port, FRAMES[name])
            both.counters()
            both.packet_out(FRAMES[name], of.output(Port.TABLE), port)
            if flags & 3 != DROP or name not in FRAGMENTS:  # see test_departures.py
                both.packet_out(FRAMES[name], of.output(17), port)
    both.counters()
    if flags & 3 != DROP:
        both.table()
    both.flow_mod(command=Command.DELETE)
    for port in PORTS:
        both.inject(port, *(FRAMES[name] for name in FRAGMENTS))


@pytest.mark.parametrize("flags", [NORMAL, DROP, NX_MATCH])
def test_sets_on_fragments(both, flags):
    both.set_config(flags)
    both.flow_mod(
        of.match(),
        [of.set_tp_src(5), of.set_nw_dst("1.2.3.4"), of.output(2), of.output(17), of.output(18)],
    )
    for port in (1, 17):
        both.inject(port, *(FRAMES[name] for name in FRAGMENTS))


def test_switching_the_handling_of_fragments(both):
    """A change of the handling of fragments holds for the next frame, on all switches."""
    both.flow_mod(of.match(), of.output(18), cookie=1)
    for flags in (NORMAL, DROP, NORMAL, DROP, REASM, NX_MATCH, REASM, DROP, NORMAL):
        both.set_config(flags)
        for port in (1, 17):
            both.inject(port, FRAMES["first fragment"], FRAMES["last fragment"])


def test_packets_whose_ttl_is_used_up(both):
    """A controller that has asked for OFPC_INVALID_TTL_TO_CONTROLLER gets these packets."""
    decrement = of.vendor_action(struct.pack("!H6x", 18))
    for match in (of.match(dl_type=0x800), of.match(dl_type=0x800, in_port=17)):
        both.flow_mod(match, [of.output(1), decrement, of.output(2), of.output(18)])
        for flags in (0, INVALID_TTL, INVALID_TTL | DROP):
            both.set_config(flags)
            for name in ("udp", "ttl 1", "ttl 0"):
                both.inject(17, FRAMES[name])
                both.packet_out(FRAMES[name], [decrement, of.output(18)], 17)


def test_config_again_and_again(both):
    replies = both.replies(
        *itertools.chain.from_iterable(
            (of.set_config(flags, 100 + flags), of.message(Type.GET_CONFIG_REQUEST))
            for flags in (0, 1, 3, 0, 1, 1, 0)
        )
    )
    assert [struct.unpack("!HH", reply.body) for reply in replies] == [
        (flags, 100 + flags) for flags in (0, 1, 3, 0, 1, 1, 0)
    ]


def test_frames_of_a_switch_that_drops_fragments_are_no_others(both):
    both.set_config(DROP)
    both.flow_mod(of.match(), of.output(Port.FLOOD))
    for port in (1, 17):
        both.inject(port, *FRAMES.values())
        both.inject(port, frames.arp(), frames.lldp())
    both.ports()
