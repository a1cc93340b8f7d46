"""Laws that key-frame selection obeys whatever the clip."""

import numpy as np
import pytest
import torch
from brute_force import PRESETS, as_tuples, brute_clip, brute_windows, clips, norm
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import mertools as mt

ROOT = 1e-15  # the last bit of a square root is not the same in PyTorch and NumPy


@st.composite
def annotated(draw, **settings):
    """A clip and an annotation of it; two or all three key frames may coincide."""
    clip = draw(clips(**settings))
    frame = st.integers(0, len(clip) - 1)
    return clip, tuple(sorted(draw(st.tuples(frame, frame, frame))))


@st.composite
def windows(draw):
    """Onset window, apex window before and after, offset window, such that they do not cross."""
    share = st.integers(0, 20)
    rise, fall = (sorted((draw(share), draw(share))) for _ in range(2))
    first, second = [rise[0], rise[1] - rise[0]], [fall[0], fall[1] - fall[0]]
    return first[0] / 20, first[1] / 20, second[0] / 20, second[1] / 20


def windowed(clip, marks, share, **more):
    on, before, after, off = share
    keys = mt.select_keyframes(
        clip[None], *marks, onset_window=on, apex_window=(before, after), offset_window=off, **more
    )
    return as_tuples(keys)[0], keys.score.item()


def anywhere(clip, distance=mt.pairwise_distance):
    """The plain joint search over true distances."""
    keys = mt.select_keyframes(clip[None], distance=distance)
    return as_tuples(keys)[0], keys.score.item()


def reach(clip, keys):
    onset, apex, offset = keys
    return norm(clip.numpy(), onset, apex) + norm(clip.numpy(), apex, offset)


# --- distances ------------------------------------------------------------------------------------------------------


@given(clips(values=(1, 40)))
def test_distances_of_whole_numbers_are_those_of_integer_arithmetic(clip):
    wide = clip.long()
    square = (wide[:, None] - wide[None]).square().sum(-1)
    assert torch.equal(mt.pairwise_distance(clip[None])[0], square.double().sqrt())


@given(clips(high=100), st.integers(0, 155))
def test_a_brighter_clip_has_the_same_distances(clip, more):
    assert torch.equal(mt.pairwise_distance(clip[None]), mt.pairwise_distance((clip + more)[None]))
    lit = mt.pairwise_distance(clip[None].double() + more)
    torch.testing.assert_close(lit, mt.pairwise_distance(clip[None]), rtol=1e-12, atol=1e-9)


@given(clips(), st.integers(-30, 30))
def test_distances_scale_with_the_values(clip, power):
    one = mt.pairwise_distance(clip[None].double())
    assert torch.equal(mt.pairwise_distance(clip[None].double() * 2.0**power), one * 2.0**power)


@given(clips(frames=(2, 9)), st.randoms(use_true_random=False))
def test_distances_are_a_metric_that_follows_its_frames(clip, random):
    d = mt.pairwise_distance(clip[None])[0]
    assert torch.equal(d, d.mT)
    assert not d.diagonal().any()
    through = (d[:, :, None] + d[None]).amin(1)  # d(i, k) <= d(i, j) + d(j, k)
    assert bool((d <= through + 1e-9).all())
    order = list(range(len(clip)))
    random.shuffle(order)
    assert torch.equal(mt.pairwise_distance(clip[order][None])[0], d[order][:, order])


@given(st.lists(clips(values=(3, 3)), min_size=1, max_size=4), st.booleans())
def test_distances_do_not_read_padding_or_neighbours(parts, floating):
    counts = [len(part) for part in parts]
    batch = torch.full((len(parts), max(counts) + 1, 3), torch.nan if floating else 7)
    batch = batch if floating else batch.to(torch.uint8)
    for row, part in zip(batch, parts, strict=True):
        row[: len(part)] = part
    d = mt.pairwise_distance(batch, lengths=counts)
    for i, (part, n) in enumerate(zip(parts, counts, strict=True)):
        assert torch.equal(d[i, :n, :n], mt.pairwise_distance(part[None].to(batch.dtype))[0])
        assert not d[i, n:].any()
        assert not d[i, :, n:].any()


# --- the windowed search --------------------------------------------------------------------------------------------


@given(annotated(), windows())
@example((torch.tensor([[0], [0], [9]], dtype=torch.uint8), (1, 1, 1)), (0.5, 0.5, 0.5, 0.5))
def test_windows_equal_a_double_loop(drawn, share):
    clip, marks = drawn
    keys, score = windowed(clip, marks, share)
    assert keys == brute_windows(clip.numpy(), *marks, share)
    assert score == pytest.approx(norm(clip.numpy(), *keys[:2]), rel=ROOT)


