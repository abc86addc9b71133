#!/usr/bin/env python3
"""The demo's network: switches s1, s2, ... with some hosts each and no link between them.

    sudo python scripts/agg_net.py                    s1 with h1, h2; s2 with h3, h4
    sudo python scripts/agg_net.py --switches 3 --hosts 1

Hosts are 10.0.0.1, 10.0.0.2, ... on ports 1, 2, ... of their switch; switch sX has datapath id X
and speaks OpenFlow 1.0 with the controller at 127.0.0.1:6633.  Then comes Mininet's prompt
(`h1 ping h2`, `s1 ovs-ofctl dump-flows s1`, `help`).  Leaving it removes everything.

With the kernel's openvswitch module the switches are bridges of the machine's own Open vSwitch.
Without it each is a userspace Open vSwitch in a network namespace of its own, the whole inside one
more namespace; then a relay carries the OpenFlow connections out to the controller.

`scripts/aggregator.sh` gives the running network its tunnels.
"""

import argparse
import contextlib
import fcntl
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Optional

try:
    from mininet.cli import CLI
    from mininet.link import Intf
    from mininet.log import info, output, setLogLevel
    from mininet.net import Mininet
    from mininet.node import Host, OVSSwitch, RemoteController, Switch
    from mininet.topo import Topo
    from mininet.util import quietRun
except ImportError:
    # Mininet is a Debian package; `python` may be another than the system's.
    SYSTEM_PYTHON = "/usr/bin/python3"
    if __name__ != "__main__":
        raise
    if sys.executable != SYSTEM_PYTHON:
        os.execv(SYSTEM_PYTHON, [SYSTEM_PYTHON, *sys.argv])
    sys.exit("agg_net.py: Mininet is not installed: sudo scripts/setup.sh")

import private_namespace
from userspace_ovs import UNDERLAY_BRIDGE, OVSError, UserspaceOVS

CONTROLLER = "127.0.0.1:6633"
HOST_MTU = 1450
"""Bytes.  GRE takes 42 and VXLAN and Geneve 50 of the underlay's 1500."""
INACTIVITY_PROBE = 10_000
"""Milliseconds of silence after which a switch asks its controller for a sign of life."""
RELAY_PATIENCE = 0.9
"""Seconds that a switch's connection waits for a controller.  After 1 the switch gives up; then it
waits for another one, which this saves who starts a controller."""
MARK = "edge-aggregator"
"""The external-id of the bridges that this program made in the machine's Open vSwitch."""
FABRIC = "fabric"
"""The Ethernet segment that joins the userspace switches, below their tunnels."""


class Failure(Exception):
    """What the user has to hear, in one line."""


class Address(NamedTuple):
    """Where the switches' controller listens."""

    ip: str
    port: int


# ---- what both cases share ----


