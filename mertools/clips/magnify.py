"""Motion magnification: what moves by a fraction of a pixel, made visible (linear Eulerian video magnification).

Each pixel's brightness over time is split into spatial bands (a Laplacian pyramid); in each, the part that varies
within a band of temporal frequencies is amplified and added back. To first order, adding ``α`` times the temporal
change of the brightness moves the picture by ``(1 + α) δ`` where it moved by δ.

Limits, inherent in the linear form: it holds while ``(1 + α) δ < λ / 8`` for a spatial wavelength λ, so bands finer
than that are amplified less; sensor noise is amplified with the motion; and a clip of t frames resolves frequencies no
finer than ``fps / t``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mertools._checks import channels_first, check_count, check_number

__all__ = ["magnify_motion"]

_KERNEL = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16


@torch.no_grad()
def magnify_motion(
    clip: Tensor, *, factor: float, fps: float, low: float, high: float, displacement: float = 0.5, levels: int = 4
) -> Tensor:
    """Amplify the movements of a clip within a band of temporal frequencies.

    Args:
        clip: at least 4 frames ``(t, c, h, w)``, uint8 (the result is rounded and kept within 0 to 255), or floating in
            any range.
        factor: α; a movement of δ pixels becomes about (1 + α) δ. 0 returns the clip.
        fps: frames per second.
        low: lowest frequency to amplify, in Hz.
        high: highest, in Hz, at most fps / 2.
        displacement: the largest movement δ to expect, in pixels: spatial bands of a wavelength λ below
            ``8 (1 + α) δ`` are amplified by ``λ / (8 δ) − 1`` only.
        levels: spatial bands beside the coarsest one, which is left alone; fewer for small frames.

    Examples:
        >>> from mertools import synthetic_clip
        >>> calm = synthetic_clip(num_frames=40, onset=10, apex=18, offset=30, size=48, amplitude=0.5)
        >>> louder = magnify_motion(calm.frames, factor=4, fps=100, low=2, high=20)
        >>> change = lambda frames: (frames[18].float() - frames[0].float()).abs().mean()
        >>> bool(change(louder) > 1.5 * change(calm.frames))
        True

    Source: Wu et al., "Eulerian Video Magnification for Revealing Subtle Changes in the World" (SIGGRAPH 2012), with an
    ideal temporal band-pass.
    """
    if not isinstance(clip, Tensor) or not (clip.dtype == torch.uint8 or clip.is_floating_point()):
        got = clip.dtype if isinstance(clip, Tensor) else type(clip).__name__
        raise TypeError(f"clip must be a uint8 or floating torch.Tensor (t, c, h, w), got {got}")
    turn = channels_first("clip", tuple(clip.shape))
    if clip.ndim != 4 or clip.shape[0] < 4 or 0 in clip.shape or turn:
        raise ValueError(f"clip must be (t, c, h, w) with at least 4 frames, got shape {tuple(clip.shape)}{turn}")
    factor, fps = check_number("factor", factor, 0), check_number("fps", fps, 1e-6)
    low, high = check_number("low", low, 0), check_number("high", high, 0)
    displacement, levels = check_number("displacement", displacement, 1e-6), check_count("levels", levels)
    if not 0 <= low < high <= fps / 2 or high < fps / len(clip):
        raise ValueError(
            f"low and high must be frequencies with 0 <= low < high <= fps / 2 = {fps / 2:g} Hz and high of at least "
            f"fps / t = {fps / len(clip):g} Hz, which {len(clip)} frames resolve, got {low} and {high}"
        )
    work = clip.double() if clip.dtype == torch.float64 else clip.float()
    rest = work
    bands = []
    for level in range(levels):
        if min(rest.shape[-2:]) < 8:
            break
        smaller = _down(rest)
        bands.append((level, rest - _up(smaller, rest.shape[-2:])))
        rest = smaller
    added = torch.zeros_like(rest)
    for level, band in reversed(bands):
        wavelength = 4.0 * 2**level  # the middle of the octave of this band, in pixels of the clip
        alpha = min(factor, max(wavelength / (8 * displacement) - 1, 0.0))
        added = _up(added, band.shape[-2:]) + alpha * _band_pass(band, fps, low, high)
    loud = work + added
    return loud.round().clamp(0, 255).to(torch.uint8) if clip.dtype == torch.uint8 else loud.to(clip.dtype)


def _band_pass(x: Tensor, fps: float, low: float, high: float) -> Tensor:
    """Frequencies within [low, high] Hz; the clip is mirrored in time, so that its ends need not meet."""
    mirrored = torch.cat([x, x.flip(0)])
    spectrum = torch.fft.rfft(mirrored, dim=0)
    frequency = torch.fft.rfftfreq(len(mirrored), 1 / fps, device=x.device)
    keep = (frequency >= low) & (frequency <= high) & (frequency > 0)
    kept: Tensor = torch.fft.irfft(spectrum * keep.view(-1, 1, 1, 1), n=len(mirrored), dim=0)
    return kept[: len(x)]


def _blur(x: Tensor) -> Tensor:
    t, c, h, w = x.shape
    kernel = _KERNEL.to(x)
    flat = F.pad(x.reshape(t * c, 1, h, w), (2, 2, 2, 2), mode="reflect")
    blurred = F.conv2d(F.conv2d(flat, kernel.view(1, 1, 5, 1)), kernel.view(1, 1, 1, 5))
    return blurred.view(t, c, h, w)


def _down(x: Tensor) -> Tensor:
    return _blur(x)[..., ::2, ::2]


def _up(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
