"""The configuration of a switch's ports: whose it is, and how long it is remembered."""

import pytest
from lab import openflow10 as of

from edge.south import complaints
from edge.south.memberports import Bits

from .fakes import PORTS, phy_port
from .test_member import (
    HELD_BACK,
    NO_FLOOD,
    NO_STP,
    PORT_DOWN,
    Switch,
    changes,
    port_mods,
    warnings,
)

NO_FWD = 0x20
PORT = PORTS[1]
LOCAL = phy_port(of.Port.LOCAL, "s1")._replace(hw_addr=b"\2\0\0\0\0\1")
OTHER_NAME = PORT._replace(name=b"s1-eth9")
OTHER_ADDRESS = PORT._replace(hw_addr=b"\2\0\0\0\0\x99")
SET = PORT_DOWN | NO_FLOOD
RESTARTED = pytest.mark.parametrize("restarted", [False, True], ids=["away", "restarted"])


class Bridge(Switch):
    """A switch that does the PORT_MODs that it is sent, and keeps the bits as Open vSwitch does."""

    def __init__(self, ports=(*PORTS, LOCAL)):
        super().__init__(ports)
        self.work()

    def work(self):
        """Do and answer all; return the PORT_MODs as {port: [(bits, mask), ...]}, and no others."""
        found = {}
        while True:
            messages = self.answer()
            for number, _, config, mask in port_mods(messages):
                found.setdefault(number, []).append((config, mask))
                self.ports = [
                    port._replace(config=port.config & ~mask | config)
                    if port.port_no == number
                    else port
                    for port in self.ports
                ]
            barriers = [each for each in messages if each.type == of.Type.BARRIER_REQUEST]
            for each in barriers:
                self.reply(of.Type.BARRIER_REPLY, each, b"")
            if not messages:
                return found

    def set(self, bits, mask):
        """A controller sets bits of the port; barriers show that the switch has done it."""
        self.member.modify_port(2, Bits(bits, mask), 0, 7)
        assert self.work() == {2: [(bits, mask)]}
        self.member.session.barrier(lambda: None)
        self.work()

    def port(self, number=2):
        return next((port for port in self.ports if port.port_no == number), None)

    def put(self, port):
        self.ports = [each for each in self.ports if each.port_no != port.port_no] + [port]

    def tell(self, port):
        """Somebody else has changed a port: the switch sends a PORT_STATUS."""
        self.put(port)
        self.port_status(of.PortReason.MODIFY, port)

    def lose(self):
        self.member.closed(self.connection)

    def restart(self):
        """Forget all bits but the one that is the device's own."""
        self.ports = [port._replace(config=port.config & PORT_DOWN) for port in self.ports]

    def connect(self):
        """Connect; return the PORT_MODs for the port."""
        self.member.connect(self.connection)
        return self.work().get(2, [])

    @property
    def believed(self):
        return self.member.ports.all[2].config

    def agree(self):
        assert self.believed == self.port().config
        return self.believed


@pytest.fixture
def bridge():
    return Bridge()


# ---- the device behind a number changes ----


@RESTARTED
@pytest.mark.parametrize("device", [OTHER_NAME, OTHER_ADDRESS], ids=["name", "address"])
def test_a_device_that_came_while_its_switch_was_away_gets_nothing(bridge, device, restarted):
    bridge.set(SET, SET)
    bridge.lose()
    bridge.restart() if restarted else None
    bridge.put(device)
    assert bridge.connect() == []
    assert bridge.agree() == 0
    bridge.lose()
    bridge.restart()
    bridge.put(PORT)
    assert bridge.connect() == [], "nor does the first device, when it is back"
    assert bridge.agree() == 0


@pytest.mark.parametrize(
    "device", [PORT, OTHER_NAME, OTHER_ADDRESS], ids=["same", "name", "address"]
)
def test_a_device_that_came_while_its_switch_was_connected_gets_nothing(bridge, device):
    bridge.set(SET, SET)
    bridge.port_status(of.PortReason.DELETE, PORT)
    bridge.put(device)
    bridge.port_status(of.PortReason.ADD, device)
    assert bridge.work() == {} and bridge.agree() == 0
    bridge.lose()
    bridge.restart()
    assert bridge.connect() == [] and bridge.agree() == 0


