"""The connection: hellos of all versions, and the state that a new connection finds.

OpenFlow 1.0.0, 4.1 and 5.5.1. Version negotiation follows later specifications, since controllers
of those versions connect too.
"""

import struct
import time

import pytest
from lab import frames
from lab import openflow10 as of
from lab.bigswitch import BigSwitch, PlainSwitch
from lab.openflow10 import Command, Flag, Type

from .both import WAIT, Both, wait_for

UDP = frames.udp()


def hello(version, elements=b""):
    return of.message(Type.HELLO, elements, 7, version)


def bitmap(*versions):
    """Return a version bitmap element with these versions."""
    word = sum(1 << version for version in versions)
    return struct.pack("!HHI", 1, 8, word)


ACCEPTED = {
    "1.0": hello(1),
    "1.0, junk behind": hello(1, b"junk behind"),
    "1.1": hello(2),
    "1.3": hello(4),
    "1.3 and 1.0": hello(4, bitmap(1, 4)),
    "1.5, 1.4, 1.0": hello(6, bitmap(6, 5, 1)),
    "unknown element": hello(1, struct.pack("!HHI", 9, 8, 0)),
    "version 127": hello(127),
    "version 255": hello(255),
    "long": hello(1, bytes(1000)),
    "bitmap of no version": hello(1, bitmap()),
}
REFUSED = {
    "version 0": hello(0),
    "1.3 only": hello(4, bitmap(4)),
    "1.0 in the header, 1.3 in the bitmap": hello(1, bitmap(4)),
    "features request first": of.message(Type.FEATURES_REQUEST),
    "error first": of.message(Type.ERROR, bytes(12)),
    "flow-mod first": of.flow_mod(),
    "barrier first": of.message(Type.BARRIER_REQUEST),
    "echo request first": of.message(Type.ECHO_REQUEST, b"first", 3),
    "length 0": bytes(8),
    "length 7": struct.pack("!BBHI", 1, 0, 7, 0),
}


@pytest.fixture(scope="module")
def _pair(root):
    """Each switch with so many controllers that all hellos can be tried at the same time."""
    plain = PlainSwitch(controllers=1 + len(ACCEPTED) + len(REFUSED))
    big = BigSwitch(controllers=1 + len(ACCEPTED) + len(REFUSED), options=["--max_retry_delay=1"])
    yield Both(plain, big)
    big.stop()
    plain.stop()


@pytest.fixture
def pair(_pair):
    """The pair, as new; all its connections are up."""
    for bed in _pair.beds:
        for each in (bed.controller, *bed.others):
            each.wait_until_connected(WAIT)
    _pair.reset()
    return _pair


def next_connections(controllers, greetings):
    """For each hello close a controller's connection, and answer the next one with that hello.

    Return the new connections. A refused controller's connection cannot be used again: the switch
    is already opening the next one.
    """
    waiting = []
    for controller, greeting in zip(controllers, greetings):
        count = len(controller.connections)
        controller.hello = greeting
        controller.connection.close()
        waiting.append((controller, count + 1))
    return [controller.wait_for_connection(count, WAIT) for controller, count in waiting]


def test_greetings(pair):
    """Some hellos are refused: the switch may send an error, and closes the connection.

    Others are accepted, whatever their version. The switch's own hello is of version 1.0, and both
    sides speak 1.0.
    """
    pair.flow_mod(of.match(in_port=1), of.output(17), cookie=5)
    for greetings, look in ((REFUSED, ending), (ACCEPTED, working)):
        first = len(REFUSED) if greetings is ACCEPTED else 0
        connections = {
            bed: next_connections(bed.others[first:], greetings.values()) for bed in pair.beds
        }
        for number, name in enumerate(greetings):

            def ask(bed, number=number, look=look, connections=connections):
                return look(connections[bed][number])

            pair.same(ask, name)
        for bed in pair.beds:
            for controller in bed.others:
                controller.hello = hello(1)
        assert [flow.cookie for flow in pair.flows()] == [5]


def working(connection):
    """Return what an accepted connection answers."""
    features = connection.features()
    error = connection.error_for(of.message(99))
    rest = [str(message) for message in connection.take()]
    return str(connection.hello)[:12], features.datapath_id, error[:2], rest


def ending(connection):
    """Return the messages on a connection until the switch closed it."""
    connection.wait_closed(WAIT)
    return [str(message) for message in connection.take()]


def reconnect(pair, between=None):
    """Close the connections, and wait until both switches have connected again.

    between: a function to call while there is no connection.
    """
    counts = {}
    for bed in pair.beds:
        counts[bed] = len(bed.controller.connections)
        if between:
            bed.controller.refuse()
        bed.controller.connection.close()
    if between:
        between()
        pair.each(lambda bed: bed.controller.listen())
    for bed in pair.beds:
        bed.controller.wait_for_connection(counts[bed] + 1, WAIT)


