"""Key frames without a trustworthy annotation: one movement that rises, holds and falls, shared by the moving blocks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mertools.motion import trajectories
from mertools.trapezoid import bank_of, fit_trapezoid, rise_lengths, trapezoid


class Windows:
    """Where onset, apex and offset may lie, each ``(first, last)``."""

    def __init__(self, onset: tuple[int, int], apex: tuple[int, int], offset: tuple[int, int]) -> None:
        self.onset, self.apex, self.offset = onset, apex, offset


def find_movement(frames: Tensor, windows: Windows | None) -> tuple[int, int, int]:
    """Onset, apex and offset of one clip ``(t, ...)``."""
    values, trust = (x.double() for x in trajectories(frames))
    t = len(values)
    lengths = rise_lengths(min(64, t - 1))
    bank = bank_of(lengths).double()
    real = torch.ones(1, t, dtype=torch.bool)
    values = values - (trust * values).sum(0) / trust.sum(0)
    bend = (values[2:] - 2 * values[1:-1] + values[:-2]).abs() if t > 2 else values.abs()
    noise = (bend.median(0).values / (0.6745 * 6**0.5)).median().clamp(min=1e-6)
    scaled = values * trust.sqrt()
    basis = torch.linalg.eigh(scaled @ scaled.mT)[1]
    best: tuple[float, tuple[int, int, int]] | None = None
    for start in range(min(3, t)):
        profile = basis[:, -1 - start] / trust.mean(1).sqrt()
        robust = torch.ones_like(values)
        for _ in range(5):
            weight = trust * robust
            total = weight.sum(0)
            level = (weight * profile[:, None]).sum(0) / total
            centred = profile[:, None] - level
            extent = (weight * values * centred).sum(0) / (weight * centred.square()).sum(0).clamp(min=1e-9)
            rest = (weight * values).sum(0) / total - extent * level
            error = values - rest - extent * profile[:, None]
            spread = error.square().median(0).values + noise**2
            robust = 1 / (1 + error.square() / (4 * spread))
            weight = trust * robust
            power = (weight * extent.square()).sum(1)
            signal = (weight * extent * (values - rest)).sum(1) / power.clamp(min=1e-12)
            keys = fit_trapezoid(signal[None], power[None] / power.mean(), real, lengths, bank, windows)
            profile = trapezoid(keys, t)[0]
        level = (weight * profile[:, None]).sum(0) / total
        centred = profile[:, None] - level
        gain = (weight * values * centred).sum(0).square() / (weight * centred.square()).sum(0).clamp(min=1e-9)
        onset, apex, end, offset = (int(key) for key in keys)
        score = float(gain.sum())
        if math.isfinite(score) and (best is None or score > best[0]):
            best = score, (max(onset, 0), (apex + end) // 2, min(offset, t - 1))
    if best is None:
        return 0, t // 2, t - 1
    onset, apex, offset = best[1]
    if windows is not None:
        onset, apex, offset = (
            min(max(key, low), high)
            for key, (low, high) in zip(
                (onset, apex, offset), (windows.onset, windows.apex, windows.offset), strict=True
            )
        )
    onset = min(onset, t - 2)
    apex = max(apex, onset + 1)
    return onset, apex, max(offset, apex)
