"""Rare classes: weights from counts, and two expression terms for ``AUPriorLoss(expression_loss=...)``.

Expressions are far from equally frequent, disgust and fear least of all. Each of these is a common answer to that and
combines with the AU term, which has one of its own (``pos_weight``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from mertools._checks import check_choice, check_floating, check_number
from mertools.action_units.loss import check_classes, check_ignore_index, check_target, check_weight
from mertools.layers.buffers import ConfigurationBuffers, real_device

__all__ = ["FocalLoss", "LogitAdjustedLoss", "class_weights"]

Reduction: TypeAlias = Literal["mean", "sum", "none"]


def class_weights(
    counts: Tensor | Sequence[int], *, method: Literal["inverse", "effective"] = "inverse", beta: float = 0.999
) -> Tensor:
    """Weights of the classes from how often each occurs, ``(e,)`` float32 with mean 1.

    ``"inverse"``: ``1 / n_e``. ``"effective"``: ``(1 − β) / (1 − β^n_e)``, the inverse of the effective number of
    samples, which grows less and less with n (Cui et al., "Class-Balanced Loss Based on Effective Number of Samples",
    2019).

    Args:
        counts: clips of each class in the training set, all positive.
        method: which of the two.
        beta: β of ``"effective"``, in [0, 1).

    Examples:
        >>> class_weights([30, 10])
        tensor([0.5000, 1.5000])
    """
    n = _counts(counts)
    check_choice("method", method, ("inverse", "effective"))
    beta = check_number("beta", beta, 0, 1, open_high=True)
    weight = 1 / n if method == "inverse" else (1 - beta) / (1 - beta**n)
    return (weight / weight.mean()).float()


class FocalLoss(ConfigurationBuffers):
    """Cross entropy that weighs clips less the better they are classified already: ``(1 − p_y)^γ · (−log p_y)``.

    Of logits ``(b, e)`` and a target of ``(b,)`` classes or ``(b, e)`` probabilities; values are checked on the CPU
    only.

    Args:
        gamma: γ, 0 for cross entropy.
        class_weight: ``(e,)`` weight of each class; the mean is over clips, not over weights.
        ignore_index: a class index whose clips do not count.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Examples:
        >>> logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
        >>> FocalLoss(gamma=2.0)(logits, target) < torch.nn.functional.cross_entropy(logits, target)
        tensor(True)

    Source: Lin et al., "Focal Loss for Dense Object Detection", 2017.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        gamma: float = 2.0,
        *,
        class_weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        self.gamma = check_number("gamma", gamma, 0)
        self.ignore_index = check_ignore_index(ignore_index)
        check_choice("reduction", reduction, ("mean", "sum", "none"))
        self.reduction: Reduction = reduction
        if class_weight is not None:
            e = class_weight.numel() if isinstance(class_weight, Tensor) else 0
            check_weight("class_weight", class_weight, {(e,): "one per class"}, "the classes")
        self.register_configuration("class_weight", class_weight)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch."""
        e = None if self.class_weight is None else self.class_weight.shape[0]
        logits, target = _checked(logits, target, e, "class_weight", self.ignore_index)
        log_p = logits.log_softmax(1)
        each = -log_p
        if self.gamma:
            # 1 − p without the cancellation; where p is 1 the loss is 0, and so is its slope.
            others = -torch.expm1(log_p)
            some = others > 0
            each = each * torch.where(some, torch.where(some, others, 1).pow(self.gamma), 0)
        if self.class_weight is not None:
            each = each * self.class_weight.to(each.dtype)
        return _reduced(each, target, self.ignore_index, self.reduction)

    def extra_repr(self) -> str:
        """The configuration, for ``print``."""
        return f"gamma={self.gamma}, reduction={self.reduction!r}"


class LogitAdjustedLoss(ConfigurationBuffers):
    """Cross entropy of ``logits + τ·log π`` with π the class frequencies: rare classes must win by a margin.

    Training only; predictions are made from the plain logits. Shapes as for :class:`FocalLoss`, ``(b, e)`` and
    ``(b,)``.

    Args:
        counts: clips of each class in the training set, all positive.
        tau: τ, the scale of the adjustment; 0 for cross entropy, 1 in the paper.
        ignore_index: a class index whose clips do not count.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Examples:
        >>> logits = torch.zeros(1, 2)
        >>> loss = LogitAdjustedLoss([90, 10])
        >>> loss(logits, torch.tensor([1])) > loss(logits, torch.tensor([0]))
        tensor(True)

    Source: Menon et al., "Long-tail learning via logit adjustment", 2021.
    """

    shift: Tensor

    def __init__(
        self,
        counts: Tensor | Sequence[int],
        *,
        tau: float = 1.0,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        n = _counts(counts)
        self.tau = check_number("tau", tau, -math.inf)
        self.ignore_index = check_ignore_index(ignore_index)
        check_choice("reduction", reduction, ("mean", "sum", "none"))
        self.reduction: Reduction = reduction
        self.register_configuration("shift", (self.tau * (n / n.sum()).log()).float())

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch."""
        logits, target = _checked(logits, target, self.shift.shape[0], "counts", self.ignore_index)
        each = -(logits + self.shift.to(logits.dtype)).log_softmax(1)
        return _reduced(each, target, self.ignore_index, self.reduction)

    def extra_repr(self) -> str:
        """The configuration, for ``print``."""
        return f"classes={len(self.shift)}, tau={self.tau}, reduction={self.reduction!r}"


def _reduced(each: Tensor, target: Tensor, ignore_index: int, reduction: Reduction) -> Tensor:
    """Per-class losses ``(b, e)`` at the target, reduced; ignored clips count 0 and not in the mean."""
    if target.is_floating_point():
        loss = (each * target.to(each.dtype)).sum(1)
        count: Tensor | int = max(each.shape[0], 1)
    else:
        valid = target != ignore_index
        loss = torch.where(valid, each.gather(1, torch.where(valid, target, 0)[:, None])[:, 0], 0)
        count = valid.sum().clamp(min=1)
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / count


def _checked(logits: Tensor, target: Tensor, e: int | None, match: str, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Logits ``(b, e)`` in at least 32 bits, since 16 would round the loss away, and their target."""
    check_floating("logits", logits, "(b, e)")
    if logits.ndim != 2 or (e is not None and logits.shape[1] != e):  # `in` is no guard on a symbol to the compiler
        expected = "(b, e)" if e is None else f"(b, {e}) to match {match}"
        raise ValueError(f"logits must be {expected}, got shape {tuple(logits.shape)}")
    target = check_target(target, logits)
    check_classes(target, logits.shape[1], ignore_index)
    return logits.float() if logits.dtype.itemsize < 4 else logits, target


def _counts(counts: Tensor | Sequence[int]) -> Tensor:
    try:
        given = counts.device if isinstance(counts, Tensor) else real_device()
        n = torch.as_tensor(counts, dtype=torch.float64, device=given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"counts must be one number per class, got {counts!r}") from error
    if n.ndim != 1 or not len(n) or not bool(((n > 0) & n.isfinite()).all()):
        raise ValueError(f"counts must be one positive number per class, got {n.tolist()}")
    return n
