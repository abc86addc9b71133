"""agg_net.py and aggregator.sh on the machine's own Open vSwitch.

These tests do not need the kernel module.  Network and mount namespaces with their own /run stand
for the machine.  The Open vSwitch in them forwards in user space, which wrappers around three
commands hide.  It carries no tunnel traffic, since one userspace Open vSwitch cannot tunnel to
itself, but its configuration is the same.
"""

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from lab import openflow10 as of
from lab.controller import Controller
from lab.namespaces import Namespace

from command import dying_with_parent
from userspace_ovs import SCHEMA
from waiting import wait_until

from .attempts import expect_an_attempt_every_second
from .terminal import SCRIPTS, SYSTEM_PYTHON, Terminal, commands_below, processes_with

PROMPT = "mininet> "

DAEMON = "setpriv --pdeathsig KILL -- {} --pidfile -vconsole:off -vsyslog:off"
OVSDB = "ovsdb-server /run/conf.db --remote=punix:/run/openvswitch/db.sock"

# This shell ends when its standard input does, and then ends the daemons.
MACHINE = f"""
mount -t tmpfs tmpfs /run
mkdir /run/openvswitch
ip link set lo up
ovsdb-tool create /run/conf.db {SCHEMA}
{DAEMON.format(OVSDB)} &
until ovs-vsctl --no-wait init 2>/dev/null; do sleep 0.01; done
{DAEMON.format("ovs-vswitchd")} &
until ovs-appctl version >/dev/null 2>&1; do sleep 0.01; done
echo ready
cat
kill $(jobs -p)
wait
"""

WRAPPERS = {
    "modprobe": "#!/bin/sh\nexit 0\n",
    "ovs-dpctl": "#!/bin/sh\nexit 0\n",
    # Gives every new bridge the userspace datapath.
    "ovs-vsctl": """#!/bin/bash
more=()
previous=
for word in "$@"; do
    if [ "$previous" = add-br ]; then more+=(-- set bridge "$word" datapath_type=netdev); fi
    previous=$word
done
exec /usr/bin/ovs-vsctl "$@" "${more[@]}"
""",
}


