"""
The cookies that flow entries bear on the switches, and the entries behind them.

Every flow entry of the big switch gets a cookie of its own, which its copies bear on all
switches.  The controller's own cookie stays with the entry, and is what the controller reads.

A cookie's upper half is drawn at random when the aggregator starts: it tells this run's flows
from those of another run, and lets one message delete them all.  Service rules have cookie 0.
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
        # Never 0 nor all ones: 0 is what everybody else uses, and OVS reserves ~0.
        self.run = (1 + secrets.randbelow(0xFFFFFFFE)) << 32
        self._numbers = itertools.count(1)
        self._entry_of: dict[int, E] = {}
        self._cookie_of: dict[E, int] = {}

    def __len__(self) -> int:
        return len(self._entry_of)

    def new(self, entry: E) -> int:
        """Give the entry a cookie that no entry of this run has had, and return it."""
        # The lower half may only wrap after 2**32 flow-mods; those still in use are passed over.
        while True:
            number = next(self._numbers) & 0xFFFFFFFF
            cookie = self.run | number
            if number and cookie not in self._entry_of:
                break
        self.restore(entry, cookie)
        return cookie

    def restore(self, entry: E, cookie: int) -> None:
        """Give an entry that has been released its cookie again."""
        self._entry_of[cookie] = entry
        self._cookie_of[entry] = cookie

    def entry(self, cookie: int) -> Optional[E]:
        """The entry that bears this cookie on the switches, None if there is none."""
        return self._entry_of.get(cookie)

    def cookie(self, entry: E) -> int:
        """The entry's cookie on the switches.  Raises KeyError if it has none."""
        return self._cookie_of[entry]

    def clear(self, kept: Iterable[E]) -> list[dict[Any, Any]]:
        """Forget all entries but these; the two dictionaries of before are returned."""
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
