"""Scores of spotting, as the Micro-Expression Grand Challenges define them.

A found interval is right when its IoU with a true one is at least 0.5 (frames of both ends included), one to one. Hits,
false alarms and misses are pooled over all videos before the ratios are taken::

    precision = tp / (tp + fp)     recall = tp / (tp + fn)     F1 = 2 tp / (2 tp + fp + fn)
    STRS = F1 of spotting × F1 of recognition on the intervals that were rightly spotted

What is 0/0 counts 0, as in the challenges.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mertools._checks import as_integer, check_number
from mertools.spotting.record import Expression

__all__ = ["SpotThenRecognizeScores", "SpottingScores", "spot_then_recognize", "spotting_scores"]

Interval = tuple[int, int] | Expression
Videos = Sequence[Sequence[Any]] | Mapping[Any, Sequence[Any]]
_MICRO = 0.5  # seconds: what lasts no longer is a micro-expression


class SpottingScores(NamedTuple):
    """Hits, false alarms and misses of all videos, with the ratios; ``micro`` and ``macro`` where fps is known.

    A hit counts where its true interval belongs, a false alarm by its own length.

    Examples:
        >>> scores = SpottingScores(tp=3, fp=1, fn=2)
        >>> scores.precision, scores.recall, round(scores.f1, 4)
        (0.75, 0.6, 0.6667)
    """

    tp: int
    fp: int
    fn: int
    micro: SpottingScores | None = None
    macro: SpottingScores | None = None

    @property
    def precision(self) -> float:
        """Share of the found intervals that are right."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of the true intervals that were found."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def overall(self) -> SpottingScores:
        """Micro and macro together: these scores themselves."""
        return self


class SpotThenRecognizeScores(NamedTuple):
    """STRS and its parts.

    Shape:
        - strs: ``spotting.f1 * f1``
        - precision, recall: of recognition on the hits, the mean of the classes
        - f1: their harmonic mean, which the challenges multiply; uf1: the mean of the classes' F1
        - confusion: ``(e, e)`` int64 counts of the hits, rows true, in the order of ``classes``

    Examples:
        >>> scores = spot_then_recognize([[(0, 9, "happy"), (40, 49, "sad")]], [[(0, 9, "happy"), (20, 29, "sad")]])
        >>> scores.spotting.f1, scores.f1, scores.strs  # one of two found, and of two classes one never
        (0.5, 0.5, 0.25)
    """

    strs: float
    spotting: SpottingScores
    precision: float
    recall: float
    f1: float
    uf1: float
    classes: tuple[Any, ...]
    confusion: Tensor


def spotting_scores(
    found: Videos, true: Videos, *, iou: float = 0.5, fps: float | Sequence[float] | None = None
) -> SpottingScores:
    """Score spotted intervals against the true ones, pooled over videos.

    Where intervals overlap, found and true ones are paired so that as many as possible are right, each at most once.

    Args:
        found: for every video what was found, ``(onset, offset)`` in frames or :class:`Expression`: a list of lists,
            or a dict by video.
        true: the truth, likewise. A video without expressions is an empty list: it counts the false alarms.
        iou: least intersection over union, in frames with both ends included.
        fps: frames per second, of all videos or of each: then micro-expressions (at most 0.5 s) and
            macro-expressions are scored separately as well.

    Returns:
        The counts with precision, recall and F1.

    Raises:
        TypeError: not a list of intervals per video.
        ValueError: videos that do not match, an interval out of order, iou outside (0, 1].

    Examples:
        >>> scores = spotting_scores([[(10, 20), (50, 60)], []], [[(11, 20)], [(5, 40)]], fps=30)
        >>> scores.tp, scores.fp, scores.fn, scores.micro.f1, scores.macro.f1
        (1, 1, 1, 0.6666666666666666, 0.0)

    Source: MEGC 2020 (arXiv 1912.11985) and its successors.
    """
    check_iou(iou)
    guesses, truths = _videos(found, true, labelled=False)
    rates = _rates(fps, list(truths))
    counts = {kind: [0, 0, 0] for kind in ("all", "micro", "macro")}
    for video, truth in truths.items():
        guess = guesses[video]
        pairs = match_intervals([item[:2] for item in guess], [item[:2] for item in truth], iou)
        hit, seen = {i for i, _ in pairs}, {j for _, j in pairs}
        which = [(0, truth[j]) for j in seen]
        which += [(1, item) for i, item in enumerate(guess) if i not in hit]
        which += [(2, item) for j, item in enumerate(truth) if j not in seen]
        for place, (onset, offset, *_) in which:
            counts["all"][place] += 1
            if rates is not None:
                counts["micro" if offset - onset + 1 <= _MICRO * rates[video] else "macro"][place] += 1
    micro, macro = (None if rates is None else _scores(counts[kind]) for kind in ("micro", "macro"))
    tp, fp, fn = counts["all"]
    return SpottingScores(tp, fp, fn, micro, macro)


