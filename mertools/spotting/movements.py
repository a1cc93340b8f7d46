"""Every movement that rises, holds and falls in one stretch of frames, from the trajectories of local motion.

Trapezoids of some twenty lengths are fitted at every frame of the stretch, to each trajectory with the rest and trend
around it; what they explain, pooled over the trajectories, has its peaks at movements. Each peak is then refined: the
trajectories, weighted by their extents, combine to one signal to which a trapezoid is fitted as in the key-frame search
of one movement. The strength of a movement is by how much the robust error of a trajectory falls, in the mean, when the
movement is added to a model of rest, smooth trend, and what the head's motion leaves behind.

Two things look like movements and are none: the rest between two movements (there the face is where it is most of the
time), and what a movement leaves of its flanks; of peaks that overlap, the set that explains most is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from mertools.movement.least_squares import least_squares, median
from mertools.movement.motion import Motion
from mertools.movement.trapezoid import Cut, TrapezoidFit, Windows, trapezoid

LONGEST = 96  # frames of a movement in a stretch
MARGIN = 20  # frames beside a movement that show the face at rest
FOUND = 0.85  # strength from which a movement counts as found
_SHORTEST, _HALF, _GROWTH = 5, 44, 1.25  # lengths tried, among means of frames from the second on
_STEEPEST = 12  # frames of a rise or fall of the trapezoids tried
_SLOWEST = 45  # frames of a rise or fall: what is slower is drift or another posture
_CUT_OFF = 64  # frames of a movement that an end cuts off: longer ones could as well be the rest
_PEAKS, _LEAST = 24, 0.6  # of a stretch, and the least a peak explains
_RIDGE_OFF, _RIDGE_SLOPE = 1e-3, 0.3
_FOLLOWS, _FOLLOWS_BENT, _RIDGE_HEAD = 0.6, 0.1, 0.03  # as in the key-frame search
_BENT = 40  # frames from which a trend may bend
_OVERLAP = 2  # frames that two movements may share, before they are set apart
_SYLLABLE, _SYLLABLES, _SPEECH = 16, 3, 45  # frames of a syllable, how many make speech, within how many frames
# Blinks are short, come again, and change more than displacement explains.
_BLINK, _UNSEEN, _ALIKE = 12, 0.65, 0.7  # frames; share of its energy that is trusted; cosine of two patterns
_WORSE, _WIDEST, _STILLEST = 2.7, 30, 0.01  # of the variance; frames; share of the extent that no fit explains
_AWAY, _UNSTEADY = 0.4, 0.8  # of the extent: where it is none; how far it may go up and down in a hold
_USUAL = 0.65  # of the extent: the face is nearer to its rest for most of the time
_COHERENT = 0.4  # mean cosine between neighbours, from which a pattern counts in full


class Movement(NamedTuple):
    """One movement: last frame at rest, first and last of full extent, first at rest, and how clear it is.

    Shape:
        - strength: mean fall of a trajectory's robust error
        - spread: half-widths around onset, apex and offset meant to hold the true frame nine in ten times
        - pattern: ``(d,)`` extent of each trajectory in pixels, of length 1
    """

    onset: int
    apex: int
    end: int
    offset: int
    strength: float
    pattern: np.ndarray
    spread: tuple[float, float, float]

    def moved(self, frames: int, stride: int = 1) -> Movement:
        """The same in frames of the video, where the stretch's are means of ``stride`` from ``frames`` on."""
        middle = (stride - 1) // 2
        onset, apex, end, offset = (frames + key * stride + middle for key in self[:4])
        first, second, third = (width * stride for width in self.spread)
        return Movement(onset, apex, end, offset, self.strength, self.pattern, (first, second, third))


