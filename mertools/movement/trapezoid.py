"""A smooth trapezoid fitted to a signal: rest, a rise, a hold, a fall, rest.

For given levels of rest and of full extent the squared error is a sum over the parts, so that the best of all
onset < apex ≤ end < offset is found without trying every four of them: the best rise that ends at each frame, the best
fall that starts at each, and the best pair of the two with a hold between them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from mertools.movement.least_squares import product

_LONGEST = 64  # frames of a rise or fall that are tried, or a quarter of a longer clip
_GROWTH = 1.15  # from one length tried to the next
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_COARSE, _OPEN = 24, 1e6  # steps of a clip that starts are tried at; a fall that never comes


class Cut(NamedTuple):
    """Where a trapezoid's parts meet: the last frame at rest, the first and last of full extent, the first at rest."""

    onset: np.ndarray
    apex: np.ndarray
    end: np.ndarray
    offset: np.ndarray


class Profiles(NamedTuple):
    """Least error ``(s, t)`` with a corner in each frame."""

    onset: np.ndarray
    apex: np.ndarray
    end: np.ndarray
    offset: np.ndarray


class Windows(NamedTuple):
    """First and last frame in which each key frame may lie."""

    onset: tuple[int, int]
    apex: tuple[int, int]
    offset: tuple[int, int]


def trapezoid(cut: Cut, t: int) -> np.ndarray:
    """Extent 0 to 1 in each of ``t`` frames; an offset beyond the last frame is a movement that is still held there."""
    onset, apex, end, offset = (np.asarray(key, np.float32)[..., None] for key in cut)
    frame = np.arange(t, dtype=np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):  # of key frames that coincide
        rise = _smooth_step((frame - onset) / (apex - onset))
    fall = _smooth_step((offset - frame) / np.maximum(offset - end, 1))
    extent: np.ndarray = np.minimum(rise, np.where(offset >= t, np.float32(1), fall))
    return extent


def _smooth_step(x: np.ndarray) -> np.ndarray:
    x = np.minimum(np.maximum(x, 0), 1)
    step: np.ndarray = x * x * (3 - 2 * x)
    return step


@lru_cache(maxsize=8)
def coarse_shapes(t: int, windows: Windows | None) -> np.ndarray:
    """Trapezoids ``(n, t)`` on a coarse grid: where they rise and fall, steeply or slowly, and held to the end."""
    step = max(1.0, t / _COARSE)
    middles = np.arange(step / 2, t - 1, step, dtype=np.float32)
    i, j = np.triu_indices(len(middles), 1, len(middles) + 1)
    rise, fall = middles[i], np.append(middles, np.float32(_OPEN))[j]
    cuts = []
    steep, slow = min(4.0, t / 6), max(min(8.0, t / 3), t / 8)
    for up in (steep, slow):
        for down in (steep, slow):
            onset, apex, end, offset = rise - up / 2, rise + up / 2, fall - down / 2, fall + down / 2
            middle = (apex + end) / 2
            crossed = apex > end
            fits = ~crossed | (np.minimum(middle - onset, offset - middle) >= steep / 4)
            fits &= (fall < _OPEN) | (down == steep)
            if windows is not None:
                near = (rise > windows.onset[0] - step) & (rise < windows.apex[1] + step)
                fits &= near & ((fall == _OPEN) | (fall > windows.apex[0] - step) & (fall < windows.offset[1] + step))
            parts = onset, np.where(crossed, middle, apex), np.where(crossed, middle, end), offset
            cuts.append(np.stack(parts)[:, fits])
    onset, apex, end, offset = np.concatenate(cuts, 1)[..., None]
    frame = np.arange(t, dtype=np.float32)
    shapes: np.ndarray = np.minimum(
        _smooth_step((frame - onset) / (apex - onset)), _smooth_step((offset - frame) / (offset - end))
    )
    shapes.flags.writeable = False  # all who ask for it share it
    return shapes