@pytest.mark.parametrize("reason", [of.PortReason.ADD, of.PortReason.MODIFY])
def test_another_device_in_one_message_gets_nothing(bridge, reason):
    """Open vSwitch sends a DELETE first; others need not."""
    bridge.set(SET, SET)
    bridge.put(OTHER_NAME)
    bridge.port_status(reason, OTHER_NAME)
    assert bridge.work() == {} and bridge.agree() == 0
    bridge.lose()
    bridge.restart()
    assert bridge.connect() == [] and bridge.agree() == 0


def test_a_port_that_gets_another_address_keeps_what_its_switch_says(bridge):
    """Open vSwitch keeps the bits when somebody changes a device's address."""
    bridge.set(SET, SET)
    bridge.tell(bridge.port()._replace(hw_addr=OTHER_ADDRESS.hw_addr))
    assert bridge.agree() == SET
    bridge.lose()
    assert bridge.connect() == [] and bridge.agree() == SET
    bridge.lose()
    bridge.restart()
    assert bridge.connect() == [(NO_FLOOD, NO_FLOOD)] and bridge.agree() == SET


def test_a_port_that_was_away_is_a_new_one(bridge):
    """It goes and comes back while its switch is away: the switch has forgotten its bits."""
    bridge.set(NO_FLOOD | NO_FWD, NO_FLOOD | NO_FWD)
    bridge.lose()
    bridge.put(PORT)
    assert bridge.connect() == [] and bridge.agree() == 0


# ---- what the switch has told since ----


def test_a_connection_that_flaps_sets_nothing_again(bridge):
    bridge.set(SET, SET)
    for _ in range(3):
        bridge.lose()
        assert bridge.connect() == [] and bridge.agree() == SET


@RESTARTED
@pytest.mark.parametrize("away", [False, True], ids=["told", "while away"])
def test_what_somebody_else_has_set_counts(bridge, restarted, away):
    """`ip link set up`, `ovs-ofctl mod-port flood` on the switch."""
    bridge.set(SET | NO_FWD, SET | NO_FWD)
    if not away:
        bridge.tell(PORT._replace(config=NO_FWD))
        assert bridge.agree() == NO_FWD
    bridge.lose()
    if away:
        bridge.put(PORT._replace(config=NO_FWD))
    if restarted and not away:
        bridge.restart()
        assert bridge.connect() == [(NO_FWD, NO_FWD)]
    else:
        assert bridge.connect() == []
    assert bridge.agree() == NO_FWD


def test_what_others_have_set_is_not_set_again_after_a_restart(bridge):
    bridge.tell(PORT._replace(config=NO_FLOOD))
    bridge.lose()
    bridge.restart()
    assert bridge.connect() == [] and bridge.agree() == 0


def test_a_restarted_switch_gets_what_it_has_forgotten(bridge):
    """The device is still down by itself, unless somebody has set it up."""
    bridge.set(SET, SET)
    for _ in range(2):
        bridge.lose()
        bridge.restart()
        assert bridge.connect() == [(NO_FLOOD, NO_FLOOD)] and bridge.agree() == SET
    bridge.lose()
    bridge.restart()
    bridge.put(PORT)
    assert bridge.connect() == [(NO_FLOOD, NO_FLOOD)] and bridge.agree() == NO_FLOOD


def test_flood_on_for_the_local_port_by_hand_is_off_again(bridge):
    assert bridge.port(of.Port.LOCAL).config == NO_FLOOD
    bridge.tell(LOCAL)
    assert bridge.work() == {of.Port.LOCAL: [(NO_FLOOD, NO_FLOOD)]}


# ---- what the switch may not have executed ----


