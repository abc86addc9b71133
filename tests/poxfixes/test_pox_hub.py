"""The select loop: every scenario breaks plain POX and not the repaired one."""

import contextlib
import errno
import os
import platform
import queue
import resource
import socket
import threading
import time

import pytest
from poxharness import NEVER, PATIENCE, SOON, in_time, on_both, on_fixed

MODES = [
    pytest.param({}, id="threaded"),
    pytest.param({"threaded": False}, id="unthreaded-sh"),
    pytest.param({"epoll": True}, id="epoll-sh"),
    pytest.param({"threaded": False, "epoll": True}, id="unthreaded-epoll-sh"),
]


def start(steps):
    """Run a generator function as a recoco task. It yields its blocking operations."""
    from pox.lib.recoco import Task

    class Steps(Task):
        def run(self):
            yield from steps()

    task = Steps()
    task.start()
    return task


def select(*arguments):
    from pox.lib.recoco import Select

    return Select(*arguments)


def echo(sock):
    """Start a task that sends back all that it reads."""

    def steps():
        while True:
            yield select([sock], None, None)
            sock.send(sock.recv(100))

    return start(steps)


def answers(sock, timeout=None):
    sock.settimeout(timeout or PATIENCE)
    try:
        sock.send(b"x")
        return sock.recv(1) == b"x"
    except socket.timeout:
        return False


# ---- Serve: reading without a turn of the task for each message ----


def serving(sock, serve, timeout=None):
    """Start a task that serves a socket over and over. Return a queue of the task's awakenings and
    errors.
    """
    from edge.poxfixes import Serve

    happened = queue.Queue()

    def steps():
        while True:
            try:
                yield Serve(sock, serve, timeout)
                happened.put("woken")
            except ConnectionError as e:
                happened.put(str(e))

    start(steps)
    return happened


def served(pox):
    """The server sends back every byte. "e" also ends the serving, and "r" raises instead."""
    near, far = socket.socketpair()

    def serve():
        data = near.recv(1)
        if data == b"r":
            raise ConnectionError("raised")
        near.send(data)
        return data != b"e"

    def sent(data):
        far.send(data)
        return far.recv(1) == data

    far.settimeout(SOON)
    happened = serving(near, serve)
    answered = [sent(b"a"), sent(b"b")]
    quiet = happened.empty()
    ended = [sent(b"e"), happened.get(timeout=SOON)]
    far.send(b"r")
    return [answered, quiet, ended, happened.get(timeout=SOON), sent(b"a"), happened.empty()]


def test_what_is_served_wakes_its_task_at_the_end_only():
    outcome = on_fixed(served)
    assert outcome.result == [[True, True], True, [True, "woken"], "raised", True, True]


def served_too_long(pox):
    near, far = socket.socketpair()
    happened = serving(near, lambda: near.send(near.recv(1)) == 1, timeout=0.1)
    far.settimeout(SOON)
    happened.get(timeout=SOON)
    return [answers(far), happened.get(timeout=SOON)]


def test_serving_has_a_timeout():
    assert on_fixed(served_too_long).result == [True, "woken"]


def served_and_closed(pox):
    """One socket is closed before it is served, another while it is served."""
    near, far = socket.socketpair()
    echo(near)
    met = queue.Queue()

    def serve_closed(sock):
        def serve():
            try:
                sock.recv(1)
            except OSError as e:
                met.put(e.errno)
            return False

        return serve

    for before in (True, False):
        sock, _peer = socket.socketpair()
        if before:
            sock.close()

        def steps(sock=sock):
            from edge.poxfixes import Serve

            yield Serve(sock, serve_closed(sock))

        start(steps)
        if not before:
            assert answers(far)  # so it is being served now
            pox.core.callLater(sock.close)
    return [met.get(timeout=SOON), met.get(timeout=SOON), answers(far)]


def test_who_serves_a_closed_descriptor_meets_the_error_and_others_go_on():
    assert on_fixed(served_and_closed).result == [errno.EBADF, errno.EBADF, True]


def served_and_written(pox):
    """Another task waits until it can write to the same socket."""
    near, far = socket.socketpair()
    near.setblocking(False)
    heard, written = queue.Queue(), queue.Queue()

    def serve():
        heard.put(near.recv(1).decode())
        return True

    def fill():
        try:
            while True:
                near.send(bytes(1 << 16))
        except BlockingIOError:
            pass

    def writer():
        yield select([], [near], [])
        written.put(True)

    serving(near, serve)
    pox.call(fill)
    start(writer)
    far.send(b"x")
    before = [heard.get(timeout=SOON), written.empty()]
    far.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            far.recv(1 << 16)
    after = written.get(timeout=SOON)
    far.send(b"y")
    return [before, after, heard.get(timeout=SOON)]


