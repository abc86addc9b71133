"""Bad bytes from controllers: an error or a closed connection, and nobody else notices."""

import contextlib
import select
import socket
import struct
import time

import pytest
from differential.both import error_name
from fuzz.noise import NUMBERS, Noise
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lab import openflow10 as of
from lab.faultbed import resident_memory
from lab.frames import mac
from lab.openflow10 import Type

BATCH = 250
XID = 0x70000000
MEGABYTE = 1 << 20
LISTEN = 6654


def errors_of(switch, messages):
    """Send messages (with xids from XID) in one piece; return the names of the errors, by number of
    the message.
    """
    controller = switch.controller
    controller.send(*(of.with_xid(raw, XID + number) for number, raw in enumerate(messages)))
    controller.barrier(60)
    errors = {}
    for message in controller.take():
        if message.type == Type.ERROR and XID <= message.xid < XID + len(messages):
            name = error_name(of.unpack_error(message.body))
            errors.setdefault(message.xid - XID, []).append(name)
    return errors


def no_others_noticed(bed, connections=1):
    """Fail if something failed, a switch was lost, or the controller connected more often than
    `connections`.
    """
    log = bed.aggregator.log()
    assert bed.aggregator.alive
    assert "lost" not in log and "Traceback" not in log and "ERROR:" not in log
    assert len(bed.controller.connections) == connections
    assert not bed.controller.closed


def empty(switch):
    """Delete all flows, reset the configuration, and drop all unread messages."""
    switch.controller.do(of.flow_mod(command=of.Command.DELETE))
    switch.controller.do(of.set_config())
    switch.controller.take()


def means_the_same(message):
    """Whether the plain bridge and the big switch give a message the same meaning: it names no
    LOCAL, no NORMAL and no vendor.
    """
    return not any(
        word in message
        for word in (b"\xff\xfe", b"\xff\xfa", b"\x00\x00\x23\x20", b"\x4f\x4e\x46\x00")
    )


def with_address(message, addresses):
    """Replace the hw_addr of one switch's port in a port-mod by the other switch's."""
    for number, (ours, theirs) in addresses.items():
        right = number.to_bytes(2, "big") + ours
        if message[1] == Type.PORT_MOD and message[8:16] == right:
            return message[:10] + theirs + message[16:]
    return message


def compare(plain, big, messages, addresses):
    """Fail unless both switches refuse the same messages for the same reasons.

    addresses: for each port its addresses on `big` and on `plain`.
    """
    expected = errors_of(plain, [with_address(message, addresses) for message in messages])
    got = errors_of(big, messages)
    different = [
        number
        for number, message in enumerate(messages)
        if expected.get(number) != got.get(number) and means_the_same(message)
    ]
    if different and not all(map(means_the_same, messages)):
        # Flows that only one of the switches has may overlap with others.
        different = [
            number
            for number in different
            if ["FLOW_MOD_FAILED/OVERLAP"] not in (expected.get(number), got.get(number))
        ]
    assert not different, "\n".join(
        f"{messages[number].hex()}: {expected.get(number)}, got {got.get(number)}"
        for number in different[:10]
    )


def test_any_messages(bed, plain_switch, seed, volume):
    """The big switch refuses what Open vSwitch refuses, for the same reason, and does the rest.

    After each batch the real switches must have exactly the flows of the big switch.
    """
    noise = Noise(seed)
    noise.ports = {
        number: port
        for number, port in bed.controller.features().ports.items()
        if number in plain_switch.numbers
    }
    plain_ports = plain_switch.controller.features().ports
    addresses = {
        number: (mac(port.hw_addr), mac(plain_ports[number].hw_addr))
        for number, port in noise.ports.items()
    }
    resident = []
    for batch in range(volume // BATCH):
        messages = [noise.from_controller() for _ in range(BATCH)]
        compare(plain_switch, bed, messages, addresses)
        bed.wait_until_right(10)
        empty(bed)
        empty(plain_switch)
        if batch >= volume // BATCH // 4:
            resident.append(resident_memory(bed.aggregator.pid))
    assert max(resident) - resident[0] < 10 * MEGABYTE
    no_others_noticed(bed)


u8, u16, u32 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32))
ports = st.sampled_from(NUMBERS) | u16
raw_actions = st.lists(
    st.one_of(
        st.builds(of.output, ports, u16),
        st.builds(of.enqueue, ports, u32),
        st.builds(of.action, st.integers(0, 12), st.sampled_from((4, 12, 0, 8)).map(bytes)),
        st.builds(of.action, u16, st.binary(max_size=20)),
        st.binary(max_size=24),
    ),
    max_size=4,
).map(b"".join)
structured = st.one_of(
    st.builds(
        of.flow_mod,
        st.just(of.match()) | st.binary(min_size=40, max_size=40),
        raw_actions,
        st.integers(0, 6),
        u16,
        u32,
        st.sampled_from((0, 60, 0xFFFF)),
        st.sampled_from((0, 60, 0xFFFF)),
        st.just(of.NO_BUFFER) | u32,
        ports,
        st.integers(0, 9),
    ),
    st.builds(of.packet_out, st.binary(max_size=80), raw_actions, ports, st.just(of.NO_BUFFER)),
    st.builds(of.stats_request, st.integers(0, 14) | u16, st.binary(max_size=60), u16),
    st.builds(of.message, st.sampled_from(Type) | u8, st.binary(max_size=100)),
)
framed = st.builds(
    lambda message, size: message[:2] + struct.pack("!H", len(message[:size])) + message[4:size],
    structured,
    st.none() | st.integers(8, 120),
)


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(messages=st.lists(framed, min_size=1, max_size=20))
def test_any_few_messages(bed, plain_switch, messages):
    """The same with hypothesis, which finds the shortest example."""
    empty(plain_switch)
    empty(bed)
    compare(plain_switch, bed, messages, {})


