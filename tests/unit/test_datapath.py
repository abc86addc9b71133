"""The big switch as a POX datapath: how other POX components find it and use it."""

import struct
import time

import pox.openflow.libopenflow_01 as of10
import pytest
from dashboard import model
from lab import openflow10 as of
from lab.openflow10 import Type
from pox.core import core
from pox.datapaths.switch import SoftwareSwitchBase
from pox.lib.addresses import IPAddr
from pox.openflow.flow_table import TableEntry

from edge.north.datapath import Datapath, SwitchLost, SwitchUp, TunnelFound
from edge.openflow import nicira as nx
from edge.openflow.messages import PhyPort

from .test_connections import HELLO, Socket, connect, no_turns  # noqa: F401

SLAVE, MASTER = nx.NX_ROLE_SLAVE, nx.NX_ROLE_MASTER


@pytest.fixture
def switch():
    return model.big_switch(2)


@pytest.fixture
def datapath(switch):
    return model.datapath(switch)


class Controller:
    """A connection to a controller, with the messages that it gets."""

    def __init__(self, datapath, service=False):
        self.socket = Socket()
        self.connection = connect(self.socket, datapath.rx_message, service=service)
        datapath.set_connection(self.connection)
        self.send(HELLO)
        assert [message.type for message in self.told()] == [Type.HELLO]

    def send(self, message):
        self.socket.coming.append(message)
        self.connection.io_worker._do_recv()

    def told(self):
        outbox = self.connection.io_worker.outbox
        data, outbox.data = outbox.data, b""
        messages = []
        while data:
            length = int.from_bytes(data[2:4], "big")
            messages.append(of.unpack(data[:length]))
            data = data[length:]
        return messages


# ---- what other components find ----


@pytest.fixture
def components(monkeypatch):
    """POX's components; the test may change them."""
    monkeypatch.setattr(core, "components", dict(core.components))
    core.components.pop("datapaths", None)
    core.components.pop("aggregator", None)
    return core.components


def test_it_is_found_as_any_datapath_is(components, datapath):
    datapath.register()
    assert components["datapaths"] == {0x2A: datapath}
    assert components["aggregator"] is datapath
    assert isinstance(datapath, SoftwareSwitchBase)
    assert datapath.name == "00-00-00-00-00-2a"


def test_other_datapaths_stay_where_they_are(components, datapath):
    other = object()
    core.register("datapaths", {1: other})
    datapath.register()
    assert components["datapaths"] == {1: other, 0x2A: datapath}


def test_it_announces_what_open_vswitch_does(datapath):
    assert datapath.features.capability_bits == 0xC7
    assert datapath.features.action_bits == 0xFFF
    assert (datapath.max_buffers, datapath.max_entries) == (0, 1000000)


def test_the_framework_finds_the_handlers(datapath):
    """Errors and messages that only switches send have no handler. The default refuses them."""
    assert set(datapath.ofp_handlers) == {
        Type.HELLO,
        Type.ECHO_REQUEST,
        Type.ECHO_REPLY,
        Type.VENDOR,
        Type.FEATURES_REQUEST,
        Type.GET_CONFIG_REQUEST,
        Type.SET_CONFIG,
        Type.PACKET_OUT,
        Type.FLOW_MOD,
        Type.PORT_MOD,
        Type.STATS_REQUEST,
        Type.BARRIER_REQUEST,
        Type.QUEUE_GET_CONFIG_REQUEST,
    }
    assert set(datapath.stats_handlers) == {0, 1, 2, 3, 4, 5, 13}
    for handler in (*datapath.ofp_handlers.values(), *datapath.stats_handlers.values()):
        assert handler.__func__.__module__.startswith("edge."), handler


def test_no_packet_goes_through_it(datapath):
    with pytest.raises(RuntimeError, match="forwarded by its switches"):
        datapath.rx_packet(object(), 1)


# ---- its ports ----

NAMED = PhyPort(5, bytes(range(6)), b"eth\xff\xfe%s", 0x7F, 1, 0xFFFFFFFF, 2, 3, 4)


