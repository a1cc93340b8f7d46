"""What may be passed in: the checks that several files share. Each error says what was expected and what came."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor


def check_count(name: str, value: object, *, least: int = 1) -> int:
    """An integer of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        kind = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise ValueError(f"{name} must be {kind}, got {value!r}")
    return value


def check_number(name: str, value: object, low: float, high: float = math.inf, *, open_high: bool = False) -> float:
    """A finite number within ``[low, high]``, or ``[low, high)``."""
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


def check_floating(name: str, value: Any, expected: str) -> None:
    """A real floating tensor; ``expected`` is its shape, for the message."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor {expected}, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must be floating, got {value.dtype}: convert it with {name}.float()")
