"""The search without annotation, and near one, under what real cameras and people do."""

import pytest
import torch

import mertools as mt
from mertools.keyframes.robust import _step_at, find_key_frames
from mertools.movement.motion import find_cuts
from mertools.movement.pictures import small_frames

TIMING = {"num_frames": 90, "onset": 30, "apex": 42, "offset": 62, "size": 128}


def found(frames, *annotation, **settings):
    return tuple(int(key) for key in mt.select_keyframes(frames[None], *annotation, **settings)[:3])


def error(keys, clip):
    onset, apex, offset = keys
    return max(abs(onset - clip.onset), clip.apex - apex, apex - clip.apex_end, abs(offset - clip.offset))


@pytest.mark.parametrize("movement", ["smile", "brow-raise", "brow-lower"])
@pytest.mark.parametrize(
    ("condition", "tolerance"),
    [
        ({}, 0),
        ({"noise": 4.0}, 2),
        ({"amplitude": 0.9}, 1),
        ({"jpeg": 65}, 2),
        ({"jitter": 0.15}, 2),
        ({"drift": 2.5}, 2),
        ({"flicker": 0.01}, 2),
        ({"blink": 36}, 2),
        ({"blink": [5, 70], "blink_frames": 10}, 2),
        ({"nod": 2.0}, 3),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_finds_the_movement(movement, condition, tolerance):
    clip = mt.synthetic_clip(**TIMING, movement=movement, **condition)
    assert error(found(clip.frames), clip) <= tolerance


def test_all_together():
    clip = mt.synthetic_clip(
        **TIMING, noise=4.0, jpeg=70, jitter=0.15, drift=2.0, flicker=0.01, blink=[8, 60], nod=1.5, seed=3
    )
    assert error(found(clip.frames), clip) <= 4


def test_a_real_smile(real_clip):
    onset, apex, offset = found(mt.read_clip(real_clip))
    assert abs(onset - 16) <= 3
    assert 24 <= apex <= 66
    assert offset >= 68


def test_refine_takes_away_most_of_an_annotators_error():
    clip = mt.synthetic_clip(**TIMING, noise=3.0, blink=75)
    for annotation in [(25, 47, 67), (35, 38, 58), (27, 36, 65)]:
        assert error(found(clip.frames, *annotation, refine=True), clip) <= 2


def test_refine_stays_near_the_annotation():
    """Two movements in one clip: the annotation says which is meant."""
    first = mt.synthetic_clip(num_frames=60, onset=15, apex=25, offset=40, amplitude=3.0)
    second = mt.synthetic_clip(num_frames=60, onset=20, apex=32, offset=45, amplitude=1.5)
    frames = torch.cat((first.frames, second.frames))
    assert error(found(frames, 13, 22, 43, refine=True), first) <= 1
    keys = found(frames, 82, 90, 108, refine=True)
    assert error(tuple(key - 60 for key in keys), second) <= 1
    for key, mark in zip(keys, (82, 90, 108), strict=True):
        assert abs(key - mark) <= 8


def test_refine_of_a_clip_at_rest_keeps_the_annotation():
    frames = mt.drawn_portrait(64).expand(40, -1, -1, -1)
    keys = mt.select_keyframes(frames[None], 5, 20, 30, refine=True)
    assert [int(key) for key in keys[:3]] == [5, 20, 30]
    assert keys.score.item() == 0


def test_module_equals_function():
    clip = mt.synthetic_clip(**TIMING, noise=2.0)
    keys = mt.FrameSelector(refine=True)(clip.frames[None], 28, 40, 64)
    assert tuple(int(key) for key in keys[:3]) == found(clip.frames, 28, 40, 64, refine=True)


def test_refine_needs_frames_not_distances():
    with pytest.raises(ValueError, match="refine must be False with a distance of your own"):
        mt.select_keyframes(torch.rand(1, 9, 5), 1, 3, refine=True, distance=mt.pairwise_distance)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_and_ranges(dtype):
    clip = mt.synthetic_clip(**TIMING, amplitude=3.0)
    frames = clip.frames if dtype == torch.uint8 else (clip.frames / 255).to(dtype)
    assert error(found(frames), clip) <= 2


@pytest.mark.parametrize("layout", ["rgb", "grey", "no channel", "wide", "tall"])
def test_pictures_of_any_layout(layout):
    clip = mt.synthetic_clip(**TIMING, amplitude=3.0)
    frames = {
        "rgb": clip.frames,
        "grey": clip.frames[:, :1],
        "no channel": clip.frames[:, 1],
        "wide": torch.nn.functional.pad(clip.frames, (60, 60)),
        "tall": torch.nn.functional.pad(clip.frames, (0, 0, 60, 60)),
    }[layout]
    assert error(found(frames), clip) <= 1


def test_a_padded_batch_equals_its_clips_alone():
    clips = [mt.synthetic_clip(**{**TIMING, "num_frames": t}, noise=2.0, seed=t) for t in (67, 83)]
    frames = torch.full((2, 83, 3, 128, 128), torch.nan)
    for row, clip in zip(frames, clips, strict=True):
        row[: len(clip.frames)] = clip.frames
    keys = mt.select_keyframes(frames, lengths=[67, 83])
    for i, clip in enumerate(clips):
        alone = mt.select_keyframes(clip.frames[None].float())
        assert [int(key[i]) for key in keys[:3]] == [int(key) for key in alone[:3]]
        torch.testing.assert_close(keys.score[i], alone.score[0])


def test_the_score_is_the_distance_of_apex_and_onset():
    clip = mt.synthetic_clip(**TIMING, noise=2.0)
    keys = mt.select_keyframes(clip.frames[None])
    d = mt.pairwise_distance(clip.frames[None])
    assert keys.score.item() == d[0, keys.onset, keys.apex].item()


def test_deterministic():
    clip = mt.synthetic_clip(**TIMING, noise=4.0, nod=2.0)
    assert len({found(clip.frames) for _ in range(3)}) == 1


def profile(t=70, onset=20, apex=32, end=36, offset=50):
    frame = torch.arange(float(t))
    extent = torch.minimum((frame - onset) / (apex - onset), (offset - frame) / (offset - end)).clamp(0, 1)
    return (1 - torch.cos(extent * torch.pi)) / 2


def test_landmarks_under_head_motion():
    generator = torch.Generator().manual_seed(0)
    rest = torch.rand(68, 2, generator=generator) * 100
    points = rest + profile()[:, None, None] * torch.tensor([2.0, -2.0]) * (rest[:, :1] > 70)
    sway = torch.sin(torch.arange(70.0) / 9)
    points = points + 5 * sway[:, None, None] + 0.05 * torch.randn(70, 68, 2, generator=generator)
    onset, apex, offset = found(points)
    assert abs(onset - 20) <= 2
    assert 32 <= apex <= 36
    assert abs(offset - 50) <= 2


def test_flow_under_head_motion():
    generator = torch.Generator().manual_seed(0)
    field = torch.zeros(2, 36, 36)
    field[:, 24:32, 4:12] = 1.5
    flow = profile()[:, None, None, None] * field
    flow = flow + 3 * torch.sin(torch.arange(70.0) / 9)[:, None, None, None]
    onset, apex, offset = found(flow + 0.1 * torch.randn(flow.shape, generator=generator))
    assert abs(onset - 20) <= 2
    assert 32 <= apex <= 36
    assert abs(offset - 50) <= 2


def test_embeddings():
    generator = torch.Generator().manual_seed(0)
    x = profile()[:, None] * torch.randn(512, generator=generator) + 0.2 * torch.randn(70, 512, generator=generator)
    onset, apex, offset = found(x)
    assert abs(onset - 20) <= 2
    assert 31 <= apex <= 37
    assert abs(offset - 50) <= 2


@pytest.mark.parametrize("t", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("shape", [(1,), (5,), (3, 48, 48), (2, 9, 9), (17, 2)])
def test_short_clips_give_frames_in_order(t, shape):
    generator = torch.Generator().manual_seed(t)
    keys = mt.select_keyframes(torch.rand(3, t, *shape, generator=generator))
    assert bool((keys.onset >= 0).all())
    assert bool((keys.onset < keys.apex).all())
    assert bool((keys.apex <= keys.offset).all())
    assert bool((keys.offset < t).all())
    assert bool(torch.isfinite(keys.score).all())


def test_change_without_texture_is_no_crash():
    flat = torch.linspace(0, 200, 20).to(torch.uint8).view(1, 20, 1, 1, 1).expand(1, 20, 3, 64, 64)
    keys = mt.select_keyframes(flat)
    assert int(keys.onset) < int(keys.apex) <= int(keys.offset)
    assert bool(torch.isfinite(keys.score))


def test_one_grey_level_in_one_pixel():
    frames = torch.full((1, 20, 3, 64, 64), 100, dtype=torch.uint8)
    frames[0, 8:12, 1, 30, 30] += 1
    keys = mt.select_keyframes(frames)
    assert bool(torch.isfinite(keys.score))
    assert int(keys.onset) < int(keys.apex) <= int(keys.offset)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    clip = mt.synthetic_clip(**TIMING, noise=2.0)
    keys = mt.select_keyframes(clip.frames[None].cuda())
    assert keys.onset.is_cuda
    assert error(tuple(int(key) for key in keys[:3]), clip) <= 2


def test_compiles_and_exports_in_one_graph():
    clip = mt.synthetic_clip(**TIMING, noise=2.0)
    selector = mt.FrameSelector(refine=True)
    compiled = torch.compile(selector, fullgraph=True, backend="eager")
    for annotation in [(), (28, 40, 64)]:
        expected, keys = selector(clip.frames[None], *annotation), compiled(clip.frames[None], *annotation)
        for a, b in zip(keys, expected, strict=True):
            assert torch.equal(a, b)
    exported = torch.export.export(mt.FrameSelector(), (clip.frames[None],)).module()
    assert torch.equal(exported(clip.frames[None]).apex, mt.select_keyframes(clip.frames[None]).apex)


HELD = {"num_frames": 72, "onset": 16, "apex": 20, "offset": 71, "hold": 46, "noise": 1.5}


@pytest.mark.parametrize(
    "around",
    [{"drift": 12, "seed": 0}, {"nod": 3, "seed": 1}, {"nod": 6, "drift": 8, "blink": 27, "amplitude": 4, "seed": 2}],
)
def test_rest_that_is_the_exception(around):
    clip = mt.synthetic_clip(**HELD, **around)
    assert error(found(clip.frames), clip) <= 2


@pytest.mark.parametrize("crop", [(180, 50, 240), (170, 60, 228), (190, 40, 256)])
def test_a_real_smile_in_any_crop(real_clip, crop):
    x, y, side = crop
    clip = mt.read_clip(real_clip)[:, :, y : y + side, x : x + side].float()
    small = torch.nn.functional.interpolate(clip, (112, 112), mode="bilinear", antialias=True).round().byte()
    onset, apex, offset = found(small)
    assert abs(onset - 16) <= 3
    assert 24 - 4 <= apex <= 66
    assert offset >= 68


def test_key_frames_of_a_real_smile_hardly_depend_on_the_crop(real_clip):
    """Eight crops within eight per cent: within four frames each, two apart in the mean."""
    clip, generator, keys = mt.read_clip(real_clip), torch.Generator().manual_seed(3), []
    for _ in range(8):
        dx, dy, ds = ((torch.rand(3, generator=generator) * 2 - 1) * 0.08 * 240).int().tolist()
        part = clip[:, :, 50 + dy : 290 + dy + ds, 180 + dx : 420 + dx + ds].float()
        small = torch.nn.functional.interpolate(part, (112, 112), mode="bilinear", antialias=True).round().byte()
        keys.append(found(small))
    table = torch.tensor(keys).float()
    assert (table - table.mean(0)).abs().mean(0).max() <= 2
    assert (table[:, 0] - 16).abs().max() <= 4
    assert table[:, 1].min() >= 20
    assert table[:, 1].max() <= 70
    assert table[:, 2].min() >= 67


def test_a_face_that_wanders_at_rest_moves_visibly_later():
    """White noise is bridged; slow wandering hides the first of a movement, and the onset is where it shows."""
    rise = torch.arange(21) / 20
    clean = torch.cat((torch.zeros(30), rise * rise * (3 - 2 * rise), torch.ones(10), torch.zeros(0)))
    clean = torch.cat((clean, clean.flip(0)))
    wander = 0.04 * torch.sin(torch.arange(len(clean)) * 0.7)
    noise = 0.02 * torch.randn(len(clean), generator=torch.Generator().manual_seed(0))
    still, noisy, wandering = (found((clean + x).view(-1, 1))[0] for x in (0 * noise, noise, wander))
    assert still == 30
    assert abs(noisy - still) <= 2
    assert still + 2 <= wandering <= still + 9


@pytest.mark.parametrize("height", [0.0, 0.01, 0.5, 0.9, 1.0])
def test_where_a_smooth_step_reaches_a_height(height):
    x = _step_at(height)
    assert x * x * (3 - 2 * x) == pytest.approx(height, abs=1e-9)


def test_a_movement_has_evidence_and_intervals_that_hold_it():
    for movement in ("smile", "brow-raise", "brow-lower"):
        clip = mt.synthetic_clip(**TIMING, noise=3.0, movement=movement)
        keys = mt.select_keyframes(clip.frames[None])
        assert float(keys.evidence) >= 0.5
        onset, apex, offset = keys.spread[0].tolist()
        assert abs(int(keys.onset) - clip.onset) <= onset < 8
        assert clip.apex - apex - 0.5 <= int(keys.apex) <= clip.apex_end + apex + 0.5
        assert abs(int(keys.offset) - clip.offset) <= offset < 8


def test_without_a_movement_there_is_no_evidence():
    generator = torch.Generator().manual_seed(0)
    face = mt.drawn_portrait(112).float().expand(60, -1, -1, -1)
    light = 1 + 0.02 * torch.sin(torch.arange(60) * 1.37)[:, None, None, None]
    noise = torch.randn(60, 3, 112, 112, generator=generator)
    for frames in (face + 2 * noise, face * light + noise, 120 + 20 * noise):
        keys = mt.select_keyframes(frames.round().clamp(0, 255).byte()[None])
        assert float(keys.evidence) < 0.5
    still = mt.select_keyframes(face.byte()[None])
    assert (float(still.evidence), still.spread.tolist()) == (0.0, [[59.0] * 3])


def test_a_hard_cut_is_never_spanned():
    clip = mt.synthetic_clip(num_frames=60, onset=15, apex=25, offset=40, amplitude=3.0, size=112)
    before = 255 - mt.drawn_portrait(112).flip(2).expand(25, -1, -1, -1)
    frames = torch.cat((before, clip.frames, before))
    assert find_cuts(small_frames(frames)) == [25, 85]
    assert error(tuple(key - 25 for key in found(frames)), clip) <= 1
    assert error(tuple(key - 25 for key in found(frames, 38, 52, 67, refine=True)), clip) <= 1
    assert find_cuts(small_frames(clip.frames)) == []


def test_an_annotation_inside_the_interval_stays():
    clip = mt.synthetic_clip(**TIMING, noise=3.0)
    one = find_key_frames(clip.frames, (30, 44, 62))
    assert one.beside((30, 44, 62)) == (30, 44, 62)
    assert one.beside((30 + 6, 44, 62)) == (one.onset, 44, 62)
    assert one._replace(evidence=0.4).beside((1, 2, 3)) == (1, 2, 3)
