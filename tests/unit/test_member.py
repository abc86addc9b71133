"""One real switch: its service rules, and how they change."""

import math
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import openflow10 as of

from edge.openflow import actions as act
from edge.openflow import flowmods, messages, stats
from edge.south import complaints, session
from edge.south.member import Member
from edge.south.memberports import Bits
from edge.south.rules import Rule, service_rules, table_and_priority

from .fakes import PORTS, Connection, Events, Flow, nx_flow, phy_port

NO_PAUSE = -math.inf
"""When the last pause of the aggregator ended, for Member.watch: there was none."""

OUTPUTS = {
    of.Port.ALL: "ALL",
    of.Port.FLOOD: "FLOOD",
    of.Port.CONTROLLER: "CONTROLLER",
}


PORT_DOWN, NO_STP, NO_RECV_STP, NO_FLOOD = 0x01, 0x02, 0x08, 0x10
HELD_BACK = NO_FLOOD | NO_STP | NO_RECV_STP


def text(rules):
    """Return rules as a set of texts, as `ovs-ofctl dump-flows` shows them."""
    return {
        f"table={rule.table} priority={rule.priority} {_match(rule.match)}: {_actions(actions)}"
        for rule, actions in rules.items()
    }


def _match(nxm):
    if not nxm:
        return "any"
    header = int.from_bytes(nxm[:4], "big")
    value = int.from_bytes(nxm[4:], "big")
    name = {0x00000002: "in_port", 0x00012008: "tun_id"}[header]
    assert len(nxm) == 4 + (header & 0xFF)
    return f"{name}={value:#x}" if name == "tun_id" else f"{name}={value}"


def _actions(actions):
    return ",".join(_action(kind, body) for kind, body in of.unpack_actions(actions)) or "drop"


def _action(kind, body):
    if kind == of.ActionType.OUTPUT:
        port, max_len = struct.unpack("!HH", body)
        if port == of.Port.CONTROLLER:
            # A packet-in has the whole frame.
            assert max_len == 0xFFFF
        return OUTPUTS.get(port, f"output:{port}")
    if kind == of.ActionType.ENQUEUE:
        return "enqueue:{}:{}".format(*struct.unpack("!H6xI", body))
    vendor, subtype, port, table = struct.unpack("!IHHB3x", body)
    assert (kind, vendor, subtype) == (of.ActionType.VENDOR, of.NX_VENDOR, 14)
    assert port == of.Port.IN_PORT
    return f"resubmit(,{table})"


def rules(tunnel_port=3, ports=(1, 2), left_out=(), queue_keys=None, lowest=False):
    return text(service_rules(tunnel_port, ports, left_out, queue_keys or {}, lowest))


EVERY_SWITCH = {
    "table=0 priority=0 any: resubmit(,2)",
    "table=2 priority=0 any: CONTROLLER",
}
DEMO = EVERY_SWITCH | {
    "table=0 priority=32768 in_port=3: resubmit(,1)",
    "table=1 priority=32768 tun_id=0x0: CONTROLLER",
    "table=1 priority=32768 tun_id=0x1: output:1",
    "table=1 priority=32768 tun_id=0x2: output:2",
    "table=1 priority=32768 tun_id=0x7e: ALL",
    "table=1 priority=32768 tun_id=0x7f: FLOOD",
}


def test_the_service_rules_of_the_demo():
    """The design's table for ports 1 and 2 and tunnel port 3. It is the same for s1 and s2."""
    assert rules() == DEMO


def test_there_is_a_remote_rule_for_every_port_and_no_other():
    for ports in ((), (1,), (16, 1, 7), range(1, 17)):
        outputs = {rule for rule in rules(20, ports) if "output" in rule}
        assert outputs == {
            f"table=1 priority=32768 tun_id={port:#x}: output:{port}" for port in ports
        }


def test_without_a_tunnel_port_there_is_no_remote_table():
    assert rules(tunnel_port=None) == EVERY_SWITCH


def test_nothing_comes_in_from_a_port_that_is_left_out_or_goes_to_it():
    """The action ALL would output to every port of the switch. So KEY_ALL's rule names the ports of
    the big switch.
    """
    assert rules(3, (1, 2), left_out=(17, 20)) == DEMO - {
        "table=1 priority=32768 tun_id=0x7e: ALL"
    } | {
        "table=0 priority=32768 in_port=17: drop",
        "table=0 priority=32768 in_port=20: drop",
        "table=1 priority=32768 tun_id=0x7e: output:1,output:2",
    }


