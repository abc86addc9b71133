"""How often the log says the same: what anybody can cause must not fill it."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Optional

INTERVAL = 60.0  # seconds
MOST = 1000  # subjects that are remembered


class LogLimit:
    """Says of each subject, such as the address of a peer, whether a line about it is due.

    interval: how long a subject is not spoken of again, in seconds.
    lasting: False to have a line for each interval, however often something happens. True to have
        one line when something begins that happens again and again; the next is due when it has
        not happened for a whole interval.
    most: how many subjects are remembered. If so many have been spoken of within the interval, all
        others together count as one more.
    """

    def __init__(self, interval: float = INTERVAL, lasting: bool = False, most: int = MOST) -> None:
        self._interval = interval
        self._lasting = lasting
        self._most = most
        # The time (monotonic seconds) from which on each subject is not spoken of, and what has
        # happened since without a line. The oldest is first.
        self._said: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        """The number of subjects that are remembered."""
        return len(self._said)

    def due(self, subject: Hashable, now: float) -> Optional[int]:
        """Something has happened. Return None if no line is due.

        Otherwise, how often it has happened since the last line without one.

        now: monotonic seconds
        """
        said = self._said
        if subject not in said and len(said) >= self._most:
            oldest, (since, _) = next(iter(said.items()))
            if now - since < self._interval:
                subject = None  # which stands for all others
            else:
                del said[oldest]
        since, unsaid = said.get(subject, (-self._interval, 0))
        if now - since < self._interval:
            if self._lasting:
                said.move_to_end(subject)
                since = now
            said[subject] = since, unsaid + 1
            return None
        said[subject] = now, 0
        said.move_to_end(subject)
        return unsaid
