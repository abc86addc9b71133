"""Bytes from a switch to its controller and back, and nothing else.

    python benchmarks/relay.py ADDRESS PORT CONTROLLER_PORT

It waits, reads and writes: no Python program between a switch and its controller can cost less.
flow_setup.py puts it in the aggregator's place.
"""

import contextlib
import select
import socket
import sys
import time


def connect(port: int) -> socket.socket:
    """Return a connection to the controller, as soon as it listens."""
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port))
        time.sleep(0.05)


def relay(switch: socket.socket, controller: socket.socket) -> None:
    """Copy bytes in both directions; return when one side has closed."""
    poll = select.poll()
    ways = {}
    for source, target in ((switch, controller), (controller, switch)):
        source.setblocking(False)
        source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(source, select.POLLIN)
        ways[source.fileno()] = source, target
    while True:
        for number, _ in poll.poll():
            source, target = ways[number]
            data = source.recv(1 << 16)
            if not data:
                return
            target.send(data)


def main() -> None:
    """Relay one switch after another."""
    address, port, controller_port = sys.argv[1], *map(int, sys.argv[2:])
    with socket.create_server((address, port)) as listener:
        while True:
            switch, _ = listener.accept()
            with switch, connect(controller_port) as controller, contextlib.suppress(OSError):
                relay(switch, controller)


if __name__ == "__main__":
    main()
