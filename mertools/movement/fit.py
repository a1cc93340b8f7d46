"""The one movement of a clip: how far it has gone in each frame, and how far it reaches in each block.

Every trajectory ``v`` of ``motion.py`` is modelled as ``rest + trend + global · g + extent · f``, where ``f`` is one
smooth trapezoid for the whole clip, ``extent`` how far the movement reaches there, and ``g`` what the head's motion
leaves behind (parallax, a background that stays), no more than the head itself moves. ``f`` and the rest are found in
turn: least squares for the trajectories, robust against frames that do not follow; then the trajectories, each with its
extent, combine to one signal to which the trapezoid is fitted. Of a set of coarse trapezoids the likeliest are the
starts, and the one whose model leaves the least error, counted so that no few frames or blocks decide (Cauchy), is the
answer. It tells which frames are at rest and which are not; how far each block has gone from one look to the other then
gives the extent of movements that are too large, or change the skin too much, for displacements.

Nothing is trained and there is nothing to set. Trajectories are few and short: NumPy on the host takes less time for
them than PyTorch, on whatever device the pictures are.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import numpy as np

from mertools.movement.least_squares import least_squares, median, product
from mertools.movement.motion import Motion
from mertools.movement.trapezoid import Cut, Windows, coarse_shapes, fit_for, trapezoid

_STARTS, _STARTS_WITH_GLOBAL = 6, 3
_ALIKE = 0.85  # correlation of two starts above which they are one
_TURNS, _ALL_TURNS, _KEPT = 4, 1, (4, 2, 1)
_FOLLOWS = 0.6  # how far a block may follow the head's motion, or stay behind it
_FOLLOWS_BENT = 0.1  # the same of its square, per pixel
_CUBES = 30.0  # square pixels by which its cube is divided
RIDGE = 0.03  # how firmly a block is held not to follow the head
PRIOR, _PRIOR_LOOKS = 2.0, 1.0  # the same where the extent is found: what may be movement is not the head's
_SHAPE = 0.2  # of the movement: how far from a trapezoid faces move
_LOOKS = 3  # turns in which appearance follows the extent
_LARGE = 1.0  # pixels from which appearance tells more than displacement
_COMMON = 2.0  # times the variance that most trajectories have, below which an error counts as one
_SHORT = 32  # frames


class Fit(NamedTuple):
    """The best movement.

    Shape:
        - cut: of its trapezoid, single frames
        - signal: ``(t,)``, its measured extent, 0 at rest and 1 at the apex; power: how well that is known
        - rest: ``(t, d)``, trajectories without nuisance; extent: ``(d,)``, of each; robust: their weights ``(t, d)``
        - nuisance, motion: what it was fitted to
    """

    cut: Cut
    signal: np.ndarray
    power: np.ndarray
    rest: np.ndarray
    extent: np.ndarray
    robust: np.ndarray
    nuisance: Nuisance
    motion: Motion


def search(motion: Motion, windows: Windows | None) -> Fit:
    """The best trapezoid, and the extent that was measured in each frame."""
    values, trust = motion.values, motion.trust
    t = len(values)
    nuisance = Nuisance(motion)
    without_global = nuisance.removed(values[None], trust[None])[0][0]
    # What most of the face does all the time is no expression, however little noise there is.
    usual = (trust * np.square(without_global)).sum(0) / np.maximum(trust.sum(0), 1e-6)
    common = max(_COMMON * float(median(usual)), 1.0)
    # Where a movement starts with the head, what the head explains must not be taken away before it is looked for.
    both = np.concatenate((nuisance.slow, nuisance.of_global), 1)
    profile = _starts(without_global, trust, both, common, _STARTS, windows)
    if nuisance.of_global.shape[1]:
        plain = _starts(nuisance.plain(values, trust), trust, nuisance.slow, common, _STARTS_WITH_GLOBAL, windows)
        profile = np.concatenate((profile, plain))
    noise = _noise(without_global)
    fit = fit_for(t, windows)
    robust = np.ones((len(profile), *values.shape), np.float32)
    for turn in range(_TURNS):
        rest, extent = nuisance.removed(values[None], trust * robust, profile, prior=PRIOR)
        error = np.square(rest - profile[..., None] * extent[:, None])
        if turn >= _ALL_TURNS:  # what is clearly worse by now will not come back
            left = np.nan_to_num((trust * np.log1p(error / common)).sum((1, 2)), nan=math.inf)
            best = left.argsort(kind="stable")[: _KEPT[turn - _ALL_TURNS]]
            rest, extent, error = rest[best], extent[best], error[best]
        robust = _robust(error, extent, noise**2)
        signal, power = _combined(rest, extent, trust * robust)  # 0 at rest, 1 at the apex
        # Some clips are too short for the coarse starts to hold the answer.
        anywhere = turn == 0 and t <= _SHORT
        cut = fit.anywhere(signal, power) if anywhere else fit.from_rest_to_full(signal, power)
        profile = trapezoid(cut, t)
    return Fit(Cut(*(key[0] for key in cut)), signal[0], power[0], rest[0], extent[0], robust[0], nuisance, motion)


def looked_at(motion: Motion, fit: Fit, windows: Windows | None) -> Fit:
    """The fit with the extent as appearance shows it, the more so the larger the movement is.

    The displacement of a block is linear in its intensities up to two pixels; beyond, and where folds or teeth appear,
    the extent is how far each block has gone from its look at rest to that of the full movement.
    """
    if motion.looks is None:
        return fit
    t = len(fit.signal)
    size = np.linalg.norm((fit.extent / fit.motion.scale).reshape(-1, 2), axis=1)
    trusted = fit.motion.trust.mean(0)[::2]
    large = np.quantile(size[trusted > trusted.max() / 4], 0.95)
    share = np.float32(large**2 / (large**2 + _LARGE**2))
    cut, trust = Cut(*(key[None] for key in fit.cut)), motion.trust[:, ::2]
    robust = np.ones((1, *trust.shape), np.float32)
    for _ in range(_LOOKS):
        profile = trapezoid(cut, t)
        looks, certain = motion.looks.along(motion, profile[0], fit.nuisance.slow, trust)
        trust, nuisance = looks.trust, Nuisance(looks)
        rest, extent = nuisance.removed(looks.values[None], trust * robust, profile, prior=_PRIOR_LOOKS)
        error = np.square(rest - profile[..., None] * extent[:, None])
        robust = _robust(error, extent, 1.0)
        signal, power = _combined(rest, extent, trust * robust * certain)
        power = share * power
        beside = (1 - share) * fit.power
        signal = (power * signal + beside * fit.signal) / np.maximum(power + beside, 1e-12)
        power = power + beside
        cut = fit_for(t, windows).from_rest_to_full(signal, power)
    weight = certain * robust[0]
    return Fit(Cut(*(key[0] for key in cut)), signal[0], power[0], rest[0], extent[0], weight, nuisance, looks)


def _robust(error: np.ndarray, extent: np.ndarray, variance: float) -> np.ndarray:
    """Weights ``(s, t, d)`` of squared errors: less where they exceed what is usual in the trajectory."""
    scale = 2 * median(error, 1)[:, None] + variance + np.square(np.float32(_SHAPE) * extent[:, None])
    weight: np.ndarray = 1 / (1 + error / (4 * scale))
    return weight


def _combined(rest: np.ndarray, extent: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Trajectories ``(s, t, d)`` with their extents ``(s, d)`` as one signal ``(s, t)``, and how well that is known."""
    power = product(weight, np.square(extent)[..., None])[..., 0]
    signal = product(weight * rest, extent[..., None])[..., 0] / np.maximum(power, 1e-12)
    return signal, power / np.maximum(power.mean(1, keepdims=True), 1e-12)