def test_a_socket_is_served_while_another_task_waits_to_write_to_it():
    assert on_fixed(served_and_written).result == [["x", True], True, "y"]


# ---- what breaks POX's own hub ----


def closed_descriptor(pox):
    near, far = socket.socketpair()
    echo(near)
    assert answers(far)
    broken = socket.socket()
    broken.close()
    got = queue.Queue()

    def steps():
        lists = yield select([broken], [], [broken])
        got.put([len(things) for things in lists])

    start(steps)
    lists = in_time(got)
    return {"lists": lists, "others": answers(far)}


@pytest.mark.parametrize("mode", MODES)
def test_a_closed_descriptor_is_exceptional_and_others_go_on(mode):
    plain, fixed = on_both(closed_descriptor, **mode)
    assert not plain["others"]
    assert fixed["lists"] == [0, 0, 1]
    assert fixed["others"]


def closed_while_waiting(pox):
    near, far = socket.socketpair()
    echo(near)
    victim, _peer = socket.socketpair()
    got = queue.Queue()

    def steps():
        lists = yield select([victim], [], [victim])
        got.put([len(things) for things in lists])

    start(steps)
    assert answers(far)  # so the victim's task waits now
    pox.core.callLater(victim.close)
    lists = in_time(got)
    return {"lists": lists, "others": answers(far)}


def test_a_descriptor_closed_while_its_task_waits_is_exceptional():
    # Plain POX may die of it. That depends on whether its thread is in select() at that moment.
    assert on_fixed(closed_while_waiting).result == {"lists": [0, 0, 1], "others": True}


def number_reused(pox):
    """A descriptor is closed while a task waits for it, and the next socket gets the same
    number.
    """
    victim, _peer = socket.socketpair()
    got = queue.Queue()

    def steps():
        yield select([victim], [], [])
        got.put(True)

    start(steps)
    pox.call(int)  # so the victim's task waits now
    pairs = []

    def replace():
        number = victim.fileno()
        victim.close()
        near, far = socket.socketpair()
        assert number in (near.fileno(), far.fileno())
        pairs.append((near, far) if near.fileno() == number else (far, near))
        echo(pairs[0][0])

    pox.core.callLater(replace)
    woken = in_time(got)
    return {"woken": woken, "newcomer": answers(pairs[0][1])}


def test_a_number_given_away_wakes_the_former_owner_and_serves_the_new_one():
    assert on_fixed(number_reused).result == {"woken": True, "newcomer": True}


def high_descriptor(pox):
    near, far = socket.socketpair()
    echo(near)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, limit[1]))
    low, high_far = socket.socketpair()
    os.dup2(low.fileno(), 1500)
    echo(socket.socket(fileno=1500))
    return {"high": answers(high_far), "others": answers(far)}


@pytest.mark.parametrize("mode", MODES[:2])
def test_descriptors_above_1023_work(mode):
    plain, fixed = on_both(high_descriptor, **mode)
    assert plain.result == {"high": False, "others": False}
    assert fixed.result == {"high": True, "others": True}


def more_than_the_limit(pox):
    """A task waits for more bogus numbers than the process may have descriptors. Then poll() itself
    fails.
    """
    near, far = socket.socketpair()
    echo(near)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    got = queue.Queue()

    def steps():
        lists = yield select(list(range(400, 600)), [], [3])
        got.put(sorted(lists[2]))

    start(steps)
    return {"bogus": got.get(timeout=SOON) == list(range(400, 600)), "others": answers(far)}


def test_poll_itself_failing_costs_only_the_task_to_blame():
    assert on_fixed(more_than_the_limit).result == {"bogus": True, "others": True}


def limit_lowered(pox):
    """The limit of descriptors is lowered to less than there are. Then poll() itself fails."""
    pairs = [socket.socketpair() for _ in range(20)]
    for near, _ in pairs:
        echo(near)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (7, hard))
    meanwhile = [answers(far) for _, far in pairs]
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return [all(meanwhile), all(answers(far) for _, far in pairs)]


def test_who_is_connected_is_served_though_the_limit_is_lowered_below_what_is_open():
    outcome = on_fixed(limit_lowered)
    assert outcome.result == [True, True]
    assert outcome.log.count("No file descriptor is left") == 1
    assert "ERROR" not in outcome.log


def waits_twice(pox):
    """A task waits, something else wakes it, and it waits again."""
    near, far = socket.socketpair()
    turns = queue.Queue()

    def steps():
        while True:
            yield select([near], None, None)
            turns.put(True)

    task = start(steps)
    pox.call(int)
    pox.core.callLater(pox.core.scheduler.schedule, task)
    turns.get(timeout=SOON)
    pox.alive()  # so it waits again now
    alive = pox.alive()
    far.send(b"x")
    return {"alive": alive, "served": in_time(turns)}


