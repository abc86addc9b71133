"""Which switches are accepted, and what is said of those that are not."""

import logging

import pytest

from .played import Bed, Switch


class Arriving(Switch):
    """A switch at an address, whose connection has just come up."""

    def __init__(self, dpid, host):
        super().__init__(dpid)
        self.host = host
        self.level = logging.INFO
        self.disconnected = ""

    def disconnect(self, reason):
        self.disconnected = self.reason = reason


@pytest.fixture
def clock(monkeypatch):
    from edge.switch import arrivals

    now = [5000.0]
    monkeypatch.setattr(arrivals.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(arrivals.poxfixes, "after", lambda *arguments: None)
    return now


@pytest.fixture
def bed(turns, clock):
    bed = Bed(turns)
    for number, switch in enumerate(bed.switches, 1):
        switch.host = f"192.0.2.{number}"
        switch.level = logging.INFO
    return bed


def attempt(bed, dpid, host):
    """A switch connects, and the one that uses the dpid answers. Return the new one."""
    switch = bed.connect(dpid, Arriving(dpid, host))
    bed.settle()
    return switch


def lines(caplog):
    said = [f"{r.levelname} {r.getMessage()}" for r in caplog.records if r.levelno >= logging.INFO]
    caplog.clear()
    return said


def test_a_doubled_dpid_is_said_when_it_begins_and_when_it_is_over(bed, clock, caplog):
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    for number in range(100):
        switch = attempt(bed, 2, "192.0.2.9")
        assert switch.disconnected and switch.level == logging.DEBUG
        assert bed.big.is_refused(switch, 2), "its next connection is announced at DEBUG"
        bed.big._arrivals.tick(clock[0], 0.0)
        if number == 0:
            (warning,) = lines(caplog)
            assert warning.startswith("WARNING switch 2: another switch has the same dpid")
            assert "192.0.2.2" in warning and "192.0.2.9" in warning
        clock[0] += 8
    assert lines(caplog) == []
    clock[0] += 60
    bed.big._arrivals.tick(clock[0], 0.0)
    bed.big._arrivals.tick(clock[0], 0.0)
    (over,) = lines(caplog)
    assert over.startswith("INFO switch 2: no other switch has come with its dpid")
    attempt(bed, 2, "192.0.2.9")
    assert len(lines(caplog)) == 1, "it begins again"


def test_each_address_of_a_doubled_dpid_is_said_once(bed, caplog):
    for _ in range(3):
        for number in (8, 9):
            attempt(bed, 2, f"192.0.2.{number}")
    assert len(lines(caplog)) == 2


def test_the_connections_of_others_stay_announced(bed):
    refused = attempt(bed, 2, "192.0.2.9")
    assert not bed.big.is_refused(bed.switches[1], 2)
    assert not bed.big.is_refused(refused, 1)


def test_a_refused_switch_that_takes_the_place_is_said(bed, caplog):
    caplog.set_level(logging.INFO)
    attempt(bed, 2, "192.0.2.9")
    old = bed.switches.pop()
    old.disconnected = True
    bed.big.disconnected(old)
    lines(caplog)
    new = Arriving(2, "192.0.2.9")
    new.level = logging.DEBUG  # as is_refused() has it
    bed.connect(2, new)
    assert "INFO switch 2: is now the one at 192.0.2.9, which was refused before" in lines(caplog)
    assert new.level == logging.INFO and not new.disconnected


def test_a_hostile_peer_with_ever_new_dpids_fills_no_memory(bed, caplog):
    for dpid in range(1 << 40, (1 << 40) + 3000):
        bed.big.connected(dpid, Arriving(dpid, "192.0.2.9"))
    assert len(lines(caplog)) == 1000
