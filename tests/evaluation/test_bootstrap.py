import numpy as np
import pytest
import torch

from mertools.evaluation.bootstrap import percentile_interval, resampled_counts


def test_same_distribution_as_drawing_units_one_by_one():
    counts = torch.randint(0, 5, (13, 3, 3))
    counts[5] = counts[2]  # equal units are drawn together
    ours = resampled_counts(counts, repeats=20_000, seed=0).double()
    rng = np.random.default_rng(1)
    plain = counts[torch.from_numpy(rng.integers(13, size=(20_000, 13)))].sum(1).double()
    torch.testing.assert_close(ours.mean(0), plain.mean(0), rtol=0.02, atol=0.05)
    torch.testing.assert_close(ours.std(0), plain.std(0), rtol=0.03, atol=0.05)
    hits = ours.diagonal(dim1=1, dim2=2).sum(1), plain.diagonal(dim1=1, dim2=2).sum(1)
    for q in (0.025, 0.5, 0.975):
        assert hits[0].quantile(q) == pytest.approx(float(hits[1].quantile(q)), abs=1.5)


def test_units_in_any_order_and_every_seed_once():
    counts = torch.randint(0, 5, (13, 3, 3))
    first = resampled_counts(counts, repeats=50, seed=3)
    assert torch.equal(first, resampled_counts(counts.flip(0), repeats=50, seed=3))
    assert not torch.equal(first, resampled_counts(counts, repeats=50, seed=4))
    assert first.dtype == torch.int64
    assert first.shape == (50, 3, 3)


def test_interval_of_a_known_spread():
    low, high = percentile_interval(torch.randn(200_000, dtype=torch.float64), 0.95)
    assert (low, high) == (pytest.approx(-1.96, abs=0.02), pytest.approx(1.96, abs=0.02))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"repeats": 0}, "repeats must be a positive"), ({"seed": -1}, "seed must be an integer of at least 0")],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        resampled_counts(torch.ones(3, 2, 2).long(), **({"repeats": 3, "seed": 0} | settings))


def test_one_unit_has_no_interval():
    with pytest.raises(ValueError, match="at least 2 subjects to draw from, got 1"):
        resampled_counts(torch.ones(1, 2, 2).long(), repeats=3, seed=0)


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, float("nan")])
def test_bad_levels(level):
    with pytest.raises(ValueError, match="level must"):
        percentile_interval(torch.ones(3), level)
