"""
The big switch as a POX datapath: one OpenFlow switch toward its controllers.

Other POX components find it in core.datapaths under its dpid, like any datapath.  They also find it
as core.aggregator, which raises the events SwitchUp, SwitchLost and TunnelFound:

    core.aggregator.addListenerByName("SwitchLost", lambda event: print(event.dpid, event.reason))
"""

import time
from collections.abc import Sequence
from typing import NoReturn, Optional, Union

import pox.openflow.libopenflow_01 as of
from pox.core import core
from pox.datapaths.switch import SoftwareSwitchBase, SwitchFeatures
from pox.lib.addresses import EthAddr, IPAddr
from pox.lib.revent import Event, EventMixin
from pox.openflow.flow_table import FlowTable, TableEntry

from edge.north.connections import ControllerConnection
from edge.north.requests import Requests
from edge.north.statistics import MAX_ENTRIES
from edge.north.workers import Listener, Upstream
from edge.openflow import messages, stats
from edge.poxfixes import When
from edge.poxfixes.ioworkers import RobustIOLoop
from edge.switch.bigswitch import BigSwitch
from edge.switch.events import Requester
from edge.switch.flowtable import FlowEntry


class SwitchUp(Event):
    """
    A switch has connected and has been brought up to date.

    index: the number by which its ports are numbered
    dpid: its datapath-id
    """

    def __init__(self, index: int, dpid: int) -> None:
        super().__init__()
        self.index = index
        self.dpid = dpid


class SwitchLost(Event):
    """
    A switch that was up, or was being brought up to date, is lost.

    It does not answer any more, or its connection is closed.

    index, dpid: see SwitchUp
    reason: why, in words
    """

    def __init__(self, index: int, dpid: int, reason: str) -> None:
        super().__init__()
        self.index = index
        self.dpid = dpid
        self.reason = reason


class TunnelFound(Event):
    """
    A switch's tunnel IP has been discovered.

    index, dpid: see SwitchUp
    ip: the tunnel IP, an IPAddr
    """

    def __init__(self, index: int, dpid: int, ip: IPAddr) -> None:
        super().__init__()
        self.index = index
        self.dpid = dpid
        self.ip = ip


def _features() -> SwitchFeatures:
    """Open vSwitch's features: flow, table, port and queue statistics, ARP matches; all actions."""
    features = SwitchFeatures(
        cap_flow_stats=True,
        cap_table_stats=True,
        cap_port_stats=True,
        cap_queue_stats=True,
        cap_arp_match_ip=True,
    )
    for action in range(of.OFPAT_OUTPUT, of.OFPAT_ENQUEUE + 1):
        name = of.ofp_action_type_map[action].replace("OFPAT_", "act_").lower()
        setattr(features, name, True)
    return features


