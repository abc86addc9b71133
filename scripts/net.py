"""The network as Mininet runs it, with kernel switches or with userspace switches."""

from functools import partial
from typing import Callable

from mininet.link import Intf
from mininet.net import Mininet
from mininet.node import Switch

import machine_ovs
from failure import Failure
from node import KernelSwitch, QuietHost, SilentController, UserspaceSwitch
from options import Address
from topo import AggregatorTopo


class AggregatorNet(Mininet):
    """The hosts and switches of an `AggregatorTopo`, and a controller that runs elsewhere.

    controller: where the controller listens.
    switch: makes a switch from a name and Mininet's parameters.
    """

    def __init__(
        self, switches: int, hosts: int, controller: Address, switch: Callable[..., Switch]
    ) -> None:
        super().__init__(
            topo=AggregatorTopo(switches=switches, hosts=hosts),
            switch=switch,
            host=QuietHost,
            controller=None,
            intf=Intf,
            autoSetMacs=True,
            build=False,
        )
        self.address = controller

    def build(self) -> None:
        """Make the nodes and the links.  Mininet's `start` calls this."""
        self.addController("c0", SilentController, ip=self.address.ip, port=self.address.port)
        super().build()

    def start(self) -> None:
        """Build and start the network; stop it again when that fails or is interrupted."""
        try:
            super().start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Remove the network, even one that is half built or has commands running."""
        for node in self.values():
            if node.waiting:
                node.terminate()
        super().stop()


class KernelNet(AggregatorNet):
    """A network on the machine's own Open vSwitch.

    Raises Failure when a bridge of the user has the name of one of the switches.
    """

    def __init__(self, switches: int, hosts: int, controller: Address) -> None:
        for name in (f"s{number}" for number in range(1, switches + 1)):
            if machine_ovs.has_bridge(name):
                raise Failure(
                    f"Open vSwitch has a bridge {name} that agg_net.py did not make: rename it"
                )
        super().__init__(switches, hosts, controller, partial(KernelSwitch, controller=controller))


class UserspaceNet(AggregatorNet):
    """A network of userspace switches, to be made in a private namespace.

    rundir: the directory that gets one directory per switch.
    relay: path of the unix socket that leads to the controller.
    """

    def __init__(
        self, switches: int, hosts: int, controller: Address, rundir: str, relay: str
    ) -> None:
        # Mininet would raise resource limits of the machine, which a namespace does not allow.
        Mininet.inited = True
        switch = partial(UserspaceSwitch, rundir=rundir, relay=relay)
        super().__init__(switches, hosts, controller, switch)
