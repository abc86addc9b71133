"""Bytes on their way out of a non-blocking socket."""

import ssl
from collections import deque
from collections.abc import Iterator
from typing import Any, Callable, Union

from pox.core import core
from pox.lib.recoco import Select, Task

BACKLOG_LIMIT = 64 << 20
GATHERED = 64 << 10  # bytes after which the rest of the turn is not waited for
LONG = 4 << 10  # bytes: a first part of so many is sent by itself, not copied together with others


def _nothing(reason: str) -> None:
    """Nobody wants to know any more."""


class Outbox:
    """Sends what it is given, in order, without ever blocking and without a thread.

    POX: pox/openflow/of_01.py:882 makes one system call per message, and hands what the kernel does
    not take to the DeferredSender (:409), one thread for all switches that cuts it up into 4 kB
    pieces; its select() at :467 raises for good when one of the switches is closed.

    Guaranteed: what is sent within one turn of a task leaves together when that turn ends, before
    any other task runs (sooner, if it is 64 kB or more, or on flush()); what the kernel does not
    take waits here for the socket to become writable. Never raises. Not for other threads than
    POX's scheduler's: use core.call_later.

    sock: non-blocking, plain or TLS.
    failed: called once with the reason, when sending failed or more than `limit` bytes wait; the
        outbox is closed then.
    """

    def __init__(
        self, sock: Any, failed: Callable[[str], None], limit: int = BACKLOG_LIMIT
    ) -> None:
        self.limit = limit
        self.backlog = 0  # bytes that wait to be sent
        self._sock = sock
        self._failed = failed
        self._end_of_turn = core.scheduler._selectHub.end_of_turn
        self._parts: deque[Union[bytes, memoryview]] = deque()
        self._due = False  # flush() will be called: when the turn ends, or by a _Drain
        self._blocked = False  # a _Drain waits until the socket is writable
        self._closed = False

    @property
    def stuck(self) -> int:
        """Bytes that wait since the kernel does not take them, as the peer reads too slowly."""
        return self.backlog if self._blocked else 0

    def send(self, data: bytes) -> None:
        """Send it, now or later."""
        if self._closed:
            return
        self._parts.append(data)
        self.backlog += len(data)
        if not self._due:
            self._due = True
            self._end_of_turn(self.flush)
        elif self._blocked:
            if self.backlog > self.limit:
                self._fail(f"it does not take what we send: {self.backlog} bytes wait")
        elif self.backlog >= GATHERED:
            self.flush()

    def flush(self) -> None:
        """Hand the kernel now what it takes."""
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
                self._fail(str(e))
                return
            self.backlog -= sent
            if sent < len(data):
                parts.appendleft(memoryview(data)[sent:])
                self._due = True
                if not self._blocked:
                    self._blocked = True
                    _Drain(self).start(fast=True)
                return

    def _take(self, size: int) -> Iterator[Union[bytes, memoryview]]:
        """Take parts of together at least this size, or all."""
        while self._parts and size > 0:
            part = self._parts.popleft()
            size -= len(part)
            yield part

    def close(self) -> None:
        """Forget what was not sent; nothing is sent any more. The socket is left alone."""
        self._closed = True
        self._failed = _nothing  # so that it does not keep alive whoever owns it
        self._parts.clear()
        self.backlog = 0

    def _fail(self, reason: str) -> None:
        failed = self._failed
        self.close()
        failed(reason)


class _Drain(Task):
    """Lives while an outbox has to wait for its socket."""

    def __init__(self, box: Outbox) -> None:
        self._box = box
        super().__init__()

    def run(self) -> Any:
        box = self._box
        while box._parts:
            yield Select([], [box._sock], [])
            box.flush()
        box._blocked = False
        yield False


class DeferredSends:
    """Takes the place of of_01.deferredSender for connections that are not ours.

    POX: see Outbox. `sending` stays True once its thread has ended, and then nothing is sent to any
    switch again (pox/openflow/of_01.py:877).

    Here: an Outbox for each connection that has something waiting.
    """

    def __init__(self) -> None:
        self._boxes: dict = {}

    @property
    def sending(self) -> bool:
        """Whether something waits, so that what comes now has to wait behind it."""
        for con, box in list(self._boxes.items()):
            if not box.backlog:
                del self._boxes[con]
        return bool(self._boxes)

    def send(self, con: Any, data: bytes) -> None:
        """What the kernel did not take of this connection."""
        if con not in self._boxes:
            self._boxes[con] = Outbox(con.sock, lambda reason: con.disconnect(defer_event=True))
        self._boxes[con].send(data)

    def kill(self, con: Any) -> None:
        """Forget what waits for this connection."""
        box = self._boxes.pop(con, None)
        if box is not None:
            box.close()