def spot_then_recognize(
    found: Videos,
    true: Videos,
    *,
    iou: float = 0.5,
    fps: float | Sequence[float] | None = None,
    classes: Sequence[Any] | None = None,
) -> SpotThenRecognizeScores:
    """Spot-then-recognize score of MEGC 2023 to 2025: F1 of spotting times F1 of recognition on what was spotted.

    Recognition is scored on the hits alone. Its precision and recall are means over the classes; a class of which no
    expression was rightly spotted counts 0.

    Args:
        found: for every video ``(onset, offset, label)`` of what was found; labels are names or numbers.
        true: the truth, likewise.
        iou: least intersection over union of a hit.
        fps: as for :func:`spotting_scores`.
        classes: the classes that are scored; default those in ``true``. Expressions of other classes count for
            spotting only.

    Returns:
        The score and its parts.

    Raises:
        TypeError: not a list of labelled intervals per video.
        ValueError: as for :func:`spotting_scores`, or no classes.

    Source: Liong, See and Chan (2023), Spot-then-recognize, Signal Processing: Image Communication 110.
    """
    check_iou(iou)
    guesses, truths = _videos(found, true, labelled=True)
    spotting = spotting_scores(guesses, truths, iou=iou, fps=fps)
    present = {item[2] for truth in truths.values() for item in truth}
    names = tuple(sorted(present, key=lambda name: (str(type(name)), name)) if classes is None else classes)
    if not names:
        raise ValueError("classes must name at least one class, there is none in true")
    if len(set(names)) < len(names):
        raise ValueError(f"classes must differ from one another, got {names}")
    place = {name: i for i, name in enumerate(names)}
    # A label that is no class (one more column) is a wrong answer all the same.
    counts = torch.zeros(len(names), len(names) + 1, dtype=torch.int64)
    for video, truth in truths.items():
        guess = guesses[video]
        for i, j in match_intervals([item[:2] for item in guess], [item[:2] for item in truth], iou):
            if truth[j][2] in place:
                counts[place[truth[j][2]], place.get(guess[i][2], -1)] += 1
    hits = counts.diagonal().double()
    precision_of = hits / counts.sum(0)[:-1].clamp(min=1)
    recall_of = hits / counts.sum(1).clamp(min=1)
    f1_of = 2 * hits / (counts.sum(0)[:-1] + counts.sum(1)).clamp(min=1)
    precision, recall = float(precision_of.mean()), float(recall_of.mean())
    f1 = _ratio(2 * precision * recall, precision + recall)
    return SpotThenRecognizeScores(
        spotting.f1 * f1, spotting, precision, recall, f1, float(f1_of.mean()), names, counts[:, :-1]
    )


def match_intervals(
    found: Sequence[tuple[int, int]], true: Sequence[tuple[int, int]], iou: float
) -> list[tuple[int, int]]:
    """Pairs (found, true) of IoU at least ``iou``, one to one: as many as can be, and of those the best overlap."""
    if not found or not true:
        return []
    from scipy.optimize import linear_sum_assignment

    a, b = np.asarray(found, np.int64), np.asarray(true, np.int64)
    first, last = np.maximum(a[:, None, 0], b[None, :, 0]), np.minimum(a[:, None, 1], b[None, :, 1])
    shared = np.maximum(last - first + 1, 0)
    overlap = shared / ((a[:, 1] - a[:, 0] + 1)[:, None] + (b[:, 1] - b[:, 0] + 1)[None] - shared)
    right = overlap >= iou
    # A hit outweighs any sum of overlaps.
    rows, columns = linear_sum_assignment(right * (overlap + min(overlap.shape)), maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if right[i, j]]


