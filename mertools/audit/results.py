"""What an audit finds: the shift of every key frame, clip by clip, and what they come to.

Each clip is searched near its annotation, by GAMDSS's windowed search (``"annotated"``: onset later, apex and offset
earlier, by at most a tenth of the phase) and by the robust search (``"robust"``: each key frame either way), and the
shift of every key frame is put in relation to the phase it belongs to.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mertools._checks import check_choice, check_count, check_number
from mertools._files import atomic_write
from mertools._text import csv_text, plain_subject
from mertools.annotations.annotation import ClipAnnotation, Problem
from mertools.annotations.folders import FrameFolders, Frames
from mertools.annotations.quality import annotation_problems
from mertools.annotations.schemas import SCHEMAS
from mertools.audit.report import write_report
from mertools.audit.search import SEARCHES
from mertools.audit.statistics import KEYS, Group, SpreadTest, group_shifts, spread_tests

__all__ = ["AnnotationAudit", "ClipAudit"]

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

    Examples:
        >>> clip = ClipAnnotation("casme2", "01", "a", 10, 20, 40, "disgust")
        >>> audit = AnnotationAudit([ClipAudit(clip, (10, 20, 40), {"robust": (12, 21, 36)})], ("robust",))
        >>> audit.shifts()["offset"].tolist(), audit.uncertain()["offset"].tolist()
        ([-4.0], [True])

    Source: the question is that of GAMDSS (arXiv 2603.04766).
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
        return f"AnnotationAudit({len(self.searched)} clips, {len(self.skipped)} skipped, searches={self.searches})"

    @property
    def searched(self) -> list[ClipAudit]:
        """The clips that were searched."""
        return [clip for clip in self.clips if not clip.error]

    @property
    def skipped(self) -> list[ClipAudit]:
        """The clips that were skipped, each with its ``error``."""
        return [clip for clip in self.clips if clip.error]

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with the annotated rows themselves, searched or not: onset = apex, an offset seconds away."""
        found = []
        for dataset in dict.fromkeys(entry.clip.dataset for entry in self.clips):
            clips = [entry.clip for entry in self.clips if entry.clip.dataset == dataset]
            found += annotation_problems(clips, SCHEMAS.get(dataset))
        return found

    def shifts(self, search: str | None = None, *, unit: str = "frames") -> dict[str, np.ndarray]:
        """Shift of each key frame of the ``searched`` clips, float64; NaN for an apex that the table does not have.

        Args:
            search: ``"annotated"`` or ``"robust"``; default the last that was run.
            unit: ``"frames"``, ``"phase"`` (phase lengths, see :meth:`ClipAudit.relative`) or ``"ms"``.
        """
        name = self._search(search)
        check_choice("unit", unit, ("frames", "phase", "ms"))
        rows = []
        for entry in self.searched:
            row = list(map(float, entry.relative(name) if unit == "phase" else entry.shift(name)))
            if unit == "ms":
                row = [value * 1000 / entry.clip.fps if entry.clip.fps else np.nan for value in row]
            if entry.clip.apex is None:
                row[1] = np.nan
            rows.append(row)
        table = np.array(rows, dtype=np.float64).reshape(-1, 3)
        return {key: table[:, i] for i, key in enumerate(KEYS)}

    def uncertain(self, search: str | None = None) -> dict[str, np.ndarray]:
        """Which key frames of the ``searched`` clips move by more than the threshold, and at least two frames."""
        frames, phase = self.shifts(search), self.shifts(search, unit="phase")
        return {key: (np.abs(phase[key]) > self.threshold) & (np.abs(frames[key]) >= 2) for key in KEYS}

    def groups(self, by: str, search: str | None = None) -> list[Group]:
        """Distribution of the shifts per ``"dataset"``, ``"subject"`` or ``"label"`` (or ``"all"``), largest first."""
        check_choice("by", by, ("all", "dataset", "subject", "label"))
        names = self._subjects() if by == "subject" else [
            "all" if by == "all" else getattr(entry.clip, by) for entry in self.searched
        ]  # fmt: skip
        return group_shifts(names, self.shifts(search), self.shifts(search, unit="phase"), self.uncertain(search))

    def tests(self, search: str | None = None, *, unit: str = "phase") -> list[SpreadTest]:
        """Do onset, apex and offset differ in spread? See :func:`spread_tests`."""
        return spread_tests(self.shifts(search, unit=unit), self._subjects())

    def _subjects(self) -> list[str]:
        """Who is seen in each searched clip, one name however it is spelt; of several datasets with the dataset's."""
        mixed = len({entry.clip.dataset for entry in self.searched}) > 1
        names: dict[str, str] = {}
        found = []
        for clip in (entry.clip for entry in self.searched):
            name = f"{clip.dataset}/{clip.subject}" if mixed else clip.subject
            found.append(names.setdefault(plain_subject(f"{clip.dataset}/{clip.subject}"), name))
        return found

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
        most = check_count("count", count, least=0)
        return sorted(self.searched, key=lambda e: -max(map(abs, e.relative(name))))[:most]

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
        """
        folders = FrameFolders(frames) if frames is not None and not isinstance(frames, FrameFolders) else frames
        count = check_count("worst", worst, least=0)
        write_report(self, Path(folder), frames=folders, search=self._search(search), title=title, worst=count)

    def _search(self, search: str | None) -> str:
        if search is None:
            return self.searches[-1]
        check_choice("search", search, self.searches)
        return search
