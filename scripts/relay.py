"""Relays carry connections between network namespaces.

A TCP address means another place in each network namespace.  A unix socket is a file, which all
namespaces see.  So a connection leaves one namespace as a connection to a unix socket, and a relay
in the other namespace carries it on over TCP, or the other way round.

A relay accepts connections from its construction to the end of the program.  Its threads run in the
network namespace of the program that made it.
"""

import contextlib
import socket
import socketserver
import threading
import time
from typing import Optional

from options import Address

PATIENCE = 0.9
"""Seconds that a connection is held while nobody listens at the TCP address.

A switch gives up an attempt to connect after 1 second and then pauses before the next one.  Without
the pause it is connected as soon as somebody starts the controller.
"""


class _Relay(socketserver.ThreadingMixIn):
    daemon_threads = True
    request_queue_size = 128

    def connect(self) -> Optional[socket.socket]:
        """Return a connection to where this relay leads; None when there is nobody."""
        raise NotImplementedError

    def _start(self) -> None:
        threading.Thread(target=self.serve_forever, daemon=True).start()


class UnixToTcpRelay(_Relay, socketserver.UnixStreamServer):
    """Carries connections to the unix socket `path` on to the TCP address `target`."""

    def __init__(self, path: str, target: Address) -> None:
        super().__init__(path, _RelayedConnection)
        self.target = target
        self._start()

    def connect(self) -> Optional[socket.socket]:
        """Return a connection to `target`; None when nobody listens within PATIENCE."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                connection = socket.create_connection(self.target, timeout=5)
            except OSError:
                if time.monotonic() > deadline:
                    return None
                time.sleep(0.05)
            else:
                connection.settimeout(None)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection


class TcpToUnixRelay(_Relay, socketserver.TCPServer):
    """Carries connections to a port of 127.0.0.1 on to the unix socket `path`.

    Raises OSError when the port is taken.  The unix socket may be made later.
    """

    allow_reuse_address = True

    def __init__(self, port: int, path: str) -> None:
        super().__init__(("127.0.0.1", port), _RelayedConnection)
        self.path = path
        self._start()

    def connect(self) -> Optional[socket.socket]:
        """Return a connection to the unix socket; None when nobody listens there."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self.path)
        except OSError:
            connection.close()
            return None
        return connection


class _RelayedConnection(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        onward = self.server.connect()
        if onward is None:
            return  # the server closes the connection, and its maker may try again
        with onward:
            _carry(self.request, onward)


def _carry(one: socket.socket, other: socket.socket) -> None:
    """Copy what arrives on each of two connections to the other, until one of them ends."""
    back = threading.Thread(target=_pump, args=(other, one), daemon=True)
    back.start()
    _pump(one, other)
    back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass  # one of the two connections is lost: then both are closed, below
    for connection in (source, sink):
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
