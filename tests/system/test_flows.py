"""The controller's flows on the switches: where they are, how many, and what changes them."""

import pytest
from lab import frames
from lab import openflow10 as of
from lab.faultbed import until
from lab.openflow10 import Port

from .look import Flow, dump, of_the_controller, rules, service_rules

A_FRAME = frames.udp()
ALL_PORTS = (1, 2, 17, 18)


def on(big_switch, dpid):
    return of_the_controller(big_switch.network.switches[dpid])


def tunnel_counts(big_switch, dpid):
    """Return how many frames came out of a switch's tunnel, by key. Discovery's frames are left
    out.
    """
    return {
        flow.match: flow.packets
        for flow in dump(big_switch.network.switches[dpid])
        if flow.table == 1 and flow.match != "tun_id=0"
    }


def crossed(big_switch, dpid, before):
    after = tunnel_counts(big_switch, dpid)
    return {key: after[key] - before[key] for key in after if after[key] != before[key]}


# ---- through the tunnel ----


@pytest.mark.parametrize(
    "source, target, dpid, key",
    [
        (1, 17, 2, "tun_id=0x1"),
        (1, 18, 2, "tun_id=0x2"),
        (2, 17, 2, "tun_id=0x1"),
        (17, 1, 1, "tun_id=0x1"),
        (18, 2, 1, "tun_id=0x2"),
    ],
)
def test_a_frame_for_a_remote_port_crosses_with_that_port_as_key(
    big_switch, source, target, dpid, key
):
    big_switch.controller.flow_mod(of.match(in_port=source), of.output(target))
    before = tunnel_counts(big_switch, dpid)
    big_switch.wires.send(source, *[A_FRAME] * 3)
    big_switch.expect({target: [A_FRAME] * 3})
    assert crossed(big_switch, dpid, before) == {key: 3}


@pytest.mark.parametrize("port, key", [(Port.FLOOD, "tun_id=0x7f"), (Port.ALL, "tun_id=0x7e")])
def test_a_flooded_frame_crosses_once_with_the_key_of_floods(big_switch, port, key):
    big_switch.controller.flow_mod(of.match(in_port=1), of.output(port))
    before = tunnel_counts(big_switch, 2)
    big_switch.wires.send(1, A_FRAME)
    big_switch.expect({2: [A_FRAME], 17: [A_FRAME], 18: [A_FRAME]})
    assert crossed(big_switch, 2, before) == {key: 1}


def test_a_local_frame_crosses_no_tunnel(big_switch):
    big_switch.controller.flow_mod(of.match(in_port=1), of.output(2))
    before = tunnel_counts(big_switch, 2)
    big_switch.wires.send(1, A_FRAME)
    big_switch.expect({2: [A_FRAME]})
    assert crossed(big_switch, 2, before) == {}


def test_a_frame_is_looked_up_once_where_it_enters(big_switch):
    """Behind the tunnel only table 1 sees the frame. The flow's copy there counts nothing."""
    big_switch.controller.flow_mod(of.match(), of.output(18))
    big_switch.wires.send(1, A_FRAME)
    big_switch.expect({18: [A_FRAME]})
    assert [flow.packets for flow in on(big_switch, 1)] == [1]
    assert [flow.packets for flow in on(big_switch, 2)] == [0]
    (flow,) = big_switch.controller.flow_stats()
    assert (flow.packet_count, flow.byte_count) == (1, 60)


TAGGED = A_FRAME[:12] + b"\x81\0\0\5" + A_FRAME[12:]


@pytest.mark.parametrize(
    "actions, expected",
    [
        ([of.output(17)] * 3, {17: [A_FRAME] * 3}),
        ([of.output(17), of.output(18), of.output(17)], {17: [A_FRAME] * 2, 18: [A_FRAME]}),
        (
            [of.output(17), of.set_vlan_vid(5), of.output(17), of.output(2), of.output(18)],
            {17: [A_FRAME, TAGGED], 2: [TAGGED], 18: [TAGGED]},
        ),
        (
            [of.output(17), of.output(Port.FLOOD), of.output(17)],
            {2: [A_FRAME], 17: [A_FRAME] * 3, 18: [A_FRAME]},
        ),
        (
            [of.output(Port.ALL), of.output(18)],
            {2: [A_FRAME], 17: [A_FRAME], 18: [A_FRAME] * 2},
        ),
    ],
)
def test_outputs_one_after_the_other(bed, actions, expected):
    bed.controller.flow_mod(of.match(in_port=1), actions)
    bed.wires.send(1, A_FRAME)
    bed.expect(expected)


