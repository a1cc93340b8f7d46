import numpy as np
import pytest
from trajectories import motion_of, shape

from mertools.movement.fit import Nuisance, search


@pytest.mark.parametrize("keys", [(12, 22, 35, 50), (30, 36, 36, 47), (5, 11, 60, 68)])
def test_the_movement_that_trajectories_share_is_found_among_those_that_do_not_move(keys):
    t, random = 80, np.random.default_rng(0)
    extent = np.where(np.arange(40) < 12, random.uniform(4, 9, 40), 0)
    fit = search(motion_of(shape(*keys, t=t)[:, None] * extent + random.standard_normal((t, 40))), None)
    assert max(abs(int(a) - b) for a, b in zip(fit.cut, keys, strict=True)) <= 2
    assert np.abs(fit.extent - extent).max() < 1
    assert np.abs(fit.signal - shape(*keys, t=t)).max() < 0.25


def test_frames_that_do_not_follow_lose_their_weight():
    t, random = 60, np.random.default_rng(0)
    values = shape(15, 24, 30, 42, t=t)[:, None] * np.full(20, 6.0) + random.standard_normal((t, 20))
    values[5:8, :3] += 40  # a blink
    fit = search(motion_of(values), None)
    assert fit.robust[5:8, :3].max() < 0.1 * np.median(fit.robust)
    assert abs(int(fit.cut.onset) - 15) <= 1


def test_what_follows_the_head_is_taken_away_and_no_more_than_it_may_follow():
    t = 60
    head = np.zeros((t, 6))
    head[:, 0] = 5 * shape(10, 20, 30, 45, t=t)
    near, far = 0.3 * head[:, 0], 3 * head[:, 0]  # the one as parallax may, the other as it may not
    rest, _ = Nuisance(motion_of(np.stack((near, far), 1), head)).removed(
        np.stack((near, far), 1)[None].astype(np.float32), np.ones((1, t, 2), np.float32)
    )
    assert np.ptp(rest[0, :, 0]) < 0.1
    assert np.ptp(rest[0, :, 1]) > 5
    more = Nuisance(motion_of(np.stack((near, far), 1), head)).with_cubes()
    assert more.of_global.shape == (t, 7)
    assert more.limit.shape == (7, 2)
