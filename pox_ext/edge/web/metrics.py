"""
The big switch in Prometheus's text format.

Only this module needs the package prometheus_client; without it, AVAILABLE is False.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Optional

import pox.openflow.libopenflow_01 as of

from edge.north.datapath import Datapath
from edge.switch.counts import BARRIER_BOUNDS

try:
    import prometheus_client
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
    from prometheus_client.exposition import choose_encoder
except ImportError:
    AVAILABLE = False
else:
    AVAILABLE = True

if TYPE_CHECKING:
    from prometheus_client import Metric

PREFIX = "edge_aggregator_"

_GAUGES = {
    "switches": "Switches that have connected since the start.",
    "switches_up": "Switches that are connected and get all changes.",
    "tunnels": "Tunnel IPs.",
    "tunnels_discovered": "Tunnel IPs whose switch is known.",
    "tunnels_unreached": "Pairs of a switch and a tunnel IP that it does not reach.",
    "controllers": "Upstream controllers.",
    "controllers_connected": "Upstream controllers that are connected.",
    "ports": "Ports of the big switch.",
    "ports_up": "Ports of the big switch whose link is up.",
    "flows": "Flows in the big switch's table.",
}
_COUNTERS = {
    "flow_mods": "Flow-mods from controllers.",
    "packet_outs": "Packet-outs from controllers.",
    "packet_ins": "Packet-ins to controllers (one that goes to several counts once).",
    "errors": "Messages of controllers that were refused.",
    "refusals": "Errors that switches sent for what they refused.",
    "resynchronisations": "Times that a switch was brought up to date.",
    "foreign_frames": "Frames without a key out of tunnels, that are no probes; they are dropped.",
}
_DROPPED = "Packet-ins that a controller was not sent, since it reads too slowly."
_BARRIERS = "From a controller's barrier request to its reply."


class Numbers(NamedTuple):
    """
    The values at one moment.

    gauges, counters: by name, as in _GAUGES and _COUNTERS
    dropped: packet-ins that were not sent, by controller (see Datapath.dropped_packet_ins)
    barriers: a histogram of how long barriers took.  For each of BARRIER_BOUNDS (seconds), how many
        took at most that, but more than the bound before.  Then how many took
        longer than the last bound.
    barrier_seconds: how long all barriers took together, in seconds
    """

    gauges: dict[str, int]
    counters: dict[str, int]
    dropped: dict[str, int]
    barriers: tuple[int, ...]
    barrier_seconds: float


def numbers(datapath: Datapath) -> Numbers:
    """The values of the big switch now."""
    switch = datapath.big
    discovery, counts = switch.discovery, switch.counts
    owned = [ip for ip in discovery.ips if discovery.owner(ip) is not None]
    connections = [upstream.connection for upstream in datapath.upstreams]
    gauges = {
        "switches": len(switch.topology.members),
        "switches_up": len(switch.topology.ready_members()),
        "tunnels": len(discovery.ips),
        "tunnels_discovered": len(owned),
        "tunnels_unreached": sum(len(discovery.unreached(ip)) for ip in owned),
        "controllers": len(connections),
        "controllers_connected": sum(
            connection is not None and connection.greeted and not connection.closed
            for connection in connections
        ),
        "ports": len(switch.portlist.ports),
        "ports_up": sum(
            not (port.state & of.OFPPS_LINK_DOWN or port.config & of.OFPPC_PORT_DOWN)
            for port in switch.portlist.ports.values()
        ),
        "flows": len(switch.flows.table),
    }
    return Numbers(
        gauges,
        {name: getattr(counts, name) for name in _COUNTERS},
        datapath.dropped_packet_ins(),
        tuple(counts.barriers.counts),
        counts.barriers.total,
    )


def text(shown: Numbers, accept: Optional[str] = None) -> tuple[bytes, str]:
    """
    The page for Prometheus and its content type.

    accept: the request's Accept header
    """
    registry = prometheus_client.CollectorRegistry(auto_describe=False)
    registry.register(_Collector(shown))
    encode, content_type = choose_encoder(accept or "")
    return encode(registry), content_type


class _Collector:
    """Gives the values to prometheus_client, with their names."""

    def __init__(self, shown: Numbers) -> None:
        self._shown = shown

    def collect(self) -> Iterator["Metric"]:
        shown = self._shown
        for name, help_text in _GAUGES.items():
            yield GaugeMetricFamily(PREFIX + name, help_text, value=shown.gauges[name])
        for name, help_text in _COUNTERS.items():
            yield CounterMetricFamily(PREFIX + name, help_text, value=shown.counters[name])
        dropped = CounterMetricFamily(
            PREFIX + "packet_ins_dropped", _DROPPED, labels=["controller"]
        )
        for controller, count in shown.dropped.items():
            dropped.add_metric([controller], count)
        yield dropped
        buckets, so_far = [], 0
        for bound, count in zip((*map(str, BARRIER_BOUNDS), "+Inf"), shown.barriers):
            so_far += count
            buckets.append((bound, so_far))
        yield HistogramMetricFamily(
            PREFIX + "barrier_seconds", _BARRIERS, buckets=buckets, sum_value=shown.barrier_seconds
        )
