"""
Lets other threads read what belongs to POX's scheduler, without its tasks noticing.

What the big switch holds may only be looked at from a task of POX's scheduler.  Whoever else wants
to see it hands in a generator; that runs there a short while at a time, with pauses between, so
that it never takes more than a part of the processor however much there is to read and however
many read.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any, Callable, Optional

from pox.core import core

from edge import poxfixes

TURN = 0.002  # seconds at a time
PAUSE = 0.006  # seconds between, for everybody else
MOST_WAITING = 64
PATIENCE = 10.0  # seconds


class Busy(Exception):
    """Too many want to read, or it takes too long."""


class _Job:
    def __init__(self, pieces: Generator[None, None, Any]) -> None:
        self.pieces = pieces
        self.done = threading.Event()
        self.value: Any = None
        self.error: Optional[BaseException] = None


class Reader:
    """Reads for any thread, one after the other."""

    def __init__(self) -> None:
        self._jobs: deque[_Job] = deque()  # used in the scheduler only
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)

    def read(self, pieces: Generator[None, None, Any]) -> Any:
        """
        Run a generator in POX's scheduler, and return its value.

        Not to be called from there.  Raises what the generator raises, and Busy if it has not come
        to its end in time.
        """
        with self._place():
            job = _Job(pieces)
            core.callLater(self._add, job)
            if not job.done.wait(PATIENCE):
                core.callLater(self._forget, job)
                raise Busy
        if job.error is not None:
            raise job.error
        return job.value

    def wait(self, start: Callable[[Callable[[], None]], None], longest: float) -> bool:
        """
        Have something begun in POX's scheduler, and wait until it is done.

        start: is called there with the function to call at its end
        longest: seconds; False is returned if it is not done then
        """
        done = threading.Event()
        with self._place():
            core.callLater(start, done.set)
            return done.wait(longest)

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """Have a place among those who wait."""
        if not self._waiting.acquire(blocking=False):
            raise Busy
        try:
            yield
        finally:
            self._waiting.release()

    def _add(self, job: _Job) -> None:
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self._turn()

    def _forget(self, job: _Job) -> None:
        if job in self._jobs:
            job.pieces.close()

    def _turn(self) -> None:
        end = time.monotonic() + TURN
        while self._jobs:
            job = self._jobs[0]
            try:
                while time.monotonic() < end:
                    next(job.pieces)
            except StopIteration as e:
                job.value = e.value
            except Exception as e:
                job.error = e
            else:
                poxfixes.after(PAUSE, self._turn, "edge.reader")
                return
            self._jobs.popleft()
            job.done.set()
