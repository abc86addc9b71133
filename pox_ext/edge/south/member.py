"""
One real switch: its session, its ports, its service rules, its translations and its counters.

A Member reports what the switch says by calling its MemberEvents.  It knows neither the flows of
the big switch nor the controllers.
"""

import logging
from collections import Counter
from typing import Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow import messages, stats
from edge.openflow import nicira as nx
from edge.openflow.messages import PhyPort
from edge.openflow.stats import FlowStats
from edge.poxfixes import EdgeConnection
from edge.south.complaints import Complaints
from edge.south.counters import Counters
from edge.south.events import MemberEvents
from edge.south.memberports import Bits, MemberPorts
from edge.south.rules import InstalledRules, Rule, left_out_rule, queue_rule, service_rules
from edge.south.session import ANSWERS, Session, State
from edge.south.translate import Ingress
from edge.south.translations import Translations
from edge.south.xids import new_xid

log = logging.getLogger("edge.member")

_MOST_FLOWS = 2000000
# Open vSwitch sends a FLOW_REMOVED at most this long after the flow entry has ended.
_LATE = 0.9  # seconds

_NXT_PACKET_IN = nx.NX_VENDOR_ID.to_bytes(4, "big") + nx.NXT_PACKET_IN.to_bytes(4, "big")

# Tunnel port, tunnel IP and ports of a switch, as far as the translation of flows depends on them.
Reach = tuple[Optional[int], Optional[int], tuple[int, ...]]


