"""The field's annotation tables, read as they are: subject, clip, key frames as file numbers, label as a name.

:func:`read_annotations` reads any of them with the dataset's schema (``schemas.py``) and changes nothing: what is
wrong with a row is listed in ``problems``, and mended only by a repair that you name (``quality.py``), which is listed
too. Key frames are *file numbers*, the integers in the frames' file names, not positions: frame 46 may be the first of
its folder. ``folders.py`` maps one to the other.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mertools._text import plain_subject
from mertools.annotations.annotation import ClipAnnotation, Problem, Repair
from mertools.annotations.quality import annotation_problems, repair_annotations
from mertools.annotations.schemas import SCHEMAS, AnnotationSchema, dataset_schema, edition_labels, last_name
from mertools.annotations.tables import UNCOMPUTED, Sheet, cell_text, column_letter, normal, read_sheet, translation

__all__ = ["Annotations", "read_annotations"]


class Annotations(list[ClipAnnotation]):
    """A list of annotations that knows its schema, what was repaired, and what is still wrong.

    A plain list of ``clips`` in every other way; slices and sums of it are plain lists. ``schema`` is what they were
    read with, ``repairs`` what was changed, row by row, ``columns`` the header of each field in the table, for
    messages.

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
    def edition(self) -> str | None:
        """Which edition of its table it is, where they are known to differ (CASME II: 2014, 2019) and the rows tell."""
        found = {clip.edition for clip in self}
        return found.pop() if len(found) == 1 else None

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with the rows as they stand, see :func:`annotation_problems`."""
        return annotation_problems(self, self.schema, self.columns)


def read_annotations(
    path: Any,
    dataset: str | os.PathLike[str] | AnnotationSchema,
    *,
    sheet: str | None = None,
    repair: str | Callable[..., Any] | Sequence[str | Callable[..., Any]] = (),
) -> Annotations:
    r"""Read the annotation table of a dataset: a list in the table's order, with its ``problems`` and ``repairs``.

    What can't be read (a column that is missing, a cell that is no frame number, a row without a clip, an unknown
    label) is a ValueError that names path, sheet, row and column.

    Args:
        path: the table: xlsx, xls, csv or a DataFrame; for ``"dfew"`` and ``"ferv39k"`` also the folder of the lists.
        dataset: ``"casme2"``, ``"samm"``, ``"samm-lv"``, ``"cas(me)2"``, ``"cas(me)2-spotting"``, ``"casme3-a"`` (v2 of
            part A), ``"casme3-a-v1"``, ``"casme3-c"``, ``"smic"``, ``"mmew"``, ``"4dme"``, ``"dfme"``, ``"megc2019"``,
            ``"dfew"``, ``"dfew-list"``, ``"ferv39k"``, ``"mafw"``, ``"afew"`` (spellings such as ``"CASME II"`` are
            understood), a schema of your own, or the path of its ``.toml`` file.
        sheet: another sheet than the schema's.
        repair: what to mend, in this order: ``"offset-from-apex"``, ``"apex-midpoint"``, ``"sort-keys"``, ``"drop"``,
            or functions from an annotation to a changed one (None: drop it). See :func:`repair_annotations`.

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
    dataset: str | os.PathLike[str] | AnnotationSchema,
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
        for name in ("onset", "apex", "offset"):
            if name in schema.optional and all(getattr(clip, name) is None for clip in rows):
                titles.pop(name, None)  # a column that nobody filled counts as absent
        if (edition := _edition(rows, schema)) is not None:
            rows = [replace(clip, edition=edition) for clip in rows]
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
    patterns = (schema.files,) if isinstance(schema.files, str) else tuple(schema.files)
    tables = [
        file
        for file in sorted(folder.rglob("*"))
        if any(_fits(file.absolute(), pattern.casefold()) for pattern in patterns) and file.is_file()
    ]
    if not tables:
        raise FileNotFoundError(f"path holds no list of {schema.name} ({', '.join(patterns)}): {folder}")
    return list(tables)


def _fits(file: Path, pattern: str) -> bool:
    if "/" in pattern:
        return fnmatch.fnmatchcase(file.as_posix().casefold(), f"*/{pattern}")
    return fnmatch.fnmatchcase(file.name.casefold(), pattern)


def _read(
    page: Sheet, schema: AnnotationSchema, problems: list[Problem] | None
) -> tuple[list[ClipAnnotation], dict[str, str]]:
    if schema.whitespace and "num_frames" in schema.columns:  # a list of two columns has the path and the label
        page = replace(page, rows=[(i, [*c[:1], None, *c[1:]] if len(c) == 2 else c) for i, c in page.rows])
    start, where, titles = locate_columns(page, schema)
    rows = [(number, cells) for number, cells in page.rows if number >= start]
    if schema.orders:
        labels = {last_name(cell_text(_at(c, where["clip"]))): cell_text(_at(c, where.get("label"))) for _, c in rows}
        schema = schema.with_order(Path(page.path).as_posix(), labels)
    codes = _codes(page, schema, rows, where)
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
    _check_dataset(page, schema, clips)
    if unknown and problems is None:
        shown = "; ".join(f"{label!r} (row {_some(found)})" for label, found in unknown.items())
        place = page.place(min(unknown.values())[0], where.get("label", where["clip"]), titles.get("label", "label"))
        hint = (
            f". Integers say nothing about their order: read it with frame_list_schema({schema.name!r}, classes)"
            if schema.whitespace and all(label.isdigit() for label in unknown)
            else ""
        )
        raise ValueError(f"{place} holds labels that {schema.name} does not have: {shown}. Known are {known}{hint}")
    return clips, titles


