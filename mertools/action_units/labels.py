"""AU labels as they come: OpenFace tables, FACS codes of the datasets, and a compact cache of clip labels."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mertools._files import atomic_write, read_text
from mertools._text import csv_rows
from mertools.action_units.prior import ACTION_UNITS

__all__ = ["OpenFaceAUs", "facs_labels", "read_au_labels", "read_openface", "write_au_labels"]

_COLUMN = re.compile(r"AU(\d{2})_([rc])")  # not a bare `_r`, which p_rx would match too
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?", re.ASCII)  # no inf, no nan, no 1_000
_LARGEST = 2**31 - 1
_INTENSITY_UNITS = tuple(unit for unit in ACTION_UNITS if unit != "AU28")  # OpenFace has no intensity for it
# One code of an annotation: an optional side or part (L, R, T, B, U), AU, the number, intensity A-E, a doubt.
_CODE = re.compile(r"(?:L|R|T|B|U|M)?(?:AU)?(\d{1,2})[A-E]?\??", re.IGNORECASE)


class OpenFaceAUs(NamedTuple):
    """What OpenFace found, frame by frame. A frame without a face is missing (NaN), not without movement.

    Shape:
        - presence: ``(t, 18)`` of 0 and 1, units in the order of ``ACTION_UNITS``; NaN where there was no face
        - intensity: ``(t, 17)`` from 0 to 5, the same without AU28; NaN where there was no face
        - confidence: ``(t,)`` of the face tracker, 0 to 1
        - success: ``(t,)`` bool
        - frame: ``(t,)`` int64, OpenFace's frame number (from 1)

    Source: OpenFace 2 (Baltrušaitis et al., 2018).

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


def read_openface(path: str | os.PathLike[str], *, face: int | None = None) -> OpenFaceAUs:
    """Read the AUs of an OpenFace 2 table (``FeatureExtraction``), whatever the blanks in its header.

    Args:
        path: the csv file; columns are found by name, so other outputs of OpenFace may stand between them.
        face: which ``face_id`` to read, in a table with several faces (a row per face and frame).

    Returns:
        Presence and intensity of the AUs, a row per frame, in the table's order.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: no OpenFace table (columns are missing), no rows, several faces and none chosen, or a cell that is
            no number; the message names the row and column.

    Examples:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "clip.csv"
        >>> units = [f"{u}_r" for u in ACTION_UNITS if u != "AU28"] + [f"{u}_c" for u in ACTION_UNITS]
        >>> with path.open("w") as file:
        ...     print("frame", " face_id", " timestamp", " confidence", " success", *units, sep=", ", file=file)
        ...     print(1, 0, 0.0, 0.9, 1, *[1] * 35, sep=", ", file=file)
        >>> read_openface(path).presence.shape
        torch.Size([1, 18])

    Source: OpenFace 2 (Baltrušaitis et al., 2018). Feed ``presence`` to :func:`clip_au_labels`.
    """
    source = _existing(path)
    lines = csv_rows(read_text(source)[0], str(source))
    header = [cell.strip() for cell in next(lines, (1, []))[1]]
    column = {name: i for i, name in enumerate(header)}
    wanted = ["frame", "confidence", "success"]
    wanted += [f"{unit}_c" for unit in ACTION_UNITS] + [f"{unit}_r" for unit in _INTENSITY_UNITS]
    missing = [name for name in wanted if name not in column]
    if missing:
        have = sum(_COLUMN.fullmatch(name) is not None for name in header)
        raise ValueError(
            f"path must be an OpenFace table with AUs (run FeatureExtraction with -aus), {source} has {have} AU "
            f"columns and lacks {', '.join(missing[:4])}{', ...' if len(missing) > 4 else ''}"
        )
    twice = [name for name in (*wanted, "face_id") if header.count(name) > 1]
    if twice:
        raise ValueError(f"path must name each column once, {source} has {', '.join(twice[:4])} more than once")
    rows = [(number, row) for number, row in lines if any(cell.strip() for cell in row)]
    rows = _one_face(rows, column.get("face_id"), face, source)
    if not rows:
        raise ValueError(f"path holds a header and no frames: {source}")
    table = torch.tensor(
        [[_number(row, column[name], name, number, source) for name in wanted] for number, row in rows],
        dtype=torch.float32,
    )
    success = table[:, 2] > 0
    units = table[:, 3:].masked_fill(~success[:, None], torch.nan)
    frame = torch.tensor([_whole(row, column["frame"], "frame", number, source) for number, row in rows])
    return OpenFaceAUs(units[:, :18], units[:, 18:], table[:, 1], success, frame)


