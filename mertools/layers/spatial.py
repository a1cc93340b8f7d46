"""The spatial branch of TSFmicro: where on the face, from the onset frame.

The onset frame is reduced to a small grid, embedded, given a learned position, and passed through a short transformer.
No class token is used; the published checkpoints hold one, an extra head and a mask layer, none of which is ever read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mertools._checks import check_count, check_image, check_number
from mertools.layers.arguments import records_arguments
from mertools.layers.drop_path import DropPath, rising_rates

__all__ = ["SpatialTransformer"]

_LAYER_NORM_EPS = 1e-6


@records_arguments
class SpatialTransformer(nn.Module):
    """A pre-norm transformer over a grid of face positions.

    Bilinear resize to ``grid × grid`` (half-pixel centres), 1×1 embedding, learned position, ``depth`` blocks, norm: a
    floating image ``(b, in_channels, H, W)`` of any size to a map ``(b, dim, grid, grid)``. A state dict from another
    ``grid`` loads: its position embedding is interpolated (bicubic).

    Args:
        dim: width of the tokens and of the output map.
        depth: transformer blocks.
        num_heads: attention heads.
        grid: side of the grid, and of the output map.
        in_channels: channels of the image.
        mlp_ratio: hidden width of the MLPs as a multiple of ``dim``.
        antialias: low-pass the image before it is reduced. The published code does not; without it a pixel of the
            grid is made of 4 pixels of the image and the rest is not seen.
        drop_path: stochastic depth of the last block; it rises to that linearly.
        norm: norm layer, a callable from width to module; default LayerNorm with eps 1e-6.

    Examples:
        >>> SpatialTransformer(32, 1, grid=4)(torch.zeros(2, 3, 90, 60)).shape
        torch.Size([2, 32, 4, 4])

    Source: TSFmicro (arXiv 2505.16372), spatial branch.
    """

    def __init__(
        self,
        dim: int = 512,
        depth: int = 2,
        num_heads: int = 4,
        *,
        grid: int = 14,
        in_channels: int = 3,
        mlp_ratio: float = 4.0,
        antialias: bool = False,
        drop_path: float = 0.0,
        norm: Any = None,
    ) -> None:
        super().__init__()
        dim, num_heads = check_count("dim", dim), check_count("num_heads", num_heads)
        grid, in_channels = check_count("grid", grid), check_count("in_channels", in_channels)
        depth = check_count("depth", depth, least=0)
        mlp_ratio = check_number("mlp_ratio", mlp_ratio, 0)
        if norm is not None and not callable(norm):
            raise TypeError(f"norm must be a callable from width to module, got {norm!r}")
        if dim % num_heads:
            raise ValueError(f"dim must be a multiple of num_heads={num_heads}, got {dim}")
        norm = norm or _layer_norm
        self.grid, self.in_channels, self.antialias = grid, in_channels, antialias
        self.embed = nn.Conv2d(in_channels, dim, 1)
        self.pos_embed = nn.Parameter(torch.empty(1, dim, grid, grid))
        rates = rising_rates(drop_path, depth)
        self.blocks = nn.Sequential(
            *(TransformerBlock(dim, num_heads, int(dim * mlp_ratio), rate, norm) for rate in rates)
        )
        self.norm = norm(dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw a new position embedding and embedding (the blocks keep theirs)."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.embed.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """The map of image ``x``."""
        return self.to_map(self.tokens(x))

    def tokens(self, x: Tensor) -> Tensor:
        """Tokens of image ``x`` after the blocks and before the norm, ``(b, grid², dim)``."""
        check_image("x", x, self.in_channels)
        small = F.interpolate(x, (self.grid, self.grid), mode="bilinear", align_corners=False, antialias=self.antialias)
        tokens: Tensor = self.blocks(rearrange(self.embed(small) + self.pos_embed, "b d h w -> b (h w) d"))
        return tokens

    def to_map(self, tokens: Tensor) -> Tensor:
        """Normalise tokens and lay them out as a map: ``forward`` is ``to_map(tokens(x))``."""
        features: Tensor = rearrange(self.norm(tokens), "b (h w) d -> b d h w", h=self.grid)
        return features

    def extra_repr(self) -> str:
        """The configuration, for ``print``."""
        return f"grid={self.grid}, in_channels={self.in_channels}, antialias={self.antialias}"

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        key = f"{prefix}pos_embed"
        loaded = state_dict.get(key)
        if isinstance(loaded, Tensor) and loaded.ndim == 4 and loaded.shape[2:] != self.pos_embed.shape[2:]:
            resized = F.interpolate(loaded, self.pos_embed.shape[2:], mode="bicubic", align_corners=False)
            state_dict = {**state_dict, key: resized}
        super()._load_from_state_dict(state_dict, prefix, *args)


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP on ``(b, l, d)`` tokens."""

    def __init__(self, dim: int, num_heads: int, hidden: int, drop_path: float, norm: Any) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = norm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out_proj = nn.Linear(dim, dim)
        self.mlp_norm = norm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self_attention(self.qkv(self.attention_norm(x)), self.num_heads)
        x = x + self.drop_path(self.out_proj(mixed))
        y: Tensor = x + self.drop_path(self.mlp(self.mlp_norm(x)))
        return y


def self_attention(qkv: Tensor, num_heads: int) -> Tensor:
    """Softmax attention among tokens, from queries, keys and values side by side: ``(b, l, 3·d) -> (b, l, d)``."""
    q, k, v = rearrange(qkv, "b l (three n d) -> three b n l d", three=3, n=num_heads)
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b n l d -> b l (n d)")


def _layer_norm(dim: int) -> nn.LayerNorm:
    return nn.LayerNorm(dim, eps=_LAYER_NORM_EPS)
