"""Expression classes by name.

Two datasets rarely agree on the order of their classes, and nothing in a vector of integers says so. Wherever mertools
needs to know what a class means it asks for the name, and understands the spellings that the field uses.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

__all__ = ["CLASS_SETS", "EXPRESSIONS"]

EXPRESSIONS: tuple[str, ...] = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
"""The seven expressions in the label order of DFEW and FERV39K, as AU-DFER uses it: index 0 to 6."""

CLASS_SETS: dict[str, tuple[str, ...]] = {
    "DFEW": EXPRESSIONS,
    "FERV39K": EXPRESSIONS,
    "FERV39K-alphabetical": ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
    "MAFW": (
        "anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise",
        "contempt", "anxiety", "helplessness", "disappointment",
    ),
    "CASME2-5": ("happiness", "repression", "disgust", "surprise", "others"),
    "SAMM-5": ("anger", "contempt", "happiness", "surprise", "other"),
    "CASME3-7": ("anger", "disgust", "fear", "happy", "sad", "surprise", "others"),
    "CASME3-4": ("positive", "surprise", "others", "negative"),
    "MEGC2019": ("negative", "positive", "surprise"),
}  # fmt: skip
"""Class names in the label order of each dataset or protocol. FERV39K is used in two: look which one is yours."""

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


def class_names(classes: str | Sequence[str]) -> tuple[str, ...]:
    """The names of a class set, or a sequence of names as it is, each once."""
    if isinstance(classes, str):
        if classes not in CLASS_SETS:
            raise ValueError(
                f"classes must be a sequence of names, or one of the sets {', '.join(CLASS_SETS)}; got {classes!r}"
            )
        return CLASS_SETS[classes]
    names = tuple(classes) if isinstance(classes, Iterable) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(f"classes must be a sequence of names such as {EXPRESSIONS[:2]}, got {classes!r}")
    keys = [class_key(name) for name in names]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(
            f"classes must name each expression once, got {', '.join(twice)} more than once: {list(names)}"
        )
    return names


def canonical(name: str) -> str | None:
    """The name that the tables know an expression by, or None."""
    return _CANONICAL.get(name.strip().casefold())


def class_key(name: str) -> str:
    """What the spellings of one class have in common."""
    return canonical(name) or name.strip().casefold()


def near_names(names: Sequence[str]) -> str:
    """A hint at what misspelled names may have meant."""
    near = {match for name in names for match in difflib.get_close_matches(name.casefold(), _CANONICAL, n=1)}
    return f" (did you mean {', '.join(sorted(near))}?)" if near else ""
