"""The upstream controller dies, hangs, moves or sends garbage: the network goes on without it."""

import socket
import struct
import time
from contextlib import ExitStack

import pytest
from lab import frames
from lab import openflow10 as of
from lab.controller import Connection, Controller
from lab.faultbed import dump, resident_memory, until
from lab.namespaces import Namespace
from lab.openflow10 import Type
from lab.traffic import Stream

RECONNECT = 3.0
"""Seconds until the aggregator has connected again, if its first attempt (after one second)
succeeds.
"""
SILENCE = 10.0
"""Seconds after which the aggregator gives up a controller that answers no echo request."""
MEGABYTE = 1 << 20
LISTEN = 6654
CONTROLLER_ADDRESS = "10.254.0.1"
UNKNOWN = "02:00:00:00:00:99"
"""An Ethernet address for which only the flow to the controller matches."""


def rows(switch):
    return {(flow.table, flow.priority, flow.match): flow for flow in dump(switch)}


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_dies_and_comes_back(make_bed, measured, reset):
    """Flows stay as they were and forward. Events of that time are not reported afterwards."""
    bed = make_bed()
    controller, network = bed.controller, bed.network
    stats = {(str(flow.match), flow.priority) for flow in controller.flow_stats()}
    with ExitStack() as stack:
        streams = [
            stack.enter_context(Stream(network, port, [out])) for port, out in ((1, 17), (33, 2))
        ]
        for stream in streams:
            stream.wait_for_frames()
        before = rows(network.switches[2])
        controller.refuse()
        controller.connection.close(reset=reset)
        network.send(18, *(frames.ethernet(dst=UNKNOWN) for _ in range(20)))
        network.ports[34].set_carrier(False)
        for stream in streams:
            stream.wait_for_frames(100)
        controller.listen()
        started = time.monotonic()
        controller.wait_for_connection(2)
        measured("connected", time.monotonic() - started)
        features = controller.features()
        for stream in streams:
            stream.wait_for_frames()
    for stream in streams:
        stream.expect_no_loss()
    assert features.ports[34].state & of.LINK_DOWN
    assert sorted(features.ports) == bed.numbers
    assert controller.take() == [], "nothing of what happened meanwhile"
    assert {(str(flow.match), flow.priority) for flow in controller.flow_stats()} == stats
    after = rows(network.switches[2])
    assert after.keys() == before.keys()
    assert all(after[key].untouched(before[key]) for key in before)
    network.send(18, frames.ethernet(dst=UNKNOWN))
    assert of.unpack_packet_in(controller.expect(Type.PACKET_IN).body).in_port == 18


def test_timeouts_go_on_without_controller(make_bed):
    """Flows end on all switches and in the flow table, though no controller is told."""
    bed = make_bed(flows=False)
    controller = bed.controller
    controller.flow_mod(of.match(dl_type=0x88B5), of.output(17), idle_timeout=1, flags=1)
    controller.flow_mod(of.match(dl_type=0x88B6), of.output(17), hard_timeout=2, flags=1)
    controller.flow_mod(of.match(dl_type=0x88B7), of.output(17))
    controller.refuse()
    controller.connection.close()
    for switch in bed.network.switches.values():
        until(lambda switch=switch: sum(1 for flow in dump(switch) if flow.cookie) == 1, "expiry")
    controller.listen()
    controller.wait_for_connection(2)
    (left,) = controller.flow_stats()
    assert left.match == {"dl_type": 0x88B7}
    assert controller.take() == []


def listen_at(address, port):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(1)
    listener.settimeout(20)
    return listener


def accept_instead_of(bed):
    """Close the controller's connection, and return the socket of the next one."""
    controller = bed.controller
    controller.refuse()
    with bed.network.outer.call(listen_at, controller.address, controller.port) as listener:
        controller.connection.close()
        return listener.accept()[0]


