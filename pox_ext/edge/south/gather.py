"""Sends requests to many switches, and waits until all are answered."""

from collections.abc import Iterable, Iterator
from typing import Callable, Generic, Optional, TypeVar

import pox.openflow.libopenflow_01 as of

from edge.openflow import stats
from edge.poxfixes import run_in_slices
from edge.south.member import Member

M = TypeVar("M")

_REQUESTS_PER_SLICE = 250  # that are sent before others have their turn

# A switch, and what makes the request to it from a transaction id.
Request = tuple[Member, Callable[[int], bytes]]


class Gather(Generic[M]):
    """
    Waits until each of some members has answered or is lost.

    members: the members that are asked
    done: is called exactly once: when all requests are sent (start()), and the last of the members
        has answered or is lost
    """

    def __init__(self, members: Iterable[M], done: Callable[[], None]) -> None:
        self._waiting: set[M] = set(members)
        self._done = done
        self._started = False

    def start(self) -> None:
        """All requests are sent.  Calls done() at once if no answer is missing."""
        self._started = True
        if not self._waiting:
            self._done()

    def answered(self, member: M) -> None:
        """This member has sent all of its answer, or is lost."""
        if member in self._waiting:
            self._waiting.remove(member)
            if self._started and not self._waiting:
                self._done()


def ask(
    requests: Iterable[Request],
    take: Callable[[Member, int, bytes], None],
    done: Callable[[], None],
    lost: Optional[Callable[[Member], None]] = None,
) -> None:
    """
    Send requests to switches; call done() when each is answered, or its switch is lost.

    requests: they may contain a switch more than once
    take: is called with the switch, the type and the bytes of each message of an answer
    lost: is called with the switch of each request that stays without an answer
    """
    numbered = list(enumerate(requests))
    gather: Gather[int] = Gather((number for number, _ in numbered), done)

    def send(number: int, member: Member, build: Callable[[int], bytes]) -> None:
        def answer(kind: int, message: bytes) -> bool:
            take(member, kind, message)
            if kind == of.OFPT_STATS_REPLY and stats.is_more(message):
                return False
            gather.answered(number)
            return True

        def unanswered() -> None:
            if lost is not None:
                lost(member)
            gather.answered(number)

        member.session.request(build, answer, unanswered)

    def send_all() -> Iterator[None]:
        for sent, (number, (member, build)) in enumerate(numbered, 1):
            send(number, member, build)
            if sent % _REQUESTS_PER_SLICE == 0:
                yield
        gather.start()

    run_in_slices(send_all())


def barriers(members: Iterable[Member], done: Callable[[], None]) -> None:
    """Call done() when each of these switches has executed all that it was sent, or is lost."""
    asked = list(members)
    gather: Gather[Member] = Gather(asked, done)

    def ask_one(member: Member) -> None:
        member.session.barrier(lambda: gather.answered(member))

    for member in asked:
        ask_one(member)
    gather.start()
