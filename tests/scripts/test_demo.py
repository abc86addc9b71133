"""scripts/demo.sh, as a user runs it."""

import argparse
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import tempfile

import pytest

import demo as demo_program
from waiting import wait_until

from .terminal import SCRIPTS, Terminal, processes_with

DEMO = os.path.join(SCRIPTS, "demo.sh")


@pytest.fixture
def temporary():
    """The demo's directory for temporary files.  No file and no process may be left at the end."""
    path = tempfile.mkdtemp(prefix="demo-")
    yield path
    wait_until(lambda: not processes_with("TMPDIR", path), "end of all processes")
    left = os.listdir(path)
    shutil.rmtree(path)
    assert left == []


@pytest.fixture
def demo(machine, temporary):
    """A function that starts the demo with options in a terminal."""
    started = []

    def start(*options, **env):
        terminal = Terminal(machine, [DEMO, *options], dict(env, TMPDIR=temporary))
        started.append(terminal)
        return terminal

    yield start
    for terminal in started:
        terminal.close()


@pytest.mark.parametrize(
    "options, switches, ports, pings",
    [
        ((), 2, [1, 2, 17, 18], 12),
        (("--switches", "3"), 3, [1, 2, 17, 18, 33, 34], 30),
        (("--switches", "1"), 1, [1, 2], 2),
    ],
)
def test_all_pings_pass_and_both_views_are_shown(demo, options, switches, ports, pings):
    status, text = demo(*options).wait()
    assert status == 0, text
    assert [int(number) for number in re.findall(r"^port +(\d+)", text, re.M)] == ports
    assert f"{pings} of {pings} pings came back\n" in text

    flow = text.partition("=== One flow: h1 to ")[2]
    seen, *installed = re.split(r"installed on s\d+:\n", flow)
    assert len(installed) == switches
    target = 2 if switches == 1 else ports[-2]  # the first host of the last switch
    assert re.search(rf"dl_src=00:00:00:00:00:01,dl_dst=\S+ actions=output:{target}$", seen, re.M)
    assert all("dl_src=00:00:00:00:00:01,dl_dst=" in one for one in installed)
    counts = [int(re.search(r"n_packets=(\d+)", one).group(1)) for one in (seen, *installed)]
    assert counts[0] == sum(counts[1:]) >= 10


def test_cli_stays_at_the_prompt(demo):
    terminal = demo("--cli", "--hosts", "1")
    terminal.read_until("mininet> ")
    terminal.type("h1 ping -c1 -W9 h2\n")
    assert " 0% packet loss" in terminal.read_until("mininet> ")
    terminal.type("exit\n")
    assert terminal.wait()[0] == 0


def get(namespace, port, path):
    """Return the body of a web server's answer to a GET; the server is on 127.0.0.1."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.sock = namespace.call(socket.create_connection, ("127.0.0.1", port), 10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        return response.read()


def test_web_shows_the_page_until_ctrl_c(demo, machine):
    terminal = demo("--web", "8123")
    terminal.read_until("The page: http://127.0.0.1:8123/\n")
    terminal.read_until("Ctrl-C")
    assert b"<title>edge.aggregator</title>" in get(machine, 8123, "/")
    shown = json.loads(get(machine, 8123, "/api/switch"))
    assert [switch["state"] for switch in shown["switches"]] == ["up", "up"]
    terminal.type("\x03")
    assert terminal.wait()[0] == 0
    with pytest.raises(OSError):
        get(machine, 8123, "/")


def test_a_port_for_the_page_that_is_taken_is_a_line(demo, machine):
    taken = machine.call(socket.create_server, ("127.0.0.1", 8124))
    with taken:
        status, text = demo("--web", "8124").wait()
    assert status == 2
    assert text.endswith("demo.sh: error: --web 8124: Address already in use\n")


@pytest.mark.parametrize(
    "number, moment",
    [
        (signal.SIGINT, "s2: tunnel port "),
        (signal.SIGTERM, "mininet> "),
        (signal.SIGKILL, "=== The big switch"),
    ],
)
def test_nothing_goes_on_after_a_signal(demo, temporary, number, moment):
    terminal = demo("--cli", "--hosts", "1")
    terminal.read_until(moment)
    terminal.signal(number)
    assert terminal.wait()[0] != 0
    if number == signal.SIGKILL:  # then the kernel ends the processes, and nobody removes the files
        wait_until(lambda: not processes_with("TMPDIR", temporary), "end of all processes")
        for name in os.listdir(temporary):
            shutil.rmtree(os.path.join(temporary, name))


@pytest.mark.parametrize(
    "moment, status",
    [("=== The network", 130), ("Ctrl-C ends the demo", 0)],
    ids=["start", "page"],
)
def test_a_sigint_to_the_whole_group_ends_it_without_a_traceback(demo, moment, status):
    """The program gets it twice: by itself, and by way of its launcher."""
    terminal = demo("--web", "8123", "--hosts", "1")
    terminal.read_until(moment)
    terminal.signal_all(signal.SIGINT)
    ended, text = terminal.wait()
    assert not re.search("Traceback|Exception|Error", text), text
    assert ended == status


def test_a_sigint_while_the_program_arrives_is_no_traceback(monkeypatch):
    """It may come as soon as the program takes signals: before it does anything else."""

    def arrive():
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_program.private_namespace, "arrive", arrive)
    assert demo_program.run_inside(argparse.Namespace()) == 130


def test_a_controller_that_ends_is_a_failure_in_a_line_and_leaves_the_logs(
    demo, tmp_path, temporary
):
    (tmp_path / "pox").mkdir()
    (tmp_path / "pox" / "core.py").write_text('version_name = "halosaur"\n')
    (tmp_path / "pox.py").write_text('print("not today")\nraise SystemExit(7)\n')
    status, text = demo(POX_HOME=str(tmp_path)).wait()
    assert status == 1
    (directory,) = os.listdir(temporary)
    logs = f"{temporary}/{directory}"
    # Both POX processes end, and the message is about the one whose end is noticed first.
    found = re.fullmatch(
        rf"demo.sh: POX has ended with status 7: {logs}/(\w+\.log); logs are in {logs}",
        text.splitlines()[-1],
    )
    with open(f"{logs}/{found.group(1)}") as log:
        assert log.read() == "not today\n"
    shutil.rmtree(logs)


def test_wrong_options_are_a_line(demo):
    status, text = demo("--switches", "1", "--hosts", "1").wait()
    assert status == 2
    assert text.endswith("demo.sh: error: one host alone has nobody to ping\n")