def test_attempts_to_connect_come_less_and_less_often(make_bed):
    """The delays are one second, two, then --max_retry_delay. After a connection that worked, the
    delay is one second again.
    """
    bed = make_bed(options=["--max_retry_delay=2"], flows=False)
    controller = bed.controller
    attempts = []
    controller.refuse()
    with bed.network.outer.call(listen_at, controller.address, controller.port) as listener:
        attempts.append(time.monotonic())
        controller.connection.close()
        for _ in range(3):
            turned_away, _ = listener.accept()
            turned_away.close()
            attempts.append(time.monotonic())
    delays = [later - earlier for earlier, later in zip(attempts, attempts[1:])]
    assert delays == pytest.approx([1, 2, 2], abs=0.7)
    controller.listen()
    controller.wait_until_connected()
    count = len(controller.connections)
    started = time.monotonic()
    controller.connection.close()
    controller.wait_for_connection(count + 1)
    assert time.monotonic() - started < RECONNECT


class FarController:
    """A controller in a network namespace of its own, on a cable of its own."""

    def __init__(self, bed, name, port=0):
        self.bed, self.cable = bed, name
        self.namespace = Namespace()
        bed.network.outer.ip(
            f"link add {name} type veth peer name eth0 netns {self.namespace.pid}",
            f"address add 10.254.0.2/24 dev {name}",
            f"link set {name} up",
        )
        self.namespace.ip(f"address add {CONTROLLER_ADDRESS}/24 dev eth0", "link set eth0 up")
        self.controller = Controller(self.namespace, port, CONTROLLER_ADDRESS)

    def cut(self):
        self.bed.network.outer.ip(f"link set {self.cable} down")

    def mend(self):
        self.bed.network.outer.ip(f"link set {self.cable} up")

    def stop(self):
        self.controller.close()
        self.namespace.close()


def test_moves_and_is_cut_off(make_bed, measured):
    """First the controller's address moves to another machine. Then the cable to that machine is
    cut, and echo requests find out. A client of --listen that says nothing in that time is left
    alone.
    """
    options = ["--address=" + CONTROLLER_ADDRESS, "--port=6653", f"--listen={LISTEN}"]
    bed = make_bed(flows=False, ready=False, options=options)
    first = FarController(bed, "first", 6653)
    second = None
    try:
        bed.controller = first.controller
        bed.wait_until_ready()
        bed.install_flows()
        client = Connection.open(bed.network.outer, LISTEN)
        client.answer_echo = False
        with Stream(bed.network, 1, [17]) as stream:
            stream.wait_for_frames()
            first.cut()
            bed.network.outer.ip("address del 10.254.0.2/24 dev first")
            started = time.monotonic()
            second = FarController(bed, "second", 6653)
            second.controller.wait_for_connection(1, SILENCE + RECONNECT)
            measured("connected after the move", time.monotonic() - started)
            assert sorted(second.controller.features().ports) == bed.numbers
            assert len(second.controller.flow_stats()) == 21

            second.cut()
            started = time.monotonic()
            bed.aggregator.wait_for_log("no answer to an echo request", SILENCE + RECONNECT)
            measured("cut noticed", time.monotonic() - started)
            second.mend()
            started = time.monotonic()
            second.controller.wait_for_connection(2, RECONNECT + 5)
            measured("connected after the cut", time.monotonic() - started)
            assert len(second.controller.flow_stats()) == 21
            stream.wait_for_frames()
        stream.expect_no_loss()
        assert client.take() == [] and not client.closed
        client.close()
    finally:
        first.stop()
        if second is not None:
            second.stop()


def bitmap(*versions):
    word = sum(1 << version for version in versions)
    return struct.pack("!HHI", 1, 8, word)


HELLOS = {
    "1.0": of.message(Type.HELLO),
    "1.3": of.message(Type.HELLO, version=4),
    "1.3 with a bitmap of 1.0 and 1.3": of.message(Type.HELLO, bitmap(1, 4), version=4),
    "1.5 with an element of another type": of.message(
        Type.HELLO, struct.pack("!HHI", 7, 8, 0), version=6
    ),
    "255": of.message(Type.HELLO, version=255),
    "1.0 with garbage behind it": of.message(Type.HELLO, b"\xff" * 13),
}
BAD_HELLOS = {
    "1.3 only": of.message(Type.HELLO, bitmap(4), version=4),
    "version 0": of.message(Type.HELLO, version=0),
    "a features request": of.message(Type.FEATURES_REQUEST),
    "an error": of.message(Type.ERROR, b"\0\0\0\0no"),
    "length 7": b"\x01\0\0\7\0\0\0\0",
    "length 0": b"\x01\0\0\0\0\0\0\0",
    "HTTP": b"GET / HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n".ljust(40000, b"x"),
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(40000),
    "zeroes": bytes(1000),
}


