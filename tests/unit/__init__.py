"""Pure tests: no switch, no running POX, no network."""
