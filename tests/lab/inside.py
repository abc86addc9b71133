"""A component for tests, beside edge.aggregator: shows what it holds inside.

    ./pox.py edge.aggregator --ips=... lab.inside

A test connects to the abstract unix socket NAME (which belongs to the network namespace, so there
is nothing to clean up), sends a line, and is answered with a line of JSON:

    sizes   how many things all the containers of all of edge's objects hold, and how many objects
            of each of edge's classes there are: {"edge.switch.cookies.Cookies._entry_of": 3,
            ...}
    flows   all that has to be on each switch, translated anew: {"1": [[table, priority, match,
            cookie, actions], ...], ...}, match (NXM; none for copies of flows, whose cookie is
            theirs alone) and actions in hexadecimal
    unreached   the switches from which each tunnel IP is not reached: {"172.16.0.1": [3], ...}

It is answered by a task of POX's own scheduler, so between two turns of all others.
"""

import gc
import json
import socket
from collections import Counter
from collections.abc import Iterator, Sized
from ipaddress import IPv4Address
from typing import Any

from pox.core import core
from pox.lib.recoco import Select, Task

NAME = "\0lab.inside"


def sizes() -> dict[str, int]:
    """Return what all of edge's objects hold, by class and attribute, and how many there are."""
    # edge.garbage sets aside what survives a full collection: neither this one nor get_objects()
    # would look at it.
    _unfreeze()
    gc.collect()
    _unfreeze()
    found: Counter = Counter()
    for thing in gc.get_objects():
        kind = type(thing)
        if not str(getattr(kind, "__module__", "")).startswith("edge"):
            continue
        name = f"{kind.__module__}.{kind.__qualname__}"
        found[name] += 1
        for attribute, value in _attributes(thing):
            if isinstance(value, Sized) and not isinstance(value, (str, bytes)):
                found[f"{name}.{attribute}"] += len(value)
    return dict(found)


def _unfreeze() -> None:
    if hasattr(gc, "unfreeze"):  # not with PyPy
        gc.unfreeze()


def _attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    yield from getattr(thing, "__dict__", {}).items()
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for attribute in (slots,) if isinstance(slots, str) else slots:
            if hasattr(thing, attribute):
                yield attribute, getattr(thing, attribute)


def flows() -> dict[str, list]:
    """Return what has to be on each ready switch: its service rules, and a copy of each flow."""
    from edge.south import translate

    topology, flows = core.aggregator.big.topology, core.aggregator.big.flows
    wanted: dict[str, list] = {}
    for member in topology.ready_members():
        rules = wanted[str(member.index)] = [
            [rule.table, rule.priority, rule.match.hex(), 0, actions.hex()]
            for rule, actions in member.wanted_rules().items()
        ]
        ingress = topology.ingress_of(member)
        for entry in flows.table:
            if member in flows.holders(entry):
                copy = flows.copy(entry, member)
                actions = translate.translate(entry.actions, ingress)
                rules.append([copy.table, copy.priority, "", copy.cookie, actions.hex()])
    return wanted


def unreached() -> dict[str, list]:
    """Return from where no probes to each tunnel IP come through."""
    discovery = core.aggregator.big.discovery
    return {
        str(IPv4Address(ip)): sorted(member.index for member in discovery.unreached(ip))
        for ip in discovery.ips
    }


class Server(Task):
    """Answers one connection after the other."""

    def __init__(self) -> None:
        super().__init__()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(NAME)
        self._listener.listen(4)

    def run(self) -> Any:
        while core.running:
            yield Select([self._listener], [], [])
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(5)
                question = connection.makefile().readline().strip()
                answer = {"sizes": sizes, "flows": flows, "unreached": unreached}[question]()
                connection.sendall(json.dumps(answer).encode() + b"\n")


def launch(dead: str = "", audit: str = "") -> None:
    """Answer the test.

    --dead=S    take a switch for dead that has been lost for S seconds, not for some minutes
    --audit=S   look at all flow entries once in S seconds, not once in some fifty
    """
    if dead:
        from edge.switch import expiry

        expiry.DEAD = float(dead)
    if audit:
        from edge.switch import audit as audit_module

        audit_module.ROUND = float(audit)
    Server().start()
