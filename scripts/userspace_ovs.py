"""A private Open vSwitch in user space: its own daemons in a network namespace.

Open vSwitch can forward without its kernel module (``datapath_type=netdev``), and so do its GRE
tunnels, with addresses taken from the flow.  But one ovs-vswitchd cannot tunnel to itself, because
all tunnel addresses would be local to it.  So every switch gets its own pair of daemons in its own
network namespace, with its own directory for sockets, database and logs.  It shares nothing with
the machine's Open vSwitch.

    ovs = UserspaceOVS("s1", "/tmp/lab", netns_pid=4711)
    ovs.start()
    ovs.add_underlay("s1-under", "172.16.0.1/24")
    ovs.add_bridge("s1", dpid=1, controller="tcp:10.255.0.1:6633")
    ovs.add_tunnel("s1", "tun1", "172.16.0.1")
    ovs.vsctl("add-port", "s1", "s1-eth1")
    ...
    ovs.stop()

The daemons are children of the caller and die with it, even when it is killed with SIGKILL
(PR_SET_PDEATHSIG).  The kernel ties that to the *thread* that started them: call `start` from a
thread that lives as long as the switch does, normally the main thread.

Standard library only; needs root, Debian's openvswitch-switch, iproute2, util-linux, ethtool.
"""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from typing import Optional

from command import dying_with_parent, in_netns
from failure import Failure
from waiting import DEADLINE, wait_until

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
UNDERLAY_BRIDGE = "underlay"


class OVSError(Failure):
    """A daemon did not start, or refused a command; the text is what it said."""


