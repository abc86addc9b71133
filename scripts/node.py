"""The nodes of the network: hosts, switches, and the controller that runs elsewhere.

There are two kinds of switches.  A `KernelSwitch` is a bridge of the machine's own Open vSwitch.  A
`UserspaceSwitch` runs an Open vSwitch of its own, and needs no kernel module.
"""

import os
from collections.abc import Sequence
from typing import Callable

from mininet.node import Controller, Host, OVSSwitch, RemoteController, Switch
from mininet.util import errRun

from machine_ovs import MARK
from userspace_ovs import OVSError, UserspaceOVS

HOST_MTU = 1450
"""Bytes.  The underlay has 1500, of which GRE takes 42, and VXLAN and Geneve take 50."""
INACTIVITY_PROBE = 10_000
"""Milliseconds of silence after which a switch asks its controller for a sign of life."""


class QuietHost(Host):
    """A host that sends nothing unasked and whose largest frames fit into a tunnel."""

    def config(self, **params: object) -> dict:
        """Configure the interfaces.  Mininet calls this."""
        result = super().config(**params)
        # IPv6 would send router solicitations and multicast reports by itself.
        self.cmd("sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
        self.cmd(f"ip link set {self.defaultIntf()} mtu {HOST_MTU}")
        # The kernel leaves checksums to the network card, and a tunnel has none: frames would
        # arrive with wrong checksums.
        self.cmd(f"ethtool -K {self.defaultIntf()} tx off")
        return result


class SilentController(RemoteController):
    """A controller that the user starts elsewhere, before or after the network."""

    def checkListening(self) -> None:
        """Do not probe the controller, as Mininet would: it may be started later."""


class KernelSwitch(OVSSwitch):
    """A bridge of the machine's own Open vSwitch."""

    def __init__(self, name: str, **params: object) -> None:
        super().__init__(name, failMode="secure", protocols="OpenFlow10", **params)

    def bridgeOpts(self) -> str:
        """Return the settings of the bridge, with the mark by which it is found again."""
        return f"{super().bridgeOpts()} external-ids:{MARK}=agg_net"

    @classmethod
    def batchStartup(
        cls, switches: Sequence["KernelSwitch"], run: Callable = errRun
    ) -> Sequence["KernelSwitch"]:
        """Add all bridges, with their ports and their controller.  Mininet calls this."""
        started = super().batchStartup(switches, run)
        for switch in started:
            # Open vSwitch ignores this in the transaction that creates the controller's record.
            switch.vsctl("set controller", switch, f"inactivity_probe={INACTIVITY_PROBE}")
        return started


class UserspaceSwitch(Switch):
    """A userspace Open vSwitch in the network namespace of this Mininet node.

    rundir: the directory that holds one directory per switch.
    relay: path of the unix socket that leads to the controller.
    """

    def __init__(self, name: str, rundir: str, relay: str, **params: object) -> None:
        self.controlIntf = None
        super().__init__(name, **dict(params, inNamespace=True))
        self.ovs = UserspaceOVS(name, rundir, netns_pid=self.pid)
        self.relay = relay

    def start(self, _controllers: Sequence[Controller]) -> None:
        """Start the daemons and add the bridge; the interfaces to the hosts become its ports."""
        self.ovs.start()
        # `s1 ovs-ofctl dump-flows s1` at the prompt has to find this Open vSwitch.
        self.cmd(f"export OVS_RUNDIR={self.ovs.directory} OVS_DBDIR={self.ovs.directory}")
        # Open vSwitch connects to no unix socket outside its own directory.
        link = os.path.join(self.ovs.directory, "controller")
        os.symlink(self.relay, link)
        ports = [self.intfs[number].name for number in sorted(self.intfs) if number > 0]
        self.ovs.add_bridge(
            self.name, dpid=int(self.dpid, 16), controller=f"unix:{link}", ports=ports
        )
        # Open vSwitch ignores this in the transaction that creates the controller's record.
        self.ovs.vsctl("set", "controller", self.name, f"inactivity_probe={INACTIVITY_PROBE}")

    def connected(self) -> bool:
        """Return whether the switch is connected to its controller."""
        return "true" in self.ovs.vsctl("get", "controller", self.name, "is_connected")

    def dpctl(self, command: str, *args: str) -> str:
        """Run `ovs-ofctl COMMAND` on this switch, for Mininet's command `dpctl`."""
        try:
            return self.ovs.ofctl(command, self.name, *args)
        except OVSError as error:
            return f"{error}\n"

    def stop(self, deleteIntfs: bool = True) -> None:
        """End the daemons, and remove the interfaces when `deleteIntfs` is true."""
        self.ovs.stop()
        super().stop(deleteIntfs)
