"""The machine's own Open vSwitch, as the distribution installs and starts it."""

from pathlib import Path
from typing import Optional

import command

MARK = "edge-aggregator"
"""The external-id of the bridges that agg_net.py adds: by it they are told from the user's."""


def why_unusable() -> Optional[str]:
    """Return why the machine's Open vSwitch cannot be used; None when it can."""
    command.run("modprobe", "--quiet", "openvswitch")
    if command.run("ovs-dpctl", "dump-dps").returncode != 0:
        return "No openvswitch kernel module here"
    if command.run("ovs-appctl", "--timeout=3", "version").returncode != 0:
        return "Open vSwitch is not running (service openvswitch-switch start)"
    return None


def has_bridge(name: str) -> bool:
    """Return whether there is a bridge `name`."""
    return command.run("ovs-vsctl", "br-exists", name).returncode == 0


def remove_leftovers() -> None:
    """Remove what agg_net.py and aggregator.sh have added, and nothing else."""
    for bridge in command.run("ovs-vsctl", "list-br").stdout.split():
        if command.run("ovs-vsctl", "br-get-external-id", bridge, MARK).stdout.strip():
            command.run("ovs-vsctl", "--if-exists", "del-br", bridge)
    command.run(str(Path(__file__).with_name("aggregator.sh")), "--remove")
