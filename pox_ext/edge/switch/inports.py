"""
Translates in_ports of packets and matches between the big switch and one of its switches.

The results depend only on the ports of the switch and on the numbering of ports.
"""

from typing import Optional

import pox.openflow.libopenflow_01 as of

from edge.south.member import Member
from edge.switch.portnumbers import PortNumbers

# On a switch, the in_port _NO_PORT + n stands for a port n of the big switch that is not on this
# switch.  The ports of a switch that the big switch has are below these numbers.
_NO_PORT = 0xE000
_LARGEST_WITH_STAND_IN = of.OFPP_MAX - 1 - _NO_PORT
# Stands for OFPP_LOCAL of the big switch: frames on a switch's own OFPP_LOCAL do not belong to it.
_NO_LOCAL_PORT = _NO_PORT - 1


class InPorts:
    """Translates in_ports by the numbering of ports (numbers)."""

    def __init__(self, numbers: PortNumbers) -> None:
        self._numbers = numbers

    def to_packet(self, member: Member, in_port: int) -> int:
        """
        Translate the in_port of a packet-out from the big switch to a switch.

        If the switch does not have that port, the result is a number that none of its ports has,
        or OFPP_NONE.
        """
        where = self._numbers.locate(in_port)
        if where is not None and where[0] == member.index:
            _, port = where
            if port not in member.ports.all or member.ports.numbered(port):
                return port
        if in_port == of.OFPP_LOCAL:
            return _NO_LOCAL_PORT
        if in_port in member.ports.all or 1 <= in_port <= self._numbers.max_ports:
            # Only for a switch that has a port with such a number is there no number left.
            return _NO_PORT + in_port if in_port <= _LARGEST_WITH_STAND_IN else int(of.OFPP_NONE)
        return in_port

    def to_match(self, member: Member, in_port: int) -> int:
        """
        Translate the in_port of a match from the big switch to a switch.

        The result differs from to_packet() if the switch's tunnel port has this number.  Another
        port may get the number later, and the match has to match frames from that port then.  Until
        then no frame with this in_port meets the controllers' flows.
        """
        where = self._numbers.locate(in_port)
        if where is not None and where[0] == member.index:
            return where[1]
        return self.to_packet(member, in_port)

    def to_north(self, member: Member, port: int) -> Optional[int]:
        """The in_port on the big switch for an in_port of a switch; None if there is none."""
        ports = member.ports
        if port == of.OFPP_LOCAL or (port in ports.all and not ports.numbered(port)):
            return None
        if port == _NO_LOCAL_PORT:
            return int(of.OFPP_LOCAL)
        if 1 <= port <= self._numbers.max_ports:
            return self._numbers.number(member.index, port)
        meant = port - _NO_PORT
        if port < of.OFPP_MAX and (1 <= meant <= self._numbers.max_ports or meant in ports.all):
            return meant
        return port
