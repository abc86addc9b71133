"""What the operator is told about one switch, in few lines, however often something happens."""

import time
from typing import Callable, Optional

# How long after a line about a kind of trouble the next line about it comes, at the earliest.
PAUSE = 60.0  # seconds


class _Kind:
    """
    One kind of trouble.

    text: what was told last; None if that is over
    at: when (seconds, monotonic)
    waiting: makes the text that is told when the pause is over
    unsaid: how often it has happened since, if it is something that happens
    """

    def __init__(self) -> None:
        self.text: Optional[str] = None
        self.at: Optional[float] = None
        self.waiting: Optional[Callable[[], str]] = None
        self.unsaid = 0


class Complaints:
    """
    Tells the operator about each kind of trouble once, and again when it has changed.

    There is at most one line about a kind in PAUSE seconds, and at most one text is kept for it.
    So things that come by the thousand (ports, refusals) cost neither lines nor memory.

    say: writes a line
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._kinds: dict[str, _Kind] = {}
        self._waiting = False

    def tell(self, kind: str, text: Callable[[], str]) -> None:
        """
        There is trouble.

        kind: one of a few words of this program, never anything that a switch has sent
        text: makes the line; it is called now, or when the pause is over
        """
        known = self._kinds.setdefault(kind, _Kind())
        known.waiting = text
        self._waiting = True
        self._tell(known, time.monotonic())

    def happened(self, kind: str, text: Callable[[], str]) -> None:
        """The same for what happens and is not a state; a later line says how often it did."""
        known = self._kinds.setdefault(kind, _Kind())
        known.text = None
        known.unsaid += 1
        self.tell(kind, text)

    def over(self, kind: str) -> None:
        """The trouble is over.  If it comes back, it is told again."""
        known = self._kinds.get(kind)
        if known is not None:
            known.text = known.waiting = None
            known.unsaid = 0

    def begin_again(self) -> None:
        """The switch has connected: tell what is wrong, even if it was told before."""
        for kind in self._kinds:
            self.over(kind)

    def tick(self, now: float) -> None:
        """Tell what had to wait.  To be called regularly."""
        if self._waiting:
            self._waiting = False
            for known in self._kinds.values():
                if known.waiting is not None:
                    self._waiting = True
                    self._tell(known, now)

    def _tell(self, known: _Kind, now: float) -> None:
        if known.waiting is None or (known.at is not None and now - known.at < PAUSE):
            return
        text, known.waiting = known.waiting(), None
        if known.at is not None and known.unsaid > 1:
            text += f" ({known.unsaid} times)"
        known.unsaid = 0
        if text != known.text:
            known.text, known.at = text, now
            self._say(text)
