"""The numbers for Prometheus, read by Prometheus's own parser."""

import pox.openflow.libopenflow_01 as of
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from edge.north.workers import Upstream
from edge.switch.counts import BARRIER_BOUNDS
from edge.web import metrics

from . import model

PREFIX = "edge_aggregator_"


def samples(switch, accept=None):
    """Return all values by name. The name of a histogram's bucket ends with its upper bound."""
    body, content_type = metrics.text(metrics.numbers(model.datapath(switch)), accept)
    reader = parse_open if "openmetrics" in content_type else parse
    found = {}
    for family in reader(body.decode()):
        assert family.documentation
        for sample in family.samples:
            assert sample.name.startswith(PREFIX)
            key = sample.name[len(PREFIX) :] + "".join(sample.labels.values())
            assert key not in found
            found[key] = sample.value
    return found


@pytest.fixture
def switch():
    return model.big_switch(3)


def test_switches_tunnels_ports_and_flows_are_counted(switch):
    model.is_lost(switch.topology.members[3])
    switch.portlist.announce(switch.topology.members[3])
    switch.discovery.changed(switch.topology.members[1])
    for port in range(1, 6):
        model.add_flow(switch, model.match(in_port=port))
    found = samples(switch)
    assert (found["switches"], found["switches_up"]) == (3, 2)
    assert (found["tunnels"], found["tunnels_discovered"]) == (3, 2)
    # Switch 1 has not reached switch 2 yet. A switch need not reach its own address.
    assert found["tunnels_unreached"] == 1
    assert (found["ports"], found["ports_up"]) == (6, 4)
    assert found["flows"] == 5


def test_a_port_that_is_set_down_is_not_up(switch):
    member = switch.topology.members[1]
    member.ports.all[1] = model.phy_port(1, b"s1-eth1", of.OFPPC_PORT_DOWN)
    switch.portlist.announce(member)
    assert samples(switch)["ports_up"] == 5


def test_controllers_are_counted(switch):
    closed = model.Connection("controller")
    closed.closed = True  # its task has not forgotten it yet
    model.datapath(switch).upstreams = [
        model.Upstream("10.0.0.1", 6653, model.Connection("controller")),
        model.Upstream("10.0.0.2", 6653, None),
        model.Upstream("10.0.0.3", 6653, closed),
    ]
    found = samples(switch)
    assert (found["controllers"], found["controllers_connected"]) == (3, 1)


COUNTS = [
    *("flow_mods", "packet_outs", "packet_ins", "errors", "refusals", "resynchronisations"),
    "foreign_frames",
]


def test_what_was_done_is_counted(switch):
    for value, name in enumerate(COUNTS, 1):
        setattr(switch.counts, name, value)
    found = samples(switch)
    assert [found[f"{name}_total"] for name in COUNTS] == [1, 2, 3, 4, 5, 6, 7]


def test_packet_ins_that_were_dropped_are_counted_for_each_controller(switch):
    datapath = model.datapath(switch)
    datapath.upstreams = [Upstream(("10.0.0.1", 6653)), Upstream(("10.0.0.2", 6653))]
    clients = [model.Connection(f"client {number}", service=True) for number in range(2)]
    datapath.connections = list(clients)
    for dropped in (7, 5):  # two connections to the same controller, one after the other
        connection = model.Connection("controller 10.0.0.2:6653")
        datapath.upstreams[1].opened(connection)
        datapath.connections.append(connection)
        connection.dropped_packet_ins = dropped
        datapath.connection_closed(connection)
        datapath.upstreams[1].closed()
    for dropped, client in zip((10, 20), clients):
        client.dropped_packet_ins = dropped
    datapath.connection_closed(clients[0])
    found = samples(switch)
    assert found["packet_ins_dropped_total10.0.0.1:6653"] == 0
    assert found["packet_ins_dropped_total10.0.0.2:6653"] == 12
    assert found["packet_ins_dropped_totalclients"] == 30


def test_barriers_are_a_histogram(switch):
    for seconds in (0.0005, 0.001, 0.002, 0.3, 99.0):
        switch.counts.barriers.add(seconds)
    found = samples(switch)
    buckets = [found[f"barrier_seconds_bucket{bound}"] for bound in (*BARRIER_BOUNDS, "+Inf")]
    assert buckets == [2, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 5]
    assert found["barrier_seconds_count"] == 5
    assert found["barrier_seconds_sum"] == pytest.approx(99.3035)


def test_a_prometheus_that_asks_for_openmetrics_gets_it(switch):
    accept = "application/openmetrics-text; version=1.0.0"
    assert samples(switch, accept) == samples(switch)
