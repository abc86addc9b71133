"""Two switches that are told the same, and must answer the same."""

import collections
import struct
import time
from typing import Callable, NamedTuple, Optional, TypeVar, Union

from lab import openflow10 as of
from lab.bigswitch import Bed
from lab.frames import describe
from lab.openflow10 import Message, Type

Answer = TypeVar("Answer")

XID = 0xABCD0000
"""First of the transaction ids that both switches get alike."""
TOLERANCE = 0.75
"""Seconds by which times may differ: the machine may be busy."""
WAIT = 10.0
"""Seconds to wait for what must come."""

ERRORS = {
    "HELLO_FAILED": ("INCOMPATIBLE", "EPERM"),
    "BAD_REQUEST": (
        "BAD_VERSION",
        "BAD_TYPE",
        "BAD_STAT",
        "BAD_VENDOR",
        "BAD_SUBTYPE",
        "EPERM",
        "BAD_LEN",
        "BUFFER_EMPTY",
        "BUFFER_UNKNOWN",
    ),
    "BAD_ACTION": (
        "BAD_TYPE",
        "BAD_LEN",
        "BAD_VENDOR",
        "BAD_VENDOR_TYPE",
        "BAD_OUT_PORT",
        "BAD_ARGUMENT",
        "EPERM",
        "TOO_MANY",
        "BAD_QUEUE",
    ),
    "FLOW_MOD_FAILED": (
        "ALL_TABLES_FULL",
        "OVERLAP",
        "EPERM",
        "BAD_EMERG_TIMEOUT",
        "BAD_COMMAND",
        "UNSUPPORTED",
    ),
    "PORT_MOD_FAILED": ("BAD_PORT", "BAD_HW_ADDR"),
    "QUEUE_OP_FAILED": ("BAD_PORT", "BAD_QUEUE", "EPERM"),
}
"""ofp_error_type and the codes of each, in the order of the OpenFlow 1.0.0 specification, 5.4.4."""

NX_ERROR = 0xB0C2
"""Type of the error message in which Open vSwitch wraps errors without an OpenFlow 1.0 code."""


def error_name(error: of.Error) -> str:
    """Return "TYPE/CODE" in the specification's words, or "NX type/code"."""
    if error.type == NX_ERROR:
        _, type_, code = struct.unpack_from("!IHH", error.data)
        return f"NX {type_}/{code}"
    if error.type < len(ERRORS):
        name, codes = list(ERRORS.items())[error.type]
        if error.code < len(codes):
            return f"{name}/{codes[error.code]}"
    return f"{error.type}/{error.code}"


class Outcome(NamedTuple):
    """What a frame led to: the frames that came `out` of each port, and the packet-ins."""

    out: dict[int, list[bytes]]
    packet_ins: list[of.PacketIn]

    def lines(self) -> list[str]:
        """Describe the outcome: a line for each frame and packet-in."""
        return [
            f"port {port}: {describe(frame)}"
            for port in sorted(self.out)
            for frame in self.out[port]
        ] + [
            f"packet-in in_port={packet_in.in_port} reason={packet_in.reason} "
            f"buffer={packet_in.buffer_id:#x} total_len={packet_in.total_len}: "
            f"{describe(packet_in.data)}"
            for packet_in in self.packet_ins
        ]

    @property
    def ports(self) -> list[int]:
        """The ports that frames came out of; a port is there once for each frame."""
        return sorted(port for port, frames in self.out.items() for _ in frames)


class Difference(AssertionError):
    """The big switch answered differently from the plain bridge."""


