"""Runs a program in network, process and mount namespaces of its own, of which nothing is left.

The program is process 1 of its process namespace, so when it ends, in whatever way, the kernel ends
everything that it started, detached or not, and the interfaces go with the network namespace.  When
the launcher is killed, SIGKILL included, so is the program.

The launcher stays in the namespaces where it was:

    hold_signals()
    status = run([sys.executable, __file__, "--inside"])

and the program begins with `arrive()`.

Standard library only; needs root and util-linux.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Callable

from userspace_ovs import dying_with_parent

STOP_FD = "PRIVATE_NAMESPACE_STOP_FD"
"""Environment variable: the program's end of a pipe whose closing asks it to stop."""

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SI_USER = 0
"""sigaction(2): si_code of a signal that a process sent, other than one from the terminal."""


def hold_signals() -> None:
    """Leave signals to `run`.  Call it before any thread starts: threads inherit it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (*ENDING, signal.SIGCHLD))


def run(command: Sequence[str]) -> int:
    """Run `command` inside until it ends; return its exit status.

    A signal that someone sends to the launcher asks the program to stop.  Ctrl-C is left to the
    program: the terminal sends it to both.
    """
    theirs, ours = os.pipe()
    process = subprocess.Popen(
        dying_with_parent(
            ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
            + ["--", *command]
        ),
        pass_fds=[theirs],
        env=dict(os.environ, **{STOP_FD: str(theirs)}),
    )
    os.close(theirs)
    stopping = False
    while process.poll() is None:
        info = signal.sigwaitinfo((*ENDING, signal.SIGCHLD))
        if info.si_signo == signal.SIGCHLD or stopping:
            continue
        if info.si_signo != signal.SIGINT or info.si_code == SI_USER:
            os.close(ours)
            stopping = True
    if not stopping:
        os.close(ours)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def inside() -> bool:
    """Whether this program was started by `run`."""
    return STOP_FD in os.environ


def arrive() -> None:
    """Make the program inside ready: loopback up, and ended when the launcher says so."""
    stop = int(os.environ[STOP_FD])
    end_on_signals()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    def wait_for_launcher() -> None:
        os.read(stop, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_launcher, daemon=True).start()


def end_on_signals() -> None:
    """Make SIGINT a KeyboardInterrupt, and SIGTERM and SIGHUP a SystemExit with status 128 + N.

    Also at a prompt: see `_insist`.
    """
    handled = 0

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal handled
        handled += 1
        raise KeyboardInterrupt

    def leave(number: int, _frame: object) -> None:
        nonlocal handled
        handled += 1
        sys.exit(128 + number)

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)
    _insist(lambda: handled)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*ENDING, signal.SIGCHLD))


def _insist(handled: Callable[[], int]) -> None:
    """Send a signal again when no handler has run for it.

    Python's input() with readline draws the prompt, and then waits for a key in select(2).  A
    signal in between would go unnoticed until the next key.

    handled: returns how many signals the handlers have seen.
    """
    noticed, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def watch() -> None:
        before = 0
        while True:
            select.select([noticed], [], [])
            time.sleep(0.3)
            number = os.read(noticed, 4096)[-1]
            if handled() == before:
                signal.pthread_kill(threading.main_thread().ident, number)
            before = handled()

    threading.Thread(target=watch, daemon=True).start()


def ignore_signals() -> None:
    """Let nothing interrupt what follows: it is the cleaning up."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
