"""Bad bytes from switches: they cost at most that switch, and nobody else notices."""

import contextlib
import socket
import struct
import time

import pytest
from fuzz.noise import EDGES, Noise
from lab import frames
from lab import openflow10 as of
from lab.fakeswitch import NXST_FLOW, FakeSwitch, phy_port
from lab.faultbed import FaultBed, resident_memory, until
from lab.network import CONTROL_ADDRESS
from lab.openflow10 import Port, Stats, Type
from lab.relay import NORTHWARD, SOUTHWARD
from lab.traffic import Stream

OPENFLOW_PORT = 6633
SWITCH_TIMEOUT = 1.0
BATCH = 250
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def bed(root):
    """Two real switches. The bad switch is the third."""
    bed = FaultBed(2, options=[f"--switch_timeout={SWITCH_TIMEOUT}"], level="INFO")
    bed.install_flows()
    yield bed
    bed.stop()


@pytest.fixture
def others(bed):
    """At the end no frame between the real switches was lost, and they have exactly their flows."""
    with Stream(bed.network, 1, [17], pace=0.01) as stream:
        stream.wait_for_frames()
        yield
        stream.wait_for_frames()
    stream.expect_no_loss()
    log = bed.aggregator.log()
    assert bed.aggregator.alive
    assert "switch 1: lost" not in log and "switch 2: lost" not in log
    assert "Traceback" not in log
    assert bed.controller.connections[0] is bed.controller.connection, "never closed"
    started = time.monotonic()
    bed.controller.barrier(SWITCH_TIMEOUT * 2 + 1)
    assert len(bed.controller.flow_stats()) > 10
    assert time.monotonic() - started < SWITCH_TIMEOUT * 4, "nobody waits for ever"
    bed.controller.take()
    bed.wait_until_right(5, dpids=[1, 2])


def connect(bed):
    return bed.network.outer.call(socket.create_connection, (CONTROL_ADDRESS, OPENFLOW_PORT), 5)


def bad_switch(bed, **more):
    return FakeSwitch(bed.network.outer, CONTROL_ADDRESS, OPENFLOW_PORT, dpid=3, **more)


def ready(bed, **more):
    """Return a third switch that has been brought up to date."""
    switch = bad_switch(bed, **more)
    bed.wait_for_link([33, 34], down=False)
    return switch


def test_any_bytes_before_the_handshake(bed, others, seed):
    """Whatever bytes a switch sends first; also none at all."""
    noise = Noise(seed)
    hello = of.message(Type.HELLO)
    for _ in range(20):
        peers = []
        for _ in range(25):
            peer = connect(bed)
            peers.append(peer)
            said = noise.choice(
                (
                    noise.badly_framed(),
                    hello + noise.badly_framed(),
                    hello + noise.from_switch((0,)) + noise.badly_framed(),
                    hello + features(noise),
                    features(noise),
                    b"",
                )
            )
            with contextlib.suppress(ConnectionError):
                peer.sendall(said)
                peer.shutdown(socket.SHUT_WR)
        for peer in peers:
            with contextlib.suppress(ConnectionError):
                while peer.recv(1 << 16):
                    pass
            peer.close()
        bed.controller.barrier()


def features(noise):
    """Return a FEATURES_REPLY with some ports. It may be unasked for."""
    ports = [
        phy_port(noise.choice((1, 2, 3, 3, 17, 0, 0xFF00, 0xFFFE)), noise.choice(("tun1", "x")))
        for _ in range(noise.randrange(5))
    ]
    dpid = noise.choice((0, 1, 2, 3, 4, 5000, (1 << 64) - 1))
    body = struct.pack("!QIB3xII", dpid, 0, 254, 0xC7, 0xFFF) + b"".join(ports)
    message = of.message(Type.FEATURES_REPLY, body)
    return noise.framed(noise.damage(message) if noise.random() < 0.5 else message)


def test_connections_that_say_nothing_more(bed, others):
    """Connections that stay silent from the start, after the hello, or in the middle of a message
    are closed within ten seconds.

    The real switches do not wait for that.
    """
    beginnings = (
        b"",
        of.message(Type.HELLO),
        of.message(Type.HELLO)[:5],
        of.message(Type.HELLO) + b"\1\6\xff\xff" + bytes(1000),
    )
    peers = [connect(bed) for _ in range(20)]
    for number, peer in enumerate(peers):
        peer.sendall(beginnings[number % len(beginnings)])
    bed.controller.barrier()
    for peer in peers:
        peer.settimeout(15)
        with contextlib.suppress(ConnectionError):
            while peer.recv(1 << 16):
                pass
        peer.close()


def may_cost_the_connection(message):
    """Whether the message has another version, names another datapath, or reports a miss rule as
    gone.
    """
    version, kind = message[:2]
    if kind == Type.FLOW_REMOVED and not any(message[48:58]):  # its cookie and priority
        return True
    return kind == Type.FEATURES_REPLY or (version != 1 and kind != Type.HELLO)


