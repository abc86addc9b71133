"""The socket of a switch's connection."""

import socket
import time

import pytest
from pox.core import core

from edge.poxfixes.connection import EdgeConnection

TCP_RTO_MAX_MS = 44  # linux/tcp.h, since Linux 6.15


@pytest.fixture
def ends(monkeypatch):
    """A TCP connection: our socket and the switch's."""
    hub = core.scheduler._selectHub
    monkeypatch.setattr(hub, "end_of_turn", lambda function: None, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        switch = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, switch:
        yield ours, switch


def test_small_messages_leave_at_once(ends):
    EdgeConnection(ends[0])
    assert ends[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_what_is_lost_on_a_cut_line_is_sent_again_every_second(ends):
    """Without this, TCP doubles its pauses up to two minutes."""
    ours, theirs = ends
    EdgeConnection(ours)
    try:
        default = theirs.getsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS)
    except OSError:
        pytest.skip("this kernel has no such limit")
    assert default > 1000 == ours.getsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS)


def test_what_the_switch_has_not_acknowledged_is_known(ends):
    """The switch's kernel acknowledges, even if its process does nothing."""
    ours, theirs = ends
    connection = EdgeConnection(ours)
    connection.send(b"x" * 1000)
    connection.flush()
    deadline = time.monotonic() + 5
    while connection.unacknowledged:
        assert time.monotonic() < deadline
    ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            ours.send(bytes(1 << 20))  # until the socket's buffer is full
    assert connection.unacknowledged > 1000
