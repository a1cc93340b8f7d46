"""Image files, decoded within limits: what a header promises is looked at before the memory for it is taken.

A file of a hundred bytes can promise 100 000 x 100 000 pixels. OpenCV's own limit is a gigapixel, three gigabytes, and
can only be changed before it is imported; the limit here is ``MAX_PIXELS``, twice a frame of 8K video.
"""

from __future__ import annotations

import stat
import struct
from pathlib import Path

import numpy as np

from mertools._files import reading

MAX_PIXELS = 1 << 26
MAX_BYTES = 16 * MAX_PIXELS  # four channels of 32 bits a pixel: no honest file of that size is larger
_NO_LENGTH = {0x01, *range(0xD0, 0xD8)}  # JPEG markers that stand alone
_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG markers that hold the size


def decode_image(file: str | Path) -> np.ndarray:
    """Decode one image.

    Args:
        file: a JPEG, PNG, BMP, TIFF, WebP or GIF (its first frame), whatever its name says.

    Returns:
        ``(h, w, 3)`` uint8, in OpenCV's order of channels (blue first).

    Raises:
        OSError: it can't be read.
        ValueError: no regular file, no image of these kinds, more than ``MAX_PIXELS`` pixels, or damaged. It says
            why; which file it was is for the caller to say.

    Examples:
        >>> import cv2, tempfile
        >>> path = Path(tempfile.mkdtemp()) / "img1.png"
        >>> _ = cv2.imwrite(str(path), np.zeros((5, 7, 3), np.uint8))
        >>> decode_image(path).shape
        (5, 7, 3)
    """
    import cv2  # not above: importing OpenCV changes the process's environment

    about = Path(file).stat()
    if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for, a device read for ever
        raise ValueError("it is no regular file")
    if about.st_size > MAX_BYTES:
        raise ValueError(f"it has {about.st_size} bytes, at most {MAX_BYTES} are read")
    with reading(file):
        data = Path(file).read_bytes()  # cv2.imread can't open every name on every system
    try:
        size = image_size(data)
    except (IndexError, struct.error):
        size = None
    if size is None:
        raise ValueError("it is damaged, or none of JPEG, PNG, BMP, TIFF, WebP and GIF" if data else "it is empty")
    if not 0 < size[0] * size[1] <= MAX_PIXELS:
        raise ValueError(f"its header promises {size[0]}x{size[1]} pixels, at most {MAX_PIXELS} (8192x8192) are read")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise ValueError("it is damaged")
    return image


def image_size(data: bytes) -> tuple[int, int] | None:
    """Height and width that an image's header promises (of the larger of image and tile); None for other kinds.

    Raises:
        IndexError, struct.error: the header ends before it says.

    Examples:
        >>> image_size(b"GIF89a" + struct.pack("<HH", 100, 50)), image_size(b"%PDF")
        ((50, 100), None)
    """
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _png_size(data)
    if data[:3] == b"\xff\xd8\xff":
        return _jpeg_size(data)
    if data[:2] == b"BM":
        old = struct.unpack_from("<I", data, 14)[0] < 36  # OS/2's header has numbers of 16 bits
        width, height = map(abs, struct.unpack_from("<hh" if old else "<ii", data, 18))
    elif data[:6] in (b"GIF87a", b"GIF89a"):
        width, height = struct.unpack_from("<HH", data, 6)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_size(data)
    elif data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff_size(data)
    else:
        return None
    return height, width


def _png_size(data: bytes) -> tuple[int, int] | None:
    """The sides; None where a chunk is longer than the file, for which OpenCV takes the memory before it reads."""
    width, height = struct.unpack_from(">II", data, 16)
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if at > len(data) or (kind == b"IHDR") != (at == 33):
            return None
    return height, width


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while True:
        at = data.find(b"\xff", at)  # past what does not belong there, as libjpeg does
        if at < 0:
            return None
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker in _FRAME:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return height, width
        if marker in (0xD9, 0xDA):  # the image data, or its end, before any size
            return None
        if marker not in _NO_LENGTH and marker != 0:
            at += max(struct.unpack_from(">H", data, at)[0], 2)


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        return None
    return height, width


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """Sides of the first directory: of the image, or of its tiles where these are larger."""
    order = "<" if data[:1] == b"I" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    start = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    if start > len(data):  # beyond what Python counts to, perhaps
        return None
    count = struct.unpack_from(order + ("Q" if big else "H"), data, start)[0]
    first, step, place = start + (8 if big else 2), 20 if big else 12, 12 if big else 8
    sides: dict[int, int] = {}
    for i in range(min(count, 4096)):
        tag, kind = struct.unpack_from(order + "HH", data, first + i * step)
        if tag in (256, 257, 322, 323):
            code = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}.get(kind)
            if code is None:
                return None
            sides[tag] = max(struct.unpack_from(order + code, data, first + i * step + place)[0], sides.get(tag, 0))
    if 256 not in sides or 257 not in sides:
        return None
    return max(sides[257], sides.get(323, 0)), max(sides[256], sides.get(322, 0))
