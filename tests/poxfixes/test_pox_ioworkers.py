"""I/O workers: one bad connection ends the I/O of all of POX's workers, and of one of ours."""

import errno
import gc
import queue
import socket
import threading
import time
import types
import weakref

from poxharness import HELLO, NEVER, SOON, free_port, in_time, message, on_both, on_fixed


def io(pox):
    """Return a running I/O loop, the class of workers for it, and the class of servers."""
    if pox.fixed:
        from edge.poxfixes import ioworkers

        return ioworkers.RobustIOLoop(), ioworkers.RobustIOWorker, ioworkers.RobustServerWorker
    from pox.lib.ioworker import RecocoIOLoop, RecocoIOWorker
    from pox.lib.ioworker.workers import RecocoServerWorker

    loop = RecocoIOLoop()
    loop.start()
    return loop, RecocoIOWorker, RecocoServerWorker


def worker(pox, loop, kind, sock):
    """Return a worker for a connected socket, made in POX's thread."""

    def make():
        sock.setblocking(False)
        made = kind(sock)
        if pox.fixed:
            made.attach()
        loop.register_worker(made)
        return made

    return pox.call(make)


def echoes(sock):
    """Whether the worker at the far end echoes."""
    try:
        sock.settimeout(SOON if echoes.patient else NEVER)
        sock.sendall(b"ping")
        return sock.recv(100) == b"ping"
    except OSError:
        return False


def echo(made):
    made.send(made.read())


def raises(pox):
    """One worker's handler raises. Return whether each of two workers is still served."""
    echoes.patient = pox.fixed
    loop, kind, _ = io(pox)
    (bad, far_bad), (good, far_good) = socket.socketpair(), socket.socketpair()

    def mistake(made):
        raise KeyError("a mistake")

    worker(pox, loop, kind, bad).rx_handler = mistake
    worker(pox, loop, kind, good).rx_handler = echo
    before = echoes(far_good)
    far_bad.sendall(b"anything")
    return [before, echoes(far_good), echoes(far_bad)]


def test_what_raises_in_one_worker_does_not_end_the_others():
    plain, fixed = on_both(raises)
    assert plain.result == [True, False, False]
    assert fixed.result == [True, True, False]
    assert "Traceback" not in fixed.log
    assert fixed.log.count("The work of <RobustIOWorker>: KeyError: 'a mistake'") == 1


class Failing:
    """A socket whose accept() or recv() fails once."""

    def __init__(self, sock, method, error):
        self._sock, self._method, self._error = sock, method, error

    def __getattr__(self, name):
        if name == self._method and self._error is not None:
            error, self._error = self._error, None

            def fail(*arguments):
                raise error

            return fail
        return getattr(self._sock, name)


def accepts(pox, number):
    """Whether a server goes on when accept() has failed with this errno."""
    echoes.patient = pox.fixed
    loop, kind, server = io(pox)

    def make():
        from pox.lib.addresses import IPAddr

        class Child(kind):
            def __init__(self, socket):
                super().__init__(socket)
                self.rx_handler = echo
                if pox.fixed:
                    self.attach()

        where = "127.0.0.1" if pox.fixed else IPAddr("127.0.0.1")
        made = server(Child, ip=where, port=0, child_args={})
        made.socket = Failing(made.socket, "accept", OSError(number, "no"))
        loop.register_worker(made)
        return made.socket.getsockname()

    address = pox.call(make)
    answers = []
    for _ in range(2):
        with socket.create_connection(address) as sock:
            answers.append(echoes(sock))
    return answers


def accept_after_a_reset(pox):
    return accepts(pox, errno.ECONNABORTED)


def accept_without_descriptors(pox):
    return accepts(pox, errno.EMFILE)


def test_a_peer_that_resets_before_it_is_accepted_does_not_end_the_loop():
    plain, fixed = on_both(accept_after_a_reset)
    assert plain.result == [False, False]
    assert fixed.result == [True, True]
    assert "ERROR" not in fixed.log


def test_a_process_without_descriptors_accepts_later():
    plain, fixed = on_both(accept_without_descriptors)
    assert plain.result == [False, False]
    assert fixed.result == [True, True]
    assert fixed.log.count("No file descriptor is left (no)") == 1


