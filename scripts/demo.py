"""What scripts/demo.sh runs: the whole network with both controllers, in a namespace of its own.

Needs POX_HOME in the environment.  Uses none of the machine's addresses, ports or bridges: its
switches are userspace ones, and everything is gone when it ends.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, Optional

import private_namespace
from agg_net import (
    AggregatorCLI,
    Control,
    Failure,
    Relay,
    Tunnels,
    carry,
    number_up_to,
    parse_address,
    setLogLevel,
    userspace_net,
)
from userspace_ovs import OVSError, dying_with_parent

SCRIPTS = Path(__file__).resolve().parent
PATIENCE = 30.0
"""Seconds for the network and the controllers to become ready."""
LAST_PINGS = 10
"""Pings that the flow which is shown carries besides."""
WEB = ("127.0.0.1", 8000)
"""Where the page is, inside."""


def title(text: str) -> None:
    """Print a heading."""
    print(f"\n=== {text}", flush=True)


class Pox:
    """A POX process in the namespace of its caller, and the file with what it prints."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self.log = log
        home = os.environ["POX_HOME"]
        paths = [str(SCRIPTS.parent / "pox_ext"), str(SCRIPTS / "pox_demo")]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                dying_with_parent([sys.executable, "-u", f"{home}/pox.py", *arguments]),
                cwd=home,
                # The POX may be the user's own: nothing is written there.
                env=dict(os.environ, PYTHONPATH=":".join(paths), PYTHONDONTWRITEBYTECODE="1"),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the prompt.
                start_new_session=True,
            )

    def says(self, text: str) -> bool:
        """Whether it has printed `text`; Failure when it has ended."""
        if self.process.poll() is not None:
            raise Failure(f"POX has ended with status {self.process.returncode}: {self.log}")
        return text in self.log.read_text(errors="replace")