@given(annotated(frames=(20, 60), values=(1, 2), high=4), st.sampled_from(sorted(PRESETS)))
def test_presets_equal_a_double_loop(drawn, name):
    clip, marks = drawn
    keys = mt.FrameSelector.preset(name)(clip[None], *marks)
    assert as_tuples(keys)[0] == brute_windows(clip.numpy(), *marks, PRESETS[name])


@given(annotated(), windows())
def test_windows_keep_the_order_and_never_lose_distance(drawn, share):
    clip, (onset, apex, offset) = drawn
    (o, a, k), score = windowed(clip, (onset, apex, offset), share)
    assert onset <= o <= a <= k <= offset
    assert score >= norm(clip.numpy(), onset, apex) * (1 - ROOT)
    assert o - onset <= share[0] * (apex - onset)
    assert -share[1] * (apex - onset) <= a - apex <= share[2] * (offset - apex)
    assert offset - k <= share[3] * (offset - apex)


@given(annotated(high=100), windows(), st.integers(0, 155), st.integers(-8, 8), st.randoms(use_true_random=False))
def test_windows_do_not_see_brightness_contrast_or_the_order_of_pixels(drawn, share, more, power, random):
    clip, marks = drawn
    keys, score = windowed(clip, marks, share)
    assert windowed(clip + more, marks, share) == (keys, score)
    assert windowed(255 - clip, marks, share) == (keys, score)  # a negative is as far apart
    assert windowed(clip.double() * 2.0**power, marks, share)[0] == keys
    order = list(range(clip.shape[1]))
    random.shuffle(order)
    assert windowed(clip[:, order], marks, share) == (keys, score)


@given(annotated(), st.integers(1, 3), windows(), st.booleans())
def test_windows_do_not_see_padding(drawn, more, share, floating):
    clip, marks = drawn
    alone = windowed(clip, marks, share)
    clip = clip.double() if floating else clip
    padding = torch.full((more, clip.shape[1]), torch.nan if floating else 255, dtype=clip.dtype)
    padded = torch.cat([clip, padding])
    assert windowed(padded, marks, share, lengths=[len(clip)])[0] == alone[0]
    onset, apex, _ = marks
    to_the_end = windowed(clip, (onset, apex, len(clip) - 1), share)
    assert windowed(padded, (onset, apex), share, lengths=[len(clip)]) == to_the_end


# --- without an annotation ------------------------------------------------------------------------------------------


@given(clips(frames=(2, 9), high=9))
def test_the_joint_search_finds_the_largest_sum(clip):
    keys, score = anywhere(clip)
    onset, apex, offset = keys
    assert 0 <= onset < apex <= offset < len(clip)
    assert reach(clip, keys) == pytest.approx(reach(clip, brute_clip(clip.numpy())), rel=1e-12)
    assert score == pytest.approx(norm(clip.numpy(), onset, apex), rel=ROOT)


@given(clips(frames=(2, 9), high=9))
def test_played_backwards_the_joint_search_reaches_as_far(clip):
    keys, _ = anywhere(clip)
    backwards, _ = anywhere(clip.flip(0))
    assert reach(clip.flip(0), backwards) == pytest.approx(reach(clip, keys), rel=1e-12)


@given(st.lists(st.integers(0, 9), min_size=3, max_size=9, unique=True).map(sorted), st.data())
def test_played_backwards_a_peak_is_a_peak(levels, data):
    """A rise and a fall through unequal levels has one answer, which the mirror image has mirrored."""
    top = levels.pop()
    sides = data.draw(st.lists(st.booleans(), min_size=len(levels), max_size=len(levels)))
    rise = [level for level, side in zip(levels, sides, strict=True) if side]
    fall = [level for level, side in zip(levels, sides, strict=True) if not side]
    assume(rise and fall)
    clip = torch.tensor([*rise, top, *reversed(fall)], dtype=torch.uint8)[:, None]
    last = len(clip) - 1
    (onset, apex, offset), _ = anywhere(clip)
    assert (onset, apex, offset) == (0, len(rise), last)
    assert anywhere(clip.flip(0))[0] == (last - offset, last - apex, last - onset)


@given(clips(high=100), st.integers(0, 155), st.integers(-8, 8), st.randoms(use_true_random=False))
def test_the_joint_search_does_not_see_brightness_contrast_or_the_order_of_pixels(clip, more, power, random):
    found = anywhere(clip)
    assert anywhere(clip + more) == found
    assert anywhere(clip.double() * 2.0**power)[0] == anywhere(clip.double())[0]
    order = list(range(clip.shape[1]))
    random.shuffle(order)
    assert anywhere(clip[:, order]) == found


