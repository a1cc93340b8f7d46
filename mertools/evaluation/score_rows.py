"""A row of a score book, and what its names may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mertools._text import natural_order

__all__ = ["Prediction"]


class Prediction(NamedTuple):
    """What was predicted for one clip.

    Shape:
        - clip: name, unique in its book
        - subject, dataset, fold: names, empty where unknown
        - target, predicted: class indices

    Examples:
        >>> row = Prediction("s1/a", "s1", "casme2", "s1", target=0, predicted=1)
        >>> row.target == row.predicted
        False

    Source: ours.
    """

    clip: str
    subject: str
    dataset: str
    fold: str
    target: int
    predicted: int


def row_order(row: Prediction) -> tuple[Any, ...]:
    """Rows by dataset, subject and clip."""
    return natural_order(row.dataset), natural_order(row.subject), natural_order(row.clip)


def counts_by(field: str | None, rows: Sequence[Prediction], e: int) -> tuple[list[str], Tensor]:
    """Confusion matrices ``(s, e, e)`` of the rows that share a field's value, and the values in order.

    Examples:
        >>> rows = [Prediction(str(i), subject, "", "", 0, 1) for i, subject in enumerate(("s2", "s1", "s2"))]
        >>> names, counts = counts_by("subject", rows, 2)
        >>> names, counts[:, 0, 1]
        (['s1', 's2'], tensor([1, 2]))
    """
    values = ["" if field is None else getattr(row, field) for row in rows]
    names = sorted(set(values), key=natural_order)
    place = {name: i for i, name in enumerate(names)}
    cells = [(place[value] * e + row.target) * e + row.predicted for value, row in zip(values, rows, strict=True)]
    counts = torch.bincount(torch.tensor(cells, dtype=torch.long), minlength=len(names) * e * e)
    return names, counts.view(-1, e, e)


def check_text(name: str, value: object, *, empty: bool = False) -> str:
    """A name that a text file can hold: a string without control characters.

    Raises:
        TypeError: not a string.
        ValueError: empty (unless it may be), control characters, or halves of surrogate pairs.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be strings, got {value!r}: use str() to make names of numbers")
    if not value and not empty:
        raise ValueError(f"{name} must be names, got an empty one")
    if any(letter < " " or "\x7f" <= letter <= "\x9f" or "\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{name} must be text without control characters, got {value!r}")
    return str(value)  # NumPy's strings are strings, but do not look like it


def texts(name: str, values: Sequence[str] | str | None, count: int) -> list[str]:
    """One name per clip; a single string stands for all of them, None for no name."""
    if values is None or isinstance(values, str):
        return [check_text(name, values or "", empty=True)] * count
    try:
        found = list(values)
    except TypeError as error:
        raise TypeError(f"{name} must be a sequence of strings, got {type(values).__name__}") from error
    if len(found) != count:
        raise ValueError(f"{name} must be one per prediction, got {len(found)} for {count} predictions")
    return [check_text(name, value, empty=True) for value in found]
