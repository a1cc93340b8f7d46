"""The four-stage retention backbone (RMT), which TSFmicro's temporal branch is: what moves, from a motion image.

Maps are held as ``(b, h, w, d)`` inside a stage, which is the memory order "channels last" of a ``(b, d, h, w)``
tensor: linear layers, norms and convolutions all work on it without a copy.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mertools._checks import as_integer, check_choice, check_count, check_image, check_number
from mertools.layers.arguments import records_arguments
from mertools.layers.drop_path import DropPath, rising_rates
from mertools.retention.manhattan import ManhattanRetention
from mertools.retention.micro_batches import in_micro_batches, micro_batch_size, splittable

__all__ = ["ConvStem", "ManhattanRetNet"]

_LAYER_NORM_EPS = 1e-6
_STEM_STRIDES = (2, 4)
# The sizes of Fan et al., 2024.
_RMT: dict[str, dict[str, Any]] = {
    name: {
        "dims": dims, "depths": depths, "num_heads": heads, "ffn_ratio": ratios, "decomposed": decomposed,
        "decay_range": decay_range, "layer_scale": scale, "drop_path": drop_path,
    }
    for name, dims, depths, heads, ratios, decomposed, decay_range, scale, drop_path in (
        ("rmt-t", (64, 128, 256, 512), (2, 2, 8, 2), (4, 4, 8, 16), 3.0, (True, True, False, False), (4, 4, 6, 6),
         None, 0.1),
        ("rmt-s", (64, 128, 256, 512), (3, 4, 18, 4), (4, 4, 8, 16), (4, 4, 3, 3), (True, True, True, False),
         (4, 4, 6, 6), None, 0.15),
        ("rmt-b", (80, 160, 320, 512), (4, 8, 25, 8), (5, 5, 10, 16), (4, 4, 3, 3), (True, True, True, False),
         (5, 5, 6, 6), (None, None, 1e-6, 1e-6), 0.4),
        ("rmt-l", (112, 224, 448, 640), (4, 8, 25, 8), (7, 7, 14, 20), (4, 4, 3, 3), (True, True, True, False),
         (6, 6, 6, 6), (None, None, 1e-6, 1e-6), 0.5),
    )
}  # fmt: skip


@records_arguments
class ManhattanRetNet(nn.Module):
    """The retention backbone of TSFmicro: what moves, from a motion image.

    A convolutional stem to half size, four stages of Manhattan retention blocks, between them convolutions to half
    size: floating ``(b, c, h, w)`` to ``(b, dims[-1], h/16, w/16)``, rounded up; a 32nd with a ``stem_stride`` of 4.
    ``net.stages(net.stem(x))`` is ``net(x)``: maps can be added in between, as two of the paper's fusions do.
    The defaults are TSFmicro's; :meth:`preset` has the four sizes of RMT, whose weights :func:`load_rmt` loads.

    Args:
        in_channels: channels of the image (3 for ``apex − onset``, 2 or 3 for flow).
        dims: width of each stage.
        depths: blocks of each stage.
        num_heads: heads of each stage, one number or one per stage.
        ffn_ratio: hidden width of the feed-forward layers as a multiple of the stage's, one number or one per stage.
        decomposed: which stages attend along rows and columns.
        decay_init: per stage, see :class:`ManhattanRetention`.
        decay_range: per stage, see :class:`ManhattanRetention`.
        stem_stride: pixels per place of the first stage: 2 in TSFmicro, 4 in RMT.
        layer_scale: multiply what a block adds by weights of each channel that start at this positive number; one
            number or one per stage, None for none.
        drop_path: stochastic depth of the last block; it rises to that linearly from 0 at the first.
        checkpoint: keep only the blocks' inputs for the backward pass and compute the blocks again, on a CPU a few
            images at a time: less than half of the memory, a sixth more time.
        features_only: return the maps of all stages, as :meth:`features` does, in the place of the last one.

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
        ffn_ratio: float | Sequence[float] = 3.0,
        decomposed: Sequence[bool] = (True, True, False, False),
        decay_init: Sequence[float] = (2.0, 2.0, 2.0, 2.0),
        decay_range: Sequence[float] = (4.0, 4.0, 6.0, 6.0),
        stem_stride: int = 2,
        layer_scale: float | Sequence[float | None] | None = None,
        drop_path: float = 0.1,
        checkpoint: bool = False,
        features_only: bool = False,
    ) -> None:
        super().__init__()
        in_channels = check_count("in_channels", in_channels)
        if as_integer(stem_stride) not in _STEM_STRIDES:
            raise ValueError(f"stem_stride must be 2 (TSFmicro) or 4 (RMT), got {stem_stride!r}")
        dims, depths = _counts("dims", dims), _counts("depths", depths)
        count = len(dims)
        heads, ratios, scales = (_each(value, count) for value in (num_heads, ffn_ratio, layer_scale))
        per_stage: dict[str, Sequence[Any]] = {
            "depths": depths,
            "num_heads": heads,
            "ffn_ratio": ratios,
            "decomposed": decomposed,
            "decay_init": decay_init,
            "decay_range": decay_range,
            "layer_scale": scales,
        }
        for name, values in per_stage.items():
            if not isinstance(values, Sequence) or len(values) != count:
                raise ValueError(f"{name} must have one value for each of the {count} stages in dims, got {values}")
        self.in_channels, self.dims = in_channels, tuple(dims)
        self.features_only = features_only
        self.stem_stride = int(stem_stride)
        self.stem = conv_stem(in_channels, dims[0], self.stem_stride)
        rates = iter(rising_rates(drop_path, sum(depths)))
        self.stages = nn.Sequential(
            *(
                _Stage(
                    [
                        Block(
                            dims[i],
                            heads[i],
                            ffn_ratio=check_number("ffn_ratio", ratios[i], 0),
                            decomposed=decomposed[i],
                            decay_init=decay_init[i],
                            decay_range=decay_range[i],
                            layer_scale=scales[i],
                            drop_path=next(rates),
                        )
                        for _ in range(depths[i])
                    ],
                    _downsample(dims[i], dims[i + 1]) if i + 1 < count else None,
                    checkpoint=checkpoint,
                )
                for i in range(count)
            )
        )

    @classmethod
    def preset(cls, name: str, **settings: Any) -> ManhattanRetNet:
        """RMT in one of its sizes, ``"rmt-t"``, ``"rmt-s"``, ``"rmt-b"`` or ``"rmt-l"``; ``settings`` change it."""
        check_choice("name", name, tuple(_RMT))
        return cls(**{"stem_stride": 4, **_RMT[name], **settings})

    @property
    def stride(self) -> int:
        """Pixels of the image per place of the last map, along each side."""
        return self.stem_stride << (len(self.dims) - 1)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """The map of image ``x``, or those of all stages with ``features_only``."""
        if self.features_only:
            return self.features(x)
        features: Tensor = self.stages(self.stem(x))
        return features

    def features(self, x: Tensor) -> list[Tensor]:
        """The map of each stage, a pyramid of 1/2, 1/4, 1/8 and 1/16 of the image with ``dims`` channels.

        With a ``stem_stride`` of 4 it is 1/4 to 1/32. The last one is ``net(x)``.
        """
        maps = []
        x = self.stem(x)
        for stage in self.stages:
            assert isinstance(stage, _Stage)
            maps.append(stage.run_blocks(x))
            x = stage.downsample(maps[-1])
        return maps


