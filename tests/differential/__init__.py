"""The differential suite: what an Open vSwitch bridge does under OpenFlow 1.0, the big switch does.

Every test says the same to (a) one plain Open vSwitch bridge with ports 1, 2, 17 and 18 and (b) the
big switch over two switches with two ports each, which have the same numbers.  Every answer, every
frame and every counter must be the same; where a test also says what the answer is, that is what
the plain bridge says.  both.py compares, the tests only tell.

What the big switch does otherwise, and means to (test_departures.py holds it to that):

- It has no OFPP_LOCAL port: none in its features and port statistics; port-mod, queue requests and
  statistics name an unknown port with it; output and enqueue to it are OFPBAC_BAD_OUT_PORT.
- It has no L2 learning of its own: output to OFPP_NORMAL is OFPBAC_BAD_OUT_PORT.
- Names of its ports begin with the dpid, Ethernet addresses are those of the real ports, and the
  description statistics tell who it is.
- Nicira actions that name ports, tables, queues or the tunnel would not mean the same on every
  switch: OFPBAC_BAD_VENDOR_TYPE, and OFPBAC_BAD_ARGUMENT for such a field.  There are no
  OpenFlow extensions (Nicira messages are OFPBRC_BAD_SUBTYPE).
- Open vSwitch keeps internal rules in table 254 and shows them to who asks; it shows none.

Not compared because Open vSwitch promises nothing about it either: the order of the entries of
statistics and of the ports in the features, transaction ids of asynchronous messages, and times
beyond a tolerance.
"""
