"""
The flow table of the big switch, indexed.

Flows are kept in groups that share a mask and a priority; within a group the fields' value finds
the flow.  Adding, finding or deleting one flow touches one group and one flow, however many there
are; what has to look at more (a loose change, a check for overlaps, a lookup of a frame) looks at
groups first and skips those that cannot matter.
"""

from collections.abc import Iterator
from typing import Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow.actions import Actions
from edge.openflow.match import Match

# What MODIFY changes of a flow: its actions, its cookie, and when it was last modified.
ModifiedState = tuple[Actions, int, float]


class FlowEntry:
    """
    One flow, as the controller knows it.

    match, priority, cookie, idle_timeout, hard_timeout (seconds, 0 for none), flags, actions: as
        in the controller's flow-mod
    created, modified: time of the ADD, and of the last ADD or MODIFY (seconds, monotonic)
    first_added: created, or first_added of the flow that this one has replaced.  As in Open
        vSwitch, a flow that replaces another inherits when that was last used
    packets, octets: what was counted by copies that are not on their switches any more
    refused: True once a switch has refused to add it
    reinstalled_on: indexes of the switches that were given their copy again, and whose copy counts
        as used only once it has counted a packet
    last_gap_hit: the last time that we forwarded a packet for this flow, since a copy was missing
        (see expiry.py); 0.0 for never
    """

    __slots__ = (
        "match",
        "priority",
        "cookie",
        "idle_timeout",
        "hard_timeout",
        "flags",
        "actions",
        "created",
        "modified",
        "first_added",
        "packets",
        "octets",
        "refused",
        "reinstalled_on",
        "last_gap_hit",
    )

    def __init__(
        self,
        match: Match,
        priority: int,
        cookie: int,
        idle_timeout: int,
        hard_timeout: int,
        flags: int,
        actions: Actions,
        now: float,
    ) -> None:
        self.match = match
        self.priority = priority
        self.cookie = cookie
        self.idle_timeout = idle_timeout
        self.hard_timeout = hard_timeout
        self.flags = flags
        self.actions = actions
        self.created = self.modified = self.first_added = now
        self.last_gap_hit = 0.0
        self.refused = False
        self.packets = self.octets = 0
        self.reinstalled_on: Optional[set[int]] = None

    @property
    def hard_end(self) -> float:
        """When its hard timeout is up, if it has one."""
        return self.modified + self.hard_timeout

    def count(self, packets: int, octets: int) -> None:
        """Add what a copy had counted, or (below 0) take back what was counted twice."""
        self.packets += packets
        self.octets += octets

    def modify(self, actions: Actions, cookie: Optional[int], now: float) -> None:
        """MODIFY: do something else, under another cookie unless that is None."""
        self.actions = actions
        if cookie is not None:
            self.cookie = cookie
        self.modified = now

    def state(self) -> ModifiedState:
        """What modify() would change, as it is now."""
        return self.actions, self.cookie, self.modified

    def restore(self, state: ModifiedState) -> None:
        """Undo modify(): be again as state() said before it."""
        self.actions, self.cookie, self.modified = state

    def replace(self, old: "FlowEntry") -> None:
        """This flow has taken the place of another: that is no use of it."""
        self.last_gap_hit, self.first_added = old.last_gap_hit, old.first_added

    def refuse(self) -> None:
        """A switch has refused to add it."""
        self.refused = True

    def reinstalled(self, index: int) -> None:
        """The switch with this index is given its copy again."""
        if self.reinstalled_on is None:
            self.reinstalled_on = set()
        self.reinstalled_on.add(index)

    def used_on(self, index: int) -> None:
        """The copy on the switch with this index has counted a packet."""
        if self.reinstalled_on is not None:
            self.reinstalled_on.discard(index)

    def is_reinstalled_on(self, index: int) -> bool:
        """True if the copy on the switch with this index was put back, and not used since."""
        return self.reinstalled_on is not None and index in self.reinstalled_on

    def hit_in_gap(self, octets: int, now: float) -> None:
        """We have forwarded a packet of so many octets for this flow."""
        self.last_gap_hit = now
        self.count(1, octets)


