"""A private Open vSwitch in user space: its own daemons in a network namespace.

Open vSwitch can forward without its kernel module (``datapath_type=netdev``), GRE with addresses
taken from the flow included.  One ovs-vswitchd cannot tunnel to itself, though: all tunnel
addresses would be local to it.  So every switch gets its own pair of daemons in its own network
namespace, with a directory of its own for sockets, database and logs.  Nothing is shared with the
machine's Open vSwitch.

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
thread that lives as long as the switch shall, normally the main thread.

Standard library only; needs root, Debian's openvswitch-switch, iproute2, util-linux, ethtool.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from typing import Callable, Optional

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
UNDERLAY_BRIDGE = "underlay"
DEADLINE = 20
"""Seconds after which a daemon that does not do what it should counts as failed."""


class OVSError(RuntimeError):
    """A daemon did not start or a command was refused; the text holds what it said."""


def in_netns(netns_pid: Optional[int], command: Sequence[str]) -> list[str]:
    """Return `command` so that it runs in the network namespace of process `netns_pid`.

    None means the caller's own namespace.
    """
    if netns_pid is None:
        return list(command)
    return ["nsenter", f"--net=/proc/{netns_pid}/ns/net", "--", *command]


def dying_with_parent(command: Sequence[str]) -> list[str]:
    """Return `command` so that the kernel kills it when the thread that started it ends."""
    return ["setpriv", "--pdeathsig", "KILL", "--", *command]


def wait_until(
    condition: Callable[[], bool], what: str, timeout: float = DEADLINE, interval: float = 0.005
) -> None:
    """Return when `condition()` is true; raise OVSError naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise OVSError(f"no {what} within {timeout:g} seconds")
        time.sleep(interval)


