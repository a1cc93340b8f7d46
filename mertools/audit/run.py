"""How far are the human key frames off? Re-select them in every clip of a table and look at the shifts (GAMDSS).

GAMDSS finds that annotators differ in where they put key frames, the offset most of all in multicultural sets. The
audit asks that of any table: each clip is searched near its annotation, by the paper's windowed search
(``"annotated"``: onset later, apex and offset earlier, by at most a tenth of the phase) and by the robust search
(``"robust"``: each key frame either way), and the shift of every key frame is put in relation to the phase it belongs
to.

``audit_search.py`` does one clip, ``audit_workers.py`` many at once, ``audit_journal.py`` remembers what is done,
``audit_statistics.py`` tests the shifts, ``corrected_table.py`` and ``audit_report.py`` write what comes out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mertools._checks import check_choice, check_number
from mertools._files import atomic_write
from mertools._text import csv_text
from mertools.annotations.annotation import ClipAnnotation
from mertools.annotations.folders import FrameFolders, Frames
from mertools.annotations.read import Annotations, read_annotations
from mertools.annotations.schemas import AnnotationSchema
from mertools.audit.audit_workers import run_tasks
from mertools.audit.journal import Journal, fingerprint
from mertools.audit.search import SEARCHES, ClipTask, search_clip
from mertools.audit.statistics import KEYS, Group, SpreadTest, group_shifts, spread_tests
from mertools.keyframes.selector import FrameSelector

__all__ = ["AnnotationAudit", "ClipAudit", "audit_annotations"]

Keys = tuple[int, int, int]


@dataclass(frozen=True)
class ClipAudit:
    """What the searches make of one clip. All frames are file numbers.

    Args:
        clip: the annotation.
        keys: onset, apex, offset as annotated; a missing apex is the midpoint here.
        found: the same by each search that was run.
        frames: how many frames of the clip's folder were looked at.
        error: why the clip was skipped, ``""`` if it was not.

    Examples:
        >>> audit = ClipAudit(ClipAnnotation("casme2", "01", "a", 10, 20, 40), (10, 20, 40), {"robust": (12, 21, 36)})
        >>> audit.shift("robust"), audit.relative("robust")
        ((2, 1, -4), (0.2, 0.05, -0.2))

    Source: the question is that of GAMDSS (arXiv 2603.04766); the record is ours.
    """

    clip: ClipAnnotation
    keys: Keys | None = None
    found: Mapping[str, Keys] = field(default_factory=dict)
    frames: int = 0
    error: str = ""

    def shift(self, search: str) -> tuple[int, int, int]:
        """How many frames each key frame moves; positive is later."""
        assert self.keys is not None
        onset, apex, offset = (new - old for new, old in zip(self.found[search], self.keys, strict=True))
        return onset, apex, offset

    def relative(self, search: str) -> tuple[float, float, float]:
        """Shifts in phase lengths: the onset's by the rise, the offset's by the fall, the apex's by where it moves."""
        assert self.keys is not None
        rise, fall = max(self.keys[1] - self.keys[0], 1), max(self.keys[2] - self.keys[1], 1)
        onset, apex, offset = self.shift(search)
        return onset / rise, apex / (rise if apex < 0 else fall), offset / fall


