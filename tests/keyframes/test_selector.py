import pickle
import re
import subprocess
import sys
import textwrap

import cv2
import numpy as np
import pytest
import torch
from brute_force import PRESETS, as_tuples, brute_clip, brute_windows, norm

import mertools as mt
from mertools.keyframes.windows import search_clip, search_windows


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("name", PRESETS)
def test_windowed_search_equals_a_double_loop(name, dtype):
    b, t = 7, 83
    frames = torch.randint(0, 256, (b, t, 3, 5, 7)).to(dtype)
    lengths = torch.tensor([83, 80, 61, 83, 71, 40, 83])
    onset = torch.tensor([0, 3, 10, 41, 5, 0, 20])
    apex = torch.tensor([40, 43, 30, 41, 60, 21, 52])  # clip 3: apex on the onset, as in 55 rows of CAS(ME)³
    offset = torch.tensor([80, 79, 60, 82, 70, 39, 52])  # clip 6: offset on the apex
    keys = mt.FrameSelector.preset(name)(frames, onset, apex, offset, lengths)
    clips = frames.numpy()
    expected = [brute_windows(clips[i], int(onset[i]), int(apex[i]), int(offset[i]), PRESETS[name]) for i in range(b)]
    assert as_tuples(keys) == expected
    scores = [norm(clips[i], o, a) for i, (o, a, _) in enumerate(expected)]
    torch.testing.assert_close(keys.score, torch.tensor(scores, dtype=torch.float64))


@pytest.mark.parametrize("name", PRESETS)
def test_one_clip_with_plain_ints_equals_its_row_in_a_batch(name):
    frames = torch.randint(0, 256, (3, 67, 3, 5, 7), dtype=torch.uint8)
    selector = mt.FrameSelector.preset(name)
    together = selector(frames, onset=4, apex=30, offset=60, lengths=[67, 61, 64])
    for i, length in enumerate([67, 61, 64]):
        alone = selector(frames[i : i + 1, :length], onset=4, apex=30, offset=60)
        assert as_tuples(alone) == [as_tuples(together)[i]]


def test_windows_of_zero_keep_the_annotation():
    frames = torch.randint(0, 256, (2, 31, 3, 5, 7), dtype=torch.uint8)
    keys = mt.select_keyframes(frames, 3, 10, 29, onset_window=0, apex_window=(0, 0), offset_window=0)
    assert as_tuples(keys) == [(3, 10, 29)] * 2


def test_truncation_is_that_of_python_floats():
    # 0.29 · 100 is 28.999… in floating point: the window has 28 steps, not 29.
    frames = torch.zeros(1, 202, 1)
    frames[0, 29] = -9.0
    frames[0, 28] = -5.0
    keys = mt.select_keyframes(frames, 0, 100, 201, onset_window=0.29, apex_window=(0, 0), offset_window=0)
    assert keys.onset.item() == 28


def test_offset_defaults_to_the_last_valid_frame():
    frames = torch.rand(2, 31, 5)
    keys = mt.FrameSelector.preset("short")(frames, 3, 10, lengths=[31, 23])
    assert keys.offset.tolist() == [30, 22]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
def test_the_joint_argmax_over_distances_equals_a_triple_loop(dtype):
    frames = torch.randint(0, 256, (3, 23, 3, 5, 7)).to(dtype)
    lengths = [23, 2, 17]
    keys = mt.select_keyframes(frames, lengths=lengths, distance=mt.pairwise_distance)
    assert as_tuples(keys) == [brute_clip(frames[i, :n].numpy()) for i, n in enumerate(lengths)]


@pytest.mark.parametrize("movement", ["smile", "brow-raise", "brow-lower"])
def test_search_without_annotation_finds_the_truth_of_a_clean_clip(movement):
    clip = mt.synthetic_clip(movement=movement, amplitude=3.0)
    ((onset, apex, offset),) = as_tuples(mt.select_keyframes(clip.frames[None]))
    assert (onset, offset) == (clip.onset, clip.offset)
    assert clip.apex <= apex <= clip.apex_end


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_nothing_moves(dtype):
    frames = (torch.rand(1, 1, 3, 11, 13) * 255).to(dtype).expand(2, 31, 3, 11, 13)
    keys = mt.select_keyframes(frames, 3, 10, 29)
    assert as_tuples(keys) == [(3, 10, 29)] * 2
    assert keys.score.tolist() == [0, 0]
    keys = mt.select_keyframes(frames, lengths=[31, 2])
    assert as_tuples(keys) == [(0, 15, 30), (0, 1, 1)]
    assert keys.score.tolist() == [0, 0]


