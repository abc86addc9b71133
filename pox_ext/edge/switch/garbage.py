"""
Python's garbage collector and a large flow table.

A full collection looks at every object, and so at every flow, over and over: with 200,000 flows
each is a pause of a quarter of a second.  Flows are in no reference cycles, so they need not be
looked at: after each full collection all that has survived is set aside (gc.freeze()).  What has
died in cycles since then, such as closed connections, is found when all is taken back.
"""

import gc
from collections.abc import Iterable, Iterator
from typing import Any, Union

from edge.poxfixes import every, run_in_slices

TAKE_BACK = 3600.0  # seconds
FREED_PER_TURN = 2000  # things, some 0.3 us each


def install() -> None:
    """Set aside what survives full collections; without effect where Python cannot (PyPy)."""
    if not hasattr(gc, "freeze") or _collected in gc.callbacks:
        return
    gc.callbacks.append(_collected)
    every(TAKE_BACK, gc.unfreeze, "edge.aggregator garbage")


Emptiable = Union[dict[Any, Any], set[Any], list[Any]]


def let_go(collections: Iterable[Emptiable]) -> None:
    """
    Forget what is in dictionaries, sets and lists that nobody else has, little by little.

    To free many flows at once would take as long as to delete them one by one.
    """
    full = [each for each in collections if each]
    if sum(map(len, full)) > FREED_PER_TURN:
        run_in_slices(_emptied(full))


def _emptied(collections: list[Emptiable]) -> Iterator[None]:
    left = FREED_PER_TURN
    while collections:
        each = collections.pop()
        take = each.popitem if isinstance(each, dict) else each.pop
        left -= 1
        while each:
            take()
            left -= 1
            if left <= 0:
                yield
                left = FREED_PER_TURN


def _collected(phase: str, info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()
