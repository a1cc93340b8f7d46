"""Expression classes by name.

Two datasets rarely agree on the order of their classes, and nothing in a vector of integers says so. Wherever mertools
needs to know what a class means it asks for the name, and understands the spellings that the field uses.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

__all__ = ["EXPRESSIONS"]

# The label order of DFEW and FERV39K as AU-DFER uses it.
EXPRESSIONS: tuple[str, ...] = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")

_SYNONYMS: dict[str, tuple[str, ...]] = {
    "happy": ("happiness", "joy", "joyful"),
    "sad": ("sadness",),
    "neutral": ("neutrality",),
    "angry": ("anger",),
    "surprise": ("surprised",),
    "disgust": ("disgusted",),
    "fear": ("fearful", "afraid"),
}
_CANONICAL = {alias: name for name, aliases in _SYNONYMS.items() for alias in (name, *aliases)}


def expression_names(classes: Sequence[str]) -> list[str]:
    """The canonical name of each class, in the caller's order.

    Args:
        classes: class names; case and surrounding blanks do not matter.

    Raises:
        TypeError: not a sequence of strings.
        ValueError: a class that no row of the tables describes, or one that is named twice.

    Examples:
        >>> expression_names(["Anger", "Happiness"])
        ['angry', 'happy']
    """
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise TypeError(f"classes must be a sequence of names such as {EXPRESSIONS[:2]}, got {classes!r}")
    keys = [name.strip().casefold() for name in classes]
    unknown = [name for name, key in zip(classes, keys, strict=True) if key not in _CANONICAL]
    if unknown:
        near = {match for name in unknown for match in difflib.get_close_matches(name.casefold(), _CANONICAL, n=1)}
        hint = f" (did you mean {', '.join(sorted(near))}?)" if near else ""
        raise ValueError(
            f"classes must be among {', '.join(EXPRESSIONS)} (or a synonym); "
            f"got {', '.join(map(repr, unknown))}{hint}. "
            "A class of your own needs its own row: estimate_au_prior(au_target, target, num_classes=...) makes a prior"
        )
    names = [_CANONICAL[key] for key in keys]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"classes must name each expression once, got {', '.join(twice)} more than once: {list(classes)}"
        )
    return names
