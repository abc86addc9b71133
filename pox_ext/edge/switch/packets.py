"""
Packets between the switches and the controllers: packet-ins, packet-outs, and their in_ports.

What one begins with is translated once and remembered, until something changes that it hangs on:
of the next one like it only the frame is copied.
"""

import logging
import struct
from collections import defaultdict
from typing import Callable, Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow import actions as act
from edge.openflow import messages
from edge.openflow.errors import OpenFlowError
from edge.openflow.messages import PacketIn
from edge.openflow.text import actions_text
from edge.south.member import Member
from edge.south.rules import SERVICE, TABLE_LOWEST, TABLE_OPENFLOW, TABLE_REMOTE
from edge.south.translate import translate
from edge.switch.counts import Counts
from edge.switch.events import BigSwitchEvents, Requester
from edge.switch.flows import Flows
from edge.switch.inports import InPorts
from edge.switch.refusals import Change, Refusals
from edge.switch.topology import Topology

log = logging.getLogger("edge.switch")

_PACKET_IN = struct.Struct("!BBHLLHHBx")
_PACKET_IN_HEAD = struct.Struct("!BBHLL")
# Of an NXT_PACKET_IN: total_len, and from its reason on, up to the frame.
_PACKET_IN_TOTAL_LEN = slice(20, 22)
_PACKET_IN_KEY = slice(22, messages.PACKET_IN_DATA)
_HEADER = struct.Struct("!BBHL")

# What an NXT_PACKET_IN surely has room for.  Open vSwitch sends longer ones with a length that has
# wrapped around, which costs the connection.
_LONGEST_TO_CONTROLLER = 65400
_TO_CONTROLLER = frozenset((of.OFPP_CONTROLLER, of.OFPP_TABLE))

# Packet-ins and packet-outs of which the translation is remembered, and how long these may be.
_MOST_KNOWN = 1024
_LONGEST_KNOWN = 1 << 14


