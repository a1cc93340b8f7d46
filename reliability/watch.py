"""What a process opens, starts and connects to, as Python's audit hook sees it: for the fuzzer and the security tests.

An audit hook can't be taken out again, so :func:`watch` belongs into a process of its own. What C libraries open by
themselves (FFmpeg, for instance) does not pass here.
"""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path
from typing import Any

_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.__new__", "socket.bind", "socket.sendto", "urllib.Request")
_PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn")
_CODE = ("pickle.find_class", "code.__new__")
_READS = ("os.listdir", "os.scandir")
_WRITES = ("os.remove", "os.mkdir", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.truncate", "os.chmod",
           "shutil.rmtree", "shutil.move", "shutil.copyfile", "os.chown", "os.utime")  # fmt: skip
_SHARED = ("/proc", "/sys", "/dev/null", "/dev/urandom", "/usr", "/lib", "/etc/localtime", "/etc/nsswitch.conf")


class Watch:
    """The record of a process that may read and write below some folders, and no more.

    Args:
        roots: folders that may be read and written.
        readable: further folders that may be read; Python's own, this repository's and the system's libraries may be
            anyway.
    """

    def __init__(self, roots: list[Path], readable: list[Path] | None = None) -> None:
        own = [sys.prefix, sys.base_prefix, *site.getsitepackages(), str(Path(__file__).parents[1])]
        self.writable = [os.path.realpath(root) for root in roots]
        self.readable = [*self.writable, *map(os.path.realpath, [*own, *(readable or [])]), *_SHARED]
        self.found: list[str] = []
        self.on = False

    def __enter__(self) -> Watch:
        self.found, self.on = [], True
        return self

    def __exit__(self, *_: object) -> None:
        self.on = False

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """What :func:`sys.addaudithook` calls."""
        if not self.on:
            return
        self.on = False  # what is done here must not come back here
        try:
            if event in _NETWORK or event in _PROCESSES or event in _CODE:
                self.found.append(f"{event} {arguments!r}"[:300])
            elif event == "open":
                path, mode, flags = arguments
                writes = (isinstance(mode, str) and any(letter in mode for letter in "wax+")) or bool(
                    flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
                )
                self._check("opens", path, writes)
            elif event in _READS or event in _WRITES:
                for path in arguments[: 2 if event in ("os.rename", "os.link", "shutil.move") else 1]:
                    self._check(event, _below(path, arguments), event in _WRITES)
        finally:
            self.on = True

    def _check(self, what: str, path: object, writes: bool) -> None:
        if isinstance(path, int) or path is None:  # a descriptor that was opened before
            return
        try:
            real = os.path.realpath(os.fsdecode(path))  # type: ignore[call-overload]
        except ValueError:  # a NUL byte: the system refuses it, too
            return
        allowed = self.writable if writes else self.readable
        if real in ("/dev/null",) or any(real == root or real.startswith(root + os.sep) for root in allowed):
            return
        self.found.append(f"{what} {'for writing ' if writes else ''}{real}"[:300])


def _below(path: Any, arguments: tuple[Any, ...]) -> Any:
    """The whole path of a name that is given below an open folder."""
    folder = arguments[-1]
    if not isinstance(folder, int) or folder < 0 or isinstance(path, int) or os.fsdecode(path).startswith(os.sep):
        return path
    try:
        return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))  # noqa: PTH115, PTH118
    except OSError:
        return path


def watch(roots: list[Path], readable: list[Path] | None = None) -> Watch:
    """Watch this process from here to its end; ``with`` the result for the time that counts."""
    found = Watch(roots, readable)
    sys.addaudithook(found.hook)
    return found
