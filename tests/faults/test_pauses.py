"""The aggregator pauses, as on a virtual machine that moves: nobody is given up, all is told.

Open vSwitch closes a connection that is silent for ten seconds, so in a pause of twelve the
switches go and come back. Controllers that answer, clients of --listen and browsers stay. The beds
are paused at the same time, since each would take as long as its pause.
"""

import socket
import time

import pytest
from lab import frames
from lab import openflow10 as of
from lab.controller import Connection
from lab.faultbed import FaultBed, until
from lab.openflow10 import RemovedReason, Type
from lab.traffic import Stream

LISTEN, WEB = 6654, 8000
REQUEST = b"GET /api/switch HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"
IDLE, HARD = RemovedReason.IDLE_TIMEOUT, RemovedReason.HARD_TIMEOUT
BACK = 8.0
"""Seconds after a pause until the switches are connected and brought up to date again, and all is
told: they try once a second, and on a busy machine it takes a while.
"""
MIDDLE, LONG = 12.0, 30.0
"""Seconds of the pauses."""

USED, UNUSED = frames.host_mac(2), frames.host_mac(18)
"""For frames to USED there is a flow with an idle timeout: it is used all the time, on one switch.
"""
ENDING = {
    0x88B1: ({"in_port": 1}, {"idle_timeout": 4}, IDLE, 1),
    0x88B2: ({}, {"idle_timeout": 4}, IDLE, 2),
    0x88B3: ({"in_port": 1}, {"hard_timeout": 5}, HARD, 1),
    0x88B4: ({}, {"hard_timeout": 5}, HARD, 2),
    0x88B5: ({}, {"idle_timeout": 4, "hard_timeout": 6}, IDLE, 2),
}
"""Flows that end while the switches are still connected: match, timeouts, reason, and the packets
that the bed sends for each.
"""
ENDING_LATER = {
    0x88B6: ({"in_port": 1}, {"idle_timeout": 16}, IDLE, 1),
    0x88B7: ({}, {"idle_timeout": 16}, IDLE, 2),
    0x88B8: ({"in_port": 1}, {"hard_timeout": 16}, HARD, 1),
    0x88B9: ({}, {"hard_timeout": 16}, HARD, 2),
}
"""Flows that end when the switches have closed their connections: nothing tells of them."""


class Paused:
    """A big switch whose aggregator pauses.

    controller, client: the connections of its controller, and of a client of --listen.
    browsers: connections to the page; the request comes half before the pause, or all in it.
    told: the flow-removed that the controller got, by the Ethernet type of their flow.
    """

    def __init__(self, ending):
        self.bed = FaultBed(2, options=[f"--listen={LISTEN}", "edge.dashboard"])
        self.told = {}
        self.ending = ending
        try:
            outer = self.bed.network.outer
            self.controller = self.bed.controller.connection
            self.client = Connection.open(outer, LISTEN)
            self.client.wait_for_hello()
            self._add_flows()
            self.stream = Stream(self.bed.network, 1, [2], pace=0.1)
            self.stream.__enter__()
            self.stream.wait_for_frames(2)
        except BaseException:
            self.bed.stop()
            raise

    def _add_flows(self):
        bed = self.bed
        bed.controller.flow_mod(of.match(dl_dst=USED), of.output(2), idle_timeout=4)
        for ethertype, (where, timeouts, _, packets) in self.ending.items():
            match = of.match(dl_type=ethertype, **where)
            flags = of.Flag.SEND_FLOW_REM
            bed.controller.flow_mod(match, of.output(18), flags=flags, **timeouts)
            for port in (1, 17)[:packets]:
                bed.network.send(port, frames.ethernet(dst=UNUSED, ethertype=ethertype))
        bed.settle()
        if ENDING_LATER.keys() & self.ending.keys():
            bed.controller.flow_stats()  # what a lost copy has counted is known from statistics

    def pause(self):
        self.browsers = [self._browser()]
        self.browsers[0].sendall(REQUEST[:20])
        self.bed.aggregator.freeze()
        self.browsers.append(self._browser())
        self.browsers[1].sendall(REQUEST)

    def _browser(self):
        outer = self.bed.network.outer
        return outer.call(socket.create_connection, ("127.0.0.1", WEB), 10)

    def go_on(self):
        """Let the aggregator go on, and wait until all is told or BACK seconds are over."""
        self.bed.aggregator.thaw()
        self.browsers[0].sendall(REQUEST[20:])
        deadline = time.monotonic() + BACK
        while self.told.keys() != self.ending.keys() and time.monotonic() < deadline:
            try:
                message = self.controller.expect(
                    Type.FLOW_REMOVED, max(0.0, deadline - time.monotonic())
                )
            except AssertionError:
                break
            removed = of.unpack_flow_removed(message.body)
            self.told.setdefault(removed.match["dl_type"], []).append(removed)

    def stop(self):
        self.stream.stop()
        self.client.close()
        self.bed.stop()


