"""What somebody else changes on a switch: what is found, what is made right, and what is not.

The big switch is real. Its two switches are played: their flow entries change when the test says
so, and they answer when the test says so.
"""

import struct
import time
from collections import deque

import pytest
from lab import openflow10 as of
from lab.openflow10 import Command, Flag, RemovedReason, Type

from edge import poxfixes
from edge.north import connections, requests
from edge.openflow.messages import FLOW_EVICTED
from edge.south.rules import TABLE_OPENFLOW, TABLE_REMOTE
from edge.switch import audit, topology

from .played import BARRIER, Bed

EVERYWHERE = of.match(dl_type=0x88B5)
ON_ONE = of.match(in_port=1)
ALL_FLOWS = of.stats_request(of.Stats.FLOW, of.flow_stats_body())
LATER = 3.5
"""Seconds after which nothing that was sent is on its way any more."""


class Audited(Bed):
    """A Bed whose time the test lets pass: the audit's clock is ahead by so many seconds."""

    ahead = 0.0

    def monotonic(self):
        return time.monotonic() + self.ahead

    def pass_time(self, seconds):
        """Let time pass. The audit sends the requests that are due then; nobody answers yet."""
        self.ahead += seconds
        self.big.audit.tick(self.monotonic())
        self.end_turns()

    def look(self, switches=2):
        """Let all flow entries be looked at once: of one switch, then of the other."""
        for _ in range(switches):
            self.pass_time(audit.ROUND / 2)
            self.settle()

    def finish(self, ticks=0):
        """Let all that is doubted be settled; with ticks only what is settled at once."""
        for _ in range(ticks or 3):
            self.pass_time(0.1 if ticks else LATER)
            self.settle()

    def a_round(self):
        """Let all flow entries be looked at once, and what is found be made right."""
        self.look()
        self.finish()

    def add(self, match=EVERYWHERE, **fields):
        """Add a flow. Return its cookie on the switches."""
        self.send(of.flow_mod(match, of.output(2), **fields))
        self.settle()
        self.pass_time(0)  # the first round begins
        (cookie,) = {c for switch in self.switches for c in switch.flows} - self.cookies
        self.cookies.add(cookie)
        return cookie

    @property
    def asked(self):
        """The requests for flows to each switch since the last call."""
        found = [switch.asked for switch in self.switches]
        for switch in self.switches:
            switch.asked = []
        return found


@pytest.fixture
def bed(monkeypatch):
    turns = deque()
    for module in (poxfixes, connections, topology):
        monkeypatch.setattr(module, "end_of_turn", turns.append)
    bed = Audited(turns)
    for module in (audit, requests):
        monkeypatch.setattr(module, "time", bed)
    bed.cookies = set()
    assert bed.asked  # what they were asked when they connected
    return bed


def right(bed):
    """Return whether both switches have the flows and the service rules that they have to have."""
    flows = bed.big.flows
    for switch, member in zip(bed.switches, bed.big.topology.members.values()):
        wanted = {
            flows.cookies.cookie(entry): member.translations.translated(entry.actions)
            for entry in flows.table
            if member in flows.homes(entry)
        }
        rules = {(*rule, 0): actions for rule, actions in member.wanted_rules().items()}
        if (switch.flows, switch.others) != (wanted, rules):
            return False
    return True


def flow_removed(cookie, reason, packets=0):
    body = struct.pack("!40sQHBxIIH2xQQ", EVERYWHERE, cookie, 0x8000, reason, 1, 0, 0, packets, 60)
    return of.message(Type.FLOW_REMOVED, body)


# ---- what is found ----


@pytest.mark.parametrize("match", [EVERYWHERE, ON_ONE], ids=["everywhere", "in_port"])
def test_a_flow_that_somebody_has_deleted_is_put_back(bed, match):
    one, other = bed.switches
    cookie = bed.add(match)
    one.packets[cookie] = 5
    bed.a_round()  # the five are known
    one.packets.clear()
    del one.flows[cookie]
    other.did.clear()
    bed.a_round()
    assert right(bed) and other.did == []
    (entry,) = bed.big.flows.table
    assert bed.big.flows.counted(entry)[0] == 5, "counters never go down"


