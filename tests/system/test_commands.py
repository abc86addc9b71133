"""Commands that a user types, right and wrong."""

import glob
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from lab.aggregator import REPOSITORY
from lab.controller import Connection, Controller
from lab.namespaces import Namespace

from .command import all_ended, ended, typed

IPS = "--ips=172.16.0.1,172.16.0.2"

# Each key follows `./pox.py edge.aggregator`; the error line must contain the value.
# unit/test_options.py has more wrong options.
WRONG = {
    "": "--ips",
    "--ips": "--ips",
    "--ips=172.16.0.256": "172.16.0.256",
    "--ips=172.16.0.1,172.16.0.1": "172.16.0.1",
    "--ips=172.16.0.1,host": "host",
    "--ips=0.0.0.0": "0.0.0.0",
    f"{IPS} --port": "--port",
    f"{IPS} --port=0": "--port=0",
    f"{IPS} --port=65536": "--port=65536",
    f"{IPS} --port=openflow": "--port=openflow",
    f"{IPS} --address": "--address",
    f"{IPS} --address=10.0.0.256": "--address=10.0.0.256",
    f"{IPS} '--address=a b'": "--address=a b",
    f"{IPS} --address=10.0.0.1:7744": "--address=10.0.0.1:7744",
    f"{IPS} --dpid": "--dpid",
    f"{IPS} --dpid=0": "--dpid",
    f"{IPS} --dpid=-1": "--dpid",
    f"{IPS} --max_ports=126": "--max_ports",
    f"{IPS} --max_ports=many": "--max_ports=many",
    f"{IPS} --switch_timeout=0": "--switch_timeout=0",
    f"{IPS} --switch_timeout=5s": "--switch_timeout=5s",
    f"{IPS} --max_retry_delay=0": "--max_retry_delay=0",
    f"{IPS} --controllers=10.0.0.1": "--controllers",
    f"{IPS} --listen=10.0.0.1": "--listen",
    f"{IPS} --listen=192.0.2.1:6654": "--listen=192.0.2.1:6654",
    f"{IPS} --switches=1": "--switches",
    f"{IPS} --switches=1=1,2=1": "--switches",
}


@pytest.fixture(scope="module")
def namespace(root):
    with Namespace() as namespace:
        yield namespace


@pytest.fixture(scope="module")
def left(namespace):
    """The statuses and outputs of the wrong commands, by the words typed."""
    commands = [["edge.aggregator", *shlex.split(words)] for words in WRONG]
    return dict(zip(WRONG, all_ended(namespace, commands)))


@pytest.mark.parametrize("words, named", WRONG.items())
def test_a_wrong_option_is_one_clear_line(left, words, named):
    status, output = left[words]
    assert status == 1
    (line,) = output.splitlines()
    assert line.startswith("ERROR:edge.aggregator:") and named in line
    assert "Traceback" not in output


def test_an_option_that_there_is_not_is_named(namespace):
    status, output = ended(namespace, "edge.aggregator", IPS, "--tunnel=vxlan")
    assert status == 1 and "Traceback" not in output
    assert output.splitlines()[-1].endswith("does not have a parameter named 'tunnel'.")


# ---- help ----


def options():
    from edge import aggregator

    return list(inspect.signature(aggregator.launch).parameters)


def pythons():
    """Return an interpreter of each supported version; None for a version that is missing here."""
    found = {}
    for version in ("3.9", "3.10", "3.11", "3.12"):
        places = glob.glob(os.path.expanduser(f"~/.pyenv/versions/{version}.*/bin/python3"))
        places.append(shutil.which(f"python{version}") or "")
        found[version] = next(filter(usable, places), None)
    return found


def usable(python):
    """Whether this interpreter runs. pyenv leaves commands behind that do not."""
    return python and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0


PYTHONS = pythons()
every_python = pytest.mark.parametrize("version", PYTHONS)


