"""
The service rules: flow entries that every switch has, whatever the controller does.

Every packet enters in TABLE_INGRESS.  From there, packets out of a tunnel go to TABLE_REMOTE.
Packets from ports that the big switch does not have are dropped.  All others go to TABLE_OPENFLOW,
which holds the controllers' flows.  Once there has been a flow of priority 0, TABLE_LOWEST holds
the flows of priority 0.

A tunnel key from 1 to the largest port number is the egress port of the receiving switch.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Optional

import pox.openflow.libopenflow_01 as of

from edge.openflow import actions, flowmods
from edge.south.xids import new_xid

TABLE_INGRESS, TABLE_REMOTE, TABLE_OPENFLOW, TABLE_LOWEST = range(4)

# The cookie of the service rules.
SERVICE = 0

# Tunnel keys that are no port number.
KEY_DISCOVERY = 0
KEY_ALL = 0x7E
KEY_FLOOD = 0x7F
# Each key from here on stands for a port and one of its queues.
KEY_QUEUES = 0x100

_SERVICE_PRIORITY = of.OFP_DEFAULT_PRIORITY
# In TABLE_LOWEST: above the table-miss rule of that table.
_LOWEST_PRIORITY = 1


class Rule(NamedTuple):
    """A service rule without its actions."""

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
    left_out: the ports that the big switch does not have; packets from them are dropped, and
        KEY_ALL does not output to them
    queue_keys: (port, queue) -> tunnel key, for queues that other switches' flows use
    lowest: True once there has been a flow of priority 0.  Such flows are in TABLE_LOWEST, since in
        TABLE_OPENFLOW the table-miss rule has that priority.
    """
    ports, left_out = sorted(ports), sorted(left_out)
    controller = actions.output(of.OFPP_CONTROLLER, 0xFFFF)
    rules = {
        Rule(TABLE_INGRESS, 0, b""): actions.resubmit(TABLE_OPENFLOW),
        Rule(TABLE_OPENFLOW, 0, b""): actions.resubmit(TABLE_LOWEST) if lowest else controller,
    }
    if lowest:
        rules[Rule(TABLE_LOWEST, 0, b"")] = controller
    rules.update(map(left_out_rule, left_out))
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
        rules.update([queue_rule(port, queue, key)])
    everywhere = [of.OFPP_ALL] if not left_out else ports
    remote(KEY_ALL, b"".join(map(actions.output, everywhere)))
    remote(KEY_FLOOD, actions.output(of.OFPP_FLOOD))
    return rules


def queue_rule(port: int, queue: int, key: int) -> tuple[Rule, bytes]:
    """The rule, and its actions, by which frames with this tunnel key leave by this queue."""
    rule = Rule(TABLE_REMOTE, _SERVICE_PRIORITY, flowmods.match_tunnel_key(key))
    return rule, actions.enqueue(port, queue)


def left_out_rule(port: int) -> tuple[Rule, bytes]:
    """The rule that drops what comes in from a port that the big switch does not have."""
    return Rule(TABLE_INGRESS, _SERVICE_PRIORITY, flowmods.match_in_port(port)), b""


def table_and_priority(priority: int) -> tuple[int, int]:
    """The table and the priority that a flow of this priority has on a switch."""
    if priority:
        return TABLE_OPENFLOW, priority
    return TABLE_LOWEST, _LOWEST_PRIORITY


class InstalledRules:
    """The service rules that are on one switch."""

    def __init__(self) -> None:
        self._rules: dict[Rule, bytes] = {}

    def read(self, rules: dict[Rule, bytes]) -> None:
        """The switch has reported these service rules."""
        self._rules = rules

    def all(self) -> dict[Rule, bytes]:
        """The rules and their actions."""
        return dict(self._rules)

    def update(self, wanted: dict[Rule, bytes]) -> list[bytes]:
        """Return the flow-mods that turn the installed service rules into the wanted ones."""
        # The last table first: a rule must not resubmit packets to a table that is not ready.
        changes = []
        for rule in sorted(wanted, reverse=True):
            if self._rules.get(rule) != wanted[rule]:
                command = of.OFPFC_MODIFY_STRICT if rule in self._rules else of.OFPFC_ADD
                changes.append(_change(command, rule, wanted[rule]))
        for rule in sorted(self._rules.keys() - wanted.keys()):
            changes.append(_change(of.OFPFC_DELETE_STRICT, rule))
        self._rules = wanted
        return changes

    def add(self, rule: Rule, does: bytes) -> list[bytes]:
        """Return the flow-mod that adds one rule more; none if the rule is there."""
        if self._rules.get(rule) == does:
            return []
        self._rules[rule] = does
        return [_change(of.OFPFC_ADD, rule, does)]

    def remove(self, rule: Rule) -> list[bytes]:
        """Return the flow-mod that deletes one rule; none if the rule is not there."""
        if self._rules.pop(rule, None) is None:
            return []
        return [_change(of.OFPFC_DELETE_STRICT, rule)]


def _change(command: int, rule: Rule, does: bytes = b"") -> bytes:
    # The switch reports if another program deletes it.
    flags = of.OFPFF_SEND_FLOW_REM
    return flowmods.nicira_flow_mod(
        new_xid(), command, rule.table, rule.match, SERVICE, rule.priority, does, flags
    )


def silenced(rule: Rule) -> bytes:
    """The flow-mod after which the switch does not report the deletion of a table-miss rule."""
    return flowmods.nicira_flow_mod(new_xid(), of.OFPFC_ADD, rule.table, rule.match, SERVICE)
