"""ovs-ofctl against --listen works as against a bridge's management port."""

import itertools
import re

import pytest
from lab import frames
from lab import openflow10 as of

from .ofctl import Monitor, answer, comparable, finished, run, start, succeed

FLOWS = [
    "in_port=1,actions=output:18",
    "cookie=0x5,priority=7,idle_timeout=60,tcp,tp_dst=80,actions=mod_vlan_vid:5,output:17,flood",
    "cookie=0x5,priority=9,udp,nw_dst=10.1.0.0/16,actions=enqueue:17:3",
    "priority=0,hard_timeout=900,send_flow_rem,actions=all",
    "priority=11,arp,dl_vlan=7,actions=controller:40,in_port",
    "priority=12,icmp,icmp_type=8,dl_src=00:00:00:00:00:09,actions=drop",
]

READING = [
    "show SW",
    "dump-flows SW",
    "dump-flows SW tcp",
    "dump-flows SW in_port=1",
    "dump-flows SW out_port=18",
    "dump-flows SW table=0",
    "dump-flows SW table=1",
    "dump-flows -F openflow10 SW",
    "dump-flows --no-stats --sort=priority SW",
    "dump-flows --names SW",
    "dump-aggregate SW",
    "dump-aggregate SW udp",
    "dump-aggregate SW table=3",
    "dump-ports SW 99",
    "dump-ports-desc SW",
    "dump-ports-desc SW 17",
    "queue-stats SW",
    "queue-stats SW 17",
    "queue-stats SW 99",
    "queue-stats SW 17 3",
    "queue-get-config SW",
    "queue-get-config SW 18",
    "queue-get-config SW 99",
    "get-frags SW",
    "probe SW",
    "ping SW 0",
    "ping SW 1000",
    "ping SW 65527",
    "benchmark SW 100 50",
    "dump-meters SW",
    "dump-table-features SW",
    "-O OpenFlow13 show SW",
    "-O OpenFlow13,OpenFlow10 get-frags SW",
]


@pytest.mark.parametrize("command", READING)
def test_what_it_shows(managed, tmp_path, command):
    """Every command that only reads prints the same (see `comparable`) and has the same exit
    status.
    """
    flows = tmp_path / "flows"
    flows.write_text("\n".join(FLOWS))
    managed.same(lambda bed: answer(bed, "add-flows", "SW", str(flows)))
    status, out, err = managed.same(lambda bed: answer(bed, *command.split()), command)
    assert out or err or command in ("probe SW",), "nothing to compare"


def test_show_names_the_real_ports(managed):
    shown = succeed(managed.big, "show", "SW")
    assert re.findall(r"^ (\d+)\(([^)]+)\)", shown, re.MULTILINE) == [
        ("1", "1.s1-eth1"),
        ("2", "1.s1-eth2"),
        ("17", "2.s2-eth1"),
        ("18", "2.s2-eth2"),
    ]


def test_description(managed):
    """Here the two switches differ on purpose."""
    assert "Software: 3." in succeed(managed.plain, "dump-desc", "SW")
    assert "Manufacturer: edge.aggregator" in succeed(managed.big, "dump-desc", "SW")


def test_durations_are_milliseconds(managed):
    managed.same(lambda bed: answer(bed, "add-flow", "SW", FLOWS[0]))
    for bed in managed.beds:
        duration = re.search(r"duration=([0-9.]+)s", succeed(bed, "dump-flows", "SW"))
        assert re.fullmatch(r"\d+(\.\d{1,3})?", duration[1]), duration[0]


def numbers(text):
    """Return the numbers of each port's or table's entry."""
    return {
        re.match(r" *(port +\w+|table +\w+)", entry)[0]: [
            int(n) for n in re.findall(r"=(\d+)", entry)
        ]
        for entry in comparable(re.sub("\n {4,}", "\n" + 11 * " ", text))
        if re.match(r" *(port|table) +\w+:", entry)
    }


