"""Images that promise more than there is; reliability/fuzz.py tries many thousands."""

import os
import struct

import cv2
import numpy as np
import pytest

import mertools as mt
from mertools.clips.images import MAX_PIXELS, decode_image, image_size
from reliability.fuzz_targets import huge_image

KINDS = (".png", ".jpg", ".bmp", ".tif", ".webp", ".gif")


def picture(kind, h=11, w=13):
    return bytes(cv2.imencode(kind, np.full((h, w, 3), 77, np.uint8))[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("h", "w"), [(11, 13), (1, 7), (300, 5)])
def test_the_size_is_that_of_the_decoder(kind, h, w, tmp_path):
    if kind == ".gif" and not cv2.haveImageWriter(".gif"):
        pytest.skip("this OpenCV writes no GIF")
    data = picture(kind, h, w)
    assert image_size(data) == (h, w) == cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2]
    (tmp_path / "img1.png").write_bytes(data)
    assert decode_image(tmp_path / "img1.png").shape == (h, w, 3)


@pytest.mark.parametrize("quality", ["progressive", "exif"])
def test_sizes_behind_other_segments(quality):
    image = np.zeros((17, 23, 3), np.uint8)
    data = bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, int(quality == "progressive")])[1])
    if quality == "exif":  # a segment of 60 kB in front, and bytes that do not belong there
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", 60_000) + bytes(59_998) + b"junk\xff\xff" + data[3:]
    assert image_size(data) == (17, 23)


def test_lossless_and_extended_webp():
    lossless = bytes(cv2.imencode(".webp", np.zeros((7, 19, 3), np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 101])[1])
    assert lossless[12:16] == b"VP8L"
    assert image_size(lossless) == (7, 19)
    extended = b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + (18).to_bytes(3, "little") + (6).to_bytes(3, "little")
    assert image_size(extended) == (7, 19)


def test_sizes_of_tiff_in_both_orders_and_of_its_tiles():
    def tiff(order, *entries):
        head = b"II*\0" if order == "<" else b"MM\0*"
        body = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in entries)
        return head + struct.pack(order + "IH", 8, len(entries)) + body

    assert image_size(tiff("<", (256, 19), (257, 7))) == (7, 19)
    assert image_size(tiff(">", (256, 19), (257, 7), (322, 50_000), (323, 60_000))) == (60_000, 50_000)
    assert image_size(tiff("<", (256, 19))) is None
    big = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2)
    big += b"".join(struct.pack("<HHQQ", tag, 16, 1, value) for tag, value in ((256, 2**40), (257, 2)))
    assert image_size(big) == (2, 2**40)
    assert image_size(b"II+\0\x08\0\0\0" + b"\xff" * 22) is None  # a place that Python can't count to


@pytest.mark.parametrize("kind", [".png", ".jpg", ".bmp", ".tif", ".webp", ".gif"])
@pytest.mark.parametrize("side", [16_383, 32_767, 100_000])
def test_a_header_that_promises_too_much_is_refused_before_memory_is_taken(kind, side, tmp_path):
    if kind == ".gif" and not cv2.haveImageWriter(".gif"):
        pytest.skip("this OpenCV writes no GIF")
    side = min(side, 16_383) if kind == ".webp" else side  # the header has 14 bits for it
    (tmp_path / f"img1{kind.replace('gif', 'png')}").write_bytes(huge_image(kind, side, side))
    with pytest.raises(ValueError, match=rf"img1\.\w+ \(its header promises \d+x\d+ pixels, at most {MAX_PIXELS}"):
        mt.read_clip(tmp_path)


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd8\xff\xd9", b"BM", b"GIF89a",
                                  b"RIFF\0\0\0\0WEBPVP8 ", b"RIFF\0\0\0\0WEBPnone", b"II*\0\xff\xff\xff\xff", b"\xff\xd8" + b"\xff" * 99])  # fmt: skip
def test_no_image(data, tmp_path):
    (tmp_path / "img1.png").write_bytes(data)
    with pytest.raises(ValueError, match=r"img1\.png \(it is"):
        mt.read_clip(tmp_path)


@pytest.mark.parametrize("length", [0x7FFFFFFF, 0x80000199, 0xFFFFFFFF])
def test_a_chunk_longer_than_its_file_takes_no_memory(tmp_path, length):
    data = bytearray(picture(".png"))
    struct.pack_into(">I", data, 33, length)  # of the pixels; OpenCV makes room for them before it looks
    (tmp_path / "img1.png").write_bytes(data)
    with pytest.raises(ValueError, match=r"img1\.png \(it is damaged"):
        mt.read_clip(tmp_path)


def test_an_image_cut_off_is_damaged(tmp_path):
    (tmp_path / "img1.png").write_bytes(picture(".png", 300, 200)[:-20])
    with pytest.raises(ValueError, match=r"img1\.png \(it is damaged"):
        mt.read_clip(tmp_path)


def test_pixels_that_nobody_can_count(tmp_path):
    (tmp_path / "img1.png").write_bytes(huge_image(".png", 0, 5))
    with pytest.raises(ValueError, match="promises 5x0 pixels"):
        mt.read_clip(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_and_a_device_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "img1.png")
    with pytest.raises(ValueError, match=r"img1\.png \(it is no regular file\)"):
        mt.read_clip(tmp_path)
    (tmp_path / "img1.png").unlink()
    (tmp_path / "img1.png").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="no regular file"):
        mt.read_clip(tmp_path)


def test_a_file_of_gigabytes_is_not_read(tmp_path):
    with (tmp_path / "img1.png").open("wb") as file:
        file.write(picture(".png"))
        file.truncate(1 << 33)  # without a byte on the disk
    with pytest.raises(ValueError, match=r"img1\.png \(it has 8589934592 bytes"):
        mt.read_clip(tmp_path)
