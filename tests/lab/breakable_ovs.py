"""A userspace Open vSwitch that a test can kill, freeze and start again."""

import os
import signal
import subprocess
from typing import Optional

from userspace_ovs import OVSError, UserspaceOVS, is_alive
from waiting import wait_until


class BreakableOVS(UserspaceOVS):
    """A `UserspaceOVS` whose daemons can fail, and come back with `start`."""

    def __init__(self, name: str, rundir: str, netns_pid: int) -> None:
        super().__init__(name, rundir, netns_pid)
        self._frozen = False
        self._underlay_address: Optional[str] = None

    # ---- life ----

    def start(self) -> None:
        """Start each daemon that does not run; return when the bridges forward again.

        The database is the one that is there, or an empty one when there is none.
        """
        if not os.path.exists(self.database):
            super().start()
            return
        if not is_alive(self.ovsdb):
            self._start_ovsdb()
        if not is_alive(self.vswitchd):
            self._start_vswitchd()
            bridges = set(self.vsctl("list-br").split())
            wait_until(lambda: self._forwards(bridges), f"bridges {bridges}")
            if self._underlay_address is not None:
                # The LOCAL port has gone with ovs-vswitchd, and its address with the port.
                self._set_underlay_address(self._underlay_address)

    def stop(self) -> None:
        """End both daemons, even a frozen one, and remove the directory."""
        self.sigcont()
        super().stop()

    def restart(self, keep_flows: bool = False, keep_db: bool = True) -> None:
        """Kill and start both daemons.

        keep_flows: put the flows back before a controller is connected, so that the switch comes
            up with the flows that it had.  (`ovs-ctl restart` tries the same with
            flow-restore-wait, but Open vSwitch 3.1 then flushes the flows of a bridge that has a
            controller.)
        keep_db: False starts with an empty database, that is without bridges.
        """
        flows: dict[str, str] = {}
        targets: dict[str, str] = {}
        if keep_flows:
            for bridge in self.vsctl("list-br").split():
                flows[bridge] = self.ofctl("dump-flows", "--no-names", "--no-stats", bridge)
            records = self.vsctl("--bare", "--columns=_uuid,target", "list", "controller").split()
            targets = dict(zip(records[0::2], records[1::2]))
            self._set_targets({record: "unix:" + self._path("nobody") for record in targets})
        self.kill_vswitchd()
        self.kill_ovsdb()
        if not keep_db:
            os.unlink(self.database)
            self._underlay_address = None
        self.start()
        for bridge, text in flows.items():
            self.ofctl("add-flows", bridge, "-", text=text)
        self._set_targets(targets)

    # ---- faults ----

    def kill_vswitchd(self) -> None:
        """kill -9 ovs-vswitchd: forwarding stops, and the flows are lost."""
        _kill(self.vswitchd)

    def kill_ovsdb(self) -> None:
        """kill -9 ovsdb-server: the flows stay, but ovs-vswitchd does nothing until `start`.

        With its connection ovs-vswitchd loses the database's lock, which only one ovs-vswitchd may
        have, and waits until it has the lock again.
        """
        _kill(self.ovsdb)

    def sigstop(self) -> None:
        """Freeze ovs-vswitchd: its connections stay open and nobody answers."""
        self.vswitchd.send_signal(signal.SIGSTOP)
        self._frozen = True

    def sigcont(self) -> None:
        """Let a frozen ovs-vswitchd go on."""
        if self._frozen:
            self.vswitchd.send_signal(signal.SIGCONT)
            self._frozen = False

    @property
    def forwarding(self) -> bool:
        """Whether both daemons run and none is frozen."""
        return super().forwarding and not self._frozen

    # ---- the start after a fault ----

    def _start_vswitchd(self) -> None:
        self._frozen = False
        for name in os.listdir(self.directory):  # a killed daemon leaves its sockets
            if name.endswith((".mgmt", ".snoop")) or name == "ovs-vswitchd.ctl":
                os.unlink(self._path(name))
        super()._start_vswitchd()

    def _forwards(self, bridges: set[str]) -> bool:
        try:
            return bridges <= set(self.appctl("ofproto/list").split())
        except OVSError:  # ovs-vswitchd has no such command before it has read its database
            return False

    def _set_targets(self, targets: dict[str, str]) -> None:
        for record, target in targets.items():
            self.vsctl("set", "controller", record, f'target="{target}"')

    def _set_underlay_address(self, address: str) -> None:
        super()._set_underlay_address(address)
        self._underlay_address = address


def _kill(process: Optional[subprocess.Popen]) -> None:
    if is_alive(process):
        process.kill()
        process.wait()