def _starts(
    values: np.ndarray, trust: np.ndarray, nuisance: np.ndarray, common: float, count: int, windows: Windows | None
) -> np.ndarray:
    """The shapes ``(count, t)`` of a coarse set of trapezoids that explain most, each unlike the others.

    A trajectory's noise is not known beforehand (an eye that blinks has more of it), so what a shape takes away from
    its energy ``e`` counts as the likelihood does with an unknown variance, ``log(e / (e − gain))``: no few of them
    decide.
    """
    shapes = coarse_shapes(len(values), windows).copy()  # theirs are shared and read-only, which PyTorch refuses
    basis = np.linalg.qr(nuisance)[0]
    own = shapes - product(product(shapes, basis), basis.T)
    weighted = trust * values
    energy, mass = (weighted * values).sum(0), trust.sum(0)
    gain = np.square(product(own, weighted)) / (product(np.square(own), trust) + 1e-3)
    share = np.minimum(gain / (energy + common * mass + 1e-6), 0.999)
    score = -product(np.log1p(-share), mass)
    alike = shapes - shapes.mean(1, keepdims=True)
    alike = alike / np.maximum(np.sqrt(np.square(alike).sum(1, keepdims=True)), 1e-9)
    chosen = []
    for _ in range(min(count, len(shapes))):
        best = int(score.argmax())
        chosen.append(best)
        score[product(alike, alike[best]) > _ALIKE] = -math.inf
    return shapes[chosen]