def test_a_task_woken_while_it_waits_may_wait_again():
    plain, fixed = on_both(waits_twice)
    assert plain.result == {"alive": False, "served": None}
    assert fixed.result == {"alive": True, "served": True}


def hang_up(pox):
    reading, writing = os.pipe()
    got = queue.Queue()

    def steps():
        yield select([reading], None, None)
        got.put(os.read(reading, 1) == b"")

    start(steps)
    os.close(writing)
    noticed = in_time(got)
    return {"noticed": noticed, "alive": pox.alive()}


def test_a_hang_up_that_nobody_asked_about_is_no_error_with_epoll():
    plain, fixed = on_both(hang_up, epoll=True)
    assert plain.result == {"noticed": None, "alive": False}
    assert fixed.result == {"noticed": True, "alive": True}


def hang_up_of_other_kind(pox):
    """poll() reports a hang-up even to a task that waits for exceptions only. select() never
    does.
    """
    reading, writing = os.pipe()
    got = queue.Queue()

    def steps():
        lists = yield select([], [], [reading])
        got.put([len(things) for things in lists])

    start(steps)
    os.close(writing)
    return got.get(timeout=SOON)


def test_a_hang_up_wakes_who_waits_for_exceptions_only():
    assert on_fixed(hang_up_of_other_kind).result == [0, 0, 1]


def always_ready(pox):
    near, far = socket.socketpair()
    echo(near)
    assert answers(far)
    runs = queue.Queue()

    def steps():
        runs.put(True)
        while True:
            yield 0

    start(steps)
    assert in_time(runs)
    return answers(far)


def test_tasks_that_are_always_ready_do_not_starve_io():
    plain, fixed = on_both(always_ready, threaded=False)
    assert not plain.result
    assert fixed.result


def yields_none(pox):
    def steps():
        yield None

    start(steps)
    return pox.alive()


def test_a_task_that_yields_none_ends_alone():
    plain, fixed = on_both(yields_none)
    assert not plain.result
    assert fixed.result


def clock_set_back(pox):
    """The clock is set back by an hour while a task sleeps."""
    from pox.lib.recoco import Sleep

    woken = queue.Queue()

    def steps():
        yield Sleep(0.3)
        woken.put(True)

    near, far = socket.socketpair()
    echo(near)
    start(steps)
    assert answers(far)  # so the sleeper sleeps now
    real = time.time
    time.time = lambda: real() - 3600
    assert answers(far)  # POX computes the remaining time anew after each event
    return in_time(woken)


def test_timers_fire_though_the_clock_is_set_back():
    plain, fixed = on_both(clock_set_back)
    assert not plain.result
    assert fixed.result


def paused(pox):
    """A task works for so long that a timer is overdue, while far more comes than one read takes.

    Returns what happened, in order: bytes that were read, and the timer.
    """
    from edge.poxfixes import hub

    near, far = socket.socketpair()
    happened = []
    done = queue.Queue()

    def serve():
        happened.append(near.recv(1).decode())
        return True

    def steps():
        from pox.lib.recoco import Sleep

        yield Sleep(0.2)
        happened.append("timer")
        done.put(True)

    def work():
        far.send(b"x" * 20)
        time.sleep(hub.PAUSE + 0.5)

    serving(near, serve)
    start(steps)
    pox.call(work)
    assert in_time(done)
    return happened


def test_after_a_pause_all_that_has_come_is_read_before_timers_fire():
    assert on_fixed(paused).result == ["x"] * 20 + ["timer"]


def paused_and_busy(pox):
    """After a pause there is always something to read: do timers fire?"""
    from pox.lib.recoco import Sleep

    from edge.poxfixes import hub

    near, far = socket.socketpair()
    fired = queue.Queue()

    def steps():
        yield Sleep(0.2)
        fired.put(True)

    far.send(b"never read")
    serving(near, lambda: True)
    start(steps)
    pox.call(lambda: time.sleep(hub.PAUSE + 0.5))
    return in_time(fired)


def test_timers_do_not_wait_for_ever_for_sockets_that_always_have_something():
    assert on_fixed(paused_and_busy).result


def always_too_busy(pox):
    """Each round takes longer than what counts as a pause, without end."""
    from pox.lib.recoco import Sleep

    from edge.poxfixes import hub, patience_left

    hub.PAUSE = 0.1
    near, far = socket.socketpair()
    over = queue.Queue()

    def serve():
        time.sleep(0.2)
        return True

    def steps():
        begun = time.monotonic()
        while patience_left(begun, 1.0) > 0:
            yield Sleep(0.1)
        over.put(True)

    far.send(b"never read")
    serving(near, serve)
    start(steps)
    return in_time(over)


def test_under_overload_timers_fire_and_patience_ends():
    assert on_fixed(always_too_busy).result


