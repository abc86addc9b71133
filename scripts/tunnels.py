"""The tunnel ports of a userspace network, and the underlay that carries the tunnels."""

import command
from failure import Failure
from net import UserspaceNet
from node import UserspaceSwitch
from userspace_ovs import UNDERLAY_BRIDGE

FABRIC = "fabric"
"""The Linux bridge that joins the switches below their tunnels."""


class Tunnels:
    """The tunnel ports tun1, tun2, ... of the switches of `net`.

    Nothing is remembered here.  Each switch is asked what it has, since Mininet's `switch s2 stop`
    takes that away.
    """

    def __init__(self, net: UserspaceNet) -> None:
        self.switches = net.switches

    def add(self, count: int, type: str) -> None:
        """Give the first `count` switches a tunnel port; a port with other settings is changed.

        type: "gre", "vxlan" or "geneve".

        Raises Failure when there are fewer switches or one of them is stopped.
        """
        if count > len(self.switches):
            raise Failure(
                f"the network has {len(self.switches)} switches, not {count}: "
                f"'agg_net.py --switches {count}'"
            )
        for number, switch in enumerate(self.switches[:count], 1):
            if not switch.ovs.forwarding:
                raise Failure(f"{switch.name} is stopped: 'switch {switch.name} start' in Mininet")
            self._add_underlay(number, switch)
            port = f"tun{number}"
            found = switch.ovs.vsctl(
                "--bare", "--columns=type", "find", "interface", f"name={port}"
            ).strip()
            if not found:
                switch.ovs.add_tunnel(switch.name, port, f"172.16.0.{number}", type)
            else:
                switch.ovs.vsctl("set", "interface", port, f"type={type}", "lldp:enable=false")
            switch.ovs.enforce_controller_settings(switch.name)

    def remove(self) -> None:
        """Remove all tunnel ports, and the underlay."""
        for number, switch in enumerate(self.switches, 1):
            if switch.ovs.forwarding:
                switch.ovs.vsctl("--if-exists", "del-port", switch.name, f"tun{number}")
                switch.ovs.remove_underlay()
            if _has_link(f"under{number}"):
                command.check("ip", "link", "del", f"under{number}")

    def _add_underlay(self, number: int, switch: UserspaceSwitch) -> None:
        """Join `switch` to the fabric with the tunnel IP 172.16.0.`number`, unless it is."""
        if not _has_link(FABRIC):
            command.check("ip", "link", "add", FABRIC, "type", "bridge")
            command.check("ip", "link", "set", FABRIC, "up")
        fabric_end, switch_end = f"under{number}", f"{switch.name}-under"
        if not _has_link(fabric_end):
            command.check(
                *("ip", "link", "add", fabric_end, "type", "veth"),
                *("peer", "name", switch_end, "netns", str(switch.pid)),
            )
            command.check("ip", "link", "set", fabric_end, "master", FABRIC, "up")
        if UNDERLAY_BRIDGE not in switch.ovs.vsctl("list-br").split():
            switch.ovs.add_underlay(switch_end, f"172.16.0.{number}/24")


def _has_link(name: str) -> bool:
    return command.run("ip", "link", "show", name).returncode == 0
