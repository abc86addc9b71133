"""POX's select loop, made to survive and to answer at once."""

import contextlib
import heapq
import logging
import math
import os
import select
import time
from collections import deque
from typing import Any, Callable, Optional

from pox.lib.recoco import BlockingOperation

log = logging.getLogger("edge.pox")

LONGEST_WAIT = 2.0  # seconds, as POX's CYCLE_MAXIMUM: the scheduler looks whether it shall quit

_IN, _OUT, _PRI = select.POLLIN, select.POLLOUT, select.POLLPRI
# What select() counts as readable, writable and exceptional (Linux, fs/select.c).
_MEANS = {
    _IN: _IN | select.POLLHUP | select.POLLERR,
    _OUT: _OUT | select.POLLERR,
    _PRI: _PRI,
}
_PLACE = {_IN: 0, _OUT: 1, _PRI: 2}  # in the three lists that Select() gives back


def _descriptor(thing: Any) -> int:
    """The file descriptor of a socket, a number, ...; -1 if it is closed or has none."""
    try:
        fd = thing if isinstance(thing, int) else thing.fileno()
        return fd if isinstance(fd, int) and 0 <= fd < 1 << 31 else -1
    except Exception:
        return -1


class Serve(BlockingOperation):
    """Have something called whenever there is something to read, for as long as it returns True.

    The task that yields it sleeps meanwhile: it goes on when serve() has returned False or raised
    (which is raised in the task), or after so many seconds. To wake a task for each message with
    Select() costs several times what it costs to read one.
    """

    def __init__(
        self, sock: Any, serve: Callable[[], bool], timeout: Optional[float] = None
    ) -> None:
        self._sock = sock
        self._serve = serve
        self._timeout = timeout

    def execute(self, task: Any, scheduler: Any) -> None:
        """What POX's scheduler calls."""
        scheduler._selectHub.register_serve(task, self._sock, self._serve, self._timeout)


class _Wait:
    """One task's Select(), Serve() or Sleep()."""

    __slots__ = ("task", "asks_errors", "serve", "fds", "result", "live")

    def __init__(
        self, task: Any, asks_errors: bool, serve: Optional[Callable[[], bool]] = None
    ) -> None:
        self.task = task
        self.asks_errors = asks_errors  # the task has an exceptional list, so it looks at it
        self.serve = serve
        self.fds: list[int] = []
        self.result: Optional[tuple[list, list, list]] = None
        self.live = True


