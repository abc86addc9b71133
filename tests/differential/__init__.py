"""The differential suite: what an Open vSwitch bridge does under OpenFlow 1.0, the big switch does.

Every test says the same to (a) one plain Open vSwitch bridge with ports 1, 2, 17 and 18 and (b) the
big switch over two switches with two ports each, which have the same numbers.  Every answer, every
frame and every counter must be the same; where a test also says what the answer is, that is what
the plain bridge says.  both.py compares, the tests only tell.

What the big switch does otherwise, and means to (test_departures.py holds it to that):

- It has no OFPP_LOCAL port: none in its features and port statistics; a port-mod, a queue request
  and port or queue statistics that name it name an unknown port; output and enqueue to it are
  OFPBAC_BAD_OUT_PORT.
- It has no learning switch of its own: output to OFPP_NORMAL is OFPBAC_BAD_OUT_PORT.
- Names of its ports begin with the dpid, Ethernet addresses are those of the real ports, and the
  description statistics tell who it is.
- A packet-out to OFPP_TABLE with in_port the number of a port of a switch that is not there meets
  no flow for that in_port, one with the number of a tunnel no such flow of priority 0.
- Nicira actions that name ports, tables, queues or the tunnel would not mean the same on every
  switch, nor would those that keep a state there (learn, connection tracking, fin_timeout) or have
  actions of their own (clone): OFPBAC_BAD_VENDOR_TYPE; for a field of that kind, and for the
  packet's mark, by which the tunnel's route is chosen, OFPBAC_BAD_ARGUMENT.
- A field that a Nicira action names by its OXM number, or with the bit that says that there is a
  mask, is read back so; Open vSwitch reads it back as the NXM field, where there is one.
- A packet-out longer than 65,385 bytes that may come back to the controller is OFPBRC_BAD_LEN.
- Actions whose translation for one switch is longer than a message are OFPBAC_TOO_MANY.
- Of Nicira's messages it knows roles and the standard format of packet-ins; others, such as
  extended flow-mods, are OFPBRC_BAD_SUBTYPE.
- Open vSwitch keeps rules of its own in table 254 and shows them to who asks; it shows none.
- A fragment that a packet-out sends to another switch's port while OFPC_FRAG_DROP is set is
  dropped there; a bridge drops only what it looks up in its table.
- A flow with an idle timeout that is in use on one switch may run out on another, and is put back
  there at once; a packet that comes in the milliseconds between goes the flow's way, unless a lower
  flow takes it that does not just send all to the controller.
- A frame that is dropped because of a port's NO_RECV or NO_RECV_STP counts for no flow and, like a
  fragment dropped because of OFPC_FRAG_DROP, is no lookup; a bridge counts first.
- A packet-out to OFPP_TABLE behind an output to another switch: the flow that it meets there counts
  bytes with the tunnel's 42, as Open vSwitch does with any tunnel port.

Not compared because Open vSwitch promises nothing about it either: the order of the entries of
statistics and of the ports in the features, transaction ids of asynchronous messages, which of two
flows of the same priority a packet takes, and times beyond a tolerance.
"""
