"""Reconciliation: what a switch that connects lacks, has wrong, and has too much."""

from hypothesis import given
from hypothesis import strategies as st

from edge.openflow.stats import FlowStats
from edge.south.rules import SERVICE, Rule
from edge.switch.reconcile import Wanted, difference, sort_out

RULE = Rule(2, 0, b"")


def flow(cookie, actions=b"", table=2, priority=9, match=b""):
    return FlowStats(table, priority, 0, 0, 0, cookie, 0, 0, match, actions)


def test_what_a_switch_has_is_sorted_into_rules_copies_and_the_rest():
    rule = flow(SERVICE, b"rule", priority=0)
    other_rule = flow(SERVICE, b"", table=1)
    copy, twin, foreign = flow(1), flow(1, match=b"\0"), flow(7)
    found = sort_out([rule, copy, twin, foreign, other_rule], {RULE: b""}, {1, 2}.__contains__)
    assert found.rules == {RULE: b"rule"}, "as it is, not as it has to be"
    assert found.copies == {1: copy}
    assert found.stale == [twin, foreign, other_rule]


def test_the_difference_is_what_is_missing_what_is_wrong_and_what_is_too_much():
    found = sort_out([flow(1, b"a"), flow(2, b"b"), flow(4)], {}, {1, 2, 3, 4}.__contains__)
    one, two, three = "one", "two", "three"
    todo = difference(found, [Wanted(one, 1, b"a"), Wanted(two, 2, b"x"), Wanted(three, 3, b"")])
    assert (todo.missing, todo.wrong, todo.kept) == ([three], [two], 1)
    assert todo.stale == [flow(4)]


@given(
    st.dictionaries(st.integers(1, 20), st.sampled_from([b"a", b"b"])),
    st.dictionaries(st.integers(1, 20), st.sampled_from([b"a", b"b"])),
)
def test_a_switch_that_gets_the_difference_has_what_it_has_to_have(there, wanted):
    found = sort_out([flow(*each) for each in there.items()], {}, lambda cookie: True)
    todo = difference(found, [Wanted(cookie, cookie, does) for cookie, does in wanted.items()])
    after = dict(there)
    for each in todo.stale:
        del after[each.cookie]
    for cookie in todo.missing:
        assert cookie not in after
    for cookie in todo.wrong:
        assert after[cookie] != wanted[cookie]
    after.update({cookie: wanted[cookie] for cookie in (*todo.missing, *todo.wrong)})
    assert after == wanted
    assert todo.kept == len(wanted) - len(todo.missing) - len(todo.wrong)
