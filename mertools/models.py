"""Whole models: TSFmicro with its four fusion structures, and GAMDSS's two branches around any network.

TSFmicro reads "where" from the onset frame and "how" from the motion image ``apex − onset``. What the paper varies is
where the two meet::

    parallel    spatial(onset) + temporal(motion)                               the paper's choice
    early       backbone stages over stem(onset) + stem(motion), no spatial branch
    s_to_t      spatial(onset), upsampled, added behind the temporal stem
    t_to_s      temporal(motion), added before the spatial branch's last norm
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from einops import rearrange
from torch import Tensor, nn

from mertools.au_head import WithAUHead
from mertools.backbone import ConvStem, ManhattanRetNet
from mertools.checks import check_choice, check_count
from mertools.fusion import ParallelFusion
from mertools.spatial import SpatialTransformer
from mertools.temporal import RetNetTemporal

__all__ = ["TSFmicro", "TwoBranch"]

_FUSIONS = ("parallel", "early", "s_to_t", "t_to_s")


class TSFmicro(nn.Module):
    """Micro-expression recognition from the onset and apex frames.

    Args:
        num_classes: number of classes.
        fusion: where the branches meet: ``"parallel"``, ``"early"``, ``"s_to_t"`` or ``"t_to_s"``.
        image_size: side of the images; the grid of the spatial branch is a 16th of it.
        in_channels: channels of the images.
        dims: widths of the temporal backbone's four stages; the last is that of the spatial branch and the fusion.
        depths: blocks of each stage.
        num_heads: heads of the temporal backbone.
        spatial_depth: blocks of the spatial branch.
        spatial_heads: its heads.
        hidden: width of the fused vector.
        drop_path: stochastic depth of the temporal backbone.
        checkpoint: keep less of the temporal backbone for the backward pass and compute it again, see
            :class:`ManhattanRetNet`.

    Shape:
        - onset, apex: ``(b, in_channels, image_size, image_size)`` floating, ImageNet mean/std in the paper
        - output: ``(b, num_classes)`` logits

    Raises:
        TypeError: images that are not floating.
        ValueError: an unknown fusion, or images of another shape.

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
        dims: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (1, 1, 2, 1),
        num_heads: int = 2,
        spatial_depth: int = 2,
        spatial_heads: int = 4,
        hidden: int = 1024,
        drop_path: float = 0.1,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_choice("fusion", fusion, _FUSIONS)
        if not isinstance(image_size, int) or image_size < 16 or image_size % 16:
            raise ValueError(f"image_size must be a multiple of 16, got {image_size!r}")
        check_count("num_classes", num_classes)
        check_count("spatial_heads", spatial_heads)
        check_count("spatial_depth", spatial_depth, least=0)
        if not isinstance(dims, Sequence) or len(dims) != 4:
            raise ValueError(f"dims must be the widths of four stages, got {dims!r}")
        self.structure, self.image_size, self.in_channels = fusion, image_size, in_channels
        backbone = ManhattanRetNet(
            in_channels, dims=dims, depths=depths, num_heads=num_heads, drop_path=drop_path, checkpoint=checkpoint
        )
        if fusion == "early":
            self.spatial_stem = ConvStem(in_channels, dims[0])
        else:
            self.spatial = SpatialTransformer(
                dims[-1], spatial_depth, spatial_heads, grid=image_size // 16, in_channels=in_channels
            )
        if fusion == "s_to_t":
            narrower = zip(dims[:0:-1], dims[-2::-1], strict=True)
            self.upsample = nn.Sequential(*(nn.ConvTranspose2d(d, e, 4, stride=2, padding=1) for d, e in narrower))
        self.temporal = RetNetTemporal(dims[-1], depth=0, stem=backbone)
        self.fusion = ParallelFusion(dims[-1], hidden, num_classes=num_classes)

    @property
    def backbone(self) -> ManhattanRetNet:
        """The retention backbone inside the temporal branch."""
        return cast(ManhattanRetNet, self.temporal.stem)

    def forward(self, onset: Tensor, apex: Tensor | None = None, *, motion: Tensor | None = None) -> Tensor:
        """Class logits of a clip from its onset and apex frames, or from the onset and a motion image."""
        if motion is not None:
            if apex is not None:
                raise ValueError("apex and motion were both given: pass the apex frame, or the motion image")
            self._check("onset", onset)
            self._check("motion", motion)
            return self._logits(onset, motion)
        if isinstance(onset, Tensor) and isinstance(apex, Tensor) and onset.shape != apex.shape:
            raise ValueError(f"onset and apex must have one shape, got {tuple(onset.shape)} and {tuple(apex.shape)}")
        self._check("onset", onset)
        self._check("apex", apex)
        return self._logits(onset, cast(Tensor, apex) - onset)

    def fuse(self) -> TSFmicro:
        """A copy for prediction that is equal and faster, see :func:`mertools.fuse`."""
        from mertools.fuse import fuse

        return fuse(self)

    def _logits(self, static: Tensor, motion: Tensor) -> Tensor:
        if self.structure == "parallel":
            logits: Tensor = self.fusion(self.temporal(motion), self.spatial(static))
            return logits
        return self.fusion.pool(self._fused_map(static, motion))

    def _fused_map(self, static: Tensor, motion: Tensor) -> Tensor:
        """The fused map of the structures in which one branch feeds the other."""
        if self.structure in ("early", "s_to_t"):
            early = self.structure == "early"
            where = self.spatial_stem(static) if early else self.upsample(self.spatial(static))
            features: Tensor = self.backbone.stages(self.backbone.stem(motion) + where)
            return features
        how = rearrange(self.temporal(motion), "b d h w -> b (h w) d")
        return self.spatial.to_map(self.spatial.tokens(static) + how)

    def _check(self, name: str, image: Tensor | None) -> None:
        s, c = self.image_size, self.in_channels
        if not isinstance(image, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor (b, {c}, {s}, {s}), got {type(image).__name__}")
        if image.ndim != 4 or image.shape[1:] != (c, s, s):
            raise ValueError(
                f"{name} must be (b, {c}, {s}, {s}), got shape {tuple(image.shape)}: "
                "resize the images or build TSFmicro(image_size=...)"
            )
        if not image.is_floating_point():
            raise TypeError(f"{name} must be floating, got {image.dtype}: normalise first, e.g. {name}.float() / 255")


class TwoBranch(nn.Module):
    """GAMDSS's two branches around any network: the rise and the fall of an expression, one set of weights.

    ``front = net(onset, apex − onset)`` and ``back = net(apex, apex − offset)``. Training minimises the sum of the two
    losses; prediction uses ``front``. No parameters of its own.

    Args:
        net: a module called as ``net(static, motion)``. A :class:`TSFmicro`, also inside ``DataParallel``,
            ``DistributedDataParallel``, ``torch.compile`` or :func:`attach_au_head`, is called as
            ``net(static, motion=motion)``.

    Shape:
        - onset, apex, offset: ``(b, c, h, w)``, all alike
        - output: front and back, each what ``net`` returns

    Raises:
        TypeError: net is no module, or a frame no floating tensor.
        ValueError: the frames differ in shape.

    Examples:
        >>> import torch
        >>> class Net(nn.Module):
        ...     def forward(self, static, motion):
        ...         return motion.mean((1, 2, 3))
        >>> onset, apex, offset = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
        >>> TwoBranch(Net())(onset, apex, offset)
        (tensor([1.]), tensor([1.]))

    Source: GAMDSS (arXiv 2603.04766), two-branch structure with shared parameters.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        if not isinstance(net, nn.Module):
            raise TypeError(f"net must be an nn.Module called as net(static, motion), got {type(net).__name__}")
        self.net = net

    def forward(self, onset: Tensor, apex: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of the front branch (onset to apex) and of the back branch (apex to offset)."""
        _check_frames(onset=onset, apex=apex, offset=offset)
        return self._branch(onset, apex - onset), self._branch(apex, apex - offset)

    def front(self, onset: Tensor, apex: Tensor) -> Tensor:
        """The front branch alone, for prediction: no offset is needed, and half the work."""
        _check_frames(onset=onset, apex=apex)
        return self._branch(onset, apex - onset)

    def fuse(self) -> TwoBranch:
        """A copy for prediction that is equal and faster, see :func:`mertools.fuse`."""
        from mertools.fuse import fuse

        return fuse(self)

    def _branch(self, static: Tensor, motion: Tensor) -> Tensor:
        takes_frames = isinstance(_unwrapped(self.net), TSFmicro)
        output: Tensor = self.net(static, motion=motion) if takes_frames else self.net(static, motion)
        return output


def _unwrapped(net: nn.Module) -> nn.Module:
    """The model inside PyTorch's own wrappers and an AU head's; a user's module is left as it is."""
    while True:
        if isinstance(net, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            net = net.module
        elif isinstance(net, WithAUHead):
            net = net.host
        elif isinstance(compiled := getattr(net, "_orig_mod", None), nn.Module):
            net = compiled
        else:
            return net


def _check_frames(**frames: Tensor) -> None:
    for name, frame in frames.items():
        if not isinstance(frame, Tensor):
            raise TypeError(f"{name} must be a floating torch.Tensor (b, c, h, w), got {type(frame).__name__}")
        if not frame.is_floating_point():
            raise TypeError(f"{name} must be a floating torch.Tensor, got {frame.dtype}: 8-bit differences wrap around")
    first = next(iter(frames.values())).shape
    if any(frame.shape != first for frame in frames.values()):  # no set: sizes may be symbols in an exported graph
        shapes = ", ".join(f"{name} {tuple(frame.shape)}" for name, frame in frames.items())
        raise ValueError(f"{', '.join(frames)} must have one shape, got {shapes}")
