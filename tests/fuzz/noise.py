"""Messages that are nearly right, and bytes that are no messages at all.

Everything comes from one random.Random: the same seed makes the same messages.
"""

import random
import struct
from collections.abc import Sequence

from lab import openflow10 as of
from lab.fakeswitch import NXST_FLOW, phy_port
from lab.openflow10 import ActionType, Port, Stats, Type

PORTS = (1, 2, 17, 18)
NUMBERS = (0, 1, 2, 3, 17, 18, 50, 0xFE, 0xFEFF, 0xFF00, 0xFFF7, *range(0xFFF8, 0x10000))
EDGES = (0, 1, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
ETHERTYPES = (0, 0x05FF, 0x0800, 0x0806, 0x86DD, 0x8100, 0x88CC, 0xFFFF)
OUTPUTS = (*PORTS, *PORTS, 3, 50, 0, Port.FLOOD, Port.ALL, Port.IN_PORT, Port.CONTROLLER)


class Noise(random.Random):
    """Makes messages.  `ports`: the PhyPorts of the big switch by number, for port-mods."""

    ports: dict[int, of.PhyPort] = {}

    # ---- from a controller ----

    def match(self) -> bytes:
        """Return an ofp_match of few fields, of many fields, or of random bytes."""
        kind = self.random()
        if kind < 0.1:
            return self.randbytes(40)
        fields: dict[str, of.MatchValue] = {}
        some = 0.15 if kind < 0.7 else 0.6
        for name, values in (
            ("in_port", PORTS),
            ("dl_vlan", (0, 5, 4095, 0xFFFF)),
            ("dl_vlan_pcp", (0, 3, 7, 255)),
            ("dl_src", ("00:00:00:00:00:01", "ff:ff:ff:ff:ff:ff")),
            ("dl_dst", ("00:00:00:00:00:02", "01:80:c2:00:00:0e")),
            ("dl_type", ETHERTYPES),
            ("nw_tos", (0, 4, 255)),
            ("nw_proto", (0, 1, 6, 17, 58, 132, 255)),
            ("nw_src", ("10.0.0.1", "10.0.0.0/8", "255.255.255.255/0")),
            ("nw_dst", ("10.0.0.2", "10.0.1.0/25")),
            ("tp_src", (0, 80, 65535)),
            ("tp_dst", (0, 53, 65535)),
        ):
            if self.random() < some:
                fields[name] = self.choice(values)
        return of.match(**fields)

    def action(self) -> bytes:
        """Return an action of a valid form, whose values may be invalid."""
        kind = self.randrange(14)
        if kind in (0, 12, 13):
            return of.output(self.choice(OUTPUTS), self.choice((0, 64, 0xFFFF)))
        body = {
            ActionType.SET_VLAN_VID: lambda: struct.pack("!Hxx", self.choice((0, 5, 4095, 4096))),
            ActionType.SET_VLAN_PCP: lambda: bytes((self.choice((0, 7, 8, 255)), 0, 0, 0)),
            ActionType.STRIP_VLAN: lambda: bytes(4),
            ActionType.SET_DL_SRC: lambda: self.randbytes(6) + bytes(6),
            ActionType.SET_DL_DST: lambda: self.randbytes(6) + bytes(6),
            ActionType.SET_NW_SRC: lambda: self.randbytes(4),
            ActionType.SET_NW_DST: lambda: self.randbytes(4),
            ActionType.SET_NW_TOS: lambda: bytes((self.choice((0, 4, 252, 3)), 0, 0, 0)),
            ActionType.SET_TP_SRC: lambda: self.randbytes(2) + bytes(2),
            ActionType.SET_TP_DST: lambda: self.randbytes(2) + bytes(2),
            ActionType.ENQUEUE: lambda: struct.pack("!H6xI", self.choice(NUMBERS), 1),
        }[kind]()
        return of.action(kind, body)

    def actions(self) -> bytes:
        """Return up to four actions; a few of them are broken."""
        actions = b"".join(self.action() for _ in range(self.choice((0, 1, 1, 2, 2, 4))))
        return self.damage(actions) if actions and self.random() < 0.2 else actions

    def flow_mod(self) -> bytes:
        """Return an OFPT_FLOW_MOD."""
        return of.flow_mod(
            self.match(),
            self.actions(),
            self.choice((0, 0, 0, 0, 1, 2, 3, 4, 5, 0xFF00)),
            self.choice((0, 1, 0x8000, 0xFFFF)),
            self.choice((0, 1, 1 << 63, (1 << 64) - 1)),
            self.choice((0, 0, 0, 60, 0xFFFF)),
            self.choice((0, 0, 0, 60, 0xFFFF)),
            self.choice((of.NO_BUFFER, of.NO_BUFFER, of.NO_BUFFER, 0, 1)),
            self.choice((Port.NONE, Port.NONE, *NUMBERS)),
            self.choice((0, 0, 1, 1, 2, 3, 4, 7, 8, 0xFFFF)),
        )

    def packet_out(self) -> bytes:
        """Return an OFPT_PACKET_OUT."""
        message = of.packet_out(
            self.randbytes(self.choice((0, 1, 13, 14, 60, 200))),
            self.actions(),
            self.choice(NUMBERS),
            self.choice((of.NO_BUFFER, of.NO_BUFFER, 0, 7)),
        )
        if self.random() < 0.2:  # actions_len
            return message[:14] + struct.pack("!H", self.choice(EDGES) & 0xFFFF) + message[16:]
        return message

    def stats_request(self) -> bytes:
        """Return an OFPT_STATS_REQUEST."""
        kind = self.choice((0, 1, 1, 2, 3, 4, 5, 6, 13, 0xFFFF))
        body = {
            Stats.FLOW: lambda: of.flow_stats_body(self.match(), self.choice((0, 1, 0xFF))),
            Stats.AGGREGATE: lambda: of.flow_stats_body(
                self.match(), 0xFF, self.choice((Port.NONE, *NUMBERS))
            ),
            Stats.PORT: lambda: struct.pack("!H6x", self.choice(NUMBERS)),
            Stats.QUEUE: lambda: struct.pack("!HxxI", self.choice(NUMBERS), self.choice(EDGES)),
            Stats.VENDOR: lambda: self.choice((NXST_FLOW, b"\0\0\x12\x34", b"")),
        }.get(kind, lambda: b"")()
        return of.stats_request(kind, body, self.choice((0, 0, 1, 0xFFFF)))

    def port_mod(self) -> bytes:
        """Return an OFPT_PORT_MOD, but none that takes a port down."""
        number, port = self.choice(list(self.ports.items()))
        address = self.choice((port.hw_addr, port.hw_addr, "00:00:00:00:00:00"))
        bits = self.choice((0x10, 0x40, 0x50, 0xFFFFFF00))
        return of.port_mod(number, address, self.choice((0, bits)), bits)

    def simple(self) -> bytes:
        """Return a message with a random body, of a known or an unknown type."""
        kind = self.choice((*Type, *Type, 22, 99, 255))
        size = self.choice((0, 0, 0, 4, 8, 24, 56, 80, self.randrange(300)))
        return of.message(kind, self.randbytes(size))

    def from_controller(self) -> bytes:
        """Return any message from a controller, right or nearly right, with a correct length."""
        kind = self.random()
        if kind < 0.45:
            message = self.flow_mod()
        elif kind < 0.6:
            message = self.packet_out()
        elif kind < 0.7:
            message = self.stats_request()
        elif kind < 0.75 and self.ports:
            message = self.port_mod()
        elif kind < 0.8:
            message = of.set_config(self.choice((0, 0, 1, 2, 3, 8)), self.choice((0, 128, 0xFFFF)))
        elif kind < 0.85:
            vendor = self.choice((0, 0x1234, of.NX_VENDOR, 0x4F4E4600))
            subtype = self.choice((0, 1, 9999))
            message = of.message(Type.VENDOR, struct.pack("!II", vendor, subtype))
        else:
            message = self.simple()
        if self.random() < 0.4:
            message = self.damage(message)
        return self.framed(message)

    # ---- from a switch ----

    def from_switch(self, xids: Sequence[int]) -> bytes:
        """Return any message from a switch, right or nearly right, with a correct length.

        xids: of the requests that the switch has got.
        """
        port = self.randbytes(48)
        if self.random() < 0.7:
            name = self.choice((b"p", b"tun9", b"tun10", b"\xff" * 16, b"", b"s4-eth1"))
            number = self.choice(NUMBERS)
            port = phy_port(number, "", self.choice((0, 1, 0x7F)), self.choice((0, 1)))
            port = port[:8] + name.ljust(16, b"\0") + port[24:]
        nx = struct.pack("!I", of.NX_VENDOR)
        fields = b"".join(
            struct.pack("!HBB", self.choice((0, 1)), self.randrange(80) << 1, size)
            + self.randbytes(size)
            for size in (self.choice((0, 1, 2, 4, 8, 255)) for _ in range(self.randrange(4)))
        )
        flow = self.randbytes(6) + self.randbytes(42)
        flow = struct.pack("!H", self.choice((48, 48, 0, 1, 47, 56, 0xFFFF))) + flow[2:]
        if self.random() < 0.5:
            flow = flow[:18] + bytes(2) + flow[20:]
        kind, body = self.choice(
            (
                (Type.PORT_STATUS, bytes((self.choice((0, 1, 2, 3, 255)),)) + bytes(7) + port),
                (Type.PORT_STATUS, bytes((self.choice((0, 1, 2)),)) + bytes(7) + port),
                (Type.FLOW_REMOVED, self.match() + self.randbytes(40)),
                (
                    Type.FLOW_REMOVED,
                    self.match() + bytes(8) + self.randbytes(32),
                ),
                (Type.PACKET_IN, self.randbytes(self.choice((0, 9, 10, 70)))),
                (
                    Type.VENDOR,
                    nx
                    + struct.pack("!I", 17)
                    + struct.pack(
                        "!IHBBQH6x",
                        of.NO_BUFFER,
                        self.choice((0, 60, 0xFFFF)),
                        self.choice((0, 1, 9)),
                        self.choice((0, 1, 2, 3, 255)),
                        self.choice((0, (1 << 64) - 1, self.getrandbits(64))),
                        self.choice((len(fields), 0, 1, 0xFFFF)),
                    )
                    + fields
                    + self.randbytes(self.choice((0, 2, 16, 70))),
                ),
                (Type.VENDOR, nx + self.randbytes(self.choice((0, 4, 40)))),
                (Type.ERROR, struct.pack("!HH", self.choice(EDGES) & 0xFFFF, 1) + self.simple()),
                (
                    Type.STATS_REPLY,
                    struct.pack("!HH", self.choice((0, 1, 2, 3, 4, 5, 9)), self.randrange(2))
                    + self.randbytes(self.choice((0, 24, 64, 88, 104, 1056))),
                ),
                (
                    Type.STATS_REPLY,
                    struct.pack("!HH", 0xFFFF, self.randrange(2)) + NXST_FLOW + flow,
                ),
                (Type.BARRIER_REPLY, b""),
                (Type.ECHO_REPLY, b""),
                (Type.ECHO_REQUEST, self.randbytes(self.randrange(64))),
                (Type.QUEUE_GET_CONFIG_REPLY, self.randbytes(self.choice((0, 8, 24)))),
                (Type.GET_CONFIG_REPLY, self.randbytes(4)),
                (self.randrange(256), self.randbytes(self.randrange(100))),
            )
        )
        message = of.message(kind, body)
        if self.random() < 0.3:
            message = self.damage(message)
        return self.framed(message, self.choice((*xids, 0, self.getrandbits(32))))

    # ---- either ----

    def damage(self, data: bytes) -> bytes:
        """Break some bytes: change, cut, repeat or insert, or write an extreme number."""
        damaged = bytearray(data)
        for _ in range(self.choice((1, 1, 1, 2, 5))):
            place = self.randrange(len(damaged) + 1)
            kind = self.randrange(6)
            if kind == 0 and place < len(damaged):
                damaged[place] ^= 1 << self.randrange(8)
            elif kind == 1:
                del damaged[place:]
            elif kind == 2:
                damaged[place:place] = self.randbytes(self.choice((1, 4, 8)))
            elif kind == 3:
                damaged[place:place] = damaged[place : place + 16]
            elif kind == 4:
                edge = self.choice(EDGES)
                damaged[place : place + 2] = struct.pack("!H", edge & 0xFFFF)
            else:
                damaged[place : place + 4] = struct.pack("!I", self.choice(EDGES))
        return bytes(damaged)

    def framed(self, message: bytes, xid: int = 0) -> bytes:
        """Return a message with the right length, and nearly always with the right version."""
        message = message[:0xFFFF].ljust(8, b"\0")
        version = of.VERSION if self.random() < 0.98 else self.choice((0, 2, 4, 6, 255))
        return struct.pack("!BBHI", version, message[1], len(message), xid) + message[8:]

    def badly_framed(self) -> bytes:
        """Return bytes whose framing is wrong: a length below 8 or beyond the end, or no message at
        all.
        """
        good = b"".join(self.from_controller() for _ in range(self.randrange(4)))
        last = bytearray(self.from_controller())
        kind = self.randrange(5)
        if kind == 0:
            struct.pack_into("!H", last, 2, self.randrange(8))
        elif kind == 1:
            struct.pack_into("!H", last, 2, min(0xFFFF, len(last) + self.choice(EDGES) % 60000))
        elif kind == 2:
            last[self.randrange(len(last)) :] = b""
        elif kind == 3:
            last[0] = self.choice((0, 2, 4, 6, 7, 255))
        else:
            last = bytearray(self.randbytes(self.choice((1, 7, 8, 100, 3000))))
        return good + bytes(last)