def conv_stem(in_channels: int, dim: int, stride: int) -> nn.Module:
    """A stem of stride 2 or 4. Their weights have the same shapes: names keep those of one out of the other."""
    stem = ConvStem(in_channels, dim, stride)
    return stem if stride == 2 else nn.Sequential(OrderedDict({f"stride{stride}": stem}))


class ConvStem(nn.Sequential):
    """Four 3×3 convolutions, ``(b, c, h, w) -> (b, d, h/stride, w/stride)``; the first two have ``d/2`` channels."""

    def __init__(self, in_channels: int, dim: int, stride: int = 2) -> None:
        half = dim // 2
        super().__init__(
            nn.Conv2d(in_channels, half, 3, stride=2, padding=1),
            nn.BatchNorm2d(half),
            nn.GELU(),
            nn.Conv2d(half, half, 3, padding=1),
            nn.BatchNorm2d(half),
            nn.GELU(),
            nn.Conv2d(half, dim, 3, stride=stride // 2, padding=1),
            nn.BatchNorm2d(dim),
            nn.GELU(),
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.BatchNorm2d(dim),
        )
        self.in_channels, self.dim = in_channels, dim

    def forward(self, x: Tensor) -> Tensor:
        """The stem's map."""
        check_image("x", x, self.in_channels)
        if splittable(self, x):
            return in_micro_batches(self._run, x, _map_bytes(x, self.dim // 4))  # half of both sides
        return self._run(x)

    def _run(self, x: Tensor) -> Tensor:
        # Channels last; torch.func.vmap has no rule for contiguous(memory_format=torch.channels_last).
        x = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        for layer in self:
            x = layer(x)
        return x


class LocalResidual(nn.Conv2d):
    """``x + conv(x)`` of a map ``(b, dim, h, w)`` with a depthwise 3×3 convolution."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        return x + super().forward(x)


class _Stage(nn.Module):
    """Blocks on a ``(b, d, h, w)`` map, then the way down to the next stage."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None, *, checkpoint: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = nn.Identity() if downsample is None else downsample
        self.checkpoint = checkpoint

    def forward(self, x: Tensor) -> Tensor:
        if splittable(self, x):
            return in_micro_batches(self._run, x, _map_bytes(x, x.shape[1]))
        return self._run(x)

    def _run(self, x: Tensor) -> Tensor:
        down: Tensor = self.downsample(self.run_blocks(x))
        return down

    def run_blocks(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1).contiguous()
        if not (self.checkpoint and torch.is_grad_enabled()):
            return self._blocks(x).permute(0, 3, 1, 2)
        # On a CPU in micro-batches: what the backward pass computes again stays small.
        split = x.device.type == "cpu" and not torch.compiler.is_compiling()
        images = micro_batch_size(math.prod(x.shape[1:]) * x.element_size()) if split else max(len(x), 1)
        parts = [self._blocks(part) for part in torch.split(x, images)]
        return torch.cat(parts).permute(0, 3, 1, 2)

    def _blocks(self, x: Tensor) -> Tensor:
        for block in self.blocks:  # they hold no batch norm, which would count a batch twice
            x = checkpoint(block, x, use_reentrant=False) if self.checkpoint and torch.is_grad_enabled() else block(x)
        return x


class Block(nn.Module):
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
        layer_scale: float | None,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.position = LocalResidual(dim)
        self.retention_norm = nn.LayerNorm(dim, eps=_LAYER_NORM_EPS)
        self.retention = ManhattanRetention(
            dim, num_heads, decomposed=decomposed, decay_init=decay_init, decay_range=decay_range
        )
        self.ffn_norm = nn.LayerNorm(dim, eps=_LAYER_NORM_EPS)
        self.ffn = _ConvFFN(dim, int(dim * ffn_ratio))
        self.retention_scale = self.ffn_scale = None
        if layer_scale is not None:
            check_number("layer_scale", layer_scale, 0)
            self.retention_scale = nn.Parameter(torch.full((dim,), float(layer_scale)))
            self.ffn_scale = nn.Parameter(torch.full((dim,), float(layer_scale)))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = _on_map(self.position, x)
        y = self.retention(self.retention_norm(x))
        x = x + self.drop_path(y if self.retention_scale is None else y * self.retention_scale)
        y = self.ffn(self.ffn_norm(x))
        result: Tensor = x + self.drop_path(y if self.ffn_scale is None else y * self.ffn_scale)
        return result


class _ConvFFN(nn.Module):
    """Two linear layers with a depthwise convolution between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.local = LocalResidual(hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.fc1(x))
        y: Tensor = self.fc2(_on_map(self.local, x))
        return y


def _counts(name: str, values: object) -> tuple[int, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise TypeError(f"{name} must be a sequence of positive integers, one per stage, got {values!r}")
    return tuple(check_count(f"{name}[{i}]", value) for i, value in enumerate(values))


def _each(value: Any, count: int) -> Sequence[Any]:
    """One value per stage, of one for all or a sequence."""
    return value if isinstance(value, Sequence) else [value] * count


def _map_bytes(x: Tensor, channels: int) -> int:
    return channels * x.shape[2] * x.shape[3] * x.element_size()


def _downsample(dim: int, out_dim: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(dim, out_dim, 3, stride=2, padding=1), nn.BatchNorm2d(out_dim))


def _on_map(conv: nn.Module, x: Tensor) -> Tensor:
    """Run a convolution on a ``(b, h, w, d)`` map; the permuted view is channels last, so nothing is copied."""
    y: Tensor = conv(x.permute(0, 3, 1, 2))
    return y.permute(0, 2, 3, 1)
