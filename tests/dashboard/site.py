"""An HTTP client for a dashboard."""

import http.client
import json
import socket
import time
from typing import Any, Callable, NamedTuple
from urllib.parse import urlencode

from lab.namespaces import Namespace

TIMEOUT = 20.0


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Site:
    """A web server in a network namespace.

    prefix: the beginning of all its paths.
    """

    def __init__(self, namespace: Namespace, port: int = 8000, prefix: str = "") -> None:
        self.namespace = namespace
        self.address = ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{port}{prefix}"
        self.prefix = prefix

    def connect(self) -> socket.socket:
        """Open a connection, and send nothing on it."""
        return self.namespace.call(socket.create_connection, self.address, TIMEOUT)

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Send a request and return the answer, whatever it is.

        headers: request headers, with _ in place of -.
        """
        connection = http.client.HTTPConnection(*self.address)
        connection.sock = self.connect()
        try:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, self.prefix + path, headers=fields)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **parameters: object) -> Any:
        """Return the JSON at a path below api/; fail if the request is refused."""
        query = "?" + urlencode(parameters) if parameters else ""
        answer = self.ask(f"/api/{path}{query}")
        assert answer.status == 200, answer
        assert answer.headers["Content-Type"] == "application/json"
        return answer.json

    def wait(self, look: Callable[["Site"], Any], timeout: float = TIMEOUT) -> Any:
        """Wait until look(self) returns something true; return it."""
        deadline = time.monotonic() + timeout
        while True:
            found = look(self)
            if found:
                return found
            assert time.monotonic() < deadline, f"not within {timeout:g} s: {self.get('switch')}"
            time.sleep(0.05)

    def flow(self, search: str) -> Any:
        """Return the one flow that this search finds, with its copies."""
        (row,) = self.wait(lambda site: site.get("flows", search=search)["page"])
        return self.get(f"flows/{row['switch_cookie']}")

    def metrics(self) -> dict[str, float]:
        """Return the values of /metrics without labels, by name without the common prefix."""
        lines = self.ask("/metrics").body.decode().splitlines()
        rows = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {
            name[len("edge_aggregator_") :]: float(value) for name, value in rows if "{" not in name
        }
