"""Key frames in real conditions: the one movement that rises, holds and falls, shared by the blocks that it moves.

Every trajectory ``v`` of ``motion.py`` is modelled as ``rest + trend + global · g + extent · f``, where ``f`` is one
smooth trapezoid for the whole clip, ``extent`` how far the movement reaches there, and ``g`` what the head's motion
leaves behind (parallax, a background that stays), no more than the head itself moves. ``f`` and the rest are found in
turn: least squares for the trajectories, robust against frames that do not follow; then the trajectories, each with its
extent, combine to one signal to which the trapezoid is fitted. Of a set of coarse trapezoids the likeliest are the
starts, and the one whose model leaves the least error, counted so that no few frames or blocks decide (Cauchy), is the
answer. It tells which frames are at rest and which are not; how far each block has gone from one look to the other then
gives the extent of movements that are too large, or change the skin too much, for displacements.

Nothing is trained and there is nothing to set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mertools.keyframes.motion import Motion, clip_motion, find_cuts, is_picture, picture_motion, small_frames
from mertools.keyframes.trapezoid import Cut, TrapezoidFit, Windows, coarse_shapes, trapezoid

_STARTS, _STARTS_WITH_GLOBAL = 6, 3
_ALIKE = 0.85  # correlation of two starts above which they are one
_TURNS, _ALL_TURNS, _KEPT = 4, 1, (4, 2, 1)
_FOLLOWS = 0.6  # how far a block may follow the head's motion, or stay behind it
_FOLLOWS_BENT = 0.1  # the same of its square, per pixel
_FOLLOWS_AT_MOST = 3.5  # times that, where the question is if anything else moves at all
_RIDGE = 0.03  # how firmly a block is held not to follow the head
_PRIOR, _PRIOR_LOOKS = 2.0, 1.0  # the same where the extent is found: what may be movement is not the head's
_EVIDENCE = 4.9  # drop of the robust error that is as likely a movement as not
_FOUND = 0.5  # evidence from which a movement is found
_NINE_IN_TEN = 1.645  # standard deviations
_SHAPE = 0.2  # of the movement: how far from a trapezoid faces move
_SAME = 1e-3  # of the error: frames without noise that show the same
_MOTIONLESS = 1e-4  # of its error: rounding, where the light changes over a picture without anything in it
_STILL = 0.005  # of the movement: a face at rest that wanders less is still
_BAND, _BAND_AT_MOST = 4.0, 0.15  # standard deviations of the face at rest, and the most of the movement
_REACHES = 0.0, 3.0  # how far blocks follow the head, times what they do
_MODELS = 1.5  # standard deviations
_REST = 5  # frames at rest that show how it wanders
_NOTHING, _CLEAR = 0.002, 0.01  # share of the movement that is nothing, and below which rest is clear
_SHARPEN = 5  # frames
_LOOKS = 3  # turns in which appearance follows the extent
_LARGE = 1.0  # pixels from which appearance tells more than displacement
_COMMON = 2.0  # times the variance that most trajectories have, below which an error counts as one
_SHORT = 32  # frames
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
    if float(motion.values.abs().amax()) >= _MOTIONLESS:
        signal = _looked_at(motion, _search(motion, windows), windows).signal.cpu()
        extent[first:stop] = signal if bool(torch.isfinite(signal).all()) else math.nan
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


def key_frames_of_motion(motion: Motion | None, reach: SearchRange, keys: tuple[int, int, int] | None = None) -> Found:
    """Onset, apex (the middle of its plateau) and offset.

    ``motion`` is that of the frames of the search range, None for two frames.
    """
    start, stop, t, windows = reach
    if motion is None:
        return Found(start, stop - 1, stop - 1, 0.0, (1.0, 1.0, 1.0), (stop - 1, stop - 1))
    if float(motion.values.abs().amax()) < _MOTIONLESS:
        return nothing_moves(t, keys)
    first = _search(motion, windows)
    fit = _looked_at(motion, first, windows)
    onset, offset = _visible(first, fit)
    apex = (int(fit.cut.apex) + int(fit.cut.end)) // 2
    # Of frames that are the same, the first is the apex.
    same = ((motion.values[1:] - motion.values[:-1]).abs().amax(1) < _SAME).tolist()
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
    spread = _spread(first, fit, windows, (onset, apex, offset))
    plateau = min(int(fit.cut.apex), apex), max(min(int(fit.cut.end), last), apex)
    evidence = _evidence(motion, first)
    return Found(
        start + onset, start + apex, start + offset, evidence, spread, (start + plateau[0], start + plateau[1])
    )


def _evidence(motion: Motion, fit: _Fit) -> float:
    """How sure it is that there is a movement, 0 to 1.

    The robust error without the movement, less that with it, in the three tenths of the blocks where it drops most:
    once as the search sees it, block by block, and once harder to convince, which count alike (geometric mean). There
    blocks are taken with their neighbours (what moves moves together, noise does not), and may follow the head up to
    three times as far as the rest of the face, or stay behind it as a background does. Change counts only as far as
    displacement explains it, so that neither a turn of the head nor a blink is evidence. Values are in units of their
    error: the same number at any size, contrast and noise. More frames at rest do not add to it.
    """
    clear = torch.minimum(motion.trust, motion.explained)
    alone = _drop(motion.values, clear, motion, fit, reach=1.0, prior=_PRIOR)
    values, clear = _together(motion.values, clear, motion.grid) if motion.grid[0] else (motion.values, clear)
    drop = math.sqrt(alone * _drop(values, clear, motion, fit, reach=_FOLLOWS_AT_MOST, prior=_RIDGE))
    return drop / (drop + _EVIDENCE)


def _drop(values: Tensor, clear: Tensor, motion: Motion, fit: _Fit, *, reach: float, prior: float) -> float:
    """By how much the movement of a fit lowers the robust error of values ``(t, d)`` with weights ``clear``."""
    weight = (clear * fit.robust).unsqueeze(0)
    profile = trapezoid(fit.cut, len(values)).unsqueeze(0)
    values = values.unsqueeze(0)
    without, _ = fit.nuisance.removed(values, weight, reach=reach, prior=prior)
    rest, extent = fit.nuisance.removed(values, weight, profile, reach=reach, prior=prior)
    left = (rest - profile.unsqueeze(-1) * extent.unsqueeze(1)).square()
    drop = (clear * (torch.log1p(without.square()) - torch.log1p(left)))[0].sum(0)
    drop = drop.view(-1, 2).sum(1) if motion.grid[0] else drop
    return float(drop.topk(max(3 * len(drop) // 10, 1)).values.mean().clamp(min=0))


def _together(values: Tensor, clear: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Weighted means ``(t, d)`` of each block and its neighbours, in units of their error, and their weights."""

    def around(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, 1, 1, divisor_override=1)

    def back(x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)

    maps = values.view(-1, *grid, 2).permute(0, 3, 1, 2)
    weight = clear.view(-1, *grid, 2).permute(0, 3, 1, 2)
    total = around(weight)
    mean = around(weight * maps) / around(weight.square()).sqrt().clamp(min=1e-6)
    return back(mean), back(total / 9)


