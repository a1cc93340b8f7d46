"""Reading clips: a video file, or a folder of numbered frames, into one tensor.

Frames of a folder are ordered by the integer in their file name (``img9.jpg`` before ``img10.jpg``, ``reg_img46.jpg``
is frame 46); datasets pad these numbers with zeros or don't, and sorting names as text puts 10 before 9. The frame
reader and the rule for resizing that stand here are the only ones of the package.
"""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mertools._checks import as_integer
from mertools._files import reading

__all__ = ["read_clip"]

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_LARGEST = 16384  # pixels a side that frames are resized to
# Text that FFmpeg follows to other files and addresses: a concat script, HLS, DASH or IMF, an SDP.
_PLAYLIST = re.compile(rb"\A\s*(?:ffconcat|#EXTM3U)|<MPD|<CompositionPlaylist|^c=IN IP", re.MULTILINE)


def read_clip(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    start: int = 0,
    stop: int | None = None,
    box: Sequence[int] | None = None,
) -> Tensor:
    """Read a video file or a folder of frames: ``(t, 3, h, w)``, uint8, RGB.

    Args:
        path: a video that OpenCV can decode, or a folder of numbered images (JPEG, PNG, BMP, TIFF, WebP; GIF, of which
            the first picture is taken, from OpenCV 4.11 on).
        size: ``(height, width)`` to resize to, or one number for a square; by area when shrinking. Default: as it is.
        start: first frame wanted, 0-based position in the clip (not a file number).
        stop: first frame not wanted; default the end.
        box: ``(x, y, width, height)`` in pixels of what is wanted of the picture, cut out before it is resized;
            :func:`face_box` finds the face's.

    Examples:
        >>> import cv2, numpy, tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for number in (9, 10, 11):
        ...     _ = cv2.imwrite(str(folder / f"img{number}.png"), numpy.full((4, 6, 3), number, numpy.uint8))
        >>> clip = read_clip(folder)
        >>> clip.shape, clip[:, 0, 0, 0].tolist()
        (torch.Size([3, 3, 4, 6]), [9, 10, 11])
    """
    frames = list(clip_frames(path, size=size, start=start, stop=stop, box=box))
    if not frames:
        raise ValueError(f"path holds no frames from start={start} on: {path}")
    return torch.stack(frames)


def clip_frames(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    start: int = 0,
    stop: int | None = None,
    box: Sequence[int] | None = None,
) -> Iterator[Tensor]:
    """The frames of :func:`read_clip` one by one, each ``(3, h, w)``, for clips that do not fit the memory."""
    if isinstance(path, str) and not path:
        raise ValueError("path must be a file or folder name, got an empty string")
    source = _existing(path)
    shape = None if size is None else frame_shape(size)
    start, stop = _position("start", start), None if stop is None else _position("stop", stop)
    if stop is not None and stop <= start:
        raise ValueError(f"stop must be a frame position after start={start}, got {stop!r}")
    images = _images(_folder_images(source)[start:stop]) if source.is_dir() else _video(source, start, stop)
    if box is not None:
        images = _boxed(images, box)
    yield from map(_planes, _alike(images, shape))


def chosen_frames(
    folder: str | os.PathLike[str], positions: Sequence[int], *, box: Sequence[int] | None = None
) -> Iterator[Tensor]:
    """Some frames of a folder, and no other is decoded; fewer when the folder ends before."""
    files = _folder_images(_existing(folder))
    images = _images([files[i] for i in positions if i < len(files)])
    yield from map(_planes, _alike(images if box is None else _boxed(images, box)))


def decode_frames(
    files: Sequence[str], *, size: int | tuple[int, int] | None = None, longest: int | None = None
) -> np.ndarray:
    """Decode images into one array ``(t, h, w, 3)`` uint8, in OpenCV's order of channels (blue first).

    They are resized to ``size``, or those whose longer side has more pixels than ``longest`` reduced in proportion.
    """
    if not files:
        raise ValueError("files must name at least one image, got none")
    shape = None if size is None else frame_shape(size)
    clip: np.ndarray | None = None
    for i, image in enumerate(_alike(_images(files), shape, longest)):
        if clip is None:  # filled one by one: a list that is stacked would hold every frame twice
            clip = np.empty((len(files), *image.shape), np.uint8)
        clip[i] = image
    assert clip is not None
    return clip


def decode_image(file: str | os.PathLike[str]) -> np.ndarray:
    """Decode one image, ``(h, w, 3)`` uint8, in OpenCV's order of channels (blue first)."""
    import cv2  # here and below, not above: importing OpenCV changes the process's environment

    path, image = Path(file), None
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, a device read for ever
        raise ValueError(f"{file} can't be decoded: {path.name} is no regular file")
    with reading(file):
        data = path.read_bytes()  # cv2.imread can't open every name on every system
    with suppress(cv2.error, MemoryError):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise ValueError(
            f"{file} can't be decoded: {path.name} is empty, damaged, of a kind that OpenCV {cv2.__version__} does not "
            "read, or of more pixels than OPENCV_IO_MAX_IMAGE_PIXELS (2³⁰ unless set)"
        )
    return image


