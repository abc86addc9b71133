"""Network namespaces without names: each is held by a process and gone with it."""

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
    """A network namespace, its loopback up and IPv6 off.

    Nothing is left in /run/netns, and what was made inside goes when the holding process ends: at
    `close`, or when the test process dies in whatever way.

    remove: directories that the holder deletes when the namespace ends.
    """

    def __init__(self, remove: Sequence[str] = ()) -> None:
        # The holder ends when its standard input does, that is with this process at the latest.
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
        # Router solicitations would come out of the ports between the test's frames.
        self.sysctl("net/ipv6/conf/all/disable_ipv6", "1")
        self.sysctl("net/ipv6/conf/default/disable_ipv6", "1")
        # The kernel sees the frames of a port too, and must not answer ARP for its other devices.
        self.sysctl("net/ipv4/conf/all/arp_ignore", "1")
        self.ip("link set lo up")

    def call(self, function: Callable[..., Result], *args: object) -> Result:
        """Return `function(*args)`, run inside the namespace.

        Sockets and tap devices opened there belong to the namespace for good.  Do not start
        processes so (their parent thread ends at once): that is what `command` is for.
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
            except BaseException as error:  # carried to the caller's thread
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
        """Run a program inside, `text` on its standard input; return its standard output.

        Raises AssertionError with what it said when it fails.
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
        """Write a setting below /proc/sys that belongs to the namespace."""

        def write() -> None:
            with open("/proc/sys/" + path, "w") as setting:
                setting.write(value)

        self.call(write)

    def close(self) -> None:
        """End the namespace.  Processes inside must have ended before, or they keep it alive."""
        if self._holder.poll() is None:
            self._holder.stdin.close()
            self._holder.wait()
            self._holder.stdout.close()

    def __enter__(self) -> "Namespace":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
