"""Matches in the normal form of Open vSwitch."""

import re
import shutil
import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import frames
from lab import openflow10 as of

from edge.openflow import match as matches

from . import reference
from .match_pairs import PAIRS, ofp
from .strategies import any_match, frame_and_fields


def identity(match):
    """What distinguishes two flows of one priority."""
    return match.value, match.mask


# ---- the normal form ----


@pytest.mark.parametrize("sent, reported", [pair[1:] for pair in PAIRS], ids=[p[0] for p in PAIRS])
def test_a_match_is_reported_as_open_vswitch_reports_it(sent, reported):
    assert matches.parse(sent).wire.hex() == reported.hex()


@pytest.mark.parametrize("sent", [pair[1] for pair in PAIRS], ids=[p[0] for p in PAIRS])
def test_the_reference_is_what_open_vswitch_does(sent):
    """Check the reference itself, since the tests below compare with it."""
    reported = {pair[1]: pair[2] for pair in PAIRS}[sent]
    assert reference.normalise(sent)[0].hex() == reported.hex()


@given(any_match())
@settings(max_examples=300)
def test_every_match_is_brought_to_the_reference_s_form(raw):
    match = matches.parse(raw)
    assert match.wire.hex() == reference.normalise(raw)[0].hex()
    named = reference.fields(raw)
    assert match.in_port == (named["in_port"].value if "in_port" in named else None)


@given(any_match())
def test_bringing_it_there_again_changes_nothing(raw):
    match = matches.parse(raw)
    assert matches.parse(match.wire).wire == match.wire
    # A match for a switch is complete; it includes the part that is not reported.
    assert matches.parse(match.south) == match


@given(any_match(), any_match(), st.data())
@settings(max_examples=300)
def test_two_matches_are_one_exactly_if_their_forms_are(one, other, data):
    if data.draw(st.booleans()):
        # Without this, random matches are hardly ever the same.
        other = data.draw(st.sampled_from((one[:4] + bytes(36), one, matches.parse(one).wire)))
    same = reference.normalise(one) == reference.normalise(other)
    assert (identity(matches.parse(one)) == identity(matches.parse(other))) == same


def test_a_match_that_names_an_impossible_field_is_another_than_one_that_names_none():
    """Both are reported alike and match every frame, but Open vSwitch treats them as two flows."""
    nothing, impossible = matches.parse(of.match()), matches.parse(of.match(tp_dst=80))
    assert nothing.wire == impossible.wire
    assert identity(nothing) != identity(impossible)
    assert identity(impossible) == identity(matches.parse(of.match(nw_proto=6)))
    assert identity(matches.ANY) == identity(nothing)


def test_an_ingress_port_is_put_in_the_place_of_another():
    match = matches.parse(of.match(in_port=18, dl_type=0x0800, nw_src="10.0.0.0/8"))
    assert matches.parse(matches.with_in_port(match.south, 2)) == matches.parse(
        of.match(in_port=2, dl_type=0x0800, nw_src="10.0.0.0/8")
    )


# ---- frames ----


def meets(raw, frame, in_port):
    match = matches.parse(raw)
    return not (matches.of_frame(frame, in_port) ^ match.value) & match.mask


@given(frame_and_fields(), any_match(), st.sampled_from((1, 2, 17, 0xFEFF)))
@settings(max_examples=300)
def test_a_frame_meets_the_matches_that_name_its_fields(drawn, raw, in_port):
    frame, found = drawn
    assert meets(raw, frame, in_port) == reference.hits(raw, dict(found, in_port=in_port))


def exact_match(found, in_port, **changed):
    """Return the match that names all fields of a frame, some of them changed."""
    values = dict(found, in_port=in_port, **changed)
    tag = values.get("vid", 0) if values.get("tagged") else of.VLAN_NONE
    return ofp(
        0,
        in_port=values["in_port"],
        dl_src=values.get("dl_src", 0).to_bytes(6, "big").hex(),
        dl_dst=values.get("dl_dst", 0).to_bytes(6, "big").hex(),
        dl_vlan=tag,
        dl_vlan_pcp=values.get("pcp", 0),
        dl_type=values.get("dl_type", 0),
        nw_tos=values.get("nw_tos", 0),
        nw_proto=values.get("nw_proto", 0),
        nw_src=values.get("nw_src", 0),
        nw_dst=values.get("nw_dst", 0),
        tp_src=values.get("tp_src", 0),
        tp_dst=values.get("tp_dst", 0),
    )


@given(frame_and_fields(), st.data())
@settings(max_examples=300)
def test_a_frame_meets_the_match_of_all_its_fields_and_none_with_one_changed(drawn, data):
    frame, found = drawn
    assert meets(exact_match(found, 2), frame, 2)
    assert not meets(exact_match(found, 3), frame, 2)
    name = data.draw(st.sampled_from(sorted(found)))
    if name == "tagged":
        changed = {"tagged": 0}
    else:
        # Change the lowest bit that counts.
        changed = {name: found[name] ^ (4 if name == "nw_tos" else 1)}
    assert not meets(exact_match({**found, **changed}, 2), frame, 2)


