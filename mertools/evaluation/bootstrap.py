"""How far a score would move with other subjects: percentile intervals from resampled subjects.

Clips of one person are alike, so the unit that is drawn with replacement is the subject with all of its clips; drawing
clips would make intervals that are far too narrow. A subject enters by its confusion matrix alone. Subjects with equal
matrices are interchangeable, so a resample is one multinomial draw over the different matrices, and the result does not
depend on the order of subjects.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mertools._checks import check_count, check_number


def resampled_counts(counts: Tensor, *, repeats: int, seed: int) -> Tensor:
    """Sums of as many units as there are, drawn with replacement: ``(s, ...) -> (repeats, ...)`` int64.

    Raises:
        ValueError: fewer than two units, or settings that are no counts.

    Examples:
        >>> counts = torch.tensor([[1, 0], [0, 1], [0, 1]])
        >>> resampled_counts(counts, repeats=4, seed=0).sum(1)
        tensor([3, 3, 3, 3])
    """
    repeats, seed = check_count("repeats", repeats), check_count("seed", seed, least=0)
    if len(counts) < 2:
        raise ValueError(f"an interval needs at least 2 subjects to draw from, got {len(counts)}")
    kinds, often = np.unique(counts.flatten(1).numpy(), axis=0, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(counts), often / len(counts), size=repeats)
    # In float64, where sums below 2^53 are exact and the product is fast.
    sums = torch.from_numpy(draws.astype(np.float64) @ kinds.astype(np.float64)).long()
    return sums.view(repeats, *counts.shape[1:])


def percentile_interval(values: Tensor, level: float) -> tuple[float, float]:
    """The middle ``level`` of the values.

    Examples:
        >>> low, high = percentile_interval(torch.arange(101) / 100, 0.9)
        >>> round(low, 2), round(high, 2)
        (0.05, 0.95)
    """
    level = check_level(level)
    low, high = np.quantile(values.double().numpy(), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def check_level(level: object) -> float:
    """How sure an interval is, in (0, 1)."""
    found = check_number("level", level, 0, 1, open_high=True)
    if found == 0:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    return found
