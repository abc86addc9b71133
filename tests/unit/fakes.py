"""Stand-ins for the things around the one that a unit test tests."""

import struct
from types import SimpleNamespace
from typing import NamedTuple

from lab import openflow10 as of

from edge.openflow import actions as act
from edge.openflow import flowmods, messages
from edge.south.translate import Ingress
from edge.switch.flows import Copy
from edge.switch.portnumbers import PortNumbers
from edge.switch.resync import Resync

TUNNEL = 3


def phy_port(number, name, config=0):
    """A port as a switch describes it."""
    address = bytes(5) + bytes([number & 0xFF])
    return messages.PhyPort(number, address, name.encode(), config, 0, 0, 0, 0, 0)


PORTS = [phy_port(1, "s1-eth1"), phy_port(2, "s1-eth2"), phy_port(TUNNEL, "tun1")]


class Connection:
    """A switch's connection. It keeps what is sent."""

    def __init__(self):
        self.sent = b""
        self.stuck = self.unacknowledged = 0
        self.closed = self.reason = ""
        self.intercept = self.crowded = None

    def send(self, data):
        self.sent += data

    def disconnect(self, reason):
        self.closed = self.reason = reason

    def take(self):
        """Return the messages sent since the last call."""
        messages = []
        while self.sent:
            length = int.from_bytes(self.sent[2:4], "big")
            messages.append(of.unpack(self.sent[:length]))
            self.sent = self.sent[length:]
        return messages


class Flow(NamedTuple):
    """A flow of the big switch, as far as Resync needs it."""

    cookie: int
    actions: act.Actions

    def copy(self, actions):
        return Copy(self.cookie, 2, of.match(in_port=1), 9, 0, 0, 0, actions)


class Flows:
    """The Flows of a big switch as Resync sees it. Every flow must be on the switch."""

    def __init__(self, flows):
        self.flows = {flow.cookie: flow for flow in flows}
        self.cookies = SimpleNamespace(cookie=lambda flow: flow.cookie)

    def is_live(self, cookie):
        return cookie in self.flows

    def returned(self, member, copies, anew):
        return list(self.flows.values())

    def renew_copy(self, flow, member):
        actions = member.translations.translated(flow.actions)
        member.session.send(flowmods.modify_flow(1, 2, flow.cookie, actions))

    def translated_or_drop(self, actions, member):
        return member.translations.translated_or_drop(actions)

    def note_missing(self, member, flows):
        """Does nothing: no test reads what a switch lacks."""

    def note_sent(self, member, flow):
        """Does nothing: no test reads what a switch lacks."""

    def note_complete(self, member):
        """Does nothing: no test reads what a switch lacks."""


class Events:
    """MemberEvents that notes the names of its calls, and brings the switch up to date.

    wanted: the flows that the switch must have.
    """

    def __init__(self, wanted=()):
        self.said = []
        self._numbers = PortNumbers()
        self._resync = Resync(Flows(wanted), self._reinstall, self._synced)

    def _reinstall(self, flow, member):
        actions = member.translations.translated(flow.actions)
        member.session.send(flow.copy(actions).add(1))

    def _synced(self, member):
        self.said.append("synced")

    def flows_read(self, member, dump):
        member.use(Ingress(1, TUNNEL, (1, 2), {}, (), self._numbers.locate, {}))
        self._resync.begin(member, dump)

    def ports_changed(self, member, reach_changed):
        self.said.append("reach_changed" if reach_changed else "ports_changed")

    def tunnel_changed(self, member):
        self.said.append("tunnel_changed")

    def lost(self, member, was_ready, reason):
        self.said.append("lost")

    def crowded(self, member):
        self.said.append("crowded")

    def packet_in(self, member, message):
        self.said.append("packet_in")

    def flow_removed(self, member, removed):
        self.said.append("flow_removed")

    def refused(self, member, xid, error):
        self.said.append("refused")


class BigSwitchEvents:
    """The BigSwitchEvents of a big switch, noted as (name, arguments)."""

    def __init__(self):
        self.told = []

    def port_status(self, reason, port, but):
        self.told.append(("port_status", reason, port, but))

    def packet_in(self, message):
        self.told.append(("packet_in", message))

    def flow_removed(self, message):
        self.told.append(("flow_removed", message))

    def switch_up(self, index, dpid):
        self.told.append(("switch_up", index, dpid))

    def switch_lost(self, index, dpid, reason):
        self.told.append(("switch_lost", index, dpid, reason))

    def tunnel_found(self, index, dpid, ip):
        self.told.append(("tunnel_found", index, dpid, ip))


def nx_flow(table, priority, match, actions, cookie=0, packets=0):
    """Build a flow of an NXST_FLOW reply (struct nx_flow_stats)."""
    rest = match + bytes(-len(match) % 8) + actions
    head = (48 + len(rest), table, 0, 0, priority, 0, 0, len(match), 0, 0, cookie, packets, 0)
    return struct.pack("!HBxIIHHHHHHQQQ", *head) + rest
