"""
Opens connections to controllers, and accepts connections from clients.

The workers are those of pox.datapaths and pox.lib.ioworker, with the repairs of poxfixes.ioworkers.
"""

import contextlib
import logging
import socket
from typing import Optional, Protocol

from pox.datapaths import OpenFlowWorker

from edge.north.connections import ControllerConnection, serve
from edge.poxfixes.ioworkers import (
    RobustBackoffWorker,
    RobustIOLoop,
    RobustIOWorker,
    RobustServerWorker,
    Turns,
)

log = logging.getLogger("edge.upstream")


class Switch(Protocol):
    """The part of the datapath that the workers use."""

    dpid: int

    def set_connection(self, connection: ControllerConnection) -> None:
        """Add a connection."""

    def connection_closed(self, connection: ControllerConnection) -> None:
        """Forget a connection that has ended."""


class Upstream:
    """
    One controller that we connect to, for as long as POX runs.

    address: its host name or IP address, and its TCP port
    connection: the connection to it, None while there is none
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.connection: Optional[ControllerConnection] = None
        self._dropped = 0  # packet-ins, on former connections
        self._told: set[str] = set()  # the problems of this outage

    def __str__(self) -> str:
        return f"controller {self.address[0]}:{self.address[1]}"

    @property
    def dropped_packet_ins(self) -> int:
        """Packet-ins that it was not sent, since the start: it reads too slowly."""
        if self.connection is None:
            return self._dropped
        return self._dropped + self.connection.dropped_packet_ins

    def begin(self, switch: Switch, loop: RobustIOLoop, max_retry_delay: float) -> None:
        """
        Connect, and connect again whenever the connection has ended.

        max_retry_delay: the longest time between two attempts, in seconds.  The first time is one
            second; it doubles until a connection lasts longer than the time before it.
        """
        host, port = self.address
        ControllerWorker.begin(
            loop=loop,
            addr=host,
            port=port,
            max_retry_delay=max_retry_delay,
            switch=switch,
            upstream=self,
        )

    def opened(self, connection: ControllerConnection) -> None:
        """The connection has been made."""
        self.connection = connection
        self._told.clear()

    def closed(self) -> None:
        """The connection has ended."""
        self._dropped = self.dropped_packet_ins
        self.connection = None

    def cannot_connect(self, problem: str, max_retry_delay: float) -> None:
        """Log a failed attempt: each problem once for each outage."""
        if problem not in self._told:
            log.info(
                "%s: cannot connect (%s); trying again, at least every %g s",
                self,
                problem,
                max_retry_delay,
            )
            self._told.add(problem)


class ControllerWorker(RobustBackoffWorker, OpenFlowWorker):
    """
    One attempt to connect to a controller, and the connection if it succeeds.

    The next attempt is another worker, as POX's PersistentIOWorker has it.

    POX, in pox/datapaths/__init__.py: :42 makes an OFConnection, where this makes a
    ControllerConnection; :33 and :36 log each attempt, where Upstream logs each outage.
    """

    connection: Optional[ControllerConnection]

    def _info(self, *args: object, **kw: object) -> None:
        self.log.debug(*args, **kw)

    _warn = _info

    @property
    def _upstream(self) -> Upstream:
        upstream: Upstream = self.kw["upstream"]
        return upstream

    def cannot_connect(self, problem: str) -> None:
        self._upstream.cannot_connect(problem, self.max_retry_delay)

    def ended(self, reason: str) -> None:
        if self.connection is not None:
            self.connection.lost(reason)

    def far_end_finished(self) -> None:
        if self.connection is not None:
            self.connection.finish()

    def _handle_connect(self) -> None:
        """Make the connection, and hand it to the datapath."""
        super()._handle_connect()
        connection = self.connection = ControllerConnection(self, str(self._upstream))
        self._upstream.opened(connection)
        self.switch.set_connection(connection)

    def _handle_close(self) -> None:
        """Forget the connection, if there was one, and have the next attempt made."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self._upstream.closed()
            self.switch.connection_closed(connection)
            if connection.greeted:
                self.worked()
        super()._handle_close()

    def talk(self, loop: RobustIOLoop) -> Turns:
        assert self.connection is not None
        # As in Open vSwitch, a slow controller gets more time with every attempt.
        return serve(self.connection, hello_timeout=self.time_left)


class ClientWorker(RobustIOWorker):
    """
    One accepted connection.

    switch: the datapath
    """

    def __init__(self, socket: socket.socket, switch: Switch) -> None:
        super().__init__(socket)
        self._switch = switch
        self._connection: Optional[ControllerConnection] = None
        self.attach()

    def ended(self, reason: str) -> None:
        if self._connection is not None:
            self._connection.lost(reason)

    def far_end_finished(self) -> None:
        if self._connection is not None:
            self._connection.finish()

    def talk(self, loop: RobustIOLoop) -> Turns:
        name = "client"
        with contextlib.suppress(OSError):  # the client has gone already
            name = "client {}:{}".format(*self.socket.getpeername())
        self._connection = ControllerConnection(self, name, service=True)
        self._switch.set_connection(self._connection)
        return serve(self._connection)

    def _handle_close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._switch.connection_closed(connection)


class Listener(RobustServerWorker):
    """
    Accepts OpenFlow connections, as a bridge's management port does (ptcp: in Open vSwitch).

    address: the local IP address or host name, and the TCP port
    switch: the datapath

    Raises OSError if it is not possible to listen at that address.
    """

    def __init__(self, address: tuple[str, int], switch: Switch) -> None:
        super().__init__(ClientWorker, *address, child_args={"switch": switch})
        log.info("Listening for OpenFlow connections on %s:%d", self.local_ip, self.local_port)

    def cannot_accept(self, error: Exception) -> None:
        log.error("Cannot accept an OpenFlow connection: %s", error)
