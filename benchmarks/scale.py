"""Scale: many switches, from the start to a flow-mod's barrier over all of them.

Each switch is an Open vSwitch in user space, with its own network namespace and --ports ports.  All
switches share the processors of this machine, so most of the wall time is theirs.

    sudo python benchmarks/scale.py --switches 2,4,8,16,32,64

First table, the start, with all switches running and looking for their controller once a second:

    network     seconds until the Open vSwitches themselves were up (the lab's, for the record)
    tunnels     seconds from the aggregator's start until it says that all tunnels are discovered
    flood       seconds after that until a frame flooded by the first switch had come out everywhere
    start cpu   the aggregator's processor time for all of this, milliseconds
    probes      probes of the discovery that had come out of tunnels by then
    an hour     the same in an hour, after the start: counted for --idle seconds
    idle cpu    percent of a processor that the aggregator takes when nothing happens

Second table, with flows without in_port, which all switches get.  Its columns come twice, for one
flow-mod and a barrier, and for 1,000 flow-mods and a barrier:

    ms          milliseconds of wall time
    cpu ms      milliseconds of the aggregator's processor time
    by hand ms  milliseconds of wall time without the aggregator: the same flow-mods and a barrier
                are sent to each of these switches directly, over its Unix socket
    ratio       the ratio of the wall times

Last come the bytes by which --flows flows enlarge the aggregator's memory: for each flow, and for
each flow and switch.
"""

import argparse
import contextlib
import re
import time
from typing import BinaryIO

import bench
from bench import of
from flow_mods import ADD, DELETE_STRICT, EVERYTHING, flow_mods
from lab import frames

from waiting import wait_until

MS = 1e3
BURST = 1000
READY = 120.0
"""Seconds that each step of the start may take."""


def probes(big: bench.BigSwitch) -> int:
    """Return how many probes of the discovery have come out of tunnels so far."""
    counts = [
        re.findall(
            r"n_packets=(\d+)", switch.ovs.ofctl("dump-flows", switch.name, "table=1,tun_id=0")
        )
        for switch in big.network.switches.values()
    ]
    return sum(int(count) for each in counts for count in each)


def wait_for_rest(big: bench.BigSwitch) -> None:
    """Return when the start's probes are through: a second has no more probes than switches."""

    def at_rest() -> bool:
        before = probes(big)
        time.sleep(1)
        return probes(big) - before <= len(big.network.switches)

    wait_until(at_rest, "rest of discovery", READY)


def wait_for_flood(big: bench.BigSwitch) -> None:
    """Return when a frame that is flooded from port 1 has come out of all other ports."""
    big.controller.flow_mod(of.match(in_port=1), of.output(of.Port.FLOOD))
    missing = set(big.numbers) - {1}
    deadline = time.monotonic() + READY
    number = 0
    while missing:
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing flooded came out of {sorted(missing)}")
        number += 1
        big.network.send(1, frames.numbered(number))
        missing -= {port for port, came in big.network.capture().items() if came}
    big.controller.do(EVERYTHING)


def start(big: bench.BigSwitch) -> tuple[float, float, float]:
    """Start the aggregator anew; return seconds to the tunnels, to the flood, and of CPU time."""
    big.aggregator.kill()
    begin = time.monotonic()
    big.aggregator.start()
    big.aggregator.wait_for_log(r"All \d+ tunnel IPs are discovered", READY)
    tunnels = time.monotonic() - begin
    big.controller.wait_until_connected(READY)
    big.wait_for_ports(big.numbers, READY)
    begin = time.monotonic()
    wait_for_flood(big)
    return tunnels, time.monotonic() - begin, bench.cpu_seconds(big.aggregator.pid)


