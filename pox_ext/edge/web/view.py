"""
The big switch as values that can be written as JSON: what the dashboard shows.

These functions read what the big switch holds, and change nothing; docs/dashboard.md explains the
values.  Functions that may have much to read are generators (Pieces).  They yield after each piece,
so that other work can be done in between, and return the value at the end.
"""

import heapq
import time
from collections.abc import Generator
from ipaddress import IPv4Address
from operator import itemgetter
from typing import Optional

import pox.openflow.libopenflow_01 as of

from edge.north.connections import ControllerConnection
from edge.north.datapath import Datapath
from edge.openflow import match as matches
from edge.openflow import nicira as nx
from edge.openflow import stats
from edge.openflow.text import (
    action_text,
    actions_text,
    mac_text,
    match_text,
    nxm_text,
    split_actions,
)
from edge.south.member import Member
from edge.south.rules import KEY_ALL, KEY_DISCOVERY, KEY_FLOOD, KEY_QUEUES
from edge.switch.bigswitch import BigSwitch
from edge.switch.flowtable import FlowEntry
from edge.web.queries import Query

Json = dict[str, object]
Pieces = Generator[None, None, Json]

_ROLES = {nx.NX_ROLE_OTHER: "other", nx.NX_ROLE_MASTER: "master", nx.NX_ROLE_SLAVE: "slave"}
_PORT_CONFIG = {
    of.OFPPC_PORT_DOWN: "port_down",
    of.OFPPC_NO_STP: "no_stp",
    of.OFPPC_NO_RECV: "no_recv",
    of.OFPPC_NO_RECV_STP: "no_recv_stp",
    of.OFPPC_NO_FLOOD: "no_flood",
    of.OFPPC_NO_FWD: "no_fwd",
    of.OFPPC_NO_PACKET_IN: "no_packet_in",
}
_FLOW_FLAGS = {
    of.OFPFF_SEND_FLOW_REM: "send_flow_rem",
    of.OFPFF_CHECK_OVERLAP: "check_overlap",
}
_COUNTED = ("packets", "octets")  # sorts by what copies have counted
_LOAD = nx.NX_VENDOR_ID.to_bytes(4, "big") + nx.NXAST_REG_LOAD.to_bytes(2, "big")


def _words(bits: int, names: dict[int, str]) -> list[str]:
    return [name for bit, name in names.items() if bits & bit]


def _dpid(dpid: int) -> str:
    return f"{dpid:016x}"


def _ip(ip: Optional[int]) -> Optional[str]:
    return None if ip is None else str(IPv4Address(ip))


def name_text(name: bytes) -> str:
    """
    A name that a switch has given, as text that is safe to show.

    Bytes that are not UTF-8 are replaced.  So are characters that cannot be printed, or that change
    how the text around them looks.
    """
    text = name.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


# --- the big switch -------------------------------------------------------------------------------


def overview(datapath: Datapath) -> Pieces:
    """Everything except the flows."""
    switch = datapath.big
    switches = []
    for member in sorted(switch.topology.members.values(), key=lambda member: member.index):
        switches.append(_member(switch, member))
        yield
    tunnels = []
    for ip in switch.discovery.ips:
        tunnels.append(_tunnel(switch, ip))
        yield
    return {
        "datapath_id": _dpid(datapath.dpid),
        "max_ports": switch.topology.numbers.max_ports,
        "flows": len(switch.flows.table),
        "controllers": _controllers(datapath),
        "switches": switches,
        "tunnels": tunnels,
        "counts": counts(switch),
    }


def counts(switch: BigSwitch) -> Json:
    """How many messages and events there have been since the start."""
    counted = switch.counts
    return {
        "flow_mods": counted.flow_mods,
        "packet_outs": counted.packet_outs,
        "packet_ins": counted.packet_ins,
        "errors": counted.errors,
        "refusals": counted.refusals,
        "resynchronisations": counted.resynchronisations,
        "foreign_frames": counted.foreign_frames,
        "barriers": sum(counted.barriers.counts),
    }


