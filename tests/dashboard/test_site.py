"""The real aggregator with the dashboard, over real switches: the HTTP answers are true."""

import contextlib
import re
import select
import socket

import pytest
from lab import frames
from lab import openflow10 as of
from lab.aggregator import Aggregator
from lab.bigswitch import OPENFLOW_PORT
from lab.controller import Connection
from system.command import PACKAGE, ended, typed

from edge.web.server import MOST_CONNECTIONS
from waiting import wait_until

from .site import Site

SECURITY = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


# --- what is shown --------------------------------------------------------------------------------


def test_the_ports_are_those_that_the_controller_has(bed, site):
    north = {
        number: (port.name, port.hw_addr)
        for number, port in bed.controller.features().ports.items()
    }
    shown = site.get("switch")
    ports = {
        port["number"]: (port["name"], port["hw_addr"])
        for switch in shown["switches"]
        for port in switch["ports"]
    }
    assert ports == {number: port for number, port in north.items() if number < of.Port.MAX}
    assert [switch["state"] for switch in shown["switches"]] == ["up", "up"]
    assert shown["datapath_id"] == f"{bed.controller.features().datapath_id:016x}"


def test_tunnels_and_controllers_are_shown(bed, site):
    def all_up(site):
        shown = site.get("switch")
        return all(tunnel["state"] == "up" for tunnel in shown["tunnels"]) and shown

    shown = site.wait(all_up)
    assert [(each["ip"], each["switch"]) for each in shown["tunnels"]] == [
        ("172.16.0.1", 1),
        ("172.16.0.2", 2),
    ]
    (controller,) = shown["controllers"]
    assert controller == {
        "name": f"{bed.controller.address}:{bed.controller.port}",
        "kind": "controller",
        "connected": True,
        "role": "other",
        "dropped_packet_ins": 0,
    }
    management = Connection.open(bed.network.outer, 6654)
    try:
        management.barrier()

        def clients(site):
            return [c for c in site.get("switch")["controllers"] if c["kind"] == "client"]

        (client,) = site.wait(clients)
        assert client["connected"]
    finally:
        management.close()
    site.wait(lambda site: len(site.get("switch")["controllers"]) == 1)


def test_counters_are_the_controllers(bed, site):
    bed.controller.flow_mod(of.match(dl_type=0x0800), [of.output(2)], priority=77, cookie=9)
    bed.wires.send(1, frames.udp(), frames.udp())
    bed.wires.send(17, frames.udp())
    bed.settle()
    (north,) = bed.controller.flow_stats()
    assert north.packet_count == 3

    def counted(site):
        (shown,) = site.get("flows", search="priority=77,")["page"]
        return shown["packets"] == 3 and shown

    shown = site.wait(counted)
    assert shown["octets"] == north.byte_count
    assert (shown["cookie"], shown["match"], shown["actions"]) == ("0x9", "ip", "output:2")
    assert shown["switches"] == [1, 2]


def installed(bed, dpid, cookie):
    """Return the match and actions of a flow on a switch, from ovs-ofctl."""
    switch = bed.network.switches[dpid]
    text = switch.ovs.ofctl(
        "dump-flows", switch.name, "--no-names", "--no-stats", f"cookie={cookie}/-1"
    )
    (line,) = [line for line in text.splitlines() if "cookie=" in line]
    return re.search(r"priority=\d+(?:,(\S+))? actions=(.*)", line).groups("")


def test_a_flow_is_shown_as_it_is_on_each_switch(bed, site):
    actions = [of.set_vlan_vid(5), of.output(17), of.output(1), of.output(of.Port.FLOOD)]
    bed.controller.flow_mod(
        of.match(dl_type=0x0800, nw_dst="10.0.0.3"), actions, priority=9, cookie=0x2A
    )
    shown = site.flow("cookie=0x2a,")
    assert [copy["switch"] for copy in shown["copies"]] == [1, 2]
    for copy in shown["copies"]:
        assert copy["state"] == "installed"
        there = copy["installed"]
        assert there["cookie"] == shown["switch_cookie"] != shown["cookie"] == "0x2a"
        texts = ",".join(action["text"] for action in there["actions"])
        assert (there["match"], texts) == installed(bed, copy["switch"], there["cookie"])