def test_two_tunnel_ports_are_left_out_both():
    assert rules(None, (1, 2), left_out=(3, 4)) == EVERY_SWITCH | {
        "table=0 priority=32768 in_port=3: drop",
        "table=0 priority=32768 in_port=4: drop",
    }


def test_with_priority_0_in_use_a_miss_looks_in_a_table_of_their_own():
    assert rules(lowest=True) == DEMO - {"table=2 priority=0 any: CONTROLLER"} | {
        "table=2 priority=0 any: resubmit(,3)",
        "table=3 priority=0 any: CONTROLLER",
    }


def test_a_flow_of_priority_0_is_above_the_miss_rule_and_below_every_other_flow():
    miss = {(rule.table, rule.priority) for rule in service_rules(3, (1,), (), {}, True)}
    table, priority = table_and_priority(0)
    assert (table, priority - 1) in miss
    assert table != 2
    for other in (1, 2, 0x8000, 0xFFFF):
        assert table_and_priority(other) == (2, other)


def test_a_queue_of_a_port_has_a_key_of_its_own():
    assert rules(queue_keys={(2, 7): 0x100, (1, 0): 0x101}) == DEMO | {
        "table=1 priority=32768 tun_id=0x100: enqueue:2:7",
        "table=1 priority=32768 tun_id=0x101: enqueue:1:0",
    }


@given(
    st.one_of(st.none(), st.just(20)),
    st.sets(st.integers(1, 16)),
    st.sets(st.integers(21, 60)),
    st.booleans(),
)
def test_no_rule_of_the_ingress_tables_sends_anywhere_by_itself(tunnel, ports, left_out, lowest):
    """Only the remote table outputs. A frame that enters at a port is handled as the controller
    says.
    """
    for rule, actions in service_rules(tunnel, ports, left_out, {}, lowest).items():
        if rule.table != 1:
            outputs = _actions(actions)
            assert outputs in ("CONTROLLER", "drop") or outputs.startswith("resubmit")


# ---- a switch that answers requests ----


class Switch:
    """The switch's end of a Member's connection. It answers as the test says."""

    def __init__(self, ports=PORTS, flows=(), wanted=(), max_ports=16):
        self.events = Events(wanted)
        self.member = Member(self.events, 1, 1, max_ports)
        self.connection = Connection()
        self.member.connect(self.connection)
        self.ports = list(ports)
        self.flows = list(flows)

    def answer(self):
        """Answer features and flow requests until there are no more; return all other messages."""
        others = []
        while True:
            messages = self.connection.take()
            if not messages:
                return others
            for message in messages:
                if message.type == of.Type.FEATURES_REQUEST:
                    body = struct.pack("!QIB3xII", 1, 0, 254, 0, 0)
                    body += b"".join(port.pack() for port in self.ports)
                    self.reply(of.Type.FEATURES_REPLY, message, body)
                elif message.type == of.Type.STATS_REQUEST:
                    body = struct.pack("!HHII4x", 0xFFFF, 0, of.NX_VENDOR, 0) + b"".join(self.flows)
                    self.reply(of.Type.STATS_REPLY, message, body)
                else:
                    others.append(message)

    def reply(self, kind, request, body):
        self.connection.intercept(kind, of.message(kind, body, request.xid))

    def port_status(self, reason, port):
        body = bytes([reason]) + bytes(7) + port.pack()
        self.connection.intercept(of.Type.PORT_STATUS, of.message(of.Type.PORT_STATUS, body))


