"""What the dashboard shows of a big switch whose switches, ports and flows are known."""

import json
import re
import struct

import pox.openflow.libopenflow_01 as of
import pytest

from edge.openflow import actions as act
from edge.openflow import flowmods, stats
from edge.openflow import nicira as nx
from edge.openflow.text import action_text, match_text
from edge.web import view
from edge.web.queries import Query
from edge.web.search import Texts

from . import model
from .model import read

FIRST = Query("", "priority", True, 0, 100)


def overview(switch):
    return read(view.overview(model.datapath(switch)))


def flows(switch, **query):
    wanted = FIRST._replace(**query)
    found = Texts().find(switch, list(switch.flows.table), wanted.search)
    return read(view.flows(switch, wanted, found))


def matches_of(answer):
    return [flow["match"] for flow in answer["page"]]


@pytest.fixture
def switch():
    return model.big_switch()


# --- the big switch -------------------------------------------------------------------------------


def test_a_big_switch_with_nothing_is_shown():
    shown = overview(model.big_switch(0))
    assert (shown["switches"], shown["tunnels"], shown["controllers"]) == ([], [], [])
    assert shown["datapath_id"] == "000000000000002a"
    assert shown["flows"] == 0


def test_ports_have_the_big_switchs_numbers_and_the_switchs_own(switch):
    ports = {
        port["number"]: port for each in overview(switch)["switches"] for port in each["ports"]
    }
    assert sorted(ports) == [1, 2, 17, 18]
    assert ports[18] == {
        "number": 18,
        "name": "2.s2-eth2",
        "switch_port": 2,
        "switch_name": "s2-eth2",
        "hw_addr": "02:00:00:00:00:02",
        "state": "up",
        "config": [],
    }


@pytest.mark.parametrize(
    ("config", "state", "shown"),
    [
        (0, 0, "up"),
        (of.OFPPC_PORT_DOWN, of.OFPPS_LINK_DOWN, "set down"),
        (0, of.OFPPS_LINK_DOWN, "no link"),
    ],
)
def test_a_port_says_why_it_is_down(switch, config, state, shown):
    member = switch.topology.members[2]
    member.ports.all[1] = model.phy_port(1, b"s2-eth1", config | of.OFPPC_NO_FLOOD, state)
    switch.portlist.announce(member)
    port = overview(switch)["switches"][1]["ports"][0]
    assert (port["number"], port["state"]) == (17, shown)
    assert port["config"] == ["port_down", "no_flood"][0 if config else 1 :]


def test_a_lost_switch_and_its_ports_are_shown_as_lost(switch):
    member = switch.topology.members[2]
    model.is_lost(member)
    switch.portlist.announce(member)
    shown = overview(switch)["switches"][1]
    assert shown["state"] == "gone"
    assert [port["state"] for port in shown["ports"]] == ["switch lost"] * 2


def test_a_switch_that_is_brought_up_to_date_is_connecting(switch):
    switch.topology.members[1].liveness.connected()
    assert overview(switch)["switches"][0]["state"] == "connecting"


def test_a_switch_that_still_lacks_some_flows_is_syncing(switch):
    model.is_syncing(switch.topology.members[1])
    shown = overview(switch)["switches"][0]
    assert shown["state"] == "syncing"
    assert [port["state"] for port in shown["ports"]] == ["up", "up"]


def test_tunnel_and_ports_that_are_left_out_are_shown_apart(switch):
    member = switch.topology.members[1]
    member.ports.read([*member.ports.all.values(), model.phy_port(20, b"s1-eth20")])
    shown = overview(switch)["switches"][0]
    assert (shown["tunnel_port"], shown["tunnel_name"], shown["tunnel_ip"]) == (
        model.TUNNEL,
        "tun1",
        "172.16.0.1",
    )
    assert shown["left_out"] == [{"port": 20, "name": "s1-eth20"}]
    assert [port["switch_port"] for port in shown["ports"]] == [1, 2]


def test_a_tunnel_is_up_when_every_switch_has_reached_it():
    switch = model.big_switch(3)
    switch.discovery.changed(switch.topology.members[3])
    switch.topology.members[1].set_tunnel_ip(None)
    assert overview(switch)["tunnels"] == [
        {"ip": "172.16.0.1", "switch": None, "state": "not found", "unreached": []},
        {"ip": "172.16.0.2", "switch": 2, "state": "not reached by all", "unreached": [3]},
        {"ip": "172.16.0.3", "switch": 3, "state": "up", "unreached": []},
    ]


