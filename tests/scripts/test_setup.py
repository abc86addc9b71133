"""scripts/setup.sh when nothing is missing, and when something cannot be installed."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from .terminal import REPOSITORY

FILES = ("scripts/setup.sh", "scripts/env.sh", "requirements-test.txt")


@pytest.fixture
def checkout():
    """A checkout with the files that set-up needs, this one's Python environment, and no POX.

    It is not in tmp_path, which other users cannot read.
    """
    parent = Path(tempfile.mkdtemp(prefix="setup-"))
    parent.chmod(0o755)
    place = parent / "checkout"
    for name in FILES:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.join(REPOSITORY, name), place / name)
    (place / ".venv").symlink_to(os.path.join(REPOSITORY, ".venv"))
    yield place
    shutil.rmtree(parent)


@pytest.fixture
def setup(machine, checkout):
    """A function that runs the checkout's setup.sh and returns its status, stdout and stderr.

    It runs in a namespace with no interface but loopback, where all use of the network fails.
    """

    def run(before=(), **env):
        done = subprocess.run(
            machine.command(*before, str(checkout / "scripts" / "setup.sh")),
            # The user's Git configuration might replace the address of POX by another.
            env={"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def make_pox(directory, version="halosaur"):
    (directory / "pox").mkdir(parents=True)
    (directory / "pox.py").touch()
    (directory / "pox" / "core.py").write_text(f'  version_name = "{version}"\n')


def ready(checkout, pox):
    version = subprocess.check_output([checkout / ".venv/bin/python", "--version"], text=True)
    return 0, f"Ready: {version.strip()}, POX in {pox}\n", ""


def test_pox_cloned_before_is_found_without_a_network(setup, checkout):
    make_pox(checkout / ".pox")
    assert setup() == ready(checkout, checkout / ".pox")


def test_pox_beside_the_checkout_is_found(setup, checkout):
    make_pox(checkout.parent / "pox")
    assert setup() == ready(checkout, checkout.parent / "pox")
    assert not (checkout / ".pox").exists()


def test_pox_home_goes_first(setup, checkout, tmp_path):
    make_pox(checkout.parent / "pox")
    make_pox(tmp_path / "mine")
    assert setup(POX_HOME=str(tmp_path / "mine")) == ready(checkout, tmp_path / "mine")


def test_pox_home_that_is_none_is_a_line(setup, tmp_path):
    make_pox(tmp_path / "old", "eel")
    status, out, error = setup(POX_HOME=str(tmp_path / "old"))
    assert status == 1
    assert error == (
        f"setup.sh: POX_HOME={tmp_path}/old is not a POX halosaur checkout: "
        "correct it, or unset it to have one cloned\n"
    )


def test_pox_that_cannot_be_cloned_is_a_line(setup, checkout):
    make_pox(checkout.parent / "pox", "eel")  # a checkout of another branch is not taken
    status, out, error = setup()
    assert status == 1
    assert "Ready" not in out
    assert error.splitlines()[-1] == (
        "setup.sh: could not clone POX: needs https://github.com/noxrepo/pox, "
        "or a halosaur checkout named by POX_HOME, in ~/pox or in ../pox"
    )
    assert not (checkout / ".pox").exists()
    assert not (checkout / ".pox.part").exists()


def test_packages_that_a_plain_user_lacks_are_a_line(setup, checkout):
    """With a PATH that has no Open vSwitch and no Mininet."""
    few = checkout / "few"
    few.mkdir()
    for name in (
        *("bash", "env", "flock", "dirname", "id", "grep", "cut", "getent", "sort"),
        *("python", "apt-get"),
    ):
        (few / name).symlink_to(shutil.which(name) or "/bin/true")
    before = ("setpriv", "--reuid=65534", "--clear-groups", "env", f"PATH={few}")
    status, out, error = setup(before)
    assert status == 1
    assert error.startswith("setup.sh: not installed: ")
    assert "mininet openssl openvswitch-switch openvswitch-testcontroller" in error
    assert error.endswith(f": sudo {checkout}/scripts/setup.sh\n")
    assert error.count("\n") == 1