@lru_cache(maxsize=8)
def fit_for(t: int, windows: Windows | None = None) -> TrapezoidFit:
    """The fit for clips of ``t`` frames, made once."""
    return TrapezoidFit(t, windows)


class TrapezoidFit:
    """Fits of trapezoids to signals of ``t`` frames, within windows or anywhere."""

    def __init__(self, t: int, windows: Windows | None = None) -> None:
        self.t, self.windows = t, windows or Windows((0, t - 1), (0, t - 1), (0, t - 1))
        lengths, length = [], 1
        longest = min(max(_LONGEST, t // 4), t - 1)
        if windows is not None:  # no longer than the windows allow
            longest = max(1, min(longest, windows.apex[1] - windows.onset[0] + windows.offset[1] - windows.apex[0]))
        while length <= longest:
            lengths.append(length)
            length = max(length + 1, int(length * _GROWTH))
        self.lengths = np.array(lengths)
        # Rises of these lengths, aligned at their last frame.
        step = np.arange(1, lengths[-1] + 1) - (lengths[-1] - self.lengths[:, None])
        rises = _smooth_step((step / self.lengths[:, None]).astype(np.float32)) * (step > 0)
        self.bank = np.concatenate((-2 * rises, np.square(rises)), 1).T.copy()  # (2 · longest, lengths)
        start = np.arange(t)[:, None] - self.lengths
        last = t - 1
        first, mirrored = self.windows.onset, (last - self.windows.offset[1], last - self.windows.offset[0])
        self.never = np.stack([(start < low) | (start > high) for low, high in (first, mirrored)])[:, None]
        self.start = np.maximum(start, 0)
        frame = np.arange(t)
        self.no_apex, self.no_end = frame > self.windows.apex[1], frame < self.windows.apex[0]

    def anywhere(self, signal: np.ndarray, weight: np.ndarray) -> Cut:
        """The best cut of each ``signal`` ``(s, t)``, its levels unknown."""
        levels = np.quantile(signal, _QUANTILES, axis=-1).astype(np.float32)  # (levels, s)
        rest, full = (i.ravel() for i in np.nonzero(~np.eye(len(levels), dtype=bool)))
        n, s = len(rest), len(signal)
        signals, weights = np.tile(signal, (n, 1)), np.tile(weight, (n, 1))
        cuts = self._best(signals, weights, levels[rest].ravel(), (levels[full] - levels[rest]).ravel())
        low, height, error = (x.reshape(n, s) for x in self._levels(signals, weights, cuts))
        best = error.argmin(0)[None]
        return self.from_levels(
            signal, weight, np.take_along_axis(low, best, 0)[0], np.take_along_axis(height, best, 0)[0]
        )

    def from_levels(self, signal: np.ndarray, weight: np.ndarray, rest: np.ndarray, height: np.ndarray) -> Cut:
        """The best cut of each ``signal`` ``(s, t)`` from levels ``(s,)`` that are about right."""
        cuts = self._best(signal, weight, rest, height)
        rest, height, _ = self._levels(signal, weight, cuts)
        return self._best(signal, weight, rest, height)

    def from_rest_to_full(self, signal: np.ndarray, weight: np.ndarray) -> Cut:
        """The best cut of each ``signal`` ``(s, t)`` that is about 0 at rest and 1 in full."""
        level = np.zeros(len(signal), np.float32)
        return self.from_levels(signal, weight, level, level + 1)

    def _levels(self, signal: np.ndarray, weight: np.ndarray, cuts: Cut) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shape = trapezoid(cuts, self.t)
        total = np.maximum(weight.sum(-1), 1e-12)
        mean_shape, mean_signal = (weight * shape).sum(-1) / total, (weight * signal).sum(-1) / total
        centred = shape - mean_shape[:, None]
        weighted = weight * centred
        height = (weighted * signal).sum(-1) / np.maximum((weighted * centred).sum(-1), 1e-9)
        rest = mean_signal - height * mean_shape
        error = (weight * np.square(signal - rest[:, None] - height[:, None] * shape)).sum(-1)
        return rest, height, error

    def _best(self, signal: np.ndarray, weight: np.ndarray, rest: np.ndarray, height: np.ndarray) -> Cut:
        height = np.where(np.abs(height) < 1e-9, np.float32(1e-9), height)
        y = (signal - rest[:, None]) / height[:, None]
        rises, falls = self._edges(y, weight)
        rise_length, fall_length = self.lengths[rises.argmin(-1)], self.lengths[falls.argmin(-1)][:, ::-1]
        rise, fall = rises.min(-1), falls.min(-1)[:, ::-1]
        held = weight * (1 - 2 * y)
        total = held.cumsum(-1)
        if self._open():
            open_end = held[:, -1] < fall[:, -1]
            fall[:, -1] = np.where(open_end, held[:, -1], fall[:, -1])
            fall_length[:, -1] = np.where(open_end, 1, fall_length[:, -1])
        before, after = rise - total, fall + total - held
        before[:, self.no_apex] = after[:, self.no_end] = math.inf
        least = np.minimum.accumulate(before, -1)
        where = np.maximum.accumulate(np.where(before == least, np.arange(self.t), 0), -1)
        each, end = np.arange(len(y)), (least + after).argmin(-1)
        apex = where[each, end]
        return Cut(apex - rise_length[each, apex], apex, end, end + fall_length[each, end])

    def _open(self) -> bool:
        """Whether the clip may end while the movement is held."""
        return self.windows.offset[1] == self.t - 1

    def _edges(self, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Error of every rise, and of every fall of the signal in reverse, ``(2, s, t, lengths)``.

        Over the frames up to its last, less that of rest throughout.
        """
        longest = len(self.bank) // 2
        both = np.zeros((2, len(y), 2, longest - 1 + self.t), np.float32)
        both[0, :, 0, longest - 1 :], both[0, :, 1, longest - 1 :] = weight * y, weight
        both[1, ..., longest - 1 :] = both[0, ..., : longest - 2 : -1] if longest > 1 else both[0, ..., ::-1]
        windows = np.lib.stride_tricks.sliding_window_view(both, longest, -1)  # (2, s, 2, t, longest)
        windows = windows.swapaxes(2, 3).reshape(2, len(y), self.t, 2 * longest)
        error = product(windows, self.bank)
        np.copyto(error, np.float32(math.inf), where=self.never)
        return error

    def profiles(self, y: np.ndarray, weight: np.ndarray) -> Profiles:
        """The least error that a trapezoid from 0 to 1 leaves of ``y`` ``(s, t)``, given each of its corners."""
        rises, falls = self._edges(y, weight)
        held = weight * (1 - 2 * y)
        total = held.cumsum(-1)
        rise, fall = rises.min(-1), falls.min(-1)[:, ::-1]
        if self._open():
            fall[:, -1] = np.minimum(fall[:, -1], held[:, -1])
        before, after = rise - total, fall + total - held
        before[:, self.no_apex] = after[:, self.no_end] = math.inf
        since = np.minimum.accumulate(after[:, ::-1], -1)[:, ::-1]  # of all ends from an apex on
        until = np.minimum.accumulate(before, -1)  # of all apexes up to an end
        rest = (weight * np.square(y)).sum(-1, keepdims=True)

        def by_start(table: np.ndarray, beside: np.ndarray) -> np.ndarray:
            out = np.full_like(beside, math.inf)
            for i in range(len(out)):
                np.minimum.at(out[i], self.start, table[i] + beside[i, :, None])
            return out

        onset = by_start(rises, np.where(self.no_apex, np.float32(math.inf), since - total))
        ends = np.where(self.no_end, np.float32(math.inf), until + total - held)
        offset = by_start(falls, ends[:, ::-1])[:, ::-1]
        return Profiles(rest + onset, rest + before + since, rest + until + after, rest + offset)
