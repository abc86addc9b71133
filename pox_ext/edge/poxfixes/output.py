"""stdout and stderr, to which POX writes its log, when nobody reads them."""

import atexit
import contextlib
import logging
import os
import select
import socket
import stat
import sys
import threading
import time
from collections import deque
from functools import partial
from typing import Any, Callable, TextIO

from pox.core import core

from .timers import every

MOST_WAITING = 1 << 20  # bytes that wait for the reader; of more, the oldest are dropped
LOOK = 0.1  # seconds between two looks whether the reader reads again
LAST_WAIT = 0.5  # seconds that a reader may pause at the end of POX
LONGEST_LAST_WAIT = 3.0  # seconds that a slow reader has in all then
_SMALL = 512  # bytes: what fits where anything fits (POSIX's least PIPE_BUF)


class Output:
    """Takes the place of sys.stdout or sys.stderr. Writing to it never waits, and never fails.

    POX: its log handlers (pox/boot.py:411) and print() write to the process's own stdout and
    stderr. When these are a pipe, a socket (journald) or a terminal, and the reader stops reading
    (Ctrl-S), the writing thread stands still once some 64 kB wait: POX with all its switches. When
    the reader is gone, each line of the log is a traceback.

    Here: while the reader reads, everything is written at once, as before. While it does not,
    the last MOST_WAITING bytes wait here. Older lines are dropped and counted. When the reader
    reads again, it gets a line that says how many are missing, and then what has waited.

    The descriptor's own flags are left alone, because other processes share them.

    stream: what is replaced; other attributes than those here are its own.
    most: see MOST_WAITING.
    """

    def __init__(self, stream: TextIO, most: int = MOST_WAITING) -> None:
        self._stream = stream
        self._most = most
        self._encoding = stream.encoding or "utf-8"
        stream.flush()
        self._poll = select.poll()
        self._poll.register(stream.fileno(), select.POLLOUT)
        self._send = _sender(stream.fileno(), self._poll)
        self._blocked = False  # the reader takes nothing, until _poll says that it has read
        # Reentrant: a signal's handler may write while its thread is writing.
        self._lock = threading.RLock()
        self._begun = b""  # the rest of what the reader has taken the beginning of
        self._waiting: deque[bytes] = deque()
        self._size = 0  # bytes in _waiting
        self._missing = 0  # lines that were dropped, before those in _waiting
        self._clear = True  # nothing waits, nothing is missing
        self._last = b"\n"  # what was written last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, now or later. Return its length."""
        data = text.encode(self._encoding, "backslashreplace")
        if not data:
            return 0
        with self._lock:
            if self._clear:
                try:
                    sent = self._send(data)
                except OSError:  # drain() looks why
                    sent = 0
                if sent == len(data):
                    self._last = data
                    return len(text)
                self._begun = data[sent:] if sent else b""
                data = b"" if sent else data
            if data:
                self._waiting.append(data)
                self._size += len(data)
            if not self.drain():
                while self._size > self._most:
                    self._drop()
        return len(text)

    def flush(self) -> None:
        """Do nothing: what could be written has been."""

    def drain(self) -> bool:
        """Write what waits, as far as the reader takes it. Return whether nothing waits now."""
        with self._lock:
            if self._blocked and not self._poll.poll(0):
                return False
            self._blocked = False
            try:
                while not self._blocked and (self._begun or self._missing or self._waiting):
                    self._write_next()
            except OSError:  # nobody can read this any more; somebody else may, later
                self._begun = b""
                while self._waiting:
                    self._drop()
            self._clear = not (self._begun or self._missing or self._waiting)
            return self._clear or not self._blocked

    def finish(self) -> None:
        """Write what waits at the end of POX, if somebody reads."""
        deadline = time.monotonic() + LONGEST_LAST_WAIT
        while not self.drain() and time.monotonic() < deadline:
            if not self._poll.poll(LAST_WAIT * 1000):
                return

    def _write_next(self) -> None:
        """Write what comes next, as far as the reader takes it."""
        data = self._begun or (self._notice() if self._missing else self._waiting[0])
        rest = self._take(data)
        self._blocked = bool(rest)
        if len(rest) == len(data):
            return
        if not self._begun and self._missing:
            self._missing = 0
        elif not self._begun:
            self._size -= len(self._waiting.popleft())
        self._begun = rest
        self._last = data

    def _notice(self) -> bytes:
        start = "" if self._last.endswith(b"\n") else "\n"
        text = f"{self._missing} lines of the log are missing here: its reader did not read"
        return f"{start}WARNING:edge.pox:{text}\n".encode()

    def _drop(self) -> None:
        data = self._waiting.popleft()
        self._size -= len(data)
        self._missing += data.count(b"\n")

    def _take(self, data: bytes) -> bytes:
        """Write bytes; return those that the reader does not take now.

        Raises OSError if there is no reader any more.
        """
        while data:
            try:
                data = data[self._send(data) :]
            except BlockingIOError:
                break
        return data


def _sender(number: int, poll: select.poll) -> Callable[[bytes], int]:
    """Return a function that writes bytes to a descriptor without waiting.

    poll: looks whether that is possible.

    The function returns how many bytes were taken, and raises BlockingIOError if none were.
    """
    if stat.S_ISSOCK(os.fstat(number).st_mode):
        sock = socket.socket(fileno=os.dup(number))
        return lambda data: sock.send(data, socket.MSG_DONTWAIT)
    with contextlib.suppress(OSError):
        # Opened again, a pipe or a terminal is the same one, with flags that nobody shares.
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        again = os.open(f"/proc/self/fd/{number}", flags)
        return partial(os.write, again)

    def send(data: bytes) -> int:  # it belongs to another user, or nobody reads it
        if not poll.poll(0):
            raise BlockingIOError
        return os.write(number, data[:_SMALL])

    return send


def _may_block(stream: object) -> bool:
    """Whether a stream is a pipe, a socket or a terminal. A file always takes what is written."""
    try:
        mode = os.fstat(stream.fileno()).st_mode  # type: ignore[attr-defined]
        terminal = os.isatty(stream.fileno())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
    return terminal or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


class Outputs:
    """The outputs of the process, each of which has taken the place of a stream."""

    def __init__(self) -> None:
        self._outputs: dict[int, Output] = {}  # by the id of the stream

    def install(self) -> None:
        """Replace stdout, stderr, and the streams of all log handlers.

        Handlers that come while POX goes up are looked at when it is up.
        """
        sys.stdout = self._instead_of(sys.stdout)
        sys.stderr = self._instead_of(sys.stderr)
        self._replace_in_handlers()
        core.addListenerByName("UpEvent", lambda event: self._replace_in_handlers())
        every(LOOK, self._drain, "edge output")
        atexit.register(self._finish)

    def _instead_of(self, stream: Any) -> Any:
        if isinstance(stream, Output) or not _may_block(stream):
            return stream
        if id(stream) not in self._outputs:
            self._outputs[id(stream)] = Output(stream)
        return self._outputs[id(stream)]

    def _replace_in_handlers(self) -> None:
        loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
        for logger in loggers:
            for handler in logger.handlers:
                if isinstance(handler, logging.StreamHandler):
                    instead = self._instead_of(handler.stream)
                    if instead is not handler.stream:
                        handler.setStream(instead)

    def _drain(self) -> None:
        for output in self._outputs.values():
            output.drain()

    def _finish(self) -> None:
        for output in self._outputs.values():
            output.finish()
