"""Actions: what a packet looks like when it leaves a port, on both sides of the tunnel.

OpenFlow 1.0.0, 3.3 and 5.2.4.
"""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import frames
from lab import openflow10 as of
from lab.openflow10 import Command, Port

from .specimens import FRAMES, PORTS, examples, frame_names, tagged

UDP = frames.udp(payload=b"payload")
TAGGED = frames.udp(vlan=5, pcp=3)

SETS = {
    "vlan id 0": of.set_vlan_vid(0),
    "vlan id 7": of.set_vlan_vid(7),
    "vlan id 4095": of.set_vlan_vid(4095),
    "vlan priority 0": of.set_vlan_pcp(0),
    "vlan priority 7": of.set_vlan_pcp(7),
    "strip vlan": of.strip_vlan(),
    "ethernet source": of.set_dl_src("02:00:00:00:00:aa"),
    "ethernet source, a group": of.set_dl_src("03:00:00:00:00:aa"),
    "ethernet destination": of.set_dl_dst("02:00:00:00:00:bb"),
    "ethernet destination, lldp's": of.set_dl_dst("01:80:c2:00:00:0e"),
    "ip source": of.set_nw_src("192.0.2.1"),
    "ip destination": of.set_nw_dst("192.0.2.2"),
    "ip tos 0": of.set_nw_tos(0),
    "ip tos 0xb8": of.set_nw_tos(0xB8),
    "source port": of.set_tp_src(5555),
    "source port 0": of.set_tp_src(0),
    "destination port": of.set_tp_dst(6666),
    "destination port 0x1ff": of.set_tp_dst(0x1FF),
}
OUTPUTS = {
    **{f"port {port}": of.output(port) for port in PORTS},
    **{f"queue of port {port}": of.enqueue(port, 1) for port in PORTS},
    "in_port": of.output(Port.IN_PORT),
    "queue of in_port": of.enqueue(Port.IN_PORT, 1),
    "flood": of.output(Port.FLOOD),
    "all": of.output(Port.ALL),
    "controller": of.output(Port.CONTROLLER, 64),
    "nowhere": of.output(100),
    "port 0": of.output(0),
    "port 3": of.output(3),
}
ALL_FRAMES = list(FRAMES.values())


# ---- each action alone ----


@pytest.mark.parametrize("entry", [1, 17])
@pytest.mark.parametrize("action", SETS.values(), ids=SETS)
def test_each_set_on_every_frame(both, action, entry):
    """Outputs before the set show the original frame; outputs after it show the changed one."""
    near, far = (2, 18) if entry == 1 else (18, 2)
    actions = [of.output(near), of.output(far), action, of.output(near), of.output(far)]
    actions += [action, of.output(Port.CONTROLLER), of.output(far)]
    both.flow_mod(of.match(in_port=entry), actions, cookie=1)
    out = both.inject(entry, *ALL_FRAMES).out
    assert len(out[far]) > 3 * 100
    (flow,) = both.flows()
    assert flow.actions == b"".join(actions)


@pytest.mark.parametrize("action", OUTPUTS.values(), ids=OUTPUTS)
def test_each_output_with_every_frame(both, action):
    both.flow_mod(of.match(), action)
    for entry in PORTS:
        both.inject(entry, *ALL_FRAMES)
    (flow,) = both.flows()
    assert flow.actions == action


@pytest.mark.parametrize("entry", [2, 17])
@pytest.mark.parametrize("first", OUTPUTS.values(), ids=OUTPUTS)
def test_two_outputs_with_a_set_between(both, first, entry):
    for second in OUTPUTS.values():
        actions = [first, of.set_vlan_vid(9), second]
        both.flow_mod(of.match(), actions)
        both.inject(entry, UDP)
        both.flow_mod(of.match(), [second, first, first])
        both.inject(entry, UDP)


