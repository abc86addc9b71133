"""Queues: their configuration, enqueue to local and remote ports, and their statistics.

OpenFlow 1.0.0, 5.2.2, 5.3.4 and 5.3.5. Errors are in test_errors.py.
"""

import itertools
import struct

import pytest
from lab import frames
from lab import openflow10 as of
from lab.openflow10 import Command, Port, Type

from .specimens import PORTS
from .test_ports import place

UDP = frames.udp()
QUEUES = {2: (0, 3, 7), 17: (0, 1, 3), 18: (0,)}
"""Queues of each port; port 1 has none. Open vSwitch adds queue 0 to a port that has queues."""


def set_queues(bed, port, queues):
    """Give a port queues (linux-htb) as an operator does."""
    switch, _ = place(bed, port)
    name = bed.wires.ports[port].name
    records = ",".join(f"{queue}=@q{queue}" for queue in queues)
    command = ["set", "port", name, "qos=@qos", "--", "--id=@qos", "create", "qos"]
    command += ["type=linux-htb", "other-config:max-rate=1000000000", f"queues={records}"]
    for queue in queues:
        command += ["--", f"--id=@q{queue}", "create", "queue"]
        command += [f"other-config:min-rate={1000000 * (queue + 1)}"]
    switch.ovs.vsctl(*command)


def clear_queues(bed):
    """Remove all queues from all ports."""
    switches = {switch for switch, _ in (place(bed, number) for number in PORTS)}
    for switch in switches:
        names = switch.ovs.vsctl("list-ports", switch.name).split()
        for name in names:
            switch.ovs.vsctl("clear", "port", name, "qos")
        switch.ovs.vsctl("--all", "destroy", "qos", "--", "--all", "destroy", "queue")


@pytest.fixture
def queues(both):
    """Both switches, with QUEUES."""
    try:
        for port, numbers in QUEUES.items():
            both.each(lambda bed, port=port, numbers=numbers: set_queues(bed, port, numbers))
        yield both
    finally:
        both.each(clear_queues)


def config_of(both, port):
    """The queues of a port in the reply to a configuration request: id -> properties."""

    def ask(bed):
        reply = bed.controller.request(
            of.message(Type.QUEUE_GET_CONFIG_REQUEST, struct.pack("!H2x", port))
        )
        assert reply.type == Type.QUEUE_GET_CONFIG_REPLY
        number, rest = struct.unpack_from("!H6x", reply.body)[0], reply.body[8:]
        found = {}
        while rest:
            queue, length = struct.unpack_from("!IH", rest)
            found[queue] = rest[8:length]
            rest = rest[length:]
        return number, found

    return both.same(ask, f"queue configuration of {port}")


def test_configuration_without_queues(both):
    for port in PORTS:
        assert config_of(both, port) == (port, {})


def test_configuration_of_real_queues(queues):
    for port in PORTS:
        assert set(config_of(queues, port)[1]) == set(QUEUES.get(port, ()))


def test_queues_that_come_and_go_are_seen_at_once(both):
    for port in (2, 17):
        assert config_of(both, port) == (port, {})
        try:
            both.each(lambda bed, port=port: set_queues(bed, port, (5,)))
            assert set(config_of(both, port)[1]) == {0, 5}
        finally:
            both.each(clear_queues)
        assert config_of(both, port) == (port, {})


def statistics(both, port, queue):
    """{(port, queue): counters}, or the error's type and code."""

    def ask(bed):
        reply = bed.controller.request(
            of.stats_request(of.Stats.QUEUE, struct.pack("!H2xI", port, queue))
        )
        if reply.type == Type.ERROR:
            return of.unpack_error(reply.body)[:2]
        entries = of.unpack_queue_stats(reply.body[4:])
        return {(entry.port_no, entry.queue_id) for entry in entries}

    return both.same(ask, f"queue statistics of {port:#x}, {queue:#x}")


