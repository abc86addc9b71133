"""The log: one line for each event that matters, and none for events that come by the thousand."""

import re
import socket
import struct

import pytest
from lab import frames
from lab import openflow10 as of
from lab.bigswitch import OPENFLOW_PORT, BigSwitch
from lab.controller import Connection
from lab.faultbed import until
from lab.network import CONTROL_ADDRESS
from lab.openflow10 import Port, Type

from .ofctl import PORT

TARGET = f"tcp:{CONTROL_ADDRESS}:{OPENFLOW_PORT}"
MANY = 1000
SET_IP_OF_ANYTHING = of.vendor_action(struct.pack("!HHIQ", 7, 31, 0x00001004, 0x0A000001))
"""NXAST_REG_LOAD of NXM_OF_IP_DST, which a switch refuses unless the flow matches IP."""


@pytest.fixture(scope="module")
def _bed(root):
    bed = BigSwitch(level="INFO", options=[f"--listen={PORT}", "--max_retry_delay=1"])
    yield bed
    bed.stop()


class Lines:
    """The lines of the log since the last look."""

    def __init__(self, bed):
        self.bed = bed
        self.seen = bed.aggregator.log_end()

    def new(self):
        with open(self.bed.aggregator.log_path, "rb") as log:
            log.seek(self.seen)
            data = log.read()
        self.seen += len(data)
        return data.decode(errors="replace").splitlines()

    def wait_for(self, pattern):
        """Wait for a line; return all lines that are new then."""
        self.bed.aggregator.wait_for_log(pattern, since=self.seen)
        return self.new()


@pytest.fixture
def bed(_bed):
    _bed.reset()
    return _bed


@pytest.fixture
def lines(bed):
    return Lines(bed)


def test_no_line_for_packets_and_flows(bed, lines):
    controller = bed.controller
    vlans = range(MANY)
    for number in vlans:
        bed.wires.send(1, frames.numbered(number))
    bed.settle()
    assert len(controller.packet_ins()) == MANY
    flags = of.Flag.SEND_FLOW_REM
    for messages in (
        [of.flow_mod(of.match(dl_vlan=n), [of.output(18)], flags=flags) for n in vlans],
        [of.flow_mod(of.match(dl_vlan=n), b"", of.Command.MODIFY_STRICT) for n in vlans],
        [of.packet_out(frames.numbered(n), [of.output(17)]) for n in vlans],
        [of.flow_mod(of.match(dl_vlan=n), command=of.Command.DELETE) for n in vlans],
        [of.message(Type.ECHO_REQUEST)] * MANY,
        [of.stats_request(of.Stats.PORT, struct.pack("!H6x", Port.NONE))] * 100,
        [of.message(Type.BARRIER_REQUEST)] * 100,
        # Refusals are not logged: the controller is told.
        [of.flow_mod(command=9)] * MANY,
        [of.flow_mod(actions=[of.output(Port.NONE)])] * MANY,
        [of.flow_mod(actions=[SET_IP_OF_ANYTHING])] * 100,
        [of.stats_request(99)] * MANY,
        [of.message(99)] * MANY,
    ):
        for start in range(0, len(messages), 100):
            controller.send(*messages[start : start + 100])
            controller.barrier()
            bed.wires.capture()
    controller.expect(Type.FLOW_REMOVED)
    for _ in range(20):
        client = Connection.open(bed.network.outer, PORT)
        client.barrier()
        client.close()
    bed.settle()
    assert lines.new() == []


