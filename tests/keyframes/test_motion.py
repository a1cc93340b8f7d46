import pytest
import torch

import mertools as mt
from mertools.keyframes.motion import (
    _blur,
    _blurred,
    _in_one_spot,
    clip_motion,
    fit_affine,
    picture_motion,
    small_frames,
)

SETTINGS = {"num_frames": 24, "onset": 6, "apex": 12, "offset": 20, "size": 128}


def extent_map(motion):
    rows, columns = motion.grid
    return (motion.trust * motion.values.square()).sum(0).view(rows, columns, 2).sum(-1)


@pytest.mark.parametrize(("movement", "upper"), [("smile", False), ("brow-raise", True), ("brow-lower", True)])
def test_motion_is_where_it_was_made(movement, upper):
    where = extent_map(clip_motion(mt.synthetic_clip(**SETTINGS, movement=movement).frames))
    middle = len(where) // 2
    assert (where[:middle].sum() > where[middle:].sum()) == upper


def test_displacements_are_in_pixels():
    frames = torch.rand(1, 1, 160, 160, generator=torch.Generator().manual_seed(0))
    frames = torch.nn.functional.interpolate(frames[..., :40, :40], (160, 160), mode="bicubic") * 200
    clip = torch.cat([frames.roll((0, shift), (2, 3))[..., 20:140, 20:140] for shift in (0, 0, 1, 1, 0, 0)])
    shift = picture_motion(small_frames(clip)).global_motion
    assert (shift[2, 0] - shift[0, 0]).item() == pytest.approx(1.0, abs=0.1)
    assert (shift[2, 3] - shift[0, 3]).abs().item() < 0.1


def test_a_flicker_of_the_light_is_no_motion():
    still = mt.drawn_portrait(128).float()
    light = 1 + 0.05 * torch.sin(torch.arange(20.0))
    flicker = clip_motion(still * light[:, None, None, None])
    moving = clip_motion(mt.synthetic_clip(**SETTINGS, amplitude=0.5).frames)
    assert extent_map(flicker).max() < 0.1 * extent_map(moving).max()


def test_a_blink_is_not_trusted():
    clip = mt.synthetic_clip(**{**SETTINGS, "num_frames": 60, "onset": 40, "apex": 48, "offset": 58}, blink=15)
    trust = clip_motion(clip.frames).trust
    most = trust.amax(0)
    eyes = (trust[17] / most) < 0.1
    assert eyes.any()
    assert (trust[5][eyes] / most[eyes]).min() > 0.5


@pytest.mark.parametrize("shape", [(3, 224, 224), (3, 360, 640), (1, 650, 960), (3, 37, 41), (4, 128, 100)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_small_frames_are_means_and_do_not_depend_on_the_cut(shape, dtype):
    clip = torch.randint(0, 256, (11, *shape), generator=torch.Generator().manual_seed(0)).to(dtype)
    small = small_frames(clip)
    assert torch.equal(small, torch.cat([small_frames(part) for part in torch.split(clip, 3)]))
    assert max(small.shape[1:]) <= 1.25 * 168
    side = min(shape[1:])
    h, w = shape[1:]
    if max(h, w) > 1.25 * side:
        clip = clip[..., (h - side) // 2 : (h + side) // 2, (w - side) // 2 : (w + side) // 2]
    factor = clip.shape[2] // small.shape[1]
    expected = clip[..., :factor, :factor].double().mean((1, 2, 3))
    torch.testing.assert_close(small[:, 0, 0].double(), expected, rtol=1e-5, atol=1e-4)


def test_affine_motion_ignores_what_few_points_do():
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(60, 2, generator=generator) * 2 - 1
    truth = torch.randn(7, 6, generator=generator)
    basis = torch.cat((torch.ones(60, 1), places), -1)
    moved = torch.stack((truth[:, :3] @ basis.T, truth[:, 3:] @ basis.T), -1)
    moved[:, :12] += 5 * torch.randn(7, 12, 2, generator=generator)
    motion = fit_affine(moved, places, torch.eye(2).expand(60, 2, 2), torch.ones(7, 60))
    torch.testing.assert_close(motion, truth, atol=0.05, rtol=0)


def test_the_blur_of_opencv_is_that_of_the_matrices():
    """Elsewhere than on the CPU the frames are blurred by matrix products."""
    small = torch.rand(5, 40, 56, generator=torch.Generator().manual_seed(0)) * 255
    frames, half, _ = _blurred(small)
    torch.testing.assert_close(frames, _blur(40, small) @ small @ _blur(56, small).mT, rtol=1e-5, atol=1e-3)
    assert half.shape == (5, 20, 28)
    assert half.mean().item() == pytest.approx(0, abs=1e-3)
    assert half.std(unbiased=False).item() == pytest.approx(50, abs=1e-2)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_frames_are_levelled_whatever_their_range(size):
    small = torch.rand(4, 48, 48, generator=torch.Generator().manual_seed(0)) * size
    torch.testing.assert_close(_blurred(small)[1], _blurred(small / size)[1], rtol=1e-3, atol=1e-2)


def test_two_eyes_are_two_spots_and_a_mouth_is_one():
    excess = torch.zeros(9, 10, 10)
    excess[:, 3, 2:4] = excess[:, 3, 6:8] = 20
    assert _in_one_spot(excess.flatten(1), (10, 10)).max() == 0
    mouth = torch.zeros(9, 10, 10)
    mouth[:, 7, 4:6] = 20
    assert _in_one_spot(mouth.flatten(1), (10, 10)).min() > 0.99


def test_a_background_that_stays_while_the_face_moves_is_not_trusted():
    generator = torch.Generator().manual_seed(0)
    scene = torch.nn.functional.interpolate(torch.rand(2, 1, 30, 30, generator=generator), (150, 150), mode="bicubic")
    shifts = [0, 1, 2, 3, 4, 5, 5, 5, 5, 5, 4, 3, 2, 1, 0, 0]
    clip = torch.stack([scene[0, :, 10:130, 10 + s : 130 + s] for s in shifts]) * 200
    clip[..., :24] = scene[1, :, 10:130, :24] * 200  # a strip that stays
    motion = picture_motion(small_frames(clip))
    trust = motion.trust.mean(0).view(*motion.grid, 2)[..., 0]
    assert trust[:, 0].max() < 0.1 * trust[:, -1].min()


def test_appearance_gives_the_extent_of_a_mouth_that_opens():
    """No displacement: a dark spot that grows darker, held; how far it has gone is read off the frames."""
    face = mt.drawn_portrait(120).float()
    extent = torch.cat(
        (torch.zeros(12), torch.linspace(0, 1, 7), torch.ones(9), torch.linspace(1, 0, 7), torch.zeros(9))
    )
    y, x = torch.meshgrid(torch.arange(120.0), torch.arange(120.0), indexing="ij")
    mouth = torch.exp(-(((x - 60) / 12) ** 2) - ((y - 90) / 6) ** 2)
    clip = face - 90 * extent[:, None, None, None] * mouth
    motion = picture_motion(small_frames(clip))
    slow = torch.ones(len(extent), 1)
    looks, certain = motion.looks.along(motion, (extent > 0.5).float(), slow, motion.trust[:, ::2])
    best = looks.values[:, (looks.values.std(0) * certain).argmax()]
    gone = (best - best[0]) / (best[20] - best[0])
    torch.testing.assert_close(gone, extent, atol=0.03, rtol=0)
