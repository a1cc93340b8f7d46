"""From a row of a table to the frames on disk: the folder, the position of a file number in it, and what does not fit.

Tables name frames by the integer in the file name (``reg_img46.jpg`` is 46, ``006_05562.jpg`` is 5562); a clip in
memory counts from 0. The two are kept apart: a :class:`FrameFolder` is the map from one to the other, and a number
without a file is an error, never the nearest one.
"""

from __future__ import annotations

import fnmatch
import os
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from mertools._files import atomic_write
from mertools._text import csv_text
from mertools.annotations.annotation import ClipAnnotation, Problem
from mertools.annotations.quality import annotation_problems
from mertools.annotations.read import Annotations, load_annotations
from mertools.annotations.schemas import AnnotationSchema, dataset_schema
from mertools.clips.read import decode_frames, is_image, numbered
from mertools.keyframes.selector import select_keyframes

__all__ = ["DatasetReport", "FrameFolder", "FrameFolders", "check_dataset", "find_frames", "search_apex"]

Frames: TypeAlias = "str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]"


@dataclass(frozen=True)
class FrameFolder:
    """The frames of one folder at ``path`` in the order of their ``numbers``, ascending; ``names`` are the files'.

    Examples:
        >>> folder = FrameFolder("sub01/EP02_01f", (46, 47, 49), ("img46.jpg", "img47.jpg", "img49.jpg"))
        >>> folder.position(49), folder.numbers[2]
        (2, 49)
    """

    path: str
    numbers: tuple[int, ...]
    names: tuple[str, ...]

    def position(self, number: int) -> int:
        """The 0-based position of a file number; a ValueError says which there are where this one is not."""
        i = bisect_left(self.numbers, number)
        if i == len(self.numbers) or self.numbers[i] != number:
            raise ValueError(
                f"frame {number} is not in {self.path}, which holds {len(self.numbers)} frames numbered "
                f"{self.numbers[0]} to {self.numbers[-1]}"
            )
        return i

    def read(self, start: int = 0, stop: int | None = None, *, size: int | tuple[int, int] | None = None) -> np.ndarray:
        """Decode the frames at the positions ``start`` to ``stop``, see :func:`decode_frames`."""
        return decode_frames([f"{self.path}/{name}" for name in self.names[start:stop]], size=size)


