"""
Python's garbage collector and a large flow table.

A full collection examines every object, and so every flow.  With 200,000 flows it is a pause of a
quarter of a second.  Flows are in no reference cycles, so they need not be examined.  Therefore all
objects that have survived a full collection are excluded from later ones (gc.freeze()).  An
excluded object may become garbage in a reference cycle, as a closed connection does.  It is freed
after TAKE_BACK, when all objects are included again (gc.unfreeze()).
"""

import gc
from collections.abc import Iterable, Iterator
from typing import Any, Union

from edge.poxfixes import every, run_in_slices

TAKE_BACK = 3600.0  # seconds between two calls of gc.unfreeze()
FREED_PER_TURN = 2000  # objects; to free one takes some 0.3 us


def install() -> None:
    """Freeze what survives full collections; without effect where Python cannot (PyPy)."""
    if not hasattr(gc, "freeze") or _collected in gc.callbacks:
        return
    gc.callbacks.append(_collected)
    every(TAKE_BACK, gc.unfreeze, "edge.aggregator garbage")


Emptiable = Union[dict[Any, Any], set[Any], list[Any]]


def let_go(collections: Iterable[Emptiable]) -> None:
    """
    Empty dictionaries, sets and lists in slices; nobody else may use these collections.

    To free many flows at once would block POX as long as to delete them one by one.
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
