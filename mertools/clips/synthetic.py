"""Clips with known key frames: a portrait, moved the way a face moves.

A smooth local movement (mouth corners, brows) warps a still portrait along a profile that rises from onset to apex,
holds, and falls to the offset. Around it the things that real cameras and people add: sensor noise, compression,
flickering light, an unsteady registration, a head that drifts or nods, blinks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mertools._checks import as_integer, check_choice, check_count, check_number

__all__ = ["SyntheticClip", "drawn_portrait", "synthetic_clip"]

# Where a movement acts and which way the skin goes, in units of the distance between the eyes from the point between
# them (x to the image's right, y down). Mirrored to both sides of the face.
_MOVEMENTS: dict[str, list[tuple[tuple[float, float], tuple[float, float], float]]] = {
    "smile": [((0.46, 1.02), (0.75, -0.66), 0.34)],  # AU12: lip corners out and up
    "brow-raise": [((0.50, -0.34), (0.0, -1.0), 0.36)],  # AU01 + AU02: brows up
    "brow-lower": [((0.26, -0.28), (-0.55, 0.84), 0.28)],  # AU04: brows together and down
}
_CROP = 3.0  # side of the crop in distances between the eyes
_CROP_CENTRE = 0.45  # how far below the eyes it is centred
_BLINK_REACH = 0.15  # how far the lid slides, in distances between the eyes


class SyntheticClip(NamedTuple):
    """A synthetic clip and the truth about it.

    ``frames`` ``(t, 3, h, w)`` uint8 RGB; ``onset``, the last frame at rest before the movement; ``apex`` and
    ``apex_end``, the first and the last frame of full extent; ``offset``, the first frame at rest after it; ``motion``
    ``(t,)`` float32, extent of the movement in each frame, 0 to 1.

    Examples:
        >>> clip = synthetic_clip(size=32)
        >>> clip.onset, clip.apex, clip.offset, clip.motion[clip.apex].item()
        (24, 36, 56, 1.0)
    """

    frames: Tensor
    onset: int
    apex: int
    offset: int
    apex_end: int
    motion: Tensor


def synthetic_clip(
    portrait: Tensor | None = None,
    *,
    eyes: tuple[tuple[float, float], tuple[float, float]] | None = None,
    num_frames: int = 80,
    onset: int = 24,
    apex: int = 36,
    offset: int = 56,
    hold: int = 4,
    movement: str = "smile",
    amplitude: float = 2.0,
    size: int = 128,
    noise: float = 0.0,
    drift: float = 0.0,
    flicker: float = 0.0,
    jitter: float = 0.0,
    nod: float = 0.0,
    blink: int | Sequence[int] | None = None,
    blink_frames: int = 8,
    jpeg: int | None = None,
    seed: int = 0,
) -> SyntheticClip:
    """A clip of a face that moves, with known onset, apex and offset.

    Args:
        portrait: a face, ``(3, h, w)`` uint8 RGB; default :func:`drawn_portrait`.
        eyes: positions ``(x, y)`` of the two eyes in the portrait's pixels, the one on the image's left first; default
            where a tight square crop of a face has them. They set the crop and the places that move.
        num_frames: frames of the clip.
        onset: last frame at rest before the movement, 0-based.
        apex: first frame of full extent.
        offset: first frame at rest after it.
        hold: further frames at full extent after the apex.
        movement: ``"smile"`` (AU12), ``"brow-raise"`` (AU01 + AU02) or ``"brow-lower"`` (AU04).
        amplitude: largest displacement, in pixels of the clip.
        size: side of the clip's square frames, in pixels.
        noise: standard deviation of the sensor noise, in grey levels of 255.
        drift: how far the head drifts in the course of the clip, in pixels.
        flicker: relative amplitude of the light's flicker (0.01 is 1 %).
        jitter: standard deviation of the registration's error, an independent shift of each frame, in pixels.
        nod: how far the head nods once, at a time that the seed draws, in pixels; the chin goes farther than the brow.
        blink: first frame of a blink, or several.
        blink_frames: frames of a blink.
        jpeg: quality of a JPEG compression of every frame, 1 to 100; default none.
        seed: of the noise, the jitter, the nod, and the flicker's and drift's phase.

    Examples:
        >>> clip = synthetic_clip(num_frames=40, onset=10, apex=18, offset=30, size=64)
        >>> clip.frames.shape, clip.onset, clip.apex, clip.offset
        (torch.Size([40, 3, 64, 64]), 10, 18, 30)

    Source: which places move with an action unit is that of FACS (Ekman and Friesen, 1978).
    """
    num_frames, onset, apex, offset, hold, seed = map(
        _integer,
        ("num_frames", "onset", "apex", "offset", "hold", "seed"),
        (num_frames, onset, apex, offset, hold, seed),
    )
    blinks = (
        [] if blink is None else [_integer("blink", b) for b in (blink if isinstance(blink, Iterable) else [blink])]
    )
    _check_timing(num_frames, onset, apex, offset, hold, blinks)
    blink_frames = check_count("blink_frames", blink_frames, least=4)
    check_choice("movement", movement, tuple(_MOVEMENTS))
    size = check_count("size", size, least=16)
    amplitude, noise, drift, flicker, jitter, nod = (
        check_number(name, value, 0)
        for name, value in (
            ("amplitude", amplitude), ("noise", noise), ("drift", drift), ("flicker", flicker), ("jitter", jitter),
            ("nod", nod),
        )
    )  # fmt: skip
    if jpeg is not None and (jpeg := check_count("jpeg", jpeg)) > 100:
        raise ValueError(f"jpeg must be a quality from 1 to 100, or None, got {jpeg}")
    face, sight = _portrait(portrait, eyes)
    random = torch.Generator().manual_seed(seed)
    phase = torch.rand(3, generator=random) * 2 * math.pi

    motion = _profile(num_frames, onset, apex, offset, hold)
    lids = sum((_blink_profile(num_frames, first, blink_frames) for first in blinks), torch.zeros(num_frames))
    lids = lids.clamp(max=1)
    time = torch.arange(num_frames) / max(num_frames - 1, 1)
    # Half a slow swing across the clip, from rest in the first frame, so that `drift` is the distance it covers.
    direction = torch.stack((phase[0].cos(), phase[0].sin()))
    shift = drift * torch.sin(time * math.pi / 2)[:, None] * direction

    iod, places = size / _CROP, _face_places(size)
    field = _field(movement, places) * amplitude
    lid = _lid_field(places, iod)
    # Drawn after the rest, and only when wanted: the clips of other settings stay what they were.
    extra = torch.Generator().manual_seed(seed + 1)
    if jitter:
        shift = shift + jitter * torch.randn(num_frames, 2, generator=extra)
    rendered = []
    nods = nod * _nod_profile(num_frames, torch.rand(2, generator=extra)) if nod else torch.zeros(num_frames)
    for part in torch.split(torch.arange(num_frames), 16):
        moved = motion[part, None, None, None] * field + lids[part, None, None, None] * lid + shift[part, None, None, :]
        if nod:
            moved = moved + nods[part, None, None, None] * _nod_field(places)
        rendered.append(_cover_eyes(_warp(face, sight, size, moved), lids[part], places))
    frames = torch.cat(rendered)
    light = 1 + flicker * torch.sin(torch.arange(num_frames) * 1.37 + phase[1])
    frames = frames * light[:, None, None, None]
    if noise:
        frames = frames + noise * torch.randn(frames.shape, generator=random)
    pixels = frames.round().clamp(0, 255).to(torch.uint8)
    if jpeg is not None:
        pixels = torch.stack([_compress(frame, jpeg) for frame in pixels])
    return SyntheticClip(pixels, onset, apex, offset, min(apex + hold, offset - 1), motion)


def drawn_portrait(size: int = 256) -> Tensor:
    """A drawn face ``(3, size, size)`` uint8 RGB, with the eyes where :func:`synthetic_clip` expects them.

    Examples:
        >>> drawn_portrait(64).shape
        torch.Size([3, 64, 64])
    """
    size = check_count("size", size, least=16)
    x, y = _face_places(size).unbind(-1)
    side = x.abs()

    def inside(cx: float, cy: float, rx: float, ry: float, edge: float = 0.05) -> Tensor:
        """1 within an ellipse around (±cx, cy), 0 outside, with a soft edge."""
        radius = torch.sqrt(((side - cx) / rx) ** 2 + ((y - cy) / ry) ** 2)
        return torch.sigmoid((1 - radius) * max(2 * min(rx, ry) / edge, 6))

    image = torch.tensor([92.0, 112.0, 132.0])[:, None, None] * (1 - 0.12 * y)

    def paint(mask: Tensor, colour: tuple[float, float, float], strength: float = 1.0) -> None:
        nonlocal image
        image = image + strength * mask * (torch.tensor(colour)[:, None, None] - image)

    paint(inside(0, -0.45, 1.18, 1.15), (58, 42, 34))  # hair
    paint(inside(0, 0.45, 1.0, 1.38), (206, 160, 134))  # face
    paint(inside(0.62, 0.62, 0.30, 0.24, 0.2), (214, 138, 118), 0.6)  # cheeks
    paint(inside(0.0, 0.46, 0.13, 0.34, 0.12), (222, 178, 152), 0.7)  # bridge of the nose
    paint(inside(0.12, 0.70, 0.07, 0.05), (150, 98, 84), 0.8)  # nostrils
    paint(inside(0.5, -0.02, 0.27, 0.17, 0.1), (176, 128, 108), 0.6)  # sockets
    paint(inside(0.5, 0.0, 0.20, 0.09), (240, 236, 230))  # eyes
    paint(inside(0.5, 0.0, 0.085, 0.085), (70, 50, 36))  # irises
    paint(inside(0.5, 0.0, 0.035, 0.035, 0.02), (12, 10, 10))  # pupils
    paint(inside(0.5, -0.32, 0.27, 0.05), (62, 44, 36))  # brows
    paint(inside(0, 1.05, 0.46, 0.12), (176, 84, 82))  # lips
    paint(inside(0, 1.04, 0.44, 0.015, 0.02), (92, 38, 42))  # the line between them
    # Skin is not smooth: without texture a movement of the cheek would show nowhere.
    texture = sum(
        torch.sin(a * x + b * y + c) for a, b, c in ((31, 17, 0.3), (-23, 37, 1.1), (47, -29, 2.0), (13, 53, 0.7))
    )
    return (image + 2.5 * texture - 10 * side).round().clamp(0, 255).to(torch.uint8)


# --- time -----------------------------------------------------------------------------------------------------------


def _profile(num_frames: int, onset: int, apex: int, offset: int, hold: int) -> Tensor:
    """Extent of the movement per frame: 0, a smooth rise, 1 while it holds, a smooth fall, 0."""
    frame = torch.arange(num_frames, dtype=torch.float32)
    end = min(apex + hold, offset - 1)
    rise = ((frame - onset) / (apex - onset)).clamp(0, 1)
    fall = ((offset - frame) / (offset - end)).clamp(0, 1)
    extent = torch.minimum(rise, fall)
    return (1 - torch.cos(extent * math.pi)) / 2


def _blink_profile(num_frames: int, first: int, length: int) -> Tensor:
    """The lids close in a third of a blink and open in the rest."""
    frame = torch.arange(num_frames, dtype=torch.float32)
    closing = (frame - first + 1) / 3
    opening = (first + length - frame) / (length - 2)
    return torch.minimum(closing, opening).clamp(0, 1)


def _nod_profile(num_frames: int, draw: Tensor) -> Tensor:
    """Down and back up within 16 to 48 frames, anywhere in the clip."""
    frame = torch.arange(num_frames, dtype=torch.float32)
    half = 8 + 16 * draw[0]
    centre = half + draw[1] * (num_frames - 2 * half).clamp(min=0)
    return (1 + torch.cos(((frame - centre) / half).clamp(-1, 1) * math.pi)) / 2


# --- space ----------------------------------------------------------------------------------------------------------


def _portrait(
    portrait: Tensor | None, eyes: tuple[tuple[float, float], tuple[float, float]] | None
) -> tuple[Tensor, Tensor]:
    """The portrait as float ``(1, 3, h, w)`` and its eyes as ``(2, 2)`` pixel positions (x, y)."""
    if portrait is None:
        portrait = drawn_portrait()
    if not isinstance(portrait, Tensor) or portrait.dtype != torch.uint8:
        got = portrait.dtype if isinstance(portrait, Tensor) else type(portrait).__name__
        raise TypeError(f"portrait must be a uint8 torch.Tensor (3, h, w), got {got}")
    if portrait.ndim != 3 or portrait.shape[0] != 3 or 0 in portrait.shape:
        raise ValueError(f"portrait must be (3, h, w) RGB, got shape {tuple(portrait.shape)}")
    h, w = portrait.shape[1:]
    if eyes is None:
        middle, height, half = w / 2, h * (0.5 - _CROP_CENTRE / _CROP), w / _CROP / 2
        eyes = ((middle - half, height), (middle + half, height))
    try:
        positions = torch.tensor(eyes, dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(f"eyes must be ((x, y), (x, y)), got {eyes!r}") from error
    if not bool(torch.isfinite(positions).all()) or positions.shape != (2, 2) or not positions[0, 0] < positions[1, 0]:
        raise ValueError(f"eyes must be ((x, y), (x, y)), the one on the image's left first, got {eyes}")
    return portrait[None].float(), positions


def _face_places(size: int) -> Tensor:
    """Each pixel's place on the face ``(size, size, 2)``: x and y from between the eyes, in distances between them."""
    axis = (torch.arange(size) + 0.5) / size * _CROP - _CROP / 2
    y, x = torch.meshgrid(axis + _CROP_CENTRE, axis, indexing="ij")
    return torch.stack((x, y), -1)


