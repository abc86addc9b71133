#!/bin/bash
# Open vSwitch 3.1.0 (Debian 12, userspace datapath), OpenFlow 1.0: barrier replies, however many
# a controller waits for, do not say that a PORT_MOD is in force for packets.
#
# One would bet: PORT_MOD (NO_FLOOD for port 1), BARRIER_REQUEST, PACKET_OUT (output FLOOD) leaves
# port 1 out, since what stands before a barrier is done before what stands behind it (OpenFlow
# 1.0.0, section 5.3.7).  If not that, then at least a packet that is sent after the barrier's reply
# has come, or after a second barrier's.
#
# It behaves otherwise: the frame still comes out of port 1, although a FEATURES_REPLY from
# between the barrier and the frame shows NO_FLOOD.  So it is with NO_FWD and a plain output to the
# port.  A flow-mod in the same place is obeyed.
#
# The counts below say why.  The switch reads up to 50 messages of a connection in one round, as
# long as one is there, and packets meet the new port configuration from the next round on.  A
# controller that answers each reply at once extends the round: where it shares a CPU with the
# switch, the frame comes out of port 1 after ten awaited replies, too.  On CPUs of their own the
# same two may never show it.  Sure is only the number: with 49 messages between PORT_MOD and
# PACKET_OUT the frame is read in a later round.
#
# Seen, of 50 frames that should not come out of port 1 (3.5.0-1+b1 of Debian 13 and 4.0.0-2+b1 of
# Debian unstable do the same):
#   FLOW_MOD, barrier             0
#   PORT_MOD, barrier            50
#   the same with NO_FWD         50
#   PORT_MOD, barrier, features  50
#   PORT_MOD, 40 barriers        50
#   PORT_MOD, 49 barriers         0
#   1 barrier awaited            45  (at least 1)
#   2 barriers, each awaited     48  (at least 1)
#   10 barriers, each awaited    42  (at least 1)
#   49 barriers, each awaited     0
#
# Needs root, Debian 12 (amd64) with python3, iproute2 and util-linux.  Takes half a minute.
set -eu

PACKAGES="openvswitch-switch=3.1.0-2+deb12u1 openvswitch-common=3.1.0-2+deb12u1
    libunbound8=1.17.1-2+deb12u4 libevent-2.1-7=2.1.12-stable-8+deb12u1
    libnuma1=2.0.16-1 libxdp1=1.3.1-1"

if [ "$(id -u)" != 0 ]; then
    echo "$0: run as root: it makes a network namespace" >&2
    exit 1
fi

work=$(mktemp -d)
child=
stop() {
    if [ -n "$child" ]; then
        kill "$child" 2>/dev/null || true
        wait "$child" || true
    fi
    exit 1
}
trap 'rm -rf "$work"' EXIT
trap stop INT TERM HUP