def test_a_flow_with_other_actions_is_changed_back(bed):
    one, _ = bed.switches
    one.flows[bed.add()] = b""
    bed.a_round()
    assert right(bed)


def test_a_flow_entry_of_others_is_removed(bed):
    bed.add()
    one, other = bed.switches
    one.others[TABLE_OPENFLOW, 60000, b"", 0] = b""
    other.others[7, 5, b"", 77] = b""
    bed.a_round()
    assert right(bed)


def test_the_flow_is_back_before_the_entry_in_its_place_is_removed(bed):
    """Else its packets would go to the controller in between."""
    one, _ = bed.switches
    cookie = bed.add()
    del one.flows[cookie]
    one.others[TABLE_OPENFLOW, 1, b"", 0] = b""
    bed.look(1)
    bed.pass_time(0.1)
    bed.settle()
    assert cookie in one.flows and (TABLE_OPENFLOW, 1, b"", 0) in one.others
    bed.finish()
    assert right(bed)


def test_a_copy_of_a_flow_that_has_ended_or_is_not_of_this_switch_is_removed(bed):
    one, other = bed.switches
    ended, alone = bed.add(), bed.add(ON_ONE)
    bed.send(of.flow_mod(EVERYWHERE, command=Command.DELETE_STRICT))
    bed.settle()
    other.flows = {ended: b"", alone: b""}
    bed.a_round()
    assert right(bed)


def test_service_rules_are_put_right(bed):
    bed.add()
    one, _ = bed.switches
    first, second = [place for place in one.others if place[0] == TABLE_REMOTE][:2]
    del one.others[first]
    one.others[second] = b""
    bed.a_round()
    assert right(bed)


def test_a_service_rule_that_the_switch_reports_as_deleted_is_put_back_at_once(bed):
    """Nobody has added a flow, so there are no rounds."""
    one, other = bed.switches
    place = next(place for place in one.others if place[0] == TABLE_REMOTE)
    del one.others[place]
    one.intercept(Type.FLOW_REMOVED, flow_removed(0, RemovedReason.DELETE))
    bed.pass_time(0)
    bed.settle()
    assert right(bed) and other.asked == []


@pytest.mark.parametrize("others", [0, 40], ids=["dump", "one by one"])
def test_what_a_controller_asks_for_and_is_not_there_is_put_back(bed, others):
    one, _ = bed.switches
    cookie = bed.add()
    for number in range(others):
        bed.add(of.match(dl_type=0x88B6, dl_vlan=number + 1))
    del one.flows[cookie]
    bed.send(of.stats_request(of.Stats.FLOW, of.flow_stats_body(EVERYWHERE)))
    bed.settle()
    for _ in range(2):  # the switch is asked again, and answers
        bed.pass_time(0.1)
        bed.settle()
    assert right(bed)


def test_where_one_part_is_wrong_all_others_are_looked_at_soon(bed, monkeypatch):
    monkeypatch.setattr(audit, "COPIES_PER_PART", 1)
    one, _ = bed.switches
    for number in range(16):
        bed.add(of.match(dl_type=0x88B5, dl_vlan=number + 1))
    one.flows.clear()
    for _ in range(2):  # with 16 parts for each switch that is one part of each
        bed.pass_time(audit.ROUND / 32)
        bed.settle()
    bed.finish(ticks=20)
    assert right(bed)


# ---- what is on its way, or is not the audit's business ----


