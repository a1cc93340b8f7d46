"""A batch in micro-batches of a few images, so that what is computed on the way stays in the processor's cache.

On a CPU the maps of a whole batch are larger than any cache, and memory fresh from the operating system costs a page
fault every 4 KB. Where images do not see each other (evaluation without gradient) micro-batches give the same result.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["in_micro_batches", "micro_batch_size", "splittable"]

_MAP_BYTES = 2 << 20  # of the maps of one micro-batch: a few of them fit into a cache


def micro_batch_size(image_bytes: int) -> int:
    """How many images of ``image_bytes`` a map make a micro-batch; at least one."""
    return max(_MAP_BYTES // max(image_bytes, 1), 1)


def in_micro_batches(run: Callable[[Tensor], Tensor], x: Tensor, image_bytes: int) -> Tensor:
    """``run(x)`` of a function that treats every image of the batch ``(b, ...)`` on its own, in micro-batches."""
    images = micro_batch_size(image_bytes)
    if len(x) <= images:
        return run(x)
    first = run(x[:images])
    # Filled in place rather than put together at the end, which would hold the result twice.
    if first.ndim == 4 and first.stride(1) == 1:  # channels last
        c, h, w = first.shape[1:]
        result = first.new_empty(len(x), h, w, c).permute(0, 3, 1, 2)
    else:
        result = first.new_empty(len(x), *first.shape[1:])
    result[:images] = first
    for start in range(images, len(x), images):
        result[start : start + images] = run(x[start : start + images])
    return result


def splittable(module: nn.Module, x: Tensor) -> bool:
    """Whether ``module`` gives the same for a batch in micro-batches: on a CPU, without gradient or compiler.

    Not in training, nor where a batch norm takes its statistics from the batch in evaluation as well, nor where a
    forward hook expects the whole batch.
    """
    if type(x) is not Tensor or x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return not any(
        part.training
        or part._forward_hooks
        or part._forward_pre_hooks
        or (isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None)
        for part in module.modules()
    )
