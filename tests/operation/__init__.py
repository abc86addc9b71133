"""How the big switch is operated: ovs-ofctl, several controllers, numbers, tunnels, its log.

Where a plain Open vSwitch bridge has the same thing, its management port (ptcp:) for instance, both
are told the same and required to answer the same (`Both` of the differential suite).
"""
