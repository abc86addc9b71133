"""Responsiveness: who else is answered while one controller sends 50,000 flow-mods.

Before and during the burst, every 10 ms

    echo       another controller asks for an OFPT_ECHO_REPLY
    packet-in  a frame that no flow matches enters a port, and a third controller waits for its
               packet-in

    sudo python benchmarks/responsiveness.py --flows 50000 --switches 2

Columns: the number of requests; milliseconds to the answer: median, 99th percentile, longest.
The bursts are an ADD, a MODIFY_STRICT and a DELETE_STRICT of all flows, the ADD again behind a
request for the statistics of all flows, and one DELETE of all.
"""

import itertools
import threading
import time
from typing import Optional

import bench
from bench import of
from flow_mods import ADD, DELETE_STRICT, EVERYTHING, MODIFY_STRICT, flow_mods
from lab import frames

INTERVAL = 0.01
LISTEN = 6634
FLOW_STATS = of.stats_request(of.Stats.FLOW, of.flow_stats_body())
LONGEST = 10.0
"""Seconds after which a missing answer is an error."""
MS = 1e3


class Asker(threading.Thread):
    """Another controller, which asks something every INTERVAL until it is stopped."""

    def __init__(self, big: bench.BigSwitch) -> None:
        super().__init__()
        self.port = big.wires.ports[1]
        self.connection = bench.Connection.open(big.network.outer, LISTEN)
        # A client of a switch gets no packet-ins before it sets a miss_send_len.
        self.connection.do(of.set_config(miss_send_len=128))
        self.times: list[float] = []
        self._over = threading.Event()
        self._problem: Optional[Exception] = None

    def ask(self) -> None:
        """Ask once; return when the answer has come."""
        raise NotImplementedError

    def run(self) -> None:
        """Ask every INTERVAL until stopped."""
        try:
            while not self._over.wait(INTERVAL):
                start = time.perf_counter()
                self.ask()
                self.times.append(time.perf_counter() - start)
        except Exception as problem:
            self._problem = problem

    def stop(self) -> list[float]:
        """Return the seconds that each answer took; raise what went wrong."""
        self._over.set()
        self.join()
        self.connection.close()
        if self._problem is not None:
            raise self._problem
        return self.times


class Echo(Asker):
    """Asks for an echo reply."""

    def ask(self) -> None:
        self.connection.request(of.message(of.Type.ECHO_REQUEST), LONGEST)


class PacketIn(Asker):
    """Asks for a packet-in, by a frame that no flow matches."""

    numbers = itertools.count()

    def ask(self) -> None:
        frame = frames.arp(sender_mac=frames.host_mac(next(self.numbers)))
        self.port.send(frame)
        self.connection.expect(of.Type.PACKET_IN, LONGEST, lambda each: each.body.endswith(frame))


KINDS = {"echo": Echo, "packet-in": PacketIn}


def main() -> None:
    """Measure and print."""
    parser = bench.parser(__doc__)
    parser.add_argument("--switches", type=int, default=2)
    parser.add_argument("--flows", type=int, default=50000)
    options = parser.parse_args()
    bench.header(__doc__.splitlines()[0], options)
    table = bench.Table("meanwhile     ", "asked    ", "  times", "median", "   p99", "longest")
    more = [f"--listen={LISTEN}"]
    with bench.big_switch(options.switches, options.python, options=more) as big:
        ports = big.numbers
        bursts = {
            "nothing": None,
            "ADD": flow_mods(ADD, options.flows, ports),
            "MODIFY_STRICT": flow_mods(MODIFY_STRICT, options.flows, ports[::-1]),
            "DELETE_STRICT": flow_mods(DELETE_STRICT, options.flows, ports),
            "ADD again": flow_mods(ADD, options.flows, ports),
            "stats, ADD": FLOW_STATS + flow_mods(ADD, options.flows, ports),
            "DELETE all": EVERYTHING,
        }
        times = {(burst, kind): [] for burst in bursts for kind in KINDS}
        for _ in range(options.rounds):
            for burst, messages in bursts.items():
                askers = {kind: KINDS[kind](big) for kind in KINDS}
                for asker in askers.values():
                    asker.start()
                if messages is None:
                    time.sleep(1)
                else:
                    bench.timed_barrier(big.controller.connection, messages)
                    big.controller.take()
                for kind, asker in askers.items():
                    times[burst, kind] += asker.stop()
        for (burst, kind), taken in times.items():
            if burst != "ADD again":
                p50, p99 = (bench.percentile(taken, percent) for percent in (50, 99))
                table.row(burst, kind, len(taken), p50 * MS, p99 * MS, max(taken) * MS)


if __name__ == "__main__":
    main()
