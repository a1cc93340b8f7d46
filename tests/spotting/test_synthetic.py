import pytest
import torch

import mertools as mt

E = mt.SyntheticExpression


def test_it_is_rest_but_where_something_moves():
    video = mt.SyntheticVideo(40, [E(10, 14, 18, 24)], size=48, noise=0.0)
    frames = torch.stack(list(video))
    assert frames.shape == (40, 3, 48, 48)
    assert frames.dtype == torch.uint8
    still = [torch.equal(frame, frames[0]) for frame in frames]
    assert [i for i, same in enumerate(still) if not same] == list(range(11, 24))
    assert torch.equal(frames[14], frames[18])
    assert video.intervals == [(10, 24)]


def test_the_same_every_time_and_another_with_another_seed():
    made = [torch.stack(list(mt.SyntheticVideo(8, noise=2.0, drift=2.0, size=32, seed=s))) for s in (1, 1, 2)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize(
    ("settings", "moves"),
    [
        ({"blinks": [10]}, range(10, 17)),
        ({"nods": [(8, 12, 3.0)]}, range(10, 19)),
        ({"speech": [(10, 20)]}, range(12, 19)),
        ({"cuts": [20]}, range(20, 40)),
    ],
)
def test_what_else_moves(settings, moves):
    frames = torch.stack(list(mt.SyntheticVideo(40, size=64, noise=0.0, **settings))).float()
    change = (frames - frames[0]).abs().mean((1, 2, 3))
    assert change[:8].max() == 0
    assert sum(float(change[i]) > 0 for i in moves) >= 0.7 * len(moves)
    if "cuts" not in settings:
        assert change[31:].max() == 0


def test_ends_cut_intervals():
    video = mt.SyntheticVideo(30, [E(-5, 2, 4, 8), E(20, 25, 40, 50)], size=32)
    assert video.intervals == [(0, 8), (20, 29)]


def test_bad_settings():
    with pytest.raises(ValueError, match="onset < apex <= apex_end < offset"):
        mt.SyntheticVideo(30, [E(5, 5, 8, 9)])
    with pytest.raises(ValueError, match="num_frames"):
        mt.SyntheticVideo(0)
    with pytest.raises(ValueError, match="noise"):
        mt.SyntheticVideo(5, noise=-1.0)
