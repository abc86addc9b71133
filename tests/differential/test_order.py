"""Barriers, echoes, and the order of execution and of answers.

OpenFlow 1.0.0, 5.3.7 and 5.5.
"""

import struct

import pytest
from lab import frames
from lab import openflow10 as of
from lab.openflow10 import Command, Flag, Port, Type

from .both import error_name
from .specimens import PORTS

UDP = frames.udp()


def names(replies):
    """Return the replies as text: type, and xid counted from the first reply's."""
    first = min(reply.xid for reply in replies)
    return [
        error_name(of.unpack_error(reply.body))
        if reply.type == Type.ERROR
        else f"{of.type_name(reply.type)} {reply.xid - first}"
        for reply in replies
    ]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 100, 1500, 65527])
def test_echo_comes_back_as_it_was(both, size):
    data = (bytes(range(256)) * 256)[:size]
    (reply,) = both.replies(of.message(Type.ECHO_REQUEST, data))
    assert (reply.type, reply.body) == (Type.ECHO_REPLY, data)


def test_barriers_are_answered_each(both):
    replies = both.replies(*[of.message(Type.BARRIER_REQUEST)] * 50)
    assert names(replies) == [f"BARRIER_REPLY {number}" for number in range(50)]
    assert {reply.body for reply in replies} == {b""}


def test_replies_come_in_the_order_of_the_requests(both):
    """A quick reply waits for earlier replies that need answers from the switches."""
    requests = [
        of.stats_request(of.Stats.FLOW, of.flow_stats_body()),
        of.message(Type.ECHO_REQUEST, b"1"),
        of.stats_request(of.Stats.PORT, struct.pack("!H6x", Port.NONE)),
        of.message(Type.FEATURES_REQUEST),
        of.message(Type.BARRIER_REQUEST),
        of.message(Type.GET_CONFIG_REQUEST),
        of.stats_request(of.Stats.TABLE),
        of.message(Type.QUEUE_GET_CONFIG_REQUEST, struct.pack("!H2x", 17)),
        of.message(99),
        of.stats_request(of.Stats.QUEUE, struct.pack("!H2xI", Port.ALL, 0xFFFFFFFF)),
        of.stats_request(of.Stats.DESC),
        of.message(Type.ECHO_REQUEST, b"2"),
        of.stats_request(of.Stats.AGGREGATE, of.flow_stats_body()),
    ]
    both.flow_mod(of.match(), of.output(1))

    def ask(bed):
        xids = list(range(500, 500 + len(requests)))
        bed.controller.send(
            *(of.with_xid(raw, xid) for raw, xid in zip(requests, xids)),
        )
        bed.controller.barrier()
        return [(reply.xid, reply.type) for reply in bed.controller.take()]

    assert [xid for xid, _ in both.same(ask)] == list(range(500, 500 + len(requests)))


def test_a_barrier_waits_for_what_was_before_it(both):
    """A frame sent after the reply meets every flow-mod sent before the request."""
    for number in range(50):
        port = PORTS[number % 3 + 1]
        both.send(
            of.flow_mod(of.match(), of.output(port), cookie=number),
            of.flow_mod(of.match(in_port=17), of.output(1), cookie=100 + number, priority=0xFFFF),
        )
        both.barrier()
        assert both.inject(1, UDP).ports == [port]
        assert both.inject(17, UDP).ports == [1]


def test_errors_come_before_the_barrier_reply(both):
    bad = of.flow_mod(actions=of.output(Port.NONE))
    replies = both.replies(
        bad,
        of.message(Type.BARRIER_REQUEST),
        of.flow_mod(of.match(in_port=1), of.output(2)),
        bad,
        of.packet_out(UDP, of.output(Port.NONE)),
        of.message(Type.BARRIER_REQUEST),
        of.port_mod(99, "00:00:00:00:00:00"),
        of.message(Type.BARRIER_REQUEST),
    )
    assert names(replies) == [
        "BAD_ACTION/BAD_OUT_PORT",
        "BARRIER_REPLY 1",
        "BAD_ACTION/BAD_OUT_PORT",
        "BAD_ACTION/BAD_OUT_PORT",
        "BARRIER_REPLY 5",
        "PORT_MOD_FAILED/BAD_PORT",
        "BARRIER_REPLY 7",
    ]


