"""Ports: what a port-mod does on both sides of the tunnel, and ports that change by themselves.

OpenFlow 1.0.0, 5.2.1, 5.3.3 and 5.4.3.
"""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import frames
from lab import openflow10 as of
from lab.openflow10 import Command, Port, PortConfig, PortReason, Stats

from .specimens import FRAMES, PORTS, examples

UDP = frames.udp()
STP = FRAMES["spanning tree"]
LLDP = FRAMES["lldp"]
BITS = {
    name: getattr(PortConfig, name)
    for name in (
        "PORT_DOWN",
        "NO_STP",
        "NO_RECV",
        "NO_RECV_STP",
        "NO_FLOOD",
        "NO_FWD",
        "NO_PACKET_IN",
    )
}
QUIET_BITS = sum(BITS.values()) & ~PortConfig.PORT_DOWN
"""Bits whose change brings no port-status to the controller that made it."""


def settle_port_down(both, port, down):
    """Take the port-status that a change of PORT_DOWN brings."""
    (status,) = both.port_statuses(1)
    assert status.reason == PortReason.MODIFY
    assert status.port.port_no == port
    assert status.port.state & of.LINK_DOWN == down


def try_everything(both, counters=True):
    """Send frames into every port, for flows with every kind of output, and packet-outs.

    counters: whether to compare what the flows count.
    """
    for actions in (
        [of.output(Port.FLOOD)],
        [of.output(Port.ALL)],
        [of.output(Port.IN_PORT)],
        [of.output(port) for port in PORTS],
        [of.enqueue(port, 1) for port in PORTS],
        [of.output(Port.CONTROLLER), of.set_vlan_vid(5), of.output(Port.FLOOD)],
    ):
        both.flow_mod(of.match(), actions, cookie=1)
        for port in PORTS:
            both.inject(port, UDP, STP, LLDP)
        for in_port in (*PORTS, Port.NONE):
            both.packet_out(UDP, actions, in_port)
            both.packet_out(UDP, of.output(Port.TABLE), in_port)
        if counters:
            both.counters()
    both.flow_mod(command=Command.DELETE)
    for port in PORTS:  # table misses
        both.inject(port, UDP, STP, LLDP)


# ---- port-mod ----


@pytest.mark.parametrize("port", [2, 17])
@pytest.mark.parametrize("bit", BITS.values(), ids=BITS)
def test_each_bit_of_each_port(both, port, bit):
    """The features show the bit, it has its effect on both switches, and none after it is
    cleared.
    """
    assert both.port_mod(port, bit) is None
    down = bit == PortConfig.PORT_DOWN
    if down:
        settle_port_down(both, port, of.LINK_DOWN)
    assert {number: shown.config for number, shown in both.features().items()} == {
        **dict.fromkeys(PORTS, 0),
        port: bit,
    }
    # A plain bridge looks a frame up, and counts it, before it drops it for NO_RECV or NO_RECV_STP.
    counted = bit not in (PortConfig.NO_RECV, PortConfig.NO_RECV_STP)
    try_everything(both, counted)
    both.port_mod(port, bit)  # the same port-mod again changes nothing
    both.port_mod(port, 0, bit)
    if down:
        settle_port_down(both, port, 0)
    assert {shown.config for shown in both.features().values()} == {0}
    both.flow_mod(of.match(), of.output(Port.FLOOD))
    for entry in PORTS:
        assert len(both.inject(entry, UDP, STP).ports) == 6
    if counted:
        both.table()
    both.ports()
    both.quiet()


EFFECTS = {
    "NO_FLOOD": (3, 2, True, True),
    "NO_FWD": (2, 2, True, True),
    "NO_RECV": (3, 3, False, False),
    "PORT_DOWN": (2, 2, False, False),
    "NO_PACKET_IN": (3, 3, True, True),
    "NO_STP": (3, 3, True, True),
    "NO_RECV_STP": (3, 3, True, True),
}


