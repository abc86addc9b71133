"""Fixtures of the fuzz tests."""

import os

import pytest
from lab.faultbed import FaultBed

LISTEN = 6654


@pytest.fixture(scope="module")
def bed(root):
    """A big switch over two switches (ports 1, 2, 17, 18) that also listens on port 6654."""
    bed = FaultBed(2, options=[f"--listen={LISTEN}"], level="INFO")
    yield bed
    bed.stop()


@pytest.fixture
def make_bed(root):
    """Make `FaultBed`s."""
    made = []

    def make(*args, **kwargs):
        made.append(FaultBed(*args, level="INFO", **kwargs))
        return made[-1]

    yield make
    for bed in made:
        bed.stop()


@pytest.fixture
def seed():
    """The seed of the noise: EDGE_FUZZ_SEED, or always the same."""
    return int(os.environ.get("EDGE_FUZZ_SEED", "1"))


@pytest.fixture
def volume():
    """How many messages each of the long tests sends: EDGE_FUZZ_MESSAGES, or 20,000."""
    return int(os.environ.get("EDGE_FUZZ_MESSAGES", "20000"))
