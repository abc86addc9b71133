"""
What the switches refuse, and whose message it was.

What is sent to the switches is not answered when it is good.  So which controller's message led
to it is remembered until a barrier has shown that nobody refused it.
"""

import logging
import struct
from collections import Counter
from collections.abc import Collection
from typing import Callable, Optional

from edge.openflow.errors import error_reply
from edge.openflow.nicira import NXET_VENDOR
from edge.south.member import Member, new_xid
from edge.switch.counts import Counts
from edge.switch.events import Requester
from edge.switch.flowtable import FlowEntry

log = logging.getLogger("edge.refusals")

# After so many messages we ask without waiting for the clock.
_MANY = 1000
_MOST_OCTETS = 16 << 20

Finish = Callable[["set[Member]"], None]
Undo = Callable[[], Finish]


class _Origin:
    """
    A controller's message, or (peer None) what we do by ourselves.

    refusers: the switches that have refused it, None before
    error: what the controller is answered when it is refused
    """

    __slots__ = ("peer", "message", "undo", "entries", "refusable", "refusers", "error")

    def __init__(
        self,
        peer: Optional[Requester],
        message: bytes,
        undo: Optional[Undo],
        entries: Collection[FlowEntry],
        refusable: bool,
    ) -> None:
        self.peer = peer
        self.message = message
        self.undo = undo
        self.entries = entries
        self.refusable = refusable
        self.refusers: Optional[set[Member]] = None
        self.error: Optional[bytes] = None


class Refusals:
    """
    Leads the switches' errors back to the controllers, and has undone what one switch refused.

    ask_barriers: calls back when every ready switch has done all that it was sent
    doubtful: the flows that a switch may still refuse, though they are good as far as can be told
        here; what changes one of them has to wait for a barrier
    """

    def __init__(self, ask_barriers: Callable[[Callable[[], None]], None], counts: Counts) -> None:
        self._ask_barriers = ask_barriers
        self._counts = counts
        self._origins: dict[int, _Origin] = {}
        self._octets = 0  # of the messages that are remembered
        self.doubtful: set[FlowEntry] = set()
        self._awaited: Counter[Requester] = Counter()  # how many refusable messages of each
        self._confirming = False
        self._changes = 0  # grows with all that is undone
        self._undoing = 0  # how much is being undone

    def __len__(self) -> int:
        return len(self._origins)

    def originate(
        self,
        peer: Optional[Requester],
        message: bytes,
        undo: Optional[Undo] = None,
        entries: Collection[FlowEntry] = (),
        refusable: bool = False,
    ) -> int:
        """
        The xid for what is sent to the switches because of a controller's message, or (peer None)
        because we have to put right what is on them.

        undo: is called at the first refusal, and returns what is to be called when all switches
            have answered: with the set of those that have refused
        entries: the flows that it has added or changed
        refusable: True if a switch may refuse it, though it is good as far as can be told here
        """
        if len(self._origins) >= _MANY:
            self.confirm()
        if self._octets > _MOST_OCTETS:
            # Enough for the error (OpenFlow 1.0.0, 5.4.4), if not all that Open vSwitch sends.
            message = message[:64]
        self._octets += len(message)
        xid = new_xid()
        self._origins[xid] = _Origin(peer, message, undo, entries, refusable)
        if refusable:
            self.doubtful.update(entries)
            self._awaited[peer] += 1
        return xid

    def awaited(self, peer: Requester) -> bool:
        """
        True if a switch may still refuse a message of this controller's.

        The errors come in the order of the messages, as those of one switch do: what would answer
        another message has to wait for a barrier.
        """
        return peer in self._awaited

    @property
    def undoing(self) -> bool:
        """True while what a switch has refused is on others that do not know yet."""
        return self._undoing > 0

    def refused(self, member: Member, xid: int, error: bytes) -> None:
        """A switch has sent this error."""
        kind, code = struct.unpack_from("!HH", error, 8)
        self._counts.refusals += 1
        origin = self._origins.get(xid)
        if origin is None:
            log.warning("%s: refuses what it was sent (error type %d code %d)", member, kind, code)
            return
        if origin.refusers is not None:
            origin.refusers.add(member)
            return  # the controller knows, and it is being undone
        refusers = origin.refusers = {member}
        if origin.peer is not None:
            self._counts.errors += 1
            prefix = error[12:20] if kind == NXET_VENDOR else b""
            origin.error = error_reply(kind, code, origin.message, prefix=prefix)
        if origin.undo is None:
            self._ask(lambda: None)
            return
        log.debug("%s: refuses a flow (error type %d code %d)", member, kind, code)
        self._changes += 1
        self._undoing += 1
        finish = origin.undo()

        def answered() -> None:
            self._changes += 1
            self._undoing -= 1
            finish(refusers)

        self._ask(answered)

    def confirm(self) -> None:
        """Forget, when the switches have answered, what none of them has refused."""
        if self._confirming or not self._origins:
            return
        self._confirming = True

        def done() -> None:
            self._confirming = False

        self._ask(done)

    def _ask(self, done: Callable[[], None]) -> None:
        """
        Ask for barriers; then forget what they have confirmed, and tell of what was refused.
        """
        newest = next(reversed(self._origins), None)

        def answered() -> None:
            if newest in self._origins:
                for xid in list(self._origins):
                    origin = self._origins.pop(xid)
                    self._octets -= len(origin.message)
                    self._settle(origin)
                    if xid == newest:
                        break
            done()

        self._ask_barriers(answered)

    def _settle(self, origin: _Origin) -> None:
        if origin.refusable:
            self.doubtful.difference_update(origin.entries)
            self._awaited[origin.peer] -= 1
            if not self._awaited[origin.peer]:
                del self._awaited[origin.peer]
        if origin.error is not None:
            origin.peer.send(origin.error)

    def barrier(self, done: Callable[[], None], rounds: int = 2) -> None:
        """
        done() when the switches have done all that they were sent, and all is undone that one of
        them had refused by then.

        rounds: how often to ask again if something was undone meanwhile: what had begun to be
            undone before the first answer is done after two more
        """
        before = self._changes

        def answered() -> None:
            if self._changes == before or not rounds:
                done()
            else:
                self.barrier(done, rounds - 1)

        self._ask(answered)
