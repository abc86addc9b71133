"""Creates POX's core, which modules of POX need when they are imported. It never goes up here."""

import pox.core

if pox.core.core is None:
    pox.core.initialize(handle_signals=False)
