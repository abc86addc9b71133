"""Runs a scenario in a POX of its own, plain or repaired.

A scenario is a function of a test module. It gets a Pox and returns something that JSON can carry.
It runs in the main thread of a new process, while POX's scheduler runs in its own thread. Code and
sockets (on 127.0.0.1) are real.
"""

import contextlib
import importlib
import json
import logging
import os
import queue
import socket
import struct
import subprocess
import sys
import time
import traceback

with contextlib.suppress(ModuleNotFoundError):  # a scenario's process needs no lab
    from lab.aggregator import find_pox

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
DEADLINE = 60  # seconds for a scenario
SOON = 10  # seconds in which an expected event must have happened
NEVER = 1  # seconds after which an event counts as not happening
PATIENCE = SOON  # seconds that repaired POX has to do something; plain POX has NEVER

HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY, VENDOR, FEATURES_REQUEST, FEATURES_REPLY = range(7)
PACKET_IN, FLOW_REMOVED, PORT_STATUS, STATS_REPLY = 10, 11, 12, 17
BARRIER_REQUEST, BARRIER_REPLY = 18, 19


class Outcome:
    """The result that a scenario returned, and the log that POX wrote meanwhile."""

    def __init__(self, process, name):
        out, self.log = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, f"{name}: {process.returncode}\n{out}\n{self.log[-4000:]}"
        self.result = json.loads(out)

    def __getitem__(self, key):
        return self.result[key]


