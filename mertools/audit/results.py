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
from typing import Any, NamedTuple

import numpy as np

from mertools._checks import check_choice, check_count, check_number
from mertools._files import atomic_write
from mertools._text import csv_text, plain_subject
from mertools.annotations.annotation import ClipAnnotation, Problem
from mertools.annotations.folders import FrameFolders, Frames
from mertools.annotations.quality import annotation_problems
from mertools.annotations.schemas import SCHEMAS
from mertools.audit.report import write_report
from mertools.audit.search import FOUND, SEARCHES
from mertools.audit.statistics import (
    KEYS,
    Group,
    SpreadTest,
    VarianceComponents,
    group_shifts,
    spread_tests,
    variance_components,
)

__all__ = ["AnnotationAudit", "ClipAudit"]

Keys = tuple[int, int, int]
Interval = tuple[int, int]


class Certainty(NamedTuple):
    """What a search itself says of a clip, and how sure it is. All frames are file numbers.

    ``estimate``: onset, apex and offset where the search puts them, before an annotation that lies inside its interval
    was left alone. ``evidence``: how sure it is that a face moves there, 0 to 1; below 0.5 nothing was found.
    ``spread``: half-widths of the intervals in frames, see :class:`KeyFrames`. ``intervals``: first and last frame of
    each, whole frames, a frame at least on either side of the estimate (of the apex: of its plateau), no farther than
    the frames that were looked at. ``plateau``: first and last frame of full extent.

    Examples:
        >>> sure = Certainty((25, 42, 70), 0.97, (2.1, 1.0, 3.8), ((23, 27), (38, 46), (66, 74)), (39, 45))
        >>> sure.holds((24, 50, 71))
        (True, False, True)
    """

    estimate: Keys
    evidence: float
    spread: tuple[float, float, float]
    intervals: tuple[Interval, Interval, Interval]
    plateau: Interval

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Certainty:
        """From what a search hands on; see :func:`mertools.audit.search.search_clip`."""
        onset, apex, offset = map(tuple, found["intervals"])
        estimate, spread, plateau = (tuple(found[name]) for name in ("estimate", "spread", "plateau"))
        return cls(estimate, found["evidence"], spread, (onset, apex, offset), plateau)

    def holds(self, keys: Keys) -> tuple[bool, bool, bool]:
        """Which of these key frames lie inside their intervals."""
        onset, apex, offset = (first <= key <= last for key, (first, last) in zip(keys, self.intervals, strict=True))
        return onset, apex, offset


