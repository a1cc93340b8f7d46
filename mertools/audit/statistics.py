"""Are some key frames less certain than others? Distributions of shifts, and tests of their spread.

The three shifts of a clip belong together, so the tests that count are paired: the absolute deviation of each key frame
from its median shift is compared within clips (Friedman, then Wilcoxon signed rank per pair, Holm's correction). The
customary tests for independent groups, Brown-Forsythe and Fligner-Killeen, are given beside them. Clips of one subject
are not independent either; the interval of the ratio of spreads therefore resamples subjects, not clips.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

KEYS = ("onset", "apex", "offset")
_PAIRS = (("offset", "onset"), ("offset", "apex"), ("onset", "apex"))
_RESAMPLES = 2000
_NINE_IN_TEN = 1.645  # standard deviations


class Distribution(NamedTuple):
    """Shifts of one key frame: count, median and quartiles in frames, mean |shift|, share of uncertain clips.

    ``low`` and ``high`` are the Wilson interval (95 %) of the share; ``phase`` is the mean |shift| in phase lengths.
    """

    n: int
    median: float
    lower: float
    upper: float
    mean_abs: float
    phase: float
    share: float
    low: float
    high: float


class Group(NamedTuple):
    """The distributions of one dataset, subject or label."""

    name: str
    n: int
    onset: Distribution
    apex: Distribution
    offset: Distribution


class SpreadTest(NamedTuple):
    """One test of a difference in spread.

    ``effect`` says in ``effect_name`` how large it is; ``p_corrected`` is Holm's, over the pairwise tests. ``low`` and
    ``high`` bound the effect (95 %) where it has an interval.
    """

    name: str
    statistic: float
    p: float
    p_corrected: float
    effect_name: str
    effect: float
    low: float = float("nan")
    high: float = float("nan")


class VarianceComponents(NamedTuple):
    """How far the annotations of one key frame scatter, apart from how far the search does; all in frames.

    ``n`` clips of ``name`` (a dataset, or all). ``bias`` is the mean of annotation minus search: positive is annotated
    later. ``total``, ``annotators`` and ``method`` are standard deviations whose squares add up, but that of the
    annotators is never below 0; ``low`` and ``high`` are its interval (95 %). ``plateau`` is the standard deviation of
    a free choice among the frames of the apex's plateau, which is no error; 0 for onset and offset.
    """

    name: str
    key: str
    n: int
    bias: float
    total: float
    annotators: float
    low: float
    high: float
    method: float
    plateau: float


def variance_components(
    name: str,
    key: str,
    difference: Sequence[float],
    spread: Sequence[float],
    subjects: Sequence[str],
    choice: Sequence[int],
) -> VarianceComponents:
    """Split the variance of annotation minus search into that of the annotators and that of the search.

    The two err independently of one another, so ``var(difference) = annotators² + method²``. The search says of each
    clip how far it errs: its interval of nine in ten has a half-width of 1.645 standard deviations, so ``method²`` is
    the mean of ``(spread / 1.645)²``, and what is left is the annotators'. Where the search errs by more than it says,
    that counts as theirs.

    The apex is annotated anywhere on its plateau and found in the middle of it. It is compared with the middle, so a
    free choice on the plateau counts as annotators' spread; ``plateau`` says how much of it that may be.

    Args:
        name: of the group.
        key: which key frame it is.
        difference: annotation minus search in frames, clip by clip.
        spread: half-width of the interval of each.
        subjects: of each clip; the interval resamples these.
        choice: how many frames are equally right.
    """
    x, width = np.asarray(difference, dtype=np.float64), np.asarray(spread, dtype=np.float64)
    own = (width / _NINE_IN_TEN) ** 2
    free = (np.asarray(choice, dtype=np.float64) ** 2 - 1) / 12  # the variance of a number from 1 to that
    _, member = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    # Counted from the mean, so that sums of squares don't cancel.
    parts = np.stack(
        [np.bincount(member, values) for values in (np.ones(len(x)), x - x.mean(), (x - x.mean()) ** 2, own)]
    )
    total, left = _split(*parts.sum(1))
    low, high = _expanded_percentiles(lambda drawn: _split(*parts[:, drawn].sum(2))[1], parts.shape[1])
    deviations = (float(np.sqrt(max(value, 0.0))) for value in (total, left, low, high, own.mean(), free.mean()))
    return VarianceComponents(name, key, len(x), float(x.mean()), *deviations)


def _expanded_percentiles(statistic: Callable[[np.ndarray], np.ndarray], groups: int) -> tuple[float, float]:
    """95 % interval of a statistic of resampled groups, wider for few of them, of which percentiles are too narrow."""
    from scipy import stats

    if groups < 2:
        return float("nan"), float("nan")
    draws = np.random.default_rng(0).integers(0, groups, (_RESAMPLES, groups))
    values = statistic(draws)
    tail = stats.norm.cdf(stats.t.ppf(0.025, groups - 1) * (groups / (groups - 1)) ** 0.5)
    low, high = np.percentile(values[np.isfinite(values)], (100 * tail, 100 - 100 * tail))
    return float(low), float(high)


def _split(n: Any, sums: Any, squares: Any, own: Any) -> tuple[Any, Any]:
    """Variance of the differences, and what is left of it without the search's; NaN for a single clip."""
    with np.errstate(divide="ignore", invalid="ignore"):
        total = (squares - sums**2 / n) / (n - 1)
    return total, total - own / n