@pytest.mark.parametrize("other", [18, 2, Port.FLOOD], ids=["remote", "local", "flood"])
def test_an_output_after_a_look_into_the_table(bed, other):
    """The flow that OFPP_TABLE finds also loads the tunnel's fields. The output after it must load
    its own.
    """
    bed.controller.flow_mod(of.match(in_port=1), of.output(other))
    bed.controller.packet_out(
        A_FRAME, [of.output(17), of.output(Port.TABLE), of.output(17)], in_port=1
    )
    expected = {17: [A_FRAME] * 2}
    for port in (2, 17, 18) if other == Port.FLOOD else (other,):
        expected[port] = expected.get(port, []) + [A_FRAME]
    bed.expect(expected)


def test_keys_of_queues_lead_where_they_did_and_are_given_back(make_big_switch):
    """A key keeps its rule for packets behind the end of the last flow. When nothing can use the
    key any more, its rule is removed.
    """
    big_switch = make_big_switch(3)
    controller, s2 = big_switch.controller, big_switch.network.switches[2]
    from_s1 = of.packet_out(A_FRAME, of.enqueue(17, 2), 1)
    controller.flow_mod(of.match(in_port=1), of.output(2))
    for ingress, port, queue in ((1, 17, 1), (33, 18, 1), (1, 17, 2)):
        controller.do(of.packet_out(A_FRAME, of.enqueue(port, queue), ingress))
    controller.do(from_s1)
    big_switch.settle()
    big_switch.wires.capture()
    assert rules(s2) == service_rules() | {
        "table=1 priority=32768 tun_id=0x100: enqueue:1:1",
        "table=1 priority=32768 tun_id=0x101: enqueue:2:1",
        "table=1 priority=32768 tun_id=0x102: enqueue:1:2",
    }
    clear = of.flow_mod(command=of.Command.DELETE)
    controller.send(clear + from_s1 * 3)
    controller.barrier()
    big_switch.expect({17: [A_FRAME] * 3})
    until(lambda: rules(s2) == service_rules(), "rules without queues")
    controller.do(from_s1)
    big_switch.expect({17: [A_FRAME]})


# ---- where a flow is ----


@pytest.mark.parametrize("in_port, dpid, there", [(1, 1, 1), (2, 1, 2), (17, 2, 1), (18, 2, 2)])
def test_a_flow_with_in_port_is_on_that_port_s_switch_alone(big_switch, in_port, dpid, there):
    big_switch.controller.flow_mod(of.match(in_port=in_port, dl_type=0x0800), of.output(1))
    (flow,) = on(big_switch, dpid)
    assert flow.match == f"ip,in_port={there}"
    assert on(big_switch, 3 - dpid) == []


def test_a_flow_without_in_port_is_on_every_switch(big_switch):
    big_switch.controller.flow_mod(of.match(dl_type=0x0806), of.output(2), priority=77)
    first, second = on(big_switch, 1), on(big_switch, 2)
    assert [flow.match for flow in first] == [flow.match for flow in second] == ["arp"]
    assert first[0].cookie == second[0].cookie
    assert first[0].actions == "output:2"
    assert second[0].actions == (
        "load:0x2->NXM_NX_TUN_ID[],load:0xac100001->NXM_NX_TUN_IPV4_DST[],output:3"
    )
    assert first[0].priority == second[0].priority == 77