def _environment(*places):
    places = [*places, os.path.join(ROOT, "pox_ext")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


def run_pox(arguments, quiet=False):
    """Start ./pox.py, which finds the components in the directory "components".

    quiet: throw its output away; otherwise its stdout is a pipe.
    """
    return subprocess.Popen(
        [sys.executable, "-u", os.path.join(find_pox(), "pox.py"), *arguments],
        env=_environment(os.path.join(HERE, "components")),
        stdout=subprocess.DEVNULL if quiet else subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _start(scenario, fixed, options):
    job = json.dumps([scenario.__module__, scenario.__name__, fixed, options])
    return subprocess.Popen(
        [sys.executable, os.path.abspath(__file__), job],
        env=_environment(HERE, find_pox()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def on_both(scenario, **options):
    """Return the outcomes on plain POX and on repaired POX. Options are for Pox."""
    processes = [_start(scenario, fixed, options) for fixed in (False, True)]
    try:
        return [Outcome(process, scenario.__name__) for process in processes]
    finally:
        _end(processes)


def on_fixed(scenario, **options):
    """Return the outcome on repaired POX."""
    process = _start(scenario, True, options)
    try:
        return Outcome(process, scenario.__name__)
    finally:
        _end([process])


def _end(processes):
    for process in processes:
        process.kill()
        process.communicate()


# -- in the scenario's process


def message(msg_type, body=b"", xid=0, version=1):
    """An OpenFlow message."""
    return struct.pack("!BBHL", version, msg_type, 8 + len(body), xid) + body


class Pox:
    """POX in this process.

    threaded, epoll: as the options --unthreaded-sh and --epoll-sh set them.
    install: False if the scenario calls install() itself.
    """

    def __init__(self, fixed, threaded=True, epoll=False, install=True):
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
        import pox.core
        import pox.openflow

        self.fixed = fixed
        self.core = pox.core.initialize(threaded, epoll, False)
        pox.openflow._launch()
        self.events = queue.Queue()  # (name, dpid, connection)
        self.up = []  # connections, oldest first
        self.switches = []  # keeps them from being collected
        self.nexus = self.core.openflow
        self.nexus.addListenerByName("ConnectionUp", self._up)
        self.nexus.addListenerByName("ConnectionDown", self._down)
        if fixed and install:
            self.install()

    def install(self):
        from edge import poxfixes

        poxfixes.install()

    def _up(self, event):
        self.up.append(event.connection)
        self.events.put(("up", event.dpid, event.connection))

    def _down(self, event):
        self.events.put(("down", event.dpid, event.connection))

    def listen(self, **options):
        """Start openflow.of_01 on a free port, as POX does when it goes up."""
        from pox.openflow import of_01

        self.port = free_port()
        self.listener = of_01.launch(port=self.port, address="127.0.0.1", **options)
        self.core.starting_up = False
        self.core.raiseEvent(pox_event("GoingUpEvent"))

    def call(self, function, *arguments):
        """Call a function in POX's thread; return its result.

        Raise queue.Empty if POX does not get to it.
        """
        results = queue.Queue()
        self.core.callLater(lambda: results.put(function(*arguments)))
        return results.get(timeout=SOON)

    def alive(self):
        """Whether a task that waits for I/O is still served."""
        served = queue.Queue()
        self.core.callLater(served.put, True)
        return in_time(served) is True

    def event(self, timeout=SOON):
        """Return the next connection event's name and dpid.

        Raise queue.Empty if there is none in time.
        """
        return list(self.events.get(timeout=timeout)[:2])

    def quiet(self):
        """Whether no connection event comes."""
        try:
            return self.event(NEVER) is None
        except queue.Empty:
            return True

    def lets_in(self, dpid=1, switch=None, **options):
        """Whether a switch, by default a new one, gets as far as ConnectionUp."""
        try:
            switch = switch or Switch(self.port, dpid, patience=PATIENCE, **options)
            switch.shake_hands(patience=PATIENCE)
            while self.event(PATIENCE) != ["up", switch.dpid]:
                pass
            self.switches.append(switch)
            return True
        except (OSError, EOFError, queue.Empty):
            return False

    def switch(self, dpid=1, **options):
        """Return a connected switch, after its ConnectionUp. Drop earlier events."""
        switch = Switch(self.port, dpid, **options)
        switch.shake_hands()
        while self.event() != ["up", dpid]:
            pass
        switch.connection = self.up[-1]
        self.switches.append(switch)
        return switch


def in_time(things):
    """Take the next item of a queue; None if there is none in time."""
    try:
        return things.get(timeout=PATIENCE)
    except queue.Empty:
        return None


def free_port():
    """Return a port on which nobody listens at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pox_event(name):
    import pox.core

    return getattr(pox.core, name)()


class Switch:
    """The switch's end of a connection to of_01, controlled by the test."""

    def __init__(self, port, dpid=1, receive_buffer=None, tls=None, patience=SOON):
        deadline = time.monotonic() + patience
        while True:
            self.sock = socket.socket()
            if receive_buffer:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.sock.settimeout(patience)
            try:
                self.sock.connect(("127.0.0.1", port))
                break
            except ConnectionRefusedError:  # POX's listener has not started yet
                self.sock.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        if tls:
            self.sock = tls.wrap_socket(self.sock)
        self.dpid = dpid
        self._buffer = bytearray()

    def send(self, msg_type, body=b"", xid=0, version=1):
        self.sock.sendall(message(msg_type, body, xid, version))

    def features(self, dpid=None):
        dpid = self.dpid if dpid is None else dpid
        return struct.pack("!QLB3xLL", dpid, 256, 254, 0, 0xFFF)

    def receive(self, timeout=SOON):
        """Return the next message as (type, xid, body); None if the connection is closed.

        Raise TimeoutError if neither happens in time.
        """
        self.sock.settimeout(timeout)
        while len(self._buffer) < 8 or len(self._buffer) < self._length():
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._buffer += data
        length = self._length()
        whole = bytes(self._buffer[:length])
        del self._buffer[:length]
        return whole[1], struct.unpack("!L", whole[4:8])[0], whole[8:]

    def _length(self):
        return self._buffer[2] << 8 | self._buffer[3]

    def expect(self, msg_type, timeout=SOON):
        """Return the next message of this type.

        Raise EOFError if the connection is closed before.
        """
        while True:
            received = self.receive(timeout)
            if received is None:
                raise EOFError
            if received[0] == msg_type:
                return received

    def shake_hands(self, barrier=True, patience=SOON):
        self.send(HELLO)
        self.expect(FEATURES_REQUEST, patience)
        self.send(FEATURES_REPLY, self.features())
        if barrier:
            self.send(BARRIER_REPLY, xid=self.expect(BARRIER_REQUEST, patience)[1])

    def answered(self):
        """Whether POX still answers an echo request on this connection."""
        try:
            self.send(ECHO_REQUEST, b"still there?", 4711)
            while True:
                received = self.receive(PATIENCE)
                if received is None:
                    return False
                if received == (ECHO_REPLY, 4711, b"still there?"):
                    return True
        except OSError:
            return False

    def closed(self, timeout=None):
        """Whether POX closes this connection within that time."""
        try:
            while self.receive(timeout or PATIENCE) is not None:
                pass
            return True
        except socket.timeout:
            return False

    def close(self):
        self.sock.close()


if __name__ == "__main__":
    answer_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # POX's own output goes to stderr
    module, name, is_fixed, pox_options = json.loads(sys.argv[1])
    # This module is imported under its own name, so that the scenarios and this file share its
    # classes. POX must be imported first: when it finds unittest, which pytest loads, it starts a
    # core of its own and a second scheduler.
    harness = importlib.import_module("poxharness")
    harness.PATIENCE = SOON if is_fixed else NEVER
    the_pox = harness.Pox(is_fixed, **pox_options)
    status = 1
    try:
        answer = getattr(importlib.import_module(module), name)(the_pox)
        print(json.dumps(answer), file=answer_to, flush=True)
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)  # plain POX may hang