def changes(messages):
    """Return the flow-mods among the messages as texts, in their order."""
    found = []
    for message in messages:
        if message.type == of.Type.FLOW_MOD:
            cookie, command = struct.unpack_from("!QH", message.body, 40)
            found.append(f"ADD cookie={cookie:#x} table={command >> 8}")
        elif message.type == of.Type.VENDOR and message.body[:8] == struct.pack(
            "!II", of.NX_VENDOR, 13
        ):
            cookie, command, priority, length = struct.unpack_from("!QH4xH8xH6x", message.body, 8)
            start = 40
            match = message.body[start : start + length]
            actions = message.body[start + length + -length % 8 :]
            name = ("ADD", "MODIFY", "MODIFY_STRICT", "DELETE", "DELETE_STRICT")[command & 0xFF]
            where = f"table={command >> 8} priority={priority}"
            if match[-12:-8] == bytes.fromhex("00013c08"):
                match, of_cookie = match[:-12], f" cookie={int.from_bytes(match[-8:], 'big'):#x}"
            else:
                of_cookie = ""
            line = f"{name} {where} {_match(match)}{of_cookie}"
            found.append(line + (f": {_actions(actions)}" if "DELETE" not in name else ""))
    return found


def up(**kwargs):
    switch = Switch(**kwargs)
    return switch, switch.answer()


def no_flood(messages):
    """Return the ports that are told to take no part in floods."""
    mods = port_mods(messages)
    for number, _, config, mask in mods:
        above = 16 < number < of.Port.MAX
        # The bits beside it say who has set it.
        assert config == mask == (HELD_BACK if above else NO_FLOOD)
    return [mod[0] for mod in mods]


def test_an_empty_switch_gets_its_service_rules_and_then_is_ready():
    switch, messages = up()
    assert set(changes(messages)) == {"ADD " + rule for rule in DEMO}
    assert switch.member.ready
    assert switch.events.said[-1] == "synced"


def test_the_deepest_table_is_filled_first():
    """A rule must not resubmit packets to a table that is not filled yet."""
    _, messages = up()
    tables = [line.split()[1] for line in changes(messages)]
    assert tables == sorted(tables, reverse=True)


def test_flood_is_switched_off_on_the_tunnel_port_alone():
    _, messages = up()
    assert no_flood(messages) == [3]


def test_a_tunnel_port_with_flood_off_is_left_so():
    _, messages = up(ports=[*PORTS[:2], phy_port(3, "tun1", config=0x10)])
    assert no_flood(messages) == []


def dump(rules):
    return [nx_flow(*rule, actions) for rule, actions in rules.items()]


SERVICE = service_rules(3, (1, 2), (), {}, False)


def test_what_a_switch_has_already_is_left_alone():
    switch, messages = up(flows=dump(SERVICE))
    assert changes(messages) == []
    assert switch.member.ready


def test_only_the_difference_is_sent():
    flows = dump({rule: actions for rule, actions in SERVICE.items() if rule.table != 2})
    wrong = Rule(2, 0, b"")
    _, messages = up(flows=[*flows, nx_flow(*wrong, b"")])
    assert changes(messages) == ["MODIFY_STRICT table=2 priority=0 any: CONTROLLER"]


def test_what_somebody_else_has_put_there_is_removed():
    foreign = nx_flow(0, 5, flowmods.match_in_port(1), of.output(2), cookie=0x77)
    _, messages = up(flows=[*dump(SERVICE), foreign])
    assert changes(messages) == ["DELETE_STRICT table=0 priority=5 in_port=1 cookie=0x77"]


def test_a_foreign_flow_in_the_place_of_a_service_rule_gives_way():
    """The ADD replaces the foreign flow. The deletion names the foreign cookie, so it no longer
    matches anything.
    """
    place = Rule(2, 0, b"")
    others = dump({rule: actions for rule, actions in SERVICE.items() if rule != place})
    foreign = nx_flow(*place, SERVICE[place], cookie=0x77)
    _, messages = up(flows=[*others, foreign])
    assert changes(messages) == [
        "ADD table=2 priority=0 any: CONTROLLER",
        "DELETE_STRICT table=2 priority=0 any cookie=0x77",
    ]


def test_flows_are_brought_up_to_date_by_their_difference():
    wanted = [Flow(number, act.parse(of.output(number))) for number in (1, 2, 3)]
    flows = [
        *dump(SERVICE),
        nx_flow(2, 9, flowmods.match_in_port(1), of.output(1), cookie=1),
        nx_flow(2, 9, flowmods.match_in_port(1), of.output(1), cookie=2),
        nx_flow(2, 9, flowmods.match_in_port(1), of.output(1), cookie=4),
    ]
    _, messages = up(flows=flows, wanted=wanted)
    assert changes(messages) == [
        "ADD cookie=0x3 table=2",
        "MODIFY table=2 priority=0 any cookie=0x2: output:2",
        "DELETE_STRICT table=2 priority=9 in_port=1 cookie=0x4",
    ]


