"""How often the log says the same."""

from edge.poxfixes.loglimit import LogLimit


def test_a_line_for_each_interval_which_counts_those_that_were_not_said():
    limit = LogLimit(interval=60)
    assert limit.due("a", 1000.0) == 0
    assert [limit.due("a", 1000.0 + second) for second in range(60)] == [None] * 60
    assert limit.due("b", 1059.0) == 0, "another subject has lines of its own"
    assert limit.due("a", 1060.0) == 60
    assert limit.due("a", 1061.0) is None
    assert limit.due("a", 1120.0) == 1


def test_what_lasts_is_said_once_until_it_has_been_over_for_an_interval():
    limit = LogLimit(interval=60, lasting=True)
    assert limit.due("a", 1000.0) == 0
    assert {limit.due("a", 1000.0 + second) for second in range(3600)} == {None}
    assert limit.due("a", 4658.0) is None
    assert limit.due("a", 4718.0) is not None


def test_many_subjects_cost_bounded_memory_and_one_line_more():
    limit = LogLimit(interval=60, most=100)
    said = [subject for subject in range(10_000) if limit.due(subject, 1000.0) is not None]
    assert said == list(range(101)) and len(limit) == 101
    assert limit.due(10_001, 1061.0) is not None, "the old ones make room"
    assert len(limit) <= 101
