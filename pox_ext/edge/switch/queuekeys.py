"""
Tunnel keys that stand for a queue of a port of another switch.

A frame comes out of a tunnel with just a key.  So a port and one of its queues share a key of their
own, for which the switch that has the port gets a service rule.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Callable, Optional

from edge.openflow.actions import Actions
from edge.south.member import Member
from edge.south.rules import KEY_QUEUES

# The longest time that a packet takes through a tunnel.
_ON_ITS_WAY = 1.0  # seconds


class QueueKeys:
    """
    Gives out the keys, and takes them back when nothing uses them.

    members: all switches, by their index
    locate: aggregator port -> (index, port) or None
    rules_sent: is told that a switch has been sent rules for queues.  A packet to another switch
        may need them, and has to wait until they are there (see `confirmed`)
    """

    def __init__(
        self,
        members: Mapping[int, Member],
        locate: Callable[[int], Optional[tuple[int, int]]],
        rules_sent: Callable[[], None],
    ) -> None:
        self._members = members
        self._locate = locate
        self._rules_sent = rules_sent
        self._keys: dict[tuple[int, int, int], int] = {}
        self._given_out: dict[int, int] = {}  # by index: how many keys its switch has
        # Service rules for queues that were sent, and how many of these are there for certain.
        self._sent = self._confirmed = 0
        # Since when nothing can use them, and how many packet-outs there had been then.
        self._unused_since, self._packet_outs_before = time.monotonic(), 0

    @property
    def by_queue(self) -> Mapping[tuple[int, int, int], int]:
        """(index, port, queue) -> key; it changes with the keys."""
        return self._keys

    def give_out(self, actions: Actions, ingress: Iterable[Member]) -> None:
        """
        Have a key for each queue that these actions name on another switch than these.

        To be called before actions with queues are translated for these switches.
        """
        sent = self._sent
        for port, queue in actions.queues:
            where = self._locate(port)
            if where is None or all(member.index == where[0] for member in ingress):
                continue
            index, local = where
            if (index, local, queue) not in self._keys:
                number = self._given_out.get(index, 0)
                self._given_out[index] = number + 1
                key = self._keys[index, local, queue] = KEY_QUEUES + number
                self._sent += 1
                owner = self._members.get(index)
                if owner is not None:
                    owner.use_queue_key(local, queue, key)
        if self._sent > sent:
            self._rules_sent()

    def tell(self, member: Member) -> None:
        """A switch is new: tell it the keys of its queues."""
        for (index, port, queue), key in self._keys.items():
            if index == member.index:
                member.use_queue_key(port, queue, key)

    # --- whether the switches have the rules ----------------------------------------------------

    @property
    def confirmed(self) -> bool:
        """True if every rule that was sent for a queue is on its switch for certain."""
        return self._confirmed == self._sent

    @property
    def sent(self) -> int:
        """How many rules have been sent; to be given to confirm() after barriers."""
        return self._sent

    def confirm(self, sent: int) -> None:
        """Barriers have shown that the first so many rules are there."""
        self._confirmed = max(self._confirmed, sent)

    # --- the end of keys ------------------------------------------------------------------------

    def take_back_unused(self, now: float, has_flows: bool, packet_outs: int) -> bool:
        """
        Take all keys back when there are no flows, and no packet is on its way.

        What was translated with them is forgotten before, so that it does not lead to another queue
        which has such a key later.

        packet_outs: how many controllers have sent so far

        Returns True if there were keys.
        """
        if has_flows or packet_outs != self._packet_outs_before:
            self._unused_since, self._packet_outs_before = now, packet_outs
            return False
        if not self._keys or now - self._unused_since < _ON_ITS_WAY:
            return False
        self._keys.clear()
        self._given_out.clear()
        for member in self._members.values():
            member.translations.forget()
            member.forget_queue_keys()
        return True