class Nuisance:
    """What a trajectory holds beside the expression: its rest, a slow trend, and what the head's motion leaves."""

    def __init__(self, motion: Motion) -> None:
        t = len(motion.values)
        self.slow = np.ones((t, 1), np.float32)
        self.of_global = np.zeros((t, 0), np.float32)
        if motion.global_motion.shape[1]:
            shift = motion.global_motion[:, [0, 3]]
            self.of_global = shift = shift - median(shift)
            # Few frames can't tell a trend, or what bends with the global motion, from what moves by itself.
            if t > _SHORT:
                self.slow = np.stack((self.slow[:, 0], np.linspace(-1, 1, t, dtype=np.float32)), 1)
                products = np.square(shift[:, :1]), shift[:, :1] * shift[:, 1:], np.square(shift[:, 1:])
                self.of_global = np.concatenate((shift, *products), 1)
        follows = np.array([_FOLLOWS] * 2 + [_FOLLOWS_BENT] * 3, np.float32)[: self.of_global.shape[1]]
        self.ridge = (1e-6, 1e-2)[: self.slow.shape[1]]
        self.limit = follows[:, None] * motion.scale

    def with_cubes(self) -> Nuisance:
        """The same with the cubes of the head's motion beside its squares, where there are any."""
        more = copy.copy(self)
        if self.of_global.shape[1] > 2:
            cubes = self.of_global[:, :2] ** 3 / np.float32(_CUBES)
            more.of_global = np.concatenate((self.of_global, cubes), 1)
            more.limit = np.concatenate((self.limit, self.limit[:2]))
        return more

    def plain(self, values: np.ndarray, trust: np.ndarray) -> np.ndarray:
        """Values without rest and trend only."""
        rest: np.ndarray = values - self.slow @ least_squares(values[None], trust[None], self.slow[None], self.ridge)[0]
        return rest

    def removed(
        self,
        values: np.ndarray,
        weight: np.ndarray,
        profile: np.ndarray | None = None,
        *,
        prior: float = RIDGE,
        reach: float = 1.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values ``(s, t, d)`` without the nuisance, and the extents ``(s, d)`` of each of ``s`` profiles ``(s, t)``.

        ``prior`` is how firmly a trajectory is held not to follow the head, ``reach`` scales how far it may.
        """
        s = len(weight)
        slow = np.broadcast_to(self.slow, (s, *self.slow.shape))
        shape = [] if profile is None else [profile[..., None]]
        ridge = [1e-6] * len(shape)
        q, m = self.slow.shape[1], self.of_global.shape[1]
        if m:
            design = np.concatenate((slow, np.broadcast_to(self.of_global, (s, *self.of_global.shape)), *shape), -1)
            follows = least_squares(values, weight, design, (*self.ridge, *[prior] * m, *ridge))[:, q : q + m]
            limit = np.float32(reach) * self.limit
            values = values - self.of_global @ np.maximum(np.minimum(follows, limit), -limit)
        design = np.concatenate((slow, *shape), -1)
        coefficient = least_squares(values, weight, design, (*self.ridge, *ridge))
        return values - slow @ coefficient[:, :q], coefficient[:, q:].sum(1)


def _noise(values: np.ndarray) -> float:
    """Frame-to-frame noise that most trajectories have."""
    bend = np.abs(values[2:] - 2 * values[1:-1] + values[:-2])
    return max(float(median(median(bend))) / (0.6745 * 6**0.5), 1e-6)
