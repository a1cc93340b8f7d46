"""What a long run has done so far, on disk: a killed run goes on from there, and two at once are kept apart.

The journal is a text file of one JSON object per finished clip. Its first line is the fingerprint of table, frames and
options, so that results of one run never end up in another. A lock that the operating system releases when its process
dies, however it dies, keeps a second run out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from mertools.annotations import ClipAnnotation
from mertools.files import json_object


def fingerprint(clips: Sequence[ClipAnnotation], root: str, options: str) -> str:
    """A digest of what a run depends on.

    Examples:
        >>> a = fingerprint([ClipAnnotation("samm", "006", "006_1_2", 5, 9, 20)], "frames", "margin 0.5")
        >>> a == fingerprint([ClipAnnotation("samm", "006", "006_1_2", 5, 9, 21)], "frames", "margin 0.5")
        False
    """
    from mertools import __version__

    digest = hashlib.sha256(f"{__version__}\n{root}\n{options}\n".encode())
    for clip in clips:
        digest.update(repr((clip.key, clip.row, clip.onset, clip.apex, clip.offset, clip.folders)).encode())
    return digest.hexdigest()


class Journal:
    """The journal in a work folder, held by one process at a time; use as a context manager.

    Args:
        folder: the work folder; made if need be.
        identity: the run's :func:`fingerprint`.
        restart: forget what an unfinished run has left, whatever it was.

    Raises:
        RuntimeError: another process holds the folder.
        ValueError: it holds the journal of a run with another fingerprint.
    """

    def __init__(self, folder: Path, identity: str, *, restart: bool = False) -> None:
        self.folder, self.identity, self.restart = folder, identity, restart
        self.done: dict[int, Mapping[str, Any]] = {}
        self._lock: IO[str] | None = None
        self._file: IO[str] | None = None

    def __enter__(self) -> Journal:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _hold(self.folder / "lock")
        try:
            self._file = self._open()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.done and self.folder.exists():  # nothing to go on from
            self.finish()
        for file in (self._file, self._lock):
            if file is not None:
                file.close()

    def add(self, index: int, result: Mapping[str, Any]) -> None:
        """Note that a clip is done."""
        assert self._file is not None
        self._file.write(json.dumps({"clip": index, **result}) + "\n")
        self._file.flush()
        self.done[index] = result

    def finish(self) -> None:
        """Everything is written where it belongs: the folder is not needed any more."""
        assert self._file is not None
        self._file.close()
        (self.folder / "journal.jsonl").unlink(missing_ok=True)
        # The lock goes with the folder, still held: whoever comes next makes a new one. What others have put into the
        # folder stays.
        (self.folder / "lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _open(self) -> IO[str]:
        path = self.folder / "journal.jsonl"
        whole = 0
        if path.exists() and not self.restart:
            data = path.read_bytes()
            whole = data.rfind(b"\n") + 1  # a killed run may leave half a line
            lines = [json_object(line, f"{path} (--restart forgets it)") for line in data[:whole].splitlines()]
            if lines and lines[0].get("run") != self.identity:
                if len(lines) > 1:
                    raise ValueError(
                        f"{self.folder} holds the unfinished run of another table, folder of frames, version or set of "
                        "options: finish that one with its own options, or start anew (restart=True, --restart)"
                    )
                whole, lines = 0, []
            for entry in lines[1:]:
                index = entry.pop("clip", None)
                if not isinstance(index, int) or not _is_result(entry):
                    raise ValueError(f"{path} holds what no audit writes: start anew (restart=True, --restart)")
                self.done[index] = entry
        file = _open_own(path)
        file.truncate(whole)
        if not whole:
            file.write(json.dumps({"run": self.identity}) + "\n")
            file.flush()
        return file


def _is_result(entry: Mapping[str, Any]) -> bool:
    if "error" in entry:
        return isinstance(entry["error"], str)
    return all(
        isinstance(keys, list) and len(keys) == 3 and all(type(k) is int for k in keys) for keys in entry.values()
    )


def _open_own(path: Path) -> IO[str]:
    """Open a file of the work folder for reading and appending; where a link was planted in its place, not."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.fdopen(os.open(path, flags, 0o666), "a+", encoding="utf-8", errors="replace")
    except OSError as error:
        if path.is_symlink():
            raise ValueError(f"{path} is a link, which no audit makes: remove it, or give another output") from error
        raise


def _hold(path: Path) -> IO[str]:
    """Lock a file for this process, or say who has it."""
    file = _open_own(path)
    try:
        if os.name == "nt":  # pragma: no cover
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise RuntimeError(
            f"{path.parent} is in use by {holder}: two runs on the same output would mix. Wait for it, or give "
            "another output"
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()}")
    file.flush()
    return file
