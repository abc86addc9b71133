"""The bits of ports (PORT_MOD) while their switch comes and goes, beside a plain bridge."""

import re

import pytest
from lab import openflow10 as of
from lab.bigswitch import PlainSwitch
from lab.faultbed import FaultBed, until
from lab.network import HostPort
from lab.openflow10 import PortConfig

BIG, PLAIN = 18, 2  # the port, on the big switch and on the plain bridge
DOWN, FLOODLESS = PortConfig.PORT_DOWN, PortConfig.NO_FLOOD
BOTH = DOWN | FLOODLESS


class Place:
    """A port of either, with the Open vSwitch that has it."""

    def __init__(self, bed, number, ovs, bridge, ports, local):
        self.bed, self.number, self.ovs, self.bridge = bed, number, ovs, bridge
        self.ports, self.local = ports, local

    @property
    def device(self):
        return self.ports[self.local]

    @property
    def config(self):
        """The bits as the controller reads them."""
        return self.bed.controller.features().ports[self.number].config

    @property
    def real(self):
        """The bits as Open vSwitch says, without the controller."""
        said = self.ovs.ofctl("show", self.bridge)
        block = re.search(rf" {self.local}\(.*?(?=\n \w+\(|\Z)", said, re.DOTALL).group()
        return sum(bit for bit, word in WORDS.items() if re.search(rf"config:.*\b{word}\b", block))

    def set(self, config, mask):
        address = self.bed.controller.features().ports[self.number].hw_addr
        self.bed.controller.do(of.port_mod(self.number, address, config, mask))

    def replace(self):
        """Another device of the same name gets the number."""
        self.ovs.vsctl("del-port", self.device.name)
        self.device.close()
        self.ports[self.local] = HostPort(self.device.namespace, self.device.name)
        self.device.namespace.ip(f"link set {self.device.name} address 02:00:00:00:99:99")
        self.ovs.vsctl(
            "add-port", self.bridge, self.device.name,
            "--", "set", "interface", self.device.name, f"ofport_request={self.local}",
        )  # fmt: skip


WORDS = {DOWN: "PORT_DOWN", FLOODLESS: "NO_FLOOD", PortConfig.NO_STP: "NO_STP"}


@pytest.fixture(scope="module")
def _places(root):
    bed, plain = FaultBed(2, relays=[2]), PlainSwitch((1, 2))
    switch = bed.network.switches[2]
    try:
        yield (
            Place(bed, BIG, switch.ovs, switch.name, switch.ports, 2),
            Place(plain, PLAIN, plain.bridge.ovs, plain.bridge.name, plain.bridge.ports, 2),
        )
    finally:
        plain.stop()
        bed.stop()


class Away:
    """Within it, switch 2 has no controller: `with Away(big): ...`."""

    def __init__(self, place):
        self.bed = place.bed

    def __enter__(self):
        self.bed.relays[2].refuse()
        self.bed.relays[2].drop()
        self.bed.wait_for_ports([1, 2], 5)

    def __exit__(self, *exc_info):
        self.bed.relays[2].refuse(False)
        until(self.back, "return of switch 2")

    def back(self):
        ports = self.bed.controller.features().ports
        return not ports[17].state & of.LINK_DOWN


@pytest.fixture
def places(_places):
    """Both ports without any bits."""
    for place in _places:
        place.device.set_up(True)
        until(lambda place=place: not place.config & DOWN, "port up")
        place.set(0, 0x7F)
        assert place.real == 0
    return _places


def agree(places):
    """All say the same of the port, the controllers and the switches; return it."""
    big, plain = places
    until(lambda: big.config == big.real == plain.config == plain.real, "agreement")
    return big.config


def test_a_device_that_replaces_another_while_its_switch_is_away_gets_no_bits(places):
    for place in places:
        place.set(BOTH, BOTH)
        assert place.real == BOTH
    with Away(places[0]):
        for place in places:
            place.replace()
    assert agree(places) == 0


def test_what_others_do_to_a_port_counts_after_a_flap(places):
    """`ip link set` and `ovs-ofctl mod-port` on the machine, told or while the switch is away."""
    for place in places:
        place.set(BOTH, BOTH)
        place.device.set_up(True)
        until(lambda place=place: place.config == FLOODLESS, "told")
    with Away(places[0]):
        pass
    assert agree(places) == FLOODLESS
    with Away(places[0]):
        for place in places:
            place.ovs.ofctl("mod-port", place.bridge, str(place.local), "flood")
            place.device.set_up(False)
    assert agree(places) == DOWN


def test_a_restarted_switch_gets_the_bits_that_it_has_forgotten(places):
    """A plain bridge forgets them, but PORT_DOWN is the device's own flag."""
    big, plain = places
    connections = len(plain.bed.controller.connections)
    for place in places:
        place.set(BOTH, BOTH)
        place.ovs.restart()
    until(Away(big).back, "return of switch 2")
    plain.bed.controller.wait_for_connection(connections + 1)
    assert (big.config, big.real) == (BOTH, BOTH)
    assert (plain.config, plain.real) == (DOWN, DOWN)
    for place in places:
        place.ovs.kill_vswitchd()
        place.device.set_up(True)
        place.ovs.start()
    until(Away(big).back, "return of switch 2")
    plain.bed.controller.wait_for_connection(connections + 2)
    assert (big.config, big.real) == (FLOODLESS, FLOODLESS)
    assert (plain.config, plain.real) == (0, 0)
