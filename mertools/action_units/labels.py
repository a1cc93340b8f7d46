"""A compact cache of AU labels: a line per clip, in the layout of AU-DFER's own."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mertools._files import atomic_write, read_text
from mertools.action_units.prior import ACTION_UNITS

__all__ = ["read_au_labels", "write_au_labels"]

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?", re.ASCII)  # no inf, no nan, no 1_000


def read_au_labels(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a compact cache of clip labels, in AU-DFER's layout: a line per clip, its name and 18 values in [0, 1].

    Returns labels ``(18,)`` float32 by name, in the order of the file at ``path``; an error names the line.

    Examples:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "AU_DFEW.txt"
        >>> _ = path.write_text(" 00001.csv/1 " + "1 0 " * 9)
        >>> read_au_labels(path)["00001.csv/1"].sum()
        tensor(9.)

    Source: the cache ``AU_DFEW.txt`` of AU-DFER's published code.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"path must be a file, there is none at {source}")
    labels: dict[str, Tensor] = {}
    for number, line in enumerate(io.StringIO(read_text(source)[0], newline=None), start=1):
        if not line.strip():
            continue
        name, *values = line.split()
        wrong = [value for value in values if _NUMBER.fullmatch(value) is None and value != "nan"]
        if wrong:
            raise ValueError(f"path has a value that is no number in line {number} of {source}: {wrong[0][:80]!r}")
        row = torch.tensor([float(value) for value in values])
        if len(row) != len(ACTION_UNITS) or not bool(((row >= 0) & (row <= 1) | row.isnan()).all()):
            raise ValueError(
                f"path must hold a name and {len(ACTION_UNITS)} values in [0, 1] a line, got {len(row)} in line "
                f"{number} of {source}: {line.strip()[:80]!r}"
            )
        if name in labels:
            raise ValueError(f"path holds {name!r} twice, again in line {number} of {source}")
        labels[name] = row
    return labels


def write_au_labels(path: str | os.PathLike[str], labels: Mapping[str, Tensor]) -> None:
    """Write what :func:`read_au_labels` reads; whole or not at all.

    Args:
        path: the text file; one that is there is replaced when the new one is complete.
        labels: values ``(18,)`` in [0, 1] (or NaN, no face) by name; names without blanks.

    Examples:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "AU_train.txt"
        >>> write_au_labels(path, {"00001": torch.ones(18)})
        >>> read_au_labels(path)["00001"].sum()
        tensor(18.)
    """
    if not isinstance(labels, Mapping):
        raise TypeError(f"labels must map clip names to tensors, got {type(labels).__name__}")
    lines = []
    for name, row in labels.items():
        if not isinstance(name, str):
            raise TypeError(f"labels must have strings as names, got {name!r}")
        if not isinstance(row, Tensor):
            raise TypeError(f"labels[{name!r}] must be a torch.Tensor ({len(ACTION_UNITS)},), got {type(row).__name__}")
        if not name or name.split() != [name]:
            raise ValueError(f"labels must have names without blanks, got {name!r}")
        values = row.double()
        if row.shape != (len(ACTION_UNITS),) or not bool(((values >= 0) & (values <= 1) | values.isnan()).all()):
            raise ValueError(
                f"labels[{name!r}] must be ({len(ACTION_UNITS)},) in [0, 1], got {tuple(row.shape)}: {row}"
            )
        lines.append(f" {name} " + " ".join(f"{value:.9g}" for value in row.tolist()) + "\n")
    atomic_write(Path(path), "".join(lines).encode())