def test_every_set_between_outputs(both):
    """One long list of actions: after each set the frame goes to all ports, the controller and
    back.
    """
    actions = []
    for action in SETS.values():
        actions += [of.output(port) for port in (18, 1, 17, 2)]
        actions += [action, of.output(Port.CONTROLLER), of.output(Port.IN_PORT)]
    both.flow_mod(of.match(), actions)
    for port in PORTS:
        for frame in (UDP, TAGGED, frames.tcp(tos=3), frames.icmp(), frames.arp()):
            outcome = both.inject(port, frame)
            assert len(outcome.packet_ins) == len(SETS)
            assert len(outcome.out[port]) == len(SETS)
    (flow,) = both.flows()
    assert (flow.packet_count, flow.actions) == (20, b"".join(actions))


# ---- what the sets mean ----


def test_sets_hold_for_what_follows_them(both):
    both.flow_mod(
        of.match(in_port=1),
        [
            of.output(17),
            of.set_tp_dst(1),
            of.output(2),
            of.output(18),
            of.set_tp_dst(2),
            of.output(17),
            of.output(2),
        ],
    )
    plain, one, two = (frames.udp(dport=port) for port in (2000, 1, 2))
    assert both.inject(1, plain).out == {17: [plain, two], 18: [one], 2: [one, two]}


def test_sets_do_not_leak_into_the_next_packet_or_flow(both):
    both.flow_mod(of.match(in_port=1), [of.set_vlan_vid(9), of.output(17)])
    both.flow_mod(of.match(in_port=2), of.output(17))
    assert both.inject(1, UDP).out[17] != [UDP]
    assert both.inject(2, UDP).out == {17: [UDP]}


def test_repeated_outputs_repeat(both):
    both.flow_mod(of.match(in_port=1), [of.output(port) for port in (2, 17, 2, 17, 17, 18, 2)])
    assert both.inject(1, UDP).out == {2: [UDP] * 3, 17: [UDP] * 3, 18: [UDP]}
    both.flow_mod(of.match(in_port=1), [of.output(Port.FLOOD), of.output(Port.ALL), of.output(17)])
    assert both.inject(1, UDP).out == {2: [UDP] * 2, 17: [UDP] * 3, 18: [UDP] * 2}


@pytest.mark.parametrize("port", PORTS)
def test_nothing_goes_back_but_by_in_port(both, port):
    others = [other for other in PORTS if other != port]
    for actions, expected in (
        ([of.output(port)], []),
        ([of.enqueue(port, 1)], []),
        ([of.output(other) for other in PORTS], others),
        ([of.output(Port.FLOOD)], others),
        ([of.output(Port.ALL)], others),
        ([of.output(Port.IN_PORT)], [port]),
        ([of.enqueue(Port.IN_PORT, 1)], [port]),
        ([of.output(Port.ALL), of.output(Port.IN_PORT)], sorted(PORTS)),
    ):
        both.flow_mod(of.match(in_port=port), actions)
        assert both.inject(port, UDP).ports == expected
        both.flow_mod(of.match(in_port=port), command=Command.DELETE_STRICT)
        both.flow_mod(of.match(), actions)
        assert both.inject(port, UDP).ports == expected
        both.flow_mod(command=Command.DELETE)


def test_vlan_tags_survive_the_tunnel(both):
    both.flow_mod(of.match(), of.output(Port.FLOOD))
    for frame in (TAGGED, frames.udp(vlan=0, pcp=7), frames.udp(vlan=4095), tagged(5, 6, 7)):
        for port in PORTS:
            out = both.inject(port, frame).out
            assert set(out) == set(PORTS) - {port}
            assert all(got == [frame] for got in out.values())


def test_tags_are_added_changed_and_removed(both):
    both.flow_mod(
        of.match(in_port=1),
        [
            of.set_vlan_pcp(3),
            of.output(17),
            of.set_vlan_vid(5),
            of.output(17),
            of.strip_vlan(),
            of.output(17),
            of.strip_vlan(),
            of.output(17),
        ],
    )
    frame = frames.udp()
    assert both.inject(1, frame).out[17] == [
        frame[:12] + b"\x81\0\x60\0" + frame[12:],
        frame[:12] + b"\x81\0\x60\5" + frame[12:],
        frame,
        frame,
    ]


