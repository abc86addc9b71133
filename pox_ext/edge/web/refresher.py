"""Asks the switches for what the page shows of flows; in POX's scheduler only."""

import time
from typing import Callable

import pox.openflow.libopenflow_01 as of

from edge.north import statistics
from edge.openflow import stats
from edge.south.gather import ask
from edge.south.member import Member
from edge.switch.bigswitch import BigSwitch
from edge.web.view import Installed

REFRESH = 2.0  # seconds between two times that the switches are asked for all counters


class Refresher:
    """Asks for the counters of all flows, seldom however many want to know."""

    def __init__(self) -> None:
        self._due = 0.0
        self._waiting: list[Callable[[], None]] = []

    def refresh(self, switch: BigSwitch, done: Callable[[], None]) -> None:
        """
        Call done() when the counters are new enough.

        That is at once, unless REFRESH seconds have passed since the switches were asked; or ten
        times as long as they took to answer, if that is longer.
        """
        begun = time.monotonic()
        if not self._waiting and begun < self._due:
            done()
            return
        self._waiting.append(done)
        if len(self._waiting) > 1:
            return

        def finish() -> None:
            took = time.monotonic() - begun
            self._due = begun + max(REFRESH, 10 * took)
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each()

        try:
            statistics.refresh(switch, list(switch.flows.table), finish)
        except Exception:
            finish()  # nobody is to wait for what will not come
            raise


def ask_switches(
    switch: BigSwitch, cookie: int, installed: Installed, done: Callable[[], None]
) -> None:
    """
    Ask the switches of one flow what they have with its cookie; then call done().

    installed: their answers are put there
    """
    entry = switch.flows.cookies.entry(cookie)
    holders = switch.flows.holders(entry) if entry is not None else []

    def take(member: Member, kind: int, message: bytes) -> None:
        if kind != of.OFPT_STATS_REPLY:
            return
        installed.setdefault(member.index, None)
        for flow in stats.parse_flows(message):
            installed[member.index] = flow
            if switch.flows.is_known(cookie):  # else it has ended meanwhile
                member.counters.saw(cookie, flow.packets, flow.octets)

    ask([(member, lambda xid: stats.dump_flows(xid, cookie)) for member in holders], take, done)