@pytest.mark.parametrize("command", ["dump-ports SW", "dump-ports SW 17", "dump-tables SW"])
def test_what_it_counts(managed, command):
    """The counters of ports and tables: the difference that some frames make."""

    def count(bed):
        before = numbers(succeed(bed, *command.split()))
        succeed(bed, "add-flow", "SW", "in_port=1,actions=output:2,17")
        bed.wires.send(1, *[frames.numbered(n, 100) for n in range(5)])
        bed.wires.send(17, frames.numbered(6))
        bed.wires.capture()  # a tap counts a frame as sent when it has been read
        after = numbers(succeed(bed, *command.split()))
        return {
            name: [now - then for now, then in zip(counters, before[name])]
            for name, counters in after.items()
        }

    counted = managed.same(count)
    if "tables" in command:
        assert counted["  table 0"][1:3] == [6, 5]  # looked up and matched
    else:
        assert counted["  port 17"][:2] == [1, 60]  # received
        assert counted["  port 17"][7:9] == [5, 500]  # sent


def file_of(tmp_path, *flows):
    path = tmp_path / f"flows{len(list(tmp_path.iterdir()))}"
    path.write_text("\n".join(flows) + "\n")
    return str(path)


CHANGES = {
    "add-flow": ["add-flow SW in_port=2,actions=output:18"],
    "add-flow again": ["add-flow SW in_port=1,actions=drop"],
    "mod-flows": ["mod-flows SW tcp,actions=output:1"],
    "mod-flows of all": ["mod-flows SW actions=output:1"],
    "mod-flows --strict": [
        "--strict mod-flows SW priority=7,tcp,tp_dst=80,actions=drop",
        "--strict mod-flows SW priority=8,tcp,tp_dst=80,actions=output:2",
    ],
    "del-flows": ["del-flows SW udp"],
    "del-flows by output": ["del-flows SW out_port=18"],
    "del-flows --strict": [
        "--strict del-flows SW in_port=1",
        "--strict del-flows SW priority=1,tcp,tp_dst=80",
    ],
    "del-flows of all": ["del-flows SW"],
    "check_overlap": ["add-flow SW check_overlap,dl_dst=00:00:00:00:00:01,actions=drop"],
    "bad action": ["add-flow SW in_port=2,actions=output:65300"],
    "bad queue": ["add-flow SW in_port=2,actions=enqueue:65533:1"],
    "unknown port": ["add-flow SW in_port=77,actions=output:78"],
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_it_changes(managed, tmp_path, change):
    """ovs-ofctl prints the same, and the switches have the same flows afterwards."""
    flows = file_of(tmp_path, *FLOWS)
    managed.same(lambda bed: answer(bed, "add-flows", "SW", flows))
    before = managed.same(lambda bed: answer(bed, "dump-flows", "SW"))
    for command in CHANGES[change]:
        managed.same(lambda bed, command=command: answer(bed, *command.split()), command)
    after = managed.same(lambda bed: answer(bed, "dump-flows", "SW"))
    assert (after != before) == (change not in ("check_overlap", "bad action", "bad queue"))


def test_errors_are_told_with_the_message(managed):
    """ovs-ofctl shows the error and the refused message. So the error has to contain the whole
    message.
    """
    for bed in managed.beds:
        succeed(bed, "add-flow", "SW", "in_port=1,actions=output:2")
        result = run(bed, "add-flow", "SW", "check_overlap,dl_vlan=5,actions=drop")
        assert result.status == 1
        assert re.search(
            r"OFPT_ERROR \(xid=\S+\): OFPFMFC_OVERLAP\n"
            r"OFPT_FLOW_MOD \(xid=\S+\): ADD dl_vlan=5 check_overlap actions=drop",
            result.err,
        ), result


def test_flows_from_a_file(managed, tmp_path):
    """diff-flows and replace-flows change only the flows that differ."""
    first = file_of(tmp_path, *FLOWS)
    second = file_of(tmp_path, *FLOWS[1:4], "in_port=1,actions=output:17", "arp,actions=flood")
    managed.same(lambda bed: answer(bed, "add-flows", "SW", first))
    status, difference, _ = managed.same(lambda bed: answer(bed, "diff-flows", "SW", second))
    assert status == 2
    assert (
        "+in_port=1 actions=output:17" in difference
        and "-in_port=1 actions=output:18" in difference
    )
    # The counters show which flows were touched.
    managed.same(lambda bed: bed.controller.flow_mod(of.match(in_port=2), [of.output(1)]))
    for bed in managed.beds:
        bed.wires.send(17, frames.udp(dst="10.1.2.3"), frames.arp(vlan=7))
        bed.settle()
    managed.same(lambda bed: answer(bed, "replace-flows", "SW", second))
    status, difference, _ = managed.same(lambda bed: answer(bed, "diff-flows", "SW", second))
    assert (status, difference) == (0, [])
    _, flows, _ = managed.same(lambda bed: answer(bed, "dump-flows", "SW"))
    assert len(flows) == 1 + 5
    assert sum("n_packets=1" in flow for flow in flows) == 1


def test_a_thousand_flows_from_a_file(managed, tmp_path):
    flows = [f"priority={n},ip,nw_dst=10.{n >> 8}.{n & 255}.1,actions=17" for n in range(1, 1001)]
    path = file_of(tmp_path, *flows)
    managed.same(lambda bed: answer(bed, "add-flows", "SW", path))
    _, shown, _ = managed.same(lambda bed: answer(bed, "dump-flows", "SW"))
    assert len([line for line in shown if "actions=" in line]) == 1000
    assert managed.same(lambda bed: answer(bed, "diff-flows", "SW", path))[0] == 0
    managed.same(lambda bed: answer(bed, "del-flows", "SW", "ip"))
    assert managed.same(lambda bed: answer(bed, "dump-flows", "SW"))[1] == [
        "OFPST_FLOW reply (xid):"
    ]


BITS = ["down", "no-stp", "no-receive", "no-receive-stp", "no-flood", "no-forward", "no-packet-in"]


@pytest.mark.parametrize("bit", BITS)
def test_mod_port(managed, bit):
    """The bit is shown, the controllers are told of it, and the opposite word clears it."""
    before = managed.same(lambda bed: answer(bed, "show", "SW"))
    managed.same(lambda bed: answer(bed, "mod-port", "SW", "17", bit))

    def told(bed):
        return [
            of.unpack_port_status(
                each.expect(
                    of.Type.PORT_STATUS,
                    where=lambda m: bit != "down" or of.unpack_port_status(m.body).port.state,
                ).body
            ).port.config
            for each in (bed.controller, *bed.others)
        ]

    config = managed.same(told)
    assert config[0] and config[0] == config[1]
    after = managed.same(lambda bed: answer(bed, "show", "SW"))
    assert after != before
    opposite = {"down": "up"}.get(bit, bit.replace("no-", ""))
    managed.same(lambda bed: answer(bed, "mod-port", "SW", "17", opposite))
    if bit != "down":  # the kernel decides when the link is up again
        assert managed.same(lambda bed: answer(bed, "show", "SW")) == before


def test_mod_port_by_name_has_its_effect(managed):
    """A port is named as `show` names it. A flood leaves out a port with no-flood."""

    def flood(bed):
        name = bed.controller.features().ports[17].name
        succeed(bed, "mod-port", "SW", name, "no-flood")
        succeed(bed, "add-flow", "SW", "actions=flood")
        bed.wires.send(1, frames.udp())
        return sorted(bed.wires.capture())

    assert managed.same(flood) == [2, 18]
    managed.same(lambda bed: answer(bed, "mod-port", "SW", "nonsense", "up"))


def test_packet_out(managed):
    frame = frames.udp()

    def send(bed, actions):
        status = answer(
            bed, "packet-out", "SW", f"in_port=1,packet={frame.hex()},actions={actions}"
        )
        bed.settle()
        return status, bed.wires.capture()

    _, out = managed.same(lambda bed: send(bed, "output:18,mod_vlan_vid:5,flood"))
    assert sorted(out) == [2, 17, 18] and len(out[18]) == 2
    managed.same(lambda bed: answer(bed, "add-flow", "SW", "in_port=1,actions=output:17"))
    assert managed.same(lambda bed: send(bed, "table"))[1] == {17: [frame]}


def test_fragments(managed):
    """set-frags reaches all switches. With "drop", fragments are dropped before the tables."""
    fragment = frames.ethernet(payload=frames.ipv4(payload=bytes(32), fragment=0x2000))
    managed.same(lambda bed: answer(bed, "add-flow", "SW", "actions=output:2"))

    def passes(bed):
        bed.wires.send(1, fragment)
        bed.wires.send(17, fragment)
        return len(bed.wires.capture().get(2, []))

    for mode, passed in ("drop", 0), ("nx-match", 2), ("normal", 2):
        managed.same(lambda bed, mode=mode: answer(bed, "set-frags", "SW", mode))
        assert managed.same(lambda bed: answer(bed, "get-frags", "SW"))[1] == [mode]
        assert managed.same(passes) == passed


# ---- monitor ----


@pytest.mark.parametrize(
    "arguments",
    [
        "monitor SW 128",
        "monitor SW 65535",
        "-O OpenFlow10 monitor SW 128",
        "monitor SW",
        "snoop SW",
    ],
)
def test_monitor(managed, arguments):
    """A monitor prints asynchronous messages only if it gives a miss_send_len."""

    def watch(bed):
        monitor = Monitor(bed, *arguments.split())
        bed.wires.send(1, frames.udp())
        bed.wires.send(18, frames.arp())
        bed.settle()
        bed.controller.flow_mod(of.match(in_port=2), [of.output(1)], flags=of.Flag.SEND_FLOW_REM)
        bed.controller.flow_mod(of.match(in_port=2), command=of.Command.DELETE)
        address = bed.controller.features().ports[17].hw_addr
        bed.controller.do(of.port_mod(17, address, of.PortConfig.NO_FLOOD, of.PortConfig.NO_FLOOD))
        for each in (bed.controller, *bed.others):
            each.expect(of.Type.FLOW_REMOVED)
        return monitor.stop()

    said = managed.same(watch)
    kinds = sorted(re.findall(r"OFPT_\w+", " ".join(said)))
    silent = arguments in ("monitor SW", "snoop SW")
    assert kinds == (
        []
        if silent
        else ["OFPT_FLOW_REMOVED", "OFPT_PACKET_IN", "OFPT_PACKET_IN", "OFPT_PORT_STATUS"]
    )


def test_monitor_in_the_standard_format(managed):
    """-P openflow10 asks for the standard packet-ins, which the big switch sends in any case."""

    def watch(bed):
        monitor = Monitor(bed, "monitor", "-P", "openflow10", "SW", "128")
        bed.wires.send(1, frames.udp())
        return monitor.stop()

    assert any("OFPT_PACKET_IN" in line for line in managed.same(watch))


# ---- what the big switch does not offer ----


@pytest.mark.parametrize(
    "command",
    [
        "add-flow SW in_port=1,ipv6,ipv6_src=::1,actions=output:1",
        "add-flow SW table=1,in_port=1,actions=output:1",
        "del-flows SW cookie=5/-1",
    ],
)
def test_what_needs_more_than_openflow_10_says_so(managed, command):
    """Open vSwitch has extensions for these commands. ovs-ofctl finds out that the big switch has
    not, says so, and changes nothing.
    """
    succeed(managed.big, "add-flow", "SW", "cookie=5,in_port=2,actions=output:1")
    before = answer(managed.big, "dump-flows", "SW")
    result = run(managed.big, *command.split())
    assert result.status == 1
    assert "switch does not support any of the usable flow formats" in result.err
    assert answer(managed.big, "dump-flows", "SW") == before


# ---- several processes at once ----


def test_several_at_once(managed):
    """Twelve processes change the table and others read it. They disturb neither each other nor the
    controllers.
    """

    def work(bed):
        adding = [
            start(bed, "add-flow", "SW", f"priority={n},in_port=1,actions=output:17")
            for n in range(1, 13)
        ]
        reading = [
            start(bed, command, "SW")
            for command, _ in itertools.product(("dump-flows", "dump-ports", "show"), range(2))
        ]
        for number, each in enumerate((bed.controller, *bed.others)):
            each.flow_mod(of.match(in_port=number), [of.output(2)], priority=100)
        results = [finished(process) for process in adding + reading]
        assert [(r.status, r.err) for r in results] == [(0, "")] * len(results), results
        return len(bed.controller.flow_stats(of.match(in_port=1), out_port=17))

    assert managed.same(work) == 12
