"""A big switch to break: three switches, flows of every kind, and a look inside."""

import json
import os
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from typing import Any, Callable, NamedTuple, Optional

from . import frames
from . import openflow10 as of
from .bigswitch import OPENFLOW_PORT, BigSwitch
from .network import CONTROL_ADDRESS, Switch
from .openflow10 import Port, Type
from .relay import Relay

INSIDE = "\0lab.inside"
NX_FLOW_STATS = 0
UNASSIGNED = 50
"""A port number of a fourth switch, which does not exist."""


PASSING = (
    "edge.poxfixes.hub.",  # who waits for what at this moment
    "edge.poxfixes.timers.",
    "edge.poxfixes.connection.EdgeConnection.",  # what POX keeps of the handshake
    # shared by flows with the same actions, as long as they are remembered
    "edge.openflow.actions.",
    "edge.openflow.match.",
    "edge.south.translations.Translations._known",
    "edge.switch.census.Census.",  # counts of in_ports and switches, kept until the table is empty
    "edge.switch.expiry.Expiry._deadlines",
    "edge.switch.packets.Packets._ins",
    "edge.switch.packets.Packets._outs",
)
"""What may be there or not: caches, and what time brings."""


class Installed(NamedTuple):
    """One flow on a switch, as Open vSwitch tells it; `since` is when it was added (monotonic)."""

    table: int
    priority: int
    match: str
    cookie: int
    actions: str
    since: float
    packets: int

    def untouched(self, before: "Installed") -> bool:
        """Whether it is the very flow that it was before, with its counters."""
        same_age = abs(self.since - before.since) < 0.5
        return same_age and self[:5] == before[:5] and self.packets >= before.packets


def until(
    condition: Callable[[], Any], what: str, timeout: float = 10, interval: float = 0.005
) -> Any:
    """Return the condition's value when it is true; fail, naming `what`, after `timeout` s.

    For what tells nobody when it happens, such as what is on a switch.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"no {what} within {timeout:g} s"
        time.sleep(interval)


def resident_memory(pid: int) -> int:
    """Return the bytes of memory that a process has in use (VmRSS)."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def dump(switch: Switch) -> list[Installed]:
    """Return all flows of a switch's bridge, read from its management socket (NXST_FLOW)."""
    with switch.open_management() as connection:
        body = struct.pack("!II4xHHB3x", of.NX_VENDOR, NX_FLOW_STATS, Port.NONE, 0, 0xFF)
        connection.sendall(of.stats_request(of.Stats.VENDOR, body))
        stream = connection.makefile("rb")
        flows: list[Installed] = []
        more = True
        while more:
            message = of.read(stream)
            if message.type == Type.STATS_REPLY:
                more = bool(message.body[3] & of.Stats.REPLY_MORE)
                flows += _entries(message.body[16:])
            else:
                assert message.type == Type.HELLO, f"{message} instead of the flows"
    return flows


def _entries(data: bytes) -> Iterable[Installed]:
    while data:
        length, table, seconds, nanoseconds, priority = struct.unpack_from("!HBxIIH", data)
        match_length, cookie, packets = struct.unpack_from("!4xH4xQQ", data, 14)
        actions = 48 + match_length + -match_length % 8
        yield Installed(
            table,
            priority,
            data[48 : 48 + match_length].hex(),
            cookie,
            data[actions:length].hex(),
            time.monotonic() - seconds - nanoseconds / 1e9,
            packets,
        )
        data = data[length:]


