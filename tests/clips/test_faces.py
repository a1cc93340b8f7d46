import cv2
import numpy as np
import pytest
import torch

import mertools as mt

CLIP = torch.zeros(40, 3, 120, 160, dtype=torch.uint8)


def bright_spot(image):
    """A detector of what the tests paint: the box around the bright pixels."""
    rows, columns = np.nonzero(image[..., 0] > 100)
    if not len(rows):
        return None
    return [(columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1, 0.9)]


def test_square_around_the_face_with_its_margin():
    assert mt.face_box(CLIP, lambda image: [(50, 30, 40, 50)], margin=0) == (45, 30, 50, 50)
    assert mt.face_box(CLIP, lambda image: [(50, 30, 40, 50)], margin=0.1) == (40, 25, 60, 60)
    assert mt.face_box(CLIP[0], lambda image: np.array([[50.0, 30, 40, 50, 0.9]])) == (38, 22, 65, 65)


def test_one_box_holds_a_face_that_moves():
    clip = CLIP.clone()
    for i in range(40):
        clip[i, :, 30:60, 40 + i : 70 + i] = 200
    x, y, w, h = mt.face_box(clip, bright_spot, margin=0)
    assert (x, w) == (40, 69)
    assert w == h
    assert y <= 30
    assert y + h >= 60


def test_the_box_stays_within_the_picture():
    assert mt.face_box(CLIP, lambda image: [(0, 0, 40, 40)], margin=0.5) == (0, 0, 80, 80)
    assert mt.face_box(CLIP, lambda image: [(100, 60, 60, 60)], margin=0.5) == (40, 0, 120, 120)  # no larger than it


def test_the_image_is_rgb_and_one_stray_detection_is_left_out():
    clip = CLIP.clone()
    clip[:, 0] = 255
    seen = []

    def detector(image):
        seen.append(image)
        return [(100, 80, 20, 20)] if len(seen) == 4 else [(20, 20, 40, 40)]

    assert mt.face_box(clip, detector, margin=0) == (20, 20, 40, 40)
    assert seen[0].shape == (120, 160, 3)
    assert seen[0][0, 0].tolist() == [255, 0, 0]
    assert len(seen) == 9


def test_small_faces_are_bystanders_and_several_large_ones_an_error():
    assert mt.face_box(CLIP, lambda image: [(50, 30, 40, 40), (0, 0, 15, 15)], margin=0) == (50, 30, 40, 40)
    with pytest.raises(
        ValueError, match=r"2 faces of similar size.*\(50, 30, 40, 40\), \(0, 0, 30, 30\).*the one wanted"
    ):
        mt.face_box(CLIP, lambda image: [(50, 30, 40, 40), (0, 0, 30, 30)])


@pytest.mark.parametrize("nothing", [None, [], np.zeros((0, 15)), torch.zeros(0, 4)])
def test_no_face(nothing):
    with pytest.raises(ValueError, match="no face in any of the 9 frames .*upright"):
        mt.face_box(CLIP, lambda image: nothing)


def test_a_face_in_few_frames():
    clip = CLIP.clone()
    clip[:6, :, 20:50, 20:50] = 200  # frames 0 and 5 of those looked at
    with pytest.raises(ValueError, match="a face in only 2 of the 9"):
        mt.face_box(clip, bright_spot)


def test_from_a_folder_and_an_iterator(tmp_path):
    image = np.zeros((60, 80, 3), np.uint8)
    image[20:40, 30:50] = 200
    for i in range(20):
        assert cv2.imwrite(str(tmp_path / f"img{i}.png"), image)
    assert mt.face_box(tmp_path, bright_spot, margin=0) == (30, 20, 20, 20)
    frames = iter(torch.from_numpy(image).permute(2, 0, 1) for _ in range(20))
    assert mt.face_box(frames, bright_spot, margin=0) == (30, 20, 20, 20)


@pytest.mark.parametrize(
    ("frames", "detector", "error", "message"),
    [
        (CLIP.float(), bright_spot, TypeError, r"uint8 RGB clip \(t, 3, h, w\), got torch.float32"),
        (CLIP[:0], bright_spot, TypeError, "uint8 RGB clip"),
        (CLIP, 5, TypeError, "a callable or the path of a YuNet ONNX file, got int"),
        (CLIP, "nowhere.onnx", FileNotFoundError, "none at nowhere.onnx: face_detection_yunet_2023mar.onnx"),
        (CLIP, lambda image: [(1, 2, 3)], TypeError, r"rows x, y, width, height, got an array of shape \(1, 3\)"),
        (CLIP, lambda image: (1, 2, 3, 4), TypeError, r"array of shape \(4,\)"),
        (CLIP, lambda image: ["face"], TypeError, "rows x, y, width, height"),
        (CLIP, lambda image: [(90, 80, -5, 20)], ValueError, "positive width and height"),
        ([torch.zeros(3, 4, 4)], bright_spot, TypeError, "must yield uint8 RGB"),
    ],
)
def test_bad_input(frames, detector, error, message):
    with pytest.raises(error, match=message):
        mt.face_box(frames, detector)


def test_a_file_that_is_no_model(tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(b"no model")
    with pytest.raises(ValueError, match="no YuNet model that OpenCV"):
        mt.face_box(CLIP, file)


def test_yunet_gets_bgr_of_the_right_size(tmp_path, monkeypatch):
    file = tmp_path / "yunet.onnx"
    file.write_bytes(b"stands for a model")
    calls = []

    class Network:
        def setInputSize(self, size):
            calls.append(size)

        def detect(self, image):
            calls.append(image[0, 0].tolist())
            return 1, np.array([[10, 10, 30, 30, *[0.0] * 10, 0.95]], np.float32)

    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *args, **kwargs: Network())
    clip = CLIP.clone()
    clip[:, 0] = 9
    assert mt.face_box(clip, file, margin=0) == (10, 10, 30, 30)
    assert calls[:2] == [(160, 120), [0, 0, 9]]
