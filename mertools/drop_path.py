"""Stochastic depth: leave a residual branch out for some samples of a batch."""

from __future__ import annotations

from torch import Tensor, nn


class DropPath(nn.Module):
    """Zero a whole sample's branch with probability ``rate`` in training and scale the others by ``1 / (1 − rate)``.

    Args:
        rate: in [0, 1).

    Shape:
        - input and output: ``(b, ...)``

    Raises:
        ValueError: a rate outside [0, 1).

    Examples:
        >>> import torch
        >>> DropPath(0.5).eval()(torch.ones(2, 3)).sum()
        tensor(6.)

    Source: Huang et al., "Deep Networks with Stochastic Depth", 2016.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"drop_path must lie in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop samples in training; the identity otherwise."""
        if self.rate == 0 or not self.training:
            return x
        keep = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * keep / (1 - self.rate)

    def extra_repr(self) -> str:
        """The configuration, for ``print``."""
        return f"rate={self.rate}"
