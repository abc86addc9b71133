"""Transaction ids of what is sent to the switches."""

import itertools

_xids = itertools.count(1)


def new_xid() -> int:
    """Return a transaction id that no recent message to a switch has had; never 0."""
    return next(_xids) & 0xFFFFFFFF or new_xid()
