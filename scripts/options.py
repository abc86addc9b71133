"""Values of command line options, parsed from text for argparse."""

import argparse
import socket
from typing import Callable, NamedTuple


class Address(NamedTuple):
    """An IPv4 address and a TCP port."""

    ip: str
    port: int


def parse_address(text: str) -> Address:
    """Return the address that "IP:PORT" names; raise ArgumentTypeError when it names none."""
    ip, _, port = text.partition(":")
    try:
        socket.inet_aton(ip)
        if not 1 <= int(port) <= 65535:
            raise ValueError
    except (OSError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is not IP:PORT") from None
    return Address(ip, int(port))


def number_up_to(most: int) -> Callable[[str], int]:
    """Return a parser for numbers from 1 to `most`.

    The parser raises ArgumentTypeError for any other text.
    """

    def number(text: str) -> int:
        if not text.isdigit() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {most}")
        return int(text)

    return number
