"""Weighted least squares and medians of many short series at once.

A clip has a few hundred trajectories and a system of at most nine equations for each: solved together, element by
element, that is several times quicker than by LAPACK one by one.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch


@lru_cache(maxsize=32)
def _upper(q: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(q)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a @ b`` by PyTorch, for all but the smallest: NumPy's BLAS has threads of its own, which wait for PyTorch's."""
    result: np.ndarray = (torch.from_numpy(a) @ torch.from_numpy(b)).numpy()
    return result


def least_squares(values: np.ndarray, weight: np.ndarray, design: np.ndarray, ridge: tuple[float, ...]) -> np.ndarray:
    """Coefficients ``(s, q, d)`` of the design ``(s, t, q)`` for each trajectory, weighted.

    Args:
        values: ``(s or 1, t, d)``.
        weight: ``(s, t, d)``.
        design: ``(s, t, q)``.
        ridge: of each coefficient.
    """
    s, _, q = design.shape
    i, j = _upper(q)
    pairs = design[..., i] * design[..., j]
    system = np.zeros((s, q, q + 1, weight.shape[-1]), np.float32)  # its lower half stays empty
    system[:, i, j] = product(pairs.swapaxes(1, 2), weight)
    system[:, :, q] = product(design.swapaxes(1, 2), weight * values)
    k = range(q)
    system[:, k, k] = system[:, k, k] * np.float32(1 + 1e-5) + np.array(ridge, np.float32)[:, None]
    return eliminated(system)


def eliminated(system: np.ndarray) -> np.ndarray:
    """Solutions ``(s, q, d)`` of symmetric positive systems ``(s, q, q + 1, d)``, right sides last; these are lost.

    Only the upper halves are read.
    """
    q = system.shape[1]
    for n in range(q - 1):
        row = system[:, n, n + 1 :]
        factor = row[:, : q - 1 - n] / system[:, n, n, None]
        system[:, n + 1 :, n + 1 :] -= factor[:, :, None] * row[:, None]
    solution: np.ndarray = system[:, :, q]
    for n in reversed(range(q)):
        known = (system[:, n, n + 1 : q] * solution[:, n + 1 :]).sum(1)
        solution[:, n] = (solution[:, n] - known) / system[:, n, n]
    return solution


def median(x: np.ndarray, axis: int = 0) -> np.ndarray:
    """The lower median along an axis, which is one of the values."""
    middle = (x.shape[axis] - 1) // 2
    value: np.ndarray = np.partition(x, middle, axis).take(middle, axis)
    return value
