"""
Makes many Open vSwitch switches look like one big OpenFlow 1.0 switch.

The switches are joined by flow-based GRE tunnels (remote_ip=flow, key=flow), and this POX is their
controller.  An upstream controller sees one datapath that has the ports of all of them.  For
example, with an upstream controller on port 7744:

    ./pox.py openflow.of_01 --port=7744 forwarding.l2_pairs
    ./pox.py edge.aggregator --ips=172.16.0.1,172.16.0.2
"""

import logging
from typing import Optional

from pox.core import core

from edge import options, poxfixes
from edge.north.datapath import Datapath
from edge.switch import garbage
from edge.switch.bigswitch import BigSwitch
from edge.switch.indexes import DEFAULT_FILE
from edge.switch.portnumbers import LARGEST_MAX_PORTS, MAX_PORT_NUMBER, PortNumbers

log = logging.getLogger("edge.aggregator")

poxfixes.repair_help()

TICK = 0.1  # seconds
# Controllers are connected to when all tunnel IPs are discovered, so that they see all ports from
# the start; or after this time, if a switch is missing.
LONGEST_WAIT_FOR_SWITCHES = 2.0  # seconds


def launch(
    ips: Optional[str] = None,
    address: str = "127.0.0.1",
    port: str = "7744",
    max_retry_delay: str = "16",
    dpid: str = "1",
    max_ports: str = str(MAX_PORT_NUMBER),
    switch_timeout: str = "5",
    controllers: Optional[str] = None,
    listen: Optional[str] = None,
    switches: Optional[str] = None,
    switches_file: str = DEFAULT_FILE,
) -> Optional[bool]:
    """
    Make the switches that connect to this POX look like one big switch to another controller.

    --ips=IP,IP,...       the tunnel IP (local_ip) of every switch; required.  With --ips=auto it is
                          the address from which each switch connects
    --address=HOST        IPv4 address or host name of the upstream controller (127.0.0.1)
    --port=PORT           its TCP port (7744)
    --max_retry_delay=S   longest time between attempts to connect to it, in seconds (16)
    --dpid=DPID           the big switch's datapath-id (1)
    --max_ports=N         port numbers for each switch, 1 to 125 (16): the big switch's port is
                          switch port + N * (switch dpid - 1)
    --switch_timeout=S    a switch that has not answered for so many seconds counts as lost (5)
    --controllers=HOST:PORT,...
                          several upstream controllers, instead of --address and --port
    --listen=[IP:]PORT    also accept OpenFlow connections there, such as from ovs-ofctl (off; the
                          IP is 127.0.0.1 by default).  Whoever connects may change everything
    --switches=DPID=INDEX,...
                          number the ports of these switches by INDEX instead of their dpid.  With
                          --switches=auto each new switch gets the lowest free index
    --switches_file=PATH  where --switches=auto keeps the indexes
                          (~/.local/state/edge.aggregator/switches.json)

    Whole numbers are decimal or hexadecimal (0x10), seconds are decimal (0.5).  A DPID is a whole
    number, 16 hexadecimal digits, octets like a MAC address (02:ac:10:00:00:01), or as POX's log
    prints it (02-ac-10-00-00-01|5).
    """
    try:
        candidates = options.tunnel_ips(ips)
        upstreams = options.upstreams(controllers, address, port)
        listen_at = options.listen(listen)
        delay = options.seconds("max_retry_delay", max_retry_delay)
        datapath_id = options.datapath_id("dpid", dpid)
        numbers = PortNumbers(options.whole_number("max_ports", max_ports, 1, LARGEST_MAX_PORTS))
        timeout = options.seconds("switch_timeout", switch_timeout)
        indexes = options.indexes(numbers, switches, switches_file)
    except options.BadOption as e:
        log.error("%s", e)
        return False

    poxfixes.install()
    garbage.install()
    datapath = Datapath(datapath_id, upstreams, delay)
    switch = BigSwitch(numbers, indexes, candidates, timeout, datapath, ips == "auto")
    datapath.big = switch
    if listen_at is not None:
        try:
            datapath.listen(listen_at)
        except OSError as e:
            log.error("--listen=%s: cannot listen there: %s", listen, e.strerror or e)
            return False
    datapath.register()
    started: list[bool] = []

    def start_upstream() -> None:
        if not started:
            started.append(True)
            datapath.connect()

    def tick() -> None:
        switch.tick()
        if not started and switch.discovery.complete:
            start_upstream()

    def openflow_ready() -> None:
        # What is on a switch that comes back stays: see Resync.
        core.openflow.clear_flows_on_connect = False
        core.openflow.miss_send_len = None
        poxfixes.EdgeConnection.quiet_dpid = switch.is_refused
        core.openflow.addListenerByName(
            "ConnectionUp", lambda event: switch.connected(event.dpid, event.connection)
        )
        core.openflow.addListenerByName(
            "ConnectionDown", lambda event: switch.disconnected(event.connection)
        )
        poxfixes.every(TICK, tick, "edge.aggregator")
        poxfixes.after(LONGEST_WAIT_FOR_SWITCHES, start_upstream, "edge.aggregator upstream")

    core.call_when_ready(openflow_ready, ["openflow"], name="edge.aggregator")
    return None