class QuietHost(Host):
    """A host that sends nothing unasked, and whose frames fit into a tunnel whole."""

    def config(self, **params):
        result = super().config(**params)
        # IPv6 would send router solicitations and multicast reports by itself.
        self.cmd("sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
        # A frame that the kernel leaves without its checksum would go into the tunnel so.
        self.cmd(f"ip link set {self.defaultIntf()} mtu {HOST_MTU}")
        self.cmd(f"ethtool -K {self.defaultIntf()} tx off")
        return result


class SilentController(RemoteController):
    """A controller elsewhere, started before or after: Mininet does not probe it."""

    def checkListening(self):
        pass


class AggregatorTopo(Topo):
    """`switches` switches, `hosts` hosts on each, and no link between switches."""

    def build(self, switches: int = 2, hosts: int = 2) -> None:
        for index in range(switches):
            switch = self.addSwitch(f"s{index + 1}", dpid=f"{index + 1:x}")
            for port in range(1, hosts + 1):
                host = self.addHost(f"h{index * hosts + port}")
                self.addLink(host, switch, port1=0, port2=port)


class AggregatorCLI(CLI):
    """Mininet's prompt, which Ctrl-C leaves; while a command runs, it ends that command."""

    def run(self):
        if self.isatty():
            quietRun("stty echo sane intr ^C")
        try:
            self.cmdloop()
        except KeyboardInterrupt:
            output("\n")

    def onecmd(self, line):
        try:
            return super().onecmd(line)
        except KeyboardInterrupt:
            output("\nInterrupt\n")
        except Exception as error:
            # A test that fails in Mininet is no reason to take the network down.
            output(f"*** Error: {error}\n")
        for node in self.mn.values():
            while node.waiting:
                node.sendInt()
                node.waitOutput()
        return None


def stop(net: Mininet) -> None:
    """Stop `net` wherever it is: in the middle of a command, or of being built."""
    for node in net.values():
        if node.waiting:
            node.terminate()
    net.stop()


# ---- the machine's Open vSwitch ----


class KernelSwitch(OVSSwitch):
    """A bridge of the machine's own Open vSwitch."""

    def __init__(self, name, **params):
        super().__init__(name, failMode="secure", protocols="OpenFlow10", **params)

    def bridgeOpts(self):
        return f"{super().bridgeOpts()} external-ids:{MARK}=agg_net"


def kernel_net(switches: int, hosts: int, controller: Address) -> Mininet:
    """Return a started network on the machine's Open vSwitch."""
    for name in (f"s{number}" for number in range(1, switches + 1)):
        if _run("ovs-vsctl", "br-exists", name).returncode == 0:
            raise Failure(
                f"Open vSwitch has a bridge {name} that agg_net.py did not make: rename it"
            )
    net = _mininet(switches, hosts, controller, KernelSwitch)
    try:
        net.start()
        for switch in net.switches:
            # In the transaction that makes the controller it would not hold.
            switch.vsctl("set controller", switch, f"inactivity_probe={INACTIVITY_PROBE}")
    except BaseException:
        stop(net)
        raise
    return net


def clean_kernel() -> None:
    """Remove what agg_net.py and aggregator.sh made in the machine's Open vSwitch."""
    for bridge in _run("ovs-vsctl", "list-br").stdout.split():
        if _run("ovs-vsctl", "br-get-external-id", bridge, MARK).stdout.strip():
            _run("ovs-vsctl", "--if-exists", "del-br", bridge)
    _run(str(Path(__file__).with_name("aggregator.sh")), "--remove")


def why_not_kernel() -> Optional[str]:
    """Return why the machine's Open vSwitch cannot be used; None when it can."""
    _run("modprobe", "--quiet", "openvswitch")
    if _run("ovs-dpctl", "dump-dps").returncode != 0:
        return "No openvswitch kernel module here"
    if _run("ovs-appctl", "--timeout=3", "version").returncode != 0:
        return "Open vSwitch is not running (service openvswitch-switch start)"
    return None


# ---- one userspace Open vSwitch per switch ----


class UserspaceSwitch(Switch):
    """A userspace Open vSwitch in the network namespace of this Mininet node.

    rundir: the directory that holds one directory per switch.
    relay: path of the unix socket that leads to the controller; None for no controller.
    """

    def __init__(self, name, rundir: str, relay: Optional[str] = None, **params):
        self.controlIntf = None
        super().__init__(name, **dict(params, inNamespace=True))
        self.ovs = UserspaceOVS(name, rundir, netns_pid=self.pid)
        self.relay = relay

    def start(self, _controllers):
        """Start the daemons and the bridge; the hosts' interfaces become its ports."""
        self.ovs.start()
        # So `s1 ovs-ofctl dump-flows s1` works at the prompt.
        self.cmd(f"export OVS_RUNDIR={self.ovs.directory} OVS_DBDIR={self.ovs.directory}")
        target = None
        if self.relay is not None:
            # Open vSwitch connects to no unix socket outside its own directory.
            link = os.path.join(self.ovs.directory, "controller")
            os.symlink(self.relay, link)
            target = f"unix:{link}"
        ports = [self.intfs[number].name for number in sorted(self.intfs) if number > 0]
        self.ovs.add_bridge(self.name, dpid=int(self.dpid, 16), controller=target, ports=ports)
        if target is not None:
            # In the transaction that makes the controller it would not hold.
            self.ovs.vsctl("set", "controller", self.name, f"inactivity_probe={INACTIVITY_PROBE}")

    def connected(self):
        """Whether the controller is connected."""
        return "true" in self.ovs.vsctl("get", "controller", self.name, "is_connected")

    def dpctl(self, command, *args):
        """Run `ovs-ofctl COMMAND` on this switch, for Mininet's `dpctl`."""
        try:
            return self.ovs.ofctl(command, self.name, *args)
        except OVSError as error:
            return f"{error}\n"

    def stop(self, deleteIntfs=True):
        self.ovs.stop()
        super().stop(deleteIntfs)


def userspace_net(
    switches: int, hosts: int, controller: Address, rundir: str, relay: Optional[str]
) -> Mininet:
    """Return a started network of userspace switches, below the caller's network namespace."""

    def switch(name, **params):
        return UserspaceSwitch(name, rundir=rundir, relay=relay, **params)

    # Mininet would raise limits that are the whole machine's, and cannot from this namespace.
    Mininet.inited = True
    net = _mininet(switches, hosts, controller, switch)
    try:
        net.start()
    except BaseException:
        stop(net)
        raise
    return net


class Tunnels:
    """The tunnel ports of a userspace network, and the underlay that they need.

    What there is, each switch is asked: Mininet's `switch s2 stop` takes it away.
    """

    def __init__(self, net: Mininet) -> None:
        self.switches = net.switches

    def add(self, count: int, type: str) -> None:
        """Give the first `count` switches a tunnel port of `type`; fine if they have it."""
        if count > len(self.switches):
            raise Failure(
                f"the network has {len(self.switches)} switches, not {count}: "
                f"'agg_net.py --switches {count}'"
            )
        for number, switch in enumerate(self.switches[:count], 1):
            if not switch.ovs.forwarding:
                raise Failure(f"{switch.name} is stopped: 'switch {switch.name} start' in Mininet")
            self._add_underlay(number, switch)
            port = f"tun{number}"
            found = switch.ovs.vsctl(
                "--bare", "--columns=type", "find", "interface", f"name={port}"
            ).strip()
            if not found:
                switch.ovs.add_tunnel(switch.name, port, f"172.16.0.{number}", type)
            elif found != type:
                switch.ovs.vsctl("set", "interface", port, f"type={type}")

    def remove(self) -> None:
        """Take all tunnel ports and their underlay away."""
        for number, switch in enumerate(self.switches, 1):
            if switch.ovs.forwarding:
                switch.ovs.vsctl("--if-exists", "del-port", switch.name, f"tun{number}")
                switch.ovs.remove_underlay()
            if _has_link(f"under{number}"):
                _checked("ip", "link", "del", f"under{number}")

    def _add_underlay(self, number: int, switch: UserspaceSwitch) -> None:
        if not _has_link(FABRIC):
            _checked("ip", "link", "add", FABRIC, "type", "bridge")
            _checked("ip", "link", "set", FABRIC, "up")
        ours, theirs = f"under{number}", f"{switch.name}-under"
        if not _has_link(ours):
            _checked(
                *("ip", "link", "add", ours, "type", "veth"),
                *("peer", "name", theirs, "netns", str(switch.pid)),
            )
            _checked("ip", "link", "set", ours, "master", FABRIC, "up")
        if UNDERLAY_BRIDGE not in switch.ovs.vsctl("list-br").split():
            switch.ovs.add_underlay(theirs, f"172.16.0.{number}/24")


# ---- the way from the userspace network to the controller, and for aggregator.sh to it ----


class Relay(socketserver.ThreadingUnixStreamServer):
    """Carries every connection to a unix socket on to the controller, until the program ends.

    It belongs where the controller is: its threads run in the network namespace of its maker.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: str, controller: Address) -> None:
        super().__init__(path, _RelayedConnection)
        self.controller = controller
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _RelayedConnection(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        controller = self._connect()
        if controller is None:
            return  # the switch finds its connection closed, and tries again
        with controller:
            controller.settimeout(None)
            controller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            carry(self.request, controller)

    def _connect(self) -> Optional[socket.socket]:
        """The connection to the controller, None if it has not come within RELAY_PATIENCE."""
        deadline = time.monotonic() + RELAY_PATIENCE
        while True:
            try:
                return socket.create_connection(self.server.controller, timeout=5)
            except OSError:
                if time.monotonic() > deadline:
                    return None
                time.sleep(0.05)


def carry(one: socket.socket, other: socket.socket) -> None:
    """Carry what comes out of each of two connections into the other, until one ends."""
    back = threading.Thread(target=_pump, args=(other, one), daemon=True)
    back.start()
    _pump(one, other)
    back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass  # one side is gone: so is the connection
    for side in (source, sink):
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)


class Control(socketserver.UnixStreamServer):
    """Does what `scripts/aggregator.sh` asks: `add COUNT TYPE` or `remove`, a line each.

    The program's end is its end.  The answer is a line: `ok`, or what went wrong.
    """

    def __init__(self, path: str, tunnels: Tunnels) -> None:
        super().__init__(path, _ControlRequest)
        self.tunnels = tunnels
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _ControlRequest(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        command, *words = self.rfile.readline().decode().split()
        try:
            if command == "add":
                self.server.tunnels.add(int(words[0]), words[1])
            else:
                self.server.tunnels.remove()
            answer = "ok"
        except (Failure, OVSError) as error:
            answer = " ".join(str(error).split())
        self.wfile.write(f"{answer}\n".encode())


# ---- the command ----


def state_directory() -> Path:
    """Return the directory of the running network: its sockets, and its switches' files."""
    return Path(os.environ.get("AGG_NET_DIR", "/run/agg_net"))


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Hold `directory`, empty at first, for one network at a time; it is removed at the end.

    The kernel gives the lock back when its owner is killed: what is in the directory then is
    left over, and goes.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise Failure(f"no directory {directory}: {error.strerror}") from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Failure("another agg_net.py is running: leave that one first") from None
    try:
        _empty(directory)
        yield
    finally:
        _empty(directory)
        directory.rmdir()
        os.close(held)


def _empty(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()


def run_kernel(options: argparse.Namespace) -> int:
    """Run the network on the machine's Open vSwitch until the user leaves."""
    private_namespace.end_on_signals()
    with only_one(state_directory()):
        clean_kernel()
        try:
            net = kernel_net(options.switches, options.hosts, options.controller)
            try:
                AggregatorCLI(net)
            finally:
                private_namespace.ignore_signals()
                stop(net)
        finally:
            private_namespace.ignore_signals()
            clean_kernel()
    return 0


def run_userspace(options: argparse.Namespace) -> int:
    """Run the network in namespaces of its own until the user leaves; the relay stays outside."""
    private_namespace.hold_signals()
    directory = state_directory()
    with only_one(directory):
        Relay(str(directory / "relay"), options.controller)
        return private_namespace.run([sys.executable, *sys.argv])


def run_inside(options: argparse.Namespace) -> int:
    """Be what `run_userspace` runs."""
    private_namespace.arrive()
    directory = str(state_directory())
    relay = os.path.join(directory, "relay")
    net = userspace_net(options.switches, options.hosts, options.controller, directory, relay)
    try:
        Control(os.path.join(directory, "control"), Tunnels(net))
        AggregatorCLI(net)
    finally:
        private_namespace.ignore_signals()
        stop(net)
    return 0


def main() -> int:
    """Run the command line; return the exit status."""
    options = parse_options()
    setLogLevel("info")
    try:
        if os.geteuid() != 0:
            raise Failure("needs root: sudo python scripts/agg_net.py")
        if private_namespace.inside():
            return run_inside(options)
        reason = None
        if options.datapath != "user":
            reason = why_not_kernel()
            if reason is None:
                return run_kernel(options)
            if options.datapath == "kernel":
                raise Failure(reason)
        info(
            f"*** {reason or 'As asked'}: one userspace Open vSwitch per switch, "
            "each in its own network namespace\n"
        )
        return run_userspace(options)
    except (Failure, OVSError) as error:
        print(f"agg_net.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def parse_options() -> argparse.Namespace:
    """Return the command line's options; ends the program with a line when they are wrong."""
    parser = argparse.ArgumentParser(
        description="Mininet's prompt over switches with hosts, and no link between the switches."
    )
    parser.add_argument(
        "--switches", type=number_up_to(254), default=2, metavar="N", help="default 2"
    )
    parser.add_argument(
        "--hosts", type=number_up_to(999), default=2, metavar="N", help="on each switch, default 2"
    )
    parser.add_argument(
        "--controller",
        type=parse_address,
        default=CONTROLLER,
        metavar="IP:PORT",
        help=f"default {CONTROLLER}",
    )
    parser.add_argument(
        "--datapath",
        choices=("auto", "kernel", "user"),
        default="auto",
        help="the machine's Open vSwitch with its kernel module, or a userspace Open vSwitch "
        "for each switch; default auto: kernel where that works",
    )
    return parser.parse_args()


def number_up_to(most: int):
    def number(text: str) -> int:
        if not text.isdigit() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {most}")
        return int(text)

    return number


def parse_address(text: str) -> Address:
    ip, _, port = text.partition(":")
    try:
        socket.inet_aton(ip)
        if not 1 <= int(port) <= 65535:
            raise ValueError
    except (OSError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is not IP:PORT") from None
    return Address(ip, int(port))


def _mininet(switches: int, hosts: int, controller: Address, switch) -> Mininet:
    net = Mininet(
        switch=switch, host=QuietHost, controller=None, intf=Intf, autoSetMacs=True, build=False
    )
    net.topo = AggregatorTopo(switches=switches, hosts=hosts)
    try:
        net.addController("c0", SilentController, ip=controller.ip, port=controller.port)
        net.build()
    except BaseException:
        stop(net)
        raise
    return net


def _run(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def _has_link(name: str) -> bool:
    return _run("ip", "link", "show", name).returncode == 0


def _checked(*command: str) -> None:
    done = _run(*command)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(main())
