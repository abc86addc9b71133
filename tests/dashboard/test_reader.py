"""Reading in POX's scheduler from other threads. A thread plays the scheduler here."""

import queue
import threading
import time

import pytest

from edge.web import reader
from edge.web.reader import Busy, Reader


class Scheduler:
    """Runs each call that it is given, one after the other, in a thread of its own."""

    def __init__(self):
        self.calls = queue.Queue()
        self.pauses = []
        self.turns = []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while True:
            call = self.calls.get()
            if call is None:
                return
            begun = time.thread_time()
            call()
            self.turns.append(time.thread_time() - begun)

    def callLater(self, function, *args):
        self.calls.put(lambda: function(*args))

    def after(self, seconds, callback, name):
        self.pauses.append(seconds)
        self.calls.put(callback)

    def stop(self):
        self.calls.put(None)
        self.thread.join()


@pytest.fixture
def scheduler(monkeypatch):
    scheduler = Scheduler()
    monkeypatch.setattr(reader, "core", scheduler)
    monkeypatch.setattr(reader.poxfixes, "after", scheduler.after)
    yield scheduler
    scheduler.stop()


def test_a_reading_is_run_in_the_scheduler(scheduler):
    def read():
        yield
        return threading.current_thread()

    assert Reader().read(read()) is scheduler.thread


def test_a_long_reading_leaves_time_for_others(scheduler):
    def read():
        for _ in range(20000):
            yield
            sum(range(100))
        return "done"

    assert Reader().read(read()) == "done"
    assert len(scheduler.pauses) > 3
    assert set(scheduler.pauses) == {reader.PAUSE}
    # A turn lasts TURN and the time of one more piece, which a busy machine may stretch.
    typical = sorted(scheduler.turns)[len(scheduler.turns) // 2]
    assert typical < 3 * reader.TURN


def test_readings_that_wait_share_what_one_would_take(scheduler):
    place, together = Reader(), threading.Barrier(5)
    values = []

    def ask(number):
        def read():
            yield
            return number

        together.wait()
        values.append(place.read(read()))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(values) == list(range(5))


def test_what_goes_wrong_in_a_reading_goes_to_who_asked(scheduler):
    def wrong():
        yield
        raise LookupError("no such thing")

    def right():
        yield
        return 1

    place = Reader()
    with pytest.raises(LookupError, match="no such thing"):
        place.read(wrong())
    assert place.read(right()) == 1


def test_a_reading_that_takes_too_long_is_given_up(scheduler, monkeypatch):
    monkeypatch.setattr(reader, "READ_TIMEOUT", 0.05)
    ended = threading.Event()

    def endless():
        try:
            while True:
                yield
        finally:
            ended.set()

    place = Reader()
    with pytest.raises(Busy):
        place.read(endless())
    assert ended.wait(10)
    monkeypatch.setattr(reader, "READ_TIMEOUT", 10)

    def right():
        yield
        return 1

    assert place.read(right()) == 1


def test_too_many_at_once_are_refused(scheduler, monkeypatch):
    monkeypatch.setattr(reader, "MOST_WAITING", 2)
    place, started = Reader(), threading.Semaphore(0)
    finish = []

    def begin(done):
        finish.append(done)
        started.release()

    waiting = [threading.Thread(target=place.wait, args=(begin, 10)) for _ in range(2)]
    for thread in waiting:
        thread.start()
    for _ in waiting:
        assert started.acquire(timeout=10)
    with pytest.raises(Busy):
        place.wait(begin, 10)
    for done in finish:
        done()
    for thread in waiting:
        thread.join()
    assert place.wait(lambda done: done(), 10)


def test_who_waits_for_the_switches_does_not_wait_for_ever(scheduler):
    assert Reader().wait(lambda done: None, 0.01) is False


def test_a_pause_of_the_process_uses_up_nobody_s_time():
    """A wait that the process has slept through ends without success, however long it was."""
    waits = []

    def slept_through(step):
        waits.append(step)
        return len(waits) > 1

    assert reader._within(10.0, slept_through)
    assert waits == [1.0, 1.0]


def test_a_reading_that_was_slept_through_is_answered(scheduler, monkeypatch):
    wait = reader.futures.wait
    slept = []

    def sleep_through(answers, timeout):
        if not slept:
            slept.append(timeout)
            return wait([], 0)
        return wait(answers, timeout)

    def read():
        yield
        return "read"

    monkeypatch.setattr(reader.futures, "wait", sleep_through)
    assert Reader().read(read()) == "read" and slept
