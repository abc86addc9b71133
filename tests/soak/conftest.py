"""Fixtures of the soak tests."""

import pytest
from lab.faultbed import FaultBed


@pytest.fixture
def bed(root):
    options = ["--switch_timeout=2", "--max_retry_delay=1", "log.level", "--edge.expiry=DEBUG"]
    bed = FaultBed(3, relays=[2, 3], level="INFO", options=options, measured=False)
    yield bed
    bed.stop()
