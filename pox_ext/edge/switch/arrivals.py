"""Switches that connect: which of them are accepted, and which connection each one uses."""

import logging
import socket
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
        self._complained: set[tuple[int, str]] = set()  # dpids, and what the operator was told

    def connected(self, dpid: int, connection: EdgeConnection) -> None:
        """A switch's OpenFlow handshake is done."""
        try:
            index = self._indexes.index(dpid)
        except Unnumbered as e:
            self._complain(dpid, "The switch with dpid %#x is left out: %s", dpid, e)
            return
        member = self._topology.members.get(index)
        if member is None:
            member = self._new_member(index, dpid)
            self._topology.add(member)
        if member.session.connection is None:
            self._let_in(member, connection)
        else:
            self._challenge(member, connection)

    def _complain(self, dpid: int, text: str, *arguments: object) -> None:
        if (dpid, text) not in self._complained:
            self._complained.add((dpid, text))
            log.warning(text, *arguments)

    def _let_in(self, member: Member, connection: EdgeConnection) -> None:
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
        undecided = [True]

        def decide(old_lives: bool) -> None:
            if not undecided:
                return
            undecided.clear()
            if old_lives:
                self._complain(
                    member.dpid,
                    "%s: another switch has the same dpid and is refused; give each switch a "
                    "datapath-id of its own",
                    member,
                )
                connection.disconnect("another switch has this dpid")
                return
            if member.session.connection is old and old is not None:
                old.disconnect("taken over by a new connection")
            if member.session.connection is None and not connection.disconnected:
                self._let_in(member, connection)
            elif member.session.connection is not connection:
                connection.disconnect("another connection of this switch is in use")

        def answered(kind: int, message: bytes) -> bool:
            decide(True)
            return True

        member.session.request(messages.echo_request, answered, lambda: decide(False))
        poxfixes.after(_CHALLENGE, lambda: decide(False), "edge.aggregator challenge")


def _peer_address(sock: socket.socket) -> Optional[int]:
    """The peer's IPv4 address, as a number; None if the socket is closed, or is not IPv4."""
    try:
        return int(IPv4Address(sock.getpeername()[0]))
    except (OSError, ValueError):
        return None
