"""The socket by which aggregator.sh asks demo.sh for tunnels."""

import socket
import threading

from control_socket import ControlSocket


class Tunnels:
    """Removes tunnels as slowly as the test wants."""

    def __init__(self):
        self.goes_on = threading.Event()

    def remove(self):
        assert self.goes_on.wait(10)


def test_who_asks_and_is_gone_costs_no_traceback(tmp_path, capsys):
    """A Ctrl-C ends aggregator.sh while it asks, or before it has asked."""
    path = str(tmp_path / "control")
    tunnels = Tunnels()
    with ControlSocket(path, tunnels) as server:
        answers = []
        for request, is_read in ((b"", False), (b"remove\n", False), (b"remove\n", True)):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(path)
                client.sendall(request)
                if is_read:
                    tunnels.goes_on.set()
                    answers.append(client.recv(100))
        server.shutdown()
    assert answers == [b"ok\n"]
    assert capsys.readouterr().err == ""