def test_the_copies_counters_are_the_switchs_own(bed, site):
    bed.controller.flow_mod(of.match(dl_type=0x0800), [of.output(2)], cookie=0x2B)
    bed.wires.send(1, frames.udp(), frames.udp())
    bed.wires.send(17, frames.udp())
    bed.settle()
    shown = site.flow("cookie=0x2b,")
    assert [copy["installed"]["packets"] for copy in shown["copies"]] == [2, 1]
    assert shown["packets"] == 3


def test_a_flow_with_an_ingress_port_is_shown_on_its_switch_alone(bed, site):
    bed.controller.flow_mod(of.match(in_port=18), [of.output(1)], cookie=0x2C)
    (copy,) = site.flow("cookie=0x2c,")["copies"]
    assert (copy["switch"], copy["installed"]["match"]) == (2, "in_port=2")


def test_what_somebody_else_has_done_to_a_copy_is_shown(bed, site):
    bed.controller.flow_mod(of.match(dl_type=0x0806), [of.output(1)], cookie=0x2D)
    cookie = site.flow("cookie=0x2d,")["switch_cookie"]
    first, second = (bed.network.switches[dpid] for dpid in (1, 2))
    first.ovs.ofctl("del-flows", first.name, f"cookie={cookie}/-1")
    second.ovs.ofctl("mod-flows", second.name, f"cookie={cookie}/-1,actions=output:2")

    def states(site):
        return [copy["state"] for copy in site.get(f"flows/{cookie}")["copies"]]

    site.wait(lambda site: states(site) == ["missing", "differs"])


def test_a_flow_that_has_gone_is_not_there(bed, site):
    bed.controller.flow_mod(of.match(dl_type=0x0806), [of.output(1)], cookie=0x2E)
    cookie = site.flow("cookie=0x2e,")["switch_cookie"]
    bed.controller.flow_mod(of.match(), command=of.Command.DELETE)
    site.wait(lambda site: site.ask(f"/api/flows/{cookie}").status == 404)
    site.wait(lambda site: site.get("flows")["flows"] == 0)


def test_a_port_that_loses_its_link_is_shown(bed, site):
    def state(site):
        return site.get("switch")["switches"][1]["ports"][0]["state"]

    bed.wires.ports[17].set_carrier(False)
    site.wait(lambda site: state(site) == "no link")
    bed.wires.ports[17].set_carrier(True)
    site.wait(lambda site: state(site) == "up")


def test_a_switch_that_does_not_answer_holds_nobody_up_for_long(bed, site):
    bed.controller.flow_mod(of.match(dl_type=0x0806), [of.output(1)], cookie=0x2F)
    cookie = site.flow("cookie=0x2f,")["switch_cookie"]
    bed.network.switches[2].ovs.sigstop()
    try:
        seen = ["installed", "no answer"]
        site.wait(lambda s: [c["state"] for c in s.get(f"flows/{cookie}")["copies"]] == seen)
        assert site.get("flows")["flows"] == 1
        site.wait(lambda site: site.get("switch")["switches"][1]["state"] == "silent")
    finally:
        bed.network.switches[2].ovs.sigcont()
    site.wait(lambda site: site.get("switch")["switches"][1]["state"] == "up")
    bed.wait_until_ready()


def test_a_lost_switch_and_a_lost_controller_are_shown(make_big_switch):
    bed = make_big_switch(options=["edge.dashboard"])
    site = Site(bed.network.outer)
    bed.network.switches[2].connect(None)
    bed.controller.close()

    def lost(site):
        shown = site.get("switch")
        return (
            [switch["state"] for switch in shown["switches"]] == ["up", "gone"]
            and [each["connected"] for each in shown["controllers"]] == [False]
            and shown
        )

    shown = site.wait(lost)
    assert {port["state"] for port in shown["switches"][1]["ports"]} == {"switch lost"}
    assert [tunnel["switch"] for tunnel in shown["tunnels"]] == [1, None]
    found = site.metrics()
    assert (found["switches"], found["switches_up"]) == (2, 1)
    assert found["controllers_connected"] == 0
    assert found["tunnels_discovered"] == 1
    assert found["ports_up"] == 2


