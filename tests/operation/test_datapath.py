"""Other POX components find the big switch as a datapath, and get events about its switches."""

import re

import pytest
from lab import openflow10 as of


@pytest.fixture
def bed(make_big_switch):
    return make_big_switch(level="INFO", options=["operation.datapath_watch"])


def test_a_component_in_the_same_pox_sees_what_happens(bed):
    log = bed.aggregator.log()
    up = re.findall(r"INFO:watch:SwitchUp {'index': '(\d)', 'dpid': '(\d)'}", log)
    assert sorted(up) == [("1", "1"), ("2", "2")]
    found = re.findall(r"INFO:watch:TunnelFound {'index': '(\d)', .*?'ip': '([0-9.]+)'}", log)
    assert sorted(found) == [("1", "172.16.0.1"), ("2", "172.16.0.2")]
    for priority in (3, 20):
        bed.controller.flow_mod(of.match(dl_vlan=priority), [of.output(1)], priority=priority)
    since = bed.aggregator.log_end()
    bed.controller.barrier()
    bed.network.switches[2].ovs.kill_vswitchd()
    said = bed.aggregator.wait_for_log("watch:(SwitchLost.*)$", since=since).group(1)
    ports = {1: "1.s1-eth1", 2: "1.s1-eth2", 17: "2.s2-eth1 down", 18: "2.s2-eth2 down"}
    assert said.startswith("SwitchLost {'index': '2', 'dpid': '2', 'reason': '")
    assert said.endswith(f"; ports {ports}, statistics of {list(ports)}; flows [20, 3]")
