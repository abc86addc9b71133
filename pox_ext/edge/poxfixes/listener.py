"""The listener for switches, and one task for each of them."""

import errno
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any, Optional

from pox.core import core
from pox.lib.recoco import Select, Sleep, Task
from pox.openflow import debug, of_01

from .hub import Serve

log = logging.getLogger("edge.pox")

HANDSHAKE_TIME = 10  # seconds for the handshakes of TLS and OpenFlow together
PAUSE = 1.0  # seconds without accepting when the process has no descriptor left
ACCEPTED_AT_ONCE = 16
# What accept() reports of a connection that is gone already, or of the network (accept(2)).
PEER_GONE = {
    errno.ECONNABORTED,
    errno.ECONNRESET,
    errno.EPROTO,
    errno.EPERM,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENONET,
    errno.ENOPROTOOPT,
    errno.EOPNOTSUPP,
}


def listen(self: Any) -> Iterator:
    """Takes the place of of_01.OpenFlow_01_Task.run.

    POX, all in pox/openflow/of_01.py: under Python 3 no error of accept() is recognised (:1153, the
    type is never socket.error itself), so a peer that resets before it is accepted ends the
    listener for good (:1165), and a process without descriptors ends the whole task, with all its
    switches, in a TypeError (:1154). :1110 ssl.wrap_socket is gone since Python 3.12, and :1120 the
    TLS handshake blocks all of POX until the peer is done. Every message costs work for all
    connections (:1084). Nothing ends a handshake that never finishes (:355).

    Here: accept() may fail as it likes; every switch has a task of its own (SwitchTask).
    """
    address = f"{self.address}:{self.port}"
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.address, self.port))
        listener.listen(128)
        listener.setblocking(False)
    except OSError as e:
        log.error("Cannot listen for switches on %s: %s", address, e.strerror or e)
        listener.close()
        return
    try:
        tls = _tls_context(self)
    except (OSError, ValueError) as e:
        log.error("Cannot listen for switches on %s: TLS: %s", address, e)
        listener.close()
        return
    log.debug("Listening for switches on %s%s", address, " with TLS" if tls else "")

    if debug.pcap_traces:  # of_01.py:1000 uses file(), and lost every switch
        log.warning("openflow.debug does not work with Python 3; tcpdump makes traces, too")

    failing = None  # errno that was logged
    while core.running:
        yield Select([listener], [], [], 5)  # so that core.running is looked at
        pause = False
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, _ = listener.accept()
                failing = None
            except (BlockingIOError, InterruptedError):
                break
            except OSError as e:
                if e.errno in PEER_GONE:
                    continue
                if e.errno != failing:
                    log.error("Cannot accept a switch on %s: %s", address, e.strerror or e)
                failing = e.errno
                pause = True
                break
            SwitchTask(sock, tls).start(fast=True)
        if pause:
            yield Sleep(PAUSE)
    listener.close()


def _tls_context(listener: Any) -> Optional[ssl.SSLContext]:
    """For of_01's --private_key, --certificate and --ca_cert; None without them."""
    if not (listener.ssl_key or listener.ssl_cert or listener.ssl_ca_cert):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if listener.ssl_cert:
        context.load_cert_chain(listener.ssl_cert, listener.ssl_key)
    if listener.ssl_ca_cert:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(listener.ssl_ca_cert)
    return context


class SwitchTask(Task):
    """Reads one connection until its end."""

    def __init__(self, sock: socket.socket, tls: Optional[ssl.SSLContext]) -> None:
        self._sock = sock
        self._tls = tls
        self._con: Any = None
        self._open = True
        super().__init__()

    def run(self) -> Iterator:
        """Handshakes, then messages."""
        deadline = time.monotonic() + HANDSHAKE_TIME
        con = None
        try:
            self._sock.setblocking(False)
            if self._tls is not None:
                yield from self._tls_handshake(deadline)
            con = self._con = of_01.Connection(self._sock)
            while self._open:
                left = None
                if con.connect_time is None:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise TimeoutError(f"no OpenFlow handshake within {HANDSHAKE_TIME} s")
                if con.more:
                    yield 0  # others first
                    self._read()
                else:
                    yield Serve(con, self._read, left)
        except OSError as e:
            log.info("%s: closing: %s", con or self._peer(), e)
        except Exception as e:
            log.error("%s: closing: %s: %s", con or self._peer(), type(e).__name__, e)
            log.debug("Details:", exc_info=True)
        finally:
            if con is not None:
                con.close()
            self._sock.close()

    def _read(self) -> bool:
        """Read what has come; False when that is not all, or is the end."""
        con = self._con
        con.idle_time = time.time()
        self._open = con.read() and not con.disconnected
        return self._open and not con.more

    def _peer(self) -> str:
        try:
            return "{}:{}".format(*self._sock.getpeername())
        except OSError:
            return "A switch"

    def _tls_handshake(self, deadline: float) -> Iterator:
        self._sock = self._tls.wrap_socket(
            self._sock, server_side=True, do_handshake_on_connect=False
        )
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no TLS handshake within {HANDSHAKE_TIME} s")
            try:
                self._sock.do_handshake()
                return
            except ssl.SSLWantReadError:
                yield Select([self._sock], [], [], left)
            except ssl.SSLWantWriteError:
                yield Select([], [self._sock], [], left)
