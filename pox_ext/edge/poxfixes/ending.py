"""How POX's main thread waits for the end."""

import threading
from typing import Optional

LONGEST_WAIT = 0.5  # seconds between two looks whether POX has ended


class ShortWaits(threading.Condition):
    """Takes the place of core.quit_condition.

    POX, pox/boot.py:552: the main thread waits to be told that POX has ended. It waits for ten
    seconds at a time, and looks only afterwards whether POX still runs. So SIGTERM or Ctrl-C takes
    ten seconds in two cases. In one, POX has ended before the wait begins (a signal while POX goes
    up). In the other, the kernel gives the signal to another thread; Python handles signals in the
    main thread alone, and that one sleeps on.

    Here: the main thread looks twice a second.
    """

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Wait to be told, for half a second at most; return whether it was told."""
        return super().wait(LONGEST_WAIT if timeout is None else min(timeout, LONGEST_WAIT))