def test_controllers_are_shown_connected_or_not(switch):
    master = model.Connection("controller 10.0.0.1:6653", role=nx.NX_ROLE_MASTER)
    silent = model.Connection("controller 10.0.0.3:6653")
    silent.greeted = False
    datapath = model.datapath(switch)
    datapath.upstreams = [
        model.Upstream("10.0.0.1", 6653, master),
        model.Upstream("10.0.0.2", 6653, None),
        model.Upstream("10.0.0.3", 6653, silent),
    ]
    client = model.Connection("client 127.0.0.1:40000", service=True)
    datapath.connections = [master, silent, client]
    client.dropped_packet_ins = 2
    datapath.upstreams[1].dropped_packet_ins = 3
    assert [tuple(each.values()) for each in overview(switch)["controllers"]] == [
        ("10.0.0.1:6653", "controller", True, "master", 0),
        ("10.0.0.2:6653", "controller", False, None, 3),
        ("10.0.0.3:6653", "controller", False, None, 0),
        ("client 127.0.0.1:40000", "client", True, "other", 2),
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"s1-eth1", "s1-eth1"),
        ("Büro".encode(), "Büro"),
        (b"<b>&\"'", "<b>&\"'"),
        (b"a\x00\x1b[31m\nb", "a��[31m�b"),
        ("a\u202eb\u200bc".encode(), "a�b�c"),
        (b"\xff\xfe", "��"),
    ],
)
def test_a_name_cannot_change_how_other_text_looks(name, shown):
    assert view.name_text(name) == shown


# --- flows ----------------------------------------------------------------------------------------


def test_a_flow_is_shown_as_the_controller_has_it(switch):
    entry = model.add_flow(
        switch,
        model.match(dl_type=0x0800, nw_proto=6, nw_dst="10.0.0.3", tp_dst=80),
        act.output(17) + act.output(of.OFPP_CONTROLLER, 128),
        priority=100,
        cookie=0x2A,
        idle_timeout=10,
        hard_timeout=60,
        flags=of.OFPFF_SEND_FLOW_REM,
    )
    (shown,) = flows(switch)["page"]
    duration = shown.pop("duration")
    assert 0 <= duration < 60
    assert shown == {
        "switch_cookie": f"{switch.flows.cookies.cookie(entry):#x}",
        "cookie": "0x2a",
        "priority": 100,
        "match": "tcp,nw_dst=10.0.0.3,tp_dst=80",
        "actions": "output:17,CONTROLLER:128",
        "idle_timeout": 10,
        "hard_timeout": 60,
        "flags": ["send_flow_rem"],
        "packets": 0,
        "octets": 0,
        "switches": [1, 2],
    }


def test_counters_are_those_of_all_copies_together(switch):
    entry = model.add_flow(switch)
    entry.packets, entry.octets = 1, 60
    model.count(switch, 1, entry, 10, 1000)
    model.count(switch, 2, entry, 5, 500)
    (shown,) = flows(switch)["page"]
    assert (shown["packets"], shown["octets"]) == (16, 1560)


def test_a_flow_with_an_ingress_port_is_on_that_ports_switch(switch):
    model.add_flow(switch, model.match(in_port=18))
    model.add_flow(switch, model.match(in_port=33))
    assert [flow["switches"] for flow in flows(switch)["page"]] == [[2], []]


def test_flows_come_in_the_order_of_their_priority(switch):
    for priority in (5, 300, 40):
        model.add_flow(switch, model.match(in_port=1), priority=priority)
    assert [flow["priority"] for flow in flows(switch)["page"]] == [300, 40, 5]
    assert [flow["priority"] for flow in flows(switch, descending=False)["page"]] == [5, 40, 300]


def test_flows_can_be_sorted_by_what_they_have_counted_and_by_age(switch):
    for port, (packets, octets) in enumerate([(5, 100), (1, 900), (3, 20)], 1):
        entry = model.add_flow(switch, model.match(in_port=port))
        entry.created = float(port)
        model.count(switch, 1, entry, packets, octets)
    assert [flow["packets"] for flow in flows(switch, sort="packets")["page"]] == [5, 3, 1]
    assert [flow["octets"] for flow in flows(switch, sort="octets")["page"]] == [900, 100, 20]
    assert matches_of(flows(switch, sort="duration")) == ["in_port=1", "in_port=2", "in_port=3"]


