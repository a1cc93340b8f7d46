"""Rows of text tables: read so that no row is lost, written so that no cell is a formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mertools._files import reading

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-](?:inf|nan)|[+-]")
MAX_BYTES = 1 << 28  # of a table
MAX_TEXT = 32_767  # characters in a cell; Excel's own limit


def table_bytes(path: Path) -> bytes:
    """What a table of any kind holds, unless it is too large to be one."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, a table of at most {MAX_BYTES} is read")
    with reading(path):
        return path.read_bytes()


def read_text(path: Path) -> tuple[str, str]:
    """A text table and its encoding: UTF-8 with or without a mark, UTF-16 with one."""
    data = table_bytes(path)
    encoding = (
        "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig" if data[:3] == b"\xef\xbb\xbf" else "utf-8"
    )
    try:
        return data.decode(encoding), encoding
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{path} is not {encoding.upper()} (row {line}): save the table as UTF-8 or xlsx") from error


def csv_rows(text: str, place: str, *, delimiter: str = ",", strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    r"""The rows of a text with the line that each begins in, from 1.

    A quotation mark that is opened and never closed would swallow the rows below it: that is an error.

    Raises:
        ValueError: it is no csv; the message names ``place`` and the row.

    Examples:
        >>> list(csv_rows('a,"b\nc"\nd,e\n', "codes.csv"))
        [(1, ['a', 'b\nc']), (3, ['d', 'e'])]
        >>> list(csv_rows('a,"b\nc,d\n', "codes.csv"))
        Traceback (most recent call last):
        ValueError: codes.csv, row 1: is no csv (unexpected end of data): is a quotation mark left open?
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=strict)
    start = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            hint = "" if "limit" in str(error) else ": is a quotation mark left open?"
            raise ValueError(f"{place}, row {start}: is no csv ({error}){hint}") from None
        if cells is None:
            return
        yield start, cells
        start = reader.line_num + 1


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as csv, for programs and for spreadsheets.

    Examples:
        >>> print(csv_text([("clip", "shift"), ("=1+1", "-0.5")]), end="")
        clip,shift
        '=1+1,-0.5
    """
    return "".join(csv_line(plain_cell(cell) if isinstance(cell, str) else cell for cell in row) + "\n" for row in rows)


def csv_line(cells: Iterable[object], delimiter: str = ",") -> str:
    r"""One row without its end. :mod:`csv` leaves a lone carriage return bare before Python 3.13: the row ends there.

    Examples:
        >>> print(repr(csv_line(["a", None, 5, "b,c", "d\re"])))
        'a,,5,"b,c","d\re"'
    """
    texts = ["" if cell is None else str(cell) for cell in cells]
    marks = (delimiter, '"', "\r", "\n")
    return delimiter.join(
        '"' + text.replace('"', '""') + '"' if any(mark in text for mark in marks) or texts == [""] else text
        for text in texts
    )


def plain_cell(cell: str) -> str:
    """A cell that no spreadsheet program runs: with an apostrophe in front of what would be a formula.

    Names come from files of others, and ``=cmd|...`` is a name. Numbers stay as they are, signs included.

    Examples:
        >>> plain_cell("=cmd|' /C calc'!A0"), plain_cell("-1"), plain_cell("EP02_01f")
        ("'=cmd|' /C calc'!A0", '-1', 'EP02_01f')
    """
    return "'" + cell if cell.startswith(_FORMULA) and _NUMBER.fullmatch(cell) is None else cell


def bare_cell(cell: str) -> str:
    """What :func:`plain_cell` was given.

    Examples:
        >>> bare_cell("'=1+1"), bare_cell("'tis")
        ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and plain_cell(cell[1:]) == cell else cell
