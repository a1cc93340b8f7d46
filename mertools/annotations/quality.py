"""What is wrong with the rows of an annotation table: each finding names table, sheet, row and column."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from mertools.annotations.annotation import ClipAnnotation, Problem
from mertools.annotations.schemas import AnnotationSchema
from mertools.annotations.tables import normal

__all__: list[str] = []


def annotation_problems(
    clips: Iterable[ClipAnnotation],
    schema: AnnotationSchema | None = None,
    columns: Mapping[str, str] | None = None,
) -> list[Problem]:
    """Rows whose key frames are missing or out of order, whose key comes twice, or whose name contradicts the label.

    Args:
        clips: the annotations.
        schema: decides which key frames a row must have; without one all three, where any is given.
        columns: header of each field, to name it as the table does.

    Returns:
        The problems in the order of the rows; one row may have several.
    """
    found: list[Problem] = []
    first: dict[tuple[str, ...], int] = {}
    for clip in clips:
        named = [*_key_problems(clip, schema), *_label_problems(clip, schema)]
        identity = (*clip.key, clip.split or "", str(clip.fold or ""))
        if clip.key and identity in first:
            text = f"is there twice: row {first[identity]} has the same {'/'.join(clip.key)}"
            named.append(("duplicate", "clip", text))
        first.setdefault(identity, clip.row)
        for kind, names, text in named:
            shown = ", ".join((columns or {}).get(name, name) for name in names.split())
            found.append(Problem(clip.table, clip.sheet, clip.row, clip.name, shown, text, kind))
    return found


def _key_problems(clip: ClipAnnotation, schema: AnnotationSchema | None) -> Iterable[tuple[str, str, str]]:
    onset, apex, offset = clip.onset, clip.apex, clip.offset
    if schema is not None or (onset, apex, offset) != (None, None, None):
        for name in ("onset", "apex", "offset"):
            if getattr(clip, name) is None and (schema is None or name in schema.columns):
                yield "missing key", name, "is missing"
    if onset is not None and offset is not None and onset > offset:
        yield "order", "onset offset", f"are out of order: {onset} is after {offset}"
    elif apex is not None and ((onset is not None and apex < onset) or (offset is not None and apex > offset)):
        yield "apex outside", "apex", f"{apex} lies outside {onset}..{offset}"
    elif onset is not None and onset == offset:
        yield "order", "onset offset", f"are the same frame, {onset}"


def _label_problems(clip: ClipAnnotation, schema: AnnotationSchema | None) -> Iterable[tuple[str, str, str]]:
    if schema is not None and schema.label_in_clip is not None:
        match = re.search(schema.label_in_clip, clip.clip, re.IGNORECASE)
        said = schema.label_names.get(normal(match[1])) if match else None
        if said is not None and said != clip.label:
            yield "label", "label", f"is {clip.label!r} and the clip's name says {said!r}"
    if clip.dataset == "ferv39k" and clip.labels and f"/{clip.label}/" not in f"/{clip.clip.casefold()}":
        yield "label", "label", f"is {clip.label!r}, which is not in the clip's path"
