"""Gathering: one request to many switches, and one answer."""

from edge.south.gather import Gather


def gathering(*members):
    done = []
    return Gather(members, lambda: done.append(True)), done


def test_it_is_done_when_the_last_has_answered():
    gather, done = gathering("a", "b", "c")
    gather.start()
    for member in "abc":
        assert done == []
        gather.answered(member)
    assert done == [True]


def test_with_nobody_to_wait_for_it_is_done_at_the_start_and_not_before():
    gather, done = gathering()
    assert done == []
    gather.start()
    assert done == [True]


def test_answers_that_come_again_or_from_others_do_not_count():
    gather, done = gathering("a", "b")
    gather.start()
    gather.answered("a")
    gather.answered("a")
    gather.answered("c")
    assert done == []
    gather.answered("b")
    gather.answered("b")
    assert done == [True]


def test_it_is_done_once_though_all_answer_before_it_is_started():
    """A switch that is lost while it is asked counts as answered before the start."""
    gather, done = gathering("a")
    gather.answered("a")
    gather.start()
    assert done == [True]
