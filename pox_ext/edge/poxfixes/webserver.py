"""
POX's web server (pox/web/webcore.py), fit for browsers and Prometheus that one does not know.

Nothing else here imports pox.web.webcore, which does not load on Python 3.13: it needs the module
cgi (webcore.py:57), which is gone there.  So edge.poxfixes leaves this module out, and whoever
serves pages imports it.

    Server          POX's server, with bounds on what connections may cost, and a quiet log
    RequestHandler  what set_handler() takes: on Server, or on the server that POX has already
"""

import logging
import socket
import sys
import threading
from email.message import Message
from io import BufferedIOBase
from typing import Optional, Protocol

from pox.core import core
from pox.web import webcore

log = logging.getLogger("edge.dashboard")

MOST_CONNECTIONS = 64
REQUEST_PATIENCE = 10.0  # seconds for a request, once its connection is there
LONGEST_LINE = 8192  # bytes of a request's first line
PRODUCT = "edge.aggregator"  # instead of the versions of POX and Python


class RequestHandler(webcore.SplitRequestHandler):
    """
    Answers requests below one prefix of POX's web server; a subclass says how, in respond().

    POX, all in pox/web/webcore.py:
    - :250, :866 without POX's own cookie, a request is answered by a redirection that sets one.
      That guards what a request may change; Prometheus keeps no cookies.
    - :459 every answer has an Access-Control header, and with --cors=permissive (:1218) answers may
      be read by the pages of all other sites, whatever the handler.
    - :509 methods other than those that have a do_METHOD() are answered with a page of HTML.
    - :519 each request is a line of the log at DEBUG; a page asks every other second.

    Here: no cookie, no Access-Control headers, all methods go to respond(), no lines.
    """

    pox_cookieguard = False

    command: str
    path: str
    headers: Message
    wfile: BufferedIOBase

    def respond(self) -> None:
        """Send the response to the request."""
        raise NotImplementedError

    def _split_dispatch(self, command: str, handler: Optional[object] = None) -> None:
        self.respond()

    def send_ac_headers(self) -> None:
        """Let no page of another site read this."""

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Log nothing."""

    def version_string(self) -> str:
        return PRODUCT


class _Stream(Protocol):
    """As much of a connection's stream as is used here."""

    def readline(self, limit: int = -1) -> bytes: ...


class _BoundedLines:
    """The stream of a request, whose lines have a longest length."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def readline(self, limit: int = -1) -> bytes:
        return self._stream.readline(LONGEST_LINE if limit < 0 else limit)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


class _Connection(webcore.SplitterRequestHandler):
    """
    One connection to the server.

    POX, all in pox/web/webcore.py:
    - :779 nothing limits how long a connection may be without a request; each has a thread.
    - :829 nothing limits how long the first line of a request may be; it is kept in memory.
    - :808 each malformed request is a line of the log at ERROR.
    - :813 the Server header tells the versions of POX and Python.

    Here: REQUEST_PATIENCE, LONGEST_LINE, lines at DEBUG, PRODUCT.
    """

    timeout = REQUEST_PATIENCE

    rfile: _Stream

    def setup(self) -> None:
        super().setup()
        self.rfile = _BoundedLines(self.rfile)

    def version_string(self) -> str:
        return PRODUCT

    def log_error(self, fmt: str, *args: object) -> None:
        log.debug(fmt, *args)


class Server(webcore.SplitThreadedServer):
    """
    POX's web server with MOST_CONNECTIONS; set_handler() gives it what it serves.

    POX, all in pox/web/webcore.py:
    - :900 each connection gets a thread, however many there are.
    - :900 by what it inherits from socketserver, an error on a connection is a traceback on stderr,
      and at the end the threads of all connections are waited for.
    - :1275 shutdown() waits for serve_forever() to end, for ever if that has not begun: when POX
      goes down before it was up.

    Here: more connections are closed at once, errors are a line at DEBUG, nobody waits for threads,
    and start() arranges that shutdown() comes only after serve_forever().

    address: IP and port.  Raises OSError if one cannot listen there.
    """

    daemon_threads = True
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, _Connection)
        self._room = threading.BoundedSemaphore(MOST_CONNECTIONS)

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(
        self, request: socket.socket, client_address: tuple[str, int]
    ) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        log.debug("%s: the request ended early: %r", client_address[0], sys.exc_info()[1])

    def start(self) -> None:
        """Serve from when POX goes up until it goes down."""
        core.addListenerByName("GoingUpEvent", lambda event: self._serve())

    def _serve(self) -> None:
        core.addListenerByName("GoingDownEvent", lambda event: self.shutdown())
        threading.Thread(target=self.serve_forever, name="edge.dashboard", daemon=True).start()
