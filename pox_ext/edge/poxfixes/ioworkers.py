"""POX's I/O workers, made quick, and safe from what the far ends do.

A worker is one socket: it reads, sends, and is told of its end.  pox.datapaths builds its
connections to controllers on them.
"""

import contextlib
import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Generator
from typing import Any, Callable, Optional

from pox.core import core
from pox.lib.ioworker import RecocoIOLoop, RecocoIOWorker
from pox.lib.ioworker.workers import BackoffWorker, RecocoServerWorker
from pox.lib.recoco import Select, Sleep, Task

from .hub import Serve, patience_left
from .lack import LACKING, RETRY, behind, notice
from .listener import accepted
from .outbox import Outbox
from .timers import after

log = logging.getLogger("edge.pox")

READ_SIZE = 16 << 10  # bytes; some 200 flow-mods, and then it is the turn of others
BACKLOG = 128  # connections that wait to be accepted
_LOOK_AGAIN = 5.0  # seconds after which a task looks whether POX still runs
_NAME_POLL = 0.05  # seconds

# What a task yields to POX's scheduler, and what the scheduler gives back, is POX's affair.
Turns = Generator[Any, Any, None]

RxHandler = Callable[["RobustIOWorker"], Optional[bool]]


def _ignore(worker: "RobustIOWorker") -> None:
    """Nobody wants to know what has come."""


class RobustIOWorker(RecocoIOWorker):
    """A RecocoIOWorker with an outbox, read by a task of its own (see RobustIOLoop).

    POX, in pox/lib/ioworker/__init__.py:
    - :207 send() adds to one bytes object, and :226 and :236 take from the front of another: with a
      slow peer, or with many messages in one read, each message copies all the others.
    - :299 send_fast() raises an IndexError once all has been sent, since :297 looks at the wrong
      length; when a part has been sent, it goes on with a number in place of the rest.
    - :207 what is sent to a closed worker is kept for ever.
    - :82 a socket that select() calls exceptional is closed without a look at why.
    - :116 EAGAIN in recv() is taken for an error and ends the connection.
    - :122 logs an error for each peer that resets.
    - :313 close() calls the close handler (:254) in the middle of whatever closes it.
    - :256 shutdown() only sets a flag, and the socket stays open until all is sent.
    - :197 asks in the debug log, of every worker, whether its handler is meant to be replaced.

    Here: sending goes through an Outbox, which bounds what waits.  A worker that is closed, or not
    connected yet, drops what it is sent.  The close handler is called once, by the worker's task,
    when whoever closed it is done.

    outbox: takes what is sent; None until the socket is connected
    lacked: whether it has ended because the process lacked something (see lack.py)
    """

    closed: bool
    receive_buf: bytes
    outbox: Optional[Outbox] = None
    lacked = False

    @property
    def rx_handler(self) -> Optional[RxHandler]:
        """Is called with the worker when bytes have come.  It may return False to pause reading."""
        handler: RxHandler = self._custom_rx_handler
        return None if handler is _ignore else handler

    @rx_handler.setter
    def rx_handler(self, handler: Optional[RxHandler]) -> None:
        self._custom_rx_handler = _ignore if handler is None else handler

    def attach(self) -> None:
        """Begin to use the socket, which is connected."""
        self._connecting = False
        self.socket.setblocking(False)
        with contextlib.suppress(OSError):  # not TCP
            # Without it, the second of two small sends waits for the first's acknowledgement.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.outbox = Outbox(self.socket, self.ended)

    def send(self, data: bytes) -> None:
        """Send bytes, now or later; without effect if there is no connection."""
        if self.outbox is not None:
            self.outbox.send(data)

    send_fast = send

    def close(self) -> None:
        """End it: what was sent goes out as far as the kernel takes it.  Repeatable."""
        if self.closed:
            return
        self.closed = True
        if self.outbox is not None:
            self.outbox.flush()
            self.outbox.close()
        if self.socket is not None:  # else it has not tried to connect yet
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)  # this wakes the task

    def shutdown(self, send: bool = True, recv: bool = True) -> None:
        """Close it."""
        self.close()

    def ended(self, reason: str) -> None:
        """The connection has ended by itself.  The reason is empty if the far end has closed it."""
        self.close()

    def far_end_finished(self) -> None:
        """The far end sends no more; it may still read (TCP half-close).  The connection ends."""
        self.ended("")

    def talk(self, loop: "RobustIOLoop") -> Turns:
        """Read until the worker is closed.  Its task delegates to this."""
        while core.running and not self.closed:
            yield Serve(self.socket, self._do_recv, _LOOK_AGAIN)

    def work(self, loop: "RobustIOLoop") -> Turns:
        """All that the worker's task does: it returns when the connection has ended."""
        return self.talk(loop)

    def _do_recv(self, loop: Optional["RobustIOLoop"] = None) -> bool:
        """Read once, and have it handled.  Return False if no more is to be read now."""
        try:
            data = self.socket.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError as e:
            self.ended(e.strerror or str(e))
            return False
        if not data:
            self.far_end_finished()
            return False
        self.receive_buf = self.receive_buf + data if self.receive_buf else data
        # A handler of POX's returns nothing.
        return self._custom_rx_handler(self) is not False and not self.closed


