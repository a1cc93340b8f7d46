"""The field's annotation tables, read as they are: subject, clip, key frames as file numbers, label as a name.

Every dataset of micro-expressions comes with a spreadsheet of its own making: a header on row 14 or none at all, ``/``
for an apex that nobody found, three expressions in one row, labels spelt two ways. :func:`read_annotations` reads any
of them with the dataset's schema (``schemas.py``) and changes nothing: what is wrong with a row is listed in
``problems``, and mended only by a repair that you name (``quality.py``), which is listed too.

Key frames are *file numbers*, the integers in the frames' file names, not positions: frame 46 may be the first of its
folder. ``folders.py`` maps one to the other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mertools.annotations.annotation import ClipAnnotation, Problem, Repair
from mertools.annotations.quality import annotation_problems, repair_annotations
from mertools.annotations.schemas import AnnotationSchema, dataset_schema
from mertools.annotations.tables import UNCOMPUTED, Sheet, cell_text, column_letter, normal, read_sheet

__all__ = ["Annotations", "read_annotations"]


class Annotations(list[ClipAnnotation]):
    """A list of annotations that knows its schema, what was repaired, and what is still wrong.

    A plain list in every other way; slices and sums of it are plain lists.

    Args:
        clips: the annotations.
        schema: what they were read with.
        repairs: what was changed, row by row.
        columns: header of each field in the table, for messages.

    Examples:
        >>> clips = Annotations([ClipAnnotation("casme2", "01", "EP02_01f", 46, None, 86, "happiness")])
        >>> [problem.column for problem in clips.problems]
        ['apex']
    """

    def __init__(
        self,
        clips: Iterable[ClipAnnotation] = (),
        *,
        schema: AnnotationSchema | None = None,
        repairs: Sequence[Repair] = (),
        columns: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(clips)
        self.schema = schema
        self.repairs = list(repairs)
        self.columns = dict(columns or {})

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with the rows as they stand, see :func:`annotation_problems`."""
        return annotation_problems(self, self.schema, self.columns)


def read_annotations(
    path: Any,
    dataset: str | AnnotationSchema,
    *,
    sheet: str | None = None,
    repair: str | Callable[..., Any] | Sequence[str | Callable[..., Any]] = (),
) -> Annotations:
    r"""Read the annotation table of a dataset.

    Args:
        path: the table: xlsx, xls, csv or a DataFrame; for ``"dfew"`` and ``"ferv39k"`` also the folder of the lists.
        dataset: ``"casme2"``, ``"samm"``, ``"cas(me)2"``, ``"casme3-a"`` (v2 of part A), ``"casme3-a-v1"``,
            ``"casme3-c"``, ``"smic"``, ``"mmew"``, ``"4dme"``, ``"dfew"``, ``"dfew-list"``, ``"ferv39k"`` (spellings
            such as ``"CASME II"`` are understood), or a schema of your own.
        sheet: another sheet than the schema's.
        repair: what to mend, in this order: ``"offset-from-apex"``, ``"apex-midpoint"``, ``"sort-keys"``, ``"drop"``,
            or functions from an annotation to a changed one (None: drop it). See :func:`repair_annotations`.

    Returns:
        A list of :class:`ClipAnnotation` in the table's order, with ``problems`` and ``repairs``.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ImportError: the reader of such a file is missing (extra ``data``).
        TypeError: an argument is of the wrong kind.
        ValueError: a column is missing, a cell holds no frame number, a row has no clip, a label is unknown, or the
            file is damaged; the message names path, sheet, row and column.

    Examples:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "codes.csv"
        >>> _ = path.write_text(
        ...     "Subject,Filename,OnsetFrame,ApexFrame,OffsetFrame,Action Units,Estimated Emotion\n"
        ...     "1,EP02_01f,46,59,86,12,happiness\n4,EP12_01f,181,/,270,L1+R4,disgust\n")
        >>> clips = read_annotations(path, "casme2", repair="apex-midpoint")
        >>> clips[1].subject, clips[1].apex, clips[1].action_units
        ('04', 225, ('L1', 'R4'))
        >>> print(clips.repairs[0].reason)
        apex / -> 225 (apex-midpoint: halfway between onset 181 and offset 270)
    """
    clips = load_annotations(path, dataset, sheet=sheet)
    repaired, log = repair_annotations(clips, repair)
    return Annotations(repaired, schema=clips.schema, repairs=log, columns=clips.columns)


