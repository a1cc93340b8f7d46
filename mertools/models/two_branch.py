"""GAMDSS's two branches: the rise and the fall of an expression."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import Tensor, nn

from mertools.layers.arguments import records_arguments
from mertools.models.tsfmicro import motion_by_position

__all__ = ["TwoBranch"]


@records_arguments
class TwoBranch(nn.Module):
    """GAMDSS's two branches around any network: the rise and the fall of an expression, one set of weights.

    ``front = net(onset, motion=apex − onset)`` and ``back = net(apex, motion=apex − offset)``, of frames ``(b, c, h,
    w)``, all alike. Training minimises the sum of the two losses; prediction uses ``front``. No parameters of its own.

    Args:
        net: a module of a frame and a motion image, in whatever wrapper. It is called with the keyword ``motion``,
            which wrappers pass on; by position where its forward names two inputs otherwise, or does not know it.
        motion: the motion image of two frames, ``motion(first, second)``, in the place of ``second − first``:
            :func:`optical_flow`, for instance. For the back branch the offset is first and the apex second.

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

    def __init__(self, net: nn.Module, *, motion: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        if not isinstance(net, nn.Module):
            raise TypeError(f"net must be an nn.Module called as net(static, motion), got {type(net).__name__}")
        if motion is not None and not callable(motion):
            raise TypeError(f"motion must be a function of two frames, such as optical_flow, got {motion!r}")
        self.net = net
        self.motion = motion
        self._by_position = _names_two_inputs(net)

    def forward(self, onset: Tensor, apex: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of the front branch (onset to apex) and of the back branch (apex to offset)."""
        self._check(onset=onset, apex=apex, offset=offset)
        return self._branch(onset, onset, apex), self._branch(apex, offset, apex)

    def front(self, onset: Tensor, apex: Tensor) -> Tensor:
        """The front branch alone, for prediction: no offset is needed, and half the work."""
        self._check(onset=onset, apex=apex)
        return self._branch(onset, onset, apex)

    def _branch(self, static: Tensor, first: Tensor, second: Tensor) -> Tensor:
        motion = second - first if self.motion is None else self.motion(first, second)
        if not self._by_position:
            try:
                output: Tensor = self.net(static, motion=motion)
                return output
            except TypeError as error:
                # A wrapper that takes and passes on anything, around a network that does not know the keyword.
                if "unexpected keyword argument 'motion'" not in str(error):
                    raise
        with motion_by_position(motion):
            output = self.net(static, motion)
        self._by_position = True
        return output

    def _check(self, **frames: Tensor) -> None:
        for name, frame in frames.items():
            if not isinstance(frame, Tensor):
                raise TypeError(f"{name} must be a floating torch.Tensor (b, c, h, w), got {type(frame).__name__}")
            if not frame.is_floating_point() and self.motion is None:
                raise TypeError(
                    f"{name} must be a floating torch.Tensor, got {frame.dtype}: 8-bit differences wrap around"
                )
        first = next(iter(frames.values())).shape
        if any(frame.shape != first for frame in frames.values()):  # no set: sizes may be symbols in an exported graph
            shapes = ", ".join(f"{name} {tuple(frame.shape)}" for name, frame in frames.items())
            raise ValueError(f"{', '.join(frames)} must have one shape, got {shapes}")


def _names_two_inputs(net: nn.Module) -> bool:
    """Whether the outermost forward names two inputs of its own, none of them ``motion``."""
    try:
        parameters = inspect.signature(net.forward).parameters
    except (TypeError, ValueError):  # compiled code has none
        return False
    named = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if named[:1] == ["motion"]:
        raise ValueError("net must take the frame first and the motion image second, its forward begins with motion")
    return len(named) > 1 and "motion" not in parameters
