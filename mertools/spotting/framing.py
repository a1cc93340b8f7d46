"""Whether the face is where it is looked for: said in one line when it seems not to be."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

__all__: list[str] = []

_FIRST = 90  # frames that are looked at
_COARSE = 48  # points a side
_WIDE = 1.25  # as in the motion front end: of a picture wider or taller than this the middle square is searched
_INSIDE = 0.6  # share of the change that lies in what is searched, at least
_OFF = 0.22  # of a side: how far from the middle the change may be centred
_HELP = "pass box=(x, y, width, height), which face_box finds (on the command line --box or --detector)"


def watched(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """The frames themselves; a warning once it is seen that the face is not in the middle of them."""
    total: Tensor | None = None
    before: Tensor | None = None
    count = 0
    for frame in frames:
        if count < _FIRST:
            picture = _coarse(frame)
            if before is not None:
                change = (picture - before).abs()
                change = (change - change.median()).clamp(min=0)  # what noise changes, it changes everywhere
                total = change if total is None else total + change
            before, count = picture, count + 1
            if count == _FIRST and total is not None:
                _say(total, frame.shape[-2], frame.shape[-1])
        yield frame
    if count < _FIRST and total is not None:
        _say(total, frame.shape[-2], frame.shape[-1])


def _coarse(frame: Tensor) -> Tensor:
    grey = frame.float() if frame.ndim == 2 else frame[1 if frame.shape[0] >= 3 else 0].float()
    step = max(1, min(grey.shape) // _COARSE)
    return grey[::step, ::step]


def _say(change: Tensor, height: int, width: int) -> None:
    message = notice(change, height, width)
    if message:
        warnings.warn(message, stacklevel=2)


def notice(change: Tensor, height: int, width: int) -> str:
    """What to tell of a picture whose change is ``(rows, columns)``; nothing where it is in the middle.

    Examples:
        >>> change = torch.zeros(30, 40)
        >>> change[10:20, 30:38] = 1.0
        >>> notice(change, 480, 640)[:84]
        'no box was given and most of what moves lies off the middle of the picture, about (x'
    """
    if height > _WIDE * width:
        first = (height - width) // 2
        return (
            f"no box was given and the picture is upright, {width}x{height}: only its middle square, rows {first} to "
            f"{first + width}, is searched, which may cut the face: {_HELP}"
        )
    total = float(change.sum())
    if total <= 0:
        return ""
    rows, columns = change.shape
    x = float((change.sum(0) * (torch.arange(columns) + 0.5)).sum()) / total / columns
    y = float((change.sum(1) * (torch.arange(rows) + 0.5)).sum()) / total / rows
    inside = 1.0
    side = min(height, width)
    if width > _WIDE * height:
        margin = (width - height) / 2 / width
        inside = float(change[:, round(margin * columns) : columns - round(margin * columns)].sum()) / total
    off = max(abs(x - 0.5) * width, abs(y - 0.5) * height) / side
    if inside >= _INSIDE and off <= _OFF:
        return ""
    return (
        "no box was given and most of what moves lies off the middle of the picture, about "
        f"(x, y) = ({round(x * width)}, {round(y * height)}), while the middle is searched: {_HELP}"
    )
