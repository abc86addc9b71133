"""Several controllers at the same time, with and without roles, as on a plain bridge with two."""

import struct

import pytest
from differential.both import anonymous, error_name
from lab import frames
from lab import openflow10 as of
from lab.controller import Connection
from lab.openflow10 import Port, PortConfig, Type

from .ofctl import PORT
from .told import each_of, flap, kinds

ROLE_REQUEST, ROLE_REPLY = 10, 11
OTHER, MASTER, SLAVE = range(3)
ROLES = ("other", "master", "slave")


def role_request(role, body="!III"):
    """Build an NXT_ROLE_REQUEST.

    body: its struct format, to give it a wrong length.
    """
    fields = (of.NX_VENDOR, ROLE_REQUEST, role)[: body.count("I")]
    return of.message(Type.VENDOR, struct.pack(body, *fields))


def take_role(connection, role):
    """Ask for a role; return the answer's body."""
    reply = connection.request(role_request(role))
    assert reply.type == Type.VENDOR, reply
    return struct.unpack("!III", reply.body)


def error_of(connection, message):
    """Return the name of the error that answers a message, or None."""
    error = connection.error_for(message)
    return error and error_name(error)


@pytest.fixture
def two(managed):
    """Both beds. At the end their controllers have the role "other" again."""
    yield managed
    for bed in managed.beds:
        for each in each_of(bed):
            take_role(each, OTHER)


# ---- without roles ----


def test_both_get_all_asynchronous_messages(two):
    def ask(bed):
        bed.wires.send(1, frames.udp())
        bed.settle()
        first, second = each_of(bed)
        first.flow_mod(of.match(in_port=1), [of.output(17)], cookie=7, flags=of.Flag.SEND_FLOW_REM)
        bed.wires.send(1, frames.udp())
        bed.settle()
        second.flow_mod(of.match(in_port=1), command=of.Command.DELETE)
        statuses = flap(bed, 18)
        told = []
        for each, status in zip(each_of(bed), statuses):
            removed = of.unpack_flow_removed(each.expect(Type.FLOW_REMOVED).body)
            told.append(
                (
                    each.packet_ins(),
                    removed[:4] + removed[-2:],
                    [(each.reason, anonymous(each.port)) for each in status],
                    [str(message) for message in each.take()],
                )
            )
        return told

    first, second = two.same(ask)
    assert first == second
    assert len(first[0]) == 1 and first[-1] == []


def test_both_change_the_same_table(two):
    def ask(bed):
        first, second = each_of(bed)
        first.flow_mod(of.match(in_port=1), [of.output(2)], cookie=1)
        second.flow_mod(of.match(in_port=2), [of.output(17)], cookie=2)
        second.flow_mod(of.match(in_port=1), [of.output(18)], of.Command.MODIFY, cookie=3)
        first.flow_mod(of.match(in_port=2), command=of.Command.DELETE)
        flows = [
            [(flow.match, flow.actions, flow.cookie) for flow in each.flow_stats()]
            for each in each_of(bed)
        ]
        bed.wires.send(1, frames.udp())
        return flows, bed.wires.capture()

    (first, second), out = two.same(ask)
    assert first == second and len(first) == 1
    assert out == {18: [frames.udp()]}


def test_a_long_table_is_read_while_the_other_changes_it(two):
    """The other controller replaces half of the flows and deletes the rest. The reply has each flow
    that stays exactly once.
    """
    count = 3000
    match_of = {number: of.match(dl_src=frames.host_mac(number)) for number in range(count)}

    def flow_mods(numbers, cookie, command=of.Command.ADD):
        return b"".join(
            of.flow_mod(match_of[number], of.output(2), command, cookie=number + cookie)
            for number in numbers
        )

    def ask(bed):
        reader, writer = each_of(bed)
        writer.send(flow_mods(range(count), 0))
        writer.barrier(timeout=60)
        xid = reader.new_xid()
        reader.send(of.stats_request(of.Stats.FLOW, of.flow_stats_body(), xid=xid))
        for start in range(0, count, 100):
            writer.send(
                flow_mods(range(start, start + 100, 2), count)
                + flow_mods(range(start + 1, start + 100, 2), 0, of.Command.DELETE_STRICT)
            )
        reader.barrier(timeout=60)
        bodies = [reply.body[4:] for reply in reader.take(where=lambda reply: reply.xid == xid)]
        read = [flow.cookie for flow in of.unpack_flow_stats(b"".join(bodies))]
        writer.barrier(timeout=60)
        left = sorted(flow.cookie for flow in reader.flow_stats())
        writer.do(of.flow_mod(command=of.Command.DELETE))
        numbers = [cookie % count for cookie in read]
        return set(numbers) >= set(range(0, count, 2)), len(numbers) == len(set(numbers)), left

    complete, once, left = two.same(ask)
    assert complete and once
    assert left == list(range(count, 2 * count, 2))