def test_a_port_that_comes_or_goes_changes_its_remote_rule_and_no_other():
    switch, _ = up()
    switch.events.said.clear()
    switch.port_status(of.PortReason.ADD, phy_port(5, "s1-eth5"))
    assert changes(switch.answer()) == ["ADD table=1 priority=32768 tun_id=0x5: output:5"]
    assert "reach_changed" in switch.events.said
    switch.port_status(of.PortReason.DELETE, phy_port(5, "s1-eth5"))
    assert changes(switch.answer()) == ["DELETE_STRICT table=1 priority=32768 tun_id=0x5"]


def test_what_a_port_says_of_its_link_changes_no_rule():
    switch, _ = up()
    switch.events.said.clear()
    switch.port_status(of.PortReason.MODIFY, PORTS[0]._replace(state=1))
    assert switch.answer() == []
    assert "reach_changed" not in switch.events.said


def test_a_tunnel_port_that_comes_later_brings_the_remote_table():
    switch, messages = up(ports=PORTS[:2])
    assert set(changes(messages)) == {"ADD " + rule for rule in EVERY_SWITCH}
    switch.events.said.clear()
    switch.port_status(of.PortReason.ADD, PORTS[2])
    messages = switch.answer()
    assert set(changes(messages)) == {"ADD " + rule for rule in DEMO - EVERY_SWITCH}
    assert no_flood(messages) == [3]
    assert {"tunnel_changed", "reach_changed"} <= set(switch.events.said)


def test_a_queue_that_another_switch_uses_adds_one_rule():
    switch, _ = up()
    switch.member.use_queue_key(2, 7, 0x100)
    assert changes(switch.answer()) == ["ADD table=1 priority=32768 tun_id=0x100: enqueue:2:7"]
    switch.member.use_queue_key(2, 7, 0x100)
    assert switch.answer() == []


def port_mods(messages):
    mods = [message.body for message in messages if message.type == of.Type.PORT_MOD]
    return [struct.unpack_from("!H6sII", body) for body in mods]


def test_a_port_that_is_modified_stays_so_when_the_switch_comes_back():
    switch, _ = up()
    switch.member.modify_port(2, Bits(0x21, 0x61), 0, 7)
    switch.member.modify_port(2, Bits(0x00, 0x20), 0, 8)
    address = PORTS[1].hw_addr
    assert port_mods(switch.answer()) == [(2, address, 0x21, 0x61), (2, address, 0x00, 0x20)]
    assert switch.member.ports.all[2].config == 0x01
    switch.member.closed(switch.connection)
    switch.member.connect(switch.connection)
    (again,) = [mod for mod in port_mods(switch.answer()) if mod[0] == 2]
    assert again == (2, address, 0x01, 0x61)
    assert switch.member.ports.all[2].config == 0x01


# ---- requests ----


def test_a_request_is_answered_by_its_xid_and_lost_with_the_connection():
    switch, _ = up()
    heard = []
    switch.member.session.barrier(lambda: heard.append("first"))
    switch.member.session.barrier(lambda: heard.append("second"))
    first, second = switch.connection.take()
    for _ in range(2):
        switch.reply(of.Type.BARRIER_REPLY, first, b"")
        assert heard == ["first"]
    switch.member.closed(switch.connection)
    assert heard == ["first", "second"]
    switch.reply(of.Type.BARRIER_REPLY, second, b"")
    assert heard == ["first", "second"]
    # By now there is no switch to ask.
    switch.member.session.barrier(lambda: heard.append("third"))
    assert heard[-1] == "third"


@pytest.mark.parametrize(
    "configure",
    [
        lambda member: member.modify_port(2, Bits(0x10, 0x10), 0, 7),
        lambda member: member.set_fragments(1),
    ],
    ids=["a port", "fragments"],
)
def test_a_barrier_behind_a_new_configuration_is_asked_for_twice(configure):
    """The switch may send the first answer before the configuration holds for packets."""
    switch, _ = up()
    heard = []
    configure(switch.member)
    switch.member.session.barrier(lambda: heard.append("done"))
    _, first = switch.connection.take()
    switch.reply(of.Type.BARRIER_REPLY, first, b"")
    assert heard == []
    (second,) = switch.connection.take()
    switch.reply(of.Type.BARRIER_REPLY, second, b"")
    assert heard == ["done"]
    switch.member.session.barrier(lambda: heard.append("once"))
    (only,) = switch.connection.take()
    switch.reply(of.Type.BARRIER_REPLY, only, b"")
    assert heard == ["done", "once"]


