"""A POX component that logs and prints more than a pipe holds, and then answers."""

import logging
import sys
from pathlib import Path

from pox.core import core

LINES = 20_000


def launch(done: str, repaired: bool = False) -> None:
    """
    done: a file that is made when all has been logged.
    repaired: whether POX is repaired.
    """
    if repaired:
        from edge import poxfixes

        poxfixes.install()

    def chat(event: object) -> None:
        log = logging.getLogger("chat")
        for number in range(LINES):
            log.info("line %d %s", number, "x" * 80)
        print("printed")
        print("printed", file=sys.stderr)
        Path(done).touch()

    core.addListenerByName("UpEvent", chat)
