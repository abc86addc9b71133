"""Controllers and switches that read too slowly: what is dropped, who is held back, until when.

The model is Open vSwitch (ofproto/connmgr.c): it drops packet-ins if 100 wait, and reads no more
messages of a controller while 100 replies wait for it.
"""

import pytest
from lab import openflow10 as of
from lab.openflow10 import Type

from edge.north import connections
from edge.poxfixes.outbox import CROWDED
from edge.switch import refusals, resync

from .played import BARRIER, THROUGH_TABLE, Bed, split
from .test_connections import HELLO, Line, Socket, connect

LIMIT = 100
PACKET_IN = of.message(Type.PACKET_IN, bytes(92))
PORT_STATUS = of.message(Type.PORT_STATUS, bytes(56))
FLOW_REMOVED = of.message(Type.FLOW_REMOVED, bytes(80))
ECHO = of.message(Type.ECHO_REQUEST)
FLOW_ON_2 = of.flow_mod(of.match(in_port=17), of.output(18))
PACKET_OUT = of.packet_out(bytes(60), of.output(2), 1)


@pytest.fixture
def bed(turns):
    return Bed(turns)


@pytest.fixture
def line(turns):
    """A connection to a controller that answers each message, and reads nothing from now on."""
    line = Line(lambda connection, message: connection.send(message))
    line.outbox = line.connection.io_worker.outbox
    line.outbox.blocked = True
    return line


def tell(line, message, times):
    for _ in range(times):
        line.connection.tell(message[1], message)


# ---- controllers that read too slowly ----


def test_packet_ins_are_dropped_and_counted_while_a_hundred_wait(line):
    tell(line, PACKET_IN, 150)
    assert len(line.answers()) == LIMIT
    assert line.connection.dropped_packet_ins == 50
    line.outbox.read(30 * len(PACKET_IN) + 1)
    tell(line, PACKET_IN, 40)
    assert len(line.answers()) == 30
    assert line.connection.dropped_packet_ins == 60


def test_no_packet_in_is_dropped_for_a_controller_that_reads(line):
    line.outbox.blocked = False
    tell(line, PACKET_IN, 1000)
    assert len(line.answers()) == 1000 and not line.connection.dropped_packet_ins


def test_nothing_else_is_dropped_for_a_controller_that_does_not_read(line):
    tell(line, PACKET_IN, 150)
    tell(line, PORT_STATUS, 300)
    tell(line, FLOW_REMOVED, 300)
    assert len(line.answers()) == LIMIT + 600


def test_packet_ins_that_wait_behind_a_barrier_are_bounded_as_well(line):
    line.outbox.blocked = False
    line.connection.hold(lambda message: True)
    line.send(ECHO)  # it bypasses the barrier, so that what is told from now on waits
    tell(line, PACKET_IN, 150)
    assert line.answers() == []
    line.outbox.blocked = True
    line.connection.release()
    assert len(line.answers()) == LIMIT and line.connection.dropped_packet_ins == 50


@pytest.mark.parametrize("told", [b"", FLOW_REMOVED], ids=["replies", "flow-removed"])
def test_a_controller_is_not_read_while_a_hundred_answers_wait(line, told):
    """A FLOW_REMOVED counts as an answer, a packet-in does not."""
    tell(line, PACKET_IN, 150)
    if told:
        tell(line, told, LIMIT - 1)
    line.answers()
    line.send(ECHO * 500)
    handled = 1 if told else LIMIT
    assert len(line.answers()) == handled and not line.connection.wants_more
    size = len(told or ECHO)
    line.outbox.read(LIMIT * len(PACKET_IN) + 40 * size)
    assert line.answers() == [], "more than half of them wait"
    line.outbox.read(20 * size)
    assert len(line.answers()) >= LIMIT // 2
    line.outbox.read(1 << 20)
    while line.outbox.backlog:
        line.outbox.read(1 << 20)
    assert line.connection.wants_more


