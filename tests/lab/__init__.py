"""The test lab: real switches, real tunnels and a controller that does what the test says.

Everything that sends a packet lives in network namespaces that the lab makes and that end with it.

    namespaces.py   a network namespace held by a tiny process; sockets opened inside it
    network.py      switches joined by GRE tunnels, a plain bridge, frames in and out of their ports
    frames.py       Ethernet frames to send, and what they look like when a test fails
    openflow10.py   OpenFlow 1.0 messages to and from bytes, independent of POX
    controller.py   the upstream OpenFlow 1.0 controller in the test's hand
    aggregator.py   POX with edge.aggregator as a process
    bigswitch.py    all of it together, ready to use

A test takes a fixture of conftest.py (`big_switch`, `plain_switch`, `bed` for one after the other,
or a factory such as `make_big_switch` when it kills things), and reads like this:

    def test_a_frame_crosses(bed):
        bed.controller.flow_mod(of.match(in_port=1), [of.set_vlan_vid(7), of.output(18)])
        bed.wires.send(1, frames.udp())
        bed.expect({18: [frames.udp(vlan=7)]})     # this frame there, nothing anywhere else

Port numbers are the aggregator's (1, 2, 17, 18) on the plain bridge as well.
"""