def load_annotations(
    path: Any,
    dataset: str | AnnotationSchema,
    *,
    sheet: str | None = None,
    problems: list[Problem] | None = None,
) -> Annotations:
    """Read a table without repairs; what can't be read is an error, or goes to ``problems`` if there is such a list."""
    schema = dataset_schema(dataset)
    clips: list[ClipAnnotation] = []
    columns: dict[str, str] = {}
    for table in _tables(path, schema):
        page = read_sheet(table, sheet=sheet or schema.sheet, whitespace=schema.whitespace)
        if sheet is not None and page.name is None:
            raise ValueError(f"sheet must be left out, {page.path} has no sheets, got {sheet!r}")
        rows, titles = _read(page, schema, problems)
        clips += rows
        columns |= titles
    return Annotations(clips, schema=schema, columns=columns)


# --- reading ---------------------------------------------------------------------------------------------------------


def _tables(path: Any, schema: AnnotationSchema) -> list[Any]:
    if not isinstance(path, (str, os.PathLike)):
        return [path]
    folder = Path(path)
    if not folder.is_dir():
        return [path]
    if schema.files is None:
        raise ValueError(f"path must be a table, {folder} is a folder ({schema.name} comes in one file)")
    tables = sorted(folder.rglob(schema.files))
    if not tables:
        raise FileNotFoundError(f"path holds no list of {schema.name} ({schema.files}): {folder}")
    return list(tables)


def _read(
    page: Sheet, schema: AnnotationSchema, problems: list[Problem] | None
) -> tuple[list[ClipAnnotation], dict[str, str]]:
    start, where, titles = locate_columns(page, schema)
    rows = [(number, cells) for number, cells in page.rows if number >= start]
    codes = {name: folder_codes(page, schema, name, rows, where) for name in schema.naming}
    fixed = _path_fields(page.path, schema)
    clips: list[ClipAnnotation] = []
    unknown: dict[str, list[int]] = {}
    known = ", ".join(dict.fromkeys(schema.label_names.values()))
    for number, cells in rows:
        for name, column in where.items():
            if _at(cells, column) is UNCOMPUTED and not _is_extra(name):
                raise ValueError(
                    f"{page.path}, sheet {page.name!r}, cell {column_letter(column)}{number} holds a formula that was "
                    f"never computed: open the workbook in a spreadsheet program and save it ({name} is read from it)"
                )
        row = Row(page, schema, number, cells, where, titles, codes)
        clips += [ClipAnnotation(**values, **fixed) for values in row.expressions()]
        for name, text in row.issues:
            if problems is None:
                raise ValueError(f"{page.place(number, where.get(name), titles.get(name, name))} {text}")
            problems.append(Problem(page.path, page.name, number, row.name, titles.get(name, name), text, "cell"))
        for label in row.unknown:
            unknown.setdefault(label, []).append(number)
            if problems is not None:
                text = f"holds {label!r}, known are {known}"
                title = titles.get("label", "label")
                problems.append(Problem(page.path, page.name, number, row.name, title, text, "label"))
    if unknown and problems is None:
        shown = "; ".join(f"{label!r} (row {_some(found)})" for label, found in unknown.items())
        place = page.place(min(unknown.values())[0], where.get("label", where["clip"]), titles.get("label", "label"))
        raise ValueError(f"{place} holds labels that {schema.name} does not have: {shown}. Known are {known}")
    return clips, titles


