"""Reading clips: a video file, or a folder of numbered frames, into one tensor.

Frames of a folder are ordered by the integer in their file name (``img9.jpg`` before ``img10.jpg``, ``reg_img46.jpg``
is frame 46); datasets pad these numbers with zeros or don't, and sorting names as text puts 10 before 9.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mertools.clips.images import MAX_PIXELS, decode_image

__all__ = ["read_clip"]

_LARGEST = 16384  # pixels a side that frames are resized to
# Text that FFmpeg follows to other files and addresses: a concat script, HLS, DASH or IMF, an SDP.
_PLAYLIST = re.compile(rb"\A\s*(?:ffconcat|#EXTM3U)|<MPD|<CompositionPlaylist|^c=IN IP", re.MULTILINE)
_IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def read_clip(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Tensor:
    """Read a video file or a folder of frames.

    Args:
        path: a video that OpenCV can decode, or a folder of numbered images (JPEG, PNG, BMP, TIFF, WebP or GIF).
        size: ``(height, width)`` to resize to, or one number for a square; by area when shrinking. Default: as it is.
        start: first frame wanted, 0-based position in the clip (not a file number).
        stop: first frame not wanted; default the end.

    Returns:
        Frames ``(t, 3, h, w)``, uint8, RGB.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        TypeError: an argument is of the wrong kind.
        ValueError: the file or one of its images can't be decoded, promises more than 67 108 864 pixels (8192x8192),
            holds no frames in the wanted range, or the images differ in size or have no distinct number in their name.

    Examples:
        >>> import cv2, numpy, tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for number in (9, 10, 11):
        ...     _ = cv2.imwrite(str(folder / f"img{number}.png"), numpy.full((4, 6, 3), number, numpy.uint8))
        >>> clip = read_clip(folder)
        >>> clip.shape, clip[:, 0, 0, 0].tolist()
        (torch.Size([3, 3, 4, 6]), [9, 10, 11])

    Source: ours; decoding is OpenCV's.
    """
    frames = list(clip_frames(path, size=size, start=start, stop=stop))
    if not frames:
        raise ValueError(f"path holds no frames from start={start} on: {path}")
    return torch.stack(frames)


def clip_frames(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Tensor]:
    """The frames of :func:`read_clip` one by one, each ``(3, h, w)``, for clips that do not fit the memory."""
    if isinstance(path, str) and not path:
        raise ValueError("path must be a file or folder name, got an empty string")
    source = _existing(path)
    shape = _shape(size)
    start, stop = _position("start", start), None if stop is None else _position("stop", stop)
    if stop is not None and stop <= start:
        raise ValueError(f"stop must be a frame position after start={start}, got {stop!r}")
    images = _decoded(_numbered(source)[start:stop]) if source.is_dir() else _video(source, start, stop)
    yield from _pixels(images, shape)


def chosen_frames(folder: str | os.PathLike[str], positions: Sequence[int]) -> Iterator[Tensor]:
    """Some frames of a folder, and no other is decoded; fewer when the folder ends before."""
    files = _numbered(_existing(folder))
    yield from _pixels(_decoded([files[i] for i in positions if i < len(files)]), None)


def _pixels(images: Iterator[tuple[str, np.ndarray]], shape: tuple[int, int] | None) -> Iterator[Tensor]:
    import cv2  # here and below, not above: importing OpenCV changes the process's environment

    first: tuple[int, ...] | None = None
    for name, image in images:
        frame = _resize(image, shape)
        first = first or frame.shape
        if frame.shape != first:
            (h, w), (h0, w0) = frame.shape[:2], first[:2]
            raise ValueError(f"{name} is {h}x{w} and the frames before it are {h0}x{w0}: pass size=(height, width)")
        yield torch.from_numpy(np.stack(cv2.split(frame)[::-1]))  # BGR to RGB, plane by plane


def _existing(path: str | os.PathLike[str]) -> Path:
    try:
        source = Path(path)
    except TypeError as error:
        raise TypeError(f"path must be a file or folder name, got {type(path).__name__}") from error
    if not source.exists():
        raise FileNotFoundError(f"path must be a video file or a folder of frames, there is nothing at {source}")
    return source


def _shape(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = size if isinstance(size, (tuple, list)) else (size, size)
    sides = [side for side in pair if isinstance(side, (int, np.integer)) and not isinstance(side, bool)]
    if len(pair) != 2 or len(sides) != 2 or not all(0 < side <= _LARGEST for side in sides):
        raise ValueError(f"size must be (height, width) or one number for a square, 1 to {_LARGEST}, got {size!r}")
    return int(sides[0]), int(sides[1])


def _position(name: str, value: int) -> int:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} must be a 0-based frame position, got {value!r}")
    return int(value)


def _resize(image: np.ndarray, shape: tuple[int, int] | None) -> np.ndarray:
    if shape is None or image.shape[:2] == shape:
        return image
    import cv2

    smaller = shape[0] < image.shape[0] or shape[1] < image.shape[1]
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return cv2.resize(image, (shape[1], shape[0]), interpolation=interpolation)


def _video(path: Path, start: int, stop: int | None) -> Iterator[tuple[str, np.ndarray]]:
    if path.stat().st_size == 0:
        raise ValueError(f"path is an empty file: {path}")
    with path.open("rb") as file:
        if _PLAYLIST.search(file.read(4096)):  # FFmpeg would open what it names, wherever that is
            raise ValueError(f"path is a list of other files, not a video: {path}")
    import cv2

    # An absolute name: a relative one with a colon would be read as a protocol. Of the backends the one for files:
    # the others would open it for writing (a camera?), or as the first of a row of images.
    backend = cv2.CAP_FFMPEG if cv2.CAP_FFMPEG in cv2.videoio_registry.getStreamBackends() else cv2.CAP_ANY
    capture = cv2.VideoCapture(str(path.absolute()), backend)
    try:
        if not capture.isOpened():
            raise ValueError(f"path is no video that OpenCV can decode: {path}")
        height, width = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        if height * width > MAX_PIXELS:
            raise ValueError(f"path promises frames of {height}x{width}, at most {MAX_PIXELS} pixels are read: {path}")
        promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        # Decoded from the beginning: seeking by frame number lands beside it in many containers.
        position = 0
        while stop is None or position < stop:
            more, image = capture.read() if position >= start else (capture.grab(), None)
            if not more:
                break
            if image is not None:
                yield f"frame {position} of {path}", image
            position += 1
    finally:
        capture.release()
    wanted = promised if stop is None else min(promised, stop)
    if position == 0:
        raise ValueError(f"path holds no frame that OpenCV can decode: {path}")
    if position < wanted - 1:  # containers are often one frame out
        warnings.warn(f"{path} promises {promised} frames but ends after {position}: cut off?", stacklevel=5)


def _numbered(path: Path) -> list[Path]:
    """The images of a folder in the order of their frame numbers."""
    numbered: dict[int, Path] = {}
    for file in path.iterdir():
        if file.suffix.lower() not in _IMAGES or file.name.startswith("."):
            continue
        number = frame_number(file.name)
        if number is None:
            raise ValueError(f"path holds an image without a frame number in its name: {file}")
        if number in numbered:
            raise ValueError(
                f"path holds two images of frame {number}: {numbered[number].name} and {file.name} in {path}"
            )
        numbered[number] = file
    if not numbered:
        raise ValueError(f"path is a folder without images ({', '.join(sorted(_IMAGES))}): {path}")
    return [numbered[number] for number in sorted(numbered)]


def _decoded(files: Sequence[Path]) -> Iterator[tuple[str, np.ndarray]]:
    for file in files:
        try:
            image = decode_image(file)
        except ValueError as error:
            raise ValueError(f"path holds an image that can't be decoded: {file} ({error})") from None
        yield str(file), image


def frame_number(name: str) -> int | None:
    """The frame number in a file name: the last integer of its stem.

    Examples:
        >>> frame_number("006_05562.jpg"), frame_number("reg_img46.jpg"), frame_number("cover.png")
        (5562, 46, None)
    """
    digits = re.findall(r"\d+", Path(name).stem)
    return int(digits[-1]) if digits else None
