"""The page in a real Chromium: what a user sees and does."""

import http.server
import json
import re
import threading

import pytest
from lab import frames
from lab import openflow10 as of

from edge.web.site import FILES, STATIC

from .browser import FLOW_SHOWN, MISSING, ROWS, Browser, installed, show
from .site import Site

if not installed():
    pytest.skip(MISSING, allow_module_level=True)

EVIL_PORT = "<img>&\"'"
"""A name that Linux accepts and Open vSwitch reports unchanged."""


@pytest.fixture(scope="module")
def _chromium(_shown):
    browser = Browser(_shown.network.outer)
    try:
        yield browser
    finally:
        browser.close()


@pytest.fixture
def page(_chromium, site):
    """The browser at the dashboard's page. The console must be empty at the end."""
    # The server gives one answer for up to a second, so the first may still come from the test
    # before.
    first = {"search": "", "sort": "priority", "order": "desc", "offset": 0, "limit": 25}
    site.wait(lambda site: site.get("flows", **first)["flows"] == 0)
    show(_chromium, site.url)
    assert _chromium.text("#no-flows") == "There are no flows."
    yield _chromium
    assert _chromium.console() == []


def add_flows(bed, count):
    """Add flows to 10.0.0.0 and so on, one for each address. Each has a priority of its own below
    1000.
    """
    bed.controller.send(
        *(
            of.flow_mod(
                of.match(dl_type=0x0800, nw_dst=f"10.0.{number >> 8}.{number & 255}"),
                [of.output(bed.numbers[number % len(bed.numbers)])],
                priority=number % 999 + 1,
            )
            for number in range(count)
        )
    )
    bed.controller.barrier(60)


def overflows(browser):
    """Elements that reach beyond the window's right edge."""
    return browser.run("""
        return Array.from(document.querySelectorAll("body *"))
          .filter(e => e.getBoundingClientRect().right > window.innerWidth + 0.5)
          .map(e => e.tagName + "." + e.className);
    """)


# --- what is seen ---------------------------------------------------------------------------------


def test_the_picture_shows_switches_ports_tunnels_and_the_controller(bed, page):
    summary = " ".join(page.texts("#summary li")).replace("\n", " ")
    assert (
        summary == "Switches up 2 of 2 Tunnels up 2 of 2 Controllers 1 of 1 Ports up 4 of 4 Flows 0"
    )
    assert page.texts("#members .card-title strong") == ["Switch 1", "Switch 2"]
    assert page.texts(".port .number") == ["1", "2", "17", "18"]
    assert page.texts(".port .name") == ["s1-eth1", "s1-eth2", "s2-eth1", "s2-eth2"]
    assert [text.split() for text in page.texts(".tunnel")] == [
        ["172.16.0.1", "tun1,", "port", "3"],
        ["172.16.0.2", "tun2,", "port", "3"],
    ]
    assert page.run("return document.querySelectorAll('#wires path.good').length") == 2
    assert f"{bed.controller.address}:{bed.controller.port}" in page.text("#controllers")
    assert page.texts("#tunnels .state") == ["reached from every other switch"] * 2
    assert page.text("#no-flows") == "There are no flows."


def test_what_changes_is_shown_without_being_asked_for(bed, page):
    page.run("window.still = 'the same page'")
    bed.controller.flow_mod(of.match(in_port=1), [of.output(17)], cookie=7)
    page.wait(f"{ROWS} === 1")
    assert page.text("#flows td.match") == "in_port=1"
    bed.wires.send(1, frames.udp(), frames.udp(), frames.udp())
    bed.settle()
    page.wait("document.querySelector('#flows td[data-label=Packets]').textContent === '3'")
    bed.wires.ports[18].set_carrier(False)
    page.wait("document.querySelector('.port.down')")
    assert page.text(".port.down").split("\n") == ["18", "s2-eth2", "no link"]
    assert page.run("return window.still") == "the same page"


def test_when_pox_does_not_answer_the_page_says_so_and_comes_back(bed, page):
    stopped = "document.querySelector('#live.bad')"
    bed.aggregator.freeze()
    try:
        page.wait(stopped)
        assert "What is shown is old" in page.text("#live")
    finally:
        bed.aggregator.thaw()
    page.wait(f"!{stopped}")
    bed.wait_until_ready()  # it was frozen for longer than the switches wait for an echo reply


