"""Fixtures of the system tests."""

import pytest
from lab.bigswitch import BigSwitch

from .look import Snoop


@pytest.fixture
def make_prepared(root):
    """Make a big switch. A function of the test prepares its network before the switches
    connect.
    """
    made = []

    def make(prepare, **kwargs):
        class Prepared(BigSwitch):
            def connect_switches(self):
                made.append(self)
                prepare(self.network)
                super().connect_switches()

        return Prepared(**kwargs)

    yield make
    for big_switch in made:
        big_switch.stop()


@pytest.fixture
def snoops(big_switch):
    """A Snoop on each switch of `big_switch`, by dpid."""
    started = {}
    try:
        for dpid in big_switch.network.switches:
            started[dpid] = Snoop(big_switch, dpid)
        yield started
    finally:
        for snoop in started.values():
            snoop.stop()
