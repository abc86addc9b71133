"""
Compares the flow entries of a (re)connected switch with those that it has to have.

The functions are pure: they return the difference, and send nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Callable, NamedTuple

from edge.openflow.stats import FlowStats
from edge.south.rules import SERVICE, Rule
from edge.switch.flowtable import FlowEntry


class Found(NamedTuple):
    """
    The flow entries that a switch has.

    rules: those of the wanted service rules that it has, with their actions there
    copies: the copies of our flows, by their cookies
    stale: all other flow entries
    """

    rules: dict[Rule, bytes]
    copies: dict[int, FlowStats]
    stale: list[FlowStats]


def sort_out(
    dump: Iterable[FlowStats], rules: Mapping[Rule, bytes], is_live: Callable[[int], bool]
) -> Found:
    """
    Sort the flow entries of a switch.

    dump: all flow entries of the switch
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
    """A flow that a switch has to hold, with its cookie and its translated actions there."""

    entry: FlowEntry
    cookie: int
    actions: bytes


class Difference(NamedTuple):
    """
    What has to be changed on a switch.

    missing: flows to be added
    wrong: flows whose actions have to be modified
    stale: flow entries to be deleted
    kept: how many copies are right already
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
