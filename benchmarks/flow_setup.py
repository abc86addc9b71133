"""Flow set-up: from a frame's arrival by the controller and back to the frame's departure.

Each frame belongs to a flow of its own (but for `installed`).  It enters port 1 and leaves port 2,
which for the big switch is on the same switch, or 17, which is on another, behind a tunnel.  The
same controller is connected in five ways:

    big         to the big switch, whose switches are reached over a network
    direct      to a plain Open vSwitch bridge, over the same kind of network
    far         the same, but port 17 is on another Open vSwitch, behind a tunnel with flows that
                are set by hand
    relay       the same as far, but with relay.py in the aggregator's place, which only copies
                bytes.  That is the least that any Python program takes there, if the controller
                does not wait for acknowledgements.
    loopback    to a plain bridge on its own machine

There are six controllers.  Before them comes a row whose frames all belong to one flow:

    installed   no controller is asked: the time that the switches and the tunnel take
    packet_out  the quickest possible in Python (reactive.py): packet-out of the frame
    flow_mod    the same, with a flow-mod before it
    hub         POX's forwarding.hub --reactive: packet-out of the frame, to all ports
    l2_pairs    POX's forwarding.l2_pairs: two flow-mods, the frame with the second.  POX leaves
                Nagle's algorithm on, so each waits for the 40 ms of a delayed acknowledgement.
    l2_learning POX's forwarding.l2_learning: a flow-mod and the frame.
    os_ken      a learning switch on os-ken (tests/controllers/learning_switch.py): the same.  It
                is left out by default, since it needs a Python that has os-ken.

    sudo python benchmarks/flow_setup.py

Columns: microseconds from frame in to frame out, median and 99th percentile, one frame at a time,
and their ratios; frames per second with several under way; and microseconds of the aggregator's
processor time for a frame.
"""

import contextlib
import functools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import bench
from lab.aggregator import Aggregator
from lab.bigswitch import Bed

from waiting import wait_until

IN = 1
UNDER_WAY = 16
"""Frames at once; Open vSwitch drops packet-ins when 100 wait for a controller."""
POX = {
    "hub": ["forwarding.hub", "--reactive"],
    "l2_pairs": ["forwarding.l2_pairs"],
    "l2_learning": ["forwarding.l2_learning"],
}
OS_KEN = os.path.join(bench.ROOT, "tests", "controllers", "learning_switch.py")
AT_A_TIME = 20
"""Frames that one path takes, one after the other, before it is the next path's turn."""
PATHS = {
    "direct": bench.RemoteSwitch,
    "far": functools.partial(bench.RemoteSwitch, far=True),
    "relay": functools.partial(bench.RemoteSwitch, far=True),
    "loopback": bench.plain_switch,
}
RATIOS = (("big", "direct"), ("relay", "direct"), ("big", "relay"), ("big", "loopback"))
INSTALLED = "installed"
CONTROLLERS = (INSTALLED, "packet_out", "flow_mod", *POX)
US = 1e6


def frame(destination: int, source: int) -> bytes:
    """Return a frame between two Ethernet addresses, given as numbers below 2**40."""
    addresses = [(2 << 40 | number).to_bytes(6, "big") for number in (destination, source)]
    return b"".join(addresses).ljust(60, b"\x88")


class Path:
    """The path of frames from port IN to port `out` of one switch, by its controller.

    relayed: the controller is behind relay.py.
    new_flows: whether each frame belongs to a new flow.
    """

    def __init__(
        self, name: str, bed: Bed, out: int, relayed: bool = False, new_flows: bool = True
    ) -> None:
        self.name = name
        self.bed = bed
        self.relayed = relayed
        self.new_flows = new_flows
        self.out = out
        self.entry = bed.wires.ports[IN]
        self.exit = bed.wires.ports[out]
        self.number = 0

    def frame(self) -> bytes:
        """Return a frame to port `out`."""
        self.number += self.new_flows
        return frame(self.out, self.number << 16)

    def forget_cache(self) -> None:
        """Empty Open vSwitch's cache: it looks through all of it after each flow-mod."""
        for ovs in self.bed.wires.daemons():
            ovs.appctl("revalidator/purge")

    def wait_until_open(self) -> None:
        """Return when the controller is connected and knows where the destination is."""

        def crosses() -> bool:
            # Without a controller, the datapath caches a drop for the frame as long as more come.
            self.forget_cache()
            self.exit.send(frame(IN, self.out))  # a controller that learns learns from this
            sent = self.frame()
            self.entry.send(sent)
            return sent in iter(lambda: self.exit.receive(0.1), None)

        wait_until(crosses, f"frame through {self.name}", 30)
        for _ in range(3):  # let frames arrive that were delayed at the controller
            self.bed.wires.capture()
            time.sleep(0.1)

    def latencies(self, count: int) -> list[float]:
        """Return the seconds that each of so many frames takes, one after the other."""
        taken = []
        for _ in range(count):
            sent = self.frame()
            start = time.perf_counter()
            self.entry.send(sent)
            received = self.exit.receive(5)
            taken.append(time.perf_counter() - start)
            if received != sent:
                raise RuntimeError(f"{self.name}: {received} came out, not {sent}")
        return taken

    def rate(self, count: int) -> float:
        """Return how many frames a second get through with UNDER_WAY of them at once."""
        start = time.perf_counter()
        for number in range(count + UNDER_WAY):
            if number < count:
                self.entry.send(self.frame())
            if number >= UNDER_WAY and self.exit.receive(5) is None:
                raise RuntimeError(f"{self.name}: a frame is lost")
        return count / (time.perf_counter() - start)


