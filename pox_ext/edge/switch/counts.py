"""Counters of what the big switch has done since its start, for the dashboard and Prometheus."""

import bisect

BARRIER_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Durations:
    """
    A histogram of durations.

    counts: for each of BARRIER_BOUNDS (seconds), how many durations were at most that bound but
        above the bound before; the last counts the durations above all bounds
    total: the sum of all durations, in seconds
    """

    def __init__(self) -> None:
        self.counts = [0] * (len(BARRIER_BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect.bisect_left(BARRIER_BOUNDS, seconds)] += 1
        self.total += seconds


class Counts:
    """
    Counters since the start.

    flow_mods, packet_outs: messages from controllers
    packet_ins: messages to controllers; a message to several controllers counts once
    errors: messages from controllers that were answered with an error
    refusals: errors that switches have sent
    resynchronisations: how often a switch was brought up to date
    foreign_frames: frames that came out of a tunnel with no key, or with the key of probes, and are
        no probes of this aggregator; nobody gets them
    barriers: the time from a controller's BARRIER_REQUEST to its BARRIER_REPLY
    """

    def __init__(self) -> None:
        self.flow_mods = 0
        self.packet_outs = 0
        self.packet_ins = 0
        self.errors = 0
        self.refusals = 0
        self.resynchronisations = 0
        self.foreign_frames = 0
        self.barriers = Durations()