def test_frames_longer_than_ethernets(both):
    both.flow_mod(of.match(), [of.output(Port.FLOOD), of.output(Port.CONTROLLER)])
    for size in (1501, 1514, 1515, 1518, 1600, 1999, 2014):
        frame = frames.numbered(size, size)
        outcome = both.inject(1, frame)
        assert outcome.out == {2: [frame], 17: [frame], 18: [frame]}
        assert outcome.packet_ins[0].data == frame


def test_a_tag_added_to_a_long_frame(both):
    both.flow_mod(of.match(), [of.set_vlan_vid(5), of.output(2), of.output(17), of.output(18)])
    for size in (1490, 1500, 1510, 1514, 1996, 2010, 2014):
        both.inject(1, frames.numbered(size, size))
        both.inject(17, frames.numbered(size, size))


def test_controller_output_among_others(both):
    """Each output to the controller sends the packet as it is at that point of the list."""
    both.flow_mod(
        of.match(in_port=17),
        [
            of.output(Port.CONTROLLER, 0xFFFF),
            of.set_dl_dst("02:00:00:00:00:bb"),
            of.output(1),
            of.output(Port.CONTROLLER, 20),
            of.set_vlan_vid(5),
            of.output(Port.CONTROLLER, 0),
        ],
    )
    outcome = both.inject(17, UDP)
    assert outcome.ports == [1]
    assert [packet_in.reason for packet_in in outcome.packet_ins] == [1, 1, 1]
    assert [packet_in.total_len for packet_in in outcome.packet_ins] == [60, 60, 64]
    assert outcome.packet_ins[0].data == UDP


def test_padding_of_actions_is_read_back_as_zeros(both):
    pad = b"\xff"
    actions = [
        of.action(of.ActionType.SET_VLAN_VID, b"\0\5" + pad * 2),
        of.action(of.ActionType.SET_VLAN_PCP, b"\3" + pad * 3),
        of.action(of.ActionType.STRIP_VLAN, pad * 4),
        of.action(of.ActionType.SET_DL_SRC, b"\2\0\0\0\0\1" + pad * 6),
        of.action(of.ActionType.SET_DL_DST, b"\2\0\0\0\0\2" + pad * 6),
        of.action(of.ActionType.SET_NW_TOS, b"\4" + pad * 3),
        of.action(of.ActionType.SET_TP_SRC, b"\0\5" + pad * 2),
        of.action(of.ActionType.SET_TP_DST, b"\0\5" + pad * 2),
        of.action(of.ActionType.ENQUEUE, b"\0\2" + pad * 6 + b"\0\0\0\1"),
        of.action(of.ActionType.ENQUEUE, b"\0\x11" + pad * 6 + b"\0\0\0\1"),
        of.output(18, 0xFFFF),
    ]
    for number, action in enumerate(actions):
        both.flow_mod(of.match(in_port=1), action, priority=number)
    both.flow_mod(of.match(in_port=1), actions, priority=100)
    assert len(both.flows()) == len(actions) + 1
    assert both.inject(1, UDP).ports == [2, 17, 18]


# ---- TABLE, in a flow and in packet-outs ----


def test_output_to_table_in_a_flow(both):
    """OFPP_TABLE looks the packet up in the flow table as the actions before it have changed it."""
    both.flow_mod(
        of.match(in_port=1, dl_vlan=of.VLAN_NONE),
        [of.set_vlan_vid(5), of.output(Port.TABLE), of.output(18)],
        cookie=1,
    )
    outcome = both.inject(1, UDP)
    assert [packet_in.reason for packet_in in outcome.packet_ins] == [0]
    both.flow_mod(of.match(dl_vlan=5), [of.set_vlan_pcp(3), of.output(17)], cookie=2)
    assert both.inject(1, UDP).ports == [17, 18]
    both.flow_mod(of.match(in_port=1, dl_vlan=5), of.output(2), priority=0xFFFF, cookie=3)
    assert both.inject(1, UDP).ports == [2, 18]
    both.flows()


