"""Retention weights of torchscale, the reference implementation of RetNet, under our names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mertools.retention.layer import Retention

__all__ = ["load_torchscale"]

_PARTS = ("q_proj", "k_proj", "v_proj", "g_proj")


def load_torchscale(layer: Retention, state_dict: Mapping[str, Tensor], *, prefix: str = "") -> Retention:
    """Load the weights of a ``MultiScaleRetention`` of torchscale; the layer then computes what that does.

    Our ``in_proj`` is their ``q_proj``, ``k_proj``, ``v_proj`` and ``g_proj`` one above the other, ``out_proj`` keeps
    its name. Their decays are RetNet's (our default) and no part of their layer's weights. They divide scores by sums
    that the normalisation of each head takes out again, so that outputs agree up to its epsilon.

    Args:
        layer: a layer with a gate, rotary positions and the widths of the weights.
        state_dict: weights of the layer, or of a whole model.
        prefix: where in the model the layer is, such as ``"decoder.layers.0.retention."``.

    Returns:
        The layer, loaded in place.

    Raises:
        TypeError: no layer, or no mapping of names to tensors.
        ValueError: the layer is built otherwise, weights are missing or left over, or a shape differs.

    Examples:
        >>> theirs = {f"{name}_proj.weight": torch.eye(8) for name in ("q", "k", "v", "g", "out")}
        >>> load_torchscale(Retention(8, 2), theirs).out_proj.weight.diagonal().sum().item()
        8.0

    Source: Sun et al., "Retentive Network", 2023; https://github.com/microsoft/torchscale (the names of the weights).
    """
    if not isinstance(layer, Retention):
        raise TypeError(f"layer must be a Retention, got {type(layer).__name__}")
    if not isinstance(state_dict, Mapping) or not all(isinstance(key, str) for key in state_dict):
        raise TypeError(f"state_dict must map names to tensors, got {type(state_dict).__name__}")
    if not layer.gate or not layer.rotary:
        raise ValueError("layer must have gate=True and rotary=True, as torchscale's retention has")
    theirs = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    wanted = [f"{name}.weight" for name in (*_PARTS, "out_proj")]
    missing, unknown = [key for key in wanted if key not in theirs], [key for key in theirs if key not in wanted]
    if missing or unknown:
        raise ValueError(
            f"state_dict must have just {', '.join(wanted)} under the prefix {prefix!r}: "
            f"missing {missing or 'none'}, not known {unknown or 'none'}"
        )
    for key in wanted:
        if not isinstance(theirs[key], Tensor) or not theirs[key].is_floating_point():
            kind = theirs[key].dtype if isinstance(theirs[key], Tensor) else type(theirs[key]).__name__
            raise TypeError(f"{prefix}{key} must be a floating tensor, got {kind}")
    shapes = [(width, layer.dim) for width in layer.widths] + [(layer.dim, layer.value_dim)]
    for key, shape in zip(wanted, shapes, strict=True):
        if tuple(theirs[key].shape) != shape:
            raise ValueError(
                f"{prefix}{key} must be {shape} for this layer, got {tuple(theirs[key].shape)}: "
                "build it with the weights' dim and value_dim"
            )
    weights = [theirs[key] for key in wanted]
    with torch.no_grad():
        layer.in_proj.weight.copy_(torch.cat(weights[:-1]))
        layer.out_proj.weight.copy_(weights[-1])
    return layer