@pytest.fixture
def python(version):
    if PYTHONS[version] is None:
        pytest.skip(f"there is no Python {version} here")
    return PYTHONS[version]


@every_python
def test_help_explains_every_option(namespace, python):
    """`./pox.py help` needs a repair itself: inspect.getargspec() was removed in Python 3.11."""
    status, output = ended(namespace, "help", "--edge.aggregator", python=python)
    assert status == 0 and "Traceback" not in output
    for option in options():
        explanation = re.search(rf"^ *--{option}\b=?\S* *\n? *(.+)$", output, re.MULTILINE)
        assert explanation and len(explanation[1]) > 10, option
    assert "one big switch" in output


# ---- it runs ----


def answers(namespace, controller):
    """Wait until the aggregator has connected upstream and accepts switches; return its
    features.
    """
    features = controller.wait_until_connected() and controller.features()
    switch = Connection.open(namespace, 6633)
    switch.wait_for_hello()
    switch.close()
    return features


@every_python
def test_it_passes_traffic_on_every_python(make_big_switch, python):
    """make_big_switch returns when every switch has sent a frame to every other."""
    from lab import frames
    from lab import openflow10 as of

    big_switch = make_big_switch(python=python)
    big_switch.controller.flow_mod(of.match(), of.output(of.Port.FLOOD))
    big_switch.wires.send(1, frames.udp())
    big_switch.expect({port: [frames.udp()] for port in (2, 17, 18)})
    (flow,) = big_switch.controller.flow_stats()
    assert flow.packet_count == 1
    assert "Traceback" not in big_switch.aggregator.log()


@pytest.mark.parametrize(
    "text, dpid", [(None, 1), ("0x10", 0x10), ("02:ac:10:00:00:01", 0x02AC10000001)]
)
def test_the_big_switch_has_the_datapath_id_that_it_is_given(text, dpid):
    with Namespace() as namespace, Controller(namespace) as controller:
        words = ["edge.aggregator", IPS, f"--port={controller.port}"]
        if text:
            words.append(f"--dpid={text}")
        with typed(namespace, *words):
            assert answers(namespace, controller).datapath_id == dpid


def test_the_documented_command_finds_the_documented_controller():
    """`./pox.py log.level --DEBUG edge.aggregator --ips=...` connects to 127.0.0.1, port 7744."""
    with Namespace() as namespace, Controller(namespace, port=7744) as controller:
        words = ("log.level", "--DEBUG", "edge.aggregator", IPS)
        with typed(namespace, *words):
            features = answers(namespace, controller)
    assert features.datapath_id == 1 and features.ports == {}


# ---- pip install ----


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The python of a new virtual environment in which the project is installed."""
    place = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "MANIFEST.in", "README.md", "LICENSE", "requirements-test.txt"):
        shutil.copy(os.path.join(REPOSITORY, name), place)
    shutil.copytree(
        os.path.join(REPOSITORY, "pox_ext"),
        place / "pox_ext",
        ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
    )
    environment = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = str(environment / "bin" / "python3")
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    if subprocess.run([*pip, "--retries=1", "setuptools", "wheel"]).returncode:
        pytest.skip("needs PyPI, for setuptools and wheel")
    # Nothing else may come from PyPI.
    subprocess.run([*pip, "--no-index", "--no-build-isolation", "."], cwd=place, check=True)
    return python


def test_an_installed_component_is_found_by_pox(installed):
    with Namespace() as namespace, Controller(namespace) as controller:
        words = ("edge.aggregator", IPS, f"--port={controller.port}")
        with typed(namespace, *words, python=installed, pythonpath=None):
            assert answers(namespace, controller).datapath_id == 1


def test_an_uninstalled_one_is_not(namespace, tmp_path):
    """Without the installation POX does not find the component, so the test above means
    something.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True)
    python = str(tmp_path / "bin" / "python3")
    status, output = ended(namespace, "edge.aggregator", IPS, python=python, pythonpath=None)
    assert status == 1 and "Module not found: edge.aggregator" in output
