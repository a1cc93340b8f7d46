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

import torch
import torch.nn.functional as F
from torch import Tensor

from mertools.keyframes.distance import pairwise_distance

_SIDE = 112  # pixels a side, about, at which motion is estimated
_WIDE = 1.25  # a picture wider or taller than this has its face in the middle square
_BLUR = 1.5  # of the frames at that size; displacements up to about twice this are linear in the intensities
_REACH = 5  # pixels of that blur
_PART = 16  # frames at a time: what they need on the way stays in the cache
_ALIGNED = 0.15  # pixels that an alignment may be off by: there displacements are linear in the intensities
_NEIGHBOURS = 8  # of these pixels of a block where neighbouring frames are compared
_AREA = 4  # small pixels of one at half the size
_BLINK = 12  # frames: what comes and goes within them is a disturbance
_SPOT, _NEAR_ITS_MIDDLE, _ONE_SPOT = 1.4, 0.4, 0.9  # blocks around a middle; share of it there; how far it counts
_JUMP, _CUT, _OUTSTANDING, _AROUND = 0.3, 0.5, 4.0, 5  # of the contrast; times what is usual within so many frames
_MARGIN = 2  # pixels at the border that no block reaches: they come and go as the head moves
_LOCAL_ERROR, _GLOBAL_ERROR = 0.05, 0.1  # pixels that the models of local and global motion are taken to be wrong by
_TOLERANCE = 0.05  # of the gradient: a remainder below it says nothing
_NONLINEAR = 0.25  # share of a displacement's energy that may remain because the model is linear
_BLACK = 1e-3  # variance of what an 8-bit sensor can't show, with the picture's contrast scaled to 50 levels
_SQUARES = 1e-9, 1e9  # intensities whose squares add up in float32
_COORDINATES = 32  # that describe frames without a place in the picture


class Motion(NamedTuple):
    """Trajectories of one clip.

    Shape:
        - values: ``(t, d)``, in units of their error
        - trust: ``(t, d)``, 0 to 1
        - explained: ``(t, d)``, 0 to 1: how far displacement explains what changed, whatever time it takes
        - scale: ``(d,)``, units per pixel
        - global_motion: ``(t, m)``, motion of the whole face in pixels; m may be 0
        - grid: rows and columns of the blocks, ``(0, 0)`` when values have no place in a picture
        - looks: of pictures, what the blocks look like
    """

    values: Tensor
    trust: Tensor
    explained: Tensor
    scale: Tensor
    global_motion: Tensor
    grid: tuple[int, int]
    looks: Looks | None = None

    def on_host(self) -> Motion:
        """Without looks, all that is left in the host's memory."""
        values, trust, explained, scale, moved = (x.detach().cpu() for x in self[:5])
        return Motion(values, trust, explained, scale, moved, self.grid)


def is_picture(shape: torch.Size | tuple[int, ...]) -> bool:
    """Whether frames of this shape ``(c, h, w)`` or ``(h, w)`` are searched as pictures."""
    return ((len(shape) == 3 and shape[0] in (1, 3, 4)) or len(shape) == 2) and min(shape[-2:]) >= 32


def clip_motion(clip: Tensor) -> Motion:
    """Local motion in one clip ``(t, ...)`` of finite frames that are not all equal."""
    shape = clip.shape[1:]
    if is_picture(shape):
        return picture_motion(small_frames(clip))
    if len(shape) == 3 and shape[0] == 2 and min(shape[1:]) >= 8 and clip.is_floating_point():
        return _flow_motion(clip.float())
    if len(shape) == 2 and shape[1] in (2, 3) and shape[0] >= 10 and clip.is_floating_point():
        return _landmark_motion(clip[..., :2].float())
    return _feature_motion(clip)


# --- pictures -------------------------------------------------------------------------------------------------------


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


