"""
The command-line options of edge.aggregator and edge.dashboard: text in, values out.

POX gives launch() every option as text, and True for an option that stands there without a value
(`--port` instead of `--port=7744`).  Each function here turns one option into a value, or raises
BadOption with the option, the text, and what is accepted.

The same spelling holds for every option:

- A whole number is ASCII digits, decimal (7744) or hexadecimal with 0x (0x1e40).  There is no
  sign, no space, no underscore, and no leading zero (which some programs read as octal).
- A number of seconds is decimal; it may have a fraction (0.5) and an exponent (1e2).
- A host is an IPv4 address in four decimal parts, or a host name of ASCII letters, digits, "-" and
  "_" between dots (RFC 1123; names in other scripts in their xn-- form).
- The items of a list stand between commas; spaces beside a comma are ignored.
- A datapath-id is written as parse_dpid() says.
"""

import os
import re
from ipaddress import IPv4Address
from typing import Optional

from edge.switch.indexes import GivenIndexes, Indexes, KeptIndexes
from edge.switch.portnumbers import PortNumbers

_WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]*|0[xX][0-9a-fA-F]+")
_MOST_DIGITS = 32  # more than any number here may have; int() raises above some thousands
_SECONDS = re.compile(r"(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LEAST_SECONDS, _MOST_SECONDS = 0.1, 86400

_LONGEST_HOST_NAME = 253
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}")
# A resolver takes a name whose last label is a number for an address ("1.2.3", "0x7f000001").
_NUMERIC_LABEL = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")

_OCTETS = re.compile(
    r"[0-9a-fA-F]{2}([:-])[0-9a-fA-F]{2}(?:\1[0-9a-fA-F]{2}){4}(?:(?:\1[0-9a-fA-F]{2}){2})?"
)
_SIXTEEN_DIGITS = re.compile(r"[0-9a-fA-F]{16}")
_POX_DPID = re.compile(r"([0-9a-fA-F]{2}(?:-[0-9a-fA-F]{2}){5})\|(0|[1-9][0-9]{0,4})")


class BadOption(ValueError):
    """An option that makes no sense; the text names it and says what is right."""


# --- single values --------------------------------------------------------------------------------


def whole_number(option: str, text: object, least: int, most: int) -> int:
    """A whole number from least to most."""
    given = _value(option, text)
    number = _parse_whole_number(given)
    if number is None:
        raise BadOption(
            f"--{option}={given} is not a whole number: {least} to {most}, "
            "decimal, or hexadecimal with 0x"
        )
    if not least <= number <= most:
        raise BadOption(f"--{option}={given} is not {least} to {most}")
    return number


def seconds(option: str, text: object) -> float:
    """A time from 0.1 to 86400 seconds."""
    given = _value(option, text)
    wanted = f"{_LEAST_SECONDS} to {_MOST_SECONDS} seconds"
    if not _SECONDS.fullmatch(given):
        raise BadOption(f"--{option}={given} is not a number of seconds: {wanted}, such as 0.5")
    number = float(given)
    if not _LEAST_SECONDS <= number <= _MOST_SECONDS:
        raise BadOption(f"--{option}={given} is not {wanted}")
    return number


def ip_address(option: str, text: object) -> str:
    """An IPv4 address."""
    given = _value(option, text)
    if _ipv4(given) is None:
        raise BadOption(f"--{option}={given} is not an IPv4 address, such as 127.0.0.1")
    return given


def host(option: str, text: object) -> str:
    """An IPv4 address or a host name."""
    given = _value(option, text)
    if _ipv4(given) is None and not _is_host_name(given):
        raise BadOption(f"--{option}={given}: {given!r} is neither an IPv4 address nor a host name")
    return given


def datapath_id(option: str, text: object) -> int:
    """A datapath-id (see parse_dpid)."""
    given = _value(option, text)
    try:
        return parse_dpid(given)
    except ValueError as e:
        raise BadOption(f"--{option}: {e}") from None


# --- lists and addresses with ports ---------------------------------------------------------------


def tunnel_ips(text: object) -> list[int]:
    """--ips: the tunnel IP of every switch; an empty list for "auto"."""
    if not isinstance(text, str) or not text:
        raise BadOption(
            "--ips is missing: give the tunnel IP (local_ip) of every switch, such as "
            "--ips=172.16.0.1,172.16.0.2, or --ips=auto"
        )
    if text == "auto":
        return []
    ips: list[int] = []
    for item in _items(text):
        ip = _ipv4(item)
        if ip is None:
            raise BadOption(f"--ips: {item!r} is not an IPv4 address, such as 172.16.0.1")
        if ip.is_unspecified or ip.is_multicast or ip == IPv4Address("255.255.255.255"):
            raise BadOption(f"--ips: {ip} cannot be the address of a switch")
        if int(ip) in ips:
            raise BadOption(f"--ips: {ip} is there twice")
        ips.append(int(ip))
    return ips


def upstreams(controllers: object, address: object, port: object) -> list[tuple[str, int]]:
    """Where the controllers are: --controllers, or without it --address and --port."""
    if controllers is None:
        return [(host("address", address), whole_number("port", port, 1, 65535))]
    found: list[tuple[str, int]] = []
    for item in _items(_value("controllers", controllers)):
        name, colon, number = item.rpartition(":")
        if not colon:
            raise BadOption(f"--controllers: {item!r} is not HOST:PORT")
        where = (host("controllers", name), whole_number("controllers", number, 1, 65535))
        if where in found:
            raise BadOption(f"--controllers: {item} is there twice")
        found.append(where)
    return found


