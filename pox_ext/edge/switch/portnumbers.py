"""
Port numbers of the big switch.

A real port is known by its switch's index (the switch's dpid, unless the user gives another
numbering) and by its number on that switch.  The big switch numbers it

    aggregator port = switch port + max_ports * (index - 1)

so with the default of 16 ports, s1 has 1 to 16, s2 has 17 to 32, and so on.
"""

from typing import Optional

import pox.openflow.libopenflow_01 as of

from edge.south.rules import KEY_ALL

MAX_PORT_NUMBER = 16

# The largest max_ports that leaves KEY_ALL and KEY_FLOOD alone.
LARGEST_MAX_PORTS = KEY_ALL - 1


class Unnumbered(ValueError):
    """A real port (or a whole switch) for which the big switch has no port number."""


class PortNumbers:
    """
    The mapping (switch index, switch port) <-> aggregator port.

    max_ports: how many port numbers each switch gets, 1 to LARGEST_MAX_PORTS.
    Raises ValueError if max_ports is out of that range.
    """

    def __init__(self, max_ports: int = MAX_PORT_NUMBER) -> None:
        if not 1 <= max_ports <= LARGEST_MAX_PORTS:
            raise ValueError(
                f"max_ports is {max_ports}: it must be 1 to {LARGEST_MAX_PORTS}, since larger "
                "port numbers would meet the tunnel keys 0x7e and 0x7f"
            )
        self.max_ports = max_ports
        # Port numbers from OFPP_MAX on are reserved (OpenFlow 1.0.0, 5.2.1).
        self.last_index = (of.OFPP_MAX - 1) // max_ports

    def check_index(self, index: int) -> None:
        """Raise Unnumbered unless every port of the switch with this index has a number."""
        if not 1 <= index <= self.last_index:
            raise Unnumbered(
                f"its number is not 1 to {self.last_index}, so its ports cannot be numbered"
            )

    def number(self, index: int, port: int) -> int:
        """The aggregator port of a switch's port.  Raises Unnumbered if there is none."""
        self.check_index(index)
        if not 1 <= port <= self.max_ports:
            raise Unnumbered(f"port {port} is not 1 to {self.max_ports}")
        return port + self.max_ports * (index - 1)

    def locate(self, number: int) -> Optional[tuple[int, int]]:
        """The (index, port) behind an aggregator port; None if the number is out of range."""
        if not 1 <= number < of.OFPP_MAX:
            return None
        index, port = divmod(number - 1, self.max_ports)
        if index >= self.last_index:
            return None
        return index + 1, port + 1
