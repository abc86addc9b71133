"""Packet-outs that bypass a barrier, and those that must not.

The big switch as it is, over two connections whose far ends do what they are sent when told to.
"""

import struct
from collections import deque

import pytest
from lab import openflow10 as of
from lab.openflow10 import Port, Type

from edge import poxfixes
from edge.north import connections
from edge.north.datapath import Datapath
from edge.switch import bigswitch
from edge.switch.bigswitch import BigSwitch
from edge.switch.indexes import Indexes
from edge.switch.ports import PortNumbers

from .test_member import phy_port
from .test_upstream import HELLO, Socket, connect

BARRIER = of.message(Type.BARRIER_REQUEST)
THROUGH_TABLE = of.packet_out(bytes(60), of.output(Port.TABLE), 1)
FRAG_DROP = 1
ALL_TABLES_FULL = struct.pack("!HH", 3, 0)


def split(data):
    """The messages in these bytes."""
    while data:
        length = int.from_bytes(data[2:4], "big")
        yield data[:length]
        data = data[length:]


class Switch:
    """The far end of a connection: it answers what it is sent when work() is called.

    full: True if it has no room for flows.
    did: the types of what it has done since the last time, but for requests.
    """

    def __init__(self, dpid):
        names = (f"s{dpid}-eth1", f"s{dpid}-eth2", f"tun{dpid}")
        self.ports = [phy_port(number, name) for number, name in enumerate(names, 1)]
        self.dpid = dpid
        self.full = False
        self.did = []
        self.stuck = self.unacknowledged = 0
        self.reason = ""
        self.disconnected = False
        self.waiting = deque()

    def send(self, data):
        self.waiting.extend(split(data))

    def work(self):
        """Do all that it has been sent."""
        while self.waiting:
            raw = self.waiting.popleft()
            message = of.unpack(raw)
            if message.type == Type.FEATURES_REQUEST:
                ports = b"".join(port.pack() for port in self.ports)
                self._answer(
                    Type.FEATURES_REPLY,
                    message,
                    struct.pack("!QIB3xII", self.dpid, 0, 254, 0, 0) + ports,
                )
            elif message.type == Type.STATS_REQUEST:
                body = struct.pack("!HHII4x", 0xFFFF, 0, of.NX_VENDOR, 0)
                self._answer(Type.STATS_REPLY, message, body)
            elif message.type == Type.BARRIER_REQUEST:
                self._answer(Type.BARRIER_REPLY, message, b"")
            elif message.type == Type.FLOW_MOD and self.full:
                self._answer(Type.ERROR, message, ALL_TABLES_FULL + raw[:64])
            else:
                self.did.append(message.type)

    def _answer(self, kind, message, body):
        self.intercept(kind, of.message(kind, body, message.xid))


class Bed:
    """A big switch over two switches, and its controller.

    turns: what is to be done at the ends of turns.
    """

    def __init__(self, turns):
        self.turns = turns
        numbers = PortNumbers()
        datapath = Datapath(1)
        self.big = datapath.big = BigSwitch(numbers, Indexes(numbers), [], 5.0, datapath)
        self.switches = [self.connect(dpid) for dpid in (1, 2)]
        self.settle()
        self.socket = Socket()
        self.connection = connect(self.socket, datapath.rx_message)
        datapath.set_connection(self.connection)
        self.send(HELLO)
        # How the packet-out is done has to be known before one need not wait.
        self.send(THROUGH_TABLE, BARRIER)
        self.settle()
        assert self.told() == [Type.HELLO, Type.BARRIER_REPLY]
        assert not self.big.unsettled()

    def connect(self, dpid):
        switch = Switch(dpid)
        self.big.connected(dpid, switch)
        switch.work()
        return switch

    def end_turns(self):
        while self.turns:
            self.turns.popleft()()

    def settle(self):
        for _ in range(5):
            for switch in self.switches:
                switch.work()
            self.end_turns()
        for switch in self.switches:
            switch.did.clear()

    def send(self, *messages):
        self.socket.coming.append(b"".join(messages))
        self.connection.io_worker._do_recv()

    def told(self):
        """The types of what the controller has been told since the last time."""
        outbox = self.connection.io_worker.outbox
        told, outbox.data = outbox.data, b""
        return [message[1] for message in split(told)]