def test_a_switch_that_does_not_answer_is_shown_as_silent_and_comes_back(bed, page):
    states = "Array.from(document.querySelectorAll('#members .state'), e => e.textContent).join()"
    ovs = bed.network.switches[2].ovs
    ovs.sigstop()
    try:
        page.wait(f"{states} === 'up,silent'")
        assert page.run("return document.querySelectorAll('.member.silent .port.down').length") == 2
        assert page.texts("#members .state.bad") == ["silent"]
        assert page.texts(".port .why") == ["lost", "lost"]
    finally:
        ovs.sigcont()
    page.wait(f"{states} === 'up,up'")
    bed.wait_until_ready()


# --- flows ----------------------------------------------------------------------------------------


def test_a_click_on_a_flow_shows_what_is_installed_for_it(bed, page):
    bed.controller.flow_mod(of.match(dl_type=0x0800), [of.output(2)], priority=50, cookie=0x2A)
    bed.wires.send(1, frames.udp())
    bed.wires.send(17, frames.udp(), frames.udp())
    bed.settle()
    page.wait(f"{ROWS} === 1")
    page.click("#flows tbody tr")
    page.wait(FLOW_SHOWN)
    page.wait("document.querySelector('#flow-copies').innerText.includes('Packets\\n2')")
    north = page.text("#flow-north").split("\n")
    assert north[north.index("Match") + 1] == "ip"
    assert north[north.index("Cookie") + 1] == "0x2a"
    assert north[north.index("Packets") + 1] == "3"
    first, second = (text.split("\n") for text in page.texts("#flow-copies > li"))
    assert first[:2] == ["Switch 1", "installed"]
    for card, packets in ((first, "1"), (second, "2")):
        assert card[card.index("Controller's") + 1] == "0x2a"
        assert re.fullmatch("0x[0-9a-f]+", card[card.index("Cookie here") + 1])
        assert card[card.index("Packets") + 1] == packets
    assert first[first.index("Actions") + 1 :][:2] == ["output:2", "port 2 of the big switch"]
    assert "load:0xac100001->NXM_NX_TUN_IPV4_DST[]" in second
    places = page.run("""
        return Array.from(document.querySelectorAll("#flow-copies > li"))
          .map(e => e.getBoundingClientRect()).map(box => [box.left, box.top]);
    """)
    (left, top), (right, same) = places
    assert left < right and top == same, "they are not side by side"


def test_a_flow_has_an_address_and_goes_with_the_back_button(bed, page, site):
    bed.controller.flow_mod(of.match(in_port=1), [of.output(2)])
    page.wait(f"{ROWS} === 1")
    page.click("#flows .match a")
    page.wait(FLOW_SHOWN)
    address = page.run("return window.location.href")
    page.back()
    page.wait("!document.querySelector('#flow').open")
    page.open("about:blank")
    page.open(address)
    page.wait(FLOW_SHOWN)
    page.click("#flow header button")
    page.wait("!document.querySelector('#flow').open")
    assert page.run("return window.location.hash") == ""


def test_a_flow_that_goes_while_it_is_looked_at_is_told(bed, page):
    bed.controller.flow_mod(of.match(in_port=1), [of.output(2)])
    page.wait(f"{ROWS} === 1")
    page.click("#flows .match a")
    page.wait(FLOW_SHOWN)
    bed.controller.flow_mod(of.match(), command=of.Command.DELETE)
    page.wait("!document.querySelector('#flow-gone').hidden")
    assert page.text("#flow-gone") == "This flow is not in the table any more."
    page.console()  # the browser notes on the console that the flow was not found


def test_a_search_finds_flows_and_a_port_finds_its_own(bed, page):
    add_flows(bed, 40)
    bed.controller.flow_mod(of.match(in_port=1), [of.output(2)])
    bed.controller.flow_mod(of.match(in_port=17), [of.output(2)])
    page.wait("document.querySelector('#range').textContent === '1–25 of 42'")
    page.type("#search", "nw_dst=10.0.0.7,")
    page.wait(f"{ROWS} === 1")
    assert page.text("#flows td.match") == "ip,nw_dst=10.0.0.7"
    assert page.text("#range") == "1–1 of 1 found in 42"
    page.click(".port")
    page.wait("document.querySelector('#flows td.match')?.textContent === 'in_port=1'")
    assert page.texts("#flows td.match") == ["in_port=1"]
    page.type("#search", "nowhere")
    page.wait("!document.querySelector('#no-flows').hidden")
    assert page.text("#no-flows") == "None of the 42 flows has all of these words."


