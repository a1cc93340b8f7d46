"""How sure a search is: evidence that there is a movement at all, and intervals of its key frames."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mertools.movement.fit import PRIOR, RIDGE, Fit
from mertools.movement.least_squares import product
from mertools.movement.motion import Motion
from mertools.movement.trapezoid import Windows, fit_for, trapezoid

_FOLLOWS_AT_MOST = 3.5  # times as far as a block may follow the head, where the question is if anything else moves
_EVIDENCE = 4.4  # drop of the robust error that is as likely a movement as not
_SHAPED = 4.0  # how much of it an extent of another shape than a trapezoid's takes away
_NINE_IN_TEN = 1.645  # standard deviations
_REACHES = 0.0, 3.0  # how far blocks follow the head, times what they do
_MODELS = 1.5  # standard deviations


def evidence(motion: Motion, fit: Fit) -> float:
    """How sure it is that there is a movement, 0 to 1.

    The robust error without the movement, less that with it, in the three tenths of the blocks where it drops most:
    once as the search sees it, block by block, and once harder to convince, which count alike (geometric mean). There
    blocks are taken with their neighbours (what moves moves together, noise does not), and may follow the head up to
    three times as far as the rest of the face, and its cube, or stay behind it as a background does. Change counts only
    as far as displacement explains it, and all of it only as far as the extent rises, holds and falls once, so that
    neither a turn of the head nor blinks are evidence. Values are in units of their error: the same number at any size,
    contrast and noise. More frames at rest do not add to it.
    """
    values, clear = motion.values, np.minimum(motion.trust, motion.explained)
    alone = _drop(values, clear, motion.grid, fit, reach=1.0, prior=PRIOR)
    if motion.grid[0]:
        values, clear = _together(values, clear, motion.grid)
    wary = fit._replace(nuisance=fit.nuisance.with_cubes())
    drop = math.sqrt(alone * _drop(values, clear, motion.grid, wary, reach=_FOLLOWS_AT_MOST, prior=RIDGE))
    drop *= _shaped(fit) ** _SHAPED
    return float(drop / (drop + _EVIDENCE))


def _shaped(fit: Fit) -> float:
    """The share of the extent's variance that its trapezoid explains, 0 to 1."""
    left = fit.power @ np.square(fit.signal - trapezoid(fit.cut, len(fit.signal)))
    whole = fit.power @ np.square(fit.signal - np.average(fit.signal, weights=fit.power))
    return max(0.0, 1 - float(left / whole)) if whole > 0 else 0.0


