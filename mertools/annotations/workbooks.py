"""Workbooks as rows of cells, read within limits: a file of a kilobyte can unfold to gigabytes.

An xlsx file is a zip archive of XML. Before openpyxl builds anything of it, the XML runs past once, part by part, and
is weighed: how much it unfolds to, how many cells it holds and merges, whether it declares entities.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from posixpath import basename
from typing import Any
from xml.parsers import expat

from mertools._files import MAX_BYTES, read_bytes

MAX_CELLS = 1_000_000  # filled or formatted, of all sheets together
MAX_MERGED = 100_000  # cells under merged ones; openpyxl takes its time over each

Rows = list[tuple[int, list[object]]]


def read_xlsx(path: Path) -> dict[str, Rows]:
    """The sheets of an xlsx workbook by name: rows that hold something, with their numbers.

    A merged cell speaks for all the cells it covers; of a formula the value is read that was last computed.

    Raises:
        ImportError: openpyxl is missing.
        ValueError: no xlsx workbook, one beyond the limits, or a formula that was never computed.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise ImportError(f"reading {path.name} needs openpyxl: pip install 'mertools[data]'") from error
    data = read_bytes(path)  # once: what is weighed is what is read
    weighed = weigh_xlsx(data, path)
    try:
        book = openpyxl.load_workbook(io.BytesIO(data), data_only=True, keep_links=False)
        sheets = {page.title: _xlsx_rows(page) for page in book.worksheets}
        book.close()
    except Exception as error:  # openpyxl lets zip, XML and key errors through
        raise ValueError(f"{path} is no xlsx workbook that openpyxl can read: {error}") from error
    if not sheets:
        raise ValueError(f"{path} holds no sheet with cells")
    for name, cell in weighed.empty_formulas(sheets):
        raise ValueError(
            f"{path}, sheet {name!r}, cell {cell} holds a formula that was never computed: open the workbook in a "
            "spreadsheet program and save it"
        )
    return sheets


def read_xls(path: Path) -> dict[str, Rows]:
    """The sheets of an xls workbook by name, as :func:`read_xlsx` gives them.

    Raises:
        ImportError: xlrd is missing.
        ValueError: no xls workbook, or one beyond the limits.
    """
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


def _xlsx_rows(page: Any) -> Rows:
    rows: dict[int, dict[int, object]] = {}
    for (row, column), cell in page._cells.items():  # iter_rows would make a cell for every gap
        if cell.value is not None:
            rows.setdefault(row, {})[column] = cell.value
    for merged in page.merged_cells.ranges:
        value = rows.get(merged.min_row, {}).get(merged.min_col)
        if value is not None:
            for row in range(merged.min_row, merged.max_row + 1):
                columns = rows.setdefault(row, {})
                columns.update(dict.fromkeys(range(merged.min_col, merged.max_col + 1), value))
    widest = max(map(max, rows.values()), default=0)
    fits = widest * len(rows) <= MAX_CELLS  # one cell far to the right must not make every row as wide
    return [
        (row, [columns.get(i) for i in range(1, (widest if fits else max(columns)) + 1)])
        for row, columns in sorted(rows.items())
    ]


# --- weighing ------------------------------------------------------------------------------------------------------


def weigh_xlsx(data: bytes, path: Path) -> _Weighed:
    """Run through the XML of a workbook before anything is built of it; the path is for errors.

    Raises:
        ValueError: no zip archive of XML, more than ``MAX_BYTES`` or ``MAX_CELLS``, or XML that declares entities.
    """
    weighed = _Weighed(path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                weighed.part = entry.filename
                weighed.run(archive.open(entry))
    except _Refused as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # zip, zlib and XML errors, and what zipfile does not know how to unfold
        raise ValueError(f"{path} is no xlsx workbook that openpyxl can read: {error}") from error
    return weighed


class _Refused(Exception):
    """A workbook beyond the limits."""


class _Weighed:
    """What runs past: bytes, cells, merged areas, and formulas without a value."""

    def __init__(self, path: Path) -> None:
        self.path, self.part = path, ""
        self.bytes = self.cells = self.merged = 0
        self.formulas: dict[str, str] = {}  # part to the first cell without a value
        self.sheets: dict[str, str] = {}  # relation to the sheet's name
        self.targets: dict[str, str] = {}  # relation to part
        self._cell = ""
        self._formula = self._value = False

    def empty_formulas(self, names: Any) -> list[tuple[str, str]]:
        """Sheets with a formula that has no value, and where it is."""
        parts = {basename(self.targets.get(relation, "")): name for relation, name in self.sheets.items()}
        found = [(parts.get(basename(part), ""), cell) for part, cell in self.formulas.items()]
        return [(name, cell) for name, cell in found if name in names]

    def run(self, part: Any) -> None:
        is_xml = self.part.lower().endswith((".xml", ".rels", ".vml"))
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.StartDoctypeDeclHandler = self._doctype
        with part as file:
            while data := file.read(1 << 16):
                self.bytes += len(data)
                if self.bytes > MAX_BYTES:
                    self._refuse(f"unfolds to more than {MAX_BYTES >> 20} MiB")
                if is_xml:
                    parser.Parse(data, False)
        if is_xml:
            parser.Parse(b"", True)

    def _refuse(self, what: str) -> None:
        raise _Refused(
            f"{self.path} {what} ({self.part}): it is damaged or made to harm. An honest table is read when its values "
            "are copied into a new workbook, or saved as csv"
        )

    def _doctype(self, *_: Any) -> None:
        self._refuse("declares XML entities")

    def _start(self, name: str, values: dict[str, str]) -> None:
        name = name.rpartition(" ")[2]
        if name == "c":
            self.cells += 1
            if self.cells > MAX_CELLS:
                self._refuse(f"holds more than {MAX_CELLS} cells")
            self._cell, self._formula, self._value = values.get("r", ""), False, False
        elif name == "f":
            self._formula = True
        elif name in ("v", "is"):
            self._value = True
        elif name == "mergeCell":
            match = re.fullmatch(r"\$?([A-Z]{1,3})\$?(\d{1,7}):\$?([A-Z]{1,3})\$?(\d{1,7})", values.get("ref", ""))
            if match is not None:
                first, top, last, bottom = match.groups()
                width = max(_column(last) - _column(first), 0) + 1
                self.merged += width * (max(int(bottom) - int(top), 0) + 1)
                if self.merged > MAX_MERGED:
                    self._refuse(f"merges more than {MAX_MERGED} cells")
        elif name == "sheet":
            relation = next((value for key, value in values.items() if key.endswith(" id")), "")
            self.sheets[relation] = values.get("name", "")
        elif name == "Relationship" and basename(self.part) == "workbook.xml.rels":
            self.targets[values.get("Id", "")] = values.get("Target", "")

    def _end(self, name: str) -> None:
        if name.rpartition(" ")[2] == "c" and self._formula and not self._value:
            self.formulas.setdefault(self.part, self._cell)
            self._formula = False


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number
