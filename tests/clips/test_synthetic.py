import numpy as np
import pytest
import torch

import mertools as mt

SETTINGS = {"num_frames": 40, "onset": 10, "apex": 18, "offset": 30, "size": 48}


def change(clip, frame, of=0):
    return (clip.frames[frame].float() - clip.frames[of].float()).abs().mean().item()


@pytest.mark.parametrize("movement", ["smile", "brow-raise", "brow-lower"])
def test_the_truth_is_true(movement):
    clip = mt.synthetic_clip(**SETTINGS, movement=movement, amplitude=3.0, hold=3)
    frames = clip.frames
    assert frames.shape == (40, 3, 48, 48)
    assert frames.dtype == torch.uint8
    rest = frames[0]
    assert all(torch.equal(frames[i], rest) for i in [*range(clip.onset + 1), *range(clip.offset, 40)])
    assert not torch.equal(frames[clip.onset + 1], rest)
    assert not torch.equal(frames[clip.offset - 1], rest)
    assert all(torch.equal(frames[i], frames[clip.apex]) for i in range(clip.apex, clip.apex_end + 1))
    assert clip.apex_end == 21
    changes = [change(clip, i) for i in range(40)]
    assert changes[10:19] == sorted(changes[10:19])
    assert changes[21:31] == sorted(changes[21:31], reverse=True)


def centre_of_change(movement):
    clip = mt.synthetic_clip(**SETTINGS, movement=movement, amplitude=3.0)
    where = (clip.frames[18].float() - clip.frames[0].float()).abs().mean(0)
    rows = torch.arange(48.0)
    return float((where.sum(1) * rows).sum() / where.sum())


def test_movements_are_where_they_belong():
    assert centre_of_change("smile") > 30 > 22 > centre_of_change("brow-raise")
    assert centre_of_change("brow-lower") < 22


def test_amplitude_is_in_pixels():
    """A bright dot at the mouth corner moves by the amplitude."""
    portrait = torch.zeros(3, 300, 300, dtype=torch.uint8)
    eyes = ((100.0, 100.0), (200.0, 100.0))
    for x in (104, 196):
        portrait[:, 195:210, x - 7 : x + 8] = 255  # the mouth corners: ±0.46 and 1.02 distances from between the eyes
    clip = mt.synthetic_clip(portrait, eyes=eyes, num_frames=20, onset=2, apex=8, offset=16, size=300, amplitude=6.0)
    x = torch.arange(300.0)

    def right_dot(frame):
        light = clip.frames[frame].float().sum(0)[:, 150:]
        return torch.stack(((light.sum(0) * x[150:]).sum(), (light.sum(1) * x).sum())) / light.sum()

    moved = right_dot(8) - right_dot(0)
    assert moved.norm().item() == pytest.approx(6.0, abs=0.5)
    assert moved[0] > 3
    assert moved[1] < -3


def test_the_default_type_does_not_matter():
    expected = mt.synthetic_clip(**SETTINGS).frames
    torch.set_default_dtype(torch.float64)
    try:
        frames = mt.synthetic_clip(**SETTINGS).frames
    finally:
        torch.set_default_dtype(torch.float32)
    assert (frames.int() - expected.int()).abs().max() <= 1


def test_noise_has_its_strength_and_its_seed():
    clean = mt.synthetic_clip(**SETTINGS)
    noisy = mt.synthetic_clip(**SETTINGS, noise=4.0, seed=1)
    assert (noisy.frames.float() - clean.frames.float()).std().item() == pytest.approx(4.0, rel=0.1)
    assert torch.equal(noisy.frames, mt.synthetic_clip(**SETTINGS, noise=4.0, seed=1).frames)
    assert not torch.equal(noisy.frames, mt.synthetic_clip(**SETTINGS, noise=4.0, seed=2).frames)


def test_flicker_scales_the_light():
    clean = mt.synthetic_clip(**SETTINGS)
    flicker = mt.synthetic_clip(**SETTINGS, flicker=0.05)
    ratio = flicker.frames.float().mean((1, 2, 3)) / clean.frames.float().mean((1, 2, 3))
    assert ratio.max().item() == pytest.approx(1.05, abs=0.01)
    assert ratio.min().item() == pytest.approx(0.95, abs=0.01)


