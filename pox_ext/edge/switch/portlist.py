"""The ports of the big switch, as the controllers know them."""

from typing import Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow.messages import PhyPort
from edge.south.member import Member
from edge.switch.events import BigSwitchEvents, Requester
from edge.switch.portnames import port_names
from edge.switch.portnumbers import PortNumbers


class PortList:
    """
    The ports that the controllers have been told of.

    numbers: how ports are numbered
    events: is told of each port that is added, changed or deleted
    """

    def __init__(self, numbers: PortNumbers, events: BigSwitchEvents) -> None:
        self.ports: dict[int, PhyPort] = {}
        self._numbers = numbers
        self._events = events

    def locate(self, number: int) -> Optional[tuple[int, int]]:
        """The (index, port) behind a port that the controllers know; None for any other."""
        return self._numbers.locate(number) if number in self.ports else None

    def announce(self, member: Member, but: Optional[Requester] = None) -> None:
        """
        Send a PORT_STATUS for each port of a switch that has been added, changed or deleted.

        but: the controller that asked for the change; as with Open vSwitch, it is not told
        """
        now = self._as_controllers_see(member)
        first = self._numbers.number(member.index, 1)
        numbers = range(first, first + self._numbers.max_ports)
        before = {number: self.ports[number] for number in numbers if number in self.ports}
        for number in numbers:
            if before.get(number) != now.get(number):
                reason = of.OFPPR_MODIFY
                if number not in now:
                    reason = of.OFPPR_DELETE
                elif number not in before:
                    reason = of.OFPPR_ADD
                port = now.get(number) or before[number]
                self._events.port_status(reason, port, but)
        for number in before:
            del self.ports[number]
        self.ports.update(now)

    def _as_controllers_see(self, member: Member) -> dict[int, PhyPort]:
        """A switch's ports, with their numbers and names on the big switch."""
        down = 0 if member.ready else of.OFPPS_LINK_DOWN
        own = {local: member.ports.all[local] for local in member.ports.own()}
        names = port_names(member.index, {local: port.name for local, port in own.items()})
        ports = {}
        for local, port in own.items():
            number = self._numbers.number(member.index, local)
            state = port.state | down
            ports[number] = port._replace(port_no=number, name=names[local], state=state)
        return ports