def picture_motion(small: Tensor, *, bent: float = _NONLINEAR, faint: float = _BLACK) -> Motion:
    """Local motion in small grey frames ``(t, h, w)``.

    Args:
        small: the frames.
        bent: share of a displacement's energy that may remain unexplained before a block loses trust.
        faint: remainder that always may, a variance where the picture's is 2500.
    """
    frames, half, level = _blurred(small)
    layout = _Layout.of(half.shape, 6 if min(small.shape[1:]) >= 72 else 4)
    # Neighbouring frames are never far apart: their motions add up to a first alignment, whatever the head did. What
    # the sum is off by is then seen against the mean of the aligned frames.
    whole = _summed_motion(half, layout)
    aligned = level(_aligned(frames, whole, layout))
    blocks = _Blocks(aligned, layout, faint)
    remaining = blocks.global_motion()
    if float(remaining.abs().amax()) > _ALIGNED:
        whole = whole + remaining
        aligned = level(_aligned(frames, whole, layout))
        blocks = _Blocks(aligned, layout, faint)
        remaining = blocks.global_motion()
    local = blocks.moved - _affine(layout.places(frames.device), remaining)

    error = blocks.noise[:, None, None] * torch.linalg.inv(blocks.normal)
    error = error + _LOCAL_ERROR**2 * torch.eye(2).to(small)
    whiten = torch.linalg.cholesky(torch.linalg.inv(error)).mT
    values = (whiten * local.unsqueeze(-2)).sum(-1)
    energy = _quadratic(local, blocks.normal) / (_AREA * layout.side**2)
    # A block that stays in the picture while the face moves is background.
    belongs = ((_change(half, layout) + blocks.floor) / (_change(aligned, layout) + blocks.floor)).clamp(max=1)
    trust = blocks.trust(blocks.remainder, bent * energy)
    weight = belongs.square() * _central(layout.places(frames.device)) / (1 + _beyond(whole, layout)).square()
    explained = _spread((blocks.remainder / blocks.noise - 1).clamp(min=0), blocks.grid)
    # What comes into the picture at its border in the course of the clip is no proof that a face moves.
    explained /= (1 + _beyond(whole, layout, layout.side / 2).amax(0)).square()
    return Motion(
        values.flatten(1),
        (trust * weight).repeat_interleave(2, 1),
        explained.repeat_interleave(2, 1),
        whiten.diagonal(dim1=-2, dim2=-1).flatten(),
        whole + remaining,
        blocks.grid,
        Looks(blocks, weight),
    )