@settings(max_examples=settings.default.max_examples // 2)
@given(clips(frames=(2, 24)), st.randoms(use_true_random=False))
def test_the_robust_search_keeps_the_order_and_names_a_distance(clip, random):
    keys = mt.select_keyframes(clip[None])
    ((onset, apex, offset),) = as_tuples(keys)
    assert 0 <= onset < apex <= offset < len(clip)
    assert keys.score.item() == pytest.approx(norm(clip.numpy(), onset, apex), rel=ROOT)
    order = list(range(clip.shape[1]))
    random.shuffle(order)
    assert as_tuples(mt.select_keyframes(clip[:, order][None])) == [(onset, apex, offset)]


@settings(max_examples=settings.default.max_examples // 2)
@given(annotated(frames=(2, 40), values=(1, 3)))
def test_refinement_stays_near_the_annotation(drawn):
    clip, marks = drawn
    ((onset, apex, offset),) = as_tuples(mt.select_keyframes(clip[None], *marks, refine=True))
    assert 0 <= onset <= apex <= offset < len(clip)
    assert abs(apex - marks[1]) <= max(8, (marks[2] - marks[0]) // 4) + 1


@settings(max_examples=settings.default.max_examples // 5)
@given(
    st.sampled_from(["smile", "brow-raise", "brow-lower"]), st.sampled_from([0.25, 0.5, 2.0]), st.integers(-20, 60),
    st.integers(1, 5),
)  # fmt: skip
def test_the_robust_search_of_pictures_sees_neither_light_nor_padding(movement, gain, more, padding):
    clip = mt.synthetic_clip(movement=movement, amplitude=3.0, size=64).frames.float()
    expected = as_tuples(mt.select_keyframes(clip[None]))
    assert as_tuples(mt.select_keyframes((gain * clip + more)[None])) == expected
    padded = torch.cat([clip, clip.new_full((padding, *clip.shape[1:]), torch.nan)])
    assert as_tuples(mt.select_keyframes(padded[None], lengths=[len(clip)])) == expected


@settings(max_examples=settings.default.max_examples // 5)
@given(st.sampled_from(["smile", "brow-raise", "brow-lower"]), st.integers(0, 2**16))
def test_played_backwards_the_robust_search_finds_the_same_movement(movement, seed):
    clip = mt.synthetic_clip(movement=movement, amplitude=3.0, size=64, seed=seed)
    last = len(clip.frames) - 1
    ((onset, apex, offset),) = as_tuples(mt.select_keyframes(clip.frames.flip(0)[None]))
    assert abs(last - offset - clip.onset) <= 1
    assert abs(last - onset - clip.offset) <= 1
    assert clip.apex <= last - apex <= clip.apex_end


# --- batches --------------------------------------------------------------------------------------------------------


@given(st.lists(clips(frames=(4, 12), values=(3, 3)), min_size=2, max_size=4), st.data())
def test_a_clip_has_the_same_key_frames_in_any_batch(parts, data):
    counts = [len(part) for part in parts]
    batch = torch.zeros(len(parts), max(counts), 3, dtype=torch.uint8)
    for row, part in zip(batch, parts, strict=True):
        row[: len(part)] = part
    marks = [sorted(data.draw(st.tuples(*[st.integers(0, n - 1)] * 3))) for n in counts]
    onset, apex, offset = torch.tensor(marks).unbind(1)
    for distance, given_marks in (("l2", True), (mt.pairwise_distance, False)):
        keys = (onset, apex, offset) if given_marks else ()
        together = mt.select_keyframes(batch, *keys, lengths=counts, distance=distance)
        for i, part in enumerate(parts):
            alone = mt.select_keyframes(part[None], *(key[i : i + 1] for key in keys), distance=distance)
            assert as_tuples(alone) == [as_tuples(together)[i]]
            assert alone.score.item() == together.score[i].item()
            assert [frame[i].tolist() for frame in together.gather(batch)] == [
                part[key].tolist() for key in as_tuples(alone)[0]
            ]


@given(clips(dtype=np.float32, frames=(3, 9)), st.data(), st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_a_frame_that_is_not_finite_is_named(clip, data, value):
    bad = data.draw(st.integers(0, len(clip) - 1))
    batch = torch.stack([clip, clip, clip])
    batch[1, bad, data.draw(st.integers(0, clip.shape[1] - 1))] = value
    for marks in ((), (0, 1, 2)):
        with pytest.raises(ValueError, match=f"frames must be finite, got {value} in clip 1 at frame {bad}:"):
            mt.select_keyframes(batch, *marks)
