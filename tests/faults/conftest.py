"""Fixtures of the fault tests: a big switch to break, and a record of measured times."""

import json
import os

import pytest
from lab.faultbed import FaultBed


@pytest.fixture
def make_bed(root):
    """Make `FaultBed`s. Each gets flows of every kind unless flows=False."""
    made = []

    def make(*args, flows=True, **kwargs):
        bed = FaultBed(*args, **kwargs)
        made.append(bed)
        if flows:
            bed.install_flows()
            bed.wait_until_right()
        return bed

    yield make
    for bed in reversed(made):
        bed.stop()


@pytest.fixture
def measured(request, record_property):
    """Record how long something took, in seconds: measured("lost", 0.3).

    docs/faults.md uses the times: with EDGE_FAULT_TIMES=FILE a line of JSON is added to that file
    for each.
    """

    def note(what, seconds):
        record_property(what, round(seconds, 4))
        path = os.environ.get("EDGE_FAULT_TIMES")
        if path:
            with open(path, "a") as times:
                print(json.dumps([request.node.name, what, round(seconds, 4)]), file=times)

    return note
