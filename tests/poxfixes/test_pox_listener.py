"""The listener for switches: every scenario breaks plain POX and not the repaired one."""

import contextlib
import errno
import os
import queue
import resource
import signal
import socket
import ssl
import subprocess
import sys

import pytest
from poxharness import (
    ECHO_REQUEST,
    HELLO,
    NEVER,
    SOON,
    Switch,
    free_port,
    message,
    on_both,
    on_fixed,
    run_pox,
)


def aborted(pox):
    """accept() reports that a connection is already gone (ECONNABORTED)."""
    pox.listen()
    first = pox.switch(1)
    real = socket.socket.accept

    def accept_aborted(self):
        socket.socket.accept = real
        sock, _ = real(self)
        sock.close()
        raise ConnectionAbortedError(errno.ECONNABORTED, "aborted")

    socket.socket.accept = accept_aborted
    assert Switch(pox.port).closed()
    return {"first": first.answered(), "next": pox.lets_in(2)}


def test_a_connection_aborted_before_accept_does_not_end_the_listener():
    plain, fixed = on_both(aborted)
    assert not plain["next"]
    assert fixed.result == {"first": True, "next": True}
    assert "Traceback" not in fixed.log


def no_descriptors(pox):
    """For a while the process has no descriptor left."""
    pox.listen()
    first = pox.switch(1)
    late = socket.socket()
    late.settimeout(SOON)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (late.fileno() + 1, hard))
    with contextlib.suppress(OSError):  # plain POX may already have closed its listener
        late.connect(("127.0.0.1", pox.port))
    meanwhile = first.answered()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    switch = Switch.__new__(Switch)
    switch.sock, switch._buffer, switch.dpid = late, bytearray(), 2
    waiting = pox.lets_in(switch=switch)
    return {
        "meanwhile": meanwhile,
        "waiting": waiting,
        "first": first.answered(),
        "next": pox.lets_in(3),
    }


def test_running_out_of_descriptors_costs_nobody_a_connection():
    plain, fixed = on_both(no_descriptors)
    assert not plain["next"]
    assert not plain["first"]
    assert fixed.result == {"meanwhile": True, "waiting": True, "first": True, "next": True}
    assert fixed.log.count("Too many open files") == 1


def no_descriptors_at_the_start(pox):
    real = socket.socket.listen

    def fail_once(self, backlog):
        socket.socket.listen = real
        raise OSError(errno.EMFILE, "Too many open files")

    socket.socket.listen = fail_once
    pox.listen()
    return pox.lets_in(1)


def test_a_listener_for_which_there_is_no_descriptor_listens_later():
    outcome = on_fixed(no_descriptors_at_the_start)
    assert outcome.result
    assert outcome.log.count("No file descriptor is left") == 1
    assert "ERROR" not in outcome.log


def resets(pox):
    """Five switches connect and reset before the listener accepts them."""
    pox.listen()
    with pox.core.scheduler.synchronized():
        for _ in range(5):
            peer = Switch(pox.port)
            peer.send(HELLO)
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.close()
    return pox.lets_in(1)


def test_peers_that_reset_at_once_are_nothing_special():
    outcome = on_fixed(resets)
    assert outcome.result
    assert "Traceback" not in outcome.log


def no_handshake(pox):
    """One connection stays silent, one stops after its hello, and one is up and then silent."""
    if pox.fixed:
        from edge.poxfixes import listener

        listener.HANDSHAKE_TIME = 0.5
    pox.listen()
    up = pox.switch(1)
    silent = Switch(pox.port)
    half = Switch(pox.port)
    half.send(HELLO)
    return {"silent": silent.closed(), "half": half.closed(), "up": up.closed(NEVER)}


def test_a_handshake_that_never_ends_is_ended():
    plain, fixed = on_both(no_handshake)
    assert plain.result == {"silent": False, "half": False, "up": False}
    assert fixed.result == {"silent": True, "half": True, "up": False}
    assert fixed.log.count("no OpenFlow handshake within 0.5 s") == 1, (
        "a line an address and minute"
    )


def port_in_use(pox):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        from pox.openflow import of_01

        task = of_01.launch(port=taken.getsockname()[1], address="127.0.0.1")
        pox.core.scheduler.callLater(task.start)
        pox.call(int)
        return pox.alive()


