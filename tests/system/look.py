"""The flows of a switch, and the messages to it, as a user sees them with ovs-ofctl."""

import os
import re
import subprocess
import threading
import time
from typing import NamedTuple

from lab import frames
from lab.network import Switch

from command import dying_with_parent


class Flow(NamedTuple):
    """A line of `ovs-ofctl dump-flows`. `match` and `actions` are in ovs-ofctl's words."""

    table: int
    priority: int
    match: str
    actions: str
    cookie: int
    duration: float
    packets: int
    octets: int

    @property
    def rule(self) -> str:
        """The flow as one short line, without counters."""
        return f"table={self.table} priority={self.priority} {self.match}: {self.actions}"


def dump(switch: Switch) -> list[Flow]:
    """Return all flows of a switch."""
    return [
        _flow(line)
        for line in switch.ovs.ofctl("dump-flows", switch.name, "--no-names").splitlines()
        if "actions=" in line
    ]


def _flow(line: str) -> Flow:
    left, _, actions = line.strip().partition(" actions=")
    match = []
    said = {"table": "0", "priority": "32768"}
    for word in re.split(r",\s*|\s+", left):
        name, equals, value = word.partition("=")
        if equals and name in _SAID:
            said[name] = value
        else:
            match.append(word)
    return Flow(
        int(said["table"]),
        int(said["priority"]),
        ",".join(match) or "any",
        actions,
        int(said["cookie"], 16),
        float(said["duration"].rstrip("s")),
        int(said["n_packets"]),
        int(said["n_bytes"]),
    )


_SAID = {
    *("cookie", "duration", "table", "n_packets", "n_bytes", "idle_timeout", "hard_timeout"),
    *("idle_age", "hard_age", "priority", "send_flow_rem"),
}


def rules(switch: Switch, *tables: int) -> set[str]:
    """Return the flows of a switch (in these tables, or in all) as short lines."""
    return {flow.rule for flow in dump(switch) if not tables or flow.table in tables}


def of_the_controller(switch: Switch) -> list[Flow]:
    """Return all flows of a switch but the service rules."""
    return [flow for flow in dump(switch) if flow.cookie]


def service_rules(ports: tuple[int, ...] = (1, 2), tunnel: int = 3) -> set[str]:
    """Return the design's service rules for a switch with these ports."""
    return {
        f"table=0 priority=32768 in_port={tunnel}: resubmit(,1)",
        "table=0 priority=0 any: resubmit(,2)",
        "table=1 priority=32768 tun_id=0: CONTROLLER:65535",
        *(f"table=1 priority=32768 tun_id={port:#x}: output:{port}" for port in ports),
        "table=1 priority=32768 tun_id=0x7e: ALL",
        "table=1 priority=32768 tun_id=0x7f: FLOOD",
        "table=2 priority=0 any: CONTROLLER:65535",
    }


class Snoop:
    """`ovs-ofctl snoop`: the OpenFlow messages between a switch and its controller.

    bed: the big switch. It sends a packet-out where a mark in the output is needed.
    """

    def __init__(self, bed, dpid: int) -> None:
        self.bed = bed
        self.switch = bed.network.switches[dpid]
        self.port = next(n for n in bed.numbers if bed.network.locate(n)[0].dpid == dpid)
        self.lines: list[str] = []
        self._marks = 0
        self._more = threading.Condition()
        self._process = subprocess.Popen(
            dying_with_parent(["ovs-ofctl", "snoop", self.switch.name]),
            env=dict(os.environ, OVS_RUNDIR=self.switch.ovs.directory),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        deadline = time.monotonic() + 10
        while not self._mark(0.1):  # ovs-ofctl does not say when it listens
            assert time.monotonic() < deadline, "ovs-ofctl snoop shows nothing"
        self.changes()

    def _read(self) -> None:
        for line in self._process.stdout:
            with self._more:
                self.lines.append(line.rstrip("\n"))
                self._more.notify_all()

    def _mark(self, timeout: float) -> bool:
        """Send a unique packet-out; return whether it appears in the output within `timeout`
        seconds.
        """
        self._marks += 1
        mark = "dl_src=" + frames.host_mac(0xFE0000000000 + self._marks)
        frame = frames.ethernet(src=mark[len("dl_src=") :], ethertype=0x88B5)
        self.bed.controller.packet_out(frame, b"", in_port=self.port)

        def seen() -> bool:
            return any(mark in line for line in self.lines)

        with self._more:
            return self._more.wait_for(seen, timeout)

    def changes(self) -> list[str]:
        """Return the flow-mods since the last call, without their xids."""
        assert self._mark(10), "ovs-ofctl snoop shows nothing"
        with self._more:
            lines, self.lines = self.lines, []
        return [
            re.sub(r" \(xid=\w+\)", "", line)
            for line in lines
            if line.startswith(("OFPT_FLOW_MOD", "NXT_FLOW_MOD"))
        ]

    def stop(self) -> None:
        """End ovs-ofctl."""
        self._process.terminate()
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()
