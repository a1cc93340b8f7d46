"""What moves where: a clip's frames to trajectories of local motion, with how far each can be trusted in each frame.

Intensity alone cannot tell a raised brow from a lamp, and a blink changes more pixels than any micro-expression. So the
picture is cut into blocks, and each block's displacement against the clip's mean frame is estimated in every frame
(Lucas-Kanade, with the block's gain and brightness free). Then

- what the face does as a whole (a nod, a drift, an unsteady registration) is an affine motion per frame, fitted over
  the blocks that take part in it: first from frame to frame and summed up, so that the head may go as far as it likes,
  then against the mean of the aligned frames. What remains of it is subtracted;
- a blink is no displacement: it leaves a large remainder after the fit, for a short while and in two places. A block is
  not trusted where its remainder comes and goes (`_lasting`) unless all that does is one spot (`_in_one_spot`: a mouth
  that opens), nor where the alignment reaches beyond the picture, nor where it stays while the face moves.
- how far the blocks have gone from one look to another (`Looks`) tells more than displacement once it is large.

Flow fields and landmarks are displacements already. Anything else (embeddings, small images) is described by the
distances between its frames.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mertools.movement.least_squares import eliminated, median, product
from mertools.movement.pictures import (
    AREA,
    Blocks,
    Layout,
    aligned,
    blurred,
    change,
    grid_places,
    is_picture,
    on_host,
    pair_sums,
    small_frames,
)

_ALIGNED = 0.15  # pixels that an alignment may be off by: there displacements are linear in the intensities
_NEIGHBOURS = 8  # half-size pixels of a block where neighbouring frames are compared
_BLINK = 12  # frames: what comes and goes within them is a disturbance
_SPOT, _NEAR_ITS_MIDDLE, _ONE_SPOT = 1.4, 0.4, 0.9  # blocks around a middle; share of it there; how far it counts
_JUMP, _CUT, _OUTSTANDING, _AROUND = 0.3, 0.5, 4.0, 5  # of the contrast; times what is usual within so many frames
_LOCAL_ERROR, _GLOBAL_ERROR = 0.05, 0.1  # pixels that the models of local and global motion are taken to be wrong by
_TOLERANCE = 0.05  # of the gradient: a remainder below it says nothing
_NONLINEAR = 0.25  # share of a displacement's energy that may remain because the model is linear
_BLACK = 1e-3  # variance of what an 8-bit sensor can't show, with the picture's contrast scaled to 50 levels
_COORDINATES = 32  # that describe frames without a place in the picture
_EYE = np.eye(2, dtype=np.float32)


class Motion(NamedTuple):
    """Trajectories of one clip, float32 on the host.

    Shape:
        - values: ``(t, d)``, in units of their error
        - trust: ``(t, d)``, 0 to 1
        - explained: ``(t, d)``, 0 to 1: how far displacement explains what changed, whatever time it takes
        - scale: ``(d,)``, units per pixel
        - global_motion: ``(t, m)``, motion of the whole face in pixels; m may be 0
        - grid: rows and columns of the blocks, ``(0, 0)`` when values have no place in a picture
        - looks: of pictures, what the blocks look like
    """

    values: np.ndarray
    trust: np.ndarray
    explained: np.ndarray
    scale: np.ndarray
    global_motion: np.ndarray
    grid: tuple[int, int]
    looks: Looks | None = None


@np.errstate(all="ignore")
def clip_motion(clip: Tensor) -> Motion:
    """Local motion in one clip ``(t, ...)`` of finite frames that are not all equal."""
    shape = clip.shape[1:]
    if is_picture(shape):
        return picture_motion(small_frames(clip))
    if len(shape) == 3 and shape[0] == 2 and min(shape[1:]) >= 8 and clip.is_floating_point():
        return _flow_motion(clip.float())
    if len(shape) == 2 and shape[1] in (2, 3) and shape[0] >= 10 and clip.is_floating_point():
        return _landmark_motion(on_host(clip[..., :2]))
    return _feature_motion(clip)


# --- pictures -------------------------------------------------------------------------------------------------------


@np.errstate(all="ignore")
def picture_motion(small: Tensor, *, bent: float = _NONLINEAR, faint: float = _BLACK) -> Motion:
    """Local motion in small grey frames ``(t, h, w)``.

    Args:
        small: the frames.
        bent: share of a displacement's energy that may remain unexplained before a block loses trust.
        faint: remainder that always may, a variance where the picture's is 2500.
    """
    frames, half, level = blurred(small)
    layout = Layout.of(half.shape, 6 if min(small.shape[1:]) >= 72 else 4)
    places = layout.places
    # Neighbouring frames are never far apart: their motions add up to a first alignment, whatever the head did. What
    # the sum is off by is then seen against the mean of the aligned frames.
    whole = _summed_motion(half, layout)
    straight = level(aligned(frames, whole, layout))
    looks = Looks(Blocks(straight, layout), faint)
    remaining = looks.global_motion()
    if np.abs(remaining).max() > _ALIGNED:
        whole = whole + remaining
        straight = level(aligned(frames, whole, layout))
        looks = Looks(Blocks(straight, layout), faint)
        remaining = looks.global_motion()
    blocks = looks.blocks
    local = blocks.moved - affine(places, remaining)

    error = looks.noise[:, None, None] * np.linalg.inv(blocks.normal) + np.float32(_LOCAL_ERROR**2) * _EYE
    whiten = np.linalg.cholesky(np.linalg.inv(error)).swapaxes(1, 2)
    values = (whiten * local[..., None, :]).sum(-1)
    energy = _quadratic(local, blocks.normal) / (AREA * blocks.pixels)
    # A block that stays in the picture while the face moves is background.
    belongs = np.minimum((change(half, layout) + looks.floor) / (change(straight, layout) + looks.floor), 1)
    trust = looks.trust(blocks.remainder, bent * energy)
    weight = np.square(belongs) * _central(places) / np.square(1 + _beyond(whole, layout))
    explained = _spread(np.maximum(blocks.remainder / looks.noise - 1, 0), looks.grid)
    # What comes into the picture at its border in the course of the clip is no proof that a face moves.
    explained /= np.square(1 + _beyond(whole, layout, layout.side / 2).max(0))
    looks.weight = weight
    return Motion(
        values.reshape(len(values), -1),
        (trust * weight).repeat(2, 1),
        explained.repeat(2, 1),
        whiten.diagonal(axis1=1, axis2=2).ravel(),
        whole + remaining,
        looks.grid,
        looks,
    )


class Looks:
    """What the blocks of a clip look like, frame by frame, once the head's motion and the light are taken out.

    A displacement of several pixels, a fold that deepens or a mouth that opens over its teeth is not linear. Where it
    is known which frames are at rest and which are not, so is the way from one look to the other, and how far each
    frame has gone on it.
    """

    weight: np.ndarray  # (t, n), of the blocks' places

    def __init__(self, blocks: Blocks, faint: float) -> None:
        self.blocks, self.faint = blocks, faint
        self.grid = blocks.layout.rows, blocks.layout.columns
        self.usual, self.floor, self.noise = self.noise_of(blocks.remainder)

    def noise_of(self, remainder: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Usual remainder ``(n,)``, with a floor, and with what the model of displacement is taken to be wrong by."""
        usual = median(remainder)
        floor = usual + median(usual) / 4 + np.float32(self.faint)
        return usual, floor, floor + np.float32(_TOLERANCE**2) * self.blocks.texture

    def trust(self, remainder: np.ndarray, bent: np.ndarray) -> np.ndarray:
        """How far each block can be trusted ``(t, n)``: less where more remains, for a short while, than ``bent``."""
        usual, _, noise = self.noise_of(remainder)
        lasting = noise + _lasting(remainder) - usual
        excess = np.maximum((remainder - bent) / lasting - 1, 0)
        excess = excess * (1 - np.float32(_ONE_SPOT) * _in_one_spot(excess, self.grid))[:, None]
        return _spread(excess, self.grid)

    def global_motion(self) -> np.ndarray:
        """Affine motion of the face in each frame ``(t, 6)``, in pixels at the edge of the blocks."""
        blocks = self.blocks
        error = self.floor[:, None, None] * np.linalg.inv(blocks.normal) + np.float32(_GLOBAL_ERROR**2) * _EYE
        trust = 1 / (1 + np.maximum(blocks.remainder / self.noise - 1, 0))
        return fit_affine(blocks.moved, blocks.layout.places, np.linalg.inv(error), trust)

    def along(
        self, motion: Motion, profile: np.ndarray, slow: np.ndarray, trust: np.ndarray
    ) -> tuple[Motion, np.ndarray]:
        """Trajectories of the blocks along what goes with the extent ``profile`` ``(t,)``, one a block.

        Args:
            motion: of the clip.
            profile: extent in each frame, 0 to 1.
            slow: rest and trend ``(t, q)``, which are no part of it.
            trust: ``(t, n)``, of each block so far.

        Returns:
            The motion that these trajectories make, and how much of each direction ``(n,)`` is more than noise.
        """
        p = self.blocks.pixels
        design = np.concatenate((slow, profile[:, None]), 1)
        q = design.shape[1]
        pairs = (design[:, :, None] * design[:, None]).reshape(-1, q * q)
        left = (trust.T @ pairs).reshape(-1, q, q) + 1e-3 * np.eye(q, dtype=np.float32)
        to_extent = np.linalg.inv(left)[:, -1]  # (n, q)
        size, gone, by_pixel = self.blocks.along(to_extent @ design.T * trust.T)
        certain = np.maximum(1 - self.floor * p * to_extent[:, -1] / np.maximum(np.square(size), 1e-9), 0)
        beside = np.maximum(self.blocks.total - np.square(gone), 0) / (p - 4)
        bent = np.float32(_NONLINEAR / p) * np.square(gone - median(gone))
        noise = np.sqrt(self.noise_of(beside)[2])
        values = gone / noise
        trust = self.trust(beside, bent) * self.weight
        values = values - values.mean(0)
        return Motion(values, trust, trust, by_pixel / noise, motion.global_motion, motion.grid), certain


