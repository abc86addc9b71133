"""A program in a terminal, where a test types and reads as a user does."""

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Optional

from lab.namespaces import Namespace

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCRIPTS = os.path.join(REPOSITORY, "scripts")
SYSTEM_PYTHON = "/usr/bin/python3"
PATIENCE = 30.0
"""Seconds that a test waits for output that must come."""


class Terminal:
    """Runs `command` in a network namespace, with a terminal of its own.

    env: environment variables in addition to the test's.
    """

    def __init__(
        self, namespace: Namespace, command: Sequence[str], env: Optional[dict[str, str]] = None
    ) -> None:
        self.master, slave = pty.openpty()
        self.text = ""
        self.process = subprocess.Popen(
            namespace.command("setsid", "--ctty", *command),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=dict(os.environ, **(env or {})),
        )
        os.close(slave)

    def read_until(self, pattern: str) -> str:
        """Return the output up to a match of `pattern`; fail after PATIENCE seconds without one."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = re.search(pattern, self.text)
            if found:
                text, self.text = self.text[: found.end()], self.text[found.end() :]
                return text
            assert self._read(deadline), f"no {pattern!r} in:\n{self.text}"

    def type(self, text: str) -> None:
        """Type `text`; a line ends with "\\n", Ctrl-C is "\\x03"."""
        os.write(self.master, text.encode())

    def signal(self, number: int) -> None:
        """Send a signal to the program alone, as `kill` does."""
        self.process.send_signal(number)

    def signal_all(self, number: int) -> None:
        """Send a signal to all processes of the program's group, as `kill -- -GROUP` does."""
        os.killpg(os.tcgetpgrp(self.master), number)

    def wait(self) -> tuple[int, str]:
        """Wait for the end of the program; return its exit status and the output not yet read."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self.process.wait(max(0, deadline - time.monotonic())), self.text

    def close(self) -> None:
        """End the program, if it has not ended, and close the terminal."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
        os.close(self.master)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: no program has the terminal open any more
            return False
        self.text += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


def processes_with(variable: str, value: str) -> list[int]:
    """Return the ids of all processes with VARIABLE=VALUE in their environment."""
    wanted = f"{variable}={value}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/environ", "rb") as environment:
                    if wanted in environment.read().split(b"\0"):
                        found.append(int(entry))
            except OSError:  # the process has ended meanwhile, or is a zombie
                continue
    return found


def children(pid: int) -> list[int]:
    """Return the ids of the processes that the main thread of process `pid` has started."""
    with open(f"/proc/{pid}/task/{pid}/children") as text:
        return [int(word) for word in text.read().split()]


def commands_below(pid: int) -> list[str]:
    """Return the names of the programs that run in the descendants of process `pid`."""
    names = []
    for child in children(pid):
        try:
            with open(f"/proc/{child}/comm") as name:
                names.append(name.read().strip())
            names += commands_below(child)
        except FileNotFoundError:  # the process has ended meanwhile
            continue
    return names
