"""
The protocols through which the big switch reports to the layers above it.

The layers import downwards only, so the big switch does not import the connections to controllers.
It knows just these two protocols.
"""

from typing import Optional, Protocol

from edge.openflow.messages import PhyPort


class Requester(Protocol):
    """The connection over which a controller's message came."""

    def send(self, data: bytes) -> None:
        """Send whole messages to this controller; without effect once its connection is closed."""


class BigSwitchEvents(Protocol):
    """Asynchronous messages for controllers, and news for other POX components."""

    def port_status(self, reason: int, port: PhyPort, but: Optional[Requester]) -> None:
        """
        A port has been added, deleted or modified (reason is an OFPPR_*).

        but: the controller that asked for the change; it is not sent the PORT_STATUS
        """

    def packet_in(self, message: bytes) -> None:
        """An OFPT_PACKET_IN for the controllers."""

    def flow_removed(self, message: bytes) -> None:
        """An OFPT_FLOW_REMOVED for the controllers."""

    def switch_up(self, index: int, dpid: int) -> None:
        """A switch has connected and has been brought up to date."""

    def switch_lost(self, index: int, dpid: int, reason: str) -> None:
        """A ready switch (SYNCING or UP) no longer answers, or its connection is closed."""

    def tunnel_found(self, index: int, dpid: int, ip: int) -> None:
        """A switch's tunnel IP (as a number) has been discovered."""