def hung_up_on(peers, timeout=10):
    """Wait until the other side has closed all of these sockets; return the bytes that came
    before.
    """
    said = dict.fromkeys(peers, b"")
    deadline = time.monotonic() + timeout
    waiting = set(peers)
    while waiting:
        readable, _, _ = select.select(list(waiting), [], [], deadline - time.monotonic())
        assert readable, f"{len(waiting)} connections are still open after {timeout:g} s"
        for peer in readable:
            try:
                data = peer.recv(1 << 16)
            except ConnectionError:
                data = b""
            said[peer] += data
            if not data:
                waiting.discard(peer)
                peer.close()
    return list(said.values())


def test_any_bytes(bed, seed):
    """A length below 8 or beyond the end, a cut message, or no OpenFlow at all ends that
    connection.
    """
    noise = Noise(seed)
    hello = of.message(Type.HELLO)
    resident = []
    for _ in range(20):
        peers = []
        for _ in range(50):
            peer = bed.network.outer.call(socket.create_connection, ("127.0.0.1", LISTEN), 5)
            peers.append(peer)
            first = noise.choice((hello, hello, hello, hello, b""))
            with contextlib.suppress(ConnectionError):  # the far end may be closed
                peer.sendall(first + noise.badly_framed())
                peer.shutdown(socket.SHUT_WR)
        said = hung_up_on(peers)
        assert sum(1 for each in said if each.startswith(hello[:4])) > 40, "it is polite"
        started = time.monotonic()
        bed.controller.barrier()
        assert time.monotonic() - started < 2
        resident.append(resident_memory(bed.aggregator.pid))
        bed.controller.do(of.flow_mod(command=of.Command.DELETE))
        bed.controller.take()
    assert max(resident[5:]) - resident[5] < 10 * MEGABYTE
    bed.wait_until_right(10)
    no_others_noticed(bed)


@pytest.mark.parametrize("length", range(8))
def test_a_length_below_eight(bed, length):
    """The stream cannot be read beyond such a length. Earlier messages are answered, then the
    connection is closed.
    """
    hello = of.message(Type.HELLO)
    peer = bed.network.outer.call(socket.create_connection, ("127.0.0.1", LISTEN), 5)
    bad = struct.pack("!BBHI", 1, Type.ECHO_REQUEST, length, 2)
    peer.sendall(hello + of.message(Type.ECHO_REQUEST, b"x", 1) + bad + hello * 1000)
    (said,) = hung_up_on([peer])
    assert said[8:] == of.message(Type.ECHO_REPLY, b"x", 1)
    no_others_noticed(bed)


def test_the_upstream_controller_itself(make_bed):
    """The aggregator closes the connection, and opens the next one after a second. Flows stay."""
    bed = make_bed(2, options=["--max_retry_delay=1"])
    bed.install_flows()
    endings = (b"\1\2\0\7\0\0\0\0", bytes(64), b"\1\x0e\0\x48" + bytes(30))
    for count, ending in enumerate(endings, 2):
        connection = bed.controller.connection
        connection.send(of.stats_request(of.Stats.FLOW, of.flow_stats_body()) + ending)
        if count == 4:
            connection.close()  # in the middle of a message
        connection.wait_closed()
        bed.controller.wait_for_connection(count)
        assert len(bed.controller.flow_stats()) > 10
    bed.wait_until_right()
    no_others_noticed(bed, len(endings) + 1)
