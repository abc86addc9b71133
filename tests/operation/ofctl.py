"""ovs-ofctl against a management port, and the part of its output that can be compared."""

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

from lab.bigswitch import Bed

from command import dying_with_parent, in_netns
from waiting import wait_until

PORT = 6654
TARGET = f"tcp:127.0.0.1:{PORT}"
DEADLINE = 20
"""Seconds that a command may take."""


class Result(NamedTuple):
    """The exit status and the output of a program."""

    status: int
    out: str
    err: str


def start(bed: Bed, *arguments: str, rundir: str = "/nonexistent") -> subprocess.Popen:
    """Start ovs-ofctl beside a bed. "SW" among the arguments stands for the management port.

    rundir: the directory for sockets that ovs-ofctl makes.
    """
    words = [TARGET if word == "SW" else word for word in arguments]
    return subprocess.Popen(
        dying_with_parent(
            in_netns(bed.wires.outer.pid, ["ovs-ofctl", f"--timeout={DEADLINE}", *words])
        ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ, OVS_RUNDIR=rundir),
    )


def finished(process: subprocess.Popen) -> Result:
    """Wait until a program ends by itself."""
    out, err = process.communicate(timeout=DEADLINE + 10)
    return Result(process.returncode, out, err)


def run(bed: Bed, *arguments: str) -> Result:
    """Run ovs-ofctl with OpenFlow 1.0; see `start`."""
    return finished(start(bed, "-O", "OpenFlow10", *arguments))


def succeed(bed: Bed, *arguments: str) -> str:
    """Run ovs-ofctl, fail when it fails, return what it printed."""
    result = run(bed, *arguments)
    assert result.status == 0, result
    return result.out


def comparable(text: str) -> list[str]:
    """Return the part of ovs-ofctl's output that can be compared, as entries in a fixed order.

    Parts that always differ are left out: transaction ids, times, names and addresses of ports, and
    everything about OFPP_LOCAL, which the big switch does not have. The plain bridge also serves
    flow statistics and packet-ins in Nicira's formats, which ovs-ofctl prefers. They say the same,
    and also when a flow was last used.
    """
    text = re.sub(r"^\d{4}-\d\d-\d\dT\S+?Z\|\d+\|", "", text, flags=re.MULTILINE)  # log prefix
    text = re.sub(r"xid=(0x)?[0-9a-f]+", "xid", text)
    text = re.sub(r" (duration|idle_age|hard_age)=[0-9.]+s?,", "", text)
    text = re.sub(r"\bduration[0-9.]+s", "duration", text)
    text = re.sub(r"time=[0-9.]+ ms|^Finished in .*", "time", text, flags=re.MULTILINE)
    text = re.sub(r"\bNXST_(FLOW|AGGREGATE)\b", r"OFPST_\1", text)
    text = re.sub(r"NXT_PACKET_IN2? \(xid\): cookie=0x[0-9a-f]+", "OFPT_PACKET_IN (xid):", text)
    text = re.sub(r'"?\b(p\d+|\d\.s\d-eth\d)\b"?', "NAME", text)
    text = re.sub(r"addr:[0-9a-f:]{17}", "addr", text)
    entries: list[str] = []
    for line in text.rstrip().splitlines():
        if entries and line.startswith(" " * 5):
            entries[-1] += "\n" + line
        else:
            entries.append(line)
    others = [entry for entry in entries if not re.match(r" +LOCAL\(| +port LOCAL:", entry)]
    if len(others) < len(entries):
        others = [re.sub(r"\b\d+ ports$", f"{len(others) - 1} ports", each) for each in others]
    return sorted(others)


def answer(bed: Bed, *arguments: str) -> tuple[int, Sequence[str], Sequence[str]]:
    """Run ovs-ofctl and return everything that can be compared."""
    result = run(bed, *arguments)
    return result.status, comparable(result.out), comparable(result.err)


class Monitor:
    """`ovs-ofctl monitor` or `snoop` in the background. It is connected when the object is made."""

    def __init__(self, bed: Bed, *arguments: str) -> None:
        self.bed = bed
        self.directory = tempfile.mkdtemp(prefix="ofctl-", dir=bed.wires.directory)
        self.control = os.path.join(self.directory, "ctl")
        self.process = start(bed, f"--unixctl={self.control}", *arguments, rundir=self.directory)
        wait_until(self._connected, f"answer from ovs-ofctl {arguments}")

    def _connected(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"ended: {finished(self.process)}")
        return os.path.exists(self.control) and self._control("ofctl/barrier").returncode == 0

    def _control(self, command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["ovs-appctl", f"--timeout={DEADLINE}", "-t", self.control, command],
            capture_output=True,
            text=True,
        )

    def stop(self) -> list[str]:
        """Let it print everything that the switch has sent so far; return the output as
        `comparable` does.
        """
        self.bed.settle()
        assert self._control("ofctl/barrier").returncode == 0, "no barrier"
        self.process.send_signal(signal.SIGTERM)
        result = finished(self.process)
        ours = re.compile("OFPT_BARRIER_REPLY|OFPT_ECHO_REQUEST|.*terminating with signal")
        return [line for line in comparable(result.out + result.err) if not ours.match(line)]
