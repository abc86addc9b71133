"""
Packet-ins and packet-outs, between the switches and the controllers.

The part of a message before its frame is translated once and remembered.  It is forgotten when
something changes that the translation depends on.  For the next message that begins with the same
bytes, only the frame is copied.
"""

import logging
from collections import defaultdict
from typing import Callable, NamedTuple, Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow import actions as act
from edge.openflow import messages
from edge.openflow.cache import Cache
from edge.openflow.errors import OpenFlowError
from edge.openflow.messages import PacketIn
from edge.openflow.text import actions_text
from edge.south.member import Member
from edge.south.rules import SERVICE, TABLE_LOWEST, TABLE_OPENFLOW, TABLE_REMOTE
from edge.south.translate import translate
from edge.south.xids import new_xid
from edge.switch.counts import Counts
from edge.switch.events import BigSwitchEvents, Requester
from edge.switch.flows import Flows
from edge.switch.inports import InPorts
from edge.switch.refusals import Change, Refusals
from edge.switch.topology import Topology

log = logging.getLogger("edge.switch")

# The longest frame, in bytes, for which an NXT_PACKET_IN has room in any case.  With a longer one
# the length field of Open vSwitch's message wraps around, and the connection becomes unreadable.
_LONGEST_TO_CONTROLLER = 65400
_TO_CONTROLLER = frozenset((of.OFPP_CONTROLLER, of.OFPP_TABLE))

# Translations of packet-outs are remembered in so many bytes, and of this length (bytes) at most.
_MOST_OUTS = 8 << 20
_LONGEST_KNOWN = 1 << 14
# Translations of packet-ins that are remembered for each switch.  One takes some 300 bytes.
_MOST_INS = 1024


class _Out(NamedTuple):
    """
    How a packet-out is executed.

    member: the switch of its in_port, or another one if that is not ready
    head: what the packet-out for that switch has from buffer_id to the actions
    direct: the same for the switch where the packet leaves, if that is another one
    """

    member: Member
    head: bytes
    direct: Optional[tuple[Member, bytes]]

    def now(self) -> tuple[Member, bytes]:
        """
        Return the switch that executes it now, and the head for that.

        Where the packet leaves, no burst is lost in a tunnel.  But the packet must not overtake a
        change of the in_port's switch: its answer might come before the flow that it is to meet.
        """
        direct = self.direct
        if direct is not None and self.member.session.settled and direct[0].liveness.ready:
            return direct
        return self.member, self.head