def test_any_messages_of_a_switch(bed, others, seed, volume):
    """A switch that is up sends anything. It stays connected, or its connection is closed and it
    may come back.

    Every other batch has no message that may cost the connection. Then it stays connected.
    """
    noise = Noise(seed)
    resident = []
    switch = ready(bed)
    for batch in range(volume // BATCH):
        asked = [message.xid for message in switch.take()] or [0]
        gentle = batch % 2 == 0
        # A gentle batch answers no real request, so it has no wrong answers.
        messages = [noise.from_switch([0] if gentle else asked[-20:]) for _ in range(BATCH)]
        if gentle:
            messages = [each for each in messages if not may_cost_the_connection(each)]
            assert len(messages) > BATCH / 2
        with contextlib.suppress(OSError):
            switch.send(*messages)
            switch.send(of.message(Type.ECHO_REQUEST, b"still there?", 0x5EED))
        with contextlib.suppress(AssertionError):  # the connection was closed
            switch.expect(Type.ECHO_REPLY, where=lambda reply: reply.xid == 0x5EED)
        if switch.closed:
            assert not gentle, "not for every little thing"
            switch.close()
            bed.controller.take()
            switch = ready(bed)
        bed.controller.take()
        if batch > volume // BATCH // 4:
            resident.append(resident_memory(bed.aggregator.pid))
    switch.close()
    bed.controller.barrier()
    assert max(resident) - resident[0] < 10 * MEGABYTE


def flow_entry(length, match_length=0, cookie=0, size=48):
    """Return one nx_flow_stats with these length fields, of this size."""
    entry = struct.pack(
        "!HBxIIHHHHHHQQQ", length, 2, 0, 0, 1, 0, 0, match_length, 0, 0, cookie, 0, 0
    )
    return entry.ljust(size, b"\0")[:size]


def reply(kind, body, flags=0, xid=0):
    return of.message(Type.STATS_REPLY, struct.pack("!HH", kind, flags) + body, xid)


LIES = {
    "an entry of length 0": NXST_FLOW + flow_entry(0),
    "an entry of length 1": NXST_FLOW + flow_entry(1),
    "an entry of length 47": NXST_FLOW + flow_entry(47),
    "an entry of length 65535": NXST_FLOW + flow_entry(0xFFFF),
    "a match of 65535 bytes": NXST_FLOW + flow_entry(48, 0xFFFF),
    "a match longer than the entry": NXST_FLOW + flow_entry(48, 40) + flow_entry(48),
    "half an entry": NXST_FLOW + flow_entry(48)[:20],
    "an entry and a half": NXST_FLOW + flow_entry(48) + flow_entry(48)[:30],
    "no subtype": NXST_FLOW[:4],
    "nothing": b"",
    "another vendor": struct.pack("!II4x", 0x1234, 0) + flow_entry(48),
    "another subtype": struct.pack("!II4x", of.NX_VENDOR, 1) + flow_entry(48),
    "the same service rule a hundred times": NXST_FLOW + flow_entry(48) * 100,
}


def lying(lie):
    """Return a function that answers every request for flows with this lie."""

    def answer(request):
        if request.type == Type.STATS_REQUEST and request.body[:2] == b"\xff\xff":
            return reply(Stats.VENDOR, lie, xid=request.xid)
        return None

    return answer


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_lies_about_its_flows_when_it_comes(bed, others, lie):
    """The switch lies about its flows when it connects: it may be refused, or be treated as
    empty.
    """
    switch = bad_switch(bed, lie=lying(lie))
    until(lambda: switch.closed or any(m.type == Type.STATS_REQUEST for m in switch.inbox), "dump")
    bed.controller.barrier(SWITCH_TIMEOUT * 2 + 1)
    switch.close()


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_lies_about_its_flows_later(bed, others, lie):
    """Counters that make no sense are left out. The controller gets its answer all the same."""
    switch = ready(bed)
    switch.lie = lying(lie)
    started = time.monotonic()
    assert len(bed.controller.flow_stats()) > 10
    assert bed.controller.aggregate().flow_count > 10
    assert len(bed.controller.table_stats()) == 254
    bed.controller.barrier(SWITCH_TIMEOUT * 2 + 1)
    assert time.monotonic() - started < SWITCH_TIMEOUT * 8
    switch.close()
    bed.wait_for_link([33, 34], down=True)


def test_lies_in_every_answer(bed, others, seed):
    """Answers are damaged, of another type, or errors, while the controller sends requests of all
    kinds.
    """
    noise = Noise(seed)
    controller = bed.controller
    lies = 0

    def lie(request):
        nonlocal lies
        truth = switch.truth(request)
        if truth is None or noise.random() < 0.5:
            return None
        lies += 1
        if request.body[:2] == b"\xff\xff":
            return reply(Stats.VENDOR, noise.choice(list(LIES.values())), xid=request.xid)
        if request.type == Type.QUEUE_GET_CONFIG_REQUEST:
            queue = struct.pack("!IHxx", 1, noise.choice((8, 0, 7, 0xFFFF)))
            return of.message(Type.QUEUE_GET_CONFIG_REPLY, bytes(8) + queue, request.xid)
        if noise.random() < 0.2:
            error = struct.pack("!HH", noise.randrange(6), noise.randrange(9))
            return of.message(
                Type.ERROR, error + request.pack()[: noise.randrange(80)], request.xid
            )
        if noise.random() < 0.1:
            truth = noise.simple()
        return noise.framed(noise.damage(truth), request.xid)

    deadline = time.monotonic() + 120
    while lies < 60:
        assert time.monotonic() < deadline, f"only {lies} answers were lies"
        switch = bad_switch(bed)
        switch.lie = lie
        for _ in range(5):
            if switch.closed:  # closed because of a lie
                break
            controller.send(
                of.stats_request(Stats.FLOW, of.flow_stats_body(), xid=1),
                of.stats_request(Stats.PORT, struct.pack("!H6x", of.Port.NONE), xid=2),
                of.stats_request(Stats.QUEUE, struct.pack("!HxxI", of.Port.ALL, 0xFFFFFFFF), xid=3),
                of.stats_request(Stats.TABLE, xid=4),
                of.message(Type.QUEUE_GET_CONFIG_REQUEST, struct.pack("!Hxx", 33), 5),
                of.flow_mod(of.match(dl_type=0x1234), of.output(33)),
                of.flow_mod(of.match(dl_type=0x1234), command=of.Command.DELETE),
            )
            controller.barrier(SWITCH_TIMEOUT * 10)
            answers = {m.xid for m in controller.take(Type.STATS_REPLY, Type.ERROR)}
            assert {1, 2, 3, 4} <= answers | {0}, answers
        switch.close()
    controller.barrier(SWITCH_TIMEOUT * 2 + 1)


def test_ports_without_end(bed, others):
    """A switch has thousands of ports, with numbers up to the last. Ports beyond the formula are
    left out.
    """
    ports = [phy_port(number, f"p{number}") for number in range(1, 1300)]
    switch = bad_switch(bed, ports=ports)
    bed.wait_for_link(range(33, 49), down=False)
    for number in EDGES:
        name = "tun3" if number > 16 else "renamed"
        switch.send(of.message(Type.PORT_STATUS, bytes(8) + phy_port(number & 0xFFFF, name)))
    bed.controller.barrier(SWITCH_TIMEOUT * 2 + 1)
    numbers = sorted(bed.controller.features().ports)
    assert [number for number in numbers if number > 32] == list(range(33, 49))
    switch.close()
    bed.wait_for_link(range(33, 49), down=True)
    bed.controller.take()


def test_foreign_probes_change_nothing(bed, others):
    """A packet-in claims to be a probe, with the tunnel IP of another switch."""
    switch = ready(bed)
    address = int.from_bytes(bytes((172, 16, 0, 2)), "big")
    fields = struct.pack("!IH", 0x00000002, 3) + struct.pack(
        "!II", (1 << 16 | 32 << 9 | 4), address
    )
    for data in (frames.lldp(), bytes(60), b"", frames.udp(payload=bytes(200))):
        packet_in = struct.pack("!IHBBQH6x", of.NO_BUFFER, 60, 1, 1, 0, len(fields))
        body = struct.pack("!II", of.NX_VENDOR, 17) + packet_in + fields
        switch.send(of.message(Type.VENDOR, body + bytes(-len(fields) % 8) + bytes(2) + data))
    switch.request(of.message(Type.ECHO_REQUEST))
    assert "switch 3: tunnel IP" not in bed.aggregator.log()
    switch.close()
    bed.wait_for_link([33, 34], down=True)


@pytest.mark.parametrize("direction", [NORTHWARD, SOUTHWARD])
def test_a_line_that_changes_bytes(root, seed, direction):
    """A tenth of a real switch's messages is damaged. Then the line is repaired."""
    noise = Noise(seed)
    bed = FaultBed(3, relays=[3], level="INFO", options=[f"--switch_timeout={SWITCH_TIMEOUT}"])
    try:
        bed.install_flows()
        relay = bed.relays[3]
        damaged = 0

        def mangle(way, message):
            nonlocal damaged
            if way == direction and noise.random() < 0.1:
                damaged += 1
                return noise.framed(noise.damage(message), of.xid_of(message))
            return message

        with Stream(bed.network, 1, [17]) as stream:
            stream.wait_for_frames()
            relay.mangle = mangle
            deadline = time.monotonic() + 60
            number = 0
            while damaged < 40:
                assert time.monotonic() < deadline, f"only {damaged} messages were damaged"
                number += 1
                match = of.match(dl_src=frames.host_mac(number % 100))
                bed.controller.send(
                    of.flow_mod(match, [of.output(33), of.output(Port.FLOOD)]),
                    of.packet_out(frames.udp(), of.output(33)),
                    of.stats_request(Stats.FLOW, of.flow_stats_body(match)),
                )
                bed.controller.barrier(SWITCH_TIMEOUT * 4)
                bed.controller.take()
            relay.mangle = None
            relay.drop()
            bed.wait_until_right(5)
            stream.wait_for_frames()
        stream.expect_no_loss()
        assert "Traceback" not in bed.aggregator.log()
        bed.controller.barrier()
        with Stream(bed.network, 1, [34]) as into:
            into.wait_for_frames()
    finally:
        bed.stop()