class RobustIOLoop(RecocoIOLoop):
    """Gives each worker a task of its own.

    POX, in pox/lib/ioworker/__init__.py: one task waits for all workers with one Select (:437), so
    that each message of one costs work for all.  Whatever raises in one of them (:463), such as
    accept() (pox/lib/ioworker/workers.py:74) or an unpack error (pox/datapaths/switch.py:1151),
    ends the I/O of all for good (:465).

    Here: what raises in a worker ends that worker.  start() is not needed.  Not for other threads
    than POX's scheduler's.
    """

    def __init__(self, worker_type: type = RobustIOWorker) -> None:
        Task.__init__(self)  # without POX's pinger, which wakes a Select() that is not there
        self._worker_type = worker_type
        self._workers: set[RobustIOWorker] = set()

    def register_worker(self, worker: RobustIOWorker) -> None:
        """Have the worker do its work, as soon as the scheduler gets to it."""
        self._workers.add(worker)
        _WorkerTask(worker, self).start()

    def discard(self, worker: RobustIOWorker) -> None:
        """Forget a worker that has ended."""
        self._workers.discard(worker)

    def run(self) -> Turns:
        """End at once, since each worker has its own task."""
        yield False


class _WorkerTask(Task):
    """Does one worker's work, and calls its close handler at the end."""

    def __init__(self, worker: RobustIOWorker, loop: RobustIOLoop) -> None:
        self._worker = worker
        self._loop = loop
        super().__init__()

    def run(self) -> Turns:
        worker = self._worker
        try:
            yield from worker.work(self._loop)
        except Exception as e:
            worker.lacked = notice(e)
            if not worker.lacked:
                _complain("The work of", worker, e)
        yield from self._done("The end of", worker.close)
        self._loop.discard(worker)
        yield from self._done("The close handler of", worker._handle_close)
        worker.rx_handler = None  # so that it does not keep alive whoever handles what comes
        if worker.socket is not None:
            worker.socket.close()

    def _done(self, what: str, step: Callable[[], object]) -> Turns:
        """Do a step of the end, again for as long as the process lacks something for it."""
        while True:
            try:
                step()
                return
            except Exception as e:
                if not notice(e):
                    _complain(what, self._worker, e)
                    return
            yield Sleep(RETRY)


def _complain(what: str, worker: RobustIOWorker, error: Exception) -> None:
    log.error("%s %s: %s: %s", what, worker, type(error).__name__, error)
    log.debug("Details:", exc_info=True)


