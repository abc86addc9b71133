"""
What POX's own web server (pox/web/webcore.py) is given to serve, repaired.

The page has a web server of its own (edge/web/server.py).  Only if POX's is there already, the page
is served by that, and this is imported: pox.web.webcore does not load on Python 3.13, since it
needs the module cgi (webcore.py:57), which is gone there.
"""

from email.message import Message
from io import BufferedIOBase
from typing import Optional

from pox.web import webcore

PRODUCT = "edge.aggregator"  # instead of the versions of POX and Python


class RequestHandler(webcore.SplitRequestHandler):
    """
    Answers requests below one prefix of POX's web server; a subclass says how, in respond().

    POX, all in pox/web/webcore.py:
    - :248 without POX's own cookie, a request is answered by a redirection that sets one.  That
      guards what a request may change; Prometheus keeps no cookies.
    - :459 every answer has an Access-Control header, and with --cors=permissive (:1219) the pages
      of all other sites may read every answer, whatever the handler.
    - :511 a method without a do_METHOD() is answered by an HTML page, not by the handler.
    - :518 each request is a line of the log at DEBUG; a page sends some every other second.
    - :498 the Server header tells the versions of POX and Python.

    Here: no cookie, no Access-Control headers, every method goes to respond(), no lines, PRODUCT.
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