def _scores(counts: list[int]) -> SpottingScores:
    tp, fp, fn = counts
    return SpottingScores(tp, fp, fn)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


# --- what may come in ----------------------------------------------------------------------------------------------


def check_iou(iou: float) -> None:
    """An IoU in (0, 1]."""
    if check_number("iou", iou, 0, 1) == 0:
        raise ValueError("iou must be above 0: any two intervals would match")


def _videos(
    found: Videos, true: Videos, *, labelled: bool
) -> tuple[dict[Hashable, list[tuple[Any, ...]]], dict[Hashable, list[tuple[Any, ...]]]]:
    if isinstance(found, Mapping) != isinstance(true, Mapping):
        raise TypeError("found and true must both be lists of videos, or both dicts by video")
    if isinstance(found, Mapping) and isinstance(true, Mapping):
        if found.keys() != true.keys():
            lone = sorted(map(str, found.keys() ^ true.keys()))
            raise ValueError(
                f"found and true must have the same videos, only one has {', '.join(lone[:5])}: "
                "a video without expressions is an empty list"
            )
        pairs = {name: (found[name], true[name]) for name in true}
    else:
        for name, videos in (("found", found), ("true", true)):
            if isinstance(videos, (str, bytes)) or not isinstance(videos, Sequence):
                raise TypeError(f"{name} must be a list of videos, each a list, got {type(videos).__name__}")
        if len(found) != len(true):
            raise ValueError(f"found and true must have the same videos, got {len(found)} and {len(true)}")
        pairs = {i: (found[i], true[i]) for i in range(len(true))}
    if not pairs:
        raise ValueError("found and true must have at least one video")
    return (
        {video: _intervals("found", video, guess, labelled) for video, (guess, _) in pairs.items()},
        {video: _intervals("true", video, truth, labelled) for video, (_, truth) in pairs.items()},
    )


def _intervals(name: str, video: Any, items: Any, labelled: bool) -> list[tuple[Any, ...]]:
    expected = "(onset, offset, label)" if labelled else "(onset, offset)"
    if isinstance(items, (str, bytes)) or not hasattr(items, "__iter__"):
        raise TypeError(f"{name} must be a list of {expected} for every video, got {items!r} for video {video!r}")
    checked: list[tuple[Any, ...]] = []
    for item in items:
        if isinstance(item, Expression) and not labelled:
            interval: tuple[Any, ...] = (item.onset, item.offset)
        else:
            interval = tuple(item) if isinstance(item, (Sequence, np.ndarray, Tensor)) else (item,)
        bounds = [as_integer(bound) for bound in interval[:2]]
        if isinstance(item, str) or len(interval) not in ((3,) if labelled else (2, 3)) or None in bounds:
            fix = ": one list of intervals for every video, [intervals] for one" if as_integer(item) is not None else ""
            raise TypeError(f"{name} must be {expected} in whole frames, got {item!r} in video {video!r}{fix}")
        onset, offset = (bound for bound in bounds if bound is not None)
        if not 0 <= onset <= offset:
            raise ValueError(f"{name} must have 0 <= onset <= offset, got {item!r} in video {video!r}")
        checked.append((onset, offset, *interval[2:]))
    return checked


def _rates(fps: float | Sequence[float] | None, videos: list[Hashable]) -> dict[Hashable, float] | None:
    if fps is None:
        return None
    rates = list(fps) if isinstance(fps, (Sequence, np.ndarray)) else [fps] * len(videos)
    if len(rates) != len(videos):
        raise ValueError(f"fps must be one number, or one for each of {len(videos)} videos, got {len(rates)}")
    for rate in rates:
        if check_number("fps", rate, 0) == 0:
            raise ValueError("fps must be above 0, got 0")
    return dict(zip(videos, (float(rate) for rate in rates), strict=True))
