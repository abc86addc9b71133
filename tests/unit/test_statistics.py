"""Statistics: replies in parts, and the requests to the switches."""

import struct

import pytest
from dashboard import model
from hypothesis import given
from hypothesis import strategies as st
from lab import openflow10 as of

from edge.north import statistics
from edge.openflow import stats

LONGEST = 65535


def unpacked(messages):
    """Yield (body, flags) of each part. Check the headers."""
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
    """Open vSwitch also puts 682 flows with one action into a part."""
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
    # No entry is split over two parts.
    ends = {sum(sizes[: number + 1]) for number in range(len(sizes))} | {0}
    seen = 0
    for body, _ in got:
        seen += len(body)
        assert seen in ends


# ---- requests for flows to the switches ----

ALL = "all"


class Asked:
    """A connection to a switch. It notes requests for flows, and answers when answer() is called.

    requests: for each NXST_FLOW request the cookie that it names, or ALL.
    """

    disconnected = False
    stuck = unacknowledged = 0

    def __init__(self, member):
        self.member = member
        self.requests = []
        self._xids = []
        member.session.connection = self

    def send(self, data):
        message = of.unpack(data)
        assert message.type == of.Type.STATS_REQUEST
        length = struct.unpack_from("!H", message.body, 4 + 14)[0]
        match = message.body[4 + 20 :][:length]
        masked = match[2] & 1
        self.requests.append(ALL if masked else int.from_bytes(match[4:12], "big"))
        self._xids.append(message.xid)

    def answer(self, counters):
        """Answer all requests as if the switch had these flows: {cookie: (packets, octets)}."""
        requests, self.requests = self.requests, []
        xids, self._xids = self._xids, []
        for asked, xid in zip(requests, xids):
            flows = b"".join(
                struct.pack("!HBxLLHHHHHHQQQ", 48, 2, 0, 0, 1, 0, 0, 0, 0, 0, cookie, *counted)
                for cookie, counted in counters.items()
                if asked in (ALL, cookie)
            )
            body = struct.pack("!HHII4x", 0xFFFF, 0, of.NX_VENDOR, 0) + flows
            self.member._received(of.Type.STATS_REPLY, of.message(of.Type.STATS_REPLY, body, xid))


class Bed:
    """A big switch over switches with `flows` flows, and one more flow for each of `in_ports`."""

    def __init__(self, flows, switches=2, in_ports=()):
        self.switch = model.big_switch(switches)
        self.flows = [
            model.add_flow(self.switch, model.match(dl_type=0x88B5, dl_vlan=number))
            for number in range(flows)
        ]
        self.flows += [
            model.add_flow(self.switch, model.match(in_port=number)) for number in in_ports
        ]
        self.asked = [Asked(member) for member in self.switch.topology.members.values()]
        self.done = []

    def cookies(self, flows):
        return [self.switch.flows.cookies.cookie(flow) for flow in flows]

    def refresh(self, flows):
        """Refresh the counters of these flows; return the requests to each switch."""
        statistics.refresh(self.switch, flows, lambda: self.done.append(True))
        return [asked.requests for asked in self.asked]


def test_eight_flows_of_a_table_of_eight_are_one_dump_of_each_switch():
    bed = Bed(8)
    assert bed.refresh(bed.flows) == [[ALL], [ALL]]


def test_nine_flows_of_a_big_table_are_nine_requests_to_each_switch():
    bed = Bed(1000)
    wanted = bed.flows[500:509]
    assert bed.refresh(wanted) == [bed.cookies(wanted)] * 2


def test_one_flow_is_one_request_however_small_the_table():
    bed = Bed(1)
    assert bed.refresh(bed.flows) == [bed.cookies(bed.flows)] * 2


def test_a_switch_without_any_of_the_flows_is_not_asked():
    bed = Bed(1000, in_ports=(1, 2, 17))
    *_, one, two, other = bed.flows
    assert bed.refresh([one, two]) == [bed.cookies([one, two]), []]
    assert bed.refresh([other]) == [bed.cookies([one, two]), bed.cookies([other])]


def test_each_switch_is_asked_in_the_way_that_is_cheaper_for_it():
    """One switch holds many of the flows, the other few."""
    bed = Bed(100, in_ports=[*range(1, 17), 17])
    wanted = bed.flows[100:]
    assert bed.refresh(wanted) == [[ALL], bed.cookies(wanted[-1:])]


@pytest.mark.parametrize("flows", [3, 1000], ids=["dump", "one by one"])
def test_what_the_switches_answer_is_counted(flows):
    bed = Bed(flows)
    wanted = bed.flows[:3]
    bed.refresh(wanted)
    one, other = bed.asked
    counters = {cookie: (number + 1, 100) for number, cookie in enumerate(bed.cookies(wanted))}
    one.answer(counters)
    assert not bed.done, "the other switch has not answered"
    other.answer(counters)
    assert bed.done == [True]
    assert [bed.switch.flows.counted(flow) for flow in wanted] == [(2, 200), (4, 200), (6, 200)]


def test_flows_that_have_gone_are_not_asked_for():
    bed = Bed(1000)
    gone, *left = wanted = bed.flows[:3]
    bed.switch.flows.table.remove(gone)
    assert bed.refresh(wanted) == [bed.cookies(left)] * 2
