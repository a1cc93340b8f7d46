"""Spreadsheets as rows of cells: xlsx, xls, csv, whitespace lists and DataFrames behind one face.

A cell keeps the row number and the column letter that a spreadsheet program shows, so that an error can point at it.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mertools._files import read_bytes, read_text
from mertools._text import MAX_TEXT, bare_cell, csv_rows

_WIDEST = 50  # columns of a naming sheet that are looked at
Rows = list[tuple[int, list[object]]]


class _Uncomputed:
    """In the place of a formula's value that was never computed; without text, so that nothing reads it unawares."""

    def __str__(self) -> str:
        return ""


UNCOMPUTED = _Uncomputed()
SUFFIXES = (".xlsx", ".xlsm", ".xls", ".csv", ".tsv", ".txt")


@dataclass
class Sheet:
    """One sheet: its rows with the numbers a spreadsheet program shows (1-based), and where it came from."""

    path: str
    name: str | None
    rows: list[tuple[int, list[object]]]
    others: dict[str, list[list[object]]] = field(default_factory=dict)
    delimiter: str | None = None

    def place(self, row: int | None = None, column: int | None = None, title: object = None) -> str:
        """Where something is, for a message: path, sheet, row and column."""
        parts = [self.path]
        if self.name is not None:
            parts.append(f"sheet {self.name!r}")
        if row is not None:
            parts.append(f"row {row}")
        if column is not None:
            parts.append(f"column {column_letter(column)}" + (f" ({title!r})" if title is not None else ""))
        return ", ".join(parts)


def read_sheet(table: Any, *, sheet: str | None = None, whitespace: bool = False) -> Sheet:
    """Read one sheet of a table: a file (xlsx, xlsm, xls, csv, tsv, txt) or a pandas DataFrame.

    Args:
        table: which.
        sheet: name of the sheet, matched without regard to case and blanks; default the first one.
        whitespace: cells of a text file are separated by blanks (a list of paths and labels).
    """
    if hasattr(table, "columns") and hasattr(table, "itertuples"):
        return _from_dataframe(table)
    if not isinstance(table, (str, os.PathLike)):
        raise TypeError(f"path must be a table file or a pandas DataFrame, got {type(table).__name__}")
    path = Path(table)
    if not path.is_file():
        raise FileNotFoundError(f"path must be a table, there is no file at {path}")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"path must be a table ({', '.join(SUFFIXES)}) or a DataFrame, got {path}")
    if suffix in (".csv", ".tsv", ".txt"):
        return _from_text(path, whitespace)
    sheets = _xls(path) if suffix == ".xls" else _xlsx(path)
    name = _choose(sheets, sheet, path)
    others = {other: [cells for _, cells in rows] for other, rows in sheets.items() if other != name}
    return _checked(
        Sheet(
            str(path),
            name,
            [row for row in sheets[name] if any(cell_text(cell) or cell is UNCOMPUTED for cell in row[1])],
            others,
        )
    )


def normal(value: object) -> str:
    """A header or a label as it is compared: no case, blanks, underscores or closing apostrophe."""
    text = cell_text(value).casefold()
    if text.startswith("unnamed:"):
        return ""
    return "".join(text.split()).replace("_", "").strip("'’`\"")


def cell_text(value: object) -> str:
    """A cell as text: ``""`` when empty, whole numbers without a point."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    return "" if text in ("<NA>", "NaT") else text


def column_letter(index: int) -> str:
    """The letter of a 0-based column."""
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def translation(page: Sheet, wanted: set[str], key: Callable[[str], str]) -> dict[str, str] | None:
    """What another sheet of the workbook translates ``wanted`` names to: the number of each; None if no sheet does.

    It is the sheet that has at least half of the names (compared by ``key``) in one column, and one number for each in
    another; rows may be repeated and columns stand in any order. Where several columns would do, the code is the one
    that stands in the row a second time, in a folder's name (15 and ``s15``), rather than one that counts the rows.
    """
    best: list[tuple[tuple[int, bool, bool], str, dict[str, str]]] = []
    for title, sheet in page.others.items():
        rows = list(dict.fromkeys(tuple(map(cell_text, row[:_WIDEST])) for row in sheet))
        for i, j in itertools.permutations(range(max(map(len, rows), default=0)), 2):
            pairs = [(key(row[i]), row[j]) for row in rows if max(i, j) < len(row) and row[i] and row[j]]
            coded = list(dict.fromkeys(pair for pair in pairs if pair[1].isdigit()))
            found = dict(coded)
            one_to_one = len(coded) == len(found) == len({int(code) for code in found.values()})
            itself = all(name == str(int(code)) for name, code in coded)
            shared = len(wanted & found.keys())
            if not one_to_one or itself or not shared or 2 * shared < len(wanted) or 2 * len(coded) <= len(set(pairs)):
                continue
            counts = [int(code) for _, code in coded] == list(range(1, len(coded) + 1))
            best.append(((shared, _named_again(rows, i, j), not counts), title, found))
    top = max((rank for rank, _, _ in best), default=None)
    tables = [(title, found) for rank, title, found in best if rank == top]
    if not tables:
        return None
    for title, table in tables[1:]:
        if any(int(table.get(name, -1)) != int(tables[0][1].get(name, -1)) for name in wanted):
            raise ValueError(
                f"{page.path}, sheet {title!r}: two columns may hold the codes of {', '.join(sorted(wanted)[:3])} ... "
                "Leave only the one that the folders are named by"
            )
    return tables[0][1]


def _named_again(rows: Sequence[Sequence[str]], i: int, j: int) -> bool:
    """Whether a further column names each row's number once more, behind letters: ``s15`` beside 15."""
    coded = [row for row in rows if j < len(row) and row[j].isdigit()]
    others = {k for row in coded for k in range(len(row))} - {i, j}
    return any(all(k < len(row) and re.fullmatch(rf"\D+0*{int(row[j])}", row[k]) for row in coded) for k in others)


