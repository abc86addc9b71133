"""The select loop of POX's scheduler, replaced by one that no bad descriptor ends."""

import contextlib
import errno
import heapq
import logging
import math
import os
import resource
import select
import time
from collections import deque
from collections.abc import Iterable
from typing import Callable, Optional, Protocol, Union

from pox.core import core
from pox.lib.recoco import BlockingOperation, Scheduler, Task

from .lack import notice

log = logging.getLogger("edge.pox")

# Seconds, as POX's CYCLE_MAXIMUM: after them the scheduler looks whether it has been told to quit.
LONGEST_WAIT = 2.0
# A process that has not looked at its sockets for longer than this has paused.
PAUSE = 1.0  # seconds
# Under overload each round may take so long.  So a pause shorter than LONG_PAUSE counts only if
# there was no other one within SELDOM: whoever does not answer is given up in the end.
LONG_PAUSE, SELDOM = 5.0, 10.0  # seconds
# After a pause, timers wait until what has come meanwhile is handled, but no longer than this.
CATCH_UP = 1.0  # seconds
_SHORT_WHILE = 0.02  # seconds until poll() is called again after it has failed

_IN, _OUT, _PRI = select.POLLIN, select.POLLOUT, select.POLLPRI
# The events of poll() that select() counts as readable, writable and exceptional (Linux,
# fs/select.c).
_MEANS = {
    _IN: _IN | select.POLLHUP | select.POLLERR,
    _OUT: _OUT | select.POLLERR,
    _PRI: _PRI,
}
_PLACE = {_IN: 0, _OUT: 1, _PRI: 2}  # in the three lists that Select() gives back


class _HasFileno(Protocol):
    """A socket, a pipe, a file, ..."""

    def fileno(self) -> object: ...


Waitable = Union[int, _HasFileno]
"""What a task may hand to Select(): a file descriptor, or an object that has one."""

_Result = tuple[list[Waitable], list[Waitable], list[Waitable]]
_Things = Optional[Iterable[Waitable]]
# The task; what it wants to read, to write, and to have exceptional; the monotonic time at which it
# wants to be woken anyway; and what to call instead of waking it (see Serve).
_Request = tuple[Task, _Things, _Things, _Things, Optional[float], Optional[Callable[[], bool]]]


def _descriptor(thing: Waitable) -> int:
    """Return the file descriptor of a socket, a number, ...; -1 if it is closed or has none."""
    try:
        fd = thing if isinstance(thing, int) else thing.fileno()
        return fd if isinstance(fd, int) and 0 <= fd < 1 << 31 else -1
    except Exception:
        return -1


class Serve(BlockingOperation):
    """Call a function whenever a socket has something to read, for as long as it returns True.

    A task yields it, and sleeps until the function has returned False, until it has raised an
    exception (which is raised in the task), or until the timeout. To wake a task for each message
    with Select() costs several times what it costs to read one.

    sock: what to read from.
    serve: the function.
    timeout: in seconds; None for none.
    """

    def __init__(
        self, sock: Waitable, serve: Callable[[], bool], timeout: Optional[float] = None
    ) -> None:
        self._sock = sock
        self._serve = serve
        self._timeout = timeout

    def execute(self, task: Task, scheduler: Scheduler) -> None:
        """Start to wait; POX's scheduler calls this when a task has yielded it."""
        scheduler._selectHub.register_serve(task, self._sock, self._serve, self._timeout)


class _Wait:
    """One task's Select(), Serve() or Sleep()."""

    __slots__ = ("task", "asks_errors", "serve", "fds", "result", "live")

    def __init__(
        self, task: Task, asks_errors: bool, serve: Optional[Callable[[], bool]] = None
    ) -> None:
        self.task = task
        # The task handed in an exceptional list, so it looks at the one that it gets back.
        self.asks_errors = asks_errors
        self.serve = serve
        self.fds: list[int] = []
        self.result: Optional[_Result] = None
        self.live = True  # until the task has been woken


