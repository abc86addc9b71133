"""How POX's main thread waits for the end."""

import math
import threading
import time
from typing import Optional

from pox.core import core

LONGEST_WAIT = 0.5  # seconds between two looks whether POX has ended


class ShortWaits(threading.Condition):
    """Takes the place of core.quit_condition.

    POX, pox/boot.py:552: the main thread waits to be told that POX has ended. It waits for ten
    seconds at a time, and looks only afterwards whether POX still runs. So SIGTERM or Ctrl-C takes
    ten seconds in two cases. In one, POX has ended before the wait begins (a signal while POX goes
    up). In the other, the kernel gives the signal to another thread; Python handles signals in the
    main thread alone, and that one sleeps on.

    Here: the main thread looks twice a second. It does not leave before POX is down: another thread
    may be ending it, and would be cut off.
    """

    def __init__(self) -> None:
        super().__init__()
        self._down = False
        core.addListenerByName("DownEvent", self._note)

    def _note(self, event: object) -> None:
        self._down = True

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Wait to be told, until half a second after POX is down; return whether it was told."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            was_down = self._down
            if super().wait(max(0.0, min(left, LONGEST_WAIT))):
                return True
            if was_down or left <= LONGEST_WAIT:
                return False
