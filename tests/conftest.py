"""Fixtures: the test lab, ready to use. lab/__init__.py describes the lab."""

import contextlib
import logging
import os
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
for _directory in ("tests", "scripts", "pox_ext"):
    sys.path.insert(0, os.path.join(ROOT, _directory))

from lab.aggregator import Aggregator, find_pox  # noqa: E402
from lab.bigswitch import BigSwitch, PlainSwitch  # noqa: E402
from lab.network import Network  # noqa: E402

from failure import Failure  # noqa: E402

# Pure tests import POX's own libraries, such as pox.openflow.
sys.path.append(find_pox())


# Mininet makes all loggers that come after it loggers of its own, without the level INFO
# (mininet/log.py).  Tests that import it must not take the component's lines away from others.
with contextlib.suppress(ImportError):
    import mininet.log  # noqa: F401
logging.setLoggerClass(logging.Logger)

# A shell that runs the tests in the background makes them, and every process that they start,
# ignore Ctrl-C. Undo that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Hypothesis tries the same examples in every run, so that a failure comes from the change under
# test and not from chance. --hypothesis-profile=search tries new ones. There is no deadline: the
# machine may be busy with other work.
_SLOW = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large)
settings.register_profile(
    "repeat", derandomize=True, deadline=None, database=None, suppress_health_check=_SLOW
)
settings.register_profile(
    "search", derandomize=False, deadline=None, database=None, suppress_health_check=_SLOW
)
settings.load_profile("repeat")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Add the end of each running aggregator's log to the report of a failed test."""
    report = (yield).get_result()
    if report.failed:
        for aggregator in Aggregator.running:
            title = f"log of {aggregator.component} (pid {aggregator.pid})"
            report.sections.append((title, aggregator.log()[-8000:]))


@pytest.fixture(scope="session")
def root():
    """Skip the test unless it runs as root: making network namespaces needs root."""
    if os.geteuid() != 0:
        pytest.skip("needs root: sudo scripts/test.sh")


class Shared:
    """A bed that the whole session shares. It is reset before every test, and made anew when a test
    has broken it.
    """

    def __init__(self, kind):
        self.kind = kind
        self.bed = None

    def as_new(self):
        if self.bed is not None:
            try:
                self.bed.reset()
            except (AssertionError, OSError, Failure):
                self.stop()
        if self.bed is None:
            self.bed = self.kind()
        return self.bed

    def stop(self):
        if self.bed is not None:
            self.bed.stop()
            self.bed = None


@pytest.fixture(scope="session")
def _shared_big_switch(root):
    shared = Shared(BigSwitch)
    yield shared
    shared.stop()


@pytest.fixture(scope="session")
def _shared_quick_big_switch(root):
    shared = Shared(lambda: BigSwitch(measured=False))
    yield shared
    shared.stop()


@pytest.fixture
def quick_big_switch(_shared_quick_big_switch):
    """The same as big_switch, for tests that compare times with a plain bridge's.

    It is not traced for the coverage, which would make it some four times slower.
    """
    return _shared_quick_big_switch.as_new()


@pytest.fixture
def big_switch(_shared_big_switch):
    """A big switch over two switches with two ports each: ports 1, 2, 17, 18. It is as new.

    The session shares it. A test that kills or adds something makes a big switch of its own, with
    `make_big_switch`.
    """
    return _shared_big_switch.as_new()


@pytest.fixture(scope="session")
def _shared_plain_switch(root):
    shared = Shared(PlainSwitch)
    yield shared
    shared.stop()


@pytest.fixture
def plain_switch(_shared_plain_switch):
    """A plain Open vSwitch bridge with ports 1, 2, 17, 18 and its controller, as new."""
    return _shared_plain_switch.as_new()


@pytest.fixture(params=["plain", "big"])
def bed(request):
    """First the plain bridge, then the big switch: both must pass the test."""
    return request.getfixturevalue(request.param + "_switch")


def _factory(kind):
    def fixture(root):
        made = []

        def make(*args, **kwargs):
            thing = kind(*args, **kwargs)
            made.append(thing)
            return thing

        yield make
        for thing in reversed(made):
            thing.stop()

    return fixture


make_big_switch = pytest.fixture(_factory(BigSwitch), name="make_big_switch")
make_plain_switch = pytest.fixture(_factory(PlainSwitch), name="make_plain_switch")
make_network = pytest.fixture(_factory(Network), name="make_network")
