"""Flow-removed in masses: flows that fall idle together, or are deleted by one message.

    idle     all flows fall idle: seconds from the ADDs' barrier until the last FLOW_REMOVED
    deleted  one DELETE of all flows: seconds until the last FLOW_REMOVED

    sudo python benchmarks/removals.py --flows 8000,20000 --deleted 120000

Each flow is on all switches. 300 flows have counted a packet before they are deleted. Columns: how
many of these have told so, and milliseconds to the answer to the longest echo meanwhile, which the
same controller asks for every 20 ms.
"""

import struct
import threading
import time
from collections.abc import Sequence
from typing import Optional

import bench
from bench import of
from lab import frames

IDLE_TIMEOUT = 3
COUNTED = 300
AT_ONCE = 5000  # flow-mods before a barrier
BURST = 30  # frames
INTERVAL = 0.02
MS = 1e3


def address(number: int) -> str:
    """Return the IPv4 destination of a flow."""
    return f"10.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def add(bed: bench.Bed, flows: int, idle_timeout: int) -> None:
    """Add the flows; return when all switches have them."""
    mods = [
        of.flow_mod(
            of.match(dl_type=0x800, nw_dst=address(number)),
            of.output(18),
            cookie=number,
            idle_timeout=idle_timeout,
            flags=of.Flag.SEND_FLOW_REM,
        )
        for number in range(flows)
    ]
    for start in range(0, flows, AT_ONCE):
        bench.timed_barrier(bed.controller.connection, b"".join(mods[start : start + AT_ONCE]))


def use(bed: bench.Bed, numbers: Sequence[int]) -> None:
    """Have each of these flows count a packet."""
    for start in range(0, len(numbers), BURST):
        wanted = numbers[start : start + BURST]
        bed.wires.send(17, *(frames.udp(dst=address(number)) for number in wanted))
        bed.settle()
    bed.wires.capture()


class Told(threading.Thread):
    """Takes FLOW_REMOVED until so many have come, and asks for echoes meanwhile."""

    def __init__(self, connection: bench.Connection, flows: int) -> None:
        super().__init__()
        self.packets: dict[int, int] = {}
        self.longest_echo = 0.0
        self.last = 0.0
        self._connection = connection
        self._flows = flows
        self._problem: Optional[Exception] = None

    def run(self) -> None:
        """Take them."""
        asker = threading.Thread(target=self._ask, daemon=True)
        asker.start()
        deadline = time.perf_counter() + bench.PATIENCE
        while len(self.packets) < self._flows and time.perf_counter() < deadline:
            for message in self._connection.take(of.Type.FLOW_REMOVED):
                cookie, packets = struct.unpack_from("!Q16xQ", message.body, 40)
                self.packets[cookie] = packets
                self.last = time.perf_counter()
            time.sleep(INTERVAL / 4)
        asker.join()

    def _ask(self) -> None:
        try:
            while len(self.packets) < self._flows:
                start = time.perf_counter()
                self._connection.request(of.message(of.Type.ECHO_REQUEST), bench.PATIENCE)
                self.longest_echo = max(self.longest_echo, time.perf_counter() - start)
                time.sleep(INTERVAL)
        except Exception as problem:
            self._problem = problem

    def wait(self) -> None:
        """Return when all have come; raise what went wrong."""
        self.join()
        if self._problem is not None:
            raise self._problem
        if len(self.packets) < self._flows:
            raise RuntimeError(f"{len(self.packets)} of {self._flows} flows are told")


def measure(bed: bench.Bed, flows: int, deleted: bool) -> tuple[float, int, float]:
    """Return the seconds, how many flows have told their packet, and the longest echo."""
    add(bed, flows, 0 if deleted else IDLE_TIMEOUT)
    counted = range(0, flows, max(1, flows // COUNTED))[:COUNTED] if deleted else ()
    use(bed, counted)
    told = Told(bed.controller.connection, flows)
    start = time.perf_counter()
    if deleted:
        bed.controller.send(of.flow_mod(command=of.Command.DELETE))
    told.start()
    told.wait()
    right = sum(told.packets[number] == 1 for number in counted)
    return told.last - start, right, told.longest_echo


def main() -> None:
    """Measure and print."""
    parser = bench.parser(__doc__)
    parser.add_argument("--switches", type=int, default=2)
    parser.add_argument("--flows", type=bench.numbers, default=[8000, 20000])
    parser.add_argument("--deleted", type=bench.numbers, default=[20000, 120000])
    options = parser.parse_args()
    bench.header(__doc__.splitlines()[0], options)
    columns = ("told", "plain told", "echo ms", "plain echo ms")
    table = bench.Table("  flows", "   end ", "  big s", "plain s", "ratio", *columns)
    runs = [(flows, False) for flows in options.flows]
    runs += [(flows, True) for flows in options.deleted]
    # Without cached datapath flows: these may still take the first frames after the ADDs.
    big = bench.BigSwitch(options.switches, python=options.python, level="INFO", flow_limit=0)
    with big, bench.PlainSwitch(flow_limit=0) as plain:
        sides = {"big": big, "plain": plain}
        for flows, deleted in runs:
            seconds, echoes = bench.Samples(), bench.Samples()
            least = dict.fromkeys(sides, COUNTED)
            for number in range(options.rounds):
                for side in bench.rotated(list(sides), number):
                    took, right, echo = measure(sides[side], flows, deleted)
                    seconds.add(side, took)
                    echoes.add(side, echo)
                    least[side] = min(least[side], right)
            table.row(
                f"{flows:,}",
                "deleted" if deleted else "idle",
                seconds["big"],
                seconds["plain"],
                seconds.ratio("big", "plain"),
                *((least[side] if deleted else None) for side in sides),
                *(echoes[side] * MS for side in sides),
            )


if __name__ == "__main__":
    main()
