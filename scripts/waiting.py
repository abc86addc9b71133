"""Waiting for a condition that announces nothing when it becomes true, so it has to be asked."""

import time
from typing import Callable, TypeVar

from failure import Failure

DEADLINE = 20
"""Seconds after which a condition that is still false counts as a failure."""

Result = TypeVar("Result")


def wait_until(
    condition: Callable[[], Result], what: str, timeout: float = DEADLINE, interval: float = 0.005
) -> Result:
    """Call `condition` every `interval` seconds and return its first true result.

    Raises Failure, which names `what`, when there is none within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise Failure(f"no {what} within {timeout:g} seconds")
        time.sleep(interval)
