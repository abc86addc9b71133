"""
What the switches refuse, and whose message it was.

A switch does not answer what it is sent when it is good.  So each change that was sent is
remembered until a barrier has shown that no switch has refused it.
"""

import logging
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Callable, Optional

from edge.openflow.errors import error_reply
from edge.openflow.nicira import NXET_VENDOR
from edge.south.member import Member
from edge.south.xids import new_xid
from edge.switch.counts import Counts
from edge.switch.events import Requester
from edge.switch.flowtable import FlowEntry

log = logging.getLogger("edge.refusals")

# After so many changes barriers are asked for without waiting for the clock.
_MANY = 1000
_MOST_OCTETS = 16 << 20


class Change:
    """
    Something that was sent to switches, and that they may refuse.

    A subclass that can be undone has `revert` and `finish`, and is_undone_by_us True.

    requester: whose message led to it; None for what we do by ourselves
    message: that message
    refusable: True if a switch may refuse it, though it is good as far as can be told here
    refusers: the switches that have refused it; None before one has
    error: what the requester is answered once it has been refused
    """

    __slots__ = ("requester", "message", "refusable", "refusers", "error")

    can_revert = False

    def __init__(
        self, requester: Optional[Requester], message: bytes, refusable: bool = False
    ) -> None:
        self.requester = requester
        self.message = message
        self.refusable = refusable
        self.refusers: Optional[set[Member]] = None
        self.error: Optional[bytes] = None

    def entries(self) -> Collection[FlowEntry]:
        """The flows that it has added or changed."""
        return ()

    def revert(self, later: Iterator["Change"]) -> None:
        """
        The first switch has refused it: bring what we know back to what was before.

        later: the changes that came after this one and are not confirmed, the newest first
        """

    def finish(self, refusers: set[Member]) -> None:
        """All switches have answered: bring those that did not refuse it back, too."""


class Refusals:
    """
    Leads the switches' errors back to the controllers, and has undone what one switch refused.

    ask_barriers: calls back when every ready switch has done all that it was sent
    unconfirmed: the flows that a switch may still refuse, though they are good as far as can be
        told here; whoever changes one of them has to wait for a barrier
    """

    def __init__(self, ask_barriers: Callable[[Callable[[], None]], None], counts: Counts) -> None:
        self._ask_barriers = ask_barriers
        self._counts = counts
        self._changes: dict[int, Change] = {}  # by xid, the oldest first
        self._octets = 0  # of the messages that are remembered
        self.unconfirmed: set[FlowEntry] = set()
        # How many refusable messages of each requester are unconfirmed.
        self._awaited: Counter[Optional[Requester]] = Counter()
        self._confirming = False
        self._reverted = 0  # grows whenever something begins or ends to be undone
        self._undoing = 0  # how many changes are being undone

    def __len__(self) -> int:
        return len(self._changes)

    def track(self, change: Change) -> int:
        """
        Remember a change until it is confirmed.

        Returns the xid with which it has to be sent to the switches.
        """
        if len(self._changes) >= _MANY:
            self.confirm()
        if self._octets > _MOST_OCTETS:
            # Enough for the error (OpenFlow 1.0.0, 5.4.4), if not all that Open vSwitch sends.
            change.message = change.message[:64]
        self._octets += len(change.message)
        xid = new_xid()
        self._changes[xid] = change
        if change.refusable:
            self.unconfirmed.update(change.entries())
            self._awaited[change.requester] += 1
        return xid

    def awaits(self, requester: Requester) -> bool:
        """
        True if a switch may still refuse a message of this controller's.

        The errors come in the order of the messages, as those of one switch do: what would answer
        another message has to wait for a barrier.
        """
        return requester in self._awaited

    @property
    def undoing(self) -> bool:
        """True while what a switch has refused is on others that do not know yet."""
        return self._undoing > 0

    def refused(self, member: Member, xid: int, error: bytes) -> None:
        """A switch has sent this error (the whole OFPT_ERROR) for what had this xid."""
        kind, code = struct.unpack_from("!HH", error, 8)
        self._counts.refusals += 1
        change = self._changes.get(xid)
        if change is None:
            log.warning("%s: refuses what it was sent (error type %d code %d)", member, kind, code)
            return
        if change.refusers is not None:
            change.refusers.add(member)
            return  # the controller is going to be told, and it is being undone
        refusers = change.refusers = {member}
        if change.requester is not None:
            self._counts.errors += 1
            prefix = error[12:20] if kind == NXET_VENDOR else b""
            change.error = error_reply(kind, code, change.message, prefix=prefix)
        if not change.can_revert:
            self._ask(lambda: None)
            return
        log.debug("%s: refuses a flow (error type %d code %d)", member, kind, code)
        self._reverted += 1
        self._undoing += 1
        change.revert(self._later(change))

        def answered() -> None:
            self._reverted += 1
            self._undoing -= 1
            change.finish(refusers)

        self._ask(answered)

    def _later(self, change: Change) -> Iterator[Change]:
        for other in reversed(list(self._changes.values())):
            if other is change:
                return
            yield other

    def confirm(self) -> None:
        """Forget, when the switches have answered, what none of them has refused."""
        if self._confirming or not self._changes:
            return
        self._confirming = True

        def done() -> None:
            self._confirming = False

        self._ask(done)

    def _ask(self, done: Callable[[], None]) -> None:
        """
        Ask for barriers; then forget what they have confirmed, and tell of what was refused.
        """
        newest = next(reversed(self._changes), None)

        def answered() -> None:
            if newest in self._changes:
                for xid in list(self._changes):
                    change = self._changes.pop(xid)
                    self._octets -= len(change.message)
                    self._settle(change)
                    if xid == newest:
                        break
            done()

        self._ask_barriers(answered)

    def _settle(self, change: Change) -> None:
        if change.refusable:
            self.unconfirmed.difference_update(change.entries())
            self._awaited[change.requester] -= 1
            if not self._awaited[change.requester]:
                del self._awaited[change.requester]
        if change.error is not None and change.requester is not None:
            change.requester.send(change.error)

    def barrier(self, done: Callable[[], None], rounds: int = 2) -> None:
        """
        done() when the switches have done all that they were sent, and all is undone that one of
        them had refused by then.

        rounds: how often to ask again if something was undone meanwhile: what had begun to be
            undone before the first answer is done after two more
        """
        before = self._reverted

        def answered() -> None:
            if self._reverted == before or not rounds:
                done()
            else:
                self.barrier(done, rounds - 1)

        self._ask(answered)
