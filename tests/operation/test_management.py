"""Connections to --listen: what they get, and that they disturb nobody else.

Both beds have two controllers and a management port. The big switch does what a plain bridge does
with its own management port (ptcp:).
"""

import socket
import struct

import pytest
from differential.both import error_name
from lab import frames
from lab import openflow10 as of
from lab.controller import Connection
from lab.faultbed import until
from lab.openflow10 import Type

from .ofctl import PORT
from .told import each_of, flap, kinds


@pytest.fixture
def connect():
    """Make connections to a bed's management port."""
    made = []

    def open_connection(bed):
        made.append(Connection.open(bed.wires.outer, PORT))
        made[-1].wait_for_hello()
        return made[-1]

    yield open_connection
    for connection in made:
        connection.close()


def cause_everything(bed):
    """Cause one packet-in, one flow-removed and two port-statuses; both controllers see them."""
    bed.wires.send(18, frames.udp())
    bed.controller.flow_mod(of.match(in_port=2), [of.output(1)], flags=of.Flag.SEND_FLOW_REM)
    bed.controller.flow_mod(of.match(in_port=2), command=of.Command.DELETE)
    for each in each_of(bed):
        each.expect(Type.PACKET_IN)
        each.expect(Type.FLOW_REMOVED)
    flap(bed, 17)
    bed.settle()


def test_asynchronous_messages_come_only_to_who_sets_a_miss_send_len(managed, connect):
    def ask(bed):
        silent, asking, ended = connect(bed), connect(bed), connect(bed)
        asking.do(of.set_config(miss_send_len=1))
        ended.do(of.set_config(miss_send_len=128))
        ended.do(of.set_config(miss_send_len=0))
        config = silent.request(of.message(Type.GET_CONFIG_REQUEST)).body
        cause_everything(bed)
        return config, kinds(silent), kinds(asking), kinds(ended)

    config, silent, asking, ended = managed.same(ask)
    assert config == struct.pack("!HH", 0, 0)
    assert silent == ended == []
    assert asking == ["FLOW_REMOVED", "PACKET_IN", "PORT_STATUS", "PORT_STATUS"]


def test_a_packet_in_of_its_own_packet_out_does_not_come_back_unasked(managed, connect):
    def ask(bed):
        silent = connect(bed)
        silent.packet_out(frames.udp(), [of.output(of.Port.CONTROLLER)], in_port=1)
        bed.settle()
        return kinds(silent), [len(each.packet_ins()) for each in each_of(bed)]

    assert managed.same(ask) == ([], [1, 1])


def test_each_has_a_miss_send_len_and_all_have_the_same_fragment_handling(managed, connect):
    def ask(bed):
        one, other = connect(bed), connect(bed)
        one.do(of.set_config(1, 500))
        return [
            each.request(of.message(Type.GET_CONFIG_REQUEST)).body
            for each in (one, other, bed.controller)
        ]

    assert managed.same(ask) == [struct.pack("!HH", 1, n) for n in (500, 0, 128)]


def test_replies_come_to_who_asked_though_all_use_the_same_xids(managed, connect):
    requests = [
        of.message(Type.FEATURES_REQUEST),
        of.stats_request(of.Stats.FLOW, of.flow_stats_body()),
        of.stats_request(of.Stats.PORT, struct.pack("!H6x", of.Port.NONE)),
        of.message(Type.ECHO_REQUEST, b"echo"),
        of.message(Type.BARRIER_REQUEST),
        of.stats_request(99),
        of.message(Type.GET_CONFIG_REQUEST),
        of.message(Type.BARRIER_REQUEST),
    ]

    def ask(bed):
        each = [*each_of(bed), *(connect(bed) for _ in range(4))]
        # Every connection sends the requests in another order, in one piece, five times.
        for _ in range(5):
            for shift, connection in enumerate(each):
                order = requests[shift:] + requests[:shift]
                connection.send(
                    *(of.with_xid(raw, 1000 + number) for number, raw in enumerate(order))
                )
        replies = []
        for connection in each:
            connection.barrier()
            got = connection.take()
            replies.append([(message.type, message.xid) for message in got])
        return replies

    answers = managed.same(ask)
    kinds_of_answer = [6, 17, 17, 3, 19, 1, 8, 19]
    for shift, replies in enumerate(answers):
        order = kinds_of_answer[shift:] + kinds_of_answer[:shift]
        assert replies == [(kind, 1000 + n) for n, kind in enumerate(order)] * 5


def test_errors_come_to_who_has_made_the_mistake(managed, connect):
    def ask(bed):
        wrong, right = connect(bed), connect(bed)
        bad = of.flow_mod(of.match(in_port=1), [of.output(of.Port.NONE)], xid=77)
        wrong.send(bad)
        wrong.barrier()
        errors = [error_name(of.unpack_error(error.body)) for error in wrong.take(Type.ERROR)]
        others = [kinds(each) for each in (right, *each_of(bed))]
        return errors, others

    assert managed.same(ask) == (["BAD_ACTION/BAD_OUT_PORT"], [[], [], []])


