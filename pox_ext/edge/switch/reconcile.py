"""
What a switch that has come (back) lacks, has wrong, and has too much.

Pure functions of what the switch has told and of what it has to have.
"""

from collections.abc import Iterable, Mapping
from typing import Callable, NamedTuple

from edge.openflow.stats import FlowStats
from edge.south.rules import SERVICE, Rule
from edge.switch.flowtable import FlowEntry


class Found(NamedTuple):
    """
    What a switch has.

    rules: the service rules that it has to have, with the actions that they have
    copies: copies of our flows, by their cookies
    stale: all else
    """

    rules: dict[Rule, bytes]
    copies: dict[int, FlowStats]
    stale: list[FlowStats]


def sort_out(
    dump: Iterable[FlowStats], rules: Mapping[Rule, bytes], is_live: Callable[[int], bool]
) -> Found:
    """
    Sort what is in a switch's tables.

    dump: all flows of the switch
    rules: the service rules that it has to have
    is_live: True for the cookies of our flows
    """
    found = Found({}, {}, [])
    for flow in dump:
        rule = Rule(flow.table, flow.priority, flow.match)
        if flow.cookie == SERVICE and rule in rules:
            found.rules[rule] = flow.actions
        elif is_live(flow.cookie) and flow.cookie not in found.copies:
            found.copies[flow.cookie] = flow
        else:
            found.stale.append(flow)
    return found


class Wanted(NamedTuple):
    """A flow that a switch has to hold, with its cookie and its actions there."""

    entry: FlowEntry
    cookie: int
    actions: bytes


class Difference(NamedTuple):
    """
    What has to be done about a switch.

    missing: flows that have to be added
    wrong: flows whose actions have to be changed
    stale: what has to be deleted
    kept: how many flows are as they should be
    """

    missing: list[FlowEntry]
    wrong: list[FlowEntry]
    stale: list[FlowStats]
    kept: int


def difference(found: Found, wanted: Iterable[Wanted]) -> Difference:
    """Compare what a switch has with the flows that it has to hold."""
    missing: list[FlowEntry] = []
    wrong: list[FlowEntry] = []
    left = dict(found.copies)
    kept = 0
    for entry, cookie, actions in wanted:
        copy = left.pop(cookie, None)
        if copy is None:
            missing.append(entry)
        elif copy.actions != actions:
            wrong.append(entry)
        else:
            kept += 1
    return Difference(missing, wrong, [*found.stale, *left.values()], kept)
