"""Writing files whole: to a temporary name beside the target, then moved into place."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that nobody ever sees half of it.

    Args:
        path: the file; one that is there is replaced.
        data: its content.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: ``path`` is a folder.

    Examples:
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
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
