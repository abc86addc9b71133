"""Switches, edge.aggregator and a controller together, and the bridge they are compared with."""

import os
import time
from collections.abc import Sequence
from typing import Any, Optional, TypeVar

from . import frames
from . import openflow10 as of
from .aggregator import Aggregator
from .controller import Controller
from .namespaces import Namespace
from .network import CONTROL_ADDRESS, Network, PlainBridge, Wires

OPENFLOW_PORT = 6633
READY = 20.0
"""Seconds within which a big switch must have all its ports and tunnels."""


Self = TypeVar("Self", bound="Bed")


class Bed:
    """A datapath, the wires to its ports, and its controller: what a differential test needs."""

    wires: Wires
    """Sends frames into the ports and receives what comes out."""
    controller: Controller
    """The datapath's controller, which the test commands."""
    others: Sequence[Controller] = ()
    """Further controllers, when the test has asked for them."""

    @property
    def numbers(self) -> list[int]:
        """The numbers of the ports for hosts."""
        return sorted(self.wires.ports)

    def settle(self) -> None:
        """Return when every frame sent has been forwarded, and every packet-in has arrived.

        Then the frames can be read at the ports, and the packet-ins are in the controller's inbox.
        All is done twice, because the aggregator may answer a packet-in with a packet-out.
        """
        for _ in range(2):
            self.wires.settle()
            self.controller.barrier()

    def expect(
        self, expected: dict[int, Sequence[bytes]], packet_ins: Sequence[of.PacketIn] = ()
    ) -> None:
        """Fail unless exactly these frames came out, and exactly these packet-ins came.

        expected: the frames by port.
        """
        self.settle()
        self.wires.expect(expected)
        got = self.controller.packet_ins()
        assert got == list(packet_ins), got

    def reset(self) -> None:
        """Make it as new: no flows, default config, no frames and no messages left to read."""
        self.controller.answer_echo = True
        for port in self.wires.ports.values():
            port.restore()
        self.controller.do(of.flow_mod(command=of.Command.DELETE))
        self.controller.do(of.set_config())
        for number, port in self.controller.features().ports.items():
            if number < of.Port.MAX and port.config:
                self.controller.do(of.port_mod(number, port.hw_addr, 0, port.config))
        self.settle()
        self.wires.capture()
        for each in (self.controller, *self.others):
            each.barrier()
            each.take()

    def stop(self) -> None:
        """End everything."""
        raise NotImplementedError

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class PlainSwitch(Bed):
    """One plain Open vSwitch bridge with its controller: what the big switch is compared with.

    numbers, flow_limit: see `PlainBridge`.
    record: keep transcripts of the controllers' connections.
    controllers: how many there are.
    listen: a TCP port of 127.0.0.1 where the bridge accepts connections, such as ovs-ofctl's.
    """

    def __init__(
        self,
        numbers: Sequence[int] = (1, 2, 17, 18),
        flow_limit: Optional[int] = 0,
        record: bool = False,
        controllers: int = 1,
        listen: Optional[int] = None,
    ) -> None:
        self.wires = self.bridge = PlainBridge(numbers, flow_limit=flow_limit)
        try:
            self.controller, *self.others = listeners(self.bridge.namespace, controllers, record)
            targets = [each.target for each in (self.controller, *self.others)]
            if listen is not None:
                targets.append(f"ptcp:{listen}:127.0.0.1")
            self.bridge.connect(*targets)
            for each in (self.controller, *self.others):
                each.wait_for_connection()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if hasattr(self, "controller"):
            for each in (self.controller, *self.others):
                each.close()
        self.bridge.stop()


