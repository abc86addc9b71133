"""Asks the switches for the counters and copies of flows; only for use in POX's scheduler."""

import time
from functools import partial
from typing import Callable

import pox.openflow.libopenflow_01 as of

from edge.north import statistics
from edge.openflow import stats
from edge.poxfixes import awake_since
from edge.south.gather import ask
from edge.south.member import Member
from edge.switch.audit import Look
from edge.switch.bigswitch import BigSwitch
from edge.web.view import Installed

REFRESH = 2.0  # seconds between two requests to the switches for all counters


class Refresher:
    """Asks for the counters of all flows, but not more often when more users want them."""

    def __init__(self) -> None:
        self._due = 0.0
        self._waiting: list[Callable[[], None]] = []

    def refresh(self, switch: BigSwitch, done: Callable[[], None]) -> None:
        """
        Call done() when the counters are new enough.

        Counters are new enough for REFRESH seconds after the switches were asked.  If the switches
        took long to answer, counters are new enough for ten times as long as that took.  A pause of
        this process does not count as their time.
        """
        begun = time.monotonic()
        if not self._waiting and begun < self._due:
            done()
            return
        self._waiting.append(done)
        if len(self._waiting) > 1:
            return

        def finish() -> None:
            took = time.monotonic() - max(begun, awake_since())
            self._due = begun + max(REFRESH, 10 * took)
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each()

        try:
            statistics.refresh(switch, list(switch.flows.table), finish)
        except Exception:
            finish()  # no caller may wait for an answer that will not come
            raise


def ask_switches(
    switch: BigSwitch, cookie: int, installed: Installed, done: Callable[[], None]
) -> None:
    """
    Ask the switches that hold a flow for their flow entries with its cookie; then call done().

    installed: receives their answers
    """
    entry = switch.flows.cookies.entry(cookie)
    holders = switch.flows.holders(entry) if entry is not None else []

    looks: dict[Member, Look] = {}

    def build(member: Member, xid: int) -> bytes:
        looks[member] = switch.audit.begin_one_by_one(member)
        looks[member].ask_for(cookie)
        return stats.dump_flows(xid, cookie)

    def take(member: Member, kind: int, message: bytes) -> None:
        if kind != of.OFPT_STATS_REPLY:
            return
        installed.setdefault(member.index, None)
        for flow in stats.parse_flows(message):
            installed[member.index] = flow
        switch.audit.read(looks[member], message)
        if not stats.is_more(message):
            switch.audit.finish(looks[member])

    ask([(member, partial(build, member)) for member in holders], take, done)
