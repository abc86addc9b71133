"""Fixtures for the tests of the scripts."""

import os
import shutil
import subprocess
import tempfile

import pytest
from lab.namespaces import Namespace

from waiting import wait_until

from .terminal import SCRIPTS, SYSTEM_PYTHON, Terminal, processes_with


@pytest.fixture
def machine(root):
    """A network namespace that stands for the machine; nothing may be left in it."""
    with Namespace() as namespace:
        before = namespace.run("ip", "-brief", "address")
        yield namespace
        assert namespace.run("ip", "-brief", "address") == before


@pytest.fixture
def state(machine):
    """The path of agg_net.py's directory; neither it nor a process may be left at the end."""
    parent = tempfile.mkdtemp(prefix="agg-")
    path = os.path.join(parent, "net")
    yield path
    wait_until(lambda: not processes_with("AGG_NET_DIR", path), "end of all processes")
    left = os.listdir(parent)
    shutil.rmtree(parent)
    assert left == []


@pytest.fixture
def agg_net(machine, state):
    """A function that starts agg_net.py with options in a terminal."""
    started = []

    def start(*options):
        command = [SYSTEM_PYTHON, os.path.join(SCRIPTS, "agg_net.py"), *options]
        terminal = Terminal(machine, command, {"AGG_NET_DIR": state})
        started.append(terminal)
        return terminal

    yield start
    for terminal in started:
        terminal.close()


@pytest.fixture
def aggregator_sh(machine, state):
    """A function that runs aggregator.sh; it returns the exit status and all that was printed."""

    def run(*arguments):
        command = [os.path.join(SCRIPTS, "aggregator.sh"), *arguments]
        done = subprocess.run(
            machine.command(*command),
            env=dict(os.environ, AGG_NET_DIR=state),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    return run
