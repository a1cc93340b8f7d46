"""A smooth trapezoid fitted to a signal: rest, a rise, a hold, a fall, rest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mertools.robust import Windows

Keys = tuple[Tensor, Tensor, Tensor, Tensor]  # onset, first and last frame of full extent, offset


def smooth_step(x: Tensor) -> Tensor:
    """0 to 1 without a corner."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def trapezoid(keys: Keys, t: int) -> Tensor:
    """The extent in each of ``t`` frames."""
    onset, apex, end, offset = (key.unsqueeze(-1).double() for key in keys)
    frame = torch.arange(t, device=onset.device).double()
    rise = smooth_step((frame - onset) / (apex - onset).clamp(min=0.5))
    return torch.minimum(rise, smooth_step((offset - frame) / (offset - end).clamp(min=0.5)))


def rise_lengths(longest: int) -> Tensor:
    """Lengths of rise and fall that are tried, each 15 % longer than the one before."""
    lengths, length = [], 1
    while length <= longest:
        lengths.append(length)
        length = max(length + 1, int(length * 1.15))
    return torch.tensor(lengths)


def bank_of(lengths: Tensor) -> Tensor:
    """Rises of these lengths, aligned at their last frame."""
    longest = int(lengths.max())
    step = torch.arange(1, longest + 1) - (longest - lengths.unsqueeze(1))
    return smooth_step(step / lengths.unsqueeze(1)) * (step > 0)


def fit_trapezoid(
    signal: Tensor, weight: Tensor, real: Tensor, lengths: Tensor, bank: Tensor, windows: Windows | None
) -> Keys:
    """The trapezoid of least squared error for each row of ``signal`` ``(b, t)``."""
    quantiles = torch.quantile(signal, torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=signal.dtype), dim=-1)
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    rest = torch.stack([quantiles[i] for i, _ in pairs])
    height = torch.stack([quantiles[j] for _, j in pairs]) - rest
    for _ in range(3):
        height = torch.where(height.abs() < 1e-9, 1e-9, height)
        scaled = (signal - rest.unsqueeze(-1)) / height.unsqueeze(-1)
        keys = _best_cut(scaled, weight.expand_as(scaled), real, lengths, bank, windows)
        shape = trapezoid(keys, signal.shape[-1])
        rest, height = _levels(signal, weight, shape)
    error = (weight * (signal - rest.unsqueeze(-1) - height.unsqueeze(-1) * shape).square()).sum(-1)
    pick = error.argmin(0, keepdim=True)
    onset, apex, end, offset = (key.gather(0, pick)[0] for key in keys)
    return onset, apex, end, offset


def _levels(signal: Tensor, weight: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
    total = weight.sum(-1).clamp(min=1e-12)
    mean_shape, mean_signal = (weight * shape).sum(-1) / total, (weight * signal).sum(-1) / total
    centred = shape - mean_shape.unsqueeze(-1)
    height = (weight * centred * signal).sum(-1) / (weight * centred.square()).sum(-1).clamp(min=1e-9)
    return mean_signal - height * mean_shape, height


def _best_cut(y: Tensor, weight: Tensor, real: Tensor, lengths: Tensor, bank: Tensor, windows: Windows | None) -> Keys:
    t = y.shape[-1]
    rise, rise_length = _edges(y, weight, lengths, bank, None if windows is None else windows.onset)
    mirrored = None if windows is None else (t - 1 - windows.offset[1], t - 1 - windows.offset[0])
    fall, fall_length = (x.flip(-1) for x in _edges(y.flip(-1), weight.flip(-1), lengths, bank, mirrored))
    frame = torch.arange(t, device=y.device)
    may_reach = may_leave = real
    if windows is not None:
        may_reach, may_leave = real & (frame <= windows.apex[1]), real & (frame >= windows.apex[0])
    held = weight * (1 - 2 * y)
    total = held.cumsum(-1)
    before = (rise - total).masked_fill(~may_reach, math.inf)
    after = (fall + total - held).masked_fill(~may_leave, math.inf)
    least, where = torch.cummin(before, -1)
    end = (least + after).argmin(-1, keepdim=True)
    apex = where.gather(-1, end)
    onset = apex - lengths[rise_length.gather(-1, apex)]
    offset = end + lengths[fall_length.gather(-1, end)]
    return onset.squeeze(-1), apex.squeeze(-1), end.squeeze(-1), offset.squeeze(-1)


def _edges(
    y: Tensor, weight: Tensor, lengths: Tensor, bank: Tensor, window: tuple[int, int] | None
) -> tuple[Tensor, Tensor]:
    """For every frame as the end of a rise: the error of the best rise, less that of rest, and its length."""
    longest, t = bank.shape[1], y.shape[-1]
    space = torch.zeros(*y.shape[:-1], longest - 1, dtype=y.dtype, device=y.device)
    signal = torch.cat((space, weight * y), -1).unfold(-1, longest, 1)
    weights = torch.cat((space, weight), -1).unfold(-1, longest, 1)
    error = weights @ bank.square().mT - 2 * signal @ bank.mT
    start = torch.arange(t, device=y.device).unsqueeze(-1) - lengths
    low, high = (0, t - 1) if window is None else window
    best = error.masked_fill((start < low) | (start > high), math.inf).min(-1)
    return best.values, best.indices