def test_flows_that_are_replaced_while_a_long_table_is_read(two):
    """Some flows are younger than the reply's first part. The reply ends all the same."""
    count, some = 6000, 100
    flow_mods = [
        of.flow_mod(of.match(dl_src=frames.host_mac(number)), of.output(2), cookie=number)
        for number in range(count)
    ]

    def ask(bed):
        reader, writer = each_of(bed)
        writer.send(b"".join(flow_mods))
        writer.barrier(timeout=60)
        reader.send(of.stats_request(of.Stats.FLOW, of.flow_stats_body()))
        writer.send(b"".join(flow_mods[-some:]) * 50)
        bodies = []
        while not bodies or bodies[-1][3] & of.Stats.REPLY_MORE:
            bodies.append(reader.expect(of.Type.STATS_REPLY, timeout=30).body)
        read = of.unpack_flow_stats(b"".join(body[4:] for body in bodies))
        writer.barrier(timeout=60)
        writer.do(of.flow_mod(command=of.Command.DELETE))
        return sorted(flow.cookie for flow in read), max(flow.duration for flow in read) < 60

    cookies, recent = two.same(ask)
    assert cookies == list(range(count))
    assert recent


def test_replies_and_errors_come_to_who_asked(two):
    def ask(bed):
        first, second = each_of(bed)
        errors = [
            error_of(first, of.flow_mod(actions=[of.output(Port.NONE)])),
            error_of(first, of.stats_request(99)),
            error_of(first, of.port_mod(99, "00:00:00:00:00:01")),
        ]
        first.description()
        second.barrier()
        return errors, second.take()

    errors, others = two.same(ask)
    assert errors == ["BAD_ACTION/BAD_OUT_PORT", "BAD_REQUEST/BAD_STAT", "PORT_MOD_FAILED/BAD_PORT"]
    assert others == []


@pytest.mark.parametrize("bit", ["NO_FLOOD", "NO_FWD", "NO_RECV", "NO_PACKET_IN", "NO_STP"])
@pytest.mark.parametrize("asker", [0, 1])
def test_a_port_mod_is_told_to_the_other(two, bit, asker):
    mask = getattr(PortConfig, bit)

    def ask(bed):
        told = []
        for config in (mask, mask, 0):  # the second port-mod changes nothing
            address = bed.controller.features().ports[17].hw_addr
            each_of(bed)[asker].do(of.port_mod(17, address, config, mask))
            bed.settle()
            for each in each_of(bed):
                each.barrier()
                statuses = [of.unpack_port_status(m.body) for m in each.take(Type.PORT_STATUS)]
                told.append([(s.reason, anonymous(s.port)) for s in statuses])
        return told

    told = two.same(ask)
    counts = [len(each) for each in told]
    assert counts == ([0, 1, 0, 0, 0, 1] if asker == 0 else [1, 0, 0, 0, 1, 0])


def test_a_port_that_is_shut_down_is_told_to_both(two):
    """The device goes down too. Both controllers get that port-status; the one that did not send
    the port-mod gets another before it.
    """

    def ask(bed):
        address = bed.controller.features().ports[17].hw_addr
        told = []
        for config, state in ((PortConfig.PORT_DOWN, of.LINK_DOWN), (0, 0)):
            bed.others[0].do(of.port_mod(17, address, config, PortConfig.PORT_DOWN))
            for each in each_of(bed):
                statuses = []
                while not statuses or statuses[-1].state != state:
                    message = each.expect(Type.PORT_STATUS)
                    statuses.append(of.unpack_port_status(message.body).port)
                told.append([(s.config, s.state) for s in statuses])
        return told

    assert two.same(ask) == [[(1, 0), (1, 1)], [(1, 1)], [(0, 1), (0, 0)], [(0, 0)]]


