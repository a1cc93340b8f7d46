"""Batch norm with the statistics of all ranks, on any backend.

PyTorch's ``SyncBatchNorm`` needs a GPU. With this one, a model with batch norm trained on two CPU processes is the same
model as on one, and code that is to run on eight GPUs can be tried on a laptop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["sync_batch_norm"]


def sync_batch_norm(model: nn.Module) -> nn.Module:
    """Let every batch norm of a model take its training statistics over all ranks' clips.

    Before it is wrapped in ``DistributedDataParallel``. Where the model is on a GPU it is converted to PyTorch's
    ``SyncBatchNorm``, elsewhere to a layer that gathers with ``torch.distributed``. Names and values of the state dict
    stay. Without an initialised process group, and in evaluation, the layers do what plain batch norm does. A layer
    that occurs in several places stays one layer.

    Args:
        model: any module; converted in place.

    Returns:
        The model (another module only where the model itself is a batch norm).

    Raises:
        TypeError: model is no module, or holds a kind of batch norm with a ``forward`` of its own, which would be lost.

    Examples:
        >>> model = sync_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
        >>> model(torch.ones(2, 3, 5, 5)).shape, sorted(model.state_dict())[-2:]
        (torch.Size([2, 4, 3, 3]), ['1.running_var', '1.weight'])

    Source: Ioffe and Szegedy, "Batch Normalization", 2015; statistics over all devices as in MegDet (CVPR 2018).
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    _check_forward(model)
    on_gpu = any(parameter.is_cuda for parameter in model.parameters())
    return _convert(model, nn.SyncBatchNorm.convert_sync_batchnorm if on_gpu else _converted, {})


def _check_forward(model: nn.Module) -> None:
    for name, module in model.named_modules():
        known = isinstance(module, (SyncedBatchNorm, nn.SyncBatchNorm)) or type(module).forward is _BatchNorm.forward
        if isinstance(module, _BatchNorm) and not known:
            raise TypeError(
                f"model must have plain batch norms, {name or 'model'} is a {type(module).__name__} with a forward of "
                "its own: take it apart into a batch norm and the rest, or convert it yourself"
            )


def _convert(module: nn.Module, norm: Callable[[Any], nn.Module], seen: dict[nn.Module, nn.Module]) -> nn.Module:
    """Convert a module's batch norms by ``norm``; ``seen`` has what became of the modules that were met before."""
    if module not in seen:
        plain = isinstance(module, _BatchNorm) and not isinstance(module, (SyncedBatchNorm, nn.SyncBatchNorm))
        seen[module] = norm(module) if plain else module
        # Not named_children: it has each layer once, and a shared one would stay as it was in its other places.
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = _convert(child, norm, seen)
    return seen[module]


class SyncedBatchNorm(_BatchNorm):
    """A batch norm over the clips of all ranks; ``(b, c, ...)`` to the same."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"input must be (b, c, ...), got shape {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; in training with the statistics of all ranks."""
        # Never in evaluation, whatever the layer tracks: a rank may have no clip there, and the others would wait.
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            output: Tensor = super().forward(input)
            return output
        self._check_input_dim(input)
        x = input if input.dtype == torch.float64 else input.float()
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        # Two passes: sums of squares would lose the digits that one process keeps.
        total = _sum_over_ranks(torch.cat((x.sum(axes), x.new_tensor([x.numel() / x.shape[1]]))))
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = x - mean.view(shape)
        variance = _sum_over_ranks(centred.square().sum(axes)) / count
        if self.training and self.track_running_stats:
            self._remember(mean.detach(), variance.detach() * (count / (count - 1).clamp(min=1)))
        normalised: Tensor = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(variance.to(self.running_var), share)


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over the ranks; its gradient is summed over them, too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        total: Tensor = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _sum_over_ranks(value: Tensor) -> Tensor:
    total: Tensor = _SumOverRanks.apply(value)  # type: ignore[no-untyped-call]
    return total


def _converted(norm: _BatchNorm) -> SyncedBatchNorm:
    synced = SyncedBatchNorm(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    )  # its own parameters are replaced by the model's
    for name, parameter in norm.named_parameters(recurse=False):
        synced.register_parameter(name, parameter)
    for name, buffer in norm.named_buffers(recurse=False):
        synced.register_buffer(name, buffer)
    return synced.train(norm.training)
