"""DELETEs of many flows, and flows that end while copies of them are missing.

The big switch is real. Its two switches are played: they do their work when the test says so.
"""

import struct
from collections import deque

import pytest
from lab import openflow10 as of
from lab.openflow10 import Command, Flag, RemovedReason, Type

from edge import poxfixes
from edge.north import connections
from edge.openflow import messages
from edge.switch import expiry, topology
from edge.switch.slices import FLOWS_PER_SLICE

from .played import BARRIER, Bed, split

MANY = 2 * FLOWS_PER_SLICE + 100
ECHO = of.message(Type.ECHO_REQUEST)
OTHER = of.match(dl_type=0x88B5)


@pytest.fixture
def bed(monkeypatch):
    turns = deque()
    for module in (poxfixes, connections, topology, expiry):
        monkeypatch.setattr(module, "end_of_turn", turns.append)
    return Bed(turns)


def match_for(number):
    return of.match(dl_type=0x800, nw_proto=17, tp_dst=number)


def add_many(bed, **fields):
    fields = {"flags": Flag.SEND_FLOW_REM, **fields}
    for start in range(1, MANY + 1, 200):  # as much as is read in one turn
        numbers = range(start, min(start + 200, MANY + 1))
        bed.send(*(of.flow_mod(match_for(each), cookie=each, **fields) for each in numbers))
        bed.settle()
    assert len(bed.big.flows.table) == MANY


def cookies(bed):
    """The cookies on the switches, by the controller's cookies."""
    flows = bed.big.flows
    return {entry.cookie: flows.cookies.cookie(entry) for entry in flows.table}


def removed(bed, switch, cookie, reason=RemovedReason.DELETE, packets=0):
    """Have a switch send a FLOW_REMOVED."""
    message = messages.pack_flow_removed(bytes(40), cookie, 1, reason, 0, 0, 0, packets, 0)
    switch.intercept(Type.FLOW_REMOVED, message)


def told(bed):
    """Return the packet counts of the FLOW_REMOVED that the controller has got, by cookie."""
    outbox = bed.connection.io_worker.outbox
    got, outbox.data = outbox.data, b""
    found = {}
    for message in split(got):
        assert message[1] == Type.FLOW_REMOVED, message
        flow = of.unpack_flow_removed(message[8:])
        assert flow.cookie not in found
        found[flow.cookie] = flow.packet_count
    return found


def test_many_flows_are_deleted_in_slices_and_only_an_echo_does_not_wait(bed):
    add_many(bed)
    bed.send(of.flow_mod(OTHER))
    bed.settle()
    bed.send(
        of.flow_mod(of.match(dl_type=0x800), command=Command.DELETE),
        ECHO,
        of.flow_mod(match_for(1), cookie=MANY + 1),
        BARRIER,
        ECHO,
    )
    assert len(bed.big.flows.table) - 1 == MANY - FLOWS_PER_SLICE
    assert bed.told() == [Type.ECHO_REPLY]
    bed.end_turns()
    assert cookies(bed).keys() == {0, MANY + 1}
    for switch in bed.switches:
        switch.work()
        kinds = [Type.VENDOR] * MANY + [Type.FLOW_MOD]
        assert switch.did == kinds, "the deletions first"
        assert switch.flows.keys() == set(cookies(bed).values())
    assert bed.told() == [Type.BARRIER_REPLY, Type.ECHO_REPLY]


def test_flow_removed_are_told_while_many_flows_are_deleted(bed):
    add_many(bed)
    bed.send(of.flow_mod(OTHER))
    bed.settle()
    cookie = cookies(bed)[1]
    bed.send(of.flow_mod(of.match(dl_type=0x800), command=Command.DELETE))
    for switch in bed.switches:
        removed(bed, switch, cookie, packets=2)
    assert told(bed) == {1: 4}


def test_a_flow_that_another_controller_replaces_in_the_midst_of_it_ends_too(bed):
    """The DELETE is as if it had come after the ADD."""
    add_many(bed)
    bed.send(of.flow_mod(OTHER))
    bed.settle()
    bed.send(of.flow_mod(of.match(dl_type=0x800), command=Command.DELETE))
    bed.connection._held = False  # as if it were another connection
    bed.send(of.flow_mod(match_for(MANY), cookie=MANY + 1, flags=Flag.SEND_FLOW_REM))
    cookie = cookies(bed)[MANY + 1]
    bed.end_turns()
    assert cookies(bed).keys() == {0}
    for switch in bed.switches:
        removed(bed, switch, cookie)
    assert told(bed) == {MANY + 1: 0}


@pytest.mark.parametrize("flags", [Flag.SEND_FLOW_REM, 0])
def test_all_flows_are_deleted_at_once_and_their_ends_told_as_they_come(bed, flags):
    add_many(bed, flags=flags)
    known = cookies(bed)
    bed.send(of.flow_mod(command=Command.DELETE))
    assert len(bed.big.flows.table) == 0
    one, other = bed.switches
    for each in known.values():
        removed(bed, one, each, packets=1)
    removed(bed, other, known[MANY], packets=1)
    bed.end_turns()
    assert told(bed) == ({MANY: 2} if flags else {})
    for each in known.values():
        removed(bed, other, each, packets=1)
    assert told(bed) == (dict.fromkeys(range(1, MANY), 2) if flags else {})
    assert len(bed.big.flows.cookies) == 0 and len(bed.big.flows.removals) == 0


def test_all_flows_are_deleted_while_some_have_no_flow_removed_and_others_wait(bed):
    """What is released in slices, and what is waited for, is forgotten once."""
    add_many(bed)
    bed.send(of.flow_mod(command=Command.DELETE))
    bed.send(of.flow_mod(OTHER), of.flow_mod(match_for(1)))
    bed.send(of.flow_mod(command=Command.DELETE))
    bed.settle()
    assert len(bed.big.flows.cookies) == MANY == len(bed.big.flows.removals)
    for member in list(bed.big.topology.members.values()):
        bed.big.flows.removals.lost(member)
    bed.end_turns()
    assert len(bed.big.flows.cookies) == 0
    assert told(bed).keys() == set(range(1, MANY + 1))


def test_a_copy_that_has_ended_is_not_deleted_and_not_waited_for(bed):
    """The flows fall idle on one switch. They are deleted before the other one is asked."""
    add_many(bed, idle_timeout=10)
    for entry in bed.big.flows.table:
        entry.created = entry.first_added = entry.created - 20
    known = cookies(bed)
    one, other = bed.switches
    for each in known.values():
        removed(bed, one, each, RemovedReason.IDLE_TIMEOUT)
    bed.send(of.flow_mod(match_for(1), command=Command.DELETE_STRICT))
    assert not one.waiting
    one.did.clear()
    removed(bed, other, known[1], packets=3)
    assert told(bed) == {1: 3}
    assert struct.pack("!Q", known[1]) in other.waiting[-1]
