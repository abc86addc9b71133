"""POX with edge.aggregator as a process, started as a user starts it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Optional

from waiting import wait_until

from .namespaces import Namespace

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def find_pox() -> str:
    """Return the directory of the POX checkout; the same places as scripts/env.sh looks at."""
    places = [
        os.environ.get("POX_HOME"),
        os.path.join(REPOSITORY, ".pox"),
        os.path.expanduser("~/pox"),
        os.path.join(REPOSITORY, "..", "pox"),
    ]
    for place in places:
        if place and os.path.exists(os.path.join(place, "pox.py")):
            return os.path.abspath(place)
    raise RuntimeError("POX not found: run scripts/setup.sh or set POX_HOME")


class Aggregator:
    """One POX process in a network namespace.

    namespace: where it runs.
    log_path: file to which it appends what it prints, each time that it is started.
    options: of the component, such as "--ips=172.16.0.1".
    component: the component that POX runs.
    python: the interpreter; by default $EDGE_PYTHON, without that the one that runs the tests.
    level: of POX's log.
    measured: whether coverage.py counts its lines too, when the tests are run with coverage.
    """

    running: list["Aggregator"] = []
    """All that run: a test that fails shows the ends of their logs."""

    def __init__(
        self,
        namespace: Namespace,
        log_path: str,
        options: Sequence[str] = (),
        component: str = "edge.aggregator",
        python: Optional[str] = None,
        level: str = "DEBUG",
        measured: bool = True,
    ) -> None:
        self.namespace = namespace
        self.log_path = log_path
        self.options = list(options)
        self.component = component
        self.level = level
        self.measured = measured
        self.python = python or os.environ.get("EDGE_PYTHON") or sys.executable
        self.process: Optional[subprocess.Popen] = None
        self._life_begins = 0

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """The process id, for /proc or a signal."""
        return self.process.pid

    def start(self) -> None:
        """Start the process; do not wait until it is ready for something.

        Call this from the main thread: the process dies with the thread that started it.
        """
        assert not self.alive, "already running"
        pox = find_pox()
        command = [
            self.python,
            "-u",
            os.path.join(pox, "pox.py"),
            "log.level",
            "--" + self.level,
            self.component,
            *self.options,
        ]
        environment: dict[str, str] = dict(
            os.environ,
            # tests: for lab.inside
            PYTHONPATH=":".join(os.path.join(REPOSITORY, name) for name in ("pox_ext", "tests")),
            PYTHONDONTWRITEBYTECODE="1",
        )
        if not self.measured:
            environment.pop("COVERAGE_PROCESS_CONFIG", None)
        self._life_begins = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.namespace.command(*command),
                cwd=pox,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running.append(self)

    def wait_until_listening(self, port: int, timeout: float = 10) -> None:
        """Return when something listens on a TCP port of its namespace."""
        row = re.compile(rf"^ *\d+: [0-9A-F]+:{port:04X} [0-9A-F]+:0000 0A ", re.MULTILINE)

        def listening() -> bool:
            with open(f"/proc/{self.namespace.pid}/net/tcp") as table:
                found = row.search(table.read())
            assert found or self.alive, f"ended at once:\n{self.log()[-3000:]}"
            return bool(found)

        wait_until(listening, f"listener on port {port}", timeout)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def terminate(self, timeout: float = 10) -> int:
        """Stop it as a service manager does (SIGTERM) and return its exit status."""
        return self._end(signal.SIGTERM, timeout)

    def interrupt(self, timeout: float = 10) -> int:
        """Stop it with Ctrl-C (SIGINT) and return its exit status."""
        return self._end(signal.SIGINT, timeout)

    def stop(self) -> None:
        """End the process when the test is over.  Does nothing if it has ended already.

        Not with kill -9: the lines that coverage.py has counted are saved at an orderly end.
        """
        if self.alive:
            self.terminate()
        else:
            self._forget()

    def wait(self, timeout: float = 10) -> int:
        """Return the exit status when it has ended by itself."""
        status = self.process.wait(timeout)
        self._forget()
        return status

    def restart(self) -> None:
        """kill -9 and start again with the same options."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Stop the process without ending it (SIGSTOP)."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self.process.send_signal(signal.SIGCONT)

    def log(self, all_lives: bool = False, since: int = 0) -> str:
        """Return what it has printed since it was started last.

        all_lives: True for what it has printed since it was started first.
        since: a result of `log_end`; what was printed before is left out.
        """
        with open(self.log_path, errors="replace") as log:
            log.seek(since if all_lives else max(since, self._life_begins))
            return log.read()

    def log_end(self) -> int:
        """Return where the log ends now, to pass it as `since` to `log` or `wait_for_log`.

        At DEBUG a log can be too long to read all of it each time.
        """
        return os.path.getsize(self.log_path)

    def wait_for_log(self, pattern: str, timeout: float = 10, since: int = 0) -> "re.Match[str]":
        """Return the first match of a regular expression in the log since the last start.

        since: a result of `log_end`; what was printed before is left out.

        Fails when there is none within `timeout` seconds, or the process ends without one.
        """
        deadline = time.monotonic() + timeout
        while True:
            ended = not self.alive
            found = re.search(pattern, self.log(since=since), re.MULTILINE)
            if found:
                return found
            assert not ended, f"ended without {pattern!r} in its log:\n{self.log()[-3000:]}"
            assert time.monotonic() < deadline, f"no {pattern!r} in the log within {timeout:g} s"
            time.sleep(0.01)

    def _end(self, signal_number: int, timeout: float = 10) -> int:
        if self.alive:
            self.process.send_signal(signal_number)
            if signal_number != signal.SIGKILL:
                self.process.send_signal(signal.SIGCONT)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(
                f"did not end within {timeout:g} s after signal {signal_number}"
            ) from None
        finally:
            self._forget()

    def _forget(self) -> None:
        if self in self.running:
            self.running.remove(self)
