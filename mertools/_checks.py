"""The checks that several files share. Each error names the argument, what was expected and what came."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor


def check_count(name: str, value: object, *, least: int = 1) -> int:
    """An integer of at least ``least``, as Python's own: NumPy's and tensors of one integer are taken as well."""
    count = value if type(value) is int else as_integer(value)
    if count is None or count < least:
        kind = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise ValueError(f"{name} must be {kind}, got {value!r}")
    return count


def as_integer(value: object) -> int | None:
    """Anything that counts as Python does (``__index__``) as an int; None for booleans and all else."""
    if isinstance(value, (bool, np.bool_)) or getattr(value, "dtype", None) == torch.bool:
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def check_number(name: str, value: object, low: float, high: float = math.inf, *, open_high: bool = False) -> float:
    """A finite number within ``[low, high]``, or ``[low, high)``; NumPy's become Python's own."""
    if isinstance(value, (np.integer, np.floating)):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    # Comparisons only: compilers may hold the number as a symbol. NaN fails them all.
    if not low <= value <= high or abs(value) == math.inf or (open_high and value == high):
        limit = (
            "finite and at least " + str(low) if high == math.inf else f"in [{low}, {high}{')' if open_high else ']'}"
        )
        raise ValueError(f"{name} must be {limit}, got {value}")
    return value


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """One of several strings."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_floating(name: str, value: Any, expected: str, *, hint: str | None = None) -> None:
    """A real floating tensor; ``expected`` is its shape, for the message, and ``hint`` what mends it."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor {expected}, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must be floating, got {value.dtype}: {hint or f'convert it with {name}.float()'}")


def check_image(name: str, x: Any, channels: int) -> None:
    """A floating image ``(b, channels, h, w)``."""
    check_floating(name, x, f"(b, {channels}, h, w)", hint=f"normalise first, e.g. {name}.float() / 255")
    if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape[2:]:
        raise ValueError(f"{name} must be (b, {channels}, h, w), got shape {tuple(x.shape)}")
