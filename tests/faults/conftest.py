"""Fixtures of the fault tests: a big switch to break, and a note of how long things took."""

import json
import os

import pytest
from lab.faultbed import FaultBed


@pytest.fixture
def make_bed(root):
    """Makes a `FaultBed`, with flows of every kind unless flows=False."""
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
    """Notes how long something took: measured("lost", 0.3).

    For docs/faults.md: with EDGE_FAULT_TIMES=FILE, a line of JSON each is added to that file.
    """

    def note(what, seconds):
        record_property(what, round(seconds, 4))
        path = os.environ.get("EDGE_FAULT_TIMES")
        if path:
            with open(path, "a") as times:
                print(json.dumps([request.node.name, what, round(seconds, 4)]), file=times)

    return note
