"""
The service rules: what every switch has, whatever the controller does.

Three tables: where a packet enters, where it comes out of a tunnel, and the controller's flows.
Tunnel keys from 1 are the egress port of the receiving switch.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow import actions, flowmods
from edge.south.xids import new_xid

TABLE_INGRESS, TABLE_REMOTE, TABLE_OPENFLOW, TABLE_LOWEST = range(4)

# The cookie of the service rules.
SERVICE = 0

# Keys of the tunnels between the switches.  Keys from 1 are the egress port of the receiver.
KEY_DISCOVERY = 0
KEY_ALL = 0x7E
KEY_FLOOD = 0x7F
# A port and one of its queues share a key of their own, handed out from here on.
KEY_QUEUES = 0x100

_SERVICE_PRIORITY = of.OFP_DEFAULT_PRIORITY
# A flow of the controller's with priority 0 is in a table of its own, above that table's miss
# rule (see service_rules).
_LOWEST_PRIORITY = 1


class Rule(NamedTuple):
    """Where a service rule is: with its actions it is the whole rule."""

    table: int
    priority: int
    match: bytes


def service_rules(
    tunnel_port: Optional[int],
    ports: Iterable[int],
    left_out: Iterable[int],
    queue_keys: Mapping[tuple[int, int], int],
    lowest: bool,
) -> dict[Rule, bytes]:
    """
    The rules that a switch has whatever the controller does.

    tunnel_port: the switch's tunnel port, None if it has none
    ports: the ports that the big switch has
    left_out: the ports that it has not: nothing comes in there, and KEY_ALL does not lead there
    queue_keys: (port, queue) -> tunnel key, for queues that other switches' flows use
    lowest: True once there has been a flow of priority 0: these have a table of their own, since
        their priority is that of the table-miss rule
    """
    ports, left_out = sorted(ports), sorted(left_out)
    controller = actions.output(of.OFPP_CONTROLLER, 0xFFFF)
    rules = {
        Rule(TABLE_INGRESS, 0, b""): actions.resubmit(TABLE_OPENFLOW),
        Rule(TABLE_OPENFLOW, 0, b""): actions.resubmit(TABLE_LOWEST) if lowest else controller,
    }
    if lowest:
        rules[Rule(TABLE_LOWEST, 0, b"")] = controller
    for port in left_out:
        rules[Rule(TABLE_INGRESS, _SERVICE_PRIORITY, flowmods.match_in_port(port))] = b""
    if tunnel_port is None:
        return rules

    def remote(key: int, does: bytes) -> None:
        rules[Rule(TABLE_REMOTE, _SERVICE_PRIORITY, flowmods.match_tunnel_key(key))] = does

    rules[Rule(TABLE_INGRESS, _SERVICE_PRIORITY, flowmods.match_in_port(tunnel_port))] = (
        actions.resubmit(TABLE_REMOTE)
    )
    remote(KEY_DISCOVERY, controller)
    for port in ports:
        remote(port, actions.output(port))
    for (port, queue), key in queue_keys.items():
        remote(key, actions.enqueue(port, queue))
    everywhere = [of.OFPP_ALL] if not left_out else ports
    remote(KEY_ALL, b"".join(map(actions.output, everywhere)))
    remote(KEY_FLOOD, actions.output(of.OFPP_FLOOD))
    return rules


def table_and_priority(priority: int) -> tuple[int, int]:
    """Where on a switch a flow of this priority is."""
    if priority:
        return TABLE_OPENFLOW, priority
    return TABLE_LOWEST, _LOWEST_PRIORITY


class InstalledRules:
    """The service rules that are on one switch."""

    def __init__(self) -> None:
        self._rules: dict[Rule, bytes] = {}

    def read(self, rules: dict[Rule, bytes]) -> None:
        """The switch has told which it has."""
        self._rules = rules

    def update(self, wanted: dict[Rule, bytes]) -> list[bytes]:
        """Return the flow-mods that make the difference; these rules are there then."""
        # Deepest table first: a rule must not send packets where nothing is ready for them.
        changes = []
        for rule in sorted(wanted, reverse=True):
            if self._rules.get(rule) != wanted[rule]:
                command = of.OFPFC_MODIFY_STRICT if rule in self._rules else of.OFPFC_ADD
                changes.append(_change(command, rule, wanted[rule]))
        for rule in sorted(self._rules.keys() - wanted.keys()):
            changes.append(_change(of.OFPFC_DELETE_STRICT, rule))
        self._rules = wanted
        return changes


def _change(command: int, rule: Rule, does: bytes = b"") -> bytes:
    # We never delete the table-miss rule of a table while the switch is up.  Somebody else who does
    # is noticed, since the switch tells it.
    flags = 0 if rule.priority else of.OFPFF_SEND_FLOW_REM
    return flowmods.nicira_flow_mod(
        new_xid(), command, rule.table, rule.match, SERVICE, rule.priority, does, flags
    )


def silenced(rule: Rule) -> bytes:
    """The flow-mod that has the switch not tell when this table-miss rule is deleted."""
    return flowmods.nicira_flow_mod(new_xid(), of.OFPFC_ADD, rule.table, rule.match, SERVICE)
