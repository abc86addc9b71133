"""The big switch on real Open vSwitch with real GRE tunnels, and the commands that a user types."""
