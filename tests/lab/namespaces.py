"""Network namespaces without names: a process holds each, and it ends with that process."""

import ctypes
import os
import subprocess
import threading
from collections.abc import Sequence
from typing import Callable, TypeVar

from command import dying_with_parent, in_netns

Result = TypeVar("Result")
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace with its loopback interface up and IPv6 off.

    There is no file in /run/netns.  The namespace and the interfaces in it go when the holding
    process ends: at `close`, or when the test process dies for whatever reason.

    remove: directories that the holding process deletes at its end.
    """

    def __init__(self, remove: Sequence[str] = ()) -> None:
        # The holding process ends when its standard input does, at the latest with this process.
        self._holder = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", 'cat; rm -rf -- "$@"', "namespace", *remove],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._holder.stdin.write(b"ready\n")
        self._holder.stdin.flush()
        if self._holder.stdout.readline() != b"ready\n":
            raise RuntimeError("no network namespace: root (CAP_SYS_ADMIN) is needed")
        self.pid = self._holder.pid
        # With IPv6, router solicitations would come out of the ports between the test's frames.
        self.sysctl("net/ipv6/conf/all/disable_ipv6", "1")
        self.sysctl("net/ipv6/conf/default/disable_ipv6", "1")
        # The kernel receives a port's frames as well.  It must not answer ARP requests in them
        # that ask for the addresses of other devices.
        self.sysctl("net/ipv4/conf/all/arp_ignore", "1")
        self.ip("link set lo up")

    def call(self, function: Callable[..., Result], *args: object) -> Result:
        """Call `function(*args)` inside the namespace and return its result.

        Sockets and tap devices that it opens stay in the namespace.  It must not start processes,
        because the thread that would be their parent ends at once: use `command` for that.
        """
        outcome = []

        def enter_and_call() -> None:
            try:
                fd = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
                try:
                    if _libc.setns(fd, CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                finally:
                    os.close(fd)
                outcome.append((function(*args), None))
            except BaseException as error:  # raised again in the caller's thread
                outcome.append((None, error))

        thread = threading.Thread(target=enter_and_call)
        thread.start()
        thread.join()
        result, error = outcome[0]
        if error is not None:
            raise error
        return result

    def command(self, *command: str) -> Sequence[str]:
        """Return `command` so that it runs in this namespace and dies with this process."""
        return dying_with_parent(in_netns(self.pid, command))

    def run(self, *command: str, text: str = "") -> str:
        """Run a program inside with `text` as its standard input; return its standard output.

        Raises AssertionError with what it printed when its exit status is not 0.
        """
        done = subprocess.run(
            in_netns(self.pid, command), input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def ip(self, *lines: str) -> str:
        """Run `ip` commands ("link set lo up") as one batch."""
        return self.run("ip", "-batch", "-", text="\n".join(lines) + "\n")

    def sysctl(self, path: str, value: str) -> None:
        """Write a setting of the namespace; `path` is below /proc/sys."""

        def write() -> None:
            with open("/proc/sys/" + path, "w") as setting:
                setting.write(value)

        self.call(write)

    def close(self) -> None:
        """End the namespace.  Processes that still run inside would keep it."""
        if self._holder.poll() is None:
            self._holder.stdin.close()
            self._holder.wait()
            self._holder.stdout.close()

    def __enter__(self) -> "Namespace":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
