"""
A small file that one process keeps: locked, replaced as a whole, and on the disk before it counts.

Beside the file NAME there are

    NAME.copy   the same content, for the case that the file is found empty or half-written
    NAME.lock   locked while a process keeps the file; it holds the process id
    NAME.new    while the file is being written
"""

import contextlib
import errno
import os
import stat
from typing import Optional

# Some file systems cannot lock files, or cannot sync directories.
_UNSUPPORTED = frozenset((errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL))


class InUse(ValueError):
    """Another process keeps this file."""


class KeptFile:
    """
    A file that this process keeps.

    path: its path.  If it is a symbolic link, the file that it leads to is replaced.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.copy_path = os.path.realpath(path) + ".copy"
        self._target = os.path.realpath(path)
        self._new = self._target + ".new"
        self._lock: Optional[int] = None

    @property
    def locked(self) -> bool:
        """True if `lock` has succeeded."""
        return self._lock is not None

    @property
    def has_directory(self) -> bool:
        """True if the file's directory is there."""
        return os.path.isdir(os.path.dirname(self._target))

    def lock(self) -> None:
        """
        Make this process the only one that keeps the file, as long as it lives.

        Makes the directory.  Raises InUse if another process has the lock; OSError if there cannot
        be a lock file.  On a file system without locks, there is no lock.
        """
        if self._lock is not None:
            return
        _make_directory(os.path.dirname(self._target))
        lock = os.open(self._target + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            # A lock of the process (POSIX): it ends with it however it ends, is not inherited, and
            # works over NFS.
            os.lockf(lock, os.F_TLOCK, 0)
        except OSError as e:
            if e.errno in (errno.EACCES, errno.EAGAIN):
                holder = os.read(lock, 20).decode(errors="replace").strip()
                os.close(lock)
                raise InUse(
                    f"{self.path} is in use by another aggregator (process {holder or 'unknown'}); "
                    "give each one a --switches_file of its own"
                ) from None
            if e.errno not in _UNSUPPORTED:
                os.close(lock)
                raise
        self._lock = lock
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._new)  # of a process that was killed
        with contextlib.suppress(OSError):  # on a full disk it remains unsaid
            os.ftruncate(lock, 0)
            os.write(lock, b"%d\n" % os.getpid())

    def read(self) -> Optional[bytes]:
        """The content; None if there is no such file.  Raises OSError if it cannot be read."""
        return _read(self._target)

    def read_copy(self) -> Optional[bytes]:
        """The content of the copy; None if there is none."""
        try:
            return _read(self.copy_path)
        except OSError:
            return None

    def write(self, content: bytes) -> None:
        """
        Replace the file and its copy.  What is there stays if that fails.

        Raises InUse, or OSError if it cannot be written.
        """
        self.lock()
        self._replace(self._target, content)
        self.write_copy(content)

    def write_copy(self, content: bytes) -> None:
        """Replace the copy.  Raises as `write`."""
        self.lock()
        self._replace(self.copy_path, content)

    def _replace(self, path: str, content: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(self._new, flags, 0o666)
        try:
            with open(file, "wb") as stream:
                self._be_as_before(file)
                stream.write(content)
                stream.flush()
                os.fsync(file)
            os.replace(self._new, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(self._new)
            raise
        _sync_directory(os.path.dirname(self._target))

    def _be_as_before(self, file: int) -> None:
        """Give the new file the owner and the mode of the old one."""
        try:
            old = os.stat(self._target)
        except FileNotFoundError:
            return
        with contextlib.suppress(OSError):  # only root may give files away
            os.fchown(file, old.st_uid, old.st_gid)
        os.fchmod(file, stat.S_IMODE(old.st_mode))


def _make_directory(path: str) -> None:
    """Make a directory, and those above it that are missing, on the disk."""
    if not os.path.isdir(path):
        above = os.path.dirname(path)
        _make_directory(above)
        os.mkdir(path)
        _sync_directory(above)


def _sync_directory(path: str) -> None:
    """Have the names in a directory on the disk."""
    directory = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    except OSError as e:
        if e.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(directory)


def _read(path: str) -> Optional[bytes]:
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            return file.read()
    except FileNotFoundError:
        return None


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe too, to which nobody writes."""
    return os.open(path, flags | os.O_NONBLOCK)