@pytest.mark.parametrize("bit", EFFECTS)
def test_what_a_bit_of_a_remote_port_does(both, bit):
    """Effects: how many ports ALL and FLOOD from port 1 reach, whether a frame that enters port 18
    is forwarded, and whether it brings a packet-in.
    """
    by_all, by_flood, receives, tells = EFFECTS[bit]
    both.port_mod(18, BITS[bit])
    if bit == "PORT_DOWN":
        settle_port_down(both, 18, of.LINK_DOWN)
    assert bool(both.inject(18, UDP).packet_ins) == tells
    both.flow_mod(of.match(), of.output(Port.ALL))
    assert len(both.inject(1, UDP).ports) == by_all
    assert bool(both.inject(18, UDP).ports) == receives
    both.flow_mod(of.match(), of.output(Port.FLOOD))
    assert len(both.inject(1, UDP).ports) == by_flood
    if bit == "PORT_DOWN":
        both.port_mod(18, 0, PortConfig.PORT_DOWN)
        settle_port_down(both, 18, 0)


def test_bits_outside_the_mask_and_unknown_ones_change_nothing(both):
    for port in (1, 17):
        both.port_mod(port, PortConfig.NO_FLOOD)
        for config, mask in (
            (0, 0),
            (0x7F, 0),
            (0, PortConfig.NO_FWD),
            (0x7F, PortConfig.NO_FLOOD),
            (0xFFFFFF80, 0xFFFFFF80),
            (0xFFFFFFFF, 0x80000000),
        ):
            assert both.port_mod(port, config, mask) is None
            assert both.features()[port].config == PortConfig.NO_FLOOD
        assert both.port_mod(port, 0xFFFFFF80, 0xFFFFFFFE) is None
        assert both.features()[port].config == 0
    both.quiet()


def test_all_bits_at_once(both):
    for port in (2, 17):
        assert both.port_mod(port, QUIET_BITS) is None
        assert both.features()[port].config == QUIET_BITS
        assert both.port_mod(port, 0x7F) is None
        settle_port_down(both, port, of.LINK_DOWN)
        assert both.features()[port].config == 0x7F
        assert both.port_mod(port, 0, 0x7F) is None
        settle_port_down(both, port, 0)
        assert both.features()[port].config == 0
    both.quiet()


def test_who_asks_is_not_told(both):
    for port in PORTS:
        for bit in BITS.values():
            if bit != PortConfig.PORT_DOWN:
                both.port_mod(port, bit)
    both.quiet()
    for port in PORTS:
        both.port_mod(port, 0, QUIET_BITS)
    both.quiet()


@examples(25)
@given(
    st.tuples(*[st.integers(0, QUIET_BITS >> 1).map(lambda bits: bits << 1)] * 4),
    st.lists(
        st.sampled_from(
            [*map(of.output, PORTS)]
            + [of.output(port) for port in (Port.FLOOD, Port.ALL, Port.IN_PORT, Port.CONTROLLER)]
            + [of.set_vlan_vid(5), of.enqueue(17, 1), of.enqueue(1, 1)]
        ),
        max_size=5,
    ),
)
def test_any_configuration_with_any_actions(both, configs, actions):
    both.reset()
    for port, config in zip(PORTS, configs):
        both.port_mod(port, config)
    for port in PORTS:
        both.inject(port, UDP, STP)
    both.flow_mod(of.match(), actions)
    for port in PORTS:
        both.inject(port, UDP, STP)
        both.packet_out(UDP, actions, port)
        both.packet_out(UDP, of.output(Port.TABLE), port)
    both.features()
    if not any(config & (PortConfig.NO_RECV | PortConfig.NO_RECV_STP) for config in configs):
        both.counters()


# ---- ports that change by themselves ----


@contextlib.contextmanager
def unplugged(both, port):
    """While the block runs, the port has no cable."""
    both.each(lambda bed: bed.wires.ports[port].set_carrier(False))
    try:
        yield
    finally:
        both.each(lambda bed: bed.wires.ports[port].set_carrier(True))


