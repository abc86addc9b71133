"""The nodes of the network: hosts, switches, and the controller that runs elsewhere.

There are two kinds of switches.  A `KernelSwitch` is a bridge of the machine's own Open vSwitch.  A
`UserspaceSwitch` runs an Open vSwitch of its own, and needs no kernel module.
"""

import os
import subprocess
import time
from collections.abc import Sequence
from typing import Optional

from mininet.node import Controller, Host, OVSSwitch, RemoteController, Switch

import command
from first_contact import FirstContact, first_contact
from machine_ovs import MARK
from options import Address
from userspace_ovs import OVSError, UserspaceOVS

HOST_MTU = 1450
"""Bytes.  The underlay has 1500, of which GRE takes 42, and VXLAN and Geneve take 50."""
INACTIVITY_PROBE = 10_000
"""Milliseconds of silence after which a switch asks its controller for a sign of life."""


def bridge_mac(dpid: int) -> str:
    """Return the address of the LOCAL port of the switch with this datapath id.

    Without one, Open vSwitch takes the lowest address of the bridge's ports, which changes with
    them.
    """
    return f"02:61:67:67:{dpid >> 8 & 0xFF:02x}:{dpid & 0xFF:02x}"


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
    """A bridge of the machine's own Open vSwitch.

    controller: where the controller listens, now or later.
    """

    def __init__(self, name: str, controller: Address, **params: object) -> None:
        super().__init__(name, failMode="secure", protocols="OpenFlow10", **params)
        self.controller_address = controller
        self._waiting: Optional[subprocess.Popen] = None

    def bridgeOpts(self) -> str:
        """Return the settings of the bridge and of its controller.

        The bridge gets the mark by which it is found again.
        """
        return (
            f"{super().bridgeOpts()} external-ids:{MARK}=agg_net"
            f' other-config:hwaddr=\\"{bridge_mac(int(self.dpid, 16))}\\"'
            f" -- set controller {self} inactivity_probe={INACTIVITY_PROBE}"
        )

    def start(self, controllers: Sequence[Controller]) -> None:
        """Add the bridge, with its ports and its controller.

        Open vSwitch obeys the controller's settings at once where the controller is to be on this
        machine.  Otherwise it does when the controller connects for the first time.
        """
        contact = first_contact(self.controller_address)
        if contact is not None:
            with contact:
                super().start(controllers)
                contact.greet(int(self.dpid, 16))
                self.cmd("ovs-vsctl", *self._enforcing)
        else:
            super().start(controllers)
            connected = ["wait-until", "controller", self.name, "is_connected=true", "--"]
            self._waiting = subprocess.Popen(
                command.dying_with_parent(["ovs-vsctl", *connected, *self._enforcing]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def _enforcing(self) -> list[str]:
        """A change of the bridge, after which Open vSwitch obeys its controller's settings.

        See UserspaceOVS.enforce_controller_settings.
        """
        return ["set", "bridge", self.name, f"external-ids:settings={time.monotonic_ns()}"]

    def stop(self, deleteIntfs: bool = True) -> None:
        """Remove the bridge, and the interfaces when `deleteIntfs` is true."""
        self._stop_waiting()
        super().stop(deleteIntfs)

    def terminate(self) -> None:
        """End what runs for the switch.  Mininet calls this when it stops many at once."""
        self._stop_waiting()
        super().terminate()

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.kill()
            self._waiting.wait()
            self._waiting = None


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
        ports = [self.intfs[number].name for number in sorted(self.intfs) if number > 0]
        dpid = int(self.dpid, 16)
        with FirstContact(link) as contact:
            self.ovs.add_bridge(
                self.name,
                dpid=dpid,
                controller=f"unix:{link}",
                ports=ports,
                mac=bridge_mac(dpid),
                inactivity_probe=INACTIVITY_PROBE,
            )
            contact.greet(dpid)
            self.ovs.enforce_controller_settings(self.name)
        os.symlink(self.relay, link)

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
