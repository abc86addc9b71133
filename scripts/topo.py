"""The network's plan: which hosts are on which switches."""

from mininet.topo import Topo


class AggregatorTopo(Topo):
    """Switches s1, s2, ... with hosts h1, h2, ... on them, and no link between two switches.

    Switch sX has the datapath id X.  Its hosts are on ports 1, 2, ...
    """

    def build(self, switches: int = 2, hosts: int = 2) -> None:
        """Add `switches` switches and `hosts` hosts on each.  Mininet calls this."""
        for index in range(switches):
            switch = self.addSwitch(f"s{index + 1}", dpid=f"{index + 1:x}")
            for port in range(1, hosts + 1):
                host = self.addHost(f"h{index * hosts + port}")
                self.addLink(host, switch, port1=0, port2=port)
