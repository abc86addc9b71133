"""What scripts/demo.sh runs: the whole network with both controllers, in a private namespace.

POX_HOME has to be in the environment.  The switches are userspace ones.  Nothing uses the machine's
addresses, ports or bridges, but for the port of `--web`, and nothing is left at the end.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Optional

from mininet.log import setLogLevel

import private_namespace
import signals
from cli import AggregatorCLI
from control_socket import ControlSocket
from failure import Failure
from net import UserspaceNet
from options import Address, number_up_to
from pox_process import PoxProcess
from relay import TcpToUnixRelay, UnixToTcpRelay
from state_directory import StateDirectory
from tunnels import Tunnels
from waiting import wait_until

AGGREGATOR_SH = Path(__file__).resolve().with_name("aggregator.sh")
PATIENCE = 30.0
"""Seconds for the network and the controllers to become ready."""
LAST_PINGS = 10
"""Pings that are sent before a flow is shown, so that it has something to count."""
AGGREGATOR = Address("127.0.0.1", 6633)
"""Where the aggregator listens for the switches."""
PAGE = Address("127.0.0.1", 8000)
"""Where edge.dashboard serves its page, in the private namespace."""
PAGE_SOCKET = "web"
"""The unix socket in the state directory by which connections to the page come in."""


def title(text: str) -> None:
    """Print a heading."""
    print(f"\n=== {text}", flush=True)


class Demo:
    """The running network, with the aggregator and the upstream controller.

    Network, controllers and relays end with the private namespace in which they are.

    web: whether the aggregator serves its page.
    """

    def __init__(self, switches: int, hosts: int, web: bool) -> None:
        state = StateDirectory()
        self.directory = state.path
        self.hosts = hosts
        self.web = web
        self.report_file = self.directory / "report.json"
        UnixToTcpRelay(state.relay, AGGREGATOR)
        self.net = UserspaceNet(switches, hosts, AGGREGATOR, str(state.path), state.relay)
        self.net.start()
        ControlSocket(state.control, Tunnels(self.net))
        if web:
            UnixToTcpRelay(str(self.directory / PAGE_SOCKET), PAGE)

    def start_controllers(self) -> None:
        """Start the upstream controller and the aggregator; return when all ports are there."""
        upstream = PoxProcess(
            self.directory / "l2_pairs.log",
            *("openflow.of_01", "--port=7744", "forwarding.l2_pairs"),
            *("flow_report", f"--file={self.report_file}"),
        )
        ips = ",".join(f"172.16.0.{number + 1}" for number in range(len(self.net.switches)))
        aggregator = PoxProcess(
            self.directory / "aggregator.log",
            *("log.level", "--DEBUG", "edge.aggregator", f"--ips={ips}"),
            *(("edge.dashboard", f"--port={PAGE.port}") if self.web else ()),
        )

        def ready() -> bool:
            upstream.expect_running()
            joined = aggregator.has_printed("tunnel IPs are discovered")
            # The tunnel IP of a single switch is never discovered: that takes a second switch.
            joined = joined or len(self.net.switches) == 1
            return joined and len(self.report().get("ports", ())) == len(self.net.hosts)

        wait_until(ready, "big switch with all its ports", PATIENCE, 0.05)

    def report(self) -> dict:
        """Return what the upstream controller saw last; see pox_demo/flow_report.py."""
        try:
            return json.loads(self.report_file.read_text())
        except FileNotFoundError:
            return {}

    def ping_all(self) -> bool:
        """Let every host ping every other; return whether all pings came back."""
        sent = answered = 0
        for source in self.net.hosts:
            answers = []
            for target in self.net.hosts:
                if source is not target:
                    sent += 1
                    ping = source.popen(["ping", "-c1", "-W3", target.IP()])
                    ping.communicate()
                    answered += ping.returncode == 0
                    answers.append(target.name if ping.returncode == 0 else "X")
            print(f"{source.name} -> {' '.join(answers)}", flush=True)
        print(f"{answered} of {sent} pings came back")
        return answered == sent

    def show_hosts(self) -> None:
        """Print the switches with their hosts."""
        for switch in self.net.switches:
            hosts = [host for host in self.net.hosts if host.connectionsTo(switch)]
            print(f"{switch.name}: {', '.join(f'{host.name} {host.IP()}' for host in hosts)}")

    def show_ports(self) -> None:
        """Print the ports of the big switch with the hosts behind them."""
        report = self.report()
        title(f"The big switch as its controller sees it: datapath {report['dpid']}")
        ports = sorted((int(number), name) for number, name in report["ports"].items())
        for (number, name), host in zip(ports, self.net.hosts):
            print(f"port {number:3}   {name:12} {host.name} {host.IP()}")

    def show_flow(self) -> None:
        """Print one flow as the controller sees it, and as it is on each switch."""
        source, target = self.net.hosts[0], self.net.hosts[-self.hosts]
        if source is target:
            target = self.net.hosts[1]
        match = {"dl_src": source.MAC(), "dl_dst": target.MAC()}
        text = ",".join(f"{field}={value}" for field, value in match.items())
        source.cmd(f"ping -c{LAST_PINGS} -i0.01 -W3 {target.IP()}")

        def installed() -> str:
            return "".join(s.ovs.ofctl("dump-flows", s.name, text) for s in self.net.switches)

        def seen() -> Optional[dict]:
            """Return the controller's flow once its counter equals the sum of the switches'."""
            packets = sum(map(int, re.findall(r"n_packets=(\d+)", installed())))
            for flow in self.report()["flows"]:
                if flow["match"] == match and flow["packets"] == packets >= LAST_PINGS:
                    return flow
            return None

        what = f"flow from {source.name} to {target.name} with its counters"
        flow = wait_until(seen, what, PATIENCE, 0.05)
        title(f"One flow: {source.name} to {target.name}")
        print("the controller sees:")
        print(f"  cookie={flow['cookie']:#x}, n_packets={flow['packets']}, priority=", end="")
        print(f"{flow['priority']},{text} actions={','.join(flow['actions'])}")
        for switch in self.net.switches:
            print(f"installed on {switch.name}:")
            for line in switch.ovs.ofctl("dump-flows", switch.name, text).splitlines()[1:]:
                print(f"  {line.strip()}")


def option_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="demo.sh",
        description="Two switches or more, GRE between them, edge.aggregator and a controller: "
        "every host pings every host, and what is installed is shown.",
    )
    number = number_up_to(99)
    parser.add_argument("--switches", type=number, default=2, metavar="N", help="default 2")
    parser.add_argument("--hosts", type=number, default=2, metavar="N", help="on each, default 2")
    parser.add_argument("--cli", action="store_true", help="stay in Mininet's prompt at the end")
    parser.add_argument(
        "--web",
        type=number_up_to(65535),
        nargs="?",
        const=8000,
        metavar="PORT",
        help="stay, and show the big switch as a page at this port of 127.0.0.1, 8000 by default",
    )
    return parser


def run_outside(options: argparse.Namespace) -> int:
    """Run this program again in a private namespace; return its exit status.

    Its files are in a new directory, which stays only when the demo has failed.

    Raises Failure when the port of --web is taken.
    """
    signals.hold()
    directory = tempfile.mkdtemp(prefix="edge-demo-")
    os.environ["AGG_NET_DIR"] = directory
    if options.web:
        try:
            TcpToUnixRelay(options.web, os.path.join(directory, PAGE_SOCKET))
        except OSError as error:
            os.rmdir(directory)
            raise Failure(f"--web {options.web}: {error.strerror}") from None
    status = private_namespace.run([sys.executable, *sys.argv])
    if status != 1:
        shutil.rmtree(directory)
    return status


def run_inside(options: argparse.Namespace) -> int:
    """Run the demo in the private namespace that `run_outside` has made."""
    directory = StateDirectory().path
    try:
        private_namespace.arrive()
        passed = show(options)
        signals.ignore()
        return 0 if passed else 1
    except (Failure, subprocess.CalledProcessError) as error:
        print(f"demo.sh: {error}; logs are in {directory}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def show(options: argparse.Namespace) -> bool:
    """Show all, and stay as long as the user wants; return whether all pings came back."""
    count = options.switches
    title(f"The network: {count} x {options.hosts} hosts, GRE between the switches")
    demo = Demo(count, options.hosts, bool(options.web))
    demo.show_hosts()
    sys.stdout.flush()
    subprocess.run([str(AGGREGATOR_SH), str(count)], check=True)
    demo.start_controllers()
    demo.show_ports()
    title("Every host pings every host")
    passed = demo.ping_all()
    if passed:
        demo.show_flow()
    else:
        print(f"demo.sh: not all pings came back; logs are in {demo.directory}", file=sys.stderr)
    if options.web:
        title(f"The page: http://127.0.0.1:{options.web}/")
        demo.net.hosts[0].popen(["ping", "-i0.5", demo.net.hosts[-1].IP()])
    if options.web and not options.cli:
        with contextlib.suppress(KeyboardInterrupt):
            print("Ctrl-C ends the demo.", flush=True)
            threading.Event().wait()
    if options.cli:
        print(f"\nLogs are in {demo.directory}; from another terminal: ", end="")
        print(f"ovs-ofctl dump-flows unix:{demo.directory}/s1/s1.mgmt")
        AggregatorCLI(demo.net)
    return passed


def main() -> int:
    """Run the command line; return the exit status."""
    parser = option_parser()
    options = parser.parse_args()
    if options.switches * options.hosts < 2:
        parser.error("one host alone has nobody to ping")
    setLogLevel("output")
    if private_namespace.inside():
        return run_inside(options)
    try:
        return run_outside(options)
    except Failure as failure:
        parser.error(str(failure))


if __name__ == "__main__":
    sys.exit(main())
