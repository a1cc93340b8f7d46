"""A score book as JSON (rows and summary) and as CSV (rows for a spreadsheet), the same bytes for the same book.

A cell that begins with ``=``, ``+``, ``-`` or ``@`` is run as a formula by spreadsheet programs. Names come from files
and folders, so such a cell gets an apostrophe in front when it is written, and loses it when it is read.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mertools._files import reading
from mertools.action_units.expressions import class_names
from mertools.evaluation.score_rows import Prediction, check_text

FORMAT = "mertools scores 1"
COLUMNS = (*Prediction._fields, "selection")
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "'")  # no control characters: names have none


class Contents(NamedTuple):
    """What a file holds."""

    classes: tuple[str, ...]
    selection: str
    rows: list[Prediction]
    summary: Mapping[str, Any]


def book_json(classes: Sequence[str], selection: str, rows: Sequence[Prediction], summary: Mapping[str, Any]) -> str:
    """The book as JSON: what it is, the summary, and a line per clip.

    Examples:
        >>> text = book_json(("a", "b"), "last epoch", [Prediction("s/1", "s", "", "s", 0, 1)], {})
        >>> parse_json(text, "scores.json").rows[0].predicted
        1
    """
    head = {"format": FORMAT, "classes": list(classes), "selection": selection, "summary": summary}
    lines = [
        json.dumps(row._asdict() | {"target": classes[row.target], "predicted": classes[row.predicted]},
                   ensure_ascii=False) for row in rows
    ]  # fmt: skip
    text = json.dumps(head, indent=2, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
    return text + ',\n  "predictions": [\n    ' + ",\n    ".join(lines) + "\n  ]\n}\n"


def parse_json(text: str, path: str | Path) -> Contents:
    """Read what :func:`book_json` wrote.

    Raises:
        ValueError: it is something else; the message names the file and the line or prediction.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: is no JSON ({error.msg})") from error
    except (RecursionError, ValueError) as error:  # nested without end; an integer of thousands of digits
        raise ValueError(f"{path}: is no JSON that can be read ({error})") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"{path} holds no scores: {FORMAT!r} was expected as its format")
    classes, rows = data.get("classes"), data.get("predictions")
    if not isinstance(classes, list):
        raise ValueError(f"{path}: classes must be a list of names, got {classes!r}")
    try:
        class_names(classes)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(rows, list) or not isinstance(data.get("summary"), dict):
        raise ValueError(f"{path}: predictions must be a list, and summary an object")
    if not isinstance(data.get("selection"), str):
        raise ValueError(f"{path}: selection must be text, got {data.get('selection')!r}")
    found = _Rows(classes)
    for number, row in enumerate(rows, start=1):
        place = f"{path}, prediction {number}"
        if not isinstance(row, dict) or set(row) != set(Prediction._fields):
            raise ValueError(f"{place}: must have {', '.join(Prediction._fields)}, got {row!r}")
        found.add(place, row)
    return Contents(tuple(classes), data["selection"], found.rows, data["summary"])


def book_csv(classes: Sequence[str], selection: str, rows: Sequence[Prediction]) -> str:
    """The rows as CSV, classes by name and the selection in every row.

    Examples:
        >>> print(book_csv(("a", "b"), "last epoch", [Prediction("-1", "s", "", "s", 0, 1)]), end="")
        clip,subject,dataset,fold,target,predicted,selection
        '-1,s,,s,a,b,last epoch
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        cells = (*row[:4], classes[row.target], classes[row.predicted], selection)
        writer.writerow("'" + cell if cell.startswith(_FORMULA) else cell for cell in cells)
    return text.getvalue()


def parse_csv(text: str, path: str | Path, classes: Sequence[str]) -> Contents:
    """Read what :func:`book_csv` wrote.

    Raises:
        ValueError: it is something else; the message names the file, the row and the column.
    """
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    found = _Rows(classes)
    selection: str | None = None
    try:
        header = next(reader, [])
        if tuple(header) != COLUMNS:
            raise ValueError(f"{path}, row 1: the columns must be {', '.join(COLUMNS)}, got {', '.join(header)!r}")
        for cells in reader:
            place = f"{path}, row {reader.line_num}"
            if len(cells) != len(COLUMNS):
                raise ValueError(f"{place}: {len(COLUMNS)} cells were expected, got {len(cells)}")
            row = dict(zip(COLUMNS, (cell.removeprefix("'") for cell in cells), strict=True))
            chosen = row.pop("selection")
            if selection not in (None, chosen):
                raise ValueError(f"{place}: selection is {chosen!r}, in the rows before it was {selection!r}")
            selection = chosen
            found.add(place, row)
    except csv.Error as error:
        raise ValueError(f"{path}, row {reader.line_num}: is no CSV ({error})") from error
    if selection is None:
        raise ValueError(f"{path} holds no predictions")
    return Contents(tuple(classes), selection, found.rows, {})


def read_text(path: Path) -> str:
    """A text file in UTF-8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"path must be a file of scores, there is none at {path}")
    try:
        with reading(path):
            return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 (byte {error.start})") from error


class _Rows:
    """Rows on their way from a file, checked one by one."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.index = {name: i for i, name in enumerate(classes)}
        self.rows: list[Prediction] = []
        self.places: dict[str, str] = {}

    def add(self, place: str, row: Mapping[str, object]) -> None:
        try:
            names = [check_text(name, row[name], empty=name != "clip") for name in Prediction._fields[:4]]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{place}: {error}") from error
        for name in ("target", "predicted"):
            if not isinstance(row[name], str) or row[name] not in self.index:
                raise ValueError(f"{place}: {name} is {row[name]!r}, which is none of {', '.join(self.index)}")
        if names[0] in self.places:
            raise ValueError(f"{place}: clip {names[0]!r} is already in {self.places[names[0]].rpartition(', ')[2]}")
        self.places[names[0]] = place
        clip, subject, dataset, fold = names
        target, predicted = (self.index[str(row[name])] for name in ("target", "predicted"))
        self.rows.append(Prediction(clip, subject, dataset, fold, target, predicted))