def test_of_a_long_answer_no_more_is_made_than_fits(line, turns):
    line.connection.hold()
    made = []

    def parts():
        for _ in range(200):
            made.append(1)
            yield of.message(Type.STATS_REPLY, bytes(60000))
            yield b""

    line.connection.answer(parts())
    while turns:
        turns.popleft()()
    assert len(made) == CROWDED // 60000 + 1
    while len(made) < 200:
        before = len(made)
        line.outbox.read(1 << 20)
        line.outbox.blocked = True
        while turns:
            turns.popleft()()
        assert len(made) > before
    assert len(line.answers()) == 200


def test_a_controller_that_reads_none_of_its_answers_is_given_up(line, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(connections.time, "monotonic", lambda: now[0])
    line.send(ECHO * 500)
    for _ in range(31):
        now[0] += 1
        line.connection.not_read(10.0)
        if now[0] < 1020:
            line.outbox.read(8)  # it reads, if slowly
            line.outbox.blocked = True
        assert line.connection.closed == (now[0] > 1030), now[0]


def test_a_controller_that_is_held_back_for_a_switch_is_not_given_up(line, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(connections.time, "monotonic", lambda: now[0])
    line.connection.pause(lambda callback: None)
    for _ in range(30):
        now[0] += 1
        line.connection.not_read(10.0)
    assert not line.connection.closed


# ---- switches that read too slowly ----


def another(bed):
    """Connect another controller; return a function that sends for it, and one that reads."""
    sock = Socket()
    connection = connect(sock, bed.connection.on_message_received, service=True)
    connection.set_message_handler(bed.connection.on_message_received)
    bed.datapath.set_connection(connection)

    def send(*messages):
        sock.coming.append(b"".join(messages))
        connection.io_worker._do_recv()

    send(HELLO)
    return connection, send


def done_by(switch):
    """Return the types of the messages that a switch does, without its answers to requests."""
    switch.work()
    did, switch.did[:] = list(switch.did), []
    return did


@pytest.mark.parametrize(
    "message",
    [
        PACKET_OUT,
        of.packet_out(bytes(60), of.output(of.Port.FLOOD), 1),
        THROUGH_TABLE,
        of.flow_mod(of.match(in_port=1), of.output(2)),
        of.port_mod(1, "00:00:00:00:00:01", 0x10, 0x10),
        of.stats_request(of.Stats.PORT, b"\0\1" + bytes(6)),
        of.message(Type.BARRIER_REQUEST),
    ],
    ids=[
        "packet-out",
        "flood",
        "known packet-out",
        "flow-mod",
        "port-mod",
        "statistics",
        "barrier",
    ],
)
@pytest.mark.parametrize("client", [False, True], ids=["controller", "client"])
def test_a_controller_is_held_back_while_a_switch_of_its_messages_reads_too_slowly(
    bed, message, client
):
    """Its further messages wait, until the switch has taken most of what waits for it."""
    slow = bed.switches[0]
    connection, send = another(bed) if client else (bed.connection, bed.send)
    slow.stuck = CROWDED + 1
    send(message * 3 + FLOW_ON_2)
    assert not connection.wants_more
    assert [raw[1] for raw in slow.waiting].count(message[1]) == 1, "only the first is done"
    assert done_by(bed.switches[1]) == []
    slow.stuck = 0
    for callback in slow.waits_for_room:
        callback()
    bed.settle()
    assert connection.wants_more
    assert len(bed.big.flows.table) == 1 + (message[1] == Type.FLOW_MOD)


def test_a_controller_whose_messages_go_to_other_switches_is_not_held_back(bed):
    connection, send = another(bed)
    bed.switches[0].stuck = CROWDED + 1
    bed.send(PACKET_OUT)
    send(FLOW_ON_2 * 2, ECHO)
    assert connection.wants_more and not bed.connection.wants_more
    assert done_by(bed.switches[1]) == [Type.FLOW_MOD] * 2
    told = connection.io_worker.outbox.data
    assert [message[1] for message in split(told)][-1] == Type.ECHO_REPLY


def test_packet_outs_that_bypass_a_barrier_are_held_back_as_well(bed):
    slow = bed.switches[0]
    bed.send(BARRIER)
    slow.stuck = CROWDED + 1
    bed.send(THROUGH_TABLE * 3)
    assert [raw[1] for raw in slow.waiting].count(Type.PACKET_OUT) == 1
    slow.stuck = 0
    slow.waits_for_room.pop()()
    assert [raw[1] for raw in slow.waiting].count(Type.PACKET_OUT) == 3


def test_a_controller_goes_on_when_the_switch_that_it_waits_for_is_lost(bed):
    slow = bed.switches[0]
    slow.stuck = CROWDED + 1
    bed.send(PACKET_OUT + FLOW_ON_2 + BARRIER)
    assert done_by(bed.switches[1]) == []
    slow.disconnected = True
    bed.big.disconnected(slow)
    for callback in slow.waits_for_room:  # as EdgeConnection does it at its end
        callback()
    assert done_by(bed.switches[1])[-1] == Type.FLOW_MOD
    bed.switches[1].work()
    bed.end_turns()
    assert Type.BARRIER_REPLY in bed.told()


def test_a_message_to_many_flows_waits_for_room_once(bed):
    """A MODIFY that leads to many messages for a slow switch makes one pause."""
    flows = [of.flow_mod(of.match(in_port=1, dl_vlan=vlan), of.output(2)) for vlan in range(50)]
    bed.send(*flows, BARRIER)
    bed.settle()
    bed.switches[0].stuck = CROWDED + 1
    bed.send(of.flow_mod(of.match(), of.output(17), command=of.Command.MODIFY))
    assert len(bed.switches[0].waits_for_room) == 1


def test_what_a_new_switch_lacks_is_sent_no_quicker_than_it_reads(bed, monkeypatch):
    monkeypatch.setattr(resync, "FLOWS_PER_SLICE", 10)
    flows = [of.flow_mod(of.match(dl_vlan=vlan), of.output(2)) for vlan in range(50)]
    bed.send(*flows, BARRIER)
    bed.settle()
    slow = bed.switches[0]
    bed.big.disconnected(slow)
    slow.flows.clear()
    slow.waiting.clear()
    bed.big.connected(1, slow)
    slow.stuck = CROWDED + 1
    bed.settle()
    assert len(slow.flows) == 10
    slow.stuck = 0
    slow.waits_for_room.pop()()
    bed.settle()
    assert len(slow.flows) == 50


@pytest.mark.parametrize(
    "message",
    [PACKET_OUT, THROUGH_TABLE, of.flow_mod(of.match(in_port=1), of.output(2))],
    ids=["packet-out", "known packet-out", "flow-mod"],
)
def test_what_is_remembered_until_no_switch_has_refused_it_is_bounded(bed, message, monkeypatch):
    """Both switches read what they are sent, and one answers no barrier."""
    monkeypatch.setattr(refusals, "_MOST_OCTETS", 20_000)
    monkeypatch.setattr(refusals, "_TOO_MANY_OCTETS", 40_000)
    bed.send(message * 200)
    assert not bed.connection.wants_more
    assert 40_000 < bed.big.refusals._octets < 45_000
    held = len(bed.big.refusals)
    bed.big.tick()
    bed.switches[0].work()
    assert len(bed.big.refusals) == held and not bed.connection.wants_more
    bed.switches[1].work()
    assert held / 2 < len(bed.big.refusals) < 200 - held / 2
    while not bed.connection.wants_more:
        bed.big.tick()
        bed.settle()
    bed.big.tick()
    bed.settle()
    assert len(bed.big.refusals) == bed.big.refusals._octets == 0
