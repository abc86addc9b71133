"""Requests that the site answers without reading the switch; it refuses most of them."""

import json
import re
import threading
from email.message import Message
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from edge import dashboard
from edge.web import metrics, refresher, shared, site
from edge.web.queries import Query, Refused, parse_cookie, parse_query
from edge.web.refresher import Refresher
from edge.web.shared import Shared
from edge.web.site import Site

LOCAL = {"Host": "127.0.0.1:8000"}


@pytest.fixture(scope="module")
def page():
    return Site(frozenset(["pox.example"]))


def headers(**fields):
    found = Message()
    for name, value in fields.items():
        found[name.replace("_", "-")] = value
    return found


def answer(page, target="/", command="GET", **fields):
    return page.answer(command, target, headers(**(fields or LOCAL)))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("10.1.2.3", 200),
        ("[::1]:8000", 200),
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("pox.example:8000", 200),
        ("evil.example:8000", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("evil.example#127.0.0.1", 403),
        ("127.0.0.1@evil.example", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_a_foreign_name_that_points_here_is_refused(page, host, status):
    for target in ("/", "/metrics" if status == 403 else "/app.js"):
        assert answer(page, target, Host=host).status == status


def test_a_request_without_a_host_is_refused(page):
    assert page.answer("GET", "/", Message()).status == 403


@pytest.mark.parametrize(
    ("site", "mode", "status"),
    [
        ("same-origin", "cors", 200),
        ("none", "navigate", 200),
        ("cross-site", "navigate", 200),
        ("cross-site", "no-cors", 403),
        ("cross-site", "cors", 403),
        ("same-site", "cors", 403),
    ],
)
def test_other_sites_pages_may_link_here_but_fetch_nothing(page, site, mode, status):
    fields = {"Host": "127.0.0.1", "Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
    assert answer(page, **fields).status == status


@pytest.mark.parametrize("command", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X"])
def test_nothing_can_be_changed(page, command):
    for target in ("/", "/api/switch", "/api/flows", "/metrics"):
        assert answer(page, target, command).status == 405


@pytest.mark.parametrize(
    "target",
    [
        "/nothing",
        "/api",
        "/api/",
        "/api/switch/",
        "/api/flows/",
        "/api/flows/1/2",
        "/api/flows/0x",
        "/api/flows/-1",
        "/api/flows/0x1_0",
        "/api/flows/%00",
        "/api/flows/10000000000000000",
        "/../dashboard.py",
        "/dashboard_static/app.js",
        "/%2e%2e/etc/passwd",
        "//",
        "",
    ],
)
def test_what_is_not_there_is_not_found(page, target):
    response = answer(page, target)
    assert response.status == 404
    assert json.loads(response.body)["error"]


def test_without_the_aggregator_it_says_so(page):
    response = answer(page, "/api/switch")
    assert response.status == 503
    assert "edge.aggregator" in json.loads(response.body)["error"]


def test_without_prometheus_client_it_says_so(page, monkeypatch):
    monkeypatch.setattr(metrics, "AVAILABLE", False)
    response = answer(page, "/metrics")
    assert response.status == 501
    assert "prometheus_client" in json.loads(response.body)["error"]


def test_a_mistake_of_ours_costs_one_answer_and_one_line(monkeypatch, caplog):
    page = Site(frozenset())
    monkeypatch.setattr(page, "_overview", lambda: 1 / 0)
    assert answer(page, "/api/switch?x=%0a\x1b").status == 500
    (line,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert "\x1b" not in line.getMessage()


# --- parameters -----------------------------------------------------------------------------------


def test_the_first_page_is_what_is_shown_without_parameters():
    assert parse_query("") == Query("", "priority", True, 0, 100)


def test_all_parameters_together():
    text = "search=nw_dst%3D10.0.0.3+output&sort=octets&order=asc&offset=200&limit=500&other=1"
    assert parse_query(text) == Query("nw_dst=10.0.0.3 output", "octets", False, 200, 500)


@pytest.mark.parametrize(
    "text",
    [
        "sort=match",
        "order=up",
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=1.5",
        "limit=٣",
        "limit=" + "9" * 5000,
        "offset=-1",
        "offset=x",
        "offset=10000000000",
        "search=" + "x" * 201,
        "&".join(f"a{number}=1" for number in range(100)),
    ],
)
def test_parameters_that_make_no_sense_are_refused(text):
    with pytest.raises(Refused) as refused:
        parse_query(text)
    assert refused.value.status == 400


def test_a_cookie_is_read_in_hexadecimal():
    assert parse_cookie("0x5a00000001") == parse_cookie("5a00000001") == 0x5A00000001


WRONG = [
    ({"port": "0"}, "--port=0"),
    ({"port": "65536"}, "--port=65536"),
    ({"port": "http"}, "--port=http"),
    ({"port": True}, "--port"),
    ({"port": "08000"}, "--port=08000"),
    ({"port": "80_0"}, "--port=80_0"),
    ({"address": "localhost:80"}, "--address=localhost:80"),
    ({"address": "10.0.0.256"}, "--address=10.0.0.256"),
    ({"address": True}, "--address"),
    ({"address": "192.0.2.1"}, "--address=192.0.2.1"),
    ({"names": True}, "--names"),
    ({"names": "a,,b"}, "--names=a,,b"),
    ({"names": "http://a"}, "--names=http://a"),
    ({"names": "a:80"}, "--names=a:80"),
    (
        {"names": "a,\N{FULLWIDTH LATIN SMALL LETTER B}"},
        "--names=a,\N{FULLWIDTH LATIN SMALL LETTER B}",
    ),
]


@pytest.mark.parametrize(("options", "named"), WRONG, ids=[named for _, named in WRONG])
def test_a_wrong_option_is_told_in_one_line(options, named, caplog):
    assert dashboard.launch(**options) is False
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert named in line


# --- how often the switches are asked
# ---------------------------------------------------------------


def test_who_asks_the_same_at_once_gets_the_same_answer(monkeypatch):
    monkeypatch.setattr(shared, "SHARE", 60)
    answers, made = Shared(), []

    def make():
        made.append(1)
        return b"answer"

    threads = [threading.Thread(target=answers.get, args=("key", make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert answers.get("key", make) == b"answer"
    assert answers.get("other", lambda: b"another") == b"another"


def test_an_answer_is_not_given_for_ever(monkeypatch):
    monkeypatch.setattr(shared, "SHARE", 0)
    answers = Shared()
    assert [answers.get("key", lambda n=n: n) for n in (b"1", b"2")] == [b"1", b"2"]


def test_only_so_many_answers_are_kept():
    answers = Shared()
    for number in range(1000):
        answers.get(number, lambda: b"")
    assert len(answers._answers) <= shared._MOST_ANSWERS


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


def test_the_switches_are_asked_seldom_however_many_look(monkeypatch):
    clock, asked, done = Clock(), [], []
    monkeypatch.setattr(refresher, "time", clock)
    monkeypatch.setattr(
        refresher.statistics, "refresh", lambda switch, entries, finish: asked.append(finish)
    )

    class Switch:
        flows = SimpleNamespace(table=())

    asker = Refresher()

    def look():
        asker.refresh(Switch(), lambda: done.append(1))

    look()
    look()
    assert (len(asked), len(done)) == (1, 0)
    asked[0]()
    assert len(done) == 2
    look()
    assert (len(asked), len(done)) == (1, 3)  # the last answers are new enough
    clock.now += refresher.REFRESH
    look()
    assert (len(asked), len(done)) == (2, 3)
    clock.now += 1.0  # the switches took a second to answer: they have very many flows
    asked[1]()
    clock.now += 8.9
    look()
    assert len(asked) == 2
    clock.now += 0.2
    look()
    assert len(asked) == 3


def test_a_pause_is_not_taken_for_switches_that_take_long(monkeypatch):
    """Otherwise a pause of 12 s would leave the page with old counters for two minutes."""
    clock, asked = Clock(), []
    monkeypatch.setattr(refresher, "time", clock)
    monkeypatch.setattr(
        refresher.statistics, "refresh", lambda switch, entries, finish: asked.append(finish)
    )
    switch = SimpleNamespace(flows=SimpleNamespace(table=()))
    asker = Refresher()
    asker.refresh(switch, list)
    clock.now += 12.0
    monkeypatch.setattr(refresher, "awake_since", lambda: clock.now)
    asked[0]()
    clock.now += 0.1
    asker.refresh(switch, list)
    assert len(asked) == 2


# --- the files ------------------------------------------------------------------------------------


def test_the_page_takes_nothing_from_elsewhere(page):
    for path in site.FILES:
        text = answer(page, path).body.decode()
        links = re.findall(r"(?:https?:)?//[\w.]+\.\w+[^\s\"']*", text)
        assert links == (["http://www.w3.org/2000/svg"] if path in ("/app.js", "/icon.svg") else [])


def test_what_comes_from_the_network_cannot_become_markup(page):
    script = answer(page, "/app.js").body.decode()
    for name in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "createContextualFragment",
        "DOMParser",
        "srcdoc",
        "setHTML",
    ):
        assert name not in script


def test_no_script_or_style_is_inside_the_page(page):
    class Inline(HTMLParser):
        found = []

        def handle_starttag(self, tag, attributes):
            names = dict(attributes)
            if tag == "style" or (tag == "script" and "src" not in names) or "style" in names:
                self.found.append(tag)
            self.found += [name for name in names if name.startswith("on")]

    parser = Inline()
    parser.feed(answer(page, "/").body.decode())
    assert parser.found == []