@contextlib.contextmanager
def interface_down(both, port):
    """While the block runs, the port's interface is set down by `ip link`."""
    both.each(lambda bed: bed.wires.ports[port].set_up(False))
    try:
        yield
    finally:
        both.each(lambda bed: bed.wires.ports[port].set_up(True))


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("how", [unplugged, interface_down], ids=["cable", "interface"])
def test_a_link_that_goes_down_and_comes_up(both, how, port):
    with how(both, port):
        (status,) = both.port_statuses(1)
        assert (status.reason, status.port.port_no) == (PortReason.MODIFY, port)
        assert status.port.state == of.LINK_DOWN
        assert both.features()[port].state == of.LINK_DOWN
        both.flow_mod(of.match(), of.output(Port.FLOOD))
        for entry in PORTS:
            if entry != port:
                both.inject(entry, UDP)
        both.flow_mod(of.match(), [of.output(port), of.output(Port.ALL)])
        for entry in PORTS:
            if entry != port:
                both.inject(entry, UDP)
    (status,) = both.port_statuses(1)
    assert (status.port.state, status.port.config) == (0, 0)
    both.flow_mod(of.match(), of.output(Port.FLOOD))
    assert both.inject(2 if port != 2 else 1, UDP).ports == [
        entry for entry in PORTS if entry != (2 if port != 2 else 1)
    ]
    both.quiet()


def test_a_configured_port_whose_link_goes_down_keeps_its_configuration(both):
    for port in (2, 17):
        both.port_mod(port, PortConfig.NO_FLOOD | PortConfig.NO_PACKET_IN)
        with unplugged(both, port):
            (status,) = both.port_statuses(1)
            assert status.port.config == PortConfig.NO_FLOOD | PortConfig.NO_PACKET_IN
        both.port_statuses(1)
        assert both.features()[port].config == PortConfig.NO_FLOOD | PortConfig.NO_PACKET_IN
    both.quiet()


def place(bed, number):
    """Return the switch of a port and the port's number there, for either bed."""
    locate = getattr(bed.wires, "locate", None)
    return locate(number) if locate else (bed.wires, number)


@contextlib.contextmanager
def additional_port(both, number):
    """While the block runs, there is one port more. Its port-statuses are taken."""

    def add(bed):
        switch, port = place(bed, number)
        switch.add_port(port)

    def remove(bed):
        switch, port = place(bed, number)
        if number in bed.wires.ports:
            switch.remove_port(port)

    try:
        both.each(add)
        (status,) = both.port_statuses(1)
        assert (status.reason, status.port.port_no) == (PortReason.ADD, number)
        yield
        both.each(remove)
        (status,) = both.port_statuses(1)
        assert (status.reason, status.port.port_no) == (PortReason.DELETE, number)
    finally:
        both.each(remove)


@pytest.mark.parametrize("number", [5, 16, 21, 32])
def test_a_port_that_is_added_and_removed(both, number):
    """Flows that name the port wait for it. FLOOD and ALL include it as soon as it is there, and
    only then.
    """
    local = 1 if number < 17 else 18
    remote = 18 if number < 17 else 1
    both.flow_mod(of.match(dl_vlan=1), [of.output(number), of.output(local)], cookie=1)
    both.flow_mod(of.match(dl_vlan=2), of.output(Port.FLOOD), cookie=2)
    both.flow_mod(of.match(dl_vlan=3), of.output(Port.ALL), cookie=3)
    both.flow_mod(of.match(in_port=number), [of.output(remote), of.output(local)], cookie=4)
    both.flow_mod(of.match(dl_vlan=4), of.enqueue(number, 1), cookie=5)

    def everywhere():
        for entry in (local, remote):
            for vlan in range(1, 5):
                both.inject(entry, frames.udp(vlan=vlan))
            both.packet_out(UDP, of.output(number), entry)
            both.packet_out(UDP, of.output(Port.FLOOD), entry)

    everywhere()
    for _ in range(2):
        with additional_port(both, number):
            assert set(both.features()) == {*PORTS, number}
            everywhere()
            assert both.inject(number, UDP).ports == [local, remote] or local > remote
            both.inject(number, frames.udp(vlan=2))
            both.packet_out(UDP, of.output(Port.FLOOD), number)
            both.packet_out(UDP, of.output(Port.TABLE), number)
            both.port_mod(number, PortConfig.NO_FLOOD)
            everywhere()

            def port_stats(bed):
                return {
                    port: (counters.rx_packets, counters.tx_packets)
                    for port, counters in bed.controller.port_stats().items()
                    if port == number
                }

            both.same(port_stats)
            both.same(
                lambda bed: len(bed.controller.stats(Stats.PORT, b"\0%c" % number + bytes(6)))
            )
        assert set(both.features()) == set(PORTS)
        everywhere()
        both.same(lambda bed: sorted(bed.controller.port_stats())[:4])
        both.flows()


