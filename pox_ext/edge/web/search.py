"""
Finds the flows whose texts have certain words; for any thread.

To make the texts of many flows takes long, so it is done in the thread that asks, and not in POX's
scheduler.  Only what another thread may read is read of a flow: its match and priority, which never
change, its actions, which are replaced as a whole, and its cookies.
"""

import threading
import time
from typing import Optional

from edge import poxfixes
from edge.openflow.actions import Actions
from edge.openflow.text import actions_text, match_text
from edge.switch.bigswitch import BigSwitch
from edge.switch.flowtable import FlowEntry

TURN = 0.004  # seconds of work, after which other threads have a turn
PAUSE = 0.0001  # seconds; the other threads take as many more as they want
KEEP = 60.0  # seconds for which texts are kept after the last search
MOST = 32 << 20  # characters of texts that are kept
_LOOK = 32  # flows between two looks at the clock


class Texts:
    """
    The texts of flows, which are kept for the next search, up to MOST characters.

    A text has the match and the actions as ovs-ofctl prints them, then the controller's cookie and
    the one on the switches.  A comma follows every value, so that "in_port=1," does not find port
    17.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The actions and the cookie that the text tells, and the text.
        self._known: dict[FlowEntry, tuple[Actions, int, str]] = {}
        self._used = 0.0  # when the last search ended
        self._forgets = False  # a timer will forget them

    def find(self, switch: BigSwitch, entries: list[FlowEntry], search: str) -> list[FlowEntry]:
        """
        The flows among `entries` whose text has each of the words, in any case of letters.

        search: the words, separated by spaces; without any, all flows are found
        """
        words = search.lower().split()
        if not words:
            return entries
        with self._lock:  # a second search profits from the texts that the first one makes
            found = self._find(switch, entries, words)
            self._used = time.monotonic()
            if not self._forgets:
                self._forgets = True
                poxfixes.after(KEEP, self._forget, "edge.search")
        return found

    def _find(
        self, switch: BigSwitch, entries: list[FlowEntry], words: list[str]
    ) -> list[FlowEntry]:
        found = []
        # Those of flows that are gone are not taken over.
        before, known = self._known, {}
        rest = words[1:]
        first = words[0]
        size = 0
        end = time.monotonic() + TURN
        for number, entry in enumerate(entries):
            if not number % _LOOK and time.monotonic() > end:
                end = _let_others()
            kept = before.get(entry)
            if kept is None or kept[0] is not entry.actions or kept[1] != entry.cookie:
                kept = _made(switch, entry)
                if kept is None:
                    continue
            text = kept[2]
            size += len(text)
            if size <= MOST:
                known[entry] = kept
            if first in text and all(word in text for word in rest):
                found.append(entry)
        self._known = known
        return found

    def _forget(self) -> None:
        """Forget the texts if nobody has searched for a while.  A timer calls this."""
        left = self._used + KEEP - time.monotonic()
        if left > 0:
            poxfixes.after(left, self._forget, "edge.search")
            return
        self._forgets = False
        self._known = {}


def _let_others() -> float:
    """
    Let other threads run.  Return when to do so again.

    If they have much to do, a thread that asks for Python's lock gets it only after some
    milliseconds (sys.getswitchinterval()).  So this thread works for as long as they have, then.
    """
    begun = time.monotonic()
    time.sleep(PAUSE)
    now = time.monotonic()
    return now + max(TURN, now - begun)


def _made(switch: BigSwitch, entry: FlowEntry) -> Optional[tuple[Actions, int, str]]:
    """The text of a flow, and what it depends on; None if the flow has gone meanwhile."""
    actions, cookie = entry.actions, entry.cookie
    try:
        switch_cookie = switch.flows.cookies.cookie(entry)
    except KeyError:
        return None
    text = (
        f"priority={entry.priority},{match_text(entry.match.wire)},"
        f"actions={actions_text(actions.wire)},cookie={cookie:#x},cookie={switch_cookie:#x},"
    )
    return actions, cookie, text.lower()
