import os
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch

import mertools as mt
from mertools.clips.read import frame_number


def picture(value, h=6, w=8):
    image = np.zeros((h, w, 3), np.uint8)
    image[..., 2] = value  # red, in OpenCV's order
    return image


@pytest.fixture
def folder(tmp_path):
    """Frames 8 to 12, numbered without padding, beside a file that is no image."""
    for number in (9, 10, 8, 12, 11):
        cv2.imwrite(str(tmp_path / f"reg_img{number}.png"), picture(number))
    (tmp_path / "notes.txt").write_text("not a frame")
    return tmp_path


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (64, 48))
    for value in range(0, 200, 20):
        writer.write(picture(value, 48, 64))
    writer.release()
    return path


def test_folder_is_ordered_by_number_not_by_text(folder):
    clip = mt.read_clip(folder)
    assert clip.dtype == torch.uint8
    assert clip.shape == (5, 3, 6, 8)
    assert clip[:, 0, 0, 0].tolist() == [8, 9, 10, 11, 12]
    assert not clip[:, 1:].any()  # red comes first: RGB


def test_start_and_stop_are_positions(folder, video):
    assert mt.read_clip(folder, start=1, stop=3)[:, 0, 0, 0].tolist() == [9, 10]
    whole = mt.read_clip(video)
    assert torch.equal(mt.read_clip(str(video), start=3, stop=7), whole[3:7])


def test_video(video):
    clip = mt.read_clip(video)
    assert clip.shape == (10, 3, 48, 64)
    assert clip.is_contiguous()
    torch.testing.assert_close(clip[:, 0].float().mean((1, 2)), torch.arange(0.0, 200, 20), atol=3, rtol=0)
    assert clip[:, 1:].float().mean() < 3


@pytest.mark.parametrize(("size", "shape"), [(5, (5, 5)), ((3, 9), (3, 9)), (None, (6, 8))])
def test_size(folder, size, shape):
    assert mt.read_clip(folder, size=size).shape[2:] == shape


def test_grey_and_transparent_images_become_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), np.full((4, 4), 7, np.uint8))
    cv2.imwrite(str(tmp_path / "2.png"), np.full((4, 4, 4), 7, np.uint8))
    assert (mt.read_clip(tmp_path) == 7).all()


def test_real_clip(real_clip):
    clip = mt.read_clip(real_clip)
    assert clip.shape == (72, 3, 360, 640)


def test_a_cut_off_video_says_so(video, monkeypatch):
    class Promising:  # not a subclass: those of OpenCV's types crash Python's garbage collector
        def __init__(self, path, backend):
            self.capture = real(path, backend)

        def __getattr__(self, name):
            return getattr(self.capture, name)

        def get(self, prop):
            return 25.0 if prop == cv2.CAP_PROP_FRAME_COUNT else self.capture.get(prop)

    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Promising)
    with pytest.warns(UserWarning, match="promises 25 frames but ends after 10"):
        assert len(mt.read_clip(video)) == 10
    assert len(mt.read_clip(video, stop=9)) == 9  # nothing is missing from what was asked for


@pytest.mark.parametrize(
    ("name", "number"),
    [("img46.jpg", 46), ("006_05562.jpg", 5562), ("Frame_000000012.jpg", 12), ("s3_ne_01.bmp", 1), ("a.png", None)],
)
def test_frame_number(name, number):
    assert frame_number(name) == number


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing at .*gone.mp4"):
        mt.read_clip(tmp_path / "gone.mp4")


def test_bad_folders(tmp_path):
    with pytest.raises(ValueError, match="folder without images"):
        mt.read_clip(tmp_path)
    cv2.imwrite(str(tmp_path / "1.png"), picture(1))
    cv2.imwrite(str(tmp_path / "2.png"), picture(1, 5, 5))
    with pytest.raises(ValueError, match=r"2.png is 5x5 and the frames before it are 6x8: pass size="):
        mt.read_clip(tmp_path)
    (tmp_path / "2.png").write_bytes(b"")
    with pytest.raises(ValueError, match="can't be decoded: .*2.png"):
        mt.read_clip(tmp_path)
    cv2.imwrite(str(tmp_path / "2.png"), picture(1))
    cv2.imwrite(str(tmp_path / "02.jpg"), picture(1))
    with pytest.raises(ValueError, match="two images of frame 2"):
        mt.read_clip(tmp_path)
    (tmp_path / "02.jpg").rename(tmp_path / "cover.jpg")
    with pytest.raises(ValueError, match="without a frame number in its name: .*cover.jpg"):
        mt.read_clip(tmp_path)


