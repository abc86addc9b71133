"""The socket by which scripts/aggregator.sh asks a running userspace network for tunnels."""

import contextlib
import socketserver
import threading

from failure import Failure
from tunnels import Tunnels


class ControlSocket(socketserver.UnixStreamServer):
    """A unix socket at `path` that takes requests for tunnels until the program ends.

    A connection carries one request, a line: `add COUNT TYPE` or `remove`.  The answer is a line
    too: `ok`, or what went wrong.
    """

    def __init__(self, path: str, tunnels: Tunnels) -> None:
        super().__init__(path, _Request)
        self.tunnels = tunnels
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Request(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # who has asked has been ended by a signal
            command, *words = self.rfile.readline().decode().split() or [""]
            if command:
                self.wfile.write(f"{self._answer(command, words)}\n".encode())

    def _answer(self, command: str, words: list[str]) -> str:
        try:
            if command == "add":
                self.server.tunnels.add(int(words[0]), words[1])
            else:
                self.server.tunnels.remove()
        except Failure as failure:
            return " ".join(str(failure).split())
        return "ok"
