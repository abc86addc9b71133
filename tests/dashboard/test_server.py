"""The page's web server: what connections may cost it, and what it answers. No big switch here."""

import contextlib
import http.client
import json
import os
import queue
import resource
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from lab.aggregator import REPOSITORY, find_pox

from edge.web import server
from edge.web.server import LONGEST_HEAD, MOST_CONNECTIONS, WORKERS, Server
from edge.web.site import SECURITY_HEADERS, Response
from waiting import wait_until

SOON = 10.0  # seconds in which what is expected must have happened
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = b"an answer"


@pytest.fixture
def serve(caplog):
    """Make a server that serves; it answers with BODY, or what the given function returns."""
    made = []
    caplog.set_level("DEBUG")

    def begin(answer=lambda *request: Response(200, "text/plain", BODY)):
        made.append(Server(("127.0.0.1", 0), answer))
        made[-1].serve()
        return made[-1]

    yield begin
    for each in made:
        each.stop()


def connect(served):
    return socket.create_connection(served.address, SOON)


def answer_of(sock):
    """The status, header fields and body of an answer."""
    response = http.client.HTTPResponse(sock)
    response.begin()
    return response.status, response.headers, response.read()


def ask(served, data=REQUEST):
    with connect(served) as sock:
        sock.sendall(data)
        return answer_of(sock)


def is_closed(sock, timeout):
    """Whether the server closes a connection within so many seconds."""
    sock.settimeout(timeout)
    try:
        while sock.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    except socket.timeout:
        return False
    return True


def closed_ones(socks):
    """Those that the server has closed, or has sent something."""
    poller = select.poll()
    for sock in socks:
        poller.register(sock, select.POLLIN)
    return [fd for fd, _ in poller.poll(100)]


def waiting(served):
    """How many connections wait for their answers."""
    return sum(each.stage is server._Stage.RESPONSE for each in list(served._connections))


# --- who is slow ----------------------------------------------------------------------------------


@pytest.fixture
def many(request):
    """Room for the descriptors of many browsers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8192), hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_slow_browsers_lock_nobody_out(serve, many):
    served = serve()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(served)) for _ in range(1000)]
        for byte in (b"G", b"E", b"T"):
            for sock in slow:
                with contextlib.suppress(OSError):
                    sock.sendall(byte)
            assert ask(served)[2] == BODY
        room = 1000 + 3 - MOST_CONNECTIONS
        wait_until(lambda: len(closed_ones(slow)) >= room - 3, "end of those too many")
        # Those that came last are still there.
        assert len(closed_ones(slow)) <= room
        assert closed_ones(slow[-MOST_CONNECTIONS // 2 :]) == []


LARGE = 16 << 20
"""Bytes, more than the kernel takes of an answer that nobody reads."""


def connect_and_read_little(served):
    """Open a connection whose client has begun to read its answer, and does not go on."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(SOON)
    sock.connect(served.address)
    sock.sendall(REQUEST)
    assert sock.recv(4) == b"HTTP"
    return sock


def test_browsers_that_do_not_read_lock_nobody_out(serve, monkeypatch):
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 4)
    answers = iter([Response(200, "text/plain", bytes(LARGE))] * 4)
    served = serve(lambda *request: next(answers, Response(200, "text/plain", BODY)))
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connect_and_read_little(served))
        assert ask(served)[2] == BODY


def test_who_comes_while_all_wait_for_their_answers_waits_too(serve):
    go_on = threading.Event()

    def slowly(*request):
        go_on.wait(SOON)
        return Response(200, "text/plain", BODY)

    served = serve(slowly)
    with contextlib.ExitStack() as stack:
        socks = []
        for number in range(MOST_CONNECTIONS + 5):
            socks.append(stack.enter_context(connect(served)))
            socks[-1].sendall(REQUEST)
            if number < MOST_CONNECTIONS:
                wait_until(lambda: waiting(served) == len(socks), "request")
        assert closed_ones(socks) == []
        go_on.set()
        assert [answer_of(sock)[2] for sock in socks] == [BODY] * len(socks)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(server, "REQUEST_PATIENCE", 0.5)
    monkeypatch.setattr(server, "ANSWER_PATIENCE", 0.5)
    monkeypatch.setattr(server, "SWEEP", 0.05)


def test_a_request_has_to_come_in_time_however_often_a_byte_comes(serve, impatient):
    served = serve()
    with connect(served) as silent, connect(served) as slow:

        def is_ended():
            with contextlib.suppress(OSError):
                slow.sendall(b"A")
            return closed_ones([slow])

        wait_until(is_ended, "end of the slow one", SOON, 0.05)
        assert is_closed(silent, SOON)


def test_an_answer_has_to_be_read_in_time(serve, impatient):
    served = serve(lambda *request: Response(200, "text/plain", bytes(LARGE)))
    with connect_and_read_little(served) as sock:
        wait_until(lambda: not served._connections, "end of the connection")
        assert is_closed(sock, SOON)


ALONE = textwrap.dedent(
    """
    import pox.core
    pox.core.initialize(handle_signals=False)
    from edge.web import server
    from edge.web.site import Response
    server.REQUEST_PATIENCE, server.SWEEP = 0.6, 0.05
    served = server.Server(("127.0.0.1", 0), lambda *request: Response(200, "text/plain", b"."))
    served.serve()
    print(served.address[1], flush=True)
    input()
    """
)


