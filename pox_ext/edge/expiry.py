"""
When flows come to their end by themselves.

Timeouts run on the switches, copy by copy.  Here it is decided what the end of a copy means for
the flow, and looked after the flows of which no switch holds a copy that would tell.
"""

import heapq
import itertools
import time
from typing import Callable

import pox.openflow.libopenflow_01 as of

from edge import match as matches
from edge import southbound as south
from edge.flowtable import FlowEntry, FlowTable
from edge.gather import Gather
from edge.member import Copy, Member, new_xid


class Expiry:
    """
    Ends flows that are idle, or whose time is up.

    holders: the ready switches that hold a copy of a flow
    copy: the flow as it has to be put (back) on a switch
    end: takes flows from everywhere, and tells the controllers why (OFPRR_*); given the switch
        whose copy is gone already, if there is one
    """

    def __init__(
        self,
        table: FlowTable,
        holders: Callable[[FlowEntry], list[Member]],
        copy: Callable[[FlowEntry, Member], Copy],
        end: Callable[..., None],
    ) -> None:
        self._table = table
        self._holders = holders
        self._copy = copy
        self._end = end
        self._shared = 0  # flows with an idle timeout that may be on several switches
        self._unheld: dict[FlowEntry, float] = {}  # no switch has a copy, since then
        self._deadlines: list[tuple[float, int, FlowEntry]] = []  # a heap
        self._watched: set[FlowEntry] = set()  # those that are in it and in the table
        self._serials = itertools.count()

    def added(self, entry: FlowEntry) -> None:
        """A flow is in the table now."""
        if _is_shared(entry):
            self._shared += 1
        if not self._holders(entry):
            self.unheld(entry, entry.created)

    def removed(self, entry: FlowEntry) -> None:
        """A flow is not in the table any more."""
        if _is_shared(entry):
            self._shared -= 1
        self._unheld.pop(entry, None)
        if entry in self._watched:
            self._watched.remove(entry)
            if len(self._deadlines) > 2 * len(self._watched) + 64:
                self._deadlines = [each for each in self._deadlines if each[2] in self._watched]
                heapq.heapify(self._deadlines)

    def unheld(self, entry: FlowEntry, since: float) -> None:
        """No ready switch has a copy of this flow."""
        if entry.idle_timeout or entry.hard_timeout:
            self._unheld.setdefault(entry, since)

    def put_on(self, entry: FlowEntry, member: Member) -> None:
        """A switch is given a copy of a flow that has been there for a while."""
        self._unheld.pop(entry, None)
        if entry.idle_timeout:
            if entry.fresh is None:
                entry.fresh = set()
            entry.fresh.add(member.index)

    def kept_on(self, entry: FlowEntry) -> None:
        """A switch that has come back still has its copy."""
        self._unheld.pop(entry, None)

    def translated_again(self, entry: FlowEntry) -> None:
        """
        A copy was given other actions, though the controller changed nothing.

        On the switch a hard timeout begins anew then, so it is looked after here.
        """
        if entry.hard_timeout and entry not in self._watched:
            self._watched.add(entry)
            end = entry.modified + entry.hard_timeout
            heapq.heappush(self._deadlines, (end, next(self._serials), entry))

    def tick(self, now: float) -> None:
        """End the flows whose time is up though no switch says so."""
        while self._deadlines and self._deadlines[0][0] <= now:
            entry = heapq.heappop(self._deadlines)[2]
            if entry not in self._watched:
                continue
            self._watched.remove(entry)
            if entry.modified + entry.hard_timeout <= now:
                self._end([entry], of.OFPRR_HARD_TIMEOUT)
            else:
                self.translated_again(entry)
        for entry, since in list(self._unheld.items()):
            if entry.hard_timeout and entry.modified + entry.hard_timeout <= now:
                self._end([entry], of.OFPRR_HARD_TIMEOUT)
            elif entry.idle_timeout and since + entry.idle_timeout <= now:
                self._end([entry], of.OFPRR_IDLE_TIMEOUT)

    def copy_idle(self, member: Member, entry: FlowEntry, packets: int) -> None:
        """
        A copy has been idle for its time.  The flow has been if all its copies have: otherwise
        it is put back (at once: packets may come), until the last one is idle too.

        packets: what the copy had counted
        """
        if packets and entry.fresh is not None:
            entry.fresh.discard(member.index)
        others = [other for other in self._holders(entry) if other is not member]
        used_by_us = entry.used + entry.idle_timeout > time.monotonic()
        if not others and not used_by_us:
            self._end([entry], of.OFPRR_IDLE_TIMEOUT, member)
            return
        copy = self._copy(entry, member)
        member.send(copy.add(new_xid()))
        self.put_on(entry, member)
        in_use = [used_by_us]

        def done() -> None:
            if entry in self._table and not any(in_use):
                self._end([entry], of.OFPRR_IDLE_TIMEOUT)

        gather: Gather[Member] = Gather(others, done)

        def ask(other: Member) -> None:
            def answer(kind: int, message: bytes) -> bool:
                if kind == of.OFPT_STATS_REPLY:
                    for flow in south.parse_flows(message):
                        unused = entry.fresh and other.index in entry.fresh and not flow.packets
                        in_use.append(not unused and flow.idle_age < entry.idle_timeout)
                    if south.is_more(message):
                        return False
                gather.answered(other)
                return True

            other.request(
                lambda xid: south.dump_flows(xid, copy.cookie),
                answer,
                lambda: gather.answered(other),
            )

        for other in others:
            ask(other)
        gather.start()

    def forward_in_gap(self, member: Member, packet: south.PacketIn, in_port: int) -> bool:
        """
        A packet that a flow would have matched, had its copy on this switch not just expired
        while the flow is in use on others: it goes the flow's way.  False if it is none.

        in_port: the aggregator port where it entered
        """
        if not self._shared:
            return False
        entry = self._table.lookup(matches.of_frame(packet.data, in_port))
        if entry is None or not _is_shared(entry):
            return False
        entry.used = time.monotonic()
        entry.packets += 1
        entry.octets += packet.total_len
        actions = member.translated_or_none(entry.actions)
        member.send(south.packet_out(new_xid(), packet.in_port, actions, packet.data))
        return True


def _is_shared(entry: FlowEntry) -> bool:
    return bool(entry.idle_timeout) and entry.match.in_port is None
