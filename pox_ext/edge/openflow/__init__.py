"""OpenFlow 1.0 and its Nicira extensions as bytes: pure functions, in both directions."""