mkdir "$work/packages" "$work/root"
# shellcheck disable=SC2086  # a list of words
(cd "$work/packages" && apt-get -qq -o APT::Sandbox::User=root download $PACKAGES) &
child=$!
wait "$child"
for package in "$work"/packages/*.deb; do
    dpkg -x "$package" "$work/root"
done

cat >"$work/probe.py" <<'END'
import itertools
import os
import signal
import socket
import struct
import subprocess
import sys
import time

HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY, FEATURES_REQUEST, FEATURES_REPLY = 0, 1, 2, 3, 5, 6
PACKET_OUT, FLOW_MOD, PORT_MOD, BARRIER_REQUEST, BARRIER_REPLY = 13, 14, 15, 18, 19
FLOOD, TABLE = 0xFFFB, 0xFFF9
NO_FLOOD, NO_FWD = 1 << 4, 1 << 5
TRIES = 50
ETHERTYPE = b"\x88\xb5"  # for local experiments
WAIT = 20  # seconds for anything that must come
PORTS = (1, 2, 3)

work = sys.argv[1]
root = os.path.join(work, "root")
started = []
xids = itertools.count(1)


def start(name, *command):
    """Start a daemon whose output goes to a file."""
    with open(os.path.join(work, name + ".log"), "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    started.append(process)
    return process


def message(kind, body=b"", xid=None):
    return struct.pack("!BBHI", 1, kind, 8 + len(body), xid or next(xids)) + body


def barriers(count):
    return b"".join(message(BARRIER_REQUEST) for _ in range(count))


def output(port):
    return struct.pack("!HHHH", 0, 8, port, 0)


def packet_out(in_port, port, frame):
    return message(PACKET_OUT, struct.pack("!IHH", 0xFFFFFFFF, in_port, 8) + output(port) + frame)


def add_flow(actions):
    """Add the flow that matches everything."""
    match = struct.pack("!I", 0x3FFFFF) + bytes(36)
    rest = struct.pack("!QHHHHIHH", 0, 0, 0, 0, 1, 0xFFFFFFFF, 0xFFFF, 0)
    return message(FLOW_MOD, match + rest + actions)


def port_mod(port, config, mask):
    return message(PORT_MOD, struct.pack("!H6sIII4x", port, addresses[port], config, mask, 0))


class Controller:
    """The controller's end of the OpenFlow connection."""

    def __init__(self, connection):
        connection.settimeout(WAIT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection
        self.received = b""

    def send(self, *messages):
        """All messages in one write."""
        self.connection.sendall(b"".join(messages))

    def receive(self):
        while True:
            if len(self.received) >= 8:
                length = struct.unpack_from("!H", self.received, 2)[0]
                if len(self.received) >= length:
                    break
            data = self.connection.recv(65536)
            if not data:
                raise SystemExit("the switch closed the connection")
            self.received += data
        found, self.received = self.received[:length], self.received[length:]
        if found[1] == ECHO_REQUEST:
            self.send(message(ECHO_REPLY, found[8:], struct.unpack_from("!I", found, 4)[0]))
        # Type 0 is the failed HELLO of another version.
        if found[1] == ERROR and struct.unpack_from("!H", found, 8)[0] != 0:
            raise SystemExit("the switch sent an error: " + found[8:].hex())
        return found

    def await_reply(self, kind, request):
        """The reply of this kind to the request, the bytes of one message."""
        while True:
            found = self.receive()
            if found[1] == kind and found[4:8] == request[4:8]:
                return found

    def ask(self, kind, request):
        self.send(request)
        return self.await_reply(kind, request)

    def settle(self, *messages):
        """Send messages, and wait until the port configuration in them is in force."""
        last = message(BARRIER_REQUEST)
        self.send(*messages, barriers(60), last)
        self.await_reply(BARRIER_REPLY, last)
        time.sleep(0.02)  # the switch waits for its next event


def frame(number, mark):
    header = b"\xff" * 6 + b"\x02\0\0\0\0\x02" + ETHERTYPE
    return header + struct.pack("!I", number) + mark + bytes(50)


def count_before_fence(number, in_port):
    """How often the frame with this number came out of port 1, ahead of one sent now."""
    controller.send(packet_out(in_port, 1, frame(number, b"F")))
    count = 0
    while True:
        data = wire.recv(2048)
        _, found, mark = data.partition(ETHERTYPE + struct.pack("!I", number))
        if found and mark[:1] == b"F":
            return count
        count += bool(found)


def hidden(*between, config=None, port=None):
    """A try: forbid, what is between, the frame, all in one write."""

    def attempt(number):
        forbid = port_mod(1, config or NO_FLOOD, config or NO_FLOOD)
        sent = [make() for make in between]
        controller.send(forbid, *sent, packet_out(2, port or FLOOD, frame(number, b"T")))
        for request in sent:
            if request[1] == FEATURES_REQUEST:
                check_no_flood(controller.await_reply(FEATURES_REPLY, request))

    return attempt


def check_no_flood(reply):
    """The switch says that port 1 has NO_FLOOD."""
    config = {}
    for at in range(32, len(reply), 48):
        port, config[port] = struct.unpack_from("!H22xI", reply, at)
    if not config[1] & NO_FLOOD:
        raise SystemExit("CHANGED: FEATURES_REPLY behind the barrier without NO_FLOOD")


def one_by_one(count):
    """A try: forbid, then barriers, each sent when the one before is answered, then the frame."""

    def attempt(number):
        controller.send(port_mod(1, NO_FLOOD, NO_FLOOD))
        for _ in range(count):
            controller.ask(BARRIER_REPLY, message(BARRIER_REQUEST))
        controller.send(packet_out(2, FLOOD, frame(number, b"T")))

    return attempt


def flow(number):
    """A try: the flow drops instead of sending to port 1, barrier, the frame."""
    to_table = packet_out(2, TABLE, frame(number, b"T"))
    controller.send(add_flow(b""), barriers(1), to_table)


def main():
    share_cpu()
    cases = (
        # what, the try, how many of the 50 are the surprise: from, to
        ("FLOW_MOD, barrier", flow, 0, 0),
        ("PORT_MOD, barrier", hidden(lambda: barriers(1)), 45, 50),
        ("the same with NO_FWD", hidden(lambda: barriers(1), config=NO_FWD, port=1), 45, 50),
        (
            "PORT_MOD, barrier, features",
            hidden(lambda: barriers(1), lambda: message(FEATURES_REQUEST)),
            45,
            50,
        ),
        ("PORT_MOD, 40 barriers", hidden(lambda: barriers(40)), 45, 50),
        ("PORT_MOD, 49 barriers", hidden(lambda: barriers(49)), 0, 0),
        ("1 barrier awaited", one_by_one(1), 1, 50),
        ("2 barriers, each awaited", one_by_one(2), 1, 50),
        ("10 barriers, each awaited", one_by_one(10), 1, 50),
        ("49 barriers, each awaited", one_by_one(49), 0, 0),
    )
    number, changed = 0, False
    for what, attempt, least, most in cases:
        count = 0
        for _ in range(TRIES):
            number += 1
            controller.settle(port_mod(1, 0, NO_FLOOD | NO_FWD), add_flow(output(1)))
            attempt(number)
            controller.settle(port_mod(1, 0, NO_FLOOD | NO_FWD))
            count += count_before_fence(number, 2)
        expected = least <= count <= most
        changed = changed or not expected
        print(f"{what:28} {count:2}{'' if expected else '   CHANGED'}", flush=True)
    if changed:
        raise SystemExit("CHANGED: Open vSwitch behaves otherwise than described here")


def share_cpu():
    """Switch and controller share a CPU: whoever is woken may run first."""
    cpu = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    os.sched_setaffinity(switch.pid, {cpu})


def end(number, _frame):
    raise SystemExit(f"ended by signal {number}")


for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, end)
environment = dict(os.environ, LD_LIBRARY_PATH=root + "/usr/lib/x86_64-linux-gnu")
for name in ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"):
    environment[name] = work
try:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for port in PORTS:
        ends = (f"host{port}", f"port{port}")
        command = ["ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1]]
        subprocess.run(command, check=True)
        for device in ends:
            subprocess.run(["ip", "link", "set", device, "up"], check=True)
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    wire.bind(("host1", 0))
    wire.settimeout(WAIT)
    listener = socket.create_server(("127.0.0.1", 6653))
    listener.settimeout(WAIT)

    database, remote = work + "/conf.db", work + "/db.sock"
    schema = root + "/usr/share/openvswitch/vswitch.ovsschema"
    command = [root + "/usr/bin/ovsdb-tool", "create", database, schema]
    subprocess.run(command, check=True, env=environment)
    start("ovsdb", root + "/usr/sbin/ovsdb-server", database, "--remote=punix:" + remote)
    deadline = time.monotonic() + WAIT
    while not os.path.exists(remote):
        if time.monotonic() > deadline:
            raise SystemExit("ovsdb-server did not start")
        time.sleep(0.02)
    vsctl = [root + "/usr/bin/ovs-vsctl", "--db=unix:" + remote, f"--timeout={WAIT}"]
    subprocess.run([*vsctl, "--no-wait", "init"], check=True, env=environment)
    vswitchd = root + "/usr/lib/openvswitch-switch/ovs-vswitchd"
    version = subprocess.run([vswitchd, "--version"], env=environment, stdout=subprocess.PIPE)
    print(version.stdout.decode().splitlines()[0], flush=True)
    switch = start("vswitchd", vswitchd, "unix:" + remote)
    bridge = ["--", "set", "bridge", "br0", "datapath_type=netdev", "fail_mode=secure"]
    for port in PORTS:
        bridge += ["--", "add-port", "br0", f"port{port}"]
        bridge += ["--", "set", "interface", f"port{port}", f"ofport_request={port}"]
    bridge += ["--", "set-controller", "br0", "tcp:127.0.0.1:6653"]
    subprocess.run([*vsctl, "add-br", "br0", *bridge], check=True, env=environment)

    controller = Controller(listener.accept()[0])
    controller.send(message(HELLO))
    features = controller.ask(FEATURES_REPLY, message(FEATURES_REQUEST))
    addresses = {}
    for at in range(32, len(features), 48):
        port, address = struct.unpack_from("!H6s", features, at)
        addresses[port] = address
    main()
finally:
    for process in reversed(started):
        process.terminate()
    for process in started:
        process.wait()
END

unshare --net -- python3 "$work/probe.py" "$work" &
child=$!
wait "$child"