def test_ten_thousand_flows_can_be_paged_and_sorted(bed, page):
    add_flows(bed, 10000)
    page.wait("document.querySelector('#range').textContent === '1–25 of 10,000'")
    assert page.run(f"return {ROWS}") == 25
    cells = "document.querySelectorAll('#flows td[data-label=Priority]')"
    priorities = f"Array.from({cells}, e => +e.textContent)"
    assert page.run(f"return {priorities}")[0] == 999
    page.click("#pager [data-go=last]")
    page.wait("document.querySelector('#range').textContent === '9,976–10,000 of 10,000'")
    page.wait(f"{priorities}[24] === 1")
    assert page.run("return document.querySelector('#pager [data-go=next]').disabled")
    page.click("#pager [data-go=previous]")
    page.wait("document.querySelector('#range').textContent === '9,951–9,975 of 10,000'")
    page.click("#flows th[data-sort=priority] button")
    page.wait(f"{priorities}[0] === 1")
    assert (
        page.run("return document.querySelector('th[data-sort=priority]').ariaSort") == "ascending"
    )
    page.type("#search", "nw_dst=10.0.39.15, output:18")
    page.wait(f"{ROWS} === 1")
    page.click("#flows .match a")
    page.wait(FLOW_SHOWN)


# --- phones, and the dark -------------------------------------------------------------------------


def test_on_a_phone_nothing_is_wider_than_the_window(bed, page, site):
    long = of.match(
        in_port=1,
        dl_src="02:00:00:00:00:01",
        dl_dst="02:00:00:00:00:02",
        dl_vlan=100,
        dl_vlan_pcp=3,
        dl_type=0x0800,
        nw_tos=0x20,
        nw_proto=6,
        nw_src="10.100.200.100",
        nw_dst="10.100.200.101",
        tp_src=50000,
        tp_dst=50001,
    )
    actions = [
        of.set_dl_dst("02:00:00:00:00:03"),
        *map(of.output, (17, 18, 2)),
        of.output(of.Port.FLOOD),
    ]
    bed.controller.flow_mod(long, actions, cookie=0xFFFFFFFFFFFFFFFE)
    for width in (320, 700, 1280):
        show(page, site.url, (width, 800))
        page.wait(f"{ROWS} === 1")
        assert overflows(page) == []
        assert page.run("return document.documentElement.scrollWidth") <= width
        page.click("#flows .match a")
        page.wait(FLOW_SHOWN)
        assert overflows(page) == []


