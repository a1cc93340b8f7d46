"""From the cells of a table to the fields of its annotations, as a schema says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mertools.annotations.schemas import AnnotationSchema
from mertools.annotations.tables import Sheet, cell_text, normal


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
        own = {"subject", "clip", "label", "action_units", "reselect", "fps", "num_frames"}
        names = [name for name in self.where if name not in own and not re.fullmatch(r"(onset|apex|offset)\d*", name)]
        return {name: self._text(name) for name in names}

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