def test_a_tie_keeps_the_annotation():
    frames = torch.tensor([5.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]).view(1, 21, 1)
    keys = mt.select_keyframes(frames, 1, 11, 20)  # onset 2 and apex 10 would do as well
    assert as_tuples(keys) == [(1, 11, 20)]


def test_a_clip_that_ends_at_its_apex():
    keys = mt.select_keyframes(torch.tensor([0.0, 0, 0, 1, 2, 3]).view(1, 6, 1))
    assert as_tuples(keys) == [(2, 5, 5)]
    assert keys.score.item() == 3


OTHER_LAYOUTS = [
    ((2, 40, 32, 32, 3), "channels last (b, t, h, w, c): pass frames.permute(0, 1, 4, 2, 3)"),
    ((2, 40, 32, 48, 1), "channels last (b, t, h, w, c): pass frames.permute(0, 1, 4, 2, 3)"),
    ((2, 3, 40, 32, 48), "channels before time (b, c, t, h, w): pass frames.transpose(1, 2)"),
    ((2, 1, 40, 32, 48), "channels before time (b, c, t, h, w): pass frames.transpose(1, 2)"),
    ((80, 3, 32, 48), "one clip (t, c, h, w) without a batch axis: pass frames[None]"),
    ((80, 1, 32, 48), "one clip (t, c, h, w) without a batch axis: pass frames[None]"),
    ((80, 32, 32, 3), "one clip (t, h, w, c), channels last and without a batch axis: pass frames.permute(0, 3, 1, 2)"),
    ((3, 64, 64), "one image (c, h, w)"),
    ((64, 64, 3), "one image (h, w, c)"),
]