def _member(switch: BigSwitch, member: Member) -> Json:
    tunnel = None if member.ports.tunnel is None else member.ports.all.get(member.ports.tunnel)
    return {
        "index": member.index,
        "dpid": _dpid(member.dpid),
        "state": member.state.value,
        "tunnel_port": member.ports.tunnel,
        "tunnel_name": name_text(tunnel.name) if tunnel is not None else None,
        "tunnel_ip": _ip(member.tunnel_ip),
        "ports": [_port(switch, member, port) for port in sorted(member.ports.own())],
        "left_out": [
            {"port": port, "name": name_text(member.ports.all[port].name)}
            for port in sorted(member.ports.left_out())
        ],
    }


def _port(switch: BigSwitch, member: Member, port: int) -> Json:
    number = switch.topology.numbers.number(member.index, port)
    own = member.ports.all[port]
    north = switch.portlist.ports.get(number, own)
    if not member.ready:
        state = "switch lost"
    elif north.config & of.OFPPC_PORT_DOWN:
        state = "set down"
    elif north.state & of.OFPPS_LINK_DOWN:
        state = "no link"
    else:
        state = "up"
    return {
        "number": number,
        "name": name_text(north.name),
        "switch_port": port,
        "switch_name": name_text(own.name),
        "hw_addr": mac_text(own.hw_addr),
        "state": state,
        "config": _words(north.config, _PORT_CONFIG),
    }


def _tunnel(switch: BigSwitch, ip: int) -> Json:
    owner = switch.discovery.owner(ip)
    unreached = sorted(member.index for member in switch.discovery.unreached(ip))
    state = "not found" if owner is None else "not reached by all" if unreached else "up"
    return {
        "ip": _ip(ip),
        "switch": owner.index if owner is not None else None,
        "state": state,
        # No switch reaches an address that no switch has.
        "unreached": unreached if owner is not None else [],
    }


def _controllers(datapath: Datapath) -> list[Json]:
    controllers = [
        _controller(
            "{}:{}".format(*each.address), "controller", each.connection, each.dropped_packet_ins
        )
        for each in datapath.upstreams
    ]
    for connection in datapath.connections:
        if connection.service:
            dropped = connection.dropped_packet_ins
            controllers.append(_controller(connection.name, "client", connection, dropped))
    return controllers


def _controller(
    name: str, kind: str, connection: Optional[ControllerConnection], dropped: int
) -> Json:
    role = None
    if connection is not None and connection.greeted and not connection.closed:
        role = _ROLES[connection.role]
    return {
        "name": name,
        "kind": kind,
        "connected": role is not None,
        "role": role,
        "dropped_packet_ins": dropped,
    }


# --- flows ----------------------------------------------------------------------------------------


def entries(switch: BigSwitch) -> Generator[None, None, list[FlowEntry]]:
    """All flows, for Texts.find()."""
    yield
    return list(switch.flows.table)


def flows(switch: BigSwitch, query: Query, found: list[FlowEntry]) -> Pieces:
    """
    A page of the flows found, sorted: query.limit of them after the first query.offset.

    found: what Texts.find() has found for query.search
    """
    keys: list[tuple[float, FlowEntry]] = []
    for entry in found:
        yield
        # A flow that was removed between two pieces has no counters.
        if query.sort not in _COUNTED or entry in switch.flows.table:
            keys.append((_sort_key(switch, entry, query.sort), entry))
    best = heapq.nlargest if query.descending else heapq.nsmallest
    first = best(query.offset + query.limit, keys, key=itemgetter(0))[query.offset :]
    now = time.monotonic()
    return {
        "flows": len(switch.flows.table),
        "found": len(keys),
        "offset": query.offset,
        "page": [_flow(switch, entry, now) for _, entry in first if entry in switch.flows.table],
    }


def _sort_key(switch: BigSwitch, entry: FlowEntry, sort: str) -> float:
    if sort == "priority":
        return entry.priority
    if sort == "duration":
        return -entry.created
    packets, octets = switch.flows.counted(entry)
    return packets if sort == "packets" else octets


