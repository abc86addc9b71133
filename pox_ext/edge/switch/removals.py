"""
Flows that have ended, until the switches have reported the final counters of their copies.

Open vSwitch sends a FLOW_REMOVED when the last packets are counted.  That can be after it has
answered a later barrier.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Callable

from edge.south.member import Member
from edge.switch.flowtable import FlowEntry

# A switch that has sent no FLOW_REMOVED by then did not have a copy.
LONGEST_WAIT = 2.0  # seconds


class _Removal:
    """
    A flow that has ended.

    waiting: the switches that have not sent the FLOW_REMOVED of their copy yet
    reason: why the flow ended (OFPRR_*)
    ended: when it ended (seconds, monotonic)
    """

    __slots__ = ("waiting", "reason", "ended")

    def __init__(self, waiting: set[Member], reason: int, ended: float) -> None:
        self.waiting = waiting
        self.reason = reason
        self.ended = ended


class Removals:
    """
    Waits for the FLOW_REMOVED of every copy of a flow.

    done: is called with the flow, the reason (OFPRR_*) and the time of its end.  By then each
        switch has sent its FLOW_REMOVED, or is lost, or LONGEST_WAIT is over.
    """

    def __init__(self, done: Callable[[FlowEntry, int, float], None]) -> None:
        self._done = done
        self._removals: dict[FlowEntry, _Removal] = {}

    def __len__(self) -> int:
        return len(self._removals)

    def __iter__(self) -> Iterator[FlowEntry]:
        """Iterate over the flows that wait for a FLOW_REMOVED."""
        return iter(self._removals)

    def begin(self, entry: FlowEntry, members: Iterable[Member], reason: int) -> None:
        """A flow has ended; these switches have been told to delete their copies."""
        self._removals[entry] = _Removal(set(members), reason, time.monotonic())
        self._finish_if_told(entry)

    def told(self, member: Member, entry: FlowEntry) -> None:
        """A switch has sent the FLOW_REMOVED of its copy."""
        removal = self._removals.get(entry)
        if removal is not None:
            removal.waiting.discard(member)
            self._finish_if_told(entry)

    def lost(self, member: Member) -> None:
        """A switch is lost: it will send no FLOW_REMOVED any more."""
        for entry in list(self._removals):
            self.told(member, entry)

    def tick(self, now: float) -> None:
        """Stop waiting for copies that have been waited for longer than LONGEST_WAIT."""
        while self._removals:
            entry = next(iter(self._removals))  # the oldest
            if self._removals[entry].ended + LONGEST_WAIT > now:
                return
            self._removals[entry].waiting.clear()
            self._finish_if_told(entry)

    def _finish_if_told(self, entry: FlowEntry) -> None:
        if not self._removals[entry].waiting:
            removal = self._removals.pop(entry)
            self._done(entry, removal.reason, removal.ended)
