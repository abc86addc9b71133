"""The wait of POX's main thread for the end."""

import threading
from typing import Optional

LONGEST_WAIT = 0.5  # seconds


class ShortWaits(threading.Condition):
    """Takes the place of core.quit_condition.

    POX, pox/boot.py:552: the main thread waits for ten seconds at a time to be told that POX has
    ended, and looks whether it runs after that, not before. So SIGTERM or Ctrl-C takes ten seconds
    when the end came before the wait (a signal while POX goes up), and when the kernel gave the
    signal to another thread than the main one, which alone handles it and sleeps on.

    Here: it looks twice a second.
    """

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Wait to be told, but not for long."""
        return super().wait(LONGEST_WAIT if timeout is None else min(timeout, LONGEST_WAIT))
