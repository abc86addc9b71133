"""
The ports of one switch: which of them the big switch has, and which is the tunnel.

This module only decides: it returns the messages that have to be sent to the switch.
"""

import re
from collections.abc import Iterable
from typing import Callable, NamedTuple, Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow import messages
from edge.openflow.messages import PhyPort
from edge.south.xids import new_xid

_TUNNEL_NAME = re.compile(rb"tun\d+$")


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


_NO_BITS = Bits(0, 0)


class MemberPorts:
    """
    The ports of one switch.

    max_ports: the highest port number that the big switch has a number for
    warn: warns the operator, once for each text
    all: every port but OFPP_LOCAL, by number
    tunnel: the number of the tunnel port; None while there is none, or more than one
    """

    def __init__(self, max_ports: int, warn: Callable[[str], None]) -> None:
        self.all: dict[int, PhyPort] = {}
        self.tunnel: Optional[int] = None
        self._max_ports = max_ports
        self._warn = warn
        self._numbered: set[int] = set()
        self._set_bits: dict[int, Bits] = {}  # by port number: what controllers have set

    # --- which there are -----------------------------------------------------------------------

    def numbered(self, port: int) -> bool:
        """True if the big switch has this port."""
        return port in self._numbered

    def own(self) -> list[int]:
        """The numbers of the ports that the big switch has."""
        return [port for port in self.all if port in self._numbered]

    def left_out(self) -> list[int]:
        """The numbers of the ports that the big switch does not have, except the tunnel in use."""
        return [port for port in self.all if port != self.tunnel and port not in self._numbered]

    # --- what the switch says ------------------------------------------------------------------

    def read(self, ports: Iterable[PhyPort]) -> list[bytes]:
        """The switch has connected and sent its ports.  Returns the messages to send it."""
        before, self.all = self.all, {}
        wanted: list[bytes] = []
        for port in ports:
            if port.port_no < of.OFPP_MAX:
                self.all[port.port_no] = port
            elif not port.config & of.OFPPC_NO_FLOOD:
                wanted.append(_no_flood(port))  # OFPP_LOCAL, which is not a port of the big switch
        self._decide()
        wanted += self._hold_back_floods()
        for number, bits in list(self._set_bits.items()):
            if _is_same(before.get(number), self.all.get(number)):
                wanted.append(self._port_mod(new_xid(), number, bits))
            else:
                del self._set_bits[number]  # they were set on another port
        return wanted

    def changed(self, reason: int, port: PhyPort) -> list[bytes]:
        """A PORT_STATUS has come (reason: OFPPR_*).  Returns the messages to send the switch."""
        if reason == of.OFPPR_DELETE:
            self.all.pop(port.port_no, None)
            self._set_bits.pop(port.port_no, None)  # another port may get the number
        else:
            self.all[port.port_no] = port
        self._decide()
        return self._hold_back_floods()

    # --- what controllers set ------------------------------------------------------------------

    def modify(self, number: int, bits: Bits, advertise: int, xid: int) -> bytes:
        """
        Set bits of a port, now and whenever the switch reconnects.  Returns the PORT_MOD.

        A switch sends no PORT_STATUS to the controller that asked for the change, which is this
        program.  So the new bits are noted here.

        advertise: the features that the port is to advertise (OFPPF_*); 0 to leave them unchanged
        """
        self._set_bits[number] = self._set_bits.get(number, _NO_BITS).changed(bits)
        return self._port_mod(xid, number, bits, advertise)

    def bits_set(self, number: int) -> Bits:
        """The bits that controllers have set on a port."""
        return self._set_bits.get(number, _NO_BITS)

    def take_back(self, before: PhyPort, mask: int, set_before: Bits) -> None:
        """
        The switch has refused to set the bits in mask: restore them.

        Without effect if another port has got the number since: the bits are not that port's.

        before: the port before the bits were set
        set_before: the bits that controllers had set on it then
        """
        port = self.all.get(before.port_no)
        if port is None or not _is_same(before, port):
            return
        now, restored = self.bits_set(port.port_no), set_before.only(mask)
        bits = Bits(now.config & ~mask | restored.config, now.mask & ~mask | restored.mask)
        if bits.mask:
            self._set_bits[port.port_no] = bits
        else:
            self._set_bits.pop(port.port_no, None)
        config = port.config & ~mask | before.config & mask
        self.all[port.port_no] = port._replace(config=config)

    def _port_mod(self, xid: int, number: int, bits: Bits, advertise: int = 0) -> bytes:
        port = self.all[number]
        self.all[number] = port._replace(config=port.config & ~bits.mask | bits.config & bits.mask)
        return messages.port_mod(xid, number, port.hw_addr, bits.config, bits.mask, advertise)

    # --- decisions -----------------------------------------------------------------------------

    def _decide(self) -> None:
        """Decide which ports the big switch has, and which one is the tunnel port."""
        self._numbered = {
            number
            for number, port in self.all.items()
            if 1 <= number <= self._max_ports and not _TUNNEL_NAME.match(port.name)
        }
        tunnels = sorted(
            number for number, port in self.all.items() if _TUNNEL_NAME.match(port.name)
        )
        self.tunnel = tunnels[0] if len(tunnels) == 1 else None
        if not tunnels:
            self._warn(
                "has no tunnel port (one named tunN): only its own ports reach each other; "
                "add one, for example with scripts/aggregator.sh"
            )
        elif len(tunnels) > 1:
            names = ", ".join(self.all[number].name.decode() for number in tunnels)
            self._warn(
                f"has more than one tunnel port ({names}): none is used, and only its own ports "
                "reach each other; leave one of them"
            )
        left_out = sorted(set(self.left_out()) - set(tunnels))
        if left_out:
            first = left_out[0]
            name = self.all[first].name.decode(errors="replace")
            others = f" and {len(left_out) - 1} more" if left_out[1:] else ""
            self._warn(
                f"port {first} ({name}){others} cannot be numbered, being above "
                f"{self._max_ports}, and is left out; give such ports lower numbers "
                "(ofport_request), or start with a larger --max_ports"
            )

    def _hold_back_floods(self) -> list[bytes]:
        """Set NO_FLOOD on ports that the big switch does not have.  Returns the PORT_MODs."""
        wanted = []
        for number, port in self.all.items():
            if number not in self._numbered and not port.config & of.OFPPC_NO_FLOOD:
                wanted.append(_no_flood(port))
                self.all[number] = port._replace(config=port.config | of.OFPPC_NO_FLOOD)
        return wanted


def _no_flood(port: PhyPort) -> bytes:
    bit = of.OFPPC_NO_FLOOD
    return messages.port_mod(new_xid(), port.port_no, port.hw_addr, bit, bit)


def _is_same(one: Optional[PhyPort], other: Optional[PhyPort]) -> bool:
    """True if these are the same port: a number may have got another device."""
    if one is None or other is None:
        return False
    return (one.name, one.hw_addr) == (other.name, other.hw_addr)