def test_what_a_switch_may_have_missed_is_sent_again(bridge):
    """No barrier has shown that the PORT_MOD had arrived when the connection ended."""
    bridge.set(NO_FWD, NO_FWD)
    bridge.member.modify_port(2, Bits(SET, SET), 0, 8)
    bridge.connection.take()
    bridge.lose()
    bridge.put(PORT)  # meanwhile somebody has cleared NO_FWD
    assert bridge.connect() == [(SET, SET)]
    assert bridge.agree() == SET
    bridge.member.session.barrier(lambda: None)
    bridge.work()
    bridge.lose()
    bridge.put(PORT)
    assert bridge.connect() == [] and bridge.agree() == 0


def test_what_is_set_while_a_switch_is_away_is_set_when_it_is_back(bridge):
    bridge.lose()
    bridge.member.modify_port(2, Bits(SET, SET), 0, 8)
    assert bridge.believed == SET
    bridge.connection.take()
    assert bridge.connect() == [(SET, SET)] and bridge.agree() == SET


def test_what_is_set_while_a_switch_is_away_is_for_the_device_that_it_had(bridge):
    bridge.lose()
    bridge.member.modify_port(2, Bits(SET, SET), 0, 8)
    bridge.connection.take()
    bridge.put(OTHER_ADDRESS)
    assert bridge.connect() == [] and bridge.agree() == 0


def test_what_is_in_flight_to_an_address_that_has_changed_is_not_set(bridge):
    """The switch refuses a PORT_MOD with the old address, or tells the bits with the new one."""
    bridge.member.modify_port(2, Bits(SET, SET), 0, 8)
    bridge.connection.take()
    bridge.tell(OTHER_ADDRESS._replace(config=NO_FWD))
    assert bridge.agree() == NO_FWD
    bridge.lose()
    assert bridge.connect() == [] and bridge.agree() == NO_FWD


@pytest.mark.parametrize("last", [0, NO_FLOOD])
def test_a_port_status_that_crosses_a_port_mod_is_asked_about(bridge, last):
    """It was sent before the switch had executed the PORT_MOD, or tells of a change after that."""
    bridge.member.modify_port(2, Bits(NO_FLOOD, NO_FLOOD), 0, 8)
    for state in (1, 0, 1):
        bridge.port_status(of.PortReason.MODIFY, PORT._replace(state=state))
    assert bridge.believed == NO_FLOOD and bridge.member.ports.all[2].state == 1
    messages = bridge.connection.take()
    (request,) = [each for each in messages if each.type == of.Type.FEATURES_REQUEST]
    bridge.put(PORT._replace(config=last, state=1))
    bridge.reply(
        of.Type.FEATURES_REPLY, request, bytes(24) + b"".join(p.pack() for p in bridge.ports)
    )
    assert bridge.agree() == last
    bridge.tell(PORT._replace(config=0))
    assert bridge.agree() == 0 and bridge.work() == {}


# ---- ports that the big switch does not have ----

ABOVE = phy_port(20, "s1-eth20")


class WithMaxPorts(Bridge):
    def __init__(self, max_ports, ports):
        Switch.__init__(self, ports, max_ports=max_ports)
        self.did = self.work()


def test_a_larger_max_ports_takes_back_what_a_smaller_one_has_set():
    before = WithMaxPorts(16, [*PORTS, ABOVE, LOCAL])
    assert before.did == {
        3: [(NO_FLOOD, NO_FLOOD)],
        20: [(HELD_BACK, HELD_BACK)],
        of.Port.LOCAL: [(NO_FLOOD, NO_FLOOD)],
    }
    after = WithMaxPorts(20, before.ports)
    assert after.did == {20: [(0, HELD_BACK)]}
    assert after.member.ports.all[20].config == after.port(20).config == 0


def test_a_port_status_that_crosses_what_is_taken_back():
    above = ABOVE._replace(config=HELD_BACK)
    after = Switch([*PORTS, above, LOCAL], max_ports=20)
    request = after.connection.take()[-1]
    ports = b"".join(port.pack() for port in after.ports)
    after.reply(of.Type.FEATURES_REPLY, request, bytes(24) + ports)
    after.port_status(of.PortReason.MODIFY, ABOVE._replace(config=HELD_BACK, state=1))
    assert after.member.ports.all[20].config == 0


