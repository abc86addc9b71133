"""Tunnel keys for queues of other switches' ports."""

from types import SimpleNamespace

import pytest
from lab import openflow10 as of

from edge.openflow import actions as act
from edge.south.member import Member
from edge.south.translate import Ingress, translate
from edge.switch import queuekeys
from edge.switch.portnumbers import PortNumbers
from edge.switch.queuekeys import QueueKeys

from .fakes import Events


class Bed:
    """Three switches. The third has not connected yet."""

    def __init__(self):
        self.members = {index: Member(Events(), index, index, 16) for index in (1, 2)}
        for member in self.members.values():
            member.liveness.connected()
            member.liveness.flows_read()
        self.changes = 0
        self.keys = QueueKeys(self.members, PortNumbers().locate, self._changed)

    def _changed(self):
        self.changes += 1

    def give_out(self, *queues, ingress=(1, 2)):
        actions = act.parse(b"".join(of.enqueue(*each) for each in queues))
        self.keys.give_out(actions, [self.members[index] for index in ingress])

    def has(self, index):
        """Return the keys of queues that a switch has been told, by (port, queue)."""
        return self.members[index]._queue_keys


@pytest.fixture
def bed():
    return Bed()


def test_a_queue_has_a_key_on_its_switch_when_another_switch_needs_it(bed):
    bed.give_out((2, 7), (18, 7), (18, 8))
    assert bed.keys.by_queue == {(1, 2, 7): 0x100, (2, 2, 7): 0x100, (2, 2, 8): 0x101}
    assert bed.has(1) == {(2, 7): 0x100}
    assert bed.has(2) == {(2, 7): 0x100, (2, 8): 0x101}


def test_a_queue_that_only_its_own_switch_needs_has_none(bed):
    bed.give_out((18, 7), ingress=[2])
    assert not bed.keys.by_queue and not bed.changes


def test_the_keys_of_a_switch_are_bounded(bed, monkeypatch):
    """Frames for further queues go to the port's default queue."""
    monkeypatch.setattr(queuekeys, "_MOST_KEYS", 100)
    for queue in range(0, 1000, 10):
        bed.give_out(*((18, queue + more) for more in range(10)))
    bed.give_out((2, 7))
    assert len(bed.keys.by_queue) == 100 + 1
    assert bed.has(2) == {(2, queue): 0x100 + queue for queue in range(100)}
    actions = act.parse(of.enqueue(18, 99) + of.enqueue(18, 100))
    locate = PortNumbers().locate
    ingress = Ingress(1, 3, (1, 2), {2: 0xAC100002}, (), locate, bed.keys.by_queue)
    keys = [bed.keys.by_queue[2, 2, 99], 2]
    loads = map(act.load_tunnel_key, keys)
    assert [load in translate(actions, ingress) for load in loads] == [True, True]


def test_a_queue_keeps_its_key(bed):
    bed.give_out((18, 7))
    bed.give_out((18, 7))
    assert bed.keys.by_queue == {(2, 2, 7): 0x100}
    assert bed.changes == 1, "rules are told of once"


def test_a_switch_that_connects_later_is_told_its_keys(bed):
    bed.give_out((34, 1))
    bed.members[3] = third = Member(Events(), 3, 3, 16)
    bed.keys.tell(third)
    assert bed.has(3) == {(2, 1): 0x100} and not bed.has(2)


def test_rules_are_confirmed_by_the_barriers_that_were_asked_for_behind_them(bed):
    assert bed.keys.confirmed
    bed.give_out((18, 7))
    asked = bed.keys.sent
    bed.give_out((18, 8))
    bed.keys.confirm(asked)
    assert not bed.keys.confirmed
    bed.keys.confirm(bed.keys.sent)
    bed.keys.confirm(asked)
    assert bed.keys.confirmed


def test_keys_are_taken_back_a_second_after_the_last_flow_and_packet_out(bed):
    forgotten = []
    for member in bed.members.values():
        member.translations = SimpleNamespace(forget=lambda: forgotten.append(True))
    bed.give_out((18, 7))
    for now, has_flows, packet_outs in (
        (100.0, True, 0),
        (100.9, False, 0),
        (100.95, False, 1),  # a packet-out
        (101.9, False, 1),
    ):
        bed.keys.take_back_unused(now, 0.0, has_flows, packet_outs)
        assert bed.has(2) and not forgotten
    assert bed.changes == 1
    bed.keys.take_back_unused(101.95, 0.0, False, 1)
    assert not bed.has(2) and not bed.keys.by_queue
    assert len(forgotten) == 2, "what was translated with them would lead to other queues"
    assert bed.changes == 2, "told of that, too"
    bed.keys.take_back_unused(110.0, 0.0, False, 1)
    assert len(forgotten) == 2 and bed.changes == 2


def test_after_a_pause_packets_may_still_be_on_their_way(bed):
    """The aggregator has paused until 200.0, and perhaps its switches with it."""
    bed.give_out((18, 7))
    bed.keys.take_back_unused(100.0, 0.0, True, 0)
    bed.keys.take_back_unused(200.9, 200.0, False, 0)
    assert bed.has(2)
    bed.keys.take_back_unused(201.0, 200.0, False, 0)
    assert not bed.has(2)


def test_the_keys_of_a_switch_that_is_away_are_not_given_to_other_queues(bed):
    """It may still have its rules, and forward by them."""
    bed.give_out((2, 7), (18, 7))
    bed.members[2].liveness.lost(99.0)
    for now in (100.0, 101.5):
        bed.keys.take_back_unused(now, 0.0, now < 101, 0)
    assert bed.keys.by_queue == {(2, 2, 7): 0x100}
    assert not bed.has(1) and bed.has(2) == {(2, 7): 0x100}
    bed.give_out((2, 9), (18, 8))
    assert bed.keys.by_queue == {(2, 2, 7): 0x100, (1, 2, 9): 0x100, (2, 2, 8): 0x101}