def test_a_port_in_use_is_one_clear_line():
    outcome = on_fixed(port_in_use)
    assert outcome.result
    assert outcome.log.count("Cannot listen for switches on 127.0.0.1:") == 1
    assert "Address already in use" in outcome.log
    assert "Traceback" not in outcome.log


def launched_before(pox):
    """openflow.of_01 comes before the repairs on the command line."""
    real = pox.core.raiseEvent

    def install_first(event, *arguments):
        pox.core.raiseEvent = real
        pox.install()
        return real(event, *arguments)

    pox.core.raiseEvent = install_first  # at GoingUpEvent: all components are launched
    pox.listen()
    con = pox.switch().connection
    return type(con).__name__


def test_a_listener_launched_before_us_is_repaired_too():
    assert on_fixed(launched_before, install=False).result == "EdgeConnection"


def installed_too_late(pox):
    pox.listen()
    try:
        pox.install()
    except RuntimeError as e:
        return [str(e), pox.lets_in(1), type(pox.core.scheduler._selectHub).__name__]


def test_install_refuses_when_switches_may_be_connected_already():
    error, works, hub = on_fixed(installed_too_late, install=False).result
    assert "launch()" in error
    assert works
    assert hub == "SelectHub"


# -- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Paths of a self-signed certificate and its key."""
    directory = tmp_path_factory.mktemp("tls")
    key, certificate = str(directory / "key.pem"), str(directory / "certificate.pem")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", certificate],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.environ["EDGE_TEST_TLS"] = os.pathsep.join((key, certificate))
    yield
    del os.environ["EDGE_TEST_TLS"]


def tls_files():
    return os.environ["EDGE_TEST_TLS"].split(os.pathsep)


def tls_client(with_certificate=False):
    key, certificate = tls_files()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certificate)
    if with_certificate:
        context.load_cert_chain(certificate, key)
    return context


def tls_silent_peer(pox):
    """One connection does not begin TLS. Then a switch connects."""
    key, certificate = tls_files()
    pox.listen(private_key=key, certificate=certificate)
    silent = Switch(pox.port)
    up = pox.lets_in(1, tls=tls_client())
    return {"up": up, "silent is open": not silent.closed(0.1)}


def test_a_peer_that_does_not_begin_tls_holds_up_nobody(certificate):
    plain, fixed = on_both(tls_silent_peer)
    assert not plain["up"]
    assert fixed.result == {"up": True, "silent is open": True}


def tls_bulk(pox):
    """8 MB go each way, and small messages after them."""
    key, certificate = tls_files()
    pox.listen(private_key=key, certificate=certificate)
    switch = pox.switch(1, tls=tls_client())
    con = switch.connection
    body = bytes(4000)
    count = 2000
    seen = []
    done = queue.Queue()

    def intercept(msg_type, raw):
        if msg_type != ECHO_REQUEST or len(raw) < 4000:
            return False
        seen.append(int.from_bytes(raw[4:8], "big"))
        if len(seen) == count:
            done.put(True)
        return True

    con.intercept = intercept
    pox.call(lambda: [con.send(message(ECHO_REQUEST, body, xid)) for xid in range(count)])
    outward = [switch.receive()[1] for _ in range(count)]
    switch.sock.sendall(b"".join(message(ECHO_REQUEST, body, xid) for xid in range(count)))
    done.get(timeout=SOON)
    return {
        "outward": outward == list(range(count)),
        "inward": seen == list(range(count)),
        "after": switch.answered(),
        "backlog": pox.call(lambda: con.backlog),
    }


def test_tls_carries_bulk_both_ways(certificate):
    assert on_fixed(tls_bulk).result == {
        "outward": True,
        "inward": True,
        "after": True,
        "backlog": 0,
    }


def tls_strangers(pox):
    """With --ca_cert: a client without TLS, one without a certificate, and one with a good one."""
    key, certificate = tls_files()
    pox.listen(private_key=key, certificate=certificate, ca_cert=certificate)
    garbage = Switch(pox.port)
    garbage.send(HELLO)
    closed = garbage.closed()
    return {
        "garbage closed": closed,
        "stranger": pox.lets_in(1, tls=tls_client()),
        "friend": pox.lets_in(2, tls=tls_client(with_certificate=True)),
    }


def test_tls_lets_in_whom_the_ca_knows(certificate):
    outcome = on_fixed(tls_strangers)
    assert outcome.result == {"garbage closed": True, "stranger": False, "friend": True}
    assert "Traceback" not in outcome.log