@dataclass(frozen=True)
class ClipAudit:
    """What the searches make of one clip. All frames are file numbers.

    Args:
        clip: the annotation.
        keys: onset, apex, offset as annotated; a missing apex is the midpoint here.
        found: the same by each search that was run, an annotation inside its interval as it is.
        frames: how many frames of the clip's folder were looked at.
        error: why the clip was skipped, ``""`` if it was not.
        certainty: of the robust search, how sure it is: ``estimate`` (the key frames that it found itself),
            ``evidence``, ``spread``, ``intervals`` (first and last frame around each) and ``plateau``.

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
    certainty: Mapping[str, Certainty] = field(default_factory=dict)

    def nothing_found(self, search: str) -> bool:
        """Whether the search found no movement in the clip: its annotation is neither confirmed nor off."""
        return search in self.certainty and self.certainty[search].evidence < FOUND

    def inside(self, search: str) -> tuple[bool, bool, bool]:
        """Which annotated key frames lie inside the interval of a search; none of a search without intervals."""
        if self.keys is None or search not in self.certainty:
            return False, False, False
        return self.certainty[search].holds(self.keys)

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
        threshold: a shift of more than this share of its phase, and of at least two frames, is uncertain, unless the
            annotation lies inside the interval that the search gives.

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

    def nothing_found(self, search: str | None = None) -> list[ClipAudit]:
        """The ``searched`` clips in which the search found no movement (evidence below 0.5).

        Their annotation stays, and they count in no distribution and no test.
        """
        name = self._search(search)
        return [entry for entry in self.searched if entry.nothing_found(name)]

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with the annotated rows themselves, searched or not: onset = apex, an offset seconds away."""
        found = []
        for dataset in dict.fromkeys(entry.clip.dataset for entry in self.clips):
            clips = [entry.clip for entry in self.clips if entry.clip.dataset == dataset]
            found += annotation_problems(clips, SCHEMAS.get(dataset))
        return found

    def shifts(self, search: str | None = None, *, unit: str = "frames") -> dict[str, np.ndarray]:
        """Shift of each key frame of the ``searched`` clips, float64.

        NaN for an apex that the table does not have, and where no movement was found.

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
            rows.append([np.nan] * 3 if entry.nothing_found(name) else row)
        table = np.array(rows, dtype=np.float64).reshape(-1, 3)
        return {key: table[:, i] for i, key in enumerate(KEYS)}

    def uncertain(self, search: str | None = None) -> dict[str, np.ndarray]:
        """Which key frames of the ``searched`` clips move by more than the threshold, and at least two frames.

        One whose annotation lies inside the interval of the search never does.
        """
        frames, phase, name = self.shifts(search), self.shifts(search, unit="phase"), self._search(search)
        inside = np.array([entry.inside(name) for entry in self.searched], dtype=bool).reshape(-1, 3)
        return {
            key: (np.abs(phase[key]) > self.threshold) & (np.abs(frames[key]) >= 2) & ~inside[:, i]
            for i, key in enumerate(KEYS)
        }

    def groups(self, by: str, search: str | None = None) -> list[Group]:
        """Distribution of the shifts per ``"dataset"``, ``"subject"`` or ``"label"`` (or ``"all"``), largest first.

        Of the clips with a movement only.
        """
        check_choice("by", by, ("all", "dataset", "subject", "label"))
        name = self._search(search)
        names = self._subjects() if by == "subject" else [
            "all" if by == "all" else getattr(entry.clip, by) for entry in self.searched
        ]  # fmt: skip
        rows = [i for i, entry in enumerate(self.searched) if not entry.nothing_found(name)]
        shifts = (self.shifts(name), self.shifts(name, unit="phase"), self.uncertain(name))
        return group_shifts([names[i] for i in rows], *({key: x[rows] for key, x in part.items()} for part in shifts))

    def tests(self, search: str | None = None, *, unit: str = "phase") -> list[SpreadTest]:
        """Do onset, apex and offset differ in spread? See :func:`spread_tests`."""
        return spread_tests(self.shifts(search, unit=unit), self._subjects())

    def variance_components(self, search: str | None = None) -> list[VarianceComponents]:
        """How far annotators scatter, apart from how far the search does: a row per key frame, then per dataset.

        See :func:`mertools.audit.statistics.variance_components`. It takes what the search itself found in the clips
        with a movement. Empty for a search without intervals.

        Examples:
            >>> clips = []
            >>> for i, onset in enumerate((7, 9, 11, 13)):
            ...     found, ends = (onset, 20, 40), ((onset - 1, onset + 1), (18, 22), (39, 41))
            ...     sure = Certainty(found, 0.9, (1.0, 1.0, 1.0), ends, (19, 21))
            ...     clip = ClipAnnotation("casme2", f"{i:02d}", "a", 10, 20, 40)
            ...     clips.append(ClipAudit(clip, (10, 20, 40), {"robust": found}, certainty={"robust": sure}))
            >>> onset = AnnotationAudit(clips, ("robust",)).variance_components()[0]
            >>> onset.key, round(onset.total, 1), round(onset.method, 1), round(onset.annotators, 1)
            ('onset', 2.6, 0.6, 2.5)
        """
        name = self._search(search)
        rows = [(e, subject) for e, subject in zip(self.searched, self._subjects(), strict=True) if name in e.certainty]
        rows = [(entry, subject) for entry, subject in rows if not entry.nothing_found(name)]
        groups = {
            name: [row for row in rows if row[0].clip.dataset == name]
            for name in sorted({e.clip.dataset for e, _ in rows})
        }
        found = []
        for group, part in (("all", rows), *(groups.items() if len(groups) > 1 else ())):
            for i, key in enumerate(KEYS):
                some = [
                    (e, subject) for e, subject in part if e.keys is not None and (i != 1 or e.clip.apex is not None)
                ]
                if not some:
                    continue
                sure = [entry.certainty[name] for entry, _ in some]
                difference = [e.keys[i] - s.estimate[i] for (e, _), s in zip(some, sure, strict=True) if e.keys]
                choice = [s.plateau[1] - s.plateau[0] + 1 if key == "apex" else 1 for s in sure]
                found.append(
                    variance_components(
                        group, key, difference, [s.spread[i] for s in sure], [subject for _, subject in some], choice
                    )
                )
        return found

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
        """The annotations with the key frames that the search found; those without, and skipped ones, as they were."""
        name = self._search(search)
        fixed = []
        for entry in self.clips:
            clip = entry.clip
            if name in entry.found and not entry.nothing_found(name):
                onset, apex, offset = entry.found[name]
                clip = replace(clip, onset=onset, apex=apex, offset=offset)
            fixed.append(clip)
        return fixed

    def worst(self, count: int, search: str | None = None) -> list[ClipAudit]:
        """The clips with the largest relative shifts, worst first; those without a movement last."""
        name = self._search(search)
        most = check_count("count", count, least=0)
        return sorted(self.searched, key=lambda e: (e.nothing_found(name), -max(map(abs, e.relative(name)))))[:most]

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a row per clip: annotation, what each search found, the shifts, or why it was skipped.

        Of a search with intervals also its evidence, what it found itself (``estimate``), first and last frame of the
        interval and half-width (``spread``) of each key frame. ``outcome`` says which key frames are uncertain, or that
        no movement was found; then there are no shifts.

        A name that a spreadsheet would run as a formula has an apostrophe in front.
        """
        head = ["dataset", "subject", "clip", "expression", "label", "table", "sheet", "row", *KEYS]
        for name in self.searches:
            head += [f"{key}_{name}" for key in KEYS]
            head += [f"{key}_shift_{name}" for key in KEYS] + [f"{key}_relative_{name}" for key in KEYS]
            head += [f"outcome_{name}", f"evidence_{name}"]
            head += [f"{key}_{part}_{name}" for key in KEYS for part in ("estimate", "earliest", "latest", "spread")]
        rows: list[list[Any]] = [[*head, "frames", "error"]]
        outcomes = {name: iter(self._outcomes(name)) for name in self.searches}
        for entry in self.clips:
            clip = entry.clip
            row: list[Any] = [clip.dataset, clip.subject, clip.clip, clip.expression, clip.label, clip.table]
            row += [clip.sheet or "", clip.row, *("" if k is None else k for k in (clip.onset, clip.apex, clip.offset))]
            for name in self.searches:
                if entry.error:
                    row += [""] * 23
                    continue
                row += entry.found[name]
                if entry.nothing_found(name):
                    row += [""] * 6
                else:
                    row += [*entry.shift(name), *(f"{x:.6g}" for x in entry.relative(name))]
                row += [next(outcomes[name]), *_certainty_cells(entry.certainty.get(name))]
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

    def _outcomes(self, search: str) -> list[str]:
        """In words, what came of each searched clip."""
        flags = self.uncertain(search)
        words = [", ".join(key for key in KEYS if flags[key][i]) for i in range(len(self.searched))]
        return [
            "no movement found" if entry.nothing_found(search) else f"uncertain: {word}" if word else "agrees"
            for entry, word in zip(self.searched, words, strict=True)
        ]

    def _search(self, search: str | None) -> str:
        if search is None:
            return self.searches[-1]
        check_choice("search", search, self.searches)
        return search


def _certainty_cells(sure: Certainty | None) -> list[Any]:
    if sure is None:
        return [""] * 13
    cells: list[Any] = [f"{sure.evidence:.6g}"]
    for estimate, ends, spread in zip(sure.estimate, sure.intervals, sure.spread, strict=True):
        cells += [estimate, *ends, f"{spread:.6g}"]
    return cells
