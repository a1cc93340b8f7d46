"""Landmarks of OpenFace and py-feat, read from their tables: what the face does without its pixels."""

from __future__ import annotations

import math
import os
import re
import warnings
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from mertools._files import read_text
from mertools._text import csv_rows

__all__ = ["read_landmarks"]

_COLUMN = re.compile(r"([xy])_(\d+)")
_UNSEEN = 0.5  # share of frames without a face from which a table is refused


def read_landmarks(path: str | os.PathLike[str]) -> Tensor:
    r"""The landmarks of a face in each frame of a video, from a table of OpenFace or py-feat.

    A frame in which no face was found keeps the landmarks of the frame before it (nothing moves there), and a warning
    says how many there are.

    Args:
        path: the csv that ``FeatureExtraction -2Dfp`` of OpenFace writes, or a py-feat Fex saved with ``to_csv``: with
            columns ``x_0 ... y_67``, one face.

    Shape:
        - output: ``(t, n, 2)`` float32, pixels, x to the right and y down

    Raises:
        FileNotFoundError: there is no file.
        ValueError: no such columns, several faces, no numbers, or a face in fewer than half of the frames; the message
            names the row.

    Examples:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "clip.csv"
        >>> _ = file.write_text("frame, success, x_0, x_1, y_0, y_1\n1, 1, 5, 7, 2, 2\n2, 1, 5, 7, 2, 3\n")
        >>> read_landmarks(file)[:, 1]
        tensor([[7., 2.],
                [7., 3.]])
    """
    return _table(Path(path))[0]


def landmark_fps(path: str | os.PathLike[str]) -> float | None:
    """Frames per second by the column ``timestamp`` of OpenFace; None without it."""
    return _table(Path(path))[1]


def _table(path: Path) -> tuple[Tensor, float | None]:
    if not path.is_file():
        raise FileNotFoundError(f"path must be a table of landmarks, there is nothing at {path}")
    rows = csv_rows(read_text(path)[0], str(path))
    header = [cell.strip().casefold() for cell in next(rows, (1, []))[1]]
    places = {(found[1], int(found[2])): i for i, cell in enumerate(header) if (found := _COLUMN.fullmatch(cell))}
    count = len({number for _, number in places})
    if ("x", 0) not in places:
        raise ValueError(f"{path} has no landmarks: columns x_0 ... and y_0 ... are needed (OpenFace: -2Dfp)")
    missing = [f"{axis}_{i}" for axis in "xy" for i in range(count) if (axis, i) not in places]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing[:5])}")
    columns = [places[axis, i] for i in range(count) for axis in "xy"]
    names = ("success", "face_id", "frame", "timestamp")
    success, face, frame, time = (header.index(name) if name in header else None for name in names)
    points: list[list[float]] = []
    times: list[float] = []
    unseen, before = 0, None
    for line, cells in rows:
        if not any(cells):
            continue
        if len(cells) < len(header):
            raise ValueError(f"{path}, row {line}: has {len(cells)} cells of {len(header)}: cut off?")
        other = face is not None and cells[face].strip() not in ("", "0", "0.0")
        if other or (frame is not None and cells[frame] == before):
            raise ValueError(f"{path}, row {line}: a second face in one frame; keep the rows of one face")
        before = None if frame is None else cells[frame]
        try:
            values = [float(cells[i]) if cells[i].strip() else math.nan for i in columns]
            seen = (success is None or float(cells[success]) > 0) and all(map(math.isfinite, values))
            times.append(float(cells[time]) if time is not None else math.nan)
        except ValueError:
            raise ValueError(f"{path}, row {line}: holds what is no number") from None
        unseen += not seen
        points.append(values if seen else [])
    if not points:
        raise ValueError(f"{path} has no rows")
    if unseen >= _UNSEEN * len(points):
        raise ValueError(f"{path} shows a face in only {len(points) - unseen} of {len(points)} frames")
    if unseen:
        warnings.warn(f"{path}: no face in {unseen} of {len(points)} frames, which are taken for still", stacklevel=3)
    last = next(values for values in points if values)
    for i, values in enumerate(points):
        last = values or last
        points[i] = last
    steps = sorted(b - a for a, b in pairwise(times) if b > a)
    return torch.tensor(points).view(-1, count, 2), 1 / steps[len(steps) // 2] if steps else None
