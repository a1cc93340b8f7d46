"""Rows of a score book, and the book as JSON (rows and summary), as CSV (rows for a spreadsheet) and as text.

The same book gives the same bytes. Names come from files and folders, so a cell of the CSV that a spreadsheet would run
as a formula is escaped when it is written and plain again when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mertools._files import json_object, read_bytes, read_text
from mertools._text import bare_cell, csv_rows, csv_text
from mertools.action_units.expressions import class_key, class_names

__all__ = ["Prediction"]

FORMAT = "mertools scores 1"
SCORES = ("uf1", "uar", "war")
NOT_STATED = "not stated"


class Prediction(NamedTuple):
    """What was predicted for one clip.

    ``clip`` is a name, unique in its book; ``subject``, ``dataset`` and ``fold`` are empty where unknown; ``target``
    and ``predicted`` are class indices.

    Examples:
        >>> row = Prediction("s1/a", "s1", "casme2", "s1", target=0, predicted=1)
        >>> row.target == row.predicted
        False
    """

    clip: str
    subject: str
    dataset: str
    fold: str
    target: int
    predicted: int


COLUMNS = (*Prediction._fields, "selection")


class Contents(NamedTuple):
    """What a file holds."""

    classes: tuple[str, ...]
    selection: str
    rows: list[Prediction]
    summary: Mapping[str, Any]


def book_json(classes: Sequence[str], selection: str, rows: Sequence[Prediction], summary: Mapping[str, Any]) -> str:
    """The book as JSON: what it is, the summary, and the rows with their classes by name."""
    named = [row._asdict() | {"target": classes[row.target], "predicted": classes[row.predicted]} for row in rows]
    book = {
        "format": FORMAT,
        "classes": list(classes),
        "selection": selection,
        "summary": summary,
        "predictions": named,
    }
    return json.dumps(book, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_book_json(path: Path) -> Contents:
    """Read what :func:`book_json` wrote; errors name the file and the line or prediction."""
    data = json_object(read_bytes(_existing(path)), path)
    if data.get("format") != FORMAT:
        raise ValueError(f"{path} holds no scores: {FORMAT!r} was expected as its format")
    classes, rows, selection = data.get("classes"), data.get("predictions"), data.get("selection")
    if not isinstance(classes, list):
        raise ValueError(f"{path}: classes must be a list of names, got {classes!r}")
    try:
        class_names(classes)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(rows, list) or not isinstance(data.get("summary"), dict):
        raise ValueError(f"{path}: predictions must be a list, and summary an object")
    if not isinstance(selection, str):
        raise ValueError(f"{path}: selection must be text, got {selection!r}")
    found = _Rows(classes)
    for number, row in enumerate(rows, start=1):
        place = f"{path}, prediction {number}"
        if not isinstance(row, dict) or set(row) != set(Prediction._fields):
            raise ValueError(f"{place}: must have {', '.join(Prediction._fields)}, got {row!r}")
        found.add(place, row)
    return Contents(tuple(classes), selection, found.rows, data["summary"])


def book_csv(classes: Sequence[str], selection: str, rows: Sequence[Prediction]) -> str:
    """The rows as CSV, classes by name and the selection in every row."""
    cells = [(*row[:4], classes[row.target], classes[row.predicted], selection) for row in rows]
    return csv_text([COLUMNS, *cells])


def read_book_csv(path: Path, classes: Sequence[str]) -> Contents:
    """Read what :func:`book_csv` wrote; errors name the file, the row and the column."""
    lines = csv_rows(read_text(_existing(path))[0], str(path))
    header = next(lines, (1, []))[1]
    if tuple(header) != COLUMNS:
        raise ValueError(f"{path}, row 1: the columns must be {', '.join(COLUMNS)}, got {', '.join(header)!r}")
    found = _Rows(classes)
    selection: str | None = None
    for number, cells in lines:
        place = f"{path}, row {number}"
        if len(cells) != len(COLUMNS):
            raise ValueError(f"{place}: {len(COLUMNS)} cells were expected, got {len(cells)}")
        row = dict(zip(COLUMNS, map(bare_cell, cells), strict=True))
        chosen = row.pop("selection")
        if selection not in (None, chosen):
            raise ValueError(f"{place}: selection is {chosen!r}, in the rows before it was {selection!r}")
        selection = chosen
        found.add(place, row)
    if selection is None:
        raise ValueError(f"{path} holds no predictions")
    return Contents(tuple(classes), selection, found.rows, {})


def summary_text(summary: Mapping[str, Any]) -> str:
    """The summary as a table for a terminal."""
    subjects, intervals = summary["subjects"], summary["intervals"]
    who = f"{subjects} subject{'s' * (subjects != 1)}" if subjects else "subjects unknown"
    lines = [
        f"{summary['clips']} clip{'s' * (summary['clips'] != 1)}, {who}, {len(summary['classes'])} classes",
        f"selection: {summary['selection'] or NOT_STATED}",
        "",
    ]
    for name in SCORES:
        ends = "" if intervals is None else "  [{:.4f}, {:.4f}]".format(*intervals[name])
        lines.append(f"{name.upper()}  {summary[name]:.4f}{ends}")
    if intervals is not None:
        lines.append(f"{100 * intervals['level']:g} % intervals over {intervals['units']} {intervals['over']}s")
    if summary["absent_classes"]:
        meaning = {"skip": "left out of UAR", "zero": "counted 0"}[summary["absent"]]
        lines.append(f"without clips, {meaning}: {', '.join(summary['absent_classes'])}")
    rows = [["class", "precision", "recall", "F1", "clips"]]
    for name, scores in summary["per_class"].items():
        parts = [scores[key] for key in ("precision", "recall", "f1")]
        rows.append([name, *("–" if x is None else f"{x:.4f}" for x in parts), str(scores["support"])])
    counts = [["true \\ predicted", *summary["classes"]]]
    counts += [[name, *map(str, row)] for name, row in zip(summary["classes"], summary["confusion"], strict=True)]
    return "\n".join([*lines, "", *_aligned(rows), "", *_aligned(counts)])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with columns under each other, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def check_text(name: str, value: object, *, empty: bool = False) -> str:
    """A name that a text file can hold: a string without control characters or halves of surrogate pairs."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be strings, got {value!r}: use str() to make names of numbers")
    if not value and not empty:
        raise ValueError(f"{name} must be names, got an empty one")
    if any(letter < " " or "\x7f" <= letter <= "\x9f" or "\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{name} must be text without control characters, got {value!r}")
    return str(value)  # NumPy's strings are strings, but do not look like it


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"path must be a file of scores, there is none at {path}")
    return path


class _Rows:
    """Rows on their way from a file, checked one by one."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.index = {class_key(name): i for i, name in enumerate(classes)}
        self.rows: list[Prediction] = []
        self.places: dict[str, str] = {}

    def add(self, place: str, row: Mapping[str, object]) -> None:
        try:
            clip, subject, dataset, fold = (
                check_text(name, row[name], empty=name != "clip") for name in Prediction._fields[:4]
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"{place}: {error}") from error
        labels = []
        for name in ("target", "predicted"):
            label = row[name]
            if not isinstance(label, str) or class_key(label) not in self.index:
                raise ValueError(f"{place}: {name} is {label!r}, which is none of {', '.join(self.classes)}")
            labels.append(self.index[class_key(label)])
        if clip in self.places:
            raise ValueError(f"{place}: clip {clip!r} is already in {self.places[clip].rpartition(', ')[2]}")
        self.places[clip] = place
        self.rows.append(Prediction(clip, subject, dataset, fold, *labels))
