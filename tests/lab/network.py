"""Switches for tests, several joined by tunnels or one plain bridge, and frames through them.

Every port of a switch is a tap device, whose file descriptor the test has.  The bytes that the test
writes are a frame that arrives at the port.  The frames that the switch sends out of the port are
what the test reads, unchanged: an AF_PACKET socket would hide VLAN tags, and the kernel's own
frames would come in between.
"""

import errno
import fcntl
import os
import select
import socket
import struct
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Optional

from waiting import wait_until

from . import openflow10 as of
from .breakable_ovs import BreakableOVS
from .frames import describe
from .namespaces import Namespace

MAX_PORT_NUMBER = 16
HOST_MTU = 2000
"""Bytes.  Tests send frames that are longer than Ethernet's 1500 bytes."""
UNDERLAY_MTU = HOST_MTU + 100
CONTROL_ADDRESS = "10.255.0.1"
"""Address of the outer namespace of a `Network`, at which its switches reach their controller."""
UNDERLAY_ADDRESS = "172.16.255.254"
"""Address of the outer namespace in the underlay, after `Network.join_underlay`."""

BURST = 32
"""Frames to send before waiting: a receive socket of Open vSwitch holds 50 long frames."""

TUNSETIFF, TUNSETCARRIER = 0x400454CA, 0x400454E2
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000


class HostPort:
    """The far end of the cable in one switch port, where the test sends and receives frames."""

    def __init__(self, namespace: Namespace, name: str, mtu: int = HOST_MTU) -> None:
        self.namespace = namespace
        self.name = name
        self._changed = False
        self.fd: Optional[int] = namespace.call(self._open)
        address = "02:00:" + ":".join(f"{byte:02x}" for byte in name.encode()[-4:].rjust(4, b"-"))
        namespace.ip(f"link set {name} address {address} mtu {mtu} up")

    def _open(self) -> int:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", self.name.encode(), IFF_TAP | IFF_NO_PI))
        return fd

    def send(self, frame: bytes) -> None:
        """Send a frame of at least 14 bytes to the switch.

        The frame is lost when the port's interface is down.
        """
        try:
            os.write(self.fd, frame)
        except OSError as error:
            if error.errno != errno.EIO:
                raise

    def receive(self, timeout: float = 0) -> Optional[bytes]:
        """Return the next frame that the switch sent; None when none came within `timeout` s."""
        if timeout:
            select.select([self.fd], [], [], timeout)
        try:
            return os.read(self.fd, 65536)
        except BlockingIOError:
            return None

    def set_carrier(self, present: bool) -> None:
        """Plug the cable in, or pull it out when `present` is false."""
        fcntl.ioctl(self.fd, TUNSETCARRIER, struct.pack("i", present))
        self._changed = True

    def set_up(self, up: bool) -> None:
        """Set the interface administratively up or down, as `ip link set` does."""
        self.namespace.ip(f"link set {self.name} {'up' if up else 'down'}")
        self._changed = True

    def restore(self) -> None:
        """Plug the cable in and set the interface up."""
        if self._changed:
            self.set_carrier(True)
            self.set_up(True)
            self._changed = False

    def close(self) -> None:
        """Remove the device."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


class Wires:
    """A set of ports by the controller's numbers, to send frames in and receive them."""

    def __init__(self) -> None:
        self.ports: dict[int, HostPort] = {}
        self._unsettled = 0

    def daemons(self) -> Iterable[BreakableOVS]:
        """Return the Open vSwitches that forward now."""
        raise NotImplementedError

    def send(self, port: int, *frames: bytes) -> None:
        """Send frames into `port`, in this order."""
        for frame in frames:
            if self._unsettled == BURST:
                self.settle()
            self.ports[port].send(frame)
            self._unsettled += 1

    def receive(self, port: int, timeout: float = 5) -> bytes:
        """Return the next frame out of `port`; fail when none comes within `timeout` s."""
        frame = self.ports[port].receive(timeout)
        assert frame is not None, f"no frame out of port {port} within {timeout:g} s"
        return frame

    def settle(self) -> None:
        """Return when all frames that were sent have been forwarded.

        A frame that is written to a tap device is in the switch's receive queue at once.  In each
        round of its main loop ovs-vswitchd forwards up to 32 frames of each queue, and answers its
        control socket.  So after two answers it has forwarded all frames.  All this is done twice,
        because a frame may cross two switches.

        This holds for up to BURST frames in a receive queue.  `send` sees to it for the frames that
        it sends; who sends packet-outs has to see to it too.
        """
        self._unsettled = 0
        for _ in range(2):
            for ovs in self.daemons():
                for _ in range(2):
                    ovs.appctl("version")
            _wait_for_softirq()

    def capture(self) -> dict[int, list[bytes]]:
        """Settle; return the frames that came out since the last time, by port.

        Ports without frames are left out.
        """
        self.settle()
        captured = {}
        for number, port in self.ports.items():
            frames = list(iter(port.receive, None)) if port.fd is not None else []
            if frames:
                captured[number] = frames
        return captured

    def expect(self, expected: dict[int, Sequence[bytes]], timeout: float = 5) -> None:
        """Fail unless exactly these frames come out, in this order, and none of any other port.

        timeout: seconds to wait for the expected frames.  After them, `settle` is enough to know
            that no others come.
        """
        wanted = {number: list(frames) for number, frames in expected.items() if frames}
        got: dict[int, list[bytes]] = {}
        deadline = time.monotonic() + timeout
        for number, frames in wanted.items():
            for _ in frames:
                frame = self.ports[number].receive(max(0, deadline - time.monotonic()))
                if frame is not None:
                    got.setdefault(number, []).append(frame)
        for number, frames in self.capture().items():
            got.setdefault(number, []).extend(frames)
        assert got == wanted, f"\nexpected\n{_listing(wanted)}\ngot\n{_listing(got)}"

    def expect_nothing(self) -> None:
        """Fail if any frame came out of any port."""
        self.expect({})