class Door(socketserver.ThreadingTCPServer):
    """Carries connections to a port of 127.0.0.1, where the launcher is, to the page inside.

    path: of the unix socket by which one gets inside.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, path: Path) -> None:
        super().__init__(("127.0.0.1", port), DoorConnection)
        self.path = str(path)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class DoorConnection(socketserver.BaseRequestHandler):
    """One connection of a browser."""

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as inside:
            try:
                inside.connect(self.server.path)
            except OSError:
                return  # the page is not there yet, or not any more
            carry(self.request, inside)


class Demo:
    """The running network with both controllers.

    directory: for sockets and logs.
    web: whether the aggregator has its page.
    """

    def __init__(self, directory: Path, switches: int, hosts: int, web: bool) -> None:
        self.directory = directory
        self.hosts = hosts
        self.web = web
        self.report_file = directory / "report.json"
        relay = str(directory / "relay")
        self.relay = Relay(relay, parse_address("127.0.0.1:6633"))
        self.net = userspace_net(switches, hosts, self.relay.controller, str(directory), relay)
        self.control = Control(str(directory / "control"), Tunnels(self.net))
        self.door = Relay(str(directory / "web"), WEB) if web else None

    def start_controllers(self) -> None:
        """Start the upstream controller and the aggregator; return when all ports are there."""
        upstream = Pox(
            self.directory / "l2_pairs.log",
            *("openflow.of_01", "--port=7744", "forwarding.l2_pairs"),
            *("flow_report", f"--file={self.report_file}"),
        )
        ips = ",".join(f"172.16.0.{number + 1}" for number in range(len(self.net.switches)))
        aggregator = Pox(
            self.directory / "aggregator.log",
            *("log.level", "--DEBUG", "edge.aggregator", f"--ips={ips}"),
            *(("edge.dashboard", f"--port={WEB[1]}") if self.web else ()),
        )

        def ready() -> bool:
            upstream.says("")
            # A switch alone has nobody who could find its tunnel IP, and needs none.
            joined = aggregator.says("tunnel IPs are discovered") or len(self.net.switches) == 1
            return joined and len(self.report().get("ports", ())) == len(self.net.hosts)

        wait_for(ready, "big switch with all its ports")

    def report(self) -> dict:
        """Return what the upstream controller saw last; see pox_demo/flow_report.py."""
        try:
            return json.loads(self.report_file.read_text())
        except FileNotFoundError:
            return {}

    def ping_all(self) -> bool:
        """Let every host ping every other; return whether all pings came back."""
        wanted = came = 0
        for source in self.net.hosts:
            answers = []
            for target in self.net.hosts:
                if source is not target:
                    wanted += 1
                    ping = source.popen(["ping", "-c1", "-W3", target.IP()])
                    ping.communicate()
                    came += ping.returncode == 0
                    answers.append(target.name if ping.returncode == 0 else "X")
            print(f"{source.name} -> {' '.join(answers)}", flush=True)
        print(f"{came} of {wanted} pings came back")
        return came == wanted

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
            """The flow, when the controller's counter has what the switches' have."""
            packets = sum(map(int, re.findall(r"n_packets=(\d+)", installed())))
            for flow in self.report()["flows"]:
                if flow["match"] == match and flow["packets"] == packets >= LAST_PINGS:
                    return flow
            return None

        flow = wait_for(seen, f"flow from {source.name} to {target.name} with its counters")
        title(f"One flow: {source.name} to {target.name}")
        print("the controller sees:")
        print(f"  cookie={flow['cookie']:#x}, n_packets={flow['packets']}, priority=", end="")
        print(f"{flow['priority']},{text} actions={','.join(flow['actions'])}")
        for switch in self.net.switches:
            print(f"installed on {switch.name}:")
            for line in switch.ovs.ofctl("dump-flows", switch.name, text).splitlines()[1:]:
                print(f"  {line.strip()}")


def wait_for(condition: Callable, what: str):
    """Return what `condition()` returns as soon as it is true; Failure when it takes too long."""
    deadline = time.monotonic() + PATIENCE
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise Failure(f"no {what} within {PATIENCE:.0f} s")
        time.sleep(0.05)


def run_inside(options: argparse.Namespace) -> int:
    """Run the demo in the namespaces that `main` has made; return the exit status."""
    private_namespace.arrive()
    count = options.switches
    directory = Path(os.environ["AGG_NET_DIR"])
    try:
        title(f"The network: {count} x {options.hosts} hosts, GRE between the switches")
        demo = Demo(directory, count, options.hosts, bool(options.web))
        for switch in demo.net.switches:
            hosts = [host for host in demo.net.hosts if host.connectionsTo(switch)]
            print(f"{switch.name}: {', '.join(f'{host.name} {host.IP()}' for host in hosts)}")
        sys.stdout.flush()
        subprocess.run([str(SCRIPTS / "aggregator.sh"), str(count)], check=True)
        demo.start_controllers()
        demo.show_ports()
        title("Every host pings every host")
        passed = demo.ping_all()
        if passed:
            demo.show_flow()
        else:
            print(f"demo.sh: not all pings came back; logs are in {directory}", file=sys.stderr)
        if options.web:
            title(f"The page: http://127.0.0.1:{options.web}/")
            demo.net.hosts[0].popen(["ping", "-i0.5", demo.net.hosts[-1].IP()])
        if options.web and not options.cli:
            with contextlib.suppress(KeyboardInterrupt):
                print("Ctrl-C ends the demo.", flush=True)
                threading.Event().wait()
        if options.cli:
            print(f"\nLogs are in {directory}; from another terminal: ", end="")
            print(f"ovs-ofctl dump-flows unix:{directory}/s1/s1.mgmt")
            AggregatorCLI(demo.net)
        private_namespace.ignore_signals()
        return 0 if passed else 1
    except (Failure, OVSError, subprocess.CalledProcessError) as error:
        print(f"demo.sh: {error}; logs are in {directory}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def main() -> int:
    """Run the command line; return the exit status."""
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
    options = parser.parse_args()
    if options.switches * options.hosts < 2:
        parser.error("one host alone has nobody to ping")
    setLogLevel("output")
    if private_namespace.inside():
        return run_inside(options)
    private_namespace.hold_signals()
    directory = tempfile.mkdtemp(prefix="edge-demo-")
    os.environ["AGG_NET_DIR"] = directory
    if options.web:
        try:
            Door(options.web, Path(directory) / "web")
        except OSError as error:
            os.rmdir(directory)
            parser.error(f"--web {options.web}: {error.strerror}")
    status = private_namespace.run([sys.executable, *sys.argv])
    if status != 1:
        shutil.rmtree(directory)
    return status


if __name__ == "__main__":
    sys.exit(main())