class Datapath(Requests, SoftwareSwitchBase, EventMixin):
    """
    The big switch toward its controllers, and toward other POX components.

    dpid: its datapath-id
    controllers: the host name or IP address, and the TCP port, of each controller to connect to
    max_retry_delay: the longest time between two attempts to connect to a controller, in seconds
    big: the big switch itself; to be set before anything connects
    upstreams: the controllers that it connects to, connected or not
    connections: all open OpenFlow connections
    ports: its ports by number
    table: its flows, read-only (see TableView)

    The big switch reports to it through the protocol BigSwitchEvents.
    """

    _eventMixin_events = {SwitchUp, SwitchLost, TunnelFound}

    big: BigSwitch

    def __init__(
        self,
        dpid: int,
        controllers: Sequence[tuple[str, int]] = (),
        max_retry_delay: float = 16.0,
    ) -> None:
        super().__init__(
            dpid, ports=[], max_buffers=0, max_entries=MAX_ENTRIES, features=_features()
        )
        self.upstreams = [Upstream(address) for address in controllers]
        self.connections: list[ControllerConnection] = []
        # POX's own list of flows (pox/datapaths/switch.py:88) would stay empty.
        self.table = TableView(self)
        # POX finds handlers by the name of the statistics type, and has no name for this one.
        self.stats_handlers[stats.OFPST_PORT_DESC] = self._stats_port_desc
        self._max_retry_delay = max_retry_delay
        self._clients_dropped = 0  # packet-ins for clients that have gone
        self._loop = RobustIOLoop()

    def register(self) -> None:
        """Let other POX components find it."""
        if not core.hasComponent("datapaths"):
            core.register("datapaths", {})
        core.datapaths[self.dpid] = self
        core.register("aggregator", self)

    # --- connections ---------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect to the controllers, and go on doing so as long as POX runs."""
        for upstream in self.upstreams:
            upstream.begin(self, self._loop, self._max_retry_delay)

    def listen(self, address: tuple[str, int]) -> None:
        """
        Accept OpenFlow connections at this local address and TCP port.

        Raises OSError if that is not possible.
        """
        self._loop.register_worker(Listener(address, self))

    def set_connection(self, connection: ControllerConnection) -> None:
        """
        Add a connection.

        POX (pox/datapaths/switch.py:253) knows only the last connection, and sends all replies
        there.
        """
        connection.set_message_handler(self.rx_message)
        connection.settle = self.big.barrier
        self.connections.append(connection)

    def connection_closed(self, connection: ControllerConnection) -> None:
        """Forget a connection that has ended; its controller's flows stay."""
        self.connections.remove(connection)
        if connection.service:
            self._clients_dropped += connection.dropped_packet_ins

    def dropped_packet_ins(self) -> dict[str, int]:
        """
        Packet-ins that were not sent since the start, as their receivers read too slowly.

        They are counted for each controller ("address:port"), and for all clients together.
        """
        dropped = {
            "{}:{}".format(*each.address): each.dropped_packet_ins for each in self.upstreams
        }
        clients = [each.dropped_packet_ins for each in self.connections if each.service]
        return {**dropped, "clients": self._clients_dropped + sum(clients)}

    def send(
        self,
        message: Union[bytes, of.ofp_header],
        connection: Optional[ControllerConnection] = None,
    ) -> None:
        """
        Send a message to one controller, or an asynchronous message to all that want it.

        POX (pox/datapaths/switch.py:255) sends to the last connection.  If there is none, POX
        formats the message for the log (:264).

        message: bytes, or a message object of POX's
        """
        data = message if isinstance(message, bytes) else message.pack()
        if connection is not None:
            connection.send(data)
            return
        kind = data[1]
        for each in self.connections:
            each.tell(kind, data)

    # --- reports of the big switch (see BigSwitchEvents) -----------------------------------------

    def crowded(self, when_room: When) -> None:
        for connection in self.connections:
            if connection.processing:
                connection.pause(when_room)

    def packet_in(self, message: bytes) -> None:
        self.send(message)

    def flow_removed(self, message: bytes) -> None:
        self.send(message)

    def port_status(
        self, reason: int, port: messages.PhyPort, but: Optional[Requester] = None
    ) -> None:
        phy_port = _phy_port(port)
        if reason == of.OFPPR_ADD:
            self.add_port(phy_port)
        elif reason == of.OFPPR_DELETE:
            self.delete_port(port.port_no)
        else:
            self.ports[port.port_no] = phy_port
            self.send_port_status(phy_port, reason, but)

    def switch_up(self, index: int, dpid: int) -> None:
        self.raiseEventNoErrors(SwitchUp, index, dpid)

    def switch_lost(self, index: int, dpid: int, reason: str) -> None:
        self.raiseEventNoErrors(SwitchLost, index, dpid, reason)

    def tunnel_found(self, index: int, dpid: int, ip: int) -> None:
        self.raiseEventNoErrors(TunnelFound, index, dpid, IPAddr(ip))

    # --- ports ---------------------------------------------------------------------------------

    def delete_port(self, port: Union[int, of.ofp_phy_port]) -> of.ofp_phy_port:
        """
        Remove a port, given as an object or by number.  Tell the controllers; return the port.

        POX (pox/datapaths/switch.py:546) leaves the port's entry in port_stats.
        """
        deleted = super().delete_port(port)
        del self.port_stats[deleted.port_no]
        return deleted

    def send_port_status(
        self, port: of.ofp_phy_port, reason: int, but: Optional[Requester] = None
    ) -> None:
        """
        Send the controllers a PORT_STATUS; reason is an OFPPR_*.

        POX (pox/datapaths/switch.py:447) gives each such message another xid.  Open vSwitch always
        uses xid 0, and so does this.

        but: the controller that asked for the change; it is not sent the message
        """
        message = messages.pack_port_status(reason, port.pack())
        for connection in self.connections:
            if connection is not but:
                connection.tell(of.OFPT_PORT_STATUS, message)

    # --- packets -------------------------------------------------------------------------------

    def rx_packet(
        self, packet: object, in_port: int, packet_data: Optional[bytes] = None
    ) -> NoReturn:
        """
        Raise RuntimeError: the switches forward packets, and no packet passes through here.

        POX (pox/datapaths/switch.py:468) would forward the packet by itself.
        """
        raise RuntimeError("The big switch's packets are forwarded by its switches")