def test_pages_have_every_flow_once(switch):
    for number in range(95):
        model.add_flow(switch, model.match(in_port=number + 1), priority=number % 3)
    seen = []
    for offset in range(0, 120, 20):
        answer = flows(switch, offset=offset, limit=20)
        assert (answer["flows"], answer["found"], answer["offset"]) == (95, 95, offset)
        seen += matches_of(answer)
    assert len(seen) == len(set(seen)) == 95


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("", 4),
        ("output:17", 2),
        ("output:17,", 1),
        ("NW_DST=10.0.0.3", 2),
        ("tcp 10.0.0.3", 1),
        ("priority=100,", 3),
        ("cookie=0x2a,", 1),
        ("drop", 1),
        ("in_port=1,", 1),
        ("10.0.0.3 10.0.0.4", 0),
        ("<script>", 0),
        ("  ", 4),
    ],
)
def test_a_search_finds_the_flows_that_have_all_of_its_words(switch, search, found):
    to_3 = {"dl_type": 0x0800, "nw_dst": "10.0.0.3"}
    model.add_flow(switch, model.match(nw_proto=6, **to_3), act.output(17), 100, 0x2A)
    model.add_flow(switch, model.match(**to_3), act.output(178), 100)
    model.add_flow(switch, model.match(in_port=1), act.output(2), 100)
    model.add_flow(switch, model.match(in_port=17), b"", 7)
    answer = flows(switch, search=search)
    assert (answer["found"], len(answer["page"]), answer["flows"]) == (found, found, 4)


def test_a_search_finds_the_cookie_that_a_flow_has_on_the_switches(switch):
    wanted = model.add_flow(switch, model.match(in_port=1))
    model.add_flow(switch, model.match(in_port=2))
    answer = flows(switch, search=f"{switch.flows.cookies.cookie(wanted):#x}")
    assert matches_of(answer) == ["in_port=1"]


def test_flows_may_come_and_go_while_they_are_read(switch):
    entries = [model.add_flow(switch, model.match(in_port=number)) for number in range(1, 11)]
    reading = view.flows(switch, FIRST, entries)
    for _ in range(5):
        next(reading)
    for entry in (entries[1], entries[8]):
        switch.flows.table.remove(entry)
        switch.flows.cookies.release(entry)
    model.add_flow(switch, model.match(in_port=11))
    answer = read(reading)
    assert matches_of(answer) == [f"in_port={n}" for n in (1, 3, 4, 5, 6, 7, 8, 10)]
    assert answer["flows"] == 9


def test_everything_that_is_shown_is_json(switch):
    entry = model.add_flow(switch, actions=act.output(of.OFPP_FLOOD), priority=0)
    for shown in (overview(switch), flows(switch), view.flow(switch, entry, {})):
        assert json.loads(json.dumps(shown)) == shown


# --- one flow -------------------------------------------------------------------------------------


def installed(switch, index, entry, **changes):
    """The flow statistics that a switch would report for its copy of a flow."""
    copy = switch.flows.copy(entry, switch.topology.members[index])
    match = b""
    port = re.fullmatch(r"in_port=(\d+)", match_text(copy.match))
    if port:
        match = flowmods.match_in_port(int(port[1]))
    said = stats.FlowStats(
        copy.table, copy.priority, 0, 0, 3, copy.cookie, 7, 420, match, copy.actions
    )
    return said._replace(**changes)


def copies(switch, entry, said):
    return {each["switch"]: each for each in view.flow(switch, entry, said)["copies"]}


