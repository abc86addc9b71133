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
"""Seconds until a command that is to end has ended."""

AT_ONCE = 8
"""Commands that run at the same time."""


class Ended(NamedTuple):
    """What a command left."""

    status: int
    output: str


@contextlib.contextmanager
def typed(
    namespace: Namespace,
    *words: str,
    python: str = sys.executable,
    pythonpath: Optional[str] = PACKAGE,
) -> Iterator[subprocess.Popen]:
    """`python pox.py WORDS` in a network namespace, until the end of the block.

    pythonpath: where it finds the component; None for nowhere but what `python` has.
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
        # Not kill: the lines that coverage.py has counted are saved at an orderly end.
        process.terminate()
        process.communicate(timeout=PATIENCE)


def ended(namespace: Namespace, *words: str, **how: Optional[str]) -> Ended:
    """What `python pox.py WORDS` leaves when it has ended by itself; fails if it does not end."""
    with typed(namespace, *words, **how) as process:
        output, _ = process.communicate(timeout=PATIENCE)
    return Ended(process.returncode, output)


def all_ended(namespace: Namespace, commands: Sequence[Sequence[str]]) -> list[Ended]:
    """What each of these commands leaves, some of them running at the same time."""
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
