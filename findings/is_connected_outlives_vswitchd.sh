#!/bin/bash
# Open vSwitch 3.1.0 (Debian 12, userspace datapath): the database says that a controller is
# connected although ovs-vswitchd has died.
#
# One would bet: `is_connected` of a controller's record, which is ephemeral, says whether the switch
# is connected, and is false when there is no switch.  So `ovs-vsctl wait-until controller br0
# is_connected=true` waits until the switch has connected.
#
# It behaves otherwise: when ovs-vswitchd is killed, and the controller ends with it, the record goes
# on saying is_connected=true and state=ACTIVE for as long as ovs-vswitchd does not run.  wait-until
# returns at once.  Only the next ovs-vswitchd corrects the record, a moment after its start.  Who
# waits in a start script for the first connection, for instance because this version obeys
# max_backoff and inactivity_probe only from a change on that is made while the controller is
# connected, may come too early.  To write is_connected=false before waiting helps.
#
# Seen (3.5.0-1+b1 of Debian 13 and 4.0.0-2+b1 of Debian unstable do the same):
#   connected                     is_connected=true state=ACTIVE
#   3 s after kill -9             is_connected=true state=ACTIVE
#   wait-until returned           at once
#   after is_connected=false      wait-until waits
#   ovs-vswitchd started again    is_connected=false state=BACKOFF
#
# Needs root, Debian 12 (amd64) with python3, iproute2 and util-linux.  Takes a quarter of a minute.
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
import os
import signal
import socket
import struct
import subprocess
import sys
import time

HELLO = struct.pack("!BBHI", 1, 0, 8, 1)
WAIT = 20  # seconds for anything that must come
AWAY = 3  # seconds that ovs-vswitchd is away
PATIENCE = 2  # seconds of a wait-until that should wait

work = sys.argv[1]
root = os.path.join(work, "root")
started = []


def start(name, *command):
    """Start a daemon whose output goes to a file."""
    with open(os.path.join(work, name + ".log"), "ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    started.append(process)
    return process


def ovs_vsctl(*arguments, timeout=WAIT):
    """Run ovs-vsctl; return its exit status and its output."""
    command = [root + "/usr/bin/ovs-vsctl", "--db=" + remote, f"--timeout={timeout}", *arguments]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return done.returncode, done.stdout.decode().strip()


def record():
    """What the database says of the controller."""
    _, connected = ovs_vsctl("--no-wait", "get", "controller", "br0", "is_connected")
    _, state = ovs_vsctl("--no-wait", "--if-exists", "get", "controller", "br0", "status:state")
    return f"is_connected={connected} state={state}"


def wait_for(wanted):
    """Wait until the database says this of the controller."""
    deadline = time.monotonic() + WAIT
    while record() != wanted:
        if time.monotonic() > deadline:
            raise SystemExit(f"CHANGED: {record()} instead of {wanted}")
        time.sleep(0.1)


def waits():
    """Whether a wait-until for the connection waits."""
    status, _ = ovs_vsctl(
        "--no-wait", "wait-until", "controller", "br0", "is_connected=true", timeout=PATIENCE
    )
    return status != 0


def report(what, seen, expected):
    global changed
    changed = changed or seen != expected
    print(f"{what:29} {seen}{'' if seen == expected else '   CHANGED'}", flush=True)


def main():
    global switch
    controller, _ = listener.accept()
    controller.sendall(HELLO)
    up = "is_connected=true state=ACTIVE"
    wait_for(up)
    report("connected", record(), up)

    switch.kill()
    switch.wait()
    controller.close()
    listener.close()
    time.sleep(AWAY)
    report(f"{AWAY} s after kill -9", record(), up)
    report("wait-until returned", "never" if waits() else "at once", "at once")
    ovs_vsctl("--no-wait", "set", "controller", "br0", "is_connected=false")
    report("after is_connected=false", "wait-until " + ("waits" if waits() else "returns"),
           "wait-until waits")
    ovs_vsctl("--no-wait", "set", "controller", "br0", "is_connected=true")
    switch = start("vswitchd", vswitchd, "unix:" + work + "/db.sock")
    down = "is_connected=false state=BACKOFF"
    wait_for(down)
    report("ovs-vswitchd started again", down, down)
    if changed:
        raise SystemExit("CHANGED: Open vSwitch behaves otherwise than described here")


def end(number, _frame):
    raise SystemExit(f"ended by signal {number}")


for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, end)
environment = dict(os.environ, LD_LIBRARY_PATH=root + "/usr/lib/x86_64-linux-gnu")
for name in ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"):
    environment[name] = work
changed = False
try:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    listener = socket.create_server(("127.0.0.1", 6653))
    listener.settimeout(WAIT)

    database, remote = work + "/conf.db", "unix:" + work + "/db.sock"
    schema = root + "/usr/share/openvswitch/vswitch.ovsschema"
    command = [root + "/usr/bin/ovsdb-tool", "create", database, schema]
    subprocess.run(command, check=True, env=environment)
    start("ovsdb", root + "/usr/sbin/ovsdb-server", database, "--remote=p" + remote)
    deadline = time.monotonic() + WAIT
    while not os.path.exists(work + "/db.sock"):
        if time.monotonic() > deadline:
            raise SystemExit("ovsdb-server did not start")
        time.sleep(0.02)
    ovs_vsctl("--no-wait", "init")
    vswitchd = root + "/usr/lib/openvswitch-switch/ovs-vswitchd"
    version = subprocess.run([vswitchd, "--version"], env=environment, stdout=subprocess.PIPE)
    print(version.stdout.decode().splitlines()[0], flush=True)
    switch = start("vswitchd", vswitchd, remote)
    bridge = ["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"]
    ovs_vsctl(*bridge, "--", "set-controller", "br0", "tcp:127.0.0.1:6653")
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