@pytest.fixture
def bed(monkeypatch):
    turns = deque()
    for module in (poxfixes, connections, bigswitch):
        monkeypatch.setattr(module, "end_of_turn", turns.append)
    return Bed(turns)


FLOW_ON_ONE = of.flow_mod(of.match(in_port=1), of.output(2))
FLOW_ON_ALL = of.flow_mod(of.match(dl_type=0x88B5), of.output(2))


def test_the_only_switch_with_something_to_do_gets_the_packet_behind_it(bed):
    one, other = bed.switches
    bed.send(FLOW_ON_ONE, BARRIER, THROUGH_TABLE)
    one.work()
    assert one.did == [Type.FLOW_MOD, Type.PACKET_OUT]
    assert bed.told() == [], "the other switch has not answered the barrier"
    other.work()
    assert bed.told() == [Type.BARRIER_REPLY]


def test_a_switch_that_others_need_not_wait_for_gets_the_packet_at_once(bed):
    bed.send(BARRIER, THROUGH_TABLE)
    bed.switches[0].work()
    assert bed.switches[0].did == [Type.PACKET_OUT]


@pytest.mark.parametrize(
    "before",
    [
        FLOW_ON_ALL,
        of.flow_mod(of.match(in_port=17), of.output(18)),
        of.port_mod(2, "00:00:00:00:00:02", 0x10, 0x10),
        of.set_config(FRAG_DROP),
    ],
    ids=["flow on all", "flow on the other", "port-mod", "fragments"],
)
def test_a_packet_waits_for_what_it_may_meet_before_it_is_done(bed, before):
    bed.send(before, BARRIER, THROUGH_TABLE)
    one, other = bed.switches
    one.work()
    assert Type.PACKET_OUT not in one.did
    while not bed.told():
        other.work()
        one.work()
    one.work()
    assert one.did[-1] == Type.PACKET_OUT


def test_a_packet_waits_for_what_is_undone_since_a_switch_has_refused_it(bed):
    one, other = bed.switches
    other.full = True
    bed.send(FLOW_ON_ALL)
    bed.big.refusals.confirm()  # the clock's, ten times a second
    one.work()
    other.work()
    assert not bed.big.unsettled() and one.did == [Type.FLOW_MOD]
    bed.send(BARRIER, THROUGH_TABLE)
    for _ in range(4):
        one.work()
        other.work()
    assert one.did == [Type.FLOW_MOD, Type.VENDOR, Type.PACKET_OUT], "deleted, and then"
    assert bed.told() == [Type.ERROR, Type.BARRIER_REPLY]


def test_a_packet_waits_while_a_switch_is_given_what_it_lacks(bed):
    """More flows than are sent in one turn."""
    bed.big.disconnected(bed.switches[0])
    count = 2500
    for number in range(count):
        address = f"02:00:00:00:{number >> 8:02x}:{number & 0xFF:02x}"
        bed.send(of.flow_mod(of.match(in_port=1, dl_dst=address), of.output(2)))
    bed.settle()
    bed.told()
    one = bed.switches[0] = bed.connect(1)
    bed.send(THROUGH_TABLE, BARRIER, THROUGH_TABLE)
    assert bed.big.members[1].missing
    one.work()
    assert one.did.count(Type.PACKET_OUT) == 1, "not the one behind the barrier"
    for _ in range(5):
        bed.end_turns()
        one.work()
        bed.switches[1].work()
    assert one.did.count(Type.FLOW_MOD) >= count
    assert one.did.count(Type.PACKET_OUT) == 2


def test_a_probe_of_a_tunnel_has_nobody_wait(bed):
    bed.big.members[2].send(of.packet_out(bytes(60), of.output(3)), changes=False)
    bed.send(FLOW_ON_ONE, BARRIER, THROUGH_TABLE)
    bed.switches[0].work()
    assert bed.switches[0].did == [Type.FLOW_MOD, Type.PACKET_OUT]
