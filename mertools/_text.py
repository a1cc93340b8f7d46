"""Text in and out: csv rows, cells that no spreadsheet runs, names safe for terminals, their order, subjects."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator

__all__: list[str] = []

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-](?:inf|nan)|[+-]")
MAX_TEXT = 32_767  # characters in a cell; Excel's own limit


def escape_unprintable(text: str, longest: int | None = None) -> str:
    r"""Text with escapes in the place of all that does not print: control characters, turns of the writing direction.

    Args:
        text: a name or a message.
        longest: cut the middle out of longer ones.

    Examples:
        >>> print(escape_unprintable("clip\x1b]0;owned\x07.mp4"), escape_unprintable("a" * 100, longest=9))
        clip\x1b]0;owned\x07.mp4 aaaa…aaaa
    """
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    if longest is not None and len(text) > longest:
        half = (longest - 1) // 2
        text = f"{text[:half]}…{text[len(text) - half :]}"
    return text


def natural_order(text: str) -> tuple[list[str | tuple[int, str]], str]:
    """A sort key that puts s2 before s10; names that differ only in leading zeros keep a fixed order.

    Examples:
        >>> sorted(["s10", "s2", "s02"], key=natural_order)
        ['s02', 's2', 's10']
    """
    parts = re.split(r"([0-9]+)", text)
    return [_magnitude(part) if i % 2 else part for i, part in enumerate(parts)], text


def _magnitude(digits: str) -> tuple[int, str]:
    """What sorts as the number does, of any length: Python makes no integers of thousands of digits."""
    significant = digits.lstrip("0")
    return len(significant), significant


def plain_subject(name: str) -> str:
    """The normal form that subjects are compared by: tables, folders and lists spell one person in many ways.

    A number keeps nothing but itself, whatever stands in front (``sub``, ``subject``, ``s``, ``spNO.``); of other names
    case, blanks and leading zeros don't count. A dataset in front, ``casme2/01``, stays.

    Examples:
        >>> {plain_subject(name) for name in ("1", "01", "sub01", "s01", "S 1", "Subject_001", "spNO.1", "1.0")}
        {'1'}
        >>> plain_subject("CASME2/sub01"), plain_subject("A07"), plain_subject("EP02")
        ('casme2/1', 'a7', 'ep2')
    """
    *before, text = unicodedata.normalize("NFKC", name).casefold().split("/")
    text = " ".join(text.split())
    number = re.fullmatch(r"(?:sub|subj|subject|s|sp|spno)?[ ._-]*0*(\d+)(?:\.0+)?", text, re.ASCII)
    plain = number[1] if number else re.sub(r"(?<!\d)0+(?=\d)", "", text)
    return "/".join([*(" ".join(part.split()) for part in before), plain])


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

    A blank in front of a cell is quoted, since :func:`csv_rows` skips bare ones.

    Examples:
        >>> print(repr(csv_line(["a", None, 5, "b,c", "d\re", " f"])))
        'a,,5,"b,c","d\re"," f"'
    """
    texts = ["" if cell is None else str(cell) for cell in cells]
    marks = (delimiter, '"', "\r", "\n")
    return delimiter.join(
        '"' + text.replace('"', '""') + '"'
        if any(mark in text for mark in marks) or text.startswith(" ") or texts == [""]
        else text
        for text in texts
    )


def plain_cell(cell: str) -> str:
    """A cell that no spreadsheet program runs: with an apostrophe in front of what would be a formula.

    Names come from files of others, and ``=cmd|...`` is a name. Numbers stay as they are, signs included. A formula
    that has its apostrophe already gets another, so that :func:`bare_cell` gives back what came in.

    Examples:
        >>> plain_cell("=cmd|' /C calc'!A0"), plain_cell("-1"), plain_cell("EP02_01f"), plain_cell("'=1")
        ("'=cmd|' /C calc'!A0", '-1', 'EP02_01f', "''=1")
    """
    return "'" + cell if _is_formula(cell.lstrip("'")) else cell


def bare_cell(cell: str) -> str:
    """What :func:`plain_cell` was given.

    Examples:
        >>> bare_cell("'=1+1"), bare_cell("'tis")
        ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and plain_cell(cell[1:]) == cell else cell


def _is_formula(cell: str) -> bool:
    return cell.startswith(_FORMULA) and _NUMBER.fullmatch(cell) is None