class UserspaceOVS:
    """One Open vSwitch: its two daemons, its database, its bridges.

    name: names the directory of this switch below `rundir`.
    rundir: existing directory; keep it short, a unix socket's path has at most 107 bytes.
    netns_pid: a process in the network namespace to run in; None for the caller's.
    """

    def __init__(self, name: str, rundir: str, netns_pid: Optional[int] = None) -> None:
        self.name = name
        self.netns_pid = netns_pid
        self.directory = os.path.join(rundir, name)
        self.database = os.path.join(self.directory, "conf.db")
        self.remote = "unix:" + os.path.join(self.directory, "db.sock")
        self.ovsdb: Optional[subprocess.Popen] = None
        self.vswitchd: Optional[subprocess.Popen] = None
        self._frozen = False
        self._addresses: dict[str, str] = {}  # LOCAL ports go with ovs-vswitchd, so does their IP
        self._env = dict(
            os.environ,
            OVS_RUNDIR=self.directory,
            OVS_DBDIR=self.directory,
            OVS_LOGDIR=self.directory,
            OVS_SYSCONFDIR=self.directory,
        )

    # ---- life ----

    def start(self) -> None:
        """Start what is not running, with the database that is there or an empty one.

        Also brings a switch back after `kill_vswitchd` or `kill_ovsdb`.
        """
        os.makedirs(self.directory, exist_ok=True)
        if not os.path.exists(self.database):
            self._run(["ovsdb-tool", "create", self.database, SCHEMA])
        if not _alive(self.ovsdb):
            self.ovsdb = self._spawn(
                "ovsdb-server",
                self.database,
                "--remote=p" + self.remote,
                "--remote=db:Open_vSwitch,Open_vSwitch,manager_options",
            )
            self._wait_for_daemon("ovsdb-server", self.ovsdb)
            self._run(["ovs-vsctl", "--db=" + self.remote, "--no-wait", "init"])
        if not _alive(self.vswitchd):
            self._frozen = False
            self.vswitchd = self._spawn("ovs-vswitchd", self.remote)
            self._wait_for_daemon("ovs-vswitchd", self.vswitchd)
            bridges = set(self.vsctl("list-br").split())
            wait_until(lambda: self._forwards(bridges), f"bridges {bridges}")
            for device, address in self._addresses.items():
                self._set_address(device, address)

    def stop(self) -> None:
        """End both daemons and remove the directory.  Does nothing when that is done already."""
        for process in (self.vswitchd, self.ovsdb):
            if _alive(process):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in (self.vswitchd, self.ovsdb):
            if process is not None:
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    _kill(process)
        self.vswitchd = self.ovsdb = None
        self._addresses.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> "UserspaceOVS":
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # ---- faults ----

    def kill_vswitchd(self) -> None:
        """kill -9 ovs-vswitchd: forwarding stops, flows are lost.  `start` brings it back."""
        _kill(self.vswitchd)

    def kill_ovsdb(self) -> None:
        """kill -9 ovsdb-server: ovs-vswitchd does nothing more until `start` brings it back.

        It has lost the database's lock, which says that it alone is the switch; flows stay.
        """
        _kill(self.ovsdb)

    def sigstop(self) -> None:
        """Freeze ovs-vswitchd: its connections stay open and nobody answers."""
        self.vswitchd.send_signal(signal.SIGSTOP)
        self._frozen = True

    def sigcont(self) -> None:
        """Let a frozen ovs-vswitchd go on."""
        self.vswitchd.send_signal(signal.SIGCONT)
        self._frozen = False

    @property
    def forwarding(self) -> bool:
        """Whether ovs-vswitchd can do anything: it runs, is not frozen, and has its database."""
        return _alive(self.vswitchd) and _alive(self.ovsdb) and not self._frozen

    def restart(self, keep_flows: bool = False, keep_db: bool = True) -> None:
        """Kill and start both daemons.

        keep_flows: put the flows back before a controller is connected, for a switch that comes
            up as it went down.  (`ovs-ctl restart` tries the same with flow-restore-wait; Open
            vSwitch 3.1 then flushes the flows of a bridge that has a controller.)
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
            self._addresses.clear()
        self.start()
        for bridge, text in flows.items():
            self.ofctl("add-flows", bridge, "-", text=text)
        self._set_targets(targets)

    # ---- commands ----

    def vsctl(self, *args: str) -> str:
        """Run ovs-vsctl on this switch; returns when ovs-vswitchd has done what was asked."""
        return self._run(["ovs-vsctl", "--db=" + self.remote, f"--timeout={DEADLINE}", *args])

    def ofctl(self, command: str, bridge: str, *args: str, text: Optional[str] = None) -> str:
        """Run `ovs-ofctl COMMAND BRIDGE ARGS...`, with `text` as its standard input.

        Options may stand before the command or among `args`; a bridge is named, not a path.
        """
        return self._run(["ovs-ofctl", f"--timeout={DEADLINE}", command, bridge, *args], text=text)

    def appctl(
        self, command: str, *args: str, target: str = "ovs-vswitchd", timeout: float = DEADLINE
    ) -> str:
        """Run `ovs-appctl -t TARGET COMMAND ARGS...` over the daemon's control socket.

        Spoken here (JSON-RPC, ovs-appctl(8)) instead of through the program: 0.1 ms, not 5.
        Each call makes a connection of its own, so the daemon has gone once around its main loop
        between two successive replies.
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
        fail_mode: str = "secure",
        protocols: str = "OpenFlow10",
        ports: Sequence[str] = (),
    ) -> None:
        """Add a bridge with the userspace datapath.

        controller: a target such as "tcp:10.255.0.1:6633"; see `set_controller`.
        ports: interfaces in this namespace that become its ports 1, 2, ...
        """
        transaction = [
            "add-br",
            name,
            "--",
            "set",
            "bridge",
            name,
            "datapath_type=netdev",
            "fail_mode=" + fail_mode,
            "protocols=" + protocols,
            # In-band control would add flows of its own that no controller sees.
            "other_config:disable-in-band=true",
        ]
        if dpid is not None:
            transaction.append(f"other_config:datapath-id={dpid:016x}")
        for number, port in enumerate(ports, 1):
            transaction += [
                "--",
                "add-port",
                name,
                port,
                "--",
                "set",
                "interface",
                port,
                f"ofport_request={number}",
            ]
        self.vsctl(*transaction)
        if controller is not None:
            self.set_controller(name, controller)

    def set_controller(self, bridge: str, *targets: str) -> None:
        """Connect `bridge` to the controllers at `targets`, trying once a second for ever."""
        self.vsctl("set-controller", bridge, *targets)
        # Not in one transaction: Open vSwitch 3.1 would go on with its default, 8 seconds.
        records = self.vsctl("get", "bridge", bridge, "controller").strip("[]\n").split(", ")
        for record in records:
            self.vsctl("set", "controller", record, "max_backoff=1000")

    def add_underlay(
        self,
        interface: str,
        address: str,
        mtu: Optional[int] = None,
        mac: Optional[str] = None,
        bridge: str = UNDERLAY_BRIDGE,
    ) -> None:
        """Make `interface` the way to the other switches, with the tunnel IP `address`.

        The interface becomes a port of a bridge of its own, and the address belongs to that
        bridge's LOCAL port: there Open vSwitch looks for it when it wraps a frame in GRE.

        address: with prefix length, "172.16.0.1/24".
        mtu: bytes; at least the hosts' MTU + 42.  None leaves it as it is.
        mac: the LOCAL port's address; None lets Open vSwitch choose.
        """
        # Frames that the kernel leaves without a checksum would go out so: TCP would hang.
        commands = [
            ["ethtool", "-K", interface, "tx", "off"],
            ["ip", "link", "set", interface, "up"],
        ]
        if mtu is not None:
            commands.append(["ip", "link", "set", interface, "mtu", str(mtu)])
        for command in commands:
            self.run(*command)
        transaction = [
            "add-br",
            bridge,
            "--",
            "set",
            "bridge",
            bridge,
            "datapath_type=netdev",
            "fail_mode=standalone",
            "other_config:disable-in-band=true",
        ]
        if mac is not None:
            transaction.append(f'other_config:hwaddr="{mac}"')
        transaction += ["--", "add-port", bridge, interface]
        if mtu is not None:
            transaction += ["--", "set", "interface", bridge, f"mtu_request={mtu}"]
        self.vsctl(*transaction)
        self._addresses[bridge] = address
        self._set_address(bridge, address)

    def remove_underlay(self, bridge: str = UNDERLAY_BRIDGE) -> None:
        """Take away what `add_underlay` made; fine if it is not there."""
        self.vsctl("--if-exists", "del-br", bridge)
        self._addresses.pop(bridge, None)

    def add_tunnel(
        self, bridge: str, port: str, local_ip: str, type: str = "gre", ofport: Optional[int] = None
    ) -> None:
        """Add a tunnel port whose remote address and key are taken from the flow."""
        transaction = [
            "add-port",
            bridge,
            port,
            "--",
            "set",
            "interface",
            port,
            "type=" + type,
            "options:remote_ip=flow",
            "options:local_ip=" + local_ip,
            "options:key=flow",
        ]
        if ofport is not None:
            transaction.append(f"ofport_request={ofport}")
        self.vsctl(*transaction)

    def run(self, *command: str) -> str:
        """Run a program in this switch's namespace and return what it printed."""
        return self._run(in_netns(self.netns_pid, command))

    # ---- inside ----

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

    def _spawn(self, daemon: str, *args: str) -> subprocess.Popen:
        control = self._path(daemon + ".ctl")
        if daemon == "ovs-vswitchd":
            for socket_name in os.listdir(self.directory):  # what a killed daemon leaves
                if socket_name.endswith((".mgmt", ".snoop")) or socket_name == daemon + ".ctl":
                    os.unlink(self._path(socket_name))
        command = [
            daemon,
            *args,
            "--unixctl=" + control,
            "--no-chdir",
            "-vconsole:off",
            "-vsyslog:off",
            "-vfile:info",
            "--log-file=" + self._path(daemon + ".log"),
        ]
        # A session of its own: Ctrl-C in the terminal is for the caller, not for the switch.
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
                said = self.log(daemon)[-2000:]
                raise OVSError(
                    f"{daemon} of {self.name} ended with status {process.returncode}:\n{said}"
                )
            try:
                return bool(self.appctl("version", target=daemon))
            except (OSError, OVSError):
                return False

        wait_until(answers, f"answer from {daemon} of {self.name}")

    def log(self, daemon: str = "ovs-vswitchd") -> str:
        """Return the log of a daemon so far."""
        try:
            with open(self._path(daemon + ".log"), errors="replace") as log:
                return log.read()
        except OSError:
            return ""

    def _set_targets(self, targets: dict[str, str]) -> None:
        for record, target in targets.items():
            self.vsctl("set", "controller", record, f'target="{target}"')

    def _set_address(self, device: str, address: str) -> None:
        wait_until(lambda: self._has_device(device), f"device {device}")
        self.run("ethtool", "-K", device, "tx", "off")
        self.run("ip", "address", "replace", address, "dev", device)
        self.run("ip", "link", "set", device, "up")
        # Open vSwitch hears of the route from the kernel; before that it cannot tunnel.
        wait_until(lambda: f"dev {device}" in self.appctl("ovs/route/show"), f"route by {device}")

    def _forwards(self, bridges: set[str]) -> bool:
        try:
            return bridges <= set(self.appctl("ofproto/list").split())
        except OVSError:  # there is no such command before its first look at the database
            return False

    def _has_device(self, device: str) -> bool:
        try:
            self.run("ip", "link", "show", "dev", device)
        except OVSError:
            return False
        return True


def _alive(process: Optional[subprocess.Popen]) -> bool:
    return process is not None and process.poll() is None


def _kill(process: Optional[subprocess.Popen]) -> None:
    if _alive(process):
        process.kill()
        process.wait()