class FrameFolders:
    """All folders with frames below a root, found once, for looking up the rows of a table.

    ``root`` is where the dataset's frames are; a mapping from dataset to root for clips of several. Folders are
    compared by their last names, without regard to case when there is no exact match: the dataset may lie deeper
    (``Cropped/sub01/...``) or the root may be one subject's folder.

    Examples:
        >>> import pathlib, tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> (root / "Cropped" / "sub01" / "EP02_01f").mkdir(parents=True)
        >>> for number in (9, 10, 46):
        ...     _ = (root / "Cropped" / "sub01" / "EP02_01f" / f"reg_img{number}.jpg").write_bytes(b"")
        >>> clip = ClipAnnotation("casme2", "01", "EP02_01f", 9, 10, 46, folders=("sub01/EP02_01f",))
        >>> FrameFolders(root).find(clip).numbers
        (9, 10, 46)
    """

    def __init__(self, root: Frames) -> None:
        self.of_dataset: dict[str, FrameFolders] = {}
        self.name: str
        self._files: dict[str, list[str]]
        self._by_tail: dict[int, dict[tuple[str, ...], list[str]]] = {}
        self._found: dict[str, FrameFolder] = {}
        self._closed: list[OSError] = []
        if isinstance(root, Mapping):
            self.of_dataset = {_dataset(name): FrameFolders(part) for name, part in root.items()}
            self.name = ", ".join(f"{name}: {part.name}" for name, part in self.of_dataset.items())
            self._files = {path: names for part in self.of_dataset.values() for path, names in part._files.items()}
            return
        folder = Path(root).absolute()
        self.name = str(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"frames must be the folder that holds the clips' frames, there is none at {root}")
        self._files = dict(_image_folders(folder, self._closed))
        self._deepest = max((len(Path(path).parts) for path in self._files), default=0)

    @property
    def paths(self) -> list[str]:
        """Every folder with frames below the root."""
        return list(self._files)

    def find(self, clip: ClipAnnotation) -> FrameFolder:
        """The folder of a row's frames; a FileNotFoundError says what was looked for, a ValueError which fit."""
        found = self.fitting(clip)
        if len(found) > 1:
            shown = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
            raise ValueError(
                f"{clip.place}: {len(found)} folders fit clip {clip.name} ({shown}): "
                "give the root of one version of the frames"
            )
        if found:
            return self._folder(found[0])
        within = self.of_dataset.get(clip.dataset, self)
        closed = within._closed
        more = f"; {len(closed)} folders could not be read, the first: {closed[0]}" if closed else ""
        raise FileNotFoundError(
            f"{clip.place}: no folder of frames for clip {clip.name} below {within.name}, "
            f"looked for {', '.join(clip.folders or (clip.clip,))}{more}"
        )

    def fitting(self, clip: ClipAnnotation) -> list[str]:
        """The paths of all folders that a row may mean: of the first of its patterns that any folder fits."""
        if clip.unplaced:
            raise ValueError(f"{clip.place} ({clip.name}): {clip.unplaced}")
        if self.of_dataset:
            if clip.dataset not in self.of_dataset:
                raise ValueError(f"frames has no root for {clip.dataset!r}, it has {', '.join(self.of_dataset)}")
            return self.of_dataset[clip.dataset].fitting(clip)
        for pattern in clip.folders or (clip.clip,):
            parts = tuple(part for part in pattern.removeprefix("**/").split("/") if part)
            for start in range(len(parts) if pattern.startswith("**/") else 1):
                if found := self._lookup(parts[start:]):
                    return found
        return []

    def _lookup(self, parts: tuple[str, ...]) -> list[str]:
        depth = len(parts)
        if depth > self._deepest:  # a name of a thousand slashes: no folder lies as deep
            return []
        if depth not in self._by_tail:
            tails: dict[tuple[str, ...], list[str]] = {}
            for path in self._files:
                tail = Path(path).parts[-depth:]
                tails.setdefault(tuple(part.casefold() for part in tail), []).append(path)
            self._by_tail[depth] = tails
        tails = self._by_tail[depth]
        folded = tuple(part.casefold() for part in parts)
        if "*" not in "".join(parts).replace("[*]", ""):
            plain = tuple(part.replace("[*]", "*").replace("[?]", "?").replace("[[]", "[") for part in folded)
            found = tails.get(plain, [])
        else:
            found = [
                path
                for tail, paths in tails.items()
                if len(tail) == depth and all(map(fnmatch.fnmatchcase, tail, folded))
                for path in paths
            ]
        exact = [path for path in found if all(map(fnmatch.fnmatchcase, Path(path).parts[-depth:], parts))]
        return exact or found

    def _folder(self, path: str) -> FrameFolder:
        if path not in self._found:
            images = numbered(path, self._files[path])
            self._found[path] = FrameFolder(path, tuple(images), tuple(images.values()))
        return self._found[path]


def find_frames(clip: ClipAnnotation, root: str | os.PathLike[str]) -> FrameFolder:
    """The folder of one row's frames below a root; for many rows, build :class:`FrameFolders` once.

    ``clip`` is the annotation, ``root`` where the dataset's frames are. No folder is a FileNotFoundError, several that
    fit are a ValueError.

    Examples:
        >>> import pathlib, tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> (root / "006" / "006_1_2").mkdir(parents=True)
        >>> _ = (root / "006" / "006_1_2" / "006_05562.jpg").write_bytes(b"")
        >>> clip = ClipAnnotation("samm", "006", "006_1_2", 5562, folders=("006/006_1_2",))
        >>> find_frames(clip, root).position(5562)
        0
    """
    return FrameFolders(root).find(clip)


