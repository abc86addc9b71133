"""A big switch without real switches: the tests write the state that real ones would report."""

import time
from typing import Optional

import pox.openflow.libopenflow_01 as of

from edge.north.datapath import Datapath
from edge.openflow import actions as act
from edge.openflow import match as matches
from edge.openflow import messages
from edge.south.member import Member
from edge.switch.bigswitch import BigSwitch
from edge.switch.flowtable import FlowEntry
from edge.switch.indexes import Indexes
from edge.switch.portnumbers import PortNumbers

TUNNEL = 3


def ip(last: int) -> int:
    """172.16.0.last."""
    return 0xAC100000 + last


def phy_port(number: int, name: bytes, config: int = 0, state: int = 0) -> messages.PhyPort:
    """A port as a switch describes it."""
    address = bytes((2, 0, 0, 0, 0, number))
    return messages.PhyPort(number, address, name, config, state, 0, 0, 0, 0)


class Connection:
    """A controller's connection, as far as the dashboard shows it."""

    def __init__(self, name: str, service: bool = False, role: int = 0) -> None:
        self.name = name
        self.service = service
        self.role = role
        self.greeted = True
        self.closed = False
        self.dropped_packet_ins = 0

    def tell(self, kind: int, message: bytes) -> None:
        """Takes the message."""


class Upstream:
    """A controller that the big switch connects to, as far as the dashboard shows it."""

    def __init__(self, host: str, port: int, connection: Optional[Connection]) -> None:
        self.address = (host, port)
        self.connection = connection
        self.dropped_packet_ins = 0


def big_switch(switches: int = 2, ports: int = 2) -> BigSwitch:
    """A big switch over this many switches. All of them are up and have known tunnel IPs."""
    numbers = PortNumbers()
    ips = [ip(index) for index in range(1, switches + 1)]
    datapath = Datapath(0x2A)
    switch = datapath.big = BigSwitch(numbers, Indexes(numbers), ips, 5.0, datapath)
    for index in range(1, switches + 1):
        add_member(switch, index, ports)
    for member in switch.topology.members.values():
        member.use(switch.topology.ingress_of(member))
    return switch


def datapath(switch: BigSwitch) -> Datapath:
    """The datapath that a big switch of big_switch() belongs to."""
    return switch._events


def add_member(switch: BigSwitch, index: int, ports: int = 2) -> Member:
    """Add a switch that is up."""
    member = Member(switch, index, index, switch.topology.numbers.max_ports)
    switch.topology.add(member)
    own = [phy_port(port, b"s%d-eth%d" % (index, port)) for port in range(1, ports + 1)]
    tunnel = phy_port(TUNNEL, b"tun%d" % index, config=of.OFPPC_NO_FLOOD)
    member.ports.read([*own, tunnel])
    member.set_tunnel_ip(ip(index))
    member.session.connection = Silence()
    member.use(switch.topology.ingress_of(member))
    is_up(member)
    switch.portlist.announce(member)
    return member


def is_up(member: Member) -> None:
    """The switch has connected, and has all the flows that it must have."""
    is_syncing(member)
    member.liveness.synced()


def is_syncing(member: Member) -> None:
    """The switch has connected, and still lacks some flows."""
    member.liveness.connected()
    member.liveness.flows_read()


def is_lost(member: Member) -> None:
    """The switch's connection is gone."""
    member.session.connection = None
    member.liveness.lost(time.monotonic())


class Silence:
    """A connection that accepts every message and never answers."""

    disconnected = False

    def send(self, data: bytes) -> None:
        """Takes the message."""


def match(**fields: object) -> matches.Match:
    """A match, from POX's names of its fields."""
    return matches.parse(of.ofp_match(**fields).pack())


def add_flow(
    switch: BigSwitch,
    match: matches.Match = matches.ANY,
    actions: bytes = b"",
    priority: int = 0x8000,
    cookie: int = 0,
    idle_timeout: int = 0,
    hard_timeout: int = 0,
    flags: int = 0,
) -> FlowEntry:
    """Put a flow into the table, as if a controller had added it."""
    entry = FlowEntry(
        match,
        priority,
        cookie,
        idle_timeout,
        hard_timeout,
        flags,
        act.parse(actions),
        time.monotonic(),
    )
    switch.flows.table.put(entry)
    switch.flows.cookies.new(entry)
    return entry


def count(switch: BigSwitch, index: int, entry: FlowEntry, packets: int, octets: int) -> None:
    """Record the counters that a switch reports for its copy of a flow."""
    cookie = switch.flows.cookies.cookie(entry)
    switch.topology.members[index].counters.saw(cookie, packets, octets)


def read(pieces):
    """Run a reading to its end; return its value."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value