def test_barriers_of_both_at_once(two):
    """Each controller gets its own barrier replies, and behind them the reply to its last
    request.
    """

    def ask(bed):
        for index, each in enumerate(each_of(bed)):
            each.send(
                *(
                    message
                    for n in range(50)
                    for message in (
                        of.flow_mod(of.match(in_port=index, dl_vlan=n), [of.output(2)], xid=n),
                        of.message(Type.BARRIER_REQUEST, xid=100 + n),
                    )
                ),
                of.stats_request(
                    of.Stats.AGGREGATE, of.flow_stats_body(of.match(in_port=index)), xid=7
                ),
            )
        answers = []
        for each in each_of(bed):
            counted = each.expect(Type.STATS_REPLY)
            answers.append(
                (
                    [(m.type, m.xid) for m in each.take()],
                    of.unpack_aggregate(counted.body[4:]).flow_count,
                )
            )
        return answers

    barriers = [(Type.BARRIER_REPLY, 100 + n) for n in range(50)]
    assert two.same(ask) == [(barriers, 50)] * 2


# ---- roles ----


def test_roles_are_answered(two):
    def ask(bed):
        first, second = each_of(bed)
        replies = [
            take_role(each, role) for role in (SLAVE, MASTER, OTHER) for each in (first, second)
        ]
        bad = [
            error_of(first, role_request(3)),
            error_of(first, role_request(0xFFFFFFFF)),
            error_of(first, role_request(0, "!II")),
            error_of(first, role_request(0, "!III4x")),
        ]
        return replies, bad

    replies, bad = two.same(ask)
    assert replies == [
        (of.NX_VENDOR, ROLE_REPLY, role) for role in (SLAVE, MASTER, OTHER) for _ in range(2)
    ]
    assert bad == ["NX 1/513", "NX 1/513", "BAD_REQUEST/BAD_LEN", "BAD_REQUEST/BAD_LEN"]


@pytest.mark.parametrize("second", [OTHER, MASTER, SLAVE], ids=ROLES.__getitem__)
@pytest.mark.parametrize("first", [OTHER, MASTER, SLAVE], ids=ROLES.__getitem__)
def test_what_each_role_may_do_and_is_told(two, first, second):
    """One controller takes its role, then the other does. Then both send the same messages."""

    def ask(bed):
        one, other = each_of(bed)
        take_role(one, first)
        take_role(other, second)
        result = []
        for number, each in enumerate((one, other)):
            match = of.match(in_port=1, dl_vlan=number)
            address = each.features().ports[17].hw_addr
            config = PortConfig.NO_STP * (1 - number)
            result.append(
                [
                    error_of(each, of.flow_mod(match, [of.output(2)], flags=1)),
                    error_of(each, of.flow_mod(match, [of.output(0xFF05)])),
                    error_of(each, of.flow_mod(match, command=9)),
                    error_of(each, of.packet_out(frames.udp(), [of.output(18)])),
                    error_of(each, of.port_mod(17, address, config, PortConfig.NO_STP)),
                    error_of(each, of.port_mod(99, address)),
                    error_of(each, of.set_config(miss_send_len=100)),
                    error_of(each, of.stats_request(of.Stats.DESC)),
                    error_of(each, of.message(Type.QUEUE_GET_CONFIG_REQUEST, b"\0\x01\0\0")),
                    len(each.flow_stats()),
                ]
            )
        for each in (one, other):
            kinds(each)
        out = bed.wires.capture()
        bed.wires.send(17, frames.arp())
        statuses = flap(bed, 18)
        deleted = [error_of(each, of.flow_mod(command=of.Command.DELETE)) for each in (other, one)]
        bed.settle()
        told = [kinds(each) for each in (one, other)]
        return result, out, deleted, told, [len(each) for each in statuses]

    result, out, deleted, told, statuses = two.same(ask)
    demoted = first == MASTER and second == MASTER
    slaves = [first == SLAVE or demoted, second == SLAVE]
    for slave, errors in zip(slaves, result):
        assert (errors[0] == "BAD_REQUEST/EPERM") == slave, errors
    assert statuses[0] == statuses[1] >= 2
    assert len(out.get(18, [])) == slaves.count(False)
    for slave, messages in zip(slaves, told):
        assert ("PACKET_IN" in messages) != slave, messages


