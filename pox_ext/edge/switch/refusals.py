"""
Changes that switches may refuse, and the controllers' messages that led to them.

A switch does not answer a message that it accepts.  So each change is remembered until a barrier
has shown whether a switch has refused it.
"""

import logging
import struct
from collections import Counter, OrderedDict
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

# When so many changes are unconfirmed, barriers are sent without waiting for the next tick.
_MANY = 1000
# Bytes of memory for unconfirmed changes: beyond the first only the beginnings of messages are
# remembered; beyond the second the controllers that make changes are held back.
_MOST_OCTETS = 16 << 20
_TOO_MANY_OCTETS = 48 << 20
OCTETS_EACH = 400  # a Change without its message takes; and what it remembers of a flow


class Change:
    """
    A change that was sent to switches, and that they may refuse.

    A subclass whose changes can be undone has `revert` and `finish`, and can_revert is True.

    requester: the controller that asked for it; None if the aggregator did it by itself
    message: the controller's message
    refusable: True if a switch may refuse it although it has passed all checks here
    refusers: the switches that have refused it; None before the first
    error: the OFPT_ERROR for the requester; None while no switch has refused it
    octets: memory that it takes, in bytes, about; without its message until Refusals.track
    """

    can_revert = False
    refusers: Optional[set[Member]] = None
    error: Optional[bytes] = None
    octets = OCTETS_EACH

    def __init__(
        self, requester: Optional[Requester], message: bytes, refusable: bool = False
    ) -> None:
        self.requester = requester
        self.message = message
        self.refusable = refusable

    def entries(self) -> Collection[FlowEntry]:
        """The flows that this change has added or modified."""
        return ()

    def revert(self, later: Iterator["Change"]) -> None:
        """
        Undo the change on the big switch: the first switch has refused it.

        later: the unconfirmed changes that came after this one, the newest first
        """

    def finish(self, refusers: set[Member]) -> None:
        """Undo the change on the switches that have not refused it: all have answered now."""


class Refusals:
    """
    Sends switches' errors on to the controllers, and has refused changes undone.

    ask_barriers: calls back when every ready switch has executed all that it was sent
    unconfirmed: the flows that a switch may still refuse although they have passed all checks here;
        a further change of such a flow has to wait for a barrier
    """

    def __init__(self, ask_barriers: Callable[[Callable[[], None]], None], counts: Counts) -> None:
        self._ask_barriers = ask_barriers
        self._counts = counts
        # By xid, the oldest first.  (An OrderedDict: see Session._requests.)
        self._changes: OrderedDict[int, Change] = OrderedDict()
        self._octets = 0  # of memory that the changes take
        self._held_back: list[Callable[[], None]] = []  # see _when_confirmed()
        self.unconfirmed: set[FlowEntry] = set()
        # How many refusable messages of each requester are unconfirmed.
        self._awaited: Counter[Optional[Requester]] = Counter()
        self._confirming = False
        self._reverted = 0  # grows when undoing a change begins, and when it ends
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
            # An error needs at least 64 bytes (OpenFlow 1.0.0, 5.4.4); Open vSwitch sends more.
            change.message = change.message[:64]
        change.octets += len(change.message)
        self._octets += change.octets
        if self._octets > _TOO_MANY_OCTETS and change.requester is not None:
            change.requester.pause(self._when_confirmed)
        xid = new_xid()
        self._changes[xid] = change
        if change.refusable:
            self.unconfirmed.update(change.entries())
            self._awaited[change.requester] += 1
        return xid

    def _when_confirmed(self, go_on: Callable[[], None]) -> None:
        """Call back later: when most of the changes are confirmed."""
        self._held_back.append(go_on)

    def awaits(self, requester: Requester) -> bool:
        """
        True if a switch may still refuse a message from this controller.

        As with one switch, answers and errors have to come in the order of the messages.  So the
        answer to a later message has to wait for a barrier.
        """
        return requester in self._awaited

    @property
    def undoing(self) -> bool:
        """True while a change that one switch has refused may still be in force on others."""
        return self._undoing > 0

    def refused(self, member: Member, xid: int, error: bytes) -> None:
        """A switch has sent this error (the whole OFPT_ERROR) for what had this xid."""
        kind, code = struct.unpack_from("!HH", error, 8)
        self._counts.refusals += 1
        change = self._changes.get(xid)
        if change is None:
            member.complaints.happened(
                "refused",
                lambda: f"refuses what it was sent (error type {kind} code {code})",
            )
            return
        if change.refusers is not None:
            change.refusers.add(member)
            return  # the error is noted already, and the change is being undone
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
            if other.refusers is None:  # else it has been reverted already
                yield other

    def confirm(self) -> None:
        """Send barriers, and forget the changes that they confirm; once at a time."""
        if self._confirming or not self._changes:
            return
        self._confirming = True

        def done() -> None:
            self._confirming = False

        self._ask(done)

    def _ask(self, done: Callable[[], None]) -> None:
        """
        Send barriers; then forget the changes before them, and send the errors of the refused ones.
        """
        newest = next(reversed(self._changes), None)

        def answered() -> None:
            if newest in self._changes:
                while self._changes:
                    xid, change = self._changes.popitem(last=False)
                    self._octets -= change.octets
                    self._settle(change)
                    if xid == newest:
                        break
            done()
            if self._held_back and self._octets <= _MOST_OCTETS:
                held_back, self._held_back = self._held_back, []
                for go_on in held_back:
                    go_on()

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
        Call done() when every ready switch has executed all that it was sent before.

        By then, every change that a switch has refused is undone on the other switches, too.

        rounds: how often to send barriers again if a change was being undone meanwhile.  Two more
            rounds are enough for all that began before the first answer.
        """
        before = self._reverted

        def answered() -> None:
            if self._reverted == before or not rounds:
                done()
            else:
                self.barrier(done, rounds - 1)

        self._ask(answered)
