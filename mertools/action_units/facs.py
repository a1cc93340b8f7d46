"""FACS codes as annotation tables spell them: ``L1+R4``, ``12 or 14``, ``(R6 or R12)+R15``, ``10A/B``, ``A9+12``.

A cell is read by this grammar, in which full-width characters are plain ones::

    cell   = term { separator term }            separator: + , ; 、 / & and, or a blank
    term   = code { "or" code }                 one of them is there: each counts 1/n
    code   = [side] ["AU" | "AD" | "M"] [side] number [side | intensity | "?"]   or   "(" cell ")"
    side   = L, R, B, T, U, A (asymmetric), left, right, two of them with a slash        intensity = A to E, A/B

Sides and intensities do not change which unit is there. AD and M are action descriptors and movements of the head and
eyes, numbered apart from the units.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mertools.action_units.prior import ACTION_UNITS

__all__ = ["FacsLabels", "facs_labels", "read_facs"]

# Numbers that FACS gives a meaning. 47 is none of them: a blank or a sign between 4 and 7 was lost.
_MOVEMENTS = {*range(50, 67), *range(68, 75), *range(80, 86), 91, 92, 97, 98}
_KNOWN = {1, 2, *range(4, 47), *_MOVEMENTS}
_NUMBERS = {"": _KNOWN, "AU": _KNOWN, "AD": {*range(19, 41)}, "M": _MOVEMENTS}  # by what stands in front
_NO_UNIT = ("", "/", "\\", "0", "-", "--", "none", "nan", "n/a", "neutral")
_SIDE = r"(?:left|right|bilateral|unilateral|[LRBTUA](?:/[LRA])?)"
_CODE = re.compile(
    rf"(?:{_SIDE}\s*)?(?:(?P<kind>AU|AD|M)\s*)?(?:{_SIDE}\s*)?"
    r"(?P<number>[0-9]{1,2})(?:\.0+)?(?![0-9.])"
    # Behind the number: attached, in brackets, or after a blank where nothing else follows that it could belong to.
    r"(?:(?:[A-E](?:/[A-E])?|[LRTU]|left|right|\s*\?|\s*\(\s*(?:[A-E]|[LR]|left|right)\s*\))(?![A-Z0-9])"
    r"|(?<=[0-9])[A-E][LR](?![A-Z0-9])|(?<=[0-9])[LR][A-E](?![A-Z0-9])"
    r"|\s+(?:[A-ELR]|left|right)(?=\s*(?:[+,;、&)\]]|$)))*",
    re.IGNORECASE,
)
_OR = re.compile(r"or(?![a-z])|\|", re.IGNORECASE)
_SEPARATOR = re.compile(r"\s*(?:[+,;、&/]|and(?![a-z]))\s*", re.IGNORECASE)
_OPEN = re.compile(r"(?:ref\s*)?[(\[]", re.IGNORECASE)  # ref(7B): a unit that the reference frame shows already
_CLOSE = re.compile(r"[)\]]")
_UNREAD = re.compile(r"[^+,;、&()\[\]]+|.", re.DOTALL)  # up to where reading can go on
_DEEPEST = 20  # brackets within brackets
_PLAIN = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " "}  # full-width forms


class FacsLabels(NamedTuple):
    """AU labels of FACS codes, and what could not be read.

    ``labels`` are ``(n, a)`` float32 in [0, 1]; in a row that was not read in full, units that were read and stand
    apart from what was not count, and the others are NaN. ``unread`` is what is no code, by row from 0: ``{4: ["soft
    focus"]}``.

    Examples:
        >>> found = read_facs(["14+17+soft focus", "4"])
        >>> found.unread, found.labels.isnan().any(1)
        ({0: ['soft focus']}, tensor([ True, False]))
    """

    labels: Tensor
    unread: Mapping[int, list[str]]


def facs_labels(codes: Sequence[str], *, action_units: Sequence[str] = ACTION_UNITS) -> Tensor:
    """AU labels from the FACS codes of an annotation table, such as ``"L1+R4"``, ``"12 or 14"`` or ``"4+7+10"``.

    The labels ``(n, a)`` of :func:`read_facs`, which also tells by row what could not be read: such rows hold NaN here,
    which :class:`AUPriorLoss` refuses as AU targets.

    Args:
        codes: one string per clip; ``""``, ``"/"``, ``"0"`` or ``"none"`` for no unit.
        action_units: the columns, such as ``"AU12"``. Codes of other units, and of action descriptors, have none.

    Examples:
        >>> facs_labels(["L1+R4", "12 or 14"], action_units=["AU01", "AU04", "AU12", "AU14"])
        tensor([[1.0000, 1.0000, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.5000, 0.5000]])

    Source: Ekman and Friesen, Facial Action Coding System; spellings of CASME II, SAMM, CAS(ME)³, MMEW and DFME.
    """
    return read_facs(codes, action_units=action_units).labels


def read_facs(codes: Sequence[str], *, action_units: Sequence[str] = ACTION_UNITS) -> FacsLabels:
    """Read FACS codes with a report of what is none; one bad cell leaves the other rows alone.

    Sides, parts and intensities (``L``, ``R``, ``A`` for asymmetric, ``12B``) do not matter. ``or`` means that one is
    there: each counts 1/n. A unit that the reference frame shows already, ``ref(7B)``, counts as present. ``codes`` and
    ``action_units`` are those of :func:`facs_labels`.

    Examples:
        >>> read_facs(["A/L12+AD38", "?"], action_units=["AU12"])
        FacsLabels(labels=tensor([[1.],
                [nan]]), unread={1: ['?']})
    """
    rows: list[Any] = list(codes) if isinstance(codes, Iterable) and not isinstance(codes, str) else [None]
    if not all(isinstance(code, str) for code in rows):
        raise TypeError(f"codes must be a sequence of strings, one per clip, got {codes!r}")
    numbers = [re.fullmatch(r"AU(\d{1,2})", unit) if isinstance(unit, str) else None for unit in action_units]
    if isinstance(action_units, str) or None in numbers:
        raise ValueError(f"action_units must be names such as 'AU12', got {action_units!r}")
    column = {int(match[1]): i for i, match in enumerate(numbers) if match is not None}
    labels = torch.zeros(len(rows), len(action_units))
    unread: dict[int, list[str]] = {}
    for i, code in enumerate(rows):
        units, rest = _Cell(code).read()
        if rest:
            unread[i] = rest
            labels[i] = torch.nan
        for unit, certainty in units.items():
            if unit in column:
                labels[i, column[unit]] = certainty
    return FacsLabels(labels, unread)


class _Cell:
    """One annotation on its way through the grammar."""

    def __init__(self, code: str) -> None:
        self.text = code.translate(_PLAIN).strip()
        self.place = 0
        self.unread: list[str] = []

    def read(self) -> tuple[dict[int, float], list[str]]:
        """The units with how sure each is, and what could not be read."""
        if self.text.casefold() in _NO_UNIT:
            return {}, []
        units = self._terms(0)
        while self.place < len(self.text):  # a bracket that was never opened
            self._skip()
            self._take(_SEPARATOR)
            if self.place < len(self.text):
                _join(units, self._terms(0))
        return units, self.unread

    def _terms(self, depth: int) -> dict[int, float]:
        """All up to a closing bracket or the end. What stands beside unread words is not known either: ``no 12``."""
        units: dict[int, float] = {}
        part: dict[int, float] = {}
        before = len(self.unread)
        while True:
            _join(part, self._term(depth))
            separated = self._take(_SEPARATOR) is not None
            ends = not separated and (self.place >= len(self.text) or self._at(_CLOSE) is not None)
            if separated or ends:
                if len(self.unread) == before:
                    _join(units, part)
                part, before = {}, len(self.unread)
            if ends:
                return units

    def _term(self, depth: int) -> dict[int, float]:
        choices = [self._code(depth)]
        while self._take(_OR) is not None:
            choices.append(self._code(depth))
        if len(choices) == 1:
            return choices[0]
        units: dict[int, float] = {}
        for choice in choices:
            for unit, certainty in choice.items():
                units[unit] = max(units.get(unit, 0.0), certainty / len(choices))
        return units

    def _code(self, depth: int) -> dict[int, float]:
        if depth < _DEEPEST and self._take(_OPEN) is not None:
            units = self._terms(depth + 1)
            if self._take(_CLOSE) is None:
                self.unread.append("(")
            return units
        found = self._take(_CODE)
        if found is None:
            self._skip()
            return {}
        number = int(found["number"])
        if number not in _NUMBERS[(found["kind"] or "").upper()]:
            self.unread.append(found[0].strip())
            return {}
        return {number: 1.0}

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """What stands here, blanks passed, if it is that."""
        found = self._at(pattern)
        if found is not None:
            self.place = found.end()
        return found

    def _at(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        while self.place < len(self.text) and self.text[self.place].isspace():
            self.place += 1
        return pattern.match(self.text, self.place)

    def _skip(self) -> None:
        found = self._take(_UNREAD)
        self.unread.append("an end after a separator" if found is None else found[0].strip())


def _join(units: dict[int, float], more: Mapping[int, float]) -> None:
    for unit, certainty in more.items():
        units[unit] = max(units.get(unit, 0.0), certainty)
