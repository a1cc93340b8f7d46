"""True distances between the frames of a clip.

Every key-frame search starts from ``d(i, j) = ‖f_i − f_j‖₂`` over all values of a frame. The published GAMDSS code
subtracts ``uint8`` images, so a pixel that darkens by one level counts as 255 and the "distance" between any two frames
of a real clip is nearly the same number. Here the distance is the true one:

- ``uint8`` frames are compared in integers. ``d² = g_ii + g_jj − 2 g_ij`` with ``g`` the Gram matrix of ``f − 128``,
  accumulated in int64, so that only the final square root rounds.
- Floating frames are centred on the clip's mean frame, which takes away what all frames share and with it the
  cancellation in the same formula, and accumulated in float64.

Frames are read in blocks of values, so the memory beside the frames is a few MB whatever their size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mertools._checks import check_clips
from mertools.layers.padding import check_lengths

__all__ = ["pairwise_distance"]

_BLOCK = 8192  # values of a frame per block, which stays in the cache
_INTEGER_BLOCK, _ROWS = 16384, 128  # the same for whole numbers, and frames per product
_EXACT_IN_FLOAT32 = 1024  # products of 8-bit values that float32 sums without rounding: 2^24 / 2^14
_DOUBTFUL = 1e-6  # a squared distance below this share of the energies it comes from is computed again
_ROUNDING = 1e-13  # float64 Gram sums carry about this relative error; a squared distance below it is zero


@torch.no_grad()
def pairwise_distance(frames: Tensor, *, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
    """Distance between every two frames of each clip, exact for ``uint8``.

    ``d[b, i, j] = ‖frames[b, i] − frames[b, j]‖₂`` over all trailing axes.

    Args:
        frames: ``(b, t, ...)``, ``uint8`` or floating in any range: RGB, flow, landmarks, embeddings.
        lengths: ``(b,)``, valid frames of each clip; the rest is padding and is never read.

    Returns:
        ``(b, t, t)`` float64 (float32 where the device has none), without gradient; zero on the diagonal and for every
        pair that involves padding.

    Raises:
        TypeError: frames are neither ``uint8`` nor floating, or lengths are not integers.
        ValueError: frames have no time axis, or a length is not within ``1..t``.

    Examples:
        >>> frames = torch.tensor([[[0, 0], [3, 4], [0, 1]]], dtype=torch.uint8)  # one clip, three frames of two values
        >>> pairwise_distance(frames)[0, 0]
        tensor([0., 5., 1.], dtype=torch.float64)

    Source: the distance of GAMDSS (arXiv 2603.04766), computed without the 8-bit wrap-around of its published code.
    """
    check_frames(frames)
    return frame_distances(frames, check_lengths(lengths, *frames.shape[:2]))


def frame_distances(frames: Tensor, counts: Tensor) -> Tensor:
    """:func:`pairwise_distance` of frames and lengths that were checked."""
    # One opaque operation in a compiled graph: it goes clip by clip, and what it does depends on lengths and values.
    return (_operation if torch.compiler.is_compiling() else _distances)(frames, counts)


def distance_between(first: Tensor, second: Tensor) -> Tensor:
    """Distance of two frames, a scalar."""
    return _clip_distance(torch.stack((first, second)).flatten(1))[0, 1]


def _distances(frames: Tensor, counts: Tensor) -> Tensor:
    b, t = frames.shape[:2]
    distance = torch.zeros(b, t, t, dtype=_wide_dtype(frames.device), device=frames.device)
    for i, n in enumerate(counts.tolist()):
        distance[i, :n, :n] = _clip_distance(frames[i, :n].reshape(n, -1))
    return distance


_operation = torch.library.custom_op("mertools::pairwise_distance", _distances, mutates_args=())


@_operation.register_fake
def _(frames: Tensor, counts: Tensor) -> Tensor:
    b, t = frames.shape[:2]
    return frames.new_empty(b, t, t, dtype=_wide_dtype(frames.device))


def check_frames(frames: object) -> Tensor:
    """Refuse anything but ``(b, t, ...)`` clips of ``uint8`` or floating values."""
    frames = check_clips("frames", frames)
    if frames.dtype != torch.uint8 and not frames.is_floating_point():
        raise TypeError(
            f"frames must be uint8 or floating, got {frames.dtype}: "
            "convert them with frames.float(), or frames.to(torch.uint8) if the values are 0-255"
        )
    if frames.ndim < 3:
        raise ValueError(
            f"frames must be (b, t, ...) with at least one axis of values, got shape {tuple(frames.shape)}: "
            "a single clip needs a batch axis, frames[None]"
        )
    if 0 in frames.shape[1:]:
        raise ValueError(f"frames must not be empty along any axis but b, got shape {tuple(frames.shape)}")
    return frames


def _wide_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _clip_distance(values: Tensor) -> Tensor:
    """Distances within one clip, ``(t, p) -> (t, t)``."""
    if values.dtype == torch.uint8:
        gram = _integer_gram(values)
        energy = gram.diagonal()
        square = energy[:, None] + energy[None, :] - 2 * gram
        return square.to(_wide_dtype(values.device)).sqrt()
    square, both = _centred_square(values)
    _mend_small(square, both, values)
    # Not `clamp`: it would hide NaN frames. Equal frames must be exactly 0 apart, or rounding picks the key frames.
    return torch.where(square <= _ROUNDING * both, 0, square).sqrt()


def _centred_square(values: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances, and the energies they are a difference of, which say how well they are known."""
    gram = _centred_gram(values)
    gram = (gram + gram.mT) / 2
    energy = gram.diagonal()
    both = energy[:, None] + energy[None, :]
    return both - 2 * gram, both