class FaultBed(BigSwitch):
    """A big switch whose test may look inside the aggregator.

    relays: dpids of switches that connect through a `Relay`; see `relays`.
    dead: seconds after which a lost switch is taken for dead, if not what the aggregator says.
    audit: seconds in which the aggregator looks at all flow entries once, if not what it says.
    """

    def __init__(
        self,
        switches: int = 3,
        options: Sequence[str] = (),
        relays: Sequence[int] = (),
        dead: Optional[float] = None,
        audit: Optional[float] = None,
        **more: Any,
    ) -> None:
        self.relays: dict[int, Relay] = {}
        self._relayed = relays
        inside = ["lab.inside"]
        if dead is not None:
            inside.append(f"--dead={dead}")
        if audit is not None:
            inside.append(f"--audit={audit}")
        super().__init__(switches, options=[*options, *inside], **more)

    def stop(self) -> None:
        for relay in self.relays.values():
            relay.close()
        super().stop()

    def connect_switches(self) -> None:
        for dpid in self._relayed:
            relay = self.relays[dpid] = Relay(
                self.network.outer, CONTROL_ADDRESS, (CONTROL_ADDRESS, OPENFLOW_PORT)
            )
            self.network.switches[dpid].connect(relay.endpoint)
        for dpid in self.network.switches.keys() - self.relays.keys():
            self.network.switches[dpid].connect(f"tcp:{CONTROL_ADDRESS}:{OPENFLOW_PORT}")

    def inside(self, question: str) -> dict[str, Any]:
        """Return the answer of lab.inside: "sizes", "flows" or "unreached"."""

        def connect() -> socket.socket:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(10)
            connection.connect(INSIDE)
            return connection

        with self.network.outer.call(connect) as connection:
            connection.sendall(question.encode() + b"\n")
            return json.loads(connection.makefile().readline())

    def held(self) -> dict[str, int]:
        """Return the sizes of all that the aggregator holds, but for `PASSING`."""
        sizes = self.inside("sizes")
        return {name: size for name, size in sizes.items() if not name.startswith(PASSING)}

    def held_when_quiet(self) -> dict[str, int]:
        """Return `held` when it does not change any more."""
        last: dict[str, int] = {}

        def same() -> bool:
            nonlocal last
            before, last = last, self.held()
            return before == last

        until(same, "rest", interval=0.3)  # three rounds of its timer
        return last

    def expect_held(self, expected: dict[str, int], timeout: float = 10) -> None:
        """Fail unless the aggregator comes to hold exactly this."""
        different: dict[str, tuple[int, int]] = {}

        def same() -> bool:
            now = self.held()
            different.clear()
            for name in now.keys() | expected.keys():
                was, is_ = expected.get(name, 0), now.get(name, 0)
                if was != is_:
                    different[name] = was, is_
            return not different

        try:
            until(same, "rest", timeout, 0.1)
        except AssertionError:
            raise AssertionError(f"held (before, now): {different}") from None

    def differences(self, dpids: Optional[Iterable[int]] = None) -> str:
        """Return how what is on the switches differs from what has to be there; "" if it does not.

        dpids: which switches; all if none are given.
        """
        wanted = self.inside("flows")
        found = []
        for dpid in dpids or self.network.switches:
            if str(dpid) not in wanted:
                found.append(f"s{dpid} is not ready")
                continue
            want = {tuple(flow) for flow in wanted[str(dpid)]}
            got = {
                (flow.table, flow.priority, "" if flow.cookie else flow.match, *flow[3:5])
                for flow in dump(self.network.switches[dpid])
            }
            found += [f"s{dpid} lacks {flow}" for flow in sorted(want - got)]
            found += [f"s{dpid} has {flow}" for flow in sorted(got - want)]
        return "\n".join(found)

    def wait_until_right(self, timeout: float = 2, dpids: Iterable[int] = ()) -> float:
        """Return when each switch has exactly the flows that it has to have, after how long."""
        start = time.monotonic()
        differences = "unknown"

        def right() -> bool:
            nonlocal differences
            try:
                differences = self.differences(dpids)
            except OSError as e:
                differences = str(e)  # a switch or the aggregator is not up
            return not differences

        try:
            until(right, "right flows", timeout)
        except AssertionError as e:
            raise AssertionError(f"{e}:\n{differences}") from None
        return time.monotonic() - start

    def wait_for_link(self, numbers: Sequence[int], down: bool, timeout: float = 20) -> float:
        """Return, after how long, when the controller has been told so of the ports' links."""
        start = time.monotonic()
        missing = set(numbers)

        def wanted(message: of.Message) -> bool:
            status = of.unpack_port_status(message.body)
            return status.port.port_no in missing and bool(status.port.state & of.LINK_DOWN) == down

        while missing:
            left = timeout - (time.monotonic() - start)
            message = self.controller.expect(Type.PORT_STATUS, max(left, 0), wanted)
            missing.discard(of.unpack_port_status(message.body).port.port_no)
        return time.monotonic() - start

    def install_flows(self) -> None:
        """Put flows of every kind into the table.

        Frames to `frames.host_mac(n)` go to port n.
        """
        self.controller.send(*flows_of_every_kind(self.numbers))
        self.controller.barrier()
        errors = self.controller.take(Type.ERROR)
        assert not errors, errors


def flows_of_every_kind(numbers: Sequence[int]) -> list[bytes]:
    """Return flow-mods: with and without in_port, all kinds of outputs, timeouts, priorities."""
    local, near, far, remote = numbers[0], numbers[1], numbers[2], numbers[-1]
    mods = [
        of.flow_mod(of.match(dl_dst=frames.host_mac(number)), of.output(number), cookie=number)
        for number in numbers
    ]

    def add(actions: Sequence[bytes], match: bytes, **fields: Any) -> None:
        mods.append(of.flow_mod(match, list(actions), cookie=1000 + len(mods), **fields))

    add([of.output(Port.FLOOD)], of.match(dl_dst=frames.BROADCAST))
    add([of.output(Port.FLOOD)], of.match(dl_dst=frames.BROADCAST, in_port=far), priority=40000)
    add([of.output(Port.ALL)], of.match(dl_dst="01:00:5e:00:00:01"))
    add([of.output(Port.ALL), of.output(Port.CONTROLLER, 64)], of.match(dl_vlan=7, in_port=remote))
    add([of.output(Port.IN_PORT)], of.match(dl_type=0x88B5))
    add([of.output(far)], of.match(dl_type=0x88B6), priority=0)
    add([of.output(Port.CONTROLLER, 128)], of.match(), priority=0)
    add([], of.match(dl_type=0x88B7, in_port=near))
    add(
        [of.set_vlan_vid(9), of.output(far), of.strip_vlan(), of.output(remote), of.output(local)],
        of.match(dl_type=0x0800, nw_proto=17, tp_dst=53),
        priority=1,
    )
    add([of.enqueue(far, 3), of.enqueue(local, 4)], of.match(dl_type=0x0800, nw_proto=6, tp_dst=22))
    add([of.output(UNASSIGNED), of.output(near)], of.match(dl_type=0x88B8))
    add([of.output(far)], of.match(in_port=UNASSIGNED))
    add(
        [of.output(remote)],
        of.match(dl_type=0x0806, nw_src="10.1.0.0/16"),
        idle_timeout=600,
        flags=of.Flag.SEND_FLOW_REM,
    )
    add([of.output(far)], of.match(dl_type=0x88B9), hard_timeout=600)
    add([of.output(far)], of.match(dl_type=0x88BA, in_port=far), idle_timeout=500, hard_timeout=600)
    return mods
