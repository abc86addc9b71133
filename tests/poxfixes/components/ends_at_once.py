"""A POX component that ends POX before POX's main thread waits for the end."""

from pox.core import core


def launch(repaired: bool = False) -> None:
    """
    repaired: whether POX is repaired.
    """
    if repaired:
        from edge import poxfixes

        poxfixes.install()
    core.addListenerByName("GoingUpEvent", lambda event: core.quit())
