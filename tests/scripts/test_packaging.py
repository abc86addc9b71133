"""`pip install .` gives POX the component edge.aggregator."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from lab.aggregator import find_pox

from .terminal import REPOSITORY

SOURCES = (
    "setup.py",
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "requirements-test.txt",
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Where pip has installed the project, from a copy, since building leaves files behind."""
    place = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        shutil.copy(os.path.join(REPOSITORY, name), place)
    shutil.copytree(
        os.path.join(REPOSITORY, "pox_ext"),
        place / "pox_ext",
        ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
    )
    target = tmp_path_factory.mktemp("site-packages")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
        + ["--no-build-isolation", "--target", str(target), str(place)],
        check=True,
    )
    return target


def test_every_module_is_installed(installed):
    def modules(top):
        return {
            os.path.relpath(os.path.join(directory, name), top)
            for directory, _, names in os.walk(top)
            for name in names
            if "__pycache__" not in directory
        }

    assert modules(installed / "edge") == modules(os.path.join(REPOSITORY, "pox_ext", "edge"))


def test_pox_runs_the_installed_component(installed):
    """`./pox.py help` imports it, and starts nothing."""
    pox = find_pox()
    done = subprocess.run(
        [sys.executable, "pox.py", "help", "--edge.aggregator"],
        cwd=pox,
        env=dict(os.environ, PYTHONPATH=str(installed), PYTHONDONTWRITEBYTECODE="1"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--ips" in done.stdout


def test_it_depends_on_no_package_named_pox(installed):
    (metadata,) = installed.glob("edge_aggregator-*.dist-info/METADATA")
    text = metadata.read_text()
    (versions,) = re.findall(r"^Requires-Python: (.*)", text, re.M)
    assert sorted(versions.split(",")) == ["<3.13", ">=3.9"]
    required = [line for line in text.splitlines() if line.startswith("Requires-Dist:")]
    assert all("extra ==" in line for line in required)
    assert not any(line.split()[1].lower().startswith("pox") for line in required)
