"""Options that make no sense: the component says so in one clear line, and does not start."""

import re
import socket

import pytest
from lab.aggregator import Aggregator
from lab.controller import Connection
from lab.namespaces import Namespace

from .ofctl import PORT

IPS = "--ips=172.16.0.1,172.16.0.2"
TAKEN = "127.0.0.3"
FILE = "--switches=auto --switches_file="
"""The name after this is below the case's own directory. There a file "switches.json" has the
content that follows the name.
"""

IN_USE = "a file that another aggregator keeps"

CASES = {
    "--max_ports=0": "--max_ports.*1 to 125",
    "--max_ports=126": "--max_ports.*1 to 125",
    "--max_ports=many": "--max_ports=many is not a whole number",
    "--listen=70000": "--listen.*1 to 65535",
    f"--listen=192.0.2.1:{PORT}": f"--listen=192.0.2.1:{PORT}: cannot listen",
    f"--listen={TAKEN}:{PORT}": f"--listen={TAKEN}:{PORT}: .*in use",
    "--controllers=127.0.0.1:7744,127.0.0.1:7744": "--controllers.*twice",
    "--controllers=127.0.0.1": "--controllers.*HOST:PORT",
    "--switches=1=1,2=1": "--switches.*same index",
    "--switches=02:ac:10:00:00:01=4080": "--switches.*4080.*1 to 4079",
    "--switches=one=1": "--switches.*'one'",
    "--switches=": "--switches",
    FILE + "": "--switches",
    FILE + "switches.json/below": "--switches.*switches.json/below",
    IN_USE: r"--switches: .* is in use by another aggregator \(process \d+\); give each one",
}
CONTENTS = ["{", '{"0x1": 1, "0x2": 1}', '{"0x1": 0}', "\0\xff"]
CASES.update(
    {FILE + "switches.json " + content: "--switches.*switches.json" for content in CONTENTS}
)


@pytest.fixture(scope="module")
def namespace(root):
    with Namespace() as namespace:
        yield namespace


@pytest.fixture(scope="module")
def started(namespace, tmp_path_factory):
    """A process for each case. All run at the same time, since POX takes its time to end."""
    processes = {}
    kept = f"--switches_file={tmp_path_factory.mktemp('kept')}/switches.json"
    log = str(tmp_path_factory.mktemp("keeper") / "log")
    keeper = Aggregator(
        namespace, log, [IPS, f"--listen=127.0.0.4:{PORT}", "--switches=auto", kept]
    )
    keeper.start()
    keeper.wait_for_log("Listening for OpenFlow")
    with namespace.call(socket.create_server, (TAKEN, PORT)):
        try:
            for case in CASES:
                directory = tmp_path_factory.mktemp("case")
                option, _, content = case.partition(FILE)[2].partition(" ")
                (directory / "switches.json").write_bytes(content.encode("latin-1"))
                options = [case]
                if case.startswith(FILE):
                    options = [*FILE.split()[:1], f"--switches_file={directory}/{option}"]
                if case == IN_USE:
                    options = [*FILE.split()[:1], kept]
                process = Aggregator(namespace, str(directory / "log"), [IPS, *options])
                process.start()
                processes[case] = process, directory, content
            yield processes
        finally:
            keeper.kill()
            for process, _, _ in processes.values():
                process.kill()


@pytest.mark.parametrize("case", CASES)
def test_one_clear_line(started, case):
    process, directory, content = started[case]
    assert process.wait(30) != 0
    log = process.log()
    assert "Traceback" not in log, log
    (line,) = [line for line in log.splitlines() if re.match("ERROR|CRITICAL", line)]
    assert re.match(f"ERROR:edge[.]aggregator:{CASES[case]}", line), line
    # A broken file stays as it is: the port numbers of a network may depend on it.
    assert (directory / "switches.json").read_bytes() == content.encode("latin-1")


def test_listen_at_an_address(namespace, tmp_path):
    """The big switch listens at that address alone. Without any switch it has no ports."""
    path = tmp_path / "new" / "switches.json"
    options = [IPS, f"--listen=127.0.0.2:{PORT}", "--switches=auto", f"--switches_file={path}"]
    aggregator = Aggregator(namespace, str(tmp_path / "log"), options)
    aggregator.start()
    try:
        aggregator.wait_for_log(rf"Listening for OpenFlow connections on 127\.0\.0\.2:{PORT}$")
        client = Connection.open(namespace, PORT, "127.0.0.2")
        assert client.features().ports == {}
        client.barrier()
        client.close()
        with pytest.raises(ConnectionRefusedError):
            Connection.open(namespace, PORT)
        # No file of indexes is made before there is an index to keep.
        assert not path.parent.exists()
    finally:
        aggregator.stop()
