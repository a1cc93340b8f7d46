"""Manhattan retention and the four-stage backbone of TSFmicro's temporal branch (the "RMT" design).

Retention along a line decays with the distance of two frames; on a map it decays with the Manhattan distance of two
positions. For head h with decay γ_h, rotated queries and keys (position ``p = row·W + col``)::

    softmax( q·kᵀ/√d + log γ_h · D ) · v  +  depthwise 5×5 convolution of v

The full form takes ``D = |Δrow| + |Δcol|`` between all positions. The decomposed form attends along each row with
``|Δcol|`` and then along each column with ``|Δrow|``: cheaper for the large maps of the early stages.

Maps are held as ``(b, h, w, d)`` from stem to output, which is the memory order "channels last" of a ``(b, d, h, w)``
tensor: linear layers, norms and convolutions all work on it without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mertools.checks import check_count, check_floating, check_number
from mertools.drop_path import DropPath, rising_rates

__all__ = ["ManhattanRetNet", "ManhattanRetention"]

_LAYER_NORM_EPS = 1e-6


class ManhattanRetention(nn.Module):
    """Attention over the positions of a map that fades with their Manhattan distance.

    Args:
        dim: width ``d``.
        num_heads: heads ``n``; ``d / n`` must be even.
        decomposed: along rows, then along columns, instead of between all positions.
        decay_init: ``log γ_h = log(1 − 2^(−decay_init − decay_range·h/n))``.
        decay_range: see ``decay_init``: how far the heads' decays spread.
        device: where to create the parameters.
        dtype: their type.

    Shape:
        - input and output: ``(b, h, w, d)``

    Raises:
        ValueError: widths that do not fit, or decays outside (0, 1).

    Examples:
        >>> ManhattanRetention(32, 2, decomposed=True)(torch.zeros(1, 5, 7, 32)).shape
        torch.Size([1, 5, 7, 32])

    Source: TSFmicro (arXiv 2505.16372), temporal branch; Fan et al., "RMT: Retentive Networks Meet Vision
    Transformers", 2024. Their Relpos is ``log_decay`` and ``angle`` here, their lepe is ``local``.
    """

    log_decay: Tensor
    angle: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        decomposed: bool = False,
        decay_init: float = 2.0,
        decay_range: float = 4.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_count("dim", dim)
        check_count("num_heads", num_heads)
        check_number("decay_init", decay_init, 0)
        check_number("decay_range", decay_range, 0)
        if dim % (2 * num_heads):
            raise ValueError(f"dim must be a multiple of 2 * num_heads={2 * num_heads} (rotary pairs), got {dim}")
        if decay_init == 0:
            raise ValueError("decay_init must be positive, got 0: the decay would be 0")
        self.dim, self.num_heads, self.decomposed = dim, num_heads, decomposed
        self.qkv = nn.Linear(dim, 3 * dim, device=device, dtype=dtype)
        self.local = nn.Conv2d(dim, dim, 5, padding=2, groups=dim, device=device, dtype=dtype)
        self.out_proj = nn.Linear(dim, dim, device=device, dtype=dtype)
        head = torch.arange(num_heads, dtype=torch.float64)
        log_decay = torch.log1p(-torch.exp2(-decay_init - decay_range * head / num_heads))
        angle = 10000.0 ** -torch.linspace(0, 1, dim // num_heads // 2, dtype=torch.float64)
        self.register_buffer("log_decay", log_decay.to(self.qkv.weight))
        self.register_buffer("angle", angle.to(self.qkv.weight), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights: Xavier, with gain 2^(−5/2) for queries, keys and values."""
        for weight in self.qkv.weight.chunk(3):
            nn.init.xavier_uniform_(weight, gain=2**-2.5)
        nn.init.zeros_(self.qkv.bias)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)
        self.local.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Mix the positions of ``x`` ``(b, h, w, d)``."""
        check_floating("x", x, f"(b, h, w, {self.dim})")
        if x.ndim != 4 or x.shape[-1] != self.dim:
            raise ValueError(f"x must be (b, h, w, {self.dim}), got shape {tuple(x.shape)}: a map of (b, d, h, w) "
                             "is turned by x.permute(0, 2, 3, 1)")  # fmt: skip
        h, w = x.shape[1:3]
        q, k, v = self.qkv(x).chunk(3, -1)
        local = _on_map(self.local, v)
        q, k, v = (rearrange(part, "b h w (n d) -> b n h w d", n=self.num_heads) for part in (q, k, v))
        turn = self._turn(h, w)
        q, k = _rotate(q, turn), _rotate(k, turn)
        if self.decomposed:
            q_w, k_w, v_w = (rearrange(part, "b n h w d -> (b h) n w d") for part in (q, k, v))
            v = F.scaled_dot_product_attention(q_w, k_w, v_w, self._bias(_along(w, x), q.dtype))
            q_h, k_h = (rearrange(part, "b n h w d -> (b w) n h d") for part in (q, k))
            v_h = rearrange(v, "(b h) n w d -> (b w) n h d", h=h)
            y = F.scaled_dot_product_attention(q_h, k_h, v_h, self._bias(_along(h, x), q.dtype))
            y = rearrange(y, "(b w) n h d -> b h w (n d)", w=w)
        else:
            q, k, v = (part.flatten(2, 3) for part in (q, k, v))
            rows, columns = _along(h, x), _along(w, x)
            distance = (rows[:, None, :, None] + columns[None, :, None, :]).reshape(h * w, h * w)
            y = F.scaled_dot_product_attention(q, k, v, self._bias(distance, q.dtype))
            y = rearrange(y, "b n (h w) d -> b h w (n d)", h=h)
        mixed: Tensor = self.out_proj(y + local)
        return mixed

    def extra_repr(self) -> str:
        """The configuration, for ``print``."""
        return f"dim={self.dim}, num_heads={self.num_heads}, decomposed={self.decomposed}"

    def _turn(self, h: int, w: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine at each position, ``(h, w, d/2n)``, taken in float64."""
        position = torch.arange(h * w, device=self.angle.device, dtype=torch.float64).view(h, w, 1)
        angle = position * self.angle.double()
        return angle.cos(), angle.sin()

    def _bias(self, distance: Tensor, dtype: torch.dtype) -> Tensor:
        """``log γ_h · D`` as the mask that SDPA adds to the scores, ``(n, l, l)``."""
        return self.log_decay.to(dtype)[:, None, None] * distance.to(dtype)


