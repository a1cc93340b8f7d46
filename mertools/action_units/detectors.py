"""AU tables that detectors write, frame by frame: OpenFace 2, OpenFace 3, py-feat (Fex) and LibreFace.

``read_action_units`` knows the tool by the header of its csv and gives one record for all of them; ``read_openface``
gives OpenFace 2 in its own layout. A frame without a face is missing (NaN), not without movement.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mertools._checks import as_integer, check_number
from mertools._files import read_text
from mertools._text import csv_rows
from mertools.action_units.prior import ACTION_UNITS

__all__ = ["ActionUnitTable", "OpenFaceAUs", "read_action_units", "read_openface"]

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?", re.ASCII)  # no inf, no nan, no 1_000
_NOT_A_NUMBER = re.compile(r"[+-]?nan(?:\(.*\))?|", re.IGNORECASE)  # -nan(ind) is what Windows prints
_LARGEST = 2**31 - 1
_SLIGHTLY = 1.0  # intensities below 0 and not below -1 are a regression's noise around 0
_INTENSITY_UNITS = tuple(unit for unit in ACTION_UNITS if unit != "AU28")  # OpenFace 2 has no intensity for it
# OpenFace 3 names none of its 8 outputs. It is trained on DISFA's label files in the order of their names as text, from
# which it takes the numbers 0, 4, 8, 10, 11, 1, 6, 7: the eight units that papers on DISFA report, in order.
_OPENFACE3_UNITS = ("AU01", "AU02", "AU04", "AU06", "AU09", "AU12", "AU25", "AU26")


class OpenFaceAUs(NamedTuple):
    """What OpenFace 2 found, frame by frame. A frame without a face is missing (NaN), not without movement.

    Shape:
        - presence: ``(t, 18)`` of 0 and 1, units in the order of ``ACTION_UNITS``
        - intensity: ``(t, 17)`` from 0 to 5, the same without AU28
        - confidence: ``(t,)`` of the face tracker, 0 to 1; success: ``(t,)`` bool
        - frame: ``(t,)`` int64, OpenFace's frame number (from 1)
        - notes: what was mended on the way, each with a count; empty for a clean table

    Examples:
        >>> seen = OpenFaceAUs(*torch.zeros(5, 3).unbind(0))
        >>> seen.confidence
        tensor([0., 0., 0.])
    """

    presence: Tensor
    intensity: Tensor
    confidence: Tensor
    success: Tensor
    frame: Tensor
    notes: tuple[str, ...] = ()


class ActionUnitTable(NamedTuple):
    """What an AU detector found, frame by frame, whichever it was.

    Shape:
        - source: ``"OpenFace 2"``, ``"OpenFace 3"``, ``"py-feat"`` or ``"LibreFace"``
        - action_units: a names, those of ``ACTION_UNITS`` that the table has, for ``au_prior(action_units=...)``
        - presence: ``(t, a)`` of 0 and 1; intensity: ``(t, a)`` from 0 to 5, NaN where the tool has none
        - confidence: ``(t,)`` of the face detector, NaN where the tool tells none; success: ``(t,)`` bool, a face?
        - frame: ``(t,)`` int64, the tool's own number: from 1 in OpenFace 2, from 0 in the others
        - notes: what was mended or derived on the way, each with a count; empty for a clean table

    Examples:
        >>> ActionUnitTable("py-feat", ("AU12",), *torch.ones(5, 1, 1).unbind(0)).action_units
        ('AU12',)
    """

    source: str
    action_units: tuple[str, ...]
    presence: Tensor
    intensity: Tensor
    confidence: Tensor
    success: Tensor
    frame: Tensor
    notes: tuple[str, ...] = ()


def read_openface(path: str | os.PathLike[str], *, face: int | None = None, threshold: float = 1.0) -> OpenFaceAUs:
    """Read the AUs of an OpenFace 2 table (``FeatureExtraction``, ``FaceLandmarkImg``), whatever blanks its header has.

    A row per frame, in the table's order; feed ``presence`` ``(t, 18)`` to :func:`clip_au_labels`. What is mended is
    said in ``notes``: slightly negative intensities become 0, a last line that was cut off and a line that is there
    twice are left out, units that have an intensity and no presence column get theirs by ``threshold``. What can't be
    is an error that names the line and column.

    Args:
        path: the csv file; columns are found by name, so other outputs of OpenFace may stand between them.
        face: which ``face_id`` to read, in a table with several faces (a row per face and frame).
        threshold: intensity, in [0, 5], from which a unit is present where the table has ``_r`` columns only.

    Examples:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "clip.csv"
        >>> units = [f"{u}_r" for u in ACTION_UNITS if u != "AU28"] + [f"{u}_c" for u in ACTION_UNITS]
        >>> with path.open("w") as file:
        ...     print("frame", " face_id", " timestamp", " confidence", " success", *units, sep=", ", file=file)
        ...     print(1, 0, 0.0, 0.9, 1, *[1] * 35, sep=", ", file=file)
        >>> read_openface(path).presence.shape
        torch.Size([1, 18])

    Source: OpenFace 2 (Baltrušaitis et al., 2018).
    """
    threshold = check_number("threshold", threshold, 0, 5)
    return _openface2(_Table(path), _face(face), threshold)


def read_action_units(
    path: str | os.PathLike[str], *, face: int | None = None, threshold: float | None = None
) -> ActionUnitTable:
    r"""Read the AUs of a detector's table and tell by its header which detector it was.

    ======================  ===================================  ==========================================
    ``source``              known by the columns                 presence
    ======================  ===================================  ==========================================
    ``"OpenFace 2"``        ``AU12_r``, ``AU12_c``               as written, or intensity ≥ 1
    ``"OpenFace 3"``        ``action_units``, ``gaze_yaw``       output ≥ 0.5, of 8 units
    ``"py-feat"``           ``AU12``, ``FaceRectX``              probability ≥ 0.5
    ``"LibreFace"``         ``au_12``, ``au_12_intensity``       as written, or intensity ≥ 1
    ======================  ===================================  ==========================================

    The record's ``presence`` ``(t, a)`` goes to :func:`clip_au_labels`, its ``action_units`` to :func:`au_prior`.

    Args:
        path: the csv file.
        face: in a table with several faces, which ``face_id`` to read; where a tool writes none, which row of a frame,
            from 0.
        threshold: from which probability or intensity a unit is present, in the place of the table's second half.

    Examples:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "fex.csv"
        >>> _ = path.write_text("frame,FaceRectX,FaceScore,AU12,AU43\n0,10,0.99,0.8,0.1\n1,,,,\n")
        >>> found = read_action_units(path)
        >>> found.source, found.action_units, found.presence.flatten()
        ('py-feat', ('AU12',), tensor([1., nan]))

    Source: the tables of OpenFace 2.2, OpenFace 3 (``openface-test`` 0.1.26), py-feat and LibreFace 0.2.
    """
    table = _Table(path)
    which = next((name for name, known in _KNOWN_BY.items() if known(table.header)), None)
    if which is None:
        raise ValueError(
            f"path must be a table of {', '.join(_KNOWN_BY)} with action units, {table.source} begins with "
            f"{', '.join(table.header[:6])}"
        )
    intensities = which in ("OpenFace 2", "LibreFace")
    limit = 5 if intensities else 1
    given = (1.0 if intensities else 0.5) if threshold is None else check_number("threshold", threshold, 0, limit)
    if which == "OpenFace 2":
        seen = _openface2(table, _face(face), given)
        missing = seen.intensity.new_full((len(seen.frame), 1), torch.nan)
        place = ACTION_UNITS.index("AU28")
        intensity = torch.cat([seen.intensity[:, :place], missing, seen.intensity[:, place:]], 1)
        return ActionUnitTable(which, ACTION_UNITS, seen.presence, intensity, *seen[2:])
    read = {"OpenFace 3": _openface3, "py-feat": _pyfeat, "LibreFace": _libreface}[which]
    return read(table, _face(face), given)


_KNOWN_BY: dict[str, Callable[[list[str]], bool]] = {
    "OpenFace 2": lambda header: any(re.fullmatch(r"AU\d\d_[rc]", name) for name in header),
    "OpenFace 3": lambda header: {"action_units", "gaze_yaw"} <= set(header),
    "py-feat": lambda header: "FaceRectX" in header and any(re.fullmatch(r"AU\d\d", name) for name in header),
    "LibreFace": lambda header: any(re.fullmatch(r"au_\d{1,2}(_intensity)?", name.lower()) for name in header),
}


# --- one reader a tool ----------------------------------------------------------------------------------------------


def _openface2(table: _Table, face: int | None, threshold: float) -> OpenFaceAUs:
    image = "face" in table.column and "frame" not in table.column  # FaceLandmarkImg: a row a face, all of them found
    present, strong = [f"{unit}_c" for unit in ACTION_UNITS], [f"{unit}_r" for unit in _INTENSITY_UNITS]
    have = [name for name in (*present, *strong) if name in table.column]
    # Some exports have one of the two kinds only; AU28, which has no intensity, stands in either or in none.
    only_strong, only_present = set(have) <= {*strong, "AU28_c"}, set(have) <= set(present)
    wanted = ["confidence"] if image else ["frame", "confidence", "success"]
    wanted += [] if only_strong else present
    wanted += [] if only_present and not only_strong else strong
    missing = [name for name in wanted if name not in table.column]
    if missing:
        raise ValueError(
            f"path must be an OpenFace table with AUs (run FeatureExtraction with -aus), {table.source} has "
            f"{len(have)} AU columns and lacks {', '.join(missing[:4])}{', ...' if len(missing) > 4 else ''}"
        )
    table.check_once((*wanted, *have, "face_id", "face"))
    table.keep_face("face" if image else "face_id", face, frame=None if image else "frame")
    if image:
        success, frame = torch.ones(len(table.rows), dtype=torch.bool), torch.arange(1, len(table.rows) + 1)
    else:
        success = torch.tensor([table.number(row, "success", number) > 0 for number, row in table.rows])
        frame = table.whole_numbers("frame")
    confidence = table.numbers(["confidence"], ~success)[:, 0]
    presence, intensity = table.presences(present, ~success), table.intensities(strong, ~success)
    if only_strong:
        presence[:, [ACTION_UNITS.index(unit) for unit in _INTENSITY_UNITS]] = _present(intensity, threshold)
        table.notes.append(f"presence is by intensities of at least {threshold:g}: the table has no _c columns")
        if "AU28_c" not in have:
            table.notes.append("AU28, which has no intensity, is missing")
    elif only_present:
        table.notes.append("intensities are missing: the table has no _r columns")
    return OpenFaceAUs(presence, intensity, confidence, success, frame, tuple(table.notes))


def _openface3(table: _Table, face: int | None, threshold: float) -> ActionUnitTable:
    number = "frame_index" if "frame_index" in table.column else None
    table.check_once(("action_units", "face_id", "frame_index"))
    table.keep_face("face_id", face, frame=number)
    outputs = []
    for line, row in table.rows:
        cell = table.cell(row, "action_units").strip("[] ")
        values = [part.strip() for part in cell.split(",")] if cell else []
        if values and (len(values) != 8 or not all(_NUMBER.fullmatch(value) for value in values)):
            raise ValueError(
                f"path has {cell[:80]!r} in column action_units of line {line}, 8 numbers were expected: {table.source}"
            )
        outputs.append([float(value) for value in values] or [torch.nan] * 8)
    output = torch.tensor(outputs)
    table.check_range(["action_units"] * 8, output, 0, 1)
    return _of_outputs("OpenFace 3", table, _OPENFACE3_UNITS, output, threshold, number)


def _pyfeat(table: _Table, face: int | None, threshold: float) -> ActionUnitTable:
    units = [unit for unit in ACTION_UNITS if unit in table.column]
    number = "frame" if "frame" in table.column else None
    table.check_once((*units, "frame", "FaceScore"))
    table.keep_face(None, face, frame=number)
    output = table.numbers(units)
    table.check_range(units, output, 0, 1)
    found = _of_outputs("py-feat", table, tuple(units), output, threshold, number)
    return found._replace(confidence=table.numbers(["FaceScore"])[:, 0])


def _of_outputs(
    source: str, table: _Table, units: tuple[str, ...], output: Tensor, threshold: float, number: str | None
) -> ActionUnitTable:
    """The record of a tool that gives each unit a number in [0, 1]."""
    empty = torch.full_like(output, torch.nan)
    frame = table.whole_numbers(number) if number else torch.arange(len(output))
    success = ~output.isnan().all(1)
    presence = _present(output, threshold)
    return ActionUnitTable(source, units, presence, empty, empty[:, 0], success, frame, tuple(table.notes))


def _libreface(table: _Table, face: int | None, threshold: float) -> ActionUnitTable:
    table.lower_case()
    names = {unit: f"au_{int(unit[2:])}" for unit in ACTION_UNITS}
    units = tuple(u for u in ACTION_UNITS if {names[u], f"{names[u]}_intensity"} & table.column.keys())
    number = "frame_idx" if "frame_idx" in table.column else None
    present, strong = [names[u] for u in units], [f"{names[u]}_intensity" for u in units]
    table.check_once(("frame_idx", *present, *strong))
    table.keep_face(None, face, frame=number)
    presence, intensity = table.presences(present), table.intensities(strong, above=True)
    derived = [i for i, name in enumerate(present) if name not in table.column]
    if derived:
        presence[:, derived] = _present(intensity[:, derived], threshold)
        shown = ", ".join(units[i] for i in derived)
        table.notes.append(f"presence of {shown} is by intensities of at least {threshold:g}")
    confidence = torch.full((len(presence),), torch.nan)
    frame = table.whole_numbers(number) if number else torch.arange(len(presence))
    success = ~presence.isnan().all(1)
    return ActionUnitTable("LibreFace", units, presence, intensity, confidence, success, frame, tuple(table.notes))


def _present(values: Tensor, threshold: float) -> Tensor:
    return (values >= threshold).float().masked_fill(values.isnan(), torch.nan)


def _face(face: int | None) -> int | None:
    if face is None:
        return None
    number = as_integer(face)
    if number is None:
        raise ValueError(f"face must be an integer, got {face!r}")
    return number


# --- a table of numbers ---------------------------------------------------------------------------------------------


class _Table:
    """The rows of a csv with their line numbers, read as numbers by the names of the columns."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.source = Path(path)
        if not self.source.is_file():
            raise FileNotFoundError(f"path must be a file, there is none at {self.source}")
        lines = csv_rows(read_text(self.source)[0], str(self.source))
        self.header = [cell.strip() for cell in next(lines, (1, []))[1]]
        self.column = {name: i for i, name in enumerate(self.header)}
        self.rows = [(number, row) for number, row in lines if any(cell.strip() for cell in row)]
        self.notes: list[str] = []
        if len(self.rows) > 1 and len(self.rows[-1][1]) < len(self.header):
            self.notes.append(f"line {self.rows[-1][0]}, the last one, is cut off and left out")
            del self.rows[-1]
        for number, row in self.rows:
            if len(row) < len(self.header):
                raise ValueError(
                    f"path has {len(row)} cells in line {number}, {len(self.header)} were expected: {self.source}"
                )

    def lower_case(self) -> None:
        self.header = [name.lower() for name in self.header]
        self.column = {name: i for i, name in enumerate(self.header)}

    def check_once(self, names: Iterable[str]) -> None:
        if twice := [name for name in dict.fromkeys(names) if self.header.count(name) > 1]:
            shown = ", ".join(twice[:4])
            raise ValueError(f"path must name each column once, {self.source} has {shown} more than once")

    def keep_face(self, ids: str | None, face: int | None, *, frame: str | None) -> None:
        """Leave one face: by the column that numbers them, or by its place among the rows of its frame."""
        if ids is not None and ids in self.column:
            self._keep_numbered(ids, face)
            self._drop_repeated(frame)
        else:
            repeated = self._keep_counted(frame, face)
            if repeated:
                self._drop_repeated(frame)
        if not self.rows:
            raise ValueError(f"path holds a header and no frames: {self.source}")

    def _keep_numbered(self, ids: str, face: int | None) -> None:
        # A frame without a face has no number where the tool leaves it blank: it belongs to all.
        blank = [_NOT_A_NUMBER.fullmatch(self.cell(row, ids)) is not None for _, row in self.rows]
        found = [
            None if empty else self.whole(row, ids, number)
            for empty, (number, row) in zip(blank, self.rows, strict=True)
        ]
        known = sorted({i for i in found if i is not None})
        if face is None and len(known) > 1:
            raise ValueError(f"face must be given, {self.source} holds several: {known}")
        if face is not None and known and face not in known:
            raise ValueError(f"face must be among {known} in {self.source}, got {face}")
        self.rows = [row for row, i in zip(self.rows, found, strict=True) if face is None or i in (face, None)]

    def _keep_counted(self, frame: str | None, face: int | None) -> bool:
        """Whether it is one face, so that a frame that comes again is a frame twice."""
        seen: dict[int, int] = {}
        places = []
        for number, row in self.rows:
            key = self.whole(row, frame, number) if frame else 0
            places.append(seen.get(key, 0))
            seen[key] = places[-1] + 1
        if face is None or max(places, default=0) == 0:
            if face not in (None, 0):
                raise ValueError(f"face={face} was asked for, {self.source} has no face_id column: leave face out")
            return frame is not None
        if not 0 <= face <= max(places):
            raise ValueError(f"face must be among {[*range(max(places) + 1)]} in {self.source}, got {face}")
        self.notes.append(f"face {face} is the row of that place among those of its frame: the table numbers no faces")
        self.rows = [row for row, place in zip(self.rows, places, strict=True) if place == face]
        return False

    def _drop_repeated(self, frame: str | None) -> None:
        if frame is None:
            return
        seen: dict[int, tuple[int, list[str]]] = {}
        kept = []
        for number, row in self.rows:
            key = self.whole(row, frame, number)
            first = seen.setdefault(key, (number, row))
            if first[0] == number:
                kept.append((number, row))
            elif [cell.strip() for cell in first[1]] != [cell.strip() for cell in row]:
                raise ValueError(
                    f"path has frame {key} twice with different values, in lines {first[0]} and {number} of "
                    f"{self.source}: one run and one face belong into a file"
                )
        if len(kept) < len(self.rows):
            self.notes.append(f"{len(self.rows) - len(kept)} lines are there twice and count once")
        self.rows = kept

    def cell(self, row: list[str], name: str) -> str:
        return row[self.column[name]].strip()

    def number(self, row: list[str], name: str, line: int) -> float:
        got = self.cell(row, name)
        if _NUMBER.fullmatch(got) is None:
            what = repr(got[:80]) if got else "nothing"
            raise ValueError(f"path has {what} in column {name} of line {line}, a number was expected: {self.source}")
        return float(got)

    def whole(self, row: list[str], name: str, line: int) -> int:
        value = self.number(row, name, line)
        if not value.is_integer() or abs(value) > _LARGEST:
            raise ValueError(
                f"path has {value:g} in column {name} of line {line}, a whole number was expected: {self.source}"
            )
        return int(value)

    def whole_numbers(self, name: str) -> Tensor:
        return torch.tensor([self.whole(row, name, number) for number, row in self.rows], dtype=torch.int64)

    def numbers(self, names: Iterable[str], blank: Tensor | None = None) -> Tensor:
        """``(t, columns)`` float32, NaN for columns that are not there.

        What is no number is NaN in the rows that ``blank`` marks (default all), and an error in the others.
        """
        may_miss = [True] * len(self.rows) if blank is None else blank.tolist()
        columns = []
        for name in names:
            if name not in self.column:
                columns.append([torch.nan] * len(self.rows))
                continue
            columns.append([
                torch.nan if miss and _NOT_A_NUMBER.fullmatch(self.cell(row, name)) else self.number(row, name, number)
                for miss, (number, row) in zip(may_miss, self.rows, strict=True)
            ])  # fmt: skip
        return torch.tensor(columns, dtype=torch.float32).view(-1, len(self.rows)).T.contiguous()

    def intensities(self, names: list[str], blank: Tensor | None = None, *, above: bool = False) -> Tensor:
        """``(t, columns)`` within 0 and 5: what is slightly below (or ``above``, anything above) is set to the end."""
        values = self._faces(names, blank)
        self.check_range(names, values, -_SLIGHTLY, torch.inf if above else 5)
        for outside, words in ((values < 0, "below 0 became 0"), (values > 5, "above 5 became 5")):
            if many := int(outside.sum()):
                self.notes.append(f"{many} intensit{'y' if many == 1 else 'ies'} {words}")
        return values.clamp(0, 5)

    def presences(self, names: list[str], blank: Tensor | None = None) -> Tensor:
        """``(t, columns)`` of 0 and 1."""
        values = self._faces(names, blank)
        self._refuse(names, values, ~((values == 0) | (values == 1) | values.isnan()), "0 or 1")
        return values

    def check_range(self, names: list[str], values: Tensor, low: float, high: float) -> None:
        # Rounding aside: a cosine may be 1.0000001.
        self._refuse(names, values, (values < low - 1e-5) | (values > high + 1e-5), f"{low:g} to {high:g}")

    def _faces(self, names: list[str], blank: Tensor | None) -> Tensor:
        values = self.numbers(names, blank)
        return values if blank is None else values.masked_fill(blank[:, None], torch.nan)

    def _refuse(self, names: list[str], values: Tensor, wrong: Tensor, expected: str) -> None:
        if bool(wrong.any()):
            row, column = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"path has {float(values[row, column]):g} in column {names[column]} of line {self.rows[row][0]}, "
                f"{expected} was expected: {self.source}"
            )
