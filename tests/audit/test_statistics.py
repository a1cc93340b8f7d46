import numpy as np
import pytest
from scipy import stats

from mertools.audit.statistics import holm, spread_tests, variance_components, wilson


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


def components(annotators, method, n=240, subjects=24, seed=0, told=None):
    """Made data: annotators and a search that err independently, the search by another amount in every clip."""
    random = np.random.default_rng(seed)
    own = method * random.uniform(0.5, 1.5, n)
    difference = random.normal(0, annotators, n) - random.normal(0, own)
    people = [str(i % subjects) for i in range(n)]
    return variance_components("all", "onset", difference, 1.645 * (own if told is None else told), people, [1] * n)


@pytest.mark.parametrize(("annotators", "method"), [(3, 1), (1, 3), (2, 2), (6, 0.5)])
def test_annotators_and_search_are_told_apart(annotators, method):
    held = [components(annotators, method, seed=seed) for seed in range(40)]
    assert np.mean([row.annotators**2 for row in held]) == pytest.approx(annotators**2, rel=0.15)
    assert np.mean([row.method for row in held]) == pytest.approx(method * (13 / 12) ** 0.5, rel=0.05)  # of 0.5 to 1.5
    assert sum(row.low <= annotators <= row.high for row in held) >= 35


def test_right_annotations_have_next_to_no_spread():
    rows = [components(0, 2, seed=seed) for seed in range(40)]
    assert np.mean([row.annotators for row in rows]) < 0.5
    assert sum(row.low == 0 for row in rows) >= 37
    assert all(row.annotators >= 0 for row in rows)
    # A search that says it errs by more than it does must not give an imaginary spread.
    assert components(0, 1, told=np.full(240, 9.0))[4:8] == (pytest.approx(1, abs=0.2), 0, 0, 0)


def test_components_by_hand():
    row = variance_components("ours", "apex", [1, 3, 5], [1.645, 1.645, 3.29], ["a", "b", "c"], [1, 3, 5])
    assert row[:4] == ("ours", "apex", 3, 3)
    assert row.total == pytest.approx(2)
    assert row.method == pytest.approx(2**0.5)
    assert row.annotators == pytest.approx(2**0.5)
    assert row.plateau == pytest.approx(((0 + 8 / 12 + 24 / 12) / 3) ** 0.5)


def test_components_resample_subjects():
    """Clips of one subject that are off alike are one piece of evidence, not ten."""
    random = np.random.default_rng(1)
    alike = np.repeat(random.normal(0, 3, 12), 20)
    own = np.full(240, 0.1)
    by_subject = variance_components("a", "onset", alike, own, np.repeat(np.arange(12), 20).astype(str), [1] * 240)
    by_clip = variance_components("a", "onset", alike, own, [str(i) for i in range(240)], [1] * 240)
    assert by_subject.annotators == pytest.approx(by_clip.annotators)
    assert by_subject.high - by_subject.low > 2 * (by_clip.high - by_clip.low)


def test_components_of_one_clip_or_subject():
    one = variance_components("a", "onset", [2.0], [1.0], ["x"], [1])
    assert (one.n, one.bias) == (1, 2)
    assert np.isnan([one.total, one.annotators, one.low, one.high]).all()
    alone = variance_components("a", "onset", [2.0, 5.0], [1.0, 1.0], ["x", "x"], [1, 1])
    assert alone.total == pytest.approx(4.5**0.5)
    assert np.isnan([alone.low, alone.high]).all()


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