def _bump(places: Tensor, centre: tuple[float, float], widths: tuple[float, float]) -> Tensor:
    scaled = (places - torch.tensor(centre)) / torch.tensor(widths)
    return torch.exp(-scaled.square().sum(-1) / 2)


def _field(movement: str, places: Tensor) -> Tensor:
    """Displacement of the skin at full extent, ``(h, w, 2)``, its largest length 1."""
    field = torch.zeros_like(places)
    for (x, y), (dx, dy), width in _MOVEMENTS[movement]:
        for mirror in (1, -1):
            bump = _bump(places, (mirror * x, y), (width, width))
            field = field + bump[..., None] * torch.tensor([mirror * dx, dy])
    return field / field.square().sum(-1).max().sqrt()


def _lid_field(places: Tensor, iod: float) -> Tensor:
    """Displacement of the upper lids when the eyes are shut, ``(h, w, 2)`` pixels."""
    lid = _bump(places, (-0.5, 0.02), (0.26, 0.13)) + _bump(places, (0.5, 0.02), (0.26, 0.13))
    return torch.stack((torch.zeros_like(lid), _BLINK_REACH * iod * lid), -1)


def _nod_field(places: Tensor) -> Tensor:
    """Displacement of a nod ``(h, w, 2)``: the face turns down around the neck, so that the lower face goes farther."""
    x, y = places.unbind(-1)
    return torch.stack((0.05 * x * (y - 0.4), 1 + 0.1 * (y - 0.4)), -1)


