"""The first OpenFlow connection of a switch, made with this program in place of its controller.

Open vSwitch 3.1.0 (Debian 12) does not obey `inactivity_probe` and `max_backoff` of a controller
until its bridge is changed while a controller is connected: before, it asks after 5 seconds of
silence and pauses for up to 8 seconds between attempts.  (Fixed in 2.17.8, 3.1.3, 3.2.1 and 3.3.)
A controller that the user starts later would find a switch that is in a long pause.  So this
program greets the switch once, where the controller will be.
"""

import contextlib
import errno
import os
import socket
import struct
import time
from typing import Optional, Union

from failure import Failure
from options import Address
from waiting import DEADLINE

HELLO, FEATURES_REQUEST, FEATURES_REPLY = 0, 5, 6
"""Types of messages (OpenFlow 1.0.0, section 5.1)."""
HEADER = struct.Struct("!BBHI")
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: close with a TCP reset, which leaves the address free for the controller."""


def message(kind: int) -> bytes:
    """Return a message of OpenFlow 1.0 without a body."""
    return HEADER.pack(1, kind, HEADER.size, 1)


class FirstContact:
    """Listens where the controller of a switch will be, until it is closed.

    where: the controller's TCP address, or the path of its unix socket.

    Raises OSError when it is not possible to listen there.
    """

    def __init__(self, where: Union[Address, str]) -> None:
        self._path = where if isinstance(where, str) else None
        self._greeted: list[socket.socket] = []
        if isinstance(where, str):
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(where)
            self._listener.listen()
        else:
            self._listener = socket.create_server((where.ip, where.port))

    def greet(self, dpid: int) -> None:
        """Return when the switch with this datapath id is connected.

        It stays connected until `close`.  Raises Failure when it does not connect.
        """
        deadline = time.monotonic() + DEADLINE
        with contextlib.suppress(socket.timeout):
            while True:
                self._listener.settimeout(max(0.001, deadline - time.monotonic()))
                connection, _ = self._listener.accept()
                self._greeted.append(connection)
                connection.settimeout(1)
                with contextlib.suppress(OSError):
                    if _greet(connection) == dpid:
                        return
        raise Failure(f"the switch with the datapath id {dpid} did not connect")

    def close(self) -> None:
        """End the connections, and do not listen any more."""
        self._listener.close()
        if self._path is not None:
            os.unlink(self._path)
        for connection in self._greeted:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.close()

    def __enter__(self) -> "FirstContact":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def first_contact(where: Address) -> Optional[FirstContact]:
    """Return a FirstContact; None when a controller listens there, or on another machine."""
    try:
        return FirstContact(where)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
            return None
        raise Failure(f"cannot listen on {where.ip}:{where.port}: {error.strerror}") from None


def _greet(connection: socket.socket) -> Optional[int]:
    """Return the datapath id of the switch on this connection; None when it hangs up."""
    connection.sendall(message(HELLO) + message(FEATURES_REQUEST))
    with connection.makefile("rb") as stream:
        while True:
            header = stream.read(HEADER.size)
            if len(header) < HEADER.size:
                return None
            _, kind, length, _ = HEADER.unpack(header)
            body = stream.read(length - HEADER.size)
            if kind == FEATURES_REPLY:
                return int.from_bytes(body[:8], "big")
