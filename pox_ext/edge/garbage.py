"""
Python's garbage collector and a large flow table.

A full collection looks at every object, and so at every flow, over and over: with 200,000 flows
each is a pause of a quarter of a second.  Flows are in no reference cycles, so they need not be
looked at: after each full collection all that has survived is set aside (gc.freeze()).  What has
died in cycles since then, such as closed connections, is found when all is taken back.
"""

import gc

from edge.poxfixes import every

TAKE_BACK = 3600.0  # seconds


def install() -> None:
    """Set aside what survives full collections; without effect where Python cannot (PyPy)."""
    if not hasattr(gc, "freeze") or _collected in gc.callbacks:
        return
    gc.callbacks.append(_collected)
    every(TAKE_BACK, gc.unfreeze, "edge.aggregator garbage")


def _collected(phase: str, info: "dict[str, int]") -> None:
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()