def _some(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")


def _path_fields(path: str, schema: AnnotationSchema) -> dict[str, Any]:
    match = re.search(schema.path_fields, Path(path).as_posix()) if schema.path_fields else None
    groups = match.groupdict() if match else {}
    return {name: int(value) if name == "fold" else value for name, value in groups.items()}


# --- from cells to fields --------------------------------------------------------------------------------------------


def locate_columns(page: Sheet, schema: AnnotationSchema) -> tuple[int, dict[str, int], dict[str, str]]:
    """Find the columns of a schema: the first row of data, position by field, header by field.

    Raises:
        ValueError: there are no rows, or a column is missing; the message names path, sheet, row and header.
    """
    if not page.rows:
        raise ValueError(f"{page.place()} is empty")
    if schema.header is None:
        return _positional(page, schema)
    best: tuple[int, int, dict[str, int]] | None = None
    for number, cells in sorted(page.rows[:60], key=lambda row: abs(row[0] - 1 - (schema.header or 0))):
        where = _match_header(cells, schema)
        if best is None or len(where) > len(best[2]):
            best = (number, len(cells), where)
    assert best is not None
    number, _, where = best
    cells = dict(page.rows)[number]
    missing = [
        name for name in schema.columns if name not in where and name not in schema.optional and
        not (name == "label" and schema.label_in_clip is not None)
    ]  # fmt: skip
    if missing:
        wanted = ", ".join(f"{_headers(schema.columns[name])[0]!r}" for name in missing)
        have = ", ".join(repr(cell_text(cell)) for cell in cells if cell_text(cell)) or "nothing"
        raise ValueError(
            f"{page.place(number)}: no column {wanted} of {schema.name} (the header's row holds {have}). Is it another "
            "dataset, edition or sheet? An AnnotationSchema of your own can name the columns"
        )
    counts = [normal(cell) for cell in cells]
    for column in where.values():
        if counts.count(counts[column]) > 1:
            raise ValueError(
                f"{page.place(number, column, cell_text(cells[column]))}: there are two columns of this name"
            )
    return number + 1, where, {name: cell_text(cells[column]) for name, column in where.items()}


def _positional(page: Sheet, schema: AnnotationSchema) -> tuple[int, dict[str, int], dict[str, str]]:
    where = {name: column for name, column in schema.columns.items() if isinstance(column, int)}
    width = max(len(cells) for _, cells in page.rows)
    for name, column in where.items():
        if column >= width and name not in schema.optional:
            raise ValueError(
                f"{page.place(page.rows[0][0], column, name)} is missing: {schema.name} has no header and "
                f"{len(where)} columns ({', '.join(where)}), this table has {width}"
            )
    got = cell_text(_at(page.rows[0][1], where["onset"])) if "onset" in where else ""
    if got.casefold() not in schema.missing and not re.fullmatch(r"-?\d+(\.0+)?", got):
        raise ValueError(
            f"{page.place(page.rows[0][0], where['onset'], 'onset')} holds {got!r}, a frame number was expected: "
            f"the table of {schema.name} has no header row"
        )
    return page.rows[0][0], where, {name: name for name in where}


def _match_header(cells: Sequence[object], schema: AnnotationSchema) -> dict[str, int]:
    titles = [normal(cell) for cell in cells]
    where = {}
    for name, column in schema.columns.items():
        for header in _headers(column):
            if normal(header) in titles:
                where[name] = titles.index(normal(header))
                break
    return where


def _headers(column: Any) -> tuple[str, ...]:
    return (column,) if isinstance(column, str) else tuple(column)


def _at(cells: Sequence[object], column: int | None) -> object:
    return cells[column] if column is not None and column < len(cells) else None


def _is_extra(name: str) -> bool:
    own = {"subject", "clip", "label", "action_units", "reselect", "fps", "num_frames"}
    return name not in own and re.fullmatch(r"(onset|apex|offset)\d*", name) is None


_LONGEST = 4096  # characters of a clip's name; a list's may hold the path of another machine


class Row:
    """One row of a table on its way to annotations."""

    def __init__(
        self,
        page: Sheet,
        schema: AnnotationSchema,
        number: int,
        cells: Sequence[object],
        where: Mapping[str, int],
        titles: Mapping[str, str],
        codes: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.page, self.schema, self.number, self.cells = page, schema, number, cells
        self.where, self.titles, self.codes = where, titles, codes
        self.name = ""
        self.unknown: list[str] = []
        self.issues: list[tuple[str, str]] = []  # field and what is wrong with its cell

    def expressions(self) -> list[dict[str, Any]]:
        """The fields of each expression of the row."""
        subject = self._padded("subject", self.schema.subject_width)
        clip = self._padded("clip", self.schema.clip_width)
        spare = [cell for cell in self.cells[len(self.schema.columns) :] if cell_text(cell)]
        if self.schema.whitespace and spare:
            self.issues.append(("clip", f"is followed by {len(self.cells) - 1} more, are there blanks in a name?"))
        for name, text in (("subject", subject), ("clip", clip)):
            if not text.isprintable() or len(text) > _LONGEST:
                what = f"{len(text)} characters" if len(text) > _LONGEST else repr(text)
                self.issues.append((name, f"holds {what}, a name on one line of at most {_LONGEST} was expected"))
                return []
        if not clip or ("subject" in self.where and not subject):
            name = "subject" if clip else "clip"
            self.issues.append((name, f"is empty, every row needs a {name}"))
            return []
        labels = self._labels(clip)
        units = re.split(r"[+,，、;；]", self._text("action_units"))
        self.name = "/".join(word for word in (subject, clip) if word)
        extra = self._extra()
        shared = {
            "dataset": self.schema.name,
            "subject": subject,
            "clip": clip,
            "label": "+".join(labels),
            "labels": labels,
            "action_units": tuple(unit for unit in (code.strip() for code in units) if unit not in ("", "/", "0")),
            "fps": self._decimal("fps") or self.schema.fps,
            "reselect": self._text("reselect").casefold() not in ("0", "false", "no"),
            "num_frames": self._frame("num_frames"),
            "table": self.page.path,
            "sheet": self.page.name,
            "row": self.number,
            "extra": extra,
        }
        found = []
        for which in self._which():
            suffix = "" if which == 1 else str(which)
            keys = {name: self._frame(f"{name}{suffix}") for name in ("onset", "apex", "offset")}
            values = shared | keys | {"expression": which}
            words = {name: str(value) for name, value in (values | extra).items() if value is not None}
            values["key"] = tuple(words.get(name, "") for name in self.schema.key)
            values["folders"] = tuple(self._folders(words))
            found.append(values)
        return found

    def _which(self) -> list[int]:
        """The expressions of the row: the first, and further ones that have an onset or offset."""
        which = [1]
        for name in self.where:
            match = re.fullmatch(r"onset(\d+)", name)
            if match and (self._frame(name) is not None or self._frame(f"offset{match[1]}") is not None):
                which.append(int(match[1]))
        return sorted(which)

    def _folders(self, words: Mapping[str, str]) -> list[str]:
        for name, pattern in self.schema.naming.items():
            match = re.fullmatch(pattern, words.get(name, ""))
            stem = match[1] if match else words.get(name, "")
            words = {**words, f"{name}_code": self.codes[name].get(normal(stem), stem)}
        folders = []
        for pattern in self.schema.folders:
            names = re.findall(r"{(\w+)}", pattern)
            if all(words.get(name) for name in names):
                # A `*` of the table's is no wildcard: only the pattern's own are.
                escaped = {name: re.sub(r"([*?[])", r"[\1]", words[name]) for name in names}
                folders.append(pattern.format(**escaped))
        return folders

    def _labels(self, clip: str) -> tuple[str, ...]:
        known = self.schema.label_names
        text = self._text("label")
        if not text and self.schema.label_in_clip is not None:
            match = re.search(self.schema.label_in_clip, clip, re.IGNORECASE)
            text = match[1] if match else ""
        parts = text.split(self.schema.separator) if self.schema.separator else [text]
        self.unknown = [part.strip() for part in parts if normal(part) not in known]
        return tuple(known[normal(part)] for part in parts if normal(part) in known)

    def _extra(self) -> dict[str, str]:
        return {name: self._text(name) for name in filter(_is_extra, self.where)}

    def _padded(self, name: str, width: int) -> str:
        text = self._text(name)
        return text.zfill(width) if text.isdigit() else text

    def _text(self, name: str) -> str:
        return cell_text(_at(self.cells, self.where.get(name)))

    def _decimal(self, name: str) -> float | None:
        text = self._text(name)
        if text and not (re.fullmatch(r"\d{1,9}(\.\d*)?", text) and float(text) > 0):
            self.issues.append((name, f"holds {text[:80]!r}, a positive number was expected"))
            return None
        return float(text) if text else None

    def _frame(self, name: str) -> int | None:
        text = self._text(name)
        if text.casefold() in self.schema.missing or (name == "offset" and text == "0"):
            return None
        if re.fullmatch(r"0*\d{1,9}(\.0+)?", text, re.ASCII) is None:
            self.issues.append((name, f"holds {text[:80]!r}, a frame number was expected"))
            return None
        return int(text.partition(".")[0])


def folder_codes(
    page: Sheet, schema: AnnotationSchema, name: str, rows: Sequence[tuple[int, list[object]]], where: Mapping[str, int]
) -> dict[str, str]:
    """What other sheets translate a field's values to: the code beside the name, in the sheet that has all names."""
    stems = set()
    for _, cells in rows:
        text = cell_text(_at(cells, where[name]))
        match = re.fullmatch(schema.naming[name], text)
        stems.add(normal(match[1] if match else text))
    for sheet in page.others.values():
        columns: dict[int, dict[int, str]] = {}  # what is filled: a sheet may be wide and sparse
        for n, row in enumerate(sheet):
            for i, cell in enumerate(row):
                if text := cell_text(cell):
                    columns.setdefault(i, {})[n] = text
        named = [i for i in sorted(columns) if stems <= {"", *map(normal, columns[i].values())}]
        # The code is a number that no other row has; a column that merely counts the rows is none.
        coded = [i for i in sorted(columns) if _is_code(list(columns[i].values()))]
        pairs = [(i, j) for i in named for j in coded if i != j]
        if len(pairs) > 1:
            counts = {n: str(n + 1) for n in range(len(sheet))}
            pairs = [(i, j) for i, j in pairs if columns[j] != counts] or pairs
        if pairs:
            i, j = pairs[0]
            width = max(map(len, columns[j].values())) if name == "clip" else 0
            return {normal(key): columns[j][n].zfill(width) for n, key in columns[i].items() if n in columns[j]}
    return {}


def _is_code(values: Sequence[str]) -> bool:
    numbers = [text for text in values if text.isdigit()]
    return len(numbers) > 0.5 * len(values) > 0 and len(set(numbers)) == len(numbers)
