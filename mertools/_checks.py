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
        mend = channels_first(name, tuple(x.shape), channels)
        raise ValueError(f"{name} must be (b, {channels}, h, w), got shape {tuple(x.shape)}{mend}")


_CHANNELS = (1, 2, 3, 4)
_PICTURE = 16  # pixels a side from which two axes look like those of a picture


def check_clips(name: str, frames: object) -> Tensor:
    """Clips ``(b, t, ...)``, at least three axes; what looks like another layout is an error that says which.

    A layout is read from the shape alone (and whether values are whole numbers), never from the values.
    """
    frames = check_is_tensor(name, frames)
    if (found := _other_layout(tuple(frames.shape), frames.dtype == torch.uint8)) is not None:
        layout, mend = found
        raise ValueError(
            f"{name} must be clips (b, t, c, h, w), got shape {tuple(frames.shape)}, which looks like {layout}: "
            f"pass {mend.format(name)}"
        )
    return frames


def check_is_tensor(name: str, frames: Any) -> Tensor:
    """A tensor, with the line that makes one of NumPy frames, PIL images and lists of them."""
    if isinstance(frames, Tensor):
        return frames
    first = frames[0] if isinstance(frames, (list, tuple)) and len(frames) else frames
    kind = type(first).__name__ if first is frames else f"{type(frames).__name__} of {type(first).__name__}"
    if isinstance(first, Tensor):
        clips = first.ndim > 3
        mend = (
            "search one clip at a time, clip[None], or pad them to one length and pass lengths"
            if clips
            else f"torch.stack({name})[None] makes a batch of one clip"
        )
        error: type[Exception] = ValueError if clips else TypeError
        raise error(f"{name} must be a torch.Tensor of clips (b, t, c, h, w), got a {kind}: {mend}")
    shape = np.shape(first) if hasattr(first, "__array__") or hasattr(first, "__array_interface__") else ()
    if first is not frames and len(shape) in (2, 3):
        axes = "permute(0, 3, 1, 2)[None]" if len(shape) == 3 else "unsqueeze(1)[None]"
        mend = f"torch.from_numpy(np.stack({name})).{axes}"
    elif len(shape) in (4, 5) and shape[-1] in (1, 3, 4):
        axes = "permute(0, 3, 1, 2)[None]" if len(shape) == 4 else "permute(0, 1, 4, 2, 3)"
        mend = f"torch.from_numpy({name}).{axes}"
    else:
        mend = f"torch.as_tensor({name})"
    raise TypeError(f"{name} must be a torch.Tensor of shape (b, t, ...), got {kind}: {mend} makes one")


def _other_layout(shape: tuple[int, ...], whole: bool) -> tuple[str, str] | None:
    """What a shape looks like other than ``(b, t, ...)``, and the code that turns it; None when it may well be that."""
    if len(shape) == 5:
        t, c, h, w = shape[1:]
        if c not in _CHANNELS and w in (1, 3, 4) and min(c, h) >= 2:
            return "channels last (b, t, h, w, c)", "{}.permute(0, 1, 4, 2, 3)"
        if c not in _CHANNELS and t in (1, 3) and (whole or min(h, w) >= _PICTURE):
            return "channels before time (b, c, t, h, w)", "{}.transpose(1, 2)"
    if len(shape) == 4:
        second, third, last = shape[1:]
        if second in (1, 3) and (whole or min(third, last) >= _PICTURE):
            return "one clip (t, c, h, w) without a batch axis", "{}[None]"
        # Landmarks (b, t, n, 3) are floating, and not as many as there are frames.
        if last in (1, 3, 4) and second not in _CHANNELS and (whole or (second == third and second >= _PICTURE)):
            return "one clip (t, h, w, c), channels last and without a batch axis", "{}.permute(0, 3, 1, 2)[None]"
    if len(shape) == 3:
        first, second, last = shape
        if first == 3 and min(second, last) >= _PICTURE and (whole or second == last):
            return "one image (c, h, w)", "a clip of several"
        if last in (3, 4) and min(first, second) >= _PICTURE and (whole or first == second):
            return "one image (h, w, c)", "a clip of several"
    return None


def channels_first(name: str, shape: tuple[int, ...], channels: int | None = None) -> str:
    """The end of an error about images ``(..., c, h, w)``: how to turn them, where they have their channels last."""
    colours = (channels,) if channels else (1, 3, 4)
    if len(shape) < 3 or shape[-1] not in colours or shape[-3] in colours:
        return ""
    axes = [*range(len(shape) - 3), len(shape) - 1, len(shape) - 3, len(shape) - 2]
    return f": channels last, pass {name}.permute({', '.join(map(str, axes))})"
