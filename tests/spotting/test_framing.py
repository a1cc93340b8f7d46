import warnings

import pytest
import torch

import mertools as mt
from mertools.spotting.framing import notice, watched


def moving(height, width, rows, columns, frames=20):
    """Frames in which noise is everywhere, and one part changes."""
    random = torch.Generator().manual_seed(0)
    clip = 100 + 2 * torch.randn(frames, 3, height, width, generator=random)
    clip[::2, :, rows, columns] += 60
    return clip.clamp(0, 255).to(torch.uint8)


def test_a_face_in_the_middle_is_no_news():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip = moving(120, 160, slice(30, 90), slice(50, 110))
        assert all(torch.equal(a, b) for a, b in zip(watched(iter(clip)), clip, strict=True))
        list(watched(iter(torch.zeros(5, 3, 64, 64))))  # nothing changes
        list(watched(iter(clip[:, 0])))  # grey without a channel axis


@pytest.mark.parametrize(
    ("shape", "rows", "columns", "message"),
    [
        ((120, 160), slice(30, 90), slice(110, 160), r"off the middle of the picture, about \(x, y\) = \(13"),
        (
            (120, 400),
            slice(30, 90),
            slice(10, 80),
            r"off the middle .* = \(\d\d, [56]\d\), while the middle is searched",
        ),
        ((160, 160), slice(0, 40), slice(60, 100), r"off the middle .*face_box"),
        ((200, 120), slice(60, 120), slice(30, 90), "upright, 120x200: only its middle square, rows 40 to 160"),
    ],
)
def test_a_face_elsewhere_is_told(shape, rows, columns, message):
    with pytest.warns(UserWarning, match="no box was given and .*" + message):
        list(watched(iter(moving(*shape, rows, columns))))


def test_it_is_told_once_and_early():
    clip = moving(96, 96, slice(0, 20), slice(0, 20), frames=120)
    frames = watched(iter(clip))
    with pytest.warns(UserWarning, match="no box"):
        first = [next(frames) for _ in range(90)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(first) + len(list(frames)) == 120


def test_spotting_tells_and_a_box_silences_it():
    clip = moving(96, 96, slice(0, 20), slice(0, 20))
    with pytest.warns(UserWarning, match="no box was given"):
        mt.spot_expressions(clip)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mt.spot_expressions(clip, box=(0, 0, 64, 64))


def test_nothing_that_moves():
    assert notice(torch.zeros(4, 4), 64, 64) == ""
