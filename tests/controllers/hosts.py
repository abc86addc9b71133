"""A big switch as in the README: real hosts, POX with edge.aggregator, and any controller above.

Each host is a network namespace with the kernel's own network stack, so ARP, ping and TCP are the
kernel's.
"""

import os
import socket
import subprocess
import threading
from collections.abc import Sequence
from typing import Optional

from lab.aggregator import Aggregator
from lab.bigswitch import OPENFLOW_PORT
from lab.namespaces import Namespace
from lab.network import CONTROL_ADDRESS, Network

from waiting import wait_until

MTU = 1450
"""Bytes, as in the README: the GRE encapsulation takes 42 of 1500."""
PATIENCE = 20
"""Seconds within which a first ping is answered."""


class Host:
    """A host at one port of a switch: h3 is 10.0.0.3."""

    def __init__(self, number: int, switch_namespace: Namespace, port_name: str) -> None:
        self.name = f"h{number}"
        self.ip = f"10.0.0.{number}"
        self.namespace = Namespace()
        switch_namespace.ip(
            f"link add {port_name} type veth peer name eth0 netns {self.namespace.pid}",
            f"link set {port_name} up",
        )
        # The kernel may leave the checksum of a frame to the device; the frame would enter the
        # tunnel without it.
        self.namespace.run("ethtool", "-K", "eth0", "tx", "off")
        self.namespace.ip(
            f"link set eth0 address 00:00:00:00:00:{number:02x} mtu {MTU} up",
            f"address add {self.ip}/8 dev eth0",
        )

    def ping(self, other: "Host", wait: int = PATIENCE) -> str:
        """Ping until the first answer; return what ping says when none comes in `wait` s."""
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self.namespace.pid}/ns/net", "--"]
            + ["ping", "-n", "-i", "0.2", "-c", "1", "-w", str(wait), other.ip],
            capture_output=True,
            text=True,
            check=False,
        )
        return "" if done.returncode == 0 else f"{self.name} to {other.name}: {done.stdout}"

    def carry(self, other: "Host", data: bytes) -> bytes:
        """Send data to another host over TCP; return the data that arrives there."""
        listener = other.namespace.call(socket.create_server, (other.ip, 0))
        listener.settimeout(PATIENCE)
        arrived = []

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(PATIENCE)
                arrived.extend(iter(lambda: connection.recv(1 << 16), b""))

        receiver = threading.Thread(target=accept)
        receiver.start()
        try:
            with self.namespace.call(
                socket.create_connection, listener.getsockname(), PATIENCE
            ) as sender:
                sender.sendall(data)
        finally:
            receiver.join()
            listener.close()
        return b"".join(arrived)


class WholeRun:
    """Switches with two hosts each, and everything above them.

    The aggregator runs with no option but --ips, so its controller is where it is by default: at
    127.0.0.1, port 7744.
    """

    def __init__(self, switches: int = 2, hosts: int = 2) -> None:
        # With the cache of flows that a switch has in real life.
        self.network = Network(switches, ports=0, flow_limit=None)
        self.hosts: list[Host] = []
        self.aggregator: Optional[Aggregator] = None
        self.controller: Optional[subprocess.Popen] = None
        try:
            for switch in self.network.switches.values():
                for port in range(1, hosts + 1):
                    name = switch.port_name(port)
                    self.hosts.append(Host(len(self.hosts) + 1, switch.namespace, name))
                    setting = ["--", "set", "interface", name, f"ofport_request={port}"]
                    switch.ovs.vsctl("add-port", switch.name, name, *setting)
        except BaseException:
            self.stop()
            raise

    def start_controller(self, command: Sequence[str], **environment: str) -> None:
        """Start the controller; it has to listen on port 7744."""
        with open(self.controller_log, "wb") as log:
            self.controller = subprocess.Popen(
                self.network.outer.command(*command),
                env=dict(os.environ, **environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def controller_log(self) -> str:
        """The file with what the controller prints."""
        return os.path.join(self.network.directory, "controller.log")

    def start_aggregator(self) -> None:
        """Start the aggregator and connect the switches to it."""
        ips = ",".join(switch.tunnel_ip for switch in self.network.switches.values())
        log = os.path.join(self.network.directory, "aggregator.log")
        self.aggregator = Aggregator(self.network.outer, log, ["--ips=" + ips])
        self.aggregator.start()
        self.aggregator.wait_until_listening(OPENFLOW_PORT)
        self.network.connect(f"tcp:{CONTROL_ADDRESS}:{OPENFLOW_PORT}")
        self.aggregator.wait_for_log("tunnel IPs are discovered", PATIENCE)
        self.aggregator.wait_for_log("controller 127.0.0.1:7744: connected", PATIENCE)

    def ping_all(self, wait: int = PATIENCE) -> list[str]:
        """Ping from every host to every other; return what went wrong."""
        pairs = [(a, b) for a in self.hosts for b in self.hosts if a is not b]
        return [wrong for a, b in pairs if (wrong := a.ping(b, wait))]

    def explain(self) -> str:
        """What a failing test shows."""
        with open(self.controller_log, errors="replace") as log:
            said = log.read()[-3000:]
        flows = "\n".join(
            line for switch in self.network.switches.values() for line in switch.flows()
        )
        return f"controller:\n{said}\nflows:\n{flows}"

    def stop(self) -> None:
        """End everything."""
        try:
            if self.aggregator is not None and self.aggregator.process is not None:
                self.aggregator.stop()
        finally:
            if self.controller is not None:
                self.controller.kill()
                self.controller.wait()
            self.network.stop()
            for host in self.hosts:
                host.namespace.close()


def wait_until_listening(namespace: Namespace, port: int) -> None:
    """Return when something listens on a TCP port of the namespace's loopback."""

    def listens() -> bool:
        try:
            namespace.call(socket.create_connection, ("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return False

    wait_until(listens, f"listener on port {port}", PATIENCE)
