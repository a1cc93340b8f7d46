"""A batch a few images at a time, so that what is computed on the way stays in the processor's cache.

On a CPU the maps of a whole batch are larger than any cache, and memory fresh from the operating system costs a page
fault every 4 KB: most of the time of a plain forward goes there. Where images do not see each other (evaluation without
gradient) a few at a time give the same result.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["images_at_a_time", "in_slices", "sliceable"]

_SLICE_BYTES = 2 << 20  # of one map: a few of them fit into a cache


def images_at_a_time(image_bytes: int) -> int:
    """How many images have maps of ``image_bytes`` within the cache; at least one.

    Examples:
        >>> images_at_a_time(1 << 20)
        2
    """
    return max(_SLICE_BYTES // max(image_bytes, 1), 1)


def in_slices(run: Callable[[Tensor], Tensor], x: Tensor, image_bytes: int) -> Tensor:
    """``run(x)``, as many images at a time as have maps of ``image_bytes`` within the cache.

    Args:
        run: a function of a batch that treats every image on its own.
        x: the batch, ``(b, ...)``.
        image_bytes: size of one image's map inside ``run``.

    Examples:
        >>> x = torch.arange(6.0).view(3, 2)
        >>> in_slices(lambda part: part * 2, x, 4 << 20)
        tensor([[ 0.,  2.],
                [ 4.,  6.],
                [ 8., 10.]])
    """
    images = images_at_a_time(image_bytes)
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


def sliceable(module: nn.Module, x: Tensor) -> bool:
    """Whether a batch may go through ``module`` in slices, seen by nobody: on a CPU, without gradient or compiler.

    Not in training, nor where a batch norm reads the batch in evaluation as well, nor where a hook is handed the batch.
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