def test_an_error_that_only_a_switch_finds_comes_before_the_barrier_reply(both):
    """Only the switches refuse a Nicira action whose prerequisites the match lacks."""
    load_ip = of.vendor_action(struct.pack("!HHIQ", 7, 31, 0x00001004, 1))
    for match in (of.match(in_port=1), of.match(in_port=17), of.match()):
        replies = both.replies(
            of.flow_mod(match, load_ip, cookie=1),
            of.message(Type.BARRIER_REQUEST),
            of.flow_mod(of.match(in_port=2), of.output(17), cookie=4),
            of.flow_mod(match, load_ip, cookie=2),
            of.stats_request(of.Stats.AGGREGATE, of.flow_stats_body()),
            of.message(Type.ECHO_REQUEST),
        )
        assert names(replies) == [
            "NX 1/522",
            "BARRIER_REPLY 1",
            "NX 1/522",
            "STATS_REPLY 4",
            "ECHO_REPLY 5",
        ]
    assert [flow.cookie for flow in both.flows()] == [4]
    assert len(both.inject(17, UDP).packet_ins) == 1


@pytest.mark.parametrize(
    "other",
    [
        of.flow_mod(actions=of.output(Port.NONE)),
        of.flow_mod(command=99),
        of.packet_out(UDP, of.output(Port.NONE)),
        of.port_mod(99, "00:00:00:00:00:00"),
        of.message(Type.ECHO_REQUEST, b"an answer that no switch is needed for"),
        of.message(Type.FEATURES_REQUEST),
        of.message(Type.QUEUE_GET_CONFIG_REQUEST, struct.pack("!H2x", 17)),
        of.stats_request(of.Stats.FLOW, of.flow_stats_body()),
        of.stats_request(of.Stats.DESC),
        of.stats_request(99),
        of.message(99),
        of.message(Type.ECHO_REQUEST, version=4),
        of.message(Type.FLOW_MOD, version=4),
    ],
    ids=lambda raw: raw[:2].hex() + raw[8:12].hex(),
)
def test_errors_that_only_switches_find_come_in_the_order_of_the_messages(both, other):
    """Such errors keep the order among themselves, whichever switch reports them, and among all
    other answers.
    """
    load_ip = of.vendor_action(struct.pack("!HHIQ", 7, 31, 0x00001004, 1))
    messages = []
    for match in (of.match(in_port=17), of.match(in_port=1), of.match(), of.match(in_port=2)) * 3:
        messages += [
            of.flow_mod(match, load_ip),
            of.packet_out(UDP, [of.output(1), load_ip]),
            other,
            of.flow_mod(match, of.output(2), cookie=5),
        ]

    def ask(bed):
        xids = range(700, 700 + len(messages))
        bed.controller.send(*(of.with_xid(raw, xid) for raw, xid in zip(messages, xids)))
        bed.controller.barrier()
        return [(reply.xid - 700, reply.type) for reply in bed.controller.take() if reply.xid]

    answered = [number for number, _ in both.same(ask)]
    assert answered == sorted(answered) and len(answered) >= 24
    assert {flow.cookie for flow in both.flows()} == {5}


def test_a_replacement_that_a_switch_refuses_leaves_the_old_flow(both):
    """The old flow keeps its actions, cookie and flags, for ADD and MODIFY alike."""
    load_ip = of.vendor_action(struct.pack("!HHIQ", 7, 31, 0x00001004, 1))
    for match in (of.match(), of.match(in_port=17)):
        both.flow_mod(match, of.output(2), cookie=1, flags=of.Flag.SEND_FLOW_REM)
        for command in (Command.ADD, Command.MODIFY, Command.MODIFY_STRICT):
            bad = of.flow_mod(match, [of.output(1), load_ip], command, cookie=2)
            assert both.error(bad) == "NX 1/522"
            (flow,) = both.flows()
            assert (flow.cookie, flow.actions) == (1, of.output(2))
            assert both.inject(17, UDP).ports == [2]
        both.flow_mod(command=Command.DELETE)
        both.removed(1)


def test_what_a_flow_that_is_refused_would_have_hidden_or_overlapped(both):
    """A refused replacement does not protect the old flow from commands that follow it."""
    ip = of.match(dl_type=0x800)
    refused = [of.output(17), of.vendor_action(struct.pack("!HHIQ", 7, 0, 0x00001806, 1))]
    for command in (Command.DELETE, Command.DELETE_STRICT):
        both.flow_mod(ip, of.output(2), cookie=1)
        replies = both.replies(
            of.flow_mod(ip, refused, cookie=2),
            of.flow_mod(ip, command=command, out_port=2),
            of.stats_request(of.Stats.AGGREGATE, of.flow_stats_body()),
        )
        assert len(replies) == 2
        assert both.flows() == []
    replies = both.replies(
        of.flow_mod(ip, refused, cookie=3, priority=5),
        of.flow_mod(of.match(in_port=1), of.output(2), priority=5, flags=Flag.CHECK_OVERLAP),
    )
    assert len(replies) == 1
    assert len(both.flows()) == 1


