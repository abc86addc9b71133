"""One request to many switches, one answer."""

from collections.abc import Iterable
from typing import Callable, Generic, TypeVar

M = TypeVar("M")


class Gather(Generic[M]):
    """
    Waits until every one of some members has answered or has been lost.

    members: those that are asked.  done() is called exactly once: when all requests are out
    (start()), and the last of the members has answered or is lost.
    """

    def __init__(self, members: Iterable[M], done: Callable[[], None]) -> None:
        self._waiting: set[M] = set(members)
        self._done = done
        self._started = False

    @property
    def members(self) -> list[M]:
        """Those that have not answered."""
        return list(self._waiting)

    def start(self) -> None:
        """Say that all requests are out; if nobody is waited for, this is the end."""
        self._started = True
        if not self._waiting:
            self._done()

    def answered(self, member: M) -> None:
        """This member has said all that it will say, or is lost."""
        if member in self._waiting:
            self._waiting.remove(member)
            if self._started and not self._waiting:
                self._done()