def test_who_waits_while_the_process_is_stopped_still_has_the_time_to_ask():
    paths = os.pathsep.join([os.path.join(REPOSITORY, "pox_ext"), find_pox()])
    process = subprocess.Popen(
        [sys.executable, "-c", ALONE],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), SOON) as sock:
            sock.sendall(REQUEST[:-2])
            process.send_signal(signal.SIGSTOP)
            time.sleep(1.2)  # twice what a request may take
            process.send_signal(signal.SIGCONT)
            assert not is_closed(sock, 0.2)
            sock.settimeout(SOON)
            sock.sendall(REQUEST[-2:])
            assert answer_of(sock)[2] == b"."
    finally:
        process.communicate(b"\n", SOON)


# --- what is lacking ------------------------------------------------------------------------------


def no_thread(self):
    raise RuntimeError("can't start new thread")


def test_a_server_that_serves_needs_no_further_thread(serve, monkeypatch):
    served = serve()
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert [ask(served)[0] for _ in range(2 * WORKERS)] == [200] * 2 * WORKERS


def test_a_server_that_could_not_start_all_its_threads_starts_the_others_later(monkeypatch):
    served = Server(("127.0.0.1", 0), lambda *request: Response(200, "text/plain", BODY))
    started = iter([threading.Thread.start] * 3)
    monkeypatch.setattr(threading.Thread, "start", lambda self: next(started, no_thread)(self))
    with pytest.raises(RuntimeError):
        served.serve()
    monkeypatch.undo()
    served.serve()
    assert ask(served)[2] == BODY
    served.stop()


# --- what is answered -----------------------------------------------------------------------------


REFUSED = [
    (b"nonsense\r\n\r\n", 400),
    (b"\r\n\r\n", 400),
    (b"GET / HTTP/9.9\r\n\r\n", 505),
    (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 300 + b"\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * 100000 + b"\r\n\r\n", 431),
    (b"GET /" + b"x" * 100000, 414),
    (b"GET /" + b"x" * (LONGEST_HEAD + 1), 414),
]


@pytest.mark.parametrize(("data", "status"), REFUSED)
def test_what_is_no_request_is_refused_in_json_and_without_a_line_in_the_log(
    serve, caplog, data, status
):
    found, headers, body = ask(serve(), data)
    assert (found, headers["Content-Type"]) == (status, "application/json")
    assert json.loads(body)["error"]
    assert headers["Server"] == "edge.aggregator"
    for name, value in SECURITY_HEADERS.items():
        assert headers[name] == value
    assert [record for record in caplog.records if record.name != "asyncio"] == []


@pytest.mark.parametrize(
    "data",
    [
        REQUEST,
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\n\n",
        b"BREW / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n",
    ],
)
def test_every_request_gets_to_the_site_and_is_no_line_in_the_log(serve, caplog, data):
    asked = queue.Queue()

    def answer(command, target, headers):
        asked.put((command, target))
        return Response(200, "text/plain", BODY)

    status, headers, body = ask(serve(answer), data)
    assert (status, body, headers["Server"]) == (200, BODY, "edge.aggregator")
    assert asked.get_nowait() == (data.split()[0].decode(), "/")
    assert [record for record in caplog.records if record.name != "asyncio"] == []


def test_a_request_that_ends_with_its_connection_is_answered(serve):
    with connect(serve()) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert answer_of(sock)[2] == BODY


def test_the_answer_is_read_whatever_comes_behind_the_request(serve):
    """To close with something unread would reset the connection, and lose the answer."""
    with connect(serve()) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nContent-Length: 400000\r\n\r\n" + bytes(400000))
        assert answer_of(sock)[2] == BODY


def test_what_fails_costs_one_answer_and_one_line(serve, caplog):
    served = serve(lambda *request: 1 / 0)
    assert ask(served)[0] == 500
    (line,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert "ZeroDivisionError" in line.getMessage()


def test_clients_that_reset_are_nothing_special(serve, caplog):
    served = serve()
    for data in (b"", b"G", REQUEST):
        with connect(served) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.sendall(data)
    assert ask(served)[2] == BODY
    assert [record for record in caplog.records if record.name != "asyncio"] == []


# --- begin and end --------------------------------------------------------------------------------


def test_who_connects_before_it_serves_is_answered_then():
    served = Server(("127.0.0.1", 0), lambda *request: Response(200, "text/plain", BODY))
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(served)) for _ in range(40)]
        for sock in socks:
            sock.sendall(REQUEST)
        served.serve()
        assert [answer_of(sock)[2] for sock in socks] == [BODY] * 40
    served.stop()


def test_stop_ends_connections_and_threads_and_may_come_twice_or_too_early(serve):
    before = set(threading.enumerate())
    served = serve()
    threads = set(threading.enumerate()) - before
    assert len(threads) == 1 + WORKERS
    with connect(served) as sock, connect(served) as unread:
        unread.sendall(REQUEST[:-1])
        served.stop()
        assert is_closed(sock, SOON)
        assert is_closed(unread, SOON)
    for thread in threads:
        thread.join(SOON)
        assert not thread.is_alive()
    served.stop()
    Server(("127.0.0.1", 0), None).stop()
    with pytest.raises(OSError):
        connect(served)
