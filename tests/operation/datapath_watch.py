"""A component for tests, beside edge.aggregator. It finds the big switch as any POX datapath.

./pox.py edge.aggregator --ips=... operation.datapath_watch

It logs each event of the big switch, and the state of the datapath with dpid 1 at that moment: its
ports, the ports that it has statistics of, and the priorities of its flows.
"""

import logging

from pox.core import core
from pox.lib.revent import Event

log = logging.getLogger("watch")

FIELDS = ("index", "dpid", "ip", "reason")


def _log(event: Event) -> None:
    datapath = core.datapaths[1]
    fields = {name: str(value) for name, value in vars(event).items() if name in FIELDS}
    log.info(
        "%s %s; ports %s, statistics of %s; flows %s",
        type(event).__name__,
        fields,
        {
            number: f"{port.name}{' down' if port.state & 1 else ''}"
            for number, port in datapath.ports.items()
        },
        list(datapath.port_stats),
        [entry.priority for entry in datapath.table.entries],
    )


def launch() -> None:
    """Listen to the big switch's events as soon as there is a big switch."""

    def ready() -> None:
        for name in ("SwitchUp", "SwitchLost", "TunnelFound"):
            core.aggregator.addListenerByName(name, _log)

    core.call_when_ready(ready, ["aggregator", "datapaths"])
