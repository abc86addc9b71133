"""
The flow table of the big switch, indexed.

Flows are kept in groups that share a mask and a priority.  Within a group, a dictionary finds a
flow by the value of its match fields.  So adding, finding or deleting one flow touches one group
and one flow, whatever the size of the table.  A loose change, a check for overlaps and the lookup
of a frame look at all groups, and skip the groups in which no flow can match.
"""

from collections.abc import Iterator
from typing import Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow.actions import Actions
from edge.openflow.match import Match

# The part of a flow that MODIFY changes: actions, cookie, time of the last change (monotonic).
ModifiedState = tuple[Actions, int, float]


class FlowEntry:
    """
    One flow, as the controller knows it.

    match, priority, cookie, idle_timeout, hard_timeout (seconds, 0 for none), flags, actions: as
        in the controller's flow-mod
    created, modified: time of the ADD, and of the last ADD or MODIFY (seconds, monotonic)
    first_added: created, or first_added of the flow that this one has replaced.  (In Open vSwitch
        a flow that replaces another inherits its time of last use.)
    packets, octets: counted by copies that are no longer on their switches, and by hit_in_gap()
    reinstalled_on: indexes of the switches that were sent their copy again; such a copy counts as
        unused until it has counted a packet
    last_gap_hit: when the aggregator last forwarded a packet for this flow because a copy was
        missing (see Expiry.hit_in_gap; seconds, monotonic); 0.0 for never
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
        self.packets = self.octets = 0
        self.reinstalled_on: Optional[set[int]] = None

    @property
    def hard_end(self) -> float:
        """When its hard timeout runs out (seconds, monotonic), if it has one."""
        return self.modified + self.hard_timeout

    def count(self, packets: int, octets: int) -> None:
        """Add what a copy has counted; negative numbers subtract what was counted twice."""
        self.packets += packets
        self.octets += octets

    def modify(self, actions: Actions, cookie: Optional[int], now: float) -> None:
        """MODIFY: replace the actions, and the cookie unless that is None."""
        self.actions = actions
        if cookie is not None:
            self.cookie = cookie
        self.modified = now

    def state(self) -> ModifiedState:
        """The present values of what modify() changes."""
        return self.actions, self.cookie, self.modified

    def restore(self, state: ModifiedState) -> None:
        """Undo modify(): take back the values that state() returned before it."""
        self.actions, self.cookie, self.modified = state

    def inherit_from(self, old: "FlowEntry") -> None:
        """This flow has replaced another: inherit when that was last used."""
        self.last_gap_hit, self.first_added = old.last_gap_hit, old.first_added

    def reinstalled(self, index: int) -> None:
        """The switch with this index is sent its copy again."""
        if self.reinstalled_on is None:
            self.reinstalled_on = set()
        self.reinstalled_on.add(index)

    def used_on(self, index: int) -> None:
        """The copy on the switch with this index has counted a packet."""
        if self.reinstalled_on is not None:
            self.reinstalled_on.discard(index)

    def is_reinstalled_on(self, index: int) -> bool:
        """True if the switch with this index was sent its copy again, and has not used it since."""
        return self.reinstalled_on is not None and index in self.reinstalled_on

    def hit_in_gap(self, octets: int, now: float) -> None:
        """The aggregator has forwarded a packet of so many octets for this flow."""
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
        """Add a flow.  Returns the flow that it replaces, None if there is none."""
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
        """Take all flows out.  Returns the groups."""
        groups = list(self._groups.values())
        self._groups = {}
        self._size = 0
        return groups

    def covered(self, match: Match, out_port: int = of.OFPP_NONE) -> list[FlowEntry]:
        """
        The flows that a loose MODIFY or DELETE, or a stats request, selects with this match.

        It selects flows whose match is equal or more specific (OpenFlow 1.0.0, 4.6).  Unless
        out_port is OFPP_NONE, these flows must also output to out_port.
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
        """The flow that a strict MODIFY or DELETE selects, as a list of one; empty if none."""
        entry = self.find(match, priority)
        return with_output([entry], out_port) if entry is not None else []

    def overlapped(self, match: Match, priority: int) -> bool:
        """
        True if a packet could match both this and a flow of the same priority.

        (OFPFF_CHECK_OVERLAP.)  The flow with the same match does not count: an ADD replaces it.
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
        """The flow that a frame with these fields (see match.of_frame) matches; None if none."""
        best = None
        for (mask, priority), group in self._groups.items():
            if best is None or priority > best.priority:
                entry = group.get(fields & mask)
                if entry is not None:
                    best = entry
        return best


def with_output(entries: list[FlowEntry], out_port: int) -> list[FlowEntry]:
    """The flows among these that output to out_port; all of them if that is OFPP_NONE."""
    if out_port == of.OFPP_NONE:
        return entries
    return [entry for entry in entries if out_port in entry.actions.outputs]
