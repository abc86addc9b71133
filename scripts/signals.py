"""The signals that ask a program to end: SIGINT, SIGTERM and SIGHUP.

A program here holds them for `private_namespace.run`, or has them raised as exceptions, and ignores
them while it cleans up.
"""

import os
import select
import signal
import sys
import threading
import time
from typing import Callable

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BURST = 1.0
"""Seconds.  Signals that come so soon after one that was raised are the same wish to end."""


def hold() -> None:
    """Block the signals, and SIGCHLD, so that `private_namespace.run` can wait for them.

    Call it before any thread starts: threads inherit what is blocked.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, (*ENDING, signal.SIGCHLD))


def raise_as_exceptions() -> None:
    """Make SIGINT a KeyboardInterrupt, and SIGTERM and SIGHUP a SystemExit with status 128 + N.

    They are raised in the main thread, even while it waits in a prompt (see `_repeat_unhandled`).
    A signal to the whole process group comes here twice, by itself and by way of the launcher.  The
    second exception would be raised in the middle of what handles the first one: so it is not.
    """
    handled = 0
    raised = -BURST

    def end(number: int, _frame: object) -> None:
        nonlocal handled, raised
        handled += 1
        now = time.monotonic()
        if now - raised < BURST:
            return
        raised = now
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    for number in ENDING:
        signal.signal(number, end)
    _repeat_unhandled(lambda: handled)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*ENDING, signal.SIGCHLD))


def _repeat_unhandled(handled: Callable[[], int]) -> None:
    """Send a signal again when no handler has run for it within 0.3 seconds.

    Python's input() with readline draws the prompt and then waits for a key in select(2).  The
    handler of a signal that arrives between the two would run at the next key only.

    handled: returns how many signals the handlers have seen.
    """
    wakeup, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def watch() -> None:
        before = 0
        while True:
            select.select([wakeup], [], [])
            time.sleep(0.3)
            number = os.read(wakeup, 4096)[-1]
            if handled() == before:
                signal.pthread_kill(threading.main_thread().ident, number)
            before = handled()

    threading.Thread(target=watch, daemon=True).start()


def ignore() -> None:
    """Ignore the signals from now on, so that nothing interrupts the cleaning up."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