def _cover_eyes(frames: Tensor, lids: Tensor, places: Tensor) -> Tensor:
    """Lower the lids' skin over the eyes: a warp alone would only squeeze them."""
    if not bool(lids.any()):
        return frames
    x, y = places.unbind(-1)
    side = x.abs() - 0.5
    skin = _bump(places, (-0.5, -0.16), (0.1, 0.03)) + _bump(places, (0.5, -0.16), (0.1, 0.03))
    colour = (frames * skin).sum((2, 3), keepdim=True) / skin.sum()
    edge = -0.12 + 0.22 * lids[:, None, None, None]  # where the lid's rim is
    opening = torch.sigmoid((1 - ((side / 0.23) ** 2 + (y / 0.12) ** 2)) * 6)
    mask = opening * torch.sigmoid((edge - y) * 60) * lids[:, None, None, None].clamp(max=0.9)
    return frames + mask * (colour - frames)


def _compress(frame: Tensor, quality: int) -> Tensor:
    """One ``(3, h, w)`` uint8 frame through JPEG and back."""
    import cv2

    image = np.ascontiguousarray(frame.permute(1, 2, 0).numpy()[..., ::-1])
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return torch.from_numpy(np.ascontiguousarray(decoded[..., ::-1])).permute(2, 0, 1)