def listen(text: object) -> Optional[tuple[str, int]]:
    """--listen: PORT or :PORT, of 127.0.0.1, or ADDRESS:PORT; None without the option."""
    if text is None:
        return None
    address, _, number = _value("listen", text).rpartition(":")
    return (
        host("listen", address) if address else "127.0.0.1",
        whole_number("listen", number, 1, 65535),
    )


def host_names(text: object) -> frozenset[str]:
    """--names: host names in lower case; none for an empty text."""
    if text == "":
        return frozenset()
    given = _value("names", text)
    names = _items(given)
    for name in names:
        if not _is_host_name(name):
            raise BadOption(
                f"--names={given}: {name!r} is not a host name; it is NAME,NAME,..., without ports"
            )
    return frozenset(name.lower() for name in names)


# --- which switch has which index -----------------------------------------------------------------


def indexes(numbers: PortNumbers, switches: object, path: object) -> Indexes:
    """How switches get their indexes: --switches, and --switches_file (path) for "auto"."""
    if switches is None:
        return Indexes(numbers)
    text, file = _value("switches", switches), _value("switches_file", path)
    if not file:
        raise BadOption("--switches_file= needs the path of a file")
    try:
        given = parse_given(text)
        if given is None:
            return KeptIndexes(numbers, _path("switches_file", file), parse_dpid)
        return GivenIndexes(numbers, given)
    except BadOption:
        raise
    except ValueError as e:
        raise BadOption(f"--switches: {e}") from None


def parse_given(text: str) -> Optional[dict[int, int]]:
    """
    The index of each dpid in DPID=INDEX,DPID=INDEX,...; None for "auto".

    Raises ValueError with what is wrong.  Whether an index is in range, and is there once, is for
    GivenIndexes to say.
    """
    if text == "auto":
        return None
    given: dict[int, int] = {}
    for item in _items(text):
        left, _, right = item.partition("=")
        index = _parse_whole_number(right)
        if index is None:
            raise ValueError(f"{item!r} is not DPID=INDEX, such as 02:ac:10:00:00:01=1")
        dpid = parse_dpid(left)
        if dpid in given:
            raise ValueError(f"{left} is there twice")
        given[dpid] = index
    return given


def parse_dpid(text: str) -> int:
    """
    A datapath-id, 1 to 2**64-1.  Raises ValueError if it is none.

    It is a whole number; 16 hexadecimal digits, as Open vSwitch prints it; 6 octets like a MAC
    address, or 8 octets, with ":" or "-" between them; or what POX's log prints
    (pox.lib.util.dpid_to_str): the low 48 bits as 6 octets, and "|" with the upper 16 bits in
    decimal unless they are 0 (00-00-00-00-00-01|5).
    """
    pox = _POX_DPID.fullmatch(text)
    octets = _OCTETS.fullmatch(text)
    dpid: Optional[int]
    if pox:
        upper = int(pox[2])
        dpid = upper << 48 | int(pox[1].replace("-", ""), 16) if upper < 1 << 16 else None
    elif octets:
        dpid = int(text.replace(octets[1], ""), 16)
    elif _SIXTEEN_DIGITS.fullmatch(text):
        dpid = int(text, 16)
    else:
        dpid = _parse_whole_number(text)
    if dpid is None or not 1 <= dpid < 1 << 64:
        raise ValueError(
            f"{text!r} is not a datapath-id: that is 1 to 2**64-1 as a number (decimal, or "
            "hexadecimal with 0x), 16 hexadecimal digits, 6 or 8 octets like "
            "02:ac:10:00:00:01, or as POX prints it (02-ac-10-00-00-01|5)"
        )
    return dpid


# --- spelling -------------------------------------------------------------------------------------


def _value(option: str, text: object) -> str:
    """What was given; BadOption if the option stands there without a value."""
    if text is None or isinstance(text, bool):
        raise BadOption(f"--{option} needs a value: --{option}=...")
    return str(text)


def _path(option: str, text: str) -> str:
    """The path of a file: "~" at its beginning is the home directory."""
    if text == "~" or text.startswith("~/"):
        home = os.environ.get("HOME", "")
        if not home.startswith("/"):
            raise BadOption(
                f"--{option}={text}: HOME is not set, so there is no home directory; give a path "
                "that begins with /"
            )
        return home + text[1:]
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise BadOption(f"--{option}={text}: there is no such user; give a path without ~")
    return path


def _items(text: str) -> list[str]:
    return [item.strip(" ") for item in text.split(",")]


def _parse_whole_number(text: str) -> Optional[int]:
    """None if it is not spelled like one."""
    if not _WHOLE_NUMBER.fullmatch(text):
        return None
    if text[:2] in ("0x", "0X"):
        return int(text, 16)
    return int(text[:_MOST_DIGITS])  # a longer one is cut, and still out of every range


def _ipv4(text: str) -> Optional[IPv4Address]:
    try:
        return IPv4Address(text)
    except ValueError:
        return None


def _is_host_name(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    return (
        len(text) <= _LONGEST_HOST_NAME
        and all(_LABEL.fullmatch(label) for label in labels)
        and not _NUMERIC_LABEL.fullmatch(labels[-1])
    )
