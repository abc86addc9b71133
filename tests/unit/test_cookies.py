"""The cookies of the flow entries on the switches."""

import itertools

import pytest

from edge.south.rules import SERVICE
from edge.switch.cookies import RUN_MASK, Cookies


def test_the_two_dictionaries_agree():
    cookies = Cookies()
    entries = [object() for _ in range(100)]
    given = [cookies.new(entry) for entry in entries]
    assert len(set(given)) == len(cookies) == 100
    for entry, cookie in zip(entries, given):
        assert cookies.cookie(entry) == cookie
        assert cookies.entry(cookie) is entry


def test_what_is_released_is_in_neither():
    cookies = Cookies()
    entry, other = object(), object()
    cookie, kept = cookies.new(entry), cookies.new(other)
    cookies.release(entry)
    assert cookies.entry(cookie) is None
    with pytest.raises(KeyError):
        cookies.cookie(entry)
    assert cookies.entry(kept) is other
    assert len(cookies) == 1
    cookies.release(entry)
    assert len(cookies) == 1


def test_all_can_be_released_but_a_few():
    cookies = Cookies()
    entries = [object() for _ in range(10)]
    given = [cookies.new(entry) for entry in entries]
    entry_of, cookie_of = cookies.clear(entries[3:5])
    assert entry_of == dict(zip(given, entries)) and cookie_of == dict(zip(entries, given))
    assert len(cookies) == 2
    assert [cookies.cookie(entry) for entry in entries[3:5]] == given[3:5]
    assert [cookies.entry(cookie) for cookie in given[3:5]] == entries[3:5]
    assert cookies.entry(given[0]) is None
    assert cookies.new(object()) not in given


def test_a_cookie_is_not_used_again():
    cookies = Cookies()
    seen = set()
    for _ in range(1000):
        entry = object()
        cookie = cookies.new(entry)
        assert cookie not in seen
        seen.add(cookie)
        cookies.release(entry)


def test_all_cookies_of_a_run_share_their_upper_half_and_no_two_runs_do():
    runs = [Cookies() for _ in range(50)]
    assert len({cookies.run for cookies in runs}) == 50
    for cookies in runs:
        assert {cookies.new(object()) & RUN_MASK for _ in range(10)} == {cookies.run}


def test_no_cookie_is_that_of_the_service_rules_or_one_that_means_something():
    """Everybody else uses 0. To Open vSwitch all ones means "leave the cookie as it is"."""
    assert SERVICE == 0
    for _ in range(50):
        cookies = Cookies()
        assert cookies.run not in (0, RUN_MASK)
        assert cookies.new(object()) not in (SERVICE, 0xFFFFFFFFFFFFFFFF)


def test_when_the_numbers_begin_anew_those_in_use_are_passed_over():
    cookies = Cookies()
    oldest = object()
    first = cookies.new(oldest)
    cookies._numbers = itertools.count(0xFFFFFFFF)
    last, after = cookies.new(object()), cookies.new(object())
    assert last == cookies.run | 0xFFFFFFFF
    assert after not in (first, cookies.run)
    assert after & RUN_MASK == cookies.run
    assert cookies.entry(first) is oldest
