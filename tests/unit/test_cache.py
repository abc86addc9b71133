"""What is remembered of what peers send takes a bounded number of bytes, whatever they send."""

import gc
import sys

import pytest
from lab import openflow10 as of

from edge.openflow import actions as act
from edge.openflow import text
from edge.openflow.cache import Cache, cached

from .played import Bed

MEGABYTE = 1 << 20


def memory(*things):
    """Return the bytes that these things take, with all that they hold, each counted once."""
    seen, octets, todo = set(), 0, list(things)
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type) or callable(thing):
            continue
        seen.add(id(thing))
        octets += sys.getsizeof(thing)
        todo += gc.get_referents(thing)
    return octets


@pytest.fixture
def bed(turns):
    return Bed(turns)


def short(number):
    return of.set_tp_dst(number & 0xFFFF) + of.set_nw_src(f"10.0.0.{number >> 16}") + of.output(2)


def outputs(number):
    """400 outputs, to other ports for each number."""
    ports = range(300 + number, 700 + number)
    return of.set_tp_dst(number) + b"".join(map(of.output, ports)) + of.output(2)


def queues(number):
    return b"".join(of.enqueue(2, queue) for queue in range(1000 * number, 1000 * number + 200))


def remote(number):
    """The translation is longer than the actions."""
    return of.set_tp_dst(number) + b"".join([of.output(17), of.output(18)] * 200)


def unassigned(number):
    """Nothing is left of the actions in the translation."""
    return b"".join(of.output(1000 + number + port) for port in range(1500))


def notes(number):
    return of.vendor_action(b"\0\x08" + number.to_bytes(6, "big") + bytes(4000))


KINDS = [short, outputs, queues, remote, unassigned, notes]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])


def fill(cache, remember):
    """Remember ever new things until all is forgotten; then as many again, but for the last."""
    cache.clear()
    number = octets = 0
    while cache.octets >= octets:
        octets = cache.octets
        remember(number)
        number += 1
    cache.clear()
    for again in range(number - 1):
        remember(again)
    assert cache.octets == octets


@each_kind
def test_parsed_actions_take_a_bounded_number_of_bytes(kind):
    cache = act.parse.cache
    fill(cache, lambda number: act.parse(kind(number)))
    assert 4 * MEGABYTE < memory(cache) < 17 * MEGABYTE
    assert act.parse(kind(1)) is act.parse(kind(1)), "and they are remembered"
    cache.clear()


@pytest.mark.parametrize("kind, count", [(outputs, 400), (unassigned, 120)])
def test_what_is_remembered_of_packet_outs_takes_a_bounded_number_of_bytes(bed, kind, count):
    """A controller never sends the same actions twice."""
    member = bed.big.topology.members[1]
    held = []
    for number in range(count):
        bed.send(of.packet_out(bytes(60), kind(number), 1))
        bed.switches[0].waiting.clear()
        if number % (count // 2) == count // 2 - 1:
            held.append(memory(bed.big.packets._outs, member.translations._known))
    assert max(held) < 26 * MEGABYTE, held
    assert member.translations._known and not member.translations._knows_all


@pytest.mark.parametrize("function", [text.actions_text, text.nxm_text])
def test_texts_take_a_bounded_number_of_bytes(function):
    fill(function.cache, lambda number: function(notes(number)))
    assert MEGABYTE < memory(function.cache) < 17 * MEGABYTE
    function.cache.clear()


def test_when_a_cache_is_full_all_is_forgotten_but_what_comes_now():
    cache = Cache(10_000)
    for number in range(9):
        assert cache.remember(number, str(number), 900)
    assert list(cache) == list(range(9)) and cache.octets == 9 * 1100
    assert not cache.remember(9, "9", 900)
    assert list(cache) == [9] and cache.octets == 1100
    assert cache.remember(9, "nine", 900)
    assert cache == {9: "nine"} and cache.octets == 1100
    assert not cache.remember(10, "too much", 20_000)
    assert not cache and not cache.octets


def test_what_raises_is_not_remembered():
    asked = []

    @cached(1000, lambda argument, result: 8)
    def half(number):
        """Half of it."""
        asked.append(number)
        return 1 / number

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            half(0)
        assert half(2) == 0.5
    assert asked == [0, 2, 0] and half.__doc__ == "Half of it."