class Machine(Namespace):
    """Network and mount namespaces with an Open vSwitch where the machine's own would be."""

    def __init__(self, directory):
        for name, text in WRAPPERS.items():
            (directory / name).write_text(text)
            (directory / name).chmod(0o755)
        self.env = dict(os.environ, PATH=f"{directory}:{os.environ['PATH']}")
        self.holder = subprocess.Popen(
            dying_with_parent(["unshare", "--net", "--mount", "bash", "-c", MACHINE]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.holder.pid
        assert self.holder.stdout.readline() == "ready\n"

    def command(self, *command):
        inside = ["nsenter", f"--target={self.holder.pid}", "--net", "--mount", "--wdns=/"]
        return dying_with_parent([*inside, "--", *command])

    def run(self, *command):
        """Run a command; return its exit status and its output."""
        done = subprocess.run(
            self.command(*command),
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def stop_vswitchd(self):
        """Stop ovs-vswitchd, and leave the database running."""
        self.run("sh", "-c", "kill $(cat /run/openvswitch/ovs-vswitchd.pid)")

    def start_vswitchd(self):
        """Start ovs-vswitchd again."""
        self.vswitchd = subprocess.Popen(self.command(*DAEMON.format("ovs-vswitchd").split()))

    def close(self):
        """End the daemons and the namespaces."""
        if self.holder.poll() is None:
            self.holder.stdin.close()
            self.holder.wait()
            self.holder.stdout.close()


@pytest.fixture
def machine(root, tmp_path):
    """The machine.  No bridge, address, file or process may be left in it at the end."""
    with Machine(tmp_path) as machine:
        before = machine.run("ip", "-brief", "address")
        yield machine
        assert machine.run("ovs-vsctl", "list-br") == (0, "")
        assert machine.run("ip", "-brief", "address") == before
        assert machine.run("ls", "/run/agg_net")[0] != 0
        machine.close()
        wait_until(lambda: not processes_with("PATH", machine.env["PATH"]), "end of all processes")


@pytest.fixture
def agg_net(machine):
    """A function that starts agg_net.py in a terminal."""
    started = []

    def start(*options):
        command = [SYSTEM_PYTHON, os.path.join(SCRIPTS, "agg_net.py"), *options]
        terminal = Terminal(machine, command, machine.env)
        started.append(terminal)
        return terminal

    yield start
    for terminal in started:
        terminal.close()


def aggregator_sh(machine, *arguments):
    return machine.run(os.path.join(SCRIPTS, "aggregator.sh"), *arguments)


def test_bridges_and_tunnels_of_the_machines_open_vswitch(agg_net, machine):
    machine.run("ip", "address", "add", "172.16.0.2/32", "dev", "lo")
    net = agg_net()
    start = net.read_until(PROMPT)
    assert "userspace" not in start
    assert machine.run("ovs-vsctl", "list-br") == (0, "s1\ns2\n")
    columns = "fail_mode,protocols,datapath_id,ports"
    shown = machine.run("ovs-vsctl", f"--columns={columns}", "list", "bridge", "s2")[1]
    assert re.search(r"fail_mode +: secure", shown)
    assert re.search(r"protocols +: \[OpenFlow10\]", shown)
    assert re.search(r'datapath_id +: "0000000000000002"', shown)
    hwaddr = machine.run("ovs-vsctl", "get", "bridge", "s2", "other_config:hwaddr")
    assert hwaddr == (0, '"02:61:67:67:00:02"\n')
    columns = "target,inactivity_probe,max_backoff"
    shown = machine.run("ovs-vsctl", f"--columns={columns}", "list", "controller", "s2")[1]
    assert re.search(r'target +: "tcp:127\.0\.0\.1:6633"', shown)
    assert re.search(r"inactivity_probe +: 10000", shown)
    assert re.search(r"max_backoff +: 1000", shown)

    for _again in range(2):
        assert aggregator_sh(machine, "2") == (
            0,
            "s1: tunnel port tun1, gre, 172.16.0.1\ns2: tunnel port tun2, gre, 172.16.0.2\n",
        )
        machine.run("ovs-vsctl", "set", "interface", "tun1", "lldp:enable=true")
    assert aggregator_sh(machine, "2")[0] == 0
    assert machine.run("ovs-vsctl", "get", "interface", "tun1", "lldp:enable") == (0, '"false"\n')
    options = machine.run("ovs-vsctl", "get", "interface", "tun1", "options")
    assert options == (0, '{key=flow, local_ip="172.16.0.1", remote_ip=flow}\n')
    addresses = machine.run("ip", "-oneline", "address", "show", "dev", "lo")[1]
    assert "172.16.0.1/32" in addresses

    assert aggregator_sh(machine, "2", "--type", "vxlan")[0] == 0
    assert machine.run("ovs-vsctl", "get", "interface", "tun2", "type") == (0, "vxlan\n")
    assert aggregator_sh(machine, "3") == (
        1,
        "aggregator.sh: the network has 2 switches, not 3: 'agg_net.py --switches 3'\n",
    )
    assert aggregator_sh(machine, "--remove") == (0, "")
    assert "tun" not in machine.run("ovs-vsctl", "show")[1]
    addresses = machine.run("ip", "-oneline", "address", "show", "dev", "lo")[1]
    assert "172.16.0.1/32" not in addresses
    assert "172.16.0.2/32" in addresses, "this one is the user's"
    machine.run("ip", "address", "del", "172.16.0.2/32", "dev", "lo")

    aggregator_sh(machine, "2")
    net.type("exit\n")
    assert net.wait()[0] == 0


def test_a_switch_tries_every_second_to_connect(agg_net, machine):
    """Also to a controller that the user starts after the network."""
    net = agg_net("--switches", "1")
    net.read_until(PROMPT)
    with machine.call(socket.create_server, ("127.0.0.1", 6633)) as listener:
        expect_an_attempt_every_second(listener)
    net.type("exit\n")
    assert net.wait()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_after_a_signal(agg_net, machine, number):
    """The controller is on another machine, and programs wait until it connects."""
    net = agg_net("--hosts", "1", "--controller", "192.0.2.1:6633")
    net.read_until(PROMPT)
    aggregator_sh(machine, "2")
    if number != signal.SIGINT:  # that would end the command only
        net.type("h1 sleep 1000\n")
        wait_until(lambda: "sleep" in commands_below(net.process.pid), "the command")
    net.signal(number)
    net.wait()


def test_after_kill_9_the_next_start_works(agg_net, machine):
    first = agg_net("--hosts", "1")
    first.read_until(PROMPT)
    aggregator_sh(machine, "2")
    first.signal(signal.SIGKILL)
    first.process.wait()
    assert machine.run("ovs-vsctl", "list-br") == (0, "s1\ns2\n")
    wait_until(
        lambda: "@" not in machine.run("ip", "-brief", "link")[1], "end of the hosts' interfaces"
    )

    second = agg_net("--switches", "1")
    second.read_until(PROMPT)
    assert machine.run("ovs-vsctl", "list-br") == (0, "s1\n")
    second.type("exit\n")
    assert second.wait()[0] == 0


def commands_in(text):
    """Return the first indented block of a document's text as a shell script."""
    block = re.search(r"(?:^    .*\n)+", text, re.MULTILINE)
    return "set -e\n" + block[0]


def test_the_commands_of_operations_make_a_switch(machine):
    """Also the one that waits for the controller, after which its settings are in force."""
    document = Path(SCRIPTS, "..", "docs", "operations.md").read_text()
    for line in ("add eth1 type veth peer name h1", "add eth2 type veth peer name h2"):
        machine.run("ip", "link", *line.split())
    machine.run("ip", "address", "add", "192.0.2.10/32", "dev", "lo")
    with Controller(machine, 6633, "192.0.2.10") as controller:
        _, switch = document.split("## A switch\n")
        assert machine.run("sh", "-c", commands_in(switch)) == (0, "")
        controller.wait_until_connected()
        features = controller.features()
        assert features.datapath_id == 1
        assert {number: port.name for number, port in features.ports.items()} == {
            1: "eth1",
            2: "eth2",
            100: "tun1",
            of.Port.LOCAL: "s1",
        }
        assert features.ports[of.Port.LOCAL].hw_addr == "02:00:00:00:00:01"
        _, settings = document.split("### The controller's settings\n")
        assert machine.run("sh", "-c", commands_in(settings)) == (0, "")
        controller.refuse()
        controller.connection.close(reset=True)
        with machine.call(socket.create_server, ("192.0.2.10", 6633)) as listener:
            expect_an_attempt_every_second(listener)
    machine.run("ovs-vsctl", "del-br", "s1")
    machine.run("ip", "address", "del", "192.0.2.10/32", "dev", "lo")
    for device in ("eth1", "eth2"):
        machine.run("ip", "link", "del", device)


def test_a_bridge_of_the_users_is_not_touched(agg_net, machine):
    machine.run("ovs-vsctl", "add-br", "s2", "--", "add-port", "s2", "tun2")
    machine.run("ovs-vsctl", "set", "interface", "tun2", "type=gre", "options:remote_ip=10.9.9.9")
    status, text = agg_net().wait()
    assert status == 1
    assert text.endswith(
        "agg_net.py: Open vSwitch has a bridge s2 that agg_net.py did not make: rename it\n"
    )
    assert machine.run("ovs-vsctl", "list-ports", "s2") == (0, "tun2\n")
    machine.run("ovs-vsctl", "del-br", "s2")


def test_without_a_running_open_vswitch_the_switches_are_userspace_ones(agg_net, machine):
    machine.stop_vswitchd()
    net = agg_net("--hosts", "1")
    assert "Open vSwitch is not running (service openvswitch-switch start)" in net.read_until(
        PROMPT
    )
    net.type("exit\n")
    assert net.wait()[0] == 0
    machine.start_vswitchd()
