"""The pixels of a clip: small grey pictures, blurred, with the head's motion taken back, and cut into blocks.

What is as large as the pictures stays where they are, on a GPU or not. What comes of it, a few numbers a block and
frame, is NumPy's: see ``motion.py``.
"""

from __future__ import annotations

import math
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_SIDE = 112  # pixels a side, about, at which motion is estimated
_WIDE = 1.25  # a picture wider or taller than this has its face in the middle square
_BLUR = 1.5  # of the frames at that size; displacements up to about twice this are linear in the intensities
_REACH = 5  # pixels of that blur
_PART = 16  # frames at a time: what they need on the way stays in the cache
_MARGIN = 2  # pixels at the border that no block reaches: they come and go as the head moves
_SQUARES = 1e-9, 1e9  # intensities whose squares add up in float32
AREA = 4  # small pixels of one at half the size


def is_picture(shape: torch.Size | tuple[int, ...]) -> bool:
    """Whether frames of this shape ``(c, h, w)`` or ``(h, w)`` are searched as pictures."""
    return ((len(shape) == 3 and shape[0] in (1, 3, 4)) or len(shape) == 2) and min(shape[-2:]) >= 32


def small_frames(clip: Tensor) -> Tensor:
    """Grey pictures at the size that motion is estimated at: ``(t, c, h, w)`` to ``(t, h', w')`` float.

    Each frame by itself, so that it does not matter how a clip is cut into parts.
    """
    if clip.ndim == 3:
        clip = clip.unsqueeze(1)
    t, c, h, w = clip.shape
    if max(h, w) > _WIDE * min(h, w):
        side = min(h, w)
        clip = clip[..., (h - side) // 2 : (h + side) // 2, (w - side) // 2 : (w + side) // 2]
        h = w = side
    factor = max(1, round(math.sqrt(h * w) / _SIDE))
    rows, columns = h // factor, w // factor
    clip = clip[..., : rows * factor, : columns * factor]
    small = torch.empty(t, rows, columns, dtype=torch.float32, device=clip.device)
    for start in range(0, t, 8):
        part = clip[start : start + 8]
        if part.dtype == torch.uint8:
            small[start : start + 8] = _sums(part, factor) / (c * factor * factor)
        else:
            grey = part.float().mean(1, keepdim=True)
            small[start : start + 8] = F.avg_pool2d(grey, factor)[:, 0] if factor > 1 else grey[:, 0]
    return small


def _sums(part: Tensor, factor: int) -> Tensor:
    """Sums over channels and squares of ``factor`` pixels, in integers: several times quicker than converting first."""
    kind = torch.int16 if part.shape[1] * factor * factor <= 128 else torch.int32
    rows = part[..., ::factor, :].sum(1, dtype=kind)
    for i in range(1, factor):
        rows += part[..., i::factor, :].sum(1, dtype=kind)
    squares = rows[..., ::factor].clone()
    for i in range(1, factor):
        squares += rows[..., i::factor]
    return squares


def on_host(x: Tensor) -> np.ndarray:
    """A tensor's values as float32."""
    host: np.ndarray = x.detach().float().cpu().numpy()
    return host


class Layout(NamedTuple):
    """Where the square blocks lie in a picture ``(h, w)``."""

    rows: int
    columns: int
    side: int
    top: int
    left: int
    h: int
    w: int

    @classmethod
    def of(cls, shape: torch.Size | tuple[int, ...], side: int, margin: int = _MARGIN) -> Layout:
        """As many as fit in the middle of a picture of this shape ``(..., h, w)``."""
        h, w = shape[-2:]
        rows, columns = (h - 2 * margin) // side, (w - 2 * margin) // side
        return cls(rows, columns, side, (h - rows * side) // 2, (w - columns * side) // 2, h, w)

    def cut(self, x: Tensor) -> Tensor:
        """``(m, h, w)`` to ``(m, rows · side, columns · side)``."""
        return x[:, self.top : self.top + self.rows * self.side, self.left : self.left + self.columns * self.side]

    @property
    def places(self) -> np.ndarray:
        """Of the blocks, see :func:`grid_places`."""
        return grid_places(self.rows, self.columns)

    @property
    def half(self) -> float:
        """Pixels from the middle to the edge of the blocks: what 1 is among the places."""
        return min(self.rows, self.columns) * self.side / 2


@lru_cache(maxsize=32)
def grid_places(rows: int, columns: int) -> np.ndarray:
    """Centres of the blocks ``(n, 2)`` from the middle of the picture, in halves of its smaller side."""
    half = min(rows, columns) / 2
    y, x = ((np.arange(n) + 0.5 - n / 2) / half for n in (rows, columns))
    places = np.stack(np.broadcast_arrays(x[None], y[:, None]), -1).reshape(-1, 2).astype(np.float32)
    places.flags.writeable = False
    return places


class Level(NamedTuple):
    """What brings the contrast of a clip's frames to 50 levels: they are shifted, then scaled."""

    shift: Tensor
    scale: Tensor

    def __call__(self, frames: Tensor) -> Tensor:
        """The frames themselves, changed."""
        return frames.sub_(self.shift).mul_(self.scale)


def blurred(small: Tensor) -> tuple[Tensor, Tensor, Level]:
    """Small frames ``(t, h, w)`` blurred; the same at half their size and levelled; and what levels them."""
    t, h, w = small.shape
    frames, half = torch.empty_like(small), small.new_empty(t, h // 2, w // 2)
    if small.device.type == "cpu":
        import cv2  # it takes a while to load

        for frame, out, less in zip(small.detach().numpy(), frames.numpy(), half.numpy(), strict=True):
            cv2.GaussianBlur(frame, (2 * _REACH + 1,) * 2, _BLUR, dst=out, borderType=cv2.BORDER_REPLICATE)
            cv2.resize(out[: h // 2 * 2, : w // 2 * 2], less.shape[::-1], dst=less, interpolation=cv2.INTER_AREA)
    else:
        down, across = (_blur(size, small) for size in (h, w))
        torch.matmul(down, small @ across.mT, out=frames)
        half = F.avg_pool2d(frames.unsqueeze(1), 2).squeeze(1)
    size = half.abs().amax()
    # Of values whose squares do not add up in float32, a part is taken first.
    unit = torch.where((size > _SQUARES[0]) & (size < _SQUARES[1]), 1.0, size.clamp(min=torch.finfo(half.dtype).tiny))
    shift = half.mean()
    contrast = ((half - shift) / unit).square_().mean().sqrt().clamp(min=1e-12)
    level = Level(shift, 50 / contrast / unit)
    return frames, level(half), level


def _blur(size: int, like: Tensor) -> Tensor:
    """Matrix ``(size, size)`` of a Gaussian blur, the border repeated."""
    steps = torch.arange(-_REACH, _REACH + 1, device=like.device)
    kernel = torch.exp(-(steps / _BLUR).square() / 2).to(like)
    from_ = (torch.arange(size, device=like.device).unsqueeze(1) + steps).clamp(0, size - 1)
    return like.new_zeros(size, size).scatter_add_(1, from_, (kernel / kernel.sum()).expand(size, -1))


def change(frames: Tensor, layout: Layout) -> np.ndarray:
    """Variance over time within each block, ``(n,)``."""
    variance = (frames.square().mean(0) - frames.mean(0).square()).clamp(min=0)[None]
    return on_host(F.avg_pool2d(layout.cut(variance).unsqueeze(1), layout.side)).ravel()


def pair_sums(frames: Tensor, layout: Layout) -> np.ndarray:
    """Means over each block, from each frame ``(t, h, w)`` to the next: ``(10, t - 1, n)``.

    Of the products of slope across, slope down, change and brightness, without those of their means: the first three
    with each other (xx, xy, yy, xd, yd, dd), then with the brightness and its own square (xm, ym, mm, dm).
    """
    parts = [_pair_sums(frames[i : i + _PART + 1], layout) for i in range(0, len(frames) - 1, _PART)]
    return on_host(torch.cat(parts, 1))


def _pair_sums(frames: Tensor, layout: Layout) -> Tensor:
    mean, change = (frames[1:] + frames[:-1]) / 2, frames[1:] - frames[:-1]
    across = F.pad((mean[..., 2:] - mean[..., :-2]) / 2, (1, 1))
    down = F.pad((mean[:, 2:] - mean[:, :-2]) / 2, (0, 0, 1, 1))
    maps = [layout.cut(x) for x in (across, down, change, mean)]
    by_row, by_column = (
        torch.eye(n).to(frames).repeat_interleave(layout.side, 1) / layout.side for n in (layout.rows, layout.columns)
    )
    means = [(by_row @ x @ by_column.mT).flatten(1) for x in maps]
    pairs = ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2), (0, 3), (1, 3), (3, 3), (3, 2))
    products = [(by_row @ (maps[i] * maps[j]) @ by_column.mT).flatten(1) - means[i] * means[j] for i, j in pairs]
    return torch.stack(products)


def aligned(frames: Tensor, motion: np.ndarray, layout: Layout) -> Tensor:
    """Frames with the global motion ``(t, 6)`` taken back, at half their size.

    They are sampled at full size, where that blurs less.
    """
    y, x = (np.arange(size, dtype=np.float32) + 0.5 for size in (layout.h, layout.w))
    u = (x - layout.left - layout.columns * layout.side / 2) / layout.half
    v = (y - layout.top - layout.rows * layout.side / 2) / layout.half
    affine = motion.reshape(-1, 2, 3, 1)
    sizes = np.array([frames.shape[2], frames.shape[1]], np.float32)[:, None]
    by_column = (affine[:, :, 1] * u + affine[:, :, 0]) / sizes * 2  # (t, 2, w)
    by_row = affine[:, :, 2] * v / sizes * 2  # (t, 2, h)
    by_column[:, 0] += x / frames.shape[2] * 4 - 1
    by_row[:, 1] += y / frames.shape[1] * 4 - 1
    across, down = (torch.from_numpy(part).to(frames.device) for part in (by_column, by_row))
    out = frames.new_empty(len(frames), layout.h, layout.w)
    for start in range(0, len(frames), _PART):
        some = slice(start, start + _PART)
        grid = down[some].mT.unsqueeze(2) + across[some].mT.unsqueeze(1)
        picture = frames[some].unsqueeze(1)
        out[some] = F.grid_sample(picture, grid, padding_mode="border", align_corners=False).squeeze(1)
    return out


class Blocks:
    """What is left of a clip's frames ``(t, h, w)`` in each block, against the mean frame and without the light.

    A block's displacement is what of its change follows its slopes (Lucas-Kanade); its gain and brightness are free.

    Shape:
        - change, slope: ``(n, t, pixels)`` and ``(n, pixels, 2)``, where the frames are
        - normal: ``(n, 2, 2)``, of the slopes; moved: ``(t, n, 2)``, displacements in pixels of full size
        - total: ``(t, n)``, squares of the change; remainder: ``(t, n)``, what no displacement explains, a variance
    """

    def __init__(self, frames: Tensor, layout: Layout) -> None:
        mean, side = frames.mean(0), layout.side
        rows, columns = layout.rows, layout.columns
        self.layout = layout

        def cut(x: Tensor) -> Tensor:  # (m, h, w) -> (blocks, m, pixels)
            x = layout.cut(x).reshape(-1, rows, side, columns, side).permute(1, 3, 0, 2, 4)
            return x.reshape(rows * columns, -1, side * side)

        across = F.pad((mean[:, 2:] - mean[:, :-2]) / 4, (1, 1))
        down = F.pad((mean[2:] - mean[:-2]) / 4, (0, 0, 1, 1))
        maps = cut(torch.stack((across, down, mean))).mT  # (blocks, pixels, 3)
        light = torch.linalg.qr(torch.stack((torch.ones_like(maps[..., 2]), maps[..., 2] / 50), -1))[0]
        slope = -maps[..., :2]
        self.slope = slope - light @ (light.mT @ slope)
        self.change = cut(frames - mean)
        both = self.change @ torch.cat((self.slope, light), -1)
        self.change -= both[..., 2:] @ light.mT
        seen, total = on_host(both[..., :2]), on_host(self.change.square().sum(-1))
        self.normal = AREA * (on_host(self.slope.mT @ self.slope) + 1e-3 * side**2 * np.eye(2, dtype=np.float32))
        moved = seen @ (AREA * np.linalg.inv(self.normal))
        self.moved, self.total = moved.swapaxes(0, 1), total.T
        self.remainder = np.maximum(total - (seen * moved).sum(-1), 0).T / (self.pixels - 4)
        self.texture = self.normal.diagonal(axis1=1, axis2=2).sum(-1) / (2 * AREA * self.pixels)

    @cached_property
    def pixels(self) -> int:
        """Of a block at half the size."""
        return self.layout.side**2

    def along(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What goes with weights ``(n, t)`` of the frames.

        Returns:
            How long each block's weighted sum of changes is ``(n,)``, how far each frame has gone in its direction
            ``(t, n)``, and how far a displacement of a pixel does ``(n,)``.
        """
        some = torch.from_numpy(weight).to(self.change).unsqueeze(1)
        direction = some @ self.change  # (n, 1, pixels)
        size = direction.norm(dim=-1, keepdim=True)
        direction = (direction / size.clamp(min=1e-9)).mT
        gone = (self.change @ direction).squeeze(-1).mT
        by_pixel = (self.slope.mT @ direction).norm(dim=(1, 2))
        return on_host(size).ravel(), on_host(gone), on_host(by_pixel)
