"""TSFmicro with its four fusion structures.

TSFmicro reads "where" from the onset frame and "how" from the motion image ``apex − onset``. What the paper varies is
where the two meet::

    parallel    spatial(onset) + temporal(motion)                               the paper's choice
    early       backbone stages over stem(onset) + stem(motion), no spatial branch
    s_to_t      spatial(onset), upsampled, added behind the temporal stem
    t_to_s      temporal(motion), added before the spatial branch's last norm
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from mertools._checks import as_integer, channels_first, check_choice, check_count
from mertools.layers.arguments import records_arguments
from mertools.layers.fusion import ParallelFusion
from mertools.layers.spatial import SpatialTransformer
from mertools.retention.backbone import ManhattanRetNet, conv_stem

__all__ = ["TSFmicro"]

_FUSIONS = ("parallel", "early", "s_to_t", "t_to_s")
_BACKBONE = ((64, 128, 256, 512), (1, 1, 2, 1), 2, 0.1, False)  # dims, depths, heads, drop path, checkpoint


@records_arguments
class TSFmicro(nn.Module):
    """Micro-expression recognition from the onset and apex frames, ``spatial(onset) + temporal(apex − onset)``.

    Frames are floating ``(b, in_channels, image_size, image_size)`` (ImageNet mean/std in the paper), the output ``(b,
    num_classes)`` logits.

    Args:
        num_classes: number of classes.
        fusion: where the branches meet: ``"parallel"``, ``"early"``, ``"s_to_t"`` or ``"t_to_s"``.
        image_size: side of the images; the grid of the spatial branch is a 16th of it, or what a ``backbone`` makes.
        in_channels: channels of the images.
        dims: widths of the temporal backbone's four stages; the last is that of the spatial branch and the fusion.
        depths: blocks of each stage.
        num_heads: heads of the temporal backbone.
        spatial_depth: blocks of the spatial branch.
        spatial_heads: its heads.
        hidden: width of the fused vector.
        antialias: low-pass the onset frame before the spatial branch reduces it. torchvision does so from 0.17 on, so
            what is trained with the published code today needs True; the published checkpoints need False.
        drop_path: stochastic depth of the temporal backbone.
        checkpoint: keep less of the temporal backbone for the backward pass and compute it again, see
            :class:`ManhattanRetNet`.
        backbone: a temporal backbone of yours, in the place of one of ``dims`` to ``checkpoint``: RMT with its ImageNet
            weights, for instance. It tells the widths.

    Examples:
        >>> import torch
        >>> model = TSFmicro(5, image_size=64, dims=(8, 16, 24, 32), hidden=48).eval()
        >>> onset, apex = torch.zeros(2, 3, 64, 64), torch.ones(2, 3, 64, 64)
        >>> model(onset, apex).shape
        torch.Size([2, 5])

    Source: TSFmicro (arXiv 2505.16372). :func:`load_published` reads the published weights.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        fusion: str = "parallel",
        image_size: int = 224,
        in_channels: int = 3,
        dims: Sequence[int] = _BACKBONE[0],
        depths: Sequence[int] = _BACKBONE[1],
        num_heads: int = _BACKBONE[2],
        spatial_depth: int = 2,
        spatial_heads: int = 4,
        hidden: int = 1024,
        antialias: bool = False,
        drop_path: float = _BACKBONE[3],
        checkpoint: bool = _BACKBONE[4],
        backbone: ManhattanRetNet | None = None,
    ) -> None:
        super().__init__()
        check_choice("fusion", fusion, _FUSIONS)
        num_classes = check_count("num_classes", num_classes)
        spatial_heads = check_count("spatial_heads", spatial_heads)
        spatial_depth = check_count("spatial_depth", spatial_depth, least=0)
        in_channels = check_count("in_channels", in_channels)
        if fusion == "early" and antialias:
            raise ValueError(
                "antialias must be False with fusion='early', which has no spatial branch to reduce an image"
            )
        if backbone is None:
            if not isinstance(dims, Sequence) or len(dims) != 4:
                raise ValueError(f"dims must be the widths of four stages, got {dims!r}")
            backbone = ManhattanRetNet(
                in_channels, dims=dims, depths=depths, num_heads=num_heads, drop_path=drop_path, checkpoint=checkpoint
            )
        else:
            _check_backbone(backbone, dims, depths, num_heads, drop_path, checkpoint)
        size = as_integer(image_size)
        if size is None or size < backbone.stride or size % backbone.stride:
            raise ValueError(f"image_size must be a multiple of {backbone.stride}, got {image_size!r}")
        self.structure, self.image_size, self.in_channels = fusion, size, in_channels
        self.temporal = backbone
        dims = backbone.dims
        if fusion == "early":
            self.spatial_stem = conv_stem(in_channels, dims[0], backbone.stem_stride)
        else:
            self.spatial = SpatialTransformer(
                dims[-1],
                spatial_depth,
                spatial_heads,
                grid=size // backbone.stride,
                in_channels=in_channels,
                antialias=antialias,
            )
        if fusion == "s_to_t":
            narrower = zip(dims[:0:-1], dims[-2::-1], strict=True)
            self.upsample = nn.Sequential(*(nn.ConvTranspose2d(d, e, 4, stride=2, padding=1) for d, e in narrower))
        self.fusion = ParallelFusion(dims[-1], hidden, num_classes=num_classes)

    @property
    def backbone(self) -> ManhattanRetNet:
        """The temporal branch by another name: a retention backbone."""
        return self.temporal

    def forward(self, onset: Tensor, apex: Tensor | None = None, *, motion: Tensor | None = None) -> Tensor:
        """Class logits of a clip from its onset and apex frames, or from the onset and a motion image."""
        handed = _HANDED.get(_thread())
        if handed is not None and motion is None:
            if apex is not handed:
                raise RuntimeError(
                    "TwoBranch handed a motion image to a wrapper, which passed another image on as the apex frame: "
                    "call this TSFmicro as net(static, motion=...) there"
                )
            apex, motion = None, apex
        if motion is not None:
            if apex is not None:
                raise ValueError("apex and motion were both given: pass the apex frame, or the motion image")
            self._check("onset", onset, self.in_channels)
            self._check("motion", motion, self.temporal.in_channels)
            return self._logits(onset, motion)
        if isinstance(onset, Tensor) and isinstance(apex, Tensor) and onset.shape != apex.shape:
            raise ValueError(f"onset and apex must have one shape, got {tuple(onset.shape)} and {tuple(apex.shape)}")
        self._check("onset", onset, self.in_channels)
        self._check("apex", apex, self.in_channels)
        return self._logits(onset, cast(Tensor, apex) - onset)

    def _logits(self, static: Tensor, motion: Tensor) -> Tensor:
        if self.structure == "parallel":
            logits: Tensor = self.fusion(self.temporal(motion), self.spatial(static))
            return logits
        return self.fusion.logits(self._fused_map(static, motion))

    def _fused_map(self, static: Tensor, motion: Tensor) -> Tensor:
        """The fused map of the structures in which one branch feeds the other."""
        if self.structure in ("early", "s_to_t"):
            early = self.structure == "early"
            where = self.spatial_stem(static) if early else self.upsample(self.spatial(static))
            features: Tensor = self.temporal.stages(self.temporal.stem(motion) + where)
            return features
        how = rearrange(self.temporal(motion), "b d h w -> b (h w) d")
        return self.spatial.to_map(self.spatial.tokens(static) + how)

    def _check(self, name: str, image: Tensor | None, c: int) -> None:
        s = self.image_size
        if not isinstance(image, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor (b, {c}, {s}, {s}), got {type(image).__name__}")
        if image.ndim != 4 or image.shape[1:] != (c, s, s):
            mend = (
                channels_first(name, tuple(image.shape), c) or ": resize the images or build TSFmicro(image_size=...)"
            )
            raise ValueError(f"{name} must be (b, {c}, {s}, {s}), got shape {tuple(image.shape)}{mend}")
        if not image.is_floating_point():
            raise TypeError(f"{name} must be floating, got {image.dtype}: normalise first, e.g. {name}.float() / 255")


def _check_backbone(backbone: object, dims: object, depths: object, *others: object) -> None:
    if not isinstance(backbone, ManhattanRetNet):
        raise TypeError(f"backbone must be a ManhattanRetNet, got {type(backbone).__name__}")
    if backbone.features_only:
        raise ValueError("backbone must return its last map: build it with features_only=False")
    if (*(tuple(x) if isinstance(x, Sequence) else x for x in (dims, depths)), *others) != _BACKBONE:
        raise ValueError(
            "backbone and one of dims, depths, num_heads, drop_path and checkpoint were both given: "
            "a backbone brings its own"
        )


_COMPILED = 0
_HANDED: dict[int, Tensor] = {}  # motion images that a caller hands on by position, by thread


@contextmanager
def motion_by_position(motion: Tensor) -> Iterator[None]:
    """While a network is called ``net(static, motion)``: a TSFmicro inside it takes ``motion`` for what it is.

    By position TSFmicro is given two frames, and a wrapper that only passes its inputs on can't know. One that passes
    on another image than ``motion`` is an error.
    """
    threads = {_thread(), _COMPILED}
    _HANDED.update(dict.fromkeys(threads, motion))
    try:
        yield
    finally:
        for thread in threads:
            _HANDED.pop(thread, None)


def _thread() -> int:
    return _COMPILED if torch.compiler.is_compiling() else get_ident()  # code that is compiled can't ask for it
