"""
The ports of one switch: which of them the big switch has, and which is the tunnel.

This module only decides: it returns the messages that have to be sent to the switch.
"""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple, Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow import messages
from edge.openflow.messages import PhyPort
from edge.south.complaints import Complaints
from edge.south.xids import new_xid

_TUNNEL_NAME = re.compile(rb"tun\d+$")

# What is set on a port above max_ports.  OFPPC_NO_FLOOD keeps it out of floods.  The other two say
# that this program has set it.  Open vSwitch does nothing with OFPPC_NO_STP (its spanning tree is
# set in its database), and what comes in at such a port is dropped anyway.  Like OFPPC_NO_FLOOD,
# they outlive this program and are gone with the port.  On a port that the big switch has, they may
# be a controller's: it hardly sets these three, unless it sets all there are.
_HELD_BACK: int = of.OFPPC_NO_FLOOD | of.OFPPC_NO_STP | of.OFPPC_NO_RECV_STP
_EVERYTHING: int = _HELD_BACK | of.OFPPC_NO_RECV | of.OFPPC_NO_FWD | of.OFPPC_NO_PACKET_IN


class Bits(NamedTuple):
    """OFPPC_* bits that controllers have set on a port: their values, and which they are (mask)."""

    config: int
    mask: int

    def changed(self, other: "Bits") -> "Bits":
        """These bits, after the other bits have been set, too."""
        return Bits(self.config & ~other.mask | other.config & other.mask, self.mask | other.mask)

    def only(self, mask: int) -> "Bits":
        """The part of these bits that is in mask."""
        return Bits(self.config & mask, self.mask & mask)

    def differing(self, config: int) -> int:
        """Those of these bits (a mask) that have other values in config."""
        return (self.config ^ config) & self.mask


_NO_BITS = Bits(0, 0)
_ALL_BITS = tuple(1 << place for place in range(32))