@pytest.mark.parametrize("in_port", [3, 16, 33, 4000, 0, Port.LOCAL, Port.CONTROLLER])
def test_a_flow_for_a_port_that_is_not_there_can_be_read_back_and_deleted(big_switch, in_port):
    """An Open vSwitch bridge does the same. A flow for in_port 3, a tunnel port's number, must not
    match frames out of the tunnel.
    """
    big_switch.controller.flow_mod(of.match(in_port=in_port), of.output(18), cookie=9)
    (flow,) = big_switch.controller.flow_stats()
    assert flow.match == {"in_port": in_port} and flow.cookie == 9
    big_switch.controller.flow_mod(of.match(in_port=17), of.output(1))
    big_switch.wires.send(17, A_FRAME)
    big_switch.expect({1: [A_FRAME]})
    big_switch.controller.flow_mod(of.match(in_port=in_port), command=of.Command.DELETE_STRICT)
    assert len(big_switch.controller.flow_stats()) == 1


# ---- counters ----


def test_the_stats_of_a_flow_on_both_switches_are_the_sum(big_switch):
    big_switch.controller.flow_mod(of.match(dl_type=0x0800), of.output(18), cookie=0xC0FFEE)
    big_switch.wires.send(1, *[frames.numbered(n, 100) for n in range(3)])
    big_switch.wires.send(17, *[frames.numbered(n, 200) for n in range(2)])
    big_switch.settle()
    assert [(f.packets, f.octets) for f in on(big_switch, 1)] == [(3, 300)]
    assert [(f.packets, f.octets) for f in on(big_switch, 2)] == [(2, 400)]
    (flow,) = big_switch.controller.flow_stats()
    assert (flow.packet_count, flow.byte_count) == (5, 700)
    assert flow.cookie == 0xC0FFEE and flow.actions == of.output(18)
    assert big_switch.controller.aggregate() == of.Aggregate(5, 700, 1)


def test_port_stats_have_the_big_switch_s_numbers(big_switch):
    before = big_switch.controller.port_stats()
    assert sorted(before) == [1, 2, 17, 18]
    big_switch.controller.flow_mod(of.match(in_port=1), of.output(18))
    big_switch.wires.send(1, *[A_FRAME] * 4)
    big_switch.expect({18: [A_FRAME] * 4})
    after = big_switch.controller.port_stats()
    assert after[1].rx_packets - before[1].rx_packets == 4
    assert after[18].tx_packets - before[18].tx_packets == 4
    assert after[17].tx_packets == before[17].tx_packets
    assert big_switch.controller.port_stats(18).keys() == {18}


# ---- what a change touches ----


def history(flow: Flow):
    """What a flow would lose if it were deleted and added again."""
    return flow.rule, flow.cookie, flow.packets, flow.octets


@pytest.mark.parametrize(
    "second",
    [
        of.flow_mod(of.match(in_port=2), of.output(17)),
        of.flow_mod(of.match(in_port=1, dl_type=0x0806), of.output(17), priority=99),
        of.flow_mod(of.match(), of.output(Port.FLOOD), priority=1),
        of.flow_mod(of.match(in_port=17), b""),
        of.flow_mod(of.match(in_port=2), command=of.Command.DELETE),
        of.flow_mod(of.match(in_port=2), of.output(1), command=of.Command.MODIFY),
        of.flow_mod(of.match(), of.output(1), priority=0),
    ],
    ids=["ADD", "ADD above", "ADD flood", "ADD drop", "DELETE", "MODIFY", "ADD priority 0"],
)
def test_a_second_flow_mod_leaves_the_first_flow_alone(big_switch, second):
    """The first flow keeps its counters, duration and cookie on the switches, and for the
    controller.
    """
    big_switch.controller.flow_mod(of.match(in_port=1), of.output(18), cookie=5, priority=50)
    big_switch.wires.send(1, A_FRAME)
    big_switch.expect({18: [A_FRAME]})
    (before,) = on(big_switch, 1)
    read = big_switch.controller.flow_stats(of.match(in_port=1))[0]
    big_switch.controller.do(second)
    after = next(flow for flow in on(big_switch, 1) if flow.cookie == before.cookie)
    assert history(after) == history(before)
    assert after.duration >= before.duration
    (again,) = [f for f in big_switch.controller.flow_stats() if f.cookie == 5]
    assert again._replace(duration=0) == read._replace(duration=0)
    assert again.duration >= read.duration