def _phy_port(port: messages.PhyPort) -> of.ofp_phy_port:
    """A port as a POX object, whose pack() gives the same bytes."""
    fields = port._asdict()
    # POX packs names as Latin-1 (pox/openflow/libopenflow_01.py:140), so no byte is lost.
    fields.update(hw_addr=EthAddr(port.hw_addr), name=port.name.decode("latin-1"))
    return of.ofp_phy_port(**fields)


class TableView(FlowTable):
    """
    The big switch's flows as POX's TableEntry objects, which are made whenever they are read.

    The table is read-only: controllers change flows with flow-mods.  The packet and byte counts are
    those of the last request for flow statistics.
    """

    def __init__(self, datapath: Datapath) -> None:
        EventMixin.__init__(self)
        self._datapath = datapath

    @property
    def _table(self) -> list[TableEntry]:
        """The list that POX's FlowTable searches: the highest priority first."""
        big = self._datapath.big
        entries = [_table_entry(big, entry) for entry in big.flows.table]
        return sorted(entries, key=lambda entry: -entry.effective_priority)

    def __len__(self) -> int:
        return len(self._datapath.big.flows.table)

    def add_entry(self, entry: TableEntry) -> NoReturn:
        """Raise TypeError: the table is read-only."""
        raise TypeError("The big switch's flows are changed with flow-mods")

    def remove_entry(self, entry: TableEntry, reason: Optional[int] = None) -> NoReturn:
        """Raise TypeError: the table is read-only."""
        raise TypeError("The big switch's flows are changed with flow-mods")

    def _remove_specific_entries(
        self, flows: Sequence[TableEntry], reason: Optional[int] = None
    ) -> None:
        """Raise TypeError unless `flows` is empty; all of POX's ways to remove flows lead here."""
        if flows:
            raise TypeError("The big switch's flows are changed with flow-mods")


def _table_entry(big: BigSwitch, entry: FlowEntry) -> TableEntry:
    match = of.ofp_match()
    match.unpack(entry.match.wire)
    age = time.monotonic() - entry.created
    wire = entry.actions.wire
    made = TableEntry(
        priority=entry.priority,
        cookie=entry.cookie,
        idle_timeout=entry.idle_timeout,
        hard_timeout=entry.hard_timeout,
        flags=entry.flags,
        match=match,
        actions=of._unpack_actions(wire, len(wire))[1],
        now=time.time() - age,
    )
    made.packet_count, made.byte_count = big.flows.counted(entry)
    return made
