"""The listener for switches, and one task for each switch that connects."""

import contextlib
import errno
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Optional

from pox.core import core
from pox.lib.recoco import Select, Sleep, Task
from pox.openflow import debug, of_01

from .connection import PARTING, EdgeConnection, strangers
from .hub import Serve, patience_left
from .lack import RETRY, notice

log = logging.getLogger("edge.pox")

HANDSHAKE_TIME = 10  # seconds for the handshakes of TLS and OpenFlow together
ACCEPTED_AT_ONCE = 16  # connections; then other tasks have their turn
# Errors of accept() that concern one connection or the network, not the listener (accept(2)).
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


def listen(self: of_01.OpenFlow_01_Task) -> Iterator[object]:
    """Listen for switches: takes the place of of_01.OpenFlow_01_Task.run.

    POX, all in pox/openflow/of_01.py:
    - :1153 with Python 3, no error of accept() is recognised, since its type is never socket.error
      itself. So a peer that resets before it is accepted ends the listener for good (:1165), and a
      process without descriptors ends the whole task, with all its switches, in a TypeError
      (:1154).
    - :1110 ssl.wrap_socket is gone since Python 3.12.
    - :1120 the TLS handshake blocks all of POX until the peer is done.
    - :1084 every message costs work for all connections.
    - :355 nothing ends a handshake that never finishes.

    Here: no error of accept() ends the listener, and every switch has a task of its own
    (SwitchTask).
    """
    address = f"{self.address}:{self.port}"
    while True:
        try:
            listener = _listener(self.address, self.port)
            break
        except OverflowError:  # the port
            log.error("Cannot listen for switches on %s: there is no such port", address)
            return
        except OSError as e:
            if not notice(e):
                log.error("Cannot listen for switches on %s: %s", address, e.strerror or e)
                return
        yield Sleep(RETRY)
    try:
        tls = _tls_context(self)
    except ValueError as e:
        log.error("Cannot listen for switches on %s: TLS: %s", address, e)
        listener.close()
        return
    log.debug("Listening for switches on %s%s", address, " with TLS" if tls else "")

    if debug.pcap_traces:  # of_01.py:1000 uses file(), and loses every switch
        log.warning("openflow.debug does not work with Python 3; tcpdump makes traces, too")

    failing = None  # the type of the last failure, which is logged once
    while core.running:
        yield Select([listener], [], [], 5)  # seconds, then to look at core.running
        try:
            for sock in accepted(listener):
                failing = None
                try:
                    SwitchTask(sock, tls).start(fast=True)
                except Exception as e:  # the switch's connection ends, and nothing else
                    sock.close()
                    if not notice(e):
                        name = type(e).__name__
                        log.error("Cannot serve a switch on %s: %s: %s", address, name, e)
        except Exception as e:
            if not notice(e) and type(e) is not failing:
                log.error("Cannot accept a switch on %s: %s", address, e)
                failing = type(e)
            yield Sleep(RETRY)
    listener.close()


def accepted(listener: socket.socket) -> Iterator[socket.socket]:
    """Accept some of the connections that have come, and yield their sockets.

    Raises what accept() raises, but for errors that concern one connection alone (PEER_GONE).
    """
    for _ in range(ACCEPTED_AT_ONCE):
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as e:
            if e.errno in PEER_GONE:
                continue
            raise
        yield sock


