import cv2
import numpy as np
import pytest
import torch

import mertools as mt

CLIP = mt.synthetic_clip(num_frames=60, onset=20, apex=30, offset=46, noise=2.0, size=160)
FITS, SMALL = 2**29, 15_000_000  # all frames; their small pictures, not all frames


def as_list(keys):
    return [key.item() for key in keys[:4]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("frames")
    for i, frame in enumerate(CLIP.frames):
        cv2.imwrite(str(path / f"img{i}.png"), np.ascontiguousarray(frame.permute(1, 2, 0).numpy()[..., ::-1]))
    return path


@pytest.mark.parametrize("annotation", [(), (18, 33, 49)])
@pytest.mark.parametrize("memory", [FITS, SMALL])
def test_a_path_gives_what_the_tensor_gives(folder, annotation, memory):
    expected = mt.select_keyframes(CLIP.frames[None], *annotation, refine=bool(annotation))
    keys = mt.select_keyframes(folder, *annotation, refine=bool(annotation), memory=memory)
    assert as_list(keys) == as_list(expected)


@pytest.mark.parametrize("memory", [FITS, SMALL])
def test_an_iterator_gives_the_key_frames_of_the_tensor(memory):
    expected = mt.select_keyframes(CLIP.frames[None])
    keys = mt.select_keyframes(iter(CLIP.frames), memory=memory)
    assert as_list(keys)[:3] == as_list(expected)[:3]
    assert keys.score.item() == pytest.approx(expected.score.item(), rel=0.05)


def test_beyond_the_memory_neighbours_are_averaged(folder):
    keys = mt.select_keyframes(iter(CLIP.frames), memory=3_000_000)
    assert all(abs(a - b) <= 6 for a, b in zip(as_list(keys)[:3], (20, 32, 46), strict=True))
    # A path is read again around them.
    keys = mt.select_keyframes(folder, memory=3_000_000)
    assert all(abs(a - b) <= 3 for a, b in zip(as_list(keys)[:3], (20, 32, 46), strict=True))


@pytest.mark.parametrize("source", ["folder", "iterator"])
@pytest.mark.parametrize("memory", [FITS, 4_000_000])
def test_published_windows(folder, source, memory):
    expected = mt.FrameSelector.preset("wide")(CLIP.frames[None], 18, 33, 49)
    settings = {"onset_window": 0.32, "apex_window": (0.0, 0.48), "offset_window": 0.0}
    clip = folder if source == "folder" else iter(CLIP.frames)
    assert as_list(mt.select_keyframes(clip, 18, 33, 49, memory=memory, **settings)) == as_list(expected)


def test_every_frame_of_the_windows_is_decoded_once(folder, monkeypatch):
    decoded = []
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *args: decoded.append(1) or decode(*args))
    mt.select_keyframes(folder, 10, 30, 50)
    assert len(decoded) == 3 * 3  # three windows of ⌊0.1 · 20⌋ + 1 frames


def test_a_module_reads_paths_too(folder):
    assert as_list(mt.FrameSelector()(folder)) == as_list(mt.select_keyframes(CLIP.frames[None]))


def test_nothing_moves():
    keys = mt.select_keyframes((CLIP.frames[0] for _ in range(30)), memory=1_000_000)
    assert as_list(keys) == [0, 15, 29, 0.0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mt.select_keyframes(iter([])), ValueError, "at least 2 frames"),
        (lambda: mt.select_keyframes(iter([1, 2])), TypeError, "yield tensors, got int"),
        (lambda: mt.select_keyframes(iter(CLIP.frames), memory=0), ValueError, "memory must be a positive integer"),
        (lambda: mt.select_keyframes(iter(CLIP.frames), lengths=[3]), ValueError, "lengths must be None"),
        (lambda: mt.select_keyframes("gone.mp4"), FileNotFoundError, "nothing at gone.mp4"),
        (
            lambda: mt.select_keyframes(iter(CLIP.frames), 3, 9, memory=10**6),
            ValueError,
            "pass the annotation's offset",
        ),
        (lambda: mt.select_keyframes(iter(CLIP.frames), 3, 9, 70, memory=4 * 10**6), ValueError, "clip ends before"),
        (lambda: mt.select_keyframes(iter(CLIP.frames), 3, 9, 50, memory=10**5), ValueError, "frames of the windows"),
        (lambda: mt.select_keyframes(torch.rand(30, 5000).unbind(), memory=10**5), ValueError, "must hold all frames"),
        (lambda: mt.select_keyframes([torch.rand(3), torch.rand(4)]), ValueError, "must be alike.*at frame 1"),
        (lambda: mt.select_keyframes([torch.rand(3), torch.full((3,), torch.nan)]), ValueError, "got nan at frame 1"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
