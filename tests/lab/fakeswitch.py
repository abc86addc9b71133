"""A program that answers OpenFlow 1.0 as a switch does, or as wrongly as a test wants."""

import contextlib
import socket
import struct
from collections.abc import Iterable
from typing import Callable, Optional

from . import openflow10 as of
from .controller import TIMEOUT, Connection
from .namespaces import Namespace
from .openflow10 import Message, Stats, Type

NXST_FLOW = struct.pack("!II4x", of.NX_VENDOR, 0)


def phy_port(number: int, name: str, config: int = 0, state: int = 0) -> bytes:
    """Return an ofp_phy_port."""
    address = struct.pack("!HI", 0x0200, number)
    return of.PHY_PORT.pack(number, address, name.encode(), config, state, 0xC0, 0, 0, 0)


class FakeSwitch(Connection):
    """A connection to a controller from a switch that does not exist.

    The reading thread answers each request at once.  All messages are in `inbox` as well.

    ports: its ports as ofp_phy_port structures; by default two for hosts and a tunnel port.
    lie: called with each request; returns the bytes to answer, or None for the right answer.
    """

    def __init__(
        self,
        namespace: Namespace,
        address: str,
        port: int,
        dpid: int,
        ports: Optional[Iterable[bytes]] = None,
        lie: Callable[[Message], Optional[bytes]] = lambda request: None,
    ) -> None:
        self.dpid = dpid
        if ports is None:
            names = {1: f"f{dpid}-eth1", 2: f"f{dpid}-eth2", 3: f"tun{dpid}"}
            ports = [phy_port(number, name) for number, name in names.items()]
        self.ports = b"".join(ports)
        self.lie = lie
        super().__init__(namespace.call(socket.create_connection, (address, port), TIMEOUT))

    def truth(self, request: Message) -> Optional[bytes]:
        """Return the right answer to a request, None when it needs none."""
        answer = {
            Type.ECHO_REQUEST: (Type.ECHO_REPLY, request.body),
            Type.BARRIER_REQUEST: (Type.BARRIER_REPLY, b""),
            Type.GET_CONFIG_REQUEST: (Type.GET_CONFIG_REPLY, struct.pack("!HH", 0, 0xFFFF)),
            Type.FEATURES_REQUEST: (
                Type.FEATURES_REPLY,
                struct.pack("!QIB3xII", self.dpid, 0, 254, 0xC7, 0xFFF) + self.ports,
            ),
            Type.QUEUE_GET_CONFIG_REQUEST: (
                Type.QUEUE_GET_CONFIG_REPLY,
                request.body[:2] + bytes(6),
            ),
        }.get(request.type)
        if request.type == Type.STATS_REQUEST:
            answer = Type.STATS_REPLY, self._stats(request.body)
        return answer and of.message(*answer, xid=request.xid)

    @staticmethod
    def _stats(request: bytes) -> bytes:
        (kind,) = struct.unpack_from("!H", request)
        body = {
            Stats.DESC: struct.pack("!256s256s256s32s256s", b"nobody", b"", b"", b"", b""),
            Stats.AGGREGATE: bytes(24),
            Stats.VENDOR: NXST_FLOW,
        }.get(kind, b"")
        return struct.pack("!HH", kind, 0) + body

    def _received(self, message: Message) -> None:
        answer = self.lie(message)
        if answer is None:
            answer = self.truth(message)
        if answer:
            with contextlib.suppress(OSError):  # the controller has closed the connection
                self.send(answer)
        self.answer_echo = False  # an echo request has been answered above
        super()._received(message)
