"""UF1, UAR and WAR with the interface of torchmetrics, for training loops that are written for it.

Put beside or in the place of ``MulticlassF1Score(average="macro")``, ``MulticlassRecall(average="macro")`` and
``MulticlassAccuracy(average="micro")``: ``update(preds, target)`` in each step, ``compute()`` at the end, ``reset()``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mertools._checks import check_choice, check_count
from mertools.evaluation.metrics import ABSENT, confusion_matrix, uar, uf1, war

__all__ = ["UAR", "UF1", "WAR"]


class _Meter:
    """Counts who was taken for what, over batches and processes; its score is a function of the counts."""

    score: Callable[..., float]

    def __init__(self, num_classes: int, *, absent: str = "skip") -> None:
        check_choice("absent", absent, ABSENT)
        self.num_classes, self.absent = check_count("num_classes", num_classes), absent
        self.reset()

    def update(self, preds: Any, target: Any) -> None:
        """Count a batch: class indices ``(n,)`` or logits ``(n, e)``, and the true classes ``(n,)``."""
        self._count(preds, target)

    def __call__(self, preds: Any, target: Any) -> Tensor:
        """Count a batch and return its own score, of this process."""
        return self._scored(self._count(preds, target))

    def compute(self) -> Tensor:
        """The score of all batches since the last reset, over all processes: a float32 scalar."""
        counts = self.confusion.clone()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
        return self._scored(counts)

    def reset(self) -> None:
        """Forget what was counted."""
        self.confusion = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)

    def _count(self, preds: Any, target: Any) -> Tensor:
        counts = confusion_matrix(predicted=preds, target=target, num_classes=self.num_classes)
        self.confusion = self.confusion.to(counts.device) + counts  # where the predictions are
        return counts

    def _scored(self, counts: Tensor) -> Tensor:
        value = type(self).score(counts, absent=self.absent)
        return torch.tensor(value, dtype=torch.float32, device=counts.device)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_classes={self.num_classes}, absent={self.absent!r})"


class UF1(_Meter):
    """:func:`uf1` over batches and processes: ``torchmetrics.classification.MulticlassF1Score(average="macro")``.

    Batches are ``preds``, ``(n,)`` class indices or ``(n, e)`` logits, and ``target`` ``(n,)``; the score is a scalar.

    Args:
        num_classes: how many classes there are.
        absent: what a class counts that has no clips and is never predicted, see :func:`uf1`. With ``"skip"`` the two
            are equal.

    Examples:
        >>> score = UF1(num_classes=3)
        >>> for preds, target in (([0, 1], [0, 1]), ([1, 2], [2, 2])):
        ...     score.update(preds, target)
        >>> score.compute()
        tensor(0.7778)
    """

    score = staticmethod(uf1)


class UAR(_Meter):
    """:func:`uar` over batches and processes: ``torchmetrics.classification.MulticlassRecall(average="macro")``.

    The two are equal where every class has clips. torchmetrics counts 0 for a class without clips that is predicted;
    here it is left out (``absent="skip"``), as scikit-learn's balanced accuracy does. ``num_classes`` and the batches,
    ``(n,)`` or ``(n, e)``, are as for :class:`UF1`.

    Examples:
        >>> UAR(num_classes=3)([0, 1, 1, 2], [0, 1, 2, 2])
        tensor(0.8333)
    """

    score = staticmethod(uar)


class WAR(_Meter):
    """:func:`war` over batches and processes: ``torchmetrics.classification.MulticlassAccuracy(average="micro")``.

    ``num_classes`` and the batches, ``(n,)`` or ``(n, e)``, are as for :class:`UF1`; ``absent="error"`` refuses a class
    without clips.

    Examples:
        >>> WAR(num_classes=3)([0, 1, 1, 2], [0, 1, 2, 2])
        tensor(0.7500)
    """

    score = staticmethod(war)
