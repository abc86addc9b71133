"""A real big switch over played connections: their far ends do their work when the test says so."""

import logging
import struct
from collections import deque

from lab import openflow10 as of
from lab.openflow10 import Port, Type

from edge.north.datapath import Datapath
from edge.poxfixes.outbox import CROWDED
from edge.switch.bigswitch import BigSwitch
from edge.switch.indexes import Indexes
from edge.switch.portnumbers import PortNumbers

from .fakes import nx_flow, phy_port
from .test_connections import HELLO, Socket, connect

BARRIER = of.message(Type.BARRIER_REQUEST)
THROUGH_TABLE = of.packet_out(bytes(60), of.output(Port.TABLE), 1)
ALL_TABLES_FULL = struct.pack("!HH", 3, 0)
NXT_FLOW_MOD = struct.pack("!I", 13)
NXM_NX_COOKIE = bytes.fromhex("00013c08")
NXM_NX_COOKIE_W = bytes.fromhex("00013d10")


def split(data):
    """The messages in these bytes."""
    while data:
        length = int.from_bytes(data[2:4], "big")
        yield data[:length]
        data = data[length:]


def _selects(match, cookie):
    """True if an NXM match that holds at most a cookie selects this cookie."""
    if not match:
        return True
    if match[:4] == NXM_NX_COOKIE:
        return cookie == int.from_bytes(match[4:12], "big")
    assert match[:4] == NXM_NX_COOKIE_W
    value, mask = struct.unpack_from("!QQ", match, 4)
    return cookie & mask == value


class Switch:
    """The switch's end of a connection. It does and answers what it was sent when work() is called.

    refuses: a function of a message that changes something; if true, the switch refuses it.
    flows: the packed actions of the flows with a cookie, by cookie.
    packets: what these flows have counted, by cookie.
    others: the packed actions of all other flow entries, by (table, priority, NXM match, cookie).
    asked: the bodies of the requests for flows since the test has cleared it.
    did: the types of the messages done since the last clearing, requests left out.
    stuck: as of EdgeConnection; set by the test.
    waits_for_room: the callbacks of those who wait until less is stuck.
    """

    def __init__(self, dpid):
        names = (f"s{dpid}-eth1", f"s{dpid}-eth2", f"tun{dpid}")
        self.ports = [phy_port(number, name) for number, name in enumerate(names, 1)]
        self.dpid = dpid
        self.refuses = lambda raw: False
        self.flows = {}
        self.packets = {}
        self.others = {}
        self.asked = []
        self._places = {}  # (match, table, priority) -> cookie of the flow there
        self.did = []
        self.stuck = self.unacknowledged = 0
        self.reason = self.host = ""
        self.level = logging.INFO
        self.disconnected = False
        self.waiting = deque()
        self.crowded = None
        self.waits_for_room = []

    def send(self, data):
        self.waiting.extend(split(data))
        if self.stuck > CROWDED:
            self.crowded()

    def when_room(self, callback):
        self.waits_for_room.append(callback)

    def work(self, only=None):
        """Do everything that was sent; with `only`, only what is of this type."""
        later = deque()
        while self.waiting:
            raw = self.waiting.popleft()
            message = of.unpack(raw)
            if only not in (None, message.type):
                later.append(raw)
                continue
            if message.type == Type.FEATURES_REQUEST:
                ports = b"".join(port.pack() for port in self.ports)
                self._answer(
                    Type.FEATURES_REPLY,
                    message,
                    struct.pack("!QIB3xII", self.dpid, 0, 254, 0, 0) + ports,
                )
            elif message.type == Type.STATS_REQUEST:
                body = struct.pack("!HHII4x", 0xFFFF, 0, of.NX_VENDOR, 0) + self._told(message.body)
                self._answer(Type.STATS_REPLY, message, body)
            elif message.type == Type.BARRIER_REQUEST:
                self._answer(Type.BARRIER_REPLY, message, b"")
            elif message.type == Type.ECHO_REQUEST:
                self._answer(Type.ECHO_REPLY, message, message.body)
            elif self.refuses(raw):
                self._answer(Type.ERROR, message, ALL_TABLES_FULL + raw[:64])
            else:
                self.did.append(message.type)
                self._do(message)
        self.waiting = later

    def _do(self, message):
        if message.type == Type.FLOW_MOD:
            cookie, command, priority = struct.unpack_from("!QH4xH", message.body, 40)
            place = message.body[:40], command >> 8, priority
            self.flows.pop(self._places.get(place), None)
            self._places[place] = cookie
            self.flows[cookie] = message.body[64:]
        elif message.type == Type.VENDOR and message.body[4:8] == NXT_FLOW_MOD:
            cookie, command, length = struct.unpack_from("!QH14xH", message.body, 8)
            match = message.body[40 : 40 + length]
            actions = message.body[40 + length + -length % 8 :]
            (priority,) = struct.unpack_from("!H", message.body, 22)
            table, command = command >> 8, command & 0xFF
            if command == of.Command.DELETE:
                for each in [each for each in self.flows if _selects(match, each)]:
                    del self.flows[each]
            elif command == of.Command.DELETE_STRICT:
                named = 0
                if match[-12:-8] == NXM_NX_COOKIE:
                    match, named = match[:-12], int.from_bytes(match[-8:], "big")
                if self.others.pop((table, priority, match, named), None) is None:
                    self.flows.pop(named, None)
            elif match[:4] != NXM_NX_COOKIE:  # a service rule
                self.others[table, priority, match, cookie] = actions
            elif int.from_bytes(match[4:12], "big") in self.flows:
                self.flows[int.from_bytes(match[4:12], "big")] = actions

    def _told(self, request):
        """Return the flow entries that a request for flows (NXST_FLOW) asks for; else nothing."""
        if len(request) < 24:
            return b""
        self.asked.append(request)
        (length,) = struct.unpack_from("!H", request, 18)
        match = request[24 : 24 + length]
        entries = {(2, 1, b"", cookie): actions for cookie, actions in self.flows.items()}
        return b"".join(
            nx_flow(*place[:3], actions, place[3], self.packets.get(place[3], 0))
            for place, actions in (*entries.items(), *self.others.items())
            if _selects(match, place[3])
        )

    def _answer(self, kind, message, body):
        self.intercept(kind, of.message(kind, body, message.xid))


class Bed:
    """A big switch over two switches, and its controller.

    turns: the callbacks for the ends of turns.
    """

    def __init__(self, turns, learn_ips=False):
        self.turns = turns
        numbers = PortNumbers()
        self.datapath = datapath = Datapath(1)
        self.big = datapath.big = BigSwitch(numbers, Indexes(numbers), [], 5.0, datapath, learn_ips)
        self.switches = [self.connect(dpid) for dpid in (1, 2)]
        self.settle()
        self.socket = Socket()
        self.connection = connect(self.socket, datapath.rx_message)
        datapath.set_connection(self.connection)
        self.send(HELLO)
        # A packet-out can bypass a barrier only when it is known how the switch handles it.
        self.send(THROUGH_TABLE, BARRIER)
        self.settle()
        assert self.told() == [Type.HELLO, Type.BARRIER_REPLY]
        assert not self.big.unsettled()

    def connect(self, dpid, switch=None):
        switch = switch or Switch(dpid)
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
        """Return the types of the messages that the controller has got since the last call."""
        outbox = self.connection.io_worker.outbox
        told, outbox.data = outbox.data, b""
        return [message[1] for message in split(told)]