def _flow(switch: BigSwitch, entry: FlowEntry, now: float) -> Json:
    packets, octets = switch.flows.counted(entry)
    return {
        "switch_cookie": f"{switch.flows.cookies.cookie(entry):#x}",
        "cookie": f"{entry.cookie:#x}",
        "priority": entry.priority,
        "match": match_text(entry.match.wire),
        "actions": actions_text(entry.actions.wire),
        "idle_timeout": entry.idle_timeout,
        "hard_timeout": entry.hard_timeout,
        "flags": _words(entry.flags, _FLOW_FLAGS),
        "duration": round(now - entry.created, 1),
        "packets": packets,
        "octets": octets,
        "switches": [member.index for member in switch.flows.holders(entry)],
    }


# index of a switch -> the copy of a flow that it has reported, None if it has reported none.  A
# switch that has not answered is missing.
Installed = dict[int, Optional[stats.FlowStats]]


def flow(switch: BigSwitch, entry: FlowEntry, installed: Installed) -> Json:
    """
    One flow, and its copy on each switch that should have it.

    installed: the answers of the switches
    """
    members = sorted(switch.flows.homes(entry), key=lambda member: member.index)
    return {
        **_flow(switch, entry, time.monotonic()),
        "copies": [_copy(switch, entry, member, installed) for member in members],
    }


def _copy(switch: BigSwitch, entry: FlowEntry, member: Member, installed: Installed) -> Json:
    result: Json = {"switch": member.index, "dpid": _dpid(member.dpid)}
    if not member.ready:
        return {**result, "state": "switch lost"}
    copy = switch.flows.copy(entry, member)
    wanted: Json = {
        "table": copy.table,
        "priority": copy.priority,
        "match": match_text(matches.parse(copy.match).wire),
        "actions": _explained(switch, member, copy.actions),
        "cookie": f"{copy.cookie:#x}",
    }
    result["wanted"] = wanted
    if member.index not in installed:
        return {**result, "state": "no answer"}
    said = installed[member.index]
    if said is None:
        return {**result, "state": "missing"}
    there: Json = {
        "table": said.table,
        "priority": said.priority,
        "match": nxm_text(said.match),
        "actions": _explained(switch, member, said.actions),
        "cookie": f"{said.cookie:#x}",
    }
    state = "installed" if there == wanted else "differs"
    result["installed"] = {
        **there,
        "idle_timeout": said.idle_timeout,
        "hard_timeout": said.hard_timeout,
        "idle_age": said.idle_age,
        "packets": said.packets,
        "octets": said.octets,
    }
    return {**result, "state": state}


def _explained(switch: BigSwitch, member: Member, actions: bytes) -> list[Json]:
    """Each action, with a note on what it does on this switch (None if it needs none)."""
    return [
        {"text": action_text(action), "note": _note(switch, member, action)}
        for action in split_actions(actions)
    ]


def _note(switch: BigSwitch, member: Member, action: bytes) -> Optional[str]:
    if len(action) == 8 and action[:2] == of.OFPAT_OUTPUT.to_bytes(2, "big"):
        port = int.from_bytes(action[4:6], "big")
        if port == member.ports.tunnel:
            return "into the tunnel"
        if member.ports.numbered(port):
            return f"port {switch.topology.numbers.number(member.index, port)} of the big switch"
    elif len(action) == 24 and action[4:10] == _LOAD:
        field, value = int.from_bytes(action[12:16], "big"), int.from_bytes(action[16:24], "big")
        if field == nx.NXM_NX_TUN_ID:
            return _key_note(value)
        if field == nx.NXM_NX_TUN_IPV4_DST and value <= 0xFFFFFFFF:
            owners = [m.index for m in switch.topology.members.values() if m.tunnel_ip == value]
            owner = f"switch {owners[0]}" if owners else "no switch"
            return f"to {_ip(value)}, {owner}"
    return None


def _key_note(key: int) -> str:
    if key == KEY_DISCOVERY:
        return "tunnel key: discovery"
    if key == KEY_ALL:
        return "tunnel key: out of all ports there"
    if key == KEY_FLOOD:
        return "tunnel key: flood there"
    if key >= KEY_QUEUES:
        return "tunnel key: out of a queue there"
    return f"tunnel key: out of port {key} there"
