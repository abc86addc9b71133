"""One answer to all requests that ask the same at about the same time."""

import threading
import time
from collections.abc import Hashable
from concurrent.futures import Future
from typing import Callable

SHARE = 1.0  # seconds for which an answer is given to further requests
_MOST_ANSWERS = 64


class Shared:
    """Answers that are up to SHARE seconds old; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # question -> when it was asked, and the answer; the oldest first
        self._answers: dict[Hashable, tuple[float, Future[bytes]]] = {}

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """
        The answer to the question `key`; if there is none that is new enough, make() makes it.

        Further calls with this key wait for that answer meanwhile.  Raises what make() raises.
        """
        now = time.monotonic()
        with self._lock:
            known = self._answers.get(key)
            if known is not None and now - known[0] < SHARE:
                answer, to_be_made = known[1], False
            else:
                answer, to_be_made = Future(), True
                self._answers.pop(key, None)
                self._answers[key] = now, answer
                while len(self._answers) > _MOST_ANSWERS:
                    del self._answers[next(iter(self._answers))]
        if to_be_made:
            try:
                answer.set_result(make())
            except BaseException as e:
                answer.set_exception(e)
        return answer.result()