class Looks:
    """What the blocks of a clip look like, frame by frame, once the head's motion and the light are taken out.

    A displacement of several pixels, a fold that deepens or a mouth that opens over its teeth is not linear. Where it
    is known which frames are at rest and which are not, so is the way from one look to the other, and how far each
    frame has gone on it.
    """

    def __init__(self, blocks: _Blocks, weight: Tensor) -> None:
        self.blocks, self.weight = blocks, weight

    def along(self, motion: Motion, profile: Tensor, slow: Tensor, trust: Tensor) -> tuple[Motion, Tensor]:
        """Trajectories of the blocks along what goes with the extent ``profile`` ``(t,)``, one a block.

        Args:
            motion: of the clip.
            profile: extent in each frame, 0 to 1.
            slow: rest and trend ``(t, q)``, which are no part of it.
            trust: ``(t, n)``, of each block so far.

        Returns:
            The motion that these trajectories make, and how much of each direction ``(n,)`` is more than noise.
        """
        blocks, change = self.blocks, self.blocks.change  # (n, t, p)
        p = change.shape[2]
        design = torch.cat((slow, profile.unsqueeze(-1)), -1)
        q = design.shape[1]
        pairs = (design.unsqueeze(-1) * design.unsqueeze(-2)).flatten(1)
        left = (trust.mT @ pairs).view(-1, q, q) + 1e-3 * torch.eye(q).to(change)
        to_extent = torch.linalg.inv(left)[:, -1:]  # (n, 1, q)
        fit = (to_extent @ design.mT) * trust.mT.unsqueeze(1)  # (n, 1, t)
        direction = (fit @ change).squeeze(1)
        size = direction.square().sum(-1)
        certain = (1 - blocks.floor * p * to_extent[:, 0, -1] / size.clamp(min=1e-9)).clamp(min=0)
        direction = direction / size.sqrt().clamp(min=1e-9).unsqueeze(-1)
        gone = (change @ direction.unsqueeze(-1)).squeeze(-1).mT  # (t, n)
        beside = (blocks.total - gone.square()).clamp(min=0) / (p - 4)
        bent = _NONLINEAR * (gone - gone.median(0).values).square() / p
        _, _, noise = blocks.noise_of(beside)
        scale = (blocks.slope.mT @ direction.unsqueeze(-1)).norm(dim=(1, 2)) / noise.sqrt()
        values = gone / noise.sqrt()
        trust = blocks.trust(beside, bent) * self.weight
        return Motion(values - values.mean(0), trust, trust, scale, motion.global_motion, motion.grid), certain


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
    layout = _Layout.of((small.shape[1] // 2, small.shape[2] // 2), _NEIGHBOURS, 1)
    cuts = []
    for i in suspect.nonzero().flatten().tolist():
        first, last = max(i - _AROUND, 0), min(i + 2 + _AROUND, t)
        unexplained = neighbour_motion(_blurred(small[first:last])[1], layout)[1].median(1).values
        here = float(unexplained[i - first])
        beside = torch.cat((unexplained[: i - first], unexplained[i - first + 1 :]))
        if here > _CUT and (not len(beside) or here > _OUTSTANDING * float(beside.median())):
            cuts.append(i + 1)
    return cuts


def _change(frames: Tensor, layout: _Layout) -> Tensor:
    """Variance over time within each block, ``(n,)``."""
    variance = (frames.square().mean(0) - frames.mean(0).square()).clamp(min=0)[None]
    return F.avg_pool2d(layout.cut(variance).unsqueeze(1), layout.side).flatten()


class _Level(NamedTuple):
    """What brings the contrast of a clip's frames to 50 levels: they are shifted, then scaled."""

    shift: Tensor
    scale: Tensor

    def __call__(self, frames: Tensor) -> Tensor:
        return frames.sub_(self.shift).mul_(self.scale)


def _blurred(small: Tensor) -> tuple[Tensor, Tensor, _Level]:
    """Small frames ``(t, h, w)`` blurred; the same at half their size and levelled; and what levels them."""
    frames = torch.empty_like(small)
    if small.device.type == "cpu":
        import cv2  # it takes a while to load

        for frame, out in zip(small.detach().numpy(), frames.numpy(), strict=True):
            cv2.GaussianBlur(frame, (2 * _REACH + 1,) * 2, _BLUR, dst=out, borderType=cv2.BORDER_REPLICATE)
    else:
        down, across = (_blur(size, small) for size in small.shape[1:])
        torch.matmul(down, small @ across.mT, out=frames)
    half = F.avg_pool2d(frames.unsqueeze(1), 2).squeeze(1)
    size = half.abs().amax()
    # Of values whose squares do not add up in float32, a part is taken first.
    unit = torch.where((size > _SQUARES[0]) & (size < _SQUARES[1]), 1.0, size.clamp(min=torch.finfo(half.dtype).tiny))
    shift = half.mean()
    contrast = ((half - shift) / unit).square_().mean().sqrt().clamp(min=1e-12)
    level = _Level(shift, 50 / contrast / unit)
    return frames, level(half), level


def _blur(size: int, like: Tensor) -> Tensor:
    """Matrix ``(size, size)`` of a Gaussian blur, the border repeated."""
    steps = torch.arange(-_REACH, _REACH + 1, device=like.device)
    kernel = torch.exp(-(steps / _BLUR).square() / 2).to(like)
    from_ = (torch.arange(size, device=like.device).unsqueeze(1) + steps).clamp(0, size - 1)
    return like.new_zeros(size, size).scatter_add_(1, from_, (kernel / kernel.sum()).expand(size, -1))


def _lasting(remainder: Tensor) -> Tensor:
    """How large a block's remainder is for longer than a blink around each frame, ``(t, n)``; its median at least.

    A blink comes and goes: before it as after it the remainder is small. An expression that the model of displacement
    does not explain (folds, teeth) stays for longer on one side, and so does rest where most of the clip is expression:
    these frames can be trusted. At an end of the clip one side is missing, and the frame is taken as it is.
    """
    t = len(remainder)
    frame = torch.arange(t, device=remainder.device)
    step = max(_BLINK, t // 16) / 4
    sides = []
    for way in (-1, 1):
        a, b, c, d = (remainder[(frame + way * round(step * k)).clamp(0, t - 1)] for k in (1, 2, 3, 4))
        # The second smallest of four: what lasts for most of that side.
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        lower, higher = torch.minimum(c, d), torch.maximum(c, d)
        sides.append(torch.minimum(torch.maximum(low, lower), torch.minimum(high, higher)))
    return torch.maximum(torch.maximum(*sides), remainder.median(0).values)


class _Layout(NamedTuple):
    """Where the square blocks lie in a picture ``(h, w)``."""

    rows: int
    columns: int
    side: int
    top: int
    left: int
    h: int
    w: int

    @classmethod
    def of(cls, shape: torch.Size | tuple[int, ...], side: int, margin: int = _MARGIN) -> _Layout:
        h, w = shape[-2:]
        rows, columns = (h - 2 * margin) // side, (w - 2 * margin) // side
        return cls(rows, columns, side, (h - rows * side) // 2, (w - columns * side) // 2, h, w)

    def cut(self, x: Tensor) -> Tensor:
        """``(m, h, w)`` to ``(m, rows · side, columns · side)``."""
        return x[:, self.top : self.top + self.rows * self.side, self.left : self.left + self.columns * self.side]

    def places(self, device: torch.device) -> Tensor:
        return _grid_places(self.rows, self.columns, device)

    @property
    def half(self) -> float:
        """Pixels from the middle to the edge of the blocks: what 1 is among the places."""
        return min(self.rows, self.columns) * self.side / 2


def neighbour_motion(frames: Tensor, layout: _Layout) -> tuple[Tensor, Tensor]:
    """Motion from each frame to the next, at half the size.

    Args:
        frames: ``(t, h, w)``, levelled.
        layout: of the blocks in pictures of half their size.

    Returns:
        Affine motion ``(t - 1, 6)`` in pixels of ``frames``, and which share of each block's contrast neither motion
        nor light explains, ``(t - 1, n)``.
    """
    sums = torch.cat([_pair_sums(frames[i : i + _PART + 1], layout) for i in range(0, len(frames) - 1, _PART)])
    # Means and products over a block of slope across, slope down, change, brightness: bias and gain are taken out.
    xx, xy, yy, xd, yd, dd, xm, ym, mm, md = sums.unbind(1)
    gain = 1 / (mm + 1)
    xx, xy, yy = xx - xm * xm * gain, xy - xm * ym * gain, yy - ym * ym * gain
    xd, yd, dd = xd - xm * md * gain, yd - ym * md * gain, dd - md * md * gain
    xx, yy = xx + 1e-3, yy + 1e-3
    determinant = xx * yy - xy * xy
    moved = torch.stack((xy * yd - yy * xd, xy * xd - xx * yd), -1) / determinant.unsqueeze(-1)
    remainder = (dd + moved[..., 0] * xd + moved[..., 1] * yd).clamp(min=0)
    usual = remainder.median(0).values
    floor = usual + usual.median() / 4 + _BLACK
    precision = torch.stack((xx, xy, xy, yy), -1).view(*xx.shape, 2, 2) / floor[:, None, None]
    places = layout.places(frames.device)
    basis = _affine_basis(places)
    trust = _central(places) / (1 + (remainder / floor - 1).clamp(min=0))
    pull = basis.mT @ precision  # (t, n, 6, 2)
    pairs, right = (pull @ basis).flatten(2), (pull @ moved.unsqueeze(-1)).squeeze(-1)
    ridge = 1e-3 * torch.eye(6).to(frames)
    weight, motion = trust, moved.new_zeros(len(moved), 6)
    for _ in range(4):
        left = (weight.unsqueeze(1) @ pairs).view(-1, 6, 6) + ridge
        motion = torch.linalg.solve(left, (weight.unsqueeze(1) @ right).squeeze(1))
        error = moved - _affine(places, motion)
        misfit = _quadratic(error, precision)
        weight = trust / (1 + misfit / (3 * misfit.median(1, keepdim=True).values + 0.5))
    return 2 * motion, remainder / (mm + _BLACK)


def _pair_sums(frames: Tensor, layout: _Layout) -> Tensor:
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
    return torch.stack(products, 1)


def _summed_motion(frames: Tensor, layout: _Layout) -> Tensor:
    """Affine motion ``(t, 6)`` of each frame, from the motions between neighbours."""
    coarse = _Layout.of((layout.h, layout.w), _NEIGHBOURS, 1)
    steps, _ = neighbour_motion(frames, coarse)
    summed = F.pad(steps.cumsum(0), (0, 0, 1, 0))
    unit = layout.half / coarse.half
    summed = summed * summed.new_tensor([1, unit, unit] * 2)
    return summed - summed.median(0).values


def _beyond(motion: Tensor, layout: _Layout, margin: float = 0.0) -> Tensor:
    """How many pixels a block and a margin reach beyond the picture once the frames are aligned, ``(t, n)``."""
    places = layout.places(motion.device)
    middle = motion.new_tensor(
        [layout.left + layout.columns * layout.side / 2, layout.top + layout.rows * layout.side / 2]
    )
    centre = middle + places * layout.half + _affine(places, motion) / 2
    size = motion.new_tensor([layout.w, layout.h])
    return 2 * (layout.side / 2 + margin - torch.minimum(centre, size - centre)).amax(-1).clamp(min=0)


class _Blocks:
    """Displacements of the blocks of a clip's frames ``(t, h, w)`` against the mean frame."""

    def __init__(self, frames: Tensor, layout: _Layout, faint: float) -> None:
        mean, side = frames.mean(0), layout.side
        self.grid = rows, columns = layout.rows, layout.columns
        self.places = layout.places(mean.device)

        def cut(x: Tensor) -> Tensor:  # (m, h, w) -> (blocks, m, pixels)
            x = layout.cut(x).reshape(-1, rows, side, columns, side).permute(1, 3, 0, 2, 4)
            return x.reshape(rows * columns, -1, side * side)

        across = F.pad((mean[:, 2:] - mean[:, :-2]) / 4, (1, 1))
        down = F.pad((mean[2:] - mean[:-2]) / 4, (0, 0, 1, 1))
        maps = cut(torch.stack((across, down, mean))).mT  # (blocks, pixels, 3)
        light = torch.linalg.qr(torch.stack((torch.ones_like(maps[..., 2]), maps[..., 2] / 50), -1))[0]
        slope = -maps[..., :2]
        slope = slope - light @ (light.mT @ slope)
        self.normal = _AREA * (slope.mT @ slope + 1e-3 * side**2 * torch.eye(2).to(mean))
        design, solution = torch.cat((slope, light), -1), _AREA * torch.linalg.inv(self.normal)
        self.slope = slope
        self.change = cut(frames - mean)  # (blocks, t, pixels)
        seen = self.change @ design
        moved = seen[..., :2] @ solution
        self.change -= seen[..., 2:] @ light.mT
        total = self.change.square().sum(-1)
        self.moved = moved.transpose(0, 1)  # (t, blocks, 2)
        self.total = total.mT  # (t, blocks)
        # A variance.
        self.remainder = (total - (seen[..., :2] * moved).sum(-1)).clamp(min=0).mT / (side**2 - 4)
        self.texture = self.normal.diagonal(dim1=-2, dim2=-1).sum(-1) / (2 * _AREA * side**2)
        self.faint = faint
        self.usual, self.floor, self.noise = self.noise_of(self.remainder)

    def noise_of(self, remainder: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Usual remainder ``(n,)``, with a floor, and with what the model of displacement is taken to be wrong by."""
        usual = remainder.median(0).values
        floor = usual + usual.median() / 4 + self.faint
        return usual, floor, floor + _TOLERANCE**2 * self.texture

    def trust(self, remainder: Tensor, bent: Tensor) -> Tensor:
        """How far each block can be trusted ``(t, n)``: less where more remains, for a short while, than ``bent``."""
        usual, _, noise = self.noise_of(remainder)
        lasting = noise + _lasting(remainder) - usual
        excess = ((remainder - bent) / lasting - 1).clamp(min=0)
        excess = excess * (1 - _ONE_SPOT * _in_one_spot(excess, self.grid)).unsqueeze(1)
        return _spread(excess, self.grid)

    def global_motion(self) -> Tensor:
        """Affine motion of the face in each frame ``(t, 6)``, in pixels at the edge of the blocks."""
        eye = torch.eye(2).to(self.moved)
        error = self.floor[:, None, None] * torch.linalg.inv(self.normal) + _GLOBAL_ERROR**2 * eye
        trust = 1 / (1 + (self.remainder / self.noise - 1).clamp(min=0))
        return fit_affine(self.moved, self.places, torch.linalg.inv(error), trust)


def fit_affine(moved: Tensor, places: Tensor, precision: Tensor, trust: Tensor) -> Tensor:
    """Affine motion shared by most of the points: ``(t, n, 2)`` displacements to ``(t, 6)``.

    Which points take part is decided once for the clip, so that the motion stays a linear function of the
    displacements: points that are static background or that move with an expression lose their weight.
    """
    t, n, _ = moved.shape
    basis = _affine_basis(places)  # (n, 2, 6)
    pull = basis.mT @ precision * _central(places)[:, None, None]  # (n, 6, 2)
    pairs = (pull @ basis).flatten(1)
    ridge = 1e-6 * torch.eye(6).to(moved)
    takes_part = moved.new_ones(n)
    motion = moved.new_zeros(t, 6)
    for _ in range(5):
        weight = trust * takes_part
        left = (weight @ pairs).view(t, 6, 6) + ridge
        right = (weight.unsqueeze(-1) * moved).flatten(1) @ pull.transpose(1, 2).flatten(0, 1)
        motion = torch.linalg.solve(left, right)
        error = moved - _affine(places, motion)
        misfit = (_quadratic(error, precision) * trust).mean(0)
        takes_part = 1 / (1 + misfit / (3 * misfit.median() + 1e-6))
    return motion


def _quadratic(x: Tensor, form: Tensor) -> Tensor:
    """``xᵀ form x`` of vectors ``(..., 2)`` and symmetric forms ``(..., 2, 2)``."""
    a, b = x.unbind(-1)
    out: Tensor = form[..., 0, 0] * a * a + 2 * form[..., 0, 1] * a * b + form[..., 1, 1] * b * b
    return out


def _affine_basis(places: Tensor) -> Tensor:
    basis = places.new_zeros(len(places), 2, 6)
    basis[:, 0, :3] = basis[:, 1, 3:] = torch.cat((torch.ones_like(places[:, :1]), places), -1)
    return basis


def _affine(places: Tensor, motion: Tensor) -> Tensor:
    """Displacement ``(t, n, 2)`` of the places by affine motions ``(t, 6)``."""
    return (_affine_basis(places).flatten(0, 1) @ motion.mT).mT.view(len(motion), -1, 2)


def _aligned(frames: Tensor, motion: Tensor, layout: _Layout) -> Tensor:
    """Frames with the global motion taken back, at half their size: sampled at full size, where that blurs less."""
    h, w = layout.h, layout.w
    y, x = (torch.arange(size).to(frames) + 0.5 for size in (h, w))
    u = (x - layout.left - layout.columns * layout.side / 2) / layout.half
    v = (y - layout.top - layout.rows * layout.side / 2) / layout.half
    affine = motion.view(-1, 2, 3, 1)
    sizes = torch.tensor([frames.shape[2], frames.shape[1]], device=frames.device).view(2, 1)
    by_column = (affine[:, :, 1] * u + affine[:, :, 0]) / sizes * 2  # (t, 2, w)
    by_row = affine[:, :, 2] * v / sizes * 2  # (t, 2, h)
    by_column[:, 0] += x / frames.shape[2] * 4 - 1
    by_row[:, 1] += y / frames.shape[1] * 4 - 1
    out = frames.new_empty(len(frames), h, w)
    for part in torch.split(torch.arange(len(frames)), _PART):
        some = slice(int(part[0]), int(part[-1]) + 1)
        grid = by_row[some].mT.unsqueeze(2) + by_column[some].mT.unsqueeze(1)
        picture = frames[some].unsqueeze(1)
        out[some] = F.grid_sample(picture, grid, padding_mode="border", align_corners=False).squeeze(1)
    return out


def _in_one_spot(excess: Tensor, grid: tuple[int, int]) -> Tensor:
    """How far what is disturbed in each frame lies in one place, 0 to 1; the two eyes of a blink are two."""
    places = _grid_places(*grid, excess.device)
    mass = (excess / (1 + excess)) * _central(places)
    mass = F.avg_pool1d(F.pad(mass.T, (2, 2)), 5, 1).T
    total = mass.sum(1).clamp(min=1e-6)
    middle = mass @ places / total.unsqueeze(1)
    away = torch.cdist(middle, places) * min(grid) / 2
    near: Tensor = (mass * (away < _SPOT)).sum(1) / total
    return ((near - _NEAR_ITS_MIDDLE) / 0.2).clamp(0, 1)


def _spread(excess: Tensor, grid: tuple[int, int]) -> Tensor:
    """Trust ``(t, n)`` from unexplained remainders: what disturbs a block disturbs its neighbours in place and time."""
    maps = excess.view(-1, 1, *grid)
    maps = torch.maximum(maps, 0.3 * F.max_pool2d(maps, 3, 1, 1)).flatten(1).T.unsqueeze(1)
    maps = torch.maximum(maps, 0.3 * F.max_pool1d(maps, 3, 1, 1)).squeeze(1).T
    return 1 / (1 + maps).square()


def _central(places: Tensor) -> Tensor:
    """Weight of a place: people film faces in the middle of the picture."""
    return torch.exp(-places.square().sum(-1))


def _grid_places(rows: int, columns: int, device: torch.device) -> Tensor:
    """Centres of the blocks from the middle of the picture, in halves of its smaller side."""
    half = min(rows, columns) / 2
    y = (torch.arange(rows, dtype=torch.float32, device=device) + 0.5 - rows / 2) / half
    x = (torch.arange(columns, dtype=torch.float32, device=device) + 0.5 - columns / 2) / half
    return torch.stack((x.expand(rows, -1), y.unsqueeze(1).expand(-1, columns)), -1).view(-1, 2)


# --- other inputs ---------------------------------------------------------------------------------------------------


def _flow_motion(flow: Tensor) -> Motion:
    """Flow fields ``(t, 2, h, w)``: means of a grid of blocks, without the motion of the whole face."""
    small = F.adaptive_avg_pool2d(flow, (min(flow.shape[2], 9), min(flow.shape[3], 9)))
    rows, columns = small.shape[2:]
    return _point_motion(small.flatten(2).mT, _grid_places(rows, columns, flow.device), (rows, columns))


def _landmark_motion(points: Tensor) -> Motion:
    """Landmarks ``(t, n, 2)``: displacements from their mean place, without the motion of the whole face."""
    mean = points.mean(0)
    centred = mean - mean.mean(0)
    return _point_motion(points - mean, centred / centred.abs().amax().clamp(min=1e-12), (0, 0))


def _point_motion(moved: Tensor, places: Tensor, grid: tuple[int, int]) -> Motion:
    t, n, _ = moved.shape
    precision = torch.eye(2).to(moved).expand(n, 2, 2)
    size = moved.abs().amax().clamp(min=1e-12)
    moved = moved / size
    # The expression is not in the middle of these coordinates: no preference for a place.
    local = moved - _affine(places, fit_affine(moved, places, precision, moved.new_ones(t, n)))
    return _scaled(local.flatten(1), grid)


def _feature_motion(clip: Tensor) -> Motion:
    """Any other values, by the distances between frames: the leading coordinates that reproduce them."""
    square = pairwise_distance(clip.unsqueeze(0).flatten(2))[0].square()
    centred = square - square.mean(0) - square.mean(1, keepdim=True) + square.mean()
    size, basis = torch.linalg.eigh(-centred / 2)
    keep = min(_COORDINATES, len(clip))
    return _scaled((basis[:, -keep:] * size[-keep:].clamp(min=0).sqrt()).float(), (0, 0))


def _scaled(values: Tensor, grid: tuple[int, int]) -> Motion:
    """Values in units of their frame-to-frame noise, or of a fiftieth of their largest deviation."""
    values = values - values.mean(0)
    bend = values[2:] - 2 * values[1:-1] + values[:-2] if len(values) > 2 else values
    noise = (bend.abs().median(0).values / (0.6745 * 6**0.5)).square().mean().sqrt()
    unit = torch.maximum(noise, values.abs().amax() / 50).clamp(min=1e-30)
    d = values.shape[1]
    ones = torch.ones_like(values)
    return Motion(values / unit, ones, ones, values.new_ones(d), values.new_zeros(len(values), 0), grid)