def test_barriers_at_the_same_time_are_each_asked_for_twice_behind_a_new_configuration():
    switch, _ = up()
    heard = []
    switch.member.set_fragments(1)
    for name in ("one", "other"):
        switch.member.session.barrier(lambda name=name: heard.append(name))
    _, *first = switch.connection.take()
    for request in first:
        switch.reply(of.Type.BARRIER_REPLY, request, b"")
    assert heard == []
    for request in switch.connection.take():
        switch.reply(of.Type.BARRIER_REPLY, request, b"")
    assert heard == ["one", "other"]


def test_a_switch_is_settled_when_a_barrier_has_shown_that_it_has_done_all():
    switch, _ = up()
    member = switch.member
    assert not member.session.settled, "it has been sent its service rules"
    member.session.barrier(lambda: None)
    switch.reply(of.Type.BARRIER_REPLY, switch.connection.take()[-1], b"")
    assert member.session.settled
    member.session.request(messages.echo_request, lambda kind, message: True, lambda: None)
    assert member.session.settled, "a request changes nothing"
    member.session.barrier(lambda: None)
    member.session.send(messages.set_config(1, 0, 0))
    assert not member.session.settled
    member.session.barrier(lambda: None)
    *_, before, _, behind = switch.connection.take()
    switch.reply(of.Type.BARRIER_REPLY, before, b"")
    assert not member.session.settled, "that barrier was before the message"
    switch.reply(of.Type.BARRIER_REPLY, behind, b"")
    assert member.session.settled


def test_a_switch_is_configuring_until_it_goes_by_its_new_configuration():
    switch, _ = up()
    assert not switch.member.session.configuring
    switch.member.set_fragments(1)
    switch.member.session.barrier(lambda: None)
    assert switch.member.session.configuring
    for _ in range(2):
        assert switch.member.session.configuring and not switch.member.session.settled
        switch.reply(of.Type.BARRIER_REPLY, switch.connection.take()[-1], b"")
    assert not switch.member.session.configuring and switch.member.session.settled


def test_an_answer_says_that_older_requests_are_answered_no_more(caplog):
    """Switches answer in order. If one leaves out an answer, nobody waits for it for ever."""
    switch, _ = up()
    heard = []
    for name in ("first", "second", "third"):
        switch.member.session.barrier(lambda name=name: heard.append(name))
    requests = switch.connection.take()
    switch.reply(of.Type.BARRIER_REPLY, requests[1], b"")
    assert heard == ["first", "second"]
    assert len(warnings(caplog)) == 1
    switch.reply(of.Type.BARRIER_REPLY, requests[2], b"")
    assert heard == ["first", "second", "third"]


def test_what_happens_by_the_thousand_is_a_line_a_minute(caplog):
    """Each of these requests is left unanswered but the last."""
    switch, _ = up()
    for _ in range(1000):
        switch.member.session.barrier(lambda: None)
    switch.reply(of.Type.BARRIER_REPLY, switch.connection.take()[-1], b"")
    assert warnings(caplog) == ["switch 1: leaves a request unanswered"]
    now = time.monotonic()
    for _ in range(3):
        now += complaints.PAUSE
        switch.member.complaints.tick(now)
        assert warnings(caplog)[1:] == ["switch 1: leaves a request unanswered (998 times)"]


def test_what_answers_no_request_is_the_big_switch_s():
    switch, _ = up()
    error = of.message(of.Type.ERROR, bytes(12), xid=0x7FFFFFFF)
    switch.connection.intercept(of.Type.ERROR, error)
    removed = of.message(of.Type.FLOW_REMOVED, bytes(80))
    switch.connection.intercept(of.Type.FLOW_REMOVED, removed)
    assert switch.events.said[-2:] == ["refused", "flow_removed"]


