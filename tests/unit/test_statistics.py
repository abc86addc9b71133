"""Statistics replies in parts."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import openflow10 as of

from edge.openflow import stats

LONGEST = 65535


def unpacked(messages):
    """(body, flags) of each part, whose headers have to be right."""
    for raw in messages:
        if not raw:
            continue  # a pause
        message = of.unpack(raw)
        kind, flags = struct.unpack_from("!HH", message.body)
        assert struct.unpack_from("!H", raw, 2)[0] == len(raw) <= LONGEST
        assert (message.version, message.type, message.xid, kind) == (1, 17, 0x12345678, 1)
        yield message.body[4:], flags


def reply(entries):
    return list(unpacked(stats.pack_reply(0x12345678, of.Stats.FLOW, entries)))


def test_nothing_is_one_part_with_nothing_in_it():
    assert reply([]) == [(b"", 0)]


@pytest.mark.parametrize(
    "count, sizes",
    [
        (1, [96]),
        (682, [682 * 96]),
        (683, [682 * 96, 96]),
        (1364, [682 * 96, 682 * 96]),
        (1365, [682 * 96, 682 * 96, 96]),
    ],
)
def test_a_part_is_full_before_the_next_begins(count, sizes):
    """682 flows with one action, as Open vSwitch has it."""
    got = reply([bytes(96)] * count)
    assert [len(body) for body, _ in got] == sizes
    assert [flags for _, flags in got] == [1] * (len(sizes) - 1) + [0]


def test_others_have_their_turns_between_parts_and_where_an_entry_is_empty():
    messages = list(stats.pack_reply(7, of.Stats.FLOW, [bytes(40000), b"", bytes(40000)]))
    assert [len(message) for message in messages] == [0, 40012, 0, 40012]


@given(st.lists(st.integers(0, 3).map(lambda n: (1, 88, 20000, 65523)[n]), max_size=20))
def test_nothing_is_lost_or_cut_whatever_the_sizes_are(sizes):
    entries = [bytes([number]) * size for number, size in enumerate(sizes)]
    got = reply(iter(entries))
    assert b"".join(body for body, _ in got) == b"".join(entries)
    assert [flags for _, flags in got] == [1] * (len(got) - 1) + [0]
    # No entry is in two parts.
    ends = {sum(sizes[: number + 1]) for number in range(len(sizes))} | {0}
    seen = 0
    for body, _ in got:
        seen += len(body)
        assert seen in ends