def _listener(address: str, port: int) -> socket.socket:
    """A socket that listens.  Raises OSError, or OverflowError if there cannot be such a port."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(128)
        listener.setblocking(False)
        return listener
    except (OSError, OverflowError):
        listener.close()
        raise


def _tls_context(listener: of_01.OpenFlow_01_Task) -> Optional[ssl.SSLContext]:
    """Return the context for of_01's --private_key, --certificate and --ca_cert, or None.

    Raises ValueError, with the option that is wrong, if they cannot be used. POX listens all the
    same (:1110), and then no switch gets through its handshake.
    """
    key, certificate, ca_cert = listener.ssl_key, listener.ssl_cert, listener.ssl_ca_cert
    given = {"private_key": key, "certificate": certificate, "ca_cert": ca_cert}
    given = {option: path for option, path in given.items() if path is not None}
    if not given:
        return None
    for option, path in given.items():
        if not path or path is True:  # POX gives an option without a value as True
            raise ValueError(f"--{option} needs the name of a file")
    if certificate is None:
        raise ValueError(
            f"--{' and --'.join(given)} without --certificate: TLS needs the certificate of "
            "this controller, and its key"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with _naming(f"--certificate={certificate}" + (f" --private_key={key}" if key else "")):
        context.load_cert_chain(certificate, key, _no_passphrase)
    if ca_cert is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        with _naming(f"--ca_cert={ca_cert}"):
            context.load_verify_locations(ca_cert)
    return context


def _no_passphrase() -> bytes:
    """Is called for an encrypted key. Without this, OpenSSL asks at the terminal, and POX waits."""
    raise ValueError("the private key is encrypted; one without a passphrase is needed")


@contextlib.contextmanager
def _naming(options: str) -> Iterator[None]:
    """Name the options in an error about their files."""
    try:
        yield
    except ValueError as e:
        raise ValueError(f"{options}: {e}") from None
    except OSError as e:
        reason = e.strerror or str(e)
        if isinstance(e, ssl.SSLError):
            reason = f"no certificate, or not its private key, in PEM format ({reason})"
        raise ValueError(f"{options}: {reason}") from None


class SwitchTask(Task):
    """The task that reads one connection until its end.

    sock: as accept() has returned it.
    tls: how to begin TLS on it; None for a plain connection.
    """

    _con: EdgeConnection  # from when the TLS handshake is done

    def __init__(self, sock: socket.socket, tls: Optional[ssl.SSLContext]) -> None:
        self._sock = sock
        self._tls = tls
        self._open = True
        super().__init__()

    def run(self) -> Iterator[object]:
        """Do the handshakes, then handle messages until the connection ends."""
        begun, patience = time.monotonic(), float(HANDSHAKE_TIME)
        parting = False
        con = None
        try:
            self._sock.setblocking(False)
            if self._tls is not None:
                yield from self._tls_handshake(self._tls, begun)
            con = self._con = of_01.Connection(self._sock)
            while self._open:
                left = None
                if con.connect_time is None:
                    left = patience_left(begun, patience)
                    if con.parting and not parting:
                        parting = True
                        begun, patience = time.monotonic(), min(left, PARTING)
                        left = patience
                    if left <= 0:
                        raise TimeoutError(f"no OpenFlow handshake within {HANDSHAKE_TIME} s")
                if con.more:
                    yield 0  # other tasks have their turn first
                    self._read()
                else:
                    yield Serve(con, self._read, left)
        except OSError as e:
            if con is None:
                strangers.tell(self._host(), self._peer(), f"closing: {e}", logging.INFO)
            elif con.connect_time is None:
                con.no_switch(f"closing: {e}", logging.INFO)
            else:
                log.info("%s: closing: %s", con, e)
        except Exception as e:
            level = logging.INFO if notice(e) else logging.ERROR
            log.log(level, "%s: closing: %s: %s", con or self._peer(), type(e).__name__, e)
            log.debug("Details:", exc_info=True)
        finally:
            if con is not None:
                con.close()
            self._sock.close()

    def _read(self) -> bool:
        """Read what has come. Return whether to go on waiting for more in Serve."""
        con = self._con
        con.idle_time = time.time()
        self._open = con.read() and not con.disconnected
        return self._open and not con.more and not con.parting

    def _peer(self) -> str:
        try:
            return "{}:{}".format(*self._sock.getpeername())
        except OSError:
            return "A switch"

    def _host(self) -> str:
        return self._peer().rpartition(":")[0]

    def _tls_handshake(self, tls: ssl.SSLContext, begun: float) -> Iterator[object]:
        secured = tls.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
        self._sock = secured
        while True:
            left = patience_left(begun, HANDSHAKE_TIME)
            if left <= 0:
                raise TimeoutError(f"no TLS handshake within {HANDSHAKE_TIME} s")
            try:
                secured.do_handshake()
                return
            except ssl.SSLWantReadError:
                yield Select([secured], [], [], left)
            except ssl.SSLWantWriteError:
                yield Select([], [secured], [], left)