def test_a_slave_is_told_of_a_wrong_length_first(two):
    """A message of the right length is refused without a look at its content."""
    lengths = {
        Type.FLOW_MOD: (64, 65, 72),
        Type.PACKET_OUT: (0, 7, 8),
        Type.PORT_MOD: (16, 24, 32),
    }

    def ask(bed):
        take_role(bed.controller, SLAVE)
        return {
            (kind, length): error_of(bed.controller, of.message(kind, b"\xff" * length))
            for kind in lengths
            for length in lengths[kind]
        }

    errors = two.same(ask)
    assert [key for key, error in errors.items() if error == "BAD_REQUEST/EPERM"] == [
        (Type.FLOW_MOD, 64),
        (Type.FLOW_MOD, 72),
        (Type.PACKET_OUT, 8),
        (Type.PORT_MOD, 24),
    ]
    assert list(errors.values()).count("BAD_REQUEST/BAD_LEN") == 5


def test_a_role_ends_with_the_connection(two):
    """A controller that reconnects has no role. When the master leaves, slaves stay slaves."""

    def ask(bed):
        first, second = each_of(bed)
        take_role(second, SLAVE)
        take_role(first, MASTER)
        second.connection.close()
        second.wait_for_connection(len(second.connections) + 1)
        may = error_of(second, of.flow_mod(of.match(in_port=1), [of.output(2)]))
        take_role(second, SLAVE)
        first.connection.close()
        first.wait_for_connection(len(first.connections) + 1)
        may_not = error_of(second, of.flow_mod(of.match(in_port=2), [of.output(1)]))
        return may, may_not, len(first.flow_stats())

    assert two.same(ask) == (None, "BAD_REQUEST/EPERM", 1)


def test_a_management_connection_may_be_master(two):
    def ask(bed):
        first, second = each_of(bed)
        take_role(first, MASTER)
        client = Connection.open(bed.wires.outer, PORT)
        client.do(of.set_config(miss_send_len=128))
        take_role(client, MASTER)
        change = of.flow_mod(of.match(in_port=1), [of.output(2)])
        may = [error_of(each, change) for each in (first, second, client)]
        bed.wires.send(18, frames.udp())
        bed.settle()
        client.barrier()
        told = [len(each.packet_ins()) for each in (first, second, client)]
        take_role(client, SLAVE)
        may += [error_of(client, change)]
        bed.wires.send(18, frames.udp())
        bed.settle()
        client.barrier()
        told += [len(each.packet_ins()) for each in (first, second, client)]
        client.close()
        return may, told

    may, told = two.same(ask)
    assert may == ["BAD_REQUEST/EPERM", None, None, "BAD_REQUEST/EPERM"]
    assert told == [0, 1, 1, 0, 1, 0]


# ---- a controller that is not there ----


def test_one_that_is_down_does_not_matter_to_the_other(make_big_switch):
    """One controller goes, and the other goes on with everything. The first comes back and sees the
    current state.
    """
    bed = make_big_switch(controllers=3, options=["--max_retry_delay=1"])
    bed.others[1].close()
    first, second = bed.controller, bed.others[0]
    second.flow_mod(of.match(in_port=2), [of.output(18)])
    second.close()
    bed.aggregator.wait_for_log(rf"{second.port}: connection closed")
    first.flow_mod(of.match(in_port=1), [of.output(17)], flags=of.Flag.SEND_FLOW_REM)
    bed.wires.send(1, frames.udp())
    bed.wires.send(2, frames.arp())
    bed.wires.send(17, frames.arp())
    bed.expect(
        {17: [frames.udp()], 18: [frames.arp()]},
        [of.PacketIn(of.NO_BUFFER, 60, 17, of.PacketInReason.NO_MATCH, frames.arp())],
    )
    first.flow_mod(of.match(in_port=1), command=of.Command.DELETE)
    first.expect(Type.FLOW_REMOVED)
    second.listen()
    second.wait_for_connection(2)
    assert len(second.flow_stats()) == 1
    second.flow_mod(command=of.Command.DELETE)
    assert first.flow_stats() == []


def test_each_is_connected_to_for_itself(make_big_switch):
    """A controller that refuses connections and one that sends no hello delay no other."""
    bed = make_big_switch(controllers=3, ready=False)
    refusing, silent, third = bed.controller, *bed.others
    refusing.refuse()
    silent.hello = None
    third.wait_until_connected()
    third.barrier()
    assert not [each for each in silent.connections if each.closed]