class RobustSelectHub:
    """Takes the place of recoco's SelectHub.

    POX, in pox/lib/recoco/recoco.py:
    1. select.select() (:887) gets whatever the tasks handed in. A closed descriptor, or one above
       1023, raises in the hub's thread (:838), which ends it: no task ever sees I/O or a timer
       again. The same for a task that waits twice (:902); with --epoll-selecthub for a closed one
       (pox/lib/epoll_select.py:86, :95), and for one that hangs up while nobody asked for
       exceptions (:920).
    2. The hub is a thread of its own (:800), so every event costs two thread switches. Without that
       (--unthreaded-sh), every fast_schedule() writes to a pipe (:829), and tasks that are always
       ready starve all I/O, since Scheduler.run (:287) polls only when none is.
    3. Every wake-up looks at all tasks (:861).
    4. A task that yields None raises in Scheduler.cycle (:348), which ends the scheduler.

    Here: the scheduler's own thread polls when no task is ready, and once in each round of the
    ready ones. Its poll() is persistent, knows no limit on the numbers, and is told only what has
    changed. What is served (Serve) is read from here, without a turn of its task. Only the task
    that handed in a bad descriptor hears of it; it gets it back as exceptional. Timers are a heap
    on the monotonic clock. What waits in POX's hub is taken over.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._pox_cycle: Callable[[], bool] = scheduler.cycle
        self._old = scheduler._selectHub
        self._incoming: deque = deque()  # from any thread; append and popleft are atomic
        self._end_of_turn: deque = deque()
        self._waits: dict[Any, _Wait] = {}
        # For each descriptor: (wait, what was handed in for it, _IN or _OUT or _PRI).
        self._by_fd: dict[int, list[tuple[_Wait, Any, int]]] = {}
        self._dirty: set = set()  # descriptors whose mask may have changed since the last poll
        self._masks: dict[int, int] = {}  # what the poll object has
        self._timers: list = []  # heap of (monotonic time, serial number, wait)
        self._serial = 0
        self._turns = 0  # left in this round of the ready tasks
        self._sleeping = False
        self._poll_failed = False
        self._poller = select.poll()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._poller.register(self._wake_r, _IN)

    def install(self) -> None:
        """Put this hub in place; the scheduler may be running, and in POX's hub at this moment."""
        self._scheduler._selectHub = self
        self._scheduler.cycle = self.cycle
        if self._old._thread is not None:
            self._old._event.set()
        self._old._pinger.ping()

    # -- what POX's Scheduler and blocking operations call

    def registerSelect(
        self,
        task: Any,
        rlist: Optional[list] = None,
        wlist: Optional[list] = None,
        xlist: Optional[list] = None,
        timeout: Optional[float] = None,
        timeIsAbsolute: bool = False,
    ) -> None:
        """Wake the task when one of these is ready, or after timeout seconds (or at that time)."""
        if timeout is not None:
            if timeIsAbsolute:
                timeout -= time.time()
            timeout += time.monotonic()
        self._incoming.append((task, rlist, wlist, xlist, timeout))
        self.break_idle()

    def register_serve(
        self, task: Any, sock: Any, serve: Callable[[], bool], timeout: Optional[float]
    ) -> None:
        """See Serve."""
        when = None if timeout is None else time.monotonic() + timeout
        self._incoming.append((task, [sock], None, None, when, serve))
        self.break_idle()

    def registerTimer(self, task: Any, timeToWake: float, timeIsAbsolute: bool = False) -> None:
        """Wake the task after so many seconds, or at that time."""
        self.registerSelect(task, None, None, None, timeToWake, timeIsAbsolute)

    def idle(self) -> None:
        """Wait until a task is ready; the scheduler calls it when none is."""
        scheduler = self._scheduler
        while not scheduler._ready and not scheduler._hasQuit:
            self._poll(LONGEST_WAIT)
            if self._end_of_turn:  # of another thread
                self._finish_turn()

    def break_idle(self) -> None:
        """Have idle() return; from any thread. Costs nothing while the scheduler is awake."""
        if self._sleeping:
            self._sleeping = False
            with contextlib.suppress(BlockingIOError):  # full: so it is woken anyway
                os.write(self._wake_w, b"!")

    _cycle = break_idle

    def cycle(self) -> bool:
        """One turn of one task (Scheduler.cycle), and what has to be done between turns."""
        if self._turns <= 0:
            self._poll(0)
        self._turns -= 1
        try:
            return self._pox_cycle()
        except Exception as e:
            log.error("A task made POX's scheduler fail and was dropped: %s", e)
            return True
        finally:
            if self._end_of_turn:
                self._finish_turn()

    # -- for the rest of this project

    def end_of_turn(self, callback: Callable[[], None]) -> None:
        """Call back as soon as the task that runs now has yielded (from another thread: soon)."""
        self._end_of_turn.append(callback)
        if self._sleeping:
            self.break_idle()

    # -- inside

    def _finish_turn(self) -> None:
        for _ in range(len(self._end_of_turn)):
            callback = self._end_of_turn.popleft()
            try:
                callback()
            except Exception as e:
                log.error("%s at the end of a turn: %s: %s", callback, type(e).__name__, e)
                log.debug("Details:", exc_info=True)

    def _poll(self, longest: float) -> None:
        if self._incoming or self._dirty or self._old is not None:
            self._take_in()
        timers = self._timers
        if longest:
            while timers and not timers[0][2].live:
                heapq.heappop(timers)
            if timers:
                longest = max(0.0, min(longest, timers[0][0] - time.monotonic()))
            # From here on other threads write to the pipe; what they did just before is seen here.
            self._sleeping = True
            scheduler = self._scheduler
            if self._incoming or self._end_of_turn or scheduler._ready or scheduler._hasQuit:
                longest = 0
        try:
            events = self._poller.poll(math.ceil(longest * 1000))
        except OSError as e:
            self._sleeping = False
            events = self._bad_descriptors(e)
        else:
            self._sleeping = self._poll_failed = False
        if events:
            self._dispatch(events)
        if timers and timers[0][0] <= time.monotonic():
            self._expire()
        self._turns = len(self._scheduler._ready)

    def _take_in(self) -> None:
        """What is waited for since the last time, and what is not any more."""
        if self._old is not None:
            self._take_over()
        while self._incoming:
            request = self._incoming.popleft()
            try:
                self._add(*request)
            except Exception as e:
                log.error("%s is dropped, since it waits for no such thing: %s", request[0], e)
        self._tell_poller()

    def _take_over(self) -> None:
        """Move what waits in POX's hub to here; in the scheduler's thread, which has left it."""
        old, self._old = self._old, None

        def leave(*_: Any) -> None:
            raise SystemExit  # ends a thread silently

        old._select_func = leave
        if old._thread is not None:
            old._pinger.ping()
            old._thread.join()
        waiting = list(old._tasks.values())
        while not old._incoming.empty():
            waiting.append(old._incoming.get())
        for task, rlist, wlist, xlist, timeout in waiting:
            self.registerSelect(task, rlist, wlist, xlist, timeout, True)

    def _add(
        self,
        task: Any,
        rlist: Any,
        wlist: Any,
        xlist: Any,
        when: Optional[float],
        serve: Optional[Callable[[], bool]] = None,
    ) -> None:
        before = self._waits.get(task)
        if before is not None:  # it was woken by other means while it waited
            self._forget(before)
        wait = self._waits[task] = _Wait(task, bool(xlist), serve)
        bad = []
        for things, kind in ((rlist, _IN), (wlist, _OUT), (xlist, _PRI)):
            for thing in things or ():
                fd = _descriptor(thing)
                if fd < 0:
                    bad.append((thing, kind))
                    continue
                for other, former, former_kind in list(self._by_fd.get(fd, ())):
                    if former is not thing and other is not wait and _descriptor(former) != fd:
                        # It was closed, and its number given away: its task would wait in vain.
                        self._refuse(other, former, former_kind)
                        if other.live:
                            self._wake(other)
                self._by_fd.setdefault(fd, []).append((wait, thing, kind))
                wait.fds.append(fd)
                self._dirty.add(fd)
        if bad and serve is not None:
            self._serve(wait)  # which meets the error
            if wait.live:
                self._wake(wait)
        elif bad:
            for thing, kind in bad:
                self._refuse(wait, thing, kind)
            self._wake(wait)
        elif when is not None:
            self._serial += 1
            heapq.heappush(self._timers, (when, self._serial, wait))
            if len(self._timers) > 2 * len(self._waits) + 64:
                self._timers[:] = [timer for timer in self._timers if timer[2].live]
                heapq.heapify(self._timers)

    def _forget(self, wait: _Wait) -> None:
        wait.live = False
        del self._waits[wait.task]
        for fd in wait.fds:
            entries = self._by_fd.get(fd)
            if entries is None:
                continue
            entries[:] = [entry for entry in entries if entry[0] is not wait]
            if not entries:
                del self._by_fd[fd]
            self._dirty.add(fd)

    def _wake(self, wait: _Wait) -> None:
        self._forget(wait)
        wait.task.rv = wait.result or ([], [], [])
        ready = self._scheduler._ready
        if wait.task not in ready:  # POX's fast_schedule asserts this, which would end the loop
            ready.append(wait.task)

    @staticmethod
    def _refuse(wait: _Wait, thing: Any, kind: int) -> None:
        """Give it back as exceptional; a task that asks for none meets the error in its I/O."""
        if wait.result is None:
            wait.result = ([], [], [])
        if not wait.asks_errors:
            wait.result[_PLACE[kind]].append(thing)
        if not any(thing is other for other in wait.result[2]):
            wait.result[2].append(thing)

    def _tell_poller(self) -> None:
        for fd in self._dirty:
            mask = 0
            for entry in self._by_fd.get(fd, ()):
                mask |= entry[2]
            if mask == self._masks.get(fd, 0):
                continue
            if mask:
                self._poller.register(fd, mask)
                self._masks[fd] = mask
            else:
                self._poller.unregister(fd)
                del self._masks[fd]
        self._dirty.clear()

    def _dispatch(self, events: list[tuple[int, int]]) -> None:
        woken = []
        for fd, event in events:
            if fd == self._wake_r:
                os.read(fd, 1024)
                continue
            waiting = self._by_fd.get(fd, ())
            if len(waiting) == 1 and waiting[0][0].serve is not None and event != _OUT:
                self._serve(waiting[0][0])  # as nearly always
                continue
            found = False
            for wait, thing, kind in tuple(waiting):  # serve() may change it
                if wait.serve is not None:
                    if event != _OUT:
                        found = True
                        self._serve(wait)
                    continue
                if event & select.POLLNVAL:
                    self._refuse(wait, thing, kind)
                elif event & _MEANS[kind]:
                    if wait.result is None:
                        wait.result = ([], [], [])
                    wait.result[_PLACE[kind]].append(thing)
                else:
                    continue
                found = True
                woken.append(wait)
            if not found:
                # poll() tells of a hang-up unasked, over and over, where select() would not: so
                # tell the tasks.
                for wait, thing, kind in self._by_fd.get(fd, ()):
                    self._refuse(wait, thing, kind)
                    woken.append(wait)
        for wait in woken:
            if wait.live:
                self._wake(wait)

    def _serve(self, wait: _Wait) -> None:
        if not wait.live:
            return
        try:
            go_on = wait.serve()
        except Exception as e:
            wait.task.re = (e,)  # POX raises it where the task has yielded
            go_on = False
        if self._end_of_turn:
            self._finish_turn()
        if not go_on and wait.live:
            self._wake(wait)

    def _expire(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            wait = heapq.heappop(self._timers)[2]
            if wait.live:
                self._wake(wait)

    def _bad_descriptors(self, error: OSError) -> list[tuple[int, int]]:
        """poll() itself failed (more descriptors than the process may have): whom to blame."""
        if not self._poll_failed:
            log.error("Cannot wait for connections: %s", error)
        self._poll_failed = True
        bad = []
        for fd in self._by_fd:
            try:
                os.fstat(fd)
            except OSError:
                bad.append((fd, select.POLLNVAL))
        if not bad:
            time.sleep(0.05)  # nothing to blame: do not spin
        return bad
