"""
Tunnel keys that stand for a queue of a port on another switch.

The tunnel key is all that a frame can carry to the receiving switch.  So each queue that flows of
other switches use gets a tunnel key, which stands for the port and the queue.  The switch that has
the port gets a service rule that enqueues the frames with this key.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Callable, Optional

from edge.openflow.actions import Actions
from edge.south.member import Member
from edge.south.rules import KEY_QUEUES

# The longest time that a packet takes through a tunnel.
_ON_ITS_WAY = 1.0  # seconds
# Keys for the queues of one switch.  Each costs a service rule there, and some 1,000 bytes here.
_MOST_KEYS = 4096
_TOO_MANY = (
    f"more than {_MOST_KEYS} of its queues are used by other switches; what they send to further "
    "ones goes to the default queues of the ports"
)


class QueueKeys:
    """
    Allocates the tunnel keys, and frees them when nothing uses them.

    members: all switches, by their index
    locate: aggregator port -> (index, port) or None
    changed: is called when keys have been allocated or freed.  Remembered translations of
        packet-outs are wrong then; a packet-out that needs a new key has to wait until the switch
        has the service rule for it (see `confirmed`)
    """

    def __init__(
        self,
        members: Mapping[int, Member],
        locate: Callable[[int], Optional[tuple[int, int]]],
        changed: Callable[[], None],
    ) -> None:
        self._members = members
        self._locate = locate
        self._changed = changed
        self._keys: dict[tuple[int, int, int], int] = {}
        self._given_out: dict[int, int] = {}  # switch index -> number of keys
        # The number of service rules sent for queues, and how many of them barriers have confirmed.
        self._sent = self._confirmed = 0
        # When something last used the keys, at the latest, and the number of packet-outs by then.
        self._unused_since, self._packet_outs_before = time.monotonic(), 0

    @property
    def by_queue(self) -> Mapping[tuple[int, int, int], int]:
        """(index, port, queue) -> tunnel key: a live view."""
        return self._keys

    def give_out(self, actions: Actions, ingress: Iterable[Member]) -> None:
        """
        Allocate a key for each queue in the actions that is on another switch than the packet.

        To be called before actions with queues are translated.  A queue beyond the first _MOST_KEYS
        of its switch has none: frames from other switches go to the port's default queue.

        ingress: the switches where packets enter
        """
        sent = self._sent
        for port, queue in actions.queues:
            where = self._locate(port)
            if where is None or all(member.index == where[0] for member in ingress):
                continue
            index, local = where
            if (index, local, queue) not in self._keys:
                number = self._given_out.get(index, 0)
                owner = self._members.get(index)
                if number >= _MOST_KEYS:
                    if owner is not None:
                        owner.complaints.tell("queues", lambda: _TOO_MANY)
                    continue
                self._given_out[index] = number + 1
                key = self._keys[index, local, queue] = KEY_QUEUES + number
                self._sent += 1
                if owner is not None:
                    owner.use_queue_key(local, queue, key)
        if self._sent > sent:
            self._changed()

    def tell(self, member: Member) -> None:
        """Give a new switch the service rules for the keys of its queues."""
        for (index, port, queue), key in self._keys.items():
            if index == member.index:
                member.use_queue_key(port, queue, key)

    # --- whether the switches have the rules ----------------------------------------------------

    @property
    def confirmed(self) -> bool:
        """True if barriers have shown that every service rule for a queue is on its switch."""
        return self._confirmed == self._sent

    @property
    def sent(self) -> int:
        """How many service rules have been sent; to be given to confirm() after barriers."""
        return self._sent

    def confirm(self, sent: int) -> None:
        """Barriers have shown that the first `sent` service rules are on their switches."""
        self._confirmed = max(self._confirmed, sent)

    # --- the end of keys ------------------------------------------------------------------------

    def take_back_unused(
        self, now: float, awake_since: float, has_flows: bool, packet_outs: int
    ) -> None:
        """
        Free the keys if there are no flows, and no packet is on its way through a tunnel.

        Translations that use the keys are forgotten, too: a key may stand for another queue later.

        awake_since: when the last pause of this process ended; the switches may have paused, too
        packet_outs: how many packet-outs controllers have sent so far
        """
        if has_flows or packet_outs != self._packet_outs_before:
            self._unused_since, self._packet_outs_before = now, packet_outs
            return
        if not self._keys or now - max(self._unused_since, awake_since) < _ON_ITS_WAY:
            return
        # A switch that is away may still have its rules, and forward by them: its keys stay what
        # they are.
        away = {index for index, member in self._members.items() if not member.liveness.ready}
        kept = {where: key for where, key in self._keys.items() if where[0] in away}
        if len(kept) == len(self._keys):
            return
        for where in self._keys.keys() - kept.keys():
            del self._keys[where]
            self._given_out.pop(where[0], None)
        for index, member in self._members.items():
            member.translations.forget()
            if index not in away:
                member.forget_queue_keys()
        self._changed()
