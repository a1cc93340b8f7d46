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
    """Text with escapes for all that does not print; the middle is cut out of what is longer than ``longest``."""
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    if longest is not None and len(text) > longest:
        half = (longest - 1) // 2
        text = f"{text[:half]}…{text[len(text) - half :]}"
    return text


def natural_order(text: str) -> tuple[list[str | tuple[int, str]], str]:
    """A sort key that puts s2 before s10; names that differ only in leading zeros keep a fixed order."""
    parts = re.split(r"([0-9]+)", text)
    return [_magnitude(part) if i % 2 else part for i, part in enumerate(parts)], text


def _magnitude(digits: str) -> tuple[int, str]:
    """What sorts as the number does, of any length: Python makes no integers of thousands of digits."""
    significant = digits.lstrip("0")
    return len(significant), significant


def plain_subject(name: str) -> str:
    """The normal form that subjects are compared by: ``1``, ``01``, ``sub01``, ``S 1`` and ``spNO.1`` are ``1``.

    Of other names case, blanks and leading zeros don't count. A dataset in front, ``casme2/01``, stays.
    """
    *before, text = unicodedata.normalize("NFKC", name).casefold().split("/")
    text = " ".join(text.split())
    number = re.fullmatch(r"(?:sub|subj|subject|s|sp|spno)?[ ._-]*0*(\d+)(?:\.0+)?", text, re.ASCII)
    plain = number[1] if number else re.sub(r"(?<!\d)0+(?=\d)", "", text)
    return "/".join([*(" ".join(part.split()) for part in before), plain])


def csv_rows(text: str, place: str, *, delimiter: str = ",", strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    """The rows of a text with the line that each begins in, from 1; a quotation mark that is left open is an error."""
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
    """Rows as csv, for programs and for spreadsheets (:func:`plain_cell`)."""
    return "".join(csv_line(plain_cell(cell) if isinstance(cell, str) else cell for cell in row) + "\n" for row in rows)


def csv_line(cells: Iterable[object], delimiter: str = ",") -> str:
    """One row without its end. :mod:`csv` leaves a lone carriage return bare before Python 3.13: the row ends there.

    A blank in front of a cell is quoted, since :func:`csv_rows` skips bare ones.
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

    Numbers stay as they are, signs included. A formula that has its apostrophe already gets another, so that
    :func:`bare_cell` gives back what came in.
    """
    return "'" + cell if _is_formula(cell.lstrip("'")) else cell


def bare_cell(cell: str) -> str:
    """What :func:`plain_cell` was given."""
    return cell[1:] if cell.startswith("'") and plain_cell(cell[1:]) == cell else cell


def _is_formula(cell: str) -> bool:
    return cell.startswith(_FORMULA) and _NUMBER.fullmatch(cell) is None
