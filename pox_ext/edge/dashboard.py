"""
A page that shows the big switch, JSON under it, and metrics for Prometheus.

For example, and then http://127.0.0.1:8000/ in a browser:

    ./pox.py edge.aggregator --ips=172.16.0.1,172.16.0.2 edge.dashboard --port=8000

Everything here only reads.  It runs in the threads of POX's web server (web.webcore); what belongs
to POX's scheduler is read there (reader.py), and asked of the switches seldom however many look.
docs/dashboard.md describes the JSON.
"""

import ipaddress
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future
from email.message import Message
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional
from urllib.parse import parse_qs, unquote, urlsplit

import pox.openflow.libopenflow_01 as of
from pox.core import core
from pox.web import webcore

from edge import poxfixes
from edge.north import statistics
from edge.north.datapath import Datapath
from edge.openflow import stats
from edge.south.gather import ask
from edge.south.member import Member
from edge.switch.bigswitch import BigSwitch
from edge.web import metrics, view
from edge.web.reader import Busy, Reader

log = logging.getLogger("edge.dashboard")

poxfixes.repair_help()

# Where the page is on a web server that others use too.
SHARED_PREFIX = "/edge/"

# Seconds.
REFRESH = 2.0  # between two times that the switches are asked for all counters
SHARE = 1.0  # for which an answer is given to others too who ask the same
SWITCH_PATIENCE = 1.0  # for what the switches say; after that, what is known is shown
REQUEST_PATIENCE = 10.0  # for a browser's request, once it is connected

MOST_CONNECTIONS = 64
_LONGEST_LINE = 8192
_LONGEST_SEARCH = 200
_MOST_ROWS = 500

