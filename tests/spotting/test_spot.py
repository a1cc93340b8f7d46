import tracemalloc
from itertools import islice, pairwise

import cv2
import numpy as np
import pytest
import torch

import mertools as mt
from mertools.spotting.spot import video_fps

E = mt.SyntheticExpression


def video(frames, expressions, **settings):
    return mt.SyntheticVideo(frames, expressions, **{"size": 72, "noise": 1.0, "seed": 3, **settings})


def found(source, **settings):
    return [(one.onset, one.offset) for one in mt.spot_expressions(iter(source), **settings)]


def right(source, **settings):
    """Hits, false alarms and misses."""
    return mt.spotting_scores([found(source, **settings)], [source.intervals])[:3]


THREE = [E(40, 48, 52, 64), E(110, 116, 120, 130, "brow-lower"), E(200, 215, 235, 255, "smile", 3.0)]


def test_several_expressions_with_key_frames_and_blinks_between():
    source = video(320, THREE, size=112, blinks=[75, 150, 180, 290], drift=1.0)
    spotted = mt.spot_expressions(iter(source))
    assert right(source) == (3, 0, 0)
    for one, true in zip(spotted, THREE, strict=True):
        assert abs(one.onset - true.onset) <= 3
        assert true.apex - 2 <= one.apex <= true.apex_end + 2
        assert abs(one.offset - true.offset) <= 3
        assert 0.5 <= one.evidence <= 1
        assert all(0 < width < 20 for width in one.spread)
        assert one.onset < one.apex <= one.offset
    assert all(a.offset < b.onset for a, b in pairwise(spotted))


