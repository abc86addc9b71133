"""The pages: the response to each request, and which requests are refused."""

import ipaddress
import json
import logging
import time
from collections.abc import Generator, Hashable
from email.message import Message
from pathlib import Path
from typing import Callable, NamedTuple, Optional
from urllib.parse import unquote, urlsplit

from pox.core import core

from edge.north.datapath import Datapath
from edge.poxfixes.lack import notice
from edge.switch.bigswitch import BigSwitch
from edge.web import metrics, view
from edge.web.queries import Query, Refused, parse_cookie, parse_query
from edge.web.reader import Busy, Reader
from edge.web.refresher import Refresher, ask_switches
from edge.web.search import Texts
from edge.web.shared import Shared

log = logging.getLogger("edge.dashboard")

SWITCH_PATIENCE = 1.0  # seconds to wait for switches; then what they have said is shown
# Seconds for finding flows and for waiting for their counters; then those last known are shown.
COUNTER_PATIENCE = 0.2
NO_METRICS = "/metrics needs the Python package prometheus_client, which is not installed."

STATIC = Path(__file__).parent / "static"
# path -> the name of the file in STATIC, and its content type
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_JSON = "application/json"

# Headers of every response: what a browser must not do with it.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Response(NamedTuple):
    """
    The answer to a request.

    status: the HTTP status
    """

    status: int
    content_type: str
    body: bytes


class Site:
    """
    Answers requests; for any thread.

    names: host names, other than IP addresses and localhost, by which browsers may call it
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._reader = Reader()
        self._shared = Shared()
        self._refresher = Refresher()
        self._texts = Texts()
        self._files = {
            path: Response(200, content_type, (STATIC / name).read_bytes())
            for path, (name, content_type) in FILES.items()
        }

    def answer(self, command: str, target: str, headers: Message) -> Response:
        """
        The response to any request; errors are responses, too.

        command: the method, such as GET
        target: path and query
        """
        try:
            if command not in ("GET", "HEAD"):
                raise Refused(405, "Everything here can only be read: use GET.")
            self._check_host(headers.get("Host"))
            _check_origin(headers)
            return self._answer(target, headers)
        except Refused as e:
            return error_response(e.status, str(e))
        except Busy:
            return error_response(503, "Too much is asked for at once; try again later.")
        except Exception as e:
            if notice(e):
                return error_response(503, "Something is lacking; try again later.")
            log.error("Cannot answer %a: %s: %s", target[:100], type(e).__name__, e)
            log.debug("Details:", exc_info=True)
            return error_response(500, "This cannot be shown; POX's log says why.")

    def _check_host(self, host: Optional[str]) -> None:
        """
        Refuse requests for host names that are not ours.

        Otherwise a page of another site could have its own host name resolve to our address (DNS
        rebinding), and read everything here.
        """
        try:
            name = urlsplit(f"//{host or ''}").hostname or ""
        except ValueError:
            name = ""
        if name in self._names or name == "localhost":
            return
        try:
            ipaddress.ip_address(name)
        except ValueError:
            raise Refused(
                403,
                "This is not reached by that name: use the IP address, or start "
                "edge.dashboard with --names=NAME.",
            ) from None

    def _answer(self, target: str, headers: Message) -> Response:
        path, _, query = target.partition("?")
        if path in self._files:
            return self._files[path]
        if path == "/metrics":
            return self._metrics(headers)
        if path == "/api/switch":
            return self._api(path, self._overview)
        if path == "/api/flows":
            wanted = parse_query(query)
            return self._api(wanted, lambda: self._flows(wanted))
        if path.startswith("/api/flows/"):
            cookie = parse_cookie(unquote(path[len("/api/flows/") :]))
            return self._api(cookie, lambda: self._flow(cookie))
        raise Refused(404, "There is no such page.")

    def _api(self, key: Hashable, make: Callable[[], view.Json]) -> Response:
        body = self._shared.get(key, lambda: json.dumps(make()).encode())
        return Response(200, _JSON, body)

    # --- the contents ----------------------------------------------------------------------------

    def _datapath(self) -> Datapath:
        datapath: Optional[Datapath] = core.components.get("aggregator")
        if datapath is None:
            raise Refused(503, "edge.aggregator is not running in this POX.")
        return datapath

    def _switch(self) -> BigSwitch:
        return self._datapath().big

    def _overview(self) -> view.Json:
        return self._reader.read(view.overview(self._datapath()))

    def _flows(self, wanted: Query) -> view.Json:
        begun = time.monotonic()
        switch = self._switch()
        found = self._texts.find(switch, self._reader.read(view.entries(switch)), wanted.search)
        left = max(0.0, begun + COUNTER_PATIENCE - time.monotonic())
        self._reader.wait(lambda done: self._refresher.refresh(switch, done), left)
        return self._reader.read(view.flows(switch, wanted, found))

    def _flow(self, cookie: int) -> view.Json:
        switch = self._switch()
        installed: view.Installed = {}
        self._reader.wait(
            lambda done: ask_switches(switch, cookie, installed, done), SWITCH_PATIENCE
        )

        def read() -> view.Pieces:
            entry = switch.flows.cookies.entry(cookie)
            if entry is None or entry not in switch.flows.table:
                raise Refused(404, "There is no such flow (any more).")
            yield
            return view.flow(switch, entry, dict(installed))

        return self._reader.read(read())

    def _metrics(self, headers: Message) -> Response:
        if not metrics.AVAILABLE:
            raise Refused(501, NO_METRICS)
        datapath = self._datapath()

        def read() -> Generator[None, None, metrics.Numbers]:
            yield
            return metrics.numbers(datapath)

        body, content_type = metrics.text(self._reader.read(read()), headers.get("Accept"))
        return Response(200, content_type, body)


def error_response(status: int, text: str) -> Response:
    """The response to a request that fails; the text is for the user."""
    return Response(status, _JSON, json.dumps({"error": text}).encode())


def _check_origin(headers: Message) -> None:
    """Refuse requests that come from another site's page; following a link is allowed."""
    site, mode = headers.get("Sec-Fetch-Site"), headers.get("Sec-Fetch-Mode")
    if site in ("cross-site", "same-site") and mode != "navigate":
        raise Refused(403, "This is not for other sites' pages.")
