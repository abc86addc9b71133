"""Fixtures: a big switch with the dashboard, and an HTTP client for it."""

import pox.core
import pytest
from lab.bigswitch import BigSwitch

from .site import Site

# Modules of POX need its core when they are imported; the core never goes up here.
if pox.core.core is None:
    pox.core.initialize(handle_signals=False)


@pytest.fixture(scope="module")
def _shown(root):
    options = ["--listen=6654", "--switch_timeout=3", "edge.dashboard", "--names=pox.example"]
    bed = BigSwitch(options=options)
    try:
        yield bed
    finally:
        bed.stop()


@pytest.fixture
def bed(_shown):
    """A big switch over two switches (ports 1, 2, 17, 18), with the dashboard. It is as new."""
    _shown.reset()
    return _shown


@pytest.fixture
def site(bed):
    """The dashboard's web server."""
    return Site(bed.network.outer)
