#!/bin/bash
# Gives the switches s1 .. sN of the running network (agg_net.py) their tunnel ports: tunX on sX,
# with remote address and key taken from the flow, and the tunnel IP 172.16.0.X.
# It may be run again at any time: ports that are there stay.  After a restart of Open vSwitch 3.1.0,
# run it again once the aggregator is connected: see add_tunnel.
#
# usage: sudo scripts/aggregator.sh N [--type gre|vxlan|geneve]
#        sudo scripts/aggregator.sh --remove
set -u
. "$(dirname "$0")/env.sh"

USAGE="usage: sudo scripts/aggregator.sh N [--type gre|vxlan|geneve] | --remove"
# Where agg_net.py takes requests when its switches are userspace ones (control_socket.py).
CONTROL=${AGG_NET_DIR:-/run/agg_net}/control

# tunnel_addresses: the tunnel IPs that this script put on the loopback interface, a line each.
tunnel_addresses() {
    ip -oneline -4 address show dev lo label 'lo:agg*' | awk '{ print $4 }'
}

# ask REQUEST: sends agg_net.py a request (control_socket.py) and waits until it is done.
# Status 1 when no agg_net.py takes requests; ends the script when agg_net.py refuses.
ask() {
    local answer
    [ -S "$CONTROL" ] || return 1
    answer=$("$SYSTEM_PYTHON" -c '
import socket, sys
with socket.socket(socket.AF_UNIX) as control:
    control.connect(sys.argv[1])
    control.sendall(sys.argv[2].encode() + b"\n")
    print(control.makefile().readline(), end="")
' "$CONTROL" "$1" 2>/dev/null) || return 1
    [ "$answer" = ok ] || die "${answer:-agg_net.py ended}"
}

# add_tunnel X TYPE: adds the tunnel port of sX to the machine's own Open vSwitch.
add_tunnel() {
    local bridge=s$1 port=tun$1 address=172.16.0.$1
    # Both ends of the tunnel are on this machine, so their addresses have to be here. Loopback takes
    # any number of addresses. The label tells them from the user's. With /32 no route is added.
    if ! ip -oneline -4 address show to "$address/32" | grep -q .; then
        ip address add "$address/32" dev lo label "lo:agg$1" || die "could not add the address $address"
    fi
    # With LLDP, Open vSwitch would keep the probes that the aggregator sends.  Open vSwitch 3.1.0
    # obeys the settings of a controller (inactivity_probe, max_backoff) from the next change of the
    # bridge on that is made while the controller is connected.  So each run makes one.
    ovs-vsctl --timeout=10 --may-exist add-port "$bridge" "$port" \
        -- set port "$port" external-ids:edge-aggregator=tunnel \
        -- set interface "$port" "type=$2" options:remote_ip=flow "options:local_ip=$address" options:key=flow \
        lldp:enable=false \
        -- set bridge "$bridge" "external-ids:settings=$(date +%s%N)" ||
        die "Open vSwitch refused the port $port of $bridge"
    if [ "$(ovs-vsctl get interface "$port" ofport)" = -1 ]; then
        die "no port $port on $bridge: $(ovs-vsctl get interface "$port" error)"
    fi
}

# remove_tunnels: removes what add_tunnel has added.
remove_tunnels() {
    local port address
    for port in $(ovs-vsctl --timeout=3 --bare --columns=name find port external_ids:edge-aggregator=tunnel 2>/dev/null); do
        ovs-vsctl --if-exists del-port "$port"
    done
    for address in $(tunnel_addresses); do
        ip address del "$address" dev lo
    done
}

count='' remove='' type=gre
while [ $# -gt 0 ]; do
    case $1 in
        --remove) remove=yes ;;
        --type) type=${2:-} && shift ;;
        --type=*) type=${1#*=} ;;
        -h | --help) echo "$USAGE" && exit ;;
        *)
            [ -z "$count" ] || die "$USAGE"
            count=$1
            ;;
    esac
    shift || die "$USAGE"
done
case $type in gre | vxlan | geneve) ;; *) die "no tunnel type '$type': gre, vxlan or geneve" ;; esac
need_root "making tunnels"

if [ -n "$remove" ]; then
    [ -z "$count" ] || die "$USAGE"
    ask remove || remove_tunnels
    exit
fi

[[ $count =~ ^[1-9][0-9]{0,2}$ && $count -le 254 ]] || die "N has to be a number from 1 to 254 ($USAGE)"
if ! ask "add $count $type"; then
    ovs-vsctl --timeout=3 br-exists s1 2>/dev/null ||
        die "no network is running: start one with 'sudo python scripts/agg_net.py'"
    for ((x = 1; x <= count; x++)); do
        ovs-vsctl br-exists "s$x" ||
            die "the network has $((x - 1)) switches, not $count: 'agg_net.py --switches $count'"
    done
    for ((x = 1; x <= count; x++)); do
        add_tunnel "$x" "$type"
    done
fi
for ((x = 1; x <= count; x++)); do
    echo "s$x: tunnel port tun$x, $type, 172.16.0.$x"
done
