"""Rare classes: weights from counts, and two expression terms for ``AUPriorLoss(expression_loss=...)``.

Expressions are far from equally frequent, disgust and fear least of all. Each of these is a common answer to that and
combines with the AU term, which has one of its own (``pos_weight``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from mertools.layers.buffers import ConfigurationBuffers, real_device

__all__ = ["FocalLoss", "LogitAdjustedLoss", "class_weights"]

Reduction: TypeAlias = Literal["mean", "sum", "none"]


def class_weights(
    counts: Tensor | Sequence[int], *, method: Literal["inverse", "effective"] = "inverse", beta: float = 0.999
) -> Tensor:
    """Weights of the classes from how often each occurs, with mean 1.

    ``"inverse"``: ``1 / n_e``. ``"effective"``: ``(1 − β) / (1 − β^n_e)``, the inverse of the effective number of
    samples, which grows less and less with n.

    Args:
        counts: clips of each class in the training set, all positive.
        method: which of the two.
        beta: β of ``"effective"``, in [0, 1).

    Shape:
        - output: ``(e,)`` float32

    Raises:
        TypeError: counts are no numbers.
        ValueError: a class without clips, an unknown method, or a β out of range.

    Examples:
        >>> class_weights([30, 10])
        tensor([0.5000, 1.5000])

    Source: effective number: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", 2019.
    """
    n = _counts(counts)
    if method == "inverse":
        weight = 1 / n
    elif method == "effective":
        if not 0 <= beta < 1:
            raise ValueError(f"beta must lie in [0, 1), got {beta}")
        weight = (1 - beta) / (1 - beta**n)
    else:
        raise ValueError(f"method must be 'inverse' or 'effective', got {method!r}")
    return (weight / weight.mean()).float()


class FocalLoss(ConfigurationBuffers):
    """Cross entropy that looks away from what is already right: ``(1 − p_y)^γ · (−log p_y)``.

    Args:
        gamma: γ, 0 for cross entropy.
        class_weight: ``(e,)`` weight of each class; the mean is over clips, not over weights.
        ignore_index: a class index whose clips do not count.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shape:
        - logits: ``(b, e)``; target: ``(b,)`` classes or ``(b, e)`` probabilities; output: scalar or ``(b,)``

    Raises:
        ValueError: γ is negative, or an unknown reduction.

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
        if not gamma >= 0:
            raise ValueError(f"gamma must be at least 0, got {gamma}")
        _check_reduction(reduction)
        self.gamma, self.ignore_index, self.reduction = gamma, ignore_index, reduction
        self.register_configuration("class_weight", class_weight)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch."""
        log_p = _at_least_float32(logits).log_softmax(1)
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

    Training only; predictions are made from the plain logits.

    Args:
        counts: clips of each class in the training set, all positive.
        tau: τ, the scale of the adjustment; 0 for cross entropy, 1 in the paper.
        ignore_index: a class index whose clips do not count.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shape:
        - logits: ``(b, e)``; target: ``(b,)`` classes or ``(b, e)`` probabilities; output: scalar or ``(b,)``

    Raises:
        ValueError: a class without clips, or an unknown reduction.

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
        _check_reduction(reduction)
        self.tau, self.ignore_index, self.reduction = tau, ignore_index, reduction
        self.register_configuration("shift", (tau * (n / n.sum()).log()).float())

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch."""
        e = self.shift.shape[0]
        if logits.shape[-1] != e:
            raise ValueError(f"logits must be (b, {e}) to match counts, got shape {tuple(logits.shape)}")
        logits = _at_least_float32(logits)
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
        loss = torch.where(valid, each.gather(1, torch.where(valid, target, 0).long()[:, None])[:, 0], 0)
        count = valid.sum().clamp(min=1)
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / count


def _at_least_float32(logits: Tensor) -> Tensor:
    """16 bits would round away what the loss is made of."""
    return logits.float() if logits.dtype.itemsize < 4 else logits


def _counts(counts: Tensor | Sequence[int]) -> Tensor:
    try:
        given = counts.device if isinstance(counts, Tensor) else real_device()
        n = torch.as_tensor(counts, dtype=torch.float64, device=given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"counts must be one number per class, got {counts!r}") from error
    if n.ndim != 1 or not len(n) or not bool(((n > 0) & n.isfinite()).all()):
        raise ValueError(f"counts must be one positive number per class, got {n.tolist()}")
    return n


def _check_reduction(reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
