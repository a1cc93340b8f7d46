"""A linear layer that takes the faster of PyTorch's two CPU libraries.

On a CPU ``nn.Linear`` multiplies with MKL and ``nn.Conv2d`` with oneDNN. A linear layer is a 1×1 convolution, and on
some processors oneDNN is the faster one, for the gradients too (``benchmarks/retention.py`` has figures).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Projection", "project"]

_MANY_ROWS = 1024  # below, preparing the weights for oneDNN costs what it saves


def project(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight.T`` over the last axis, as ``F.linear``; many float32 rows on a CPU go through oneDNN.

    Shape:
        - x: ``(..., d)``; weight: ``(o, d)``; output: ``(..., o)``
    """
    if (
        torch.compiler.is_compiling()
        or x.dtype != torch.float32
        or x.device.type != "cpu"
        or x.numel() < _MANY_ROWS * x.shape[-1]
        or torch.is_autocast_enabled("cpu")
        or not torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    ):
        return F.linear(x, weight)
    # Rows are the pixels of one image whose channels come last: nothing is copied on the way in or out.
    image = x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)
    y = F.conv2d(image, weight[:, :, None, None])
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


class Projection(nn.Linear):
    """``nn.Linear`` without bias that computes :func:`project`: hooks, adapters and checkpoints see a linear layer.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        device: where to create the weight.
        dtype: its type.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias=False, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``x @ weight.T``."""
        return project(x, self.weight)
