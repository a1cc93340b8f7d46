"""The folder of a training run: settings, one folder a fold, pooled scores; whole at every moment.

    run/
      .lock                       while a process works on the run: a second one is refused
      settings.json               what the run was started with; another run may not continue it
      folds/<name>/               log.jsonl (a line per epoch), checkpoint.pt (while the fold is trained),
                                  predictions.json (when it is done: a ScoreBook), weights.safetensors (if wanted)
      scores.json                 when all folds are done: pooled, with intervals
      predictions.csv             a row per clip
      subjects.csv                a row per subject

A run that was killed continues with the folds without predictions, and within one after its last checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import BaseFileLock

from mertools._files import append_line, atomic_write, json_object, lock, reading
from mertools._text import csv_text
from mertools.evaluation.score_book import ScoreBook
from mertools.training.checkpoints import load_checkpoint, save_checkpoint

__all__ = ["FoldFolder", "RunFolder"]

_sync = getattr(os, "fdatasync", os.fsync)


class RunFolder:
    """Where a run keeps what it needs to be continued and what it ends in: the folder ``path``, made by :meth:`begin`.

    Examples:
        >>> import tempfile
        >>> run = RunFolder(tempfile.mkdtemp())
        >>> run.begin({"seed": 0, "epochs": 30})
        >>> fold = run.fold("sub01")
        >>> fold.save({"epoch": 3})
        >>> run.begin({"seed": 0, "epochs": 30}, resume=True)
        >>> fold.load()
        {'epoch': 3}
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock: BaseFileLock | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_lock": None}  # a lock stays with its process

    def begin(self, settings: Mapping[str, Any], *, resume: bool = False) -> None:
        """Start a run here, or continue one; from now on no other process can, until this one ends or :meth:`finish`.

        Where several processes train one run, the first of them begins it.

        Args:
            settings: all that decides the outcome, as plain values; a ValueError names what differs from the run here.
            resume: continue what is here; in an empty folder, start. Without it, a run here is a FileExistsError.
        """
        wanted = json.loads(_json(settings))
        file = self.path / "settings.json"
        held = lock(self.path / ".lock", shared=True)
        try:
            if not file.exists():
                if any((self.path / "folds").glob("*")):
                    raise FileExistsError(
                        f"{self.path} holds folds of a run whose settings.json is gone, and another run's would be "
                        "pooled with them: choose another folder"
                    )
                atomic_write(file, _json(wanted, indent=2).encode())
            elif not resume:
                raise FileExistsError(f"{self.path} holds a run: resume it (--resume) or choose another folder")
            else:
                with reading(file):
                    there = json_object(file.read_bytes(), file)
                unlike = [name for name in sorted(wanted.keys() | there.keys()) if wanted.get(name) != there.get(name)]
                if unlike:
                    shown = "; ".join(f"{name} was {there.get(name)!r}, now {wanted.get(name)!r}" for name in unlike)
                    raise ValueError(f"{self.path} can't be resumed with other settings: {shown}")
                self._sweep()
        except BaseException:
            held.release()
            raise
        self._lock = held

    def _sweep(self) -> None:
        """Remove what kills have left: files that were being written, checkpoints of folds that are done."""
        for folder in (self.path / "folds").glob("*/"):
            for half in folder.glob(".*.part"):
                half.unlink(missing_ok=True)
            if FoldFolder(folder).done:
                (folder / "checkpoint.pt").unlink(missing_ok=True)

    def fold(self, name: str) -> FoldFolder:
        """The folder of a fold, by its name (a subject, a dataset, a number)."""
        if not name:
            raise ValueError("the name of a fold must not be empty")
        file = quote(name, safe=" ()")
        return FoldFolder(self.path / "folds" / (file.replace(".", "%2E") if not file.strip(".") else file))

    def finish(self, book: ScoreBook, *, notes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Write pooled scores, predictions and the table of subjects; returns what is in ``scores.json``.

        Args:
            book: the predictions of all folds.
            notes: goes into ``scores.json`` as well.
        """
        summary: dict[str, Any] = json.loads(_json({**book.summary(), **(notes or {})}))
        book.write_csv(self.path / "predictions.csv")
        rows: list[tuple[str, ...]] = [("subject", "clips", "uf1", "uar", "war", "selection")]
        rows += [
            (name, str(s.clips), *(f"{score:.6f}" for score in (s.uf1, s.uar, s.war)), book.selection)
            for name, s in book.per("subject").items()
        ]
        atomic_write(self.path / "subjects.csv", csv_text(rows).encode())
        atomic_write(self.path / "scores.json", _json(summary, indent=2).encode())
        if self._lock is not None:
            with contextlib.suppress(OSError):  # where an open file can't go it is removed on release
                (self.path / ".lock").unlink()
            self._lock.release(force=True)
        return summary


class FoldFolder:
    r"""The folder ``path`` of one fold of a run; made when something is written.

    Examples:
        >>> import tempfile
        >>> fold = FoldFolder(tempfile.mkdtemp())
        >>> fold.log(epoch=0, loss=1.25); fold.log(epoch=1, loss=0.75)
        >>> fold.rewind(1)
        >>> (fold.path / "log.jsonl").read_text()
        '{"epoch": 0, "loss": 1.25}\n'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def done(self) -> bool:
        """Whether the fold's predictions are there."""
        return (self.path / "predictions.json").is_file()

    def save(self, state: Mapping[str, Any]) -> None:
        """Put a checkpoint in the place of the last, see :func:`save_checkpoint`."""
        self.path.mkdir(parents=True, exist_ok=True)
        save_checkpoint(self.path / "checkpoint.pt", state)

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint, None where there is none; sets the random state, see :func:`load_checkpoint`."""
        file = self.path / "checkpoint.pt"
        return load_checkpoint(file) if file.exists() else None

    def log(self, **entry: Any) -> None:
        """Append a line to the log, all of it or nothing; numbers must be finite."""
        self.path.mkdir(parents=True, exist_ok=True)
        line = _json(entry).rstrip()
        with (self.path / "log.jsonl").open("ab", buffering=0) as file:
            append_line(file, line)
            _sync(file.fileno())  # a checkpoint that outlives a power cut finds its epochs in the log

    def rewind(self, epoch: int) -> None:
        """Drop what the log has of ``epoch`` and later, and a line that a kill cut off."""
        file = self.path / "log.jsonl"
        if not file.exists():
            return
        kept = []
        with reading(file):
            lines = file.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            if number == len(lines) and not line.endswith(b"\n"):
                break
            found = json_object(line, f"{file}, line {number}").get("epoch", -1)
            if isinstance(found, bool) or not isinstance(found, (int, float)):
                raise ValueError(f"{file}, line {number}: epoch must be a number, got {found!r}")
            if found < epoch:
                kept.append(line)
        atomic_write(file, b"".join(kept))

    def finish(self, book: ScoreBook) -> None:
        """Write the fold's predictions; the checkpoint is no longer needed."""
        self.path.mkdir(parents=True, exist_ok=True)
        book.write_json(self.path / "predictions.json")
        (self.path / "checkpoint.pt").unlink(missing_ok=True)

    def book(self) -> ScoreBook:
        """The predictions of a fold that is done."""
        return ScoreBook.read_json(self.path / "predictions.json")


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=indent is None, allow_nan=False, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    """NumPy's numbers and tensors of one value, as Python's own."""
    if not hasattr(value, "item"):
        raise TypeError(f"settings, notes and log entries must be plain values, got {type(value).__name__}: {value!r}")
    return value.item()