def luminance(color):
    """The relative luminance of a colour as getComputedStyle gives it (WCAG 2.1)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


CONTRASTS = """
    const ground = (e) => {
      for (; e; e = e.parentElement) {
        const color = getComputedStyle(e).backgroundColor;
        if (!/, 0\\)$/.test(color)) return color;
      }
      return "rgb(255, 255, 255)";
    };
    return Array.from(document.querySelectorAll("body *"))
      .filter((e) => Array.from(e.childNodes).some(n => n.nodeType === 3 && n.data.trim()))
      .filter((e) => e.checkVisibility() && !e.closest(":disabled") && !e.closest("option"))
      .map((e) => [e.outerHTML.slice(0, 80), getComputedStyle(e).color, ground(e)]);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_in_light_and_dark(bed, page, site, scheme):
    bed.controller.flow_mod(of.match(in_port=1), [of.output(17)])
    bed.wires.ports[18].set_carrier(False)
    show(page, site.url, scheme=scheme)
    page.wait(f"{ROWS} === 1 && document.querySelector('.port.down')")
    background = luminance(page.run("return getComputedStyle(document.body).backgroundColor"))
    assert background < 0.05 if scheme == "dark" else background > 0.8
    page.click("#flows .match a")
    page.wait(FLOW_SHOWN)
    texts = page.run(CONTRASTS)
    assert len(texts) > 50
    for element, color, ground in texts:
        lighter, darker = sorted((luminance(color), luminance(ground)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (element, color, ground)


# --- what the network says is text ----------------------------------------------------------------


def test_a_hostile_port_name_is_shown_as_it_is(bed, page):
    switch = bed.network.switches[2]
    switch.namespace.run("ip", "tuntap", "add", "dev", EVIL_PORT, "mode", "tap")
    request = ["set", "interface", EVIL_PORT, "ofport_request=9"]
    switch.ovs.vsctl("add-port", switch.name, EVIL_PORT, "--", *request)
    try:
        page.wait("document.querySelectorAll('.port').length === 5")
        assert page.texts(".port .name")[-1] == EVIL_PORT
        assert page.run("return document.images.length") == 0
    finally:
        switch.ovs.vsctl("del-port", switch.name, EVIL_PORT)
        switch.namespace.run("ip", "link", "delete", EVIL_PORT)
    page.wait("document.querySelectorAll('.port').length === 4")


EVIL = '"\'><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>&lt;b&gt;,x'


def poisoned(value):
    """The same JSON with a hostile text in place of every other text."""
    if isinstance(value, dict):
        return {name: poisoned(each) for name, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each) for each in value]
    return EVIL if isinstance(value, str) else value


@pytest.fixture
def stand_in(bed, site):
    """A web server with the dashboard's page, whose JSON the test sets. It sends no
    Content-Security-Policy.
    """
    answers = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.partition("?")[0]
            if path in FILES:
                name, kind = FILES[path]
                body = (STATIC / name).read_bytes()
            else:
                kind = "application/json"
                body = json.dumps(answers.get("flow" if "0x" in path else path)).encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    def listen():
        return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    server = bed.network.outer.call(listen)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield answers, Site(bed.network.outer, server.server_address[1])
    server.shutdown()
    thread.join()
    server.server_close()


def test_nothing_that_the_json_says_becomes_markup(bed, site, stand_in, _chromium):
    """The page is the last line of defence: here the aggregator itself sends hostile JSON."""
    answers, stand_in_site = stand_in
    bed.controller.flow_mod(of.match(dl_type=0x0800), [of.output(1)], idle_timeout=60, flags=1)
    shown = site.flow("ip,")
    flows = site.get("flows")
    answers["/api/switch"] = poisoned(site.get("switch"))
    answers["/api/flows"] = poisoned(flows)
    answers["/api/flows"]["page"][0]["switch_cookie"] = "0x1"
    answers["flow"] = poisoned(shown)
    browser = _chromium
    before = elements(browser, site.url, bed)
    show(browser, stand_in_site.url + "/", scheme="light")
    browser.wait(f"{ROWS} === 1")
    browser.run("window.location.hash = 'flow=0x1'")
    browser.wait(FLOW_SHOWN)
    assert EVIL in browser.text("#members")
    assert EVIL in browser.text("#flow-copies")
    assert not browser.run("return window.hacked || document.images.length")
    tags = "Array.from(document.querySelectorAll('*'), e => e.tagName)"
    assert set(browser.run(f"return {tags}")) <= before
    assert browser.console() == []


def elements(browser, url, bed):
    """The kinds of elements that the page has when nothing is hostile, while it shows a flow."""
    show(browser, url)
    browser.wait(f"{ROWS} === 1")
    browser.click("#flows .match a")
    browser.wait(FLOW_SHOWN)
    tags = set(browser.run("return Array.from(document.querySelectorAll('*'), e => e.tagName)"))
    return tags | {"H3", "P", "DIV", "SPAN", "WBR"}


def test_another_sites_page_gets_nothing(bed, site, stand_in, _chromium):
    """A page of another origin tries every way to send a request that a browser offers."""
    _, other = stand_in
    _chromium.open(other.url + "/icon.svg")
    tried = _chromium.run(
        """
        const url = arguments[0], done = [];
        const attempt = (name, promise) => promise.then(
          (value) => done.push(name + " " + value), () => done.push(name + " refused"));
        return Promise.all([
          attempt("fetch", fetch(url + "/api/switch").then(r => r.text())),
          attempt("no-cors", fetch(url + "/api/switch", {mode: "no-cors"}).then(r => r.type)),
          attempt("post", fetch(url + "/api/flows", {method: "POST", body: "x"})),
          attempt("put", fetch(url + "/api/flows", {method: "PUT", body: "x"})),
        ]).then(() => done.sort());
        """,
        site.url,
    )
    assert tried == ["fetch refused", "no-cors refused", "post refused", "put refused"]
    _chromium.console()


def test_the_page_asks_nobody_else(bed, page, site):
    names = page.run("return performance.getEntriesByType('resource').map(e => e.name)")
    assert len(names) >= 4
    assert all(name.startswith(site.url + "/") for name in names)
