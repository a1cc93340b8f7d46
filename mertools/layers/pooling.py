"""From frames to a clip: one embedding from what an encoder says of each frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from mertools._checks import check_choice, check_count, check_floating
from mertools.layers.arguments import records_arguments
from mertools.layers.padding import check_lengths, valid_mask

__all__ = ["FramePool", "pool_frames"]

Pooling: TypeAlias = Literal["mean", "last", "attention"]

POOLINGS = ("mean", "last", "attention")


def pool_frames(
    x: Tensor,
    lengths: Tensor | Sequence[int] | None = None,
    *,
    how: Pooling = "mean",
    scores: Tensor | None = None,
) -> Tensor:
    """One vector (or map) ``(b, ...)`` per clip; padding has no part in it.

    Args:
        x: what an encoder made of each frame, ``(b, t, ...)``.
        lengths: valid frames of each clip ``(b,)``, within 1..t.
        how: ``"mean"`` over the valid frames; ``"last"`` valid frame, which is what a causal encoder knows of the whole
            clip; ``"attention"``, the mean weighted with ``softmax(scores)`` (Ilse et al., "Attention-based Deep
            Multiple Instance Learning", 2018).
        scores: for ``"attention"``, ``(b, t)``.

    Examples:
        >>> x = torch.arange(6.0).view(1, 3, 2)
        >>> pool_frames(x, [2]), pool_frames(x, [2], how="last")
        (tensor([[1., 2.]]), tensor([[2., 3.]]))
    """
    check_floating("x", x, "(b, t, ...)")
    check_choice("how", how, POOLINGS)
    if x.ndim < 2 or x.shape[1] == 0:
        raise ValueError(f"x must be (b, t, ...) with at least one frame, got shape {tuple(x.shape)}")
    if (scores is not None) != (how == "attention"):
        raise ValueError(f"scores must be given for how='attention' and only then, got how={how!r}")
    if scores is not None and scores.shape != x.shape[:2]:
        raise ValueError(f"scores must be {tuple(x.shape[:2])}, one per frame, got shape {tuple(scores.shape)}")
    b, t = x.shape[:2]
    counts = check_lengths(lengths, b, t).to(x.device)
    if how == "last":
        return x[torch.arange(b, device=x.device), counts - 1]
    valid = valid_mask(counts, t, x.device)
    wide = torch.promote_types(x.dtype, torch.float32)  # 16 bits have no 1/t for a long clip, nor a sum over it
    if scores is None:
        weight = valid.to(wide) / counts[:, None]
    else:
        weight = scores.to(wide).masked_fill(~valid, -torch.inf).softmax(1)
    flat = x.flatten(2) if x.ndim > 2 else x[..., None]
    flat = torch.where(valid[..., None], flat, 0)  # whatever padding holds, 0 · NaN included
    with torch.autocast(x.device.type, enabled=False):
        pooled = weight[:, None] @ flat.to(wide)
    return pooled[:, 0].view(b, *x.shape[2:]).to(x.dtype)


@records_arguments
class FramePool(nn.Module):
    """The module form of :func:`pool_frames`; with ``how="attention"`` it learns the scores, a linear layer over x.

    ``x`` is ``(b, t, ...)``; for ``"attention"`` ``(b, t, dim)``, and ``dim`` must be given.

    Examples:
        >>> pool = FramePool("attention", dim=8)
        >>> pool(torch.zeros(2, 5, 8), lengths=[5, 3]).shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        how: Pooling = "mean",
        *,
        dim: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_choice("how", how, POOLINGS)
        if (dim is not None) != (how == "attention"):
            raise ValueError(f"dim must be given for how='attention' and only then, got how={how!r} and dim={dim}")
        self.how: Pooling = how
        self.score: nn.Linear | None = None
        if dim is not None:
            self.score = nn.Linear(check_count("dim", dim), 1, device=device, dtype=dtype)

    def forward(self, x: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """One vector per clip of ``x``."""
        if self.score is None:
            return pool_frames(x, lengths, how=self.how)
        check_floating("x", x, f"(b, t, {self.score.in_features})")
        if x.ndim != 3 or x.shape[-1] != self.score.in_features:
            raise ValueError(f"x must be (b, t, {self.score.in_features}), got shape {tuple(x.shape)}")
        return pool_frames(x, lengths, how=self.how, scores=self.score(x)[..., 0])

    def extra_repr(self) -> str:
        """The configuration, for ``print``."""
        return repr(self.how)
