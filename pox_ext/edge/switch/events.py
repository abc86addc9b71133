"""
What the big switch tells those above it.

The layers import downwards, so the big switch does not know the connections to controllers.  It
knows these two protocols.
"""

from typing import Optional, Protocol

from edge.openflow.messages import PhyPort


class Requester(Protocol):
    """The connection over which a controller's message came."""

    def send(self, data: bytes) -> None:
        """Send whole messages to this controller; without effect once it has gone."""


class BigSwitchEvents(Protocol):
    """Asynchronous messages for controllers, and news for other POX components."""

    def port_status(self, reason: int, port: PhyPort, but: Optional[Requester]) -> None:
        """
        A port has been added, deleted or modified (reason is an OFPPR_*).

        but: the controller that is not told, since it has asked for the change
        """

    def packet_in(self, message: bytes) -> None:
        """An OFPT_PACKET_IN for the controllers."""

    def flow_removed(self, message: bytes) -> None:
        """An OFPT_FLOW_REMOVED for the controllers."""

    def switch_up(self, index: int, dpid: int) -> None:
        """A switch has connected and has what it has to have."""

    def switch_lost(self, index: int, dpid: int, reason: str) -> None:
        """A switch that was up does not answer any more, or its connection is closed."""

    def tunnel_found(self, index: int, dpid: int, ip: int) -> None:
        """A switch's tunnel IP (as a number) has been discovered."""
