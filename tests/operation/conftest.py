"""Fixtures: a plain bridge and a big switch with two controllers and a management port each."""

import pytest
from differential.both import Both
from lab.bigswitch import PlainSwitch
from lab.faultbed import FaultBed

from .ofctl import PORT


@pytest.fixture(scope="session")
def _managed(root):
    beds = []
    try:
        beds.append(PlainSwitch(controllers=2, listen=PORT))
        beds.append(FaultBed(2, options=[f"--listen={PORT}"], controllers=2))
        yield beds
    finally:
        for bed in beds:
            bed.stop()


@pytest.fixture
def managed(_managed):
    """Both switches, as new. Each has `controller`, one more in `others`, and the management port
    for ovs-ofctl (see ofctl.py).
    """
    for bed in _managed:
        bed.reset()
    return Both(*_managed)