def facs_labels(codes: Sequence[str], *, action_units: Sequence[str] = ACTION_UNITS) -> Tensor:
    """AU labels from the FACS codes of an annotation table, such as ``"L1+R4"``, ``"12 or 14"`` or ``"4+7+10"``.

    A side, a part or an intensity (``L``, ``R``, ``U``, ``12B``) does not matter; ``or`` means that one of the two is
    there, and each counts one half. A code of an existing unit that is not among ``action_units`` has no column and is
    left out.

    Args:
        codes: one string per clip; ``""``, ``"/"``, ``"0"`` or ``"none"`` for no unit.
        action_units: the columns.

    Shape:
        - output: ``(n, a)`` float32 in {0, 0.5, 1}

    Raises:
        TypeError: codes is a single string or holds something else than strings.
        ValueError: something that is no FACS code; the message names the clip.

    Examples:
        >>> facs_labels(["L1+R4", "12 or 14"], action_units=["AU01", "AU04", "AU12", "AU14"])
        tensor([[1.0000, 1.0000, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.5000, 0.5000]])

    Source: Ekman and Friesen, Facial Action Coding System; the spellings are those of CASME II, SAMM and CAS(ME)³.
    """
    if isinstance(codes, str) or not all(isinstance(code, str) for code in codes):
        raise TypeError(f"codes must be a sequence of strings, one per clip, got {codes!r}")
    column = {int(unit[2:]): i for i, unit in enumerate(action_units)}
    labels = torch.zeros(len(codes), len(action_units))
    for i, code in enumerate(codes):
        for unit, value in _units(code, i):
            if unit in column:
                labels[i, column[unit]] = max(labels[i, column[unit]].item(), value)
    return labels


