"""POX's core, which modules of POX want when they are imported; it never goes up here."""

import pox.core
from hypothesis import HealthCheck, settings

if pox.core.core is None:
    pox.core.initialize(handle_signals=False)

# The machine may be busy with other things: time says nothing here.
settings.register_profile("unit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")