class FlowTable:
    """The flows of the big switch."""

    def __init__(self) -> None:
        self._groups: dict[tuple[int, int], dict[int, FlowEntry]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[FlowEntry]:
        for group in self._groups.values():
            yield from group.values()

    def __contains__(self, entry: FlowEntry) -> bool:
        return self.find(entry.match, entry.priority) is entry

    def find(self, match: Match, priority: int) -> Optional[FlowEntry]:
        """The flow with exactly this match and priority."""
        group = self._groups.get((match.mask, priority))
        return group.get(match.value) if group is not None else None

    def put(self, entry: FlowEntry) -> Optional[FlowEntry]:
        """Add a flow; the one that it replaces is returned, None if there was none."""
        key = (entry.match.mask, entry.priority)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = {}
        old = group.get(entry.match.value)
        group[entry.match.value] = entry
        if old is None:
            self._size += 1
        return old

    def remove(self, entry: FlowEntry) -> None:
        """Take a flow out.  Raises KeyError if it is not in the table."""
        key = (entry.match.mask, entry.priority)
        group = self._groups[key]
        if group.get(entry.match.value) is not entry:
            raise KeyError(entry)
        del group[entry.match.value]
        self._size -= 1
        if not group:
            del self._groups[key]

    def clear(self) -> list[dict[int, FlowEntry]]:
        """Take all flows out; they are returned in groups."""
        groups = list(self._groups.values())
        self._groups = {}
        self._size = 0
        return groups

    def covered(self, match: Match, out_port: int = of.OFPP_NONE) -> list[FlowEntry]:
        """
        The flows that a loose MODIFY or DELETE, or a stats request, with this match is about:
        those that match nothing beyond it (OpenFlow 1.0.0, 4.6), and that output to out_port
        unless that is OFPP_NONE.
        """
        found: list[FlowEntry] = []
        for (mask, _), group in self._groups.items():
            if match.mask & ~mask:
                continue
            if match.mask == mask:
                entry = group.get(match.value)
                if entry is not None:
                    found.append(entry)
            elif not match.mask:
                found.extend(group.values())
            else:
                found.extend(
                    entry
                    for value, entry in group.items()
                    if not (value ^ match.value) & match.mask
                )
        return with_output(found, out_port)

    def exact(self, match: Match, priority: int, out_port: int = of.OFPP_NONE) -> list[FlowEntry]:
        """The flow (or none) that a strict MODIFY or DELETE is about."""
        entry = self.find(match, priority)
        return with_output([entry], out_port) if entry is not None else []

    def overlapped(self, match: Match, priority: int) -> bool:
        """
        True if a packet could match both this and another flow of the same priority
        (OFPFF_CHECK_OVERLAP).  The flow with the same match does not count: an ADD replaces it.
        """
        for (mask, group_priority), group in self._groups.items():
            if group_priority != priority:
                continue
            common = mask & match.mask
            if mask == match.mask:
                continue
            if any(not (value ^ match.value) & common for value in group):
                return True
        return False

    def lookup(self, fields: int) -> Optional[FlowEntry]:
        """The flow that a frame with these fields (see match.of_frame) meets."""
        best = None
        for (mask, priority), group in self._groups.items():
            if best is None or priority > best.priority:
                entry = group.get(fields & mask)
                if entry is not None:
                    best = entry
        return best


def with_output(entries: list[FlowEntry], out_port: int) -> list[FlowEntry]:
    """Those of the flows that output to out_port; all of them if that is OFPP_NONE."""
    if out_port == of.OFPP_NONE:
        return entries
    return [entry for entry in entries if out_port in entry.actions.outputs]
