"""edge.aggregator: many Open vSwitch switches look like one OpenFlow 1.0 switch."""
