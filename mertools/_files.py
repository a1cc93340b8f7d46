"""Files: written atomically, locked for one process, read with an error that names them.

A process that is killed while it writes leaves the old file whole, and ``.NAME-….part`` beside it, which nothing reads.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

from filelock import BaseFileLock, FileLock, Timeout

__all__: list[str] = []

MAX_BYTES = 1 << 28  # of a table or a list
Record = TypeVar("Record")


def atomic_write(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, all of it or nothing: a temporary file, ``fsync``, ``os.replace``.

    A file that is there passes on its permissions; a symbolic link is followed.
    """
    target, mode = check_target(path)
    temporary = _temporary(target)
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode or 0o666)) as file:
            if mode is not None:
                temporary.chmod(mode)  # whatever the umask
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync(target.parent)
    except OSError as error:  # of a full disk, say, which names no file, or the temporary one
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which is at ``path`` when the block ends well and nowhere when it does not."""
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(target)
    try:
        temporary.mkdir()
        yield temporary
        if target.is_dir():
            target.rmdir()
        temporary.replace(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_target(path: Path) -> tuple[Path, int | None]:
    """Where a file will really be written, and the permissions of what is there; raises as :func:`atomic_write`."""
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


def lock(path: Path, *, shared: bool = False) -> BaseFileLock:
    """Hold a lock file until ``release()``, alone or together with the other parts of this process (``shared``).

    The operating system's lock goes with its process, however that ends; the empty file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(path, is_singleton=shared, thread_local=False)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise RuntimeError(
            f"{path.parent} is in use by another process: two runs on the same output would mix. Wait "
            "for it, or give another output"
        ) from None
    return held


def append_line(file: FileIO, line: str) -> None:
    """Add a line to a file that is open for appending, all of it or nothing."""
    rest = memoryview(f"{line}\n".encode())
    before = os.fstat(file.fileno()).st_size
    try:
        while rest:
            rest = rest[file.write(rest) :]  # a disk that is filling up takes a part
    except BaseException:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), before)
        raise


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever goes wrong with the disk while a file is read names the file, which the system does not tell."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def read_bytes(path: Path) -> bytes:
    """What a table or list of any kind holds, unless it is too large to be one."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, a table of at most {MAX_BYTES} is read")
    with reading(path):
        return path.read_bytes()


def read_text(path: Path) -> tuple[str, str]:
    """A text file and its encoding: UTF-8 with or without a mark, UTF-16 with one, or GB18030 where it is Chinese."""
    data = read_bytes(path)
    encoding = (
        "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig" if data[:3] == b"\xef\xbb\xbf" else "utf-8"
    )
    try:
        return data.decode(encoding), encoding
    except UnicodeDecodeError as error:
        if encoding == "utf-8" and (text := _chinese(data)) is not None:
            return text, "gb18030"
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{path} is not {encoding.upper()} (row {line}): save the table as UTF-8 or xlsx") from error


def _chinese(data: bytes) -> str | None:
    """The text if it is GB18030 beyond doubt: most of its other characters are two bytes of GB2312.

    Nearly every text of western Europe decodes as GB18030, too; but its accented letters stand alone between ASCII.
    """
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError:
        return None
    others = sum(letter > "\x7f" for letter in text)
    pairs = sum(len(run) // 2 for run in re.findall(rb"(?:[\xa1-\xa9\xb0-\xf7][\xa1-\xfe])+", data))
    return text if pairs > 0.5 * others else None


def json_object(data: bytes, place: str | Path) -> dict[str, Any]:
    """A JSON object out of a file that may be damaged; a ValueError names ``place``, and the line where it is known."""
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


def write_record(path: str | os.PathLike[str], record: Any) -> None:
    """Write the settings of a dataclass that differ from its defaults as TOML, which has no None: ``"none"``."""
    values: dict[str, Any] = {}
    for part in fields(record):
        value = getattr(record, part.name)
        default = part.default_factory() if part.default_factory is not MISSING else part.default
        if value != default:
            values[part.name] = "none" if value is None else value
    atomic_write(Path(path), ("\n".join(_toml_table([], values)).lstrip("\n") + "\n").encode())


def read_record(path: str | os.PathLike[str], record: Callable[..., Record], **change: Callable[[Any], Any]) -> Record:
    """A dataclass out of a TOML file that names its settings; ``change`` turns single values into what it takes."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise ImportError(f"reading {path} needs tomli before Python 3.11: pip install 'mertools[data]'") from error
    text, _ = read_text(Path(path))
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} can't be read as TOML: {error}") from None
    known = [part.name for part in fields(record)]  # type: ignore[arg-type]
    if unknown := [name for name in values if name not in known]:
        raise ValueError(f"{path} holds {', '.join(unknown)}, known are {', '.join(known)}")
    try:
        return record(**{name: change[name](value) if name in change else value for name, value in values.items()})
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _toml_table(names: list[str], table: Mapping[str, Any]) -> list[str]:
    """The lines of a table: its own values first, then the tables within it, as TOML wants them."""
    lines = ["", f"[{'.'.join(map(_toml_key, names))}]"] if names else []
    lines += [f"{_toml_key(key)} = {_toml(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += _toml_table([*names, key], value)
    return lines


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    return f"[{', '.join(map(_toml, sorted(value) if isinstance(value, frozenset) else value))}]"


def _temporary(target: Path) -> Path:
    """A name beside the target that nobody can guess; cut where the disk's limit on names might be met."""
    return target.with_name(f".{target.name[:60]}-{secrets.token_hex(8)}.part")


def _sync(folder: Path) -> None:
    """Make the name last as well. Not every file system can; the file is in place in any case."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
