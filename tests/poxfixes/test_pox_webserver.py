"""POX's web server: what a connection can do to plain POX, but not to ours."""

import contextlib
import http.client
import itertools
import queue
import socket
import threading

from poxharness import NEVER, SOON, in_time, on_both, on_fixed, pox_event

MOST = 64  # connections that our server has at a time
CONNECTIONS = MOST + 6
BODY = b"an answer"


def make_server(pox, serves=None, guarded=False):
    """Return a web server, plain or ours. It does not serve yet.

    serves(handler): sends the body of an answer.
    guarded: whether plain POX keeps its cookieguard.
    """
    from pox.web import webcore

    def respond(self):
        self.send_response(200)
        self.end_headers()
        (serves or (lambda handler: handler.wfile.write(BODY)))(self)

    if pox.fixed:
        from edge.poxfixes import webserver

        server = webserver.Server(("127.0.0.1", 0))
        handler = type("Handler", (webserver.RequestHandler,), {"respond": respond})
    else:
        server = webcore.SplitThreadedServer(("127.0.0.1", 0), webcore.SplitterRequestHandler)
        more = {} if guarded else {"pox_cookieguard": False}
        handler = type("Handler", (webcore.SplitRequestHandler,), {"do_GET": respond, **more})
    server.set_handler("/", handler)
    return server


def serve(pox, serves=None, guarded=False):
    """Return the address of a web server that serves."""
    server = make_server(pox, serves, guarded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address


def get(address, method="GET", **headers):
    """Return status, headers and body of an answer, in a form that JSON can carry."""
    connection = http.client.HTTPConnection(*address, timeout=SOON)
    connection.request(method, "/", headers=headers)
    answer = connection.getresponse()
    return [answer.status, dict(answer.headers), answer.read().decode()]


def closes(sock, timeout):
    """Whether the server closes this connection within `timeout` seconds, whatever it sends
    before.
    """
    sock.settimeout(timeout)
    try:
        while sock.recv(65536):
            pass
        return True
    except ConnectionError:
        return True
    except socket.timeout:
        return False


# --- what a connection costs ----------------------------------------------------------------------


def says_nothing(pox):
    if pox.fixed:
        from edge.poxfixes import webserver

        webserver._Connection.timeout = 0.2
    with socket.create_connection(serve(pox)) as sock:
        return closes(sock, SOON if pox.fixed else NEVER)


def test_a_connection_without_a_request_is_not_kept_for_ever():
    plain, fixed = on_both(says_nothing)
    assert not plain.result
    assert fixed.result


def says_one_long_line(pox):
    with socket.create_connection(serve(pox)) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(b"GET /" + bytes(1 << 20))
        return closes(sock, SOON if pox.fixed else NEVER)


def test_a_line_is_not_read_for_ever():
    plain, fixed = on_both(says_one_long_line)
    assert not plain.result
    assert fixed.result


def many_connections(pox):
    if pox.fixed:
        from edge.poxfixes import webserver

        webserver._Connection.timeout = 60  # no connection is closed because it is silent
    address = serve(pox)
    connections = [socket.create_connection(address, SOON) for _ in range(CONNECTIONS)]
    closed = queue.Queue()

    def look(sock):
        with contextlib.suppress(OSError):
            if not sock.recv(1):
                closed.put(True)

    for sock in connections:
        threading.Thread(target=look, args=(sock,), daemon=True).start()
    too_many = itertools.takewhile(bool, (in_time(closed) for _ in range(CONNECTIONS - MOST)))
    return len(list(too_many))


def test_there_are_only_so_many_connections_at_a_time():
    plain, fixed = on_both(many_connections)
    assert plain.result == 0
    assert fixed.result == CONNECTIONS - MOST


def comes_in_a_burst(pox):
    """Return how many connections the kernel accepts while the server has no time to do so."""
    server = make_server(pox)
    connections = []
    with contextlib.suppress(socket.timeout):
        while len(connections) < 40:
            connections.append(socket.create_connection(server.server_address, NEVER))
    return len(connections)


def test_a_burst_of_connections_has_room():
    plain, fixed = on_both(comes_in_a_burst)
    assert plain.result < 10
    assert fixed.result == 40


# --- the log --------------------------------------------------------------------------------------


def says_nonsense(pox):
    with socket.create_connection(serve(pox)) as sock:
        sock.sendall(b"nonsense\r\n\r\n")
        return closes(sock, SOON)


def test_nonsense_is_no_error_in_the_log():
    plain, fixed = on_both(says_nonsense)
    assert plain.result and fixed.result
    assert "ERROR" in plain.log
    assert "ERROR" not in fixed.log


def fails(pox):
    def mistake(handler):
        raise RuntimeError("a mistake")

    with socket.create_connection(serve(pox, mistake)) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return closes(sock, SOON)


def test_what_fails_on_a_connection_is_no_traceback():
    plain, fixed = on_both(fails)
    assert plain.result and fixed.result
    assert "Traceback" in plain.log
    assert "Traceback" not in fixed.log


def is_asked(pox):
    import logging

    logging.getLogger().setLevel(logging.DEBUG)
    return get(serve(pox))


def test_a_request_is_no_line_in_the_log():
    plain, fixed = on_both(is_asked)
    assert plain.result[2] == fixed.result[2] == BODY.decode()
    assert "GET / HTTP" in plain.log
    assert "GET / HTTP" not in fixed.log


def tells_who_it_is(pox):
    """Return the Server headers of an answer, and of a refusal that no handler sees."""
    address = serve(pox)
    with socket.create_connection(address, SOON) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 300 + b"\r\n")  # too many fields
        refusal = http.client.HTTPResponse(sock)
        refusal.begin()
        return [get(address)[1]["Server"], refusal.headers["Server"]]