def test_its_ports_are_poxs_with_the_same_bytes(switch, datapath):
    assert list(datapath.ports) == [1, 2, 17, 18]
    assert all(type(port) is of10.ofp_phy_port for port in datapath.ports.values())
    packed = {number: port.pack() for number, port in datapath.ports.items()}
    assert packed == {number: port.pack() for number, port in switch.portlist.ports.items()}
    datapath.port_status(of10.OFPPR_ADD, NAMED)
    assert datapath.ports[5].pack() == NAMED.pack()


def test_ports_come_change_and_go(switch, datapath):
    controller = Controller(datapath)
    member = switch.topology.members[1]
    told = []

    def change(reason, *ports):
        for port in ports:
            member.ports.changed(reason, port)
        switch.portlist.announce(member)
        assert {number: port.pack() for number, port in datapath.ports.items()} == {
            number: port.pack() for number, port in switch.portlist.ports.items()
        }
        assert datapath.port_stats.keys() == datapath.ports.keys()
        for message in controller.told():
            assert (message.type, message.xid) == (Type.PORT_STATUS, 0)
            told.append((message.body[0], struct.unpack_from("!H", message.body, 8)[0]))
            assert len(message.body) == 56

    change(of10.OFPPR_ADD, model.phy_port(4, b"s1-eth4"))
    down = model.phy_port(4, b"s1-eth4", state=of10.OFPPS_LINK_DOWN)
    change(of10.OFPPR_MODIFY, down)
    change(of10.OFPPR_DELETE, down, member.ports.all[1])
    assert told == [
        (of10.OFPPR_ADD, 4),
        (of10.OFPPR_MODIFY, 4),
        (of10.OFPPR_DELETE, 1),
        (of10.OFPPR_DELETE, 4),
    ]


def test_who_has_changed_a_port_is_not_told(datapath):
    asker, other = Controller(datapath), Controller(datapath)
    port = NAMED._replace(port_no=1)
    datapath.port_status(of10.OFPPR_MODIFY, port, asker.connection)
    assert asker.told() == []
    (message,) = other.told()
    assert message.body == bytes([of10.OFPPR_MODIFY]) + bytes(7) + port.pack()


def test_the_features_are_those_of_the_datapath(datapath):
    controller = Controller(datapath)
    controller.send(of.message(Type.FEATURES_REQUEST, xid=7))
    (message,) = controller.told()
    ports = b"".join(port.pack() for port in datapath.ports.values())
    assert message.xid == 7
    assert message.body == struct.pack("!QIB3xII", 0x2A, 0, 254, 0xC7, 0xFFF) + ports


# ---- messages ----


def test_asynchronous_messages_go_to_all_who_want_them(datapath):
    one, slave, silent = (Controller(datapath) for _ in range(3))
    client, asking = (Controller(datapath, service=True) for _ in range(2))
    slave.connection.role = SLAVE
    silent.connection.greeted = False
    asking.connection.miss_send_len = 128
    every = (one, slave, silent, client, asking)
    kinds = (Type.PACKET_IN, Type.FLOW_REMOVED, Type.PORT_STATUS)
    datapath.packet_in(of.message(Type.PACKET_IN, bytes(10)))
    datapath.flow_removed(of.message(Type.FLOW_REMOVED, bytes(80)))
    datapath.send(of.message(Type.PORT_STATUS, bytes(56)))
    assert [[message.type for message in each.told()] for each in every] == [
        [*kinds],
        [Type.PORT_STATUS],
        [],
        [],
        [*kinds],
    ]


def test_a_message_for_one_controller_goes_to_that_one(datapath):
    one, other = Controller(datapath), Controller(datapath)
    datapath.send(of.message(Type.ECHO_REPLY, b"a", 7), one.connection)
    assert [message.type for message in one.told()] == [Type.ECHO_REPLY]
    assert other.told() == []


def test_message_objects_of_pox_are_sent_too(datapath):
    """Other components and the framework's own methods pass such objects."""
    controller = Controller(datapath)
    datapath.send(of10.ofp_echo_reply(xid=7, body=b"a"), controller.connection)
    datapath.send_packet_in(1, packet=b"frame")
    first, second = controller.told()
    assert (first.type, first.xid, first.body) == (Type.ECHO_REPLY, 7, b"a")
    assert second.type == Type.PACKET_IN and second.body.endswith(b"frame")