# --- metrics --------------------------------------------------------------------------------------


def test_metrics_count_what_was_done(bed, site):
    before = site.metrics()
    assert (before["switches_up"], before["tunnels_discovered"], before["flows"]) == (2, 2, 0)
    for priority in (1, 2, 3):
        bed.controller.send(of.flow_mod(of.match(), [of.output(1)], priority=priority))
    bed.controller.barrier()
    error = bed.controller.error_for(of.flow_mod(of.match(), [of.output(of.Port.LOCAL)]))
    assert error is not None
    bed.controller.flow_mod(of.match(), [of.output(of.Port.CONTROLLER)], priority=4)
    bed.wires.send(1, frames.udp())
    bed.settle()
    after = site.metrics()
    done = {name: after[name] - before[name] for name in after}
    assert done["flows"] == 4
    assert done["flow_mods_total"] == 5
    assert done["errors_total"] == 1
    assert done["packet_ins_total"] == 1
    assert done["barrier_seconds_count"] == 5
    assert 0 < done["barrier_seconds_sum"] < 60
    assert done["refusals_total"] == done["packet_outs_total"] == 0


# --- who may ask, and how -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/app.js", "/style.css", "/icon.svg", "/api/switch", "/metrics", "/nothing"]
)
def test_every_answer_says_what_a_browser_must_not_do(site, path):
    answer = site.ask(path)
    for name, value in SECURITY.items():
        assert answer.headers[name] == value
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not [name for name in answer.headers if name.startswith("Access-Control")]
    assert "Set-Cookie" not in answer.headers


def test_head_answers_without_the_body(site):
    whole, head = site.ask("/app.js"), site.ask("/app.js", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(whole.body))


def test_nothing_can_be_changed(bed, site):
    bed.controller.flow_mod(of.match(), [of.output(1)])
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = site.ask("/api/flows", method)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert len(bed.controller.flow_stats()) == 1


def test_foreign_names_and_foreign_pages_are_refused(site):
    assert site.ask("/", Host="evil.example").status == 403
    assert site.ask("/", Host="pox.example:8000").status == 200
    fetched = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}
    assert site.ask("/api/switch", **fetched).status == 403


