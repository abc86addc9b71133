"""
Lets other threads read what belongs to POX's scheduler, without holding up its tasks.

Only tasks of POX's scheduler may look at the big switch.  Another thread that wants to look gives
a generator to Reader.read().  The generator runs in the scheduler for TURN seconds at a time, with
pauses between.  So reading takes at most TURN / (TURN + PAUSE) of the scheduler's time, however
much there is to read and however many read.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent import futures
from typing import Callable, TypeVar

from pox.core import core

from edge import poxfixes

T = TypeVar("T")

TURN = 0.002  # seconds
PAUSE = 0.006  # seconds between two turns, for all other tasks
MOST_WAITING = 64
READ_TIMEOUT = 10.0  # seconds
_STEPS = 10  # in which a timeout is waited for


class Busy(Exception):
    """Too many threads are waiting, or the reading took longer than READ_TIMEOUT."""


class Reader:
    """Runs the generators of all threads, one after the other."""

    def __init__(self) -> None:
        self._jobs: deque[Generator[None, None, None]] = deque()  # used in the scheduler only
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)

    def read(self, pieces: Generator[None, None, T]) -> T:
        """
        Run a generator in POX's scheduler, and return its value.

        Not to be called in the scheduler itself.  Raises what the generator raises, and Busy.
        """
        answer: futures.Future[T] = futures.Future()

        def run() -> Generator[None, None, None]:
            try:
                answer.set_result((yield from pieces))
            except Exception as e:
                answer.set_exception(e)

        with self._place():
            job = run()
            core.callLater(self._add, job)
            if not _within(READ_TIMEOUT, lambda step: bool(futures.wait([answer], step).done)):
                core.callLater(job.close)  # its next turn ends it
                raise Busy
        return answer.result()

    def wait(self, start: Callable[[Callable[[], None]], None], longest: float) -> bool:
        """
        Begin something in POX's scheduler, and wait until it is done.

        start: is called in the scheduler, with the function to call when it is done
        longest: how many seconds to wait

        Returns False if it was not done in that time.  Raises Busy.
        """
        done = threading.Event()
        with self._place():
            core.callLater(start, done.set)
            return _within(longest, done.wait)

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """Occupy one of the MOST_WAITING places.  Raises Busy if none is free."""
        if not self._waiting.acquire(blocking=False):
            raise Busy
        try:
            yield
        finally:
            self._waiting.release()

    def _add(self, job: Generator[None, None, None]) -> None:
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self._turn()

    def _turn(self) -> None:
        end = time.monotonic() + TURN
        while self._jobs:
            job = self._jobs[0]
            try:
                while time.monotonic() < end:
                    next(job)
            except StopIteration:
                self._jobs.popleft()
            else:
                poxfixes.after(PAUSE, self._turn, "edge.reader")
                return


def _within(seconds: float, wait: Callable[[float], bool]) -> bool:
    """
    Wait in steps until wait(step) is True; return False after so many seconds.

    A pause of the process takes no more of the time than the step that it falls into, and there is
    one step more than the time has: after a pause, POX's scheduler has to do its work first.
    """
    return any(wait(seconds / _STEPS) for _ in range(_STEPS + 1))
