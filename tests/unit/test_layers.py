"""Rules for the source that the contracts of import-linter (pyproject.toml) cannot express."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.aggregator import REPOSITORY

from edge.south import session

ROOT = Path(REPOSITORY, "pox_ext")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.glob("edge/**/*.py")
}

PURE = {"collections", "enum", "functools", "ipaddress", "itertools", "math", "struct", "typing"}
"""Modules of the standard library that do no I/O and know no time."""

SENDERS = {"edge.south.session", "edge.north.connections", "edge.north.workers", "edge.web.server"}
"""Modules outside of poxfixes that hold connections (those of web.server are browsers')."""

ADDRESSES = {"edge.switch.arrivals"}
"""Modules that ask a socket for the address of its far end, and nothing else."""


def parsed(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """Yield what a module imports: at its top, in a function, or for type checkers only.

    `from a import b` gives a.b if that is a module of edge, or if a is not; otherwise a.
    """
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                base = package.split(".")[: len(package.split(".")) - node.level + 1]
                origin = ".".join([*base, *([origin] if origin else [])])
            for alias in node.names:
                name = f"{origin}.{alias.name}"
                yield name if name in FILES or origin not in FILES else origin


GRAPH = {module: set(imports(module)) for module in FILES}


def outermost(name: str) -> str:
    return name.partition(".")[0]


def test_imports_are_found():
    """Absolute imports, relative imports, and names that a package itself defines."""
    assert "edge.openflow.messages" in GRAPH["edge.south.session"]
    assert "edge.poxfixes.hub" in GRAPH["edge.poxfixes.listener"]
    assert "edge.poxfixes" in GRAPH["edge.south.session"]
    assert "struct" in GRAPH["edge.openflow.match"]
    assert "pox.openflow.libopenflow_01" in GRAPH["edge.openflow.match"]


def test_no_imports_make_a_circle():
    graph = {module: names & FILES.keys() - {module} for module, names in GRAPH.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("module", sorted(m for m in FILES if m.startswith("edge.openflow")))
def test_openflow_is_bytes_and_nothing_else(module):
    others = {
        name
        for name in GRAPH[module]
        if not name.startswith("edge.openflow") and outermost(name) not in PURE
    }
    assert others <= {"pox.openflow.libopenflow_01"}


def test_nothing_but_what_has_connections_knows_sockets():
    """Only poxfixes writes to sockets. So a module that imports none of these cannot send."""
    low = {"asyncio", "fcntl", "http", "select", "selectors", "socket", "socketserver", "ssl"}
    knows_sockets = {
        module
        for module, names in GRAPH.items()
        if {outermost(name) for name in names} & low
        or "edge.poxfixes.outbox" in names
        or "Outbox" in {node.id for node in ast.walk(parsed(module)) if isinstance(node, ast.Name)}
    }
    assert {m for m in knows_sockets if not m.startswith("edge.poxfixes")} <= SENDERS | ADDRESSES


def test_nothing_imports_pox_s_web_server_but_what_is_for_it():
    """It does not load on Python 3.13."""
    users = {module for module in FILES for name in GRAPH[module] if name.startswith("pox.web")}
    assert users == {"edge.poxfixes.webserver"}
    assert {m for m in FILES if "edge.poxfixes.webserver" in GRAPH[m]} == {"edge.web.handler"}
    at_the_top = {
        alias.name
        for node in parsed("edge.dashboard").body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert "Handler" not in at_the_top


def test_messages_leave_where_connections_are():
    """Other modules hand their messages to a member or to a controller's connection."""
    found = {
        (module, node.func.value.attr)
        for module in FILES
        if not module.startswith("edge.poxfixes")
        for node in ast.walk(parsed(module))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("send", "send_fast", "sendall", "sendto", "flush")
        and isinstance(node.func.value, ast.Attribute)
    }
    senders = {
        module
        for module, attribute in found
        if attribute in ("connection", "io_worker", "worker", "sock", "socket", "outbox")
    }
    assert "edge.south.session" in senders
    assert senders <= SENDERS


def test_only_a_switch_s_session_and_arrivals_know_its_connection():
    """Whoever else has something for a switch gives it to Session.send."""
    users = {
        module
        for module in FILES
        if module.startswith(("edge.switch", "edge.south"))
        for node in ast.walk(parsed(module))
        if isinstance(node, ast.Attribute) and node.attr == "connection"
    }
    assert users == {"edge.south.session", "edge.switch.arrivals"}


def test_the_state_machine_of_a_switch_is_told_the_time_and_does_no_io():
    """Liveness uses constants and states of its module, and math. All else it gets as arguments."""
    (liveness,) = (
        node
        for node in parsed(session.__name__).body
        if isinstance(node, ast.ClassDef) and node.name == "Liveness"
    )
    used = {
        node.id
        for node in ast.walk(liveness)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    world = {name for name in used if hasattr(session, name)}
    assert {"State", "Verdict"} <= world
    allowed = {
        name
        for name in world
        if isinstance(getattr(session, name), (int, float))
        or name in ("State", "Verdict", "math", "Optional")
    }
    assert world == allowed