class Both:
    """The plain bridge and the big switch: each method does one thing to both and compares.

    A method returns the answer that both gave.

    in_order: whether the frames that come out of a port are compared in their order.
    patient: whether the aggregator may have to send frames on by itself. Then wait until it has
        received them (one barrier) and has sent them (another).
    """

    def __init__(self, plain: Bed, big: Bed) -> None:
        self.plain = plain
        self.big = big
        self.in_order = True
        self.patient = False
        self._xid = XID
        self._tables: dict[Bed, of.TableStats] = {}
        self._ports: dict[Bed, dict[int, of.PortStats]] = {}
        self.each(forget_removed)
        self.mark()

    def reset(self) -> None:
        """Make both switches as new."""
        for bed in self.beds:
            bed.reset()
            forget_removed(bed)
        self.mark()

    @property
    def beds(self) -> tuple[Bed, Bed]:
        """Both beds, the plain bridge first."""
        return self.plain, self.big

    def each(self, ask: Callable[[Bed], object]) -> None:
        """Do something to both beds whose answer does not matter."""
        for bed in self.beds:
            ask(bed)

    def same(self, ask: Callable[[Bed], Answer], what: str = "answer") -> Answer:
        """Do something to both beds; fail when the answers differ; return the answer."""
        plain, big = (ask(bed) for bed in self.beds)
        if big != plain:  # no assert: pytest would compare long answers once more, item by item
            raise Difference(f"{what}\n{_difference(plain, big)}")
        return plain

    # ---- messages ----

    def send(self, *messages: bytes) -> None:
        """Send messages as they are, in one piece."""
        self.each(lambda bed: bed.controller.send(*messages))

    def barrier(self) -> None:
        """Return when both have done everything that was sent; they work at the same time."""
        xids = {}
        for bed in self.beds:
            xids[bed] = bed.controller.new_xid()
            bed.controller.send(of.message(Type.BARRIER_REQUEST, xid=xids[bed]))
        for bed, xid in xids.items():
            bed.controller.expect(Type.BARRIER_REPLY, where=lambda reply, xid=xid: reply.xid == xid)

    def replies(self, *messages: bytes) -> list[Message]:
        """Send messages and a barrier; return the answers that carry the messages' xids.

        The messages get consecutive xids. The barrier reply must come last.
        """
        first = self._xid
        raws = [of.with_xid(raw, first + number) for number, raw in enumerate(messages)]
        self._xid += len(raws)
        self.send(*raws)
        self.barrier()

        def take(bed: Bed) -> list[Message]:
            return bed.controller.take(where=lambda reply: first <= reply.xid < first + len(raws))

        return self.same(take, "replies to " + ", ".join(raw.hex() for raw in raws)[:2000])

    def error(self, message: bytes) -> Optional[str]:
        """Send a message that has no reply; return the name of the error, None if there is none.

        The error must hold the whole message.
        """
        replies = self.replies(message)
        if not replies:
            return None
        assert [reply.type for reply in replies] == [Type.ERROR], replies
        assert replies[0].version == of.VERSION
        error = of.unpack_error(replies[0].body)
        data = error.data[8:] if error.type == NX_ERROR else error.data
        assert of.with_xid(data, 0) == of.with_xid(message, 0)[: len(data)]
        assert len(data) >= min(64, len(message))
        return error_name(error)

    def do(self, *messages: bytes) -> None:
        """Send messages that have no reply and that must not be refused."""
        replies = self.replies(*messages)
        assert not replies, [str(reply) for reply in replies]

    def flow_mod(self, *args: object, **fields: object) -> None:
        """Send a flow-mod (arguments of `openflow10.flow_mod`) that must not be refused."""
        self.do(of.flow_mod(*args, **fields))

    def set_config(self, flags: int, miss_send_len: int = 128) -> None:
        """Set the switch's configuration, and wait until it holds for frames."""
        self.do(of.set_config(flags, miss_send_len))
        self.each(lambda bed: bed.settle())

    def stats(self, type: int, body: bytes = b"") -> bytes:
        """Return a statistics reply. All its parts must be equal."""
        parts = self.replies(of.stats_request(type, body))
        assert all(part.type == Type.STATS_REPLY for part in parts), parts
        return b"".join(part.body[4:] for part in parts)

    # ---- frames ----

    def inject(self, port: int, *frames: bytes) -> Outcome:
        """Send frames into a port; return what they led to."""
        self.each(lambda bed: bed.wires.send(port, *frames))
        listing = "\n".join(f"  {describe(frame)}" for frame in frames[:20])
        return self.outcome(f"sent into port {port}:\n{listing}\ncame out")

    def packet_out(
        self, frame: bytes, actions: Union[bytes, list[bytes]], in_port: int = of.Port.NONE
    ) -> Outcome:
        """Send a packet-out that must not be refused; return what it led to."""
        self.do(of.packet_out(frame, actions, in_port))
        return self.outcome(
            f"packet-out, in_port {in_port}, actions {of.joined(actions).hex()}:\n"
            f"  {describe(frame)}\ncame out"
        )

    def outcome(self, what: str = "came out") -> Outcome:
        """Return what the frames and packet-outs that were sent before led to."""

        def look(bed: Bed) -> Outcome:
            out = bed.wires.capture()
            bed.controller.barrier()
            if self.patient:
                bed.controller.barrier()
                for port, late in bed.wires.capture().items():
                    out.setdefault(port, []).extend(late)
            if not self.in_order:
                out = {port: sorted(got) for port, got in out.items()}
            return Outcome(out, bed.controller.packet_ins())

        return self.same(look, what)

    # ---- flows ----

    def flows(
        self,
        match: bytes = of.match(),
        table_id: int = 0xFF,
        out_port: int = of.Port.NONE,
        added_at_once: bool = True,
    ) -> list[of.FlowStats]:
        """Return flow statistics, sorted. Durations must be about equal, and are returned as 0.

        added_at_once: False to let them differ: one bed has had its flows while the other one was
            still getting its own.
        """
        body = of.flow_stats_body(match, table_id, out_port)
        durations = []

        def ask(bed: Bed) -> list[bytes]:
            entries = []
            for raw in split_flow_stats(bed.controller.stats(of.Stats.FLOW, body)):
                seconds, nanoseconds = struct.unpack_from("!II", raw, 44)
                assert nanoseconds < 10**9
                entries.append((raw[:44] + bytes(8) + raw[52:], seconds + nanoseconds / 1e9))
            entries.sort()
            durations.append([duration for _, duration in entries])
            return [raw for raw, _ in entries]

        raws = self.same(ask, "flow statistics")
        for plain, big in zip(*durations):
            assert not added_at_once or abs(plain - big) < TOLERANCE, f"durations {plain}, {big} s"
        return of.unpack_flow_stats(b"".join(raws))

    def aggregate(
        self, match: bytes = of.match(), table_id: int = 0xFF, out_port: int = of.Port.NONE
    ) -> of.Aggregate:
        """Return aggregate statistics."""
        body = of.flow_stats_body(match, table_id, out_port)
        return of.unpack_aggregate(self.stats(of.Stats.AGGREGATE, body))

    def counters(self) -> dict[int, tuple[int, int]]:
        """Return (packets, bytes) of every flow by its cookie."""
        return {flow.cookie: (flow.packet_count, flow.byte_count) for flow in self.flows()}

    def removed(
        self, count: int, timeout: float = WAIT, tolerance: float = TOLERANCE
    ) -> list[of.FlowRemoved]:
        """Wait for `count` flow-removed messages; return them sorted by cookie.

        Durations must be about equal, and are returned as 0. Fail when more messages have come.
        """
        durations = []

        def take(bed: Bed) -> list[bytes]:
            bodies = [bed.controller.expect(Type.FLOW_REMOVED, timeout).body for _ in range(count)]
            bed.controller.barrier()
            bodies += [message.body for message in bed.controller.take(Type.FLOW_REMOVED)]
            bodies.sort(key=removed_key)
            durations.append([of.unpack_flow_removed(body).duration for body in bodies])
            return [body[:52] + bytes(8) + body[60:] for body in bodies]

        bodies = self.same(take, "flow-removed")
        for plain, big, body in zip(*durations, bodies):
            removed = of.unpack_flow_removed(body)
            assert abs(plain - big) < tolerance, f"durations {plain} and {big} s of {removed}"
        assert len(bodies) == count, f"{len(bodies)} flow-removed instead of {count}"
        return [of.unpack_flow_removed(body) for body in bodies]

    def removed_so_far(self) -> list[of.FlowRemoved]:
        """Return the flow-removed messages received so far, sorted by cookie, with durations 0."""

        def take(bed: Bed) -> list[bytes]:
            bodies = forget_removed(bed)
            bodies.sort(key=removed_key)
            return [body[:52] + bytes(8) + body[60:] for body in bodies]

        return [of.unpack_flow_removed(body) for body in self.same(take, "flow-removed")]

    # ---- counters that live longer than a test ----

    def mark(self) -> None:
        """Let `table` and `ports` count from this moment."""
        for bed in self.beds:
            self._tables[bed] = bed.controller.table_stats()[0]
            self._ports[bed] = bed.controller.port_stats()

    def table(self) -> tuple[int, int, int]:
        """Return active, lookup and matched counts of table 0. Lookups and matches count since
        `mark`.
        """

        def ask(bed: Bed) -> tuple[int, int, int]:
            now, then = bed.controller.table_stats()[0], self._tables[bed]
            return (
                now.active_count,
                now.lookup_count - then.lookup_count,
                now.matched_count - then.matched_count,
            )

        return self.same(ask, "table statistics")

    def ports(self) -> dict[int, of.PortStats]:
        """Return the counters of each port since `mark`."""

        def ask(bed: Bed) -> dict[int, of.PortStats]:
            counted = {}
            for number, now in bed.controller.port_stats().items():
                if number < of.Port.MAX:
                    then = self._ports[bed].get(number, of.PortStats(*[0] * 13))
                    counters = (after - before for after, before in zip(now[1:], then[1:]))
                    counted[number] = of.PortStats(number, *counters)
            return counted

        return self.same(ask, "port statistics")

    # ---- ports ----

    def port_mod(self, port: int, config: int, mask: Optional[int] = None) -> Optional[str]:
        """Set bits of a port's configuration; return the error.

        mask: the bits to change; without it those that are set in `config`.
        """
        xid, self._xid = self._xid, self._xid + 1

        def ask(bed: Bed) -> Optional[str]:
            hw_addr = bed.controller.features().ports[port].hw_addr
            raw = of.port_mod(port, hw_addr, config, config if mask is None else mask, xid=xid)
            bed.controller.send(raw)
            # Open vSwitch may answer a barrier one round of its main loop before a port-mod or a
            # set-config takes effect.
            bed.settle()
            errors = bed.controller.take(where=lambda reply: reply.xid == xid)
            return [error_name(of.unpack_error(error.body)) for error in errors]

        errors = self.same(ask, f"port-mod of {port}")
        return errors[0] if errors else None

    def features(self) -> dict[int, of.PhyPort]:
        """Return the features' ports by number, without names, addresses and the LOCAL port."""

        def ask(bed: Bed) -> tuple[object, ...]:
            *rest, ports = bed.controller.features()
            return (
                *rest,
                {number: anonymous(port) for number, port in ports.items() if number < of.Port.MAX},
            )

        return self.same(ask, "features")[-1]

    def port_statuses(self, count: int, timeout: float = WAIT) -> list[of.PortStatus]:
        """Wait for `count` port-status messages; return them without names and addresses."""

        def take(bed: Bed) -> list[of.PortStatus]:
            messages = [bed.controller.expect(Type.PORT_STATUS, timeout) for _ in range(count)]
            bed.settle()
            messages += bed.controller.take(Type.PORT_STATUS)
            statuses = [of.unpack_port_status(message.body) for message in messages]
            return [status._replace(port=anonymous(status.port)) for status in statuses]

        statuses = self.same(take, "port-status")
        assert len(statuses) == count, statuses
        return statuses

    # ---- the end ----

    def quiet(self) -> None:
        """Fail if an inbox holds a message that nobody has asked for."""
        self.each(lambda bed: bed.settle())

        def look(bed: Bed) -> list[str]:
            return [str(message) for message in bed.controller.take()]

        unexpected = self.same(look, "unexpected messages")
        assert unexpected == []


