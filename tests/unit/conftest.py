"""POX's core, which modules of POX want when they are imported; it never goes up here."""

import pox.core

if pox.core.core is None:
    pox.core.initialize(handle_signals=False)
