"""One square box around the face for a whole clip, from any detector.

A box for every frame would move with the detector's noise, and every search for motion would see that. So some frames
are looked at, and one box holds the face in all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mertools._checks import check_number
from mertools.clips.read import clip_frames

__all__ = ["face_box"]

Box: TypeAlias = tuple[int, int, int, int]
Detector: TypeAlias = Callable[[np.ndarray], Any]

_LOOKED_AT = 9  # frames of a clip
_EVERY = 15  # frames of a video or an iterator, which is not known to end, between two that are looked at
_BYSTANDER = 0.5  # of the largest face's side: smaller ones belong to the background
_SURE = 0.7  # score of a face of YuNet's


def face_box(
    frames: Tensor | str | os.PathLike[str] | Iterable[Tensor],
    detector: Detector | str | os.PathLike[str],
    *,
    margin: float = 0.15,
) -> Box:
    """One square box ``(x, y, width, height)`` around the face for a whole clip, in pixels, to pass as ``box=``.

    A ValueError where fewer than half of the frames show a face, or several of similar size.

    Args:
        frames: one clip ``(t, 3, h, w)`` or image ``(3, h, w)``, uint8 RGB, of which nine frames are looked at; or a
            video, a folder or an iterable of frames, of which every fifteenth of the first 135 are.
        detector: a callable from an image, an ``(h, w, 3)`` uint8 RGB array, to a row ``x, y, width, height, ...`` in
            pixels for every face (none, or None, where there is none); or the path of a YuNet ONNX file for
            ``cv2.FaceDetectorYN``.
        margin: room on each side of the face, as a fraction of the face.

    Examples:
        >>> clip = torch.zeros(30, 3, 120, 160, dtype=torch.uint8)
        >>> face_box(clip, lambda image: [(50, 30, 40, 50)], margin=0.1)
        (40, 25, 60, 60)
    """
    check_number("margin", margin, 0, 2)
    images = _images(frames)
    find = detector if callable(detector) else _yunet(detector)
    boxes, seen, shape = [], 0, (0, 0)
    for image in images:
        seen, shape = seen + 1, (image.shape[0], image.shape[1])
        if (box := _face(find(image), seen - 1)) is not None:
            boxes.append(box)
    if 2 * len(boxes) < seen or not boxes:
        there = "no face in any" if not boxes else f"a face in only {len(boxes)}"
        raise ValueError(
            f"frames show {there} of the {seen} frames that were looked at: is the picture upright (rotation), large "
            "enough, the detector made for RGB? A box of your own (x, y, width, height) does as well"
        )
    return _square(np.asarray(boxes), shape, margin)


def _square(boxes: np.ndarray, shape: tuple[int, int], margin: float) -> Box:
    """The square around the boxes that agree, moved into the picture, and no larger than it."""
    centre = boxes[:, :2] + boxes[:, 2:] / 2
    side = float(np.median(boxes[:, 2:].max(1)))
    # What lies more than a face away from the others is another thing.
    near = np.abs(centre - np.median(centre, 0)).max(1) < side
    boxes = boxes[near] if near.any() else boxes
    low, high = boxes[:, :2].min(0), (boxes[:, :2] + boxes[:, 2:]).max(0)
    size = min(round(float((high - low).max()) * (1 + 2 * margin)), *shape)
    corner = [
        min(max(round(float(middle) - size / 2), 0), limit - size)
        for middle, limit in zip((low + high) / 2, (shape[1], shape[0]), strict=True)
    ]
    return corner[0], corner[1], size, size


def _face(found: Any, number: int) -> tuple[float, ...] | None:
    """The one face of an image as x, y, width, height."""
    if isinstance(found, Tensor):
        found = found.detach().cpu().numpy()
    try:
        rows = np.zeros((0, 4)) if found is None or len(found) == 0 else np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"detector must return rows x, y, width, height, got {found!r}") from error
    if rows.ndim != 2 or rows.shape[1] < 4:
        raise TypeError(f"detector must return rows x, y, width, height, got an array of shape {rows.shape}")
    rows = rows[:, :4]
    if not np.isfinite(rows).all() or (rows[:, 2:] <= 0).any():
        raise ValueError(f"detector must return boxes of positive width and height, got {rows.tolist()}: x, y, x2, y2?")
    if not len(rows):
        return None
    sides = np.sqrt(rows[:, 2] * rows[:, 3])
    rows = rows[sides >= _BYSTANDER * sides.max()]
    if len(rows) > 1:
        shown = ", ".join(str(tuple(round(value) for value in row)) for row in rows[:4].tolist())
        raise ValueError(
            f"frames show {len(rows)} faces of similar size (frame {number} of those looked at: {shown}): crop the "
            "clip to one of them, or pass a detector that returns the one wanted"
        )
    return tuple(rows[0].tolist())


def _images(frames: Tensor | str | os.PathLike[str] | Iterable[Tensor]) -> Iterator[np.ndarray]:
    if isinstance(frames, Tensor):
        clip = frames[None] if frames.ndim == 3 else frames
        if clip.ndim != 4 or clip.shape[1] != 3 or clip.dtype != torch.uint8 or not len(clip):
            raise TypeError(
                f"frames must be one uint8 RGB clip (t, 3, h, w), got {frames.dtype} of shape {tuple(frames.shape)}"
            )
        some = np.unique(np.linspace(0, len(clip) - 1, _LOOKED_AT).round().astype(int))
        chosen: Iterable[Tensor] = (clip[i] for i in some)
    else:
        source = clip_frames(frames) if isinstance(frames, (str, os.PathLike)) else iter(frames)
        chosen = islice(source, 0, _LOOKED_AT * _EVERY, _EVERY)
    for frame in chosen:
        if not isinstance(frame, Tensor) or frame.ndim != 3 or frame.shape[0] != 3 or frame.dtype != torch.uint8:
            raise TypeError("frames must yield uint8 RGB tensors (3, h, w)")
        yield np.ascontiguousarray(frame.permute(1, 2, 0).cpu().numpy())


def _yunet(model: str | os.PathLike[str]) -> Detector:
    """OpenCV's detector with a model file of its zoo."""
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(f"detector must be a callable or the path of a YuNet ONNX file, got {type(model).__name__}")
    file = Path(model)
    if not file.is_file():
        raise FileNotFoundError(
            f"detector must be a YuNet ONNX file, there is none at {file}: "
            "face_detection_yunet_2023mar.onnx of OpenCV's model zoo is one"
        )
    import cv2

    try:
        network = cv2.FaceDetectorYN.create(str(file), "", (320, 320), score_threshold=_SURE)
    except cv2.error as error:
        raise ValueError(f"detector is no YuNet model that OpenCV {cv2.__version__} can read: {file}") from error

    def find(image: np.ndarray) -> Any:
        network.setInputSize((image.shape[1], image.shape[0]))
        return network.detect(np.ascontiguousarray(image[..., ::-1]))[1]

    return find
