"""Writing files whole: to a temporary name beside the target, then moved into place. Reading JSON, damaged or not."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that nobody ever sees half of it.

    The temporary name can't be guessed and must not be there yet, so nobody can plant a link under it. A link at
    ``path`` itself is replaced, not followed.

    Args:
        path: the file; one that is there is replaced, and its permissions stay.
        data: its content.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: ``path`` is a folder.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "report.txt"
        >>> write_whole(path, b"done")
        >>> path.read_bytes(), len(list(path.parent.iterdir()))
        (b'done', 1)
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} to write {path.name} to")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, a file was to be written")
    name = folder / f".{path.name}-{secrets.token_hex(8)}"
    try:
        with name.open("xb") as file:  # with the permissions of any new file: to ask for the umask is to change it
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.is_file() and not path.is_symlink():
            name.chmod(path.stat().st_mode & 0o777)
        name.replace(path)
    finally:
        name.unlink(missing_ok=True)


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
