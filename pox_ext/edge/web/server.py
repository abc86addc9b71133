"""
The web server of the page.

One thread has all connections, in an event loop of asyncio: it accepts them, reads a request from
each, sends the answer and closes.  Answers are made by WORKERS more threads, since to make one is
to wait for POX's scheduler.  All threads are started before the first request, so a lack of threads
later on concerns nobody.

What others may cost is bounded:

- There are MOST_CONNECTIONS at a time.  When there is one more, one of those makes room that keep
  us waiting, for their request or for reading their answer (see _Connection.order).  So whoever
  sends a request at once is answered, however many are slow.  If all are waiting for us, the next
  ones wait until one of them has its answer.
- A request has to be there within REQUEST_PATIENCE, and has LONGEST_HEAD bytes at most.  An answer
  has to be taken within ANSWER_PATIENCE.  These are seconds in which this process was running: a
  browser does not pay for a time in which the process was stopped.
- Without a file descriptor (see poxfixes/lack.py), connections wait and are accepted later.
"""

import asyncio
import contextlib
import logging
import math
import queue
import socket
import threading
import time
from collections.abc import Iterator
from email.message import Message
from email.utils import formatdate
from enum import Enum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import Any, Callable, NamedTuple, Optional

from edge.poxfixes.lack import RETRY, notice
from edge.poxfixes.listener import accepted
from edge.web.site import SECURITY_HEADERS, Response, error_response

log = logging.getLogger("edge.dashboard")

MOST_CONNECTIONS = 64
WORKERS = 16  # answers that are made at a time; the other requests wait
BACKLOG = 1024  # connections that the kernel holds until they are accepted
LONGEST_HEAD = 32 << 10  # bytes of a request's first line and header fields
REQUEST_PATIENCE = 10.0  # seconds from the connection to the end of its request's head
ANSWER_PATIENCE = 30.0  # seconds for sending the answer
GRACE = 1.0  # seconds for the request, before others are preferred that are reading their answer
CLOSE_PATIENCE = 2.0  # seconds until a connection is closed whose client does not close it
SWEEP = 0.5  # seconds between two looks at who has run out of patience
PRODUCT = "edge.aggregator"  # what the Server header says: no versions

_READ_SIZE = 16 << 10  # bytes
_READS_AT_CLOSE = 64  # reads of what a client still sends when it has its answer

Answer = Callable[[str, str, Message], Response]
"""Makes the response to a request: its method, its target, and its header fields."""


class _Request(BaseHTTPRequestHandler):
    """
    The head of a request, parsed as the standard library's server does it.

    head: its bytes
    refusal: the response to a request that is not valid HTTP, otherwise None
    """

    command: str
    path: str
    headers: Message

    def __init__(self, head: bytes) -> None:  # without a connection, unlike the standard library's
        self.refusal: Optional[Response] = None
        self.client_address = ("", 0)
        self.rfile = BytesIO(head)
        self.raw_requestline = self.rfile.readline()
        self.valid = self.parse_request()

    def send_error(
        self, code: int, message: Optional[str] = None, explain: Optional[str] = None
    ) -> None:
        """Remember the refusal; the standard library calls this while it parses."""
        self.refusal = error_response(code, message or HTTPStatus(code).phrase)


class _Stage(Enum):
    """What a connection waits for."""

    REQUEST = "its request"
    RESPONSE = "us"
    SENDING = "the client, which has to read"
    CLOSING = "the client, which has its answer and has to close"


class _Connection:
    """
    One connection.

    stage: what it waits for
    since: since when (seconds, of the event loop's clock)
    deadline: when (seconds, of the server's clock) it is closed
    task: serves it
    """

    task: "asyncio.Task[None]"

    def __init__(self, sock: socket.socket, since: float, deadline: float) -> None:
        self.sock = sock
        self.enter(_Stage.REQUEST, since, deadline)

    def enter(self, stage: _Stage, since: float, deadline: float = math.inf) -> None:
        """Begin to wait for something else."""
        self.stage, self.since, self.deadline = stage, since, deadline

    def order(self, now: float) -> tuple[int, float]:
        """
        The least one makes room first: one that has its answer, then one that has had a while to
        send its request, then any; among these the one that has waited longest.
        """
        if self.stage is _Stage.CLOSING:
            return 0, self.since
        if self.stage is _Stage.REQUEST and now - self.since > GRACE:
            return 1, self.since
        return 2, self.since