def test_drift_moves_the_head_by_its_distance():
    portrait = torch.zeros(3, 96, 96, dtype=torch.uint8)
    portrait[:, 44:52, 44:52] = 255
    clip = mt.synthetic_clip(portrait, **{**SETTINGS, "size": 96}, amplitude=0.0, drift=5.0)
    axis = torch.arange(96.0)

    def place(frame):
        light = clip.frames[frame].float().sum(0)
        return torch.stack(((light.sum(0) * axis).sum(), (light.sum(1) * axis).sum())) / light.sum()

    assert (place(39) - place(0)).norm().item() == pytest.approx(5.0, abs=0.2)


def test_blinks_are_short_and_stronger_than_the_movement():
    clip = mt.synthetic_clip(**{**SETTINGS, "num_frames": 60}, blink=[33, 48], amplitude=0.5)
    assert change(clip, 32) == change(clip, 41) == change(clip, 47) == change(clip, 56) == 0
    assert change(clip, 35) > change(clip, clip.apex)
    assert change(clip, 50) == pytest.approx(change(clip, 35))
    where = (clip.frames[35].float() - clip.frames[0].float()).abs().mean(0)
    assert where[8:24].sum() > 0.9 * where.sum()  # the band of the eyes


def test_a_large_portrait_does_not_alias():
    """Fine stripes of a large portrait average out when the face is made small."""
    portrait = torch.zeros(3, 960, 960, dtype=torch.uint8)
    portrait[:, :, ::2] = 255
    clip = mt.synthetic_clip(portrait, **SETTINGS)
    assert clip.frames.float().std() < 3


def test_numbers_of_numpy():
    settings = {**SETTINGS, "hold": 2, "blink": 3, "seed": 5, "jpeg": 90, "blink_frames": 6}
    numbers = {name: np.int64(value) for name, value in settings.items()}
    clip = mt.synthetic_clip(**numbers, noise=np.float32(2), amplitude=np.float64(1))
    assert torch.equal(clip.frames, mt.synthetic_clip(**settings, noise=2.0, amplitude=1.0).frames)
    assert [type(key) for key in (clip.onset, clip.apex, clip.offset)] == [int] * 3
    assert torch.equal(mt.resample_clip(clip.frames, np.int64(7)), mt.resample_clip(clip.frames, 7))
    band = {"factor": 4, "fps": 100, "low": 2, "high": 20, "levels": 3}
    loud = mt.magnify_motion(clip.frames, **{name: np.int32(value) for name, value in band.items()})
    assert torch.equal(loud, mt.magnify_motion(clip.frames, **band))


PORTRAIT = mt.drawn_portrait(64)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"onset": 20, "apex": 20}, ValueError, "onset < apex < offset is needed, got 20, 20"),
        ({"offset": 99}, ValueError, "offset must lie within the clip of 80 frames, got 99"),
        ({"hold": 20}, ValueError, "hold must leave room for the fall: 0 to 19"),
        ({"onset": 2.5}, TypeError, "onset must be an int"),
        ({"movement": "wink"}, ValueError, "movement must be one of 'smile'"),
        ({"size": 8}, ValueError, "size must be an integer of at least 16"),
        ({"noise": None}, TypeError, "noise must be a number"),
        ({"seed": None}, TypeError, "seed must be an int"),
        ({"eyes": "abc"}, TypeError, "eyes must be"),
        ({"noise": -1.0}, ValueError, "noise must be finite and at least 0"),
        ({"drift": float("nan")}, ValueError, "drift must be finite"),
        ({"blink": 80}, ValueError, "blink must start within the clip"),
        ({"blink": [1.5]}, TypeError, "blink must be an int"),
        ({"portrait": PORTRAIT.float()}, TypeError, "portrait must be a uint8"),
        ({"portrait": "face.jpg"}, TypeError, "portrait must be a uint8"),
        ({"portrait": PORTRAIT[0]}, ValueError, r"portrait must be \(3, h, w\)"),
        ({"portrait": PORTRAIT, "eyes": ((40, 20), (20, 20))}, ValueError, "eyes must be"),
    ],
)
def test_bad_input(settings, error, message):
    with pytest.raises(error, match=message):
        mt.synthetic_clip(**settings)