@pytest.mark.parametrize("length", [0, 7])
def test_a_length_below_8_ends_the_connection(pair, length):
    pair.send(struct.pack("!BBHI", 1, Type.ECHO_REQUEST, length, 9))
    pair.same(lambda bed: ending(bed.controller.connection), "the end")
    pair.each(lambda bed: bed.controller.wait_until_connected(WAIT))


def test_a_second_greeting_is_a_bad_type(pair):
    for greeting in (hello(1), hello(4), hello(1, bitmap(4))):
        pair.replies(greeting)
    pair.features()


def test_what_is_kept_and_what_is_new_after_a_reconnection(pair):
    """Flows, counters, ports and fragment handling stay. miss_send_len belongs to the
    connection.
    """
    pair.set_config(of.Flag.SEND_FLOW_REM, 99)  # 1: OFPC_FRAG_DROP
    pair.flow_mod(of.match(), of.output(17), cookie=5, idle_timeout=60)
    pair.flow_mod(of.match(in_port=18), b"", priority=0, cookie=6)
    pair.inject(1, UDP)
    pair.port_mod(2, of.PortConfig.NO_FLOOD)
    reconnect(pair)
    (reply,) = pair.replies(of.message(Type.GET_CONFIG_REQUEST))
    assert struct.unpack("!HH", reply.body) == (1, 128)
    assert pair.features()[2].config == of.PortConfig.NO_FLOOD
    assert pair.counters() == {5: (1, 60), 6: (0, 0)}
    assert pair.inject(1, UDP).ports == [17]
    pair.quiet()


def test_without_a_controller(pair):
    """Flows go on forwarding and expiring. Events of that time are not reported afterwards."""
    pair.flow_mod(of.match(in_port=1), of.output(17), cookie=1, flags=Flag.SEND_FLOW_REM)
    for number, in_port in ((2, None), (3, 17)):
        fields = {"in_port": in_port} if in_port else {}
        pair.flow_mod(
            of.match(dl_type=0x806, **fields),
            of.output(2),
            cookie=number,
            hard_timeout=1,
            flags=Flag.SEND_FLOW_REM,
        )

    def meanwhile():
        for bed in pair.beds:
            bed.wires.send(1, UDP)
            bed.wires.expect({17: [UDP]})
            bed.wires.send(18, UDP)  # a table miss that no controller is told of
            bed.wires.expect_nothing()
            bed.wires.ports[2].set_carrier(False)

    try:
        reconnect(pair, between=meanwhile)
    finally:
        pair.each(lambda bed: bed.wires.ports[2].set_carrier(True))

    def gone(bed):
        while len(bed.controller.flow_stats()) > 1:
            bed.controller.expect(Type.FLOW_REMOVED, WAIT)
        return {flow.cookie: flow.packet_count for flow in bed.controller.flow_stats()}

    assert pair.same(gone) == {1: 1}
    assert {port.state for port in pair.features().values()} <= {0, of.LINK_DOWN}
    assert pair.inject(1, UDP).ports == [17]


def test_half_a_message_at_the_end_of_a_connection(pair):
    pair.send(of.flow_mod(of.match(in_port=1), of.output(17), cookie=1)[:50])
    reconnect(pair)
    assert pair.flows() == []


def test_flows_sent_just_before_the_end(pair):
    """The flows count: the switch reads all that was sent before the connection was closed."""
    pair.send(
        of.flow_mod(of.match(in_port=1), of.output(17), cookie=1),
        of.flow_mod(of.match(), of.output(2), cookie=2),
        of.flow_mod(of.match(in_port=1), command=Command.DELETE_STRICT),
    )
    reconnect(pair)
    assert [flow.cookie for flow in pair.flows()] == [2]


def test_one_that_does_not_greet_or_answer_is_given_up(pair):
    """Without a hello the connection ends within seconds. Without an answer to the echo request,
    which comes after 5 s, it ends 5 s later.
    """
    connections = {bed: next_connections(bed.others[-1:], [hello(1)]) for bed in pair.beds}
    started = time.monotonic()
    for (hanging,) in connections.values():
        hanging.answer_echo = False
    silent = {}
    for bed in pair.beds:
        controller = bed.others[1]
        count, controller.hello = len(controller.connections), None
        controller.connection.close()
        wait_for(lambda: len(controller.connections) > count, "next attempt")  # noqa: B023
        silent[bed] = controller.connection
    for bed in pair.beds:
        silent[bed].wait_closed(WAIT)
        bed.others[1].hello = hello(1)
    pair.same(lambda bed: [str(message) for message in silent[bed].take()], "what was said")
    for (hanging,) in connections.values():  # both time out together; the plain one is first
        asked = hanging.expect(Type.ECHO_REQUEST, WAIT)
        hanging.wait_closed(WAIT)
        assert (asked.body, hanging.take()) == (b"", [])
    assert 9 < time.monotonic() - started < 13
