"""
Makes many Open vSwitch switches look like one big OpenFlow 1.0 switch.

The switches are joined by flow-based GRE tunnels (remote_ip=flow, key=flow) and connect to this
POX; an upstream controller sees one datapath with all their ports.  For example, beside an
upstream controller on port 7744:

    ./pox.py openflow.of_01 --port=7744 forwarding.l2_pairs
    ./pox.py edge.aggregator --ips=172.16.0.1,172.16.0.2
"""

import ipaddress
import logging
from typing import Any, Optional

from pox.core import core

from edge import poxfixes
from edge.north.datapath import Datapath
from edge.switch import garbage
from edge.switch.bigswitch import BigSwitch
from edge.switch.indexes import (
    DEFAULT_FILE,
    GivenIndexes,
    Indexes,
    KeptIndexes,
    parse_dpid,
    parse_given,
)
from edge.switch.ports import LARGEST_MAX_PORTS, MAX_PORT_NUMBER, PortNumbers

log = logging.getLogger("edge.aggregator")

poxfixes.repair_help()

TICK = 0.1  # seconds
# A controller should see all ports when it connects; but it is not kept waiting for long.
PATIENCE = 2.0  # seconds


class BadOption(ValueError):
    """A launch() argument that makes no sense; the text says which and why."""


def _whole_number(option: str, text: Any, least: int, most: int) -> int:
    try:
        number = int(text, 0) if isinstance(text, str) else int(text)
    except ValueError:
        raise BadOption(f"--{option}={text} is not a whole number") from None
    if isinstance(text, bool) or not least <= number <= most:
        raise BadOption(f"--{option}={text} is not {least} to {most}")
    return number


def _seconds(option: str, text: Any) -> float:
    try:
        number = float(text)
    except ValueError:
        raise BadOption(f"--{option}={text} is not a number of seconds") from None
    if isinstance(text, bool) or not 0.1 <= number <= 86400:
        raise BadOption(f"--{option}={text} is not 0.1 to 86400 seconds")
    return number


def _tunnel_ips(text: Any) -> list[int]:
    if not isinstance(text, str) or not text:
        raise BadOption(
            "--ips is missing: give the tunnel IP (local_ip) of every switch, such as "
            "--ips=172.16.0.1,172.16.0.2, or --ips=auto"
        )
    if text == "auto":
        return []
    ips: list[int] = []
    for each in text.split(","):
        try:
            ip = ipaddress.IPv4Address(each.strip())
        except ValueError:
            raise BadOption(f"--ips: {each.strip()!r} is not an IPv4 address") from None
        if ip.is_unspecified or ip.is_multicast or ip == ipaddress.IPv4Address("255.255.255.255"):
            raise BadOption(f"--ips: {ip} cannot be the address of a switch")
        if int(ip) in ips:
            raise BadOption(f"--ips: {ip} is there twice")
        ips.append(int(ip))
    return ips


def _address(option: str, text: Any) -> str:
    if not isinstance(text, str) or not text or any(c.isspace() or c in "/:," for c in text):
        raise BadOption(f"--{option}={text}: {text!r} is neither an IPv4 address nor a host name")
    if text.replace(".", "").isdigit():
        try:
            ipaddress.IPv4Address(text)
        except ValueError:
            raise BadOption(f"--{option}={text}: {text!r} is not an IPv4 address") from None
    return text


def _upstreams(text: Any, address: Any, port: Any) -> list[tuple[str, int]]:
    """Where the controllers are: --controllers, or else --address and --port."""
    if text is None:
        return [(_address("address", address), _whole_number("port", port, 1, 65535))]
    if not isinstance(text, str):
        raise BadOption("--controllers needs HOST:PORT,HOST:PORT,...")
    found = []
    for each in text.split(","):
        host, colon, number = each.strip().rpartition(":")
        if not colon:
            raise BadOption(f"--controllers: {each.strip()!r} is not HOST:PORT")
        where = (_address("controllers", host), _whole_number("controllers", number, 1, 65535))
        if where in found:
            raise BadOption(f"--controllers: {each.strip()} is there twice")
        found.append(where)
    return found


def _listen(text: Any) -> Optional[tuple[str, int]]:
    if text is None:
        return None
    if not isinstance(text, str):
        raise BadOption("--listen needs a port, or ADDRESS:PORT")
    host, _, number = text.rpartition(":")
    address = _address("listen", host) if host else "127.0.0.1"
    return address, _whole_number("listen", number, 1, 65535)


def _datapath_id(text: Any) -> int:
    try:
        return parse_dpid(str(text))
    except ValueError as e:
        raise BadOption(f"--dpid: {e}") from None


def _indexes(numbers: PortNumbers, switches: Any, path: Any) -> Indexes:
    if switches is None:
        return Indexes(numbers)
    try:
        given = parse_given(str(switches))
        if given is None:
            return KeptIndexes(numbers, str(path))
        return GivenIndexes(numbers, given)
    except ValueError as e:
        raise BadOption(f"--switches: {e}") from None


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

    --ips=IP,IP,...       the tunnel IP (local_ip) of every switch; needed.  With --ips=auto it is
                          the address from which each switch connects
    --address=HOST        where the upstream controller is (127.0.0.1)
    --port=PORT           its TCP port (7744)
    --max_retry_delay=S   longest time between attempts to connect to it, in seconds (16)
    --dpid=DPID           the big switch's datapath-id, a number or like a MAC address (1)
    --max_ports=N         port numbers for each switch, 1 to 125 (16): the big switch's port is
                          switch port + N * (switch dpid - 1)
    --switch_timeout=S    a switch that does not answer for so many seconds is lost (5)
    --controllers=HOST:PORT,...
                          several upstream controllers, instead of --address and --port
    --listen=[IP:]PORT    accept OpenFlow connections there too, as from ovs-ofctl (off; the IP is
                          127.0.0.1 by default; who connects may change everything)
    --switches=DPID=INDEX,...
                          number the ports of these switches by INDEX, not by their dpid.  With
                          --switches=auto each new switch gets the lowest free index
    --switches_file=PATH  where --switches=auto keeps the indexes
                          (~/.local/state/edge.aggregator/switches.json)
    """
    try:
        candidates = _tunnel_ips(ips)
        upstreams = _upstreams(controllers, address, port)
        listen_at = _listen(listen)
        delay = _seconds("max_retry_delay", max_retry_delay)
        datapath_id = _datapath_id(dpid)
        numbers = PortNumbers(_whole_number("max_ports", max_ports, 1, LARGEST_MAX_PORTS))
        timeout = _seconds("switch_timeout", switch_timeout)
        indexes = _indexes(numbers, switches, switches_file)
    except BadOption as e:
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
        # What is on a switch that comes back stays: see Member.
        core.openflow.clear_flows_on_connect = False
        core.openflow.miss_send_len = None
        core.openflow.addListenerByName(
            "ConnectionUp", lambda event: switch.connected(event.dpid, event.connection)
        )
        core.openflow.addListenerByName(
            "ConnectionDown", lambda event: switch.disconnected(event.connection)
        )
        poxfixes.every(TICK, tick, "edge.aggregator")
        poxfixes.after(PATIENCE, start_upstream, "edge.aggregator upstream")

    core.call_when_ready(openflow_ready, ["openflow"], name="edge.aggregator")
    return None
