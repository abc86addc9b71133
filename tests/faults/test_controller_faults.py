"""The upstream controller dies, hangs, moves or sends garbage: the network goes on without it."""

import re
import socket
import struct
import sys
import threading
import time
from contextlib import ExitStack, suppress

import pytest
from lab import frames
from lab import openflow10 as of
from lab.aggregator import Aggregator
from lab.controller import Connection, Controller
from lab.faultbed import dump, resident_memory, until
from lab.namespaces import Namespace
from lab.network import PlainBridge
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


def slow_client(bed, port):
    """Connect a client that gets packet-ins, and has little room for what it does not read."""

    def connect():
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(5)
        sock.connect(("127.0.0.1", port))
        return sock

    sock = bed.network.outer.call(connect)
    sock.sendall(of.message(Type.HELLO) + of.set_config(miss_send_len=0xFFFF))
    return sock


def test_packet_ins_for_a_controller_that_reads_too_slowly_are_dropped(make_bed):
    """As by a bridge. It stays connected, and reads the answers to its requests behind some packet-
    ins. A controller that reads gets all packet-ins.
    """
    bed = make_bed(1, options=[f"--listen={LISTEN}"], flows=False)
    controller, count = bed.controller, 250
    frame = frames.ethernet(payload=bytes(60000))
    to_controllers = of.packet_out(frame, of.output(of.Port.CONTROLLER, 0xFFFF), 1)
    before = resident_memory(bed.aggregator.pid)
    with slow_client(bed, LISTEN) as slow:
        slow.sendall(of.message(Type.BARRIER_REQUEST, xid=1))
        stream = slow.makefile("rb")
        while of.read(stream).type != Type.BARRIER_REPLY:
            pass
        for _ in range(count):  # one at a time: a switch drops them, too, if 100 wait
            controller.send(to_controllers)
            controller.expect(Type.PACKET_IN)
        assert resident_memory(bed.aggregator.pid) - before < 16 * MEGABYTE
        slow.sendall(of.message(Type.BARRIER_REQUEST, xid=2))
        got = []
        while Type.BARRIER_REPLY not in got:
            got.append(of.read(stream).type)
        assert 100 <= got.count(Type.PACKET_IN) < count
    assert bed.aggregator.log().count("packet-ins for it are dropped") == 1


def greets_and_hangs_up(peer):
    peer.sendall(of.message(Type.HELLO))
    peer.recv(8)


def greets_and_resets(peer):
    greets_and_hangs_up(peer)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def sends_an_error(peer):
    peer.sendall(of.message(Type.HELLO) + of.message(Type.ERROR, struct.pack("!HH", 1, 1)))
    peer.recv(8)


def greets_with_another_version(peer):
    peer.sendall(of.message(Type.HELLO, bitmap(4), version=4))
    peer.recv(1000)


def says_nothing(peer):
    peer.recv(8)
    peer.recv(8)  # the end


def speaks_http(peer):
    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    says_nothing(peer)


def hangs_up(peer):
    pass


def lasts_longer_than_the_first_delay(peer):
    greets_and_hangs_up(peer)
    time.sleep(1.5)


USELESS = (
    None,  # connections are refused
    greets_and_hangs_up,
    greets_and_resets,
    sends_an_error,
    greets_with_another_version,
    says_nothing,
    speaks_http,
    hangs_up,
    lasts_longer_than_the_first_delay,
)