def ip(protocol=17, payload=b"\0\1\0\2\0\x08\0\0", **header):
    return frames.ethernet(payload=frames.ipv4(protocol=protocol, payload=payload, **header))


def ip6(next_header, payload):
    packet = frames.ipv6(next_header=next_header, payload=payload)
    return frames.ethernet(ethertype=0x86DD, payload=packet)


UDP = b"\0\1\0\2\0\x08\0\0"
IP_UDP = {"dl_type": 0x0800, "nw_proto": 17}
IP6_UDP = {"dl_type": 0x86DD, "nw_proto": 17}


@pytest.mark.parametrize(
    "frame, fields",
    [
        (ip(), dict(IP_UDP, tp_src=1, tp_dst=2)),
        (ip(fragment=0x4000), dict(IP_UDP, tp_src=1, tp_dst=2)),
        (ip(fragment=0x2000), dict(IP_UDP, tp_src=0, tp_dst=0)),
        (ip(fragment=0x0010), dict(IP_UDP, tp_src=0, tp_dst=0)),
        (ip(tos=0xBB), dict(IP_UDP, nw_tos=0xB8)),
        (
            ip(1, b"\x08\x03" + bytes(6)),
            {"dl_type": 0x0800, "nw_proto": 1, "tp_src": 8, "tp_dst": 3},
        ),
        (ip6(17, UDP), dict(IP6_UDP, tp_src=1, tp_dst=2)),
        (ip6(0, b"\x11\0" + bytes(6) + UDP), dict(IP6_UDP, tp_src=1, tp_dst=2)),
        (ip6(44, b"\x11\0\0\0" + bytes(4) + UDP), dict(IP6_UDP, tp_src=1, tp_dst=2)),
        (ip6(44, b"\x11\0\0\1" + bytes(4) + UDP), dict(IP6_UDP, tp_src=0, tp_dst=0)),
        (ip6(44, b"\x11\0\0\x08" + bytes(4) + UDP), dict(IP6_UDP, tp_src=0, tp_dst=0)),
        (
            ip6(58, b"\x87\0\0\0" + bytes(20)),
            {"dl_type": 0x86DD, "nw_proto": 58, "tp_src": 135, "tp_dst": 0},
        ),
        (frames.arp(2), {"dl_type": 0x0806, "nw_proto": 2, "nw_src": "10.0.0.1"}),
        (frames.arp(258), {"dl_type": 0x0806, "nw_proto": 0}),
        (frames.udp(vlan=0, pcp=5), {"dl_vlan": 0, "dl_vlan_pcp": 5, "dl_type": 0x0800}),
        (frames.udp(vlan=5, cfi=1), {"dl_vlan": 5, "dl_vlan_pcp": 0, "dl_type": 0x0800}),
        (frames.udp(), {"dl_vlan": of.VLAN_NONE, "tp_dst": 2000, **IP_UDP}),
        (frames.ethernet(ethertype=46, payload=b"\x42\x42\x03"), {"dl_type": 0x05FF}),
        (frames.ethernet(ethertype=46, payload=b"\xaa\xaa\x03\0\0\1\x08\0"), {"dl_type": 0x05FF}),
        (frames.ethernet(ethertype=46, payload=b"\xaa\xaa\x03\0\0\0\x08\6"), {"dl_type": 0x0806}),
        (
            frames.ethernet(vlan=5, ethertype=0x8100, payload=b"\0\6\x08\0"),
            {"dl_vlan": 5, "dl_type": 0x8100},
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "frame",
)
def test_what_a_frame_is_to_open_vswitch(frame, fields):
    assert meets(of.match(**fields), frame, 1)


@pytest.mark.parametrize("vlan, pcp, hit", [(0, 0, True), (5, 3, False), (None, 0, False)])
def test_dl_vlan_0_is_for_priority_tagged_frames(vlan, pcp, hit):
    assert meets(of.match(dl_vlan=0), frames.udp(vlan=vlan, pcp=pcp), 1) == hit


@pytest.mark.parametrize("vlan, hit", [(0, True), (5, True), (None, False)])
def test_dl_vlan_pcp_alone_is_for_tagged_frames(vlan, hit):
    assert meets(of.match(dl_vlan_pcp=0), frames.udp(vlan=vlan), 1) == hit


@pytest.mark.parametrize(
    "frame",
    [frames.tcp(vlan=5), frames.icmpv6(), frames.arp(), frames.lldp(), ip6(0, b"\x11\0" + UDP)],
    ids=["tcp", "icmpv6", "arp", "lldp", "ipv6 with options"],
)
def test_a_frame_that_is_cut_short_is_read_as_far_as_it_goes(frame):
    whole = matches.of_frame(frame, 1)
    for length in range(14, len(frame)):
        cut = matches.of_frame(frame[:length], 1)
        # From 14 bytes on a frame has its addresses; the port is known in any case.
        kept = matches.parse(ofp(0x3FFFFF & ~0xD)).mask
        assert cut & kept == whole & kept


# ---- Open vSwitch's own reading of frames ----

TYPE_OF = {"ip": 0x0800, "arp": 0x0806, "rarp": 0x8035, "ipv6": 0x86DD}
PROTOCOL_OF = {"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "sctp": 132}
PROTOCOL6_OF = {"tcp6": 6, "udp6": 17, "icmp6": 58, "sctp6": 132}
KINDS = {
    **{name: (kind, None) for name, kind in TYPE_OF.items()},
    **{name: (0x0800, protocol) for name, protocol in PROTOCOL_OF.items()},
    **{name: (0x86DD, protocol) for name, protocol in PROTOCOL6_OF.items()},
}


def open_vswitch_reads(sent, path):
    """Return the fields of frames as Open vSwitch's flow_extract() finds them: `ovs-ofctl
    parse-pcap`.
    """
    with open(path, "wb") as file:
        file.write(struct.pack("=IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for frame in sent:
            file.write(struct.pack("=IIII", 0, 0, len(frame), len(frame)) + frame)
    done = subprocess.run(
        ["ovs-ofctl", "parse-pcap", path], check=True, capture_output=True, text=True
    )
    return [_packet(line) for line in done.stdout.splitlines()]


def _packet(line):
    words = re.findall(r"([a-z0-9_]+)(?:=([^,]*))?", line)
    said = {name: value for name, value in words if value}
    packet = {}
    for name, value in words:
        if not value and name in KINDS:
            packet["dl_type"], protocol = KINDS[name]
            if protocol is not None:
                packet["nw_proto"] = protocol
    for ours, theirs in (
        ("vid", "dl_vlan"),
        ("pcp", "dl_vlan_pcp"),
        ("dl_type", "dl_type"),
        ("nw_proto", "nw_proto"),
        ("nw_proto", "arp_op"),
        ("nw_tos", "nw_tos"),
        ("tp_src", "tp_src"),
        ("tp_dst", "tp_dst"),
        ("tp_src", "icmp_type"),
        ("tp_dst", "icmp_code"),
    ):
        if theirs in said:
            packet[ours] = int(said[theirs], 0)
    for ours, theirs in (("nw_src", "nw_src"), ("nw_dst", "nw_dst"), ("nw_src", "arp_spa")):
        if theirs in said:
            packet[ours] = int.from_bytes(bytes(map(int, said[theirs].split("."))), "big")
    if "arp_tpa" in said:
        packet["nw_dst"] = int.from_bytes(bytes(map(int, said["arp_tpa"].split("."))), "big")
    for name in ("dl_src", "dl_dst"):
        packet[name] = int(said[name].replace(":", ""), 16)
    packet["tagged"] = int("dl_vlan" in said)
    if said.get("nw_frag", "no") != "no":
        # OFPC_FRAG_NORMAL: fragments have no ports, not even the first one.
        packet.update(tp_src=0, tp_dst=0)
    return {name: value for name, value in packet.items() if value}


@st.composite
def damaged_frames(draw):
    """Frames with some bytes changed, or cut short. They have at most one tag (see the test)."""
    frame, _ = draw(frame_and_fields())
    damaged = bytearray(frame)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(12, min(len(frame) - 1, 60)))
        damaged[place] = draw(st.one_of(st.integers(0, 255), st.just(0)))
    damaged = bytes(
        damaged[: draw(st.sampled_from((len(frame), draw(st.integers(14, len(frame))))))]
    )
    inner = damaged[16:18] if damaged[12:14] in (b"\x81\0", b"\x88\xa8") else b""
    return damaged if inner not in (b"\x81\0", b"\x88\xa8") else frame


@pytest.mark.skipif(not shutil.which("ovs-ofctl"), reason="needs Debian's openvswitch-switch")
@given(st.lists(damaged_frames(), min_size=1, max_size=30))
@settings(max_examples=100)
def test_any_frame_is_read_as_open_vswitch_reads_it(tmp_path_factory, sent):
    """Double tags are left out: parse-pcap looks behind both, a bridge by default behind one."""
    path = str(tmp_path_factory.mktemp("frames") / "frames.pcap")
    packets = open_vswitch_reads(sent, path)
    assert len(packets) == len(sent)
    for frame, packet in zip(sent, packets):
        expected = matches.parse(exact_match(packet, 1))
        got = matches.of_frame(frame, 1)
        assert not (got ^ expected.value) & expected.mask, (frame.hex(), packet)