@pytest.mark.parametrize("number", [5, 21])
def test_what_a_port_advertises(both, number):
    """A port-mod sets what a port advertises, as far as the device can. 0 leaves it unchanged."""
    with additional_port(both, number):
        for advertise in (0, 0x40, 0xFFF, 0, 0x20, 0xFFFFF000, 0xFFFFFFFF):

            def ask(bed, advertise=advertise):
                hw_addr = bed.controller.features().ports[number].hw_addr
                bed.controller.do(of.port_mod(number, hw_addr, 0, 0, advertise))
                bed.settle()

            both.each(ask)
            both.features()
    both.quiet()


def test_ports_on_both_sides_at_once(both):
    both.flow_mod(of.match(), of.output(Port.FLOOD))
    with additional_port(both, 5), additional_port(both, 21), additional_port(both, 6):
        for entry in (*PORTS, 5, 6, 21):
            assert len(both.inject(entry, UDP).ports) == 6
    for entry in PORTS:
        assert len(both.inject(entry, UDP).ports) == 3


def test_a_port_that_gets_another_number(both):
    """The port is deleted under its old number and added under the new one, and then back."""

    def renumber(bed, number, wanted):
        switch, port = place(bed, number)
        _, new = place(bed, wanted)
        name = bed.wires.ports[number].name
        switch.ovs.vsctl("set", "interface", name, f"ofport_request={new}")
        bed.wires.ports[wanted] = bed.wires.ports.pop(number)

    both.flow_mod(of.match(), of.output(Port.FLOOD))
    both.flow_mod(of.match(in_port=1), [of.output(2), of.output(7), of.output(18), of.output(23)])
    for number, wanted in ((2, 7), (18, 23)):
        try:
            both.each(lambda bed, pair=(number, wanted): renumber(bed, *pair))
            statuses = both.port_statuses(2)
            assert {(status.reason, status.port.port_no) for status in statuses} == {
                (PortReason.DELETE, number),
                (PortReason.ADD, wanted),
            }
            for entry in (1, 17, wanted):
                both.inject(entry, UDP)
        finally:
            both.each(lambda bed, pair=(wanted, number): renumber(bed, *pair))
        both.port_statuses(2)
        assert set(both.features()) == set(PORTS)
        for entry in PORTS:
            both.inject(entry, UDP)


def test_features(both):
    """Names, addresses and the LOCAL port are not compared."""
    assert set(both.features()) == set(PORTS)
    both.flow_mod(of.match(), of.output(1))
    both.features()


def test_names_and_addresses_of_ports(both):
    """Every name is unique and fits its field. A port-mod accepts the address."""
    for bed in both.beds:
        ports = bed.controller.features().ports
        assert len({port.name for port in ports.values()}) == len(ports)
        for number in PORTS:
            assert 0 < len(ports[number].name) < 16
            bed.controller.do(of.port_mod(number, ports[number].hw_addr))
