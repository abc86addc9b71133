"""Flow and aggregate statistics: what reading 10,000 flows costs.

The request goes to the big switch and to a plain Open vSwitch bridge with the same flows.  The time
that a controller on POX takes to unpack the reply is added to both, since the controller needs it
in either case.  The ratio is the ratio of the sums.

    sudo python benchmarks/flow_stats.py --switches 1,2,4,8,16 --flows 10000

Columns: milliseconds from the request to the last part of the reply; milliseconds to unpack it;
milliseconds of the aggregator's processor time; and the ratios with and without the unpacking.
"""

import struct
import tempfile
import time

import bench
from bench import of
from flow_mods import ADD, EVERYTHING, flow_mods

MS = 1e3
REQUESTS = {"flow": of.Stats.FLOW, "aggregate": of.Stats.AGGREGATE}


def timed_stats(connection: bench.Connection, kind: int) -> tuple[float, bytes]:
    """Return the seconds until the reply is complete, and its messages' bytes."""
    xid = connection.new_xid()
    start = time.perf_counter()
    connection.send(of.stats_request(kind, of.flow_stats_body(), xid=xid))
    parts = []
    more = True
    while more:
        part = connection.expect(
            of.Type.STATS_REPLY, bench.PATIENCE, lambda reply: reply.xid == xid
        )
        parts.append(part)
        more = struct.unpack_from("!H", part.body, 2)[0] & of.Stats.REPLY_MORE
    taken = time.perf_counter() - start
    return taken, b"".join(part.pack() for part in parts)


def main() -> None:
    """Measure and print."""
    parser = bench.parser(__doc__)
    parser.add_argument("--switches", type=bench.numbers, default=[1, 2], metavar="S,S,..")
    parser.add_argument("--flows", type=int, default=10000)
    options = parser.parse_args()
    bench.header(f"{__doc__.splitlines()[0]}  Here: {options.flows} flows.", options)
    table = bench.Table(
        "switches",
        "     kind",
        "big ms",
        "plain ms",
        "unpack ms",
        "cpu ms",
        "ratio with unpack",
        "ratio without",
    )
    with bench.plain_switch() as plain, bench.Floor(options.python) as floor:
        for switches in options.switches:
            with bench.big_switch(switches, options.python) as big:
                for bed in (big, plain):
                    messages = flow_mods(ADD, options.flows, big.numbers)
                    bench.timed_barrier(bed.controller.connection, EVERYTHING + messages)
                for name, kind in REQUESTS.items():
                    samples = measure(big, plain, floor, kind, options.rounds)
                    table.row(
                        switches,
                        name,
                        samples["big"] * MS,
                        samples["plain"] * MS,
                        samples["unpack"] * MS,
                        samples["cpu"] * MS,
                        samples.ratio("big read", "plain read"),
                        samples.ratio("big", "plain"),
                    )


def measure(
    big: bench.BigSwitch, plain: bench.PlainSwitch, floor: bench.Floor, kind: int, rounds: int
) -> bench.Samples:
    """Return the samples of one kind of request."""
    samples = bench.Samples()
    beds = {"big": big, "plain": plain}
    for number in range(rounds):
        for name in bench.rotated(list(beds), number):
            before = bench.cpu_seconds(big.aggregator.pid)
            taken, reply = timed_stats(beds[name].controller.connection, kind)
            used = bench.cpu_seconds(big.aggregator.pid) - before
            with tempfile.NamedTemporaryFile() as file:
                file.write(reply)
                file.flush()
                unpacked = floor.seconds("read", file.name)
            samples.add(name, taken)
            samples.add(name + " read", taken + unpacked)
            samples.add("unpack", unpacked)
            if name == "big":
                samples.add("cpu", used)
    return samples


if __name__ == "__main__":
    main()