def _check_dataset(page: Sheet, schema: AnnotationSchema, clips: Sequence[ClipAnnotation]) -> None:
    """Refuse a table whose rows are named as those of another dataset: columns and labels of some are the same."""
    names = [f"{clip.subject}/{clip.clip}" for clip in clips]
    if not schema.row_names or any(re.fullmatch(schema.row_names, name, re.IGNORECASE) for name in names):
        return
    for other in SCHEMAS.values():
        if not other.row_names or other.row_names == schema.row_names:
            continue
        alike = [i for i, name in enumerate(names) if re.fullmatch(other.row_names, name, re.IGNORECASE)]
        if 2 * len(alike) > len(names):
            raise ValueError(
                f"{clips[alike[0]].place} ({names[alike[0]]}): {len(alike)} of {len(names)} rows are named as those of "
                f"{other.name}, and none as those of {schema.name}: read it as {other.name!r}"
            )


def _edition(clips: Iterable[ClipAnnotation], schema: AnnotationSchema) -> str | None:
    """The one edition whose labels are those of the table, if any of the clips that differ is there."""
    told = [(clip.label, edition_labels(schema.editions, clip.subject, clip.clip)) for clip in clips]
    fitting = [
        name
        for name in schema.editions
        if any(name in labels for _, labels in told) and all(labels.get(name, label) == label for label, labels in told)
    ]
    return fitting[0] if len(fitting) == 1 else None