_STATIC = Path(__file__).parent / "web" / "static"
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_JSON = "application/json"
_HEADERS = {
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


class Refused(Exception):
    """A request that is answered with an HTTP status and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Response(NamedTuple):
    """What is answered to a request."""

    status: int
    content_type: str
    body: bytes


class Shared:
    """One answer for all who ask the same within SHARE seconds."""

    _MOST = 64

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[Any, tuple[float, Future]] = {}

    def get(self, key: Any, make: Callable[[], bytes]) -> bytes:
        """The answer; if there is none yet, make() makes it.  Raises what make() raises."""
        now = time.monotonic()
        with self._lock:
            since, answer = self._answers.get(key, (-SHARE, None))
            mine = answer is None or now - since >= SHARE
            if mine:
                answer = Future()
                self._answers.pop(key, None)
                self._answers[key] = now, answer
                while len(self._answers) > self._MOST:
                    del self._answers[next(iter(self._answers))]
        if mine:
            try:
                answer.set_result(make())
            except BaseException as e:
                answer.set_exception(e)
        return answer.result()


class Refresher:
    """Asks the switches for the counters of all flows; used in POX's scheduler only."""

    def __init__(self) -> None:
        self._due = 0.0
        self._waiting: list[Callable[[], None]] = []

    def refresh(self, switch: BigSwitch, done: Callable[[], None]) -> None:
        """Call done() when the counters are new enough."""
        begun = time.monotonic()
        if not self._waiting and begun < self._due:
            done()
            return
        self._waiting.append(done)
        if len(self._waiting) > 1:
            return

        def finish() -> None:
            took = time.monotonic() - begun
            # Many flows on many switches are asked for less often.
            self._due = begun + max(REFRESH, 10 * took)
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each()

        try:
            statistics.refresh(switch, list(switch.table), finish)
        except Exception:
            finish()  # nobody is to wait for what will not come
            raise


class Dashboard:
    """
    Answers requests, in whichever thread they come.

    names: host names, other than IP addresses and localhost, by which browsers may call it
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._reader = Reader()
        self._shared = Shared()
        self._refresher = Refresher()
        self._files = {
            path: Response(200, content_type, (_STATIC / name).read_bytes())
            for path, (name, content_type) in _FILES.items()
        }

    def answer(self, command: str, target: str, headers: Message) -> Response:
        """The response to a request, whatever it is."""
        try:
            if command not in ("GET", "HEAD"):
                raise Refused(405, "Everything here can only be read: use GET.")
            self._check_host(headers.get("Host"))
            _check_origin(headers)
            return self._answer(target, headers)
        except Refused as e:
            return _json({"error": str(e)}, e.status)
        except Busy:
            return _json({"error": "Too much is asked for at once; try again later."}, 503)
        except Exception as e:
            log.error("Cannot answer %a: %s: %s", target[:100], type(e).__name__, e)
            log.debug("Details:", exc_info=True)
            return _json({"error": "This cannot be shown; POX's log says why."}, 500)

    def _check_host(self, host: Optional[str]) -> None:
        """
        Refuse names that we do not know: a foreign page that has its own name point at our
        address (DNS rebinding) is not let in.
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

    def _api(self, key: Any, make: Callable[[], Any]) -> Response:
        body = self._shared.get(key, lambda: json.dumps(make()).encode())
        return Response(200, _JSON, body)

    # --- what there is to see --------------------------------------------------------------------

    def _datapath(self) -> Datapath:
        datapath = core.components.get("aggregator")
        if datapath is None:
            raise Refused(503, "edge.aggregator is not running in this POX.")
        return datapath

    def _switch(self) -> BigSwitch:
        return self._datapath().big

    def _overview(self) -> Any:
        return self._reader.read(view.overview(self._datapath()))

    def _flows(self, wanted: view.Query) -> Any:
        switch = self._switch()
        self._reader.wait(lambda done: self._refresher.refresh(switch, done), SWITCH_PATIENCE)
        return self._reader.read(view.flows(switch, wanted))

    def _flow(self, cookie: int) -> Any:
        switch = self._switch()
        installed: view.Installed = {}
        self._reader.wait(
            lambda done: ask_switches(switch, cookie, installed, done), SWITCH_PATIENCE
        )

        def read() -> Generator[None, None, Any]:
            entry = switch.cookies.entry(cookie)
            if entry is None or entry not in switch.table:
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


NO_METRICS = "/metrics needs the Python package prometheus_client, which is not installed."


def _json(value: Any, status: int) -> Response:
    return Response(status, _JSON, json.dumps(value).encode())


def _check_origin(headers: Message) -> None:
    """Refuse what a foreign page has its browser fetch; a link that is followed is all right."""
    site, mode = headers.get("Sec-Fetch-Site"), headers.get("Sec-Fetch-Mode")
    if site in ("cross-site", "same-site") and mode != "navigate":
        raise Refused(403, "This is not for other sites' pages.")


def parse_query(text: str) -> view.Query:
    """What a query string of /api/flows asks for.  Raises Refused if it makes no sense."""
    try:
        given = {name: values[-1] for name, values in parse_qs(text, max_num_fields=16).items()}
    except ValueError:
        raise Refused(400, "There are too many parameters.") from None

    def number(name: str, default: int, least: int, most: int) -> int:
        value = given.get(name, str(default))
        if not re.fullmatch("[0-9]{1,10}", value) or not least <= int(value) <= most:
            raise Refused(400, f"{name} is not a whole number from {least} to {most}.")
        return int(value)

    def choice(name: str, choices: tuple[str, ...]) -> str:
        value = given.get(name, choices[0])
        if value not in choices:
            raise Refused(400, f"{name} is none of {', '.join(choices)}.")
        return value

    search = given.get("search", "")
    if len(search) > _LONGEST_SEARCH:
        raise Refused(400, f"search is longer than {_LONGEST_SEARCH} characters.")
    return view.Query(
        search,
        choice("sort", view.SORTS),
        choice("order", ("desc", "asc")) == "desc",
        number("offset", 0, 0, 10**9),
        number("limit", 100, 1, _MOST_ROWS),
    )


def parse_cookie(text: str) -> int:
    """A flow's cookie on the switches, in hexadecimal.  Raises Refused if it is none."""
    if not re.fullmatch("(0x)?[0-9a-f]{1,16}", text):
        raise Refused(404, "There is no such flow: a flow is named by its switch_cookie.")
    return int(text, 16)


def ask_switches(
    switch: BigSwitch, cookie: int, installed: view.Installed, done: Callable[[], None]
) -> None:
    """
    Ask the switches what they have with this cookie; in POX's scheduler.

    installed: what they say is put there, by their index
    """
    entry = switch.cookies.entry(cookie)
    holders = switch.holders(entry) if entry is not None else []

    def take(member: Member, kind: int, message: bytes) -> None:
        if kind != of.OFPT_STATS_REPLY:
            return
        flows = list(stats.parse_flows(message))
        installed.setdefault(member.index, None)
        for flow in flows:
            installed[member.index] = flow
            if switch.cookies.entry(cookie) is not None:  # else it has ended meanwhile
                member.counters[cookie] = flow.packets, flow.octets

    ask([(member, lambda xid: stats.dump_flows(xid, cookie)) for member in holders], take, done)


# --- POX's web server -----------------------------------------------------------------------------


class Handler(webcore.SplitRequestHandler):
    """Hands a request to the Dashboard (its args), and sends what that answers."""

    # It wants browsers to have a cookie, as a guard of what can be changed; nothing can be here,
    # and Prometheus has no cookies.
    pox_cookieguard = False

    def _split_dispatch(self, command: str, handler: Any = None) -> None:
        response = self.args.answer(command, self.path, self.headers)
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if response.status == 405:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if command != "HEAD":
            self.wfile.write(response.body)

    def send_ac_headers(self) -> None:
        """No other site's page may read this, whatever the web server allows elsewhere."""

    def version_string(self) -> str:
        return "edge.aggregator"

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """A page asks for something every second: that would be all that the log says."""

    @classmethod
    def format_info(cls, args: Any) -> str:
        return "the big switch"


class _Lines:
    """A request's lines, of which none is endless."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readline(self, limit: int = -1) -> bytes:
        return self._file.readline(_LONGEST_LINE if limit < 0 else limit)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Splitter(webcore.SplitterRequestHandler):
    """POX's, which waits for ever for a request, and reads one however long it is."""

    timeout = REQUEST_PATIENCE

    def setup(self) -> None:
        super().setup()
        self.rfile = _Lines(self.rfile)

    def version_string(self) -> str:
        return "edge.aggregator"

    def log_error(self, fmt: str, *args: Any) -> None:
        log.debug(fmt, *args)


class Server(webcore.SplitThreadedServer):
    """POX's web server; so many connections, and no traceback for what they do."""

    daemon_threads = True
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, _Splitter)
        self._room = threading.BoundedSemaphore(MOST_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("%s: the request ended early: %r", client_address[0], sys.exc_info()[1])

    def start(self) -> None:
        """Serve from when POX goes up until it goes down."""
        core.addListenerByName("GoingUpEvent", lambda event: self._serve())

    def _serve(self) -> None:
        # Not before: shutdown() waits for an end of serve_forever(), for ever if it never began.
        core.addListenerByName("GoingDownEvent", lambda event: self.shutdown())
        threading.Thread(target=self.serve_forever, name="edge.dashboard", daemon=True).start()


# --- the component --------------------------------------------------------------------------------


class BadOption(ValueError):
    """A launch() argument that makes no sense; the text says which and why."""


def _address(text: Any) -> str:
    try:
        return str(ipaddress.IPv4Address("127.0.0.1" if text is None else str(text)))
    except ValueError:
        raise BadOption(f"--address={text} is not an IPv4 address") from None


def _port(text: Any) -> int:
    digits = "8000" if text is None else str(text)
    if not re.fullmatch("[0-9]{1,5}", digits) or not 1 <= int(digits) <= 65535:
        raise BadOption(f"--port={text} is not 1 to 65535")
    return int(digits)


def _names(text: Any) -> frozenset[str]:
    names = [name.strip().lower() for name in text.split(",")] if isinstance(text, str) else [""]
    if text == "":
        return frozenset()
    if any(not name or set(name) & set("/: *") for name in names):
        raise BadOption(f"--names={text}: it is NAME,NAME,..., without ports")
    return frozenset(names)


def launch(
    address: Optional[str] = None, port: Optional[str] = None, names: str = ""
) -> Optional[bool]:
    """
    Show the big switch of edge.aggregator on a web page.

    --address=IP          where the page is served (127.0.0.1): with any other address, everybody
                          who can reach it sees all of the flows
    --port=PORT           its TCP port (8000)
    --names=NAME,NAME,... host names by which browsers may ask for it, besides localhost

    If POX's web.webcore is launched before, with an address and port of its own, the page is
    there, below /edge/.
    """
    try:
        dashboard = Dashboard(_names(names))
        shared = core.components.get("WebServer")
        if shared is None:
            host, number = _address(address), _port(port)
        elif address is not None or port is not None:
            raise BadOption(
                "--address and --port: web.webcore is there already, and has its own; leave them "
                "out, or leave web.webcore out"
            )
    except BadOption as e:
        log.error("%s", e)
        return False
    if shared is None:
        try:
            server, prefix = Server((host, number)), "/"
        except OSError as e:
            log.error("--address=%s --port=%d: cannot listen there: %s", host, number, e.strerror)
            return False
        core.register("WebServer", server)
        server.start()
    else:
        server, prefix = shared, SHARED_PREFIX
    server.set_handler(prefix, Handler, dashboard, True)
    log.info("The page is at http://%s:%d%s", *server.server_address[:2], prefix)
    if not metrics.AVAILABLE:
        log.info(NO_METRICS)
    return None
