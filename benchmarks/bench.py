"""What the benchmarks share: options, the cost of a process, medians, and tables.

Every benchmark is a program: `sudo python benchmarks/NAME.py --help`.  In several rounds, it
measures the big switch and what that is compared with, one after the other.  It prints medians and
their ratios.  On a busy machine the ratios are right, but the absolute numbers are not.

The switches, the aggregator's process and the controller come from tests/lab.
"""

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Optional, Union

BENCHMARKS = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(BENCHMARKS)
for _directory in ("scripts", "tests"):
    sys.path.insert(0, os.path.join(ROOT, _directory))

from lab import openflow10 as of  # noqa: E402
from lab.aggregator import find_pox  # noqa: E402
from lab.bigswitch import Bed, BigSwitch, PlainSwitch  # noqa: E402
from lab.controller import Connection, Controller  # noqa: E402
from lab.network import CONTROL_ADDRESS, Network  # noqa: E402

PATIENCE = 600.0
"""Seconds that one measurement may take."""


def parser(description: Optional[str]) -> argparse.ArgumentParser:
    """Return a parser that knows the options of every benchmark; `description` is a docstring."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--python",
        default=sys.executable,
        metavar="PROGRAM",
        help="the interpreter of the aggregator and of its floor, such as pypy3 (default: this)",
    )
    made.add_argument("--rounds", type=int, default=5, help="rounds, of which the median is taken")
    return made


def numbers(text: str) -> list[int]:
    """Return the numbers of an option such as "1,2,4"."""
    return [int(each) for each in text.split(",")]


def big_switch(switches: int, python: str, **more: object) -> BigSwitch:
    """A big switch as in production: Open vSwitch's default settings, the log level INFO."""
    return BigSwitch(switches, flow_limit=None, level="INFO", python=python, **more)


def plain_switch() -> PlainSwitch:
    """One plain Open vSwitch bridge with default settings."""
    return PlainSwitch(flow_limit=None)


class RemoteSwitch(Bed):
    """One plain bridge with default settings and ports 1, 2, 17 and 18.

    It reaches its `controller` over a network, as a big switch's switches reach the aggregator.

    far: ports 17 and 18 are on another Open vSwitch, as in a big switch.  Each of them is behind
        its own tunnel, with flows set by hand.
    """

    def __init__(self, far: bool = False) -> None:
        self.wires = self.network = Network(2 if far else 1, flow_limit=None)
        try:
            for switch in self.network.switches.values():
                switch.ovs.vsctl("del-port", switch.name, switch.tunnel)
            near = self.network.switches[1]
            for number in (17, 18):
                if far:
                    self._join(number)
                else:
                    near.add_port(number)
            self.controller = Controller(self.network.outer, address=CONTROL_ADDRESS)
            near.connect(self.controller.target)
            self.controller.wait_for_connection()
        except BaseException:
            self.stop()
            raise

    def _join(self, number: int) -> None:
        """Make port `number` of s1 a tunnel to the port of s2 that has this number."""
        near, far = self.network.switches.values()
        _, port = self.network.locate(number)
        for switch, other in ((near, far), (far, near)):
            switch.ovs.vsctl(
                *("add-port", switch.name, f"far{number}", "--", "set", "interface"),
                *(f"far{number}", "type=gre", f"options:local_ip={switch.tunnel_ip}"),
                *(f"options:remote_ip={other.tunnel_ip}", f"options:key={number}"),
                f"ofport_request={number}",
            )
        for flow in (f"in_port={number},actions={port}", f"in_port={port},actions={number}"):
            far.ovs.ofctl("add-flow", far.name, flow)

    def stop(self) -> None:
        if hasattr(self, "controller"):
            self.controller.close()
        self.network.stop()


def timed_barrier(connection: Connection, messages: bytes) -> float:
    """Send messages with one barrier behind them; return the seconds until it is answered."""
    xid = connection.new_xid()
    barrier = of.message(of.Type.BARRIER_REQUEST, xid=xid)
    start = time.perf_counter()
    connection.send(messages, barrier)
    connection.expect(of.Type.BARRIER_REPLY, PATIENCE, lambda reply: reply.xid == xid)
    taken = time.perf_counter() - start
    errors = connection.take(of.Type.ERROR)
    if errors:
        raise RuntimeError(f"{len(errors)} errors, the first: {errors[0]}")
    return taken


# ---- processes ----


def cpu_seconds(pid: int) -> float:
    """Return the processor time that all threads of a process have used (proc(5), schedstat)."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError):  # the thread has ended
            total += int(read(f"/proc/{pid}/task/{thread}/schedstat").split()[0])
    return total / 1e9


def resident_bytes(pid: int) -> int:
    """Return the memory of a process that is in use (VmRSS)."""
    return int(re.search(r"VmRSS:\s*(\d+) kB", read(f"/proc/{pid}/status"))[1]) * 1024


def read(path: str) -> str:
    """Return what is in a file."""
    with open(path) as file:
        return file.read()


class Floor:
    """The process of floor.py, in which POX's own library does the same work and nothing else.

    It lives as long as the big switch, so that a compiling interpreter has warmed up, too.
    """

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, os.path.join(BENCHMARKS, "floor.py")],
            env=dict(os.environ, PYTHONPATH=find_pox()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, task: str, *arguments: Union[str, int]) -> float:
        """Return the processor time that a task takes; floor.py lists the tasks."""
        self._process.stdin.write(" ".join(map(str, (task, *arguments))) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def __enter__(self) -> "Floor":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


# ---- results ----


class Samples:
    """Measured values by name; a name's value is the median of its rounds."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, name: str, value: float) -> None:
        """Note a round's value."""
        self._values[name].append(value)

    def __getitem__(self, name: str) -> float:
        return statistics.median(self._values[name])

    def ratio(self, name: str, to: str) -> float:
        """Return the median of the rounds' ratios: noise that lasts a round cancels out."""
        pairs = zip(self._values[name], self._values[to])
        return statistics.median(value / base for value, base in pairs)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def rotated(items: Sequence, by: int) -> list:
    """Return the items, beginning with item `by`, so that no side always comes first."""
    by %= len(items)
    return [*items[by:], *items[:by]]


def header(what: str, options: argparse.Namespace) -> None:
    """Print what is measured, on what."""
    version = subprocess.run(
        [options.python, "-c", "import sys; print(sys.version.replace(chr(10), ' '))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    print(f"{what}\n{os.cpu_count()} processors; aggregator: {version}", flush=True)
    print(f"medians of {options.rounds} rounds\n", flush=True)


class Table:
    """A Markdown table, printed row by row as the measurements end."""

    def __init__(self, *titles: str) -> None:
        self._widths = [len(title) for title in titles]
        self._print(titles)
        self._print(["-" * (width - 1) + ":" for width in self._widths])

    def row(self, *cells: object) -> None:
        """Print a row; numbers have three significant digits."""
        self._print([_text(cell) for cell in cells])

    def _print(self, cells: Sequence[str]) -> None:
        padded = (cell.rjust(width) for cell, width in zip(cells, self._widths))
        print("| " + " | ".join(padded) + " |", flush=True)


def _text(cell: object) -> str:
    if not isinstance(cell, float):
        return "-" if cell is None else str(cell)
    if cell >= 1000:
        return f"{cell:,.0f}"
    return f"{cell:.3g}" if cell < 100 else f"{cell:.0f}"
