import itertools

import numpy as np
import pytest

from mertools.movement.trapezoid import Cut, TrapezoidFit, Windows, trapezoid


def cut_of(*keys):
    return Cut(*(np.array([key]) for key in keys))


def as_ints(cut):
    return tuple(int(key[0]) for key in cut)


@pytest.mark.parametrize("keys", [(5, 13, 17, 29), (0, 8, 8, 18), (20, 31, 40, 49)])
def test_finds_a_trapezoid_that_is_one(keys):
    signal = 3 - 2 * trapezoid(cut_of(*keys), 50)
    fit = TrapezoidFit(50)
    found = as_ints(fit.anywhere(signal, np.ones_like(signal)))
    # Not every length is tried, so that a side may be a frame off.
    assert max(abs(a - b) for a, b in zip(found, keys, strict=True)) <= 1


def test_equals_a_search_over_every_cut():
    t = 13
    generator = np.random.default_rng(0)
    fit = TrapezoidFit(t)
    for _ in range(5):
        signal, weight = generator.random((1, t), np.float32), generator.random((1, t), np.float32)
        best = min(
            (
                (weight * np.square(signal - trapezoid(cut_of(o, a, e, k), t))).sum().item()
                for o, a, e, k in itertools.product(range(t), repeat=4)
                if o < a <= e < k and {a - o, k - e} <= set(fit.lengths.tolist())
            )
        )
        found = fit._best(signal, weight, np.zeros(1), np.ones(1))
        error = (weight * np.square(signal - trapezoid(found, t))).sum().item()
        assert error <= best + 1e-5


def test_windows_bind():
    signal = trapezoid(cut_of(5, 13, 17, 29), 50)
    fit = TrapezoidFit(50, Windows((8, 12), (14, 20), (24, 27)))
    onset, apex, end, offset = as_ints(fit.anywhere(signal, np.ones_like(signal)))
    assert 8 <= onset <= 12
    assert apex <= 20
    assert end >= 14
    assert 24 <= offset <= 27


def test_a_signal_that_ends_high_has_no_fall():
    signal = trapezoid(cut_of(5, 13, 60, 70), 30)
    onset, apex, end, offset = as_ints(TrapezoidFit(30).anywhere(signal, np.ones_like(signal)))
    assert (onset, apex) == (5, 13)
    assert offset >= 29
    assert end >= 28
