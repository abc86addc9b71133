"""The test lab: real switches, real tunnels and a controller that does what the test says.

Everything that sends a packet runs in network namespaces that the lab makes and removes again.

    namespaces.py     a network namespace, and sockets and programs inside it
    breakable_ovs.py  a userspace Open vSwitch that a test can kill, freeze and start again
    network.py        switches joined by tunnels, a plain bridge, frames in and out of their ports
    frames.py         Ethernet frames to send, and how a failure shows them
    traffic.py        a stream of frames during a fault, and which of them were lost
    openflow10.py     OpenFlow 1.0 messages to and from bytes, independent of POX
    controller.py     an upstream OpenFlow 1.0 controller that the test commands
    fakeswitch.py     a program that speaks OpenFlow as a switch does, and can lie
    relay.py          a relay between switch and controller that loses, delays and forges messages
    aggregator.py     POX with edge.aggregator as a process
    bigswitch.py      switches, aggregator and controller together, ready to use
    faultbed.py       a big switch to break, with flows of every kind
    inside.py         a POX component that shows a test what edge.aggregator holds

A test takes a fixture of conftest.py: `big_switch`, `plain_switch`, `bed` for one after the other,
or a factory such as `make_big_switch` when it kills things.  It reads like this:

    def test_a_frame_crosses(bed):
        bed.controller.flow_mod(of.match(in_port=1), [of.set_vlan_vid(7), of.output(18)])
        bed.wires.send(1, frames.udp())
        bed.expect({18: [frames.udp(vlan=7)]})     # this frame there, nothing anywhere else

Port numbers are the aggregator's (1, 2, 17, 18) on the plain bridge as well.
"""
