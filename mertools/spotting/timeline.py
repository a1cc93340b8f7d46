"""A picture of a long video: how much the face moves over time, what was found, and how it looked.

Needs matplotlib (extra ``plot``), imported when it is drawn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mertools._text import escape_unprintable
from mertools.movement.pictures import is_picture, small_frames
from mertools.spotting.record import Expression

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MotionCurve", "plot_timeline"]

_LAG = 8  # frames between which change is measured
_ROWS, _ACROSS = 4, 3  # of expressions whose key frames are shown, at most
_THUMB = 96  # pixels a side
_COLOURS = {"onset": "#1b7f6b", "apex": "#c2452d", "offset": "#3559a8"}
_INK, _MUTED, _GRID, _BAND = "#22262b", "#6b737c", "#e4e7ea", "#f3c9a5"
_POINTS = 4000  # of a curve: longer videos are drawn by the largest values of as many parts


class MotionCurve:
    """How much the picture changes within eight frames, noted while the frames pass.

    Examples:
        >>> curve = MotionCurve()
        >>> clip = torch.zeros(20, 1, 32, 32)
        >>> clip[10:] += torch.arange(32.0)
        >>> frames = list(curve.noting(clip))
        >>> [round(curve.values[i]) for i in (9, 12, 19)]
        [0, 8, 0]
    """

    def __init__(self) -> None:
        self.values: list[float] = []

    def noting(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """The frames themselves."""
        before: deque[Tensor] = deque(maxlen=_LAG + 1)
        for frame in frames:
            if is_picture(frame.shape):
                picture = torch.nn.functional.avg_pool2d(small_frames(frame[None]), 2)[0]
                picture = picture - picture.mean()
            else:
                picture = frame.float()
            before.append(picture)
            self.values.append(float((picture - before[0]).abs().mean()))
            yield frame


def plot_timeline(
    motion: Sequence[float],
    expressions: Sequence[Expression],
    thumbnails: Mapping[int, Tensor] | None = None,
    *,
    fps: float | None = None,
    title: str | None = None,
) -> Figure:
    """Draw what was spotted in a video: a curve of motion with the intervals, and the key frames of the clearest.

    Args:
        motion: how much the picture changes in each frame, see :class:`MotionCurve`.
        expressions: what was found.
        thumbnails: ``(3, h, w)`` uint8 pictures of onset, apex and offset frames by their number; expressions whose
            three are there are shown, the clearest first chosen, in order of time.
        fps: frames per second, for an axis in seconds; else in frames.
        title: text above the figure.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: no frames.

    Examples:
        >>> found = [Expression(10, 15, 25, 0.9, (1.0, 1.0, 2.0))]
        >>> figure = plot_timeline([0.0] * 12 + [1.0] * 12 + [0.0] * 16, found, fps=30)
        >>> len(figure.axes)
        1
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot_timeline needs matplotlib: pip install 'mertools[plot]'") from error
    if not len(motion):
        raise ValueError("motion must hold a value for every frame, it is empty")
    shown = shown_expressions(expressions, thumbnails)
    rows = -(-len(shown) // _ACROSS)
    figure = Figure(figsize=(13, 3.2 + 1.4 * rows), dpi=120, layout="constrained", facecolor="white")
    parts: Any = figure.subfigures(2, 1, height_ratios=(3.2, 1.4 * rows)) if rows else [figure]
    numbers = {one: i + 1 for i, one in enumerate(expressions)}
    if title:
        figure.suptitle(
            escape_unprintable(title), x=0.012, ha="left", fontsize=13, color=_INK, fontweight="bold", parse_math=False
        )
    _draw_curve(parts[0].subplots(), np.asarray(motion, dtype=float), expressions, fps)
    if rows:
        widths = [1, 1, 1, *[0.08, 1, 1, 1] * (_ACROSS - 1)]
        axes = parts[1].subplots(rows, len(widths), squeeze=False, width_ratios=widths)
        for axis in axes.flat:
            axis.set_axis_off()
        for i, one in enumerate(shown):
            first = 4 * (i % _ACROSS)
            _draw_keys(axes[i // _ACROSS, first : first + 3], one, numbers[one], thumbnails or {}, fps)
    return figure


def shown_expressions(expressions: Sequence[Expression], thumbnails: Iterable[int] | None = None) -> list[Expression]:
    """The clearest, in order of time: those whose key frames a timeline shows."""
    there = None if thumbnails is None else set(thumbnails)
    whole = [one for one in expressions if there is not None and {one.onset, one.apex, one.offset} <= there]
    return sorted(sorted(whole, key=lambda one: -one.evidence)[: _ROWS * _ACROSS])


def wanted_frames(expressions: Sequence[Expression]) -> set[int]:
    """The frames whose pictures a timeline shows."""
    clearest = sorted(expressions, key=lambda one: -one.evidence)[: _ROWS * _ACROSS]
    return {key for one in clearest for key in (one.onset, one.apex, one.offset)}


def thumbnail(frame: Tensor) -> Tensor:
    """A frame as it is shown: small."""
    step = max(1, min(frame.shape[-2:]) // _THUMB)
    return frame[..., ::step, ::step].clone()


def _draw_curve(axis: Any, motion: np.ndarray, expressions: Sequence[Expression], fps: float | None) -> None:
    scale = 1.0 if fps is None else 1 / fps
    part = -(-len(motion) // _POINTS)
    padded = np.pad(motion, (0, -len(motion) % part), mode="edge").reshape(-1, part).max(1)
    time = np.arange(len(padded)) * part * scale
    top = float(np.quantile(motion, 0.995)) * 1.25 or 1.0  # a hard cut would flatten all else
    axis.fill_between(time, np.minimum(padded, top), color="#c9d2da", linewidth=0)
    axis.plot(time, np.minimum(padded, top), color=_MUTED, linewidth=0.8)
    for i, one in enumerate(expressions):
        axis.axvspan(one.onset * scale, one.offset * scale, color=_BAND, alpha=0.25 + 0.6 * (2 * one.evidence - 1))
        axis.axvline(one.apex * scale, color=_COLOURS["apex"], linewidth=1.2)
        middle = (one.onset + one.offset) / 2 * scale
        axis.text(middle, top * 1.02, str(i + 1), ha="center", va="bottom", fontsize=9, color=_INK)
    axis.set_ylim(0, top * 1.12)
    axis.set_xlim(0, max(len(motion) - 1, 1) * scale)
    axis.set_xlabel("seconds" if fps is not None else "frame", color=_INK)
    axis.set_ylabel("change of the picture\nwithin 8 frames", color=_INK)
    axis.set_yticks([])
    axis.tick_params(colors=_MUTED)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(_GRID)
    count = len(expressions)
    words = "no expression found" if not count else "1 expression" if count == 1 else f"{count} expressions"
    if count:
        words += ": onset to offset shaded, darker where surer; apex in red"
    axis.set_title(words, fontsize=10, color=_MUTED, loc="left")


def _draw_keys(axes: Any, one: Expression, number: int, thumbnails: Mapping[int, Tensor], fps: float | None) -> None:
    for axis, name, key in zip(axes, _COLOURS, (one.onset, one.apex, one.offset), strict=True):
        picture = thumbnails[key]
        image = picture.permute(1, 2, 0).cpu().numpy() if picture.ndim == 3 else picture.cpu().numpy()
        axis.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray")
        at = f"{key}" if fps is None else f"{key} · {key / fps:.2f} s"
        label = f"{number}  {name} {at}" if name == "onset" else f"{name} {at}"
        axis.set_title(label, fontsize=8, color=_COLOURS[name], loc="left", pad=2)