def _warp(face: Tensor, eyes: Tensor, size: int, moved: Tensor) -> Tensor:
    """Frames ``(t, 3, size, size)`` float of a face displaced by ``moved`` ``(t, size, size, 2)`` pixels."""
    middle, across = eyes.mean(0), eyes[1] - eyes[0]
    iod = across.norm()
    x, y = _face_places(size).unbind(-1)
    step = _CROP / size  # a pixel of the clip in distances between the eyes
    x, y = x - moved[..., 0] * step, y - moved[..., 1] * step  # what is seen here came from there
    # Along the line of the eyes and across it, in the portrait's pixels.
    right, down = across, torch.stack((-across[1], across[0]))
    source = middle + x[..., None] * right + y[..., None] * down
    h, w = face.shape[2:]
    grid = (source / torch.tensor([w, h]) * 2 - 1).float()
    blurred = _shrink_guard(face, float(iod) * _CROP / size)
    frames = F.grid_sample(
        blurred.expand(len(moved), -1, -1, -1), grid, mode="bicubic", padding_mode="border", align_corners=False
    )
    return frames.clamp(0, 255)


def _shrink_guard(face: Tensor, pixels_per_sample: float) -> Tensor:
    """Low-pass a portrait to what the clip's pixels can hold: it must not alias as it moves by fractions of one."""
    sigma = 0.5 * pixels_per_sample
    reach = min(math.ceil(3 * sigma), min(face.shape[2:]) - 1)
    kernel = torch.exp(-torch.arange(-reach, reach + 1.0).square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).float().expand(3, 1, 1, -1)
    padded = F.pad(face, (reach, reach, reach, reach), mode="reflect")
    blurred: Tensor = F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.mT, groups=3)
    return blurred


# --- what may be passed in ------------------------------------------------------------------------------------------


def _integer(name: str, value: object) -> int:
    number = as_integer(value)
    if number is None:
        raise TypeError(f"{name} must be an int, got {value!r}")
    return number


def _check_timing(num_frames: int, onset: int, apex: int, offset: int, hold: int, blinks: list[int]) -> None:
    if not 0 <= onset < apex < offset:
        raise ValueError(f"onset < apex < offset is needed, got {onset}, {apex}, {offset}")
    if offset >= num_frames:
        raise ValueError(f"offset must lie within the clip of {num_frames} frames, got {offset}")
    if not 0 <= hold < offset - apex:
        raise ValueError(f"hold must leave room for the fall: 0 to {offset - apex - 1} frames, got {hold}")
    for first in blinks:
        if not 0 <= first < num_frames:
            raise ValueError(f"blink must start within the clip of {num_frames} frames, got {first}")