class ByHand:
    """The switches of a big switch, each over a direct connection like that of ovs-ofctl."""

    def __init__(self, stack: contextlib.ExitStack, big: bench.BigSwitch) -> None:
        self._connections = []
        for switch in big.network.switches.values():
            connection = stack.enter_context(switch.open_management(READY))
            stream = stack.enter_context(connection.makefile("rb"))
            self._expect(stream, of.Type.HELLO)
            self._connections.append((connection, stream))

    def timed_barrier(self, messages: bytes) -> float:
        """Send messages with a barrier to every switch; return seconds until all have answered."""
        sent = messages + of.message(of.Type.BARRIER_REQUEST)
        begin = time.perf_counter()
        for connection, _ in self._connections:
            connection.sendall(sent)
        for _, stream in self._connections:
            self._expect(stream, of.Type.BARRIER_REPLY)
        return time.perf_counter() - begin

    @staticmethod
    def _expect(stream: BinaryIO, kind: int) -> None:
        message = of.read(stream)
        if message.type != kind:
            raise RuntimeError(f"a switch answers {message}")


def costs(
    big: bench.BigSwitch, by_hand: ByHand, count: int, ports: list[int], rounds: int
) -> list[float]:
    """
    Return what `count` flow-mods and a barrier cost.

    The values are milliseconds of wall time, of the aggregator's processor time, and of wall time
    by hand; then the ratio of the wall times.
    """
    samples = bench.Samples()
    added, deleted = (flow_mods(command, count, ports) for command in (ADD, DELETE_STRICT))

    def through_big() -> None:
        before = bench.cpu_seconds(big.aggregator.pid)
        samples.add("wall", bench.timed_barrier(big.controller.connection, added))
        samples.add("cpu", bench.cpu_seconds(big.aggregator.pid) - before)
        big.controller.do(EVERYTHING)

    def directly() -> None:
        samples.add("by hand", by_hand.timed_barrier(added))
        by_hand.timed_barrier(deleted)

    for number in range(rounds):
        for side in bench.rotated([through_big, directly], number):
            side()
    times = [samples[name] * MS for name in ("wall", "cpu", "by hand")]
    return [*times, samples.ratio("wall", "by hand")]


def measure(switches: int, options: argparse.Namespace) -> tuple[list, list]:
    """Return a row for each table."""
    begin = time.monotonic()
    more = {"ports": options.ports, "ready": False}
    with bench.big_switch(switches, options.python, **more) as big:
        network = time.monotonic() - begin
        tunnels, flood, used = start(big)
        pid = big.aggregator.pid
        until_flood = probes(big)
        wait_for_rest(big)
        settled = probes(big)
        before = bench.cpu_seconds(pid)
        time.sleep(options.idle)
        idle = (bench.cpu_seconds(pid) - before) / options.idle
        late = (probes(big) - settled) / options.idle * 3600
        first = [switches, network, tunnels, flood, used * MS, until_flood, late, idle * 100]
        with contextlib.ExitStack() as stack:
            by_hand = ByHand(stack, big)
            one = costs(big, by_hand, 1, [2], options.rounds * 4)
            many = costs(big, by_hand, BURST, big.numbers, options.rounds)
        grown = -bench.resident_bytes(pid)
        bench.timed_barrier(big.controller.connection, flow_mods(ADD, options.flows, big.numbers))
        grown += bench.resident_bytes(pid)
        flow = grown / options.flows
        return first, [switches, *one, *many, flow, flow / switches]


def main() -> None:
    """Measure and print."""
    parser = bench.parser(__doc__)
    parser.add_argument("--switches", type=bench.numbers, default=[2, 4, 8], metavar="S,S,..")
    parser.add_argument("--ports", type=int, default=4, help="ports of each switch")
    parser.add_argument("--flows", type=int, default=10000, help="flows for the memory")
    parser.add_argument("--idle", type=float, default=20, help="seconds of doing nothing")
    options = parser.parse_args()
    bench.header(__doc__.splitlines()[0], options)
    table = bench.Table(
        "switches",
        "network s",
        "tunnels s",
        "flood s",
        "start cpu ms",
        "probes",
        "an hour",
        "idle cpu %",
    )
    rows = []
    for switches in options.switches:
        first, second = measure(switches, options)
        table.row(*first)
        rows.append(second)
    print()
    table = bench.Table(
        "switches",
        *(
            f"{count:,}: {what}"
            for count in (1, BURST)
            for what in ("ms", "cpu ms", "by hand ms", "ratio")
        ),
        "bytes a flow",
        "and switch",
    )
    for row in rows:
        table.row(*row)


if __name__ == "__main__":
    main()