def test_a_second_hello_is_refused(datapath):
    controller = Controller(datapath)
    controller.send(HELLO)
    (message,) = controller.told()
    assert of.unpack_error(message.body) == of.Error(1, 1, HELLO)


def test_a_connection_that_has_ended_is_forgotten(datapath):
    one, other = Controller(datapath), Controller(datapath)
    datapath.connection_closed(one.connection)
    assert datapath.connections == [other.connection]
    datapath.packet_in(of.message(Type.PACKET_IN, bytes(10)))
    assert one.told() == []


def test_upstreams_are_known_before_they_are_connected():
    datapath = Datapath(1, [("10.0.0.1", 6653), ("host.example", 6633)])
    assert [(each.address, each.connection) for each in datapath.upstreams] == [
        (("10.0.0.1", 6653), None),
        (("host.example", 6633), None),
    ]


# ---- its events ----


def test_other_components_are_told_of_the_switches(datapath):
    heard = []
    for name in ("SwitchUp", "SwitchLost", "TunnelFound"):
        datapath.addListenerByName(name, heard.append)
    datapath.switch_up(3, 0xABC)
    datapath.tunnel_found(3, 0xABC, 0xAC100003)
    datapath.switch_lost(3, 0xABC, "closed")
    up, found, lost = heard
    assert [type(each) for each in heard] == [SwitchUp, TunnelFound, SwitchLost]
    assert {(each.index, each.dpid) for each in heard} == {(3, 0xABC)}
    assert found.ip == IPAddr("172.16.0.3")
    assert lost.reason == "closed"
    assert all(each.source is datapath for each in heard)


def test_a_component_that_fails_costs_nothing_else(datapath, caplog):
    def fail(event):
        raise KeyError("a mistake")

    datapath.addListener(SwitchUp, fail)
    datapath.switch_up(3, 3)
    (record,) = caplog.records
    assert record.levelname == "ERROR" and "SwitchUp" in record.getMessage()


# ---- its table ----


def test_its_table_shows_the_flows(switch, datapath):
    assert len(datapath.table) == 0 and datapath.table.entries == []
    nicira = of.vendor_action(struct.pack("!HHIQ", 7, 31, 0x00010004, 5))
    actions = of.set_vlan_pcp(3) + nicira + of.output(17)
    flow = model.add_flow(
        switch, model.match(dl_type=0x800, nw_proto=6), actions, 0x1234, 99, 10, 20, 1
    )
    flow.created -= 100
    model.count(switch, 1, flow, 5, 500)
    model.count(switch, 2, flow, 7, 700)
    (entry,) = datapath.table.entries
    assert len(datapath.table) == 1
    assert type(entry) is TableEntry
    assert (entry.priority, entry.cookie, entry.flags) == (0x1234, 99, 1)
    assert (entry.idle_timeout, entry.hard_timeout) == (10, 20)
    assert (entry.packet_count, entry.byte_count) == (12, 1200)
    assert (entry.match.dl_type, entry.match.nw_proto, entry.match.in_port) == (0x800, 6, None)
    assert b"".join(action.pack() for action in entry.actions) == actions
    assert time.time() - entry.created == pytest.approx(100, abs=5)


def test_its_table_can_be_searched_as_any(switch, datapath):
    for number in range(3):
        model.add_flow(switch, model.match(in_port=number + 1), b"", priority=number)
    table = datapath.table
    assert [entry.priority for entry in table.entries] == [2, 1, 0]
    (found,) = table.matching_entries(of10.ofp_match(in_port=2))
    assert found.priority == 1
    assert table.aggregate_stats(of10.ofp_match()).flow_count == 3


def test_its_table_is_only_to_be_looked_at(switch, datapath):
    model.add_flow(switch)
    table = datapath.table
    (entry,) = table.entries
    for change in (
        lambda: table.add_entry(entry),
        lambda: table.remove_entry(entry),
        lambda: table.remove_matching_entries(of10.ofp_match()),
    ):
        with pytest.raises(TypeError, match="flow-mods"):
            change()
    assert len(table) == 1
    assert table.remove_matching_entries(of10.ofp_match(in_port=9)) == []
