"""Matches and actions as text: the same text as ovs-ofctl prints."""

import random
import struct
import subprocess

import pox.openflow.libopenflow_01 as of
import pytest

from edge.openflow import actions as act
from edge.openflow import flowmods
from edge.openflow import match as matches
from edge.openflow import nicira as nx
from edge.openflow.text import actions_text, match_text, nxm_text

PORTS = [1, 17, 0xFEFF, of.OFPP_LOCAL, of.OFPP_CONTROLLER]
OFP_MATCH = struct.Struct("!LH6s6sHBxHBB2xLLHH")


def printed(messages, tmp_path):
    """Return the text that ovs-ofctl prints for each of these flow-mods."""
    file = tmp_path / "messages"
    file.write_bytes(b"".join(messages))
    done = subprocess.run(
        ["ovs-ofctl", "ofp-parse", str(file)], capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(("OFPT_", "NXT_"))]
    return [line.partition(": ADD ")[2] for line in lines]


def any_match(draw):
    """Return the 40 bytes of an ofp_match. Each field has few values, so that mainly the
    combination of fields varies.
    """
    wildcards = draw.getrandbits(22)
    for shift in (of.OFPFW_NW_SRC_SHIFT, of.OFPFW_NW_DST_SHIFT):
        wildcards = wildcards & ~(0x3F << shift) | draw.choice((0, 1, 8, 24, 31, 32)) << shift
    return OFP_MATCH.pack(
        wildcards,
        draw.choice(PORTS),
        bytes(draw.getrandbits(8) for _ in range(6)),
        bytes(draw.getrandbits(8) for _ in range(6)),
        draw.choice((0, 5, 4095, 0xFFFF)),
        draw.choice((0, 3, 7)),
        draw.choice((0x0800, 0x0800, 0x86DD, 0x0806, 0x8035, 0x8847, 0x8848, 0x05FF, 0x88CC)),
        draw.choice((0, 0x20, 0xB8)),
        draw.choice((0, 1, 2, 6, 17, 47, 58, 132)),
        draw.getrandbits(32),
        draw.getrandbits(32),
        draw.choice((0, 8, 80, 65535)),
        draw.choice((0, 3, 443)),
    )


def test_matches_read_as_ovs_ofctl_prints_them(tmp_path):
    draw = random.Random(20)
    wires = [matches.parse(any_match(draw)) for _ in range(3000)]
    wires.append(matches.ANY)
    messages = [flowmods.add_flow(1, 0, m.south, 0, 0, 0, 7, 0, act.output(1)) for m in wires]
    lines = printed(messages, tmp_path)
    assert len(lines) == len(messages)
    for match, line in zip(wires, lines):
        assert line == line_with(match_text(match.wire))


def line_with(match):
    return ",".join(filter(None, ("priority=7", match))) + " actions=output:1"


def nxm(*entries):
    return b"".join(struct.pack("!L", header) + bytes.fromhex(body) for header, body in entries)


IP = (0x00000602, "0800")
NXM_MATCHES = [
    (nxm(), ""),
    (nxm((nx.NXM_OF_IN_PORT, "0001")), "in_port=1"),
    (nxm((nx.NXM_OF_IN_PORT, "fffe")), "in_port=LOCAL"),
    (nxm((nx.NXM_NX_TUN_ID, "000000000000007f")), "tun_id=0x7f"),
    (nxm((nx.NXM_NX_TUN_IPV4_DST, "ac100001")), "tun_dst=172.16.0.1"),
    (nxm((0x00000406, "0200000000fe")), "dl_src=02:00:00:00:00:fe"),
    (nxm((0x0000030C, "010000000000ffffff000000")), "dl_dst=01:00:00:00:00:00/ff:ff:ff:00:00:00"),
    (nxm((0x00000802, "0000")), "vlan_tci=0x0000"),
    (nxm((0x00000904, "10051fff")), "dl_vlan=5"),
    (nxm((0x00000904, "7000f000")), "dl_vlan_pcp=3"),
    (nxm((0x00000802, "f005")), "dl_vlan=5,dl_vlan_pcp=7"),
    (nxm((0x00000904, "10001000")), "vlan_tci=0x1000/0x1000"),
    (nxm(IP, (0x00000A01, "b8")), "ip,nw_tos=184"),
    (nxm(IP, (0x00000C01, "06"), (0x00001402, "0050")), "tcp,tp_dst=80"),
    (nxm(IP, (0x00000C01, "11"), (0x00001602, "0035")), "udp,tp_src=53"),
    (nxm(IP, (0x00000C01, "01"), (0x00001A01, "08")), "icmp,icmp_type=8"),
    (nxm(IP, (0x00000C01, "2f")), "ip,nw_proto=47"),
    (nxm(IP, (0x00000F08, "0a000000ff000000")), "ip,nw_src=10.0.0.0/8"),
    (nxm((0x00000602, "0806"), (0x00001E02, "0001"), (0x00002204, "0a000001")),
     "arp,arp_tpa=10.0.0.1,arp_op=1"),
    (nxm((0x00000602, "86dd"), (0x00000C01, "3a"), (0x00012A01, "87")), "icmp6,icmp_type=135"),
    (nxm((0x00000602, "88cc")), "dl_type=0x88cc"),
]  # fmt: skip


@pytest.mark.parametrize(("match", "text"), NXM_MATCHES, ids=[text for _, text in NXM_MATCHES])
def test_nxm_matches_read_as_ovs_ofctl_prints_them(match, text, tmp_path):
    message = flowmods.nicira_flow_mod(1, of.OFPFC_ADD, 0, match, 0, 7, act.output(1))
    assert nxm_text(match) == text
    assert printed([message], tmp_path) == [line_with(text)]


