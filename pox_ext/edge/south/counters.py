"""What one switch has counted, as it last said; it outlives the switch's connection."""

from collections import defaultdict
from collections.abc import Collection
from typing import Callable, Optional

from edge.openflow import stats


class MonotonicCounter:
    """A counter of a switch that goes on when the switch starts again from 0."""

    def __init__(self) -> None:
        self._before = self._last = 0

    def saw(self, count: int) -> None:
        """The switch says that it has counted so many."""
        if count < self._last:
            self._before += self._last
        self._last = count

    @property
    def total(self) -> int:
        """All that were counted."""
        return self._before + self._last


class Counters:
    """
    What one switch has counted.

    ports: port number -> its ofp_port_stats but for the number
    looked_up, matched, missed: for each table, the packets that were looked up in it, that matched
        in it, and that its table-miss rule took
    """

    def __init__(self) -> None:
        # By cookie: (packets, octets) of the copies that it has, and of those that it had no more
        # when it came back, though their FLOW_REMOVED may yet come.
        self._copies: dict[int, tuple[int, int]] = {}
        self._lost_copies: dict[int, tuple[int, int]] = {}
        self.ports: dict[int, bytes] = {}
        self.looked_up: dict[int, MonotonicCounter] = defaultdict(MonotonicCounter)
        self.matched: dict[int, MonotonicCounter] = defaultdict(MonotonicCounter)
        self.missed: dict[int, MonotonicCounter] = defaultdict(MonotonicCounter)

    def __len__(self) -> int:
        return len(self._copies)

    def copy(self, cookie: int) -> tuple[int, int]:
        """The packets and octets of a copy; 0 where nothing is known."""
        return self._copies.get(cookie, (0, 0))

    def saw(self, cookie: int, packets: int, octets: int) -> None:
        """The switch says what a copy has counted."""
        self._copies[cookie] = packets, octets

    def saw_all(self, message: bytes, is_known: Callable[[int], bool]) -> None:
        """
        A part of an NXST_FLOW reply says what copies have counted.

        is_known: False for cookies of flows that have ended meanwhile

        Raises ValueError or struct.error if the message is broken.
        """
        copies = self._copies
        for cookie, packets, octets in stats.parse_counters(message):
            if is_known(cookie):
                copies[cookie] = packets, octets

    def forget(self, cookie: int) -> None:
        """A copy is gone, and what it had counted is of no more use."""
        self._copies.pop(cookie, None)

    def start_anew(self) -> dict[int, tuple[int, int]]:
        """Forget all copies; returns what was known of them."""
        before, self._copies = self._copies, {}
        return before

    def keep(self, cookies: Collection[int]) -> dict[int, tuple[int, int]]:
        """Forget all copies but these; returns what was known of all."""
        before = self.start_anew()
        self._copies = {each: before[each] for each in cookies if each in before}
        return before

    # --- copies that were gone when the switch came back ----------------------------------------

    def lost(self, cookie: int, packets: int, octets: int) -> None:
        """The switch has come back without a copy that had counted so much when it was lost."""
        self._lost_copies[cookie] = packets, octets

    def take_lost(self, cookie: int) -> Optional[tuple[int, int]]:
        """What a copy had counted that was gone then, once; None if it was not."""
        return self._lost_copies.pop(cookie, None)

    def forget_lost(self) -> None:
        """Nothing more will be told of the copies that were gone then."""
        self._lost_copies = {}