def test_an_answer_does_not_tell_the_versions_of_pox_and_python():
    plain, fixed = on_both(tells_who_it_is)
    assert all("Python" in server for server in plain.result)
    assert fixed.result == ["edge.aggregator"] * 2


# --- who may read ---------------------------------------------------------------------------------


def has_no_cookie(pox):
    return get(serve(pox, guarded=True))


def test_who_has_no_cookie_is_answered():
    plain, fixed = on_both(has_no_cookie)
    assert plain.result[0] == 307
    assert fixed.result[0] == 200
    assert "Set-Cookie" not in fixed.result[1]


def allows_other_sites(pox):
    from pox.web import webcore

    webcore.SplitRequestHandler.ac_permissive_cors = True
    return get(serve(pox), Origin="http://other.example")


def test_other_sites_pages_may_not_read_answers_whatever_pox_allows():
    plain, fixed = on_both(allows_other_sites)
    assert plain.result[1]["Access-Control-Allow-Origin"] == "*"
    assert not [name for name in fixed.result[1] if name.startswith("Access-Control")]


def has_a_method_of_its_own(pox):
    return get(serve(pox), "BREW")


def test_every_method_gets_to_the_handler():
    plain, fixed = on_both(has_a_method_of_its_own)
    assert plain.result[0] == 501
    assert fixed.result[0] == 200


# --- the end --------------------------------------------------------------------------------------


def goes_down_before_it_was_up(pox):
    if pox.fixed:
        make_server(pox).start()
    else:
        from pox.web import webcore

        webcore.launch(address="127.0.0.1", port=0)
    down = queue.Queue()

    def go_down():
        pox.core.raiseEvent(pox_event("GoingDownEvent"))
        down.put(True)

    threading.Thread(target=go_down, daemon=True).start()
    return in_time(down)


def test_pox_may_go_down_before_it_was_up():
    plain, fixed = on_both(goes_down_before_it_was_up)
    assert not plain.result
    assert fixed.result


def serves_from_up_to_down(pox):
    server = make_server(pox)
    server.start()
    pox.core.raiseEvent(pox_event("GoingUpEvent"))
    status = get(server.server_address)[0]
    pox.core.raiseEvent(pox_event("GoingDownEvent"))
    with socket.create_connection(server.server_address, SOON) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return [status, closes(sock, NEVER)]


def test_ours_serves_from_when_pox_is_up_until_it_goes_down():
    assert on_fixed(serves_from_up_to_down).result == [200, False]


def is_not_read(pox):
    """Whether a thread that writes an answer nobody reads keeps POX from ending."""
    writing = queue.Queue()

    def endless(handler):
        writing.put(threading.current_thread())
        handler.wfile.write(bytes(64 << 20))

    with socket.create_connection(serve(pox, endless)) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        thread = writing.get(timeout=SOON)
        pox.core.raiseEvent(pox_event("GoingDownEvent"))
        thread.join(NEVER)
        return thread.is_alive() and not thread.daemon


def test_who_does_not_read_does_not_keep_pox_from_its_end():
    plain, fixed = on_both(is_not_read)
    assert plain.result
    assert not fixed.result