def standard(kind, body):
    body += bytes(-(len(body) + 4) % 8)
    return struct.pack("!HH", kind, 4 + len(body)) + body


def nicira(subtype, body=b""):
    body = struct.pack("!LH", nx.NX_VENDOR_ID, subtype) + body
    return standard(of.OFPAT_VENDOR, body)


ACTIONS = [
    *(act.output(port) for port in (1, 0xFEFF, 0xFFFE, 0xFFF8, 0xFFF9, 0xFFFA, 0xFFFB)),
    act.output(of.OFPP_ALL),
    act.output(of.OFPP_CONTROLLER, 0),
    act.output(of.OFPP_CONTROLLER, 128),
    act.output(of.OFPP_CONTROLLER, 0xFFFF),
    act.enqueue(3, 4),
    act.enqueue(of.OFPP_IN_PORT, 0),
    act.resubmit(2),
    act.load_tunnel_key(0x7F),
    act.load_tunnel_destination(0xAC100001),
    standard(of.OFPAT_SET_VLAN_VID, struct.pack("!H", 5)),
    standard(of.OFPAT_SET_VLAN_PCP, b"\x03"),
    standard(of.OFPAT_STRIP_VLAN, b""),
    standard(of.OFPAT_SET_DL_SRC, b"\x02\0\0\0\0\x01"),
    standard(of.OFPAT_SET_DL_DST, b"\x02\0\0\0\0\x02"),
    standard(of.OFPAT_SET_NW_SRC, b"\x0a\0\0\x01"),
    standard(of.OFPAT_SET_NW_DST, b"\x0a\0\0\x02"),
    standard(of.OFPAT_SET_NW_TOS, b"\xb8"),
    standard(of.OFPAT_SET_TP_SRC, struct.pack("!H", 80)),
    standard(of.OFPAT_SET_TP_DST, struct.pack("!H", 443)),
    nicira(nx.NXAST_REG_MOVE, struct.pack("!HHHLL", 16, 0, 16, 0x00010004, 0x00010204)),
    nicira(nx.NXAST_REG_MOVE, struct.pack("!HHHLL", 32, 0, 0, 0x00010004, 0x00010204)),
    nicira(nx.NXAST_REG_LOAD, struct.pack("!HLQ", 4 << 6 | 3, 0x00010004, 5)),
    nicira(nx.NXAST_REG_LOAD, struct.pack("!HLQ", 4 << 6, 0x00010004, 1)),
    nicira(nx.NXAST_NOTE, b"\1\2\3\4\5\6"),
    nicira(nx.NXAST_EXIT),
    nicira(nx.NXAST_DEC_TTL),
    nicira(nx.NXAST_DEC_TTL_CNT_IDS, struct.pack("!H4xHH", 2, 1, 2)),
    nicira(nx.NXAST_CONTROLLER, struct.pack("!HHBx", 128, 5, of.OFPR_NO_MATCH)),
    nicira(nx.NXAST_CONTROLLER, struct.pack("!HHBx", 128, 0, of.OFPR_ACTION)),
    nicira(nx.NXAST_CONTROLLER, struct.pack("!HHBx", 0xFFFF, 0, of.OFPR_ACTION)),
    nicira(nx.NXAST_PUSH_MPLS, struct.pack("!H", 0x8847)),
    nicira(nx.NXAST_POP_MPLS, struct.pack("!H", 0x0800)),
    nicira(nx.NXAST_SET_MPLS_TTL, b"\x05"),
    nicira(nx.NXAST_DEC_MPLS_TTL),
    nicira(nx.NXAST_STACK_PUSH, struct.pack("!HLH", 0, 0x00010004, 32)),
    nicira(nx.NXAST_STACK_POP, struct.pack("!HLH", 8, 0x00010204, 8)),
    nicira(nx.NXAST_SET_MPLS_LABEL, struct.pack("!2xL", 5)),
    nicira(nx.NXAST_SET_MPLS_TC, b"\x03"),
]


def test_actions_read_as_ovs_ofctl_prints_them(tmp_path):
    several = b"".join(ACTIONS[:3])
    every = [*ACTIONS, several, b""]
    messages = [flowmods.add_flow(1, 0, matches.ANY.south, 0, 0, 0, 7, 0, each) for each in every]
    lines = printed(messages, tmp_path)
    assert [f"priority=7 actions={actions_text(each)}" for each in every] == lines


@pytest.mark.parametrize(
    "raw",
    [
        b"\0",
        b"\0\0\0\0",
        b"\0\0\0\x08\0",
        bytes.fromhex("0063000800000000"),
        nicira(999),
        nicira(nx.NXAST_REG_LOAD),
        nicira(nx.NXAST_DEC_TTL_CNT_IDS, struct.pack("!H", 0xFFFF)),
        b"\xff\xff\0\x08\0\0\0\x01",
        struct.pack("!HH", of.OFPAT_SET_NW_SRC, 4),
    ],
    ids=lambda raw: raw.hex(),
)
def test_bytes_that_are_no_actions_are_shown_in_hexadecimal(raw):
    assert actions_text(raw) == f"unknown:{raw.hex()}"


def test_no_bytes_make_it_raise():
    draw = random.Random(3)
    for _ in range(3000):
        raw = bytes(draw.choice((0, 0, 1, 2, 8, 16, 255, draw.getrandbits(8))) for _ in range(48))
        length = draw.randrange(48)
        assert isinstance(actions_text(raw[:length]), str)
        assert isinstance(nxm_text(raw[:length]), str)
        assert isinstance(match_text(raw[:40]), str)