def test_a_flow_that_meets_itself(both):
    """Open vSwitch drops a packet whose lookups recurse, and all outputs before that. How often the
    flow counts the packet, and what the first lookup sends to the controller, is not compared.
    """
    for actions in ([Port.TABLE], [1, Port.TABLE, 2], [Port.TABLE, 18], [2, 18, Port.TABLE]):
        both.flow_mod(of.match(in_port=17), [of.output(port) for port in actions])
        both.flow_mod(of.match(in_port=1), of.output(18))
        both.each(lambda bed: bed.wires.send(17, UDP))
        both.each(lambda bed: bed.settle())
        both.each(lambda bed: bed.controller.packet_ins())
        assert both.inject(17, UDP) == ({}, [])
        assert both.inject(1, UDP).ports == [18]
        message = of.packet_out(UDP, [of.output(Port.TABLE)], 17)
        assert both.error(message) == "NX 1/521"
        assert both.outcome() == ({}, [])


def test_packet_out_to_table_with_changes(both):
    both.flow_mod(of.match(dl_vlan=5), [of.strip_vlan(), of.output(17)], cookie=1)
    both.flow_mod(of.match(in_port=2), [of.output(18), of.output(Port.IN_PORT)], cookie=2)
    to_table = of.output(Port.TABLE)
    assert both.packet_out(UDP, [of.set_vlan_vid(5), to_table, of.output(1)]).ports == [1, 17]
    assert both.packet_out(UDP, [to_table], 2).ports == [2, 18]
    assert both.packet_out(UDP, [to_table, to_table, of.output(17)], 2).ports == [2, 2, 17, 18, 18]
    assert both.packet_out(UDP, [of.output(17), to_table, of.output(17)], 2).ports == [
        2,
        17,
        17,
        18,
    ]
    assert len(both.packet_out(UDP, to_table, 1).packet_ins) == 1
    assert len(both.packet_out(UDP, to_table, 17).packet_ins) == 1
    assert len(both.packet_out(UDP, to_table).packet_ins) == 1
    # test_departures.py compares the bytes.
    for bed in both.beds:
        flows = bed.controller.flow_stats()
        assert {flow.cookie: flow.packet_count for flow in flows} == {1: 1, 2: 4}


# ---- Nicira actions, if they mean the same on any switch ----


def nx(subtype, body=b""):
    """Build a Nicira action, padded to a multiple of eight bytes."""
    body = struct.pack("!H", subtype) + body
    return of.vendor_action(body + bytes(-(8 + len(body)) % 8))


NXM_OF_ETH_DST, NXM_OF_ETH_SRC = 0x00000206, 0x00000406
NXM_OF_VLAN_TCI, NXM_NX_REG0, NXM_NX_REG1 = 0x00000802, 0x00010004, 0x00010204


def reg_load(field, value, bits):
    return nx(7, struct.pack("!HIQ", bits - 1, field, value))


def reg_move(source, destination, bits):
    return nx(6, struct.pack("!HHHII", bits, 0, 0, source, destination))


NICIRA = {
    "note": nx(8, b"hello, it is me"),
    "exit": nx(17),
    "decrement ttl": nx(18),
    "load a register": reg_load(NXM_NX_REG0, 0x12345678, 32),
    "load the ethernet source": reg_load(NXM_OF_ETH_SRC, 0x020000000099, 48),
    "load vlan": reg_load(NXM_OF_VLAN_TCI, 0x1005, 16),
    "move ethernet source to destination": reg_move(NXM_OF_ETH_SRC, NXM_OF_ETH_DST, 48),
    "controller": nx(20, struct.pack("!HHBx", 64, 0, 1)),
    "controller, another": nx(20, struct.pack("!HHBx", 64, 5, 1)),
    "controller, no match": nx(20, struct.pack("!HHBx", 64, 0, 0)),
    "controller, invalid ttl": nx(20, struct.pack("!HHBx", 64, 0, 2)),
    "decrement ttl, for controllers": nx(21, struct.pack("!H4xHH", 2, 0, 5)),
    "push mpls": nx(23, struct.pack("!H4x", 0x8847)),
    "pop mpls": nx(24, struct.pack("!H4x", 0x0800)),
    "push to the stack": nx(27, struct.pack("!HIHxx", 0, NXM_OF_ETH_SRC, 48)),
}