class AnnotationAudit:
    """The audit of a table: shifts clip by clip, their distributions, and tests of their spread.

    Args:
        clips: one entry per annotation, in the table's order.
        searches: which were run.
        threshold: a shift of more than this share of its phase, and of at least two frames, is uncertain.

    Raises:
        ValueError: a negative threshold.

    Examples:
        >>> clip = ClipAnnotation("casme2", "01", "a", 10, 20, 40, "disgust")
        >>> audit = AnnotationAudit([ClipAudit(clip, (10, 20, 40), {"robust": (12, 21, 36)})], ("robust",))
        >>> audit.shifts()["offset"].tolist(), audit.uncertain()["offset"].tolist()
        ([-4.0], [True])

    Source: the question is that of GAMDSS (arXiv 2603.04766); statistics in ``audit_statistics.py``.
    """

    def __init__(
        self, clips: Iterable[ClipAudit], searches: Sequence[str] = SEARCHES, *, threshold: float = 0.1
    ) -> None:
        self.clips = list(clips)
        self.searches = tuple(searches)
        self.threshold = check_number("threshold", threshold, 0)

    def __len__(self) -> int:
        return len(self.clips)

    def __repr__(self) -> str:
        return f"AnnotationAudit({len(self.done)} clips, {len(self.broken)} skipped, searches={self.searches})"

    @property
    def done(self) -> list[ClipAudit]:
        """The clips that were searched."""
        return [clip for clip in self.clips if not clip.error]

    @property
    def broken(self) -> list[ClipAudit]:
        """The clips that were skipped, each with its ``error``."""
        return [clip for clip in self.clips if clip.error]

    def shifts(self, search: str | None = None, *, unit: str = "frames") -> dict[str, np.ndarray]:
        """Shift of each key frame, clip by clip (those of ``done``).

        Args:
            search: ``"annotated"`` or ``"robust"``; default the last that was run.
            unit: ``"frames"``, ``"phase"`` (phase lengths, see :meth:`ClipAudit.relative`) or ``"ms"``.

        Returns:
            float64 arrays by ``"onset"``, ``"apex"``, ``"offset"``; NaN for an apex that the table does not have.
        """
        name = self._search(search)
        check_choice("unit", unit, ("frames", "phase", "ms"))
        rows = []
        for entry in self.done:
            row = list(map(float, entry.relative(name) if unit == "phase" else entry.shift(name)))
            if unit == "ms":
                row = [value * 1000 / entry.clip.fps if entry.clip.fps else np.nan for value in row]
            if entry.clip.apex is None:
                row[1] = np.nan
            rows.append(row)
        table = np.array(rows, dtype=np.float64).reshape(-1, 3)
        return {key: table[:, i] for i, key in enumerate(KEYS)}

    def uncertain(self, search: str | None = None) -> dict[str, np.ndarray]:
        """Which key frames of which clips (of ``done``) move by more than the threshold, and at least two frames."""
        frames, phase = self.shifts(search), self.shifts(search, unit="phase")
        return {key: (np.abs(phase[key]) > self.threshold) & (np.abs(frames[key]) >= 2) for key in KEYS}

    def groups(self, by: str, search: str | None = None) -> list[Group]:
        """Distribution of the shifts per ``"dataset"``, ``"subject"`` or ``"label"`` (or ``"all"``), largest first."""
        check_choice("by", by, ("all", "dataset", "subject", "label"))
        names = ["all" if by == "all" else getattr(entry.clip, by) for entry in self.done]
        return group_shifts(names, self.shifts(search), self.shifts(search, unit="phase"), self.uncertain(search))

    def tests(self, search: str | None = None, *, unit: str = "phase") -> list[SpreadTest]:
        """Do onset, apex and offset differ in spread? See :func:`spread_tests`."""
        subjects = [f"{entry.clip.dataset}/{entry.clip.subject}" for entry in self.done]
        return spread_tests(self.shifts(search, unit=unit), subjects)

    def corrected(self, search: str | None = None) -> list[ClipAnnotation]:
        """The annotations with the key frames that the search found; skipped clips as they were."""
        name = self._search(search)
        fixed = []
        for entry in self.clips:
            clip = entry.clip
            if name in entry.found:
                onset, apex, offset = entry.found[name]
                clip = replace(clip, onset=onset, apex=apex, offset=offset)
            fixed.append(clip)
        return fixed

    def worst(self, count: int, search: str | None = None) -> list[ClipAudit]:
        """The clips with the largest relative shifts, worst first."""
        name = self._search(search)
        return sorted(self.done, key=lambda e: -max(map(abs, e.relative(name))))[:count]

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a row per clip: annotation, what each search found, the shifts, or why it was skipped.

        A name that a spreadsheet would run as a formula has an apostrophe in front.
        """
        head = ["dataset", "subject", "clip", "expression", "label", "table", "sheet", "row", *KEYS]
        for name in self.searches:
            head += [f"{key}_{name}" for key in KEYS]
            head += [f"{key}_shift_{name}" for key in KEYS] + [f"{key}_relative_{name}" for key in KEYS]
        rows: list[list[Any]] = [[*head, "frames", "error"]]
        for entry in self.clips:
            clip = entry.clip
            row: list[Any] = [clip.dataset, clip.subject, clip.clip, clip.expression, clip.label, clip.table]
            row += [clip.sheet or "", clip.row, *("" if k is None else k for k in (clip.onset, clip.apex, clip.offset))]
            for name in self.searches:
                if entry.error:
                    row += [""] * 9
                else:
                    row += [*entry.found[name], *entry.shift(name), *(f"{x:.6g}" for x in entry.relative(name))]
            rows.append([*row, entry.frames, entry.error])
        atomic_write(Path(path), csv_text(rows).encode())

    def write_report(
        self,
        folder: str | os.PathLike[str],
        *,
        frames: Frames | FrameFolders | None = None,
        search: str | None = None,
        title: str = "Annotation audit",
        worst: int = 12,
    ) -> None:
        """Write the report: ``index.html``, self-contained, and its numbers as csv files.

        Audits of several datasets make one report: ``AnnotationAudit([*casme2.clips, *samm.clips]).write_report(...)``.

        Args:
            folder: made if need be; each file is replaced as a whole, other files in it are left alone.
            frames: where the frames are, for the contact sheets; None leaves them out.
            search: the search whose shifts are tested; default the last that was run.
            title: heading of the page.
            worst: how many clips to show.

        Raises:
            ImportError: matplotlib is missing (extra ``plot``).
        """
        from mertools.audit.report import write_report

        folders = FrameFolders(frames) if frames is not None and not isinstance(frames, FrameFolders) else frames
        write_report(self, Path(folder), frames=folders, search=self._search(search), title=title, worst=worst)

    def _search(self, search: str | None) -> str:
        if search is None:
            return self.searches[-1]
        check_choice("search", search, self.searches)
        return search


def audit_annotations(
    table: Any,
    frames: Frames | FrameFolders,
    dataset: str | AnnotationSchema | None = None,
    *,
    searches: Sequence[str] = SEARCHES,
    selector: FrameSelector | None = None,
    margin: float = 0.5,
    longest: int | None = 256,
    threshold: float = 0.1,
    workers: int = 0,
    progress: bool = False,
    work: str | os.PathLike[str] | None = None,
    restart: bool = False,
) -> AnnotationAudit:
    """Search every clip of a table near its annotation, and compare.

    Args:
        table: annotations, or a table that :func:`read_annotations` reads (then ``dataset`` says as what).
        frames: the folder with the frames of all clips, or a mapping from dataset to folder.
        dataset: name or schema of the dataset when ``table`` is not read yet.
        searches: ``"annotated"`` (GAMDSS's windowed search), ``"robust"`` (``refine=True``), or both. The annotated one
            alone reads the frames in its windows only.
        selector: the windows of the annotated search; default those of :class:`FrameSelector`.
        margin: how much of the clip's folder to read beyond onset and offset, in lengths of the expression (and at
            least 16 frames), where there is more.
        longest: reduce frames whose longer side has more pixels to this many; None takes them as they are.
        threshold: a shift of more than this share of its phase is uncertain.
        workers: processes to share the clips among; 0 works in this one. Scripts that use workers need
            ``if __name__ == "__main__":``.
        progress: show a progress bar on standard error (tqdm, extra ``data``).
        work: folder for a journal of finished clips. A run that was killed continues where it stopped when it is
            called again with the same table, frames and options; the folder is removed at the end of a full run.
        restart: forget an unfinished run in ``work`` instead of going on from it.

    Returns:
        The audit. A clip that cannot be searched (frames missing, key frames out of order, an image that can't be
        decoded) is skipped and listed in ``broken``.

    Raises:
        FileNotFoundError: there is no such table or folder.
        RuntimeError: another run is using ``work``.
        ValueError: an option is out of range, nothing to audit, or ``work`` holds the journal of another run.

    Examples:
        >>> import cv2, pathlib, tempfile
        >>> from mertools import synthetic_clip
        >>> made = synthetic_clip(num_frames=40, onset=10, apex=18, offset=30, size=48)
        >>> folder = pathlib.Path(tempfile.mkdtemp()) / "sub01" / "EP01"
        >>> folder.mkdir(parents=True)
        >>> for number, image in enumerate(made.frames.permute(0, 2, 3, 1).numpy(), start=1):
        ...     _ = cv2.imwrite(str(folder / f"img{number}.png"), image)
        >>> clip = ClipAnnotation("casme2", "01", "EP01", 11, 19, 37, "disgust", folders=("sub01/EP01",))
        >>> audit = audit_annotations([clip], folder.parent.parent, searches=["annotated"])
        >>> audit.clips[0].found["annotated"][2]  # one of the last 10 % of the fall
        37

    Source: GAMDSS (arXiv 2603.04766) for the question and the annotated search.
    """
    clips = as_annotations(table, dataset)
    options = AuditOptions(tuple(searches), selector or FrameSelector(), margin, longest, threshold)
    folders = frames if isinstance(frames, FrameFolders) else FrameFolders(frames)
    if work is None:
        return audit_clips(clips, folders, options, workers=workers, progress=progress)
    with Journal(Path(work), fingerprint(clips, folders.name, options.words), restart=restart) as journal:
        audit = audit_clips(clips, folders, options, workers=workers, progress=progress, journal=journal)
        journal.finish()
    return audit


@dataclass(frozen=True)
class AuditOptions:
    """The options that change what an audit finds."""

    searches: tuple[str, ...] = SEARCHES
    selector: FrameSelector = field(default_factory=FrameSelector)
    margin: float = 0.5
    longest: int | None = 256
    threshold: float = 0.1

    def __post_init__(self) -> None:
        if not self.searches or len(set(self.searches)) != len(self.searches):
            raise ValueError(f"searches must be some of {', '.join(SEARCHES)}, each once, got {self.searches}")
        for name in self.searches:
            check_choice("searches", name, SEARCHES)
        check_number("margin", self.margin, 0)
        check_number("threshold", self.threshold, 0)
        if self.longest is not None and (not isinstance(self.longest, int) or self.longest < 16):
            raise ValueError(f"longest must be at least 16 pixels, or None, got {self.longest!r}")
        if not isinstance(self.selector, FrameSelector):
            raise TypeError(f"selector must be a FrameSelector, got {type(self.selector).__name__}")
        if not isinstance(self.selector.distance, str):
            raise ValueError("selector must use the l2 distance: clips are searched in other processes")

    @property
    def words(self) -> str:
        """What the journal is checked against."""
        return f"{self.searches} {self.selector.extra_repr()} {self.margin} {self.longest} {self.threshold}"


def as_annotations(table: Any, dataset: str | AnnotationSchema | None) -> Sequence[ClipAnnotation]:
    """Annotations as they are, or read from a table."""
    if dataset is not None:
        clips: Sequence[ClipAnnotation] = read_annotations(table, dataset)
    elif isinstance(table, (str, os.PathLike)) or hasattr(table, "itertuples"):
        raise ValueError("dataset must be given with a table that is not read yet")
    else:
        clips = table if isinstance(table, Annotations) else list(table)
    if not clips:
        raise ValueError("table holds no annotations to audit")
    if all(clip.onset is None for clip in clips):
        raise ValueError(f"table holds no key frames to audit ({clips[0].dataset} has none)")
    return clips


def audit_clips(
    clips: Sequence[ClipAnnotation],
    folders: FrameFolders,
    options: AuditOptions,
    *,
    workers: int = 0,
    progress: bool = False,
    journal: Journal | None = None,
) -> AnnotationAudit:
    """Do the clips that the journal does not have yet, and put all of them together."""
    entries: dict[int, ClipAudit] = {}
    tasks: list[ClipTask] = []
    for i, clip in enumerate(clips):
        known = journal.done.get(i) if journal is not None else None
        prepared = prepare(i, clip, folders, options)
        if isinstance(prepared, str):
            entries[i] = ClipAudit(clip, error=prepared)
            continue
        task, keys = prepared
        if known is not None and known.keys() == set(options.searches):  # what went wrong may have been mended since
            entries[i] = _entry(clip, keys, task, known)
        else:
            tasks.append(task)
            entries[i] = ClipAudit(clip, keys, {}, len(task.numbers), "not done")
    by_index = {task.which: task for task in tasks}
    results = run_tasks(search_clip, tasks, workers)
    for i, found in _with_bar(results, len(clips), len(clips) - len(tasks), progress):
        if journal is not None:
            journal.add(i, found)
        entries[i] = _entry(clips[i], entries[i].keys, by_index[i], found)
    return AnnotationAudit([entries[i] for i in range(len(clips))], options.searches, threshold=options.threshold)


def prepare(
    index: int, clip: ClipAnnotation, folders: FrameFolders, options: AuditOptions
) -> tuple[ClipTask, Keys] | str:
    """What a worker needs to know of a clip, and the key frames as annotated; or why the clip can't be searched."""
    onset, apex, offset = clip.onset, clip.apex, clip.offset
    if onset is None or offset is None:
        return f"{'onset' if onset is None else 'offset'} is missing"
    apex = (onset + offset) // 2 if apex is None else apex
    if not onset <= apex <= offset or onset == offset:
        return f"onset {onset}, apex {apex}, offset {offset} are out of order"
    try:
        folder = folders.find(clip)
        first, last = folder.position(onset), folder.position(offset)
        if clip.apex is None:  # halfway between the frames that are there
            apex = folder.numbers[(first + last) // 2]
        peak = folder.position(apex)
    except (OSError, ValueError) as error:
        return str(error)
    more = max(16, round(options.margin * (last - first))) if options.margin else 0
    start, stop = max(first - more, 0), min(last + more + 1, len(folder.numbers))
    selector = options.selector
    task = ClipTask(
        which=index,
        folder=folder.path,
        names=folder.names[start:stop],
        numbers=folder.numbers[start:stop],
        keys=(first - start, peak - start, last - start),
        searches=options.searches,
        windows=(selector.onset_window, selector.apex_window, selector.offset_window),
        longest=options.longest,
    )
    return task, (onset, apex, offset)


def _entry(clip: ClipAnnotation, keys: Keys | None, task: ClipTask, found: Mapping[str, Any]) -> ClipAudit:
    if "error" in found:
        return ClipAudit(clip, keys, {}, len(task.numbers), str(found["error"]))
    numbers = {name: (int(o), int(a), int(k)) for name, (o, a, k) in found.items()}
    return ClipAudit(clip, keys, numbers, len(task.numbers))


def _with_bar(results: Iterable[Any], total: int, done: int, progress: bool) -> Iterable[Any]:
    if not progress:
        return results
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("a progress bar needs tqdm: pip install 'mertools[data]', or go without") from error
    bar: Iterable[Any] = tqdm(results, total=total, initial=done, unit="clip", desc="audit")
    return bar
