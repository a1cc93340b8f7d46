"""Spotting: every expression of a video of any length, in one pass, within a bounded memory.

Frames become small grey pictures as they come. Stretches of 256 of them, each 120 after the one before, are searched
for movements of up to 96 frames; so are stretches of means of 2, 4, 8 ... frames, for longer ones. Of what overlaps the
clearest is kept, and an expression is handed on as soon as nothing in the video that is still to come can change that.
A hard cut ends all stretches: nothing spans it.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mertools._checks import channels_first, check_count, check_number
from mertools.clips.read import boxed, clip_frames
from mertools.keyframes.stream import alike_frames
from mertools.movement.motion import clip_motion, picture_motion
from mertools.movement.pictures import is_picture, small_frames
from mertools.spotting.framing import watched
from mertools.spotting.landmarks import landmark_fps, read_landmarks
from mertools.spotting.movements import FOUND, LONGEST, MARGIN, Movement, best_disjoint, find_movements
from mertools.spotting.record import Expression

__all__ = ["iter_expressions", "spot_expressions", "video_fps"]

Source: TypeAlias = Tensor | str | os.PathLike[str] | Iterable[Tensor]

_MEMORY = 512 * 2**20  # bytes
_STRETCH = 256  # frames searched at once
_STEP = _STRETCH - LONGEST - 2 * MARGIN  # so that every movement lies whole in one of them, with rest beside it
_LEVELS = 5  # means of 1, 2, 4, 8, 16 frames
_FORMS = 5  # in which a stretch is held at once, while it is searched
_NEAR_CUT, _CUT, _CONTRAST = 5, 4.0, 0.1  # frames beside a cut, how far it stands out, and of the picture's contrast
# Of a stretch of ten seconds rest is most, so that a movement's remainder stands out as a blink's does; but a blink's
# is of the order of the energy of its displacement, or larger.
_BENT, _FAINT = 0.5, 0.1
_BLINKS = 50  # patterns that are remembered
_STILL = 1e-4  # of its error: nothing moves


def spot_expressions(
    frames: Source,
    *,
    fps: float | None = None,
    shortest: float | None = None,
    longest: float | None = None,
    box: Sequence[int] | None = None,
    memory: int = _MEMORY,
) -> list[Expression]:
    """Find every expression of a video: each movement of the face that rises, holds and falls, with its key frames.

    Blinks, head motion, speech, light and hard cuts are told apart. Neighbours that share a rest come out as two, an
    expression that is held for seconds as one; the first and last may be cut off by the video's ends. Nothing has to be
    set; ``longest=0.5`` leaves micro-expressions only.

    Args:
        frames: one clip ``(t, c, h, w)`` (or landmarks ``(t, n, 2)``, flow ``(t, 2, h, w)``), a video file, a folder
            of frames, a table of landmarks (csv of OpenFace or py-feat), or an iterable of frames ``(c, h, w)``. A face
            fills most of the picture, or of its middle square.
        fps: frames per second; a video file knows its own.
        shortest: seconds from onset to offset, both included, that an expression lasts at least.
        longest: seconds that it lasts at most.
        box: ``(x, y, width, height)`` of the face in the picture, in pixels; see :func:`face_box`.
        memory: bytes for pictures. Movements of up to 96 frames need about 70 MB, each doubling 13 MB more, up to 1536
            frames.

    Shape:
        - frames: ``(t, c, h, w)``, uint8 or floating, any range

    Returns:
        The expressions in order of their onset, disjoint.

    Raises:
        FileNotFoundError: there is nothing at a path.
        TypeError: frames of the wrong kind.
        ValueError: fewer than two frames, frames that differ in shape or hold NaN, seconds without fps, too little
            memory.

    Examples:
        >>> from mertools import synthetic_clip
        >>> clip = synthetic_clip(num_frames=90, onset=30, apex=38, offset=60, size=112)
        >>> [(one.onset, one.offset) for one in spot_expressions(clip.frames)]
        [(30, 60)]
    """
    return list(iter_expressions(frames, fps=fps, shortest=shortest, longest=longest, box=box, memory=memory))


def iter_expressions(
    frames: Source,
    *,
    fps: float | None = None,
    shortest: float | None = None,
    longest: float | None = None,
    box: Sequence[int] | None = None,
    memory: int = _MEMORY,
) -> Iterator[Expression]:
    """:func:`spot_expressions` for streams: yields each expression some seconds after it is over.

    An expression is handed on once 136 frames from its onset on, and up to 120 more, are seen (for longer ones as many
    times more as they are longer); what is yielded is what the list would hold. Takes frames, fps, shortest, longest,
    box and memory, and raises, as :func:`spot_expressions` does.

    Examples:
        >>> from mertools import SyntheticExpression, SyntheticVideo
        >>> video = SyntheticVideo(90, [SyntheticExpression(30, 38, 50, 60)], size=64)
        >>> next(iter_expressions(iter(video))).onset
        30
    """
    memory = check_count("memory", memory)
    for name, value in (("fps", fps), ("shortest", shortest), ("longest", longest)):
        if value is not None and check_number(name, value, 0) == 0 and name != "shortest":
            raise ValueError(f"{name} must be above 0, got {value}")
    if fps is None and isinstance(frames, (str, os.PathLike)):
        fps = video_fps(frames)
    if fps is None and (shortest is not None or longest is not None):
        name = "shortest" if shortest is not None else "longest"
        raise ValueError(f"{name} is in seconds, which needs fps: pass fps=, the frames per second")
    if shortest is not None and longest is not None and shortest > longest:
        raise ValueError(f"shortest must not exceed longest, got {shortest} and {longest}")
    limits = (0.0 if shortest is None else shortest, float("inf") if longest is None else longest)
    rate = 1.0 if fps is None else float(fps)
    found = _spotted(_frames(frames, box), memory, watch=box is None)
    return (one for one in found if limits[0] <= (one.offset - one.onset + 1) / rate <= limits[1])


def video_fps(path: str | os.PathLike[str]) -> float | None:
    """Frames per second that a video file or a table of landmarks states; None for a folder, or without."""
    if not Path(path).is_file():
        return None
    if _is_table(path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are told when the frames are read
            return landmark_fps(path)
    import cv2

    capture = cv2.VideoCapture(str(Path(path).absolute()))
    try:
        stated = float(capture.get(cv2.CAP_PROP_FPS)) if capture.isOpened() else 0.0
    finally:
        capture.release()
    return stated if 0 < stated < 10_000 else None


def video_frames(path: str | os.PathLike[str], box: Sequence[int] | None = None) -> Iterator[Tensor]:
    """The frames of a video file or a folder, or the landmarks of a table."""
    if not _is_table(path):
        return clip_frames(path, box=box)
    if box is not None:
        raise ValueError("box must be None for landmarks")
    return iter(read_landmarks(path))


def _is_table(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix.lower() == ".csv"


# --- frames ---------------------------------------------------------------------------------------------------------


def _frames(source: Source, box: Sequence[int] | None) -> Iterator[Tensor]:
    """The frames one by one, checked; of each what lies in the box."""
    if isinstance(source, Tensor):
        if source.ndim < 3:
            raise ValueError(f"frames must be one clip (t, c, h, w), got shape {tuple(source.shape)}")
        if source.ndim == 4 and (turn := channels_first("frames", tuple(source.shape))):
            raise ValueError(f"frames must be one clip (t, c, h, w), got shape {tuple(source.shape)}{turn}")
        if source.ndim == 5:
            raise ValueError(
                f"frames must be one clip (t, c, h, w), got a batch of shape {tuple(source.shape)}: pass frames[0]"
            )
        if source.dtype != torch.uint8 and not source.is_floating_point():
            raise TypeError(f"frames must be uint8 or floating, got {source.dtype}: convert them with frames.float()")
        if 0 in source.shape[1:]:
            raise ValueError(f"frames must not be empty, got shape {tuple(source.shape)}")
        return _alike(iter(source if box is None else boxed(source, box)))
    if isinstance(source, (str, os.PathLike)):
        return _alike(video_frames(source, box))
    if not isinstance(source, Iterable):
        raise TypeError(f"frames must be a tensor (t, c, h, w), a path, or yield tensors, got {type(source).__name__}")
    frames = _alike(iter(source))
    return frames if box is None else (boxed(frame, box) for frame in frames)


def _alike(frames: Iterable[object]) -> Iterator[Tensor]:
    count = 0
    for frame in alike_frames(frames):
        count += 1
        yield frame
    if count < 2:
        raise ValueError(f"frames must hold at least 2 frames, got {count}")


def _shots(pictures: Iterator[Tensor]) -> Iterator[tuple[Tensor, bool]]:
    """Each picture, and whether it is the first after a hard cut: a change that stands alone among its neighbours."""
    window: deque[tuple[Tensor, float]] = deque()  # pictures with their change, five on either side of the next
    handed_on, before = 0, None

    def next_one() -> tuple[Tensor, bool]:
        nonlocal handed_on
        changes = [change for _, change in window]
        here, others = changes.pop(handed_on), changes
        picture = window[handed_on][0]
        cut = here > 0 and here > _CUT * max(others, default=0.0)
        if handed_on < _NEAR_CUT:
            handed_on += 1
        else:
            window.popleft()
        return picture, cut

    for picture in pictures:
        coarse = F.avg_pool2d(picture[None, None], 4)[0, 0]
        coarse = coarse - coarse.mean()
        change = 0.0 if before is None else float((coarse - before).abs().mean())
        before = coarse
        window.append((picture, change if change > _CONTRAST * float(coarse.square().mean().sqrt()) else change / _CUT))
        if len(window) > handed_on + _NEAR_CUT:
            yield next_one()
    while handed_on < len(window):
        yield next_one()


# --- the search -----------------------------------------------------------------------------------------------------


def _spotted(frames: Iterator[Tensor], memory: int, watch: bool) -> Iterator[Expression]:
    first = next(frames, None)
    if first is None:
        return
    pictures = is_picture(first.shape)
    search = _Shot(0, memory, pictures)
    every: Iterator[Tensor] = chain((first,), frames)
    if watch and pictures:
        every = watched(every)
    small = (small_frames(frame[None])[0] for frame in every) if pictures else (frame.float() for frame in every)
    for index, (picture, cut) in enumerate(_shots(small) if pictures else ((frame, False) for frame in small)):
        if cut:
            yield from search.finish()
            search = _Shot(index, memory, pictures)
        yield from search.add(picture)
    yield from search.finish()


class _Shot:
    """The search of the frames between two hard cuts."""

    def __init__(self, start: int, memory: int, pictures: bool) -> None:
        self.start, self.now, self.memory = start, start, memory
        self.levels: list[_Level] = []
        self.pool: list[Movement] = []
        self.over = start - 1  # the last frame of what was handed on
        self.pictures = pictures

    def add(self, frame: Tensor) -> Iterator[Expression]:
        if not self.levels:
            self.levels = [_Level(2**k, self.start, self.pictures) for k in range(_fitting(frame, self.memory))]
        self.now += 1
        searched = False
        for level in self.levels:
            found = level.add(frame)
            if found is not None:
                self.pool += found
                searched = searched or level.stride == 1
        if searched:
            yield from self._decided()

    def finish(self) -> Iterator[Expression]:
        for level in self.levels:
            self.pool += level.finish()
        yield from self._decided(at_end=True)

    def _decided(self, at_end: bool = False) -> Iterator[Expression]:
        for one in best_disjoint(self.pool):
            reach = (LONGEST + 2 * MARGIN) * max(1, (one.offset - one.onset) // LONGEST)
            if not at_end and one.onset + reach > self.now:
                break
            onset = max(one.onset, self.over + 1)
            if onset < one.apex:
                self.over = one.offset
                evidence = one.strength / (one.strength + FOUND)
                yield Expression(onset, (one.apex + one.end) // 2, one.offset, evidence, one.spread)
        self.pool = [one for one in self.pool if one.onset > self.over - 2]


class _Level:
    """Stretches of means of ``stride`` frames."""

    def __init__(self, stride: int, start: int, pictures: bool) -> None:
        self.stride, self.begin, self.pictures = stride, start, pictures
        self.frames: list[Tensor] = []
        self.pending: list[Tensor] = []
        self.fresh = 0  # frames since the last search
        self.blinks: list[np.ndarray] = []
        self.begins = True

    def add(self, frame: Tensor) -> list[Movement] | None:
        """What a search finds where it is time for one."""
        self.pending.append(frame)
        if len(self.pending) < self.stride:
            return None
        self.frames.append(self.pending[0] if self.stride == 1 else torch.stack(self.pending).mean(0))
        self.pending.clear()
        self.fresh += 1
        if len(self.frames) < _STRETCH or self.fresh < _STEP:
            return None
        found = self._search(ends=False)
        self.fresh = 0
        del self.frames[:_STEP]
        self.begin += _STEP * self.stride
        self.begins = False
        return found

    def finish(self) -> list[Movement]:
        """What is left to be found at the end."""
        return self._search(ends=True) if self.fresh and self.frames else []

    def _search(self, ends: bool) -> list[Movement]:
        clip = torch.stack(self.frames)
        if len(clip) < 4 or bool((clip == clip[0]).all()):
            return []
        motion = picture_motion(clip, bent=_BENT, faint=_FAINT) if self.pictures else clip_motion(clip)
        if float(np.abs(motion.values).max()) < _STILL:
            return []
        found = find_movements(motion, begins=self.begins, ends=ends, longer=self.stride > 1, blinks=self.blinks)
        del self.blinks[:-_BLINKS]
        return [one.moved(self.begin, self.stride) for one in found]


def _fitting(frame: Tensor, memory: int) -> int:
    """How many levels fit the memory."""
    stretch = _STRETCH * frame.numel() * 4
    levels = min((memory - _FORMS * stretch) // stretch, _LEVELS)
    if levels < 1:
        raise ValueError(f"memory must hold {_STRETCH} small frames, {(_FORMS + 1) * stretch} bytes, got {memory}")
    return levels
