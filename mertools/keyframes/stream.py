"""Key frames of clips that are read frame by frame: a long recording never lies in one tensor.

A path or an iterator of frames is read once. As long as its frames fit the budget they are kept, and the result is that
of the call with a tensor. Beyond it

- the robust search keeps what it looks at anyway, a small grey picture of each frame, so that the key frames are the
  same. When even these outgrow the budget, neighbours are averaged and the key frames are exact to that many frames; a
  path is then read once more around them, at full rate;
- the published search keeps the frames of its windows, which the annotation gives.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from mertools._checks import channels_first
from mertools.clips.read import boxed, chosen_frames, clip_frames
from mertools.keyframes.distance import distance_between
from mertools.keyframes.records import KeyFrames
from mertools.keyframes.robust import Found, key_frames_of_pictures, nothing_moves, search_range
from mertools.keyframes.windows import Fractions, search_window_frames, window_frames
from mertools.movement.pictures import is_picture, small_frames

__all__: list[str] = []

Keys = tuple[int, int, int]
Source = str | os.PathLike[str] | Iterable[Tensor]
_FORMS = 4  # in which the search holds the small pictures at once


def stream_key_frames(
    source: Source,
    search: Callable[[Tensor], KeyFrames],
    keys: Keys | None,
    memory: int,
    box: Sequence[int] | None = None,
) -> KeyFrames:
    """Robust key frames of the one clip that ``source`` yields, a batch of one.

    Args:
        source: a video file, a folder of frames, or an iterable of frames ``(c, h, w)``.
        search: what finds them in a clip ``(1, t, ...)`` that fits.
        keys: onset, apex and offset of an annotation; offset -1 is the last frame.
        memory: budget in bytes.
        box: the part of the pictures that is searched.
    """
    held, frames = _fitting(source, memory, box)
    if frames is None:
        return search(torch.stack(held)[None])
    if not is_picture(held[0].shape):
        raise ValueError(
            f"memory must hold all frames unless they are pictures (c, h, w), got {memory} bytes and frames of shape "
            f"{tuple(held[0].shape)}: pass a larger memory"
        )
    first, moves, small = held[0], False, _SmallFrames(memory)
    for frame in chain(_emptied(held), frames):
        moves = moves or not torch.equal(frame, first)
        small.add(frame)
    t, pictures, stride = small.count, small.stacked(), small.stride
    annotation = None if keys is None else (keys[0], keys[1], keys[2] if keys[2] >= 0 else t - 1)
    if annotation is not None and not annotation[2] < t:
        raise ValueError(f"onset, apex, offset of clip 0 are out of range: got {annotation} in a clip of {t} frames")
    if not moves:
        return _key_frames(nothing_moves(t, annotation), torch.zeros(()))
    scaled = None if annotation is None else (annotation[0] // stride, annotation[1] // stride, annotation[2] // stride)
    reach = search_range(len(pictures), scaled)
    found = key_frames_of_pictures(pictures[reach.start : reach.stop], reach, scaled)
    onset, apex, offset = (min(key * stride + (stride - 1) // 2, t - 1) for key in found[:3])
    first_width, apex_width, last_width = (stride * width for width in found.spread)
    found = Found(onset, apex, offset, found.evidence, (first_width, apex_width, last_width), (apex, apex))
    if not isinstance(source, (str, os.PathLike)):
        change = (pictures[onset // stride] - pictures[apex // stride]).double().norm()
        pixels = first.numel() / pictures[0].numel()
        return _key_frames(found, change * pixels**0.5)
    if stride > 1:
        reach = search_range(t, (onset, apex, offset))
        frames = clip_frames(source, start=reach.start, stop=reach.stop, box=box)
        again = torch.cat([small_frames(frame[None]) for frame in frames])
        found = key_frames_of_pictures(again, reach, (onset, apex, offset))
    pair = [next(clip_frames(source, start=i, stop=i + 1, box=box)) for i in (found.onset, found.apex)]
    return _key_frames(found, distance_between(*pair))


def stream_windows(
    source: Source,
    search: Callable[[Tensor], KeyFrames],
    keys: Keys | None,
    windows: Fractions,
    distance: Callable[[Tensor], Tensor] | None,
    memory: int,
    box: Sequence[int] | None = None,
) -> KeyFrames:
    """Key frames by the published search, of a clip of which only the windows need fit.

    Args:
        source: a video file, a folder of frames, or an iterable of frames.
        search: what finds them in a clip ``(1, t, ...)`` that fits.
        keys: the annotation; offset -1 is the last frame. None when all frames must fit.
        windows: of onset, apex and offset, as fractions.
        distance: one's own, or None for L2.
        memory: budget in bytes.
        box: the part of the pictures that is searched.
    """
    if isinstance(source, (str, os.PathLike)) and Path(source).is_dir() and keys is not None and keys[2] >= 0:
        frames = chosen_frames(source, window_frames(keys, windows), box=box)  # no other need be decoded
        return _published(frames, keys, windows, distance, memory)
    held, more = _fitting(source, memory, box)
    if more is None:
        return search(torch.stack(held)[None])
    if keys is None or keys[2] < 0:
        fix = "pass a larger memory" if keys is None else "pass the annotation's offset, or a larger memory"
        raise ValueError(f"memory must hold all frames of this search, {memory} bytes do not: {fix}")
    wanted = set(window_frames(keys, windows))
    rest = enumerate(chain(_emptied(held), more))
    return _published((frame for i, frame in rest if i in wanted), keys, windows, distance, memory)


def _published(
    frames: Iterable[Tensor],
    keys: Keys,
    windows: Fractions,
    distance: Callable[[Tensor], Tensor] | None,
    memory: int,
) -> KeyFrames:
    """The published search on the frames of the windows only."""
    places = window_frames(keys, windows)
    kept: list[Tensor] = []
    for frame in frames:
        kept.append(frame)
        if 2 * len(places) * frame.nbytes > memory:
            raise ValueError(
                f"memory must hold the {len(places)} frames of the windows twice, {memory} bytes do not: "
                "pass a larger memory"
            )
    if len(kept) < len(places):
        raise ValueError(f"onset, apex, offset of clip 0 are out of range: got {keys}, the clip ends before")
    return search_window_frames(torch.stack(kept), places, keys, windows, distance)


def _emptied(held: list[Tensor]) -> Iterator[Tensor]:
    """The frames of a list that lets go of them."""
    held.reverse()
    while held:
        yield held.pop()


def _fitting(source: Source, memory: int, box: Sequence[int] | None) -> tuple[list[Tensor], Iterator[Tensor] | None]:
    """The first frames, and the rest when they do not all fit; held as they come and once more as a clip."""
    frames = _frames(source, box)
    held: list[Tensor] = []
    for frame in frames:
        held.append(frame)
        if 2 * len(held) * frame.nbytes > memory:
            return held, frames
    if not held:
        raise ValueError("frames must yield at least 2 frames, there was none")
    if len(held) < 2 and isinstance(source, (str, os.PathLike)):
        raise ValueError(f"frames must hold at least 2 frames, there is 1 in {source}")
    return held, None


def _frames(source: Source, box: Sequence[int] | None) -> Iterator[Tensor]:
    if isinstance(source, (str, os.PathLike)):
        yield from clip_frames(source, box=box)
        return
    for frame in alike_frames(source):
        yield frame if box is None else boxed(frame, box)


def alike_frames(frames: Iterable[object]) -> Iterator[Tensor]:
    """Frames that somebody yields, each refused if it is no finite image of the type and shape of the first."""
    first: Tensor | None = None
    for i, frame in enumerate(frames):
        if not isinstance(frame, Tensor):
            mend = ": torch.from_numpy(frame).permute(2, 0, 1) makes one" if hasattr(frame, "shape") else ""
            raise TypeError(
                f"frames must be a tensor (b, t, ...), a path, or yield tensors, got {type(frame).__name__}{mend}"
            )
        if first is None and (frame.ndim > 3 or (turned := channels_first("frame", tuple(frame.shape)))):
            mend = "search one clip at a time, clip[None]" if frame.ndim > 3 else turned.removeprefix(": ")
            raise ValueError(f"frames must yield images (c, h, w), got shape {tuple(frame.shape)}: {mend}")
        first = frame if first is None else first
        if frame.shape != first.shape or frame.dtype != first.dtype:
            raise ValueError(
                f"frames must be alike, got {frame.dtype} {tuple(frame.shape)} at frame {i} "
                f"after {first.dtype} {tuple(first.shape)}"
            )
        if frame.is_floating_point() and not bool(torch.isfinite(frame).all()):
            raise ValueError(f"frames must be finite, got {frame[~torch.isfinite(frame)][0].item()} at frame {i}")
        yield frame


def _key_frames(found: Found, score: Tensor) -> KeyFrames:
    onset, apex, offset = (torch.tensor([key], device=score.device) for key in found[:3])
    evidence, spread = (torch.tensor([x], dtype=torch.float32, device=score.device) for x in found[3:5])
    return KeyFrames(onset, apex, offset, score.double()[None], evidence, spread)


class _SmallFrames:
    """Small pictures of all frames, averaged over ``stride`` neighbours when they outgrow the memory."""

    def __init__(self, memory: int) -> None:
        self.memory, self.stride, self.count = memory, 1, 0
        self.pictures: list[Tensor] = []
        self.pending: list[Tensor] = []

    def add(self, frame: Tensor) -> None:
        self.count += 1
        self.pending.append(small_frames(frame[None])[0])
        if len(self.pending) == self.stride:
            self._settle()
        if self.pictures and _FORMS * len(self.pictures) * self.pictures[0].nbytes > self.memory:
            odd = self.pictures.pop() if len(self.pictures) % 2 else None
            pairs = zip(self.pictures[::2], self.pictures[1::2], strict=True)
            self.pictures = [(first + second) / 2 for first, second in pairs]
            if odd is not None:
                self.pending = [odd] * self.stride + self.pending
            self.stride *= 2

    def stacked(self) -> Tensor:
        if self.pending:
            self._settle()
        return torch.stack(self.pictures)

    def _settle(self) -> None:
        one = len(self.pending) == 1
        self.pictures.append(self.pending[0] if one else torch.stack(self.pending).mean(0))
        self.pending = []