class _Job(NamedTuple):
    """A request for a worker, and the future that gets the response."""

    request: _Request
    response: "asyncio.Future[Response]"


class Server:
    """
    Serves the responses of `answer` at an IP address and TCP port, once serve() is called.

    answer: is called by several threads

    Raises OSError if it is not possible to listen there.
    """

    def __init__(self, address: tuple[str, int], answer: Answer) -> None:
        self._answer = answer
        self._jobs: queue.SimpleQueue[Optional[_Job]] = queue.SimpleQueue()  # None ends a worker
        self._connections: set[_Connection] = set()
        self._listening = False
        self._now = 0.0  # seconds that this process has been running
        self._swept = 0.0
        self._threads = [self._run, *[self._work] * WORKERS]  # those that are still to be started
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(address)
            self._listener.listen(BACKLOG)
            self._listener.setblocking(False)
            self._loop = asyncio.new_event_loop()
        except BaseException:
            self._listener.close()
            raise
        self._loop.set_exception_handler(_failed)
        self.address: tuple[str, int] = self._listener.getsockname()

    # --- for other threads -----------------------------------------------------------------------

    def serve(self) -> None:
        """
        Start the threads.

        Raises an exception if one cannot be started; then a later call starts the others.
        """
        while self._threads:
            threading.Thread(target=self._threads[-1], name="edge.dashboard", daemon=True).start()
            self._threads.pop()

    def stop(self) -> None:
        """Close everything, soon; without effect after the first time."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._loop.stop)

    # --- the worker threads ----------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            request, response = job
            try:
                made = self._answer(request.command, request.path, request.headers)
            except Exception as e:
                if not notice(e):
                    log.error("Cannot answer: %s: %s", type(e).__name__, e)
                made = error_response(500, "This cannot be shown.")
            try:
                self._loop.call_soon_threadsafe(_resolve, response, made)
            except RuntimeError:  # the loop is closed
                return
            del job, request, response, made  # not to be kept until the next one comes

    # --- the event loop --------------------------------------------------------------------------

    def _run(self) -> None:
        """Serve until stop()."""
        self._swept = self._loop.time()
        self._sweep()
        self._listen()
        while True:
            try:
                self._loop.run_forever()
                break
            except Exception as e:  # asyncio itself has met a lack of memory
                if not notice(e):
                    log.error("The page's server: %s: %s", type(e).__name__, e)
                time.sleep(RETRY)
        self._listener.close()
        self._loop.run_until_complete(self._end_all())
        self._loop.close()
        for _ in range(WORKERS):
            self._jobs.put(None)

    def _listen(self) -> None:
        """Accept connections from now on."""
        if not self._listening:
            self._listening = True
            self._loop.add_reader(self._listener, self._accept)

    def _pause(self) -> None:
        """Leave connections to the kernel until _listen() is called."""
        self._listening = False
        self._loop.remove_reader(self._listener)

    def _accept(self) -> None:
        coming = accepted(self._listener)
        while True:
            if len(self._connections) >= MOST_CONNECTIONS and self._slowest() is None:
                self._pause()  # until one of them ends
                return
            try:
                sock = next(coming, None)
            except Exception as e:
                if not notice(e):
                    log.error("Cannot accept a browser: %s", e)
                self._pause()
                self._loop.call_later(RETRY, self._listen)
                return
            if sock is None:
                return
            try:
                self._admit(sock)
            except Exception as e:  # this connection ends, and nothing else
                sock.close()
                if not notice(e):
                    log.error("Cannot serve a browser: %s: %s", type(e).__name__, e)

    def _admit(self, sock: socket.socket) -> None:
        """Serve a connection; if there are too many now, end the slowest."""
        sock.setblocking(False)
        slowest = self._slowest() if len(self._connections) >= MOST_CONNECTIONS else None
        connection = _Connection(sock, self._loop.time(), self._now + REQUEST_PATIENCE)
        connection.task = self._loop.create_task(self._serve(connection))
        self._connections.add(connection)
        if slowest is not None:
            self._end(slowest)

    def _slowest(self) -> Optional[_Connection]:
        """The connection that makes room if there are too many; None if all wait for us."""
        now = self._loop.time()
        waiting = [each for each in self._connections if each.stage is not _Stage.RESPONSE]
        return min(waiting, key=lambda each: each.order(now), default=None)

    def _end(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        connection.task.cancel()

    async def _end_all(self) -> None:
        tasks = [connection.task for connection in self._connections]
        for connection in list(self._connections):
            self._end(connection)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _sweep(self) -> None:
        """Advance the clock, and end the connections that have run out of patience."""
        self._loop.call_later(SWEEP, self._sweep)
        now = self._loop.time()
        if now - self._swept < 3 * SWEEP:  # else the process was stopped, or had no processor
            self._now += now - self._swept
        self._swept = now
        for connection in [each for each in self._connections if each.deadline < self._now]:
            self._end(connection)

    async def _serve(self, connection: _Connection) -> None:
        """Read the request, send the answer, and close."""
        sock = connection.sock
        try:
            head = await self._read_head(sock)
            if head is None:
                return
            connection.enter(_Stage.RESPONSE, self._loop.time())
            data = await self._make(head)
            connection.enter(_Stage.SENDING, self._loop.time(), self._now + ANSWER_PATIENCE)
            await self._loop.sock_sendall(sock, data)
            # To close while something is still unread would reset the connection, and the client
            # might lose its answer.
            connection.enter(_Stage.CLOSING, self._loop.time(), self._now + CLOSE_PATIENCE)
            sock.shutdown(socket.SHUT_WR)
            for _ in range(_READS_AT_CLOSE):
                if not await self._loop.sock_recv(sock, _READ_SIZE):
                    break
                await asyncio.sleep(0)
        except OSError:
            pass  # the client has gone
        except Exception as e:
            if not notice(e):
                log.error("Cannot serve a browser: %s: %s", type(e).__name__, e)
        finally:
            sock.close()
            self._connections.discard(connection)
            self._listen()

    async def _read_head(self, sock: socket.socket) -> Optional[bytes]:
        """
        The head of a request, up to the empty line; None if the connection ends before.

        It is cut where it gets longer than LONGEST_HEAD.
        """
        head = b""
        while True:
            data = await self._loop.sock_recv(sock, _READ_SIZE)
            if not data:
                return head if b"\n" in head else None
            begin = max(0, len(head) - 3)
            head += data
            if b"\n\r\n" in head[begin:] or b"\n\n" in head[begin:] or head.startswith(b"\r\n"):
                return head
            if len(head) > LONGEST_HEAD:
                return head

    async def _make(self, head: bytes) -> bytes:
        """The answer to a request, as it goes over the line."""
        if len(head) > LONGEST_HEAD:
            status = 431 if b"\n" in head else 414
            text = f"The request's head is longer than {LONGEST_HEAD} bytes."
            return _pack(error_response(status, text))
        request = _Request(head)
        if request.refusal is not None:
            return _pack(request.refusal)
        if not request.valid:
            return _pack(error_response(400, "There is no request."))
        response = self._loop.create_future()
        self._jobs.put(_Job(request, response))
        return _pack(await response, request.command != "HEAD")


def _resolve(future: "asyncio.Future[Response]", response: Response) -> None:
    if not future.done():  # the connection has been ended meanwhile
        future.set_result(response)


def _failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Something has failed in the event loop, which goes on."""
    error = context.get("exception")
    if error is None or not notice(error):
        log.error("The page's server: %s: %r", context["message"], error)


def _pack(response: Response, with_body: bool = True) -> bytes:
    head = "\r\n".join(_head_lines(response)).encode("latin-1")
    return head + b"\r\n\r\n" + (response.body if with_body else b"")


def _head_lines(response: Response) -> Iterator[str]:
    yield f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"
    yield f"Server: {PRODUCT}"
    yield f"Date: {formatdate(usegmt=True)}"
    yield "Connection: close"
    yield f"Content-Type: {response.content_type}"
    yield f"Content-Length: {len(response.body)}"
    for name, value in SECURITY_HEADERS.items():
        yield f"{name}: {value}"
    if response.status == 405:
        yield "Allow: GET, HEAD"