def anonymous(port: of.PhyPort) -> of.PhyPort:
    """Return a port without its name and its address, which always differ."""
    return port._replace(name="", hw_addr="")


def forget_removed(bed: Bed) -> list[bytes]:
    """Return the flow-removed messages of all flows that have ended so far.

    Flow-removed messages come after the barrier reply. So delete one more flow, and wait until
    every controller has been told of it. Do so twice, since Open vSwitch may report deletions in
    quick succession in another order.
    """
    last = of.match(in_port=of.Port.NONE)
    for _ in range(2):
        bed.controller.send(
            of.flow_mod(last, cookie=_LAST, flags=of.Flag.SEND_FLOW_REM),
            of.flow_mod(last, command=of.Command.DELETE_STRICT),
        )
        for each in (bed.controller, *bed.others):
            each.expect(
                Type.FLOW_REMOVED,
                where=lambda message: message.body[40:48] == _LAST.to_bytes(8, "big"),
            )
    return [message.body for message in bed.controller.take(Type.FLOW_REMOVED)]


_LAST = 0x4C61737446303030


def removed_key(body: bytes) -> tuple[bytes, ...]:
    """Return the key that sorts flow-removed messages: the cookie, the rest, the duration."""
    return body[40:48], body[:40], body[48:52], body[60:], body[52:60]