@pytest.mark.parametrize("fields", [{"idle_timeout": 60}, {"flags": Flag.SEND_FLOW_REM}])
def test_a_copy_whose_end_the_switch_reports_is_waited_for(bed, fields):
    one, _ = bed.switches
    cookie = bed.add(**fields)
    del one.flows[cookie]
    bed.look(1)
    bed.pass_time(1.0)
    bed.settle()
    assert cookie not in one.flows
    one.intercept(Type.FLOW_REMOVED, flow_removed(cookie, RemovedReason.DELETE, packets=3))
    bed.settle()
    assert right(bed)
    one.packets[cookie] = 4
    bed.finish()
    (entry,) = bed.big.flows.table
    bed.send(ALL_FLOWS)
    bed.settle()
    assert bed.big.flows.counted(entry)[0] == 3 + 4, "it was not put back twice"


def test_a_copy_that_was_sent_again_since_the_switch_was_asked_is_not_sent_once_more(bed):
    one, _ = bed.switches
    cookie = bed.add(idle_timeout=60)
    del one.flows[cookie]
    bed.look(1)
    bed.pass_time(LATER)  # it is asked about that copy alone
    one.intercept(Type.FLOW_REMOVED, flow_removed(cookie, RemovedReason.DELETE))
    one.work()
    assert one.did.count(Type.FLOW_MOD) == 1
    bed.finish()
    assert one.did == [] and right(bed)


@pytest.mark.parametrize("command", [Command.DELETE, Command.MODIFY, Command.ADD])
def test_what_the_controller_changes_while_the_switch_answers_is_not_changed_back(bed, command):
    one, _ = bed.switches
    cookie = bed.add()
    del one.flows[cookie]
    bed.look(1)
    bed.pass_time(0.1)  # it is asked about that copy alone
    bed.send(of.flow_mod(EVERYWHERE, of.output(17), command))
    bed.settle()
    bed.finish()
    if command != Command.MODIFY:
        assert right(bed)
        assert one.flows.keys() != {cookie}
    else:
        bed.a_round()
        assert right(bed)


def test_a_flow_that_is_added_while_the_switch_answers_is_not_missing(bed):
    one, _ = bed.switches
    bed.add()
    for _ in range(2):
        bed.pass_time(audit.ROUND / 2)
    bed.send(of.flow_mod(ON_ONE, of.output(2)))
    bed.settle()
    assert bed.asked == [one_dump()] * 2
    bed.finish()
    assert bed.asked == [[], []], "nothing is in doubt"


def one_dump():
    return [struct.pack("!HHII4xHHB3x", 0xFFFF, 0, of.NX_VENDOR, 0, 0xFFFF, 0, 0xFF)]


def test_only_what_the_answer_should_have_had_is_asked_for_again(bed):
    one, _ = bed.switches
    gone = bed.add()
    del one.flows[gone]
    bed.pass_time(audit.ROUND / 2)
    bed.ahead += 0.1
    bed.send(of.flow_mod(ON_ONE, of.output(2)))
    bed.settle()
    assert bed.asked == [one_dump(), []]
    bed.pass_time(0.1)
    bed.settle()
    ((about,), others) = bed.asked
    assert gone.to_bytes(8, "big") in about
    assert others == []


def test_a_flow_that_is_modified_while_the_switch_answers_is_sent_its_actions_once(bed):
    one, _ = bed.switches
    one.flows[bed.add()] = b""
    bed.look(1)
    bed.pass_time(0.1)  # it is asked about that copy alone
    bed.send(of.flow_mod(EVERYWHERE, of.output(17), Command.MODIFY))
    one.work()
    assert one.did == [Type.VENDOR]
    bed.settle()
    assert right(bed)


def test_nothing_is_doubted_while_a_refused_change_is_being_undone(bed):
    """The flow has its former actions again, and this switch has not been sent them yet."""
    one, other = bed.switches
    one.flows[bed.add()] = b""
    bed.look(1)
    other.refuses = lambda raw: raw[1] == Type.VENDOR
    bed.send(of.flow_mod(EVERYWHERE, of.output(17), Command.MODIFY))
    other.work()
    assert bed.big.refusals.undoing
    bed.pass_time(0.1)
    other.refuses = lambda raw: False
    for _ in range(3):
        one.work()
        other.work()
        bed.end_turns()
    assert one.did == [Type.VENDOR] * 2, "the MODIFY and what undoes it"
    bed.finish()
    assert right(bed)