def read_au_labels(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a compact cache of clip labels: a line per clip, its name and 18 values.

    The layout is that of AU-DFER's own cache: `` 00001.csv/1 0 1 0 ...``.

    Args:
        path: the text file.

    Returns:
        Labels ``(18,)`` float32 by name, in the order of the file.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: a line that has not a name and 18 values in [0, 1], or a name that comes twice.

    Examples:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "AU_DFEW.txt"
        >>> _ = path.write_text(" 00001.csv/1 " + "1 0 " * 9)
        >>> read_au_labels(path)["00001.csv/1"].sum()
        tensor(9.)

    Source: the cache ``AU_DFEW.txt`` of AU-DFER's published code.
    """
    source = _existing(path)
    labels: dict[str, Tensor] = {}
    for number, line in enumerate(io.StringIO(read_text(source)[0], newline=None), start=1):
        if not line.strip():
            continue
        name, *values = line.split()
        wrong = [value for value in values if _NUMBER.fullmatch(value) is None and value != "nan"]
        if wrong:
            raise ValueError(f"path has a value that is no number in line {number} of {source}: {wrong[0][:80]!r}")
        row = torch.tensor([float(value) for value in values])
        if len(row) != len(ACTION_UNITS) or not bool(((row >= 0) & (row <= 1) | row.isnan()).all()):
            raise ValueError(
                f"path must hold a name and {len(ACTION_UNITS)} values in [0, 1] a line, got {len(row)} in line "
                f"{number} of {source}: {line.strip()[:80]!r}"
            )
        if name in labels:
            raise ValueError(f"path holds {name!r} twice, again in line {number} of {source}")
        labels[name] = row
    return labels


def write_au_labels(path: str | os.PathLike[str], labels: Mapping[str, Tensor]) -> None:
    """Write what :func:`read_au_labels` reads; whole or not at all.

    Args:
        path: the text file; one that is there is replaced when the new one is complete.
        labels: values ``(18,)`` in [0, 1] (or NaN, no face) by name; names without blanks.

    Raises:
        FileNotFoundError: there is no folder for the file.
        OSError: it can't be written; what was there before is untouched.
        TypeError: labels is no mapping of names to tensors.
        ValueError: a name with blanks, or values that do not fit.

    Examples:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "AU_train.txt"
        >>> write_au_labels(path, {"00001": torch.ones(18)})
        >>> read_au_labels(path)["00001"].sum()
        tensor(18.)

    Source: the cache ``AU_DFEW.txt`` of AU-DFER's published code.
    """
    if not isinstance(labels, Mapping):
        raise TypeError(f"labels must map clip names to tensors, got {type(labels).__name__}")
    lines = []
    for name, row in labels.items():
        if not isinstance(name, str):
            raise TypeError(f"labels must have strings as names, got {name!r}")
        if not isinstance(row, Tensor):
            raise TypeError(f"labels[{name!r}] must be a torch.Tensor ({len(ACTION_UNITS)},), got {type(row).__name__}")
        if not name or name.split() != [name]:
            raise ValueError(f"labels must have names without blanks, got {name!r}")
        values = row.double()
        if row.shape != (len(ACTION_UNITS),) or not bool(((values >= 0) & (values <= 1) | values.isnan()).all()):
            raise ValueError(
                f"labels[{name!r}] must be ({len(ACTION_UNITS)},) in [0, 1], got {tuple(row.shape)}: {row}"
            )
        lines.append(f" {name} " + " ".join(f"{value:.9g}" for value in row.tolist()) + "\n")
    atomic_write(Path(path), "".join(lines).encode())


def _existing(path: str | os.PathLike[str]) -> Path:
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"path must be a file, there is none at {source}")
    return source


def _one_face(
    rows: list[tuple[int, list[str]]], face_column: int | None, face: int | None, source: Path
) -> list[tuple[int, list[str]]]:
    if face_column is None:
        if face not in (None, 0):
            raise ValueError(f"face={face} was asked for, {source} has no face_id column: leave face out")
        return rows
    ids = [_whole(row, face_column, "face_id", number, source) for number, row in rows]
    if face is None and len(set(ids)) > 1:
        raise ValueError(f"face must be given, {source} holds several: {sorted(set(ids))}")
    if face is not None and rows and face not in ids:
        raise ValueError(f"face must be among {sorted(set(ids))} in {source}, got {face}")
    return [row for row, i in zip(rows, ids, strict=True) if face is None or i == face]


def _number(row: list[str], column: int, name: str, line: int, source: Path) -> float:
    got = row[column].strip() if column < len(row) else ""
    if _NUMBER.fullmatch(got) is None:
        what = repr(got[:80]) if got else "nothing"
        raise ValueError(f"path has {what} in column {name} of line {line}, a number was expected: {source}")
    return float(got)


def _whole(row: list[str], column: int, name: str, line: int, source: Path) -> int:
    value = _number(row, column, name, line, source)
    if not value.is_integer() or abs(value) > _LARGEST:
        raise ValueError(f"path has {value:g} in column {name} of line {line}, a whole number was expected: {source}")
    return int(value)


def _units(code: str, clip: int) -> list[tuple[int, float]]:
    """AU numbers of one annotation, each with its certainty."""
    text = code.strip()
    if text.casefold() in ("", "/", "0", "-", "none", "nan"):
        return []
    found = []
    for part in re.split(r"[+,;，、/&]|\band\b", text):
        choices = re.split(r"\bor\b", part.strip(), flags=re.IGNORECASE)
        for choice in choices:
            match = _CODE.fullmatch(choice.strip().replace(" ", ""))
            if match is None or int(match[1]) == 0:
                raise ValueError(
                    f"codes must be FACS codes such as 'L1+R4' or '12 or 14', got {code!r} for clip {clip}"
                )
            found.append((int(match[1]), 1 / len(choices)))
    return found