@np.errstate(all="ignore")
def find_movements(
    motion: Motion,
    *,
    begins: bool = True,
    ends: bool = True,
    longer: bool = False,
    blinks: list[np.ndarray] | None = None,
) -> list[Movement]:
    """All movements of a stretch, in order, disjoint.

    Args:
        motion: of the stretch.
        begins: whether nothing is known before it (a video's beginning), so that a movement may be cut off there;
            otherwise one that reaches an end is left to the neighbouring stretch.
        ends: whether nothing is known after it.
        longer: only those of about half the longest and more.
        blinks: patterns of blinks that were seen before, to which those seen here are added.
    """
    t = len(motion.values)
    if t < 4:
        return []
    values = _without_head(motion)
    before, after = (2 * MARGIN if known else 0 for known in (begins, ends))
    around = (before, after), (0, 0)
    lengths = _lengths(_HALF if longer else _SHORTEST)
    score = _scores(np.pad(values, around), np.pad(motion.trust, around), lengths)
    blinks = [] if blinks is None else blinks
    found = []
    for first, last in _peaks(score, lengths):
        seed = max(first - before, 0), min(last - before, t - 1)
        if seed[1] - seed[0] < 3:
            continue
        cut = _refined(values, motion.trust, seed)
        movement = None if cut is None else _judged(motion, values, cut, begins, ends, longer, blinks)
        if movement is not None and not (longer and movement.offset - movement.onset < _HALF):
            found.append(movement)
    return _best_set(motion, found)


# --- where to look --------------------------------------------------------------------------------------------------


def _lengths(length: int) -> list[int]:
    lengths = []
    while length <= LONGEST:
        lengths.append(length)
        length = max(length + 1, int(length * _GROWTH))
    return lengths


def _template(length: int) -> np.ndarray:
    rise = min(max(2, round(0.35 * length)), _STEEPEST)
    return _shape((0, rise, length - rise, length), length + 1)


def _cut(keys: Sequence[int]) -> Cut:
    return Cut(*(np.array([key]) for key in keys))


def _shape(keys: Sequence[int], t: int) -> np.ndarray:
    """The trapezoid ``(t,)`` with these key frames."""
    shape: np.ndarray = trapezoid(_cut(keys), t)[0]
    return shape