def test_barriers_of_many_at_once(managed, connect):
    """Each connection gets the replies to its own barriers, in order."""

    def ask(bed):
        each = [*each_of(bed), *(connect(bed) for _ in range(4))]
        for number, connection in enumerate(each):
            messages = []
            for n in range(20):
                match = of.match(in_port=number, dl_vlan=n)
                messages.append(of.flow_mod(match, [of.output(17)], xid=n))
                messages.append(of.message(Type.BARRIER_REQUEST, xid=1000 + n))
            connection.send(*messages)
        replies = []
        for connection in each:
            last = connection.expect(Type.BARRIER_REPLY, where=lambda reply: reply.xid == 1019)
            replies.append([*(reply.xid for reply in connection.take()), last.xid])
        return replies, len(bed.controller.flow_stats())

    replies, flows = managed.same(ask)
    assert replies == [list(range(1000, 1020))] * 6
    assert flows == 6 * 20


def test_changes_made_there_hold_as_those_of_a_controller(managed, connect):
    def ask(bed):
        client = connect(bed)
        client.flow_mod(of.match(in_port=1), [of.output(18)], cookie=5, flags=1)
        bed.wires.send(1, frames.udp())
        out = bed.wires.capture()
        client.close()
        (flow,) = bed.controller.flow_stats()
        bed.controller.flow_mod(command=of.Command.DELETE)
        removed = [
            of.unpack_flow_removed(each.expect(Type.FLOW_REMOVED).body) for each in each_of(bed)
        ]
        counted = [(r.cookie, r.packet_count, r.byte_count) for r in removed]
        return out, (flow.cookie, flow.packet_count, flow.match, flow.actions), counted

    out, _, counted = managed.same(ask)
    assert out == {18: [frames.udp()]}
    assert counted == [(5, 1, 60)] * 2


def test_a_hundred_come_and_go(managed):
    """No connection is left over, and the controllers are answered meanwhile."""

    def none_left():
        sizes = managed.big.inside("sizes")
        (connections,) = (
            count for name, count in sizes.items() if name.endswith(".ControllerConnection")
        )
        # Two connections are the controllers'. The listening task may still hold the last one.
        return connections <= 3

    for bed in managed.beds:
        hello = of.message(Type.HELLO)
        for _ in range(10):
            some = [Connection.open(bed.wires.outer, PORT) for _ in range(10)]
            for number, each in enumerate(some):
                if number % 2:
                    each.send(of.stats_request(of.Stats.FLOW, of.flow_stats_body()))
                if number % 3 == 0:
                    each.send(hello[:5])
                each.close(reset=number % 4 == 0)
            bed.controller.barrier()
        one = Connection.open(bed.wires.outer, PORT)
        one.barrier()
        one.close()
    until(none_left, "end of all clients")
    log = managed.big.aggregator.log()
    assert "Traceback" not in log and "ERROR" not in log


def test_who_ends_its_sending_gets_all_answers(managed):
    """A client such as `nc -N` sends its requests, ends its sending (TCP half-close) and reads. So
    may a controller. The last answer is an error that a switch finds.
    """
    load_ip = of.vendor_action(struct.pack("!HHIQ", 7, 31, 0x00001004, 1))  # needs a match on IP
    requests = [
        of.message(Type.HELLO),
        of.flow_mod(of.match(in_port=1), [of.output(17)], xid=1),
        of.message(Type.BARRIER_REQUEST, xid=2),
        *(
            of.stats_request(of.Stats.FLOW, of.flow_stats_body(), xid=number)
            for number in range(3, 13)
        ),
        of.message(Type.BARRIER_REQUEST, xid=13),
        of.message(Type.ECHO_REQUEST, xid=14),
        of.flow_mod(of.match(in_port=2), load_ip, xid=15),
    ]

    def answers(connection):
        connection.send(*requests)
        connection.socket.shutdown(socket.SHUT_WR)
        connection.wait_closed()
        got = [(of.type_name(each.type), each.xid, len(each.body)) for each in connection.take()]
        connection.close()
        return got

    def ask(bed):
        for n in range(300):
            bed.controller.send(of.flow_mod(of.match(dl_vlan=n), [of.output(2)]))
        bed.controller.barrier()
        client = answers(Connection.open(bed.wires.outer, PORT, hello=None))
        controller = bed.others[0]
        count, controller.hello = len(controller.connections), None
        controller.connection.close()
        until(lambda: len(controller.connections) > count, "the next connection")
        upstream = answers(controller.connection)
        controller.hello = of.message(Type.HELLO)
        controller.wait_for_connection(count + 2)
        return client, upstream

    client, upstream = managed.same(ask)
    assert client == upstream
    assert [xid for _, xid, _ in client] == list(range(2, 16))
    assert client[-1][0] == "ERROR"


def test_one_that_reads_nothing_holds_nobody_up(managed):
    """One connection requests megabytes and does not read them. All others are answered."""
    bed = managed.big
    for n in range(500):
        bed.controller.send(of.flow_mod(of.match(dl_vlan=n), [of.output(2)] * 100))
    bed.controller.barrier()

    def open_deaf():
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", PORT))
        return deaf

    with bed.wires.outer.call(open_deaf) as deaf:
        request = of.stats_request(of.Stats.FLOW, of.flow_stats_body())
        deaf.sendall(of.message(Type.HELLO) + 20 * request)  # they bring 9 MB of answers
        for _ in range(20):
            bed.controller.barrier()
            assert len(bed.controller.flow_stats(of.match(dl_vlan=7))) == 1
    bed.controller.barrier()


def test_off_by_default(big_switch):
    """Without --listen nobody can connect to the management port."""
    with pytest.raises(ConnectionRefusedError):
        Connection.open(big_switch.network.outer, PORT)
