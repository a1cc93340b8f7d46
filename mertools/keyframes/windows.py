"""Searches over the distances between frames: GAMDSS's windows around an annotation, and a plain joint argmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from mertools.keyframes.distance import frame_distances
from mertools.keyframes.records import KeyFrames

Fractions: TypeAlias = tuple[float, tuple[float, float], float]  # onset, apex (before, after), offset
_TOLERANCE = 1e-12  # floating distances closer than this (relative) are a tie: the rest is rounding


def window_bounds(
    onset: Tensor, apex: Tensor, offset: Tensor, windows: Fractions
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """First and last frame in which onset, apex and offset may lie: the windows are fractions of rise and fall."""
    on, (before, after), off = windows
    rise, fall = apex - onset, offset - apex
    return (
        (onset, onset + _steps(on, rise)),
        (apex - _steps(before, rise), apex + _steps(after, fall)),
        (offset - _steps(off, fall), offset),
    )


def window_frames(keys: tuple[int, int, int], windows: Fractions) -> list[int]:
    """The frames that the windowed search around an annotation looks at, in order."""
    onset, apex, offset = (torch.tensor(key) for key in keys)
    bounds = window_bounds(onset, apex, offset, windows)
    return sorted({frame for first, last in bounds for frame in range(int(first), int(last) + 1)})


def search_window_frames(
    frames: Tensor,
    positions: Sequence[int],
    keys: tuple[int, int, int],
    windows: Fractions,
    distance: Callable[[Tensor], Tensor] | None = None,
) -> KeyFrames:
    """The windowed search of one clip of which only some frames are there.

    Args:
        frames: ``(n, ...)``, those frames.
        positions: which frames of the clip they are, at least the :func:`window_frames` of the annotation.
        keys: the annotation, positions in the clip.
        windows: of onset, apex and offset.
        distance: one's own, from ``(1, n, ...)`` to ``(1, n, n)``; default L2.
    """
    clip = frames[None]
    small = frame_distances(clip, torch.tensor([len(positions)])) if distance is None else distance(clip)
    t = max(keys[2], *positions) + 1
    d = small.new_zeros(1, t, t)
    places = torch.as_tensor(positions)
    d[:, places[:, None], places] = small
    onset, apex, offset = (torch.tensor([key], device=d.device) for key in keys)
    return search_windows(d, onset, apex, offset, windows, tolerance_of(frames, distance))


def tolerance_of(frames: Tensor, distance: object = None) -> float:
    """How close two distances are to count as a tie: none for whole numbers, which are exact, or one's own distance."""
    return _TOLERANCE if distance is None and frames.is_floating_point() else 0.0


def search_windows(
    d: Tensor, onset: Tensor, apex: Tensor, offset: Tensor, windows: Fractions, tolerance: float
) -> KeyFrames:
    """GAMDSS's windowed search: distances ``(b, t, t)`` and an annotation ``(b,)`` to key frames."""
    b, t = d.shape[:2]
    clip = torch.arange(b, device=d.device)
    frame = torch.arange(t, device=d.device)
    for_onset, for_apex, for_offset = window_bounds(onset, apex, offset, windows)

    may_start = _within(frame, *for_onset)[:, :, None]
    may_peak = _within(frame, *for_apex)[:, None, :]
    pairs = torch.where(may_start & may_peak & (frame[:, None] < frame), d, -1).flatten(1)
    pair = _first_best(pairs, onset * t + apex, d[clip, onset, apex], tolerance)
    best_onset, best_apex = pair // t, pair % t

    to_apex = d[clip, best_apex]
    may_end = _within(frame, torch.maximum(for_offset[0], best_apex), offset)
    best_offset = _first_best(torch.where(may_end, to_apex, -1), offset, to_apex[clip, offset], tolerance)
    return KeyFrames(best_onset, best_apex, best_offset, d[clip, best_onset, best_apex])


def search_clip(d: Tensor, counts: Tensor, tolerance: float) -> KeyFrames:
    """The onset < apex ≤ offset of the largest ``d(onset, apex) + d(apex, offset)`` in each clip."""
    b, t = d.shape[:2]
    clip = torch.arange(b, device=d.device)
    frame = torch.arange(t, device=d.device)
    # For every candidate apex, the best onset before it and the best offset from it on: one pass each, no triple loop.
    before = torch.where(frame[:, None] < frame, d, -1)  # (b, onset, apex)
    rise, fall = before.amax(1), d.masked_fill(frame[:, None] > frame, -1).amax(2)
    middle, last = counts // 2, counts - 1
    total = torch.where((frame > 0) & (frame <= last[:, None]), rise + fall, -1)
    # A rise without a fall ties at every frame of it: of equal totals, the one farthest from its onset.
    apex = _peak(torch.where(_reaches(total, tolerance), rise, -1), tolerance)
    # Frames at rest are all alike: the last of them before the movement, the first after it.
    from_onset = before[clip, :, apex]
    onset = t - 1 - _peak(from_onset.flip(1), tolerance)
    to_offset = torch.where((frame >= apex[:, None]) & (frame <= last[:, None]), d[clip, apex], -1)
    offset = _peak(to_offset, tolerance)
    still = total.amax(1) <= 0
    return KeyFrames(
        torch.where(still, 0, onset),
        torch.where(still, middle, apex),
        torch.where(still, last, offset),
        d[clip, onset, apex],
    )


def _steps(window: float, phase: Tensor) -> Tensor:
    """``⌊window · phase⌋`` frames, multiplied in float64 as Python would."""
    wide = torch.float32 if phase.device.type == "mps" else torch.float64
    return (phase.to(wide) * window).long()


def _within(frame: Tensor, start: Tensor, end: Tensor) -> Tensor:
    return (frame >= start[:, None]) & (frame <= end[:, None])


def _peak(scores: Tensor, tolerance: float) -> Tensor:
    """Position of the first score that reaches the maximum of its row."""
    return _reaches(scores, tolerance).to(torch.uint8).argmax(1)


def _reaches(scores: Tensor, tolerance: float) -> Tensor:
    return scores >= scores.amax(1, keepdim=True) * (1 - tolerance)


def _first_best(scores: Tensor, fallback: Tensor, fallback_score: Tensor, tolerance: float) -> Tensor:
    """Like ``_peak``, but a ``fallback`` position that scores as well is kept."""
    ties = fallback_score >= scores.amax(1) * (1 - tolerance)
    return torch.where(ties, fallback, _peak(scores, tolerance))
