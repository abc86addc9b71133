"""One request to many switches, one answer."""

from collections.abc import Iterable
from typing import Callable, Generic, TypeVar

M = TypeVar("M")


class Gather(Generic[M]):
    """
    Waits until every one of some members has answered or has been lost.

    members: those that are asked.  done() is called exactly once: when the last of them has
    answered or is lost, or at start() if there are none.
    """

    def __init__(self, members: Iterable[M], done: Callable[[], None]) -> None:
        self._waiting: set[M] = set(members)
        self._done = done

    @property
    def members(self) -> list[M]:
        """Those that have not answered."""
        return list(self._waiting)

    def start(self) -> None:
        """Say that all requests are out; with nobody to wait for, this is the end."""
        if not self._waiting:
            self._done()

    def answered(self, member: M) -> None:
        """This member has said all that it will say, or is lost."""
        if member in self._waiting:
            self._waiting.remove(member)
            if not self._waiting:
                self._done()