def test_what_follows_a_barrier_is_done_after_it(both):
    """Packet-outs through the table, before and after the flow that they meet is changed."""
    to_table = of.packet_out(UDP, of.output(Port.TABLE), 17)
    barrier = of.message(Type.BARRIER_REQUEST)
    both.replies(
        of.flow_mod(of.match(), of.output(1)),
        barrier,
        to_table,
        barrier,
        of.flow_mod(of.match(), of.output(2)),
        barrier,
        to_table,
        barrier,
        of.flow_mod(command=Command.DELETE),
        barrier,
        to_table,
    )
    outcome = both.outcome()
    assert outcome.out == {1: [UDP], 2: [UDP]}
    assert len(outcome.packet_ins) == 1


def test_what_comes_of_a_packet_out_behind_a_barrier_is_told_behind_its_answer(both):
    """Forty times in a row, all sent in one piece, as a controller may do."""
    messages = []
    for number in range(40):
        if number % 4:
            marked = [of.set_vlan_vid(number), of.output(Port.CONTROLLER)]
            flow = of.flow_mod(of.match(in_port=1), marked)
        else:  # a flow on all switches
            flow = of.flow_mod(of.match(), of.output(2), priority=number)
        to_table = of.packet_out(UDP, of.output(Port.TABLE), 1)
        messages += [flow, of.message(Type.BARRIER_REQUEST), to_table]
    for bed in both.beds:
        bed.controller.send(*messages)
        bed.settle()
        told = bed.controller.take(Type.BARRIER_REPLY, Type.PACKET_IN)
        answers = [place for place, each in enumerate(told) if each.type == Type.BARRIER_REPLY]
        assert len(answers) == 40
        marks = []
        for place, each in enumerate(told):
            if each.type == Type.PACKET_IN:
                marks.append(int.from_bytes(of.unpack_packet_in(each.body).data[14:16], "big"))
                assert place > answers[marks[-1]]
        # If the new flow is for all ports, its priority is lower: the packet meets the flow before
        # it.
        assert marks == [number if number % 4 else number - 1 for number in range(1, 40)]
    both.outcome()


def test_statistics_show_what_was_before_them(both):
    """No barrier stands between the requests."""
    ask = of.stats_request(of.Stats.AGGREGATE, of.flow_stats_body())
    replies = both.replies(
        ask,
        of.flow_mod(of.match(in_port=1), of.output(2)),
        ask,
        of.flow_mod(of.match(in_port=17), of.output(2)),
        ask,
        of.flow_mod(command=Command.DELETE),
        ask,
    )
    assert [of.unpack_aggregate(reply.body[4:]).flow_count for reply in replies] == [0, 1, 2, 0]


def test_messages_in_pieces(both):
    """TCP may split a message anywhere."""
    stream = b"".join(
        (
            of.flow_mod(of.match(in_port=1), of.output(17), cookie=1, xid=700),
            of.message(Type.ECHO_REQUEST, b"x" * 100, 701),
            of.packet_out(UDP, of.output(2), xid=702),
            of.message(Type.BARRIER_REQUEST, xid=703),
        )
    )
    for piece in (1, 3, 7, 8, 64):
        for start in range(0, len(stream), piece):
            both.send(stream[start : start + piece])
        both.barrier()
        replies = both.same(lambda bed: bed.controller.take(Type.ECHO_REPLY, Type.BARRIER_REPLY))
        assert [reply.xid for reply in replies] == [701, 703]
        assert both.outcome().out == {2: [UDP]}


def test_many_messages_in_one_piece(both):
    messages = []
    for number in range(3000):
        messages.append(of.flow_mod(of.match(dl_vlan=number % 100), of.output(17), cookie=number))
        messages.append(of.message(Type.ECHO_REQUEST, b"%d" % number))
    replies = both.replies(*messages)
    assert [reply.body for reply in replies] == [b"%d" % number for number in range(3000)]
    assert len(both.flows(added_at_once=False)) == 100


@pytest.mark.parametrize("xid", [0, 1, 0x80000000, 0xFFFFFFFF])
def test_any_xid_and_the_same_one_again(both, xid):
    def ask(bed):
        for type_ in (Type.ECHO_REQUEST, Type.BARRIER_REQUEST, Type.GET_CONFIG_REQUEST):
            bed.controller.send(of.message(type_, xid=xid), of.message(type_, xid=xid))
        bed.controller.send(of.stats_request(of.Stats.AGGREGATE, of.flow_stats_body(), xid=xid))
        bed.controller.barrier()
        return [(reply.xid, reply.type) for reply in bed.controller.take()]

    assert {reply_xid for reply_xid, _ in both.same(ask)} == {xid}
