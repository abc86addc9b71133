"""What the big switch has done since it was started, counted for those who watch it."""

import bisect

BARRIER_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Durations:
    """
    A histogram.

    counts: how many were at most each of BARRIER_BOUNDS (seconds) but above the one before; the
        last is for those above all
    total: their sum in seconds
    """

    def __init__(self) -> None:
        self.counts = [0] * (len(BARRIER_BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect.bisect_left(BARRIER_BOUNDS, seconds)] += 1
        self.total += seconds


class Counts:
    """
    flow_mods, packet_outs: messages of controllers
    packet_ins: messages to controllers (one, to however many)
    errors: messages of controllers that were refused
    refusals: messages that a switch refused
    resynchronisations: times that a switch was brought up to date
    barriers: from a controller's BARRIER_REQUEST to its BARRIER_REPLY
    """

    def __init__(self) -> None:
        self.flow_mods = 0
        self.packet_outs = 0
        self.packet_ins = 0
        self.errors = 0
        self.refusals = 0
        self.resynchronisations = 0
        self.barriers = Durations()
