"""Pure tests: no switch, no POX that runs, no network."""
