"""Key frames in real conditions: the one movement that rises, holds and falls, shared by the blocks that it moves.

Every trajectory ``v`` of ``motion.py`` is modelled as ``rest + trend + head · g + extent · f``, where ``f`` is one smooth
trapezoid for the whole clip, ``extent`` how far the movement reaches there, and ``g`` what the motion of the head leaves
behind (parallax, a background that stays), no more than the head itself moves. ``f`` and the rest are found in turn:
least squares for the trajectories, robust against frames that do not follow; then the trajectories, each with its extent,
combine to one signal to which the trapezoid is fitted. The strongest temporal components are the starts, and the one
whose model leaves the least error, counted so that no few frames or blocks decide (Cauchy), is the answer.

Nothing is trained and there is nothing to set.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mertools.motion import Motion, clip_motion
from mertools.trapezoid import Cut, TrapezoidFit, Windows, trapezoid

_STARTS, _STARTS_WITH_HEAD = 3, 2
_TURNS = 3
_FOLLOWS_HEAD = 0.6  # how far a block may follow the head's motion, or stay behind it
_FOLLOWS_BENT = 0.1  # the same of its square, per pixel
_RIDGE = 0.03


def find_key_frames(clip: Tensor, windows: Windows | None = None) -> tuple[int, int, int]:
    """Onset, apex and offset of one clip ``(t, ...)`` whose frames are finite and not all equal."""
    t = len(clip)
    if t == 2:
        return 0, 1, 1
    return key_frames_of_motion(clip_motion(clip), windows)


def key_frames_of_motion(motion: Motion, windows: Windows | None = None) -> tuple[int, int, int]:
    """Onset, apex (the middle of its plateau) and offset, from the trajectories of a clip."""
    t = len(motion.values)
    cut = _search(motion, windows)
    onset, apex, end, offset = torch.stack(cut).tolist()
    apex = (apex + end) // 2
    if windows is not None:
        apex = min(max(apex, windows.apex[0]), windows.apex[1])
    onset = min(onset, t - 2)
    apex = max(apex, onset + 1)
    return onset, apex, min(max(offset, apex), t - 1)


def _search(motion: Motion, windows: Windows | None) -> Cut:
    values, trust = motion.values, motion.trust
    t, device = len(values), values.device
    nuisance = _Nuisance(motion)
    without_head = nuisance.removed(values.unsqueeze(0), trust.unsqueeze(0))[0][0]
    plain = nuisance.plain(values, trust)
    profiles = [_components(without_head, trust, _STARTS)]
    if nuisance.head.shape[1]:
        profiles.append(_components(plain, trust, _STARTS_WITH_HEAD))
    profile = torch.cat(profiles)  # (s, t)
    noise = _noise(without_head)
    fit = TrapezoidFit(t, device, windows)
    robust = torch.ones(len(profile), *values.shape, device=device)
    cut: Cut | None = None
    for turn in range(_TURNS):
        rest, extent = nuisance.removed(values.unsqueeze(0), trust * robust, profile)
        if turn:
            error = (rest - profile.unsqueeze(-1) * extent.unsqueeze(1)).square()
            spread = 2 * error.median(1, keepdim=True).values + noise**2
            robust = 1 / (1 + error / (4 * spread))
        weight = trust * robust
        power = weight @ extent.square().unsqueeze(-1)
        signal = (weight * rest) @ extent.unsqueeze(-1) / power.clamp(min=1e-12)
        power = power.squeeze(-1) / power.mean(1).clamp(min=1e-12)
        signal = signal.squeeze(-1)
        if cut is None:
            cut = fit.anywhere(signal, power)
        else:
            cut = fit.from_levels(signal, power, torch.zeros_like(signal[:, 0]), torch.ones_like(signal[:, 0]))
        profile = trapezoid(cut, t)
    rest, extent = nuisance.removed(values.unsqueeze(0), trust * robust, profile)
    error = torch.log1p((rest - profile.unsqueeze(-1) * extent.unsqueeze(1)).square())
    best = (trust * error).sum((1, 2)).nan_to_num(float("inf")).argmin()
    assert cut is not None  # noqa: S101
    return Cut(*(key[best] for key in cut))


class _Nuisance:
    """What a trajectory holds beside the expression: its rest, a slow trend, and what the head's motion leaves."""

    def __init__(self, motion: Motion) -> None:
        t, device = len(motion.values), motion.values.device
        self.slow = torch.stack((torch.ones(t, device=device), torch.linspace(-1, 1, t, device=device)), -1)
        if motion.head.shape[1]:
            head = motion.head[:, [0, 3]]
            head = head - head.median(0).values
            products = torch.stack((head[:, 0].square(), head.prod(1), head[:, 1].square()), -1)
            self.head = torch.cat((head, products), -1)
        else:
            self.head = motion.values.new_zeros(t, 0)
        follows = torch.tensor([_FOLLOWS_HEAD] * 2 + [_FOLLOWS_BENT] * 3, device=device)[: self.head.shape[1]]
        self.limit = follows * motion.scale.unsqueeze(-1)

    def plain(self, values: Tensor, trust: Tensor) -> Tensor:
        """Values without rest and trend only."""
        coefficient = _least_squares(values.unsqueeze(0), trust.unsqueeze(0), self.slow.unsqueeze(0), (1e-6, 1e-2))
        return values - self.slow @ coefficient[0].mT

    def removed(self, values: Tensor, weight: Tensor, profile: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Values ``(s, t, d)`` without the nuisance, and the extents ``(s, d)`` of each of ``s`` profiles."""
        s = len(weight)
        slow = self.slow.expand(s, -1, -1)
        shape = [] if profile is None else [profile.unsqueeze(-1)]
        ridge = [1e-6] * len(shape)
        q, m = 2, self.head.shape[1]
        if m:
            design = torch.cat((slow, self.head.expand(s, -1, -1), *shape), -1)
            follows = _least_squares(values, weight, design, (1e-6, 1e-2, *[_RIDGE] * m, *ridge))[..., q : q + m]
            follows = torch.maximum(torch.minimum(follows, self.limit), -self.limit)
            values = values - self.head @ follows.mT
        design = torch.cat((slow, *shape), -1)
        coefficient = _least_squares(values, weight, design, (1e-6, 1e-2, *ridge))
        return values - slow @ coefficient[..., :q].mT, coefficient[..., q:].sum(-1)


def _least_squares(values: Tensor, weight: Tensor, design: Tensor, ridge: tuple[float, ...]) -> Tensor:
    """Coefficients ``(s, d, q)`` of the design ``(s, t, q)`` for each trajectory, weighted."""
    q = design.shape[-1]
    pairs = (design.unsqueeze(-1) * design.unsqueeze(-2)).flatten(2)
    left = (weight.mT @ pairs).unflatten(-1, (q, q)) + torch.diag(torch.tensor(ridge, device=design.device))
    right = (weight * values).mT @ design
    return torch.linalg.solve(left, right)


def _components(values: Tensor, trust: Tensor, count: int) -> Tensor:
    """The strongest temporal components ``(count, t)``."""
    weighted = values * trust.sqrt()
    basis = torch.linalg.eigh(weighted @ weighted.mT)[1]
    seen = trust.mean(1).clamp(min=1e-6).sqrt()
    return basis.flip(-1)[:, :count].mT / seen


def _noise(values: Tensor) -> Tensor:
    """Frame-to-frame noise that most trajectories have."""
    bend = (values[2:] - 2 * values[1:-1] + values[:-2]).abs()
    return (bend.median(0).values / (0.6745 * 6**0.5)).median().clamp(min=1e-6)
