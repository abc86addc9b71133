"""A POX component that ends POX before POX's main thread waits for the end."""

import time

from pox.core import core


def launch(repaired: bool = False, takes: str = "0") -> None:
    """
    repaired: whether POX is repaired.
    takes: have one of POX's tasks end it, and this component need so many seconds for its own end.
    """
    if repaired:
        from edge import poxfixes

        poxfixes.install()
    if float(takes):
        core.addListenerByName("GoingDownEvent", lambda event: time.sleep(float(takes)))
        core.addListenerByName("UpEvent", lambda event: core.callLater(core.quit))
    else:
        core.addListenerByName("GoingUpEvent", lambda event: core.quit())
