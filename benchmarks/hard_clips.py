"""Synthetic clips that are harder than ``synthetic_clip``: heads that move with the expression, folds, teeth, winks.

The face turns in front of a still background, nearer parts go farther (parallax), folds darken and teeth appear with
the extent, one eye winks, and the clip is cut close to the movement, as real ones are. Besides, clips in which nothing
is expressed at all: what has to be told apart, up to a head that turns by 15 to 40 degrees.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

import mertools as mt
from mertools.clips import synthetic as made

Face = tuple[Tensor, tuple[tuple[float, float], tuple[float, float]]]

HARD = (
    "head 2-8 px", "parallax", "folds and teeth", "3-8 px", "fills 60 %", "rest of 3-10", "wink", "all of the hard",
)  # fmt: skip
NOTHING = (
    "noise alone", "still face", "head turn", "nod alone", "blinks alone", "flicker alone", "drift alone",
    "held expression", "large head turn",
)  # fmt: skip


def hard_clip(condition: str, number: int, face: Face, rendered: int | None = None) -> mt.SyntheticClip:
    """A clip of a condition of ``HARD``, the same for the same number; of its own size, or rendered at another."""
    random = _Random(7919 * number + 31 * HARD.index(condition) + 5)
    every = condition == "all of the hard"
    size = (112, 128, 144)[random.whole(0, 2)]
    size = rendered or size
    fills = condition == "fills 60 %" or (every and random.uniform(0, 1) < 0.5)
    short = condition == "rest of 3-10" or (every and random.uniform(0, 1) < 0.5)
    t = random.whole(50, 110)
    rise, fall = random.whole(5, 20), random.whole(8, 25)
    before, after = (random.whole(3, 10) if short else random.whole(8, 25) for _ in range(2))
    hold = random.whole(0, 15)
    if fills:
        hold = max(hold, int(0.6 * t) - rise - fall)
    if fills or short:
        t = before + rise + hold + fall + after
    while before + rise + hold + fall + after > t:
        t += 10
    onset = before if short or fills else random.whole(before, t - 1 - after - rise - hold - fall)
    apex, end = onset + rise, onset + rise + hold
    offset = end + fall
    motion = made._profile(t, onset, apex, offset, hold)

    shifted = condition in ("head 2-8 px", "parallax") or every
    large = condition in ("3-8 px", "folds and teeth", "fills 60 %") or every
    frames = _render(
        face, size, t, random,
        extent=motion,
        movement=random.whole(0, 4),
        amplitude=random.uniform(3, 8) * size / 112 if large else random.uniform(1.2, 3) * size / 112,
        # The head goes to another place with the expression, a little earlier or later, and need not come back.
        head=_head_course(t, onset, apex, end, offset, random) if shifted else torch.zeros(t),
        head_pixels=random.uniform(2, 8) * size / 112,
        parallax=condition == "parallax" or every,
        folds=condition == "folds and teeth" or every,
        blinks=[random.whole(0, t - 9)] if every and random.uniform(0, 1) < 0.5 else [],
        wink=random.whole(0, t - 16) if condition == "wink" or (every and random.uniform(0, 1) < 0.3) else None,
    )  # fmt: skip
    return mt.SyntheticClip(frames, onset, apex, offset, min(end, offset - 1), motion)


def empty_clip(condition: str, number: int, face: Face) -> Tensor:
    """Frames of a clip in which no expression begins or ends, of a condition of ``NOTHING``."""
    random = _Random(104729 * number + 31 * NOTHING.index(condition) + 11)
    size, t = (112, 128, 144)[random.whole(0, 2)], random.whole(50, 130)
    if condition == "noise alone":
        level, spread = random.uniform(60, 180), random.uniform(2, 40)
        frames = level + spread * torch.randn(t, 3, size, size, generator=random.generator)
        return frames.round().clamp(0, 255).to(torch.uint8)
    held = condition == "held expression"
    turn, large = condition in ("head turn", "nod alone"), condition == "large head turn"
    course = _turn_course(t, random) if turn or large else torch.zeros(t)
    angle = math.radians(random.uniform(15, 40)) * (-1) ** random.whole(0, 1) if large else 0.0
    slow = torch.linspace(0, 1, t) * random.uniform(0.5, 1) * math.pi
    return _render(
        face, size, t, random,
        extent=torch.full((t,), random.uniform(0.9, 1.0)) if held else torch.zeros(t),
        movement=random.whole(0, 4),
        amplitude=random.uniform(2, 6) * size / 112,
        head=torch.sin(slow) if condition == "drift alone" else torch.zeros(t) if large else course,
        head_pixels=random.uniform(1, 4) * size / 112,
        parallax=condition == "head turn",
        nod=condition == "nod alone",
        folds=held,
        blinks=[random.whole(0, t - 11) for _ in range(random.whole(1, 3))] if condition == "blinks alone" else [],
        flicker=random.uniform(0.005, 0.03) if condition == "flicker alone" else 0.0,
        sway=0.4 if held else 0.0,
        turned=angle * course if large else None,
    )  # fmt: skip


class _Random:
    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def whole(self, low: int, high: int) -> int:
        return int(torch.randint(low, max(high, low) + 1, (), generator=self.generator))


def _head_course(t: int, onset: int, apex: int, end: int, offset: int, random: _Random) -> Tensor:
    """Where the head is, 0 to 1: it goes with the expression, and returns (or stays there)."""
    go, arrive = onset + random.whole(-4, 3), apex + random.whole(-2, 6)
    back, home = end + random.whole(-2, 4), offset + random.whole(-3, 6)
    frame = torch.arange(t, dtype=torch.float32)
    rise = ((frame - go) / max(arrive - go, 4)).clamp(0, 1)
    fall = ((home - frame) / max(home - back, 4)).clamp(0, 1) if random.uniform(0, 1) < 0.7 else torch.ones(t)
    course = torch.minimum(rise, fall)
    return (1 - torch.cos(course * math.pi)) / 2


def _turn_course(t: int, random: _Random) -> Tensor:
    length = random.whole(12, 40)
    start = random.whole(0, max(t - length, 1))
    frame = torch.arange(t, dtype=torch.float32)
    if random.uniform(0, 1) < 0.5:  # there and back
        return (1 - torch.cos(((frame - start) / length).clamp(0, 1) * 2 * math.pi)) / 2
    return (1 - torch.cos(((frame - start) / length).clamp(0, 1) * math.pi)) / 2


_BUMPS = (  # centre, direction, width: what a face does, beside what ``synthetic_clip`` knows
    (("smile", 1.0),),
    (("brow-raise", 1.0),),
    (("brow-lower", 1.0),),
    (("jaw", 1.0), ("smile", 0.4)),
    (("grimace", 1.0), ("brow-lower", 0.6)),
)
_OWN = {
    "jaw": [((0.0, 1.25), (0.0, 1.0), (0.5, 0.3))],
    "grimace": [((0.42, 0.95), (0.2, -1.0), (0.3, 0.35)), ((0.15, 0.45), (0.1, -0.7), (0.15, 0.2))],
}


def _expression_field(movement: int, places: Tensor, random: _Random) -> Tensor:
    field = torch.zeros_like(places)
    for name, share in _BUMPS[movement]:
        if name in _OWN:
            part = torch.zeros_like(places)
            for (x, y), (dx, dy), widths in _OWN[name]:
                for mirror in (1, -1) if x else (1,):
                    bump = made._bump(places, (mirror * x, y), widths)
                    part = part + bump[..., None] * torch.tensor([mirror * dx, dy])
            part = part / part.square().sum(-1).max().sqrt()
        else:
            part = made._field(name, places)
        field = field + share * part
    # No face is even: one side goes farther.
    uneven = 1 + random.uniform(-0.3, 0.3) * torch.tanh(3 * places[..., :1])
    return field * uneven / field.square().sum(-1).max().sqrt()


def _render(
    face: Face,
    size: int,
    t: int,
    random: _Random,
    *,
    extent: Tensor,
    movement: int,
    amplitude: float,
    head: Tensor,
    head_pixels: float,
    parallax: bool = False,
    nod: bool = False,
    folds: bool = False,
    blinks: list[int] | None = None,
    wink: int | None = None,
    flicker: float = 0.0,
    sway: float = 0.0,
    turned: Tensor | None = None,
) -> Tensor:
    portrait, eyes = face
    image, sight = made._portrait(portrait, eyes)
    places = made._face_places(size)
    x, y = places.unbind(-1)
    field = _expression_field(movement, places, random) * amplitude
    angle = random.uniform(0, 2 * math.pi)
    direction = torch.tensor([math.cos(angle), math.sin(angle)])
    head_field = direction.expand(size, size, 2) * head_pixels
    if nod:
        head_field = made._nod_field(places) * head_pixels
    if not parallax:  # the picture turns and comes nearer a little as it shifts
        turn, zoom = random.uniform(-0.04, 0.04), random.uniform(-0.04, 0.04)
        spin = torch.stack((zoom * x - turn * (y - 0.5), turn * x + zoom * (y - 0.5)), -1)
        head_field = head_field + spin * head_pixels
    else:
        inside = torch.sigmoid((1 - ((x / 1.15) ** 2 + ((y - 0.35) / 1.6) ** 2).sqrt()) * 8)
        depth = 1 + 0.35 * made._bump(places, (0.0, 0.5), (0.5, 0.7))
        head_field = head_field * (inside * depth)[..., None]
    lid = made._lid_field(places, size / made._CROP)
    lids = torch.zeros(t)
    for first in blinks or []:
        lids = torch.maximum(lids, made._blink_profile(t, first, random.whole(6, 10)))
    one_lid = torch.zeros(t)
    if wink is not None:
        one_lid = made._blink_profile(t, wink, random.whole(10, 16))
    side = (x > 0).float() if random.uniform(0, 1) < 0.5 else (x < 0).float()
    noise, light = random.uniform(0.5, 2.5), random.uniform(0, 2 * math.pi)
    unsteady = torch.cumsum(torch.randn(t, 2, generator=random.generator), 0)
    unsteady = (unsteady - unsteady.mean(0)) / unsteady.abs().amax().clamp(min=1e-6) * sway
    parts = []
    for part in torch.split(torch.arange(t), 16):
        at = (part, None, None, None)
        moved = extent[at] * field + head[at] * head_field + lids[at] * lid + one_lid[at] * lid * side[..., None]
        moved = moved + unsteady[part, None, None, :]
        if turned is not None:
            moved = moved + _turned(turned[part], places) * size / made._CROP
        frames = made._warp(image, sight, size, moved)
        frames = made._cover_eyes(frames, lids[part], places)
        if wink is not None:
            shut = made._cover_eyes(frames, one_lid[part], places)
            frames = frames + side * (shut - frames)
        if folds:
            frames = _appearance(frames, extent[part], places)
        parts.append(frames)
    frames = torch.cat(parts)
    frames = frames * (1 + flicker * torch.sin(torch.arange(t) * 1.37 + light))[:, None, None, None]
    frames = frames + noise * torch.randn(frames.shape, generator=random.generator)
    pixels = frames.round().clamp(0, 255).to(torch.uint8)
    if random.uniform(0, 1) < 0.5:
        quality = random.whole(60, 95)
        pixels = torch.stack([made._compress(frame, quality) for frame in pixels])
    return pixels


def _turned(angle: Tensor, places: Tensor) -> Tensor:
    """Displacement ``(t, h, w, 2)`` in distances between the eyes of a head that is turned by angles ``(t,)``.

    The face is the front of a cylinder before a still background; what turns into view is drawn out from its edge.
    """
    x, y = places.unbind(-1)
    radius = 1.35
    across = (x / radius).clamp(-1, 1).asin()
    came_from = radius * torch.sin((across - angle[:, None, None]).clamp(-math.pi / 2, math.pi / 2))
    inside = torch.sigmoid((1 - ((x / 1.2) ** 2 + ((y - 0.35) / 1.7) ** 2).sqrt()) * 12)
    shift = inside * (x.clamp(-radius, radius) - came_from)
    return torch.stack((shift, torch.zeros_like(shift)), -1)


def _appearance(frames: Tensor, extent: Tensor, places: Tensor) -> Tensor:
    """Folds beside the mouth darken, and the lips part over teeth, as far as the expression goes."""
    x, y = places.unbind(-1)
    fold = torch.exp(-(((x.abs() - 0.42 - 0.35 * (y - 0.6)) / 0.05) ** 2)) * torch.sigmoid((0.4 - (y - 0.8).abs()) * 20)
    frames = frames * (1 - 0.35 * fold * extent[:, None, None, None])
    open_ = 0.02 + 0.13 * extent[:, None, None, None]
    radius = ((x / 0.42) ** 2 + ((y - 1.06) / open_) ** 2).sqrt()
    mouth = torch.sigmoid((1 - radius) * 6) * extent[:, None, None, None].clamp(max=1).sqrt()
    teeth = torch.sigmoid((1 - ((x / 0.36) ** 2 + ((y - 1.04) / (0.6 * open_)) ** 2).sqrt()) * 6)
    colour = 60 + 165 * teeth
    return frames + 0.9 * mouth * (colour - frames)
