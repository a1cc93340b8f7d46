import numpy as np
import pytest
from trajectories import motion_of, shape

from mertools.movement.certainty import evidence, half_widths
from mertools.movement.fit import search


def found(profile, *, noise=1.0, size=6.0, seed=0):
    random = np.random.default_rng(seed)
    extent = np.where(np.arange(40) < 16, size, 0)
    motion = motion_of(profile[:, None] * extent + noise * random.standard_normal((len(profile), 40)))
    fit = search(motion, None)
    onset, apex, _, offset = (int(key) for key in fit.cut)
    return evidence(motion, fit), half_widths(fit, fit, (0, 0), None, (onset, apex, offset))


def test_a_movement_is_evidence_and_noise_is_none():
    assert found(shape(15, 25, 35, 50, t=80))[0] > 0.5
    assert max(found(0 * shape(15, 25, 35, 50, t=80), seed=seed)[0] for seed in range(5)) < 0.5


def test_what_comes_several_times_is_less_evidence_than_what_comes_once():
    once = shape(10, 14, 16, 20, t=80)
    several = np.maximum.reduce([np.roll(once, shift) for shift in (0, 18, 36, 54)])
    assert found(several)[0] < 0.6 * found(once)[0]


@pytest.mark.parametrize("noise", [1.0, 2.5])
def test_intervals_hold_the_truth(noise):
    keys = 20, 32, 40, 60
    onset, _, offset = found(shape(*keys, t=90), noise=noise)[1]
    assert 1 <= onset < 12
    assert 1 <= offset < 16


def test_intervals_grow_as_the_movement_drowns():
    clear, faint = (found(shape(20, 32, 40, 60, t=90), size=size)[1] for size in (12.0, 1.5))
    assert faint[0] + faint[2] > clear[0] + clear[2]
