"""What is wrong with the rows of an annotation table, and how it is mended: nothing unasked, everything logged.

A finding names table, sheet, row and column. A repair is a function from an annotation to a changed one, the same one
(nothing to do) or None (drop the row); the named ones are below, and your own work the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from mertools.action_units.expressions import canonical
from mertools.annotations.annotation import ClipAnnotation, Problem, Repair
from mertools.annotations.schemas import AnnotationSchema, last_name
from mertools.annotations.tables import normal

__all__ = ["repair_annotations"]

Mend: TypeAlias = "Callable[[ClipAnnotation], ClipAnnotation | None]"


def annotation_problems(
    clips: Iterable[ClipAnnotation], schema: AnnotationSchema | None = None, columns: Mapping[str, str] | None = None
) -> list[Problem]:
    """What is wrong with rows: key frames missing, out of order, equal or seconds apart, a row twice, a wrong label.

    In the order of the rows; one row may have several. ``schema`` decides which key frames a row must have (without one
    all three, where any is given), ``columns`` holds the header of each field.
    """
    found: list[Problem] = []
    first: dict[tuple[str, ...], int] = {}
    for clip in clips:
        named = [*_key_problems(clip, schema, columns or {}), *_label_problems(clip, schema)]
        identity = (*clip.key, clip.split or "", str(clip.fold or ""))
        if clip.key and identity in first:
            text = f"is there twice: row {first[identity]} has the same {'/'.join(clip.key)}"
            named.append(("duplicate", "clip", text))
        first.setdefault(identity, clip.row)
        for kind, names, text in named:
            shown = ", ".join((columns or {}).get(name, name) for name in names.split())
            found.append(Problem(clip.table, clip.sheet, clip.row, clip.name, shown, text, kind))
    return found


def _key_problems(
    clip: ClipAnnotation, schema: AnnotationSchema | None, there: Mapping[str, str]
) -> Iterable[tuple[str, str, str]]:
    onset, apex, offset = clip.onset, clip.apex, clip.offset
    if schema is not None or (onset, apex, offset) != (None, None, None):
        for name in ("onset", "apex", "offset"):
            needed = schema is None or (name in schema.columns and (name not in schema.optional or name in there))
            if getattr(clip, name) is None and needed:
                yield "missing key", name, "is missing"
    if onset is not None and offset is not None and onset > offset:
        yield "order", "onset offset", f"are out of order: {onset} is after {offset}"
    elif apex is not None and ((onset is not None and apex < onset) or (offset is not None and apex > offset)):
        yield "apex outside", "apex", f"{apex} lies outside {onset}..{offset}"
    elif onset is not None and onset == offset:
        yield "order", "onset offset", f"are the same frame, {onset}"
    elif onset is not None and onset == apex:
        yield "apex at onset", "onset apex", f"are the same frame, {onset}: the image of the motion between is empty"
    longest = 4.0 if schema is None else schema.longest
    if onset is not None and offset is not None and clip.fps and longest and offset - onset > longest * clip.fps:
        seconds = f"{(offset - onset) / clip.fps:.1f} s after the onset {onset}"
        yield "long", "offset", f"{offset} lies {seconds}: no expression lasts more than {longest:g} s"


def _label_problems(clip: ClipAnnotation, schema: AnnotationSchema | None) -> Iterable[tuple[str, str, str]]:
    if schema is not None and schema.label_in_clip is not None:
        match = re.search(schema.label_in_clip, clip.clip, re.IGNORECASE)
        said = schema.label_names.get(normal(match[1])) if match else None
        if said is not None and said != clip.label:
            yield "label", "label", f"is {clip.label!r} and the clip's name says {said!r}"
    elif clip.dataset == "ferv39k" and clip.labels and f"/{clip.label}/" not in f"/{clip.clip.casefold()}":
        yield "label", "label", f"is {clip.label!r}, which is not in the clip's path"
    told = schema.known.get(last_name(clip.clip)) if schema is not None else None
    if told is not None and told != clip.label and canonical(told) != (canonical(clip.label) or clip.label):
        yield "label", "label", f"is {clip.label!r}, the clip is known as {told!r}: are the classes in another order?"


# --- repairs ---------------------------------------------------------------------------------------------------------


def repair_annotations(
    clips: Iterable[ClipAnnotation], repair: str | Mend | Sequence[str | Mend] = ()
) -> tuple[list[ClipAnnotation], list[Repair]]:
    """Apply repairs in the order given; returns the annotations as repaired, and what was done.

    - ``"offset-from-apex"``: an offset that is missing (0) becomes the apex: what CAS(ME)² means by it.
    - ``"apex-midpoint"``: an apex that is missing or outside onset..offset becomes their midpoint, rounded down: the
      custom for SMIC and for part C of CAS(ME)³.
    - ``"sort-keys"``: onset, apex and offset that are out of order are sorted.
    - ``search_apex(frames)``: an apex that is missing, at the onset or outside is looked for in the frames.
    - ``"drop"``: rows whose key frames are incomplete or out of order are left out.

    Args:
        clips: the annotations; they are not changed.
        repair: names of repairs, or functions ``ClipAnnotation -> ClipAnnotation | None``.

    Examples:
        >>> from mertools import ClipAnnotation
        >>> clip = ClipAnnotation("samm", "006", "006_1_2", 100, 300, 200, "anger", row=15)
        >>> [(fixed,), log] = repair_annotations([clip], "apex-midpoint")
        >>> fixed.apex, log[0].row
        (150, 15)
    """
    steps = [repair] if isinstance(repair, str) or callable(repair) else list(repair)
    mends = [(_name(step), _mend(step)) for step in steps]
    kept, log = [], []
    for original in clips:
        clip: ClipAnnotation | None = original
        for name, mend in mends:
            before = clip
            assert before is not None
            clip = mend(before)
            if clip is not None and type(clip) is not type(before):
                raise TypeError(f"repair {name!r} must return a ClipAnnotation or None, got {type(clip).__name__}")
            if clip is None or clip != before:
                reason = _reason(name, before, clip)
                log.append(Repair(original.table, original.sheet, original.row, original.name, name, reason))
            if clip is None:
                break
        if clip is not None:
            kept.append(clip)
    return kept, log


def _offset_from_apex(clip: ClipAnnotation) -> ClipAnnotation:
    if clip.offset is None and clip.apex is not None:
        return replace(clip, offset=clip.apex)
    return clip


def _apex_midpoint(clip: ClipAnnotation) -> ClipAnnotation:
    if clip.onset is None or clip.offset is None or clip.onset > clip.offset:
        return clip
    if clip.apex is None or not clip.onset <= clip.apex <= clip.offset:
        return replace(clip, apex=(clip.onset + clip.offset) // 2)
    return clip


def _sort_keys(clip: ClipAnnotation) -> ClipAnnotation:
    if clip.onset is None or clip.offset is None:
        return clip
    if clip.apex is None:
        return replace(clip, onset=min(clip.onset, clip.offset), offset=max(clip.onset, clip.offset))
    onset, apex, offset = sorted((clip.onset, clip.apex, clip.offset))
    return replace(clip, onset=onset, apex=apex, offset=offset)


def _drop(clip: ClipAnnotation) -> ClipAnnotation | None:
    return None if _wrong(clip) else clip


_REPAIRS: dict[str, Mend] = {
    "offset-from-apex": _offset_from_apex,
    "apex-midpoint": _apex_midpoint,
    "sort-keys": _sort_keys,
    "drop": _drop,
}
REPAIRS = tuple(_REPAIRS)


def _wrong(clip: ClipAnnotation) -> str:
    missing = [name for name in ("onset", "apex", "offset") if getattr(clip, name) is None]
    if missing:
        return f"{' and '.join(missing)} missing"
    keys = [clip.onset, clip.apex, clip.offset]
    return "" if keys == sorted(k for k in keys if k is not None) else f"{keys} out of order"


def _reason(name: str, before: ClipAnnotation, after: ClipAnnotation | None) -> str:
    if after is None:
        return f"dropped ({name}: {_wrong(before) or 'by the repair'})"
    changes = []
    for part in before.__dataclass_fields__:
        old, new = getattr(before, part), getattr(after, part)
        if old != new:
            changes.append(f"{part} {'/' if old is None else old} -> {'/' if new is None else new}")
    why = {
        "offset-from-apex": "an offset of 0 stands for the apex",
        "apex-midpoint": f"halfway between onset {before.onset} and offset {before.offset}",
        "sort-keys": "the three were out of order",
        "search-apex": "the frames from onset to offset were searched",
    }.get(name, "a repair of your own")
    return f"{', '.join(changes)} ({name}: {why})"


def _name(step: Any) -> str:
    return step if isinstance(step, str) else str(getattr(step, "__name__", type(step).__name__))


def _mend(step: Any) -> Mend:
    if isinstance(step, str):
        if step not in _REPAIRS:
            raise ValueError(f"repair must be among {', '.join(map(repr, _REPAIRS))}, or a function; got {step!r}")
        return _REPAIRS[step]
    if not callable(step):
        raise TypeError(f"repair must be names or functions, got {step!r}")
    mend: Mend = step
    return mend
