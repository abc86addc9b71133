"""POX's web server: what a handler of plain POX does, and ours does not."""

import http.client
import threading

from poxharness import SOON, on_both

BODY = b"an answer"


def serve(pox, guarded=False):
    """Return the address of a web server that serves.

    guarded: whether plain POX keeps its cookieguard.
    """
    from pox.web import webcore

    def respond(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(BODY)

    server = webcore.SplitThreadedServer(("127.0.0.1", 0), webcore.SplitterRequestHandler)
    if pox.fixed:
        from edge.poxfixes import webserver

        handler = type("Handler", (webserver.RequestHandler,), {"respond": respond})
    else:
        more = {} if guarded else {"pox_cookieguard": False}
        handler = type("Handler", (webcore.SplitRequestHandler,), {"do_GET": respond, **more})
    server.set_handler("/", handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address


def get(address, method="GET", **headers):
    """Return status, headers and body of an answer, in a form that JSON can carry."""
    connection = http.client.HTTPConnection(*address, timeout=SOON)
    connection.request(method, "/", headers=headers)
    answer = connection.getresponse()
    return [answer.status, dict(answer.headers), answer.read().decode()]


# --- the log --------------------------------------------------------------------------------------


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
    return get(serve(pox))[1]["Server"]


def test_an_answer_does_not_tell_the_versions_of_pox_and_python():
    plain, fixed = on_both(tells_who_it_is)
    assert "Python" in plain.result
    assert fixed.result == "edge.aggregator"


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
