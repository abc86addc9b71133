"""
The big switch: one OpenFlow 1.0 datapath made of many.

The decisions are made by other classes.  BigSwitch connects these classes, and passes each report
of a switch to the class that handles it.
"""

import logging
import time
from collections.abc import Iterable
from typing import Callable, Optional

from pox.core import core

from edge.openflow.messages import FlowRemoved
from edge.openflow.stats import FlowStats
from edge.poxfixes import EdgeConnection, awake_since, run_in_slices
from edge.south.discovery import Discovery
from edge.south.gather import barriers
from edge.south.member import Member
from edge.south.rules import SERVICE
from edge.switch.arrivals import Arrivals
from edge.switch.audit import Audit
from edge.switch.changes import Reinstall
from edge.switch.counts import Counts
from edge.switch.events import BigSwitchEvents
from edge.switch.flows import Flows
from edge.switch.flowtable import FlowEntry
from edge.switch.indexes import Indexes
from edge.switch.inports import InPorts
from edge.switch.packets import Packets
from edge.switch.portlist import PortList
from edge.switch.portnumbers import PortNumbers
from edge.switch.refusals import Refusals
from edge.switch.resync import Resync
from edge.switch.topology import Topology, Unchanged

log = logging.getLogger("edge.switch")


class BigSwitch:
    """
    One OpenFlow 1.0 datapath made of many.

    numbers, indexes: how ports and switches are numbered
    ips: the candidates for tunnel IPs, as numbers
    switch_timeout: seconds after which a switch that does not answer counts as lost
    events: receives the messages for controllers, and the news for other POX components
    learn_ips: True if the address from which a switch connects is a candidate too

    topology: the switches
    flows: the flow table, and the copies of its flows on the switches
    portlist: the ports that the controllers know
    packets: translates packet-ins and packet-outs
    refusals: remembers each change until it is certain whether a switch has refused it
    discovery: finds the tunnel IP of each switch
    audit: finds what somebody else has changed on the switches
    counts: counters of what the big switch has done
    """

    def __init__(
        self,
        numbers: PortNumbers,
        indexes: Indexes,
        ips: Iterable[int],
        switch_timeout: float,
        events: BigSwitchEvents,
        learn_ips: bool = False,
    ) -> None:
        self.counts = Counts()
        self.topology = Topology(numbers, self._retranslated, self._queue_keys_changed)
        self.portlist = PortList(numbers, events)
        self.refusals = Refusals(self._ask_barriers, self.counts)
        inports = InPorts(numbers)
        self.flows = Flows(self.topology, inports, events, self._reinstall)
        self.audit = Audit(self.flows, self.topology, self.refusals, self._reinstall)
        self.discovery = Discovery(ips, self.topology.ready_members, self._tunnel_found)
        self.packets = Packets(
            self.flows,
            self.topology,
            self.refusals,
            inports,
            self.counts,
            self.discovery.received,
            events,
        )
        # An attribute in place of a method saves one call for each packet-in.
        self.packet_in: Callable[[Member, bytes], None] = self.packets.packet_in
        self._indexes = indexes
        self._switch_timeout = switch_timeout
        self._events = events
        self._max_ports = numbers.max_ports
        self._resync = Resync(self.flows, self._reinstall, self._synced)
        self._arrivals = Arrivals(
            self.topology, indexes, self._new_member, self.discovery if learn_ips else None
        )

    def _new_member(self, index: int, dpid: int) -> Member:
        return Member(self, index, dpid, self._max_ports)

    def _reinstall(self, entry: FlowEntry, member: Member) -> None:
        Reinstall(self.flows, self.refusals, entry, member).start()
        if entry in self.flows.table:
            self.audit.sent_again(member, self.flows.cookies.cookie(entry))

    def tick(self) -> None:
        """Do the periodic work.  To be called some ten times a second."""
        now = time.monotonic()
        awake = awake_since()
        self.discovery.tick(now, awake)
        self._arrivals.tick(now, awake)
        for member in list(self.topology.members.values()):
            member.watch(now, awake, self._switch_timeout)
        self.audit.tick(now)
        self.refusals.confirm()
        self._indexes.tick(now)
        self.flows.expiry.tick(now)
        self.flows.removals.tick(now)
        has_flows, packet_outs = bool(self.flows.table), self.counts.packet_outs
        self.topology.queue_keys.take_back_unused(now, awake, has_flows, packet_outs)

    # --- switches that come and go -------------------------------------------------------------

    def connected(self, dpid: int, connection: EdgeConnection) -> None:
        """A switch's OpenFlow handshake is done."""
        self._arrivals.connected(dpid, connection)

    def is_refused(self, connection: EdgeConnection, dpid: int) -> bool:
        """Whether a connection is one more attempt of a switch whose dpid another one uses."""
        return self._arrivals.is_refused(connection, dpid)

    def disconnected(self, connection: EdgeConnection) -> None:
        """A switch's connection is closed."""
        for member in self.topology.members.values():
            member.closed(connection)

    def _synced(self, member: Member) -> None:
        """A switch has been sent all that it lacked."""
        self.counts.resynchronisations += 1
        self.portlist.announce(member)
        self.discovery.changed(member)
        self.topology.changed()
        self._events.switch_up(member.index, member.dpid)

    def _tunnel_found(self, member: Member, ip: int) -> None:
        self.topology.tunnel_found(member, ip)
        self.packets.forget_outs()
        self.topology.changed()
        self._events.tunnel_found(member.index, member.dpid, ip)

    def _retranslated(self, unchanged: Unchanged) -> None:
        self.packets.forget_outs()
        if any(same is not None for same in unchanged.values()):
            run_in_slices(self.flows.renew(unchanged))

    def _queue_keys_changed(self) -> None:
        self.packets.forget_outs()

    # --- barriers ------------------------------------------------------------------------------

    def barrier(self, done: Callable[[], None]) -> None:
        """
        Call done() when every ready switch has executed all that it was sent before.

        By then, every change that a switch has refused is undone on the other switches, too.
        """
        self.refusals.barrier(done)

    def unsettled(self) -> list[Member]:
        """The ready switches that may not have executed yet all that they were sent."""
        return [member for member in self.topology.ready_members() if not member.session.settled]

    def _ask_barriers(self, done: Callable[[], None]) -> None:
        """Call done() when every ready switch has executed all that it was sent, or is lost."""
        queue_keys = self.topology.queue_keys
        rules = queue_keys.sent

        def answered() -> None:
            queue_keys.confirm(rules)
            done()

        barriers(self.topology.ready_members(), answered)

    # --- reports of the switches (MemberEvents) ------------------------------------------------

    def ports_changed(self, member: Member, reach_changed: bool) -> None:
        """A switch's ports have been read, or one of them has changed."""
        self.packets.forget(member)
        if not member.ready:
            # It may send packets for flows whose copies are gone before it has told its flows.
            member.use(self.topology.ingress_of(member))
        else:
            self.portlist.announce(member)
            if reach_changed:
                self.topology.changed()

    def tunnel_changed(self, member: Member) -> None:
        """A switch's tunnel port has changed or gone: its tunnel IP has to be found again."""
        if member.ready:
            self.discovery.changed(member)

    def flows_read(self, member: Member, dump: list[FlowStats]) -> None:
        """A switch has sent the flow entries of all its tables (dump)."""
        member.use(self.topology.ingress_of(member))
        self.packets.forget_outs()
        self._resync.begin(member, dump)

    def lost(self, member: Member, was_ready: bool, reason: str) -> None:
        """A switch is lost: floods no longer go to it, and its ports go LINK_DOWN."""
        self._resync.stop(member)
        if was_ready:
            # While POX shuts down, a lost switch is not worth a warning.
            level = logging.WARNING if core.running else logging.INFO
            log.log(level, "%s: lost: %s", member, reason)
            self.discovery.lost(member)
            self.flows.removals.lost(member)
            self.portlist.announce(member)
            self.topology.changed()
            self.flows.expiry.lost(member)
            self._events.switch_lost(member.index, member.dpid, reason)

    def crowded(self, member: Member) -> None:
        """A message has been sent to a switch for which too much waits."""
        self._events.crowded(member.session.when_room)

    def flow_removed(self, member: Member, removed: FlowRemoved) -> None:
        """A switch has removed a copy of a flow, or a service rule."""
        if removed.cookie == SERVICE:
            member.rule_removed(removed.priority)
            self.audit.look_soon(member)
        else:
            self.flows.copy_removed(member, removed)

    def refused(self, member: Member, xid: int, error: bytes) -> None:
        """A switch has refused the message with this xid (error is the whole OFPT_ERROR)."""
        self.refusals.refused(member, xid, error)

    # --- ports ---------------------------------------------------------------------------------

    def port(self, number: int) -> Optional[tuple[Member, int]]:
        """The switch and the switch port behind a port that the controllers know; else None."""
        where = self.portlist.locate(number)
        return (self.topology.members[where[0]], where[1]) if where is not None else None
