"""
The cookies of flow entries on the switches, and the flow entries that belong to them.

Every flow entry of the big switch gets a unique cookie, which all its copies have on the switches.
The controller's cookie is kept in the flow entry, and only that one is shown to the controller.

The upper half of the cookies is a random number, drawn when the aggregator starts.  It tells the
flows of this run from the flows of another run.  A flow-mod that matches the upper half deletes
all flows of this run.  Service rules have cookie 0.
"""

import itertools
import secrets
from collections.abc import Iterable
from typing import Any, Generic, Optional, TypeVar

E = TypeVar("E")

RUN_MASK = 0xFFFFFFFF00000000


class Cookies(Generic[E]):
    """The two dictionaries: entry -> cookie, and cookie -> entry."""

    def __init__(self) -> None:
        # Neither 0, which other programs use, nor all ones, which Open vSwitch reserves.
        self.run = (1 + secrets.randbelow(0xFFFFFFFE)) << 32
        self._numbers = itertools.count(1)
        self._entry_of: dict[int, E] = {}
        self._cookie_of: dict[E, int] = {}

    def __len__(self) -> int:
        return len(self._entry_of)

    def __contains__(self, entry: E) -> bool:
        """True if the entry has a cookie."""
        return entry in self._cookie_of

    def new(self, entry: E) -> int:
        """Give the entry a cookie that no entry of this run has had, and return it."""
        # The lower half wraps around after 2**32 flow-mods; cookies still in use are skipped then.
        while True:
            number = next(self._numbers) & 0xFFFFFFFF
            cookie = self.run | number
            if number and cookie not in self._entry_of:
                break
        self.restore(entry, cookie)
        return cookie

    def restore(self, entry: E, cookie: int) -> None:
        """Give a released entry its former cookie again."""
        self._entry_of[cookie] = entry
        self._cookie_of[entry] = cookie

    def entry(self, cookie: int) -> Optional[E]:
        """The entry with this cookie on the switches, None if there is none."""
        return self._entry_of.get(cookie)

    def all(self) -> list[int]:
        """The cookies of all entries."""
        return list(self._entry_of)

    def cookie(self, entry: E) -> int:
        """The entry's cookie on the switches.  Raises KeyError if it has none."""
        return self._cookie_of[entry]

    def clear(self, kept: Iterable[E]) -> list[dict[Any, Any]]:
        """Forget all entries except `kept`.  Returns the two former dictionaries."""
        before: list[dict[Any, Any]] = [self._entry_of, self._cookie_of]
        cookie_of = self._cookie_of
        self._entry_of, self._cookie_of = {}, {}
        for entry in kept:
            self.restore(entry, cookie_of[entry])
        return before

    def release(self, entry: E) -> None:
        """Forget the entry.  Without effect if it has no cookie."""
        cookie = self._cookie_of.pop(entry, None)
        if cookie is not None:
            del self._entry_of[cookie]
