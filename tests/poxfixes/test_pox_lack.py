"""What the process lacks for a while, a descriptor, a thread or memory, ends nothing for good."""

import contextlib
import os
import queue
import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from poxharness import SOON, Switch, free_port, on_fixed

LATEST = 5  # seconds in which everything works again by itself


@contextlib.contextmanager
def no_descriptor():
    """No descriptor can be opened."""
    lowest = os.dup(0)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def fails(owner, name, error):
    """A function fails."""
    real = getattr(owner, name)

    def fail(*args, **kw):
        raise error

    setattr(owner, name, fail)
    yield
    setattr(owner, name, real)


@contextlib.contextmanager
def no_thread():
    """No thread can be started, as with RLIMIT_NPROC (which does not bind root)."""
    with fails(threading.Thread, "start", RuntimeError("can't start new thread")):
        yield


@contextlib.contextmanager
def no_memory():
    """There is no memory for what connections need, wherever they need it."""
    from edge.poxfixes import ioworkers, listener

    with contextlib.ExitStack() as stack:
        for owner in (ioworkers._WorkerTask, listener.SwitchTask):
            stack.enter_context(fails(owner, "__init__", MemoryError()))
        stack.enter_context(fails(ioworkers.RobustIOWorker, "close", MemoryError()))
        yield


def works_again(pox, lack, host):
    """
    Have a lack in the middle of everything that needs something.

    Return the seconds after it until all works: a worker that connects to a host, accepted
    connections, the listener for switches, and a timer. A connection that is made meanwhile is
    not lost but with a lack of memory.
    """
    from edge import poxfixes
    from edge.poxfixes import ioworkers
    from edge.poxfixes.lack import _watch as watch

    connected, attempts, ticks = queue.Queue(), queue.Queue(), queue.Queue()

    class Dialling(ioworkers.RobustBackoffWorker):
        def __init__(self, **kw):
            attempts.put(True)
            super().__init__(**kw)

        def _handle_connect(self):
            super()._handle_connect()
            connected.put(True)

    class Echo(ioworkers.RobustIOWorker):
        def __init__(self, socket):
            super().__init__(socket)
            self.rx_handler = lambda worker: worker.send(worker.read())
            self.attach()

    def tick():
        ticks.put(True)
        if lacking and lack is no_memory:
            raise MemoryError

    pox.listen()
    pox.switch(1)
    lacking = False
    loop = ioworkers.RobustIOLoop()
    server = pox.call(lambda: ioworkers.RobustServerWorker(Echo, "127.0.0.1", 0, {}))
    pox.call(lambda: loop.register_worker(server))
    pox.call(lambda: poxfixes.every(0.05, tick))
    controller = socket.create_server(("127.0.0.1", free_port()))
    controller.settimeout(SOON)
    port = controller.getsockname()[1]
    client, late = socket.socket(), socket.socket()
    for sock in (client, late):
        sock.settimeout(SOON)
    dial = {"loop": loop, "addr": host, "port": port, "reconnect_delay": 30, "max_retry_delay": 60}
    with lack():
        lacking = True
        pox.call(lambda: Dialling.begin(**dial) and None)
        client.connect(("127.0.0.1", server.local_port))
        late.connect(("127.0.0.1", pox.port))
        for _ in range(2):  # the second attempt shows that the first was not the last one
            attempts.get(timeout=SOON)
        time.sleep(0.1)
        lacking = False
    begun = time.monotonic()
    connected.get(timeout=SOON)
    controller.accept()[0].close()
    if lack is no_memory:
        client = socket.create_connection(("127.0.0.1", server.local_port), SOON)
    client.sendall(b"ping")
    assert client.recv(4) == b"ping"
    if lack is no_memory:
        assert pox.lets_in(2)
    else:
        switch = Switch.__new__(Switch)
        switch.sock, switch._buffer, switch.dpid = late, bytearray(), 2
        assert pox.lets_in(switch=switch)
    while not ticks.empty():
        ticks.get()
    ticks.get(timeout=SOON)
    took = time.monotonic() - begun
    deadline = time.monotonic() + SOON
    while watch._last:  # until the line that says that it is over
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return took


def descriptors(pox):
    return works_again(pox, no_descriptor, "127.0.0.1")


def threads(pox):
    return works_again(pox, no_thread, "localhost")


def memory(pox):
    return works_again(pox, no_memory, "127.0.0.1")


KINDS = {
    descriptors: ("No file descriptor is left", "File descriptors are there again"),
    threads: ("No thread can be started", "Threads can be started again"),
    memory: ("Memory is short", "Memory is there again"),
}


@pytest.fixture(scope="module")
def outcomes():
    """All of them at once, since they wait most of the time."""
    with ThreadPoolExecutor() as pool:
        yield dict(zip(KINDS, pool.map(on_fixed, KINDS)))


@pytest.mark.parametrize("kind", KINDS)
def test_everything_works_again_soon_after_a_lack(outcomes, kind):
    assert outcomes[kind].result < LATEST
    assert "Traceback" not in outcomes[kind].log


@pytest.mark.parametrize("kind", KINDS)
def test_a_lack_is_one_line_when_it_begins_and_one_when_it_is_over(outcomes, kind):
    log = outcomes[kind].log
    assert [log.count(line) for line in KINDS[kind]] == [1, 1]
    assert "ERROR" not in log
