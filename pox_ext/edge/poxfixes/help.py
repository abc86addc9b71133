"""POX's help for a component, on today's Pythons."""

import inspect
import sys
import types
from typing import Any


def repair_help() -> None:
    """Make `./pox.py help --COMPONENT` work. Does nothing when POX runs anything else.

    POX: pox/help.py:34 calls inspect.getargspec(). Python 3.11 has no such function, and earlier
    Pythons refuse functions with annotations, such as our launch().

    Here: help gets the first four parts of inspect.getfullargspec(), which are the same. A
    component calls this when it is imported, since help imports a component and does not launch it.
    """
    helper: Any = sys.modules.get("pox.help")  # POX has no type hints
    if helper is not None:
        helper.inspect = types.SimpleNamespace(
            getdoc=inspect.getdoc,
            getargspec=lambda function: inspect.getfullargspec(function)[:4],
        )
