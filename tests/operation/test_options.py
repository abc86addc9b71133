"""Options that make no sense: the component says so in one clear line, and does not start."""

import os
import re
import socket

import pytest
from lab.aggregator import Aggregator
from lab.controller import Connection
from lab.namespaces import Namespace

from .ofctl import PORT

IPS = "--ips=172.16.0.1,172.16.0.2"


@pytest.fixture(scope="module")
def namespace(root):
    with Namespace() as namespace:
        yield namespace


def refused(namespace, tmp_path, *options):
    """Start the component; return what it says when it does not stay."""
    aggregator = Aggregator(namespace, str(tmp_path / "log"), [IPS, *options])
    aggregator.start()
    try:
        assert aggregator.wait() != 0
    finally:
        aggregator.kill()
    log = aggregator.log()
    assert "Traceback" not in log, log
    lines = [line for line in log.splitlines() if re.match("ERROR|CRITICAL", line)]
    assert len(lines) == 1, log
    return lines[0]


@pytest.mark.parametrize(
    "option, said",
    [
        ("--max_ports=0", "--max_ports.*1 to 125"),
        ("--max_ports=126", "--max_ports.*1 to 125.*tunnel key"),
        ("--max_ports=many", "--max_ports=many is not a whole number"),
        ("--listen=70000", "--listen.*1 to 65535"),
        ("--listen=192.0.2.1:6654", "--listen=192.0.2.1:6654: cannot listen"),
        ("--controllers=127.0.0.1:7744,127.0.0.1:7744", "--controllers.*twice"),
        ("--controllers=127.0.0.1", "--controllers.*HOST:PORT"),
        ("--switches=1=1,2=1", "--switches.*same index"),
        ("--switches=02:ac:10:00:00:01=4080", "--switches.*4080.*1 to 4079"),
        ("--switches=one=1", "--switches.*'one'"),
        ("--switches=", "--switches"),
    ],
)
def test_one_clear_line(namespace, tmp_path, option, said):
    assert re.match(f"ERROR:edge[.]aggregator:{said}", refused(namespace, tmp_path, option))


def test_listen_at_an_address(namespace, tmp_path):
    """There and nowhere else; without any switch the big switch has no ports."""
    aggregator = Aggregator(namespace, str(tmp_path / "log"), [IPS, f"--listen=127.0.0.2:{PORT}"])
    aggregator.start()
    try:
        aggregator.wait_until_listening(PORT)
        client = Connection.open(namespace, PORT, "127.0.0.2")
        assert client.features().ports == {}
        client.barrier()
        client.close()
        with pytest.raises(ConnectionRefusedError):
            Connection.open(namespace, PORT)
    finally:
        aggregator.kill()


def test_a_port_that_is_taken(namespace, tmp_path):
    def listen():
        return socket.create_server(("127.0.0.1", PORT))

    with namespace.call(listen):
        assert "in use" in refused(namespace, tmp_path, f"--listen={PORT}")


@pytest.mark.parametrize("content", ["{", '{"0x1": 1, "0x2": 1}', "\0\xff"])
def test_a_broken_file_of_indexes(namespace, tmp_path, content):
    """It is named and left as it is: the numbers of a network may depend on it."""
    path = tmp_path / "switches.json"
    path.write_bytes(content.encode("latin-1"))
    said = refused(namespace, tmp_path, "--switches=auto", f"--switches_file={path}")
    assert str(path) in said
    assert path.read_bytes() == content.encode("latin-1")


@pytest.mark.parametrize("what", ["directory", "below a file"])
def test_what_cannot_be_a_file_of_indexes(namespace, tmp_path, what):
    path = tmp_path if what == "directory" else tmp_path / "file" / "switches.json"
    (tmp_path / "file").write_text("")
    said = refused(namespace, tmp_path, "--switches=auto", f"--switches_file={path}")
    assert str(path) in said


def test_nothing_is_written_before_a_switch_connects(namespace, tmp_path):
    path = tmp_path / "some" / "where" / "switches.json"
    aggregator = Aggregator(
        namespace,
        str(tmp_path / "log"),
        [IPS, "--switches=auto", f"--switches_file={path}"],
    )
    aggregator.start()
    try:
        aggregator.wait_until_listening(6633)
        assert not os.path.exists(tmp_path / "some")
    finally:
        aggregator.kill()