def _spread(first: _Fit, fit: _Fit, windows: Windows | None, found: tuple[int, int, int]) -> tuple[float, float, float]:
    """Half-widths of the intervals that hold the true onset, apex and offset nine times in ten.

    Errors that add up in quadrature: that of the extent, from the error that other corners would leave (its residuals
    follow one another, so that they count for fewer); that of the face not moving as one, from the key frames that are
    found without one ninth of the picture, in turn (jackknife); and that of the models: how far the corners move when
    blocks follow the head freely or not at all, and between displacement and appearance.
    """
    motion = fit.motion
    t, d = motion.values.shape
    search = TrapezoidFit(t, motion.values.device, windows)
    signal, power = fit.signal.unsqueeze(0), fit.power.unsqueeze(0)
    residual = (signal - trapezoid(fit.cut, t)) * power.sqrt()
    variance = residual.square().mean()
    alike = ((residual[:, 1:] * residual[:, :-1]).sum() / residual.square().sum().clamp(min=1e-12)).clamp(0, 0.9)
    limit = _NINE_IN_TEN**2 * variance * (1 + alike) / (1 - alike)
    errors = search.profiles(signal, power)
    within = [(error[0] <= error[0].amin() + limit).cpu() for error in errors]

    rows, columns = motion.grid
    if rows:
        row, column = torch.arange(rows) * 3 // rows, torch.arange(columns) * 3 // columns
        part = (3 * row.unsqueeze(1) + column).flatten().repeat_interleave(d // (rows * columns))
    else:
        part = torch.arange(d) * 9 // d
    kept = (part != torch.arange(9).unsqueeze(1)).to(motion.values)  # (9, d)
    weight = motion.trust * fit.robust
    powers = [(weight * fit.extent.square()) @ kept.mT]  # (t, 9)
    signals = [(weight * fit.rest * fit.extent) @ kept.mT / powers[0].clamp(min=1e-12)]
    if first.nuisance.of_global.shape[1]:
        own, profile = first.motion, trapezoid(first.cut, t).unsqueeze(0)
        weight = own.trust * first.robust
        for reach in _REACHES:
            rest, extent = first.nuisance.removed(own.values.unsqueeze(0), weight.unsqueeze(0), profile, reach=reach)
            power = weight @ extent[0].square()
            signals.append(((weight * rest[0]) @ extent[0] / power.clamp(min=1e-12)).unsqueeze(1))
            powers.append(power.unsqueeze(1))
    signal, power = torch.cat(signals, 1).mT, torch.cat(powers, 1).mT
    power = power / power.mean(1, keepdim=True).clamp(min=1e-12)
    level = signal.new_zeros(len(signal))
    cuts = torch.stack(search.from_levels(signal, power, level, level + 1)).float().clamp(max=t)
    deviation = (8 * cuts[:, :9].var(1, unbiased=False)).sqrt().cpu()
    corners, displaced = (torch.stack(one.cut).clamp(max=t).float() for one in (fit, first))
    models = torch.cat((corners.unsqueeze(1), cuts[:, 9:]), 1) - displaced.unsqueeze(1)
    apart = (_MODELS * models.square().sum(1).sqrt()).cpu()
    deviation = torch.hypot(_NINE_IN_TEN * deviation, apart)
    where = corners.clamp(max=t - 1).int().tolist()
    return (
        _half_width(within[0], found[0], where[0], float(deviation[0])),
        _half_width_of_apex(within[1], within[2], found[1], where[1:3], deviation[1:3].tolist()),
        _half_width(within[3], found[2], where[3], float(deviation[3])),
    )


def _half_width(within: Tensor, found: int, corner: int, deviation: float) -> float:
    low, high = _run(within.tolist(), corner)
    return max(math.hypot(max(high - found, found - low), deviation), 1.0)


def _half_width_of_apex(
    start: Tensor, end: Tensor, found: int, corners: Sequence[int], deviation: Sequence[float]
) -> float:
    """So wide that the interval meets the plateau even if that begins later, or ends earlier, than it seems to."""
    late = math.hypot(_run(start.tolist(), corners[0])[1] - corners[0], deviation[0]) + corners[0] - found
    early = math.hypot(corners[1] - _run(end.tolist(), corners[1])[0], deviation[1]) + found - corners[1]
    return max(late, early, 0.0)


def _run(within: Sequence[bool], at: int) -> tuple[int, int]:
    """First and last of the frames around ``at`` that are within."""
    low = high = at
    while low > 0 and within[low - 1]:
        low -= 1
    while high + 1 < len(within) and within[high + 1]:
        high += 1
    return low, high


def _visible(first: _Fit, fit: _Fit) -> tuple[int, int]:
    """Onset and offset: where the movement leaves and enters the band in which the face wanders at rest.

    The band is that of slow wandering; noise from frame to frame is bridged by the fit and is no part of it. Where a
    face at rest is so still that the first frame displaced stands out, that frame counts.
    """
    extent, displaced, t = fit.signal.cpu(), first.signal.cpu(), len(fit.signal)
    onset, apex, end, offset = (int(key) for key in fit.cut)
    bend = extent[2:] - 2 * extent[1:-1] + extent[:-2]
    noise = (bend.abs().median() / (0.6745 * 6**0.5)).square() / 3
    known = fit.power.cpu() > fit.power.median().cpu() / 2  # no blink in it
    wander = [_wander(extent[rest][known[rest]], noise) for rest in (slice(max(onset - 1, 0)), slice(offset + 2, None))]
    bands = [own if own is not None else other or 0.0 for own, other in (wander, wander[::-1])]
    leave, enter = (_step_at(min(max(_BAND * (band - _STILL), 0.0), _BAND_AT_MOST)) for band in bands)
    clear = _stands_out(displaced, onset, apex)
    onset = round(onset + leave * (apex - onset)) if clear is None else clear
    if offset < t:
        clear = _stands_out(displaced.flip(0), t - 1 - offset, t - 1 - end)
        offset = round(offset - enter * (offset - end)) if clear is None else t - 1 - clear
    return onset, offset


def _stands_out(extent: Tensor, corner: int, full: int) -> int | None:
    """The last frame at rest of an extent that is still until about ``corner``; None where it is not."""
    rest = extent[: max(corner - 1, 0)]
    if len(rest) < _REST:
        return None
    away = (extent - rest.median()).abs()
    still = 2 * float(away[: len(rest)].max()) + _NOTHING
    if still > _CLEAR:
        return None
    low, high = max(corner - _SHARPEN, 0), min(corner + _SHARPEN, full)
    moving = next((i for i in range(low, high + 1) if away[i] > still), low)
    return moving - 1 if moving > low else corner


def _wander(rest: Tensor, noise: Tensor) -> float | None:
    """Standard deviation of the slow part of an extent at rest; None of too few frames."""
    if len(rest) < _REST:
        return None
    slow = (rest - rest.median()).unfold(0, 3, 1).mean(-1).abs().median() / 0.6745
    return float((slow.square() - noise).clamp(min=0).sqrt())


def _step_at(height: float) -> float:
    """Where a smooth step ``x²(3 − 2x)`` reaches a height in [0, 1]."""
    return 0.5 - math.sin(math.asin(1 - 2 * height) / 3)


def _search(motion: Motion, windows: Windows | None) -> _Fit:
    """The best trapezoid, and the extent that was measured in each frame."""
    values, trust = motion.values, motion.trust
    t, device = len(values), values.device
    nuisance = _Nuisance(motion)
    without_global = nuisance.removed(values.unsqueeze(0), trust.unsqueeze(0))[0][0]
    # What most of the face does all the time is no expression, however little noise there is.
    usual = (trust * without_global.square()).sum(0) / trust.sum(0).clamp(min=1e-6)
    common = (_COMMON * usual.median()).clamp(min=1)
    # Where a movement starts with the head, what the head explains must not be taken away before it is looked for.
    profile = _starts(
        without_global, trust, torch.cat((nuisance.slow, nuisance.of_global), 1), common, _STARTS, windows
    )
    if nuisance.of_global.shape[1]:
        plain = _starts(nuisance.plain(values, trust), trust, nuisance.slow, common, _STARTS_WITH_GLOBAL, windows)
        profile = torch.cat((profile, plain))
    noise = _noise(without_global)
    fit = TrapezoidFit(t, device, windows)
    robust = values.new_ones(len(profile), *values.shape)
    for turn in range(_TURNS):
        rest, extent = nuisance.removed(values.unsqueeze(0), trust * robust, profile, prior=_PRIOR)
        error = (rest - profile.unsqueeze(-1) * extent.unsqueeze(1)).square()
        if turn >= _ALL_TURNS:  # what is clearly worse by now will not come back
            left = (trust * torch.log1p(error / common)).sum((1, 2)).nan_to_num(float("inf"))
            best = left.topk(min(_KEPT[turn - _ALL_TURNS], len(left)), largest=False).indices
            rest, extent, error = rest[best], extent[best], error[best]
        scale = 2 * error.median(1, keepdim=True).values + noise**2 + (_SHAPE * extent.unsqueeze(1)).square()
        robust = 1 / (1 + error / (4 * scale))
        weight = trust * robust
        power = weight @ extent.square().unsqueeze(-1)
        signal = (weight * rest) @ extent.unsqueeze(-1) / power.clamp(min=1e-12)
        power = power.squeeze(-1) / power.mean(1).clamp(min=1e-12)
        signal = signal.squeeze(-1)  # 0 at rest, 1 at the apex
        level = signal.new_zeros(len(signal))
        if turn == 0 and t <= _SHORT:  # too short for the coarse starts to hold the answer
            cut = fit.anywhere(signal, power)
        else:
            cut = fit.from_levels(signal, power, level, level + 1)
        profile = trapezoid(cut, t)
    return _Fit(Cut(*(key[0] for key in cut)), signal[0], power[0], rest[0], extent[0], robust[0], nuisance, motion)


class _Fit(NamedTuple):
    """The best movement.

    Shape:
        - signal: ``(t,)``, its measured extent, 0 at rest and 1 at the apex; power: how well that is known
        - rest: ``(t, d)``, trajectories without nuisance; extent: ``(d,)``, of each; robust: their weights ``(t, d)``
        - nuisance, motion: what it was fitted to
    """

    cut: Cut
    signal: Tensor
    power: Tensor
    rest: Tensor
    extent: Tensor
    robust: Tensor
    nuisance: _Nuisance
    motion: Motion


def _looked_at(motion: Motion, fit: _Fit, windows: Windows | None) -> _Fit:
    """The fit with the extent as appearance shows it, the more so the larger the movement is.

    The displacement of a block is linear in its intensities up to two pixels; beyond, and where folds or teeth appear,
    the extent is how far each block has gone from its look at rest to that of the full movement.
    """
    if motion.looks is None:
        return fit
    t = len(motion.values)
    search = TrapezoidFit(t, motion.values.device, windows)
    size = (fit.extent / motion.scale).view(-1, 2).norm(dim=1)
    trusted = motion.trust.mean(0)[::2]
    large = size[trusted > trusted.max() / 4].quantile(0.95)
    share = large.square() / (large.square() + _LARGE**2)
    cut, trust = Cut(*(key.unsqueeze(0) for key in fit.cut)), motion.trust[:, ::2]
    robust = torch.ones_like(trust).unsqueeze(0)
    for _ in range(_LOOKS):
        profile = trapezoid(cut, t)
        looks, certain = motion.looks.along(motion, profile[0], fit.nuisance.slow, trust)
        trust, nuisance = looks.trust, _Nuisance(looks)
        rest, extent = nuisance.removed(looks.values.unsqueeze(0), trust * robust, profile, prior=_PRIOR_LOOKS)
        error = (rest - profile.unsqueeze(-1) * extent.unsqueeze(1)).square()
        scale = 2 * error.median(1, keepdim=True).values + 1 + (_SHAPE * extent.unsqueeze(1)).square()
        robust = 1 / (1 + error / (4 * scale))
        weight = trust * robust * certain
        power = weight @ extent.square().unsqueeze(-1)
        signal = ((weight * rest) @ extent.unsqueeze(-1) / power.clamp(min=1e-12)).squeeze(-1)
        power = share * power.squeeze(-1) / power.mean(1).clamp(min=1e-12)
        beside = (1 - share) * fit.power
        signal = (power * signal + beside * fit.signal) / (power + beside).clamp(min=1e-12)
        power = power + beside
        level = signal.new_zeros(1)
        cut = search.from_levels(signal, power, level, level + 1)
    return _Fit(
        Cut(*(key[0] for key in cut)), signal[0], power[0], rest[0], extent[0], certain * robust[0], nuisance, looks
    )


def _starts(
    values: Tensor, trust: Tensor, nuisance: Tensor, common: Tensor, count: int, windows: Windows | None
) -> Tensor:
    """The shapes ``(count, t)`` of a coarse set of trapezoids that explain most, each unlike the others.

    A trajectory's noise is not known beforehand (an eye that blinks has more of it), so what a shape takes away from
    its energy ``e`` counts as the likelihood does with an unknown variance, ``log(e / (e − gain))``: no few of them
    decide.
    """
    shapes = coarse_shapes(len(values), values.device, windows)
    basis = torch.linalg.qr(nuisance)[0]
    own = shapes - (shapes @ basis) @ basis.mT
    weighted = trust * values
    energy, mass = (weighted * values).sum(0), trust.sum(0)
    gain = (own @ weighted).square() / (own.square() @ trust + 1e-3)
    share = (gain / (energy + common * mass + 1e-6)).clamp(max=0.999)
    score = -(torch.log1p(-share) * mass).sum(1)
    alike = shapes - shapes.mean(1, keepdim=True)
    alike = alike / alike.norm(dim=1, keepdim=True).clamp(min=1e-9)
    chosen = []
    for _ in range(min(count, len(shapes))):
        best = score.argmax(keepdim=True)
        chosen.append(best)
        score = score.masked_fill((alike @ alike[best].mT).squeeze(1) > _ALIKE, -math.inf)
    return shapes[torch.cat(chosen)]


class _Nuisance:
    """What a trajectory holds beside the expression: its rest, a slow trend, and what the head's motion leaves."""

    def __init__(self, motion: Motion) -> None:
        t, like = len(motion.values), motion.values
        self.slow = like.new_ones(t, 1)
        if motion.global_motion.shape[1]:
            # Few frames can't tell a trend, or what bends with the global motion, from what moves by itself.
            if t > _SHORT:
                self.slow = torch.cat(
                    (self.slow, torch.linspace(-1, 1, t, dtype=torch.float32).to(like).unsqueeze(-1)), -1
                )
            shift = motion.global_motion[:, [0, 3]]
            shift = shift - shift.median(0).values
            products = torch.stack((shift[:, 0].square(), shift.prod(1), shift[:, 1].square()), -1)
            self.of_global = torch.cat((shift, products), -1) if t > _SHORT else shift
        else:
            self.of_global = motion.values.new_zeros(t, 0)
        follows = like.new_tensor([_FOLLOWS] * 2 + [_FOLLOWS_BENT] * 3)[: self.of_global.shape[1]]
        self.ridge = (1e-6, 1e-2)[: self.slow.shape[1]]
        self.limit = follows.unsqueeze(-1) * motion.scale

    def plain(self, values: Tensor, trust: Tensor) -> Tensor:
        """Values without rest and trend only."""
        coefficient = _least_squares(values.unsqueeze(0), trust.unsqueeze(0), self.slow.unsqueeze(0), self.ridge)
        return values - self.slow @ coefficient[0]

    def removed(
        self,
        values: Tensor,
        weight: Tensor,
        profile: Tensor | None = None,
        *,
        reach: float = 1.0,
        prior: float = _RIDGE,
    ) -> tuple[Tensor, Tensor]:
        """Values ``(s, t, d)`` without the nuisance, and the extents ``(s, d)`` of each of ``s`` profiles."""
        s = len(weight)
        slow = self.slow.expand(s, -1, -1)
        shape = [] if profile is None else [profile.unsqueeze(-1)]
        ridge = [1e-6] * len(shape)
        q, m = self.slow.shape[1], self.of_global.shape[1]
        if m:
            design = torch.cat((slow, self.of_global.expand(s, -1, -1), *shape), -1)
            follows = _least_squares(values, weight, design, (*self.ridge, *[prior] * m, *ridge))[:, q : q + m]
            limit = reach * self.limit
            follows = torch.maximum(torch.minimum(follows, limit), -limit)
            values = values - self.of_global @ follows
        design = torch.cat((slow, *shape), -1)
        coefficient = _least_squares(values, weight, design, (*self.ridge, *ridge))
        return values - slow @ coefficient[:, :q], coefficient[:, q:].sum(1)


def _least_squares(values: Tensor, weight: Tensor, design: Tensor, ridge: tuple[float, ...]) -> Tensor:
    """Coefficients ``(s, q, d)`` of the design ``(s, t, q)`` for each trajectory, weighted.

    The small systems are solved all at once, by elimination: several times quicker than one by one.
    """
    q = design.shape[-1]
    pairs = (design.unsqueeze(-1) * design.unsqueeze(-2)).flatten(2)
    system = torch.cat(
        ((pairs.mT @ weight).view(len(design), q, q, -1), (design.mT @ (weight * values)).unsqueeze(2)), 2
    )  # (s, q, q + 1, d)
    diagonal = system[:, :, :q].diagonal(0, 1, 2)
    diagonal.mul_(1 + 1e-5).add_(design.new_tensor(ridge))
    for i in range(q):
        pivot = system[:, i : i + 1, i : i + 1]
        row = system[:, i : i + 1] / pivot
        column = system[:, :, i : i + 1].clone()
        column[:, i] -= 1  # what is left of the row itself is the row divided by its pivot
        system = torch.addcmul(system, column, row, value=-1)
    return system[:, :, q]


def _noise(values: Tensor) -> Tensor:
    """Frame-to-frame noise that most trajectories have."""
    bend = (values[2:] - 2 * values[1:-1] + values[:-2]).abs()
    return (bend.median(0).values / (0.6745 * 6**0.5)).median().clamp(min=1e-6)