def patience(pox):
    """What is left of a patience of half a second: when its time is over, when a task has just
    worked for too long and still goes on, in its next turn, and when half a second more is over.
    """
    from edge.poxfixes import hub, patience_left

    def left():
        return patience_left(begun, 0.5) > 0

    def work():
        time.sleep(hub.PAUSE + 0.5)
        return left()

    begun = pox.call(time.monotonic)
    time.sleep(0.6)
    found = [pox.call(left), pox.call(work), pox.call(left)]
    time.sleep(0.6)
    return [*found, pox.call(left)]


def test_a_patience_begins_anew_after_a_pause():
    outcome = on_fixed(patience)
    assert outcome.result == [False, True, True, False]
    assert "POX has paused for " in outcome.log


def many_sleepers(pox):
    """Return the median time of an echo while 3,000 tasks sleep, in seconds."""
    from pox.lib.recoco import Sleep

    def steps():
        yield Sleep(3600)

    near, far = socket.socketpair()
    echo(near)
    for _ in range(3000):
        start(steps)
    pox.call(int)
    times = []
    for _ in range(200):
        before = time.perf_counter()
        assert answers(far, SOON)
        times.append(time.perf_counter() - before)
    return sorted(times)[100]


@pytest.mark.skipif(
    platform.python_implementation() == "PyPy", reason="PyPy's compiler makes POX's scan cheap, too"
)
def test_sleepers_cost_nothing_while_they_sleep():
    plain, fixed = on_both(many_sleepers)
    assert fixed.result < plain.result / 2


def threads(pox):
    pox.call(int)
    return threading.active_count()


def test_the_hub_needs_no_thread():
    plain, fixed = on_both(threads)
    assert fixed.result == plain.result - 1


def flood_of_calls(pox):
    """One task calls core.callLater more often than a pipe has room for wake-ups."""
    calls = 70_000
    done = queue.Queue()
    count = []

    def called():
        count.append(1)
        if len(count) == calls:
            done.put(True)

    def steps():
        for _ in range(calls):
            pox.core.callLater(called)
        yield False

    start(steps)
    return in_time(done)


def test_calllater_does_not_block_its_own_reader():
    plain, fixed = on_both(flood_of_calls)
    assert not plain.result
    assert fixed.result


def taken_over(pox):
    from pox.lib.recoco import Sleep

    woken = queue.Queue()
    near, far = socket.socketpair()
    _near, silent = socket.socketpair()
    echo(near)

    def sleeps():
        yield Sleep(0.5)
        woken.put("slept")

    def times_out():
        lists = yield select([silent], [], [], 0.7)
        woken.put(["timed out", *lists])

    start(sleeps)
    start(times_out)
    assert answers(far)  # all of them wait in POX's hub now
    pox.install()
    return [answers(far), woken.get(timeout=SOON), woken.get(timeout=SOON)]


@pytest.mark.parametrize("mode", MODES)
def test_what_waits_in_poxs_hub_is_taken_over(mode):
    outcome = on_fixed(taken_over, install=False, **mode)
    assert outcome.result == [True, "slept", ["timed out", [], [], []]]


def after_its_death(pox):
    """POX's hub is already dead when our hub takes over."""
    near, far = socket.socketpair()
    echo(near)
    assert answers(far)
    broken = socket.socket()
    broken.close()

    def steps():
        yield select([broken], [], [])

    start(steps)
    while answers(far, NEVER):
        pass
    pox.install()
    far.settimeout(SOON)
    return far.recv(1).decode()


def test_what_waits_in_poxs_dead_hub_is_served_again():
    assert on_fixed(after_its_death, install=False).result == "x"


def synchronized(pox):
    """Another thread stops the scheduler (recoco's Synchronizer), and lets it go on."""
    near, far = socket.socketpair()
    echo(near)
    assert answers(far)
    with pox.core.scheduler.synchronized():
        stopped = not answers(far, 0.2)
    far.settimeout(SOON)
    return [stopped, far.recv(1).decode()]


def test_other_threads_can_still_stop_the_scheduler():
    assert on_fixed(synchronized).result == [True, "x"]


def import_only(pox):
    from pox.openflow import of_01

    hub, connection, run = (
        pox.core.scheduler._selectHub,
        of_01.Connection,
        of_01.OpenFlow_01_Task.run,
    )
    from edge import poxfixes

    untouched = (
        hub is pox.core.scheduler._selectHub
        and connection is of_01.Connection
        and run is of_01.OpenFlow_01_Task.run
    )
    poxfixes.install()
    installed = pox.core.scheduler._selectHub
    poxfixes.install()
    return [untouched, installed is not hub, installed is pox.core.scheduler._selectHub]


def test_nothing_happens_at_import_and_install_may_be_repeated():
    assert on_fixed(import_only, install=False).result == [True, True, True]