def resize_frame(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """An image ``(h, w, ...)`` in another size: by area where it shrinks, cubic where it only grows."""
    if image.shape[:2] == shape:
        return image
    import cv2

    shrinks = shape[0] < image.shape[0] or shape[1] < image.shape[1]
    return cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def frame_shape(size: object, name: str = "size") -> tuple[int, int]:
    """``(height, width)`` of a size as it is given: the pair, or one number for a square."""
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    sides = [side for side in map(as_integer, pair) if side is not None and 0 < side <= _LARGEST]
    if len(pair) != 2 or len(sides) != 2:
        raise ValueError(f"{name} must be (height, width) or one number for a square, 1 to {_LARGEST}, got {size!r}")
    return sides[0], sides[1]


def numbered(place: str | os.PathLike[str], names: Iterable[str]) -> dict[int, str]:
    """The images among the names of a folder's files by frame number, ascending; each must have one of its own."""
    found: dict[int, str] = {}
    for name in filter(is_image, names):
        number = frame_number(name)
        if number is None:
            raise ValueError(
                f"{place}/{name} is an image without a frame number in its name: rename {name}, or move it elsewhere"
            )
        if number in found:
            raise ValueError(f"{place} holds two images of frame {number}: {found[number]} and {name}")
        found[number] = name
    return dict(sorted(found.items()))


def is_image(name: str) -> bool:
    """Whether a file's name is that of a frame; files that begin with a dot are the system's."""
    return name.lower().endswith(IMAGES) and not name.startswith(".")


def frame_number(name: str) -> int | None:
    """The frame number in a file name: the last integer of its stem."""
    digits = re.findall(r"\d+", Path(name).stem)
    return int(digits[-1]) if digits else None


def check_box(box: object, height: int, width: int) -> tuple[int, int, int, int]:
    """A box as four integers: a rectangle within a picture of that size."""
    numbers = [as_integer(value) for value in box] if isinstance(box, (Sequence, np.ndarray, Tensor)) else []
    if isinstance(box, str) or len(numbers) != 4 or None in numbers:
        raise TypeError(f"box must be (x, y, width, height) in whole pixels, got {box!r}")
    x, y, w, h = (number for number in numbers if number is not None)
    if not (x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= width and y + h <= height):
        raise ValueError(
            f"box must lie within the picture of {width}x{height}, got (x, y, width, height) = {(x, y, w, h)}"
        )
    return x, y, w, h


def boxed(frames: Tensor, box: Sequence[int]) -> Tensor:
    """What lies in the box of pictures ``(..., h, w)``."""
    if frames.ndim < 2 or min(frames.shape[-2:]) < 8:
        raise ValueError(f"box must be None for frames that are no pictures, got shape {tuple(frames.shape)}")
    x, y, w, h = check_box(box, *frames.shape[-2:])
    return frames[..., y : y + h, x : x + w]


def _boxed(images: Iterable[tuple[str, np.ndarray]], box: Sequence[int]) -> Iterator[tuple[str, np.ndarray]]:
    for name, image in images:
        x, y, w, h = check_box(box, *image.shape[:2])
        yield name, image[y : y + h, x : x + w]


def _alike(
    images: Iterable[tuple[str, np.ndarray]], shape: tuple[int, int] | None = None, longest: int | None = None
) -> Iterator[np.ndarray]:
    """Images in the wanted size, which is the same for all of them."""
    first: tuple[int, ...] | None = None
    for name, image in images:
        wanted = shape or image.shape[:2]
        if shape is None and longest is not None and max(wanted) > longest:
            scale = longest / max(wanted)
            wanted = max(round(wanted[0] * scale), 1), max(round(wanted[1] * scale), 1)
        frame = resize_frame(image, wanted)
        first = first or frame.shape
        if frame.shape != first:
            (h, w), (h0, w0) = frame.shape[:2], first[:2]
            raise ValueError(f"{name} is {h}x{w} and the frames before it are {h0}x{w0}: pass size=(height, width)")
        yield frame


def _planes(frame: np.ndarray) -> Tensor:
    """``(h, w, 3)`` BGR to ``(3, h, w)`` RGB, plane by plane."""
    import cv2

    return torch.from_numpy(np.stack(cv2.split(frame)[::-1]))


def _images(files: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    for file in files:
        yield file, decode_image(file)


def _folder_images(path: Path) -> list[str]:
    """The images of a folder in the order of their frame numbers."""
    found = numbered(path, (file.name for file in path.iterdir()))
    if not found:
        raise ValueError(f"path is a folder without images ({', '.join(IMAGES)}): {path}")
    return [str(path / name) for name in found.values()]


def _existing(path: str | os.PathLike[str]) -> Path:
    try:
        source = Path(path)
    except TypeError as error:
        raise TypeError(f"path must be a file or folder name, got {type(path).__name__}") from error
    if not source.exists():
        raise FileNotFoundError(f"path must be a video file or a folder of frames, there is nothing at {source}")
    return source


def _position(name: str, value: int) -> int:
    position = as_integer(value)
    if position is None or position < 0:
        raise ValueError(f"{name} must be a 0-based frame position, got {value!r}")
    return position


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
