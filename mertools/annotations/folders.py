"""From a row of a table to the frames on disk: the folder, and the position of a file number in it.

Tables name frames by the integer in the file name (``reg_img46.jpg`` is 46, ``006_05562.jpg`` is 5562); a clip in
memory counts from 0. The two are kept apart: a :class:`FrameFolder` is the map from one to the other, and a number
without a file is an error, never the nearest one.
"""

from __future__ import annotations

import fnmatch
import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from mertools.annotations.annotation import ClipAnnotation
from mertools.clips.images import decode_image
from mertools.clips.read import frame_number

__all__ = ["FrameFolder", "FrameFolders", "find_frames"]

Frames: TypeAlias = "str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]"

_IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class FrameFolder:
    """The frames of one folder in the order of their numbers.

    Args:
        path: the folder.
        numbers: file numbers, ascending.
        names: file names in that order.

    Examples:
        >>> folder = FrameFolder("sub01/EP02_01f", (46, 47, 49), ("img46.jpg", "img47.jpg", "img49.jpg"))
        >>> folder.position(49), folder.numbers[2]
        (2, 49)

    Source: the datasets' folders of numbered images.
    """

    path: str
    numbers: tuple[int, ...]
    names: tuple[str, ...]

    def position(self, number: int) -> int:
        """The 0-based position of a file number.

        Raises:
            ValueError: there is no such frame; the message says which there are.
        """
        i = bisect_left(self.numbers, number)
        if i == len(self.numbers) or self.numbers[i] != number:
            raise ValueError(
                f"frame {number} is not in {self.path}, which holds {len(self.numbers)} frames numbered "
                f"{self.numbers[0]} to {self.numbers[-1]}"
            )
        return i

    def read(self, start: int = 0, stop: int | None = None, *, size: int | tuple[int, int] | None = None) -> np.ndarray:
        """Decode the frames at the positions ``start`` to ``stop``, see :func:`decode_frames`."""
        return decode_frames([f"{self.path}/{name}" for name in self.names[start:stop]], size=size)