def test_a_flow_for_which_the_switch_has_no_room_ends_everywhere(bed):
    one, other = bed.switches
    cookie = bed.add(flags=Flag.SEND_FLOW_REM)
    del one.flows[cookie]
    one.refuses = lambda raw: raw[1] == Type.FLOW_MOD
    bed.a_round()
    bed.send(BARRIER)
    bed.settle()
    assert not bed.big.flows.table and other.flows == {}
    other.intercept(Type.FLOW_REMOVED, flow_removed(cookie, RemovedReason.DELETE))
    assert bed.told().count(Type.FLOW_REMOVED) == 1


def test_a_flow_that_a_switch_evicts_ends_everywhere_and_is_not_put_back(bed):
    one, other = bed.switches
    cookie = bed.add(idle_timeout=60, flags=Flag.SEND_FLOW_REM)
    del one.flows[cookie]
    one.intercept(Type.FLOW_REMOVED, flow_removed(cookie, FLOW_EVICTED))
    bed.settle()
    assert not bed.big.flows.table and one.flows == other.flows == {}
    other.intercept(Type.FLOW_REMOVED, flow_removed(cookie, RemovedReason.DELETE))
    assert bed.told() == [Type.FLOW_REMOVED]


# ---- how often, and whom ----


def test_without_flows_nobody_is_asked(bed):
    bed.a_round()
    bed.a_round()
    assert bed.asked == [[], []]


def test_with_few_flows_each_switch_is_asked_once_in_a_round(bed):
    bed.add()
    for _ in range(3):
        for _ in range(10):
            bed.pass_time(audit.ROUND / 10)
            bed.settle()
        assert bed.asked == [one_dump()] * 2


def test_who_is_not_up_or_does_not_read_is_not_asked(bed):
    one, other = bed.switches
    bed.add()
    one.stuck = 1
    bed.big.disconnected(other)
    bed.a_round()
    assert bed.asked == [[], []]
    one.stuck = 0
    bed.a_round()
    assert bed.asked == [one_dump(), []]


def test_who_has_not_answered_is_not_asked_again(bed):
    bed.add()
    for _ in range(8):
        bed.pass_time(audit.ROUND / 2)
    bed.settle()
    assert bed.asked == [one_dump()] * 2


def test_many_flows_are_looked_at_in_parts_and_each_in_one_of_them(bed, monkeypatch):
    monkeypatch.setattr(audit, "COPIES_PER_PART", 4)
    for number in range(30):
        bed.add(of.match(dl_type=0x88B5, dl_vlan=number + 1))
    bed.a_round()
    assert bed.asked
    for _ in range(16):
        bed.pass_time(audit.ROUND / 16)
        bed.settle()
    for asked in bed.asked:
        assert len(asked) == 8
        parts = [struct.unpack_from("!QQ", request, 28) for request in asked]
        assert sorted(parts) == [(part, 7) for part in range(8)]
    one, _ = bed.switches
    for cookie in list(one.flows)[::7]:
        del one.flows[cookie]
    for _ in range(16):
        bed.pass_time(audit.ROUND / 16)
        bed.settle()
        bed.finish(ticks=1)
    assert right(bed)


def test_many_switches_are_not_asked_more_than_so_often():
    parts = list(audit._spread({"a": 4, "b": 1, "c": 2}))
    assert sorted(parts) == [
        *(("a", part, 4) for part in range(4)),
        ("b", 0, 1),
        *(("c", part, 2) for part in range(2)),
    ]
    assert [part for part in parts if part[0] == "c"] == [parts[2], parts[5]], "far apart"
