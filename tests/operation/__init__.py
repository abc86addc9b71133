"""Operation of the big switch: ovs-ofctl, several controllers, port numbers, tunnels, its log.

Where a plain Open vSwitch bridge has the same thing, such as the management port (ptcp:), both
switches are told the same and must answer the same (`Both` of the differential suite).
"""
