"""How many copies of flows each switch has to have: what a switch tells is counted against it."""

from typing import Callable, Optional

# The copies on a switch are counted in so many parts.  The part of a copy is its cookie modulo
# PARTS, so a cookie match with a mask selects a part, or each second part, and so on.
PARTS = 64
_PART = PARTS - 1  # the bits of a cookie that are its part


_Counts = list[int]  # for each part


class Census:
    """
    Counts the copies that have to be on the switches.

    It is told of every flow that comes or goes, so it is made for that to be quick.

    locate: the (index, port) of an in_port; None for an in_port that no switch has
    """

    def __init__(self, locate: Callable[[int], Optional[tuple[int, int]]]) -> None:
        self._locate = locate
        self.cleared()

    def cleared(self) -> None:
        """The table is empty."""
        self._everywhere: _Counts = [0] * PARTS  # of flows that are on all switches
        self._alone: dict[int, _Counts] = {}  # by index: of flows that are on that switch alone
        # The counts of flows with an in_port: those of _everywhere, or one of _alone.
        self._of: dict[Optional[int], _Counts] = {None: self._everywhere}

    def added(self, in_port: Optional[int], cookie: int) -> None:
        """A flow with this in_port is in the table now."""
        counts = self._of.get(in_port)
        if counts is None:
            counts = self._begin(in_port)
        counts[cookie & _PART] += 1

    def removed(self, in_port: Optional[int], cookie: int) -> None:
        """A flow with this in_port is in the table no more."""
        self._of[in_port][cookie & _PART] -= 1

    def _begin(self, in_port: Optional[int]) -> _Counts:
        where = self._locate(in_port) if in_port is not None else None
        if where is None:
            counts = self._everywhere
        else:
            counts = self._alone.setdefault(where[0], [0] * PARTS)
        self._of[in_port] = counts
        return counts

    def copies(self, index: int, part: int = 0, parts: int = 1) -> int:
        """
        How many copies a switch has to have.

        part, parts: count only the copies whose cookies modulo `parts` are `part`; `parts` divides
            PARTS
        """
        found = sum(self._everywhere[part::parts])
        alone = self._alone.get(index)
        return found if alone is None else found + sum(alone[part::parts])