@pytest.mark.parametrize(("shape", "words"), OTHER_LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("call", [mt.select_keyframes, mt.FrameSelector(), mt.pairwise_distance])
def test_other_layouts_are_errors_that_say_which(shape, words, dtype, call):
    words = f"got shape {shape}, which looks like {words}"
    with pytest.raises(ValueError, match=re.escape(words)):
        call(torch.zeros(shape, dtype=dtype))


@pytest.mark.parametrize(
    "shape",
    [
        (2, 9, 3, 32, 48), (2, 9, 1, 32, 48), (2, 9, 2, 32, 48), (2, 9, 68, 2), (2, 40, 68, 3), (2, 9, 32, 48), (2, 9, 7),
        (3, 64, 512), (1, 3, 3, 32, 48), (9, 3, 5, 7), (9, 3, 68, 2), (1, 9, 32, 7, 7),
    ],
)  # fmt: skip
def test_layouts_that_are_meant_are_none(shape):
    assert mt.pairwise_distance(torch.zeros(shape)).shape == (shape[0], shape[1], shape[1])


@pytest.mark.parametrize(
    ("frames", "error", "words"),
    [
        ([torch.rand(9, 3, 32, 32)] * 2, ValueError, "got a list of Tensor: search one clip at a time, clip[None]"),
        (
            [np.zeros((32, 32, 3), np.uint8)] * 9,
            TypeError,
            "list of ndarray: torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None] makes one",
        ),
        (np.zeros((9, 32, 32, 3), np.uint8), TypeError, "torch.from_numpy(frames).permute(0, 3, 1, 2)[None] makes one"),
        (np.zeros((9, 5)), TypeError, "torch.as_tensor(frames) makes one"),
        (iter([np.zeros((32, 32, 3), np.uint8)]), TypeError, "torch.from_numpy(frame).permute(2, 0, 1) makes one"),
        (iter([torch.rand(32, 48, 3)] * 3), ValueError, "(32, 48, 3): channels last, pass frame.permute(2, 0, 1)"),
        (iter([torch.rand(9, 3, 32, 32)] * 2), ValueError, "search one clip at a time, clip[None]"),
    ],
)
def test_what_is_no_tensor_is_refused_with_the_line_that_makes_one(frames, error, words):
    with pytest.raises(error, match=re.escape(words)):
        mt.select_keyframes(frames)


def test_an_outlier_does_not_hide_a_small_movement():
    x = torch.zeros(1, 20, 3000)
    x[0, 10] += 1e-3
    x[0, 15] = 1e5
    keys = mt.select_keyframes(x, 8, 11, 14, onset_window=0.4, apex_window=(0.4, 0.0))
    assert keys.apex.item() == 10
    torch.testing.assert_close(mt.pairwise_distance(x)[0, 8, 10].item(), float(x[0, 10].norm()), rtol=1e-6, atol=0)


@pytest.mark.parametrize("lengths", [None, [29, 13]])
def test_padding_may_hold_anything(lengths):
    frames = torch.rand(2, 29, 3, 5, 7)
    if lengths:
        frames[1, 13:] = torch.nan
    keys = mt.select_keyframes(frames, lengths=lengths)
    assert as_tuples(keys)[1] == as_tuples(mt.select_keyframes(frames[1:, : (lengths or [29, 29])[1]]))[0]


def test_a_distance_of_your_own():
    def first_value(frames):
        return (frames[:, :, None] - frames[:, None]).abs()[..., 0]

    frames = torch.rand(2, 13, 5)
    keys = mt.FrameSelector(distance=first_value)(frames)
    assert as_tuples(keys) == [brute_clip(clip) for clip in frames[..., :1].numpy()]


def test_gather_takes_the_frames_of_any_tensor():
    frames = torch.randint(0, 256, (3, 17, 3, 5, 7), dtype=torch.uint8)
    keys = mt.select_keyframes(frames)
    onset, apex, offset = keys.gather(frames)
    assert onset.dtype == torch.uint8
    for i in range(3):
        assert torch.equal(onset[i], frames[i, keys.onset[i]])
        assert torch.equal(apex[i], frames[i, keys.apex[i]])
        assert torch.equal(offset[i], frames[i, keys.offset[i]])
    assert [x.shape for x in keys.gather(torch.rand(3, 17, 2))] == [(3, 2)] * 3


def test_frames_are_sampled_evenly_with_both_ends():
    keys = mt.KeyFrames(*torch.tensor([[2, 0, 7], [5, 1, 9], [9, 1, 40]]), score=torch.ones(3))
    assert keys.sample(2).tolist() == [[2, 9], [0, 1], [7, 40]]
    assert keys.sample(np.int64(8)).tolist()[0] == list(range(2, 10))
    for n in (3, 5, 16):
        frames = keys.sample(n)
        assert frames.dtype == torch.int64
        for row, onset, offset in zip(frames, (2, 0, 7), (9, 1, 40), strict=True):
            exact = torch.linspace(onset, offset, n, dtype=torch.float64)
            assert (row - exact).abs().max() <= 0.5
            assert (row[0], row[-1]) == (onset, offset)
    with pytest.raises(ValueError, match="n must be an integer of at least 2, got 1"):
        keys.sample(1)


def test_no_gradient_and_no_state():
    frames = torch.rand(1, 11, 5, requires_grad=True)
    selector = mt.FrameSelector()
    assert not selector(frames).score.requires_grad
    assert not selector.state_dict()
    assert as_tuples(pickle.loads(pickle.dumps(selector))(frames)) == as_tuples(selector(frames))


def test_module_equals_function():
    frames = torch.rand(2, 47, 5)
    windows = {"onset_window": 0.2, "apex_window": (0.3, 0.1), "offset_window": 0.4}
    one, other = mt.FrameSelector(**windows)(frames, 2, 30), mt.select_keyframes(frames, 2, 30, **windows)
    assert (one.evidence, one.spread) == (other.evidence, other.spread) == (None, None)
    for a, b in zip(one[:4], other[:4], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("annotation", [{}, {"onset": 3, "apex": 17, "offset": 28}])
def test_compiles_in_one_graph(annotation):
    frames = torch.rand(2, 31, 3, 11)
    lengths = torch.tensor([31, 29])
    selector = mt.FrameSelector.preset("wide")
    compiled = torch.compile(selector, fullgraph=True, backend="eager")
    assert as_tuples(compiled(frames, **annotation, lengths=lengths)) == as_tuples(
        selector(frames, **annotation, lengths=lengths)
    )


def test_memory_stays_within_three_times_the_batch():
    """Peak memory of a fresh process for a (4, 64, 3, 128, 128) uint8 batch, above what the batch itself takes."""
    script = textwrap.dedent("""
        import resource, sys, torch, mertools as mt
        selector = mt.FrameSelector()
        selector(torch.zeros(1, 64, 3, 8, 8, dtype=torch.uint8))  # loads what is loaded on first use
        frames = torch.randint(0, 256, (4, 64, 3, 128, 128), dtype=torch.uint8)
        frames += 0
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        selector(frames)
        selector(frames, 5, 30, 60)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    scale = 1 if sys.platform == "darwin" else 1024
    extra = int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout)
    assert extra * scale <= 3 * 4 * (4 * 64 * 3 * 128 * 128)


CLIP = torch.rand(2, 31, 5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mt.select_keyframes(CLIP, onset=3), ValueError, "apex must be given"),
        (lambda: mt.select_keyframes(CLIP, apex=3), ValueError, "onset must be given"),
        (lambda: mt.select_keyframes(CLIP, offset=3), ValueError, "onset must be given"),
        (lambda: mt.select_keyframes(CLIP, 9, 3), ValueError, "clip 0 are out of order: got 9, 3, 30"),
        (lambda: mt.select_keyframes(CLIP, 1, torch.tensor([3, 20]), 10), ValueError, "clip 1 are out of order"),
        (lambda: mt.select_keyframes(CLIP, -1, 3), ValueError, "clip 0 are out of range: got -1, 3, 30"),
        (lambda: mt.select_keyframes(CLIP, 1, 3, 31), ValueError, "out of range: got 1, 3, 31 in a clip of 31"),
        (lambda: mt.select_keyframes(CLIP, 1, 3, 20, lengths=[31, 20]), ValueError, "clip 1 are out of range"),
        (lambda: mt.select_keyframes(CLIP, 1.5, 3), TypeError, "onset must be an int"),
        (lambda: mt.select_keyframes(CLIP, 1, "x"), TypeError, "apex must be an int"),
        (lambda: mt.select_keyframes(CLIP, True, 3), TypeError, "onset must be an int"),
        (lambda: mt.select_keyframes(CLIP, 1, torch.tensor([3, 4, 5])), ValueError, r"apex must be a number or \(2,\)"),
        (lambda: mt.select_keyframes(CLIP[:, :1]), ValueError, "at least 2 frames"),
        (lambda: mt.select_keyframes(CLIP, lengths=[31, 1]), ValueError, "got 1 for clip 1"),
        (lambda: mt.select_keyframes(CLIP.long()), TypeError, "frames must be uint8 or floating"),
        (lambda: mt.select_keyframes(CLIP, distance="cosine"), ValueError, "distance must be 'l2' or a callable"),
        (lambda: mt.FrameSelector(distance=3), TypeError, "distance must be 'l2' or a callable"),
        (lambda: mt.select_keyframes(CLIP, distance=lambda x: x), ValueError, r"distance must return floating \(2, 31"),
        (lambda: mt.FrameSelector(onset_window=1.5), ValueError, r"onset_window must be in \[0, 1\]"),
        (lambda: mt.FrameSelector(onset_window="a"), TypeError, "onset_window must be a number"),
        (lambda: mt.FrameSelector(apex_window=0.1), TypeError, "apex_window must be"),
        (lambda: mt.FrameSelector(apex_window=(0.1, -0.1)), ValueError, r"apex_window\[1\]"),
        (lambda: mt.FrameSelector(onset_window=0.6, apex_window=(0.6, 0)), ValueError, "do not cross"),
        (lambda: mt.FrameSelector.preset("huge"), ValueError, "name must be one of 'full'"),
        (lambda: mt.select_keyframes(CLIP).gather(CLIP[:1]), ValueError, r"frames must be \(2, t"),
        (
            lambda: mt.select_keyframes(CLIP, 1, 3).gather(CLIP[:, :9]),
            ValueError,
            r"must hold the key frames \d+ to \d+, got t=9",
        ),
        (lambda: mt.select_keyframes(CLIP).gather([1]), TypeError, "frames must be a torch.Tensor"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_frames_that_are_not_finite_are_named(value):
    frames = torch.rand(3, 11, 5)
    frames[1, 4, 2] = value
    with pytest.raises(ValueError, match=rf"got {value} in clip 1 at frame 4"):
        mt.select_keyframes(frames)


# --- what is said, word for word ------------------------------------------------------------------------------------

HALF = torch.tensor([0.0, 1, 2]).view(1, 3, 1)


def broken(*frames, value=torch.nan):
    clip = torch.zeros(1, 31, 5)
    clip[0, list(frames)] = value
    return clip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: mt.select_keyframes(CLIP, 1, 3, refine=True, distance=mt.pairwise_distance),
            "refine must be False with a distance of your own: it looks at the frames' motion",
        ),
        (
            lambda: mt.select_keyframes(iter(CLIP[0]), lengths=[31]),
            "lengths must be None for a clip that is read frame by frame",
        ),
        (lambda: mt.select_keyframes(iter(CLIP[0]), memory=0), "memory must be a positive integer, got 0"),
        (
            lambda: mt.select_keyframes(CLIP, distance="cosine"),
            "distance must be 'l2' or a callable (b, t, ...) -> (b, t, t), got 'cosine'",
        ),
        (
            lambda: mt.select_keyframes(HALF, distance=lambda x: x),
            "distance must return floating (1, 3, 3) for these frames, got torch.float32 (1, 3, 1)",
        ),
        (
            lambda: mt.select_keyframes(HALF, distance=lambda x: torch.ones(1, 3, 3).long()),
            "distance must return floating (1, 3, 3) for these frames, got torch.int64 (1, 3, 3)",
        ),
        (
            lambda: mt.select_keyframes(HALF, distance=lambda x: 3),
            "distance must return floating (1, 3, 3) for these frames, got int",
        ),
        (
            lambda: mt.select_keyframes(HALF, distance=lambda x: torch.full((1, 3, 3), torch.inf)),
            "frames must have differences whose squares are finite, those of clip 0 are too large: scale them down",
        ),
        (
            lambda: mt.select_keyframes(HALF.mul(100).byte(), distance=lambda x: torch.full((1, 3, 3), torch.nan)),
            "frames must have differences whose squares are finite, those of clip 0 are too large: scale them down",
        ),
        *[
            (
                lambda marks=marks: mt.select_keyframes(broken(4, 7, 9), *marks),
                "frames must be finite, got nan in clip 0 at frame 4, 7, 9: drop or repair these frames, or leave "
                "padding out with lengths",
            )
            for marks in ((), (3, 5, 20))
        ],
        (
            lambda: mt.select_keyframes(broken(1, 2, 3, 4, 5, 6, value=torch.inf)),
            "frames must be finite, got inf in clip 0 at frame 1, 2, 3, 4, 5, …: drop or repair these frames, or leave "
            "padding out with lengths",
        ),
        (
            lambda: mt.select_keyframes(broken(1, 2, 3, 4, 5), 0, 6),
            "frames must be finite, got nan in clip 0 at frame 1, 2, 3, 4, 5: drop or repair these frames, or leave "
            "padding out with lengths",
        ),
        *[
            (
                lambda window=window: mt.FrameSelector(apex_window=window),
                f"apex_window must be (towards onset, towards offset), two fractions, got {window!r}",
            )
            for window in (0.1, "ab", (0.1,), (0.1, 0.2, 0.3))
        ],
        (lambda: mt.FrameSelector(onset_window=1.5), "onset_window must be in [0, 1], got 1.5"),
        (lambda: mt.FrameSelector(apex_window=(-0.5, 0)), "apex_window[0] must be in [0, 1], got -0.5"),
        (lambda: mt.FrameSelector(apex_window=[0, 1.5]), "apex_window[1] must be in [0, 1], got 1.5"),
        (lambda: mt.FrameSelector(offset_window="a"), "offset_window must be a number, got 'a'"),
        (
            lambda: mt.FrameSelector(onset_window=0.75, apex_window=(0.5, 0)),
            "onset_window + apex_window[0] must be at most 1 so that the windows do not cross, got 0.75 + 0.5",
        ),
        (
            lambda: mt.FrameSelector(apex_window=(0, 0.75), offset_window=0.5),
            "apex_window[1] + offset_window must be at most 1 so that the windows do not cross, got 0.75 + 0.5",
        ),
        (
            lambda: mt.select_keyframes(CLIP[:, :1]),
            "frames must hold at least 2 frames per clip, got t=1 (clip 0 and every other)",
        ),
        (
            lambda: mt.select_keyframes(CLIP, lengths=[31, 1]),
            "lengths must be at least 2, a clip needs two frames; got 1 for clip 1",
        ),
        (
            lambda: mt.select_keyframes(CLIP, apex=3, offset=5),
            "onset must be given with the rest of the annotation: pass onset and apex (offset is optional), "
            "or none of them to search the whole clip",
        ),
        (
            lambda: mt.select_keyframes(CLIP, onset=3),
            "apex must be given with the rest of the annotation: pass onset and apex (offset is optional), "
            "or none of them to search the whole clip",
        ),
        *[
            (
                lambda marks=marks: mt.select_keyframes(CLIP, *marks[:3]),
                f"onset, apex, offset of clip {marks[3]} are {marks[4]}: got {marks[5]} in a clip of 31 frames; "
                "expected 0 <= onset <= apex <= offset <= 30 (0-based positions, not file numbers)",
            )
            for marks in (
                (9, 3, None, 0, "out of order", "9, 3, 30"),
                (9, [9, 12], 11, 1, "out of order", "9, 12, 11"),
                (-1, 3, 4, 0, "out of range", "-1, 3, 4"),
                ([0, 1], 3, [30, 31], 1, "out of range", "1, 3, 31"),
                (40, 3, 4, 0, "out of range", "40, 3, 4"),
            )
        ],
        (lambda: mt.select_keyframes(CLIP, True, 3), "onset must be an int or a (b,) integer tensor, got True"),
        (lambda: mt.select_keyframes(CLIP, 1, "x"), "apex must be an int or a (b,) integer tensor, got 'x'"),
        (
            lambda: mt.select_keyframes(CLIP, 1, 2, [3.0, 4.0]),
            "offset must be an int or a (b,) integer tensor, got torch.float32",
        ),
        (
            lambda: mt.select_keyframes(CLIP, 1, torch.ones(2) > 0),
            "apex must be an int or a (b,) integer tensor, got torch.bool",
        ),
        (
            lambda: mt.select_keyframes(CLIP, 1, torch.ones(2) * 1j),
            "apex must be an int or a (b,) integer tensor, got torch.complex64",
        ),
        (
            lambda: mt.select_keyframes(CLIP, 1, 2, torch.tensor([3, 4, 5])),
            "offset must be a number or (2,), one per clip, got shape (3,)",
        ),
        (
            lambda: mt.FrameSelector.preset("huge"),
            "name must be one of 'full', 'short', 'late-apex', 'wide', got 'huge'",
        ),
    ],
)
def test_messages_in_full(call, message):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}$"):
        call()


def test_windows_may_meet_and_cover_everything():
    """1 is a window, and two of one phase may add up to it."""
    mt.FrameSelector(onset_window=1, apex_window=(0, 1), offset_window=0)
    mt.FrameSelector(onset_window=0.5, apex_window=[0.5, 0.5], offset_window=0.5)


def test_numbers_of_numpy_are_numbers():
    frames = torch.randint(0, 256, (2, 31, 7), dtype=torch.uint8)
    plain = as_tuples(mt.select_keyframes(frames, 3, [12, 13], 28, lengths=[31, 30], onset_window=0.5))
    for kind in (np.int64, np.uint8, np.int32):
        keys = mt.select_keyframes(
            frames, kind(3), np.array([12, 13], kind), kind(28), lengths=[kind(31), kind(30)],
            onset_window=np.float32(0.5), memory=kind(9),
        )  # fmt: skip
        assert as_tuples(keys) == plain
    assert mt.FrameSelector(onset_window=np.float64(0.25)).onset_window == 0.25
    streamed = mt.select_keyframes(iter(frames[0]), np.int64(3), np.int64(12), np.int64(28), memory=np.int64(10**6))
    assert as_tuples(streamed) == as_tuples(mt.select_keyframes(frames[:1], 3, 12, 28))
    with pytest.raises(TypeError, match="onset must be an int"):
        mt.select_keyframes(frames, np.bool_(True), 3)


def test_defaults_are_the_full_preset():
    frames = torch.randint(0, 256, (4, 90, 7), dtype=torch.uint8)
    full = as_tuples(mt.FrameSelector.preset("full")(frames, 5, 45, 85))
    assert as_tuples(mt.select_keyframes(frames, 5, 45, 85)) == full
    assert as_tuples(mt.FrameSelector()(frames, 5, 45, 85)) == full
    assert full != as_tuples(mt.FrameSelector.preset("short")(frames, 5, 45, 85))
    assert not mt.FrameSelector().refine


def test_what_a_selector_says_of_itself():
    selector = mt.FrameSelector(onset_window=0.25, apex_window=[0.5, 0.125], offset_window=0, distance="l2")
    assert (
        repr(selector) == "FrameSelector(onset_window=0.25, apex_window=(0.5, 0.125), offset_window=0, distance='l2')"
    )
    assert repr(mt.FrameSelector(distance=mt.pairwise_distance)).endswith("distance='pairwise_distance')")
    assert repr(mt.FrameSelector(refine=True)).endswith("distance='l2', refine=True)")

    class Mine:
        def __call__(self, frames):
            return frames

    assert repr(mt.FrameSelector(distance=Mine())).endswith("distance='custom')")


def test_settings_of_a_selector_reach_the_search():
    """Each of them, on a clip where it makes a difference: a path, an iterator and a tensor alike."""
    clip = torch.tensor([0.0, 5, 1, 2, 3, 9, 1, 4, 2, 8, 3, 0]).view(12, 1, 1, 1)
    for settings in (
        {"onset_window": 0.5}, {"apex_window": (0.5, 0.0)}, {"apex_window": (0.0, 0.5)}, {"offset_window": 0.75},
        {"onset_window": 0.0, "apex_window": (0.0, 0.0), "offset_window": 0.0},
    ):  # fmt: skip
        whole = as_tuples(mt.select_keyframes(clip[None], 1, 7, 11, **settings))
        assert as_tuples(mt.FrameSelector(**settings)(clip[None], 1, 7, 11)) == whole
        assert as_tuples(mt.select_keyframes(iter(clip), 1, 7, 11, **settings)) == whole
        assert as_tuples(mt.FrameSelector(**settings)(iter(clip), 1, 7, 11)) == whole
    assert len({str(as_tuples(mt.select_keyframes(clip[None], 1, 7, 11, onset_window=o, apex_window=(a, b),
                offset_window=f))) for o, a, b, f in
                ((0, 0, 0, 0), (0.5, 0, 0, 0), (0, 0.5, 0, 0), (0, 0, 0.5, 0), (0, 0, 0, 0.75))}) >= 4  # fmt: skip


def test_refinement_of_a_stream_is_that_of_the_clip():
    clip = mt.synthetic_clip(amplitude=3.0, size=64)
    for marks in ((clip.onset + 3, clip.apex, clip.offset - 2), (clip.onset + 3, clip.apex)):
        whole = as_tuples(mt.FrameSelector(refine=True)(clip.frames[None], *marks))
        assert as_tuples(mt.select_keyframes(iter(clip.frames), *marks, refine=True)) == whole
        assert as_tuples(mt.FrameSelector(refine=True)(iter(clip.frames), *marks)) == whole


def test_a_distance_of_your_own_reads_no_padding():
    frames = torch.rand(2, 13, 5)
    frames[1, 9:] = 1e6

    def distance(frames):
        return mt.pairwise_distance(frames)

    keys = mt.select_keyframes(frames, lengths=[13, 9], distance=distance)
    assert as_tuples(keys)[1] == as_tuples(mt.select_keyframes(frames[1:, :9], distance=distance))[0]
    assert as_tuples(mt.select_keyframes(frames, lengths=torch.tensor([13, 9]), distance=distance)) == as_tuples(keys)


def test_an_empty_batch_has_no_key_frames():
    keys = mt.select_keyframes(torch.zeros(0, 5, 3))
    assert [tuple(field.shape) for field in keys] == [(0,)] * 5 + [(0, 3)]
    assert keys.onset.dtype == torch.int64
    assert keys.score.dtype == torch.float64


def test_searches_stay_on_the_device_of_their_distances():
    d = torch.empty(2, 7, 7, dtype=torch.float64, device="meta")
    mark = torch.zeros(2, dtype=torch.int64, device="meta")
    for keys in (search_windows(d, mark, mark, mark, (0.1, (0.1, 0.0), 0.1), 0.0), search_clip(d, mark, 0.0)):
        assert {field.device.type for field in keys[:4]} == {"meta"}
        assert [tuple(field.shape) for field in keys[:4]] == [(2,)] * 4


def test_the_plain_search_in_small():
    """Written down by hand: an apex in the middle, at either end, a plateau, two frames, and nothing."""

    def keys(*values, n=None):
        frames = torch.tensor(values).double().view(1, -1, 1)
        found = mt.select_keyframes(frames, distance=mt.pairwise_distance, lengths=None if n is None else [n])
        return (*as_tuples(found)[0], found.score.item())

    assert keys(0, 4, 1) == (0, 1, 2, 4)
    assert keys(0, 1, 4) == (0, 2, 2, 4)
    assert keys(4, 1, 0) == (0, 2, 2, 4)
    assert keys(0, 0, 3, 3, 0, 0) == (1, 2, 4, 3)
    assert keys(0, 5) == (0, 1, 1, 5)
    assert keys(7, 7, 7, 7, 7) == (0, 2, 4, 0)
    assert keys(0, 0.25, 0, 0) == (0, 1, 2, 0.25)
    assert keys(0, 0.25, 0, 0, 90, n=4) == (0, 1, 2, 0.25)
    assert keys(3, 3, 3, 9, n=3) == (0, 1, 2, 0)


def test_a_box_is_searched_instead_of_the_whole_picture(tmp_path):
    clip = mt.synthetic_clip(num_frames=40, onset=10, apex=18, offset=30, size=48, amplitude=3.0)
    framed = torch.nn.functional.pad(clip.frames, (30, 12, 20, 4))
    folder = tmp_path / "clip"
    folder.mkdir()
    for i, frame in enumerate(framed):
        assert cv2.imwrite(str(folder / f"img{i}.png"), frame.permute(1, 2, 0).numpy()[..., ::-1])
    box = (30, 20, 48, 48)
    plain = mt.select_keyframes(clip.frames[None])
    near = mt.select_keyframes(clip.frames[None], 8, 20, 33)
    for source in (framed[None], str(folder), iter(framed)):
        assert torch.equal(torch.stack(mt.select_keyframes(source, box=box)[:3]), torch.stack(plain[:3]))
    for source in (framed[None], str(folder), iter(framed)):
        assert torch.equal(torch.stack(mt.select_keyframes(source, 8, 20, 33, box=box)[:3]), torch.stack(near[:3]))
    with pytest.raises(ValueError, match="box must lie within the picture of 90x72"):
        mt.select_keyframes(framed[None], box=(80, 0, 48, 48))
    with pytest.raises(ValueError, match="no pictures"):
        mt.select_keyframes(torch.rand(1, 9, 4, 4), box=box)