def _some(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")


def _path_fields(path: str, schema: AnnotationSchema) -> dict[str, Any]:
    match = re.search(schema.path_fields, Path(path).as_posix()) if schema.path_fields else None
    groups = match.groupdict() if match else {}
    split, fold = groups.get("split"), groups.get("fold") or groups.get("fold2")
    split = split.casefold() if split else None
    return {"split": "val" if split in ("eval", "validation") else split, "fold": None if fold is None else int(fold)}


# --- from cells to fields --------------------------------------------------------------------------------------------


def locate_columns(page: Sheet, schema: AnnotationSchema) -> tuple[int, dict[str, int], dict[str, str]]:
    """Find the columns of a schema: the first row of data, position by field, header by field."""
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
    if schema.positions and set(schema.columns) - set(schema.optional) - set(where) and _without_header(page, schema):
        return page.rows[0][0], dict(schema.positions), {name: name for name in schema.positions}
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
    counts = [_title(cell) for cell in cells]
    for column in where.values():
        if counts.count(counts[column]) > 1:
            raise ValueError(
                f"{page.place(number, column, cell_text(cells[column]))}: there are two columns of this name"
            )
    return number + 1, where, {name: cell_text(cells[column]) for name, column in where.items()}


def _without_header(page: Sheet, schema: AnnotationSchema) -> bool:
    """Whether the first row is one of data, in the order of ``positions``: it has a label where labels stand."""
    label = cell_text(_at(page.rows[0][1], schema.positions.get("label")))
    return normal(label) in schema.label_names


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
    titles = [_title(cell) for cell in cells]
    headers = {name: _headers(column) for name, column in schema.columns.items()}
    where: dict[str, int] = {}
    for rank in range(max(map(len, headers.values()))):  # the dataset's own headers first, then those of copies
        for name, names in headers.items():
            title = _title(names[rank]) if rank < len(names) else None
            if name not in where and title in titles and titles.index(title) not in where.values():
                where[name] = titles.index(title)
    return where


def _title(cell: object) -> str:
    """A header as it is compared: letters and digits only."""
    return re.sub(r"[\W_]+", "", normal(cell))


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
        codes: Mapping[str, Mapping[str, str] | None],
    ) -> None:
        self.page, self.schema, self.number, self.cells = page, schema, number, cells
        self.where, self.titles, self.codes = where, titles, codes
        self.name = ""
        self.unknown: list[str] = []
        self.issues: list[tuple[str, str]] = []  # field and what is wrong with its cell

    def expressions(self) -> list[dict[str, Any]]:
        """The fields of each expression of the row."""
        own = self._own()
        subject, clip = self._subject(own), self._clip(own)
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
        self.name = "/".join(word for word in (subject, clip) if word)
        extra = self._extra()
        shared = {
            "dataset": own.name,
            "subject": subject,
            "clip": clip,
            "label": "+".join(labels),
            "labels": labels,
            "action_units": _units(self._text("action_units")),
            "fps": self._decimal("fps") or own.fps,
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
            folders = tuple(self._folders(words, own))
            values |= {"folders": folders, "unplaced": self._unplaced(folders)}
            found.append(values)
        return found

    def _own(self) -> AnnotationSchema:
        """The schema of the row's dataset, which a list of several names."""
        if "dataset" not in self.where:
            return self.schema
        try:
            return dataset_schema(self._text("dataset"))
        except ValueError:
            self.issues.append(("dataset", f"holds {self._text('dataset')!r}, known are {', '.join(SCHEMAS)}"))
            return self.schema

    def _subject(self, own: AnnotationSchema) -> str:
        text = re.sub(r"^(\d+)\.0+$", r"\1", self._text("subject"))
        spelt = own.subject_width and re.fullmatch(r"(?:sub|subj|subject|s)[ ._-]*\d+", text, re.IGNORECASE)
        number = plain_subject(text) if spelt else text
        return number.zfill(own.subject_width) if number.isdigit() else text

    def _clip(self, own: AnnotationSchema) -> str:
        text = self._text("clip")
        return text.zfill(own.clip_width) if text.isdigit() else text

    def _which(self) -> list[int]:
        """The expressions of the row: the first, and further ones that have an onset or offset."""
        which = [1]
        for name in self.where:
            match = re.fullmatch(r"onset(\d+)", name)
            if match and (self._frame(name) is not None or self._frame(f"offset{match[1]}") is not None):
                which.append(int(match[1]))
        return sorted(which)

    def _folders(self, words: Mapping[str, str], own: AnnotationSchema) -> list[str]:
        number = plain_subject(words.get("subject", ""))
        stem = re.sub(r"\.(?:mp4|avi|mov|mkv|mpg|wmv|flv|npy|pkl|pt)$", "", words["clip"], flags=re.IGNORECASE)
        video = re.fullmatch(own.video, words["clip"], re.IGNORECASE) if own.video else None
        words = {
            **words, "number": number if number.isdigit() else "", "stem": stem if stem != words["clip"] else "",
            "video": video[1] if video else "",
        }  # fmt: skip
        for name, pattern in own.naming.items():
            match = re.fullmatch(pattern, words.get(name, ""))
            text = match[1] if match else words.get(name, "")
            table = self.codes.get(name)
            if table is None:
                continue  # patterns that need its code can't be filled in
            if _code_key(name, text) not in table:
                have = ", ".join(list(table)[:8]) + (", ..." if len(table) > 8 else "")
                self.issues.append((name, f"holds {text!r}, which the naming sheet does not translate (it has {have})"))
                return []
            words[f"{name}_code"] = table[_code_key(name, text)]
        folders = []
        for pattern in own.folders:
            names = re.findall(r"{(\w+)(?::[^}]*)?}", pattern)
            if all(words.get(name) for name in names):
                # A `*` of the table's is no wildcard: only the pattern's own are.
                escaped = {name: re.sub(r"([*?[])", r"[\1]", words[name]) for name in names}
                folders.append(pattern.format(**escaped))
        return folders

    def _unplaced(self, folders: Sequence[str]) -> str:
        lacking = [name for name in self.schema.naming if self.codes.get(name) is None]
        if folders or not lacking:
            return ""
        return (
            f"the folders of {self.schema.name} are named by codes, and no sheet of {self.page.path} translates "
            f"{' and '.join(lacking)}: read the workbook that has the naming sheets"
        )

    def _labels(self, clip: str) -> tuple[str, ...]:
        known = self.schema.label_names
        text = self._text("label")
        if self.schema.label_in_clip is not None and (not text or (text.isdigit() and normal(text) not in known)):
            match = re.search(self.schema.label_in_clip, clip, re.IGNORECASE)
            text = match[1] if match else text
        parts = text.split(self.schema.separator) if self.schema.separator else [text]
        self.unknown = [part.strip() for part in parts if normal(part) not in known]
        return tuple(known[normal(part)] for part in parts if normal(part) in known)

    def _extra(self) -> dict[str, str]:
        return {name: self._text(name) for name in filter(_is_extra, self.where)}

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


def _units(cell: str) -> tuple[str, ...]:
    """The codes of a cell as they are written, parted where no bracket is open."""
    parts, depth = [""], 0
    for letter in cell:
        depth = max(depth + (letter in "(（[") - (letter in ")）]"), 0)
        if letter in "+＋,，、;；" and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return tuple(unit for unit in map(str.strip, parts) if unit not in ("", "/", "0"))


def _codes(
    page: Sheet, schema: AnnotationSchema, rows: Sequence[tuple[int, list[object]]], where: Mapping[str, int]
) -> dict[str, dict[str, str] | None]:
    """What the naming sheets translate each of a schema's fields to."""
    found: dict[str, dict[str, str] | None] = {}
    for name, pattern in schema.naming.items():
        wanted = set()
        for _, cells in rows:
            text = cell_text(_at(cells, where[name]))
            match = re.fullmatch(pattern, text)
            if stem := _code_key(name, match[1] if match else text):
                wanted.add(stem)
        found[name] = translation(page, wanted, partial(_code_key, name))
    return found


def _code_key(name: str, text: str) -> str:
    """What a naming sheet's names are compared by."""
    return plain_subject(text) if name == "subject" else normal(text)
