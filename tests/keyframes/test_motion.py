import pytest
import torch

import mertools as mt
from mertools.keyframes.motion import clip_motion, fit_affine, picture_motion, small_frames

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