class AllPaused:
    """A big switch that pauses with its switches, while these owe the answer to a barrier."""

    def __init__(self):
        self.bed = FaultBed(2)
        self.controller = self.bed.controller.connection

    def pause(self):
        switches = self.bed.network.switches.values()
        for switch in switches:
            switch.ovs.sigstop()
        self.barrier = self.controller.new_xid()
        self.controller.send(of.message(Type.BARRIER_REQUEST, xid=self.barrier))
        until(
            lambda: self.bed.inside("sizes")["edge.south.session.Session._requests"] == 2,
            "request to each switch",
        )
        self.bed.aggregator.freeze()

    def go_on(self):
        """Let the aggregator go on, and the switches two seconds later."""
        self.bed.aggregator.thaw()
        time.sleep(2)
        for switch in self.bed.network.switches.values():
            switch.ovs.sigcont()

    def stop(self):
        self.bed.stop()


@pytest.fixture(scope="module")
def paused(root):
    """Big switches after pauses: of MIDDLE and LONG seconds, and one ("all") with its switches."""
    beds, since = {}, {}

    def pause(name, bed):
        beds[name] = bed
        bed.pause()
        since[name] = time.monotonic()

    def go_on(name, pause):
        time.sleep(max(0.0, since[name] + pause - time.monotonic()))
        beds[name].go_on()

    try:
        pause(LONG, Paused({**ENDING, **ENDING_LATER}))
        pause(MIDDLE, Paused(ENDING))
        pause("all", AllPaused())
        go_on(MIDDLE, MIDDLE)
        go_on("all", MIDDLE)
        go_on(LONG, LONG)
        yield beds
    finally:
        for bed in beds.values():
            bed.stop()


@pytest.fixture(params=[MIDDLE, LONG], ids=["12 s", "30 s"])
def bed(request, paused):
    return paused[request.param]


def test_nobody_is_given_up(bed):
    """The controller, a client of --listen and a browser are answered on their connections."""
    bed.controller.barrier()
    bed.client.barrier()
    assert not bed.controller.closed and not bed.client.closed
    assert len(bed.bed.controller.connections) == 1
    for browser in bed.browsers:
        answer = b"".join(iter(lambda browser=browser: browser.recv(65536), b""))
        assert answer.startswith((b"HTTP/1.0 200 ", b"HTTP/1.1 200 ")), answer
    log = bed.bed.aggregator.log()
    assert "POX has paused for " in log
    for verdict in ("no answer to an echo request", "it has not answered for", "handshake within"):
        assert verdict not in log


def test_flows_that_have_ended_are_told_once_with_their_reason_and_counters(bed):
    told = {
        ethertype: [(removed.reason, removed.packet_count) for removed in each]
        for ethertype, each in bed.told.items()
    }
    assert told == {
        ethertype: [(reason, packets)] for ethertype, (_, _, reason, packets) in bed.ending.items()
    }
    assert bed.controller.take(Type.FLOW_REMOVED) == []


def test_a_flow_in_use_does_not_end_and_loses_no_frame(bed):
    bed.bed.wait_until_right(BACK)
    bed.stream.wait_for_frames(3)
    bed.stream.expect_no_loss()
    (flow,) = bed.controller.flow_stats()
    assert flow.match == {"dl_dst": USED}


def test_switches_that_pause_too_and_go_on_later_are_not_given_up(paused):
    """They have their time from when the aggregator goes on, though they were asked before."""
    bed = paused["all"]
    reply = bed.controller.expect(Type.BARRIER_REPLY, BACK)
    assert reply.xid == bed.barrier
    bed.bed.wait_until_right(BACK)
    assert bed.controller.take(Type.PORT_STATUS) == []
    assert not bed.controller.closed
    log = bed.bed.aggregator.log()
    assert "POX has paused for " in log and ": lost: " not in log