def test_a_reply_of_several_parts_is_answered_by_the_last():
    switch, _ = up()
    parts = []

    def part(kind, message):
        parts.append(message)
        return not message[11] & 1

    lost = []
    switch.member.session.request(stats.dump_flows, part, lambda: lost.append(True))
    (request,) = switch.connection.take()
    for flags in (1, 1, 0, 0):
        body = struct.pack("!HHII4x", 0xFFFF, flags, of.NX_VENDOR, 0)
        switch.reply(of.Type.STATS_REPLY, request, body)
    assert len(parts) == 3 and lost == []


# ---- what the log says ----


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_switch_without_tunnel_port_is_named_once(caplog):
    switch, _ = up(ports=PORTS[:2])
    switch.port_status(of.PortReason.MODIFY, PORTS[0]._replace(state=1))
    (warning,) = warnings(caplog)
    assert "switch 1" in warning and "no tunnel port" in warning


def test_a_switch_with_two_tunnel_ports_is_named_once_with_both(caplog):
    switch, _ = up(ports=[*PORTS, phy_port(4, "tun7")])
    switch.port_status(of.PortReason.MODIFY, PORTS[0]._replace(state=1))
    (warning,) = warnings(caplog)
    assert "switch 1" in warning and "tun1, tun7" in warning
    assert switch.member.ports.tunnel is None
    assert sorted(switch.member.ports.own()) == [1, 2]


@pytest.mark.parametrize("number", [17, 20, 0xFEFF])
def test_a_port_above_the_formula_is_named_once_and_left_out(caplog, number):
    switch, messages = up(ports=[*PORTS, phy_port(number, "big")])
    switch.port_status(of.PortReason.MODIFY, PORTS[0]._replace(state=1))
    (warning,) = warnings(caplog)
    assert all(word in warning for word in ("switch 1", str(number), "big", "--max_ports"))
    assert sorted(switch.member.ports.own()) == [1, 2]
    # On the switch itself the port takes no part in floods; nor does the tunnel port.
    assert sorted(no_flood(messages)) == [3, number]


@pytest.mark.parametrize("name", ["tun", "tunnel1", "tap1", "tun1x", "xtun1", "TUN1"])
def test_only_tunn_is_a_tunnel_port(caplog, name):
    switch, _ = up(ports=[*PORTS[:2], phy_port(3, name)])
    assert switch.member.ports.tunnel is None
    assert sorted(switch.member.ports.own()) == [1, 2, 3]


def test_the_tunnel_port_may_have_any_number():
    switch, messages = up(ports=[*PORTS[:2], phy_port(100, "tun12")])
    assert switch.member.ports.tunnel == 100
    expected = {rule.replace("in_port=3", "in_port=100") for rule in DEMO}
    assert set(changes(messages)) == {"ADD " + rule for rule in expected}


def test_a_switch_that_lets_us_wait_has_stood_still(monkeypatch):
    """A switch that sends much before it answers has not stood still; nor has one that was not
    asked.
    """
    switch, _ = up()
    clock = [time.monotonic()]
    monkeypatch.setattr(session.time, "monotonic", lambda: clock[0])
    removed = of.message(of.Type.FLOW_REMOVED, bytes(80))
    for _ in range(10):
        clock[0] += 0.4
        switch.connection.intercept(of.Type.FLOW_REMOVED, removed)
    clock[0] += 100
    switch.member.session.barrier(lambda: None)
    (barrier,) = switch.connection.take()
    for _ in range(10):
        clock[0] += 0.4
        switch.connection.intercept(of.Type.FLOW_REMOVED, removed)
    assert switch.member.liveness.stalled_at < 0
    clock[0] += 0.6
    switch.reply(of.Type.BARRIER_REPLY, barrier, b"")
    assert switch.member.liveness.stalled_at == clock[0]


# ---- a switch that does not answer any more ----