class Member:
    """
    One real switch.

    events: is told what the switch says
    index: the number by which its ports are numbered
    max_ports: the highest port number that the big switch has a number for
    session: its connection, and the requests on it
    liveness: whether it is connecting, syncing, up, silent or gone (part of the session)
    ports: its ports
    translations: controllers' actions, translated for this switch
    counters: its last known counters
    complaints: tells the operator what is wrong with it
    tunnel_ip: the IPv4 address (as a number) at which the other switches reach it; None if unknown
    """

    def __init__(
        self, events: "MemberEvents[Member]", index: int, dpid: int, max_ports: int
    ) -> None:
        self.index = index
        self.dpid = dpid
        self.tunnel_ip: Optional[int] = None
        self.complaints = Complaints(lambda text: log.warning("%s: %s", self, text))
        self.session = Session(
            str(self), self.complaints, self._received, self._hear_again, self._lost, self._crowded
        )
        self.liveness = self.session.liveness
        self.ports = MemberPorts(max_ports, self.complaints)
        self.translations = Translations(str(self), self.complaints)
        self.counters = Counters()
        self._events = events
        self._rules = InstalledRules()
        self._queue_keys: dict[tuple[int, int], int] = {}  # (port, queue) -> tunnel key
        self._has_lowest = False
        self._fragments = of.OFPC_FRAG_NORMAL
        self._dump: list[FlowStats] = []
        self._ports_asked_at = -1  # see _ask_ports_again
        self._interference: Counter[str] = Counter()  # what was made right, and how often

    def __str__(self) -> str:
        return f"switch {self.index}" if self.index == self.dpid else f"switch {self.dpid:#x}"

    @property
    def ready(self) -> bool:
        """True while the switch is connected and is sent every change."""
        return self.liveness.ready

    @property
    def state(self) -> State:
        """Whether it is connecting, syncing, up, silent or gone."""
        return self.liveness.state

    def interfered(self, what: str, number: int = 1) -> None:
        """Somebody else has changed flow entries: tell the operator what was done about it."""
        self._interference[what] += number
        self.complaints.happened("interference", self._say_interference)

    def _say_interference(self) -> str:
        done = ", ".join(f"{what}: {number}" for what, number in self._interference.items())
        self._interference.clear()
        return f"somebody else has changed its flow entries ({done})"

    # --- connection ----------------------------------------------------------------------------

    def connect(self, connection: EdgeConnection) -> None:
        """Use a connection whose handshake is done: ask for the switch's ports and flow entries."""
        self.session.connect(connection)
        self.complaints.begin_again()
        self.session.send(messages.set_packet_in_format(new_xid()))
        self.session.send(messages.use_table_ids(new_xid()))
        self.session.send(messages.report_evictions(new_xid()))
        self._configure()
        # POX has asked already, but a change of a port since then would be missed.
        self.session.request(messages.features_request, self._features, lambda: None)

    def _features(self, kind: int, message: bytes) -> bool:
        reach = self.reach()
        ports = messages.parse_features(message)
        self._configure_ports(self.ports.read(ports, self.session.executed))
        self._ports_changed(reach)
        self.session.flows_asked()
        self.session.request(stats.dump_flows, self._flows_part, lambda: None)
        return True

    def _flows_part(self, kind: int, message: bytes) -> bool:
        if kind != of.OFPT_STATS_REPLY:
            log.error("%s: does not tell its flows; it is not an Open vSwitch", self)
            self.session.disconnect("not an Open vSwitch")
            return True
        self._dump.extend(stats.parse_flows(message))
        if len(self._dump) > _MOST_FLOWS:
            self.session.disconnect(f"it says that it has more than {_MOST_FLOWS} flows")
            return True
        if stats.is_more(message):
            return False
        dump, self._dump = self._dump, []
        self.session.flows_told()
        self._events.flows_read(self, dump)
        return True

    def closed(self, connection: EdgeConnection) -> None:
        """A connection is closed; perhaps it was that of this switch."""
        self.session.closed(connection)

    def watch(self, now: float, awake_since: float, timeout: float) -> None:
        """Do the periodic work (see Session.watch).  To be called some ten times a second."""
        if now > max(self.liveness.compared_at, awake_since) + _LATE:
            self.counters.forget_lost_copies()
        self.complaints.tick(now)
        self.session.watch(now, awake_since, timeout)

    def compared(self, now: float) -> None:
        """The switch's flow entries have been compared with the wanted ones."""
        self.liveness.compared(now)

    def synced(self) -> None:
        """The switch has been sent all that it lacked."""
        self.liveness.synced()

    def _lost(self, was_ready: bool, reason: str) -> None:
        self._rules.read({})
        self._dump = []
        self.translations.forget()
        self._events.lost(self, was_ready, reason)

    def _crowded(self) -> None:
        self._events.crowded(self)

    # --- what it says --------------------------------------------------------------------------

    def _received(self, kind: int, message: bytes) -> bool:
        """Handle a message from the switch before POX does.  Returns False to leave it to POX."""
        if kind == of.OFPT_VENDOR:
            if message[8:16] == _NXT_PACKET_IN:
                self._events.packet_in(self, message)
            return True
        xid = int.from_bytes(message[4:8], "big")
        if self.session.answered(xid, kind, message):
            return True
        if kind == of.OFPT_FLOW_REMOVED:
            self.session.reported()
            self._events.flow_removed(self, messages.parse_flow_removed(message))
        elif kind == of.OFPT_PORT_STATUS:
            self._port_status(message[8], messages.parse_phy_port(message, 16))
        elif kind == of.OFPT_ERROR:
            self._events.refused(self, xid, message)
        elif kind == of.OFPT_ECHO_REQUEST:
            return False
        return True

    def _hear_again(self, kind: int, message: bytes) -> bool:
        """Handle a message from a switch that was silent.  Returns False to leave it to POX."""
        if kind not in ANSWERS and kind != of.OFPT_FLOW_REMOVED:
            # This does not show that it receives what we send.  POX answers echo requests.
            return bool(kind != of.OFPT_ECHO_REQUEST)
        self.connect(self.session.silent_connection())
        return self._received(kind, message)

    def _port_status(self, reason: int, port: PhyPort) -> None:
        number, executed = port.port_no, self.session.executed
        if number >= of.OFPP_MAX and number != of.OFPP_LOCAL:
            return
        if self.ports.in_doubt(port, executed):
            self._ask_ports_again()
        reach, complete = self.reach(), self.ports.complete
        self._configure_ports(self.ports.changed(reason, port, executed))
        if number == of.OFPP_LOCAL:
            return  # it is not a port of the big switch
        if self.ready:
            if (reach, complete) == (self.reach(), self.ports.complete):
                # There may be thousands of ports that are left out: one costs one rule.
                self._update_left_out(number)
            else:
                self.update_rules()
        self._ports_changed(reach)

    def _ask_ports_again(self) -> None:
        """Ask the switch for its ports; not twice if it has been sent nothing in between."""
        position = self.session.position
        if position == self._ports_asked_at:
            return
        self._ports_asked_at = position

        def answered(kind: int, message: bytes) -> bool:
            if kind == of.OFPT_FEATURES_REPLY:
                ports = messages.parse_features(message)
                self._configure_ports(self.ports.told_again(ports, position))
                self._ports_changed(self.reach())
            return True

        self.session.request(messages.features_request, answered, lambda: None)

    def _configure_ports(self, port_mods: list[bytes]) -> None:
        for each in port_mods:
            if self.session.configure(each):
                self.ports.sent(self.session.position)

    def _ports_changed(self, before: Reach) -> None:
        if before[0] != self.ports.tunnel:
            self.tunnel_ip = None
            self._events.tunnel_changed(self)
        self._events.ports_changed(self, before != self.reach())

    def reach(self) -> Reach:
        """All of this switch that the translation depends on, here and on other switches."""
        return self.ports.tunnel, self.tunnel_ip, tuple(sorted(self.ports.own()))

    # --- what is set on it ---------------------------------------------------------------------

    def set_fragments(self, flags: int) -> None:
        """Set how the switch handles fragments (OFPC_FRAG_*), now and whenever it reconnects."""
        self._fragments = flags
        self._configure()

    def _configure(self) -> None:
        # With a miss_send_len of 0xFFFF, packet-ins contain the whole frame.
        self.session.configure(messages.set_config(new_xid(), self._fragments, 0xFFFF))

    def modify_port(self, number: int, bits: Bits, advertise: int, xid: int) -> None:
        """Set bits of a port, and its advertised features unless 0 (see MemberPorts.modify)."""
        self._configure_ports([self.ports.modify(number, bits, advertise, xid)])

    def set_tunnel_ip(self, ip: Optional[int]) -> None:
        """The switch's tunnel IP has been discovered; None if another switch has it now."""
        self.tunnel_ip = ip

    def use(self, ingress: Ingress) -> Optional[set[bytes]]:
        """Use this Ingress for all translations from now on (see Translations.use)."""
        return self.translations.use(ingress)

    def use_queue_key(self, port: int, queue: int, key: int) -> None:
        """Have frames from the tunnel with this tunnel key enqueued to this queue of this port."""
        self._queue_keys[port, queue] = key
        if self.ready and self.ports.tunnel is not None:
            for each in self._rules.add(*queue_rule(port, queue, key)):
                self.session.send(each)

    def forget_queue_keys(self) -> None:
        """Delete the service rules for queues: no flow uses their tunnel keys any more."""
        self._queue_keys = {}
        if self.ready:
            self.update_rules()

    def use_lowest(self) -> None:
        """Have a table for flows of priority 0 from now on: there is one."""
        self._has_lowest = True
        if self.ready:
            self.update_rules()

    # --- service rules -------------------------------------------------------------------------

    def wanted_rules(self) -> dict[Rule, bytes]:
        """The service rules that this switch has to have."""
        return service_rules(
            self.ports.tunnel,
            self.ports.own(),
            self.ports.left_out(),
            self._queue_keys,
            self._has_lowest,
        )

    def installed_rules(self) -> dict[Rule, bytes]:
        """The service rules that the switch was sent, with their actions."""
        return self._rules.all()

    def update_rules(self, found: Optional[dict[Rule, bytes]] = None) -> None:
        """
        Send the switch the difference to the service rules that it has to have.

        found: the service rules that the switch has, if it has just sent its flow entries
        """
        if found is not None:
            self._rules.read(found)
        for each in self._rules.update(self.wanted_rules()):
            self.session.send(each)

    def _update_left_out(self, port: int) -> None:
        """Send the switch the rule for a port that is left out, or delete it."""
        rule, does = left_out_rule(port)
        if self.ports.leaves_out(port):
            changes = self._rules.add(rule, does)
        elif port != self.ports.tunnel:  # the rule of the tunnel port has the same match
            changes = self._rules.remove(rule)
        else:
            return
        for each in changes:
            self.session.send(each)

    def rule_removed(self, priority: int) -> None:
        """The switch has removed a service rule of this priority."""
        if not priority and self.ready:
            self.session.disconnect("somebody else has deleted its flows; it is set up again")
