"""Writes the ports and flows of a controller's switch to a file, five times a second.

Load it together with any controller component, with this directory in PYTHONPATH:

    ./pox.py openflow.of_01 --port=7744 forwarding.l2_pairs flow_report --file=/tmp/report.json

The file is JSON.  It is replaced as a whole, so that a reader never sees a part of it:

    {"dpid": "00-00-00-00-00-01",
     "ports": {"1": "1.s1-eth1", ...},
     "flows": [{"match": {"dl_src": "...", ...}, "actions": ["output:17"], "priority": 32768,
                "cookie": 0, "packets": 3, "bytes": 294}, ...]}
"""

import json
import os

import pox.openflow.libopenflow_01 as of
from pox.core import core
from pox.lib.recoco import Timer
from pox.openflow import FlowStatsReceived

INTERVAL = 0.2
"""Seconds between two reports."""

MATCH_FIELDS = (
    *("in_port", "dl_src", "dl_dst", "dl_vlan", "dl_vlan_pcp", "dl_type"),
    *("nw_tos", "nw_proto", "nw_src", "nw_dst", "tp_src", "tp_dst"),
)


def describe_match(match: of.ofp_match) -> dict[str, str]:
    """Return the fields that `match` sets, in the order of the OpenFlow 1.0 specification."""
    values = ((field, getattr(match, field)) for field in MATCH_FIELDS)
    return {field: str(value) for field, value in values if value is not None}


def describe_action(action: of.ofp_action_base) -> str:
    """Return an output in the notation of ovs-ofctl(8), and any other action by POX's name."""
    if isinstance(action, of.ofp_action_output):
        return f"output:{of.ofp_port_map.get(action.port, action.port)}"
    return type(action).__name__


def describe_flow(flow: of.ofp_flow_stats) -> dict[str, object]:
    """Return one entry of a flow stats reply as the report has it."""
    return {
        "match": describe_match(flow.match),
        "actions": [describe_action(action) for action in flow.actions],
        "priority": flow.priority,
        "cookie": flow.cookie,
        "packets": flow.packet_count,
        "bytes": flow.byte_count,
    }


def launch(file: str) -> None:
    """
    Write ports and flows of the connected switch to a file.

    --file=PATH   the file
    """

    def request() -> None:
        for connection in core.openflow.connections:
            connection.send(of.ofp_stats_request(body=of.ofp_flow_stats_request()))

    def write(event: FlowStatsReceived) -> None:
        ports = event.connection.ports
        report = {
            "dpid": event.connection.eth_addr.toStr("-"),
            "ports": {number: ports[number].name for number in sorted(ports)},
            "flows": [describe_flow(flow) for flow in event.stats],
        }
        part = f"{file}.part"
        with open(part, "w") as out:
            json.dump(report, out)
        os.replace(part, file)

    core.openflow.addListenerByName("FlowStatsReceived", write)
    Timer(INTERVAL, request, recurring=True)