class RobustBackoffWorker(RobustIOWorker, BackoffWorker):
    """A BackoffWorker that connects in its task.

    POX, in pox/lib/ioworker/workers.py:
    - :161 connect_ex() looks the host's name up while all of POX waits, and raises if there is no
      such name, as :157 does if no descriptor is left; :185 then nobody tries again.
    - A connection attempt has no time limit but the kernel's two minutes.
    - :218 delays are cut to whole seconds: with a max_retry_delay below a second it is 0, and it
      connects without a pause.
    - :213 a connection that the far end closes at once counts as a success.
    - :224 it goes on when POX ends.
    - :36 log.warn() is deprecated.

    Here: a thread looks names up.  The delays, and the time that an attempt may take, are those of
    Open vSwitch (lib/rconn.c): the delays are doubled until a connection that worked() has lasted
    longer than the delay before it.  What fails because the process lacks something (see lack.py)
    is tried again after RETRY seconds, and the delay does not grow by it.
    """

    first_delay = 0.5  # seconds; doubled before each attempt
    _begun = 0.0  # when this attempt began (seconds, monotonic)

    def _make_connection(
        self,
        loop: RobustIOLoop,
        addr: str,
        port: int,
        reconnect_delay: float = first_delay,
        connect_callback: Optional[Callable[["RobustBackoffWorker"], object]] = None,
        disconnect_callback: Optional[Callable[["RobustBackoffWorker"], object]] = None,
        **more: object,
    ) -> None:
        """Have the worker's task connect; the parameters are POX's."""
        self.loop = loop
        self.addr = addr
        self.port = port
        self.reconnect_delay = reconnect_delay
        self.connect_callback = connect_callback
        self.disconnect_callback = disconnect_callback
        loop.register_worker(self)

    @property
    def next_delay(self) -> float:
        """Seconds until the next attempt, should this one fail."""
        return float(min(self.reconnect_delay * 2, self.max_retry_delay))

    @property
    def time_left(self) -> float:
        """Seconds until this attempt, and what the owner counts as a part of it, takes too long."""
        return patience_left(self._begun, max(1.0, self.reconnect_delay))

    def worked(self) -> None:
        """The connection that ends now was of use.

        The delays begin anew, unless it was shorter than the delay before it: so does a far end
        that greets and hangs up.
        """
        if time.monotonic() - self._begun >= self.reconnect_delay:
            self.reconnect_delay = self.first_delay

    def cannot_connect(self, problem: str) -> None:
        """An attempt has failed."""
        self._info("Cannot connect to %s:%s: %s", self.addr, self.port, problem)

    @classmethod
    def begin(cls, **kw: Any) -> Optional["RobustBackoffWorker"]:
        """Make a worker, which connects; None if the process lacks something, and then later."""
        try:
            worker: RobustBackoffWorker = super().begin(**kw)
            return worker
        except Exception as e:
            if not notice(e):
                raise
        after(RETRY, lambda: cls.begin(**kw), f"retry {kw['addr']}:{kw['port']}")
        return None

    def open_later(self) -> None:
        """Make another worker like this one after the delay."""
        if self.lacked:
            delay = min(RETRY, self.max_retry_delay)
        else:
            delay = self.reconnect_delay = self.next_delay
        self.kw["reconnect_delay"] = self.reconnect_delay
        if core.running:
            begin, kw = self.begin, self.kw
            after(delay, lambda: begin(**kw), f"retry {self.addr}:{self.port}")

    def work(self, loop: RobustIOLoop) -> Turns:
        try:
            problem = yield from self._connect()
        except UnknownHost as e:
            self.cannot_connect(str(e))
            return
        if problem:
            self.cannot_connect(os.strerror(problem))
            return
        self.attach()
        self._handle_connect()
        yield from self.talk(loop)

    def _handle_connect(self) -> None:
        """Call the connect callback; the delays begin anew when it has worked()."""
        super(BackoffWorker, self)._handle_connect()

    def _connect(self) -> Generator[Any, Any, int]:
        """
        Connect the socket, and return the errno, 0 for success.

        Raises UnknownHost if the host's name cannot be resolved, and another exception if the
        process lacks something.
        """
        address = yield from resolved(self.addr, self.port)
        self._begun = time.monotonic()
        sock = self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        problem: int = sock.connect_ex(address)
        if problem == errno.EINPROGRESS:
            problem = 0
            while not problem and not _is_connected(sock):
                yield Select([], [sock], [sock], self.time_left)
                problem = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not problem and not _is_connected(sock) and self.time_left <= 0:
                    problem = errno.ETIMEDOUT
        if problem in LACKING:
            raise OSError(problem, os.strerror(problem))
        return problem


