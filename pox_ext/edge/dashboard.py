"""
A page that shows the big switch, JSON under it, and metrics for Prometheus.

For example, and then http://127.0.0.1:8000/ in a browser:

    ./pox.py edge.aggregator --ips=172.16.0.1,172.16.0.2 edge.dashboard --port=8000

docs/dashboard.md describes page, JSON and metrics.  The parts are in edge/web: they read the big
switch and change nothing.
"""

import logging
from typing import Optional

from pox.core import core

from edge import options, poxfixes
from edge.poxfixes.lack import RETRY, notice
from edge.web import metrics
from edge.web.server import Server
from edge.web.site import NO_METRICS, Site

log = logging.getLogger("edge.dashboard")

poxfixes.repair_help()

DEFAULT_ADDRESS = "127.0.0.1"
DEFAULT_PORT = "8000"
# Where the page is on POX's own web server, which others use too.
SHARED_PREFIX = "/edge/"


def launch(
    address: Optional[str] = None, port: Optional[str] = None, names: str = ""
) -> Optional[bool]:
    """
    Show the big switch of edge.aggregator on a web page.

    --address=IP          where the page is served (127.0.0.1).  With any other address, everybody
                          who can reach it sees all flows
    --port=PORT           its TCP port, a decimal or hexadecimal (0x1f40) number (8000)
    --names=NAME,NAME,... host names by which browsers may ask for the page, besides localhost

    If POX's web.webcore is launched before, with an address and port of its own, the page is
    there, below /edge/.
    """
    shared = core.components.get("WebServer")
    try:
        site = Site(options.host_names(names))
        listen_at = (
            options.ip_address("address", DEFAULT_ADDRESS if address is None else address),
            options.whole_number("port", DEFAULT_PORT if port is None else port, 1, 65535),
        )
        if shared is not None and (address is not None or port is not None):
            raise options.BadOption(
                "--address and --port: web.webcore is there already, and has its own; leave them "
                "out, or leave web.webcore out"
            )
    except options.BadOption as e:
        log.error("%s", e)
        return False
    if shared is not None:
        # Imported here since it imports pox.web, which needs Python 3.12 or older.
        from edge.web.handler import Handler

        shared.set_handler(SHARED_PREFIX, Handler, site, True)
        where = (*shared.server_address[:2], SHARED_PREFIX)
    else:
        try:
            server = Server(listen_at, site.answer)
        except OSError as e:
            log.error("--address=%s --port=%d: cannot listen there: %s", *listen_at, e.strerror)
            return False
        core.addListenerByName("GoingUpEvent", lambda event: _serve(server))
        core.addListenerByName("GoingDownEvent", lambda event: server.stop())
        where = (*server.address, "/")
    log.info("The page is at http://%s:%d%s", *where)
    if not metrics.AVAILABLE:
        log.info(NO_METRICS)
    return None


def _serve(server: Server) -> None:
    """Serve from now on; if the process lacks something for that, later."""
    try:
        server.serve()
    except Exception as e:
        if not notice(e):
            raise
        poxfixes.after(RETRY, lambda: _serve(server), "edge.dashboard")