class BigSwitch(Bed):
    """Switches with edge.aggregator over them, which is connected to `controller`.

    switches, ports, flow_limit: see `Network`.
    options: options of the component, without `--ips` and those that say where controllers are.
    record: keep transcripts of the controllers' connections.
    ready: whether to wait until all ports are there and every tunnel carries frames.
    level, python, measured: see `Aggregator`.
    controllers: how many there are.
    network: further arguments of `Network`.
    """

    def __init__(
        self,
        switches: int = 2,
        ports: int = 2,
        options: Sequence[str] = (),
        flow_limit: Optional[int] = 0,
        record: bool = False,
        ready: bool = True,
        level: str = "DEBUG",
        python: Optional[str] = None,
        controllers: int = 1,
        measured: bool = True,
        **network: Any,
    ) -> None:
        self.wires = self.network = Network(switches, ports, flow_limit, **network)
        try:
            self.controller, *self.others = listeners(self.network.outer, controllers, record)
            where = [f"{each.address}:{each.port}" for each in (self.controller, *self.others)]
            ips = ",".join(switch.tunnel_ip for switch in self.network.switches.values())
            self.aggregator = Aggregator(
                self.network.outer,
                os.path.join(self.network.directory, "aggregator.log"),
                [
                    "--ips=" + ips,
                    *(
                        [f"--address={self.controller.address}", f"--port={self.controller.port}"]
                        if controllers == 1
                        else ["--controllers=" + ",".join(where)]
                    ),
                    f"--max_ports={self.network.max_ports}",
                    *options,
                ],
                level=level,
                python=python,
                measured=measured,
            )
            self.aggregator.start()
            # A switch that nobody answers waits a second before it tries again.
            self.aggregator.wait_until_listening(OPENFLOW_PORT)
            self.connect_switches()
            if ready:
                self.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def connect_switches(self) -> None:
        """Make the aggregator the controller of the switches."""
        self.network.connect(f"tcp:{CONTROL_ADDRESS}:{OPENFLOW_PORT}")

    def wait_until_ready(self, timeout: float = READY) -> None:
        """Return when the controller sees all ports, and frames get from each switch to all others.

        Fails after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        for each in (self.controller, *self.others):
            each.wait_until_connected(deadline - time.monotonic())
        self.wait_for_ports(self.numbers, deadline - time.monotonic())
        for switch in self.network.switches.values():
            self._wait_for_tunnels(switch.dpid, deadline)
        self.reset()

    def wait_for_ports(self, numbers: Sequence[int], timeout: float = READY) -> None:
        """Return when the ports of the big switch whose links are up are exactly these.

        Fails after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            ports = self.controller.features().ports
            up = sorted(
                number
                for number, port in ports.items()
                if number < of.Port.MAX and not port.state & of.LINK_DOWN
            )
            if up == sorted(numbers):
                return
            self.controller.expect(of.Type.PORT_STATUS, max(0, deadline - time.monotonic()))

    def _wait_for_tunnels(self, dpid: int, deadline: float) -> None:
        """Return when a frame from switch `dpid` comes out of a port of each other switch."""
        first: dict[int, int] = {}
        for number in self.numbers:
            first.setdefault(self.network.locate(number)[0].dpid, number)
        entry = first.pop(dpid)
        match = of.match(in_port=entry)
        self.controller.flow_mod(match, [of.output(number) for number in first.values()])
        missing = set(first.values())
        frame = frames.numbered(dpid)
        while missing:
            assert time.monotonic() < deadline, f"no tunnel from s{dpid} to ports {missing}"
            self.network.send(entry, frame)
            for number, got in self.network.capture().items():
                if frame in got:
                    missing.discard(number)
            if missing:
                time.sleep(0.02)  # no event tells this side that a tunnel is ready
        self.controller.flow_mod(match, command=of.Command.DELETE_STRICT)

    def stop(self) -> None:
        try:
            if hasattr(self, "aggregator") and self.aggregator.process is not None:
                self.aggregator.stop()
        finally:
            if hasattr(self, "controller"):
                for each in (self.controller, *self.others):
                    each.close()
            self.network.stop()


def listeners(namespace: Namespace, count: int, record: bool) -> list[Controller]:
    """Return `count` controllers that listen for their switch in `namespace`."""
    return [Controller(namespace, record=record) for _ in range(count)]