class Packets:
    """
    Translates packet-ins and packet-outs.

    flows: the flows of the big switch
    topology: the switches
    refusals: remembers packet-outs until no switch has refused them
    inports: translates in_ports
    counts: counts packet-ins
    probed: is handed what comes out of a tunnel with the key of discovery
    events: is handed the packet-ins
    """

    def __init__(
        self,
        flows: Flows,
        topology: Topology,
        refusals: Refusals,
        inports: InPorts,
        counts: Counts,
        probed: Callable[[Member, PacketIn], None],
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
        # Buffer, in_port and actions of a controller's packet-out -> the switch that does it, and
        # what the message to it begins with behind its header.
        self._outs: dict[bytes, tuple[Member, bytes]] = {}
        # What a packet-in of a switch begins with -> what it is for the controllers.
        self._ins: dict[Member, dict[bytes, bytes]] = defaultdict(dict)

    def forget_outs(self) -> None:
        """What packet-outs become, or the switch that does them, may be another now."""
        self._outs.clear()

    def forget(self, member: Member) -> None:
        """A switch has other ports: nothing that was translated with them is used any more."""
        self._ins[member].clear()
        self._outs.clear()

    # --- packet-outs ---------------------------------------------------------------------------

    def packet_out(
        self, requester: Requester, message: bytes, in_port: int, actions: act.Actions, data: bytes
    ) -> bool:
        """
        A controller's PACKET_OUT that has been found good: one switch does it.

        Returns False if it has to be done again behind a barrier.  Raises OpenFlowError if its
        actions are too many.
        """
        member = self._topology.home(in_port)
        if member is None or not member.liveness.ready:
            member = self._some_member(actions)
        if member is None:
            return True
        self._flows.keys_for(actions, (member,))
        local = self._inports.to_packet(member, in_port)
        matched = self._inports.to_match(member, in_port)
        if matched == local:
            translated = member.translations.translated(actions)
        else:
            table = act.resubmit(TABLE_OPENFLOW, matched)
            translated = translate(actions, member.translations.ingress._replace(table=table))
        if len(data) > _LONGEST_TO_CONTROLLER and not _TO_CONTROLLER.isdisjoint(actions.outputs):
            raise OpenFlowError(of.OFPET_BAD_REQUEST, of.OFPBRC_BAD_LEN)
        if len(translated) + len(data) > messages.LONGEST_PACKET_OUT:
            raise OpenFlowError(of.OFPET_BAD_ACTION, of.OFPBAC_TOO_MANY)
        if not self._topology.queue_rules_confirmed:
            # Another switch has got a rule for one of its queues: the packet, or a flow that it
            # meets, may need it.
            return False
        if log.isEnabledFor(logging.DEBUG):
            self._log_packet_out(member, actions)
        xid = self._refusals.track(Change(requester, message, actions.refusable))
        sent = messages.packet_out(xid, local, translated, data)
        member.session.send(sent)
        if len(translated) <= _LONGEST_KNOWN and not actions.refusable:
            if len(self._outs) >= _MOST_KNOWN:
                self._outs.clear()
            frame = len(message) - len(data)  # where it begins
            self._outs[message[8:frame]] = member, sent[8 : 16 + len(translated)]
        return True

    def packet_out_again(
        self, requester: Requester, message: bytes, behind: Optional[Member] = None
    ) -> bool:
        """
        Do a PACKET_OUT if one like it, but for its frame, has been done as things are now.

        That is all that a controller pays for who sends every frame by itself, so it is short.

        behind: the switch that has to have done something before it; it is not done if another
            one would do it
        """
        frame = 16 + (message[14] << 8 | message[15])  # where it begins
        known = self._outs.get(message[8:frame])
        if known is None:
            return False
        member, head = known
        if not member.liveness.ready or (behind is not None and behind is not member):
            return False
        length = 8 + len(head) + len(message) - frame
        if length > _LONGEST_KNOWN:
            return False
        if log.isEnabledFor(logging.DEBUG):
            self._log_packet_out(member, act.parse(message[16:frame]))
        xid = self._refusals.track(Change(requester, message))
        header = _HEADER.pack(of.OFP_VERSION, of.OFPT_PACKET_OUT, length, xid)
        member.session.send(header + head + message[frame:])
        return True

    @staticmethod
    def _log_packet_out(member: Member, actions: act.Actions) -> None:
        log.debug("packet-out at %s: %s", member, actions_text(actions.wire))

    def _some_member(self, actions: act.Actions) -> Optional[Member]:
        """A switch for a packet that enters nowhere: best the one where it leaves."""
        for port in actions.outputs:
            member = self._topology.home(port)
            if member is not None and member.liveness.ready:
                return member
        ready = self._topology.ready_members()
        return next((m for m in ready if m.tunnel_ip is not None), ready[0] if ready else None)

    # --- packet-ins ----------------------------------------------------------------------------

    def packet_in(self, member: Member, message: bytes) -> None:
        """A switch has sent a packet to its controller (the whole NXT_PACKET_IN)."""
        # What it is to the controllers hangs on these bytes alone, if it has just an in_port.
        known = self._ins[member].get(message[_PACKET_IN_KEY])
        if known is None or self._expiry.has_gaps:
            self._packet_in(member, message)
            return
        self._counts.packet_ins += 1
        length = len(message) - messages.PACKET_IN_DATA + _PACKET_IN.size
        self._events.packet_in(
            _PACKET_IN_HEAD.pack(of.OFP_VERSION, of.OFPT_PACKET_IN, length, 0, messages.NO_BUFFER)
            + message[_PACKET_IN_TOTAL_LEN]
            + known
            + message[messages.PACKET_IN_DATA :],
        )

    def _packet_in(self, member: Member, message: bytes) -> None:
        packet = messages.parse_packet_in(message)
        if packet.table == TABLE_REMOTE and packet.cookie == SERVICE:
            # Open vSwitch leaves out a key that is 0.
            if member.liveness.ready and not packet.tunnel_key:
                self._probed(member, packet)
            return
        in_port = self._inports.to_north(member, packet.in_port)
        if in_port is None:
            return  # the big switch has no such port
        missed = packet.cookie == SERVICE and packet.table in (TABLE_OPENFLOW, TABLE_LOWEST)
        reason = of.OFPR_NO_MATCH if missed else packet.reason
        taker = None if missed else self._flows.cookies.entry(packet.cookie)
        # What comes from neither has been sent by a packet-out, or by a flow that is gone.
        if (missed or taker) and self._expiry.forward_in_gap(member, packet, in_port, taker):
            return
        data = packet.data
        self._counts.packet_ins += 1
        told = _PACKET_IN.pack(
            of.OFP_VERSION,
            of.OFPT_PACKET_IN,
            _PACKET_IN.size + len(data),
            0,
            messages.NO_BUFFER,
            packet.total_len,
            in_port,
            reason,
        )
        self._events.packet_in(told + data)
        if messages.has_just_in_port(message):
            ins = self._ins[member]
            if len(ins) >= _MOST_KNOWN:
                ins.clear()
            ins[message[_PACKET_IN_KEY]] = told[14:]
