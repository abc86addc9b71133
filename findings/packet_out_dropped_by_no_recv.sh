#!/bin/bash
# Open vSwitch 3.1.0 (Debian 12, userspace datapath), OpenFlow 1.0: a PACKET_OUT whose in_port has
# OFPPC_NO_RECV does nothing, and no error says so.
#
# One would bet: NO_RECV drops what the port receives from its link.  A PACKET_OUT comes from the
# controller, its in_port only says what FLOOD, ALL, IN_PORT and the flow table take for the port
# of arrival.  An explicit output to port 1 at least sends the frame.
#
# It behaves otherwise: none of output, FLOOD, ALL, TABLE and NORMAL sends anything, as if the
# controller's frame had come through the link.  The rules for spanning tree frames hold for the
# controller's, too: they pass NO_RECV, and NO_RECV_STP drops only them.  PORT_DOWN of the in_port,
# which stops the link altogether, drops none of the controller's frames.  With another port or
# OFPP_NONE as in_port they are sent.
#
# Seen, frames out of port 1 of 10 (3.5.0-1+b1 of Debian 13 and 4.0.0-2+b1 of Debian unstable do
# the same):
#   port 2 none, in_port 2, output 1                 10  (FLOOD, ALL, TABLE, NORMAL: 10 each)
#   port 2 NO_RECV, in_port 2, output 1               0  (FLOOD, ALL, TABLE, NORMAL: 0 each)
#   port 2 NO_RECV, in_port 3, output 1              10
#   port 2 NO_RECV, in_port NONE, output 1           10
#   port 2 NO_RECV, in_port 2, to STP, output 1      10
#   port 2 NO_RECV_STP, in_port 2, to STP, output 1   0
#   port 2 NO_RECV_STP, in_port 2, output 1          10
#   port 2 PORT_DOWN, in_port 2, output 1            10
#
# Needs root, Debian 12 (amd64) with python3, iproute2 and util-linux.  Takes some ten seconds.
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
TABLE, NORMAL, FLOOD, ALL, NONE = 0xFFF9, 0xFFFA, 0xFFFB, 0xFFFC, 0xFFFF
PORT_DOWN, NO_RECV, NO_RECV_STP = 1, 1 << 2, 1 << 3
BROADCAST, STP = b"\xff" * 6, b"\x01\x80\xc2\0\0\0"
ETHERTYPE, MAGIC = b"\x88\xb5", b"of frame"  # for local experiments
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


def frame(number, mark, destination=BROADCAST):
    payload = MAGIC + struct.pack("!I", number) + mark + bytes(50)
    kind = ETHERTYPE
    if destination == STP:  # IEEE 802.3 with the LLC header of spanning tree frames
        payload = b"\x42\x42\x03" + payload
        kind = struct.pack("!H", len(payload))
    return destination + b"\x02\0\0\0\0\x02" + kind + payload


def count_before_fence(number, in_port):
    """How often the frame with this number came out of port 1, ahead of one sent now."""
    controller.send(packet_out(in_port, 1, frame(number, b"F")))
    count = 0
    while True:
        data = wire.recv(2048)
        _, found, mark = data.partition(MAGIC + struct.pack("!I", number))
        if found and mark[:1] == b"F":
            return count
        count += bool(found)


def main():
    every = (("output 1", 1), ("FLOOD", FLOOD), ("ALL", ALL), ("TABLE", TABLE), ("NORMAL", NORMAL))
    first = every[:1]
    cases = (
        # port 2's configuration, in_port of the PACKET_OUT, destination, outputs, expected
        ("none", 0, "2", 2, BROADCAST, every, 10),
        ("NO_RECV", NO_RECV, "2", 2, BROADCAST, every, 0),
        ("NO_RECV", NO_RECV, "3", 3, BROADCAST, first, 10),
        ("NO_RECV", NO_RECV, "NONE", NONE, BROADCAST, first, 10),
        ("NO_RECV", NO_RECV, "2, to STP", 2, STP, first, 10),
        ("NO_RECV_STP", NO_RECV_STP, "2, to STP", 2, STP, first, 0),
        ("NO_RECV_STP", NO_RECV_STP, "2", 2, BROADCAST, first, 10),
        ("PORT_DOWN", PORT_DOWN, "2", 2, BROADCAST, first, 10),
    )
    controller.settle(add_flow(output(1)))
    number, changed = 0, False
    for config_name, config, in_port_name, in_port, destination, outputs, expected in cases:
        controller.settle(port_mod(2, config, PORT_DOWN | NO_RECV | NO_RECV_STP))
        for output_name, port in outputs:
            count = 0
            for _ in range(10):
                number += 1
                controller.send(packet_out(in_port, port, frame(number, b"T", destination)))
                count += count_before_fence(number, 3)
            right = count == expected
            changed = changed or not right
            what = f"port 2 {config_name}, in_port {in_port_name}, {output_name}"
            print(f"{what:48} {count:2}{'' if right else '   CHANGED'}", flush=True)
    if changed:
        raise SystemExit("CHANGED: Open vSwitch behaves otherwise than described here")


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
    start("vswitchd", vswitchd, "unix:" + remote)
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