class Switch:
    """One Open vSwitch of a `Network`, in a namespace of its own.

    Its bridge is named sX, its ports sX-eth1.. and tunX, X being the dpid.
    """

    def __init__(self, network: "Network", dpid: int) -> None:
        self.network = network
        self.dpid = dpid
        self.name = f"s{dpid}"
        self.tunnel = f"tun{dpid}"
        self.tunnel_ip = f"172.16.{dpid >> 8}.{dpid & 0xFF}"
        self.tunnel_mac = f"02:ac:10:00:{dpid >> 8:02x}:{dpid & 0xFF:02x}"
        self.namespace = Namespace()
        self.ovs = BreakableOVS(self.name, network.directory, self.namespace.pid)
        self.ports: dict[int, HostPort] = {}

    def start(self, ports: int) -> None:
        """Make the bridge with `ports` ports for hosts, numbered from 1, then the tunnel port."""
        self.namespace.ip(
            f"address add 10.255.{1 + (self.dpid >> 8)}.{self.dpid & 0xFF}/16 dev control",
            "link set control up",
        )
        for number in range(1, ports + 1):
            self.ports[number] = HostPort(self.namespace, self.port_name(number))
        self.ovs.start()
        if self.network.flow_limit is not None:
            self.ovs.vsctl(
                "set",
                "Open_vSwitch",
                ".",
                f"other_config:flow-limit={self.network.flow_limit}",
            )
        self.ovs.add_underlay("under", self.tunnel_ip + "/16", UNDERLAY_MTU, self.tunnel_mac)
        self.ovs.add_bridge(
            self.name,
            self.network.datapath_ids.get(self.dpid, self.dpid),
            ports=[port.name for port in self.ports.values()],
        )
        self.ovs.add_tunnel(self.name, self.tunnel, self.tunnel_ip, self.network.tunnel_type)

    def port_name(self, number: int) -> str:
        """Return the interface's name of port `number`."""
        return f"{self.name}-eth{number}"

    def open_management(self, timeout: float = 5) -> socket.socket:
        """Connect to the bridge as ovs-ofctl does, and say HELLO; `timeout` is the socket's."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(timeout)
            connection.connect(f"{self.ovs.directory}/{self.name}.mgmt")
            connection.sendall(of.message(of.Type.HELLO))
        except BaseException:
            connection.close()
            raise
        return connection

    def meet(self, others: Iterable["Switch"]) -> None:
        """Tell the switch the Ethernet addresses of the other switches' tunnel IPs.

        Without this the first frame to each of them is lost, because Open vSwitch sends an ARP
        request in its place.
        """
        for other in others:
            if other is not self:
                self.ovs.appctl("tnl/neigh/set", "underlay", other.tunnel_ip, other.tunnel_mac)

    def recover(self) -> None:
        """Start the daemons that were killed or frozen, and `meet` the other switches again."""
        self.ovs.sigcont()
        self.ovs.start()
        self.meet(self.network.switches.values())

    def connect(self, target: Optional[str]) -> None:
        """Set the bridge's OpenFlow controller; None for no controller."""
        if target is None:
            self.ovs.vsctl("del-controller", self.name)
        else:
            self.ovs.set_controller(self.name, target)

    def add_port(self, number: int) -> None:
        """Add a port for a host while the switch runs."""
        port = HostPort(self.namespace, self.port_name(number))
        self.ports[number] = port
        self.network.ports[self.network.number(self.dpid, number)] = port
        self.ovs.vsctl(
            "add-port",
            self.name,
            port.name,
            "--",
            "set",
            "interface",
            port.name,
            f"ofport_request={number}",
        )

    def remove_port(self, number: int) -> None:
        """Take a port off the bridge and remove its device."""
        port = self.ports.pop(number)
        del self.network.ports[self.network.number(self.dpid, number)]
        self.ovs.vsctl("del-port", self.name, port.name)
        port.close()

    def cut(self, control: bool = True, underlay: bool = True) -> None:
        """Cut the cable that carries OpenFlow, the one that carries the tunnels, or both."""
        self._set_cables("down", control, underlay)

    def mend(self, control: bool = True, underlay: bool = True) -> None:
        """Repair the cables that `cut` has cut."""
        self._set_cables("up", control, underlay)

    def _set_cables(self, state: str, control: bool, underlay: bool) -> None:
        cables = [f"c{self.dpid}"] * control + [f"u{self.dpid}"] * underlay
        self.network.outer.ip(*(f"link set {cable} {state}" for cable in cables))

    def lose(self, lost: bool = True) -> None:
        """Lose every frame of the cable that carries OpenFlow; with False, lose none any more.

        Both ends keep their links up, as when a cable between two machines on the way is cut.
        """
        change = "add" if lost else "del"
        for namespace, device in (self.network.outer, f"c{self.dpid}"), (self.namespace, "control"):
            namespace.run("tc", "qdisc", change, "dev", device, "root", *["blackhole"] * lost)

    def flows(self) -> list[str]:
        """Return `ovs-ofctl dump-flows --no-stats` of the bridge, a line each."""
        text = self.ovs.ofctl("dump-flows", self.name, "--no-stats", "--no-names")
        return [line.strip() for line in text.splitlines()]

    def stop(self) -> None:
        """End the daemons and the namespace."""
        self.ovs.stop()
        for port in self.ports.values():
            port.close()
        self.namespace.close()


