import pytest
import torch

import mertools as mt


def swing(amplitude, t=50, fps=50.0, hertz=4.0):
    """A soft blob that swings sideways by ``amplitude`` pixels."""
    y, x = torch.meshgrid(torch.arange(61.0), torch.arange(67.0), indexing="ij")
    time = torch.arange(t) / fps
    shift = amplitude * torch.sin(2 * torch.pi * hertz * time)
    return torch.exp(-((x - 33 - shift[:, None, None]) ** 2 + (y - 30) ** 2) / 18)[:, None] * 200


def centre(clip):
    x = torch.arange(67.0)
    return (clip.clamp(min=0).sum((1, 2)) * x).sum(1) / clip.clamp(min=0).sum((1, 2, 3))


def test_a_swing_grows_by_the_factor():
    clip = swing(0.2)
    loud = mt.magnify_motion(clip, factor=5, fps=50, low=2, high=8, displacement=0.2, levels=5)
    ratio = centre(loud).std() / centre(clip).std()
    assert 3.5 < ratio < 6.5


def test_other_frequencies_and_a_factor_of_zero_change_nothing():
    clip = swing(0.2)
    assert torch.equal(mt.magnify_motion(clip, factor=0, fps=50, low=2, high=8), clip)
    quiet = mt.magnify_motion(clip, factor=5, fps=50, low=12, high=20)
    loud = mt.magnify_motion(clip, factor=5, fps=50, low=2, high=8)
    assert (quiet - clip).abs().mean() < 0.05 * (loud - clip).abs().mean()


def test_bytes_and_still_clips():
    still = torch.randint(0, 256, (11, 3, 37, 29), dtype=torch.uint8)[:1].expand(11, -1, -1, -1)
    loud = mt.magnify_motion(still, factor=9, fps=30, low=1, high=9)
    assert loud.dtype == torch.uint8
    assert torch.equal(loud, still)


@pytest.mark.parametrize(
    ("clip", "options", "kind", "message"),
    [
        (torch.rand(3, 3, 37, 29), {}, ValueError, "at least 4 frames"),
        (torch.rand(7, 37, 29), {}, ValueError, r"clip must be \(t, c, h, w\)"),
        (torch.rand(7, 3, 37, 29).long(), {}, TypeError, "uint8 or floating"),
        (torch.rand(7, 3, 37, 29), {"high": 60}, ValueError, "high <= fps / 2 = 50 Hz"),
        (torch.rand(7, 3, 37, 29), {"low": 1, "high": 2}, ValueError, r"fps / t = 14.2857 Hz"),
        (torch.rand(7, 3, 37, 29), {"factor": -1}, ValueError, "factor must be"),
        (torch.rand(7, 3, 37, 29), {"levels": 0}, ValueError, "levels must be"),
    ],
)
def test_bad_inputs(clip, options, kind, message):
    with pytest.raises(kind, match=message):
        mt.magnify_motion(clip, **{"factor": 3, "fps": 100, "low": 2, "high": 20, **options})
