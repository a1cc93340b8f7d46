"""The input table again, with other key frames in it.

Columns, order, sheets, header rows above the table and number formats stay as they are; the cells of onset, apex and
offset get the new frame numbers, and the originals move to new columns at the right edge, ``OnsetFrame (annotated)``
and so on, so that a reader of the old layout reads the new file too. Beside them stands how sure the search is: what it
found itself, ``OnsetFrame (estimate)``, the ends of its interval, ``(earliest)`` and ``(latest)``, and its evidence.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mertools._files import atomic_write, check_target, read_bytes, read_text
from mertools._text import csv_line, csv_rows, csv_text
from mertools.annotations.read import locate_columns
from mertools.annotations.schemas import AnnotationSchema
from mertools.annotations.tables import Sheet, read_sheet

_COLUMNS = 16_384  # of a sheet
_UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_KEYS = ("onset", "apex", "offset")
_SURE = ("estimate", "earliest", "latest")


class Correction(NamedTuple):
    """New key frames of one expression: the table's row, which expression of it, and the frame numbers.

    ``keys`` None leaves the row's key frames as they are. ``estimate``, ``intervals`` (first and last frame of each)
    and ``evidence`` are the search's own, where it has them.
    """

    row: int
    expression: int
    keys: tuple[int, int, int] | None
    estimate: tuple[int, int, int] | None = None
    intervals: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None = None
    evidence: float | None = None


class _Edit(NamedTuple):
    """One cell: row as shown, 0-based column, what to put there."""

    row: int
    column: int
    value: Any


def check_output(source: str | Path, out: str | Path) -> None:
    """Refuse an output that could not be written, before hours of work: not xlsx or csv, no folder, the input."""
    out, source = Path(out), Path(source)
    if out.suffix.lower() not in (".xlsx", ".csv"):
        raise ValueError(f"out must be an .xlsx or .csv file, got {out}")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"out must lie in an existing folder, there is none at {out.absolute().parent}")
    check_target(out)
    if out.exists() and source.exists() and out.samefile(source):
        raise ValueError(f"out must be another file than the table: {source} is never written to")


def write_corrected(
    source: str | Path,
    schema: AnnotationSchema,
    corrections: Iterable[Correction],
    out: str | Path,
    *,
    sheet: str | None = None,
) -> None:
    """Write a copy of a table with new key frames, whole or not at all; see :func:`corrected_table`."""
    check_output(source, out)
    atomic_write(Path(out), corrected_table(source, schema, corrections, out, sheet=sheet))


def corrected_table(
    source: str | Path,
    schema: AnnotationSchema,
    corrections: Iterable[Correction],
    out: str | Path,
    *,
    sheet: str | None = None,
) -> bytes:
    """A copy of a table with new key frames, as the content of a file.

    Text stays text: a cell that is no formula in the table is none in the copy, whatever it begins with. A csv of a csv
    has the cells that it had; a spreadsheet program runs those of either.

    Args:
        source: the table: xlsx, xls or csv. It is not changed.
        schema: how to read it.
        corrections: new frame numbers by row; other rows stay as they are.
        out: ``.xlsx`` or ``.csv``. Of an xlsx table into xlsx all sheets, formulas and formats stay (what openpyxl does
            not know, such as charts, does not); an xls table becomes xlsx with its values.
        sheet: another sheet than the schema's.
    """
    source, out = Path(source), Path(out)
    page = read_sheet(source, sheet=sheet or schema.sheet, whitespace=schema.whitespace)
    edits = _edits(page, schema, corrections)
    if out.suffix.lower() == ".csv":
        return _csv(source, page, edits)
    right = max((edit.column for edit in edits), default=0)
    if right >= _COLUMNS:
        raise ValueError(f"{page.place()}: the corrected table would have {right + 1} columns, xlsx has {_COLUMNS}")
    _check_characters(page)
    if source.suffix.lower() in (".xlsx", ".xlsm"):
        return _same_workbook(source, page, edits)
    return _new_workbook(page, edits, schema.sheet)


def _check_characters(page: Sheet) -> None:
    for number, cells in page.rows:
        for column, cell in enumerate(cells):
            if isinstance(cell, str) and _UNWRITABLE.search(cell):
                raise ValueError(
                    f"{page.place(number, column)} holds {cell[:80]!r}, which xlsx can't: write csv instead"
                )


def _edits(page: Sheet, schema: AnnotationSchema, corrections: Iterable[Correction]) -> list[_Edit]:
    start, where, titles = locate_columns(page, schema)
    cells = dict(page.rows)
    right = max(len(row) for row in cells.values())
    columns = [name for name in where if re.fullmatch(r"(onset|apex|offset)\d*", name)]
    kept = {name: right + i for i, name in enumerate(columns)}
    edits = []
    if schema.header is not None:
        edits += [_Edit(start - 1, kept[name], f"{titles[name]} (annotated)") for name in columns]
    if "apex" not in where:  # SMIC and part C of CAS(ME)³: there is no column to replace
        which = [1, *(int(name[5:]) for name in columns if re.fullmatch(r"onset\d+", name))]
        for i, number in enumerate(which):
            where = {**where, f"apex{number if number > 1 else ''}": right + len(columns) + i}
            if schema.header is not None:
                title = "Apex (found)" if number == 1 else f"Apex {number} (found)"
                edits.append(_Edit(start - 1, right + len(columns) + i, title))
    rows = sorted(number for number in cells if number >= start)
    for row in rows:
        edits += [_Edit(row, kept[n], cells[row][where[n]]) for n in columns if where[n] < len(cells[row])]
    sure = _columns_of_certainty(titles, max(right - 1, *kept.values(), *where.values()) + 1)
    if schema.header is not None:
        edits += [_Edit(start - 1, column, title) for column, title in sure.values()]
        edits += [_Edit(row, column, None) for row in rows for column, _ in sure.values()]
    for correction in corrections:
        suffix = "" if correction.expression == 1 else str(correction.expression)
        for name, value in zip(_KEYS, correction.keys or (), strict=correction.keys is not None):
            edits.append(_Edit(correction.row, where[f"{name}{suffix}"], value))
        for (name, part), value in _certainty(correction).items():
            edits.append(_Edit(correction.row, sure[f"{name}{suffix}", part][0], value))
    return edits


def _columns_of_certainty(titles: Mapping[str, str], free: int) -> dict[tuple[str, str], tuple[int, str]]:
    """Column and header of what the search says of each key frame, by field and part, from column ``free`` on."""
    found: dict[tuple[str, str], tuple[int, str]] = {}
    for suffix in [name[5:] for name in titles if re.fullmatch(r"onset\d*", name)]:
        for name in _KEYS:
            title = titles.get(f"{name}{suffix}") or f"{name.title()} {suffix}".strip()
            for part in _SURE:
                found[f"{name}{suffix}", part] = free + len(found), f"{title} ({part})"
        found[f"evidence{suffix}", "search"] = free + len(found), f"Evidence {suffix}".strip() + " (search)"
    return found


def _certainty(correction: Correction) -> dict[tuple[str, str], Any]:
    cells: dict[tuple[str, str], Any] = {}
    if correction.evidence is not None:
        cells["evidence", "search"] = round(correction.evidence, 4)
    if correction.estimate is not None and correction.intervals is not None:
        for name, estimate, ends in zip(_KEYS, correction.estimate, correction.intervals, strict=True):
            cells |= {(name, part): value for part, value in zip(_SURE, (estimate, *ends), strict=True)}
    return cells


def _csv(source: Path, page: Sheet, edits: list[_Edit]) -> bytes:
    if source.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return csv_text(_grid(dict(page.rows), edits)).encode("utf-8-sig")
    whole, encoding = read_text(source)
    ending = "\r\n" if "\r\n" in whole else "\n"
    delimiter = page.delimiter or ","
    changes = _by_row(edits)
    rows = csv_rows(whole, str(source), delimiter=delimiter)
    lines = [csv_line(_changed(cells, changes.get(number, {})), delimiter) + ending for number, cells in rows]
    return "".join(lines).encode(encoding)


def _same_workbook(source: Path, page: Sheet, edits: list[_Edit]) -> bytes:
    import openpyxl

    book = openpyxl.load_workbook(io.BytesIO(read_bytes(source)))
    modified = book.properties.modified
    target = book[page.name]
    for row, column, value in edits:
        _set(target.cell(row, column + 1), value)
    return _saved(book, modified)


def _set(cell: Any, value: Any) -> None:
    cell.value = value
    if isinstance(value, str):
        cell.data_type = "s"  # openpyxl takes text that begins with = for a formula


def _new_workbook(page: Sheet, edits: list[_Edit], sheet: str | None) -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    target = book.active
    assert target is not None
    target.title = page.name or sheet or "Sheet1"  # where the schema looks for it
    sheets = {target: _grid(dict(page.rows), edits)}
    sheets |= {book.create_sheet(name): rows for name, rows in page.others.items()}
    for other, rows in sheets.items():
        for i, row in enumerate(rows, start=1):
            for j, value in enumerate(row, start=1):
                if value is not None:
                    _set(other.cell(i, j), value)
    return _saved(book, None)


class _Undated(zipfile.ZipFile):
    """An xlsx archive without the time it was written at: two runs write the same bytes, whatever the clock says."""

    modified: Any = None  # when the table was changed last; None for one that is new

    def writestr(self, zinfo_or_arcname: Any, data: Any, *_: Any, **__: Any) -> None:
        if zinfo_or_arcname == "docProps/core.xml":
            when = "2000-01-01T00:00:00Z" if self.modified is None else self.modified.strftime("%Y-%m-%dT%H:%M:%SZ")
            fields = rb"\w+" if self.modified is None else rb"modified"
            data = re.sub(rb"(<dcterms:" + fields + rb"[^>]*>)[^<]*(?=</)", rb"\g<1>" + when.encode(), data)
        entry = zipfile.ZipInfo(zinfo_or_arcname, (1980, 1, 1, 0, 0, 0))
        entry.compress_type = zipfile.ZIP_DEFLATED
        super().writestr(entry, data)

    def write(self, filename: Any, arcname: Any = None, *_: Any, **__: Any) -> None:
        self.writestr(arcname, Path(filename).read_bytes())


def _saved(book: Any, modified: Any) -> bytes:
    """What ``book.save`` would write, undated."""
    from openpyxl.writer.excel import ExcelWriter

    data = io.BytesIO()
    with _Undated(data, "w") as archive:
        archive.modified = modified
        ExcelWriter(book, archive).save()
    return data.getvalue()


def _grid(rows: Mapping[int, list[Any]], edits: list[_Edit]) -> list[list[Any]]:
    """The rows from the first on, empty ones included, with the edits made."""
    changes = _by_row(edits)
    return [_changed(list(rows.get(n, [])), changes.get(n, {})) for n in range(1, max(rows) + 1)]


def _by_row(edits: list[_Edit]) -> dict[int, dict[int, Any]]:
    changes: dict[int, dict[int, Any]] = {}
    for row, column, value in edits:
        changes.setdefault(row, {})[column] = value
    return changes


def _changed(cells: list[Any], changes: Mapping[int, Any]) -> list[Any]:
    width = max([len(cells), *(column + 1 for column in changes)]) if changes else len(cells)
    return [changes.get(i, cells[i] if i < len(cells) else None) for i in range(width)]