class Network(Wires):
    """Switches s1, s2, ... (dpids 1, 2, ...), each in its own namespace, joined by an underlay.

    Their controller runs in the namespace `outer`, which they reach at CONTROL_ADDRESS.

    switches: how many.
    ports: how many ports for hosts each switch has.
    flow_limit: Open vSwitch's limit of cached datapath flows.  With 0 every packet is looked up in
        the OpenFlow tables, so a change holds for the next packet, and counters are exact at once.
        None leaves the default, for measurements.
    max_ports: how many port numbers of the big switch each switch gets.
    tunnel_type: "gre", "vxlan" or "geneve".
    datapath_ids: the datapath ids of switches, by dpid, that differ from the dpid here.
    """

    def __init__(
        self,
        switches: int = 2,
        ports: int = 2,
        flow_limit: Optional[int] = 0,
        max_ports: int = MAX_PORT_NUMBER,
        tunnel_type: str = "gre",
        datapath_ids: Optional[Mapping[int, int]] = None,
    ) -> None:
        super().__init__()
        self.flow_limit = flow_limit
        self.max_ports = max_ports
        self.tunnel_type = tunnel_type
        self.datapath_ids = datapath_ids or {}
        self.directory = tempfile.mkdtemp(prefix="lab-")
        self.outer = Namespace(remove=[self.directory])
        self.switches: dict[int, Switch] = {}
        try:
            self.outer.ip(
                "link add control type bridge",
                "link add underlay type bridge mcast_snooping 0",
                f"address add {CONTROL_ADDRESS}/16 dev control",
                "link set control up",
                f"link set underlay mtu {UNDERLAY_MTU} up",
            )
            for dpid in range(1, switches + 1):
                self.add_switch(dpid, ports)
        except BaseException:
            self.stop()
            raise

    def add_switch(self, dpid: int, ports: int) -> Switch:
        """Start one more switch."""
        switch = self.switches[dpid] = Switch(self, dpid)
        batch = []
        for inside, outside, bridge in (
            ("control", f"c{dpid}", "control"),
            ("under", f"u{dpid}", "underlay"),
        ):
            batch += [
                f"link add {outside} mtu {UNDERLAY_MTU} type veth"
                f" peer name {inside} netns {switch.namespace.pid}",
                f"link set {outside} master {bridge} up",
            ]
        self.outer.ip(*batch)
        switch.start(ports)
        for number, port in switch.ports.items():
            self.ports[self.number(dpid, number)] = port
        for other in self.switches.values():
            other.meet([switch])
        switch.meet(self.switches.values())
        return switch

    def join_underlay(self) -> None:
        """Give `outer` the address UNDERLAY_ADDRESS.

        A switch that connects to this address does so from its tunnel IP.
        """
        # Open vSwitch computes no checksums, and the kernel that receives the frames checks them.
        self.outer.run("ethtool", "-K", "underlay", "tx", "off")
        self.outer.ip(f"address add {UNDERLAY_ADDRESS}/16 dev underlay")

    def number(self, dpid: int, port: int) -> int:
        """Return the aggregator port number of a switch's port."""
        return port + self.max_ports * (dpid - 1)

    def locate(self, number: int) -> tuple[Switch, int]:
        """Return the switch of an aggregator port number, and its port number there."""
        index, port = divmod(number - 1, self.max_ports)
        return self.switches[index + 1], port + 1

    def daemons(self) -> Iterable[BreakableOVS]:
        return [switch.ovs for switch in self.switches.values() if switch.ovs.forwarding]

    def connect(self, target: str) -> None:
        """Connect all switches to an OpenFlow controller ("tcp:10.255.0.1:6633")."""
        for switch in self.switches.values():
            switch.connect(target)

    def stop(self) -> None:
        """End everything."""
        for switch in self.switches.values():
            switch.stop()
        self.outer.close()

    def __enter__(self) -> "Network":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class PlainBridge(Wires):
    """One Open vSwitch bridge in a namespace of its own: what the big switch is compared with.

    numbers: its OpenFlow port numbers.  By default they are those of a big switch over two switches
        with two ports each, so that a test can send both the same messages.
    dpid: its datapath id.
    flow_limit: see `Network`.
    """

    name = "plain"

    def __init__(
        self, numbers: Sequence[int] = (1, 2, 17, 18), dpid: int = 1, flow_limit: Optional[int] = 0
    ) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp(prefix="lab-")
        self.namespace = self.outer = Namespace(remove=[self.directory])
        self.ovs = BreakableOVS(self.name, self.directory, self.namespace.pid)
        try:
            self.ovs.start()
            if flow_limit is not None:
                self.ovs.vsctl("set", "Open_vSwitch", ".", f"other_config:flow-limit={flow_limit}")
            self.ovs.add_bridge(self.name, dpid)
            for number in numbers:
                self.add_port(number)
        except BaseException:
            self.stop()
            raise

    def add_port(self, number: int) -> None:
        """Add a port for a host."""
        port = self.ports[number] = HostPort(self.namespace, f"p{number}")
        self.ovs.vsctl(
            "add-port",
            self.name,
            port.name,
            "--",
            "set",
            "interface",
            port.name,
            f"ofport_request={number}",
        )

    def remove_port(self, number: int) -> None:
        """Take a port off the bridge and remove its device."""
        port = self.ports.pop(number)
        self.ovs.vsctl("del-port", self.name, port.name)
        port.close()

    def daemons(self) -> Iterable[BreakableOVS]:
        return [self.ovs] if self.ovs.forwarding else []

    def connect(self, *targets: str) -> None:
        """Connect the bridge to OpenFlow controllers ("tcp:127.0.0.1:6653")."""
        self.ovs.set_controller(self.name, *targets)

    def stop(self) -> None:
        """End everything."""
        self.ovs.stop()
        for port in self.ports.values():
            port.close()
        self.namespace.close()

    def __enter__(self) -> "PlainBridge":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def _wait_for_softirq() -> None:
    """Wait until the kernel's soft interrupt has moved all packets that are between two veths.

    Column 12 of softnet_stat, in kernels that have it, is the length of a processor's backlog.
    """
    for _ in range(2):  # a packet is queued again between two ports of a Linux bridge
        empty: set[int] = set()

        def all_seen_empty(empty: set[int] = empty) -> bool:
            with open("/proc/net/softnet_stat") as table:
                rows = [line.split() for line in table]
            empty.update(
                cpu for cpu, row in enumerate(rows) if not int("0" + "".join(row[11:12]), 16)
            )
            return len(empty) == len(rows)

        wait_until(all_seen_empty, "empty packet backlog", interval=0)


def _listing(frames: dict[int, list[bytes]]) -> str:
    lines = [
        f"port {number:2}: {describe(frame)}"
        for number in sorted(frames)
        for frame in frames[number]
    ]
    if len(lines) > 40:
        lines[40:] = [f"... {len(lines)} in all"]
    return "\n".join(lines) or "nothing"