def _mend_small(square: Tensor, both: Tensor, values: Tensor) -> None:
    """Take the distances that drown in the rounding of a far larger outlier again, without the outlier, in place."""
    frames = torch.arange(len(square), device=square.device)
    for _ in range(8):
        part = (frames[:, None], frames)
        doubtful = (square[part] < _DOUBTFUL * both[part]).fill_diagonal_(False).any(1)
        if not bool(doubtful.any()) or bool(doubtful.all()):
            return
        frames = frames[doubtful]
        again, energies = _centred_square(values[frames])
        part = (frames[:, None], frames)
        # Only what was in doubt: other distances within the part are as good as they were.
        small = square[part] < _DOUBTFUL * both[part]
        square[part] = torch.where(small, again, square[part])
        both[part] = torch.where(small, energies, both[part])


def _integer_gram(values: Tensor) -> Tensor:
    """Gram matrix of ``values − 128``, exact: uint8 ``(t, p)`` to int64 ``(t, t)``."""
    t, p = values.shape
    gram = torch.zeros(t, t, dtype=torch.int64, device=values.device)
    multiply = getattr(torch, "_int_mm", None) if values.device.type == "cpu" else None
    for start in range(0, p, _INTEGER_BLOCK):
        block = values[:, start : start + _INTEGER_BLOCK] ^ 128  # flipping the top bit is u8 − 128 read as int8
        signed = block.view(torch.int8)
        # int8 products summed in int32: 16384 · 2^14 stays below 2^31. PyTorch 2.13 gets one-column products wrong.
        if multiply is not None and block.shape[1] > 1:
            for row in range(0, t, _ROWS):  # the matrix is symmetric: what lies right of the diagonal follows
                some = slice(row, row + _ROWS)
                gram[some, : row + _ROWS] += multiply(signed[some], signed[: row + _ROWS].t())
            continue
        floats = torch.nn.functional.pad(signed.float(), (0, -block.shape[1] % _EXACT_IN_FLOAT32))
        parts = floats.view(t, -1, _EXACT_IN_FLOAT32).transpose(0, 1)
        gram += torch.bmm(parts, parts.mT).long().sum(0)
    return gram.tril() + gram.tril(-1).mT


def _centred_gram(values: Tensor) -> Tensor:
    """Gram matrix of the frames minus their mean, accumulated wide: floating ``(t, p)`` to ``(t, t)``."""
    t, p = values.shape
    wide = _wide_dtype(values.device)
    gram = torch.zeros(t, t, dtype=wide, device=values.device)
    for start in range(0, p, _BLOCK):
        block = values[:, start : start + _BLOCK].to(wide)
        block = block - block.mean(0)
        gram = torch.addmm(gram, block, block.mT)
    return gram
