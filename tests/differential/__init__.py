"""The differential suite: the big switch behaves as an Open vSwitch bridge under OpenFlow 1.0.

Every test does the same to (a) one plain Open vSwitch bridge with ports 1, 2, 17 and 18 and (b) the
big switch over two switches with two ports each, which have the same numbers. Every answer, every
frame and every counter must be equal. Where a test also states the answer, it is the plain
bridge's. The tests only act; both.py compares.

The big switch departs from a bridge in these points, on purpose (test_departures.py tests each):

- It has no OFPP_LOCAL port. Its features and port statistics show none. A port-mod, a queue request
  and a request for port or queue statistics treat OFPP_LOCAL as an unknown port. Output and enqueue
  to it are refused with OFPBAC_BAD_OUT_PORT.
- It has no learning switch of its own: output to OFPP_NORMAL is refused with OFPBAC_BAD_OUT_PORT.
- The names of its ports begin with the dpid of their switch, their Ethernet addresses are those of
  the real ports, and its description names edge.aggregator.
- A packet-out to OFPP_TABLE may have as in_port the number of a port of a switch that is not there:
  then it meets no flow for that in_port. If the in_port is the number of a tunnel port, it meets no
  flow of priority 0 for that in_port.
- It refuses a Nicira action that names ports, tables, queues or the tunnel, since the action would
  not mean the same on every switch, with OFPBAC_BAD_VENDOR_TYPE. It refuses so too an action that
  keeps a state on one switch (learn, ct, fin_timeout, conjunction, sample), and some that are not
  supported (multipath, clone, ct_clear, check_pkt_larger, controller with userdata). An action on a
  field of that kind is refused with OFPBAC_BAD_ARGUMENT; so is one on the packet mark, which
  chooses the tunnel's route.
- A Nicira action may name a field by its OXM number, or with the bit that announces a mask. The big
  switch shows the number as it was sent; Open vSwitch shows the NXM number where there is one.
- A packet-out longer than 65,385 bytes that may come back to the controller is refused with
  OFPBRC_BAD_LEN.
- Actions whose translation for one switch is longer than a message are refused with
  OFPBAC_TOO_MANY.
- Of the Nicira messages it supports roles and the standard format of packet-ins. It refuses others,
  such as extended flow-mods, with OFPBRC_BAD_SUBTYPE.
- Open vSwitch has internal rules in table 254 and shows them in statistics of that table. The big
  switch shows none.
- While OFPC_FRAG_DROP is set, a fragment that a packet-out sends to another switch's port is
  dropped on that switch. A bridge drops only fragments that it looks up in its table.
- A flow with an idle timeout that is in use on one switch may expire on another, and is put back
  there at once. A packet that comes in the milliseconds between is forwarded as the flow says,
  unless a lower flow matches it. A lower flow that only outputs to the controller does not count.
- A frame that is dropped because of a port's NO_RECV or NO_RECV_STP counts for no flow and is no
  lookup. A fragment dropped because of OFPC_FRAG_DROP is no lookup either. A bridge counts both
  before it drops them.
- A flow that a switch evicts to make room (overflow_policy=evict) ends with OFPRR_DELETE, if its
  controller asked for the FLOW_REMOVED. A bridge does not tell OpenFlow 1.0 controllers of it.
  (tests/system/test_audit.py)
- A packet-out may contain OFPP_TABLE behind an output to another switch. The flow that it meets
  there then counts the 42 bytes of the tunnel header too, as Open vSwitch does with any tunnel
  port.

Where Open vSwitch promises nothing, the suite does not compare: the order of the entries in
statistics and of the ports in the features, transaction ids of asynchronous messages, which of two
flows of the same priority a packet takes, and times beyond a tolerance.
"""