GARBAGE = [
    b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /api/flows?search=%FF%00\x1b[2J HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /" + b"x" * 100000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"A%d: b\r\n" % n for n in range(300)) + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 100000 + b"\r\n\r\n",
    b"POST /api/flows HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999\r\n\r\nabc",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # TLS
    b"\x01\x00\x00\x08\x00\x00\x00\x01",  # OpenFlow
    b"GET %s%s%n HTTP/1.1\r\nHost: %s%s\r\n\r\n",
    b"G",
]


def test_garbage_costs_a_connection_and_no_line_in_the_log(bed, site):
    before = len(bed.aggregator.log())
    for bad in GARBAGE:
        # The server may refuse it before it has read all.
        with site.connect() as sock, contextlib.suppress(OSError):
            sock.sendall(bad)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
    assert site.get("switch")["flows"] == 0
    bed.controller.barrier()
    said = bed.aggregator.log()[before:]
    assert "Traceback" not in said
    assert not re.search(r"^(ERROR|WARNING|CRITICAL)", said, re.MULTILINE)


def test_connections_without_a_request_do_not_hold_up_the_big_switch(bed, site):
    idle = [site.connect() for _ in range(MOST_CONNECTIONS + 20)]
    try:
        bed.controller.flow_mod(of.match(), [of.output(1)])
        # The server closes those that are too many, the oldest, which makes them readable.
        wait_until(lambda: len(select.select(idle, [], [], 0.1)[0]) >= 20, "end of 20 connections")
    finally:
        for sock in idle:
            sock.close()

    def answers(site):
        with contextlib.suppress(OSError):
            return site.ask("/").status == 200

    site.wait(answers)


# --- the component --------------------------------------------------------------------------------


def test_the_page_goes_when_pox_does_though_a_browser_holds_a_connection(make_big_switch):
    bed = make_big_switch(options=["edge.dashboard"])
    site = Site(bed.network.outer)
    with site.connect() as sock:
        site.get("switch")
        bed.aggregator.interrupt()
        sock.settimeout(10)
        with contextlib.suppress(ConnectionError):
            assert sock.recv(1) == b""


def test_help_tells_all_options(make_network):
    left = ended(make_network(0, 0).outer, "help", "--edge.dashboard")
    assert left.status == 0
    for option in ("--address", "--port", "--names"):
        assert option in left.output


def test_a_port_that_is_taken_is_told_in_one_line(bed, site):
    left = ended(bed.network.outer, "edge.dashboard")
    (line,) = [line for line in left.output.splitlines() if line.startswith("ERROR")]
    assert "Address already in use" in line
    assert site.ask("/").status == 200


@pytest.fixture
def shared_server(make_network, tmp_path):
    """A POX with another user's web server, to which the dashboard adds itself."""
    network = make_network(0, 0)
    pox = Aggregator(
        network.outer,
        str(tmp_path / "pox.log"),
        ["--port=8001", "--address=127.0.0.1", "--cors=permissive"]
        + ["edge.aggregator", "--ips=172.16.0.1", "edge.dashboard"],
        component="web.webcore",
    )
    pox.start()
    pox.wait_until_listening(8001)
    yield pox
    pox.stop()


def test_on_a_web_server_that_is_there_already_it_is_below_edge(shared_server):
    shared_server.wait_for_log("The page is at http://127.0.0.1:8001/edge/")
    site = Site(shared_server.namespace, 8001, "/edge")
    assert b"<title>edge.aggregator</title>" in site.ask("/").body
    assert site.get("switch")["switches"] == []
    assert b"edge_aggregator_switches_up 0" in site.ask("/metrics").body
    # The rest of that server is unchanged. Its permissive CORS does not hold for the dashboard.
    root = Site(shared_server.namespace, 8001).ask("/")
    assert b"<title>edge.aggregator</title>" not in root.body
    answer = site.ask("/api/switch", Origin="http://evil.example")
    assert not [name for name in answer.headers if name.startswith("Access-Control")]


def test_an_address_for_a_web_server_that_is_there_already_is_refused(make_network):
    words = ["web.webcore", "--port=8001", "edge.dashboard", "--port=8002"]
    left = ended(make_network(0, 0).outer, *words)
    (line,) = [line for line in left.output.splitlines() if line.startswith("ERROR")]
    assert "web.webcore" in line


def test_without_prometheus_client_there_is_a_line_and_all_the_rest(make_network, tmp_path):
    (tmp_path / "prometheus_client.py").write_text("raise ImportError('not here')")
    network = make_network(0, 0)
    words = ["edge.aggregator", "--ips=172.16.0.1", "edge.dashboard"]
    with typed(network.outer, *words, pythonpath=f"{tmp_path}:{PACKAGE}") as process:
        site = Site(network.outer)
        lines = []
        while not lines or "is up." not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        assert len([line for line in lines if "prometheus_client" in line]) == 1
        assert site.ask("/metrics").status == 501
        assert site.get("switch")["switches"] == []


def test_the_page_needs_nothing_that_python_3_13_does_not_have(make_network, tmp_path):
    """POX's own web server needs the module cgi."""
    (tmp_path / "cgi.py").write_text("raise ImportError('not here')")
    network = make_network(0, 0)
    words = ["edge.aggregator", "--ips=172.16.0.1", "edge.dashboard"]
    with typed(network.outer, *words, pythonpath=f"{tmp_path}:{PACKAGE}") as process:
        lines = []
        while not lines or "is up." not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        assert Site(network.outer).get("switch")["switches"] == []


def test_it_may_stand_before_the_aggregator(make_network, tmp_path):
    network = make_network(0, 0)
    words = ["edge.aggregator", "--ips=172.16.0.1"]
    pox = Aggregator(network.outer, str(tmp_path / "pox.log"), words, component="edge.dashboard")
    pox.start()
    pox.wait_until_listening(OPENFLOW_PORT)
    try:
        assert Site(network.outer).get("switch")["switches"] == []
    finally:
        pox.stop()
