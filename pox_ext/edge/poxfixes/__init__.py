"""Every workaround for POX's defects, each with its reason.

Lines of POX are those of commit 20d291825de5e1038e4500382e842e4f95b5731a (branch halosaur).
install() puts all of them in place; importing does nothing.

    hub         recoco's select loop dies of one bad descriptor, and is slow to wake
    listener    it dies of a failed accept(), waits for ever for handshakes, and has no TLS
    connection  bad bytes drop a switch; a switch that connects again is lost
    outbox      the thread that sends what did not fit dies of one closed switch
    ioworkers   one bad connection of a datapath ends the I/O of all, and sending is quadratic
    help        it cannot read a launch() with annotations, nor any since Python 3.11
    timers      a recurring timer dies of one exception
    ending      the main thread notices the end up to ten seconds late
    webserver   one connection may cost any memory, thread or log; imported by edge.dashboard alone
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Callable

from pox.core import core
from pox.openflow import of_01

from .connection import EdgeConnection
from .ending import ShortWaits
from .help import repair_help
from .hub import RobustSelectHub, Serve
from .listener import listen
from .outbox import DeferredSends, Outbox
from .timers import after, every

__all__ = [
    "EdgeConnection",
    "Outbox",
    "RobustSelectHub",
    "Serve",
    "after",
    "end_of_turn",
    "every",
    "run_in_slices",
    "install",
    "repair_help",
]


def install() -> None:
    """Repair the running POX; call it from launch(). Again does nothing.

    Raises RuntimeError if openflow.of_01 listens already: its task cannot be replaced then.
    """
    scheduler = core.scheduler
    if isinstance(scheduler._selectHub, RobustSelectHub):
        return
    listeners = [c for c in core.components.values() if isinstance(c, of_01.OpenFlow_01_Task)]
    if any(component.started for component in listeners):
        raise RuntimeError("edge.poxfixes.install() is for launch(): openflow.of_01 runs already")
    RobustSelectHub(scheduler).install()
    _unblock_call_later(scheduler)
    core.quit_condition = ShortWaits()
    of_01.Connection = EdgeConnection
    of_01.deferredSender = DeferredSends()
    of_01.OpenFlow_01_Task.run = listen
    for component in listeners:
        component.gen = component.run()  # it was made from POX's run()


def end_of_turn(callback: Callable[[], None]) -> None:
    """Call back as soon as the task that runs now has yielded."""
    core.scheduler._selectHub.end_of_turn(callback)


def run_in_slices(steps: Iterator[Any]) -> None:
    """Go through an iterator, one step now and one at the end of each turn from then on.

    It is for what takes long: others have their turns between.
    """
    for _ in steps:
        end_of_turn(lambda: run_in_slices(steps))
        return


def _unblock_call_later(scheduler: Any) -> None:
    """Make core.callLater safe to call any number of times in one turn.

    POX: each call writes a byte to a blocking pipe (pox/lib/util.py:314) that only the scheduler
    reads: 65,536 calls from one of its own tasks, and POX stands still for ever.

    Here: the pipe does not block; when it is full, the reader has been woken anyway.
    """
    scheduler.callLater(lambda: None)  # POX makes the task for it at the first call
    pinger = scheduler._callLaterTask._pinger
    os.set_blocking(pinger._w, False)
    ping = pinger.ping

    def ping_unless_full() -> None:
        with contextlib.suppress(BlockingIOError):
            ping()

    pinger.ping = ping_unless_full
