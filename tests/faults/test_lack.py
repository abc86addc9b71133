"""The aggregator has no file descriptor left for a while; then everything works again by itself."""

import json
import os
import resource
import time
from contextlib import ExitStack, contextmanager

from dashboard.site import Site
from lab import openflow10 as of
from lab.bigswitch import OPENFLOW_PORT
from lab.controller import Connection
from lab.faultbed import until
from lab.network import CONTROL_ADDRESS

LATEST = 5.0
"""Seconds in which everything works again after a lack."""
LISTEN = 6654
BROWSERS = 3


@contextmanager
def no_descriptor(pid):
    """Let a process open nothing: its limit is below the numbers of what it has open already."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def processor_time(pid):
    """The seconds of processor time that a process has used."""
    with open(f"/proc/{pid}/stat") as stat:
        user, system = stat.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_without_descriptors_all_wait_and_are_served_soon_after(make_big_switch, measured):
    bed = make_big_switch(options=[f"--listen={LISTEN}", "edge.dashboard"], measured=False)
    controller, aggregator, switch = bed.controller, bed.aggregator, bed.network.switches[2]
    site = Site(bed.network.outer)
    management = Connection.open(bed.network.outer, LISTEN)
    management.barrier()
    log = aggregator.log_end()
    with ExitStack() as stack:
        stack.callback(management.close)
        with no_descriptor(aggregator.pid):
            controller.connection.close()
            switch.connect(None)
            switch.connect(f"tcp:{CONTROL_ADDRESS}:{OPENFLOW_PORT}")
            browsers = [stack.enter_context(site.connect()) for _ in range(BROWSERS)]
            for browser in browsers:
                browser.sendall(b"GET /api/switch HTTP/1.0\r\nHost: localhost\r\n\r\n")
            client = Connection.open(bed.network.outer, LISTEN)
            stack.callback(client.close)
            aggregator.wait_for_log("No file descriptor is left", since=log)
            before, begun = processor_time(aggregator.pid), time.monotonic()
            until(lambda: time.monotonic() > begun + 2.5, "end of two attempts", interval=0.1)
            used = processor_time(aggregator.pid) - before
            management.barrier()  # who is connected is served
            management.close()
        begun = time.monotonic()
        controller.wait_for_connection(2, LATEST)
        for browser in browsers:
            browser.settimeout(LATEST)
            with browser.makefile("rb") as stream:
                answer = stream.read()
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["switches"]
        client.wait_for_hello(LATEST)
        bed.wait_for_ports(bed.numbers, LATEST)
        measured("all works", time.monotonic() - begun)
    controller.flow_mod(of.match(), of.output(1))
    controller.barrier()
    assert used < 0.25 * 2.5
    aggregator.wait_for_log("File descriptors are there again", since=log)
    said = aggregator.log(since=log)
    assert said.count("No file descriptor is left") == 1
    assert "Traceback" not in said
    assert "ERROR" not in said
