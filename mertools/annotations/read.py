"""The field's annotation tables, read as they are: subject, clip, key frames as file numbers, label as a name.

Every dataset of micro-expressions comes with a spreadsheet of its own making: a header on row 14 or none at all, ``/``
for an apex that nobody found, three expressions in one row, labels spelt two ways. :func:`read_annotations` reads any
of them with the dataset's schema (``schemas.py``) and changes nothing: what is wrong with a row is listed in
``problems``, and mended only by a repair that you name (``repairs.py``), which is listed too.

Key frames are *file numbers*, the integers in the frames' file names, not positions: frame 46 may be the first of its
folder. ``frame_folders.py`` maps one to the other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mertools.annotations.annotation import ClipAnnotation, Problem, Repair
from mertools.annotations.annotation_rows import Row, folder_codes, locate_columns
from mertools.annotations.quality import annotation_problems
from mertools.annotations.repairs import repair_annotations
from mertools.annotations.schemas import AnnotationSchema, dataset_schema
from mertools.annotations.tables import Sheet, read_sheet

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

    Source: the datasets' own tables.
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
            file is damaged or beyond what tables are (1 000 000 cells, 32 767 characters in one, 256 MiB unfolded); the
            message names path, sheet, row and column.

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

    Source: the tables as the datasets hand them out; ``docs/datasets.md`` lists them.
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


# --- reading -------------------------------------------------------------------------------------------------------


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
