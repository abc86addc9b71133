"""Switches that connect: which of them are accepted, and which connection each one uses."""

import logging
import socket
import time
from ipaddress import IPv4Address
from typing import Callable, Optional

from edge import poxfixes
from edge.openflow import messages
from edge.poxfixes import EdgeConnection
from edge.south.discovery import Discovery
from edge.south.member import Member
from edge.switch.indexes import Indexes
from edge.switch.portnumbers import Unnumbered
from edge.switch.topology import Topology

log = logging.getLogger("edge.switch")

# When a second connection has the same dpid: how long the first may take to answer an echo request.
_CHALLENGE = 1.0  # seconds
# A refused switch connects again and again.  When it has not done so for this time, that is over.
_OVER = 60.0  # seconds
# How many are told of: dpids that are left out, and addresses for one dpid that is used twice.
_MOST_TOLD = 1000


class _Doubled:
    """
    Two switches or more have one dpid, and one of them is connected.

    refused: the addresses of the others that the operator has been told of
    last: when one was refused last (monotonic seconds)
    """

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.last = 0.0


class Arrivals:
    """
    Accepts switches.

    topology: the switches; new ones are added
    indexes: gives each dpid its index
    new_member: makes the Member of an index and a dpid
    discovery: is given the address from which a switch connects, as a candidate for its tunnel IP;
        None if the user gave the tunnel IPs
    """

    def __init__(
        self,
        topology: Topology,
        indexes: Indexes,
        new_member: Callable[[int, int], Member],
        discovery: Optional[Discovery],
    ) -> None:
        self._topology = topology
        self._indexes = indexes
        self._new_member = new_member
        self._discovery = discovery
        self._left_out: set[int] = set()  # the dpids that the operator has been told of
        self._doubled: dict[Member, _Doubled] = {}

    def connected(self, dpid: int, connection: EdgeConnection) -> None:
        """A switch's OpenFlow handshake is done."""
        try:
            index = self._indexes.index(dpid)
        except Unnumbered as e:
            if dpid not in self._left_out and len(self._left_out) < _MOST_TOLD:
                self._left_out.add(dpid)
                log.warning("The switch with dpid %#x is left out: %s", dpid, e)
            return
        member = self._topology.members.get(index)
        if member is None:
            member = self._new_member(index, dpid)
            self._topology.add(member)
        if member.session.connection is None:
            self._let_in(member, connection)
        else:
            self._challenge(member, connection)

    def is_refused(self, connection: EdgeConnection, dpid: int) -> bool:
        """Whether a connection is one more attempt of a switch whose dpid another one uses."""
        return any(
            member.dpid == dpid and connection.host in doubled.refused
            for member, doubled in self._doubled.items()
        )

    def tick(self, now: float, awake_since: float) -> None:
        """
        Look whether switches with a dpid of others still come.

        awake_since: when the last pause of this process ended (like now: seconds, monotonic)
        """
        for member, doubled in list(self._doubled.items()):
            if now - max(doubled.last, awake_since) > _OVER:
                del self._doubled[member]
                log.info("%s: no other switch has come with its dpid for %d s", member, _OVER)

    def _refuse(self, member: Member, old: EdgeConnection, connection: EdgeConnection) -> None:
        """Another switch that is connected has this dpid: say so once for each address."""
        doubled = self._doubled.setdefault(member, _Doubled())
        doubled.last = time.monotonic()
        if connection.host not in doubled.refused and len(doubled.refused) < _MOST_TOLD:
            doubled.refused.add(connection.host)
            log.warning(
                "%s: another switch has the same dpid and is refused; give each switch a "
                "datapath-id of its own (connected from %s, refused from %s)",
                member,
                old.host,
                connection.host,
            )
        connection.level = logging.DEBUG
        connection.disconnect("another switch has this dpid")

    def _let_in(self, member: Member, connection: EdgeConnection) -> None:
        if connection.level == logging.DEBUG:
            connection.level = logging.INFO
            self._doubled.pop(member, None)
            log.info("%s: is now the one at %s, which was refused before", member, connection.host)
        if self._discovery is not None:
            address = _peer_address(connection.sock)
            if address is not None:
                self._discovery.add_candidate(member, address)
        member.connect(connection)

    def _challenge(self, member: Member, connection: EdgeConnection) -> None:
        """
        Decide between two connections with the same dpid.

        If the older connection still answers, there are two switches, and the newer one is refused.
        Otherwise the older connection is broken, and the newer one takes its place.
        """
        old = member.session.connection
        assert old is not None, "there is nothing to decide without an older connection"
        undecided = [True]

        def decide(old_lives: bool) -> None:
            if not undecided:
                return
            undecided.clear()
            if old_lives:
                self._refuse(member, old, connection)
                return
            if member.session.connection is old:
                old.disconnect("taken over by a new connection")
            if member.session.connection is None and not connection.disconnected:
                self._let_in(member, connection)
            elif member.session.connection is not connection:
                connection.disconnect("another connection of this switch is in use")

        def answered(kind: int, message: bytes) -> bool:
            decide(True)
            return True

        def wait(seconds: float) -> None:
            poxfixes.after(seconds, time_over, "edge.aggregator challenge")

        def time_over() -> None:
            left = poxfixes.patience_left(asked_at, _CHALLENGE)
            if left > 0 and undecided:
                wait(left)
            else:
                decide(False)

        asked_at = time.monotonic()
        member.session.request(messages.echo_request, answered, lambda: decide(False))
        wait(_CHALLENGE)


def _peer_address(sock: socket.socket) -> Optional[int]:
    """The peer's IPv4 address, as a number; None if the socket is closed, or is not IPv4."""
    try:
        return int(IPv4Address(sock.getpeername()[0]))
    except (OSError, ValueError):
        return None