def again(pox):
    """Whether recv() without data (EAGAIN) closes the connection."""
    loop, kind, _ = io(pox)
    near, far = socket.socketpair()
    made = worker(pox, loop, kind, near)
    made.rx_handler = echo
    made.socket = Failing(near, "recv", BlockingIOError(errno.EAGAIN, "again"))
    pox.call(made._do_recv, loop)
    return made.closed


def test_nothing_to_read_is_no_end():
    plain, fixed = on_both(again)
    assert plain.result is True
    assert fixed.result is False


def seconds_for(pox, count):
    """Return the processor time of `count` sends to a far end that reads nothing, in seconds."""
    loop, kind, _ = io(pox)
    near, far = socket.socketpair()
    made = worker(pox, loop, kind, near)

    def send():
        begun = time.process_time()
        for _ in range(count):
            made.send(bytes(1000))
        return time.process_time() - begun

    taken = pox.call(send)
    pox.call(made.close)
    far.close()
    return taken


def grows(pox):
    """Return how many times more 8 times as many sends cost. Each cost is the least of three."""
    pairs = [(seconds_for(pox, 250), seconds_for(pox, 2000)) for _ in range(3)]
    return min(many for _, many in pairs) / min(few for few, _ in pairs)


def test_a_slow_peer_does_not_make_sending_quadratic():
    plain, fixed = on_both(grows)
    assert plain.result > 16
    assert fixed.result < 16


def dead(pox):
    """Return how many bytes a closed worker keeps of what is sent to it."""
    loop, kind, _ = io(pox)
    near, far = socket.socketpair()
    made = worker(pox, loop, kind, near)
    pox.call(made.close)
    pox.call(made.send, b"for nobody")
    return len(made.send_buf) + (made.outbox.backlog if pox.fixed else 0)


def test_what_is_sent_to_a_closed_worker_is_forgotten():
    plain, fixed = on_both(dead)
    assert plain.result == len(b"for nobody")
    assert fixed.result == 0


def fast(pox):
    """Whether send_fast() sends."""
    loop, kind, _ = io(pox)
    near, far = socket.socketpair()
    made = worker(pox, loop, kind, near)
    made._connecting = False

    def send():
        try:
            made.send_fast(b"quick")
        except IndexError as e:
            return str(e)
        return "sent"

    told = pox.call(send)
    far.settimeout(SOON)
    return [told, far.recv(100).decode()]


def test_send_fast_sends():
    plain, fixed = on_both(fast)
    assert plain.result == ["index out of range", "quick"]
    assert fixed.result == ["sent", "quick"]


def closes(pox):
    """Whether the close handler is called before the code that closes the worker is done."""
    loop, kind, _ = io(pox)
    near, far = socket.socketpair()
    made = worker(pox, loop, kind, near)
    told = queue.Queue()
    events = []

    def close():
        made.close()
        events.append("closed")

    def handler(_worker):
        events.append("told")
        told.put(True)

    made.close_handler = handler
    pox.call(close)
    told.get(timeout=SOON)
    return events


def test_the_close_handler_is_called_when_the_closer_is_done():
    plain, fixed = on_both(closes)
    assert plain.result == ["told", "closed"]
    assert fixed.result == ["closed", "told"]


def shuts_down(pox):
    """Whether the far end sees the end of a connection that is shut down."""
    loop, kind, _ = io(pox)
    near, far = socket.socketpair()
    pox.call(worker(pox, loop, kind, near).shutdown)
    far.settimeout(SOON if pox.fixed else NEVER)
    try:
        return far.recv(100) == b""
    except socket.timeout:
        return False


def test_shutdown_ends_the_connection():
    plain, fixed = on_both(shuts_down)
    assert plain.result is False
    assert fixed.result is True


def frees(pox):
    """Whether the owner of a worker is freed after its end without a run of the garbage
    collector.
    """
    gc.disable()
    loop, kind, _ = io(pox)
    near, far = socket.socketpair()

    class Owner:
        def __init__(self):
            self.worker = worker(pox, loop, kind, near)
            self.worker.rx_handler = self.handle

        def handle(self, _worker):
            pass

    owner = Owner()
    watched = weakref.ref(owner)
    ended = queue.Queue()
    owner.worker.close_handler = lambda _worker: ended.put(True)
    del owner
    far.close()
    ended.get(timeout=SOON)
    pox.alive()  # by now the worker's task has ended
    return watched() is None


def test_what_a_worker_has_served_is_freed():
    plain, fixed = on_both(frees)
    assert plain.result is False
    assert fixed.result is True