def tls_half(pox):
    from edge.poxfixes import listener

    listener.HANDSHAKE_TIME = 0.5
    key, certificate = tls_files()
    pox.listen(private_key=key, certificate=certificate)
    return Switch(pox.port).closed()


def test_a_tls_handshake_that_never_ends_is_ended(certificate):
    outcome = on_fixed(tls_half)
    assert outcome.result
    assert "no TLS handshake within 0.5 s" in outcome.log


def tls_bad_files(pox):
    from pox.openflow import of_01

    key, certificate = tls_files()
    for options in (
        {"private_key": "/nowhere", "certificate": "/nowhere"},
        {"private_key": key},
        {"ca_cert": certificate},
        {"private_key": key, "ca_cert": certificate},
        {"certificate": certificate},
        {"certificate": certificate, "private_key": certificate},
        {"certificate": certificate, "private_key": key, "ca_cert": key},
        {"certificate": True, "private_key": key},
        {"certificate": ""},
        {"certificate": certificate, "private_key": encrypted(key)},
    ):
        task = of_01.launch(port=0, address="127.0.0.1", **options)
        pox.core.scheduler.callLater(task.start)
    pox.call(int)
    return [pox.alive(), key, certificate]


def encrypted(key):
    """Return the path of the same key with a passphrase, for which OpenSSL would ask."""
    path = key + ".encrypted"
    command = ["openssl", "pkey", "-aes128", "-passout", "pass:word", "-in", key, "-out", path]
    subprocess.run(command, check=True)
    return path


def test_tls_options_that_cannot_work_are_one_clear_line_each(certificate):
    outcome = on_fixed(tls_bad_files)
    alive, key, certificate = outcome.result
    assert alive
    lines = outcome.log.splitlines()
    told = [line.partition(": TLS: ")[2] for line in lines if line.startswith("ERROR")]
    needed = "without --certificate: TLS needs the certificate of this controller, and its key"
    pem = "no certificate, or not its private key, in PEM format"
    for line, expected in zip(
        told,
        [
            "--certificate=/nowhere --private_key=/nowhere: No such file or directory",
            f"--private_key {needed}",
            f"--ca_cert {needed}",
            f"--private_key and --ca_cert {needed}",
            f"--certificate={certificate}: {pem}",
            f"--certificate={certificate} --private_key={certificate}: {pem}",
            f"--ca_cert={key}: {pem}",
            "--certificate needs the name of a file",
            "--certificate needs the name of a file",
            f"--certificate={certificate} --private_key={key}.encrypted: the private key is "
            "encrypted; one without a passphrase is needed",
        ],
    ):
        assert line.startswith(expected), told
    assert len(told) == 10 == len(lines), outcome.log


def no_such_port(pox):
    from pox.openflow import of_01

    pox.core.scheduler.callLater(of_01.launch(port=99999, address="127.0.0.1").start)
    pox.call(int)
    return pox.alive()


def test_a_port_that_there_cannot_be_is_one_clear_line():
    outcome = on_fixed(no_such_port)
    assert outcome.result
    assert outcome.log == (
        "ERROR edge.pox: Cannot listen for switches on 127.0.0.1:99999: there is no such port\n"
    )


# -- the real command line


@pytest.mark.parametrize("option", [[], ["--unthreaded-sh"], ["--epoll-sh"]])
@pytest.mark.parametrize("listener_first", [True, False])
def test_switches_connect_to_pox_py_and_sigterm_ends_it(option, listener_first):
    port = free_port()
    listener = ["openflow.of_01", f"--port={port}", "--address=127.0.0.1"]
    repair = ["poxfixes_probe"]
    components = listener + repair if listener_first else repair + listener
    process = run_pox([*option, *components])
    try:
        switch = Switch(port)
        switch.shake_hands()
        assert switch.answered()
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=SOON)[0]
        assert process.returncode == 0
        assert "Traceback" not in output
        assert "connected" in output
        assert switch.closed()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="inspect.getargspec() is there")
def test_help_works():
    plain, fixed = (
        run_pox(["help", f"--{name}"]).communicate(timeout=SOON)[0]
        for name in ("plain_probe", "poxfixes_probe")
    )
    assert "getargspec" in plain
    assert "getargspec" not in fixed
    assert "what the option is for" in fixed