@pytest.mark.parametrize(
    "a_second, unacknowledged, lost",
    [(200, 0, False), (50, 0, True), (200, 1, True)],
    ids=["many", "few", "what we send does not arrive"],
)
def test_a_switch_that_reports_many_flows_need_not_answer_meanwhile(
    monkeypatch, a_second, unacknowledged, lost
):
    """Open vSwitch does not, while the FLOW_REMOVED wait for its line."""
    switch, _ = up()
    clock = [time.monotonic()]
    monkeypatch.setattr(session.time, "monotonic", lambda: clock[0])
    switch.member.session.barrier(lambda: None)
    switch.connection.unacknowledged = unacknowledged
    removed = of.message(of.Type.FLOW_REMOVED, bytes(80))
    for _ in range(10):
        for _ in range(a_second):
            switch.connection.intercept(of.Type.FLOW_REMOVED, removed)
            clock[0] += 1 / a_second
        switch.member.watch(clock[0], NO_PAUSE, 5)
    assert switch.member.ready is not lost


def silent():
    """Return a switch that is lost because it has not answered an echo request, and the time of the
    loss.
    """
    switch, _ = up()
    now = time.monotonic() + 10
    switch.member.watch(now, NO_PAUSE, 5)  # this sends the echo request
    (echo,) = switch.connection.take()
    assert echo.type == of.Type.ECHO_REQUEST
    switch.member.watch(now + 5.1, NO_PAUSE, 5)
    assert switch.events.said[-1] == "lost" and not switch.member.ready
    assert switch.member.session.connection is None and not switch.connection.closed
    return switch, now + 5.1


def test_a_silent_switch_is_lost_and_its_connection_is_kept():
    switch, now = silent()
    switch.member.session.send(b"nothing")
    assert switch.connection.take() == []
    for second in range(1, 6):
        switch.member.watch(now + second + 0.1, NO_PAUSE, 5)
        assert [m.type for m in switch.connection.take()] == [of.Type.ECHO_REQUEST]


def test_a_silent_switch_that_answers_is_brought_up_to_date_on_its_old_connection():
    switch, now = silent()
    switch.member.watch(now + 1, NO_PAUSE, 5)
    (echo,) = switch.connection.take()
    switch.reply(of.Type.ECHO_REPLY, echo, b"")
    switch.answer()
    assert switch.member.ready and switch.member.session.connection is switch.connection
    assert not switch.connection.closed


@pytest.mark.parametrize("kind", [of.Type.PORT_STATUS, of.Type.VENDOR, of.Type.ECHO_REQUEST])
def test_what_a_switch_says_unasked_does_not_show_that_it_hears_us(kind):
    switch, now = silent()
    left_to_pox = not switch.connection.intercept(kind, of.message(kind, bytes(56)))
    assert left_to_pox == (kind == of.Type.ECHO_REQUEST), "it gets an echo"
    assert switch.connection.take() == [] and switch.member.session.connection is None


def test_a_new_connection_takes_the_place_of_a_silent_one():
    switch, now = silent()
    old, switch.connection = switch.connection, Connection()
    switch.member.connect(switch.connection)
    assert old.closed
    switch.member.closed(old)
    switch.answer()
    assert switch.member.ready and switch.member.session.connection is switch.connection


def test_a_silent_connection_is_closed_in_the_end():
    switch, now = silent()
    switch.member.watch(now + 59, NO_PAUSE, 5)
    assert not switch.connection.closed
    switch.member.watch(now + 61, NO_PAUSE, 5)
    assert switch.connection.closed
    switch.member.closed(switch.connection)
    switch.connection.take()
    switch.member.watch(now + 70, NO_PAUSE, 5)
    assert switch.connection.take() == []


def test_one_that_takes_nothing_is_closed_at_once():
    """Otherwise the aggregator would have to keep all that waits for it."""
    switch, _ = up()
    now = time.monotonic() + 10
    switch.member.watch(now, NO_PAUSE, 5)
    switch.connection.stuck = 1
    switch.member.watch(now + 5.1, NO_PAUSE, 5)
    assert switch.connection.closed == "it has not answered for 15 s"


def test_one_whose_line_is_mended_and_that_does_not_answer_is_closed():
    """Such a switch has lost messages too, and its kernel sends them again after pauses of
    its own.
    """
    switch, now = silent()
    switch.connection.unacknowledged = 8
    for tick in range(1, 50):
        switch.member.watch(now + tick / 10, NO_PAUSE, 5)
    assert not switch.connection.closed
    switch.connection.unacknowledged = 0
    switch.member.watch(now + 5, NO_PAUSE, 5)
    assert not switch.connection.closed, "its answer may be on the way"
    switch.member.watch(now + 5.2, NO_PAUSE, 5)
    assert switch.connection.closed
