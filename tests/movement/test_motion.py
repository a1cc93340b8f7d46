import numpy as np
import pytest
import torch

import mertools as mt
from mertools.movement.motion import _in_one_spot, clip_motion, fit_affine, picture_motion
from mertools.movement.pictures import small_frames

SETTINGS = {"num_frames": 24, "onset": 6, "apex": 12, "offset": 20, "size": 128}


def extent_map(motion):
    rows, columns = motion.grid
    return (motion.trust * np.square(motion.values)).sum(0).reshape(rows, columns, 2).sum(-1)


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
    assert float(shift[2, 0] - shift[0, 0]) == pytest.approx(1.0, abs=0.1)
    assert abs(float(shift[2, 3] - shift[0, 3])) < 0.1


def test_a_flicker_of_the_light_is_no_motion():
    still = mt.drawn_portrait(128).float()
    light = 1 + 0.05 * torch.sin(torch.arange(20.0))
    flicker = clip_motion(still * light[:, None, None, None])
    moving = clip_motion(mt.synthetic_clip(**SETTINGS, amplitude=0.5).frames)
    assert extent_map(flicker).max() < 0.1 * extent_map(moving).max()


def test_a_blink_is_not_trusted():
    clip = mt.synthetic_clip(**{**SETTINGS, "num_frames": 60, "onset": 40, "apex": 48, "offset": 58}, blink=15)
    trust = clip_motion(clip.frames).trust
    most = trust.max(0)
    eyes = (trust[17] / most) < 0.1
    assert eyes.any()
    assert (trust[5][eyes] / most[eyes]).min() > 0.5


def test_affine_motion_ignores_what_few_points_do():
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(60, 2, generator=generator) * 2 - 1
    truth = torch.randn(7, 6, generator=generator)
    basis = torch.cat((torch.ones(60, 1), places), -1)
    moved = torch.stack((truth[:, :3] @ basis.T, truth[:, 3:] @ basis.T), -1)
    moved[:, :12] += 5 * torch.randn(7, 12, 2, generator=generator)
    precision = np.broadcast_to(np.eye(2, dtype=np.float32), (60, 2, 2))
    motion = fit_affine(moved.numpy(), places.numpy(), precision, np.ones((7, 60), np.float32))
    np.testing.assert_allclose(motion, truth, atol=0.05, rtol=0)


def test_two_eyes_are_two_spots_and_a_mouth_is_one():
    excess = torch.zeros(9, 10, 10)
    excess[:, 3, 2:4] = excess[:, 3, 6:8] = 20
    assert _in_one_spot(excess.flatten(1).numpy(), (10, 10)).max() == 0
    mouth = torch.zeros(9, 10, 10)
    mouth[:, 7, 4:6] = 20
    assert _in_one_spot(mouth.flatten(1).numpy(), (10, 10)).min() > 0.99


def test_a_background_that_stays_while_the_face_moves_is_not_trusted():
    generator = torch.Generator().manual_seed(0)
    scene = torch.nn.functional.interpolate(torch.rand(2, 1, 30, 30, generator=generator), (150, 150), mode="bicubic")
    shifts = [0, 1, 2, 3, 4, 5, 5, 5, 5, 5, 4, 3, 2, 1, 0, 0]
    clip = torch.stack([scene[0, :, 10:130, 10 + s : 130 + s] for s in shifts]) * 200
    clip[..., :24] = scene[1, :, 10:130, :24] * 200  # a strip that stays
    motion = picture_motion(small_frames(clip))
    trust = motion.trust.mean(0).reshape(*motion.grid, 2)[..., 0]
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
    slow, profile = np.ones((len(extent), 1), np.float32), (extent > 0.5).float().numpy()
    looks, certain = motion.looks.along(motion, profile, slow, motion.trust[:, ::2])
    best = looks.values[:, (looks.values.std(0) * certain).argmax()]
    gone = (best - best[0]) / (best[20] - best[0])
    np.testing.assert_allclose(gone, extent, atol=0.03, rtol=0)
