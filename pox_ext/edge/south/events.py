"""
The protocol through which a Member reports to the layer above it.

The layers import downwards only, so a Member does not import the big switch.  It knows just this
protocol.
"""

from typing import Protocol, TypeVar

from edge.openflow.messages import FlowRemoved
from edge.openflow.stats import FlowStats

M_contra = TypeVar("M_contra", contravariant=True)


class MemberEvents(Protocol[M_contra]):
    """Is told what happens on a switch; M_contra is the type of the Member that reports it."""

    def ports_changed(self, member: M_contra, reach_changed: bool) -> None:
        """
        The switch's ports have been read, or one of them has changed.

        reach_changed: True if its tunnel port has changed, or the set of its ports that the big
            switch has, so that flows have to be translated again
        """

    def tunnel_changed(self, member: M_contra) -> None:
        """The switch has another tunnel port, or none any more."""

    def flows_read(self, member: M_contra, dump: list[FlowStats]) -> None:
        """The switch has sent the flow entries of all its tables; it is ready from now on."""

    def lost(self, member: M_contra, was_ready: bool, reason: str) -> None:
        """
        The switch's connection is closed, or the switch does not answer any more.

        was_ready: True if it was ready (see Liveness) until now
        """

    def crowded(self, member: M_contra) -> None:
        """
        A message has been sent to the switch while too much waits that it does not read.

        It is sent all the same.  Whoever wants more to be sent has to wait (see Session.when_room).
        """

    def packet_in(self, member: M_contra, message: bytes) -> None:
        """The switch has sent a packet (message is the whole NXT_PACKET_IN)."""

    def flow_removed(self, member: M_contra, removed: FlowRemoved) -> None:
        """The switch has removed a copy of a flow, or a service rule."""

    def refused(self, member: M_contra, xid: int, error: bytes) -> None:
        """The switch has refused the message with this xid (error is the whole OFPT_ERROR)."""
