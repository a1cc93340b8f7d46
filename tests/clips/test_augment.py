import numpy as np
import pytest
import torch

import mertools as mt
from mertools.clips.augment import _matrix, normalise


def clip(t=5, h=37, w=29):
    return np.random.default_rng(0).integers(0, 256, (t, h, w, 3), dtype=np.uint8)


def test_flip_and_shift_take_pixels_as_they_are():
    frames = clip()
    assert (mt.transform_clip(frames, mt.Geometry(flip=True)) == frames[:, :, ::-1]).all()
    moved = mt.transform_clip(frames, mt.Geometry(right=3, down=-2))
    assert (moved[:, :-2, 3:] == frames[:, 2:, :-3]).all()
    assert not moved[:, -2:].any()
    assert not moved[:, :, :3].any()
    assert mt.transform_clip(frames, mt.Geometry()) is frames


def test_whole_pixels_and_the_affine_map_agree():
    import cv2

    frames, geometry = clip(), mt.Geometry(flip=True, right=4, down=-3)
    warped = cv2.warpAffine(frames[0], _matrix(geometry, 37, 29), (29, 37), flags=cv2.INTER_NEAREST)
    assert (mt.transform_clip(frames, geometry)[0] == warped).all()


def test_fractions_of_a_pixel_are_interpolated():
    frames = clip(2, 9, 11)
    half = mt.transform_clip(frames, mt.Geometry(right=0.5))
    between = (frames[:, :, :-1].astype(int) + frames[:, :, 1:]) / 2
    assert np.abs(half[:, :, 1:] - between).max() <= 1
    quarter = mt.transform_clip(frames, mt.Geometry(down=-2.25))
    expected = 0.75 * frames[:, 2:-1].astype(float) + 0.25 * frames[:, 3:]
    assert np.abs(quarter[:, : 9 - 3] - expected).max() <= 6  # OpenCV counts in 32nds of a pixel


@pytest.mark.parametrize("shift", [12, -12, 13, 500, -500])
def test_a_shift_beyond_the_side_leaves_black(shift):
    frames = clip(2, 12, 12)
    for geometry in (mt.Geometry(right=shift), mt.Geometry(down=shift), mt.Geometry(True, 0, shift, 3)):
        moved = mt.transform_clip(frames, geometry)
        assert moved.shape == frames.shape
        assert not moved.any()


def test_every_draw_fits_small_frames():
    augment, frames = mt.ClipAugment(degrees=0), clip(2, 12, 12)
    for seed in range(50):
        assert mt.transform_clip(frames, augment.draw(torch.Generator().manual_seed(seed))).shape == frames.shape


def test_numbers_of_numpy():
    frames = clip()
    augment = mt.ClipAugment(flip=np.float32(1), degrees=np.float64(0), padding=np.int64(0))
    assert repr(augment) == "ClipAugment(flip=1.0, degrees=0.0, padding=0)"
    assert augment.draw(torch.Generator()) == mt.Geometry(flip=True)
    moved = mt.transform_clip(frames, mt.Geometry(np.bool_(False), np.float32(0), np.int64(3), np.int64(0)))
    assert (moved == mt.transform_clip(frames, mt.Geometry(right=3))).all()
    assert mt.transform_clip(frames, mt.Geometry(), (np.int64(5), np.int64(7))).shape == (5, 5, 7, 3)
    with pytest.raises(ValueError, match="right must be finite"):
        mt.transform_clip(frames, mt.Geometry(right=float("nan")))


def test_a_quarter_turn_is_rot90():
    frames = clip(h=31, w=31)
    turned = mt.transform_clip(frames, mt.Geometry(degrees=90))
    expected = np.rot90(frames, axes=(1, 2))  # counter-clockwise
    assert np.abs(turned.astype(int) - expected)[:, 1:-1, 1:-1].max() <= 1


def test_all_frames_alike():
    frame = clip(1)
    out = mt.transform_clip(np.repeat(frame, 7, 0), mt.Geometry(True, 2.3, 4, -5), (23, 19))
    assert out.shape == (7, 23, 19, 3)
    assert (out == out[:1]).all()


def test_draws_are_those_of_the_generator_and_within_range():
    augment = mt.ClipAugment(flip=0.5, degrees=3, padding=15)
    draws = [augment.draw(torch.Generator().manual_seed(i)) for i in range(400)]
    assert draws[3] == augment.draw(torch.Generator().manual_seed(3))
    assert max(abs(g.degrees) for g in draws) <= 3
    assert max(abs(g.degrees) for g in draws) > 2.8
    assert {abs(g.right) for g in draws} == set(range(16))
    assert 0.4 < np.mean([g.flip for g in draws]) < 0.6
    still = mt.ClipAugment(flip=0, degrees=0, padding=0)
    assert still.draw(torch.Generator().manual_seed(0)) == mt.Geometry()


@pytest.mark.parametrize("options", [{"flip": 1.5}, {"degrees": -1}, {"padding": -1}, {"padding": 1.5}])
def test_bad_settings(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        mt.ClipAugment(**options)


def test_normalise():
    frames = clip()
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    out = normalise(frames, mean, std)
    assert out.shape == (5, 3, 37, 29)
    torch.testing.assert_close(out[2, 1, 3, 4], (torch.tensor(frames[2, 3, 4, 1] / 255).float() - 0.2) / 0.6)
