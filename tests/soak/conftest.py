"""What the soaks are made on."""

import pytest
from lab.faultbed import FaultBed


@pytest.fixture
def bed(root):
    bed = FaultBed(3, relays=[2, 3], level="INFO", options=["--switch_timeout=2"])
    yield bed
    bed.stop()