def frees_connections(pox):
    """The same for the connections of a datapath: one that it accepts and one that it opens."""
    from edge.north.datapath import Datapath

    gc.disable()
    kept = []

    class Watched(Datapath):
        def set_connection(self, connection):
            super().set_connection(connection)
            kept.append(weakref.ref(connection))
            opened.put(True)

        def connection_closed(self, connection):
            super().connection_closed(connection)
            closed.put(True)

    opened, closed = queue.Queue(), queue.Queue()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        datapath = Watched(1, [listener.getsockname()])
        datapath.big = types.SimpleNamespace(barrier=lambda done: done())
        port = free_port()

        def begin():
            datapath.connect()
            datapath.listen(("127.0.0.1", port))

        pox.call(begin)
        upstream, _ = listener.accept()
        client = socket.create_connection(("127.0.0.1", port))
        for sock in (upstream, client):
            opened.get(timeout=SOON)
            sock.sendall(message(HELLO))
            assert sock.recv(8) == message(HELLO)
            sock.close()
            closed.get(timeout=SOON)
    pox.alive()
    return [reference() is None for reference in kept]


def test_connections_that_have_ended_are_freed():
    assert on_fixed(frees_connections).result == [True, True]


# -- workers that connect again


def backoff_worker(pox):
    if pox.fixed:
        from edge.poxfixes.ioworkers import RobustBackoffWorker

        return RobustBackoffWorker
    from pox.lib.ioworker.workers import BackoffWorker

    return BackoffWorker


def attempts(pox, count, addr, port, **options):
    """Make `count` attempts to connect. Return the delay after each, and what begin() raised."""
    kind = backoff_worker(pox)
    delays = queue.Queue()

    class Attempt(kind):
        def open_later(self):
            super().open_later()
            delays.put(self.kw["reconnect_delay"])

    loop, _, _ = io(pox)

    def begin():
        try:
            Attempt.begin(loop=loop, addr=addr, port=port, **options)
        except Exception as e:
            return type(e).__name__

    raised = pox.call(begin)
    return [in_time(delays) for _ in range(count)], raised


def nobody_listens():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def short_delays(pox):
    return attempts(pox, 4, "127.0.0.1", nobody_listens(), max_retry_delay=0.3)


def test_delays_below_a_second_are_kept():
    """Otherwise it would connect over and over without a pause."""
    plain, fixed = on_both(short_delays)
    assert plain.result[0][1:] == [0, 0, 0]
    assert fixed.result == [[0.3] * 4, None]


def doubled(pox):
    return attempts(pox, 3, "127.0.0.1", nobody_listens(), max_retry_delay=3)


def test_delays_begin_at_a_second_and_double():
    assert on_fixed(doubled).result == [[1, 2, 3], None]


def hangs_up(pox):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def turn_away():
            for _ in range(3):
                listener.accept()[0].close()

        threading.Thread(target=turn_away, daemon=True).start()
        return attempts(pox, 3, *listener.getsockname(), max_retry_delay=2)[0]


def test_a_far_end_that_hangs_up_at_once_is_no_success():
    plain, fixed = on_both(hangs_up)
    assert set(plain.result) - {None} == {1}  # plain POX's later delays come too late for this test
    assert fixed.result == [1, 2, 2]


def unknown(pox):
    return attempts(pox, 2, "no..name", 1, max_retry_delay=0.3)  # no name server is asked for it


def test_an_unknown_host_is_tried_again():
    plain, fixed = on_both(unknown)
    assert plain.result == [[None, None], "gaierror"]
    assert fixed.result == [[0.3, 0.3], None]
    assert "no..name cannot be resolved: it cannot be a host name" in fixed.log


def slow_name(pox):
    """Whether POX goes on while a name is looked up. Plain POX leaves the lookup to connect()."""
    answer = threading.Event()

    def look_up(_name):
        answer.wait(SOON)
        return "127.0.0.1"

    socket.gethostbyname = look_up
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kind = backoff_worker(pox)
        loop, _, _ = io(pox)
        port = listener.getsockname()[1]
        pox.call(lambda: kind.begin(loop=loop, addr="slow.example", port=port) and None)
        alive = pox.alive()
        answer.set()
        listener.settimeout(SOON)
        listener.accept()[0].close()
        return alive


def test_pox_goes_on_while_a_name_is_looked_up():
    assert on_fixed(slow_name).result is True
