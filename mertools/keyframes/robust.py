"""Key frames in real conditions: one movement that rises, holds and falls, and how sure that is.

Of a clip, or of the part around an annotation, the stretch between two cuts with the most evidence. What moves in it,
and how sure it is, comes from the room ``movement``.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mertools.movement.certainty import evidence, half_widths
from mertools.movement.fit import Fit, looked_at, search
from mertools.movement.least_squares import median
from mertools.movement.motion import Motion, clip_motion, find_cuts, picture_motion
from mertools.movement.pictures import is_picture, small_frames
from mertools.movement.trapezoid import Windows

_FOUND = 0.5  # evidence from which a movement is found
_SAME = 1e-3  # of the error: frames without noise that show the same
_MOTIONLESS = 1e-4  # of its error: rounding, where the light changes over a picture without anything in it
_STILL = 0.005  # of the movement: a face at rest that wanders less is still
_BAND, _BAND_AT_MOST = 4.0, 0.15  # standard deviations of the face at rest, and the most of the movement
_REST = 5  # frames at rest that show how it wanders
_NOTHING, _CLEAR = 0.002, 0.01  # share of the movement that is nothing, and below which rest is clear
_SHARPEN = 5  # frames
_STRETCH = 8  # frames between two cuts that are searched
_NEAR = 8  # frames that every key frame may move from an annotation, at least


class Found(NamedTuple):
    """Key frames of one clip, how sure it is that there is a movement, and how well its key frames are known.

    ``spread`` are half-widths of their intervals in frames, ``plateau`` the first and last frame of full extent.
    """

    onset: int
    apex: int
    offset: int
    evidence: float
    spread: tuple[float, float, float]
    plateau: tuple[int, int]

    def intervals(self) -> list[tuple[int, int]]:
        """First and last frame where an annotation of each key frame is right; they may lie beyond the clip.

        That is ``spread``, around the plateau for an apex, and a frame more either way: some call the last frame at
        rest the onset, others the first that moves.
        """
        bounds = (self.onset, self.onset), self.plateau, (self.offset, self.offset)
        widths = [math.floor(width + 0.5) + 1 for width in self.spread]
        return [(first - width, last + width) for (first, last), width in zip(bounds, widths, strict=True)]

    def beside(self, keys: tuple[int, int, int]) -> tuple[int, int, int]:
        """The key frames of an annotation, those replaced that lie outside the interval of what was found.

        Without evidence of a movement the annotation stays as it is.
        """
        if self.evidence < _FOUND:
            return keys
        inside = [first <= key <= last for key, (first, last) in zip(keys, self.intervals(), strict=True)]
        onset, apex, offset = (key if ok else new for key, new, ok in zip(keys, self[:3], inside, strict=True))
        return (onset, apex, offset) if onset <= apex <= offset else self[:3]


def find_key_frames(clip: Tensor, keys: tuple[int, int, int] | None = None) -> Found:
    """Key frames of one clip ``(t, ...)`` of finite frames, anywhere or around an annotation.

    Frames that are all equal give the annotation, or the first, middle and last frame.
    """
    reach = search_range(len(clip), keys)
    part = clip[reach.start : reach.stop]
    if all(torch.equal(frame, part[0]) for frame in part[1:]):
        return nothing_moves(len(clip), keys)
    if is_picture(part.shape[1:]) and len(part) > 2:
        return key_frames_of_pictures(small_frames(part), reach, keys)
    return key_frames_of_motion(clip_motion(part) if len(part) > 2 else None, reach, keys)


def key_frames_of_pictures(small: Tensor, reach: SearchRange, keys: tuple[int, int, int] | None = None) -> Found:
    """Key frames from the small grey pictures of the search range, never across a hard cut.

    Of the stretches between cuts, it is that of the annotated apex, or the one with the most evidence.
    """
    cuts = find_cuts(small)
    if not cuts:
        return key_frames_of_motion(picture_motion(small), reach, keys)
    stretches = list(pairwise([0, *cuts, len(small)]))
    if keys is not None:
        apex = keys[1] - reach.start
        stretches = [(first, stop) for first, stop in stretches if first <= apex < stop]
    else:
        stretches = [s for s in stretches if s[1] - s[0] >= _STRETCH] or [max(stretches, key=lambda s: s[1] - s[0])]
    found = []
    for first, stop in stretches:
        part = small[first:stop]
        inside = keys and (max(keys[0], reach.start + first), keys[1], min(keys[2], reach.start + stop - 1))
        if len(part) < 3 or all(torch.equal(frame, part[0]) for frame in part[1:]):
            start = reach.start + first
            still = nothing_moves(len(part), inside and (inside[0] - start, inside[1] - start, inside[2] - start))
            onset, apex, offset = (key + start for key in still[:3])
            found.append(Found(onset, apex, offset, 0.0, still.spread, (apex, apex)))
        else:
            found.append(key_frames_of_motion(picture_motion(part), reach.within(first, stop), inside))
    return max(found, key=lambda one: one.evidence)


def measured_extent(clip: Tensor, keys: tuple[int, int, int]) -> Tensor:
    """How far the movement with these key frames has gone in each frame of a clip, ``(t,)``: 0 at rest, 1 at the apex.

    NaN beyond a hard cut, and everywhere when nothing moves.
    """
    t, (onset, apex, offset) = len(clip), keys
    extent = torch.full((t,), math.nan)
    first, stop = 0, t
    if is_picture(clip.shape[1:]):
        small = small_frames(clip)
        stretches = pairwise([0, *find_cuts(small), t])
        first, stop = next((a, b) for a, b in stretches if a <= apex < b)
        clip = small[first:stop]
    if not (first <= onset < apex <= offset < stop) or stop - first < 3 or bool((clip == clip[:1]).all()):
        return extent
    motion = picture_motion(clip) if is_picture(clip.shape[1:]) else clip_motion(clip)
    near = ((max(key - first - 1, 0), min(key - first + 1, stop - first - 1)) for key in (onset, offset))
    around_onset, around_offset = near
    windows = Windows(around_onset, (apex - first, apex - first), around_offset)
    if float(np.abs(motion.values).max()) >= _MOTIONLESS:
        with np.errstate(all="ignore"):
            signal = looked_at(motion, search(motion, windows), windows).signal
        extent[first:stop] = torch.from_numpy(signal) if np.isfinite(signal).all() else math.nan
    return extent


def nothing_moves(t: int, keys: tuple[int, int, int] | None) -> Found:
    """The annotation, or the first, middle and last frame: any frame would do as well."""
    onset, apex, offset = keys or (0, t // 2, t - 1)
    return Found(onset, apex, offset, 0.0, (float(t - 1),) * 3, (apex, apex))


class SearchRange(NamedTuple):
    """The part of a clip of ``t`` frames that is searched, and windows for the key frames counted from its start."""

    start: int
    stop: int
    t: int
    windows: Windows | None

    def within(self, first: int, stop: int) -> SearchRange:
        """Only the frames from ``first`` to before ``stop``, counted from the start of this range."""
        windows = self.windows and Windows(
            *(
                (min(max(a - first, 0), stop - first - 1), min(max(b - first, 0), stop - first - 1))
                for a, b in self.windows
            )
        )
        return SearchRange(self.start + first, self.start + stop, self.t, windows)


def search_range(t: int, keys: tuple[int, int, int] | None) -> SearchRange:
    """Where to search around an annotation: each key frame may move by a quarter of the movement, at least 8 frames.

    As much again on either side shows the face at rest.
    """
    if keys is None:
        return SearchRange(0, t, t, None)
    reach = max(_NEAR, (keys[2] - keys[0]) // 4)
    start, stop = max(keys[0] - 2 * reach, 0), min(keys[2] + 2 * reach + 1, t)
    onset, apex, offset = ((max(key - reach, start) - start, min(key + reach, stop - 1) - start) for key in keys)
    return SearchRange(start, stop, t, Windows(onset, apex, offset))


@np.errstate(all="ignore")
def key_frames_of_motion(motion: Motion | None, reach: SearchRange, keys: tuple[int, int, int] | None = None) -> Found:
    """Onset, apex (the middle of its plateau) and offset.

    ``motion`` is that of the frames of the search range, None for two frames.
    """
    start, stop, t, windows = reach
    if motion is None:
        return Found(start, stop - 1, stop - 1, 0.0, (1.0, 1.0, 1.0), (stop - 1, stop - 1))
    if float(np.abs(motion.values).max()) < _MOTIONLESS:
        return nothing_moves(t, keys)
    first = search(motion, windows)
    fit = looked_at(motion, first, windows)
    onset, offset = _visible(first, fit)
    apex = (int(fit.cut.apex) + int(fit.cut.end)) // 2
    # Of frames that are the same, the first is the apex.
    same = (np.abs(motion.values[1:] - motion.values[:-1]).max(1) < _SAME).tolist()
    while onset + 1 < apex < len(same) and same[apex - 1]:
        apex -= 1
    if windows is not None:
        onset, apex, offset = (
            min(max(key, low), high) for key, (low, high) in zip((onset, apex, offset), windows, strict=True)
        )
    last = stop - 1 - start
    onset = min(max(onset, 0), last - 1)
    apex = min(max(apex, onset + 1), last)
    offset = min(max(offset, apex), last)
    spread = half_widths(first, fit, motion.grid, windows, (onset, apex, offset))
    plateau = min(int(fit.cut.apex), apex), max(min(int(fit.cut.end), last), apex)
    return Found(
        start + onset,
        start + apex,
        start + offset,
        evidence(motion, first),
        spread,
        (start + plateau[0], start + plateau[1]),
    )


def _visible(first: Fit, fit: Fit) -> tuple[int, int]:
    """Onset and offset: where the movement leaves and enters the band in which the face wanders at rest.

    The band is that of slow wandering; noise from frame to frame is bridged by the fit and is no part of it. Where a
    face at rest is so still that the first frame displaced stands out, that frame counts.
    """
    extent, displaced, t = fit.signal, first.signal, len(fit.signal)
    onset, apex, end, offset = (int(key) for key in fit.cut)
    bend = np.abs(extent[2:] - 2 * extent[1:-1] + extent[:-2])
    noise = (float(median(bend)) / (0.6745 * 6**0.5)) ** 2 / 3
    known = fit.power > median(fit.power) / 2  # no blink in it
    wander = [_wander(extent[rest][known[rest]], noise) for rest in (slice(max(onset - 1, 0)), slice(offset + 2, None))]
    bands = [own if own is not None else other or 0.0 for own, other in (wander, wander[::-1])]
    leave, enter = (_step_at(min(max(_BAND * (band - _STILL), 0.0), _BAND_AT_MOST)) for band in bands)
    clear = _stands_out(displaced, onset, apex)
    onset = round(onset + leave * (apex - onset)) if clear is None else clear
    if offset < t:
        clear = _stands_out(displaced[::-1], t - 1 - offset, t - 1 - end)
        offset = round(offset - enter * (offset - end)) if clear is None else t - 1 - clear
    return onset, offset


def _stands_out(extent: np.ndarray, corner: int, full: int) -> int | None:
    """The last frame at rest of an extent that is still until about ``corner``; None where it is not."""
    rest = extent[: max(corner - 1, 0)]
    if len(rest) < _REST:
        return None
    away = np.abs(extent - median(rest))
    still = 2 * float(away[: len(rest)].max()) + _NOTHING
    if still > _CLEAR:
        return None
    low, high = max(corner - _SHARPEN, 0), min(corner + _SHARPEN, full)
    moving = next((i for i in range(low, high + 1) if away[i] > still), low)
    return moving - 1 if moving > low else corner


def _wander(rest: np.ndarray, noise: float) -> float | None:
    """Standard deviation of the slow part of an extent at rest; None of too few frames."""
    if len(rest) < _REST:
        return None
    rest = rest - median(rest)
    slow = float(median(np.abs(rest[:-2] + rest[1:-1] + rest[2:]))) / 3 / 0.6745
    return math.sqrt(max(slow**2 - noise, 0.0))


def _step_at(height: float) -> float:
    """Where a smooth step ``x²(3 − 2x)`` reaches a height in [0, 1]."""
    return 0.5 - math.sin(math.asin(1 - 2 * height) / 3)
