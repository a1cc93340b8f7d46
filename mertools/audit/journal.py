"""What a long run has done so far, on disk: a killed run goes on from there, and two at once are kept apart.

The journal is a text file of one JSON object a finished clip. Its first line is the fingerprint of table, frames and
options, so that results of one run never end up in another. A line that a crash has spoilt is passed over and its clip
searched again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mertools._files import append_line, json_object, lock
from mertools.annotations.annotation import ClipAnnotation

_FORMAT = 2  # of an entry: 1 had key frames only
_FRAMES = {"keys": 3, "estimate": 3, "plateau": 2}  # of a search that says how sure it is: numbers of frames
_FIELDS = {*_FRAMES, "evidence", "spread", "intervals"}


def fingerprint(clips: Sequence[ClipAnnotation], root: str, options: str, version: str) -> str:
    """A digest of what a run depends on, the journal's own format included."""
    digest = hashlib.sha256(f"{_FORMAT}\n{version}\n{root}\n{options}\n".encode())
    for clip in clips:
        digest.update(repr((clip.key, clip.row, clip.onset, clip.apex, clip.offset, clip.folders)).encode())
    return digest.hexdigest()


class Journal:
    """The journal in the work folder ``folder``, held by one process at a time; use as a context manager.

    ``identity`` is the run's :func:`fingerprint`: the journal of another run is a ValueError, unless ``restart``
    forgets it.
    """

    def __init__(self, folder: Path, identity: str, *, restart: bool = False) -> None:
        self.folder, self.identity, self.restart = folder, identity, restart
        self.done: dict[int, Mapping[str, Any]] = {}
        self._path = folder / "journal.jsonl"
        self._finished = False

    def __enter__(self) -> Journal:
        for path in (self.folder / "lock", self._path):
            if path.is_symlink():
                raise ValueError(f"{path} is a link, which no run makes: remove it")
        self._lock = lock(self.folder / "lock")
        try:
            whole = 0 if self.restart or not self._path.exists() else self._read()
            self._file = self._path.open("ab", buffering=0)
            try:
                self._file.truncate(whole)
                if not whole:
                    append_line(self._file, json.dumps({"run": self.identity}))
            except BaseException:
                self._file.close()
                raise
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        over = self._finished or not self.done  # there is nothing to go on from
        if over:
            self._path.unlink(missing_ok=True)
            # The lock goes while it is held: whoever comes next makes a new one. (Windows removes it on release.)
            with contextlib.suppress(OSError):
                (self.folder / "lock").unlink()
        self._lock.release()
        if over:
            with contextlib.suppress(OSError):  # what others have put into the folder stays
                self.folder.rmdir()

    def add(self, index: int, result: Mapping[str, Any]) -> None:
        """Note that a clip is done, or leave the journal as it was before."""
        append_line(self._file, json.dumps({"clip": index, **result}))
        self.done[index] = result

    def finish(self) -> None:
        """Everything is written where it belongs: the folder goes when the journal is closed."""
        self._finished = True

    def _read(self) -> int:
        """Take up what is done; returns how much of the file is whole lines: a killed run may leave half of one."""
        data = self._path.read_bytes()
        whole = data.rfind(b"\n") + 1
        first, *lines = [_entry(line) for line in data[:whole].splitlines()] or [{}]
        if first.get("run") != self.identity:
            if lines:
                raise ValueError(
                    f"{self.folder} holds the unfinished run of another table, folder of frames, version or set of "
                    "options: finish that one with its own options, or start anew (restart=True, --restart)"
                )
            return 0
        for entry in lines:
            if type(index := entry.pop("clip", None)) is int and _is_result(entry):
                self.done[index] = entry
        return whole


def _entry(line: bytes) -> dict[str, Any]:
    """A line's object; an empty one for a line that a crash of the machine has spoilt."""
    try:
        return json_object(line, "journal")
    except ValueError:
        return {}


def _is_result(entry: Mapping[str, Any]) -> bool:
    if "error" in entry:
        return isinstance(entry["error"], str)
    return all(_is_sure(found) if isinstance(found, dict) else _are(found, int, 3) for found in entry.values())


def _is_sure(found: Mapping[str, Any]) -> bool:
    """Whether it is what a search finds that says how sure it is."""
    return (
        found.keys() == _FIELDS
        and all(_are(found[name], int, count) for name, count in _FRAMES.items())
        and _are([found["evidence"]], float, 1)
        and _are(found["spread"], float, 3)
        and isinstance(found["intervals"], list)
        and len(found["intervals"]) == 3
        and all(_are(ends, int, 2) for ends in found["intervals"])
    )


def _are(values: Any, kind: type[int] | type[float], count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(value) is kind and (kind is int or math.isfinite(value)) for value in values)
    )
