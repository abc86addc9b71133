"""agg_net.py and aggregator.sh where there is no openvswitch kernel module."""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from lab import openflow10 as of
from lab.controller import Connection

import machine_ovs
from options import number_up_to, parse_address
from topo import AggregatorTopo
from waiting import wait_until

from .attempts import expect_an_attempt_every_second
from .terminal import SCRIPTS, children, commands_below, processes_with

PROMPT = "mininet> "
USER = ("--datapath", "user")
SMALL = (*USER, "--switches", "1")


# ---- pure ----


def test_topology_has_hosts_on_ports_1_and_up_and_no_link_between_switches():
    topo = AggregatorTopo(switches=3, hosts=2)
    links = {
        (info["node1"], info["port1"], info["node2"], info["port2"])
        for _, _, info in topo.links(withInfo=True)
    }
    assert links == {
        ("h1", 0, "s1", 1),
        ("h2", 0, "s1", 2),
        ("h3", 0, "s2", 1),
        ("h4", 0, "s2", 2),
        ("h5", 0, "s3", 1),
        ("h6", 0, "s3", 2),
    }
    assert [topo.nodeInfo(name)["dpid"] for name in topo.switches()] == ["1", "2", "3"]


def test_datapath_id_is_the_switch_number_beyond_nine():
    topo = AggregatorTopo(switches=17, hosts=1)
    assert topo.nodeInfo("s17")["dpid"] == "11"


@pytest.mark.parametrize(
    "text", ["", "127.0.0.1", "127.0.0.1:", "1.2.3.4:0", "1.2.3.4:65536", "x:1"]
)
def test_bad_controller_address_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not IP:PORT"):
        parse_address(text)


@pytest.mark.parametrize("text", ["0", "-1", "255", "two", "", "1.5"])
def test_bad_number_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number from 1 to 254"):
        number_up_to(254)(text)


# ---- the command ----


