"""
The switches, and what the translation of flows has to know of them.

Whatever changes the translation (a switch that comes or goes, a port, a tunnel IP) is taken
together until the end of the turn, and is one change then.
"""

from typing import Callable, Optional

import pox.openflow.libopenflow_01 as of

from edge.poxfixes import end_of_turn
from edge.south.member import Member
from edge.south.translate import Ingress
from edge.switch.ports import PortNumbers
from edge.switch.queuekeys import QueueKeys

# For each switch: the actions (their wire form) whose translation is the same; None for all.
Unchanged = dict[Member, Optional[set[bytes]]]


class Topology:
    """
    The switches by their index.

    numbers: how ports are numbered
    retranslated: is told, once for all changes of a turn, what has stayed the same on each switch
    queue_rules_sent: see QueueKeys

    members: the switches by their index
    queue_keys: the tunnel keys that stand for queues of their ports
    """

    def __init__(
        self,
        numbers: PortNumbers,
        retranslated: Callable[[Unchanged], None],
        queue_rules_sent: Callable[[], None],
    ) -> None:
        self.numbers = numbers
        self.members: dict[int, Member] = {}
        self._retranslated = retranslated
        self.queue_keys = QueueKeys(self.members, numbers.locate, queue_rules_sent)
        self._due = False
        self.fragments: int = of.OFPC_FRAG_NORMAL
        # There has been a flow of priority 0.  It stays so: with the tables as they are then, the
        # counts of their table-miss rules go on.
        self._has_lowest = False

    # --- the switches --------------------------------------------------------------------------

    def add(self, member: Member) -> None:
        """A switch has connected for the first time."""
        self.members[member.index] = member
        self.queue_keys.tell(member)
        if self._has_lowest:
            member.use_lowest()
        member.set_fragments(self.fragments)

    def use_lowest(self) -> None:
        """There is a flow of priority 0: have a table for these on all switches from now on."""
        if not self._has_lowest:
            self._has_lowest = True
            for member in self.members.values():
                member.use_lowest()

    def set_fragments(self, flags: int) -> None:
        """Have all switches handle fragments so (OFPC_FRAG_*)."""
        if flags != self.fragments:
            self.fragments = flags
            for member in self.members.values():
                member.set_fragments(flags)

    def ready_members(self) -> list[Member]:
        """The switches that are connected and get all that changes."""
        return [member for member in self.members.values() if member.liveness.ready]

    def home(self, in_port: int) -> Optional[Member]:
        """The switch on which a flow with this in_port lives, None if there is none (yet)."""
        where = self.numbers.locate(in_port)
        return self.members.get(where[0]) if where is not None else None

    def tunnel_found(self, member: Member, ip: int) -> None:
        """A switch's tunnel IP has been discovered; nobody else has it any more."""
        for other in self.members.values():
            if other.tunnel_ip == ip:
                other.set_tunnel_ip(None)
        member.set_tunnel_ip(ip)

    # --- translation ---------------------------------------------------------------------------

    def ingress_of(self, member: Member) -> Ingress:
        """What the translation has to know when a packet enters at this switch."""
        # In the order of their indexes: it is the same after a restart.
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
        """Have every flow translated again, once, when what is going on now is done with."""
        if not self._due:
            self._due = True
            end_of_turn(self._translate_again)

    def _translate_again(self) -> None:
        self._due = False
        unchanged = {member: member.use(self.ingress_of(member)) for member in self.ready_members()}
        self._retranslated(unchanged)