def test_nothing_is_found_where_nothing_is():
    assert found(video(300, [], blinks=[40, 120, 200], nods=[(60, 40, 2.0)], drift=2.0)) == []
    assert found(video(300, [], noise=4.0)) == []
    assert mt.spot_expressions(torch.full((50, 3, 64, 64), 90, dtype=torch.uint8)) == []
    noise = torch.randint(0, 256, (120, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert mt.spot_expressions(noise) == []


def test_neighbours_that_share_a_rest_are_two():
    assert right(video(200, [E(60, 66, 72, 80), E(82, 88, 94, 102)])) == (2, 0, 0)


@pytest.mark.parametrize("hold", [50, 110, 240])
def test_one_that_is_held_is_one(hold):
    assert right(video(2 * hold + 220, [E(90, 98, 98 + hold, 108 + hold)])) == (1, 0, 0)


def test_the_ends_of_the_video_may_cut_the_first_and_the_last_off():
    source = video(200, [E(-6, 2, 14, 24, "smile", 3.0), E(182, 190, 206, 214, "smile", 3.0)])
    spotted = found(source)
    assert spotted[0][0] <= 2
    assert abs(spotted[0][1] - 24) <= 3
    assert abs(spotted[-1][0] - 182) <= 3
    assert spotted[-1][1] == 199
    assert len(spotted) == 2


def test_a_hard_cut_is_never_spanned_and_no_movement():
    source = video(300, [E(50, 58, 66, 76), E(200, 208, 216, 226)], cuts=[130])
    assert right(source) == (2, 0, 0)
    assert not any(onset < 130 <= offset for onset, offset in found(source))
    assert found(video(200, [], cuts=[60, 130])) == []


def test_speech_is_no_row_of_expressions():
    assert right(video(360, [E(280, 288, 296, 306)], speech=[(80, 180)])) == (1, 0, 0)


def test_limits_are_seconds_with_both_ends():
    source = video(320, THREE, size=112)
    assert len(found(source, fps=30, longest=0.7)) == 1  # 21 frames; the others have 25 and 56
    assert len(found(source, fps=30, shortest=1.0)) == 1
    assert len(found(source, fps=120, longest=0.5)) == 3
    with pytest.raises(ValueError, match="longest is in seconds, which needs fps"):
        mt.spot_expressions(iter(source), longest=0.5)
    with pytest.raises(ValueError, match="shortest must not exceed longest"):
        mt.spot_expressions(iter(source), fps=30, shortest=2, longest=1)


def test_a_tensor_a_video_a_folder_and_an_iterator_agree(tmp_path):
    source = video(130, [E(40, 48, 56, 70, "smile", 3.0)], noise=0.5)
    clip = torch.stack(list(source))
    by_tensor = mt.spot_expressions(clip)
    assert by_tensor == list(mt.iter_expressions(iter(clip)))
    for i, frame in enumerate(clip):
        assert cv2.imwrite(str(tmp_path / f"img{i}.png"), frame.permute(1, 2, 0).numpy()[..., ::-1])
    assert mt.spot_expressions(tmp_path) == by_tensor
    assert mt.spot_expressions(str(tmp_path), box=(0, 0, 72, 72)) == by_tensor
    framed = torch.nn.functional.pad(clip, (30, 10, 20, 4))
    assert mt.spot_expressions(framed, box=(30, 20, 72, 72)) == by_tensor


def test_a_stream_hands_on_what_is_over_while_it_goes_on():
    source, seen = video(900, [E(40, 48, 56, 70)]), []

    def frames():
        for i, frame in enumerate(source):
            seen.append(i)
            yield frame

    stream = mt.iter_expressions(frames())
    assert seen == []  # lazy
    first = next(stream)
    assert abs(first.onset - 40) <= 3
    assert seen[-1] < 300
    stream.close()


def test_memory_does_not_grow_with_the_video():
    source = video(200, [])
    clip = list(source)

    def repeated(times):
        for _ in range(times):
            yield from clip

    peaks = []
    for times in (2, 5):
        tracemalloc.start()
        list(mt.iter_expressions(repeated(times)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2**20  # what Python holds; tensors: see the benchmark
    with pytest.raises(ValueError, match="memory must hold 256 small frames"):
        list(mt.iter_expressions(iter(clip), memory=1000))


def test_landmarks_instead_of_pixels():
    random = torch.Generator().manual_seed(0)
    base = torch.rand(68, 2, generator=random) * 100
    frame = torch.arange(300.0)
    extent = ((frame - 100) / 10).clamp(0, 1).minimum(((140 - frame) / 10).clamp(0, 1))
    way = torch.zeros(68, 2)
    way[48:60] = torch.tensor([0.0, -3.0])
    points = base + extent.view(-1, 1, 1) * way + 0.1 * torch.randn(300, 68, 2, generator=random)
    points = points + (frame / 300).view(-1, 1, 1) * 5  # the head wanders
    assert mt.spotting_scores([mt.spot_expressions(points)], [[(100, 140)]])[:3] == (1, 0, 0)


def test_fps_of_a_file(tmp_path):
    file = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (64, 64))
    for i in range(12):
        writer.write(np.full((64, 64, 3), 10 * i, np.uint8))
    writer.release()
    assert video_fps(file) == 25
    assert video_fps(tmp_path) is None
    assert mt.spot_expressions(file, longest=0.5) == []


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (torch.zeros(2, 5, 3, 64, 64), ValueError, r"got a batch of shape .*: pass frames\[0\]"),
        (torch.zeros(5, 64), ValueError, "must be one clip"),
        (torch.zeros(5, 3, 0, 64), ValueError, "must not be empty"),
        (torch.zeros(5, 3, 64, 64, dtype=torch.int32), TypeError, r"uint8 or floating, got torch.int32"),
        (torch.zeros(1, 3, 64, 64), ValueError, "at least 2 frames, got 1"),
        (torch.zeros(0, 3, 64, 64), ValueError, "at least 2 frames, got 0"),
        (iter([]), ValueError, "at least 2 frames, got 0"),
        (5, TypeError, "or yield tensors, got int"),
        ([np.zeros((3, 64, 64))], TypeError, r"or yield tensors, got ndarray: torch.from_numpy"),
        ([torch.zeros(3, 64, 64), torch.zeros(3, 64, 65)], ValueError, "alike, got .* at frame 1"),
        ([torch.zeros(3, 64, 64), torch.full((3, 64, 64), torch.nan)], ValueError, "finite, got nan at frame 1"),
        ("nowhere.mp4", FileNotFoundError, "nothing at nowhere.mp4"),
    ],
)
def test_bad_frames(frames, error, message):
    with pytest.raises(error, match=message):
        mt.spot_expressions(frames)


@pytest.mark.parametrize(("name", "value"), [("fps", 0), ("fps", -1), ("longest", 0), ("memory", 0)])
def test_bad_settings(name, value):
    with pytest.raises(ValueError, match=name):
        mt.spot_expressions(torch.zeros(5, 3, 64, 64), **{name: value})
    with pytest.raises(TypeError, match="whole pixels"):
        mt.spot_expressions(torch.zeros(5, 3, 64, 64), box="face")


def test_slices_of_a_long_video_are_searched_as_they_come():
    source = video(700, [E(60 + 130 * i, 68 + 130 * i, 76 + 130 * i, 88 + 130 * i) for i in range(5)])
    assert right(source) == (5, 0, 0)
    assert [one.onset for one in islice(mt.iter_expressions(iter(source)), 2)] == [a for a, _ in found(source)[:2]]