def _drop(
    values: np.ndarray, clear: np.ndarray, grid: tuple[int, int], fit: Fit, *, reach: float, prior: float
) -> float:
    """By how much the movement of a fit lowers the robust error of values ``(t, d)`` with weights ``clear``."""
    weight = (clear * fit.robust)[None]
    profile = trapezoid(fit.cut, len(values))[None]
    without, _ = fit.nuisance.removed(values[None], weight, reach=reach, prior=prior)
    rest, extent = fit.nuisance.removed(values[None], weight, profile, reach=reach, prior=prior)
    left = np.square(rest - profile[..., None] * extent[:, None])
    drop = (clear * (np.log1p(np.square(without)) - np.log1p(left)))[0].sum(0)
    drop = drop.reshape(-1, 2).sum(1) if grid[0] else drop
    most = np.sort(drop)[-max(3 * len(drop) // 10, 1) :]
    return max(float(most.mean()), 0.0)


def _together(values: np.ndarray, clear: np.ndarray, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Weighted means ``(t, d)`` of each block and its neighbours, in units of their error, and their weights."""

    def around(x: np.ndarray) -> np.ndarray:
        x = np.pad(x.reshape(-1, *grid, 2), ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
        total: np.ndarray = x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]
        return total.reshape(values.shape)

    mean = around(clear * values) / np.maximum(np.sqrt(around(np.square(clear))), 1e-6)
    return mean, around(clear) / 9


def half_widths(
    first: Fit, fit: Fit, grid: tuple[int, int], windows: Windows | None, found: tuple[int, int, int]
) -> tuple[float, float, float]:
    """Half-widths of the intervals that hold the true onset, apex and offset nine times in ten.

    Errors that add up in quadrature: that of the extent, from the error that other corners would leave (its residuals
    follow one another, so that they count for fewer); that of the face not moving as one, from the key frames that are
    found without one ninth of the picture, in turn (jackknife); and that of the models: how far the corners move when
    blocks follow the head freely or not at all, and between displacement and appearance.
    """
    t, d = fit.rest.shape
    search = fit_for(t, windows)
    residual = (fit.signal - trapezoid(fit.cut, t)) * np.sqrt(fit.power)
    squares = np.square(residual).sum()
    alike = min(max((residual[1:] * residual[:-1]).sum() / max(squares, 1e-12), 0), 0.9)
    limit = _NINE_IN_TEN**2 * squares / t * (1 + alike) / (1 - alike)
    within = [error[0] <= error[0].min() + limit for error in search.profiles(fit.signal[None], fit.power[None])]

    rows, columns = grid
    if rows:
        row, column = np.arange(rows) * 3 // rows, np.arange(columns) * 3 // columns
        part = (3 * row[:, None] + column).ravel().repeat(d // (rows * columns))
    else:
        part = np.arange(d) * 9 // d
    kept = (part[:, None] != np.arange(9)).astype(np.float32)  # (d, 9)
    weight = fit.motion.trust * fit.robust
    powers = [product(weight * np.square(fit.extent), kept)]  # (t, 9)
    signals = [product(weight * fit.rest * fit.extent, kept) / np.maximum(powers[0], 1e-12)]
    if first.nuisance.of_global.shape[1]:
        own, profile = first.motion, trapezoid(first.cut, t)[None]
        weight = own.trust * first.robust
        for reach in _REACHES:
            rest, extent = first.nuisance.removed(own.values[None], weight[None], profile, reach=reach)
            power = product(weight, np.square(extent[0]))
            signals.append((product(weight * rest[0], extent[0]) / np.maximum(power, 1e-12))[:, None])
            powers.append(power[:, None])
    signal, power = np.concatenate(signals, 1).T, np.concatenate(powers, 1).T
    power = power / np.maximum(power.mean(1, keepdims=True), 1e-12)
    cuts = np.minimum(np.stack(search.from_rest_to_full(signal, power)), t)
    deviation = np.sqrt(8 * cuts[:, :9].var(1))
    corners, displaced = (np.minimum(np.stack(one.cut), t) for one in (fit, first))
    models = np.concatenate((corners[:, None], cuts[:, 9:]), 1) - displaced[:, None]
    deviation = np.hypot(_NINE_IN_TEN * deviation, _MODELS * np.sqrt(np.square(models).sum(1))).tolist()
    where = np.minimum(corners, t - 1).tolist()
    return (
        _half_width(within[0], found[0], where[0], deviation[0]),
        _half_width_of_apex(within[1], within[2], found[1], where[1:3], deviation[1:3]),
        _half_width(within[3], found[2], where[3], deviation[3]),
    )


def _half_width(within: np.ndarray, found: int, corner: int, deviation: float) -> float:
    low, high = _run(within, corner)
    return max(math.hypot(max(high - found, found - low), deviation), 1.0)


def _half_width_of_apex(
    start: np.ndarray, end: np.ndarray, found: int, corners: Sequence[int], deviation: Sequence[float]
) -> float:
    """So wide that the interval meets the plateau even if that begins later, or ends earlier, than it seems to."""
    late = math.hypot(_run(start, corners[0])[1] - corners[0], deviation[0]) + corners[0] - found
    early = math.hypot(corners[1] - _run(end, corners[1])[0], deviation[1]) + found - corners[1]
    return max(late, early, 0.0)


def _run(within: np.ndarray, at: int) -> tuple[int, int]:
    """First and last of the frames around ``at`` that are within."""
    low = high = at
    while low > 0 and within[low - 1]:
        low -= 1
    while high + 1 < len(within) and within[high + 1]:
        high += 1
    return low, high