@pytest.mark.parametrize("config", [NO_FLOOD, NO_STP, NO_FLOOD | NO_FWD])
def test_what_others_have_set_on_a_port_above_stays(config):
    before = WithMaxPorts(16, [*PORTS, ABOVE._replace(config=config), LOCAL])
    assert (20 in before.did) == (not config & NO_FLOOD)
    if config & NO_FLOOD:
        after = WithMaxPorts(20, before.ports)
        assert after.did == {}
        assert after.port(20).config == config


@pytest.mark.parametrize("config", [NO_FLOOD | NO_STP, 0x7E, 0x7F])
def test_what_a_controller_had_set_on_a_port_stays_after_a_start(config):
    after = WithMaxPorts(16, [PORT._replace(config=config), PORTS[2], LOCAL])
    assert 2 not in after.did
    assert after.believed == after.port().config == config


def test_the_same_bits_set_by_a_controller_stay_while_this_program_runs(bridge):
    bridge.set(HELD_BACK, HELD_BACK)
    bridge.lose()
    assert bridge.connect() == [] and bridge.agree() == HELD_BACK
    bridge.tell(bridge.port()._replace(state=1))
    assert bridge.work() == {} and bridge.agree() == HELD_BACK


def test_a_port_above_gets_a_lower_number(bridge):
    """It is another port then, without bits."""
    bridge.port_status(of.PortReason.ADD, ABOVE)
    assert bridge.work() == {20: [(HELD_BACK, HELD_BACK)]}
    bridge.port_status(of.PortReason.DELETE, ABOVE)
    bridge.port_status(of.PortReason.ADD, ABOVE._replace(port_no=4))
    assert bridge.work() == {}


MANY = 2000


def test_thousands_of_ports_that_are_left_out_are_one_line_and_a_rule_each(caplog, monkeypatch):
    bridge = Bridge()
    for number in range(20, 20 + MANY):
        bridge.port_status(of.PortReason.ADD, phy_port(number, f"p{number}"))
    rules = changes(bridge.answer())
    assert len(rules) == MANY + 1, "KEY_ALL names the ports, once"
    assert all("ADD table=0 priority=32768 in_port=" in rule for rule in rules[1:])
    assert len(warnings(caplog)) == 1 and "port 20 (p20) cannot" in warnings(caplog)[0]
    now = complaints.time.monotonic() + complaints.PAUSE
    bridge.member.complaints.tick(now)
    assert len(warnings(caplog)) == 2
    assert f"port 20 (p20) and {MANY - 1} more cannot" in warnings(caplog)[1]
    for number in range(20, 20 + MANY):
        bridge.port_status(of.PortReason.DELETE, phy_port(number, f"p{number}"))
    rules = changes(bridge.answer())
    assert len(rules) == MANY + 1
    assert len([rule for rule in rules if rule.startswith("DELETE_STRICT table=0")]) == MANY
    bridge.member.complaints.tick(now + complaints.PAUSE)
    assert len(warnings(caplog)) == 2
    assert set(bridge.member._rules._rules) == set(bridge.member.wanted_rules())


def test_tunnel_ports_that_come_and_go_leave_the_right_rules(bridge):
    """One is the tunnel; of several, none."""
    extra = [phy_port(number, f"tun{number}") for number in (5, 6, 30)]
    for port in extra:
        bridge.port_status(of.PortReason.ADD, port)
        assert bridge.member._rules._rules == bridge.member.wanted_rules()
    for port in (*extra, PORTS[2]):
        bridge.port_status(of.PortReason.DELETE, port)
        assert bridge.member._rules._rules == bridge.member.wanted_rules()
    bridge.port_status(of.PortReason.ADD, PORTS[2])
    assert bridge.member._rules._rules == bridge.member.wanted_rules()
