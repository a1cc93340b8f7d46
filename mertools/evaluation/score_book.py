"""Predictions of all folds in one book, and the scores of the pool.

A score of the field is one number over the pooled predictions of all folds, not a mean of the folds' scores. The book
keeps a row per clip, so that scores per subject, intervals over subjects and another policy for absent classes are all
still there when the training is over. It also carries how the epoch was chosen into everything it writes: a score of
the best epoch on the test fold is no score of the model.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mertools._checks import check_choice, check_count
from mertools._files import atomic_write
from mertools._text import natural_order
from mertools.action_units.expressions import class_names
from mertools.evaluation.bootstrap import check_level, percentile_interval, resampled_counts
from mertools.evaluation.metrics import all_scores, check_labels, class_scores, f1_terms, macro_mean, recall_terms
from mertools.evaluation.score_io import (
    SCORES,
    Contents,
    Prediction,
    book_csv,
    book_json,
    check_text,
    read_book_csv,
    read_book_json,
    summary_text,
)

__all__ = ["ScoreBook", "Scores"]

GROUPS = ("subject", "fold", "dataset")


class Scores(NamedTuple):
    """Three scores of some clips, absent classes left out: ``uf1``, ``uar``, ``war`` in [0, 1], of so many ``clips``.

    Examples:
        >>> Scores(uf1=0.5, uar=0.6, war=0.7, clips=10).uar
        0.6
    """

    uf1: float
    uar: float
    war: float
    clips: int


class ScoreBook:
    """Predictions pooled over folds and processes, a row per clip, and their scores.

    Rows are kept in order of dataset, subject and clip, so that files and scores do not depend on which fold or process
    was done first. Iterating gives the rows, :class:`Prediction` each.

    Args:
        classes: the classes' names in the order of their indices, or a set's name (``CLASS_SETS``).
        selection: how the epoch was chosen, such as ``"last epoch"``, ``"inner split"``, ``"selected on test"``. It is
            in every output.

    Examples:
        >>> book = ScoreBook(["negative", "positive"], selection="last epoch")
        >>> book.add([0, 1], [0, 1], clips=["s1/a", "s1/b"], subjects=["s1", "s1"], fold="s1")
        >>> book.add([0, 1], [1, 1], clips=["s2/a", "s2/b"], subjects=["s2", "s2"], fold="s2")
        >>> round(book.uf1(), 4), round(book.uar(), 4), book.war()
        (0.7333, 0.8333, 0.75)
        >>> book.per("fold")["s2"].war
        0.5
    """

    def __init__(self, classes: str | Sequence[str], *, selection: str = "") -> None:
        self.classes = class_names(classes)
        for name in self.classes:
            check_text("classes", name)
        self.selection = check_text("selection", selection, empty=True)
        self._rows: dict[str, Prediction] = {}
        self._sorted = True

    # --- filling it ------------------------------------------------------------------------------------------------

    def add(
        self,
        predicted: Any,
        target: Any,
        *,
        clips: Sequence[str],
        subjects: Sequence[str] | str | None,
        datasets: Sequence[str] | str | None = None,
        fold: str = "",
    ) -> None:
        """Add predictions, a row per clip.

        Args:
            predicted: class indices ``(n,)``, or logits (or probabilities) ``(n, e)`` of which the largest counts.
            target: class indices ``(n,)``.
            clips: a name for each clip, unique in the book: with its subject, and its dataset where several are mixed
                (``ProtocolClips.names``).
            subjects: who is seen in each clip (or in all of them); None where a dataset does not say (DFEW).
            datasets: where each clip (or all of them) comes from.
            fold: the fold that these clips were tested in.
        """
        guess, truth, _ = check_labels(predicted, target, len(self.classes))
        if isinstance(clips, str) or clips is None:
            raise TypeError(f"clips must be a sequence of names, one per clip, got {clips!r}")
        n = len(truth)
        columns = _texts("clips", clips, n), _texts("subjects", subjects, n), _texts("datasets", datasets, n)
        if "" in columns[0]:
            raise ValueError(f"clips must be names, clips[{columns[0].index('')}] is empty")
        check_text("fold", fold, empty=True)
        labels = truth.tolist(), guess.tolist()
        self._insert(
            [
                Prediction(clip, subject, dataset, fold, y, y_hat)
                for clip, subject, dataset, y, y_hat in zip(*columns, *labels, strict=True)
            ]
        )

    def _insert(self, rows: Sequence[Prediction]) -> None:
        added: dict[str, Prediction] = {}
        for row in rows:
            known = self._rows.get(row.clip) or added.get(row.clip)
            if known is not None:
                raise ValueError(
                    f"clip {row.clip!r} is predicted twice ({_where(known)}, and {_where(row)}): every clip counts "
                    "once, in the fold that tests it. Clips of several subjects or datasets need names that say whose"
                )
            added[row.clip] = row
        self._rows.update(added)
        self._sorted = False

    def merge(self, other: ScoreBook) -> ScoreBook:
        """Add the rows of another book, of the same classes and selection, and return this one; also ``a + b``."""
        self._check_alike(other)
        self._insert(other.rows)
        return self

    def __add__(self, other: ScoreBook) -> ScoreBook:
        if not isinstance(other, ScoreBook):
            return NotImplemented
        return self._of(self.rows).merge(other)

    def __radd__(self, other: object) -> ScoreBook:
        return self._of(self.rows) if other == 0 else NotImplemented  # sum(books) starts at 0

    def gather(self, group: Any = None) -> ScoreBook:
        """The book of all processes: each adds what it predicted, and each gets the whole.

        A sampler that fills the last batch up with clips of the first predicts some of them twice: they count once; two
        predictions that differ are refused. ``group`` is one of ``torch.distributed``, default the world; without an
        initialised one it is this book itself. With NCCL, set the process's device first (``torch.cuda.set_device``).
        """
        from torch import distributed

        if not (distributed.is_available() and distributed.is_initialized()):
            return self
        if distributed.get_rank(group) < 0:
            raise ValueError("group must be one that this process belongs to")
        books: list[Any] = [None] * distributed.get_world_size(group)
        distributed.all_gather_object(books, (self.classes, self.selection, self.rows), group=group)
        whole = self._of([])
        for classes, selection, rows in books:
            other = ScoreBook(classes, selection=selection)
            other._insert(rows)
            whole._check_alike(other)
            for row in rows:
                known = whole._rows.get(row.clip)
                if known is not None and known != row:
                    raise ValueError(
                        f"clip {row.clip!r} comes from two processes with different predictions ({self._told(known)}; "
                        f"{self._told(row)}): is the model the same everywhere, and in evaluation mode?"
                    )
            whole._insert([row for row in rows if row.clip not in whole._rows])
        return whole

    def _told(self, row: Prediction) -> str:
        return f"{_where(row)}: {self.classes[row.target]} taken for {self.classes[row.predicted]}"

    def _check_alike(self, other: object) -> None:
        if not isinstance(other, ScoreBook):
            raise TypeError(f"other must be a ScoreBook, got {type(other).__name__}")
        for name in ("classes", "selection"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"books of unlike {name} can't be pooled: {mine!r} and {theirs!r}")

    def _of(self, rows: Sequence[Prediction]) -> ScoreBook:
        book = ScoreBook(self.classes, selection=self.selection)
        book._insert(rows)
        return book

    # --- what is in it ---------------------------------------------------------------------------------------------

    @property
    def rows(self) -> list[Prediction]:
        """The rows in order of dataset, subject and clip."""
        if not self._sorted:
            self._rows = {row.clip: row for row in sorted(self._rows.values(), key=_row_order)}
            self._sorted = True
        return list(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScoreBook):
            return NotImplemented
        return (self.classes, self.selection, self.rows) == (other.classes, other.selection, other.rows)

    @property
    def subjects(self) -> list[str]:
        """The subjects in order, each once; without the unknown."""
        return list(dict.fromkeys(row.subject for row in self.rows if row.subject))

    # --- scores ----------------------------------------------------------------------------------------------------

    @property
    def confusion(self) -> Tensor:
        """Pooled counts, ``(e, e)`` int64: a row per true class, a column per predicted one."""
        return _counts_by(None, self.rows, len(self.classes))[1].sum(0)

    def uf1(self, *, absent: str = "skip") -> float:
        """Pooled :func:`uf1`."""
        return macro_mean("uf1", *f1_terms(self._filled()), absent, self.classes)

    def uar(self, *, absent: str = "skip") -> float:
        """Pooled :func:`uar`."""
        return macro_mean("uar", *recall_terms(self._filled()), absent, self.classes)

    def war(self, *, absent: str = "skip") -> float:
        """Pooled :func:`war`, the accuracy."""
        hits, support = recall_terms(self._filled())
        macro_mean("war", hits, support, absent, self.classes)
        return float(hits.sum() / support.sum())

    def _filled(self) -> Tensor:
        if not self._rows:
            raise ValueError("the book holds no predictions yet: fill it with add(predicted, target, ...)")
        return self.confusion

    def per_class(self) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 and support by class; NaN for what is 0/0 (see :func:`class_scores`)."""
        scores = class_scores(self._filled())
        return {
            name: {key: values[i].item() for key, values in scores._asdict().items()}
            for i, name in enumerate(self.classes)
        }

    def per(self, group: str) -> dict[str, Scores]:
        """The scores of each ``"subject"``, ``"fold"`` or ``"dataset"`` by its own clips, absent classes left out.

        Their mean is not the pooled score.
        """
        check_choice("group", group, GROUPS)
        self._filled()
        names, counts = _counts_by(group, self.rows, len(self.classes))
        scores = all_scores(counts)
        return {
            name: Scores(**{key: float(scores[key][i]) for key in SCORES}, clips=int(counts[i].sum()))
            for i, name in enumerate(names)
        }

    def interval(
        self, score: str = "uf1", *, level: float = 0.95, repeats: int = 2000, seed: int = 0, over: str = "subject"
    ) -> tuple[float, float]:
        """How far a pooled score would move with other subjects: low and high end of a percentile bootstrap.

        Whole subjects are drawn. A resample without any clip of a class has the mean of the others (``absent="skip"``).

        Args:
            score: ``"uf1"``, ``"uar"`` or ``"war"``.
            level: how sure, in (0, 1).
            repeats: how many resamples.
            seed: of the resamples; the same rows and seed give the same interval.
            over: ``"subject"``, or ``"clip"`` for a dataset that does not say who is seen: clips of one person are
                alike, so that interval is too narrow.
        """
        check_choice("score", score, SCORES)
        scores = all_scores(resampled_counts(self._units(over), repeats=repeats, seed=seed))
        return percentile_interval(scores[score], level)

    def _units(self, over: str) -> Tensor:
        check_choice("over", over, ("subject", "clip"))
        self._filled()
        unknown = [row.clip for row in self.rows if not row.subject]
        if over == "subject" and unknown:
            raise ValueError(
                f"an interval over subjects needs the subject of every clip, {len(unknown)} have none "
                f"({unknown[0]!r}): pass subjects to add, or over='clip'"
            )
        return _counts_by(over, self.rows, len(self.classes))[1]

    def compare(
        self,
        other: ScoreBook,
        score: str = "uf1",
        *,
        level: float = 0.95,
        repeats: int = 2000,
        seed: int = 0,
        over: str = "subject",
    ) -> tuple[float, float, float]:
        """How much better this book scores than another on the same clips: the difference, its low and its high end.

        A paired bootstrap: every resample of subjects is scored for both. An interval without 0 says that the
        difference is more than the choice of subjects; it knows nothing of seeds. The arguments are those of
        :meth:`interval`, after ``other``: the book of another model, of the same clips.
        """  # fmt: skip
        if not isinstance(other, ScoreBook):
            raise TypeError(f"other must be a ScoreBook, got {type(other).__name__}")
        check_choice("score", score, SCORES)
        if self.classes != other.classes:
            raise ValueError(f"only books of the same classes compare: {self.classes!r} and {other.classes!r}")
        mine, theirs = ({(r.clip, r.subject, r.dataset, r.target) for r in book.rows} for book in (self, other))
        if unlike := sorted(clip for clip, *_ in mine ^ theirs):
            raise ValueError(
                f"only books of the same clips compare, these differ in {len(set(unlike))} "
                f"(clip, subject, dataset or class): {', '.join(dict.fromkeys(unlike[:5]))}"
            )
        both = torch.stack([self._units(over), other._units(over)], 1)
        scores = all_scores(resampled_counts(both, repeats=repeats, seed=seed))[score]
        whole = all_scores(both.sum(0))[score]
        low, high = percentile_interval(scores[:, 0] - scores[:, 1], level)
        return float(whole[0] - whole[1]), low, high

    # --- outputs ---------------------------------------------------------------------------------------------------

    def summary(
        self, *, absent: str = "skip", level: float = 0.95, repeats: int = 2000, seed: int = 0
    ) -> dict[str, Any]:
        """Everything that a paper would print, as plain numbers, lists and dicts.

        ``selection``, ``clips``, ``subjects``, ``classes``, ``absent`` and ``absent_classes`` (without clips), ``uf1``,
        ``uar``, ``war``, ``intervals`` (over subjects; over clips where no clip has a subject; None with fewer than
        two), ``per_class`` (None for 0/0) and ``confusion``. ``absent`` is that of :func:`uf1`, ``level``, ``repeats``
        and ``seed`` are those of :meth:`interval`.
        """
        per_class = self.per_class()
        return {
            "selection": self.selection,
            "clips": len(self),
            "subjects": len(self.subjects),
            "classes": list(self.classes),
            "absent": absent,
            "absent_classes": [name for name, scores in per_class.items() if not scores["support"]],
            **{name: getattr(self, name)(absent=absent) for name in SCORES},
            "intervals": self._intervals(level, repeats, seed),
            "per_class": {
                name: {key: None if math.isnan(value) else value for key, value in scores.items()}
                for name, scores in per_class.items()
            },
            "confusion": self.confusion.tolist(),
        }

    def _intervals(self, level: float, repeats: int, seed: int) -> dict[str, Any] | None:
        """Intervals of all scores from the same resamples; over clips where no clip has a subject."""
        level, repeats, seed = check_level(level), check_count("repeats", repeats), check_count("seed", seed, least=0)
        known = {bool(row.subject) for row in self}
        over = "subject" if True in known else "clip"
        units = _counts_by(over, self.rows, len(self.classes))[1]
        if len(known) > 1 or len(units) < 2:
            return None
        scores = all_scores(resampled_counts(units, repeats=repeats, seed=seed))
        ends = {name: list(percentile_interval(scores[name], level)) for name in SCORES}
        return {"over": over, "units": len(units), "level": level, "repeats": repeats, "seed": seed, **ends}

    def __str__(self) -> str:
        return summary_text(self.summary()) if len(self) else repr(self)

    def __repr__(self) -> str:
        chosen = f", selection={self.selection!r}"
        return f"ScoreBook({len(self.classes)} classes{chosen}: {len(self)} clips of {len(self.subjects)} subjects)"

    def write_json(self, path: str | os.PathLike[str]) -> None:
        """Write the summary and all rows; the file is replaced as a whole, and the same book gives the same bytes."""
        atomic_write(Path(path), book_json(self.classes, self.selection, self.rows, self.summary()).encode())

    @classmethod
    def read_json(cls, path: str | os.PathLike[str]) -> ScoreBook:
        """Read what :meth:`write_json` wrote; a ValueError where the summary is not that of its rows."""
        found = read_book_json(Path(path))
        book = cls._from(found, path)
        if found.summary.get("confusion") != book.confusion.tolist():
            raise ValueError(f"{path}: the confusion matrix of the summary is not that of the predictions")
        return book

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a row per clip: clip, subject, dataset, fold, true class, predicted class, selection.

        A cell that a spreadsheet would run as a formula has an apostrophe in front; :meth:`read_csv` takes it off.
        """
        self._filled()
        atomic_write(Path(path), book_csv(self.classes, self.selection, self.rows).encode())

    @classmethod
    def read_csv(cls, path: str | os.PathLike[str], *, classes: str | Sequence[str]) -> ScoreBook:
        """Read what :meth:`write_csv` wrote. It has classes by name (or a synonym): their order is for you to say."""
        return cls._from(read_book_csv(Path(path), class_names(classes)), path)

    @classmethod
    def _from(cls, found: Contents, path: str | os.PathLike[str]) -> ScoreBook:
        try:
            book = cls(found.classes, selection=found.selection)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from None
        book._insert(found.rows)
        return book


def _where(row: Prediction) -> str:
    words = [f"{name} {value!r}" for name, value in zip(row._fields[1:4], row[1:4], strict=True) if value]
    return ", ".join(words) or "no subject"


def _row_order(row: Prediction) -> tuple[Any, ...]:
    return natural_order(row.dataset), natural_order(row.subject), natural_order(row.clip)


def _counts_by(field: str | None, rows: Sequence[Prediction], e: int) -> tuple[list[str], Tensor]:
    """The values of a field in order, and the confusion matrices ``(s, e, e)`` of the rows that have each."""
    values = ["" if field is None else getattr(row, field) for row in rows]
    names = sorted(set(values), key=natural_order)
    place = {name: i for i, name in enumerate(names)}
    cells = [(place[value] * e + row.target) * e + row.predicted for value, row in zip(values, rows, strict=True)]
    counts = torch.bincount(torch.tensor(cells, dtype=torch.long), minlength=len(names) * e * e)
    return names, counts.view(-1, e, e)


def _texts(name: str, values: Sequence[str] | str | None, count: int) -> list[str]:
    """One name per clip; a single string stands for all of them, None for no name."""
    if values is None or isinstance(values, str):
        return [check_text(name, values or "", empty=True)] * count
    try:
        found = list(values)
    except TypeError as error:
        raise TypeError(f"{name} must be a sequence of strings, got {type(values).__name__}") from error
    if len(found) != count:
        raise ValueError(f"{name} must be one per prediction, got {len(found)} for {count} predictions")
    return [check_text(name, value, empty=True) for value in found]
