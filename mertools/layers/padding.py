"""Batches of clips of unequal length: which frames are valid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check_lengths(lengths: Tensor | Sequence[int] | None, b: int, t: int, *, least: int = 1) -> Tensor:
    """Valid frames per clip as an int64 tensor ``(b,)``, each within ``least..t``; all ``t`` when nothing was given."""
    if lengths is None:
        return torch.full((b,), t)
    try:
        counts = lengths if isinstance(lengths, Tensor) else torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"lengths must be ({b},) integers, one per clip, got {lengths!r}") from error
    if counts.is_floating_point() or counts.is_complex() or counts.dtype == torch.bool:
        raise TypeError(f"lengths must be integers, got {counts.dtype}: use lengths.long()")
    if counts.shape != (b,):
        raise ValueError(f"lengths must be ({b},), one per clip of the batch, got shape {tuple(counts.shape)}")
    if not torch.compiler.is_compiling():
        for i, n in enumerate(counts.tolist()):
            if not least <= n <= t:
                raise ValueError(f"lengths must lie within {least}..{t} (the clips' t), got {n} for clip {i}")
    return counts.long()


def valid_mask(counts: Tensor, t: int, device: torch.device) -> Tensor:
    """Which frames are valid: ``(b,)`` counts to ``(b, t)`` bool."""
    return torch.arange(t, device=device) < counts.to(device)[:, None]


def mask_padding(x: Tensor, counts: Tensor) -> Tensor:
    """``x`` (b, t, ...) with its padding set to 0, whatever it held."""
    valid = valid_mask(counts, x.shape[1], x.device)
    return torch.where(valid.view(*valid.shape, *[1] * (x.ndim - 2)), x, 0)
