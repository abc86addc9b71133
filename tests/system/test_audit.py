"""What is on the switches is what the controller is told, also when others take it away."""

import pytest
from lab import openflow10 as of
from lab.faultbed import until
from lab.openflow10 import RemovedReason, Type

from .look import of_the_controller

ROOM = 10  # flows


@pytest.fixture
def small_tables(big_switch):
    """Table 2 of both switches has room for so many flows, and evicts others for new ones."""
    switches = big_switch.network.switches.values()
    for switch in switches:
        switch.ovs.vsctl(
            *("--", "--id=@table", "create", "Flow_Table"),
            *(f"flow_limit={ROOM + 1}", "overflow_policy=evict"),  # 1: the table-miss rule
            *("--", "set", "bridge", switch.name, "flow_tables:2=@table"),
        )
    yield
    for switch in switches:
        switch.ovs.vsctl("clear", "bridge", switch.name, "flow_tables")


def test_flows_that_a_switch_evicts_end_everywhere(big_switch, small_tables):
    """A plain bridge does not tell of evicted flows. Here those that asked for it are told."""
    controller = big_switch.controller
    wanted = range(1, 2 * ROOM + 1)
    for number in wanted:
        controller.flow_mod(
            of.match(dl_type=0x88B5, dl_vlan=number),
            of.output(2),
            cookie=number,
            idle_timeout=60,
            flags=of.Flag.SEND_FLOW_REM if number % 2 else 0,
        )

    def told():
        return {flow.cookie for flow in controller.flow_stats()}

    def there(dpid):
        return {flow.match for flow in of_the_controller(big_switch.network.switches[dpid])}

    def same():
        return len(told()) == len(there(1)) == len(there(2)) <= ROOM

    until(same, "same flows everywhere")
    left = told()
    assert there(1) == there(2) == {f"dl_vlan={n},dl_type=0x88b5" for n in left}
    assert wanted[-1] in left
    removed = {}
    while len(removed) < sum(n % 2 and n not in left for n in wanted):
        flow = of.unpack_flow_removed(controller.expect(Type.FLOW_REMOVED).body)
        removed[flow.cookie] = flow.reason
    assert removed == {n: RemovedReason.DELETE for n in wanted if n % 2 and n not in left}
    controller.barrier()
    assert controller.take(Type.FLOW_REMOVED) == []


@pytest.mark.parametrize("others", [0, 40], ids=["dump", "one by one"])
def test_what_statistics_show_to_be_missing_is_put_back(big_switch, others):
    controller, switch = big_switch.controller, big_switch.network.switches[1]
    match = of.match(dl_type=0x88B5)
    controller.flow_mod(match, of.output(2))
    controller.send(
        *(of.flow_mod(of.match(dl_type=0x88B6, dl_vlan=n + 1), of.output(2)) for n in range(others))
    )
    controller.barrier()
    switch.ovs.ofctl("del-flows", switch.name, "table=2,dl_type=0x88b5")
    assert len(of_the_controller(switch)) == others
    assert len(controller.flow_stats(match)) == 1
    until(lambda: len(of_the_controller(switch)) == others + 1, "flow")