class UselessController:
    """A controller that does the same with each connection, and then closes it.

    behave: what it does with the socket; None for one that refuses connections.
    """

    def __init__(self, namespace, behave):
        self.attempts = []
        self._behave = behave
        self._listener = namespace.call(socket.socket)
        self._listener.bind(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        if behave is not None:
            self._listener.listen(16)
            threading.Thread(target=self._accept, daemon=True).start()

    @property
    def delays(self):
        return [later - earlier for earlier, later in zip(self.attempts, self.attempts[1:])]

    def _accept(self):
        with suppress(OSError):  # close() ends it
            while True:
                peer, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        peer.settimeout(30)
        with peer, suppress(OSError):
            self._behave(peer)

    def close(self):
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def packets_of_loopback():
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    sniffer.bind(("lo", 0))
    return sniffer


def note_attempts(sniffer, controllers, enough):
    """Note when a TCP connection to one of the controllers is tried, until it is enough."""
    by_port = {each.port: each for each in controllers}
    deadline = time.monotonic() + 30
    while not enough():
        sniffer.settimeout(deadline - time.monotonic())
        packet, where = sniffer.recvfrom(65536)
        syn = packet[9] == socket.IPPROTO_TCP and packet[33] & 0x12 == 0x02
        if syn and where[2] != socket.PACKET_OUTGOING:
            called = by_port.get(int.from_bytes(packet[22:24], "big"))
            if called:
                called.attempts.append(time.monotonic())


def test_attempts_to_connect_come_as_a_bridge_s(root, tmp_path):
    """The delays are 1, 2, 4, ... seconds. They begin anew only after a connection that lasted
    longer than the delay before it: to greet and hang up does not help.
    """
    with PlainBridge() as bridge, ExitStack() as stack:
        sides = []
        for _ in range(2):
            side = [UselessController(bridge.namespace, behave) for behave in USELESS]
            for each in side:
                stack.callback(each.close)
            sides.append(side)
        aggregator = Aggregator(
            bridge.namespace,
            str(tmp_path / "log"),
            [
                "--ips=172.16.0.1",
                "--max_retry_delay=8",  # Open vSwitch's
                "--controllers=" + ",".join(f"127.0.0.1:{each.port}" for each in sides[1]),
            ],
        )
        aggregator.start()
        stack.callback(aggregator.stop)
        sniffer = stack.enter_context(bridge.namespace.call(packets_of_loopback))
        targets = [f"tcp:127.0.0.1:{each.port}" for each in sides[0]]
        bridge.ovs.vsctl("set-controller", bridge.name, *targets)

        def enough():
            return all(len(each.attempts) >= 3 for side in sides for each in side) and all(
                len(each.attempts) >= 4
                for side in sides
                for each in side
                if each is not side[USELESS.index(says_nothing)]
                and each is not side[USELESS.index(speaks_http)]
            )

        note_attempts(sniffer, [*sides[0], *sides[1]], enough)
        for behave, plain, ours in zip(USELESS, *sides):
            same = min(len(plain.delays), len(ours.delays))
            # Open vSwitch may notice the end of a connection half a second late.
            assert ours.delays[:same] == pytest.approx(plain.delays[:same], abs=0.95), behave


@pytest.fixture
def names(tmp_path):
    """Return a file of host names, and an interpreter whose programs find names there only."""
    hosts, services = tmp_path / "hosts", tmp_path / "nsswitch.conf"
    hosts.write_text("")
    services.write_text("hosts: files\n")
    python = tmp_path / "python"
    mounts = f"mount --bind {hosts} /etc/hosts && mount --bind {services} /etc/nsswitch.conf"
    command = f'exec unshare --mount sh -c \'{mounts} && exec "$@"\' sh {sys.executable} "$@"'
    python.write_text(f"#!/bin/sh\n{command}\n")
    python.chmod(0o755)
    return hosts, str(python)


def test_a_name_that_does_not_resolve_is_called_that(root, tmp_path, names):
    """The name is looked up for each attempt. Each problem is told once."""
    hosts, python = names
    with Namespace() as namespace, Controller(namespace) as controller:
        controller.refuse()
        options = [
            "--ips=172.16.0.1",
            "--address=controller.example",
            f"--port={controller.port}",
            "--max_retry_delay=0.2",
        ]
        aggregator = Aggregator(namespace, str(tmp_path / "log"), options, python=python)
        aggregator.start()
        try:
            unknown = "the name controller.example cannot be resolved: Name or service not known"
            aggregator.wait_for_log(re.escape(unknown))
            hosts.write_text("127.0.0.1 controller.example\n")
            aggregator.wait_for_log("Connection refused")
            controller.listen()
            controller.wait_until_connected()
            assert aggregator.log().count("cannot connect") == 2
        finally:
            aggregator.stop()


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
    bed = make_bed(options=[f"--listen={LISTEN}", "--max_retry_delay=1"], flows=False)
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
        deadline = time.monotonic() + 2
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
    assert highest - before < 20 * MEGABYTE
    controller.listen()
    controller.wait_for_connection(2)
    assert controller.aggregate().flow_count == 1000
    bed.expect_held(held)


def test_goes_while_it_waits_for_answers(make_bed):
    """Answers to a connection that has ended are dropped, and do not reach the next connection."""
    bed = make_bed(options=["--max_retry_delay=1"])
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
