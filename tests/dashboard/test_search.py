"""How flows are found by their texts, without holding up POX."""

import pox.openflow.libopenflow_01 as of
import pytest

from edge.openflow import actions as act
from edge.web import search, view
from edge.web.queries import Query
from edge.web.search import Texts

from . import model
from .model import read

FLOWS = 200


@pytest.fixture
def made(monkeypatch):
    """The matches of which a text was made."""
    made, text = [], search.match_text
    monkeypatch.setattr(search, "match_text", lambda wire: made.append(wire) or text(wire))
    monkeypatch.setattr(search.poxfixes, "after", lambda *arguments: None)
    return made


@pytest.fixture
def switch():
    switch = model.big_switch()
    for number in range(FLOWS):
        fields = {"dl_type": 0x0800, "nw_dst": f"10.0.1.{number}"}
        model.add_flow(switch, model.match(**fields), act.output(17), cookie=number)
    return switch


def find(texts, switch, words):
    return texts.find(switch, list(switch.flows.table), words)


def test_the_text_of_a_flow_is_made_once(switch, made):
    texts = Texts()
    assert len(find(texts, switch, "10.0.1.1,")) == 1
    assert len(made) == FLOWS
    assert len(find(texts, switch, "10.0.1.2,")) == 1
    assert len(find(texts, switch, "output:17, cookie=0x3,")) == 1
    assert len(made) == FLOWS


def test_the_text_of_a_flow_is_made_anew_when_the_flow_is_another(switch, made):
    texts = Texts()
    first, second, third, *_ = switch.flows.table
    find(texts, switch, "x")
    first.modify(act.parse(act.output(of.OFPP_FLOOD)), None, 0.0)
    second.modify(second.actions, 0xABC, 0.0)
    switch.flows.table.remove(third)
    switch.flows.cookies.release(third)
    model.add_flow(switch, model.match(in_port=1))
    made.clear()
    assert find(texts, switch, "flood") == [first]
    assert find(texts, switch, "cookie=0xABC,") == [second]
    assert len(find(texts, switch, "in_port=1,")) == 1
    assert find(texts, switch, "10.0.1.2,") == []
    assert len(made) == 3


def test_a_flow_that_goes_while_it_is_looked_for_is_not_found(switch, made):
    entries = list(switch.flows.table)
    switch.flows.cookies.release(entries[3])
    assert Texts().find(switch, entries, "output:17,") == entries[:3] + entries[4:]


def test_without_words_all_flows_are_found_and_no_text_is_made(switch, made):
    assert find(Texts(), switch, "  ") == list(switch.flows.table)
    assert made == []


def test_texts_are_kept_for_a_while_after_the_last_search(switch, monkeypatch):
    timers = []
    monkeypatch.setattr(search.poxfixes, "after", lambda wait, call, name: timers.append(call))
    texts = Texts()
    find(texts, switch, "x")
    find(texts, switch, "y")
    (timer,) = timers
    timer()  # the last search is not so long ago
    assert len(texts._known) == FLOWS
    assert len(timers) == 2
    monkeypatch.setattr(search, "KEEP", 0.0)
    timers[1]()
    assert texts._known == {}
    find(texts, switch, "z")
    assert len(timers) == 3


def test_what_is_kept_of_texts_is_bounded_in_characters(switch, made, monkeypatch):
    monkeypatch.setattr(search, "MOST", 1000)
    texts = Texts()
    for _ in range(2):
        assert len(find(texts, switch, "output:17,")) == FLOWS
        assert 0 < sum(len(text) for _, _, text in texts._known.values()) <= 1000


@pytest.mark.parametrize("sort", ["priority", "packets"])
def test_what_is_not_found_costs_pox_no_turn(switch, made, sort):
    """POX's scheduler runs one piece for each flow that was found, and none for the others."""
    query = Query("10.0.1.7,", sort, True, 0, 100)
    found = find(Texts(), switch, query.search)
    made.clear()
    reading = view.flows(switch, query, found)
    assert len(list(reading)) == 1
    assert made == []
    assert read(view.flows(switch, query, found))["found"] == 1
