"""Bytes on their way out of a non-blocking socket."""

import fcntl
import socket
import ssl
import sys
import termios
from collections import deque
from collections.abc import Iterator
from typing import Callable, Union

from pox.core import core
from pox.lib.recoco import Select, Task
from pox.openflow import of_01

from .lack import notice

BACKLOG_LIMIT = 64 << 20  # bytes
CROWDED = 1 << 20  # bytes: if more than that wait, whoever sends more is to be held back,
ROOM = 256 << 10  # until no more than this wait
GATHERED = 64 << 10  # bytes that are sent at once, before the turn ends
LONG = 4 << 10  # bytes: a first part as long as this is sent alone, not joined with what follows


def _nothing(reason: str) -> None:
    """Take the place of `failed` when the owner of an outbox has closed it."""


def _nobody() -> None:
    """Take the place of `crowded` as long as nobody wants to know."""


class Outbox:
    """Sends what it is given, in order. It never blocks, and needs no thread.

    POX: pox/openflow/of_01.py:882 makes one system call per message, and hands what the kernel does
    not take to the DeferredSender (:409). That is one thread for all switches, which cuts the bytes
    up into pieces of 4 kB. When one of the switches is closed, its select() at :467 raises an
    exception again and again, and nothing is sent to any switch.

    Guaranteed: what is sent within one turn of a task leaves together when that turn ends, before
    any other task runs. It leaves sooner if it is 64 kB or more, or on flush(). What the kernel
    does not take waits here until the socket is writable. No method raises an exception. Only the
    thread of POX's scheduler may call the methods; other threads use core.call_later.

    sock: a non-blocking socket, plain or TLS.
    failed: called once with the reason, when sending has failed or more than `limit` bytes wait;
        the outbox is closed then.
    limit: bytes that may wait to be sent.
    crowded: called whenever something is sent while more than CROWDED bytes wait because the peer
        reads too slowly. May be set at any time.
    blocked: whether bytes wait because the kernel does not take them.
    taken: how many bytes the kernel has taken.
    """

    def __init__(
        self, sock: socket.socket, failed: Callable[[str], None], limit: int = BACKLOG_LIMIT
    ) -> None:
        self.limit = limit
        self.backlog = 0  # bytes that wait to be sent
        self.taken = 0
        self.blocked = False  # a _Drain waits until the socket is writable
        self.crowded: Callable[[], None] = _nobody
        self.broken = False  # the kernel says that the connection has ended
        self._sock = sock
        self._failed = failed
        self._end_of_turn = core.scheduler._selectHub.end_of_turn
        self._parts: deque[Union[bytes, memoryview]] = deque()
        self._due = False  # flush() will be called, when the turn ends or by a _Drain
        # How many bytes the kernel has to take before each callback; see when_taken().
        self._awaited: list[tuple[int, Callable[[], None]]] = []
        self._closed = False

    @property
    def stuck(self) -> int:
        """Bytes that wait because the kernel does not take them: the peer reads too slowly."""
        return self.backlog if self.blocked else 0

    @property
    def end(self) -> int:
        """How many bytes the kernel will have taken when it has taken all that was sent."""
        return self.taken + self.backlog

    @property
    def unacknowledged(self) -> int:
        """Bytes in the kernel's send buffer: sent or not, but not acknowledged by the peer."""
        try:
            waiting = fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):  # it is not TCP, or closed
            return 0
        return int.from_bytes(waiting, sys.byteorder)

    def send(self, data: bytes) -> None:
        """Send these bytes, now or later. Does nothing when the outbox is closed."""
        if self._closed:
            return
        self._parts.append(data)
        self.backlog += len(data)
        if not self._due:
            self._due = True
            self._end_of_turn(self.flush)
        elif self.blocked:
            if self.backlog > self.limit:
                self._fail(f"it does not take what we send: {self.backlog} bytes wait")
            elif self.backlog > CROWDED:
                self.crowded()
        elif self.backlog >= GATHERED:
            self.flush()

    def flush(self) -> None:
        """Hand the kernel as much as it takes, now."""
        try:
            self._flush()
        except MemoryError as e:  # some of the bytes may be lost, so no more of them may follow
            notice(e)
            self._fail("memory is short")

    def _flush(self) -> None:
        self._due = False
        parts = self._parts
        while parts:
            alone = len(parts) == 1 or len(parts[0]) >= LONG
            data = parts.popleft() if alone else b"".join(self._take(GATHERED))
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                sent = 0
            except (OSError, ValueError) as e:
                self.broken = True
                self._fail(str(e))
                return
            self.backlog -= sent
            self.taken += sent
            if sent < len(data):
                parts.appendleft(memoryview(data)[sent:])
                self._due = True
                if not self.blocked:
                    self.blocked = True
                    _Drain(self).start(fast=True)
                return

    def when_taken(self, octets: int, callback: Callable[[], None]) -> None:
        """Call back, at the end of a turn, when the kernel has taken so many bytes (see `taken`).

        If the outbox is closed before, the callback comes then.
        """
        self._awaited.append((octets, callback))
        if self._closed or not self.blocked:
            self._call_back()

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call back, at the end of a turn, when at most ROOM bytes wait, or the outbox is closed.

        What is sent until then does not count.
        """
        self.when_taken(self.end - ROOM, callback)

    def _call_back(self) -> None:
        """Have those called back who have waited for what the kernel has taken by now."""
        awaited, self._awaited = self._awaited, []
        for octets, callback in awaited:
            if octets <= self.taken or self._closed or not self.blocked:
                self._end_of_turn(callback)
            else:
                self._awaited.append((octets, callback))

    def _take(self, size: int) -> Iterator[Union[bytes, memoryview]]:
        """Take parts off the queue until they have at least this size together, or all of them."""
        while self._parts and size > 0:
            part = self._parts.popleft()
            size -= len(part)
            yield part

    def close(self) -> None:
        """Forget what was not sent, and send nothing any more. The socket is left alone."""
        self._closed = True
        self._failed = _nothing  # the callbacks would keep the outbox's owner alive
        self.crowded = _nobody
        self._parts.clear()
        self.backlog = 0
        self._call_back()

    def _fail(self, reason: str) -> None:
        failed = self._failed
        self.close()
        failed(reason)


class _Drain(Task):
    """The task that waits until an outbox's socket is writable, and then flushes the outbox."""

    def __init__(self, box: Outbox) -> None:
        self._box = box
        super().__init__()

    def run(self) -> Iterator[object]:
        box = self._box
        while box._parts:
            yield Select([], [box._sock], [])
            box.flush()
            box._call_back()
        box.blocked = False
        box._call_back()
        yield False


class DeferredSends:
    """Takes the place of of_01.deferredSender, for connections that are no EdgeConnection.

    POX: see Outbox. When the sender's thread has ended, `sending` stays True, and then nothing is
    sent to any switch again (pox/openflow/of_01.py:877).

    Here: an Outbox for each connection that has something waiting.
    """

    def __init__(self) -> None:
        self._boxes: dict[of_01.Connection, Outbox] = {}

    @property
    def sending(self) -> bool:
        """Whether bytes wait. Then POX puts what it sends next behind them."""
        for con, box in list(self._boxes.items()):
            if not box.backlog:
                del self._boxes[con]
        return bool(self._boxes)

    def send(self, con: of_01.Connection, data: bytes) -> None:
        """Send later what the kernel did not take of this connection."""
        if con not in self._boxes:
            self._boxes[con] = Outbox(con.sock, lambda reason: con.disconnect(defer_event=True))
        self._boxes[con].send(data)

    def kill(self, con: of_01.Connection) -> None:
        """Forget what waits for this connection."""
        box = self._boxes.pop(con, None)
        if box is not None:
            box.close()