def test_every_hello(make_bed):
    """A hello of any version that includes 1.0 leads to a connection of version 1.0. After another
    hello the connection is closed, with an error if the hello was a valid one.
    """
    bed = make_bed(options=[f"--listen={LISTEN}"], flows=False)
    for name, hello in HELLOS.items():
        connection = Connection.open(bed.network.outer, LISTEN, hello=hello)
        assert connection.wait_for_hello().version == 1
        assert len(connection.features().ports) == 6, name
        assert connection.take() == [], name
        connection.close()
    for name, hello in BAD_HELLOS.items():
        connection = Connection.open(bed.network.outer, LISTEN, hello=hello)
        connection.wait_closed()
        errors = [of.unpack_error(message.body) for message in connection.take(Type.ERROR)]
        wanted = [(0, 0)] if name == "1.3 only" else []  # HELLO_FAILED, INCOMPATIBLE
        assert [(error.type, error.code) for error in errors] == wanted, name
    # The same holds for the upstream controller. After a refused hello the next attempt, a second
    # later, works.
    controller = bed.controller
    for hello, refused in ((HELLOS["1.3"], False), (BAD_HELLOS["HTTP"], True)):
        controller.hello = hello
        count = len(controller.connections)
        controller.connection.close()
        connection = controller.wait_for_connection(count + 1)
        controller.hello = of.message(Type.HELLO)
        if refused:
            connection.wait_closed()
            controller.wait_for_connection(count + 2)
        assert len(controller.features().ports) == 6
    assert "ERROR:" not in bed.aggregator.log()


def test_reads_nothing(make_bed):
    """The controller keeps sending requests and reads no answer. The bytes that wait for it are
    bounded, and frames are forwarded as before.
    """
    bed = make_bed(flows=False)
    controller, network = bed.controller, bed.network
    controller.send(
        *(
            of.flow_mod(of.match(dl_dst=frames.host_mac(number)), of.output(2))
            for number in range(1000)
        )
    )
    controller.flow_stats()
    before = resident_memory(bed.aggregator.pid)
    held = bed.held_when_quiet()
    peer = accept_instead_of(bed)
    with peer, Stream(network, 1, [2]) as stream:
        peer.sendall(of.message(Type.HELLO))
        ask = of.stats_request(of.Stats.FLOW, of.flow_stats_body()) * 10  # 96 kB each in answers
        highest = 0
        closed = False
        deadline = time.monotonic() + 8
        peer.settimeout(0.02)
        while not closed and time.monotonic() < deadline:
            highest = max(highest, resident_memory(bed.aggregator.pid))
            try:
                peer.send(ask)
            except TimeoutError:
                pass
            except OSError:
                closed = True
        stream.wait_for_frames()
    stream.expect_no_loss()
    assert highest - before < 150 * MEGABYTE
    controller.listen()
    controller.wait_for_connection(2)
    assert controller.aggregate().flow_count == 1000
    bed.expect_held(held)


def test_goes_while_it_waits_for_answers(make_bed):
    """Answers to a connection that has ended are dropped, and do not reach the next connection."""
    bed = make_bed()
    controller = bed.controller
    questions = [
        of.stats_request(of.Stats.FLOW, of.flow_stats_body()),
        of.stats_request(of.Stats.PORT, struct.pack("!H6x", of.Port.NONE)),
        of.stats_request(of.Stats.TABLE),
        of.message(Type.BARRIER_REQUEST),
    ]

    def ask():
        controller.send(
            *questions,
            *(of.flow_mod(of.match(dl_dst=frames.host_mac(n)), of.output(n)) for n in (1, 2)),
            of.flow_mod(of.match(dl_dst=frames.host_mac(1)), command=of.Command.DELETE),
            of.packet_out(frames.udp(), of.output(17)),
            *questions,
        )

    ask()
    controller.barrier()
    bed.install_flows()
    held = bed.held_when_quiet()
    for count in range(2, 5):
        controller.take()
        ask()
        controller.send(b"\1\x0e\0\x50")  # the beginning of a flow-mod
        controller.connection.close(reset=bool(count % 2))
        controller.wait_for_connection(count)
        controller.barrier()
        assert controller.take() == []
    bed.install_flows()
    bed.wait_until_right()
    bed.expect_held(held)
