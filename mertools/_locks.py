"""A file that one process at a time holds, for as long as it lives: what keeps two runs out of one folder.

The lock is the operating system's (``flock``, on Windows ``msvcrt``). It goes with its process, however that ends, so
there is no stale lock to judge by its age and no clock that could go backwards. Where a file system has no locks, as on
some clusters, everything works as without one.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import weakref
from pathlib import Path

__all__: list[str] = []


def try_lock(handle: int) -> bool | None:
    """Lock an open file: True when it is ours, False when another has it, None where files can't be locked.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryFile() as file:
        ...     try_lock(file.fileno()) in (True, None)
        True
    """
    try:
        if sys.platform == "win32":  # pragma: no cover
            import msvcrt

            os.lseek(handle, 0, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def open_own(path: Path, flags: int = 0) -> int:
    """Open or make a file of our own for reading and writing, but not where a link was planted in its place.

    Raises:
        ValueError: there is a link.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "journal"
        >>> os.close(open_own(path))
        >>> path.exists()
        True
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | flags, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise ValueError(f"{path} is a link, which no run makes: remove it, or give another output") from error
        raise


class Lock:
    """A lock file, made when it is taken and removed when it is given back; one that a kill left is taken over.

    Args:
        path: the file; its folder is made if need be.

    Raises:
        RuntimeError: another process holds it, or another part of this one.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "lock"
        >>> lock = Lock(path)
        >>> path.exists(), lock.release(), path.exists()
        (True, None, False)
    """

    def __init__(self, path: Path) -> None:
        self.path, self._handle = path, -1
        while self._handle < 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = open_own(path)
            try:
                if try_lock(handle) is False:
                    holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
                    raise RuntimeError(
                        f"{path.parent} is in use by {holder}: two runs on the same output would mix. Wait for it, or "
                        "give another output"
                    )
                if _is(handle, path):  # else whoever had it took the file away while it was being opened
                    self._handle = handle
            finally:
                if self._handle < 0:
                    os.close(handle)
        _HELD.add(self)
        with contextlib.suppress(OSError):  # a full disk: the lock holds, only its text is missing
            os.ftruncate(self._handle, 0)
            os.write(self._handle, f"process {os.getpid()} on {platform.node()}".encode())

    def release(self) -> None:
        """Give it back; a second time does nothing."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            with contextlib.suppress(OSError):
                if _is(handle, self.path):
                    self.path.unlink()
            os.close(handle)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at the end of the process little is left to work with
            self.release()


class SharedLock(Lock):
    """A lock that all parts of one process have together: it is given back when the last of them lets go.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "lock"
        >>> first, second = SharedLock.take(path), SharedLock.take(path)
        >>> first is second
        True
    """

    @classmethod
    def take(cls, path: Path) -> SharedLock:
        """The lock of this process on ``path``."""
        key = os.path.realpath(path)
        lock = _SHARED.get(key)
        if lock is None or lock._handle < 0 or not _is(lock._handle, path):
            lock = _SHARED[key] = cls(path)
        return lock


_HELD: weakref.WeakSet[Lock] = weakref.WeakSet()
_SHARED: weakref.WeakValueDictionary[str, SharedLock] = weakref.WeakValueDictionary()


def _is(handle: int, path: Path) -> bool:
    """Whether an open file is the one that is at ``path`` now."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _let_go() -> None:
    """In a forked process, such as a loader's worker: it may outlive the killed one, and must not hold its lock."""
    for lock in list(_HELD):
        handle, lock._handle = lock._handle, -1
        if handle >= 0:
            os.close(handle)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