@pytest.mark.parametrize("action", NICIRA.values(), ids=NICIRA)
def test_nicira_actions_pass(both, action):
    actions = [of.output(2), of.output(18), action, of.output(2), of.output(18)]
    both.flow_mod(of.match(in_port=1, dl_type=0x800), actions)
    (flow,) = both.flows()
    assert flow.actions == b"".join(actions)
    both.inject(1, UDP, TAGGED, FRAMES["ttl 0"], FRAMES["ttl 1"])
    both.packet_out(UDP, actions, 1)
    both.packet_out(UDP, actions)
    both.flow_mod(of.match(), command=Command.DELETE, out_port=Port.CONTROLLER)
    both.flows()


def test_nicira_actions_that_need_what_the_match_does_not_say(both):
    load_ip = reg_load(0x00001004, 1, 32)  # NXM_OF_IP_DST
    assert both.error(of.flow_mod(of.match(in_port=1), load_ip)).startswith("NX ")
    both.flow_mod(of.match(dl_type=0x800), [load_ip, of.output(17)])
    assert both.inject(1, UDP).ports == [17]
    assert len(both.flows()) == 1


# Loads of fields that only some kinds of packets have, and matches that name that kind.
OF_A_KIND = {
    "ip": (reg_load(0x00001004, 1, 32), {"dl_type": 0x800}),
    "arp": (reg_load(0x00001E02, 2, 16), {"dl_type": 0x806}),
    "udp": (reg_load(0x00001802, 9, 16), {"dl_type": 0x800, "nw_proto": 17}),
    "udp6": (reg_load(0x00001802, 9, 16), {"dl_type": 0x86DD, "nw_proto": 17}),
    "icmpv6": (reg_load(0x00012C01, 1, 8), {"dl_type": 0x86DD, "nw_proto": 58}),
    "neighbour": (
        reg_load(0x00013006, 1, 48),
        {"dl_type": 0x86DD, "nw_proto": 58, "tp_src": 135, "tp_dst": 0},
    ),
    "tagged": (reg_load(0x80000E01, 1, 3), {"dl_vlan": 5}),
}


@pytest.mark.parametrize(("action", "kind"), OF_A_KIND.values(), ids=OF_A_KIND)
def test_a_modify_says_of_what_kind_the_packets_are(both, action, kind):
    """The MODIFY's own match tells the kind of packets, not the matches of the flows it
    modifies.
    """
    exact = of.match(in_port=1, **kind)
    both.flow_mod(exact, of.output(2), cookie=1)
    both.flow_mod(of.match(in_port=17, **kind), of.output(1), cookie=2)
    for match in (exact, of.match(**kind)):
        both.flow_mod(match, [action, of.output(18)], Command.MODIFY)
        both.flow_mod(match, of.output(2), Command.MODIFY)
    for names in itertools.combinations(kind, len(kind) - 1):
        less = of.match(**{name: kind[name] for name in names})
        both.error(of.flow_mod(less, [action, of.output(18)], Command.MODIFY))
        both.flows()
    both.flow_mod(exact, [action, of.output(18)], Command.MODIFY_STRICT)
    both.inject(1, *(frame for name, frame in FRAMES.items() if "vlan 5" in name or "v6" in name))
    both.inject(1, UDP, TAGGED, frames.arp(), FRAMES["udp6"], FRAMES["neighbour solicitation"])
    both.flows()