def group_shifts(
    names: Sequence[str],
    frames: Mapping[str, np.ndarray],
    phase: Mapping[str, np.ndarray],
    uncertain: Mapping[str, np.ndarray],
) -> list[Group]:
    """Distributions by group, the largest group first."""
    labels = np.array(names, dtype=object)
    groups = []
    for name in sorted(set(names), key=lambda name: (-names.count(name), name)):
        rows = labels == name
        parts = [_distribution(frames[key][rows], phase[key][rows], uncertain[key][rows]) for key in KEYS]
        groups.append(Group(name, int(rows.sum()), *parts))
    return groups


def spread_tests(shifts: Mapping[str, np.ndarray], subjects: Sequence[str] = ()) -> list[SpreadTest]:
    """Test whether onset, apex and offset differ in how far they scatter.

    Friedman (effect: Kendall's W), Brown-Forsythe (η²) and Fligner-Killeen over all three, then per pair the Wilcoxon
    signed-rank test (effect: matched-pairs rank-biserial correlation, positive when the first scatters more) and the
    ratio of mean absolute deviations with its interval. NaN where there are too few clips.

    Args:
        shifts: shift of each key frame, clip by clip, in any one unit; clips with NaN are left out of all tests.
        subjects: subject of each clip; the intervals resample these. Default: every clip on its own.

    Source: Brown and Forsythe (1974); Fligner and Killeen (1976); Holm (1979); Kerby (2014) for the rank-biserial
    correlation.
    """
    whole = np.isfinite(np.stack([shifts[key] for key in KEYS])).all(0)
    values = {key: shifts[key][whole] for key in KEYS}
    groups = np.array([str(i) for i in range(len(whole))] if not len(subjects) else list(subjects), dtype=object)[whole]
    deviation = {key: np.abs(x - np.median(x)) if len(x) else x for key, x in values.items()}
    tests = _overall(values, deviation)
    pairs = [_wilcoxon(deviation[a], deviation[b]) for a, b in _PAIRS]
    corrected = holm([p for _, p, _ in pairs])
    for (a, b), (statistic, p, effect), holmed in zip(_PAIRS, pairs, corrected, strict=True):
        tests.append(SpreadTest(f"Wilcoxon {a} / {b}", statistic, p, holmed, "rank-biserial r", effect))
        ratio, low, high = _ratio(deviation[a], deviation[b], groups)
        tests.append(SpreadTest(f"spread {a} / {b}", np.nan, np.nan, np.nan, "ratio", ratio, low, high))
    return tests


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of several p-values."""
    corrected = [float("nan")] * len(p)
    order = sorted((i for i in range(len(p)) if np.isfinite(p[i])), key=lambda i: p[i])
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, p[i] * (len(order) - rank)))
        corrected[i] = highest
    return corrected


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    from scipy import stats

    if count == 0:
        return float("nan"), float("nan")
    interval = stats.binomtest(hits, count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _distribution(frames: np.ndarray, phase: np.ndarray, uncertain: np.ndarray) -> Distribution:
    there = np.isfinite(frames)
    n = int(there.sum())
    if n == 0:
        return Distribution(0, *[float("nan")] * 8)
    lower, median, upper = np.percentile(frames[there], (25, 50, 75))
    hits = int(uncertain[there].sum())
    means = float(np.abs(frames[there]).mean()), float(np.abs(phase[there]).mean())
    return Distribution(n, float(median), float(lower), float(upper), *means, hits / n, *wilson(hits, n))


def _overall(values: Mapping[str, np.ndarray], deviation: Mapping[str, np.ndarray]) -> list[SpreadTest]:
    from scipy import stats

    n = len(values["onset"])
    stacked = np.stack([deviation[key] for key in KEYS])
    names = (("Friedman", "Kendall's W"), ("Brown-Forsythe", "η²"), ("Fligner-Killeen", ""))
    if n < 3 or not (stacked != stacked[:, :1]).any() or (stacked == stacked[0]).all():
        return [SpreadTest(name, np.nan, np.nan, np.nan, effect, np.nan) for name, effect in names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a group without any spread: the result is NaN, and shown so
        friedman = stats.friedmanchisquare(*stacked)
        brown = stats.levene(*(values[key] for key in KEYS), center="median")
        fligner = stats.fligner(*(values[key] for key in KEYS), center="median")
    between = n * ((stacked.mean(1) - stacked.mean()) ** 2).sum()
    eta = between / ((stacked - stacked.mean()) ** 2).sum()
    rows = (
        (float(friedman.statistic), float(friedman.pvalue), float(friedman.statistic) / (n * 2)),
        (float(brown.statistic), float(brown.pvalue), float(eta)),
        (float(fligner.statistic), float(fligner.pvalue), float("nan")),
    )
    return [
        SpreadTest(name, statistic, p, p, effect, size)
        for (name, effect), (statistic, p, size) in zip(names, rows, strict=True)
    ]


def _wilcoxon(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    from scipy import stats

    difference = a - b
    moved = difference[difference != 0]
    if len(a) < 3:
        return float("nan"), float("nan"), float("nan")
    if len(moved) == 0:
        return 0.0, 1.0, 0.0
    with warnings.catch_warnings():  # SciPy before 1.13 says that few clips are few; the table has their number
        warnings.filterwarnings("ignore", "Sample size too small", UserWarning)
        result = stats.wilcoxon(moved, method="exact" if len(moved) <= 25 and _no_ties(moved) else "approx")
    ranks = stats.rankdata(np.abs(moved))
    effect = (ranks[moved > 0].sum() - ranks[moved < 0].sum()) / ranks.sum()
    return float(result.statistic), float(result.pvalue), float(effect)


def _no_ties(values: np.ndarray) -> bool:
    return len(np.unique(np.abs(values))) == len(values)


def _ratio(a: np.ndarray, b: np.ndarray, groups: np.ndarray) -> tuple[float, float, float]:
    """Ratio of mean absolute deviations, and its 95 % interval from resampled groups (percentiles)."""
    if len(a) < 3 or b.sum() == 0:
        return float("nan"), float("nan"), float("nan")
    _, member = np.unique(groups.astype(str), return_inverse=True)
    sums_a, sums_b = np.bincount(member, a), np.bincount(member, b)
    random = np.random.default_rng(0)
    draws = random.integers(0, len(sums_a), (_RESAMPLES, len(sums_a)))
    above, below = sums_a[draws].sum(1), sums_b[draws].sum(1)
    ratios = above[below > 0] / below[below > 0]
    low, high = np.percentile(ratios, (2.5, 97.5)) if len(ratios) else (np.nan, np.nan)
    return float(a.sum() / b.sum()), float(low), float(high)
