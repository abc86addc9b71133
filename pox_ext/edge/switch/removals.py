"""
Flows that have ended, until the switches have reported the final counters of their copies.

Open vSwitch sends a FLOW_REMOVED when the last packets are counted.  That can be after it has
answered a later barrier.  And on a slow line, or when many flows end at once, it can be long after
that.
"""

import math
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Callable, NamedTuple, Optional

from edge.poxfixes import run_in_slices
from edge.south.member import Member
from edge.switch.flowtable import FlowEntry
from edge.switch.slices import for_each, parts

# How long a switch may take from one FLOW_REMOVED to the next, once it has executed the deletions.
LONGEST_WAIT = 2.0  # seconds


class _End(NamedTuple):
    """Why flows have ended (OFPRR_*), and when (seconds, monotonic)."""

    reason: int
    time: float


class _Epoch:
    """
    Flows whose copies one switch was told to delete between two ticks.

    entries: those whose FLOW_REMOVED has not come yet, the oldest first
    quiet_since: when the switch had executed the deletions, or when it last sent a FLOW_REMOVED of
        these flows, if that was later; inf before
    asked: True while a barrier is pending that decides whether the rest has had no copies
    """

    __slots__ = ("entries", "quiet_since", "asked")

    def __init__(self, entries: dict[FlowEntry, None]) -> None:
        self.entries = entries
        self.quiet_since = math.inf
        self.asked = False

    def executed(self) -> None:
        """The switch has executed the deletions."""
        self.quiet_since = time.monotonic()

    def told(self, entry: FlowEntry) -> None:
        """The switch has sent the FLOW_REMOVED of one of these flows."""
        del self.entries[entry]
        if self.quiet_since < math.inf:
            self.quiet_since = time.monotonic()


class _Awaited:
    """
    What is waited for from one switch.

    fresh: the flows that have ended since the last tick
    epochs: those that ended before, the oldest first
    """

    __slots__ = ("fresh", "epochs")

    def __init__(self) -> None:
        self.fresh: dict[FlowEntry, None] = {}
        self.epochs: deque[_Epoch] = deque()

    def told(self, entry: FlowEntry) -> bool:
        """The switch has sent a FLOW_REMOVED.  Returns False if it is not waited for."""
        if entry in self.fresh:
            del self.fresh[entry]
            return True
        for epoch in self.epochs:
            if entry in epoch.entries:
                epoch.told(entry)
                return True
        return False


