"""Records of the annotations room: one annotated expression, what is wrong with a row, what was changed in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["ClipAnnotation", "Problem", "Repair"]


@dataclass(frozen=True)
class ClipAnnotation:
    """One annotated expression, a row of a table.

    Args:
        dataset: name of the schema it was read with.
        subject: as text, ``"01"`` is not ``"1"``; empty where a dataset has none (DFEW).
        clip: the clip's name in the table.
        onset: file number of the first frame of the movement; None where the table has none.
        apex: file number of the strongest frame.
        offset: file number of the last frame.
        label: the label by name, in the dataset's words; several are joined by ``+``.
        labels: the same, one by one.
        action_units: FACS codes as written, for :func:`facs_labels`: ``("L1", "R4")``, ``("12 or 14",)``.
        fps: frames per second of the recording.
        expression: which expression of its row it is, from 1.
        reselect: False: leave this clip's key frames alone when training re-selects them.
        split: ``"train"``, ``"test"`` or ``"val"`` where the dataset fixes it.
        fold: the fold of that split.
        num_frames: how many frames the table promises.
        key: the fields that name the row uniquely.
        folders: where the frames may lie below the root, patterns tried in order.
        table: the file it was read from.
        sheet: its sheet.
        row: its row as a spreadsheet program counts (the header is a row too).
        extra: further columns by name.
        edition: which edition of the dataset's table it was read from, where editions are known to differ.
        unplaced: why it can't be said where its frames lie; finding them is then an error.

    Examples:
        >>> clip = ClipAnnotation("casme2", "01", "EP02_01f", 46, 59, 86, "happiness", ("happiness",))
        >>> clip.offset - clip.onset
        40
    """

    dataset: str
    subject: str
    clip: str
    onset: int | None = None
    apex: int | None = None
    offset: int | None = None
    label: str = ""
    labels: tuple[str, ...] = ()
    action_units: tuple[str, ...] = ()
    fps: float | None = None
    expression: int = 1
    reselect: bool = True
    split: str | None = None
    fold: int | None = None
    num_frames: int | None = None
    key: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    table: str = ""
    sheet: str | None = None
    row: int = 0
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)
    edition: str | None = None
    unplaced: str = ""

    @property
    def place(self) -> str:
        """Table, sheet and row, for messages."""
        sheet = f", sheet {self.sheet!r}" if self.sheet is not None else ""
        return f"{self.table}{sheet}, row {self.row}"

    @property
    def name(self) -> str:
        """The clip in words: subject, clip, and which expression when it is not the first."""
        words = [part for part in (self.subject, self.clip) if part]
        return "/".join(words) + (f"#{self.expression}" if self.expression > 1 else "")


class Problem(NamedTuple):
    """Something wrong with one row.

    Where: ``table``, ``sheet`` (None where there are none), ``row`` as a spreadsheet program counts, ``clip`` (subject
    and clip), ``column`` by its header. What: ``problem``, and ``kind``, one word for all problems alike, to count by.

    Examples:
        >>> print(Problem("codes.csv", None, 3, "03/EP01", "apex", "is missing", "missing key"))
        codes.csv, row 3 (03/EP01): apex is missing
    """

    table: str
    sheet: str | None
    row: int
    clip: str
    column: str
    problem: str
    kind: str = ""

    def __str__(self) -> str:
        sheet = f", sheet {self.sheet!r}" if self.sheet is not None else ""
        return f"{self.table}{sheet}, row {self.row} ({self.clip}): {self.column} {self.problem}"


class Repair(NamedTuple):
    """A change to one row: where it stands, which repair did it, and what changed why.

    ``table``, ``sheet``, ``row`` and ``clip`` are those of a :class:`Problem`; ``repair`` is the repair's name,
    ``reason`` what changed, and why.

    Examples:
        >>> print(Repair("codes.csv", None, 9, "05/EP03", "drop", "dropped (drop: apex is missing)"))
        codes.csv, row 9 (05/EP03): dropped (drop: apex is missing)
    """

    table: str
    sheet: str | None
    row: int
    clip: str
    repair: str
    reason: str

    def __str__(self) -> str:
        sheet = f", sheet {self.sheet!r}" if self.sheet is not None else ""
        return f"{self.table}{sheet}, row {self.row} ({self.clip}): {self.reason}"