def test_a_line_for_the_start_of_everything(bed):
    log = bed.aggregator.log()
    for pattern in (
        rf"Listening for OpenFlow connections on 127\.0\.0\.1:{PORT}",
        r"\[00-00-00-00-00-01 \d+\] connected",
        r"switch 1: up, 2 ports; flows: 0 kept, 0 added, 0 changed, 0 removed",
        r"switch 2: up, 2 ports",
        r"switch 1: tunnel IP is 172\.16\.0\.1",
        r"switch 2: tunnel IP is 172\.16\.0\.2",
        r"All 2 tunnel IPs are discovered",
        rf"controller 127\.0\.0\.1:{bed.controller.port}: connected",
    ):
        assert len(re.findall(f"^INFO:.*{pattern}$|^INFO:.*{pattern};", log, re.MULTILINE)) == 1


def test_lines_for_a_controller_that_goes_and_comes(bed, lines):
    """There is one line, however many attempts to connect fail."""
    controller = bed.controller
    name = f"controller 127.0.0.1:{controller.port}"
    controller.close()
    first = lines.wait_for(f"{name}: cannot connect")
    assert first == [
        f"INFO:edge.upstream:{name}: connection closed: by the controller",
        f"INFO:edge.upstream:{name}: cannot connect (Connection refused); trying again, "
        "at least every 1 s",
    ]
    made = len(controller.connections)
    controller.listen()
    controller.wait_for_connection(made + 1)
    assert lines.wait_for(f"{name}: connected") == [f"INFO:edge.upstream:{name}: connected"]


def test_lines_for_a_switch_that_goes_and_comes(bed, lines):
    """The lines say that the switch is lost and why, and how many of its flows had to be added."""
    for number in range(3):
        bed.controller.flow_mod(of.match(dl_vlan=number), [of.output(1)])
    switch = bed.network.switches[2]
    switch.ovs.kill_vswitchd()
    said = lines.wait_for("switch 2: lost")
    assert re.search("WARNING:edge.*switch 2: lost", "\n".join(said))
    assert re.search("clos|reset", "\n".join(said)), said
    assert len(said) <= 2
    switch.recover()
    said = lines.wait_for("tunnel IPs are discovered")
    assert len(said) <= 4
    assert re.search(
        "switch 2: up, 2 ports; flows: 0 kept, 3 added, 0 changed, 0 removed", "\n".join(said)
    )
    switch.connect(None)
    lines.wait_for("switch 2: lost")
    switch.connect(TARGET)
    lines.wait_for("switch 2: up")
    bed.wait_until_ready()


def test_a_clean_end_is_not_an_alarm(make_big_switch):
    bed = make_big_switch(level="INFO")
    lines = Lines(bed)
    assert bed.aggregator.terminate() == 0
    said = lines.new()
    assert said and not [line for line in said if not line.startswith("INFO:")], said


def test_what_was_translated_to_what(big_switch):
    """At DEBUG the log has the controller's flow, and its translation for each switch."""
    lines = Lines(big_switch)
    big_switch.controller.flow_mod(
        of.match(dl_vlan=77, dl_type=0x800), [of.set_vlan_pcp(3), of.output(18)], priority=123
    )
    said = [line for line in lines.new() if line.startswith("DEBUG:edge")]
    north = [line for line in said if re.search(r"dl_vlan=77.*output:18\b", line)]
    south = [line for line in said if re.search(r"switch [12]\b.*\boutput:[23]\b", line)]
    assert len(north) == 1 and "123" in north[0], said
    assert len(south) == 2, said
    assert re.search(r"tun_id|TUN_ID|tunnel", south[0]) and not re.search("(?i)tun_id", south[1])
    big_switch.controller.packet_out(frames.udp(), [of.output(17)], in_port=1)
    said = [line for line in lines.new() if line.startswith("DEBUG:edge")]
    assert [line for line in said if "output:17" in line], said


# ---- no tracebacks for faults from outside ----

GARBAGE = {
    "http": b"GET / HTTP/1.0\r\n\r\n",
    "tls": bytes.fromhex("160301020001000001fc0303") + bytes(500),
    "hello of 1.3": bytes.fromhex("0400001000000001 0001000800000010"),
    "length 4": bytes.fromhex("0100000400000000"),
    "zeros": bytes(1000),
    "half a hello": bytes.fromhex("010000"),
    "no hello": of.message(Type.FEATURES_REQUEST),
    "hello and noise": of.message(Type.HELLO) + bytes(range(1, 256)) * 20,
    "hello and every type": of.message(Type.HELLO)
    + b"".join(of.message(n, bytes(n)) for n in range(256)),
}


