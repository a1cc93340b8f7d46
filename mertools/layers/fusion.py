"""Parallel fusion of "how" and "where": two maps added, lifted to a wider space, pooled (TSFmicro).

The temporal map says how the face moves and the spatial map where things are on it. Added position by position they are
lifted together, and only then averaged, so that a position's motion and place meet before either is lost to the mean::

    z = mean over positions of SiLU(BatchNorm(Linear(temporal + spatial)))       512 → 1024
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mertools._checks import check_count, check_floating
from mertools.layers.arguments import records_arguments

__all__ = ["ParallelFusion"]


@records_arguments
class ParallelFusion(nn.Module):
    """Fuse a temporal and a spatial map ``(b, dim, h, w)`` into one vector ``(b, hidden)``, or class logits.

    Args:
        dim: channels of both maps.
        hidden: width of the fused vector.
        num_classes: add a linear classifier, output ``(b, num_classes)``; None returns the vector.

    Examples:
        >>> import torch
        >>> fusion = ParallelFusion(512, num_classes=5).eval()
        >>> how, where = torch.zeros(2, 2, 512, 14, 14)
        >>> fusion(how, where).shape
        torch.Size([2, 5])

    Source: TSFmicro (arXiv 2505.16372), fusion module.
    """

    def __init__(self, dim: int = 512, hidden: int = 1024, *, num_classes: int | None = None) -> None:
        super().__init__()
        self.dim = check_count("dim", dim)
        hidden = check_count("hidden", hidden)
        num_classes = None if num_classes is None else check_count("num_classes", num_classes)
        self.lift = nn.Linear(self.dim, hidden)
        self.norm = nn.BatchNorm2d(hidden)
        self.head = nn.Identity() if num_classes is None else nn.Linear(hidden, num_classes)

    def forward(self, temporal: Tensor, spatial: Tensor) -> Tensor:
        """Fuse two maps of the same shape."""
        for name, value in (("temporal", temporal), ("spatial", spatial)):
            check_floating(name, value, f"(b, {self.dim}, h, w)")
        if temporal.shape != spatial.shape:
            raise ValueError(
                f"temporal and spatial must have the same shape, "
                f"got {tuple(temporal.shape)} and {tuple(spatial.shape)}: "
                "build SpatialTransformer with grid= the temporal map's side"
            )
        return self.logits(temporal + spatial)

    def logits(self, features: Tensor) -> Tensor:
        """Logits (without ``num_classes`` the vector) of a map that is already fused, ``(b, dim, h, w)``."""
        check_floating("features", features, f"(b, {self.dim}, h, w)")
        if features.ndim != 4 or features.shape[1] != self.dim:
            raise ValueError(f"maps must be (b, {self.dim}, h, w), got shape {tuple(features.shape)}")
        lifted = self.lift(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        logits: Tensor = self.head(F.silu(self.norm(lifted)).mean((2, 3)))
        return logits
