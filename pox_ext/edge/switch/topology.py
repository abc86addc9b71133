"""
The switches, and what the translation of actions needs to know about them.

A switch that connects or is lost, a changed port and a new tunnel IP each change the translation.
All such changes in one turn of POX's loop are handled as one change at the end of the turn.
"""

from typing import Callable, Optional

import pox.openflow.libopenflow_01 as of

from edge.poxfixes import end_of_turn
from edge.south.member import Member
from edge.south.translate import Ingress
from edge.switch.portnumbers import PortNumbers
from edge.switch.queuekeys import QueueKeys

# For each switch: the actions (wire form) whose translation has stayed the same; None for all.
Unchanged = dict[Member, Optional[set[bytes]]]


class Topology:
    """
    The switches by their index.

    numbers: how ports are numbered
    retranslated: is called once for all changes of a turn, with what has stayed the same
    queue_keys_changed: see QueueKeys

    members: the switches by their index
    queue_keys: the tunnel keys that stand for queues of their ports
    """

    def __init__(
        self,
        numbers: PortNumbers,
        retranslated: Callable[[Unchanged], None],
        queue_keys_changed: Callable[[], None],
    ) -> None:
        self.numbers = numbers
        self.members: dict[int, Member] = {}
        self._retranslated = retranslated
        self.queue_keys = QueueKeys(self.members, numbers.locate, queue_keys_changed)
        self._due = False
        self.fragments: int = of.OFPC_FRAG_NORMAL
        # True once there has been a flow of priority 0.  It is never reset, so that the table-miss
        # rules, and with them their counters, stay.
        self._has_lowest = False

    # --- the switches --------------------------------------------------------------------------

    def add(self, member: Member) -> None:
        """A switch has connected for the first time."""
        self.members[member.index] = member
        self.queue_keys.tell(member)
        if self._has_lowest:
            member.use_lowest()
        member.set_fragments(self.fragments)
        member.use(self.ingress_of(member))

    def use_lowest(self) -> None:
        """Have a table for flows of priority 0 on all switches from now on: there is one."""
        if not self._has_lowest:
            self._has_lowest = True
            for member in self.members.values():
                member.use_lowest()

    def set_fragments(self, flags: int) -> None:
        """Set how all switches handle IP fragments (flags are OFPC_FRAG_*)."""
        if flags != self.fragments:
            self.fragments = flags
            for member in self.members.values():
                member.set_fragments(flags)

    def ready_members(self) -> list[Member]:
        """The switches that are connected and are sent every change."""
        return [member for member in self.members.values() if member.liveness.ready]

    def home(self, in_port: int) -> Optional[Member]:
        """The switch that has this aggregator port; None if there is none (yet)."""
        where = self.numbers.locate(in_port)
        return self.members.get(where[0]) if where is not None else None

    def tunnel_found(self, member: Member, ip: int) -> None:
        """A switch's tunnel IP has been discovered; a switch that had it before loses it."""
        for other in self.members.values():
            if other.tunnel_ip == ip:
                other.set_tunnel_ip(None)
        member.set_tunnel_ip(ip)

    # --- translation ---------------------------------------------------------------------------

    def ingress_of(self, member: Member) -> Ingress:
        """What the translation needs to know for packets that enter at this switch."""
        # Sorted by index, so that the translation is the same after a restart.
        remote_ips: dict[int, int] = {}
        flood_ips: list[int] = []
        for index, other in sorted(self.members.items()):
            if other is not member and other.tunnel_ip is not None:
                remote_ips[index] = other.tunnel_ip
                if other.liveness.ready and other.ports.tunnel:
                    flood_ips.append(other.tunnel_ip)
        return Ingress(
            member.index,
            member.ports.tunnel,
            tuple(sorted(member.ports.own())),
            remote_ips,
            tuple(flood_ips),
            self.numbers.locate,
            self.queue_keys.by_queue,
        )

    def changed(self) -> None:
        """Have all flows translated again, once, at the end of this turn of POX's loop."""
        if not self._due:
            self._due = True
            end_of_turn(self._translate_again)

    def _translate_again(self) -> None:
        self._due = False
        unchanged = {member: member.use(self.ingress_of(member)) for member in self.ready_members()}
        self._retranslated(unchanged)
