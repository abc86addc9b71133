"""POX's help for a component, on today's Pythons."""

import inspect
import sys
import types


def repair_help() -> None:
    """Let ./pox.py help --COMPONENT work; without effect unless that is what runs.

    POX: pox/help.py:34 calls inspect.getargspec(), which is gone since Python 3.11, and which
    before that refuses functions with annotations, such as our launch().

    Here: it gets the first four parts of inspect.getfullargspec(), which are the same. To be called
    when a component is imported, since help does no more with it than that.
    """
    helper = sys.modules.get("pox.help")
    if helper is not None:
        helper.inspect = types.SimpleNamespace(
            getdoc=inspect.getdoc,
            getargspec=lambda function: inspect.getfullargspec(function)[:4],
        )
