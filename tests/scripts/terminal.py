"""A program in a terminal of its own, as a user has it."""

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
"""Seconds that a test waits for what must come."""


class Terminal:
    """`command` in a network namespace and with a terminal that the test reads and types into."""

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
        """Return what was printed up to a match of `pattern`; fail when that does not come."""
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

    def wait(self) -> tuple[int, str]:
        """Return the exit status and what was printed last, when the program has ended."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self.process.wait(max(0, deadline - time.monotonic())), self.text

    def close(self) -> None:
        """End it, if it has not ended."""
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
        except OSError:  # EIO: nobody has the other end any more
            return False
        self.text += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


def processes_with(variable: str, value: str) -> list[int]:
    """Return the processes of this machine that were started with VARIABLE=VALUE."""
    wanted = f"{variable}={value}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/environ", "rb") as environment:
                    if wanted in environment.read().split(b"\0"):
                        found.append(int(entry))
            except OSError:  # ended meanwhile, or a zombie
                continue
    return found


def children(pid: int) -> list[int]:
    """Return the child processes of a process with one thread that makes some."""
    with open(f"/proc/{pid}/task/{pid}/children") as text:
        return [int(word) for word in text.read().split()]


def commands_below(pid: int) -> list[str]:
    """Return the names of all programs that descend from a process."""
    names = []
    for child in children(pid):
        try:
            with open(f"/proc/{child}/comm") as name:
                names.append(name.read().strip())
            names += commands_below(child)
        except FileNotFoundError:  # ended meanwhile
            continue
    return names