def find_cuts(small: Tensor) -> list[int]:
    """First frames after a hard cut, in small grey frames ``(t, h, w)``.

    At a cut most blocks change in a way that neither motion nor light explains, and do not in the frames around it.
    """
    t = len(small)
    if t < 2:
        return []
    coarse = F.adaptive_avg_pool2d(small.unsqueeze(1), 14).flatten(1)
    jump = (coarse[1:] - coarse[:-1]).square().mean(1)
    contrast = torch.minimum(coarse.var(1)[1:], coarse.var(1)[:-1])
    suspect = (jump > _JUMP * contrast) & (jump > _OUTSTANDING * jump.median())
    layout = Layout.of((small.shape[1] // 2, small.shape[2] // 2), _NEIGHBOURS, 1)
    cuts = []
    for i in suspect.nonzero().flatten().tolist():
        first, last = max(i - _AROUND, 0), min(i + 2 + _AROUND, t)
        unexplained = median(neighbour_motion(blurred(small[first:last])[1], layout)[1], 1)
        here = float(unexplained[i - first])
        beside = np.delete(unexplained, i - first)
        if here > _CUT and (not len(beside) or here > _OUTSTANDING * float(median(beside))):
            cuts.append(i + 1)
    return cuts


def _lasting(remainder: np.ndarray) -> np.ndarray:
    """How large a block's remainder is for longer than a blink around each frame, ``(t, n)``; its median at least.

    A blink comes and goes: before it as after it the remainder is small. An expression that the model of displacement
    does not explain (folds, teeth) stays for longer on one side, and so does rest where most of the clip is expression:
    these frames can be trusted. At an end of the clip one side is missing, and the frame is taken as it is.
    """
    t = len(remainder)
    frame = np.arange(t)
    step = max(_BLINK, t // 16) / 4
    sides = []
    for way in (-1, 1):
        a, b, c, d = (remainder[(frame + way * round(step * k)).clip(0, t - 1)] for k in (1, 2, 3, 4))
        # The second smallest of four: what lasts for most of that side.
        low, high = np.minimum(a, b), np.maximum(a, b)
        lower, higher = np.minimum(c, d), np.maximum(c, d)
        sides.append(np.minimum(np.maximum(low, lower), np.minimum(high, higher)))
    lasting: np.ndarray = np.maximum(np.maximum(*sides), median(remainder))
    return lasting


def neighbour_motion(frames: Tensor, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Motion from each frame to the next, at half the size.

    Args:
        frames: ``(t, h, w)``, levelled.
        layout: of the blocks in pictures of half their size.

    Returns:
        Affine motion ``(t - 1, 6)`` in pixels of ``frames``, and which share of each block's contrast neither motion
        nor light explains, ``(t - 1, n)``.
    """
    # Slope across, slope down, change, brightness: what the light does is taken out.
    xx, xy, yy, xd, yd, dd, xm, ym, mm, md = pair_sums(frames, layout)
    gain = 1 / (mm + 1)
    xx, xy, yy = xx - xm * xm * gain, xy - xm * ym * gain, yy - ym * ym * gain
    xd, yd, dd = xd - xm * md * gain, yd - ym * md * gain, dd - md * md * gain
    xx, yy = xx + np.float32(1e-3), yy + np.float32(1e-3)
    determinant = xx * yy - xy * xy
    moved = np.stack((xy * yd - yy * xd, xy * xd - xx * yd), -1) / determinant[..., None]
    remainder = np.maximum(dd + moved[..., 0] * xd + moved[..., 1] * yd, 0)
    usual = median(remainder)
    floor = usual + median(usual) / 4 + np.float32(_BLACK)
    precision = np.stack((xx, xy, xy, yy), -1).reshape(*xx.shape, 2, 2) / floor[:, None, None]
    basis = _affine_basis(layout.places)
    trust = _central(layout.places) / (1 + np.maximum(remainder / floor - 1, 0))
    pull = basis.swapaxes(1, 2) @ precision  # (t, n, 6, 2)
    pairs, right = (pull @ basis).reshape(*xx.shape, 36), (pull @ moved[..., None])[..., 0]
    weight, motion = trust, np.zeros((len(moved), 6), np.float32)
    for _ in range(4):
        motion = _solved((weight[:, None] @ pairs)[:, 0], (weight[:, None] @ right)[:, 0], 1e-3)
        misfit = _quadratic(moved - affine(layout.places, motion), precision)
        weight = trust / (1 + misfit / (3 * median(misfit, 1)[:, None] + 0.5))
    return 2 * motion, remainder / (mm + np.float32(_BLACK))


def _summed_motion(frames: Tensor, layout: Layout) -> np.ndarray:
    """Affine motion ``(t, 6)`` of each frame, from the motions between neighbours."""
    coarse = Layout.of((layout.h, layout.w), _NEIGHBOURS, 1)
    steps, _ = neighbour_motion(frames, coarse)
    unit = layout.half / coarse.half
    summed = np.pad(steps.cumsum(0), ((1, 0), (0, 0))) * np.array([1, unit, unit] * 2, np.float32)
    motion: np.ndarray = summed - median(summed)
    return motion


def _beyond(motion: np.ndarray, layout: Layout, margin: float = 0.0) -> np.ndarray:
    """How many pixels a block and a margin reach beyond the picture once the frames are aligned, ``(t, n)``."""
    corner, counts = np.array([layout.left, layout.top]), np.array([layout.columns, layout.rows])
    middle = (corner + counts * layout.side / 2).astype(np.float32) + layout.places * np.float32(layout.half)
    centre = middle + affine(layout.places, motion) / 2
    size = np.array([layout.w, layout.h], np.float32)
    beyond: np.ndarray = 2 * np.maximum((layout.side / 2 + margin - np.minimum(centre, size - centre)).max(-1), 0)
    return beyond


def fit_affine(moved: np.ndarray, places: np.ndarray, precision: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """Affine motion shared by most of the points: ``(t, n, 2)`` displacements to ``(t, 6)``.

    Which points take part is decided once for the clip, so that the motion stays a linear function of the
    displacements: points that are static background or that move with an expression lose their weight.
    """
    t, n, _ = moved.shape
    basis = _affine_basis(places)  # (n, 2, 6)
    pull = basis.swapaxes(1, 2) @ precision * _central(places)[:, None, None]  # (n, 6, 2)
    pairs = (pull @ basis).reshape(n, 36)
    by_value = pull.swapaxes(1, 2).reshape(2 * n, 6)
    takes_part = np.ones(n, np.float32)
    motion = np.zeros((t, 6), np.float32)
    for _ in range(5):
        weight = trust * takes_part
        motion = _solved(product(weight, pairs), (weight[..., None] * moved).reshape(t, -1) @ by_value, 1e-6)
        misfit = (_quadratic(moved - affine(places, motion), precision) * trust).mean(0)
        takes_part = 1 / (1 + misfit / (3 * median(misfit) + 1e-6))
    return motion


def _solved(left: np.ndarray, right: np.ndarray, ridge: float) -> np.ndarray:
    """Solutions ``(t, 6)`` of small symmetric systems, the left sides as rows ``(t, 36)``."""
    system = np.concatenate((left.reshape(-1, 6, 6), right[..., None]), -1).transpose(1, 2, 0)[None].copy()
    k = range(6)
    system[:, k, k] += np.float32(ridge)
    solution: np.ndarray = eliminated(system)[0]
    return solution.T


def _quadratic(x: np.ndarray, form: np.ndarray) -> np.ndarray:
    """``xᵀ form x`` of vectors ``(..., 2)`` and symmetric forms ``(..., 2, 2)``."""
    a, b = x[..., 0], x[..., 1]
    out: np.ndarray = form[..., 0, 0] * a * a + 2 * form[..., 0, 1] * a * b + form[..., 1, 1] * b * b
    return out


def _affine_basis(places: np.ndarray) -> np.ndarray:
    basis = np.zeros((len(places), 2, 6), np.float32)
    basis[:, 0, 0] = basis[:, 1, 3] = 1
    basis[:, 0, 1:3] = basis[:, 1, 4:] = places
    return basis


def affine(places: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Displacement ``(t, n, 2)`` of the places by affine motions ``(t, 6)``."""
    moved: np.ndarray = motion @ _affine_basis(places).reshape(-1, 6).T
    return moved.reshape(len(motion), -1, 2)


def _in_one_spot(excess: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """How far what is disturbed in each frame lies in one place, 0 to 1; the two eyes of a blink are two."""
    places = grid_places(*grid)
    mass = np.pad((excess / (1 + excess)) * _central(places), ((2, 2), (0, 0)))
    mass = (mass[:-4] + mass[1:-3] + mass[2:-2] + mass[3:-1] + mass[4:]) / 5
    total = np.maximum(mass.sum(1), 1e-6)
    middle = mass @ places / total[:, None]
    away = np.linalg.norm(middle[:, None] - places, axis=-1) * np.float32(min(grid) / 2)
    near = (mass * (away < _SPOT)).sum(1) / total
    spot: np.ndarray = ((near - _NEAR_ITS_MIDDLE) / 0.2).clip(0, 1)
    return spot


def _spread(excess: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Trust ``(t, n)`` from unexplained remainders: what disturbs a block disturbs its neighbours in place and time."""
    maps = excess.reshape(-1, *grid)
    maps = np.maximum(maps, np.float32(0.3) * _largest_beside(_largest_beside(maps, 1), 2))
    maps = np.maximum(maps, np.float32(0.3) * _largest_beside(maps, 0))
    trust: np.ndarray = 1 / np.square(1 + maps)
    return trust.reshape(excess.shape)


def _largest_beside(x: np.ndarray, axis: int) -> np.ndarray:
    """The largest of each value and its two neighbours along an axis."""
    x = np.moveaxis(x, axis, 0)
    out = x.copy()
    np.maximum(out[1:], x[:-1], out=out[1:])
    np.maximum(out[:-1], x[1:], out=out[:-1])
    return np.moveaxis(out, 0, axis)


def _central(places: np.ndarray) -> np.ndarray:
    """Weight of a place: people film faces in the middle of the picture."""
    weight: np.ndarray = np.exp(-np.square(places).sum(-1))
    return weight


# --- other inputs ---------------------------------------------------------------------------------------------------


def _flow_motion(flow: Tensor) -> Motion:
    """Flow fields ``(t, 2, h, w)``: means of a grid of blocks, without the motion of the whole face."""
    small = F.adaptive_avg_pool2d(flow, (min(flow.shape[2], 9), min(flow.shape[3], 9)))
    rows, columns = small.shape[2:]
    return _point_motion(on_host(small.flatten(2).mT), grid_places(rows, columns), (rows, columns))


def _landmark_motion(points: np.ndarray) -> Motion:
    """Landmarks ``(t, n, 2)``: displacements from their mean place, without the motion of the whole face."""
    mean = points.mean(0)
    centred = mean - mean.mean(0)
    return _point_motion(points - mean, centred / max(float(np.abs(centred).max()), 1e-12), (0, 0))


def _point_motion(moved: np.ndarray, places: np.ndarray, grid: tuple[int, int]) -> Motion:
    t, n, _ = moved.shape
    precision = np.broadcast_to(_EYE, (n, 2, 2))
    moved = moved / max(float(np.abs(moved).max()), 1e-12)
    # The expression is not in the middle of these coordinates: no preference for a place.
    local = moved - affine(places, fit_affine(moved, places, precision, np.ones((t, n), np.float32)))
    return _scaled(local.reshape(t, -1), grid)


def _feature_motion(clip: Tensor) -> Motion:
    """Any other values: the leading coordinates that reproduce the distances between frames."""
    values = clip.flatten(1) if clip.dtype == torch.float64 else clip.flatten(1).float()
    values = values - values.mean(0)
    values = values / values.abs().amax().clamp(min=1e-30)  # their squares add up
    size, basis = torch.linalg.eigh(values @ values.mT)
    keep = min(_COORDINATES, len(clip))
    return _scaled(on_host(basis[:, -keep:] * size[-keep:].clamp(min=0).sqrt()), (0, 0))


def _scaled(values: np.ndarray, grid: tuple[int, int]) -> Motion:
    """Values in units of their frame-to-frame noise, or of a fiftieth of their largest deviation."""
    values = values - values.mean(0)
    bend = values[2:] - 2 * values[1:-1] + values[:-2] if len(values) > 2 else values
    noise = math.sqrt(np.square(median(np.abs(bend)) / np.float32(0.6745 * 6**0.5)).mean())
    unit = max(noise, float(np.abs(values).max()) / 50, 1e-30)
    ones = np.ones_like(values)
    scale, still = np.ones(values.shape[1], np.float32), np.zeros((len(values), 0), np.float32)
    return Motion(values / np.float32(unit), ones, ones, scale, still, grid)