def search_apex(frames: Frames | FrameFolders) -> Callable[[ClipAnnotation], ClipAnnotation]:
    """A repair that looks for an apex that is missing, at the onset, or outside, in the frames from onset to offset.

    It is the apex that :func:`select_keyframes` finds there without an annotation. Clips whose onset or offset is
    missing, out of order or on the same frame stay as they are. ``frames`` is the folder with the frames, or a mapping
    from dataset to folder; the result is a function for ``repair=``.

    Examples:
        >>> import tempfile
        >>> from mertools import repair_annotations, synthetic_dataset, read_annotations
        >>> made = synthetic_dataset(tempfile.mkdtemp(), subjects=2, clips=1, size=48, noise=0)
        >>> clip = read_annotations(made.table, made.dataset)[0]
        >>> wrong = replace(clip, apex=clip.onset)
        >>> [found], _ = repair_annotations([wrong], search_apex(made.frames))
        >>> abs(found.apex - clip.apex) <= 4
        True
    """
    folders = frames if isinstance(frames, FrameFolders) else FrameFolders(frames)

    def apex_search(clip: ClipAnnotation) -> ClipAnnotation:
        if clip.onset is None or clip.offset is None or clip.onset >= clip.offset:
            return clip
        if clip.apex is not None and clip.onset < clip.apex <= clip.offset:
            return clip
        folder = folders.find(clip)
        try:
            start, stop = folder.position(clip.onset), folder.position(clip.offset) + 1
        except ValueError as error:
            raise ValueError(f"{clip.place} ({clip.name}): {error}") from None
        images = np.ascontiguousarray(folder.read(start, stop)[..., ::-1])
        found = select_keyframes(torch.from_numpy(images).permute(0, 3, 1, 2)[None])
        return replace(clip, apex=folder.numbers[start + max(int(found.apex), 1)])

    apex_search.__name__ = "search-apex"
    return apex_search


# --- does the table fit the disk? ------------------------------------------------------------------------------------

_SHOWN = 20  # findings of one kind in the text; the csv holds all


@dataclass(frozen=True)
class DatasetReport:
    """What was found wrong; true when nothing was.

    Args:
        problems: one entry per finding, in the order of the rows; kinds are ``cell``, ``label``, ``missing key``,
            ``order``, ``apex outside``, ``apex at onset``, ``long``, ``duplicate``, ``no folder``, ``folder``,
            ``missing frame``, ``frame count`` and ``folder without row``.
        rows: how many annotations were looked at.
        folders: how many folders of frames.
        edition: of the table, where editions are known to differ and the rows tell.

    Examples:
        >>> print(DatasetReport((), rows=255, folders=255))
        255 rows, 255 folders of frames: nothing wrong
    """

    problems: tuple[Problem, ...]
    rows: int
    folders: int
    edition: str | None = None

    def __bool__(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        edition = f" of the edition of {self.edition}" if self.edition else ""
        head = f"{self.rows} rows{edition}, {self.folders} folders of frames"
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
    dataset: str | os.PathLike[str] | AnnotationSchema | None = None,
) -> DatasetReport:
    """Check a table against itself and against the frames on disk.

    ``print(report)`` is the text of the findings, ``report.write_csv(path)`` has all of them.

    Args:
        table: annotations, or a table that :func:`read_annotations` reads: labels and cells that it refuses are
            findings here.
        frames: the folder with the frames, or a mapping from dataset to folder; None checks the table alone.
        dataset: the dataset's name or schema, when ``table`` is not read yet.

    Examples:
        >>> clips = [ClipAnnotation("ours", "1", "a", 5, 9, 7, row=2), ClipAnnotation("ours", "1", "b", 5, 6, 7, row=3)]
        >>> print(check_dataset(clips))
        2 rows, 0 folders of frames: 1 findings
        apex outside: 1
          , row 2 (1/a): apex 9 lies outside 5..7
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
    return DatasetReport(tuple(found), len(clips), len(folders.paths) if folders else 0, clips.edition)


def _frame_problems(clips: Sequence[ClipAnnotation], folders: FrameFolders) -> Iterable[Problem]:
    used: set[str] = set()
    for clip in clips:
        try:
            used.update(folders.fitting(clip))
            folder = folders.find(clip)
        except FileNotFoundError:
            yield _problem(clip, "no folder", "clip", f"has no folder of frames ({', '.join(clip.folders)})")
        except ValueError as error:
            yield _problem(clip, "folder", "clip", f"has no usable folder of frames: {error}")
        else:
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


def _dataset(name: str) -> str:
    """A dataset as its annotations name it, however it is spelt."""
    try:
        return dataset_schema(name).name
    except (TypeError, ValueError):
        return name


def _image_folders(root: Path, closed: list[OSError]) -> list[tuple[str, list[str]]]:
    """Folders with their images; what can't be listed is added to ``closed``."""
    found, seen = [], set()
    walk = os.walk(root, onerror=closed.append, followlinks=True)  # datasets are often linked into place
    for path, folders, files in walk:
        real = os.path.realpath(path)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        if images := list(filter(is_image, files)):
            found.append((path, images))
    return found