def split_flow_stats(data: bytes) -> list[bytes]:
    """Return the entries of a flow statistics reply as bytes."""
    entries = []
    while data:
        (length,) = struct.unpack_from("!H", data)
        entries.append(data[:length])
        data = data[length:]
    return entries


def wait_for(condition: Callable[[], object], what: str, timeout: float = WAIT) -> None:
    """Return when `condition` is true; fail when it is not true within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {timeout:g} s"
        time.sleep(0.01)


def _difference(plain: object, big: object, limit: int = 20) -> str:
    """Describe both answers; of long answers only the lines that one of them lacks."""
    one, other = _lines(plain), _lines(big)
    if len(one) + len(other) > limit:
        counted = collections.Counter(one)
        counted.subtract(other)
        one = [line for line, count in counted.items() for _ in range(count)]
        other = [line for line, count in counted.items() for _ in range(-count)]
        if not one and not other:
            return "the same, but in another order"
        one.append(f"... and {len(_lines(plain)) - len(one)} that both have")
    return "\n  ".join(
        ["plain bridge:", *(one[:limit] or ["nothing"])]
        + ["\nbig switch:", *(other[:limit] or ["nothing"])]
    )


def _lines(answer: object) -> list[str]:
    if isinstance(answer, Outcome):
        return answer.lines()
    if isinstance(answer, dict):
        return [f"{key}: {value}" for key, value in answer.items()]
    if isinstance(answer, (list, tuple)) and not isinstance(answer, Message):
        return [line for item in answer for line in _lines(item)]
    if isinstance(answer, Message) and answer.type == Type.ERROR:
        error = of.unpack_error(answer.body)
        return [f"{error_name(error)} version={answer.version} data={error.data[:100].hex()}"]
    return [answer.hex() if isinstance(answer, bytes) else str(answer)]