class MemberPorts:
    """
    The ports of one switch.

    max_ports: the highest port number that the big switch has a number for
    complaints: tells the operator what is wrong with the ports
    all: every port but OFPP_LOCAL, by number
    tunnel: the number of the tunnel port; None while there is none, or more than one

    The configuration of a port is what its switch says.  A PORT_MOD belongs to a device, that is to
    the name and the address of a port, and not to its number.  What controllers have set on a
    device is remembered for two cases.

    - The switch says something about the port before it has executed a PORT_MOD (or may have missed
      it, since its connection was lost).  So it is remembered which bits are in flight.
    - The switch was restarted, and has forgotten them.  OFPPC_PORT_DOWN is the device's own flag,
      which a restart leaves as it is.

    The position of a message is its number among those that were sent (Session.position).
    """

    def __init__(self, max_ports: int, complaints: Complaints) -> None:
        self.all: dict[int, PhyPort] = {}
        self.tunnel: Optional[int] = None
        self._max_ports = max_ports
        self._complaints = complaints
        self._numbered: set[int] = set()
        self._tunnels: set[int] = set()
        self._above: set[int] = set()
        self._local: Optional[PhyPort] = None
        self._set_bits: dict[int, Bits] = {}  # by port number: what controllers have set
        # By port number: the bits that the switch may not have set yet, and when they were sent
        # (inf: not yet).
        self._sent: dict[int, dict[int, float]] = {}
        self._unsent: set[int] = set()

    # --- which there are -----------------------------------------------------------------------

    def numbered(self, port: int) -> bool:
        """True if the big switch has this port."""
        return port in self._numbered

    def own(self) -> list[int]:
        """The numbers of the ports that the big switch has, in order."""
        return sorted(self._numbered)

    def left_out(self) -> set[int]:
        """The numbers of the ports that the big switch does not have, except the tunnel in use."""
        return self._above | self._tunnels - {self.tunnel}

    def leaves_out(self, port: int) -> bool:
        """True if this port is one of `left_out`."""
        return port in self._above or (port in self._tunnels and port != self.tunnel)

    @property
    def complete(self) -> bool:
        """True if no port is left out."""
        return not self._above and len(self._tunnels) < 2

    # --- what the switch says ------------------------------------------------------------------

    def read(self, ports: Iterable[PhyPort], executed: float = 0) -> list[bytes]:
        """
        The switch has connected and sent its ports.  Returns the messages to send it.

        executed: the position of the last message that it is known to have executed
        """
        before, self.all = self.all, {}
        local, self._local = self._local, None
        for port in ports:
            if port.port_no < of.OFPP_MAX:
                self.all[port.port_no] = port
            elif port.port_no == of.OFPP_LOCAL:
                self._local = port
        restarted = self._has_forgotten(before, local)
        wanted: list[bytes] = []
        for number in list(self._set_bits):
            port_now = self.all.get(number)
            if port_now is None or not _is_same(before.get(number), port_now):
                self._forget(number)  # they were set on another port
                continue
            again = self._in_flight(number, executed)
            if restarted:
                again |= self.bits_set(number).mask & ~of.OFPPC_PORT_DOWN
            self._keep_only(number, ~self.bits_set(number).differing(port_now.config) | again)
            self._sent.pop(number, None)
            bits = self.bits_set(number).only(again)
            if bits.differing(port_now.config):
                wanted.append(self._port_mod(new_xid(), number, bits))
        self._sort()
        for number in (*self.all, of.OFPP_LOCAL):
            wanted += self._set_floods(number, before.get(number))
        return wanted

    def _has_forgotten(self, before: dict[int, PhyPort], local: Optional[PhyPort]) -> bool:
        """
        True if the switch was restarted: no port has the OFPPC_NO_FLOOD any more that was set.

        Each switch has ports that are held back from floods: OFPP_LOCAL, and the tunnel port.
        """
        held = [self.all[number] for number, port in before.items() if self._was_held(number, port)]
        if local is not None and self._local is not None:
            held.append(self._local)
        return bool(held) and not any(port.config & of.OFPPC_NO_FLOOD for port in held)

    def _was_held(self, number: int, port: PhyPort) -> bool:
        return number not in self._numbered and _is_same(port, self.all.get(number))

    def in_doubt(self, port: PhyPort, executed: float) -> bool:
        """
        True if a PORT_STATUS has other values of bits that the switch may not have set yet.

        It may have sent the PORT_STATUS before it has executed the PORT_MOD, or after somebody has
        changed the bits again.  What it says in answer to a features request settles that.
        """
        flying = self._in_flight(port.port_no, executed)
        return bool(flying & self.bits_set(port.port_no).differing(port.config))

    def changed(self, reason: int, port: PhyPort, executed: float = 0) -> list[bytes]:
        """
        A PORT_STATUS has come (reason: OFPPR_*).  Returns the messages to send the switch.

        executed: the position of the last message that the switch is known to have executed
        """
        number = port.port_no
        if number == of.OFPP_LOCAL:
            self._local = port if reason != of.OFPPR_DELETE else None
            return self._set_floods(number, None)
        before = self.all.pop(number, None)
        if reason != of.OFPPR_MODIFY or before is None or before.name != port.name:
            self._forget(number)  # another device may get the number
            before = None
        if reason != of.OFPPR_DELETE:
            self.all[number] = self._believed(port, before, executed)
        self._sort_one(number)
        self._complain()
        return self._set_floods(number, before)

    def told_again(self, ports: Iterable[PhyPort], executed: float) -> list[bytes]:
        """
        The switch has told its ports once more, after all messages up to position `executed`.

        Returns the messages to send it.
        """
        wanted: list[bytes] = []
        for port in ports:
            before = self.all.get(port.port_no)
            if before is not None and before.name == port.name:
                self.all[port.port_no] = self._believed(port, before, executed)
                wanted += self._set_floods(port.port_no, before)
        return wanted

    def _believed(self, port: PhyPort, before: Optional[PhyPort], executed: float) -> PhyPort:
        """
        A port as its switch tells it, with the bits that are in flight as they will be.

        before: the same port as it was known, perhaps with another address
        """
        number = port.port_no
        if before is not None and before.hw_addr != port.hw_addr:
            executed = math.inf  # a PORT_MOD with the old address is refused from now on
        sent = self._sent.get(number, {})
        self._sent[number] = {bit: when for bit, when in sent.items() if when > executed}
        flying = self._in_flight(number, executed)
        self._keep_only(number, ~self.bits_set(number).differing(port.config) | flying)
        coming = self.bits_set(number).only(flying)
        return port._replace(config=port.config & ~coming.mask | coming.config)

    # --- what controllers set ------------------------------------------------------------------

    def modify(self, number: int, bits: Bits, advertise: int, xid: int) -> bytes:
        """
        Set bits of a port.  Returns the PORT_MOD (see `sent`).

        A switch sends no PORT_STATUS to the controller that asked for the change, which is this
        program.  So the new bits are noted here.

        advertise: the features that the port is to advertise (OFPPF_*); 0 to leave them unchanged
        """
        self._set_bits[number] = self.bits_set(number).changed(bits)
        return self._port_mod(xid, number, bits, advertise)

    def sent(self, position: float) -> None:
        """The messages that were returned last have been sent, the last one at this position."""
        for number in self._unsent:
            sent = self._sent.get(number, {})
            sent.update((bit, position) for bit in sent if sent[bit] == math.inf)
        self._unsent.clear()

    def bits_set(self, number: int) -> Bits:
        """The bits that controllers have set on a port, as far as they still hold."""
        return self._set_bits.get(number, _NO_BITS)

    def take_back(self, before: PhyPort, mask: int, set_before: Bits) -> None:
        """
        The switch has refused to set the bits in mask: restore them.

        Without effect if another port has got the number since: the bits are not that port's.

        before: the port before the bits were set
        set_before: the bits that controllers had set on it then
        """
        number = before.port_no
        port = self.all.get(number)
        if port is None or not _is_same(before, port):
            return
        restored = set_before.only(mask)
        self._keep_only(number, ~mask)
        if restored.mask:
            self._set_bits[number] = self.bits_set(number).changed(restored)
        self.all[number] = port._replace(config=port.config & ~mask | before.config & mask)

    def _port_mod(self, xid: int, number: int, bits: Bits, advertise: int = 0) -> bytes:
        port = self.all[number]
        self.all[number] = port._replace(config=port.config & ~bits.mask | bits.config & bits.mask)
        sent = self._sent.setdefault(number, {})
        sent.update((bit, math.inf) for bit in _ALL_BITS if bit & bits.mask)
        self._unsent.add(number)
        return messages.port_mod(xid, number, port.hw_addr, bits.config, bits.mask, advertise)

    def _in_flight(self, number: int, executed: float) -> int:
        """The bits of a port (a mask) that were sent after the position `executed`."""
        sent = self._sent.get(number, {})
        return sum(bit for bit, position in sent.items() if position > executed)

    def _keep_only(self, number: int, mask: int) -> None:
        """Forget that controllers have set the bits that are not in mask."""
        kept = self.bits_set(number).only(mask)
        if not kept.mask:
            self._forget(number)
            return
        self._set_bits[number] = kept
        sent = self._sent.get(number, {})
        self._sent[number] = {bit: position for bit, position in sent.items() if bit & mask}

    def _forget(self, number: int) -> None:
        """Forget what controllers have set on a port."""
        self._set_bits.pop(number, None)
        self._sent.pop(number, None)

    # --- decisions -----------------------------------------------------------------------------

    def _sort(self) -> None:
        """Decide which ports the big switch has, and which one is the tunnel port."""
        for group in (self._numbered, self._tunnels, self._above):
            group.clear()
        for number in self.all:
            self._group(self.all[number]).add(number)
        self._choose_tunnel()
        self._complain()

    def _sort_one(self, number: int) -> None:
        """Decide the same again, after this port has come, changed or gone."""
        for group in (self._numbered, self._tunnels, self._above):
            group.discard(number)
        if number in self.all:
            self._group(self.all[number]).add(number)
        self._choose_tunnel()

    def _group(self, port: PhyPort) -> set[int]:
        if _TUNNEL_NAME.match(port.name):
            return self._tunnels
        return self._numbered if 1 <= port.port_no <= self._max_ports else self._above

    def _choose_tunnel(self) -> None:
        self.tunnel = next(iter(self._tunnels)) if len(self._tunnels) == 1 else None

    def _complain(self) -> None:
        """Tell the operator what is wrong with the ports."""
        for kind, is_so, text in (
            ("no tunnel port", not self._tunnels, self._no_tunnel_port),
            ("tunnel ports", len(self._tunnels) > 1, self._too_many_tunnel_ports),
            ("ports above", bool(self._above), self._ports_above),
        ):
            if is_so:
                self._complaints.tell(kind, text)
            else:
                self._complaints.over(kind)

    def _no_tunnel_port(self) -> str:
        return (
            "has no tunnel port (one named tunN): only its own ports reach each other; "
            "add one, for example with scripts/aggregator.sh"
        )

    def _too_many_tunnel_ports(self) -> str:
        names = ", ".join(self.all[number].name.decode() for number in sorted(self._tunnels))
        return (
            f"has more than one tunnel port ({names}): none is used, and only its own ports "
            "reach each other; leave one of them"
        )

    def _ports_above(self) -> str:
        first = min(self._above)
        name = self.all[first].name.decode(errors="replace")
        others = f" and {len(self._above) - 1} more" if len(self._above) > 1 else ""
        return (
            f"port {first} ({name}){others} cannot be numbered, being above "
            f"{self._max_ports}, and is left out; give such ports lower numbers "
            "(ofport_request), or start with a larger --max_ports"
        )

    def _set_floods(self, number: int, before: Optional[PhyPort]) -> list[bytes]:
        """
        Set OFPPC_NO_FLOOD on a port that the big switch does not have.

        On a port that it has, take back what was set when it did not have it, that is by a run of
        this program with a smaller max_ports.

        before: the same port, if it was known already
        Returns the PORT_MOD, if there has to be one.
        """
        port = self._local if number == of.OFPP_LOCAL else self.all.get(number)
        if port is None:
            return []
        if number in self._numbered:
            if before is not None and before.name == port.name:
                return []  # if these bits are set, a controller has set them
            if port.config & _EVERYTHING == _EVERYTHING or ~port.config & _HELD_BACK:
                return []
            return [self.modify(number, Bits(0, _HELD_BACK), 0, new_xid())]
        if port.config & of.OFPPC_NO_FLOOD:
            return []
        bits = _HELD_BACK if number in self._above else of.OFPPC_NO_FLOOD
        changed = port._replace(config=port.config | bits)
        if number == of.OFPP_LOCAL:
            self._local = changed
        else:
            self.all[number] = changed
        return [messages.port_mod(new_xid(), number, port.hw_addr, bits, bits)]


def _is_same(one: Optional[PhyPort], other: Optional[PhyPort]) -> bool:
    """True if these are the same port: a number may have got another device."""
    if one is None or other is None:
        return False
    return (one.name, one.hw_addr) == (other.name, other.hw_addr)
