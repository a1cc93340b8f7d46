import numpy as np
import pytest
from scipy import stats

from mertools.audit.statistics import holm, spread_tests, wilson


def draw(offset, n=60, seed=0):
    random = np.random.default_rng(seed)
    return {"onset": random.normal(0, 1, n), "apex": random.normal(0.5, 1, n), "offset": random.normal(-1, offset, n)}


def named(tests):
    return {test.name: test for test in tests}


def test_the_uncertain_key_frame_is_found():
    tests = named(spread_tests(draw(3)))
    assert tests["Friedman"].p < 0.001
    assert tests["Wilcoxon offset / onset"].p_corrected < 0.001
    assert tests["Wilcoxon offset / onset"].effect > 0.5
    assert tests["Wilcoxon onset / apex"].p_corrected > 0.05
    ratio = tests["spread offset / onset"]
    assert ratio.low < 3 < ratio.high
    assert ratio.low > 1.5


def test_no_difference_is_rarely_claimed():
    claims = sum(named(spread_tests(draw(1, seed=i)))["Friedman"].p < 0.05 for i in range(200))
    assert claims <= 20  # 5 % of 200, and chance


def test_the_customary_tests_are_scipys():
    shifts = draw(2)
    tests = named(spread_tests(shifts))
    values = list(shifts.values())
    assert tests["Brown-Forsythe"].p == pytest.approx(stats.levene(*values, center="median").pvalue)
    assert tests["Fligner-Killeen"].p == pytest.approx(stats.fligner(*values).pvalue)
    deviation = [np.abs(x - np.median(x)) for x in values]
    assert tests["Friedman"].p == pytest.approx(stats.friedmanchisquare(*deviation).pvalue)
    assert tests["Wilcoxon offset / onset"].p == pytest.approx(
        stats.wilcoxon(deviation[2], deviation[0], method="approx").pvalue
    )


def test_a_shift_of_all_clips_is_no_spread():
    shifts = draw(1)
    moved = {**shifts, "offset": shifts["offset"] + 50}
    before, after = named(spread_tests(shifts)), named(spread_tests(moved))
    assert after["Wilcoxon offset / onset"].p == pytest.approx(before["Wilcoxon offset / onset"].p)


def test_intervals_resample_subjects():
    shifts = draw(3, 60)
    many = named(spread_tests(shifts))["spread offset / onset"]
    few = named(spread_tests(shifts, [str(i // 20) for i in range(60)]))["spread offset / onset"]
    assert few.effect == many.effect
    assert (few.low, few.high) != (many.low, many.high)


@pytest.mark.parametrize("shift", [[], [1.0], [1.0, 2.0], [0.0] * 9, [np.nan] * 9])
def test_too_little_to_tell(shift):
    tests = spread_tests(dict.fromkeys(("onset", "apex", "offset"), np.array(shift, dtype=float)))
    assert len(tests) == 9
    assert not any(test.p_corrected < 0.05 for test in tests)


def test_one_key_frame_that_never_moves():
    random = np.random.default_rng(0)
    shifts = {"onset": np.zeros(20), "apex": np.zeros(20), "offset": random.integers(-9, 9, 20).astype(float)}
    tests = named(spread_tests(shifts))
    assert tests["Wilcoxon offset / onset"].p_corrected < 0.01
    assert np.isnan(tests["spread offset / onset"].effect)


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    assert np.isnan(holm([float("nan"), 0.2])[0])


def test_wilson_by_formula():
    z, n, share = stats.norm.ppf(0.975), 40, 0.3
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    assert wilson(12, 40) == pytest.approx((centre - half, centre + half))
