"""Stochastic depth: leave a residual branch out for some samples of a batch."""

from __future__ import annotations

from torch import Tensor, nn

from mertools._checks import check_number


class DropPath(nn.Module):
    """Zero a whole sample's branch with probability ``rate`` in training and scale the others by ``1 / (1 − rate)``.

    ``x`` is ``(b, ...)`` (Huang et al., "Deep Networks with Stochastic Depth", 2016).
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = check_number("drop_path", rate, 0, 1, open_high=True)

    def forward(self, x: Tensor) -> Tensor:
        """Drop samples in training; the identity otherwise."""
        if self.rate == 0 or not self.training:
            return x
        keep = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * keep / (1 - self.rate)

    def extra_repr(self) -> str:
        """The configuration, for ``print``."""
        return f"rate={self.rate}"


def rising_rates(drop_path: float, depth: int) -> list[float]:
    """Rates of ``depth`` blocks that rise linearly from 0 to ``drop_path``."""
    check_number("drop_path", drop_path, 0, 1, open_high=True)
    return [drop_path * i / max(depth - 1, 1) for i in range(depth)]
