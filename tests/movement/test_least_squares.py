import numpy as np
import pytest

from mertools.movement.least_squares import least_squares, median


def test_small_systems_are_solved_as_by_lapack():
    random = np.random.default_rng(0)
    design = random.standard_normal((3, 40, 5), np.float32)
    values, weight = random.standard_normal((40, 7), np.float32), random.random((3, 40, 7), np.float32)
    found = least_squares(values[None], weight, design, (1e-6,) * 5)
    for s in range(3):
        for d in range(7):
            root = np.sqrt(weight[s, :, d])
            expected = np.linalg.lstsq(root[:, None] * design[s], root * values[:, d], rcond=None)[0]
            np.testing.assert_allclose(found[s, :, d], expected, rtol=1e-3, atol=1e-3)


def test_a_ridge_holds_one_coefficient_down():
    random = np.random.default_rng(0)
    design, values = random.standard_normal((1, 40, 2), np.float32), random.standard_normal((1, 40, 3), np.float32)
    free, held = (least_squares(values, np.ones_like(values), design, (1e-6, ridge))[0] for ridge in (1e-6, 1e6))
    assert np.abs(free).min() > 1e-3
    assert np.abs(held[1]).max() < 1e-3


@pytest.mark.parametrize("count", [5, 6])
def test_the_median_is_one_of_the_values(count):
    values = np.random.default_rng(0).permutation(count * 3).reshape(count, 3).astype(np.float32)
    np.testing.assert_array_equal(median(values), np.sort(values, 0)[(count - 1) // 2])
    np.testing.assert_array_equal(median(values, 1), np.sort(values, 1)[:, 1])
