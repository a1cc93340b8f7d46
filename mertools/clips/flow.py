"""Motion between two frames: optical flow, and the strain of the skin that follows from it.

Micro-expression models are often fed ``u, v, strain`` between onset and apex. Flow is dense and in pixels; strain is
the size of its spatial gradient, which a moving head leaves at zero.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mertools._checks import channels_first, check_choice, check_floating

__all__ = ["optical_flow", "optical_strain"]

FlowMethod = Literal["dis", "farneback", "tvl1"]
_METHODS = ("dis", "farneback", "tvl1")


def optical_flow(first: Tensor, second: Tensor, *, method: FlowMethod = "dis") -> Tensor:
    """Dense optical flow in pixels, float32: ``second(x + u, y + v) ≈ first(x, y)``, u to the right, v downwards.

    Frames are made grey and 8-bit, as the methods expect.

    Args:
        first: RGB or grey, uint8, or floating in [0, 1]: ``(c, h, w)`` with 1 or 3 channels, or ``(h, w)``, giving
            ``(2, h, w)``; or a batch ``(b, c, h, w)``, giving ``(b, 2, h, w)``.
        second: the same in shape and type.
        method: ``"dis"`` (dense inverse search, the default: quick and good with small movements; Kroeger et al., ECCV
            2016), ``"farneback"`` (SCIA 2003), or ``"tvl1"`` (Zach et al., DAGM 2007) where OpenCV has it (the contrib
            build).

    Examples:
        >>> y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
        >>> spot = lambda at: torch.exp(-((x - at) ** 2 + (y - 32) ** 2) / 200)
        >>> flow = optical_flow(spot(30), spot(32))
        >>> flow.shape, flow[:, 32, 31].round().tolist()
        (torch.Size([2, 64, 64]), [2.0, 0.0])
    """
    check_choice("method", method, _METHODS)
    if isinstance(first, Tensor) and isinstance(second, Tensor) and first.ndim == second.ndim == 4:
        if first.shape != second.shape:
            raise ValueError(f"second must have the shape of first, {tuple(first.shape)}, got {tuple(second.shape)}")
        flows = [optical_flow(one, other, method=method) for one, other in zip(first, second, strict=True)]
        return torch.stack(flows) if flows else first.new_zeros(0, 2, *first.shape[2:], dtype=torch.float32)
    a, b = _grey("first", first), _grey("second", second)
    if first.shape != second.shape:
        raise ValueError(f"second must have the shape of first, {tuple(first.shape)}, got {tuple(second.shape)}")
    flow = _flow(a, b, method)
    return torch.from_numpy(np.ascontiguousarray(flow.transpose(2, 0, 1))).to(first.device)


def optical_strain(flow: Tensor) -> Tensor:
    """Size of the optical strain, ``sqrt(εxx² + εyy² + 2 εxy²)`` with ``ε = ½ (∇f + ∇fᵀ)``; differentiable.

    ``flow`` is floating ``(..., 2, h, w)`` in pixels, h and w at least 2; the strain ``(..., h, w)`` has its type and
    no unit. Derivatives are central differences, one-sided at the edge.

    Examples:
        >>> x = torch.arange(5.0).expand(5, 5)
        >>> stretch = torch.stack((0.1 * x, torch.zeros(5, 5)))  # u grows to the right
        >>> optical_strain(stretch)[2, 2]
        tensor(0.1000)

    Source: Shreve et al., "Macro- and micro-expression spotting in long videos using spatio-temporal strain" (FG 2011).
    """
    check_floating("flow", flow, "(..., 2, h, w)")
    if flow.ndim < 3 or flow.shape[-3] != 2 or min(flow.shape[-2:]) < 2:
        raise ValueError(f"flow must be (..., 2, h, w) with h and w of at least 2, got {tuple(flow.shape)}")
    wide = torch.promote_types(flow.dtype, torch.float32)  # squares of what 16 bits hold
    u, v = flow.to(wide).unbind(-3)
    u_y, u_x = _gradient(u)
    v_y, v_x = _gradient(v)
    shear = (u_y + v_x) / 2
    square = u_x.square() + v_y.square() + 2 * shear.square()
    # The root has no derivative at 0, where most pixels are.
    return torch.where(square > 0, torch.where(square > 0, square, 1).sqrt(), 0).to(flow.dtype)


def _gradient(field: Tensor) -> tuple[Tensor, Tensor]:
    """As ``torch.gradient``, which compiles and exports for one batch size only."""
    return _slope(field.mT).mT, _slope(field)


def _slope(field: Tensor) -> Tensor:
    """Differences along the last axis: central, one-sided at the ends."""
    first, last = field[..., 1:2] - field[..., :1], field[..., -1:] - field[..., -2:-1]
    return torch.cat((first, (field[..., 2:] - field[..., :-2]) / 2, last), -1)


def _flow(a: np.ndarray, b: np.ndarray, method: str) -> np.ndarray:
    import cv2

    if min(a.shape) < 16:
        raise ValueError(f"first and second must be at least 16 pixels high and wide, got {a.shape[0]}x{a.shape[1]}")
    if method == "farneback":
        start = np.zeros((*a.shape, 2), np.float32)
        return np.asarray(cv2.calcOpticalFlowFarneback(a, b, start, 0.5, 3, 15, 3, 5, 1.2, 0), np.float32)
    if method == "tvl1":
        module = getattr(cv2, "optflow", None)
        make = getattr(module, "createOptFlow_DualTVL1", None) or getattr(module, "DualTVL1OpticalFlow_create", None)
        if make is None:
            raise ImportError(
                "method 'tvl1' needs OpenCV's optflow module, which this OpenCV "
                f"({cv2.__version__}) lacks: install opencv-contrib-python-headless instead of "
                "opencv-python-headless, or use method='dis'"
            )
        return np.asarray(make().calc(a, b, None), np.float32)
    dis = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_MEDIUM)
    return np.asarray(dis.calc(a, b, np.zeros((*a.shape, 2), np.float32)), np.float32)


def _grey(name: str, image: Tensor) -> np.ndarray:
    if not isinstance(image, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor (c, h, w), got {type(image).__name__}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[0] not in (1, 3)) or 0 in image.shape:
        raise ValueError(
            f"{name} must be one image (c, h, w) with 1 or 3 channels, or (h, w), or a batch (b, c, h, w), "
            f"got {tuple(image.shape)}{channels_first(name, tuple(image.shape))}"
        )
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise TypeError(f"{name} must be uint8 or floating, got {image.dtype}")
    values = image.detach().cpu().float()
    if image.dtype != torch.uint8:
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # NaN too
            raise ValueError(
                f"{name} must lie in [0, 1] when floating, got {low:g} to {high:g}: "
                "divide 0-255 values by 255, and take flow before the mean and std"
            )
        values = values * 255
    if values.ndim == 3:
        weights = torch.tensor([0.299, 0.587, 0.114]) if len(values) == 3 else torch.ones(1)
        values = (values * weights[:, None, None]).sum(0)
    return np.ascontiguousarray(values.round().to(torch.uint8).numpy())
