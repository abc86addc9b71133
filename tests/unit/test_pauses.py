"""A pause of the process is nobody's silence: whoever was asked has all his time from then on.

The test gives the time. `Liveness`, `Discovery` and `Expiry` have tests of their own for this.
"""

import errno
import os
import socket
import ssl
import struct
import time
from types import SimpleNamespace

import pytest
from lab import openflow10 as of

from edge import poxfixes
from edge.north import connections
from edge.poxfixes import hub, ioworkers, listener
from edge.switch import arrivals

from .played import Bed
from .test_arrivals import Arriving
from .test_connections import HELLO, Line

LONG = 100.0
"""Seconds of a pause, longer than all patience."""


class Clock:
    """The monotonic clock, and the hub, which looks at it as long as the process runs.

    The hub's scheduler is not POX's: that has a thread, which would go on with the descriptors that
    close() closes, and that are others' soon.
    """

    def __init__(self, monkeypatch):
        self.now = 1000.0
        scheduler = SimpleNamespace(cycle=None, _selectHub=None, _ready=(), _hasQuit=False)
        self._hub = scheduler._selectHub = hub.RobustSelectHub(scheduler)
        monkeypatch.setattr(poxfixes.core, "scheduler", scheduler)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.run(0)

    def close(self):
        os.close(self._hub._wake_r)
        os.close(self._hub._wake_w)

    def run(self, seconds):
        """Let time pass while the process runs."""
        self._hub.awake_since()  # it looks at the clock when it goes on, too
        self.now += seconds
        self._hub._overdue = self.now + hub.PAUSE

    def pause(self, seconds=LONG):
        """Let time pass while the process does not run."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock(monkeypatch)
    yield clock
    clock.close()


# ---- controllers, and clients of --listen ----


@pytest.fixture(params=[False, True], ids=["controller", "client"])
def served(request, clock, monkeypatch):
    """A connection that is read, how long it may be silent until it is asked, and how long then."""
    monkeypatch.setattr(connections, "core", SimpleNamespace(running=True))
    line = Line(service=request.param)
    patience = connections._SERVICE_PROBE if request.param else connections._ECHO_TIMEOUT
    return line, connections.serve(line.connection), patience


def echo_requests(line):
    return [m.type for m in line.answers()].count(of.Type.ECHO_REQUEST)


def test_after_a_pause_a_peer_is_asked_before_it_is_given_up(served, clock):
    line, waits, patience = served
    next(waits)
    clock.pause()
    next(waits)
    assert echo_requests(line) == 1
    clock.run(patience - 0.1)
    next(waits)
    assert not line.connection.closed
    clock.run(0.2)
    with pytest.raises(StopIteration):
        next(waits)
    assert line.connection.closed


def test_a_peer_that_was_asked_has_its_time_after_a_pause(served, clock):
    line, waits, patience = served
    next(waits)
    clock.run(patience + 0.1)
    next(waits)
    assert echo_requests(line) == 1
    clock.run(patience - 0.1)
    next(waits)
    clock.pause()
    next(waits)
    clock.run(patience - 0.1)
    next(waits)
    assert not line.connection.closed
    line.send(of.message(of.Type.ECHO_REPLY))
    clock.run(0.2)
    next(waits)
    assert not line.connection.closed


def test_a_controller_that_has_not_greeted_has_its_time_after_a_pause(clock, monkeypatch):
    monkeypatch.setattr(connections, "core", SimpleNamespace(running=True))
    line = Line(greet=False)
    waits = connections.serve(line.connection, hello_timeout=1.0)
    next(waits)
    clock.pause()
    next(waits)
    assert not line.connection.closed
    line.send(HELLO)
    clock.run(1.1)
    next(waits)
    assert not line.connection.closed


def test_an_attempt_to_connect_has_its_time_after_a_pause(clock, monkeypatch):
    """The far end accepts no connection: its queue of one is full."""
    with socket.socket() as far, socket.socket() as first:
        far.bind(("127.0.0.1", 0))
        far.listen(0)
        first.connect(far.getsockname())
        worker = ioworkers.RobustBackoffWorker.__new__(ioworkers.RobustBackoffWorker)
        worker.addr, worker.port = far.getsockname()
        worker.reconnect_delay = 4.0
        attempt = worker._connect()
        assert isinstance(next(attempt), ioworkers.Select)
        clock.pause()
        assert isinstance(next(attempt), ioworkers.Select)
        clock.run(4.0)
        with pytest.raises(StopIteration) as end:
            next(attempt)
        assert end.value.value == errno.ETIMEDOUT
        worker.socket.close()


# ---- switches that connect ----


def accepted(clock, monkeypatch, tls=None):
    """Run the task of a connection that says nothing, through a pause. Returns its further run."""
    monkeypatch.setattr(listener, "core", SimpleNamespace(running=True))
    silent = SimpleNamespace(connect_time=None, more=False, parting=False, close=lambda: None)
    silent.no_switch = lambda text, level: listener.log.log(level, text)
    monkeypatch.setattr(listener.of_01, "Connection", lambda sock: silent)
    task = listener.SwitchTask(socket.socket(), tls)
    run = task.run()
    next(run)
    clock.run(listener.HANDSHAKE_TIME - 0.1)
    next(run)
    clock.pause()
    next(run)
    clock.run(listener.HANDSHAKE_TIME - 0.1)
    next(run)
    return run


class NoTLS:
    """A TLS connection whose far end does not begin."""

    def wrap_socket(self, sock, **_options):
        self.close = sock.close
        return self

    def do_handshake(self):
        raise ssl.SSLWantReadError

    def getpeername(self):
        raise OSError


@pytest.mark.parametrize("tls", [None, NoTLS()], ids=["OpenFlow", "TLS"])
def test_a_handshake_has_its_time_after_a_pause(clock, monkeypatch, caplog, tls):
    caplog.set_level("INFO")
    run = accepted(clock, monkeypatch, tls)
    assert "handshake within" not in caplog.text
    clock.run(0.2)
    with pytest.raises(StopIteration):
        next(run)
    assert "handshake within" in caplog.text


# ---- switches that are connected ----


@pytest.fixture
def bed(clock, turns):
    return Bed(turns)


@pytest.fixture
def big(bed, clock):
    """A big switch that ticks ten times a second while the process runs."""

    def run(seconds):
        for _ in range(round(seconds * 10)):
            clock.run(0.1)
            bed.big.tick()
            bed.end_turns()

    bed.run = run
    return bed


def states(bed):
    return [member.state.value for member in bed.big.topology.members.values()]


def test_a_switch_that_owed_an_answer_has_its_time_after_a_pause(big, clock):
    big.run(3)  # it is asked
    clock.pause()
    big.run(4.8)
    assert states(big) == ["up", "up"]
    big.switches[0].work()
    big.run(0.4)
    assert states(big) == ["up", "silent"]


def test_a_switch_whose_dpid_comes_twice_has_its_time_after_a_pause(bed, clock, monkeypatch):
    """Both of the two switches were paused, too, and the first answers a little later."""
    timers = []
    monkeypatch.setattr(
        arrivals.poxfixes, "after", lambda seconds, call, name: timers.append((seconds, call))
    )
    bed.switches[0].host = "192.0.2.1"
    second = Arriving(1, "192.0.2.9")
    bed.big.connected(1, second)
    ((_, over),) = timers
    clock.pause()
    over()
    assert second.reason == ""
    bed.switches[0].work()
    assert second.reason == "another switch has this dpid"
    seconds, over = timers[-1]
    assert seconds == pytest.approx(arrivals._CHALLENGE)
    over()
    assert states(bed) == ["up", "up"] and len(timers) == 2


# ---- a virtual machine that is suspended: the monotonic clock stands still ----


@pytest.mark.parametrize("modified", [False, True])
def test_a_hard_timeout_is_over_when_a_switch_says_so(bed, clock, modified):
    """Only after a MODIFY, which a switch may have missed, the flow is put back there."""
    flow_mod = {"flags": of.Flag.SEND_FLOW_REM, "hard_timeout": 10}
    bed.send(of.flow_mod(of.match(in_port=1), of.output(2), **flow_mod))
    (switch, _) = bed.switches
    bed.settle()
    (cookie,) = switch.flows
    clock.run(1)
    if modified:
        bed.send(of.flow_mod(of.match(in_port=1), of.output(1), command=of.Command.MODIFY))
        bed.settle()
    bed.told()
    counters = struct.pack("!QHBxIIH2xQQ", cookie, 1, of.RemovedReason.HARD_TIMEOUT, 10, 0, 0, 5, 9)
    removed = of.message(of.Type.FLOW_REMOVED, of.match(in_port=1) + counters)
    switch.intercept(of.Type.FLOW_REMOVED, removed)
    bed.settle()
    assert bed.told() == ([] if modified else [of.Type.FLOW_REMOVED])
    assert len(bed.big.flows.table) == modified
