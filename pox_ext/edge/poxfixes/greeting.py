"""The first messages of an OpenFlow connection: which versions the peer speaks, and who it is."""

import string
import struct
from typing import Optional

import pox.openflow.libopenflow_01 as of

_ELEMENT = struct.Struct("!HH")
_VERSION_BITMAP = 1  # OFPHET_VERSIONBITMAP, OpenFlow 1.3.1, 7.5.1
_ERROR_HEAD = struct.Struct("!BBHLHH")
_NAMES = {1: "1.0", 2: "1.1", 3: "1.2", 4: "1.3", 5: "1.4", 6: "1.5"}
_LONGEST_TEXT = 200  # bytes of a peer's text that are shown
_PRINTABLE = frozenset(string.printable.encode()) - frozenset(b"\t\n\r\x0b\x0c")

# What only controllers send.
FROM_CONTROLLERS = frozenset(
    (
        of.OFPT_FEATURES_REQUEST,
        of.OFPT_GET_CONFIG_REQUEST,
        of.OFPT_SET_CONFIG,
        of.OFPT_PACKET_OUT,
        of.OFPT_FLOW_MOD,
        of.OFPT_PORT_MOD,
        of.OFPT_STATS_REQUEST,
        of.OFPT_BARRIER_REQUEST,
        of.OFPT_QUEUE_GET_CONFIG_REQUEST,
    )
)


def versions_offered(hello: bytes) -> int:
    """The versions that an OFPT_HELLO offers, as a bitmap: bit n stands for the version n.

    Without an element that lists them, these are all versions up to the one in its header.
    """
    offset = 8
    while offset + 4 <= len(hello):
        kind, length = _ELEMENT.unpack_from(hello, offset)
        if length < 4 or offset + length > len(hello):
            break
        if kind == _VERSION_BITMAP and length >= 8:
            return int.from_bytes(hello[offset + 4 : offset + 8], "big")
        offset += -(-length // 8) * 8
    return (2 << hello[0]) - 2


def version_names(bitmap: int) -> str:
    """The versions in a bitmap as people call them, such as "1.3, 1.4"."""
    numbers = (number for number in range(bitmap.bit_length()) if bitmap >> number & 1)
    return ", ".join(_NAMES.get(number, f"wire version {number:#04x}") for number in numbers)


def hello_failed(bitmap: int) -> bytes:
    """Open vSwitch's answer to a hello that offers these versions but not 1.0 (lib/vconn.c).

    An OFPT_ERROR with OFPHFC_INCOMPATIBLE, in the newest version that the peer speaks.
    """
    newest = max(bitmap.bit_length() - 1, 0)
    text = f"We support version 0x01, you support version {newest:#04x}, no common versions."
    data = text.encode()
    length = _ERROR_HEAD.size + len(data)
    head = (newest or of.OFP_VERSION, of.OFPT_ERROR, length, 0)
    return _ERROR_HEAD.pack(*head, of.OFPET_HELLO_FAILED, of.OFPHFC_INCOMPATIBLE) + data


def reason_of_failure(message: bytes) -> Optional[str]:
    """The text in an OFPT_ERROR of type OFPET_HELLO_FAILED, of any version; None if it is none."""
    if len(message) < _ERROR_HEAD.size:
        return None
    _, kind, _, _, error, _ = _ERROR_HEAD.unpack_from(message)
    if kind != of.OFPT_ERROR or error != of.OFPET_HELLO_FAILED:
        return None
    return printable(message[_ERROR_HEAD.size :].rstrip(b"\0"))


def printable(data: bytes) -> str:
    """A peer's bytes for a line of the log: nothing in them ends the line or moves the cursor."""
    return "".join(
        chr(byte) if byte in _PRINTABLE else f"\\x{byte:02x}" for byte in data[:_LONGEST_TEXT]
    )


def what_it_is(data: bytes) -> str:
    """What a peer seems to be whose first bytes are no OpenFlow."""
    if data[:2] == b"\x16\x03":
        return "it begins TLS"
    text = data.splitlines()[0][:40]
    if text and _PRINTABLE.issuperset(text):
        return f"what it sends is no OpenFlow: {text.decode()}"
    return f"what it sends is no OpenFlow: {data[:8].hex(' ')} (hexadecimal)"
