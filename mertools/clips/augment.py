"""Geometric augmentation of a clip: flip, rotation and a padded crop, the same for all of its frames.

What moves between onset and apex is the signal, so the frames of a clip must be transformed alike. The three operations
are one affine map per clip, applied once per frame: pixels are interpolated once, not three times, and not at all where
the map moves whole pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mertools._checks import check_count, check_number
from mertools.clips.read import frame_shape, resize_frame

__all__ = ["ClipAugment", "Geometry", "transform_clip"]


class Geometry(NamedTuple):
    """One draw of the augmentation, for all frames of a clip.

    ``flip`` mirrors; ``degrees`` rotate counter-clockwise; ``right`` and ``down`` shift, in pixels of the output.

    Examples:
        >>> Geometry()
        Geometry(flip=False, degrees=0.0, right=0.0, down=0.0)
    """

    flip: bool = False
    degrees: float = 0.0
    right: float = 0.0
    down: float = 0.0


class ClipAugment:
    """How clips are augmented: TSFmicro's and GAMDSS's flips, rotations and padded crops by default.

    Args:
        flip: probability of mirroring.
        degrees: rotations are drawn from −degrees to degrees, counter-clockwise.
        padding: the image is padded by this many pixels on each side and cropped to its size again, anywhere: a shift
            of up to this many whole pixels, black where nothing was.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> abs(ClipAugment().draw(generator).degrees) <= 3
        True

    Source: the training recipe of TSFmicro (arXiv 2505.16372) and GAMDSS (arXiv 2603.04766).
    """

    def __init__(self, *, flip: float = 0.5, degrees: float = 3.0, padding: int = 15) -> None:
        self.flip = check_number("flip", flip, 0, 1)
        self.degrees = check_number("degrees", degrees, 0, 180)
        self.padding = check_count("padding", padding, least=0)

    def __repr__(self) -> str:
        return f"ClipAugment(flip={self.flip}, degrees={self.degrees}, padding={self.padding})"

    def draw(self, generator: torch.Generator) -> Geometry:
        """Draw one geometry, for all frames of one clip; ``generator`` is the only source of randomness."""
        flip, turn = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        right, down = torch.randint(-self.padding, self.padding + 1, (2,), generator=generator).tolist()
        return Geometry(flip < self.flip, (2 * turn - 1) * self.degrees, float(right), float(down))


def transform_clip(clip: np.ndarray, geometry: Geometry, size: tuple[int, int] | None = None) -> np.ndarray:
    """Mirror, rotate about the centre and shift all frames alike, in one interpolation; a new size comes first.

    Args:
        clip: frames ``(t, h, w, 3)`` uint8. They come back as they are where there is nothing to do.
        geometry: what to do; shifts and rotations may be fractions, and shifts larger than the frame. It is black where
            that looks beyond the frame.
        size: ``(height, width)`` of the result; default that of the clip.

    Examples:
        >>> clip = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
        >>> transform_clip(clip, Geometry(flip=True))[0, 0, :, 0].tolist()
        [3, 0]
    """
    import cv2

    if not isinstance(clip, np.ndarray):
        raise TypeError(f"clip must be a NumPy array (t, h, w, 3), got {type(clip).__name__}: images.numpy()")
    if clip.ndim != 4:
        raise ValueError(f"clip must be (t, h, w, 3), channels last, got shape {clip.shape}")
    degrees, right, down = (check_number(name, getattr(geometry, name), -math.inf) for name in Geometry._fields[1:])
    geometry = Geometry(bool(geometry.flip), degrees, right, down)
    h, w = clip.shape[1:3] if size is None else frame_shape(size)
    if clip.shape[1:3] != (h, w):  # shrunk by area first: an affine map would alias
        clip = np.stack([resize_frame(frame, (h, w)) for frame in clip])
    if geometry == Geometry():
        return clip
    if degrees == 0 and right == int(right) and down == int(down):
        return _whole_pixels(clip, geometry)
    matrix = _matrix(geometry, h, w)
    return np.stack([cv2.warpAffine(frame, matrix, (w, h), flags=cv2.INTER_LINEAR) for frame in clip])


def _whole_pixels(clip: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Mirrored and shifted by whole pixels, which no interpolation need touch."""
    moved = clip[:, :, ::-1] if geometry.flip else clip
    h, w = clip.shape[1:3]
    right, down = max(min(int(geometry.right), w), -w), max(min(int(geometry.down), h), -h)
    out = np.zeros_like(clip)
    out[:, max(down, 0) : h + min(down, 0), max(right, 0) : w + min(right, 0)] = moved[
        :, max(-down, 0) : h - max(down, 0), max(-right, 0) : w - max(right, 0)
    ]
    return out


def _matrix(geometry: Geometry, h: int, w: int) -> np.ndarray:
    """Where a pixel goes: mirrored, turned about the centre, shifted; ``(2, 3)``."""
    x, y = (w - 1) / 2, (h - 1) / 2
    turn = math.radians(geometry.degrees)
    cos, sin = math.cos(turn), math.sin(turn)
    mirror = -1.0 if geometry.flip else 1.0
    linear = np.array([[cos * mirror, sin], [-sin * mirror, cos]])
    centre = np.array([x, y])
    shift = centre - linear @ centre + (geometry.right, geometry.down)
    return np.concatenate([linear, shift[:, None]], 1)


def normalise(clip: np.ndarray, mean: Tensor, std: Tensor) -> Tensor:
    """Frames ``(t, h, w, 3)`` uint8 RGB to ``(t, 3, h, w)`` float32: divided by 255, minus mean, divided by std."""
    frames = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2).float().div_(255)
    return frames.sub_(mean.view(3, 1, 1)).div_(std.view(3, 1, 1)).contiguous()