def test_many_changes_leave_a_flow_alone(big_switch):
    big_switch.controller.flow_mod(of.match(in_port=1), of.output(18), cookie=5)
    big_switch.wires.send(1, A_FRAME)
    big_switch.expect({18: [A_FRAME]})
    (before,) = on(big_switch, 1)
    others = [of.match(in_port=2, dl_dst=frames.host_mac(number)) for number in range(300)]
    for command in (of.Command.ADD, of.Command.MODIFY_STRICT, of.Command.DELETE_STRICT):
        big_switch.controller.send(
            *(of.flow_mod(match, of.output(17), command=command) for match in others)
        )
        big_switch.controller.barrier()
        after = next(flow for flow in on(big_switch, 1) if flow.cookie == before.cookie)
        assert history(after) == history(before)
    assert len(on(big_switch, 1)) == 1


# ---- cookies ----


def test_the_controller_reads_its_own_cookies(big_switch):
    cookies = [0, 1, 0xDEADBEEF, 0xFFFFFFFFFFFFFFFF, 0]
    for number, cookie in enumerate(cookies):
        big_switch.controller.flow_mod(of.match(dl_vlan=number), of.output(1), cookie=cookie)
    read = {flow.match["dl_vlan"]: flow.cookie for flow in big_switch.controller.flow_stats()}
    assert read == dict(enumerate(cookies))


def test_on_the_switches_every_flow_has_a_cookie_of_its_own(big_switch):
    for number in range(5):
        big_switch.controller.flow_mod(of.match(dl_vlan=number), of.output(1), cookie=0)
    for dpid in (1, 2):
        cookies = [flow.cookie for flow in on(big_switch, dpid)]
        assert len(set(cookies)) == 5 and 0 not in cookies
    assert {flow.cookie for flow in on(big_switch, 1)} == {f.cookie for f in on(big_switch, 2)}


# ---- one change north is one change south ----


def only(changes, start):
    (line,) = changes
    assert line.startswith(start), line
    return line


def test_an_add_is_one_flow_mod_on_each_switch_concerned(big_switch, snoops):
    big_switch.controller.flow_mod(of.match(dl_type=0x0800), of.output(1))
    only(snoops[1].changes(), "OFPT_FLOW_MOD: ADD table:2 ip ")
    only(snoops[2].changes(), "OFPT_FLOW_MOD: ADD table:2 ip ")
    big_switch.controller.flow_mod(of.match(in_port=17), of.output(1))
    assert snoops[1].changes() == []
    only(snoops[2].changes(), "OFPT_FLOW_MOD: ADD table:2 in_port=1 ")


def test_a_replacing_add_is_one_flow_mod(big_switch, snoops):
    big_switch.controller.flow_mod(of.match(in_port=1), of.output(2))
    snoops[1].changes()
    big_switch.controller.flow_mod(of.match(in_port=1), of.output(18))
    only(snoops[1].changes(), "OFPT_FLOW_MOD: ADD table:2 in_port=1 ")
    assert snoops[2].changes() == []


@pytest.mark.parametrize("command", [of.Command.MODIFY, of.Command.MODIFY_STRICT])
def test_a_modify_is_one_flow_mod_by_cookie(big_switch, snoops, command):
    big_switch.controller.flow_mod(of.match(in_port=1), of.output(2))
    big_switch.controller.flow_mod(of.match(in_port=2), of.output(1))
    (cookie,) = [flow.cookie for flow in on(big_switch, 1) if flow.match == "in_port=1"]
    snoops[1].changes()
    big_switch.controller.flow_mod(of.match(in_port=1), of.output(18), command=command)
    line = only(snoops[1].changes(), "NXT_FLOW_MOD: MOD table:2 ")
    assert f"cookie:{cookie:#x}/0xffffffffffffffff" in line
    assert snoops[2].changes() == []