@contextlib.contextmanager
def controller(kind: str, path: Path, log: str) -> Iterator[None]:
    """Run this controller in place of the lab's."""
    address, port = path.bed.controller.address, path.bed.controller.port
    path.bed.controller.close()
    namespace = path.bed.controller.namespace

    def start(program: str, *arguments: object) -> None:
        command = [sys.executable, os.path.join(bench.BENCHMARKS, program), *map(str, arguments)]
        process = subprocess.Popen(namespace.command(*command))
        stack.callback(process.wait)
        stack.callback(process.kill)

    with contextlib.ExitStack() as stack:
        if path.relayed:
            start("relay.py", address, port, port + 1)
            address, port = "127.0.0.1", port + 1
        if kind in POX:
            options = ["--address=" + address, f"--port={port}", *POX[kind]]
            pox = Aggregator(namespace, log, options, component="openflow.of_01", level="WARNING")
            pox.start()
            stack.callback(pox.kill)
        elif kind == "os_ken":
            start(OS_KEN, address, port)
        else:
            start("reactive.py", address, port, "flow_mod" if kind == INSTALLED else kind)
        path.wait_until_open()
        yield


def measure(paths: list[Path], pid: int, rounds: int, count: int) -> list[float]:
    """Return the cells of a row of the table, after the controller and the port."""
    samples = bench.Samples()
    latencies: dict[str, list[float]] = {path.name: [] for path in paths}
    for number in range(rounds):
        taken: dict[str, list[float]] = {path.name: [] for path in paths}
        used = 0.0
        for _ in range(count // AT_A_TIME):
            for path in random.sample(paths, len(paths)):  # no path always after the same one
                if path.new_flows:
                    path.forget_cache()
                path.latencies(1)  # fills the other caches again
                before = bench.cpu_seconds(pid)
                taken[path.name] += path.latencies(AT_A_TIME)
                used += bench.cpu_seconds(pid) - before if path.name == "big" else 0
        samples.add("cpu", used / len(taken["big"]))
        for path in bench.rotated(paths, number):
            latencies[path.name] += taken[path.name]
            samples.add(path.name, bench.percentile(taken[path.name], 50))
            samples.add(path.name + " rate", path.rate(count))
    tails = {name: bench.percentile(taken, 99) for name, taken in latencies.items()}
    row = []
    for path in paths:
        row += [samples[path.name] * US, tails[path.name] * US]
    for one, other in RATIOS:
        row += [samples.ratio(one, other), tails[one] / tails[other]]
    row += [samples[path.name + " rate"] for path in paths]
    return [*row, samples["cpu"] * US]


def main() -> None:
    """Measure and print."""
    parser = bench.parser(__doc__)
    parser.add_argument("--frames", type=int, default=200, help="frames of a round")
    parser.add_argument("--ports", type=bench.numbers, default=[2, 17], metavar="P,P,..")
    parser.add_argument("--controllers", default=",".join(CONTROLLERS), metavar="NAME,..")
    options = parser.parse_args()
    bench.header(__doc__.splitlines()[0], options)
    table = bench.Table(
        "controller",
        "port",
        *(f"{name} {what}" for name in ("big", *PATHS) for what in ("p50", "p99")),
        *(f"{one}/{other} {what}" for one, other in RATIOS for what in ("p50", "p99")),
        *(f"{name}/s" for name in ("big", *PATHS)),
        "cpu us",
    )
    for kind in options.controllers.split(","):
        for out in options.ports:
            with contextlib.ExitStack() as stack:
                directory = stack.enter_context(tempfile.TemporaryDirectory())
                big = stack.enter_context(bench.big_switch(2, options.python))
                new_flows = kind != INSTALLED
                paths = [Path("big", big, out, new_flows=new_flows)]
                for name, plain in PATHS.items():
                    bed = stack.enter_context(plain())
                    paths.append(Path(name, bed, out, name == "relay", new_flows))
                for path in paths:
                    log = os.path.join(directory, path.name)
                    stack.enter_context(controller(kind, path, log))
                row = measure(paths, big.aggregator.pid, options.rounds, options.frames)
            table.row(kind, out, *row)


if __name__ == "__main__":
    main()
