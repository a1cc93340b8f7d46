"""What a score book says: the summary as plain numbers, and as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mertools.evaluation.bootstrap import percentile_interval, resampled_counts
from mertools.evaluation.metrics import all_scores
from mertools.evaluation.score_rows import counts_by

if TYPE_CHECKING:
    from mertools.evaluation.score_book import ScoreBook

__all__ = ["Scores"]

SCORES = ("uf1", "uar", "war")
NOT_STATED = "not stated"


class Scores(NamedTuple):
    """The three scores of some clips, absent classes left out, and how many clips they are.

    Args:
        uf1: unweighted F1, in [0, 1].
        uar: unweighted average recall, in [0, 1].
        war: weighted average recall, in [0, 1].
        clips: how many clips they are of.

    Examples:
        >>> Scores(uf1=0.5, uar=0.6, war=0.7, clips=10).uar
        0.6

    Source: ours.
    """

    uf1: float
    uar: float
    war: float
    clips: int


def book_summary(book: ScoreBook, *, absent: str, level: float, repeats: int, seed: int) -> dict[str, Any]:
    """What :meth:`ScoreBook.summary` returns."""
    per_class = book.per_class()
    return {
        "selection": book.selection,
        "clips": len(book),
        "subjects": len(book.subjects),
        "classes": list(book.classes),
        "absent": absent,
        "absent_classes": [name for name, scores in per_class.items() if not scores["support"]],
        **{name: getattr(book, name)(absent=absent) for name in SCORES},
        "intervals": _intervals(book, level, repeats, seed),
        "per_class": {
            name: {key: None if math.isnan(value) else value for key, value in scores.items()}
            for name, scores in per_class.items()
        },
        "confusion": book.confusion.tolist(),
    }


def _intervals(book: ScoreBook, level: float, repeats: int, seed: int) -> dict[str, Any] | None:
    """Intervals of all scores from the same resamples; over clips where no clip has a subject."""
    known = {bool(row.subject) for row in book}
    over = "subject" if True in known else "clip"
    units = counts_by(over, book.rows, len(book.classes))[1]
    if len(known) > 1 or len(units) < 2:
        return None
    scores = all_scores(resampled_counts(units, repeats=repeats, seed=seed))
    ends = {name: list(percentile_interval(scores[name], level)) for name in SCORES}
    return {"over": over, "units": len(units), "level": level, "repeats": repeats, "seed": seed, **ends}


def book_text(summary: Mapping[str, Any]) -> str:
    """The summary of a score book as a table for a terminal."""
    subjects, intervals = summary["subjects"], summary["intervals"]
    people = f"{subjects} subject{'s' * (subjects != 1)}" if subjects else "subjects unknown"
    lines = [
        f"{summary['clips']} clip{'s' * (summary['clips'] != 1)}, {people}, {len(summary['classes'])} classes",
        f"selection: {summary['selection'] or NOT_STATED}",
        "",
    ]
    for name in ("uf1", "uar", "war"):
        ends = "" if intervals is None else "  [{:.4f}, {:.4f}]".format(*intervals[name])
        lines.append(f"{name.upper()}  {summary[name]:.4f}{ends}")
    if intervals is not None:
        lines.append(f"{100 * intervals['level']:g} % intervals over {intervals['units']} {intervals['over']}s")
    if summary["absent_classes"]:
        meaning = {"skip": "left out of UAR", "zero": "counted 0"}[summary["absent"]]
        lines.append(f"without clips, {meaning}: {', '.join(summary['absent_classes'])}")
    rows = [["class", "precision", "recall", "F1", "clips"]]
    for name, scores in summary["per_class"].items():
        parts = [scores[key] for key in ("precision", "recall", "f1")]
        rows.append([name, *("–" if x is None else f"{x:.4f}" for x in parts), str(scores["support"])])
    counts = [["true \\ predicted", *summary["classes"]]]
    counts += [[name, *map(str, row)] for name, row in zip(summary["classes"], summary["confusion"], strict=True)]
    return "\n".join([*lines, "", *aligned(rows), "", *aligned(counts)])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with columns under each other, the first to the left and the others to the right.

    Examples:
        >>> aligned([["class", "clips"], ["happy", "7"]])
        ['class  clips', 'happy      7']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
