"""
Names of the big switch's ports.

A port's name is its switch's index, a dot and its name on the switch (1.s1-eth1).  OpenFlow 1.0 has
room for 15 bytes.  A longer name gets a mark in its middle, which is computed from the whole name:

    vm-customer1-p1 of switch 1     1.vm-~72am~1-p1
    enp130s0f0.1001 of switch 1     1.enp~nzgu~1001

So ports with different names have different ones here too, and a port has the same name after each
start and whatever other ports there are.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping

LONGEST = 15  # bytes; OFP_MAX_PORT_NAME_LEN without the 0 at the end
_MARK = 4  # characters: one of a million
_TAIL = 4  # bytes: names of the same kind mostly differ at their ends


def port_names(index: int, names: Mapping[int, bytes]) -> dict[int, bytes]:
    """
    The names that the ports of one switch have on the big switch.

    index: the switch's index
    names: the ports' names on the switch, by their numbers there
    """
    found = {number: b"%d.%b" % (index, name) for number, name in names.items()}
    too_long = sorted(number for number, name in found.items() if len(name) > LONGEST)
    taken = {name for name in found.values() if len(name) <= LONGEST}
    for number in too_long:
        found[number] = next(
            name for name in _shortened(index, names[number], number) if name not in taken
        )
        taken.add(found[number])
    return found


def _shortened(index: int, name: bytes, number: int) -> Iterator[bytes]:
    """
    Names of at most 15 bytes for a port; only the first depends on nothing but its own name.

    The others are for a port whose first one is taken: once in a million times two marks are equal,
    and a switch may have two ports with equal names (it cuts those longer than 15 bytes, too).
    """
    room = LONGEST - len(b"%d." % index) - _MARK - len(b"~~")
    tail = min(_TAIL, room - 1)
    head = room - tail
    begin, end = _without_halves(name[:head]), _without_halves(name[-tail:])
    marked = name
    while True:
        mark = base64.b32encode(hashlib.sha256(marked).digest())[:_MARK].lower()
        yield b"%d.%b~%b~%b" % (index, begin, mark, end)
        marked += b" %d" % number


def _without_halves(name: bytes) -> bytes:
    """A part of a name without characters (UTF-8) that the cut has gone through."""
    return name.decode(errors="ignore").encode()
