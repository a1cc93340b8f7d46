"""Searches over the distances between frames: GAMDSS's windows around an annotation, and a plain joint argmax."""

from __future__ import annotations

import torch
from torch import Tensor

from mertools.keyframes.records import KeyFrames

SAME = 1e-12  # floating distances closer than this (relative) are a tie: the rest is rounding


def search_windows(
    d: Tensor,
    onset: Tensor,
    apex: Tensor,
    offset: Tensor,
    onset_window: float,
    apex_window: tuple[float, float],
    offset_window: float,
    slack: float,
) -> KeyFrames:
    """GAMDSS's windowed search: distances ``(b, t, t)`` and an annotation ``(b,)`` to key frames."""
    b, t = d.shape[:2]
    clip = torch.arange(b, device=d.device)
    frame = torch.arange(t, device=d.device)
    rise, fall = apex - onset, offset - apex
    onset_end = onset + _steps(onset_window, rise)
    apex_start = apex - _steps(apex_window[0], rise)
    apex_end = apex + _steps(apex_window[1], fall)
    offset_start = offset - _steps(offset_window, fall)

    may_start = _within(frame, onset, onset_end)[:, :, None]
    may_peak = _within(frame, apex_start, apex_end)[:, None, :]
    pairs = torch.where(may_start & may_peak & (frame[:, None] < frame), d, -1).flatten(1)
    pair = _first_best(pairs, onset * t + apex, d[clip, onset, apex], slack)
    best_onset, best_apex = pair // t, pair % t

    to_apex = d[clip, best_apex]
    may_end = _within(frame, torch.maximum(offset_start, best_apex), offset)
    best_offset = _first_best(torch.where(may_end, to_apex, -1), offset, to_apex[clip, offset], slack)
    return KeyFrames(best_onset, best_apex, best_offset, d[clip, best_onset, best_apex])


def search_clip(d: Tensor, counts: Tensor, slack: float) -> KeyFrames:
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
    apex = _peak(torch.where(_reaches(total, slack), rise, -1), slack)
    # Frames at rest are all alike: the last of them before the movement, the first after it.
    from_onset = before[clip, :, apex]
    onset = t - 1 - _peak(from_onset.flip(1), slack)
    to_offset = torch.where((frame >= apex[:, None]) & (frame <= last[:, None]), d[clip, apex], -1)
    offset = _peak(to_offset, slack)
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


def _peak(scores: Tensor, slack: float) -> Tensor:
    """Position of the first score that reaches the maximum of its row."""
    return _reaches(scores, slack).to(torch.uint8).argmax(1)


def _reaches(scores: Tensor, slack: float) -> Tensor:
    return scores >= scores.amax(1, keepdim=True) * (1 - slack)


def _first_best(scores: Tensor, fallback: Tensor, fallback_score: Tensor, slack: float) -> Tensor:
    """Like ``_peak``, but a ``fallback`` position that scores as well is kept."""
    ties = fallback_score >= scores.amax(1) * (1 - slack)
    return torch.where(ties, fallback, _peak(scores, slack))
