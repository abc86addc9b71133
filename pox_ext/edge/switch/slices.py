"""
Work on many flows, cut into slices: POX's other tasks have their turns in between.

The iterators are for edge.poxfixes.run_in_slices.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Callable, TypeVar

FLOWS_PER_SLICE = 1000  # flows handled in one slice of work that no controller waits for

T = TypeVar("T")


def for_each(things: Iterable[T], do: Callable[[T], object]) -> Iterator[None]:
    """Call do() with each of these; yield after each FLOWS_PER_SLICE of them."""
    for number, thing in enumerate(things, 1):
        do(thing)
        if number % FLOWS_PER_SLICE == 0:
            yield


def parts(things: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield these in parts of FLOWS_PER_SLICE."""
    for start in range(0, len(things), FLOWS_PER_SLICE):
        yield things[start : start + FLOWS_PER_SLICE]
