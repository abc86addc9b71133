"""Real switches that refuse a change, because a relay has spoiled the message to one of them."""

import struct

import pytest
from lab import openflow10 as of
from lab.bigswitch import OPENFLOW_PORT
from lab.faultbed import FaultBed, until
from lab.network import UNDERLAY_ADDRESS
from lab.openflow10 import Command, Type
from lab.relay import SOUTHWARD

NXT_FLOW_MOD = struct.pack("!II", of.NX_VENDOR, 13)
MATCH = of.match(dl_type=0x88B5)
MODIFIES = 0x01
NO_FLOOD, NO_RECV = 0x10, 0x04


@pytest.fixture
def bed(make_bed):
    """Two switches with one flow on both. The first switch connects through a relay."""
    bed = make_bed(2, relays=[1], flows=False)
    bed.controller.flow_mod(MATCH, of.output(1))
    return bed


def spoil(relay, *numbers, kind):
    """Spoil some of the messages of one kind on their way to the switch, so that it refuses them.

    numbers: which messages of that kind, counted from 0.
    kind: a function that recognises them.
    """
    seen = []

    def mangle(direction, message):
        if direction != SOUTHWARD or not kind(message):
            return message
        seen.append(message)
        return spoiled(message) if len(seen) - 1 in numbers else message

    relay.mangle = mangle


def is_modify(message):
    return message[1] == Type.VENDOR and message[8:16] == NXT_FLOW_MOD and message[25] == MODIFIES


def is_port_mod(message):
    return message[1] == Type.PORT_MOD


def spoiled(message):
    """Return the message with an unknown command, or with another port's hardware address."""
    place = 25 if message[1] == Type.VENDOR else 10
    return message[:place] + bytes([message[place] ^ 0x60]) + message[place + 1 :]


def modify(bed, *ports):
    """Send the MODIFYs in one piece, so that the second arrives before the first is refused."""
    modifies = [of.flow_mod(MATCH, of.output(port), Command.MODIFY_STRICT) for port in ports]
    bed.controller.send(b"".join(modifies))


def refused(bed):
    """Wait until all is done and undone; return how many of the controller's messages were
    refused.
    """
    bed.controller.barrier()
    return [message.type for message in bed.controller.take()].count(Type.ERROR)


def does(bed):
    """Return the flow's actions as the controller reads them. The switches must have the same."""
    bed.wait_until_right(2.0)
    (flow,) = bed.controller.flow_stats()
    return flow.actions


def test_a_modify_that_one_switch_refuses_is_on_none(bed):
    spoil(bed.relays[1], 0, kind=is_modify)
    modify(bed, 2)
    assert refused(bed) == 1
    assert does(bed) == of.output(1)


def test_undoing_a_refused_modify_leaves_a_later_one_alone(bed):
    """The flow outputs to 1. A MODIFY to 2 is refused by one switch. A MODIFY to 17 is accepted by
    all.
    """
    spoil(bed.relays[1], 0, kind=is_modify)
    modify(bed, 2, 17)
    assert refused(bed) == 1
    assert does(bed) == of.output(17)


def test_of_two_refused_modifies_neither_is_what_is_gone_back_to(bed):
    spoil(bed.relays[1], 0, 1, kind=is_modify)
    modify(bed, 2, 17)
    assert refused(bed) == 2
    assert does(bed) == of.output(1)


def port_mod(bed, config, mask):
    port = bed.controller.features().ports[1]
    bed.controller.send(of.port_mod(1, port.hw_addr, config, mask))


def bits(bed):
    """Return the bits of port 1 as the controller reads them."""
    return bed.controller.features().ports[1].config & (NO_FLOOD | NO_RECV)


def comes_back(bed):
    """Have switch 1 come back; return the PORT_MODs for port 1 that are sent to it then."""
    relay, sent = bed.relays[1], []

    def note(direction, message):
        if direction == SOUTHWARD and is_port_mod(message) and message[8:10] == b"\0\1":
            sent.append(struct.unpack_from("!LL", message, 16))
        return message

    relay.mangle = note
    count = relay.connections
    relay.drop()
    bed.wait_for_link([1, 2], down=True, timeout=5)
    relay.wait_for_connection(count + 1)
    bed.wait_for_link([1, 2], down=False, timeout=10)
    return sent


def test_a_refused_port_mod_is_not_sent_again_when_the_switch_comes_back(bed):
    spoil(bed.relays[1], 0, kind=is_port_mod)
    port_mod(bed, NO_FLOOD, NO_FLOOD)
    assert refused(bed) == 1
    assert bits(bed) == 0
    assert comes_back(bed) == []
    assert bits(bed) == 0


def test_a_refused_port_mod_takes_back_no_bits_but_its_own(bed):
    """NO_FLOOD is set. Then one PORT_MOD, which clears NO_FLOOD and sets NO_RECV, is refused. Then
    NO_RECV is set alone.
    """
    port_mod(bed, NO_FLOOD, NO_FLOOD)
    assert refused(bed) == 0
    spoil(bed.relays[1], 0, kind=is_port_mod)
    port_mod(bed, NO_RECV, NO_RECV | NO_FLOOD)
    port_mod(bed, NO_RECV, NO_RECV)
    assert refused(bed) == 1
    assert bits(bed) == NO_FLOOD | NO_RECV
    assert comes_back(bed) == [], "the switch has all of it"
    assert bits(bed) == NO_FLOOD | NO_RECV


def test_a_switch_that_is_lost_while_it_is_brought_up_to_date_leaves_nothing_behind(make_bed):
    bed = make_bed(2, relays=[1], flows=False)
    held = bed.held_when_quiet()
    relay = bed.relays[1]
    relay.refuse()
    relay.drop()
    bed.wait_for_link([1, 2], down=True, timeout=5)
    addresses = [f"02:00:00:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}" for n in range(40000)]
    match = [of.match(in_port=1, dl_dst=address) for address in addresses]
    bed.controller.send(b"".join(of.flow_mod(each, of.output(2)) for each in match))
    bed.controller.barrier(60)
    relay.refuse(False)
    bed.aggregator.wait_for_log(r"switch 1: up, .* 40000 added", timeout=30)
    relay.refuse()
    relay.drop()
    until(lambda: "switch 1: lost" in bed.aggregator.log(), "loss of switch 1")
    bed.controller.flow_mod(command=Command.DELETE)
    bed.controller.barrier()
    (now,) = [{name: size for name, size in bed.inside("sizes").items() if "missing" in name}]
    assert not any(now.values()), now
    relay.refuse(False)
    bed.wait_for_link([1, 2], down=False, timeout=20)
    bed.expect_held(held, timeout=20)


class OverUnderlay(FaultBed):
    """The switches connect from their tunnel IPs."""

    def connect_switches(self):
        self.network.join_underlay()
        self.network.connect(f"tcp:{UNDERLAY_ADDRESS}:{OPENFLOW_PORT}")


def test_a_refused_switch_leaves_no_candidate_for_a_tunnel_ip(root):
    """--ips=auto: two switches have one dpid, so one of them is refused."""
    bed = OverUnderlay(3, options=["--ips=auto"], datapath_ids={3: 2}, ready=False)
    try:
        bed.aggregator.wait_for_log("another switch has the same dpid")
        until(lambda: len(bed.inside("unreached")) == 2, "two candidates")
        bed.aggregator.wait_for_log("All 2 tunnel IPs are discovered")
    finally:
        bed.stop()