def test_padding_of_nicira_actions_is_read_back_as_zeros(both):
    pad = b"\xff"
    for number, action in enumerate(
        [
            nx(17, pad * 6),
            nx(18, pad * 6),
            nx(20, struct.pack("!HHB", 64, 0, 1) + pad),
            nx(23, struct.pack("!H", 0x8847) + pad * 4),
            nx(24, struct.pack("!H", 0x0800) + pad * 4),
            nx(25, b"\5" + pad * 5),
            nx(26, pad * 6),
            nx(30, pad * 2 + b"\0\0\0\5"),
            nx(31, b"\5" + pad * 5),
            *(nx(21, struct.pack("!H4x", ids) + pad * 8) for ids in range(6)),
            nx(21, struct.pack("!H4x", 1) + pad * 32),
            nx(21, struct.pack("!H", 1) + pad * 12),
        ]
    ):
        match = of.match(dl_type=0x8847)
        both.replies(of.flow_mod(match, [action, of.output(17), action], priority=number))
    assert len(both.flows()) == 15


def test_zeros_behind_a_reg_move_are_not_read_back(both):
    move = reg_move(NXM_OF_ETH_SRC, NXM_OF_ETH_DST, 48)
    longer = move[:2] + b"\0\x20" + move[4:] + bytes(8)
    both.flow_mod(of.match(), [longer, of.output(17), longer])
    (flow,) = both.flows()
    assert flow.actions == b"".join([move, of.output(17), move])
    both.inject(1, UDP)
    for behind in (b"\0\0\0\1\0\0\0\0", b"\1" + bytes(7), bytes(7) + b"\1"):
        both.error(of.flow_mod(of.match(in_port=1), longer[:-8] + behind))
    both.flows()


def test_nicira_actions_of_a_wrong_length(both):
    for name, action in NICIRA.items():
        if name.startswith("move"):
            continue  # test_departures.py
        longer = action[:2] + struct.pack("!H", len(action) + 8) + action[4:] + bytes(8)
        both.error(of.flow_mod(of.match(dl_type=0x800), longer))
        both.error(of.flow_mod(of.match(dl_type=0x800), action[:-8]))
    both.flows()


# ---- any actions ----

_port_numbers = st.sampled_from([*PORTS, *PORTS, 0, 3, 100, Port.IN_PORT])
_mac = st.sampled_from(["00:00:00:00:00:01", "02:00:00:00:00:99", frames.BROADCAST])
_ip = st.sampled_from(["10.0.0.1", "192.0.2.1", "255.255.255.255"])
_number = st.sampled_from([0, 80, 0x1FF, 0xFFFF])
_actions = st.one_of(
    st.builds(of.output, _port_numbers),
    st.builds(of.output, st.sampled_from(PORTS)),
    st.builds(of.output, st.sampled_from([Port.FLOOD, Port.ALL, Port.CONTROLLER]), _number),
    st.builds(of.enqueue, _port_numbers, st.sampled_from([0, 1, 0xFFFFFFFF])),
    st.builds(of.set_vlan_vid, st.sampled_from([0, 5, 4095])),
    st.builds(of.set_vlan_pcp, st.integers(0, 7)),
    st.builds(of.strip_vlan),
    st.builds(of.set_dl_src, _mac),
    st.builds(of.set_dl_dst, _mac),
    st.builds(of.set_nw_src, _ip),
    st.builds(of.set_nw_dst, _ip),
    st.builds(of.set_nw_tos, st.sampled_from([0, 4, 0xFC])),
    st.builds(of.set_tp_src, _number),
    st.builds(of.set_tp_dst, _number),
)


@examples(40)
@given(st.lists(_actions, max_size=12), st.lists(frame_names, min_size=1, max_size=4))
def test_any_actions_on_any_frames_from_any_port(both, actions, names):
    both.reset()
    both.flow_mod(of.match(), actions)
    for port in PORTS:
        both.inject(port, *(FRAMES[name] for name in names))
    for in_port in (1, 18, Port.NONE):
        both.packet_out(FRAMES[names[0]], actions, in_port)
    both.flows()
    both.ports()