def test_statistics_of_one_all_and_no_queue(queues):
    everything = {(port, queue) for port, numbers in QUEUES.items() for queue in numbers}
    assert statistics(queues, Port.ALL, 0xFFFFFFFF) == everything
    assert statistics(queues, 17, 3) == {(17, 3)}
    assert statistics(queues, Port.ALL, 3) == {(2, 3), (17, 3)}
    for port, queue in itertools.product(
        (*PORTS, Port.ALL, Port.NONE, 3, 19), (0, 1, 3, 5, 7, 0xFFFFFFFF)
    ):
        statistics(queues, port, queue)


@pytest.mark.parametrize("entry", PORTS)
def test_enqueue_to_near_and_far_queues(queues, entry):
    """Queues that exist and queues that do not: frames come out in both cases."""
    both = queues
    for port in PORTS:
        for queue in (0, 1, 3, 7, 9, 0xFFFFFFFF):
            both.flow_mod(of.match(in_port=entry), of.enqueue(port, queue), cookie=queue)
            outcome = both.inject(entry, UDP)
            assert outcome.ports == ([port] if port != entry else [])
            both.packet_out(UDP, of.enqueue(port, queue), entry)
            both.packet_out(UDP, of.enqueue(port, queue))
    (flow,) = both.flows()
    assert flow.actions == of.enqueue(18, 0xFFFFFFFF)


def test_many_queues_of_one_port(both):
    """Each of these queues needs a tunnel key of its own."""
    for queue in range(300):
        both.send(of.flow_mod(of.match(dl_vlan=queue), of.enqueue(17, queue), cookie=queue))
    both.barrier()
    for queue in (0, 1, 100, 255, 256, 299):
        frame = frames.udp(vlan=queue)
        assert both.inject(1, frame).out == {17: [frame]}
        assert both.inject(18, frame).out == {17: [frame]}
    both.flow_mod(command=Command.DELETE, out_port=17)
    assert both.flows() == []
    both.flow_mod(of.match(), of.enqueue(17, 5))
    assert both.inject(2, UDP).out == {17: [UDP]}


def test_a_packet_out_meets_a_flow_to_a_far_queue_that_has_just_come(both):
    """The rule for the queue is new on the remote switch, and no barrier separates the two
    messages.
    """
    to_table = of.packet_out(UDP, of.output(Port.TABLE), 1)
    both.send(to_table)
    for queue in range(100, 200):
        both.send(of.flow_mod(of.match(in_port=1), of.enqueue(17, queue)) + to_table)
        both.barrier()
    outcome = both.outcome()
    assert (outcome.ports, len(outcome.packet_ins)) == ([17] * 100, 1)


def test_enqueue_among_other_actions(queues):
    both = queues
    both.flow_mod(
        of.match(),
        [
            of.enqueue(17, 3),
            of.set_vlan_vid(5),
            of.enqueue(2, 7),
            of.output(17),
            of.strip_vlan(),
            of.enqueue(17, 1),
            of.output(18),
            of.enqueue(18, 0),
            of.enqueue(Port.IN_PORT, 3),
            of.enqueue(100, 3),
            of.output(Port.FLOOD),
        ],
    )
    for entry in PORTS:
        both.inject(entry, UDP)


def test_the_queue_is_the_frames_only_in_enqueue(queues):
    """A plain output after an enqueue uses no queue: the queue counters are equal."""
    both = queues

    def count(bed):
        return {
            (entry.port_no, entry.queue_id): (entry.tx_packets, entry.tx_bytes, entry.tx_errors)
            for entry in bed.controller.queue_stats()
        }

    before = {bed: count(bed) for bed in both.beds}
    both.flow_mod(of.match(), [of.enqueue(17, 3), of.output(17), of.enqueue(2, 7), of.output(2)])
    both.inject(1, UDP, UDP)
    both.inject(18, UDP)

    def difference(bed):
        return {
            key: tuple(after - earlier for after, earlier in zip(counters, before[bed][key]))
            for key, counters in count(bed).items()
        }

    both.same(difference, "queue counters")
