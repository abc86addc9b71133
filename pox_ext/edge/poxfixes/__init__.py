"""Every workaround for a defect of POX, each with its reason.

install() puts them in place; to import the package changes nothing. Line numbers of POX are those
of commit 20d291825de5e1038e4500382e842e4f95b5731a (branch halosaur).

    hub         one bad descriptor ends POX's select loop, which is also slow to wake; after a pause
                of the process, timers fire before sockets are read
    listener    one failed accept() ends it; it waits for ever for handshakes; its TLS fails
    connection  bad bytes end a switch's connection; a switch that connects again is lost
    greeting    any hello is taken for one of OpenFlow 1.0 (used by connection; edge.north uses it
                for controllers' hellos)
    loglimit    what anybody can cause again and again fills the log (used by connection)
    outbox      one closed switch ends the thread that sends what the kernel did not take
    ioworkers   one bad connection of a datapath ends the I/O of all; sending takes quadratic time;
                connecting again (back-off) holds up all of POX
    output      nobody reads the log, and everything stands still
    help        it fails for a launch() with annotations, and since Python 3.11 for any
    timers      one exception ends a recurring timer
    lack        no repair: what the repaired parts do without a descriptor, a thread or memory
    ending      the main thread notices the end up to ten seconds late
    webserver   what the page needs on POX's own web server, if that is there; imported only then
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Callable, Optional

from pox.core import core
from pox.lib.recoco import Scheduler
from pox.openflow import of_01

from .connection import EdgeConnection
from .ending import ShortWaits
from .help import repair_help
from .hub import RobustSelectHub, Serve, awake_since, patience_left
from .listener import listen
from .outbox import DeferredSends, Outbox
from .output import Outputs
from .timers import after, every

__all__ = [
    "EdgeConnection",
    "Outbox",
    "RobustSelectHub",
    "Serve",
    "When",
    "after",
    "awake_since",
    "end_of_turn",
    "every",
    "install",
    "patience_left",
    "repair_help",
    "run_in_slices",
]


def install() -> None:
    """Put the repairs in place in the running POX. A second call does nothing.

    To be called from a component's launch(). Raises RuntimeError if openflow.of_01 listens already:
    its task cannot be replaced then.
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
    Outputs().install()
    of_01.Connection = EdgeConnection
    of_01.deferredSender = DeferredSends()
    of_01.OpenFlow_01_Task.run = listen
    for component in listeners:
        component.gen = component.run()  # POX has made it from its own run()


def end_of_turn(callback: Callable[[], None]) -> None:
    """Call back as soon as the task that runs now has yielded."""
    core.scheduler._selectHub.end_of_turn(callback)


# Calls back once, later.
When = Callable[[Callable[[], None]], None]


def run_in_slices(steps: Iterator[Optional[When]]) -> None:
    """Exhaust an iterator, one step now and one at the end of each turn from then on.

    It is for long work: other tasks have their turns between the steps.

    steps: a step may yield a function that takes a callback. The next step is done when that
        function calls back.
    """
    for when in steps:
        (when or end_of_turn)(lambda: run_in_slices(steps))
        return


def _unblock_call_later(scheduler: Scheduler) -> None:
    """Make core.callLater safe to call any number of times in one turn.

    POX: each call writes a byte to a blocking pipe (pox/lib/util.py:314) that only the scheduler
    reads. After 65,536 calls from one of the scheduler's own tasks, POX stands still for ever.

    Here: the pipe does not block. When it is full, the scheduler is about to read it anyway.
    """
    scheduler.callLater(lambda: None)  # POX makes the task and its pipe at the first call
    pinger = scheduler._callLaterTask._pinger
    os.set_blocking(pinger._w, False)
    ping = pinger.ping

    def ping_unless_full() -> None:
        with contextlib.suppress(BlockingIOError):
            ping()

    pinger.ping = ping_unless_full
