"""Command lines: where a program runs, when it is killed, and what it said."""

import subprocess
from collections.abc import Sequence

from failure import Failure


def in_netns(netns_pid: int, command: Sequence[str]) -> list[str]:
    """Return `command` so that it runs in the network namespace of process `netns_pid`."""
    return ["nsenter", f"--net=/proc/{netns_pid}/ns/net", "--", *command]


def dying_with_parent(command: Sequence[str]) -> list[str]:
    """Return `command` so that the kernel kills it when the thread that started it ends.

    See PR_SET_PDEATHSIG in prctl(2).
    """
    return ["setpriv", "--pdeathsig", "KILL", "--", *command]


def run(*command: str) -> subprocess.CompletedProcess:
    """Run `command` without input; return its exit status and what it printed."""
    return subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def check(*command: str) -> None:
    """Run `command`; raise Failure with what it printed when its exit status is not 0."""
    done = run(*command)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")