@pytest.mark.parametrize("command", [of.Command.DELETE, of.Command.DELETE_STRICT])
def test_a_delete_is_one_flow_mod_by_cookie(big_switch, snoops, command):
    for port in (1, 2, 17):
        big_switch.controller.flow_mod(of.match(in_port=port), of.output(18))
    (cookie,) = [flow.cookie for flow in on(big_switch, 1) if flow.match == "in_port=1"]
    snoops[1].changes(), snoops[2].changes()
    big_switch.controller.flow_mod(of.match(in_port=1), command=command)
    line = only(snoops[1].changes(), "NXT_FLOW_MOD: DEL table:2 ")
    assert f"cookie:{cookie:#x}/0xffffffffffffffff" in line
    assert snoops[2].changes() == []
    assert [flow.match for flow in on(big_switch, 1)] == ["in_port=2"]


@pytest.mark.parametrize("count", [1, 10, 100])
def test_the_cost_of_a_change_does_not_depend_on_the_table(big_switch, snoops, count):
    big_switch.controller.send(
        *(of.flow_mod(of.match(dl_dst=frames.host_mac(n)), of.output(1)) for n in range(count))
    )
    big_switch.controller.barrier()
    assert len(snoops[1].changes()) == len(snoops[2].changes()) == count
    big_switch.controller.flow_mod(of.match(in_port=1), of.output(2))
    assert len(snoops[1].changes()) == 1 and snoops[2].changes() == []


def test_what_changes_nothing_sends_nothing(big_switch, snoops):
    """Statistics requests, and flow-mods that match nothing or are refused, send no flow-mods."""
    big_switch.controller.flow_mod(of.match(in_port=1), of.output(2))
    snoops[1].changes(), snoops[2].changes()
    big_switch.controller.flow_mod(of.match(in_port=2), command=of.Command.DELETE)
    big_switch.controller.flow_stats()
    big_switch.controller.aggregate()
    assert big_switch.controller.error_for(of.flow_mod(actions=of.output(Port.NONE)))
    assert snoops[1].changes() == [] and snoops[2].changes() == []


# ---- the longest messages ----

MOST = (65535 - 72) // 8
"""How many outputs a flow-mod has room for."""


@pytest.mark.parametrize("count", [8179, 8180, MOST])
def test_a_flow_with_as_many_actions_as_there_can_be(big_switch, count):
    """A flow with 8180 actions or more does not fit into a statistics reply. Open vSwitch leaves it
    out.
    """
    big_switch.controller.flow_mod(of.match(in_port=1), of.output(2) * count)
    big_switch.controller.flow_mod(of.match(in_port=2), of.output(1), cookie=5)
    counts = sorted(len(f.actions) // 8 for f in big_switch.controller.flow_stats())
    assert counts == ([1, count] if count < 8180 else [1])
    assert big_switch.controller.aggregate().flow_count == 2
    big_switch.controller.flow_mod(of.match(in_port=1), command=of.Command.DELETE)
    assert [flow.cookie for flow in big_switch.controller.flow_stats()] == [5]


@pytest.mark.parametrize("count", [2000, 8000])
def test_many_outputs_to_a_remote_port(big_switch, count):
    """Such outputs need little more room in the switch's flow-mod than in the controller's."""
    big_switch.controller.flow_mod(of.match(in_port=1), of.output(17) * count, cookie=5)
    (flow,) = big_switch.controller.flow_stats()
    assert (flow.cookie, len(flow.actions)) == (5, 8 * count)
    assert len(on(big_switch, 1)) == 1


def test_a_flow_that_no_message_to_the_switch_has_room_for_is_refused_and_on_none(big_switch):
    """The error is OFPBAC_TOO_MANY, and the old flow stays."""
    big_switch.controller.flow_mod(of.match(), of.output(2), cookie=5)
    actions = (of.set_vlan_vid(1) + of.output(17) + of.output(18)) * (MOST // 3)
    error = big_switch.controller.error_for(of.flow_mod(of.match(), actions, cookie=6))
    assert (error.type, error.code) == (2, 7)
    (flow,) = big_switch.controller.flow_stats()
    assert (flow.cookie, flow.actions) == (5, of.output(2))
    assert len(on(big_switch, 1)) == len(on(big_switch, 2)) == 1
