"""Flow-mods: what one costs, on how many switches, with how many flows.

Sends N flow-mods and a barrier in one piece, and takes the time until the barrier is answered.
That is done with the big switch and with a plain Open vSwitch bridge.  The floor is the time that
POX's own library takes to unpack the same N messages, and to construct and pack one nx_flow_mod
each for every switch.  It is measured in a process of the same interpreter that does nothing else
(floor.py).

    sudo python benchmarks/flow_mods.py --switches 1,2,4,8,16 --flows 1000,10000,50000

Columns: flow-mods per second of wall time; microseconds of processor time for each in the
aggregator (without Open vSwitch, which shares the processors) and on the floor; and ratios.
"""

from collections.abc import Sequence
from typing import Optional

import bench
from bench import of

ADD, MODIFY_STRICT, DELETE_STRICT = (
    of.Command.ADD,
    of.Command.MODIFY_STRICT,
    of.Command.DELETE_STRICT,
)
EVERYTHING = of.flow_mod(command=of.Command.DELETE)
FIRST_IP = 10 << 24
US = 1e6


def flow_mods(command: int, count: int, ports: Sequence[int], in_port: bool = False) -> bytes:
    """Return flow-mods for one flow each per destination IP; they output to the ports in turn."""
    # The match as bytes, with the address put in: `of.match` for each would take a second.
    pattern = [
        of.match(dl_type=0x0800, nw_dst="255.255.255.255", **({"in_port": port} if in_port else {}))
        for port in ports
    ]
    place = pattern[0].index(b"\xff" * 4)
    actions = [b"" if command == DELETE_STRICT else of.output(port) for port in ports]
    messages = []
    for number in range(count):
        turn = number % len(ports)
        address = (FIRST_IP + number).to_bytes(4, "big")
        match = pattern[turn][:place] + address + pattern[turn][place + 4 :]
        messages.append(of.flow_mod(match, actions[-1 - turn], command, cookie=number))
    return b"".join(messages)


class Side:
    """A switch that is measured.

    pid: the aggregator's process, whose processor time is measured too; None for Open vSwitch.
    """

    def __init__(
        self,
        name: str,
        connection: bench.Connection,
        samples: bench.Samples,
        pid: Optional[int] = None,
    ) -> None:
        self.name = name
        self.connection = connection
        self.samples = samples
        self.pid = pid

    def run(self, operation: str, messages: bytes, count: int, left: int) -> None:
        """Run an operation once; check that `left` flows are in the table then."""
        before = bench.cpu_seconds(self.pid) if self.pid else 0
        taken = bench.timed_barrier(self.connection, messages)
        if self.pid:
            used = bench.cpu_seconds(self.pid) - before
            self.samples.add(f"{operation} cpu", used / count * US)
        self.samples.add(f"{operation} {self.name}", taken / count * US)
        there = self.connection.aggregate().flow_count
        if there != left:
            raise RuntimeError(f"{self.name}: {there} flows after {operation}, not {left}")


class FloorSide:
    """The floor: POX's library alone."""

    def __init__(self, floor: bench.Floor, switches: int, samples: bench.Samples) -> None:
        self.floor = floor
        self.switches = switches
        self.samples = samples

    def run(self, operation: str, messages: bytes, count: int, left: int) -> None:
        command = operation.split(",")[0]
        if command != "DELETE all":
            switches = 1 if operation.endswith("in_port") else self.switches
            taken = self.floor.seconds("flow_mods", command, count, switches)
            self.samples.add(f"{operation} floor", taken / count * US)


OPERATIONS = ("ADD, in_port", "ADD", "MODIFY_STRICT", "DELETE_STRICT", "DELETE all")


def measure(
    big: bench.BigSwitch,
    plain: bench.PlainSwitch,
    floor: bench.Floor,
    count: int,
    rounds: int,
) -> bench.Samples:
    """Return the samples of all operations with so many flows."""
    samples = bench.Samples()
    sides = [
        Side("big", big.controller.connection, samples, big.aggregator.pid),
        Side("plain", plain.controller.connection, samples),
        FloorSide(floor, len(big.network.switches), samples),
    ]
    ports = big.numbers
    steps = [
        ("ADD, in_port", flow_mods(ADD, count, ports, in_port=True), count),
        ("DELETE all", EVERYTHING, 0),
        ("ADD", flow_mods(ADD, count, ports), count),
        ("MODIFY_STRICT", flow_mods(MODIFY_STRICT, count, ports[::-1]), count),
        ("DELETE_STRICT", flow_mods(DELETE_STRICT, count, ports), 0),
        ("ADD", flow_mods(ADD, count, ports), count),
        ("DELETE all", EVERYTHING, 0),
    ]
    for number in range(rounds):
        for operation, messages, left in steps:
            for side in bench.rotated(sides, number):
                side.run(operation, messages, count, left)
    return samples


def report(table: bench.Table, switches: int, flows: int, samples: bench.Samples) -> None:
    """Print the rows of one measurement."""
    for operation in OPERATIONS:
        big, plain = samples[f"{operation} big"], samples[f"{operation} plain"]
        floors = [None] * 3
        if operation != "DELETE all":
            floors = [
                samples[f"{operation} floor"],
                samples.ratio(f"{operation} cpu", f"{operation} floor"),
                samples.ratio(f"{operation} big", f"{operation} floor"),
            ]
        table.row(
            switches,
            flows,
            operation,
            US / big,
            US / plain,
            samples[f"{operation} cpu"],
            *floors,
            samples.ratio(f"{operation} big", f"{operation} plain"),
        )


def main() -> None:
    """Measure and print."""
    parser = bench.parser(__doc__)
    parser.add_argument("--switches", type=bench.numbers, default=[1, 2], metavar="S,S,..")
    parser.add_argument("--flows", type=bench.numbers, default=[1000, 10000], metavar="N,N,..")
    options = parser.parse_args()
    bench.header(__doc__.splitlines()[0], options)
    table = bench.Table(
        "switches",
        " flows",
        "    operation",
        " big/s",
        "  plain/s",
        "cpu us",
        "floor us",
        "cpu/floor",
        "wall/floor",
        "wall/plain",
    )
    few, many = min(options.flows), max(options.flows)
    growth = []
    with bench.plain_switch() as plain, bench.Floor(options.python) as floor:
        for switches in options.switches:
            with bench.big_switch(switches, options.python) as big:
                costs = {}
                for flows in options.flows:
                    samples = measure(big, plain, floor, flows, options.rounds)
                    report(table, switches, flows, samples)
                    costs[flows] = {each: samples[f"{each} cpu"] for each in OPERATIONS}
            growth += [
                (switches, each, costs[many][each] / costs[few][each]) for each in costs[few]
            ]
    if many != few:
        print(f"\nProcessor time of the aggregator for a flow, {many} flows to {few}:\n")
        table = bench.Table("switches", "    operation", "ratio")
        for row in growth:
            table.row(*row)


if __name__ == "__main__":
    main()