def test_a_flow_is_shown_with_what_each_switch_has(switch):
    entry = model.add_flow(switch, actions=act.output(18), priority=100, cookie=5)
    said = {index: installed(switch, index, entry) for index in (1, 2)}
    shown = copies(switch, entry, said)
    assert [shown[1]["state"], shown[2]["state"]] == ["installed", "installed"]
    texts = {index: [a["text"] for a in shown[index]["installed"]["actions"]] for index in shown}
    assert texts[2] == ["output:2"]
    assert texts[1] == [
        "load:0x2->NXM_NX_TUN_ID[]",
        "load:0xac100002->NXM_NX_TUN_IPV4_DST[]",
        "output:3",
    ]
    assert [a["note"] for a in shown[1]["installed"]["actions"]] == [
        "tunnel key: out of port 2 there",
        "to 172.16.0.2, switch 2",
        "into the tunnel",
    ]
    assert shown[2]["installed"]["actions"][0]["note"] == "port 18 of the big switch"
    assert shown[1]["installed"]["cookie"] == f"{switch.flows.cookies.cookie(entry):#x}"
    assert (shown[1]["installed"]["packets"], shown[1]["installed"]["octets"]) == (7, 420)


def test_the_ingress_port_is_the_switchs_own_there(switch):
    entry = model.add_flow(switch, model.match(in_port=18), act.output(1))
    shown = copies(switch, entry, {2: installed(switch, 2, entry)})
    assert list(shown) == [2]
    assert shown[2]["state"] == "installed"
    assert shown[2]["wanted"]["match"] == shown[2]["installed"]["match"] == "in_port=2"


@pytest.mark.parametrize("in_port", [of.OFPP_LOCAL, 3])
def test_a_flow_for_an_ingress_port_that_is_not_there_is_shown_as_it_is_installed(switch, in_port):
    """The in_ports: a port that no switch has, and the number of a tunnel port."""
    entry = model.add_flow(switch, model.match(in_port=in_port))
    said = {
        member.index: installed(switch, member.index, entry) for member in switch.flows.homes(entry)
    }
    shown = copies(switch, entry, said)
    assert [shown[index]["state"] for index in said] == ["installed"] * len(shown)
    assert len(shown) == (2 if in_port == of.OFPP_LOCAL else 1)


def test_priority_0_is_where_it_really_is(switch):
    entry = model.add_flow(switch, priority=0)
    shown = copies(switch, entry, {1: installed(switch, 1, entry)})
    assert (shown[1]["installed"]["table"], shown[1]["installed"]["priority"]) == (3, 1)


@pytest.mark.parametrize(
    "change", [{"actions": act.output(1)}, {"priority": 3}, {"table": 0}, {"cookie": 9}]
)
def test_a_copy_that_is_not_as_it_has_to_be_is_told(switch, change):
    entry = model.add_flow(switch, actions=act.output(18))
    shown = copies(switch, entry, {1: installed(switch, 1, entry, **change)})
    assert shown[1]["state"] == "differs"
    assert shown[1]["wanted"] != shown[1]["installed"]


def test_a_copy_that_is_missing_and_one_that_is_not_known_are_told(switch):
    entry = model.add_flow(switch)
    shown = copies(switch, entry, {1: None})
    assert [shown[1]["state"], shown[2]["state"]] == ["missing", "no answer"]
    assert "installed" not in shown[1]


def test_a_switch_that_is_lost_is_told(switch):
    entry = model.add_flow(switch)
    model.is_lost(switch.topology.members[2])
    shown = copies(switch, entry, {1: None})
    assert shown[2] == {"switch": 2, "dpid": f"{2:016x}", "state": "switch lost"}


def test_a_flow_for_a_switch_that_is_not_there_yet_has_no_copies(switch):
    entry = model.add_flow(switch, model.match(in_port=33))
    assert view.flow(switch, entry, {})["copies"] == []


@pytest.mark.parametrize(
    ("action", "note"),
    [
        (act.load_tunnel_key(0x7E), "tunnel key: out of all ports there"),
        (act.load_tunnel_key(0x7F), "tunnel key: flood there"),
        (act.load_tunnel_key(0x101), "tunnel key: out of a queue there"),
        (act.load_tunnel_destination(model.ip(9)), "to 172.16.0.9, no switch"),
        (act.output(of.OFPP_FLOOD), None),
        (struct.pack("!HHL", of.OFPAT_SET_NW_SRC, 8, 0xAC100001), None),
    ],
)
def test_what_the_aggregators_actions_mean_is_told(switch, action, note):
    entry = model.add_flow(switch)
    shown = copies(switch, entry, {1: installed(switch, 1, entry, actions=action)})
    assert shown[1]["installed"]["actions"] == [
        {"text": action_text(action), "note": note},
    ]
