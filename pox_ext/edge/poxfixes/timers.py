"""Timers that go on when their callback raises an exception."""

import logging
import time
from typing import Callable, Optional

from pox.core import core
from pox.lib.recoco import Timer

from .lack import RETRY, notice

log = logging.getLogger("edge.pox")


class GuardedTimer(Timer):
    """A recoco Timer whose callback may raise an exception.

    POX: an exception in the callback de-schedules the timer's task (pox/lib/recoco/recoco.py:1078),
    so a recurring timer never fires again. A callback that happens to return False ends it, too.

    Here: the exception is logged in a line, and only cancel() ends the timer. A callback for which
    the process lacked something (see lack.py) is called again after RETRY seconds.

    seconds: until the first call, and between two calls.
    name: what the log calls the timer; by default the name of the callback.
    """

    def __init__(
        self, seconds: float, callback: Callable[[], object], recurring: bool, name: Optional[str]
    ) -> None:
        self._guarded = callback
        self._recurs = recurring
        self._title = name or getattr(callback, "__qualname__", str(callback))
        super().__init__(
            seconds, self._call, recurring=recurring, scheduler=core.scheduler, selfStoppable=False
        )

    def _call(self) -> None:
        self._recurring = self._recurs
        try:
            self._guarded()
        except Exception as e:
            if notice(e):
                self._recurring = True
                self._next = time.time() + RETRY
                return
            log.error("Timer %s: %s: %s", self._title, type(e).__name__, e)
            log.debug("Details:", exc_info=True)


def every(
    seconds: float, callback: Callable[[], object], name: Optional[str] = None
) -> GuardedTimer:
    """Call back every so many seconds until .cancel(); the first call comes after that time."""
    return GuardedTimer(seconds, callback, True, name)


def after(
    seconds: float, callback: Callable[[], object], name: Optional[str] = None
) -> GuardedTimer:
    """Call back once after so many seconds, unless .cancel() comes first."""
    return GuardedTimer(seconds, callback, False, name)