def run_script(name, *arguments, **options):
    """Run a script that needs no input; return its exit status and its output."""
    command = [*options.pop("before", ()), os.path.join(SCRIPTS, name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    return done.returncode, done.stdout + done.stderr


def as_nobody():
    return ("setpriv", "--reuid=65534", "--clear-groups")


def test_needs_root_and_says_so_in_a_line(root, tmp_path):
    before = (*as_nobody(), "/usr/bin/python3")
    assert run_script("agg_net.py", before=before, cwd="/") == (
        1,
        "agg_net.py: needs root: sudo python scripts/agg_net.py\n",
    )


def test_kernel_datapath_asked_for_where_there_is_none_is_one_line(agg_net, monkeypatch):
    if machine_ovs.why_unusable() is None:
        pytest.skip("this machine has the openvswitch kernel module")
    status, text = agg_net("--datapath", "kernel").wait()
    assert status == 1
    assert re.fullmatch(r"agg_net\.py: [^\n]+\n", text)


def test_works_when_started_by_a_python_without_mininet(machine, state, tmp_path):
    """`sudo python` may be another Python than the system's, which then takes over."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    status, text = run_script(
        "agg_net.py", "--switches", "0", before=(str(bare / "bin" / "python"),)
    )
    assert status == 2
    assert text.endswith("--switches: '0' is not a number from 1 to 254\n")


def test_a_network_from_start_to_exit(agg_net, aggregator_sh, state):
    net = agg_net(*USER)
    start = net.read_until(PROMPT)
    assert "one userspace Open vSwitch per switch" in start

    net.type("s1 ovs-ofctl show s1\n")
    shown = net.read_until(PROMPT)
    assert "dpid:0000000000000001" in shown
    assert "LOCAL(s1): addr:02:61:67:67:00:01" in shown
    assert re.findall(r"^ (\d+)\((s1-eth\d)\)", shown, re.MULTILINE) == [
        ("1", "s1-eth1"),
        ("2", "s1-eth2"),
    ]
    net.type("h4 ip -4 -oneline address show h4-eth0; ip link show h4-eth0\n")
    shown = net.read_until(PROMPT)
    assert "10.0.0.4/8" in shown
    assert "mtu 1450" in shown
    net.type("s2 ovs-vsctl --columns=fail_mode,protocols,datapath_id list bridge s2\n")
    shown = net.read_until(PROMPT)
    assert re.search(r"fail_mode +: secure", shown)
    assert re.search(r"protocols +: \[OpenFlow10\]", shown)
    assert re.search(r'datapath_id +: "0000000000000002"', shown)
    net.type("h1 ping -c1 -W1 h2\n")
    assert "100% packet loss" in net.read_until(PROMPT), "fail_mode secure: no flow, no forwarding"

    assert aggregator_sh("2") == (
        0,
        "s1: tunnel port tun1, gre, 172.16.0.1\ns2: tunnel port tun2, gre, 172.16.0.2\n",
    )
    join_by_hand(state)
    net.type("h1 ping -c1 -W9 h3\n")
    assert " 0% packet loss" in net.read_until(PROMPT)

    net.type("exit\n")
    assert net.wait()[0] == 0


def join_by_hand(state):
    """Install flows that connect port 1 of s1 and of s2 through the tunnel."""
    for here, there in ((1, 2), (2, 1)):
        management = f"unix:{state}/s{here}/s{here}.mgmt"
        tunnel = subprocess.check_output(
            ["ovs-vsctl", f"--db=unix:{state}/s{here}/db.sock"]
            + ["get", "interface", f"tun{here}", "ofport"],
            text=True,
        ).strip()
        flows = (
            f"in_port=1,actions=set_field:1->tun_id,set_field:172.16.0.{there}->tun_dst,"
            f"output:{tunnel}\nin_port={tunnel},tun_id=1,actions=output:1\n"
        )
        subprocess.run(
            ["ovs-ofctl", "add-flows", management, "-"], input=flows, text=True, check=True
        )


def test_sizes(agg_net):
    net = agg_net(*USER, "--switches", "3", "--hosts", "1")
    net.read_until(PROMPT)
    net.type("nodes\n")
    assert "c0 h1 h2 h3 s1 s2 s3\n" in net.read_until(PROMPT)
    net.type("exit\n")
    assert net.wait()[0] == 0


# ---- the controller ----


def test_switches_try_every_second_and_find_a_controller_outside_whenever_it_comes(
    agg_net, machine
):
    """The user starts POX, which listens on the machine's loopback, before or after the network."""
    with machine.call(socket.create_server, ("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        net = agg_net(*USER, "--controller", f"127.0.0.1:{port}")
        net.read_until(PROMPT)
        expect_an_attempt_every_second(listener, switches=2)
    for _life in range(2):
        with machine.call(socket.create_server, ("127.0.0.1", port)) as listener:
            listener.settimeout(10)
            datapaths = set()
            connections = []
            while datapaths != {1, 2}:
                connection = Connection(listener.accept()[0])
                connections.append(connection)
                features = connection.request(of.message(of.Type.FEATURES_REQUEST))
                datapaths.add(int.from_bytes(features.body[:8], "big"))
            for connection in connections:
                connection.close()
    net.type("exit\n")
    assert net.wait()[0] == 0


# ---- ends ----


def end_by_exit(net):
    net.type("exit\n")


def end_by_end_of_file(net):
    net.type("\x04")


def end_by_ctrl_c(net):
    net.type("\x03")


def end_by(number):
    def end(net):
        net.signal(number)

    end.__name__ = signal.Signals(number).name
    return end


def end_by_killing_what_is_inside(net):
    launcher = net.process.pid
    (unshare,) = children(launcher)
    (inside,) = children(unshare)
    os.kill(inside, signal.SIGKILL)


@pytest.mark.parametrize(
    "end",
    [
        end_by_exit,
        end_by_end_of_file,
        end_by_ctrl_c,
        end_by(signal.SIGINT),
        end_by(signal.SIGTERM),
        end_by(signal.SIGHUP),
        end_by_killing_what_is_inside,
    ],
    ids=lambda end: end.__name__,
)
def test_nothing_is_left(end, agg_net, aggregator_sh):
    """The fixtures check that no process, no file and no interface is left."""
    net = agg_net(*SMALL)
    net.read_until(PROMPT)
    assert aggregator_sh("1")[0] == 0
    net.type("h1 sleep 1000 &\n")
    net.read_until(PROMPT)
    end(net)
    net.wait()


def test_after_kill_9_the_next_start_works(agg_net, aggregator_sh, state):
    first = agg_net(*SMALL)
    first.read_until(PROMPT)
    assert aggregator_sh("1")[0] == 0
    first.type("h1 sleep 1000 &\n")
    first.read_until(PROMPT)
    first.signal(signal.SIGKILL)
    first.process.wait()
    wait_until(lambda: not processes_with("AGG_NET_DIR", state), "end of all processes")
    assert os.path.exists(state)
    assert aggregator_sh("2") == (
        1,
        "aggregator.sh: no network is running: start one with 'sudo python scripts/agg_net.py'\n",
    )

    second = agg_net(*USER)
    second.read_until(PROMPT)
    assert aggregator_sh("2")[0] == 0
    second.type("exit\n")
    assert second.wait()[0] == 0


def test_ctrl_c_while_building_removes_all(agg_net):
    net = agg_net(*USER, "--switches", "4")
    net.read_until(r"Adding switches")
    net.type("\x03")
    assert net.wait()[0] == 130


def test_ctrl_c_ends_a_running_command_only(agg_net):
    net = agg_net(*SMALL)
    net.read_until(PROMPT)
    net.type("h1 ping -O h2\n")
    net.read_until("no answer yet")
    net.type("\x03")
    assert "ping statistics" in net.read_until(PROMPT)
    net.type("h1 echo still $((40 + 2))\n")
    net.read_until("still 42")
    net.read_until(PROMPT)
    net.type("exit\n")
    assert net.wait()[0] == 0


def test_exit_in_the_middle_of_a_command(agg_net):
    net = agg_net(*SMALL)
    net.read_until(PROMPT)
    net.type("h1 sleep 1000\n")
    wait_until(lambda: "sleep" in commands_below(net.process.pid), "the command")
    net.signal(signal.SIGTERM)
    assert net.wait()[0] == 143


def test_two_at_once_are_refused(agg_net):
    first = agg_net(*SMALL)
    first.read_until(PROMPT)
    status, text = agg_net(*USER).wait()
    assert status == 1
    assert text.endswith("agg_net.py: another agg_net.py is running: leave that one first\n")
    first.type("nodes\n")
    assert "h1 h2 s1" in first.read_until(PROMPT)
    first.type("exit\n")
    assert first.wait()[0] == 0


# ---- tunnels ----


def interface(state, number, column):
    return subprocess.check_output(
        ["ovs-vsctl", f"--db=unix:{state}/s{number}/db.sock"]
        + ["get", "interface", f"tun{number}", column],
        text=True,
    ).strip()


def test_tunnels_again_more_and_other_ones(agg_net, aggregator_sh, state):
    net = agg_net(*USER, "--switches", "3", "--hosts", "1")
    net.read_until(PROMPT)
    assert aggregator_sh("2")[0] == 0
    assert interface(state, 1, "options") == '{key=flow, local_ip="172.16.0.1", remote_ip=flow}'
    port = interface(state, 1, "ofport")

    subprocess.check_call(
        ["ovs-vsctl", f"--db=unix:{state}/s1/db.sock"]
        + ["set", "interface", "tun1", "lldp:enable=true"]
    )
    assert aggregator_sh("2")[0] == 0
    assert interface(state, 1, "lldp") == '{enable="false"}', "LLDP would eat the probes"
    assert interface(state, 1, "ofport") == port, "a second time changes nothing else"
    assert aggregator_sh("3")[0] == 0
    assert interface(state, 3, "type") == "gre"

    assert aggregator_sh("3", "--type", "vxlan")[0] == 0
    assert [interface(state, number, "type") for number in (1, 2, 3)] == ["vxlan"] * 3
    assert interface(state, 1, "ofport") == port

    assert aggregator_sh("--remove") == (0, "")
    assert aggregator_sh("--remove") == (0, "")
    net.type("s1 ovs-vsctl list-ports s1\n")
    assert "tun1" not in net.read_until(PROMPT).replace("list-ports s1", "")
    assert aggregator_sh("3", "--type=geneve")[0] == 0
    join_by_hand(state)
    net.type("h1 ping -c1 -W9 -s 1422 -M do h2\n")
    assert " 0% packet loss" in net.read_until(PROMPT)
    net.type("exit\n")
    assert net.wait()[0] == 0


def test_a_switch_stopped_and_started_gets_its_tunnel_again(agg_net, aggregator_sh, state):
    net = agg_net(*USER, "--hosts", "1")
    net.read_until(PROMPT)
    both = (0, "".join(f"s{n}: tunnel port tun{n}, gre, 172.16.0.{n}\n" for n in (1, 2)))
    assert aggregator_sh("2") == both
    net.type("switch s2 stop\n")
    net.read_until(PROMPT)
    assert aggregator_sh("2") == (
        1,
        "aggregator.sh: s2 is stopped: 'switch s2 start' in Mininet\n",
    )
    net.type("switch s2 start\n")
    assert "Error" not in net.read_until(PROMPT)
    net.type("switch s2 start\n")
    assert "*** Error: s2 is running already\n" in net.read_until(PROMPT)
    assert aggregator_sh("2") == both
    join_by_hand(state)
    net.type("h1 ping -c1 -W9 h2\n")
    assert " 0% packet loss" in net.read_until(PROMPT)

    net.type("switch s1 stop\nswitch s1 start\nswitch s2 stop\n")
    for _command in range(3):
        net.read_until(PROMPT)
    assert aggregator_sh("--remove") == (0, ""), "whether a switch has one, has lost it, or rests"
    net.type("switch s2 start\n")
    net.read_until(PROMPT)
    assert aggregator_sh("2") == both
    net.type("exit\n")
    assert net.wait()[0] == 0


def test_more_tunnels_than_switches_is_one_line(agg_net, aggregator_sh):
    net = agg_net(*USER, "--hosts", "1")
    net.read_until(PROMPT)
    assert aggregator_sh("3") == (
        1,
        "aggregator.sh: the network has 2 switches, not 3: 'agg_net.py --switches 3'\n",
    )
    net.type("exit\n")
    net.wait()


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("2",), "no network is running: start one with 'sudo python scripts/agg_net.py'"),
        ((), "N has to be a number from 1 to 254"),
        (("0",), "N has to be a number from 1 to 254"),
        (("255",), "N has to be a number from 1 to 254"),
        (("two",), "N has to be a number from 1 to 254"),
        (("2", "2"), "usage: "),
        (("2", "--type"), "usage: "),
        (("2", "--type", "ipip"), "no tunnel type 'ipip': gre, vxlan or geneve"),
        (("--remove", "2"), "usage: "),
    ],
)
def test_aggregator_sh_says_what_is_wrong_in_a_line(aggregator_sh, arguments, said):
    status, text = aggregator_sh(*arguments)
    assert status == 1
    assert text.startswith(f"aggregator.sh: {said}")
    assert text.count("\n") == 1


def test_aggregator_sh_needs_root(root, state):
    status, text = run_script("aggregator.sh", "2", before=as_nobody(), cwd="/")
    assert status == 1
    assert re.fullmatch(r"aggregator\.sh: making tunnels needs root: sudo \S+\n", text)
