"""What was computed before, remembered in a bounded number of bytes."""

import functools
from collections.abc import Hashable
from typing import Callable, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_ENTRY = 200  # bytes that a dictionary takes for an entry, and small objects around it


class Cache(dict[K, V]):
    """
    A dictionary of what was computed, which takes a bounded number of bytes.

    It is read like any dictionary, and filled with remember().  If there is no room for an entry,
    all others are forgotten: what is still in use comes back, and the rest is gone.

    limit: bytes of memory
    octets: bytes that the entries take, about
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.octets = 0

    def remember(self, key: K, value: V, octets: int) -> bool:
        """
        Add an entry, or replace one.

        octets: bytes that the key and the value take, about

        Returns False if others were forgotten for it, or if it takes more than the limit by itself.
        """
        if key in self:
            self[key] = value
            return True
        octets += _ENTRY
        fits = self.octets + octets <= self.limit
        if not fits:
            self.clear()
        if octets <= self.limit:
            self[key] = value
            self.octets += octets
        return fits

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self.octets = 0


def cached(
    limit: int, octets: Callable[[K, V], int]
) -> Callable[[Callable[[K], V]], Callable[[K], V]]:
    """
    Return a decorator: the function's results are remembered in a Cache.

    The results must be immutable, and not None.

    limit: bytes of memory
    octets: the bytes that an argument and its result take, about
    """

    def decorate(function: Callable[[K], V]) -> Callable[[K], V]:
        cache: Cache[K, V] = Cache(limit)
        find = cache.get

        def look_up(argument: K) -> V:
            known = find(argument)
            if known is None:
                known = function(argument)
                cache.remember(argument, known, octets(argument, known))
            return known

        functools.update_wrapper(look_up, function)
        look_up.cache = cache  # type: ignore[attr-defined]
        return look_up

    return decorate
