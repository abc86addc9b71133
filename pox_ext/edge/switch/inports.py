"""
The in_ports of packets and matches, between the big switch and one of its switches.

Pure functions of a switch's ports and of how ports are numbered.
"""

from typing import Optional

import pox.openflow.libopenflow_01 as of

from edge.south.member import Member
from edge.switch.ports import PortNumbers

# Numbers from here on stand for ports that are not there.  They are above the numbers of real
# ports (a switch that has so many has them left out).
_NO_PORT = 0xE000
_NO_LOCAL_PORT = _NO_PORT - 1  # stands for OFPP_LOCAL, since a switch's own has frames of its own


class InPorts:
    """Translates in_ports, by how ports are numbered."""

    def __init__(self, numbers: PortNumbers) -> None:
        self._numbers = numbers

    def to_packet(self, member: Member, in_port: int) -> int:
        """
        The in_port of a packet-out on a switch that stands for an in_port of the big switch.

        A port that the switch does not have is given a number that none of its ports has.
        """
        where = self._numbers.locate(in_port)
        if where is not None and where[0] == member.index:
            _, port = where
            if port not in member.ports.all or member.ports.numbered(port):
                return port
        if in_port == of.OFPP_LOCAL:
            return _NO_LOCAL_PORT
        if in_port in member.ports.all or 1 <= in_port <= self._numbers.max_ports:
            return _NO_PORT + in_port
        return in_port

    def to_match(self, member: Member, in_port: int) -> int:
        """
        The same in a match.

        It differs for the number of the tunnel port: another port may get that number later, and
        then a match of it has to match that port.  No packet has this in_port before.
        """
        where = self._numbers.locate(in_port)
        if where is not None and where[0] == member.index:
            return where[1]
        return self.to_packet(member, in_port)

    def to_north(self, member: Member, port: int) -> Optional[int]:
        """The in_port of the big switch for one of a switch; None if the big switch has none."""
        ports = member.ports
        if port == of.OFPP_LOCAL or (port in ports.all and not ports.numbered(port)):
            return None
        if port == _NO_LOCAL_PORT:
            return int(of.OFPP_LOCAL)
        if 1 <= port <= self._numbers.max_ports:
            return self._numbers.number(member.index, port)
        if _NO_PORT < port <= _NO_PORT + self._numbers.max_ports or port - _NO_PORT in ports.all:
            return port - _NO_PORT
        return port
