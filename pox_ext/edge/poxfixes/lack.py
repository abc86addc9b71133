"""What the process may lack for a while: file descriptors, threads, memory.

A lack ends no task.  Whoever meets one calls notice(), and tries again after RETRY seconds for as
long as it takes.  A line in the log says that a lack has begun, and another one that it is over,
however many meet it.
"""

import errno
import logging
import socket
import threading
import time
from typing import Callable, NamedTuple, Optional

from pox.core import core
from pox.lib.recoco import Timer

log = logging.getLogger("edge.pox")

RETRY = 1.0  # seconds until something is tried again for which something was lacking
# Seconds without another failure, after which a lack may be over.  Whoever tries again every RETRY
# seconds has then had a turn.
QUIET = 2.0


def _have_descriptors() -> None:
    """Raise OSError unless a few descriptors are left (a name lookup needs more than one)."""
    first, second = socket.socketpair()
    first.close()
    second.close()


def _have_thread() -> None:
    """Raise RuntimeError unless another thread can be started."""
    threading.Thread(target=int, name="edge.lack", daemon=True).start()


def _have_memory() -> None:
    """Raise MemoryError unless there is some more memory."""
    bytearray(4 << 20)


class Lack(NamedTuple):
    """
    What is lacking.

    begins, ends: the lines of the log
    probe: raises the error if it is lacking
    """

    begins: str
    ends: str
    probe: Callable[[], None]


DESCRIPTORS = Lack(
    "No file descriptor is left (%s): no connection can be made or accepted until there is one. "
    "LimitNOFILE= of the service, or ulimit -n, sets how many there may be",
    "File descriptors are there again",
    _have_descriptors,
)
THREADS = Lack(
    "No thread can be started (%s): no host name is looked up until one can. TasksMax= of the "
    "service, or ulimit -u, sets how many there may be",
    "Threads can be started again",
    _have_thread,
)
MEMORY = Lack(
    "Memory is short (%s): what failed is tried again every second",
    "Memory is there again",
    _have_memory,
)

LACKING = {
    errno.EMFILE: DESCRIPTORS,
    errno.ENFILE: DESCRIPTORS,
    errno.ENOMEM: MEMORY,
    errno.ENOBUFS: MEMORY,
}
"""By errno."""


def lack_of(error: BaseException) -> Optional[Lack]:
    """What was lacking, if that is why something has failed; otherwise None."""
    if isinstance(error, MemoryError):
        return MEMORY
    if isinstance(error, OSError):
        return LACKING.get(error.errno or 0)
    # CPython has no other sign of it (Modules/_threadmodule.c); PyPy says "can't start new thread",
    # too.
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return THREADS
    return None


def behind(error: Exception) -> Optional[Exception]:
    """
    The lack that is behind an error in looking a host name up; None if there is none.

    The resolver does not tell: to it, a missing descriptor is one more name server that is silent.
    """
    if lack_of(error):
        return error
    try:
        _have_descriptors()
    except OSError as e:
        if lack_of(e):
            return e
    return None


class _Watch:
    """The lacks that there are now; any thread may notice one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[Lack, float] = {}  # when each was last noticed (monotonic)
        self._timer: Optional[Timer] = None

    def notice(self, error: BaseException) -> bool:
        lack = lack_of(error)
        if lack is None:
            return False
        with self._lock:
            new = lack not in self._last
            self._last[lack] = time.monotonic()
        if new:
            text = error.strerror if isinstance(error, OSError) else str(error)
            log.warning(lack.begins, text or type(error).__name__)
            core.callLater(self._watch)
        return True

    def _watch(self) -> None:
        """Look after the lacks from now on.  For POX's scheduler."""
        if self._timer is None:
            self._timer = Timer(
                RETRY, self._look, recurring=True, scheduler=core.scheduler, selfStoppable=False
            )

    def _look(self) -> None:
        for lack, last in list(self._last.items()):
            if time.monotonic() - last < QUIET:
                continue
            try:
                lack.probe()
            except Exception:
                continue
            with self._lock:
                if self._last[lack] != last:
                    continue
                del self._last[lack]
            log.info(lack.ends)
        if not self._last and self._timer is not None:
            self._timer.cancel()
            self._timer = None


_watch = _Watch()


def notice(error: BaseException) -> bool:
    """
    Whether something has failed because of a lack, which is then looked after.

    The caller tries again after RETRY seconds, and logs nothing: the lack itself is logged once.
    """
    return _watch.notice(error)
