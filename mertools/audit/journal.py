"""What a long run has done so far, on disk: a killed run goes on from there, and two at once are kept apart.

The journal is a text file of one JSON object per finished clip. Its first line is the fingerprint of table, frames and
options, so that results of one run never end up in another. A line that a crash has spoilt is passed over and its clip
searched again. A lock that the operating system releases when its process dies, however it dies, keeps a second run
out.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import BaseFileLock

from mertools._files import append_line, json_object, lock
from mertools.annotations.annotation import ClipAnnotation


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
        self._lock: BaseFileLock | None = None
        self._file: io.FileIO | None = None

    def __enter__(self) -> Journal:
        self._lock = lock(self.folder / "lock")
        try:
            self._file = self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.done and self.folder.exists():  # nothing to go on from
            self.finish()
        self._close()

    def add(self, index: int, result: Mapping[str, Any]) -> None:
        """Note that a clip is done.

        Raises:
            OSError: the disk is full, for instance; the journal is as it was before.
        """
        assert self._file is not None
        append_line(self._file, json.dumps({"clip": index, **result}))
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

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._lock is not None:
            self._lock.release()

    def _open(self) -> io.FileIO:
        path = self.folder / "journal.jsonl"
        whole = 0
        if path.exists() and not self.restart:
            data = path.read_bytes()
            whole = data.rfind(b"\n") + 1  # a killed run may leave half a line
            lines = [_entry(line) for line in data[:whole].splitlines()]
            if lines and (lines[0] or {}).get("run") != self.identity:
                if len(lines) > 1:
                    raise ValueError(
                        f"{self.folder} holds the unfinished run of another table, folder of frames, version or set of "
                        "options: finish that one with its own options, or start anew (restart=True, --restart)"
                    )
                whole, lines = 0, []
            for entry in lines[1:]:
                if entry is not None and isinstance(index := entry.pop("clip", None), int) and _is_result(entry):
                    self.done[index] = entry
        file = path.open("ab", buffering=0)
        try:
            file.truncate(whole)
            if not whole:
                append_line(file, json.dumps({"run": self.identity}))
        except BaseException:
            file.close()
            raise
        return file


def _entry(line: bytes) -> dict[str, Any] | None:
    """A line's object; None for one that a crash of the machine has spoilt. Its clip is searched again."""
    try:
        return json_object(line, "journal")
    except ValueError:
        return None


def _is_result(entry: Mapping[str, Any]) -> bool:
    if "error" in entry:
        return isinstance(entry["error"], str)
    return all(
        isinstance(keys, list) and len(keys) == 3 and all(type(k) is int for k in keys) for keys in entry.values()
    )
