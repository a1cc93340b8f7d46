"""Scores of the field: UF1 (mean F1 of the classes), UAR (mean recall of the classes), WAR (accuracy).

Micro-expression papers report UF1 and UAR over the pooled predictions of all folds (MEGC 2019), dynamic facial
expression papers WAR and UAR. With n_ij the clips of class i that were taken for class j::

    recall_i = n_ii / Σ_j n_ij         F1_i = 2 n_ii / (Σ_j n_ij + Σ_j n_ji)
    UAR = mean of recall_i             UF1 = mean of F1_i             WAR = Σ_i n_ii / Σ_ij n_ij

A class without clips has a recall of 0/0, and its F1 is 0/0 where it is never predicted either. What becomes of such a
class changes the mean, so it is an argument: ``absent``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mertools._checks import check_choice, check_count

__all__ = ["ClassScores", "class_scores", "confusion_matrix", "uar", "uf1", "war"]

ABSENT = ("skip", "zero", "error")
_LARGEST = 2000  # classes that need no num_classes: the matrix grows with their square


class ClassScores(NamedTuple):
    """Precision, recall, F1 and number of clips of every class, each ``(e,)``.

    ``precision``, ``recall`` and ``f1`` are float64, NaN where they are 0/0; ``support`` is int64.

    Examples:
        >>> ClassScores(*class_scores([[2, 0], [1, 1]])).recall
        tensor([1.0000, 0.5000], dtype=torch.float64)
    """

    precision: Tensor
    recall: Tensor
    f1: Tensor
    support: Tensor


def confusion_matrix(predicted: Any, target: Any, *, num_classes: int | None = None) -> Tensor:
    """Count how often each class was taken for which, ``(e, e)`` int64: a row per true class, a column per predicted.

    The predicted classes come first, as in PyTorch; scikit-learn has them second. Names are safest.

    Args:
        predicted: class indices ``(n,)``, or floating logits (or probabilities) ``(n, e)`` of which the largest counts:
            a tensor on any device, an array or a sequence.
        target: class indices ``(n,)``.
        num_classes: how many classes there are; default those of the logits, or one more than the largest index. Say
            it wherever the last class may be missing.

    Examples:
        >>> confusion_matrix(predicted=[0, 1, 1, 2], target=[0, 1, 2, 2])
        tensor([[1, 0, 0],
                [0, 1, 0],
                [0, 1, 1]])
    """
    guess, truth, e = check_labels(predicted, target, num_classes)
    return torch.bincount(truth * e + guess, minlength=e * e).view(e, e)


def uf1(predicted: Any, target: Any = None, *, num_classes: int | None = None, absent: str = "skip") -> float:
    """Unweighted F1, in [0, 1]: the mean of the classes' F1, ``2 n_ii / (Σ_j n_ij + Σ_j n_ji)`` (MEGC 2019).

    Pool the predictions of all folds first: the mean of the folds' scores is another, lower or higher number.

    Args:
        predicted: as for :func:`confusion_matrix`; or, without ``target``, a confusion matrix ``(e, e)``, rows true.
        target: class indices ``(n,)``.
        num_classes: how many classes there are.
        absent: what a class counts that has no clips and is never predicted: ``"skip"`` leaves it out of the mean
            (scikit-learn's ``f1_score(average="macro")``), ``"zero"`` counts it 0, ``"error"`` refuses.

    Examples:
        >>> round(uf1(predicted=[0, 1, 1, 2], target=[0, 1, 2, 2]), 4)
        0.7778
        >>> uf1([[5, 0, 0], [0, 5, 0], [0, 0, 0]]), round(uf1([[5, 0, 0], [0, 5, 0], [0, 0, 0]], absent="zero"), 4)
        (1.0, 0.6667)
    """
    return macro_mean("uf1", *f1_terms(_counts(predicted, target, num_classes)), absent)


def uar(
    first: Any = None,
    second: Any = None,
    /,
    *,
    predicted: Any = None,
    target: Any = None,
    num_classes: int | None = None,
    absent: str = "skip",
) -> float:
    """Unweighted average recall, in [0, 1]: the mean of ``n_ii / Σ_j n_ij``, the share of each class's clips found.

    Called as ``uar(confusion)``, ``uar(logits, target)`` or ``uar(predicted=..., target=...)``; two vectors of class
    indices are taken by name only: scikit-learn has the true classes first, PyTorch the predicted, and the wrong order
    would give the mean precision without a word. (UF1 and WAR are the same in either order.)

    ``predicted`` (``(n,)``, ``(n, e)`` or counts ``(e, e)``), ``target`` and ``num_classes`` are those of :func:`uf1`;
    ``first`` and ``second`` take their places. A class without clips is left out of the mean with ``absent="skip"``
    (scikit-learn's ``balanced_accuracy_score``), counts 0 with ``"zero"``, and is refused with ``"error"``.

    Examples:
        >>> round(uar(predicted=[0, 1, 1, 2], target=[0, 1, 2, 2]), 4)
        0.8333
    """
    if sum(value is not None for value in (first, second, predicted, target)) > 2:
        raise TypeError("uar takes predicted and target, or a confusion matrix, got more than two values")
    if second is not None and _ndim(first) != 2:
        raise TypeError(
            "uar(a, b) does not say which of the two is predicted: scikit-learn has the true classes first, PyTorch "
            "the predicted. Write uar(predicted=..., target=...)"
        )
    given = [value for value in (first, second) if value is not None]
    predicted = given.pop(0) if predicted is None and given else predicted
    target = given.pop(0) if given else target
    return macro_mean("uar", *recall_terms(_counts(predicted, target, num_classes)), absent)


def war(predicted: Any, target: Any = None, *, num_classes: int | None = None, absent: str = "skip") -> float:
    """Weighted average recall, in [0, 1]: the recalls weighted by their clips, which is the accuracy.

    ``predicted`` (``(n,)``, ``(n, e)`` or counts ``(e, e)``), ``target`` and ``num_classes`` are those of :func:`uf1`.
    A class without clips has no weight, so ``absent="skip"`` and ``"zero"`` are the same; ``"error"`` refuses it.

    Examples:
        >>> war(predicted=[0, 1, 1, 2], target=[0, 1, 2, 2])
        0.75
    """
    hits, support = recall_terms(_counts(predicted, target, num_classes))
    macro_mean("war", hits, support, absent)
    return float(hits.sum() / support.sum())


def class_scores(confusion: Any) -> ClassScores:
    """Precision, recall, F1 and support of every class. What is 0/0 is NaN, never a 0 that looks like a score.

    ``confusion`` holds counts ``(e, e)``, rows true, as :func:`confusion_matrix` gives them.

    Examples:
        >>> scores = class_scores([[3, 0, 0], [1, 0, 0], [0, 0, 0]])
        >>> scores.recall, scores.support
        (tensor([1., 0., nan], dtype=torch.float64), tensor([3, 1, 0]))
        >>> scores.precision  # neither of the others was ever predicted
        tensor([0.7500,    nan,    nan], dtype=torch.float64)
    """
    counts = check_counts(confusion)
    hits, support = recall_terms(counts)
    twice, both = f1_terms(counts)
    return ClassScores(hits / counts.sum(0).double(), hits / support, twice / both, support.long())


# --- what the scores are made of -----------------------------------------------------------------------------------


def f1_terms(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Numerators and denominators of F1, ``(..., e)`` float64 of counts ``(..., e, e)``."""
    return 2 * counts.diagonal(dim1=-2, dim2=-1).double(), (counts.sum(-1) + counts.sum(-2)).double()


def recall_terms(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Numerators and denominators of the recall, ``(..., e)`` float64 of counts ``(..., e, e)``."""
    return counts.diagonal(dim1=-2, dim2=-1).double(), counts.sum(-1).double()


def all_scores(counts: Tensor) -> dict[str, Tensor]:
    """UF1, UAR and WAR of many confusion matrices ``(..., e, e)`` at once, each ``(...)``; absent classes skipped."""
    hits, support = recall_terms(counts)
    return {
        "uf1": _mean_of_present(*f1_terms(counts)),
        "uar": _mean_of_present(hits, support),
        "war": hits.sum(-1) / support.sum(-1),
    }


def _mean_of_present(part: Tensor, whole: Tensor) -> Tensor:
    there = whole > 0
    return (part / whole.clamp(min=1)).sum(-1) / there.sum(-1)


def macro_mean(score: str, part: Tensor, whole: Tensor, absent: str, names: Sequence[str] | None = None) -> float:
    """The mean of ``part / whole`` over the classes, those of 0/0 as ``absent`` says."""
    check_choice("absent", absent, ABSENT)
    missing = (whole == 0).nonzero().flatten().tolist()
    if missing and absent == "error":
        shown = ", ".join(str(i) if names is None else names[i] for i in missing)
        raise ValueError(
            f"{score} is 0/0 for the classes {shown}: no clip has them. absent='skip' leaves them out of the mean, "
            "absent='zero' counts them 0"
        )
    if absent == "skip":
        return float(_mean_of_present(part, whole))
    return float((part / whole.clamp(min=1)).mean())


# --- what may come in ----------------------------------------------------------------------------------------------


def _counts(predicted: Any, target: Any, num_classes: int | None) -> Tensor:
    if target is not None:
        return confusion_matrix(predicted, target, num_classes=num_classes).cpu()
    counts = check_counts(predicted)
    num_classes = None if num_classes is None else check_count("num_classes", num_classes)
    if num_classes not in (None, len(counts)):
        raise ValueError(f"confusion must be ({num_classes}, {num_classes}) to match num_classes, got {len(counts)}")
    return counts


def _ndim(value: Any) -> int:
    """How many axes it has; 0 for what is no array."""
    try:
        return np.ndim(value)
    except ValueError:  # rows of unlike lengths
        return 0


def check_counts(confusion: Any) -> Tensor:
    """A confusion matrix as an int64 tensor, on the CPU: it is small, and not every device has float64."""
    counts = _numbers("confusion", confusion, "an (e, e) matrix of counts").cpu()
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(
            f"confusion must be (e, e) counts, rows true, got shape {tuple(counts.shape)}: pass target too to score "
            "predictions"
        )
    if counts.is_floating_point() and not bool((counts == counts.round()).all() & counts.isfinite().all()):
        raise ValueError("confusion must hold counts, got fractions: score the counts, not the normalised matrix")
    counts = counts.long()
    if bool((counts < 0).any()):
        raise ValueError(f"confusion must hold counts, got {int(counts.min())}")
    if not bool(counts.any()):
        raise ValueError("confusion must count at least one clip, it is all zero")
    return counts


def check_labels(predicted: Any, target: Any, num_classes: int | None) -> tuple[Tensor, Tensor, int]:
    """Predicted and true class indices, ``(n,)`` int64 on the device of ``predicted``, and the number of classes."""
    guess, logits = _labels("predicted", predicted, logits=True)
    truth, _ = _labels("target", target)
    truth = truth.to(guess.device)
    if len(guess) != len(truth):
        raise ValueError(f"predicted and target must be equally many, got {len(guess)} and {len(truth)}")
    num_classes = None if num_classes is None else check_count("num_classes", num_classes)
    if logits is not None and num_classes not in (None, logits):
        raise ValueError(f"predicted must be (n, {num_classes}) to match the classes, got logits of {logits} classes")
    e = num_classes or logits or int(torch.stack([guess.max(), truth.max()]).max()) + 1
    if e > _LARGEST and num_classes is None:
        raise ValueError(f"the largest class index is {e - 1}, is that a class? Pass num_classes={e} if so")
    for name, labels in (("predicted", guess), ("target", truth)):
        if bool((wrong := labels >= e).any()):
            place = int(wrong.nonzero()[0])
            raise ValueError(
                f"{name} must be below the number of classes, {e}; {name}[{place}] is {int(labels[place])}"
            )
    return guess, truth, e


def _labels(name: str, value: Any, *, logits: bool = False) -> tuple[Tensor, int | None]:
    """Class indices ``(n,)`` int64, and how many classes the logits had."""
    expected = "class indices (n,)" + (" or logits (n, e)" if logits else "")
    labels = _numbers(name, value, expected)
    if not labels.numel():
        raise ValueError(f"{name} must be {expected} of at least one clip, got shape {tuple(labels.shape)}")
    if labels.ndim == 2 and logits and labels.is_floating_point():
        if bool((wrong := labels.isnan().any(1)).any()):
            raise ValueError(f"{name} must be logits without NaN, row {int(wrong.nonzero()[0])} has some")
        return labels.argmax(1), labels.shape[1]
    if labels.ndim != 1:
        raise ValueError(f"{name} must be {expected}, got {labels.dtype} of shape {tuple(labels.shape)}")
    # NaN and infinity fail the comparison too.
    if labels.is_floating_point() and bool((wrong := (labels - labels.round()) != 0).any()):
        place = int(wrong.nonzero()[0])
        raise ValueError(f"{name} must be {expected}, {name}[{place}] is {float(labels[place])}")
    labels = labels.long()
    if bool((wrong := labels < 0).any()):
        place = int(wrong.nonzero()[0])
        raise ValueError(
            f"{name} must not be negative, {name}[{place}] is {int(labels[place])}: leave clips without a label out"
        )
    return labels, None


def _numbers(name: str, value: Any, expected: str) -> Tensor:
    if isinstance(value, Tensor):
        if value.is_complex():
            raise TypeError(f"{name} must be {expected}, got {value.dtype}")
        return value.detach()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be {expected}, got {type(value).__name__}: {error}") from error
    if array.dtype.kind not in "biuf":
        kind = type(value).__name__ if array.ndim == 0 else f"{type(value).__name__} of {array.dtype}"
        raise TypeError(f"{name} must be {expected}, got {kind}: map class names to indices first")
    # A copy: the array may be read-only, of another byte order, or of a type that torch has not.
    return torch.from_numpy(array.astype(np.float64 if array.dtype.kind == "f" else np.int64))
