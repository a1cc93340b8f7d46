"""Does the table fit the frames on disk? Every mismatch, row by row, before a training run finds it."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mertools._files import atomic_write
from mertools._text import csv_text
from mertools.annotations.annotation import ClipAnnotation, Problem
from mertools.annotations.folders import FrameFolder, FrameFolders, Frames
from mertools.annotations.quality import annotation_problems
from mertools.annotations.read import Annotations, load_annotations
from mertools.annotations.schemas import AnnotationSchema

__all__ = ["DatasetReport", "check_dataset"]

_SHOWN = 20  # findings of one kind in the text; the csv holds all


@dataclass(frozen=True)
class DatasetReport:
    """What was found wrong; true when nothing was.

    Args:
        problems: one entry per finding, in the order of the rows; kinds are ``cell``, ``label``, ``missing key``,
            ``order``, ``apex outside``, ``duplicate``, ``no folder``, ``folder``, ``missing frame``,
            ``frame count`` and ``folder without row``.
        rows: how many annotations were looked at.
        folders: how many folders of frames.

    Examples:
        >>> print(DatasetReport((), rows=255, folders=255))
        255 rows, 255 folders of frames: nothing wrong

    Source: ours.
    """

    problems: tuple[Problem, ...]
    rows: int
    folders: int

    def __bool__(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        head = f"{self.rows} rows, {self.folders} folders of frames"
        if not self.problems:
            return f"{head}: nothing wrong"
        lines = [f"{head}: {len(self.problems)} findings"]
        for kind, count in self.counts.items():
            lines.append(f"\n{kind}: {count}")
            found = [str(problem) for problem in self.problems if problem.kind == kind]
            lines += [f"  {line}" for line in found[:_SHOWN]]
            if count > _SHOWN:
                lines.append(f"  ... and {count - _SHOWN} more")
        return "\n".join(lines)

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each kind."""
        return dict(Counter(problem.kind for problem in self.problems))

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write all findings as csv, whole or not at all."""
        rows: list[tuple[object, ...]] = [("kind", "table", "sheet", "row", "clip", "column", "problem")]
        rows += [(p.kind, p.table, p.sheet or "", p.row or "", p.clip, p.column, p.problem) for p in self.problems]
        atomic_write(Path(path), csv_text(rows).encode())


def check_dataset(
    table: Any,
    frames: Frames | FrameFolders | None = None,
    dataset: str | AnnotationSchema | None = None,
) -> DatasetReport:
    """Check a table against itself and against the frames on disk.

    Args:
        table: annotations, or a table that :func:`read_annotations` reads: labels and cells that it refuses are
            findings here.
        frames: the folder with the frames, or a mapping from dataset to folder; None checks the table alone.
        dataset: the dataset's name or schema, when ``table`` is not read yet.

    Returns:
        The findings; ``print(report)`` for the text, ``report.write_csv(path)`` for all of them.

    Raises:
        FileNotFoundError: there is no such table or folder.
        ValueError: a path without ``dataset``, or a table whose columns can't be found.

    Examples:
        >>> clips = [ClipAnnotation("ours", "1", "a", 5, 9, 7, row=2), ClipAnnotation("ours", "1", "b", 5, 6, 7, row=3)]
        >>> print(check_dataset(clips))
        2 rows, 0 folders of frames: 1 findings
        apex outside: 1
          , row 2 (1/a): apex 9 lies outside 5..7

    Source: ours; what it looks for is what tables of the field get wrong.
    """
    found: list[Problem] = []
    if dataset is not None:
        clips = load_annotations(table, dataset, problems=found)
    elif isinstance(table, (str, os.PathLike)) or hasattr(table, "itertuples"):
        raise ValueError(
            "dataset must be given with a table that is not read yet: check_dataset(table, frames, 'casme2')"
        )
    else:
        clips = table if isinstance(table, Annotations) else Annotations(table)
    found += annotation_problems(clips, clips.schema, clips.columns)
    folders = None
    if frames is not None:
        folders = frames if isinstance(frames, FrameFolders) else FrameFolders(frames)
        found += _frame_problems(clips, folders)
    found.sort(key=lambda problem: (problem.row == 0, problem.table, problem.row))
    return DatasetReport(tuple(found), len(clips), len(folders.paths) if folders else 0)


def _frame_problems(clips: Sequence[ClipAnnotation], folders: FrameFolders) -> Iterable[Problem]:
    used: set[str] = set()
    for clip in clips:
        try:
            folder = folders.find(clip)
        except FileNotFoundError:
            yield _problem(clip, "no folder", "clip", f"has no folder of frames ({', '.join(clip.folders)})")
            continue
        except ValueError as error:
            used |= {path for path in folders.paths if path in str(error)}
            yield _problem(clip, "folder", "clip", f"has no usable folder of frames: {error}")
            continue
        used.add(folder.path)
        yield from _missing_frames(clip, folder)
    for path in sorted(set(folders.paths) - used):
        yield Problem(folders.name, None, 0, "", "", f"no row for the folder {path}", "folder without row")


def _missing_frames(clip: ClipAnnotation, folder: FrameFolder) -> Iterable[Problem]:
    numbers = folder.numbers
    held = f"{folder.path} holds {len(numbers)} frames from {numbers[0]} to {numbers[-1]}"
    absent = False
    for name in ("onset", "apex", "offset"):
        number = getattr(clip, name)
        if number is not None and number not in numbers:
            absent = True
            yield _problem(clip, "missing frame", name, f"{number} has no image: {held}")
    if not absent and clip.onset is not None and clip.offset is not None and clip.onset <= clip.offset:
        there = bisect_right(numbers, clip.offset) - bisect_left(numbers, clip.onset)
        gap = clip.offset - clip.onset + 1 - there
        if gap:
            text = f"{gap} of the {gap + there} frames {clip.onset}..{clip.offset} have no image in {folder.path}"
            yield _problem(clip, "missing frame", "clip", text)
    if clip.num_frames is not None and clip.num_frames != len(numbers):
        yield _problem(clip, "frame count", "num_frames", f"is {clip.num_frames}, {held}")


def _problem(clip: ClipAnnotation, kind: str, column: str, text: str) -> Problem:
    return Problem(clip.table, clip.sheet, clip.row, clip.name, column, text, kind)
