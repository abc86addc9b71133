"""
The big switch as values that can be written as JSON: what the dashboard shows.

Pure functions of what the big switch holds; docs/dashboard.md explains the values.  Those that may
have to look at many things are generators: they yield now and then, so that whoever runs them can
do something else in between, and return the value.
"""

import time
from collections.abc import Generator
from ipaddress import IPv4Address
from typing import Any, NamedTuple, Optional

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

Json = dict[str, Any]
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
_LOAD = nx.NX_VENDOR_ID.to_bytes(4, "big") + nx.NXAST_REG_LOAD.to_bytes(2, "big")


def _words(bits: int, names: dict[int, str]) -> list[str]:
    return [name for bit, name in names.items() if bits & bit]


def _dpid(dpid: int) -> str:
    return f"{dpid:016x}"


def _ip(ip: Optional[int]) -> Optional[str]:
    return None if ip is None else str(IPv4Address(ip))


def name_text(name: bytes) -> str:
    """A name that a switch has given, without what could change how other text looks."""
    text = name.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


# --- the big switch -------------------------------------------------------------------------------


def overview(datapath: Datapath) -> Pieces:
    """All but the flows themselves."""
    switch = datapath.big
    switches = []
    for member in sorted(switch.members.values(), key=lambda member: member.index):
        switches.append(_member(switch, member))
        yield
    tunnels = []
    for ip in switch.discovery.ips:
        tunnels.append(_tunnel(switch, ip))
        yield
    return {
        "datapath_id": _dpid(datapath.dpid),
        "max_ports": switch.numbers.max_ports,
        "flows": len(switch.table),
        "controllers": _controllers(datapath),
        "switches": switches,
        "tunnels": tunnels,
        "counts": counts(switch),
    }


def counts(switch: BigSwitch) -> Json:
    """What the big switch has done since it was started."""
    counted = switch.counts
    return {
        "flow_mods": counted.flow_mods,
        "packet_outs": counted.packet_outs,
        "packet_ins": counted.packet_ins,
        "errors": counted.errors,
        "refusals": counted.refusals,
        "resynchronisations": counted.resynchronisations,
        "barriers": sum(counted.barriers.counts),
    }


def _member(switch: BigSwitch, member: Member) -> Json:
    state = "up" if member.ready else "connecting" if member.connection is not None else "lost"
    tunnel = member.ports.get(member.tunnel_port)
    return {
        "index": member.index,
        "dpid": _dpid(member.dpid),
        "state": state,
        "tunnel_port": member.tunnel_port,
        "tunnel_name": name_text(tunnel.name) if tunnel is not None else None,
        "tunnel_ip": _ip(member.tunnel_ip),
        "ports": [_port(switch, member, port) for port in sorted(member.own_ports())],
        "left_out": [
            {"port": port, "name": name_text(member.ports[port].name)}
            for port in sorted(member.left_out())
        ],
    }


def _port(switch: BigSwitch, member: Member, port: int) -> Json:
    number = switch.numbers.number(member.index, port)
    own = member.ports[port]
    north = switch.ports.get(number, own)
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
        # Nobody reaches an address that nobody has.
        "unreached": unreached if owner is not None else [],
    }


def _controllers(datapath: Datapath) -> list[Json]:
    controllers = [
        _controller(f"{host}:{port}", "controller", connection)
        for (host, port), connection in (
            (each.address, each.connection) for each in datapath.upstreams
        )
    ]
    for connection in datapath.connections:
        if connection.service:
            controllers.append(_controller(connection.name, "client", connection))
    return controllers


def _controller(name: str, kind: str, connection: Optional[ControllerConnection]) -> Json:
    connected = connection is not None and connection.greeted and not connection.closed
    return {
        "name": name,
        "kind": kind,
        "connected": connected,
        "role": _ROLES[connection.role] if connected else None,
    }


# --- flows ----------------------------------------------------------------------------------------


class Query(NamedTuple):
    """
    Which flows are wanted.

    search: words that must all be in a flow's text (see flow_text)
    sort: one of SORTS
    descending: the largest first
    offset, limit: which of the flows found, in this order
    """

    search: str
    sort: str
    descending: bool
    offset: int
    limit: int


SORTS = ("priority", "packets", "octets", "duration")


def flow_text(switch: BigSwitch, entry: FlowEntry) -> str:
    """
    A flow in words, each value followed by a comma: what a search looks through.

    That is the match and the actions as ovs-ofctl prints them, then the controller's cookie and
    the one on the switches.
    """
    return (
        f"priority={entry.priority},{match_text(entry.match.wire)},"
        f"actions={actions_text(entry.actions.wire)},"
        f"cookie={entry.cookie:#x},cookie={switch.cookies.cookie(entry):#x},"
    )


