"""Images whose headers promise more than there is, for tests/clips/test_images.py."""

from __future__ import annotations

import functools
import struct
import zlib

import cv2
import numpy as np


@functools.cache
def _images() -> dict[str, bytes]:
    picture = np.random.default_rng(0).integers(0, 256, (11, 13, 3), np.uint8)
    found = {suffix: bytes(cv2.imencode(suffix, picture)[1]) for suffix in (".png", ".jpg", ".bmp", ".tif", ".webp")}
    found[".gif"] = bytes(cv2.imencode(".gif", picture)[1]) if cv2.haveImageWriter(".gif") else found[".png"]
    return found


def huge_image(kind: str, width: int, height: int) -> bytes:
    """A small file whose header promises ``width`` x ``height`` pixels."""
    if kind == ".png":
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        chunks = (b"IHDR" + header, b"IDAT" + zlib.compress(bytes(64)), b"IEND")
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
        )
    data = bytearray(_images()[kind])
    if kind == ".jpg":
        at = next(i for i in range(len(data)) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC2))
        struct.pack_into(">HH", data, at + 5, height & 0xFFFF, width & 0xFFFF)
    elif kind == ".bmp":
        struct.pack_into("<ii", data, 18, width, height)
    elif kind == ".tif":
        start = struct.unpack_from("<I", data, 4)[0]
        for i in range(struct.unpack_from("<H", data, start)[0]):
            at = start + 2 + 12 * i
            tag = struct.unpack_from("<H", data, at)[0]
            if tag in (256, 257):
                struct.pack_into("<HII", data, at + 2, 4, 1, width if tag == 256 else height)
    elif kind == ".gif":
        struct.pack_into("<HH", data, 6, width & 0xFFFF, height & 0xFFFF)
    elif data[12:16] == b"VP8 ":
        struct.pack_into("<HH", data, 26, width & 0x3FFF, height & 0x3FFF)
    else:
        struct.pack_into("<I", data, 21, (width - 1 & 0x3FFF) | (height - 1 & 0x3FFF) << 14)
    return bytes(data)