class UnknownHost(Exception):
    """A host name that cannot be resolved; the text says so, and why."""

    def __init__(self, host: str, error: Exception) -> None:
        reason = str(error)
        if isinstance(error, OSError):
            reason = error.strerror or reason
        elif isinstance(error, UnicodeError):
            reason = "it cannot be a host name"
        super().__init__(f"the name {host} cannot be resolved: {reason}")


def resolved(host: str, port: int) -> Generator[Any, Any, tuple[str, int]]:
    """Return the IP address of a host, with the port.

    A task delegates to this.  A name server may take its time, so a thread waits for it.

    Raises UnknownHost if the host has no IPv4 address, and another exception if the process lacks
    something for the lookup (see lack.py).
    """
    with contextlib.suppress(OSError):
        socket.inet_aton(host)
        return host, port
    found: list[str] = []
    problems: list[Exception] = []

    def resolve() -> None:
        try:
            found.append(socket.gethostbyname(host))
        except Exception as e:
            problems.append(behind(e) or UnknownHost(host, e))

    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    while thread.is_alive():
        yield Sleep(_NAME_POLL)
    if problems:
        raise problems[0]
    return found[0], port


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


class RobustServerWorker(RobustIOWorker, RecocoServerWorker):
    """A RecocoServerWorker whose accept() may fail as it likes.

    POX, in pox/lib/ioworker/workers.py:
    - :74 accept() raises when a peer has reset meanwhile, or the process has no descriptor left,
      which ends the loop; :55 and it blocks.
    - :96 getpeername() does the same for a peer that is gone.
    - :62, :65 local_ip and local_port are NameErrors.
    - :57 a host name is a RuntimeError.

    Raises OSError if one cannot listen there.
    """

    def __init__(
        self, child_worker_type: type, ip: str, port: int, child_args: dict[str, object]
    ) -> None:
        self._paused = False
        self._complained = False
        super().__init__(
            child_worker_type,
            ip=socket.gethostbyname(ip),
            port=port,
            child_args=child_args,
            backlog=BACKLOG,
        )
        self._connecting = False
        self.socket.setblocking(False)

    @property
    def local_ip(self) -> str:
        """The IP address that it listens on."""
        return str(self.socket.getsockname()[0])

    @property
    def local_port(self) -> int:
        """The port that it listens on."""
        return int(self.socket.getsockname()[1])

    def cannot_accept(self, error: Exception) -> None:
        """accept() fails, and not because the process lacks something; told once until it works."""
        log.error("Cannot accept a connection: %s", error)

    def talk(self, loop: RobustIOLoop) -> Turns:
        while core.running and not self.closed:
            yield Serve(self.socket, lambda: self._do_recv(loop), _LOOK_AGAIN)
            if self._paused:
                self._paused = False
                yield Sleep(RETRY)

    def _do_recv(self, loop: Optional[RobustIOLoop] = None) -> bool:
        """Accept some connections.  Return False to have a pause."""
        try:
            for sock in accepted(self.socket):
                self._complained = False
                try:
                    self._do_accept(loop, sock)
                except Exception as e:  # the client's connection ends, and nothing else
                    sock.close()
                    if not notice(e):
                        _complain("A connection accepted by", self, e)
        except Exception as e:
            if self.closed:
                return False
            if not notice(e) and not self._complained:
                self.cannot_accept(e)
                self._complained = True
            self._paused = True
            return False
        return True

    def _do_accept(self, loop: Optional[RobustIOLoop], socket: socket.socket) -> None:
        """Make a worker for it."""
        if loop is not None:
            loop.new_worker(socket=socket, _worker_type=self.child_worker_type, **self.child_args)
