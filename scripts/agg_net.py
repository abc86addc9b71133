#!/usr/bin/env python3
"""The demo's network: switches s1, s2, ... with some hosts each and no link between them.

    sudo python scripts/agg_net.py                    s1 with h1, h2; s2 with h3, h4
    sudo python scripts/agg_net.py --switches 3 --hosts 1

Hosts are 10.0.0.1, 10.0.0.2, ... on ports 1, 2, ... of their switch.  Switch sX has the datapath id
X and speaks OpenFlow 1.0 with the controller at 127.0.0.1:6633.  Then comes Mininet's prompt
(`h1 ping h2`, `s1 ovs-ofctl dump-flows s1`, `help`).  Leaving it removes everything.

With the kernel's openvswitch module the switches are bridges of the machine's own Open vSwitch.
Without the module each switch is a userspace Open vSwitch in a network namespace of its own.  These
namespaces are inside one private namespace, and a relay carries the OpenFlow connections out of it
to the controller.

`scripts/aggregator.sh` adds the tunnels to the running network.  Where to find what:

    topo.py, node.py, net.py, cli.py    the network in Mininet's own classes
    userspace_ovs.py                    one userspace Open vSwitch
    machine_ovs.py                      the machine's own Open vSwitch
    first_contact.py                    why a switch tries every second to reach the controller
    tunnels.py, control_socket.py       tunnels between userspace switches, as aggregator.sh asks
    private_namespace.py, relay.py      where userspace switches are, and the way out of there
    state_directory.py                  the running network's directory, which allows one at a time
"""

import argparse
import os
import sys

try:
    import mininet  # noqa: F401  whether it is there; the modules below use it
except ImportError:
    # Mininet is a Debian package; `python` may be another than the system's.
    SYSTEM_PYTHON = "/usr/bin/python3"
    if __name__ != "__main__":
        raise
    if sys.executable != SYSTEM_PYTHON:
        os.execv(SYSTEM_PYTHON, [SYSTEM_PYTHON, *sys.argv])
    sys.exit("agg_net.py: Mininet is not installed: sudo scripts/setup.sh")

from mininet.log import info, setLogLevel

import machine_ovs
import private_namespace
import signals
from cli import AggregatorCLI
from control_socket import ControlSocket
from failure import Failure
from net import KernelNet, UserspaceNet
from options import number_up_to, parse_address
from relay import UnixToTcpRelay
from state_directory import StateDirectory
from tunnels import Tunnels

CONTROLLER = "127.0.0.1:6633"


def parse_options() -> argparse.Namespace:
    """Return the command line's options; exit with a usage message when they are wrong."""
    parser = argparse.ArgumentParser(
        description="Mininet's prompt over switches with hosts, and no link between the switches."
    )
    parser.add_argument(
        "--switches", type=number_up_to(254), default=2, metavar="N", help="default 2"
    )
    parser.add_argument(
        "--hosts", type=number_up_to(999), default=2, metavar="N", help="on each switch, default 2"
    )
    parser.add_argument(
        "--controller",
        type=parse_address,
        default=CONTROLLER,
        metavar="IP:PORT",
        help=f"default {CONTROLLER}",
    )
    parser.add_argument(
        "--datapath",
        choices=("auto", "kernel", "user"),
        default="auto",
        help="the machine's Open vSwitch with its kernel module, or a userspace Open vSwitch "
        "for each switch; default auto: kernel where that works",
    )
    return parser.parse_args()


def run_kernel(options: argparse.Namespace) -> int:
    """Run the network on the machine's Open vSwitch until the user leaves."""
    signals.raise_as_exceptions()
    with StateDirectory().locked():
        machine_ovs.remove_leftovers()
        try:
            net = KernelNet(options.switches, options.hosts, options.controller)
            net.start()
            try:
                AggregatorCLI(net)
            finally:
                signals.ignore()
                net.stop()
        finally:
            signals.ignore()
            machine_ovs.remove_leftovers()
    return 0


def run_userspace(options: argparse.Namespace) -> int:
    """Run this program again in a private namespace until the user leaves.

    The relay stays outside, where the controller is.
    """
    signals.hold()
    state = StateDirectory()
    with state.locked():
        UnixToTcpRelay(state.relay, options.controller)
        return private_namespace.run([sys.executable, *sys.argv])


def run_inside(options: argparse.Namespace) -> int:
    """Run the network in the private namespace that `run_userspace` has made."""
    private_namespace.arrive()
    state = StateDirectory()
    net = UserspaceNet(
        options.switches, options.hosts, options.controller, str(state.path), state.relay
    )
    net.start()
    try:
        ControlSocket(state.control, Tunnels(net))
        AggregatorCLI(net)
    finally:
        signals.ignore()
        net.stop()
    return 0


def main() -> int:
    """Run the command line; return the exit status."""
    options = parse_options()
    setLogLevel("info")
    try:
        if os.geteuid() != 0:
            raise Failure("needs root: sudo python scripts/agg_net.py")
        if private_namespace.inside():
            return run_inside(options)
        reason = None
        if options.datapath != "user":
            reason = machine_ovs.why_unusable()
            if reason is None:
                return run_kernel(options)
            if options.datapath == "kernel":
                raise Failure(reason)
        info(
            f"*** {reason or 'As asked'}: one userspace Open vSwitch per switch, "
            "each in its own network namespace\n"
        )
        return run_userspace(options)
    except Failure as failure:
        print(f"agg_net.py: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
