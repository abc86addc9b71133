"""Runs a program in network, process and mount namespaces of its own, and leaves nothing of it.

The program is process 1 of its process namespace.  When it ends, for whatever reason, the kernel
kills all processes that it started, and removes the interfaces with the network namespace.  The
kernel kills the program when its launcher is killed, even with SIGKILL.

The launcher stays in the namespaces where it was:

    signals.hold()
    status = private_namespace.run([sys.executable, __file__])

The program, which `inside` tells from the launcher, begins with `arrive()`.

Standard library only; needs root and util-linux.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence

import signals
from command import dying_with_parent

STOP_FD = "PRIVATE_NAMESPACE_STOP_FD"
"""Environment variable: file descriptor of a pipe that asks the program to stop.

A byte in it is the number of the signal that the launcher has got.  When it is closed without one,
the launcher is gone.
"""

SI_USER = 0
"""The si_code of a signal that a process sent; one from the terminal has another.  sigaction(2)."""


def run(command: Sequence[str]) -> int:
    """Run `command` inside until it ends; return its exit status.

    When a process sends the launcher a signal, the program is asked to stop.  Ctrl-C is ignored
    here: the terminal sends it to the program as well.
    """
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        dying_with_parent(
            ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
            + ["--", *command]
        ),
        pass_fds=[read_end],
        env=dict(os.environ, **{STOP_FD: str(read_end)}),
    )
    os.close(read_end)
    stopping = False
    while process.poll() is None:
        info = signal.sigwaitinfo((*signals.ENDING, signal.SIGCHLD))
        if info.si_signo == signal.SIGCHLD or stopping:
            continue
        if info.si_signo != signal.SIGINT or info.si_code == SI_USER:
            with contextlib.suppress(BrokenPipeError):  # the program has just ended
                os.write(write_end, bytes([info.si_signo]))
            os.close(write_end)
            stopping = True
    if not stopping:
        os.close(write_end)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def inside() -> bool:
    """Return whether this program was started by `run`."""
    return STOP_FD in os.environ


def arrive() -> None:
    """Set the loopback interface up, and from now on end when the launcher asks for it."""
    read_end = int(os.environ[STOP_FD])
    signals.raise_as_exceptions()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    def wait_for_launcher() -> None:
        asked = os.read(read_end, 1)
        number = asked[0] if asked else signal.SIGTERM
        while True:
            os.kill(os.getpid(), number)
            # The signal may have ended no more than a command at the prompt.
            time.sleep(2 * signals.BURST)
            number = signal.SIGTERM

    threading.Thread(target=wait_for_launcher, daemon=True).start()