class UserspaceOVS:
    """One Open vSwitch: its two daemons, its database, its bridges.

    name: names the directory of this switch below `rundir`.
    rundir: existing directory; keep it short, a unix socket's path has at most 107 bytes.
    netns_pid: a process in the network namespace to run in.
    """

    def __init__(self, name: str, rundir: str, netns_pid: int) -> None:
        self.name = name
        self.netns_pid = netns_pid
        self.directory = os.path.join(rundir, name)
        self.database = os.path.join(self.directory, "conf.db")
        self.remote = "unix:" + os.path.join(self.directory, "db.sock")
        self.ovsdb: Optional[subprocess.Popen] = None
        self.vswitchd: Optional[subprocess.Popen] = None
        self._env = dict(
            os.environ,
            OVS_RUNDIR=self.directory,
            OVS_DBDIR=self.directory,
            OVS_LOGDIR=self.directory,
            OVS_SYSCONFDIR=self.directory,
        )

    # ---- life ----

    def start(self) -> None:
        """Start both daemons with an empty database; return when they answer.

        Raises OVSError when they run already.
        """
        if self.forwarding:
            raise OVSError(f"{self.name} is running already")
        os.makedirs(self.directory, exist_ok=True)
        self._run(["ovsdb-tool", "create", self.database, SCHEMA])
        self._start_ovsdb()
        self._start_vswitchd()

    def stop(self) -> None:
        """End both daemons and remove the directory.  Does nothing when that is done already."""
        daemons = [process for process in (self.vswitchd, self.ovsdb) if process is not None]
        for process in daemons:
            process.terminate()
        for process in daemons:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.vswitchd = self.ovsdb = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> "UserspaceOVS":
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def forwarding(self) -> bool:
        """Whether both daemons run: ovs-vswitchd forwards only while it has its database."""
        return is_alive(self.vswitchd) and is_alive(self.ovsdb)

    # ---- commands ----

    def vsctl(self, *args: str) -> str:
        """Run ovs-vsctl and return its output, once ovs-vswitchd has done what was asked."""
        return self._run(["ovs-vsctl", "--db=" + self.remote, f"--timeout={DEADLINE}", *args])

    def ofctl(self, command: str, bridge: str, *args: str, text: Optional[str] = None) -> str:
        """Run `ovs-ofctl COMMAND BRIDGE ARGS...` and return its output.

        text: its standard input.
        """
        return self._run(["ovs-ofctl", f"--timeout={DEADLINE}", command, bridge, *args], text=text)

    def appctl(
        self, command: str, *args: str, target: str = "ovs-vswitchd", timeout: float = DEADLINE
    ) -> str:
        """Do what `ovs-appctl -t TARGET COMMAND ARGS...` does, and return the reply.

        This method speaks JSON-RPC with the daemon's control socket itself, which takes 0.1 ms
        where the program ovs-appctl takes 5 ms.  Each call makes a new connection, so the daemon
        completes a round of its main loop between two successive replies.

        Raises OVSError when the daemon refuses, and OSError when it does not run or does not answer
        within `timeout` seconds.
        """
        request = {"id": 0, "method": command, "params": list(args)}
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(self._path(target + ".ctl"))
            connection.sendall(json.dumps(request).encode())
            received = b""
            while True:
                chunk = connection.recv(65536)
                received += chunk
                try:
                    reply = json.loads(received.decode())
                    break
                except ValueError:
                    if not chunk:
                        raise OVSError(f"{target} {command}: connection closed") from None
        if reply["error"] is not None:
            raise OVSError(f"{target} {command}: {reply['error']}")
        return reply["result"]

    # ---- configuration ----

    def add_bridge(
        self,
        name: str,
        dpid: Optional[int] = None,
        controller: Optional[str] = None,
        ports: Sequence[str] = (),
        mac: Optional[str] = None,
        inactivity_probe: Optional[int] = None,
    ) -> None:
        """Add a bridge with the userspace datapath, fail mode `secure` and OpenFlow 1.0.

        dpid: its datapath id; None lets Open vSwitch choose.
        controller, inactivity_probe: see `set_controller`; a target such as "tcp:10.255.0.1:6633".
        mac: the LOCAL port's address; None lets Open vSwitch take the lowest of its ports.
        ports: interfaces in its network namespace that become its ports 1, 2, ...
        """
        transaction = [
            *("add-br", name, "--", "set", "bridge", name, "datapath_type=netdev"),
            *("fail_mode=secure", "protocols=OpenFlow10"),
            # In-band control would add flows that no controller sees.
            "other_config:disable-in-band=true",
        ]
        if dpid is not None:
            transaction.append(f"other_config:datapath-id={dpid:016x}")
        if mac is not None:
            transaction.append(f'other_config:hwaddr="{mac}"')
        for number, port in enumerate(ports, 1):
            transaction += ["--", "add-port", name, port]
            transaction += ["--", "set", "interface", port, f"ofport_request={number}"]
        self.vsctl(*transaction)
        if controller is not None:
            self.set_controller(name, controller, inactivity_probe=inactivity_probe)

    def set_controller(
        self, bridge: str, *targets: str, inactivity_probe: Optional[int] = None
    ) -> None:
        """Connect `bridge` to the controllers at `targets`, with a new attempt every second.

        inactivity_probe: milliseconds of silence after which the switch asks its controller for a
            sign of life; None is Open vSwitch's 5000.
        """
        settings = ["max_backoff=1000"]
        if inactivity_probe is not None:
            settings.append(f"inactivity_probe={inactivity_probe}")
        transaction = []
        for number, target in enumerate(targets):
            transaction += ["--", f"--id=@c{number}", "create", "controller", f'target="{target}"']
            transaction += settings
        records = ",".join(f"@c{number}" for number in range(len(targets)))
        self.vsctl(*transaction, "--", "set", "bridge", bridge, f"controller=[{records}]")
        self.enforce_controller_settings(bridge)

    def enforce_controller_settings(self, bridge: str) -> None:
        """Make Open vSwitch obey the settings of controllers that are connected.

        Versions from 3.1.3 on do so anyway.  3.1.0 obeys when the bridge is changed while a
        controller is connected; the same value again would be no change.
        """
        self.vsctl("set", "bridge", bridge, f"external_ids:settings={time.monotonic_ns()}")

    def add_underlay(
        self, interface: str, address: str, mtu: Optional[int] = None, mac: Optional[str] = None
    ) -> None:
        """Make `interface` the way to the other switches, with the tunnel IP `address`.

        The interface becomes a port of the bridge UNDERLAY_BRIDGE.  The address belongs to the
        LOCAL port of that bridge: there Open vSwitch looks for it when it wraps a frame in GRE.

        address: with prefix length, "172.16.0.1/24".
        mtu: bytes; at least the hosts' MTU + 42.  None leaves it as it is.
        mac: the LOCAL port's address; None lets Open vSwitch choose.
        """
        # The kernel must compute checksums itself, because nothing after it does: with wrong ones
        # TCP would hang.
        self.run("ethtool", "-K", interface, "tx", "off")
        self.run("ip", "link", "set", interface, "up")
        if mtu is not None:
            self.run("ip", "link", "set", interface, "mtu", str(mtu))
        bridge = UNDERLAY_BRIDGE
        transaction = [
            *("add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev"),
            *("fail_mode=standalone", "other_config:disable-in-band=true"),
        ]
        if mac is not None:
            transaction.append(f'other_config:hwaddr="{mac}"')
        transaction += ["--", "add-port", bridge, interface]
        if mtu is not None:
            transaction += ["--", "set", "interface", bridge, f"mtu_request={mtu}"]
        self.vsctl(*transaction)
        self._set_underlay_address(address)

    def remove_underlay(self) -> None:
        """Remove what `add_underlay` has made, if it is there."""
        self.vsctl("--if-exists", "del-br", UNDERLAY_BRIDGE)

    def add_tunnel(self, bridge: str, port: str, local_ip: str, type: str = "gre") -> None:
        """Add a tunnel port whose remote address and key are taken from the flow.

        type: "gre", "vxlan" or "geneve".
        """
        self.vsctl(
            *("add-port", bridge, port, "--", "set", "interface", port, "type=" + type),
            *("options:remote_ip=flow", "options:local_ip=" + local_ip, "options:key=flow"),
            # With LLDP, Open vSwitch would keep the probes that the aggregator sends.
            "lldp:enable=false",
        )

    def run(self, *command: str) -> str:
        """Run a program in this switch's network namespace and return what it printed."""
        return self._run(in_netns(self.netns_pid, command))

    # ---- daemons ----

    def _path(self, file_name: str) -> str:
        return os.path.join(self.directory, file_name)

    def _run(self, command: Sequence[str], text: Optional[str] = None) -> str:
        done = subprocess.run(
            command,
            env=self._env,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            stdin=None if text is not None else subprocess.DEVNULL,
        )
        if done.returncode != 0:
            raise OVSError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def _start_ovsdb(self) -> None:
        self.ovsdb = self._spawn(
            "ovsdb-server",
            self.database,
            "--remote=p" + self.remote,
            "--remote=db:Open_vSwitch,Open_vSwitch,manager_options",
        )
        self._wait_for_daemon("ovsdb-server", self.ovsdb)
        self._run(["ovs-vsctl", "--db=" + self.remote, "--no-wait", "init"])

    def _start_vswitchd(self) -> None:
        self.vswitchd = self._spawn("ovs-vswitchd", self.remote)
        self._wait_for_daemon("ovs-vswitchd", self.vswitchd)

    def _spawn(self, daemon: str, *args: str) -> subprocess.Popen:
        command = [
            daemon,
            *args,
            "--unixctl=" + self._path(daemon + ".ctl"),
            "--no-chdir",
            "-vconsole:off",
            "-vsyslog:off",
            "-vfile:info",
            "--log-file=" + self._path(daemon + ".log"),
        ]
        # In its own session the daemon does not get the terminal's Ctrl-C, which is the caller's.
        return subprocess.Popen(
            dying_with_parent(in_netns(self.netns_pid, command)),
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _wait_for_daemon(self, daemon: str, process: subprocess.Popen) -> None:
        def answers() -> bool:
            if process.poll() is not None:
                said = self._log(daemon)[-2000:]
                raise OVSError(
                    f"{daemon} of {self.name} ended with status {process.returncode}:\n{said}"
                )
            try:
                return bool(self.appctl("version", target=daemon))
            except (OSError, OVSError):
                return False

        wait_until(answers, f"answer from {daemon} of {self.name}")

    def _log(self, daemon: str) -> str:
        try:
            with open(self._path(daemon + ".log"), errors="replace") as log:
                return log.read()
        except FileNotFoundError:
            return ""

    def _set_underlay_address(self, address: str) -> None:
        device = UNDERLAY_BRIDGE
        wait_until(lambda: self._has_device(device), f"device {device}")
        self.run("ethtool", "-K", device, "tx", "off")
        self.run("ip", "address", "replace", address, "dev", device)
        self.run("ip", "link", "set", device, "up")
        # Open vSwitch cannot tunnel before the kernel has told it of the route.
        wait_until(lambda: f"dev {device}" in self.appctl("ovs/route/show"), f"route by {device}")

    def _has_device(self, device: str) -> bool:
        try:
            self.run("ip", "link", "show", "dev", device)
        except OVSError:
            return False
        return True


def is_alive(process: Optional[subprocess.Popen]) -> bool:
    """Return whether `process` was started and has not ended."""
    return process is not None and process.poll() is None
