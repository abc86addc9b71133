"""Whole runs: real upstream controllers, and traffic between all hosts of two switches."""

import os
import subprocess
import sys

import pytest
from lab.aggregator import find_pox

from .hosts import WholeRun, wait_until_listening

DATA = os.urandom(1 << 20)


@pytest.fixture
def run(root):
    run = WholeRun()
    yield run
    run.stop()


def start(run, command, **environment):
    run.start_controller(command, **environment)
    wait_until_listening(run.network.outer, 7744)
    run.start_aggregator()


def passes_traffic(run, forwards_first_packets=True):
    """Every host pings every other twice; the second time the flows are there. Then TCP gets
    through.

    forwards_first_packets: False for a controller that answers a packet-in without the packet, as
        if the switch had buffered it. Open vSwitch buffers none, so a plain bridge loses those
        packets too.
    """
    assert len(run.hosts) == 4
    assert run.ping_all() == [], run.explain()
    if forwards_first_packets:
        assert run.ping_all(wait=1) == [], run.explain()
    first, second, third, _ = run.hosts
    for source, target in ((first, third), (third, second), (first, second)):
        assert source.carry(target, DATA) == DATA
    assert run.controller.poll() is None
    log = run.aggregator.log()
    assert "Traceback" not in log and "ERROR" not in log


def flows(run):
    """The flows on all switches but the service rules."""
    lines = [line for switch in run.network.switches.values() for line in switch.flows()]
    return [line for line in lines if "cookie=" in line]


@pytest.mark.parametrize("component", ["l2_pairs", "l2_learning", "l3_learning"])
def test_pox(run, component):
    """The README's command: `./pox.py log.level --DEBUG openflow.of_01 --port=7744
    forwarding.l2_pairs`
    """
    words = ["openflow.of_01", "--port=7744", f"forwarding.{component}"]
    start(run, [sys.executable, "-u", os.path.join(find_pox(), "pox.py"), "log.level", *words])
    passes_traffic(run, forwards_first_packets=component != "l3_learning")
    assert flows(run) and all("table=2" in line for line in flows(run))


def test_pox_with_three_switches(root):
    run = WholeRun(switches=3, hosts=1)
    try:
        words = ["openflow.of_01", "--port=7744", "forwarding.l2_pairs"]
        start(run, [sys.executable, "-u", os.path.join(find_pox(), "pox.py"), *words])
        assert run.ping_all() == [], run.explain()
        assert run.ping_all(wait=1) == [], run.explain()
    finally:
        run.stop()


@pytest.mark.parametrize("how", [[], ["--hub"], ["--noflow"]], ids=["learning", "hub", "noflow"])
def test_ovs_testcontroller(run, how):
    """Debian's openvswitch-testcontroller.  It offers newer versions of OpenFlow too."""
    words = ["--no-chdir", "--unixctl=" + os.path.join(run.network.directory, "c.ctl"), *how]
    start(run, ["ovs-testcontroller", *words, "ptcp:7744:127.0.0.1"])
    passes_traffic(run)


@pytest.fixture(scope="session")
def python_with_os_ken(tmp_path_factory):
    """A Python that has os-ken: this one, or a virtual environment with it from PyPI."""
    if subprocess.run([sys.executable, "-c", "import os_ken"], capture_output=True).returncode == 0:
        return sys.executable
    environment = tmp_path_factory.mktemp("os-ken")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = str(environment / "bin" / "python3")
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--retries=1"]
    if subprocess.run([*pip, "--only-binary=:all:", "os-ken>=2.8,<5"]).returncode:
        pytest.skip("needs os-ken from PyPI")
    return python


def test_os_ken(run, python_with_os_ken):
    app = os.path.join(os.path.dirname(os.path.abspath(__file__)), "learning_switch.py")
    start(run, [python_with_os_ken, app, "127.0.0.1", "7744"])
    passes_traffic(run)
    assert flows(run) and all("table=2" in line for line in flows(run))