@pytest.mark.parametrize("port", [OPENFLOW_PORT, PORT], ids=["switches", "clients"])
@pytest.mark.parametrize("kind", GARBAGE)
def test_no_traceback_for_garbage(bed, lines, port, kind):
    for end in ("close", "reset"):
        with bed.network.outer.call(socket.create_connection, ("127.0.0.1", port)) as sock:
            sock.sendall(GARBAGE[kind])
            bed.controller.barrier()
            if end == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for _ in range(3):
        bed.controller.barrier()
    said = lines.new()
    assert not re.search("Traceback|ERROR|CRITICAL", "\n".join(said)), said
    assert len(said) <= 2 * 11, said
    assert all(re.match("(INFO|WARNING):edge[.]", line) for line in said), said
    bed.wires.send(1, frames.udp())
    bed.settle()
    assert len(bed.controller.packet_ins()) == 1


def test_one_line_for_a_switch_that_allows_another_version_only(bed, lines):
    """The line has both versions, and Open vSwitch's own reason."""
    switch = bed.network.switches[2]

    def attempts():
        with open(f"{switch.ovs.directory}/ovs-vswitchd.log") as log:
            return log.read().count(f"{switch.name}<->{TARGET}: connecting...")

    switch.ovs.vsctl("set", "bridge", switch.name, "protocols=OpenFlow13")
    try:
        said = lines.wait_for("protocols=OpenFlow10")
        said = [line for line in said if "OpenFlow 1.3" in line]
        assert len(said) == 1 and said[0].startswith("WARNING:edge.pox:[10.255.1.2:"), said
        assert "no common versions" in said[0]
        begun = attempts()
        until(lambda: attempts() >= begun + 2, "two more attempts")
        assert lines.new() == []
    finally:
        switch.ovs.vsctl("set", "bridge", switch.name, "protocols=OpenFlow10")
        lines.wait_for("switch 2: up")
        bed.wait_until_ready()


def test_no_traceback_for_what_is_no_open_vswitch(bed, lines):
    """An OpenFlow switch that does not know Nicira's extensions is named in the log and left
    out.
    """
    fake = Connection.open(bed.network.outer, OPENFLOW_PORT)

    def answer(kind, reply, body, where=lambda message: True):
        fake.send(of.message(reply, body, fake.expect(kind, where=where).xid))

    name = b"\xff\xfe<b>\n%s"
    port = struct.pack("!H6s16sIIIIII", 1, b"\2\0\0\0\0\1", name, 0, 0, 0, 0, 0, 0)
    features = struct.pack("!QIB3xII", 3, 0, 1, 0, 0) + port
    refusal = struct.pack("!HH", of.ErrorType.BAD_REQUEST, of.BadRequest.BAD_VENDOR)
    answer(Type.FEATURES_REQUEST, Type.FEATURES_REPLY, features)
    answer(Type.BARRIER_REQUEST, Type.BARRIER_REPLY, b"")
    answer(Type.FEATURES_REQUEST, Type.FEATURES_REPLY, features)
    answer(
        Type.STATS_REQUEST,
        Type.ERROR,
        refusal,
        where=lambda message: message.body[:2] == struct.pack("!H", of.Stats.VENDOR),
    )
    fake.wait_closed()
    said = lines.wait_for("not an Open vSwitch")
    assert not re.search("Traceback", "\n".join(said)), said
    assert len([line for line in said if line.startswith("ERROR")]) == 1, said
    assert sorted(bed.controller.features().ports) == [1, 2, 17, 18]
    fake.close()
