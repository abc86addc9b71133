"""Traffic: throughput and latency between two hosts, each at another switch.

Three ways over the same kind of tunnel:

    big     two switches under the aggregator; a controller has installed one flow each way
    hand    two switches without a controller, with the fewest flows that do the same, set by hand:
            from the host into the tunnel, and from the tunnel to the host
    again   the same by hand once more: a difference from "hand" is noise

No packet goes through Python once its flow is installed, so all three must be equally fast.

    sudo python benchmarks/traffic.py

Throughput: TCP by iperf3 between hosts in namespaces of their own.  Latency: one frame at a time
from port 1 of s1 to port 1 of s2.
"""

import argparse
import contextlib
import json
import subprocess
import time
from collections.abc import Iterator

import bench
from bench import of
from lab import frames
from lab.namespaces import Namespace
from lab.network import Network, Switch

HOST_PORT = 3
MTU = 1450  # GRE takes 42 bytes
US = 1e6


class Host:
    """A host with a network stack of its own, at port HOST_PORT of a switch."""

    def __init__(self, switch: Switch) -> None:
        self.address = f"10.0.0.{switch.dpid}"
        self.namespace = Namespace()
        port = switch.port_name(HOST_PORT)
        switch.namespace.ip(
            f"link add {port} mtu {MTU} type veth"
            f" peer name eth0 mtu {MTU} netns {self.namespace.pid}",
            f"link set {port} up",
        )
        self.namespace.ip(f"address add {self.address}/24 dev eth0", "link set eth0 up")
        # With offload the kernel sends no checksums, and Open vSwitch in user space adds none.
        self.namespace.run("ethtool", "-K", "eth0", "tx", "off")
        switch.ovs.vsctl(
            "add-port",
            switch.name,
            port,
            "--",
            "set",
            "interface",
            port,
            f"ofport_request={HOST_PORT}",
        )


class Way:
    """A network, its hosts, and flows between them."""

    def __init__(self, name: str, network: Network) -> None:
        self.name = name
        self.network = network
        self.hosts = [Host(switch) for switch in network.switches.values()]

    def __enter__(self) -> "Way":
        return self

    def __exit__(self, *exc_info: object) -> None:
        for host in self.hosts:
            host.namespace.close()

    def throughput(self, seconds: int) -> float:
        """Return bits per second of one TCP connection."""
        one, two = self.hosts
        command = two.namespace.command("iperf3", "--server", "--one-off", "--forceflush")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            next(line for line in server.stdout if "listening" in line)
            report = one.namespace.run(
                "iperf3", "--client", two.address, "--time", str(seconds), "--json"
            )
        return json.loads(report)["end"]["sum_received"]["bits_per_second"]

    def latency(self, count: int) -> float:
        """Return the median of the seconds that a frame takes."""
        first, last = self.network.ports[1], self.network.ports[self.network.number(2, 1)]
        frame = frames.numbered(1)
        taken = []
        for _ in range(count):
            start = time.perf_counter()
            first.send(frame)
            if last.receive(5) != frame:
                raise RuntimeError(f"{self.name}: another frame came out")
            taken.append(time.perf_counter() - start)
        return bench.percentile(taken, 50)


@contextlib.contextmanager
def big(options: argparse.Namespace) -> Iterator[Way]:
    """Two switches under the aggregator."""
    with contextlib.ExitStack() as stack:
        bed = stack.enter_context(bench.big_switch(2, options.python))
        way = stack.enter_context(Way("big", bed.network))
        bed.wait_for_ports(sorted([*bed.numbers, HOST_PORT, bed.network.number(2, HOST_PORT)]))
        for port in (1, HOST_PORT):
            far = bed.network.number(2, port)
            bed.controller.flow_mod(of.match(in_port=port), of.output(far))
            bed.controller.flow_mod(of.match(in_port=far), of.output(port))
        yield way


@contextlib.contextmanager
def by_hand(name: str) -> Iterator[Way]:
    """Two switches with the fewest flows that do the same, set by hand."""
    with Network(2, flow_limit=None) as network, Way(name, network) as way:
        for switch in network.switches.values():
            other = network.switches[3 - switch.dpid]
            tunnel = switch.ovs.vsctl("get", "interface", switch.tunnel, "ofport").strip()
            for port in (1, HOST_PORT):
                for flow in (
                    f"in_port={port},actions=set_field:{port}->tun_id,"
                    f"set_field:{other.tunnel_ip}->tun_dst,output:{tunnel}",
                    f"in_port={tunnel},tun_id={port},actions=output:{port}",
                ):
                    switch.ovs.ofctl("add-flow", switch.name, flow)
        yield way


def main() -> None:
    """Measure and print."""
    parser = bench.parser(__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="of each TCP connection")
    parser.add_argument("--frames", type=int, default=1000, help="for the latency, in each round")
    options = parser.parse_args()
    bench.header(__doc__.splitlines()[0], options)
    samples = bench.Samples()
    with big(options) as one, by_hand("hand") as two, by_hand("again") as three:
        ways = [one, two, three]
        for number in range(options.rounds):
            for way in bench.rotated(ways, number):
                samples.add(way.name + " rate", way.throughput(options.seconds))
            for way in bench.rotated(ways, number):
                samples.add(way.name, way.latency(options.frames))
    table = bench.Table("     way", "TCP Mbit/s", "to hand", "latency us", "to hand")
    for way in ways:
        table.row(
            way.name,
            samples[way.name + " rate"] / 1e6,
            samples.ratio(way.name + " rate", "hand rate"),
            samples[way.name] * US,
            samples.ratio(way.name, "hand"),
        )


if __name__ == "__main__":
    main()
