"""Somebody else changes flows on a switch, by hand or with another tool."""

import pytest
from lab import frames
from lab import openflow10 as of
from lab.openflow10 import Type
from lab.traffic import Stream

RIGHT = 3.0
"""Seconds until a switch is up again and has its flows: Open vSwitch connects after one second."""


@pytest.mark.parametrize("what", ["", "table=0", "table=2"])
def test_flows_that_somebody_deletes_are_there_again(make_bed, what):
    """`ovs-ofctl del-flows` empties one switch. The other switches are not touched."""
    bed = make_bed()
    second = bed.network.switches[2]
    with Stream(bed.network, 1, [17]) as into, Stream(bed.network, 2, [33]) as others:
        into.wait_for_frames()
        others.wait_for_frames()
        second.ovs.ofctl("del-flows", "s2", *filter(None, [what]))
        bed.aggregator.wait_for_log("switch 2: lost: somebody else has deleted its flows")
        bed.wait_until_right(RIGHT)
        into.wait_for_frames()
    others.expect_no_loss()
    assert "switch 1: lost" not in bed.aggregator.log()
    assert bed.controller.take(Type.ERROR) == []


def test_what_an_earlier_run_has_left_is_nobodys_interference(make_bed):
    """The old run's rules are removed, also those with SEND_FLOW_REM. No connection ends because of
    that.
    """
    bed = make_bed()
    bed.controller.flow_mod(of.match(), of.output(17), priority=0)
    bed.wait_until_right(RIGHT)
    bed.aggregator.kill()
    assert [flow for flow in bed.network.switches[1].flows() if "table=3" in flow]
    bed.aggregator.start()
    bed.controller.wait_for_connection(2)
    bed.wait_for_ports(bed.numbers)
    bed.wait_until_right(RIGHT)
    assert not [flow for flow in bed.network.switches[1].flows() if "table=3" in flow]
    bed.controller.barrier()  # by then the switches have reported any rule that is gone
    bed.network.send(1, frames.udp())
    bed.controller.expect(Type.PACKET_IN)
    assert "lost" not in bed.aggregator.log()


def test_what_somebody_changes_is_put_right_without_being_asked(make_bed):
    """Open vSwitch reports none of these changes, but for the deletion of the service rule."""
    bed = make_bed(2, audit=1)
    one = bed.network.switches[1].ovs
    deleted = of.match(dl_dst=frames.host_mac(17))
    with Stream(bed.network, 1, [17]) as stream:
        stream.wait_for_frames()
        before = bed.controller.flow_stats(deleted)[0].packet_count
        one.ofctl("del-flows", "s1", f"table=2,dl_dst={frames.host_mac(17)}")
        one.ofctl("mod-flows", "s1", f"table=2,dl_dst={frames.host_mac(2)},actions=drop")
        one.ofctl("add-flow", "s1", "table=2,priority=1,arp,nw_src=10.1.0.0/16,actions=drop")
        one.ofctl("add-flow", "s1", "table=0,priority=60000,in_port=2,actions=drop")
        one.ofctl("del-flows", "s1", "table=1,tun_id=2")
        assert bed.differences()
        bed.wait_until_right(15)
        stream.wait_for_frames()
    assert bed.controller.flow_stats(deleted)[0].packet_count >= before
    assert bed.controller.take(Type.FLOW_REMOVED) == []
    assert "switch 1: somebody else has changed its flow entries (" in bed.aggregator.log()
    assert "lost" not in bed.aggregator.log()
