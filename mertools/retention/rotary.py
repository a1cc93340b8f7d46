"""Rotary positions: neighbouring pairs of channels rotated by ``n·θ`` in frame n (as in RetNet, and RoPE).

The product of a query of frame n and a key of frame m then depends on ``n − m`` only. Angles are float64 whatever the
type of the channels: in float32 that of frame 10⁵ is off by thousandths, in bfloat16 frames 256 and 257 are one.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["apply_rotary", "rotary_angles", "rotary_table"]


def rotary_angles(pairs: int, device: torch.device | None = None) -> Tensor:
    """θ of each pair of channels, radians per frame: 1 down to 1/10000, float64 ``(pairs,)``."""
    mps = device is not None and device.type == "mps"  # which has no float64
    return torch.logspace(0, -4, pairs, dtype=torch.float32 if mps else torch.float64, device=device)


def rotary_table(t: int, angle: Tensor, dtype: torch.dtype, *, position: Tensor | None = None) -> Tensor:
    """Rotations of ``t`` frames, the first one at ``position`` (default 0): ``e^(i·(position + n)·θ)``, from float64.

    Of angles ``(p,)`` a complex ``(t, p)``, or ``(b, t, p)`` with a position ``(b,)``, for channels of ``dtype``; under
    a compiler, which does not know complex numbers, cosine and sine on one more axis.
    """
    if position is None:
        step = torch.arange(t, device=angle.device)
    else:
        step = position[:, None] if t == 1 else position[:, None] + torch.arange(t, device=angle.device)
    theta = step[..., None] * angle
    if torch.compiler.is_compiling():
        return torch.stack((theta.cos(), theta.sin()), -1).to(dtype)
    return torch.polar(torch.ones((), dtype=theta.dtype, device=theta.device), theta).to(dtype.to_complex())


def apply_rotary(x: Tensor, table: Tensor) -> Tensor:
    """Rotate neighbouring pairs of ``x`` ``(..., 2p)``: ``(x₀, x₁) -> (x₀ cos − x₁ sin, x₁ cos + x₀ sin)``."""
    if not table.is_complex():
        even, odd = x[..., 0::2], x[..., 1::2]
        cos, sin = table[..., 0], table[..., 1]
        return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)
    *others, last = x.stride()
    if last != 1 or x.storage_offset() % 2 or any(stride % 2 for stride in others):
        x = x.clone(memory_format=torch.contiguous_format)
    rotated = torch.view_as_complex(x.view(*x.shape[:-1], x.shape[-1] // 2, 2)) * table
    return torch.view_as_real(rotated).flatten(-2)