def _scores(values: np.ndarray, trust: np.ndarray, lengths: list[int]) -> np.ndarray:
    """What a trapezoid of each length that begins in each frame explains ``(lengths, t)``, mean of the trajectories.

    Weighted least squares of rest, trend and trapezoid in a window around it; all its sums are convolutions.
    """
    t = len(values)
    series = (trust, trust * values, trust * np.square(values))
    weight, first, second = (torch.from_numpy(x.T[:, None].copy()) for x in series)  # (d, 1, t)
    score = np.full((len(lengths), t), -1, np.float32)
    for i, length in enumerate(lengths):
        beside = min(max(length // 3, 4), 16)
        n = length + 1 + 2 * beside
        if n > t:
            break
        g = torch.from_numpy(np.pad(_template(length), beside))
        u = torch.linspace(-1, 1, n)
        one = torch.ones_like(u)
        s1, su, suu, sg, sug, sgg = F.conv1d(weight, torch.stack((one, u, u * u, g, u * g, g * g))[:, None]).unbind(1)
        x1, xu, xg = F.conv1d(first, torch.stack((one, u, g))[:, None]).unbind(1)
        xx = F.conv1d(second, one[None, None])[:, 0]
        s1, suu = s1 + _RIDGE_OFF, suu + _RIDGE_SLOPE
        scale = 1 / (s1 * suu - su * su).clamp(min=1e-6)
        # Without rest and trend: the trapezoid's own square, its product with the values, and theirs.
        gg = sgg - (suu * sg * sg - 2 * su * sg * sug + s1 * sug * sug) * scale
        gx = xg - (suu * sg * x1 - su * (sg * xu + sug * x1) + s1 * sug * xu) * scale
        xx = (xx - (suu * x1 * x1 - 2 * su * x1 * xu + s1 * xu * xu) * scale).clamp(min=0)
        seen = gg > 0.05 * float(g.square().sum())
        gain = torch.where(seen, gx.square() / gg.clamp(min=1e-3), 0).minimum(xx)
        better = s1 * (torch.log1p(xx / s1) - torch.log1p((xx - gain) / s1))
        score[i, beside : beside + better.shape[1]] = better.mean(0).numpy()
    return score


def _peaks(score: np.ndarray, tried: list[int]) -> list[tuple[int, int]]:
    """First and last frame of the best trapezoids, no two of which share more than half of their frames."""
    lengths = np.array(tried)[:, None]
    first = np.arange(score.shape[1])
    last = first + lengths
    found: list[tuple[int, int]] = []
    score = score.copy()
    while len(found) < _PEAKS:
        i, start = divmod(int(score.argmax()), score.shape[1])
        if score[i, start] < _LEAST:
            break
        stop = start + tried[i]
        found.append((start, stop))
        shared = np.maximum(np.minimum(last, stop) - np.maximum(first, start) + 1, 0)
        score[2 * shared > lengths + 1 + stop - start + 1 - shared] = -1
    return found


# --- one movement ---------------------------------------------------------------------------------------------------


def _refined(values: np.ndarray, trust: np.ndarray, seed: tuple[int, int]) -> Cut | None:
    """The trapezoid near a peak that fits best: key frames ``(1,)``, an offset at t where it never falls."""
    t = len(values)
    length = seed[1] - seed[0]
    reach, near = min(max(length, 10), 2 * MARGIN), length // 2 + 3
    start, stop = max(seed[0] - reach, 0), min(seed[1] + reach, t - 1) + 1
    n, onset, offset = stop - start, seed[0] - start, seed[1] - start
    windows = Windows(
        (max(onset - near, 0), min(onset + near, n - 2)),
        (max(onset - near, 0) + 1, n - 1),
        (max(offset - near, 1), min(offset + near, n - 1)),
    )
    fit = TrapezoidFit(n, windows)
    part, weight = values[start:stop], trust[start:stop]
    profile = np.zeros(n, np.float32)
    profile[onset : offset + 1] = _template(length)[: n - onset]
    line = _line(n)
    robust = np.ones_like(part)
    cut = None
    for _ in range(2):
        design = np.concatenate((line, profile[:, None]), 1)
        for _ in range(2):
            coefficient = _least_squares(part, weight * robust, design, (_RIDGE_OFF, _RIDGE_SLOPE, 1e-6))
            error = np.square(part - design @ coefficient)
            robust = 1 / (1 + error / (8 * median(error) + 0.4))
        extent = coefficient[2]
        share = weight * robust
        power = share @ np.square(extent)
        signal = (share * (part - line @ coefficient[:2])) @ extent / np.maximum(power, 1e-12)
        power = power / max(power.mean(), 1e-12)
        cut = fit.from_rest_to_full(signal[None], power[None])
        profile = trapezoid(cut, n)[0]
    if cut is None or cut.onset[0] <= 0 < start or (cut.offset[0] >= n and stop < t):
        return None  # it does not begin or end here
    return Cut(*(key + start for key in cut))


def _judged(
    motion: Motion, values: np.ndarray, cut: Cut, begins: bool, ends: bool, longer: bool, blinks: list[np.ndarray]
) -> Movement | None:
    """The movement with its strength, or None for what is none."""
    t = len(values)
    onset, apex, end, offset = (int(key[0]) for key in cut)
    cut_off = (begins and onset <= 0) or (ends and offset >= t - 1)
    if cut_off and longer:
        return None
    if (onset < MARGIN and not begins) or (offset >= t - MARGIN and not ends):
        return None  # too little rest is seen beside it: it lies better in the neighbouring stretch
    if max(apex - onset, offset - end) > _SLOWEST or offset - onset < 3 or (cut_off and offset - onset > _CUT_OFF):
        return None
    gain, extent = _gains(motion, cut)
    strength = float(gain.mean()) * _coherence(motion, extent, gain)
    if strength < FOUND * (2 if cut_off else 1):
        return None
    # Where the face is for most of the stretch is its rest, and not where a movement takes it.
    power = motion.trust @ np.square(extent)
    signal = (motion.trust * values) @ extent / np.maximum(power, 1e-9)
    frame = np.arange(t)
    low, high = max(onset - MARGIN, 0), min(offset + MARGIN, t - 1)
    outside = ((frame >= low) & (frame <= onset)) | ((frame >= offset) & (frame <= high))
    if not outside.any() or apex >= t:
        return None
    rest, moved = median(signal[outside]), median(signal[apex : end + 1])
    usual = (median(signal) - rest) / (moved - rest)
    if not usual < _USUAL:  # NaN as well
        return None
    signal = (signal - rest) / (moved - rest)
    if _recurs(signal, onset, apex, end, offset):
        return None
    pattern = extent / motion.scale
    part = slice(low, high + 1)
    spread = _spread(signal[part], power[part], Cut(*(key - low for key in cut)))
    if begins and onset <= 0:
        spread = (0.5, *spread[1:])  # cut off there, whenever it began
    if ends and offset >= t - 1:
        spread = (*spread[:2], 0.5)
    strength *= max(0.0, 1 - (2 * max(spread[0], spread[2]) / (offset - onset)) ** 2)  # it must begin and end somewhere
    if strength < FOUND * (2 if cut_off else 1):
        return None
    pattern = pattern / max(np.linalg.norm(pattern), 1e-12)
    if offset - onset <= _BLINK and _share_seen(motion, extent, apex, end) < _UNSEEN:
        again = _runs(signal, 0, onset - 1) + _runs(signal, offset + 1, t) > 0
        if again or any(float((pattern * other).sum()) > _ALIKE for other in blinks):
            blinks.append(pattern)
            return None
    return Movement(max(onset, 0), apex, end, min(offset, t - 1), strength, pattern, spread)


def _recurs(signal: np.ndarray, onset: int, apex: int, end: int, offset: int) -> bool:
    """Whether the extent ``(t,)`` is that of a mouth that speaks: short ones in quick succession, or no steady hold."""
    hold = _smooth(signal)[apex : end + 1]
    if len(hold) >= _SYLLABLE and np.ptp(np.quantile(hold, (0.1, 0.9))) > _UNSTEADY:
        return True
    if offset - onset > _SYLLABLE:
        return False
    others = _runs(signal, onset - _SPEECH, onset - 1) + _runs(signal, offset + 1, offset + _SPEECH)
    return others >= _SYLLABLES - 1


def _smooth(signal: np.ndarray) -> np.ndarray:
    """Means of three frames, zeros beyond the ends."""
    smooth: np.ndarray = np.convolve(signal, np.ones(3, np.float32) / 3, "same")
    return smooth


def _runs(signal: np.ndarray, first: int, last: int) -> int:
    """How often the extent goes up for a short while in some frames."""
    away = (_smooth(signal) > _AWAY).tolist()[max(first, 0) : max(last, 0)]
    return sum(up and 2 <= len(list(run)) <= _SYLLABLE for up, run in groupby(away))


def _share_seen(motion: Motion, extent: np.ndarray, apex: int, end: int) -> float:
    """Of the movement's energy, the share in blocks that are trusted while it lasts as they are otherwise."""
    usual = np.maximum(np.quantile(motion.trust, 0.9, axis=0), 1e-6)
    energy = np.square(extent) * usual
    return float((motion.trust[apex : end + 1].mean(0) / usual * energy).sum() / max(energy.sum(), 1e-12))


def _coherence(motion: Motion, extent: np.ndarray, gain: np.ndarray) -> float:
    """0 to 1: whether neighbouring blocks go the same way, as skin does, and noise and rounding do not."""
    rows, columns = motion.grid
    if min(rows, columns) < 2 or len(extent) != 2 * rows * columns:
        return 1.0
    way = (extent / motion.scale).reshape(rows, columns, 2)
    way = way / np.maximum(np.linalg.norm(way, axis=-1, keepdims=True), 1e-12)
    weight = np.sqrt(np.maximum(gain.reshape(rows, columns, 2).sum(-1), 0))
    same = ((way[1:] * way[:-1]).sum(-1) * weight[1:] * weight[:-1]).sum()
    same = same + ((way[:, 1:] * way[:, :-1]).sum(-1) * weight[:, 1:] * weight[:, :-1]).sum()
    pairs = (weight[1:] * weight[:-1]).sum() + (weight[:, 1:] * weight[:, :-1]).sum()
    return min(max(float(same / max(pairs, 1e-12)) / _COHERENT, 0.0), 1.0)


def _spread(signal: np.ndarray, power: np.ndarray, cut: Cut) -> tuple[float, float, float]:
    """How far each key frame may be moved until the trapezoid fits the extent ``(t,)`` clearly worse.

    Worse by 1.35 in log likelihood, which a normal error reaches in one case of ten; the error is that of the fit.
    """
    t = len(signal)
    fitted = trapezoid(cut, t)[0]
    share = power / max(power.mean(), 1e-12)
    left = share * np.square(signal - fitted)
    variance = left.sum() / max(t - 4, 1) + _STILLEST**2
    widths = []
    for key in range(4):
        sides = []
        for side in (-1, 1):
            moved = np.stack(cut, 1).repeat(_WIDEST, 0)
            moved[:, key] += side * np.arange(1, _WIDEST + 1)
            ordered = (moved[:, 0] < moved[:, 1]) & (moved[:, 1] <= moved[:, 2]) & (moved[:, 2] < moved[:, 3])
            profiles = trapezoid(Cut(*moved.T), t)
            worse = (share * np.square(signal - profiles)).sum(1) - left.sum() > _WORSE * variance
            worse |= ~ordered
            sides.append(int(worse.argmax()) + 0.5 if worse.any() else float(_WIDEST))
        widths.append(max(sides))
    plateau = float(cut.end[0] - cut.apex[0]) / 2
    return widths[0], max(min(widths[1], widths[2]) - plateau, 0.5), widths[3]


def _gains(motion: Motion, cut: Cut, beside: Sequence[Movement] = ()) -> tuple[np.ndarray, np.ndarray]:
    """By how much each trajectory's robust error falls with the movement, and its extents, both ``(d,)``.

    ``beside``: movements that the model knows of already.
    """
    t = len(motion.values)
    onset, offset = int(cut.onset[0]), int(cut.offset[0])
    margin = min(max((offset - onset) // 3, 6), 16)
    low, high = max(onset - margin, 0), min(offset + margin, t - 1) + 1
    values, trust, head = (x[low:high] for x in (motion.values, motion.trust, motion.global_motion))
    n = high - low
    u = np.linspace(-1, 1, n, dtype=np.float32)
    smooth = [np.ones_like(u), u, *([u * u - 1 / 3, u**3 - 0.6 * u] if n > _BENT else [])]
    ridge = [1e-6, *[1e-2] * (len(smooth) - 1)]
    for other in beside:
        smooth.append(_shape([key - low for key in other[:4]], n))
        ridge.append(1e-6)
    known = np.stack(smooth, 1)
    profile = _shape([int(key[0]) - low for key in cut], n)
    moved, limit = _of_head(head, motion.scale)

    def error(design: np.ndarray, ridges: list[float]) -> tuple[np.ndarray, np.ndarray]:
        weight = trust
        for _ in range(2):
            clean = values
            if moved.shape[1]:
                both = np.concatenate((design, moved), 1)
                every = _least_squares(values, weight, both, (*ridges, *[_RIDGE_HEAD] * moved.shape[1]))
                clean = values - moved @ np.clip(every[design.shape[1] :], -limit, limit)
            coefficient = _least_squares(clean, weight, design, tuple(ridges))
            left = np.square(clean - design @ coefficient)
            weight = trust / (1 + left / 4)
        return (trust * np.log1p(left)).sum(0), coefficient

    with_it, coefficient = error(np.concatenate((known, profile[:, None]), 1), [*ridge, 1e-6])
    without, _ = error(known, ridge)
    return without - with_it, coefficient[-1]


# --- which of them --------------------------------------------------------------------------------------------------


def best_disjoint(found: Sequence[Movement]) -> list[Movement]:
    """Of movements, those that share no frames and are strongest together."""
    order = sorted(found, key=lambda one: (one.offset, one.onset))
    best: list[tuple[float, list[Movement]]] = [(0.0, [])]
    for i, one in enumerate(order):
        earlier = next((j for j in range(i, 0, -1) if order[j - 1].offset - one.onset < _OVERLAP), 0)
        total, chosen = best[earlier]
        with_it = total + one.strength - FOUND / 2, [*chosen, one]
        best.append(max(best[-1], with_it, key=lambda pair: pair[0]))
    return best[-1][1]


def _best_set(motion: Motion, found: list[Movement]) -> list[Movement]:
    """The best disjoint set, without movements that are another's flank: each is found beside all others."""
    while True:
        chosen = best_disjoint(found)
        for one in sorted(chosen, key=lambda one: one.strength):
            near = [other for other in chosen if other is not one and _gap(one, other) <= MARGIN]
            if near:
                gain, extent = _gains(motion, _cut(one[:4]), near)
                if float(gain.mean()) * _coherence(motion, extent, gain) < FOUND:
                    found = [other for other in found if other is not one]
                    break
        else:
            return chosen


def _gap(one: Movement, other: Movement) -> int:
    return max(one.onset - other.offset, other.onset - one.offset)


def _least_squares(values: np.ndarray, weight: np.ndarray, design: np.ndarray, ridge: tuple[float, ...]) -> np.ndarray:
    """Coefficients ``(q, d)`` of the design ``(t, q)`` for each trajectory ``(t, d)``, weighted."""
    coefficient: np.ndarray = least_squares(values[None], weight[None], design[None], ridge)[0]
    return coefficient


def _line(t: int) -> np.ndarray:
    """Rest and trend ``(t, 2)``."""
    return np.stack((np.ones(t, np.float32), np.linspace(-1, 1, t, dtype=np.float32)), 1)


def _of_head(head: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a head's motion ``(t, 6)`` may leave behind ``(t, 5)``, and how much of it, ``(5, d)``; none of none."""
    if not head.shape[1]:
        return head, np.zeros((0, len(scale)), np.float32)
    moved = head[:, [0, 3]]
    moved = moved - median(moved)
    x, y = moved[:, :1], moved[:, 1:]
    follows = np.array([_FOLLOWS] * 2 + [_FOLLOWS_BENT] * 3, np.float32)
    return np.concatenate((moved, x * x, x * y, y * y), 1), follows[:, None] * scale


def _without_head(motion: Motion) -> np.ndarray:
    """Trajectories without trend and without what the head's motion leaves behind, over the whole stretch."""
    values, line = motion.values, _line(len(motion.values))
    moved, limit = _of_head(motion.global_motion, motion.scale)
    if moved.shape[1]:
        design = np.concatenate((line, moved), 1)
        every = _least_squares(values, motion.trust, design, (1e-6, 1e-2, *[_RIDGE_HEAD] * moved.shape[1]))
        values = values - moved @ np.clip(every[2:], -limit, limit)
    rest: np.ndarray = values - line @ _least_squares(values, motion.trust, line, (1e-6, 1e-2))
    return rest
