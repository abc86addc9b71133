"""The last known counters of one switch; they are kept when its connection closes."""

from collections import defaultdict
from collections.abc import Collection
from typing import Optional


class MonotonicCounter:
    """A counter of a switch, whose total goes on when the switch starts again from 0."""

    def __init__(self) -> None:
        self._before = self._last = 0

    def saw(self, count: int) -> None:
        """The switch has reported this count."""
        if count < self._last:
            self._before += self._last
        self._last = count

    @property
    def total(self) -> int:
        """The last count, plus the last count before each new start from 0."""
        return self._before + self._last


class Counters:
    """
    The last known counters of one switch.

    ports: port number -> its ofp_port_stats without the port number
    looked_up, matched, missed: for each table, the packets that were looked up in it, that matched
        in it, and that its table-miss rule took
    """

    def __init__(self) -> None:
        # By cookie: (packets, octets) of the copies that the switch has, and of the copies that
        # were missing when it reconnected.  The FLOW_REMOVED of a missing copy may still come.
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
        """The switch has reported the counters of a copy."""
        self._copies[cookie] = packets, octets

    def forget(self, cookie: int) -> None:
        """Forget a copy that has ended."""
        self._copies.pop(cookie, None)

    def start_anew(self) -> dict[int, tuple[int, int]]:
        """Forget all copies.  Returns their counters, by cookie."""
        before, self._copies = self._copies, {}
        return before

    def keep(self, cookies: Collection[int]) -> dict[int, tuple[int, int]]:
        """Forget all copies except these.  Returns the counters of all, by cookie."""
        before = self.start_anew()
        self._copies = {each: before[each] for each in cookies if each in before}
        return before

    # --- copies that were missing when the switch reconnected -----------------------------------

    def lost_copy(self, cookie: int, packets: int, octets: int) -> None:
        """The switch has reconnected without a copy, whose last known counters were these."""
        self._lost_copies[cookie] = packets, octets

    def take_lost_copy(self, cookie: int) -> Optional[tuple[int, int]]:
        """Return and forget the counters of a missing copy; None if it was not missing."""
        return self._lost_copies.pop(cookie, None)

    def forget_lost_copies(self) -> None:
        """Forget the missing copies: no FLOW_REMOVED of them will come any more."""
        self._lost_copies = {}