class RobustSelectHub:
    """Takes the place of recoco's SelectHub.

    POX, in pox/lib/recoco/recoco.py:
    1. select.select() (:887) gets whatever the tasks handed in. A closed descriptor, or one above
       1023, raises an exception in the hub's thread (:838). That ends the thread, and no task ever
       sees I/O or a timer again. A task that waits twice has the same effect (:902). With
       --epoll-selecthub so have a closed descriptor (pox/lib/epoll_select.py:86, :95), and one that
       hangs up while nobody asked for exceptions (:920).
    2. The hub is a thread of its own (:800), so every event costs two thread switches. Without that
       thread (--unthreaded-sh), every fast_schedule() writes to a pipe (:829), and tasks that are
       always ready starve all I/O, since Scheduler.run (:287) polls only when no task is ready.
    3. Every wake-up looks at all tasks (:861).
    4. A task that yields None raises an exception in Scheduler.cycle (:348), which ends the
       scheduler.
    5. A process that was stopped for a while (SIGSTOP, a virtual machine that moves), or one task
       that has worked for as long, is not noticed.  All timers fire before what has come meanwhile
       is read, so whoever has answered in time is taken for silent.

    Here: the scheduler's own thread polls when no task is ready, and once in each round of the
    ready tasks. Its poll object is persistent, takes descriptors of any number, and is told only
    what has changed. What is served (see Serve) is read from here, without a turn of its task. A
    bad descriptor is reported to the task that handed it in, as exceptional, and to no other.
    Timers are a heap on the monotonic clock. Tasks that wait in POX's hub are taken over. After a
    pause, what waits in the sockets is read first, and then the timers fire. Whoever judges by a
    time how long a peer has been silent asks awake_since() too.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._pox_cycle: Callable[[], bool] = scheduler.cycle
        self._old = scheduler._selectHub
        self._incoming: deque[_Request] = deque()  # any thread appends; append, popleft are atomic
        self._end_of_turn: deque[Callable[[], None]] = deque()
        self._waits: dict[Task, _Wait] = {}
        # For each descriptor: (wait, what was handed in for it, _IN or _OUT or _PRI).
        self._by_fd: dict[int, list[tuple[_Wait, Waitable, int]]] = {}
        self._dirty: set[int] = set()  # descriptors whose mask may have changed since the last poll
        self._masks: dict[int, int] = {}  # as the poll object has them
        self._timers: list[tuple[float, int, _Wait]] = []  # heap of (monotonic time, serial, wait)
        self._serial = 0
        self._turns = 0  # left in this round of the ready tasks
        self._awake_since = -math.inf
        self._overdue = math.inf  # if it is later than this, there was a pause
        self._catching_up = False  # timers wait, until _catch_up_until at the latest
        self._catch_up_until = -math.inf
        self._sleeping = False
        self._poll_failed = False
        self._poller = select.poll()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._poller.register(self._wake_r, _IN)

    def install(self) -> None:
        """Put this hub in place.

        The scheduler may be running already, and may wait in POX's hub at this moment.
        """
        old = self._old  # the scheduler's thread may take over before this is done
        self._scheduler._selectHub = self
        self._scheduler.cycle = self.cycle
        if old._thread is not None:
            old._event.set()
        old._pinger.ping()

    # -- what POX's Scheduler and blocking operations call

    def registerSelect(
        self,
        task: Task,
        rlist: _Things = None,
        wlist: _Things = None,
        xlist: _Things = None,
        timeout: Optional[float] = None,
        timeIsAbsolute: bool = False,
    ) -> None:
        """Wake the task when one of these is ready, or after the timeout.

        timeout: in seconds from now, or a time as of time.time() with timeIsAbsolute.
        """
        if timeout is not None:
            if timeIsAbsolute:
                timeout -= time.time()
            timeout += time.monotonic()
        self._incoming.append((task, rlist, wlist, xlist, timeout, None))
        self.break_idle()

    def register_serve(
        self, task: Task, sock: Waitable, serve: Callable[[], bool], timeout: Optional[float]
    ) -> None:
        """Call serve() whenever sock has something to read (see Serve)."""
        when = None if timeout is None else time.monotonic() + timeout
        self._incoming.append((task, [sock], None, None, when, serve))
        self.break_idle()

    def registerTimer(self, task: Task, timeToWake: float, timeIsAbsolute: bool = False) -> None:
        """Wake the task after so many seconds, or at that time with timeIsAbsolute."""
        self.registerSelect(task, None, None, None, timeToWake, timeIsAbsolute)

    def idle(self) -> None:
        """Wait until a task is ready; the scheduler calls this when no task is."""
        scheduler = self._scheduler
        while not scheduler._ready and not scheduler._hasQuit:
            self._look(LONGEST_WAIT)
            if self._end_of_turn:  # another thread has asked for it
                self._finish_turn()

    def break_idle(self) -> None:
        """Make idle() return. Any thread may call it. It is cheap while the scheduler is awake."""
        if self._sleeping:
            self._sleeping = False
            with contextlib.suppress(BlockingIOError):  # the pipe is full: idle() returns anyway
                os.write(self._wake_w, b"!")

    _cycle = break_idle

    def cycle(self) -> bool:
        """Run one turn of one task, as Scheduler.cycle does, and what is due between turns."""
        if self._turns <= 0:
            self._look(0)
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
        """Call back as soon as the task that runs now has yielded.

        Another thread may call it; then the call comes at the end of some turn, soon.
        """
        self._end_of_turn.append(callback)
        if self._sleeping:
            self.break_idle()

    def awake_since(self) -> float:
        """Return when the last pause of this process ended; -inf if there was none (monotonic).

        A pause is a time of more than PAUSE in which no socket was read: the process was stopped,
        or one task has worked for so long. While such a turn goes on, its pause ends now. Pauses
        that follow each other within SELDOM count only if they are longer than LONG_PAUSE. Only the
        scheduler's thread may call this.
        """
        self._now()
        return self._awake_since

    # -- inside

    def _now(self) -> float:
        """Return the monotonic time, and notice a pause that has ended."""
        now = time.monotonic()
        if now > self._overdue:
            self._paused(now)
        return now

    def _paused(self, now: float) -> None:
        """No socket has been read for more than PAUSE, until now."""
        length = now - self._overdue + PAUSE
        self._overdue = now + PAUSE
        if length > LONG_PAUSE or now - self._awake_since > SELDOM:
            log.info("POX has paused for %.1f s; nobody is judged by it", length)
            self._awake_since = now
            if not self._catching_up:
                self._catch_up_until = now + CATCH_UP
            self._catching_up = True

    def _finish_turn(self) -> None:
        for _ in range(len(self._end_of_turn)):
            callback = self._end_of_turn.popleft()
            try:
                callback()
            except Exception as e:
                log.error("%s at the end of a turn: %s: %s", callback, type(e).__name__, e)
                log.debug("Details:", exc_info=True)

    def _look(self, longest: float) -> None:
        """Wake what is ready, after so many seconds at most.

        No error may leave here: it would end the scheduler. What a lack of memory has cut short is
        found again by the next poll.
        """
        try:
            self._poll(longest)
        except Exception as e:
            if not notice(e):
                log.error("Cannot look for what is ready: %s: %s", type(e).__name__, e)
                log.debug("Details:", exc_info=True)
            time.sleep(_SHORT_WHILE)
            self._sleeping = False

    def _poll(self, longest: float) -> None:
        if self._incoming or self._dirty or self._old is not None:
            self._take_in()
        timers = self._timers
        if longest:
            while timers and not timers[0][2].live:
                heapq.heappop(timers)
            now = self._now()
            if self._catching_up:
                longest = 0.0
            elif timers:
                longest = max(0.0, min(longest, timers[0][0] - now))
            self._overdue = now + longest + PAUSE
            # Other threads write to the pipe from here on. What they did before is seen below.
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
        now = self._now()
        self._overdue = now + PAUSE
        if events:
            self._dispatch(events)
            now = self._now()
        if self._catching_up:
            idle = not events and not self._scheduler._ready
            self._catching_up = not idle and now < self._catch_up_until
        if timers and timers[0][0] <= now and not self._catching_up:
            self._expire(now)
        self._turns = len(self._scheduler._ready)

    def _take_in(self) -> None:
        """Take over the requests since the last time, and tell the poll object what changed."""
        if self._old is not None:
            self._take_over()
        while self._incoming:
            request = self._incoming.popleft()
            try:
                self._add(*request)
            except MemoryError:
                self._incoming.appendleft(request)
                raise
            except Exception as e:
                log.error("%s is dropped, since it waits for no such thing: %s", request[0], e)
        self._tell_poller()

    def _take_over(self) -> None:
        """Move what waits in POX's hub to here.

        The scheduler's thread calls it, when it has left POX's hub.
        """
        old, self._old = self._old, None

        def leave(*_: object) -> None:
            raise SystemExit  # it ends a thread without a message

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
        task: Task,
        rlist: _Things,
        wlist: _Things,
        xlist: _Things,
        when: Optional[float],
        serve: Optional[Callable[[], bool]],
    ) -> None:
        before = self._waits.get(task)
        if before is not None:  # something else than this hub woke it while it waited
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
                        # It was closed, and its descriptor is another's: its task would never wake.
                        self._refuse(other, former, former_kind)
                        if other.live:
                            self._wake(other)
                self._by_fd.setdefault(fd, []).append((wait, thing, kind))
                wait.fds.append(fd)
                self._dirty.add(fd)
        if bad and serve is not None:
            self._serve(wait)  # serve() meets the error
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
    def _refuse(wait: _Wait, thing: Waitable, kind: int) -> None:
        """Give a thing that cannot be waited for back to its task, as exceptional.

        A task that did not ask for exceptional things gets it as ready, and meets the error in its
        I/O.
        """
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
                self._serve(waiting[0][0])  # the usual case
                continue
            found = False
            for wait, thing, kind in tuple(waiting):  # a copy: serve() may change the list
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
                # poll() reports a hang-up to who did not ask for it, and again and again; select()
                # would not. So the tasks are told.
                for wait, thing, kind in self._by_fd.get(fd, ()):
                    self._refuse(wait, thing, kind)
                    woken.append(wait)
        for wait in woken:
            if wait.live:
                self._wake(wait)

    def _serve(self, wait: _Wait) -> None:
        serve = wait.serve
        if serve is None or not wait.live:
            return
        try:
            go_on = serve()
        except Exception as e:
            wait.task.re = (e,)  # POX raises it where the task has yielded
            go_on = False
        if self._end_of_turn:
            self._finish_turn()
        if not go_on and wait.live:
            self._wake(wait)

    def _expire(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            wait = self._timers[0][2]
            if wait.live:
                self._wake(wait)
            heapq.heappop(self._timers)

    def _bad_descriptors(self, error: OSError) -> list[tuple[int, int]]:
        """Return the events that explain why poll() itself failed.

        It fails when it is given more descriptors than the process may have.
        """
        bad = []
        for fd in self._by_fd:
            try:
                os.fstat(fd)
            except OSError:
                bad.append((fd, select.POLLNVAL))
        if not bad:
            notice(OSError(errno.EMFILE, "the limit has been lowered"))
            return self._poll_in_parts()
        if not self._poll_failed:
            log.error("Cannot wait for connections: %s", error)
        self._poll_failed = True
        return bad

    def _poll_in_parts(self) -> list[tuple[int, int]]:
        """Poll when there are more descriptors than the process may have (EINVAL of poll(2)).

        That is so when the limit has been lowered since. What is open goes on being served.
        """
        time.sleep(_SHORT_WHILE)
        events: list[tuple[int, int]] = []
        most = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        masks = [(self._wake_r, _IN), *self._masks.items()]
        for first in range(0, len(masks), most):
            poller = select.poll()
            for fd, mask in masks[first : first + most]:
                poller.register(fd, mask)
            events += poller.poll(0)
        return events


def awake_since() -> float:
    """Return when the last pause of this process ended (see RobustSelectHub.awake_since).

    Nobody may be given up for a silence before that, because this process could neither ask nor
    hear. -inf if there was no pause, or the repairs are not in place.
    """
    hub = core.scheduler._selectHub
    return hub.awake_since() if isinstance(hub, RobustSelectHub) else -math.inf


def patience_left(since: float, seconds: float) -> float:
    """Return how much is left of a patience that began then, or anew after the last pause.

    since: monotonic time.
    """
    now = time.monotonic()
    return max(since, awake_since()) + seconds - now
