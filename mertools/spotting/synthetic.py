"""Long videos with known expressions: a portrait that moves the way people before a camera do, frame by frame.

What :func:`mertools.synthetic_clip` does for one movement, for a recording of any length: expressions at given times,
blinks, nods, a head that wanders, speech, cuts, light and noise. Frames are rendered as they are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from mertools._checks import check_count, check_number
from mertools.clips.synthetic import (
    _blink_profile,
    _bump,
    _cover_eyes,
    _face_places,
    _field,
    _lid_field,
    _nod_field,
    _portrait,
    _warp,
)

__all__ = ["SyntheticExpression", "SyntheticVideo"]

_PART = 32  # frames rendered at once
_BLINK = 8  # frames


class SyntheticExpression(NamedTuple):
    """One movement of a :class:`SyntheticVideo`, key frames from 0.

    Args:
        onset: the last frame at rest.
        apex: the first frame of full extent.
        apex_end: the last frame of full extent.
        offset: the first frame at rest again.
        movement: one of :func:`synthetic_clip`.
        amplitude: its largest displacement in pixels.

    Examples:
        >>> SyntheticExpression(60, 68, 80, 92, "brow-raise").offset
        92
    """

    onset: int
    apex: int
    apex_end: int
    offset: int
    movement: str = "smile"
    amplitude: float = 2.0


@dataclass(frozen=True)
class SyntheticVideo:
    """A long video and the truth about it; iterating renders frames ``(3, size, size)`` uint8 RGB, again each time.

    Args:
        num_frames: how long it is.
        expressions: the movements; those that overlap add up.
        portrait: a face ``(3, h, w)`` uint8; default the drawn one.
        eyes: where its eyes are, see :func:`mertools.synthetic_clip`.
        size: side of the frames.
        noise: standard deviation of the sensor noise, in grey levels.
        drift: how far the head wanders off and back, in pixels.
        flicker: relative amplitude of the light's flicker.
        blinks: first frame of each blink.
        nods: of each, the first frame, the number of frames, and how far in pixels.
        speech: first frame and first frame after each stretch in which the mouth moves as in speech.
        cuts: first frames after a hard cut: another framing of the face, another exposure.
        seed: of all that is random.

    Examples:
        >>> video = SyntheticVideo(40, [SyntheticExpression(10, 16, 20, 28)], size=48)
        >>> next(iter(video)).shape, len(list(video))
        (torch.Size([3, 48, 48]), 40)
    """

    num_frames: int
    expressions: Sequence[SyntheticExpression] = ()
    portrait: Tensor | None = None
    eyes: tuple[tuple[float, float], tuple[float, float]] | None = None
    size: int = 112
    noise: float = 1.0
    drift: float = 0.0
    flicker: float = 0.0
    blinks: Sequence[int] = ()
    nods: Sequence[tuple[int, int, float]] = ()
    speech: Sequence[tuple[int, int]] = ()
    cuts: Sequence[int] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("num_frames", self.num_frames)
        check_count("size", self.size, least=16)
        for name in ("noise", "drift", "flicker"):
            check_number(name, getattr(self, name), 0)
        for one in self.expressions:
            if not one.onset < one.apex <= one.apex_end < one.offset:
                raise ValueError(f"expressions must have onset < apex <= apex_end < offset, got {one}")

    @property
    def intervals(self) -> list[tuple[int, int]]:
        """Onset and offset of every expression, within the video."""
        return [(max(one.onset, 0), min(one.offset, self.num_frames - 1)) for one in self.expressions]

    def __iter__(self) -> Iterator[Tensor]:
        random = torch.Generator().manual_seed(self.seed)
        phase = torch.rand(8, generator=random) * 2 * math.pi
        face, eyes = _portrait(self.portrait, self.eyes)
        places = _face_places(self.size)
        fields = {one.movement: _field(one.movement, places) for one in self.expressions}
        lid, nod, jaw = _lid_field(places, self.size / 3.0), _nod_field(places), _jaw_field(places)
        bounds = [0, *sorted(self.cuts), self.num_frames]
        syllables = self._syllables(random)
        for shot, (first, last) in enumerate(pairwise(bounds)):
            seen, exposure = (eyes, 1.0) if shot == 0 else _reframed(eyes, random)
            for start in range(first, last, _PART):
                frame = torch.arange(start, min(start + _PART, last), dtype=torch.float32)
                moved = torch.zeros(len(frame), self.size, self.size, 2)
                for one in self.expressions:
                    extent = one.amplitude * _extent(frame, one)
                    if bool(extent.any()):
                        moved += extent.view(-1, 1, 1, 1) * fields[one.movement]
                lids = torch.zeros(len(frame))
                for begin in self.blinks:
                    if begin - 1 <= float(frame[-1]) and float(frame[0]) <= begin + _BLINK:
                        profile = _blink_profile(int(frame[-1]) + 1, begin, _BLINK)[int(frame[0]) :]
                        lids = torch.maximum(lids, profile)
                if bool(lids.any()):
                    moved += lids.view(-1, 1, 1, 1) * lid
                for begin, length, pixels in self.nods:
                    swing = (1 - torch.cos(((frame - begin) / length).clamp(0, 1) * 2 * math.pi)) / 2
                    if bool(swing.any()):
                        moved += (pixels * swing).view(-1, 1, 1, 1) * nod
                if self.speech:
                    moved += syllables[start : start + len(frame)].view(-1, 1, 1, 1) * jaw
                moved += (self.drift * _wander(frame, phase)).view(-1, 1, 1, 2)
                image = _cover_eyes(_warp(face, seen, self.size, moved), lids, places)
                light = exposure * (1 + self.flicker * torch.sin(frame * 1.37 + phase[7]))
                image = image * light.view(-1, 1, 1, 1)
                if self.noise:
                    image = image + self.noise * torch.randn(image.shape, generator=random)
                yield from image.round().clamp(0, 255).to(torch.uint8)

    def _syllables(self, random: torch.Generator) -> Tensor:
        """How far the mouth is open in each frame, in pixels: three to six syllables a second at 30 fps."""
        opening = torch.zeros(self.num_frames)
        for begin, end in self.speech:
            at = begin
            while at < min(end, self.num_frames):
                length = int(torch.randint(5, 11, (), generator=random))
                height = (0.4 + 0.6 * float(torch.rand((), generator=random))) * 2.5 * self.size / 112
                frame = torch.arange(at, min(at + length, self.num_frames))
                opening[frame] = height * (1 - torch.cos((frame - at) / length * 2 * math.pi)) / 2
                at += length
        return opening


def _extent(frame: Tensor, one: SyntheticExpression) -> Tensor:
    rise = ((frame - one.onset) / (one.apex - one.onset)).clamp(0, 1)
    fall = ((one.offset - frame) / (one.offset - one.apex_end)).clamp(0, 1)
    return (1 - torch.cos(torch.minimum(rise, fall) * math.pi)) / 2


def _wander(frame: Tensor, phase: Tensor) -> Tensor:
    """A slow way ``(t, 2)`` of about one: two swings of 17 and 41 s at 30 fps on each axis."""
    slow, slower = frame / 510 * 2 * math.pi, frame / 1230 * 2 * math.pi
    return torch.stack([0.4 * torch.sin(slow + phase[i]) + 0.6 * torch.sin(slower + phase[i + 2]) for i in (0, 1)], -1)


def _jaw_field(places: Tensor) -> Tensor:
    """The lower lip and chin go down, the upper lip a little up: ``(h, w, 2)``."""
    down = _bump(places, (0.0, 1.25), (0.45, 0.22)) - 0.25 * _bump(places, (0.0, 0.98), (0.35, 0.08))
    return torch.stack((torch.zeros_like(down), down), -1)


def _reframed(eyes: Tensor, random: torch.Generator) -> tuple[Tensor, float]:
    """Another framing, nearer or farther and shifted, and another exposure."""
    draw = torch.rand(4, generator=random) * 2 - 1
    middle, half = eyes.mean(0), (eyes[1] - eyes[0]) / 2 * (1 + 0.12 * float(draw[0]))
    shift = 0.2 * draw[1:3] * (eyes[1] - eyes[0]).norm()
    middle = middle + shift
    return torch.stack((middle - half, middle + half)), float(1 + 0.1 * draw[3])
