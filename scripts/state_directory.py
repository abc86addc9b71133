"""The directory that belongs to the running network."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from failure import Failure


class StateDirectory:
    """The directory with the network's sockets and, for userspace switches, their files.

    It is $AGG_NET_DIR, by default /run/agg_net.  scripts/aggregator.sh knows this as well.
    """

    def __init__(self) -> None:
        self.path = Path(os.environ.get("AGG_NET_DIR", "/run/agg_net"))
        self.relay = str(self.path / "relay")
        """Path of the unix socket that leads to the controller."""
        self.control = str(self.path / "control")
        """Path of the unix socket that takes requests for tunnels."""

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the directory, empty, keep other networks out of it, and remove it at the end.

        Raises Failure when another network has it, or it cannot be created.  The kernel releases
        the lock of a program that is killed, and the next one removes the files that it left.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            held = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise Failure(f"no directory {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure("another agg_net.py is running: leave that one first") from None
        try:
            self._empty()
            yield
        finally:
            self._empty()
            self.path.rmdir()
            os.close(held)

    def _empty(self) -> None:
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()
