"""Creates POX's core, which modules of POX need when they are imported. It never goes up here."""

from collections import deque

import pox.core
import pytest

if pox.core.core is None:
    pox.core.initialize(handle_signals=False)


@pytest.fixture
def turns(monkeypatch):
    """The callbacks for the ends of turns."""
    from edge import poxfixes
    from edge.north import connections
    from edge.south import session
    from edge.switch import topology

    turns = deque()
    for module in (poxfixes, connections, session, topology):
        monkeypatch.setattr(module, "end_of_turn", turns.append)
    return turns
