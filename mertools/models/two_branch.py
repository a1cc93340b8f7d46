"""GAMDSS's two branches around any network: the rise and the fall of an expression, with one set of weights."""

from __future__ import annotations

from torch import Tensor, nn

from mertools.action_units.head import WithAUHead
from mertools.layers.arguments import records_arguments
from mertools.models.tsfmicro import TSFmicro

__all__ = ["TwoBranch"]


@records_arguments
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