class Removals:
    """
    Waits for the FLOW_REMOVED of every copy of a flow.

    A switch has had no copy of a flow if it does not send a FLOW_REMOVED of it in time.  Each
    switch has its own time.  It begins when a barrier shows that the switch has executed the
    deletion, and begins again with each FLOW_REMOVED of a flow that ended at the same time.  After
    LONGEST_WAIT the switch is sent another barrier.  Its answer comes behind all that is still on
    the way.  So a slow line and a long queue cost time, but no counters.

    done: is called with the flow, the reason (OFPRR_*) and the time of its end.  By then each
        switch has sent its FLOW_REMOVED, or is lost, or has had no copy.
    """

    def __init__(self, done: Callable[[FlowEntry, int, float], None]) -> None:
        self._done = done
        self._ends: dict[FlowEntry, _End] = {}
        self._left: dict[FlowEntry, int] = {}  # how many switches each flow waits for
        self._awaited: dict[Member, _Awaited] = {}
        self._coming = 0  # flows that have ended, and for which begin() will be called
        # The switches that have sent a FLOW_REMOVED when nobody waited for it yet.
        self._early: dict[FlowEntry, list[Member]] = {}

    def __len__(self) -> int:
        return len(self._ends) + self._coming

    def __iter__(self) -> Iterator[FlowEntry]:
        """Iterate over the flows that wait for a FLOW_REMOVED."""
        return iter(self._ends)

    def begin(
        self,
        entries: Collection[FlowEntry],
        members: Collection[Member],
        reason: int,
        ended: Optional[float] = None,
    ) -> None:
        """
        Flows have ended; these switches have been told to delete their copies.

        ended: when they ended (seconds, monotonic); by default now
        """
        end = _End(reason, time.monotonic() if ended is None else ended)
        left = len(members) or 1
        for entry in entries:
            self._ends[entry] = end
            self._left[entry] = left
        for member in members:
            awaited = self._awaited.get(member)
            if awaited is None:
                awaited = self._awaited[member] = _Awaited()
            for entry in entries:
                awaited.fresh[entry] = None
        if not members:
            run_in_slices(for_each(entries, self._count_down))

    def begin_in_slices(
        self,
        entries: list[FlowEntry],
        reason: int,
        waited_for: Callable[[Sequence[FlowEntry]], Mapping[tuple[Member, ...], list[FlowEntry]]],
    ) -> None:
        """
        The same for any number of flows.

        waited_for: returns for some of the flows the switches that have been told to delete them
        """
        ended = time.monotonic()
        self._coming += len(entries)

        def steps() -> Iterator[None]:
            for part in parts(entries):
                self._coming -= len(part)
                for members, group in waited_for(part).items():
                    self.begin(group, members, reason, ended)
                if self._early:
                    for entry in part:
                        for member in self._early.pop(entry, ()):
                            self.told(member, entry)
                yield
            if not self._coming:
                self._early = {}

        run_in_slices(steps())

    def told(self, member: Member, entry: FlowEntry) -> bool:
        """
        A switch has sent the FLOW_REMOVED of its copy.

        Returns False if nobody waits for that.
        """
        awaited = self._awaited.get(member)
        if awaited is None or not awaited.told(entry):
            if not self._coming:
                return False
            self._early.setdefault(entry, []).append(member)
            return True
        self._count_down(entry)
        return True

    def lost(self, member: Member) -> None:
        """A switch is lost: it will send no FLOW_REMOVED any more."""
        awaited = self._awaited.pop(member, None)
        if awaited is not None:
            epochs = [*awaited.epochs, _Epoch(awaited.fresh)]
            run_in_slices(for_each(_taken_out(epochs), self._count_down))

    def tick(self, now: float) -> None:
        """
        Stop waiting for copies that switches have not had.

        To be called some ten times a second.
        """
        for member, awaited in list(self._awaited.items()):
            epochs = awaited.epochs
            while epochs and not epochs[0].entries:
                epochs.popleft()
            if awaited.fresh and not (epochs and epochs[-1].quiet_since == math.inf):
                epoch = _Epoch(awaited.fresh)
                awaited.fresh = {}
                epochs.append(epoch)
                member.session.barrier(epoch.executed)
            for epoch in list(epochs):
                if epoch.entries and not epoch.asked and epoch.quiet_since + LONGEST_WAIT <= now:
                    self._ask(member, epoch)
            if not epochs and not awaited.fresh:
                self._awaited.pop(member, None)

    def _ask(self, member: Member, epoch: _Epoch) -> None:
        """
        Find out whether a switch has had no copies of the rest of an epoch's flows.

        It has not, if no FLOW_REMOVED of them comes before the answer to a barrier.
        """
        epoch.asked = True
        quiet_since = epoch.quiet_since

        def answered() -> None:
            if epoch.quiet_since == quiet_since:
                run_in_slices(for_each(_taken_out([epoch]), self._count_down))
            else:
                epoch.asked = False

        member.session.barrier(answered)

    def _count_down(self, entry: FlowEntry) -> None:
        """One switch less is waited for."""
        left = self._left[entry] - 1
        if left:
            self._left[entry] = left
            return
        del self._left[entry]
        end = self._ends.pop(entry)
        self._done(entry, end.reason, end.time)


def _taken_out(epochs: Iterable[_Epoch]) -> Iterator[FlowEntry]:
    """
    Take the flows out of these epochs, one by one, the oldest first.

    Those whose FLOW_REMOVED comes meanwhile are left out.
    """
    for epoch in epochs:
        for entry in list(epoch.entries):
            if entry in epoch.entries:
                del epoch.entries[entry]
                yield entry