def _choose(sheets: dict[str, Any], wanted: str | None, path: Path) -> str:
    names = list(sheets)
    if wanted is None:
        return names[0]
    found = [name for name in names if normal(name) == normal(wanted)]
    if not found:
        raise ValueError(f"{path} has no sheet {wanted!r}, it has {', '.join(map(repr, names))}")
    return found[0]


def _xlsx(path: Path) -> dict[str, Rows]:
    """The sheets of an xlsx workbook by name: rows that hold something, with their numbers.

    A merged cell speaks for all the cells it covers; of a formula the value is read that was last computed.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise ImportError(f"reading {path.name} needs openpyxl: pip install 'mertools[data]'") from error
    data = read_bytes(path)
    try:
        values, formulas = (
            openpyxl.load_workbook(io.BytesIO(data), data_only=computed, keep_links=False) for computed in (True, False)
        )
    except Exception as error:  # openpyxl lets zip, XML and key errors through
        raise ValueError(f"{path} is no xlsx workbook that openpyxl can read: {error}") from error
    if not values.worksheets:
        raise ValueError(f"{path} holds no sheet with cells")
    return {page.title: _xlsx_rows(page, formulas[page.title]) for page in values.worksheets}


def _xlsx_rows(page: Any, formulas: Any) -> Rows:
    rows: dict[int, dict[int, object]] = {}
    for (row, column), cell in page._cells.items():  # iter_rows would make a cell for every gap
        value = cell.value
        # A formula whose value is an empty text has a type of its own.
        if value is None and cell.data_type != "str" and formulas._cells[row, column].data_type == "f":
            value = UNCOMPUTED
        if value is not None:
            rows.setdefault(row, {})[column] = value
    for merged in page.merged_cells.ranges:
        value = rows.get(merged.min_row, {}).get(merged.min_col)
        if value is not None:
            for row in range(merged.min_row, merged.max_row + 1):
                columns = rows.setdefault(row, {})
                columns.update(dict.fromkeys(range(merged.min_col, merged.max_col + 1), value))
    widest = max(map(max, rows.values()), default=0)
    fits = widest * len(rows) <= 1_000_000  # one cell far to the right must not make every row as wide
    return [
        (row, [columns.get(i) for i in range(1, (widest if fits else max(columns)) + 1)])
        for row, columns in sorted(rows.items())
    ]


def _xls(path: Path) -> dict[str, Rows]:
    """The sheets of an xls workbook, as of an xlsx one."""
    try:
        import xlrd
    except ImportError as error:
        raise ImportError(f"reading {path.name} needs xlrd: pip install 'mertools[data]'") from error
    data = read_bytes(path)
    try:
        with xlrd.open_workbook(file_contents=data, logfile=io.StringIO(), ragged_rows=True) as book:
            sheets = {
                page.name: [(i + 1, list(page.row_values(i))) for i in range(page.nrows) if page.row_len(i)]
                for page in book.sheets()
            }
    except Exception as error:  # xlrd lets struct, assertion and its own errors through
        raise ValueError(f"{path} is no xls workbook that xlrd can read: {error}") from error
    if not sheets:
        raise ValueError(f"{path} holds no sheet with cells")
    return sheets


def _from_text(path: Path, whitespace: bool) -> Sheet:
    text, _ = read_text(path)
    if whitespace:
        lines = ((i, line.split()) for i, line in enumerate(io.StringIO(text, newline=None), start=1))
        return _checked(Sheet(str(path), None, [(i, list(cells)) for i, cells in lines if cells]))
    delimiter = guess_delimiter(text)
    found = csv_rows(text, str(path), delimiter=delimiter)
    rows: list[tuple[int, list[object]]] = [
        (i, [bare_cell(cell) for cell in cells]) for i, cells in found if any(map(str.strip, cells))
    ]
    return _checked(Sheet(str(path), None, rows, delimiter=delimiter))


def _checked(sheet: Sheet) -> Sheet:
    """Refuse cells longer than a spreadsheet's: a quotation mark that closes hundreds of rows later swallows them."""
    for number, cells in sheet.rows:
        for column, cell in enumerate(cells):
            if isinstance(cell, str) and len(cell) > MAX_TEXT:
                raise ValueError(
                    f"{sheet.place(number, column)} holds {len(cell)} characters, a cell has at most {MAX_TEXT}: "
                    "is a quotation mark left open above?"
                )
    return sheet


def guess_delimiter(text: str) -> str:
    """The separator of a table: of comma, semicolon and tab the one that most lines have."""
    lines = text.splitlines()[:50]
    counts = {mark: [line.count(mark) for line in lines] for mark in ",;\t"}
    return max(counts, key=lambda mark: (sum(count > 0 for count in counts[mark]), sum(counts[mark])))


def _from_dataframe(frame: Any) -> Sheet:
    """Rows of a DataFrame; its header is row 1 unless the columns are bare numbers (``header=None``)."""
    columns = list(frame.columns)
    rows: list[Sequence[object]] = [] if columns == list(range(len(columns))) else [columns]
    rows += [list(row) for row in frame.itertuples(index=False, name=None)]
    return Sheet("DataFrame", None, list(_numbered(rows)))


def _numbered(rows: Sequence[Sequence[object]]) -> Iterator[tuple[int, list[object]]]:
    for number, row in enumerate(rows, start=1):
        if any(cell_text(cell) for cell in row):
            yield number, list(row)
