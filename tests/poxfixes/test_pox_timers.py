"""Timers: a mistake in a callback ends POX's timer, and not ours."""

import queue
import time

from poxharness import SOON, in_time, on_both, on_fixed


def raises(pox):
    fired = queue.Queue()

    def callback():
        fired.put(True)
        raise RuntimeError("a mistake")

    if pox.fixed:
        from edge.poxfixes import every

        every(0.05, callback, "of the test")
    else:
        from pox.lib.recoco import Timer

        Timer(0.05, callback, recurring=True)
    fired.get(timeout=SOON)
    return in_time(fired)


def test_an_exception_does_not_end_a_recurring_timer():
    plain, fixed = on_both(raises)
    assert not plain.result
    assert fixed.result
    assert "Traceback" not in fixed.log
    assert "Timer of the test: RuntimeError: a mistake" in fixed.log


def says_false(pox):
    fired = queue.Queue()

    def callback():
        fired.put(True)
        return False

    if pox.fixed:
        from edge.poxfixes import every

        every(0.05, callback)
    else:
        from pox.lib.recoco import Timer

        Timer(0.05, callback, recurring=True)
    fired.get(timeout=SOON)
    return in_time(fired)


def test_a_callback_that_returns_false_does_not_end_its_timer():
    plain, fixed = on_both(says_false)
    assert not plain.result
    assert fixed.result


def once_and_cancelled(pox):
    from edge.poxfixes import after, every

    fired = queue.Queue()
    start = time.monotonic()
    after(0.2, lambda: fired.put(["after", time.monotonic() - start]))
    cancelled = after(0.1, lambda: fired.put("cancelled"))
    cancelled.cancel()
    name, elapsed = fired.get(timeout=SOON)
    ticking = every(0.05, lambda: fired.put("tick"))
    ticks = [fired.get(timeout=SOON) for _ in range(3)]
    pox.call(ticking.cancel)
    while not fired.empty():
        fired.get()
    try:
        return [name, elapsed, ticks, fired.get(timeout=0.3)]
    except queue.Empty:
        return [name, elapsed, ticks, None]


def test_after_comes_once_and_cancelled_timers_never():
    name, elapsed, ticks, late = on_fixed(once_and_cancelled).result
    assert name == "after"
    assert 0.2 <= elapsed < 1
    assert ticks == ["tick"] * 3
    assert late is None