def flows(switch: BigSwitch, query: Query) -> Pieces:
    """A page of the flow table."""
    words = query.search.lower().split()
    found: list[tuple[float, FlowEntry]] = []
    for entry in list(switch.table):
        yield
        if entry not in switch.table:
            continue  # it has gone while we did something else
        if words:
            text = flow_text(switch, entry).lower()
            if not all(word in text for word in words):
                continue
        found.append((_sort_key(switch, entry, query.sort), entry))
    found.sort(key=lambda item: item[0], reverse=query.descending)
    now = time.monotonic()
    page = [entry for _, entry in found[query.offset : query.offset + query.limit]]
    return {
        "flows": len(switch.table),
        "found": len(found),
        "offset": query.offset,
        "page": [_flow(switch, entry, now) for entry in page if entry in switch.table],
    }


def _sort_key(switch: BigSwitch, entry: FlowEntry, sort: str) -> float:
    if sort == "priority":
        return entry.priority
    if sort == "duration":
        return -entry.created
    packets, octets = switch.counted(entry)
    return packets if sort == "packets" else octets


def _flow(switch: BigSwitch, entry: FlowEntry, now: float) -> Json:
    packets, octets = switch.counted(entry)
    return {
        "switch_cookie": f"{switch.cookies.cookie(entry):#x}",
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
        "switches": [member.index for member in switch.holders(entry)],
    }


# What a switch has said of a flow: what it has, None for nothing; it is missing for no answer.
Installed = dict[int, Optional[stats.FlowStats]]


def flow(switch: BigSwitch, entry: FlowEntry, installed: Installed) -> Json:
    """
    One flow, and what there is of it on each switch.

    installed: what the switches have said, by their index
    """
    members = sorted(switch.homes(entry), key=lambda member: member.index)
    return {
        **_flow(switch, entry, time.monotonic()),
        "copies": [_copy(switch, entry, member, installed) for member in members],
    }


def _copy(switch: BigSwitch, entry: FlowEntry, member: Member, installed: Installed) -> Json:
    result: Json = {"switch": member.index, "dpid": _dpid(member.dpid)}
    if not member.ready:
        return {**result, "state": "switch lost"}
    wanted = switch.copy(entry, member)
    result["wanted"] = {
        "table": wanted.table,
        "priority": wanted.priority,
        "match": match_text(matches.parse(wanted.match).wire),
        "actions": _explained(switch, member, wanted.actions),
        "cookie": f"{wanted.cookie:#x}",
    }
    if member.index not in installed:
        return {**result, "state": "no answer"}
    flow = installed[member.index]
    if flow is None:
        return {**result, "state": "missing"}
    result["installed"] = {
        "table": flow.table,
        "priority": flow.priority,
        "match": nxm_text(flow.match),
        "actions": _explained(switch, member, flow.actions),
        "cookie": f"{flow.cookie:#x}",
        "idle_timeout": flow.idle_timeout,
        "hard_timeout": flow.hard_timeout,
        "idle_age": flow.idle_age,
        "packets": flow.packets,
        "octets": flow.octets,
    }
    same = all(result["installed"][key] == value for key, value in result["wanted"].items())
    return {**result, "state": "installed" if same else "differs"}


def _explained(switch: BigSwitch, member: Member, actions: bytes) -> list[Json]:
    """Each action, with a note on what it means here."""
    return [
        {"text": action_text(action), "note": _note(switch, member, action)}
        for action in split_actions(actions)
    ]


def _note(switch: BigSwitch, member: Member, action: bytes) -> Optional[str]:
    if len(action) == 8 and action[:2] == of.OFPAT_OUTPUT.to_bytes(2, "big"):
        port = int.from_bytes(action[4:6], "big")
        if port == member.tunnel_port:
            return "into the tunnel"
        if member.numbered(port):
            return f"port {switch.numbers.number(member.index, port)} of the big switch"
    elif len(action) == 24 and action[4:10] == _LOAD:
        field, value = int.from_bytes(action[12:16], "big"), int.from_bytes(action[16:24], "big")
        if field == nx.NXM_NX_TUN_ID:
            return _key_note(value)
        if field == nx.NXM_NX_TUN_IPV4_DST and value <= 0xFFFFFFFF:
            owners = [m.index for m in switch.members.values() if m.tunnel_ip == value]
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