class Packets:
    """
    Translates packet-ins and packet-outs.

    flows: the flows of the big switch
    topology: the switches
    refusals: remembers packet-outs until no switch has refused them
    inports: translates in_ports
    counts: counts packet-ins
    probed: is given each packet-in that came out of a tunnel with tunnel key KEY_DISCOVERY; returns
        False if it is no probe of this aggregator
    events: is given the packet-ins for controllers
    """

    def __init__(
        self,
        flows: Flows,
        topology: Topology,
        refusals: Refusals,
        inports: InPorts,
        counts: Counts,
        probed: Callable[[Member, PacketIn], bool],
        events: BigSwitchEvents,
    ) -> None:
        self._flows = flows
        self._expiry = flows.expiry
        self._topology = topology
        self._refusals = refusals
        self._inports = inports
        self._counts = counts
        self._probed = probed
        self._events = events
        # By the bytes of a controller's packet-out from buffer_id to the actions.
        self._outs: Cache[bytes, _Out] = Cache(_MOST_OUTS)
        # For each switch: reason, table, cookie and in_port of a packet-in from it -> in_port and
        # reason of the packet-in for controllers.
        self._ins: dict[Member, dict[bytes, bytes]] = defaultdict(dict)

    def forget_outs(self) -> None:
        """Forget all packet-outs: the right switch, or the right actions, may be others now."""
        self._outs.clear()

    def forget(self, member: Member) -> None:
        """Forget all that depends on a switch's ports, since these have changed."""
        self._ins[member].clear()
        self._outs.clear()

    # --- packet-outs ---------------------------------------------------------------------------

    def packet_out(
        self, requester: Requester, message: bytes, in_port: int, actions: act.Actions, data: bytes
    ) -> bool:
        """
        Have one switch execute a controller's PACKET_OUT, whose fields have been checked.

        message: the whole message, of which in_port, actions and data (the frame) are parts

        Returns False if the message has to be handled again after a barrier.  Raises OpenFlowError:
        OFPBAC_TOO_MANY if no message to the switch has room for the translated actions,
        OFPBRC_BAD_LEN if the frame is too long for a packet-in to the controller.
        """
        member = self._topology.home(in_port)
        if member is None or not member.liveness.ready:
            member = self._some_member(actions)
        if member is None:
            return True
        local, translated = self._for_member(member, in_port, actions)
        if len(data) > _LONGEST_TO_CONTROLLER and not _TO_CONTROLLER.isdisjoint(actions.outputs):
            raise OpenFlowError(of.OFPET_BAD_REQUEST, of.OFPBRC_BAD_LEN)
        if len(translated) + len(data) > messages.LONGEST_PACKET_OUT:
            raise OpenFlowError(of.OFPET_BAD_ACTION, of.OFPBAC_TOO_MANY)
        if not self._topology.queue_keys.confirmed:
            # A service rule for a queue may not be on its switch yet, and the packet may need it.
            return False
        head = messages.packet_out(0, local, translated, b"")[8:]
        last = self._leaves_at(actions)
        direct = None
        if last is not None and last is not member:
            direct = (
                last,
                messages.packet_out(0, *self._for_member(last, in_port, actions), b"")[8:],
            )
        out = _Out(member, head, direct)
        member, sent = out.now()
        if log.isEnabledFor(logging.DEBUG):
            self._log_packet_out(member, actions)
        xid = self._refusals.track(Change(requester, message, actions.refusable))
        member.session.send(messages.repeat_packet_out(xid, sent, data))
        if len(translated) <= _LONGEST_KNOWN and not actions.refusable:
            key = message[8 : len(message) - len(data)]
            octets = len(direct[1]) if direct else 0
            self._outs.remember(key, out, len(key) + len(head) + octets)
        return True

    def _for_member(self, member: Member, in_port: int, actions: act.Actions) -> tuple[int, bytes]:
        """Translate the in_port and the actions of a packet-out for a switch that executes it."""
        local = self._inports.to_packet(member, in_port)
        matched = self._inports.to_match(member, in_port)
        if matched == local:
            return local, self._flows.translated(actions, member)
        self._flows.allocate_keys(actions, (member,))
        table = act.resubmit(TABLE_OPENFLOW, matched)
        return local, translate(actions, member.translations.ingress._replace(table=table))

    def _leaves_at(self, actions: act.Actions) -> Optional[Member]:
        """The switch where a packet leaves, if all outputs are ports of one ready switch."""
        members = {self._topology.home(port) for port in actions.outputs}
        member = members.pop() if len(members) == 1 and not actions.refusable else None
        return member if member is not None and member.liveness.ready else None

    def packet_out_again(
        self, requester: Requester, message: bytes, behind: Optional[Member] = None
    ) -> bool:
        """
        Execute a PACKET_OUT whose translation is remembered.

        A controller that forwards every frame by itself sends the same packet-outs over and over
        again, so this path is kept short.

        behind: the only switch that may execute it now; None for any

        Returns False, and does nothing, if the translation is not remembered.
        """
        frame = 16 + (message[14] << 8 | message[15])  # where the frame begins
        known = self._outs.get(message[8:frame])
        if known is None:
            return False
        member, head = known.now() if behind is None else (known.member, known.head)
        if not member.liveness.ready or (behind is not None and behind is not member):
            return False
        if 8 + len(head) + len(message) - frame > _LONGEST_KNOWN:
            return False
        if log.isEnabledFor(logging.DEBUG):
            self._log_packet_out(member, act.parse(message[16:frame]))
        xid = self._refusals.track(Change(requester, message))
        member.session.send(messages.repeat_packet_out(xid, head, message[frame:]))
        return True

    @staticmethod
    def _log_packet_out(member: Member, actions: act.Actions) -> None:
        log.debug("packet-out at %s: %s", member, actions_text(actions.wire))

    def _some_member(self, actions: act.Actions) -> Optional[Member]:
        """
        Choose the switch for a packet-out whose in_port is a port of no ready switch.

        That is a switch where the packet leaves, else one with a tunnel IP, else any ready switch.
        """
        for port in actions.outputs:
            member = self._topology.home(port)
            if member is not None and member.liveness.ready:
                return member
        ready = self._topology.ready_members()
        return next((m for m in ready if m.tunnel_ip is not None), ready[0] if ready else None)

    # --- packet-ins ----------------------------------------------------------------------------

    def packet_in(self, member: Member, message: bytes) -> None:
        """A switch has sent a packet-in (message is the whole NXT_PACKET_IN)."""
        # If the match has only an in_port, these bytes determine what the controllers are sent.
        known = self._ins[member].get(message[messages.PACKET_IN_KEY])
        if known is None or self._expiry.has_gaps:
            self._packet_in(member, message)
            return
        self._counts.packet_ins += 1
        self._events.packet_in(messages.repeat_packet_in(message, known))

    def _packet_in(self, member: Member, message: bytes) -> None:
        packet = messages.parse_packet_in(message)
        if packet.table == TABLE_REMOTE and packet.cookie == SERVICE:
            # Open vSwitch leaves out a tunnel key of 0.
            if member.liveness.ready and not packet.tunnel_key:
                self._counts.foreign_frames += not self._probed(member, packet)
            return
        in_port = self._inports.to_north(member, packet.in_port)
        if in_port is None:
            return  # the big switch has no such port
        missed = packet.cookie == SERVICE and packet.table in (TABLE_OPENFLOW, TABLE_LOWEST)
        reason = of.OFPR_NO_MATCH if missed else packet.reason
        taker = None if missed else self._flows.cookies.entry(packet.cookie)
        # Any other packet was sent to the controller by a packet-out, or by a flow that is gone.
        if missed or taker:
            flow = self._expiry.hit_in_gap(packet, in_port, taker)
            if flow is not None:
                translated = self._flows.translated_or_drop(flow.actions, member)
                sent = messages.packet_out(new_xid(), packet.in_port, translated, packet.data)
                member.session.send(sent)
                return
        self._counts.packet_ins += 1
        self._events.packet_in(
            messages.pack_packet_in(packet.total_len, in_port, reason, packet.data)
        )
        if messages.has_just_in_port(message):
            ins = self._ins[member]
            if len(ins) >= _MOST_INS:
                ins.clear()
            ins[message[messages.PACKET_IN_KEY]] = messages.pack_in_port_and_reason(in_port, reason)
