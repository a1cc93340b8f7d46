"""Writing files whole: to a temporary name beside the target, then moved into place. Reading JSON, damaged or not.

Whoever reads the file, at whatever moment, and whatever happened to whoever wrote it, finds what was there before or
what is new. A process that is killed on the way leaves ``.NAME-0123456789abcdef.part`` behind, which nothing ever
reads; the next to write the same file removes it. It tells a dead process's from that of one still at work by a lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from mertools._locks import try_lock

_LONGEST = 60  # characters of a target's name in a temporary one, which must not be too long for the disk


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that nobody ever sees half of it, not after a kill or a power cut either.

    A symbolic link is followed: the file it points to is replaced. A file that is there passes on its permissions, a
    new one has those of the umask.

    The temporary name can't be guessed and must not be there yet, so nobody can plant a link under it. A link at
    ``path`` that another user left in a folder where everybody may write, such as ``/tmp``, is refused.

    Args:
        path: the file; one that is there is replaced, and its permissions stay.
        data: its content.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: ``path`` is a folder.
        OSError: it can't be written, or is a device or a pipe; what was there before is untouched.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "report.txt"
        >>> write_whole(path, b"done")
        >>> path.read_bytes(), len(list(path.parent.iterdir()))
        (b'done', 1)
    """
    target, mode = check_target(path)
    try:
        remove_unfinished(target)
        _replace(target, data, mode)
    except OSError as error:
        if error.errno is None:
            raise
        # Where the disk is full, the error does not name a file; elsewhere it names the temporary one.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever goes wrong with the disk while a file is read names the file, which the system does not tell.

    Examples:
        >>> with reading("a.txt"):
        ...     raise OSError(5, "Input/output error")
        Traceback (most recent call last):
        OSError: [Errno 5] Input/output error: 'a.txt'
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def json_object(data: bytes, place: str | Path) -> dict[str, Any]:
    """A JSON object out of a file that may be damaged, or not JSON at all.

    Raises:
        ValueError: it is no object in UTF-8 JSON; the message names ``place``, and the line where it is known.

    Examples:
        >>> json_object(b'{"epochs": 30}', "settings.json")
        {'epochs': 30}
        >>> json_object(b"[1, 2]", "settings.json")
        Traceback (most recent call last):
        ValueError: settings.json must hold a JSON object, it holds list
    """
    try:
        value = json.loads(data.decode())
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} can't be read as JSON: {error.msg} (line {error.lineno})") from None
    except RecursionError:
        raise ValueError(f"{place} can't be read as JSON: it is nested too deeply") from None
    except ValueError as error:  # no UTF-8, or an integer of thousands of digits
        raise ValueError(f"{place} can't be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{place} must hold a JSON object, it holds {type(value).__name__}")
    return value


def append_line(file: FileIO, line: str) -> None:
    r"""Add a line to a file that is open for appending, all of it or nothing.

    Raises:
        OSError: the disk is full, for instance; the file ends where it did before.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "log"
        >>> with path.open("ab", buffering=0) as file:
        ...     append_line(file, "one")
        >>> path.read_text()
        'one\n'
    """
    rest = memoryview(f"{line}\n".encode())
    before = os.fstat(file.fileno()).st_size
    try:
        while rest:
            rest = rest[file.write(rest) :]  # a disk that is filling up takes a part
    except BaseException:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), before)
        raise


def check_target(path: Path) -> tuple[Path, int | None]:
    """Where a file will really be written and the permissions of what is there; raises as :func:`write_whole` would."""
    if path.is_symlink():
        about, link = path.parent.stat(), path.lstat()
        shared = about.st_mode & stat.S_ISVTX and about.st_mode & stat.S_IWOTH
        if shared and link.st_uid not in (os.geteuid(), about.st_uid):  # Linux's rule of protected_symlinks
            raise PermissionError(f"{path} is a link of another user in a folder of everybody's: give another name")
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    target = Path(os.path.realpath(path))
    if mode is None and not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} to write {path.name} to")
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path} is a folder, a file was to be written")
    if mode is not None and not stat.S_ISREG(mode):
        raise OSError(f"{path} is a device or a pipe, which can't be replaced by a file: give the name of a file")
    return target, None if mode is None else mode & 0o777


@contextmanager
def folder_whole(path: Path) -> Iterator[Path]:
    """A folder to fill, which is at ``path`` when the block ends well and nowhere when it does not.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "made"
        >>> with folder_whole(path) as folder:
        ...     _ = (folder / "a.txt").write_text("1")
        ...     before = path.exists()
        >>> before, [file.name for file in path.iterdir()]
        (False, ['a.txt'])
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(target)
    building, handle = _unfinished(target), -1
    try:
        building.mkdir()
        if os.name != "nt":  # Windows can't open folders
            handle = os.open(building, os.O_RDONLY)
            try_lock(handle)
        yield building
        if target.is_dir():
            target.rmdir()
        building.replace(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)
        if handle >= 0:
            os.close(handle)


def remove_unfinished(target: Path) -> None:
    """Remove what writers of ``target`` have left that are dead."""
    pattern = re.compile(rf"\.{re.escape(target.name[:_LONGEST])}-[0-9a-f]{{16}}\.part")
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for name in [entry.name for entry in entries if pattern.fullmatch(entry.name)]:
            remove_dead(target.parent / name)


def remove_dead(path: Path) -> None:
    """Remove a temporary file or folder unless the process that made it is still at work, if it can be removed."""
    with contextlib.suppress(OSError):
        folder = path.is_dir()
        handle = os.open(path, (os.O_RDONLY if folder else os.O_RDWR) | getattr(os, "O_NOFOLLOW", 0))
        try:
            if try_lock(handle):
                shutil.rmtree(path) if folder else path.unlink()
        finally:
            os.close(handle)


def _replace(target: Path, data: bytes, mode: int | None) -> None:
    written = False
    while not written:
        temporary = _unfinished(target)
        try:
            with open(temporary, "xb", opener=_with_mode(mode)) as file:
                # Between its making and its lock another process may take the file for a dead one's: then once more.
                if try_lock(file.fileno()) is False or not os.fstat(file.fileno()).st_nlink:
                    continue
                if mode is not None:
                    temporary.chmod(mode)  # of what is there, whatever the umask
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                if os.name == "nt":  # which does not move open files; elsewhere the lock is to last
                    file.close()
                temporary.replace(target)
                written = True
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    _sync(target.parent)


def _with_mode(mode: int | None) -> Callable[[str, int], int]:
    """Opens a file that nobody else can read before it has the permissions of the one it is to replace."""
    return lambda path, flags: os.open(path, flags, 0o666 if mode is None else mode)


def _unfinished(target: Path) -> Path:
    return target.with_name(f".{target.name[:_LONGEST]}-{secrets.token_hex(8)}.part")


def _sync(folder: Path) -> None:
    """Make the name last as well. Not every file system can; the file is in place in any case."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