def decode_frames(
    files: Sequence[str], *, size: int | tuple[int, int] | None = None, longest: int | None = None
) -> np.ndarray:
    """Decode images into one array.

    Args:
        files: their paths.
        size: ``(height, width)`` to resize to, or one number for a square; by area when shrinking.
        longest: reduce images whose longer side has more pixels than this, in proportion.

    Returns:
        ``(t, h, w, 3)`` uint8, in OpenCV's order of channels (blue first).

    Raises:
        ValueError: no files, one that can't be decoded, or images of different size.
    """
    import cv2

    if not files:
        raise ValueError("files must name at least one image, got none")
    shape = (size, size) if isinstance(size, int) else size
    clip: np.ndarray | None = None
    for i, file in enumerate(files):
        try:
            image = decode_image(file)
        except ValueError as error:
            raise ValueError(f"{file} can't be decoded as an image ({error})") from None
        wanted = shape or image.shape[:2]
        if shape is None and longest is not None and max(wanted) > longest:
            scale = longest / max(wanted)
            wanted = max(round(wanted[0] * scale), 1), max(round(wanted[1] * scale), 1)
        if image.shape[:2] != wanted:
            shrinks = wanted[0] < image.shape[0] or wanted[1] < image.shape[1]
            image = cv2.resize(image, wanted[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        if clip is None:
            clip = np.empty((len(files), *image.shape), np.uint8)
        if image.shape != clip.shape[1:]:
            (h, w), (h0, w0) = image.shape[:2], clip.shape[1:3]
            raise ValueError(f"{file} is {h}x{w} and the frames before it are {h0}x{w0}: give a size")
        clip[i] = image
    assert clip is not None
    return clip


class FrameFolders:
    """All folders with frames below a root, found once, for looking up the rows of a table.

    Folders are compared by their last names, without regard to case when there is no exact match: the dataset may lie
    deeper (``Cropped/sub01/...``) or the root may be one subject's folder.

    Args:
        root: where the dataset's frames are; a mapping from dataset to root for clips of several.

    Raises:
        FileNotFoundError: there is no such folder.

    Examples:
        >>> import pathlib, tempfile
        >>> from mertools import ClipAnnotation
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> (root / "Cropped" / "sub01" / "EP02_01f").mkdir(parents=True)
        >>> for number in (9, 10, 46):
        ...     _ = (root / "Cropped" / "sub01" / "EP02_01f" / f"reg_img{number}.jpg").write_bytes(b"")
        >>> clip = ClipAnnotation("casme2", "01", "EP02_01f", 9, 10, 46, folders=("sub01/EP02_01f",))
        >>> FrameFolders(root).find(clip).numbers
        (9, 10, 46)

    Source: the datasets' folders; ``docs/datasets.md`` lists them.
    """

    def __init__(self, root: Frames) -> None:
        self.of_dataset: dict[str, FrameFolders] = {}
        self.name: str
        self._files: dict[str, list[str]]
        self._by_tail: dict[int, dict[tuple[str, ...], list[str]]] = {}
        self._found: dict[str, FrameFolder] = {}
        if isinstance(root, Mapping):
            self.of_dataset = {name: FrameFolders(part) for name, part in root.items()}
            self.name = ", ".join(f"{name}: {part.name}" for name, part in self.of_dataset.items())
            self._files = {path: names for part in self.of_dataset.values() for path, names in part._files.items()}
            return
        self.root = Path(root)
        self.name = str(self.root.absolute())
        if not self.root.is_dir():
            raise FileNotFoundError(f"frames must be the folder that holds the clips' frames, there is none at {root}")
        self._closed: list[OSError] = []
        self._files = dict(_image_folders(self.root.absolute(), self._closed))
        self._deepest = max((len(Path(path).parts) for path in self._files), default=0)

    @property
    def paths(self) -> list[str]:
        """Every folder with frames below the root."""
        return list(self._files)

    def find(self, clip: ClipAnnotation) -> FrameFolder:
        """The folder of a row's frames.

        Raises:
            FileNotFoundError: there is none; the message says what was looked for.
            ValueError: several folders fit, or one holds two images of the same number or one without a number.
        """
        if self.of_dataset:
            if clip.dataset not in self.of_dataset:
                raise ValueError(f"frames has no root for {clip.dataset!r}, it has {', '.join(self.of_dataset)}")
            return self.of_dataset[clip.dataset].find(clip)
        patterns = clip.folders or (clip.clip,)
        for pattern in patterns:
            parts = tuple(part for part in pattern.removeprefix("**/").split("/") if part)
            tails = range(len(parts) if pattern.startswith("**/") else 1)
            found = next(filter(None, (self._lookup(parts[start:]) for start in tails)), [])
            if len(found) > 1:
                shown = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
                raise ValueError(
                    f"{clip.place}: {len(found)} folders fit clip {clip.name} ({shown}): "
                    "give the root of one version of the frames"
                )
            if found:
                return self._folder(found[0])
        closed = (
            f"; {len(self._closed)} folders could not be read, the first: {self._closed[0]}" if self._closed else ""
        )
        raise FileNotFoundError(
            f"{clip.place}: no folder of frames for clip {clip.name} below {self.root}, "
            f"looked for {', '.join(patterns)}{closed}"
        )

    def _lookup(self, parts: tuple[str, ...]) -> list[str]:
        depth = len(parts)
        if depth > self._deepest:  # a name of a thousand slashes: no folder lies as deep
            return []
        if depth not in self._by_tail:
            tails: dict[tuple[str, ...], list[str]] = {}
            for path in self._files:
                tail = Path(path).parts[-depth:]
                tails.setdefault(tuple(part.casefold() for part in tail), []).append(path)
            self._by_tail[depth] = tails
        tails = self._by_tail[depth]
        folded = tuple(part.casefold() for part in parts)
        if "*" not in "".join(parts).replace("[*]", ""):
            plain = tuple(part.replace("[*]", "*").replace("[?]", "?").replace("[[]", "[") for part in folded)
            found = tails.get(plain, [])
        else:
            found = [
                path
                for tail, paths in tails.items()
                if len(tail) == depth and all(map(fnmatch.fnmatchcase, tail, folded))
                for path in paths
            ]
        exact = [path for path in found if all(map(fnmatch.fnmatchcase, Path(path).parts[-depth:], parts))]
        return exact or found

    def _folder(self, path: str) -> FrameFolder:
        if path not in self._found:
            self._found[path] = numbered_frames(path, self._files[path])
        return self._found[path]


def numbered_frames(path: str, names: Sequence[str]) -> FrameFolder:
    """Order the images of a folder by the number in their names.

    Raises:
        ValueError: an image without a number, or two with the same.

    Examples:
        >>> numbered_frames("clip", ["img10.jpg", "img9.jpg"]).names
        ('img9.jpg', 'img10.jpg')
    """
    numbered: dict[int, str] = {}
    for name in names:
        number = frame_number(name)
        if number is None:
            raise ValueError(f"{path}/{name} is an image without a frame number in its name")
        if number in numbered:
            raise ValueError(f"{path} holds two images of frame {number}: {numbered[number]} and {name}")
        numbered[number] = name
    ordered = sorted(numbered)
    return FrameFolder(path, tuple(ordered), tuple(numbered[number] for number in ordered))


def find_frames(clip: ClipAnnotation, root: str | os.PathLike[str]) -> FrameFolder:
    """The folder of one row's frames below a root; for many rows, build :class:`FrameFolders` once.

    Args:
        clip: the annotation.
        root: where the dataset's frames are.

    Returns:
        The folder, with the map from file numbers to positions.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: several folders fit.

    Examples:
        >>> import pathlib, tempfile
        >>> from mertools import ClipAnnotation
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> (root / "006" / "006_1_2").mkdir(parents=True)
        >>> _ = (root / "006" / "006_1_2" / "006_05562.jpg").write_bytes(b"")
        >>> clip = ClipAnnotation("samm", "006", "006_1_2", 5562, folders=("006/006_1_2",))
        >>> find_frames(clip, root).position(5562)
        0

    Source: the datasets' folders; ``docs/datasets.md`` lists them.
    """
    return FrameFolders(root).find(clip)


def _image_folders(root: Path, closed: list[OSError]) -> list[tuple[str, list[str]]]:
    """Folders with their images; what can't be listed is added to ``closed``."""
    found, seen = [], set()
    walk = os.walk(root, onerror=closed.append, followlinks=True)  # datasets are often linked into place
    for path, folders, files in walk:
        real = os.path.realpath(path)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        images = [name for name in files if name.lower().endswith(_IMAGES) and not name.startswith(".")]
        if images:
            found.append((path, images))
    return found