class ManhattanRetNet(nn.Module):
    """The retention backbone of TSFmicro: what moves, from a motion image.

    A convolutional stem to half size, four stages of Manhattan retention blocks, between them convolutions to half
    size. ``net.stages(net.stem(x))`` is ``net(x)``: maps can be added in between, as two of the paper's fusions do.

    Args:
        in_channels: channels of the image (3 for ``apex − onset``, 2 or 3 for flow).
        dims: width of each stage.
        depths: blocks of each stage.
        num_heads: heads of each stage, one number or one per stage.
        ffn_ratio: hidden width of the feed-forward layers as a multiple of the stage's.
        decomposed: which stages attend along rows and columns.
        decay_init: per stage, see :class:`ManhattanRetention`.
        decay_range: per stage, see :class:`ManhattanRetention`.
        drop_path: stochastic depth of the last block; it rises to that linearly from 0 at the first.

    Shape:
        - input: ``(b, c, h, w)`` floating; output: ``(b, dims[-1], h/16, w/16)``, rounded up

    Raises:
        ValueError: per-stage settings of unlike length, or an image of the wrong shape.

    Examples:
        >>> net = ManhattanRetNet(dims=(8, 16, 24, 32)).eval()
        >>> net(torch.zeros(1, 3, 64, 48)).shape
        torch.Size([1, 32, 4, 3])

    Source: TSFmicro (arXiv 2505.16372), temporal branch; Fan et al., "RMT", 2024.
    """

    def __init__(
        self,
        in_channels: int = 3,
        *,
        dims: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (1, 1, 2, 1),
        num_heads: int | Sequence[int] = 2,
        ffn_ratio: float = 3.0,
        decomposed: Sequence[bool] = (True, True, False, False),
        decay_init: Sequence[float] = (2.0, 2.0, 2.0, 2.0),
        decay_range: Sequence[float] = (4.0, 4.0, 6.0, 6.0),
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        check_count("in_channels", in_channels)
        check_number("ffn_ratio", ffn_ratio, 0)
        dims, depths = _counts("dims", dims), _counts("depths", depths)
        count = len(dims)
        heads = [num_heads] * count if isinstance(num_heads, int) else list(num_heads)
        per_stage = {
            "depths": depths,
            "num_heads": heads,
            "decomposed": decomposed,
            "decay_init": decay_init,
            "decay_range": decay_range,
        }
        for name, values in per_stage.items():
            if not isinstance(values, Sequence) or len(values) != count:
                raise ValueError(f"{name} must have one value for each of the {count} stages in dims, got {values}")
        self.in_channels, self.dims = in_channels, tuple(dims)
        self.stem = ConvStem(in_channels, dims[0])
        rates = iter(rising_rates(drop_path, sum(depths)))
        self.stages = nn.Sequential(
            *(
                _Stage(
                    [
                        _Block(
                            dims[i],
                            heads[i],
                            ffn_ratio=ffn_ratio,
                            decomposed=decomposed[i],
                            decay_init=decay_init[i],
                            decay_range=decay_range[i],
                            drop_path=next(rates),
                        )
                        for _ in range(depths[i])
                    ],
                    _downsample(dims[i], dims[i + 1]) if i + 1 < count else None,
                )
                for i in range(count)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """The map of image ``x``."""
        features: Tensor = self.stages(self.stem(x))
        return features


class ConvStem(nn.Sequential):
    """Four 3×3 convolutions that take an image to half its size, ``(b, c, h, w) -> (b, d, h/2, w/2)``.

    Args:
        in_channels: channels of the image.
        dim: output channels; the first two convolutions have half of them.
    """

    def __init__(self, in_channels: int, dim: int) -> None:
        half = dim // 2
        super().__init__(
            nn.Conv2d(in_channels, half, 3, stride=2, padding=1),
            nn.BatchNorm2d(half),
            nn.GELU(),
            nn.Conv2d(half, half, 3, padding=1),
            nn.BatchNorm2d(half),
            nn.GELU(),
            nn.Conv2d(half, dim, 3, padding=1),
            nn.BatchNorm2d(dim),
            nn.GELU(),
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.BatchNorm2d(dim),
        )
        self.in_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """The stem's map."""
        check_image("x", x, self.in_channels)
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in self:
            x = layer(x)
        return x


def check_image(name: str, x: Tensor, channels: int) -> None:
    """Refuse anything but a floating ``(b, channels, h, w)`` image."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor (b, {channels}, h, w), got {type(x).__name__}")
    if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape[2:]:
        raise ValueError(f"{name} must be (b, {channels}, h, w), got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating, got {x.dtype}: normalise first, e.g. {name}.float() / 255")


class _Stage(nn.Module):
    """Blocks on a ``(b, d, h, w)`` map, then the way down to the next stage."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = nn.Identity() if downsample is None else downsample

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2)
        down: Tensor = self.downsample(x)
        return down


class _Block(nn.Module):
    """Convolutional position encoding, retention, feed-forward: ``(b, h, w, d)`` to the same."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        ffn_ratio: float,
        decomposed: bool,
        decay_init: float,
        decay_range: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.position = _depthwise(dim)
        self.retention_norm = nn.LayerNorm(dim, eps=_LAYER_NORM_EPS)
        self.retention = ManhattanRetention(
            dim, num_heads, decomposed=decomposed, decay_init=decay_init, decay_range=decay_range
        )
        self.ffn_norm = nn.LayerNorm(dim, eps=_LAYER_NORM_EPS)
        self.ffn = _ConvFFN(dim, int(dim * ffn_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + _on_map(self.position, x)
        x = x + self.drop_path(self.retention(self.retention_norm(x)))
        y: Tensor = x + self.drop_path(self.ffn(self.ffn_norm(x)))
        return y


class _ConvFFN(nn.Module):
    """Two linear layers with a depthwise convolution between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.local = _depthwise(hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.fc1(x))
        y: Tensor = self.fc2(x + _on_map(self.local, x))
        return y


def _counts(name: str, values: object) -> tuple[int, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise TypeError(f"{name} must be a sequence of positive integers, one per stage, got {values!r}")
    return tuple(check_count(f"{name}[{i}]", value) for i, value in enumerate(values))


def _depthwise(dim: int) -> nn.Conv2d:
    return nn.Conv2d(dim, dim, 3, padding=1, groups=dim)


def _downsample(dim: int, out_dim: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(dim, out_dim, 3, stride=2, padding=1), nn.BatchNorm2d(out_dim))


def _on_map(conv: nn.Module, x: Tensor) -> Tensor:
    """Run a convolution on a ``(b, h, w, d)`` map; the permuted view is channels last, so nothing is copied."""
    y: Tensor = conv(x.permute(0, 3, 1, 2))
    return y.permute(0, 2, 3, 1)


def _along(size: int, like: Tensor) -> Tensor:
    """``|i − j|`` along one axis, ``(size, size)``."""
    position = torch.arange(size, device=like.device)
    return (position[:, None] - position).abs()


def _rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn neighbouring pairs of the last axis by each position's angle, in at least float32."""
    wide = torch.promote_types(x.dtype, torch.float32)
    cos, sin = (part.to(wide) for part in turn)
    even, odd = x[..., 0::2].to(wide), x[..., 1::2].to(wide)
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2).to(x.dtype)
