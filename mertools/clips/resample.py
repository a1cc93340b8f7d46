"""Another number of frames: nearest, linear, cubic, and TIM, the temporal interpolation model of the field.

Every mode is linear in the frames: a matrix (new frames × old frames) says how much of each old frame a new one holds,
so one product resamples a clip of any layout. TIM (Zhou et al., 2011; used for micro-expressions by Pfister et al.,
2011) embeds the frames of a clip as a path graph; the eigenvectors of the graph's Laplacian continue as the curve

    f_k(s) = sin(π k s + π (n − k) / (2 n)),   k = 1 … n − 1,   s ∈ [1/n, 1]

and the map from curve to frames that is exact at the old frames, ``ξ(s) = Q F⁺ f(s) + mean``, gives new ones anywhere
on it. At the old frames ``f_k`` is the cosine basis of the DCT, so ``F⁺`` is its transpose, scaled: no decomposition of
the images is needed, and the result is that of the published procedure for linearly independent frames.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from mertools._checks import check_choice, check_count

__all__ = ["resample_clip"]

ResampleMode = Literal["nearest", "linear", "cubic", "tim"]
_MODES = ("nearest", "linear", "cubic", "tim")


@torch.no_grad()
def resample_clip(clip: Tensor, num_frames: int, *, mode: ResampleMode = "nearest") -> Tensor:
    """Bring a clip ``(t, ...)`` to ``num_frames`` frames, evenly spread from its first to its last.

    Args:
        clip: frames of any layout, uint8 (rounded, and kept within 0 to 255 where cubic and TIM overshoot) or floating.
        num_frames: how many are wanted; 1 takes the middle of the clip.
        mode: ``"nearest"`` (frames as they are, halves to the earlier one), ``"linear"``, ``"cubic"`` (the cubic spline
            through all frames, not-a-knot ends) or ``"tim"`` (the temporal interpolation model, ``ξ(s) = Q F⁺ f(s)``).

    Examples:
        >>> clip = torch.tensor([0.0, 1.0, 4.0, 9.0]).view(4, 1)
        >>> resample_clip(clip, 7, mode="cubic").flatten().tolist()  # of a parabola, to rounding
        [0.0, 0.25, 1.0, 2.25, 4.0, 6.25, 9.0]
        >>> resample_clip(clip, 3, mode="nearest").flatten().tolist()
        [0.0, 1.0, 9.0]

    Source: Zhou, Zhao and Pietikäinen, "Towards a practical lipreading system" (CVPR 2011), for TIM; Pfister et al.,
    "Recognising spontaneous facial micro-expressions" (ICCV 2011), for its use here.
    """
    if not isinstance(clip, Tensor):
        raise TypeError(f"clip must be a torch.Tensor (t, ...), got {type(clip).__name__}")
    if clip.dtype != torch.uint8 and not clip.is_floating_point():
        raise TypeError(f"clip must be uint8 or floating, got {clip.dtype}")
    if clip.ndim < 1 or clip.shape[0] == 0:
        raise ValueError(f"clip must be (t, ...) with at least one frame, got shape {tuple(clip.shape)}")
    num_frames = check_count("num_frames", num_frames)
    check_choice("mode", mode, _MODES)
    t = clip.shape[0]
    if num_frames == t:
        return clip.clone()
    weights = resample_weights(t, num_frames, mode)
    if mode == "nearest":
        return clip[weights.argmax(1).to(clip.device)]
    work = torch.float64 if clip.dtype == torch.float64 else torch.float32
    mixed = (weights.to(clip.device, work) @ clip.reshape(t, -1).to(work)).view(num_frames, *clip.shape[1:])
    return mixed.round().clamp(0, 255).to(torch.uint8) if clip.dtype == torch.uint8 else mixed.to(clip.dtype)


def resample_weights(t: int, num_frames: int, mode: str) -> Tensor:
    """How much of each of ``t`` frames each new frame holds, ``(num_frames, t)`` float64; rows sum to 1."""
    if t == 1:
        return torch.ones(num_frames, 1, dtype=torch.float64)
    # Multiplied before dividing: a new frame that falls on an old one must hit it exactly.
    steps = torch.arange(num_frames, dtype=torch.float64) * (t - 1)
    place = steps / (num_frames - 1) if num_frames > 1 else torch.tensor([(t - 1) / 2], dtype=torch.float64)
    if mode == "nearest":
        nearest = (place - 0.5).ceil().long()
        return torch.nn.functional.one_hot(nearest, t).double()
    if mode == "linear":
        return (1 - (place[:, None] - torch.arange(t)).abs()).clamp(min=0)
    if mode == "cubic":
        from scipy.interpolate import make_interp_spline

        spline = make_interp_spline(range(t), torch.eye(t, dtype=torch.float64).numpy(), k=min(3, t - 1))
        return torch.from_numpy(spline(place.numpy()))
    k = torch.arange(1, t, dtype=torch.float64)

    def curve(s: Tensor) -> Tensor:
        return torch.sin(math.pi * k * s[:, None] + math.pi * (t - k) / (2 * t))

    old = curve(torch.arange(1, t + 1, dtype=torch.float64) / t)  # (t, t - 1), columns orthogonal, of square t / 2
    return curve((place + 1) / t) @ old.mT * (2 / t) + 1 / t
