"""
The protocols through which the big switch reports to the layers above it.

The layers import downwards only, so the big switch does not import the connections to controllers.
It knows just these two protocols.
"""

from typing import Optional, Protocol

from edge.openflow.messages import PhyPort
from edge.poxfixes import When


class Requester(Protocol):
    """The connection over which a controller's message came."""

    def send(self, data: bytes) -> None:
        """Send whole messages to this controller; without effect once its connection is closed."""

    def pause(self, until: When) -> None:
        """
        Handle no further messages of this controller until `until` calls back.

        The message that is being handled is not affected.
        """


class BigSwitchEvents(Protocol):
    """Asynchronous messages for controllers, and news for other POX components."""

    def port_status(self, reason: int, port: PhyPort, but: Optional[Requester]) -> None:
        """
        A port has been added, deleted or modified (reason is an OFPPR_*).

        but: the controller that asked for the change; it is not sent the PORT_STATUS
        """

    def crowded(self, when_room: When) -> None:
        """
        A controller's message has led to one to a switch for which too much waits already.

        The controller whose message is being handled, if one is, has to be held back.

        when_room: calls back when little waits for the switch, or when it is lost
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