def test_bad_files(tmp_path, video):
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    with pytest.raises(ValueError, match="empty file"):
        mt.read_clip(empty)
    empty.write_bytes(b"this is no video" * 50)
    with pytest.raises(ValueError, match="no video that OpenCV can decode"):
        mt.read_clip(empty)
    with pytest.raises(ValueError, match="no frames from start=99"):
        mt.read_clip(video, start=99)


@pytest.mark.parametrize("kind", [".png", ".jpg", ".bmp", ".tif", ".webp", ".gif"])
def test_every_kind_of_image_that_is_promised(tmp_path, kind):
    if not cv2.haveImageWriter(kind):
        pytest.skip(f"this OpenCV writes no {kind}")
    for number in (1, 2):
        (tmp_path / f"img{number}{kind}").write_bytes(bytes(cv2.imencode(kind, picture(200))[1]))
    clip = mt.read_clip(tmp_path)
    assert clip.shape == (2, 3, 6, 8)
    assert (clip[:, 0].float() - 200).abs().max() < 25  # of a GIF, which has a palette
    (tmp_path / f"img2{kind}").rename(tmp_path / f"IMG2{kind.upper()}")
    assert mt.find_frames(mt.ClipAnnotation("x", "", tmp_path.name), tmp_path.parent).numbers == (1, 2)


@pytest.mark.parametrize(
    "data", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"GIF89a", b"II*\0\xff\xff"]
)
def test_no_image(data, tmp_path):
    (tmp_path / "img1.png").write_bytes(data)
    with pytest.raises(ValueError, match=r"img1\.png can't be decoded: img1\.png is empty, damaged"):
        mt.read_clip(tmp_path)


def test_more_pixels_than_opencv_takes(tmp_path):
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(ValueError, match=r"1\.png can't be decoded: .*OPENCV_IO_MAX_IMAGE_PIXELS"):
        mt.read_clip(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_and_a_device_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "img1.png")
    with pytest.raises(ValueError, match=r"img1\.png is no regular file"):
        mt.read_clip(tmp_path)
    (tmp_path / "img1.png").unlink()
    (tmp_path / "img1.png").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"img1\.png is no regular file"):
        mt.read_clip(tmp_path)


def test_names_that_look_like_something_else(video, monkeypatch, folder):
    video.rename(video.parent / "12:30.avi")
    monkeypatch.chdir(video.parent)
    assert len(mt.read_clip("12:30.avi")) == 10
    with pytest.raises(ValueError, match="empty string"):
        mt.read_clip("")
    assert len(mt.read_clip(folder, size=np.int64(4), start=np.int64(1), stop=np.int64(3))) == 2


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"size": 0}, ValueError, "size must be"),
        ({"size": (3, 4, 5)}, ValueError, "size must be"),
        ({"size": 10**8}, ValueError, "1 to 16384"),
        ({"size": "big"}, ValueError, "size must be"),
        ({"start": -1}, ValueError, "start must be"),
        ({"start": 3, "stop": 3}, ValueError, "stop must be a frame position after start=3"),
    ],
)
def test_bad_settings(folder, settings, error, message):
    with pytest.raises(error, match=message):
        mt.read_clip(folder, **settings)
    with pytest.raises(TypeError, match="path must be"):
        mt.read_clip(3.5)


def test_a_box_is_cut_out_before_the_frames_are_resized(tmp_path):
    image = np.zeros((20, 30, 3), np.uint8)
    image[5:15, 10:20] = (1, 2, 3)
    for i in range(2):
        assert cv2.imwrite(str(tmp_path / f"img{i}.png"), image)
    clip = mt.read_clip(tmp_path, box=(10, 5, 10, 10))
    assert clip.shape == (2, 3, 10, 10)
    assert clip[0, :, 0, 0].tolist() == clip[1, :, 9, 9].tolist() == [3, 2, 1]
    assert mt.read_clip(tmp_path, box=torch.tensor([10, 5, 10, 10]), size=4).unique().tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"within the picture of 30x20, got .* = \(25, 0, 6, 5\)"):
        mt.read_clip(tmp_path, box=(25, 0, 6, 5))
    for wrong in ((1, 2, 3), "1234", (1, 2, 3, 4.5), 7):
        with pytest.raises(TypeError, match="whole pixels"):
            mt.read_clip(tmp_path, box=wrong)
