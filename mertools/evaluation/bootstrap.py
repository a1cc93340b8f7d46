"""How far a score would move with other subjects: percentile intervals from resampled subjects.

Clips of one person are alike, so the unit that is drawn with replacement is the subject with all of its clips. A
subject enters by its confusion matrix alone; those with equal matrices are interchangeable, so a resample is one
multinomial draw over the different matrices, whatever the order of subjects.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mertools._checks import check_count, check_number


def resampled_counts(counts: Tensor, *, repeats: int, seed: int) -> Tensor:
    """Sums of as many units as there are, drawn with replacement: ``(s, ...) -> (repeats, ...)`` int64."""
    repeats, seed = check_count("repeats", repeats), check_count("seed", seed, least=0)
    if len(counts) < 2:
        raise ValueError(f"an interval needs at least 2 subjects to draw from, got {len(counts)}")
    kinds, often = np.unique(counts.flatten(1).numpy(), axis=0, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(counts), often / len(counts), size=repeats)
    # In float64, where sums below 2^53 are exact and the product is fast.
    sums = torch.from_numpy(draws.astype(np.float64) @ kinds.astype(np.float64)).long()
    return sums.view(repeats, *counts.shape[1:])


def percentile_interval(values: Tensor, level: float) -> tuple[float, float]:
    """The middle ``level`` of the values."""
    level = check_level(level)
    low, high = np.quantile(values.double().numpy(), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def check_level(level: object) -> float:
    """How sure an interval is, in (0, 1)."""
    found = check_number("level", level, 0, 1, open_high=True)
    if found == 0:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    return found
