"""POX as a user starts it."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from lab.aggregator import REPOSITORY, find_pox
from lab.namespaces import Namespace

PACKAGE = os.path.join(REPOSITORY, "pox_ext")
PATIENCE = 30.0
"""Seconds within which a command that ends by itself must have ended."""

AT_ONCE = 8
"""How many commands run at the same time."""


class Ended(NamedTuple):
    """The exit status and the output of a command."""

    status: int
    output: str


@contextlib.contextmanager
def typed(
    namespace: Namespace,
    *words: str,
    python: str = sys.executable,
    pythonpath: Optional[str] = PACKAGE,
) -> Iterator[subprocess.Popen]:
    """Run `python pox.py WORDS` in a network namespace until the end of the block.

    pythonpath: where POX finds the component; None if it is installed for `python`.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    if pythonpath is not None:
        environment["PYTHONPATH"] = pythonpath
    process = subprocess.Popen(
        namespace.command(python, "-u", "pox.py", *words),
        cwd=find_pox(),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # Terminate, not kill: coverage.py saves its counts at an orderly end.
        process.terminate()
        process.communicate(timeout=PATIENCE)


def ended(namespace: Namespace, *words: str, **how: Optional[str]) -> Ended:
    """Run `python pox.py WORDS`, which must end by itself; return its status and output."""
    with typed(namespace, *words, **how) as process:
        output, _ = process.communicate(timeout=PATIENCE)
    return Ended(process.returncode, output)


def all_ended(namespace: Namespace, commands: Sequence[Sequence[str]]) -> list[Ended]:
    """Run these commands, some at the same time; return their statuses and outputs."""
    found: list[Ended] = []
    for start in range(0, len(commands), AT_ONCE):
        with contextlib.ExitStack() as stack:
            processes = [
                stack.enter_context(typed(namespace, *words))
                for words in commands[start : start + AT_ONCE]
            ]
            for process in processes:
                output, _ = process.communicate(timeout=PATIENCE)
                found.append(Ended(process.returncode, output))
    return found
