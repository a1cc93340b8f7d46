"""The AU prior loss: cross entropy plus what the face of each expression looks like (AU-DFER).

Three ways of use, from nothing to what the paper did:

1. ``loss(logits, target)``: the predicted expressions imply an AU profile ``softmax(logits) @ W``, which is pulled
   towards the target's row. A confusion between expressions with unlike faces costs more than one between like faces.
2. ``loss(logits, target, au_logits)``: an AU head learns the rows of the prior as soft labels.
3. ``loss(logits, target, au_logits, au_target)``: an AU head learns AU labels (OpenFace, FACS codes), each unit
   weighted by how much it matters for the clip's expression: the loss of the paper; see ``au.py`` for the formula.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mertools.action_units.au_checks import (
    check_classes,
    check_expression,
    check_logits,
    check_settings,
    check_target,
    check_unit_range,
    check_units,
    may_look,
)
from mertools.action_units.prior import au_prior
from mertools.layers.buffers import ConfigurationBuffers

__all__ = ["AUPriorLoss", "au_prior_loss"]

Reduction: TypeAlias = Literal["mean", "sum", "none"]


def au_prior_loss(
    logits: Tensor,
    target: Tensor,
    au_logits: Tensor | None = None,
    au_target: Tensor | None = None,
    *,
    prior: Tensor | _Rows,
    au_ratio: float = 0.25,
    prior_scale: float = 5.0,
    pos_weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    expression_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross entropy with an action-unit term; the function under :class:`AUPriorLoss`, which documents the arguments.

    ``(1 − au_ratio)·CE + au_ratio·mean[prior_scale·prior[target]·BCE(au_logits, au_target; pos_weight)]``

    Examples:
        >>> logits, target = torch.zeros(2, 7), torch.tensor([0, 3])
        >>> loss = au_prior_loss(logits, target, prior=au_prior(), au_ratio=0.0)
        >>> torch.equal(loss, F.cross_entropy(logits, target))
        True

    Source: AU-DFER (arXiv 2507.07678).
    """
    if isinstance(prior, _Rows):  # from AUPriorLoss, which checks its settings once
        rows = prior
    else:
        check_settings(prior, au_ratio, prior_scale, pos_weight, class_weight, label_smoothing, ignore_index, reduction)
        rows = _Rows.of(prior)
    e, a = rows.rows.shape[0] - 1, rows.rows.shape[1]
    check_logits(logits, e)
    target = check_target(target, logits)
    # 16-bit inputs are computed in float32: half precision would round away what the loss is made of.
    dtype = logits.dtype if logits.dtype in (torch.float32, torch.float64) else torch.float32
    logits = logits.to(dtype)
    hard = not target.is_floating_point()
    target = target if hard else target.to(dtype)
    valid = target != ignore_index if hard else None
    count: Tensor | int = max(logits.shape[0], 1) if valid is None else valid.sum().clamp(min=1)
    if expression_loss is not None:
        if hard and may_look(target):
            check_classes(target, e, ignore_index)
        expression = check_expression(expression_loss(logits, target), logits, reduction)
    else:
        expression = _cross_entropy(logits, target, class_weight, label_smoothing, ignore_index, reduction)
        if reduction == "mean":
            weight = None if class_weight is None else class_weight.to(dtype)
            expression = expression / (count if weight is None or valid is None else _weighted(weight, target, valid))
    if au_ratio == 0:
        return expression
    units = _au_term(logits, target, valid, au_logits, au_target, rows, pos_weight, reduction)
    if reduction == "mean":
        units = units / count
    return torch.add((1 - au_ratio) * expression, units, alpha=au_ratio * prior_scale / a)


class AUPriorLoss(ConfigurationBuffers):
    """Put in the place of ``nn.CrossEntropyLoss()``; knows which facial movements go with which expression.

    ``L = (1 − r)·CE(logits, y) + r·mean_ba[ s·W[y_b, a]·BCE(au_logits[b, a], au_target[b, a]; pos_weight) ]``

    Without ``au_target`` the prior rows ``W[y]`` are the soft AU targets. Without ``au_logits`` too, the AU term is the
    divergence between the profile that the predicted probabilities imply and the target's row,
    ``s·W[y, a]·KL(W[y, a] ‖ (softmax(logits) @ W)[a])``, which is 0 for a confident correct prediction; ``pos_weight``
    plays no part in it.

    Args:
        prior: ``(e, a)`` in [0, 1], a row per class; a row of NaN leaves its class out of the AU term. Default
            :func:`au_prior`, for 7 classes in the order happy, sad, neutral, angry, surprise, disgust, fear. Another
            order or other classes: ``au_prior(["anger", "happiness", ...])``.
        au_ratio: ``r`` in [0, 1], share of the AU term. With 0 the loss is cross entropy.
        prior_scale: ``s``, scale of the prior as a weight.
        pos_weight: weight of a present unit against an absent one, ``(a,)`` or ``(e, a)``; see :func:`au_pos_weight`.
        class_weight: ``(e,)`` weights of the cross entropy.
        label_smoothing: of the cross entropy, in [0, 1]; the AU term uses the target as it is.
        ignore_index: a class index whose clips count in neither term. A batch of nothing else gives 0, not NaN.
        expression_loss: a module in the place of the cross entropy, called as ``(logits, target)``, with the same
            ``reduction``; for instance :class:`FocalLoss` or :class:`LogitAdjustedLoss`.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` (one value per clip).

    Shape:
        - logits: ``(b, e)``
        - target: ``(b,)`` class indices, or ``(b, e)`` probabilities (mixup): the AU term is then the same mixture
        - au_logits: ``(b, a)``
        - au_target: ``(b, a)`` in [0, 1], any dtype
        - output: scalar, or ``(b,)`` for ``reduction="none"``; float32 for 16-bit inputs

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: shapes or widths disagree, or values are out of range (looked at on the CPU only: on other devices
            that would wait for them).

    Examples:
        >>> criterion = AUPriorLoss()  # was: nn.CrossEntropyLoss()
        >>> logits, target = torch.zeros(2, 7), torch.tensor([0, 6])
        >>> criterion(logits, target)  # no AU labels, no AU head
        tensor(1.5177)
        >>> au_logits, au_target = torch.zeros(2, 18), torch.ones(2, 18)
        >>> criterion(logits, target, au_logits, au_target)  # the paper's loss
        tensor(1.7661)

    Source: AU-DFER (arXiv 2507.07678). Its λ is ``au_ratio``, its weight matrix ``prior_scale * prior``.
    """

    rows: Tensor
    entropy: Tensor
    known: Tensor | None
    pos_weight: Tensor | None
    class_weight: Tensor | None

    def __init__(
        self,
        prior: Tensor | None = None,
        *,
        au_ratio: float = 0.25,
        prior_scale: float = 5.0,
        pos_weight: Tensor | None = None,
        class_weight: Tensor | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
        expression_loss: nn.Module | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        prior = au_prior() if prior is None else prior
        check_settings(prior, au_ratio, prior_scale, pos_weight, class_weight, label_smoothing, ignore_index, reduction)
        if expression_loss is not None:
            if not isinstance(expression_loss, nn.Module):
                raise TypeError(f"expression_loss must be an nn.Module, got {type(expression_loss).__name__}")
            if class_weight is not None or label_smoothing:
                raise ValueError(
                    "expression_loss takes the place of the cross entropy: give class_weight and label_smoothing to it"
                )
        # Configuration, not state: a checkpoint must not bring the rows of another class order along.
        for name, table in _Rows.of(prior.detach())._asdict().items():
            self.register_configuration(name, table)
        self.register_configuration("pos_weight", pos_weight)
        self.register_configuration("class_weight", class_weight)
        self.au_ratio = au_ratio
        self.prior_scale = prior_scale
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        self.expression_loss = expression_loss
        self.reduction: Reduction = reduction

    def forward(
        self, logits: Tensor, target: Tensor, au_logits: Tensor | None = None, au_target: Tensor | None = None
    ) -> Tensor:
        """The loss of a batch; see the class for the three ways of use."""
        return au_prior_loss(
            logits,
            target,
            au_logits,
            au_target,
            prior=_Rows(self.rows, self.entropy, self.known),
            au_ratio=self.au_ratio,
            prior_scale=self.prior_scale,
            pos_weight=self.pos_weight,
            class_weight=self.class_weight,
            label_smoothing=self.label_smoothing,
            ignore_index=self.ignore_index,
            expression_loss=self.expression_loss,
            reduction=self.reduction,
        )

    @property
    def prior(self) -> Tensor:
        """The prior ``(e, a)``, rows of NaN for classes that have none."""
        prior = self.rows[:-1]
        return prior if self.known is None else prior.masked_fill(~self.known[:, None], torch.nan)

    def extra_repr(self) -> str:
        """The configuration, for ``print``."""
        e, a = self.prior.shape
        return (
            f"classes={e}, action_units={a}, au_ratio={self.au_ratio}, prior_scale={self.prior_scale}, "
            f"label_smoothing={self.label_smoothing}, reduction={self.reduction!r}"
        )


# --- the two terms --------------------------------------------------------------------------------------------------


class _Rows(NamedTuple):
    """The prior, laid out for looking rows up."""

    rows: Tensor  # (e + 1, a): the prior, 0 for classes without a row, and a last row of 0 for ignored clips
    entropy: Tensor  # (e + 1,): what each row, weighted by itself, has of cross entropy with itself
    known: Tensor | None  # (e,) bool: which classes have a row; None when all do

    @classmethod
    def of(cls, prior: Tensor) -> _Rows:
        known = ~prior.isnan().any(1)
        rows = F.pad(prior.nan_to_num(0.0), (0, 0, 0, 1))
        return cls(rows, _own_entropy(rows, rows), None if bool(known.all()) else known)


def _cross_entropy(
    logits: Tensor,
    target: Tensor,
    class_weight: Tensor | None,
    label_smoothing: float,
    ignore_index: int,
    reduction: Reduction,
) -> Tensor:
    """Cross entropy per clip or summed. A class out of range is found there on the CPU, and explained here."""
    try:
        return F.cross_entropy(
            logits,
            target,
            weight=None if class_weight is None else class_weight.to(logits.dtype),
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            reduction="none" if reduction == "none" else "sum",
        )
    except IndexError:
        check_classes(target, logits.shape[1], ignore_index)
        raise


def _weighted(weight: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """What ``F.cross_entropy`` divides a weighted mean by; 1 where that would be 0."""
    total = (valid * weight[torch.where(valid, target, 0)]).sum()
    return torch.where(total == 0, 1, total)


def _au_term(
    logits: Tensor,
    target: Tensor,
    valid: Tensor | None,
    au_logits: Tensor | None,
    au_target: Tensor | None,
    table: _Rows,
    pos_weight: Tensor | None,
    reduction: Reduction,
) -> Tensor:
    """Weighted AU loss summed over the units, without scale: per clip, or summed.

    Clips that are ignored, or whose class has no row, have weight 0.
    """
    rows, dtype = table.rows.to(logits.dtype), logits.dtype
    index = None if valid is None else torch.where(valid, target, rows.shape[0] - 1)
    weight = labels = _mix(target, rows[:-1]) if index is None else F.embedding(index, rows)
    if index is None and table.known is not None:
        # The part of a mixture without a row weighs nothing; the rest of it still asks for the face of its own classes.
        labels = weight / _mix(target, table.known.to(dtype)[:, None]).clamp(min=1e-6)
    each: Reduction = "none" if reduction == "none" else "sum"
    if au_logits is None:
        if au_target is not None:
            raise ValueError("au_target needs au_logits: pass the output of AUHead(in_features), or leave both out")
        if table.known is not None:
            logits = logits.masked_fill(~table.known, -torch.inf)
        # Divergence of two present/absent distributions: cross entropy minus what the target's row has of its own.
        own = _own_entropy(weight, labels) if index is None else table.entropy.to(dtype)[index]
        with torch.autocast(logits.device.type, enabled=False):
            # A mixture of rows below 1 stays below 1 whatever it rounds to, without a clamp to differentiate.
            profile = logits.softmax(1) @ rows[:-1].clamp(max=1 - 1e-6)
            # A training that diverged has its NaN from the cross entropy, not a crash from here.
            profile = profile.nan_to_num(0.5)
            units = F.binary_cross_entropy(profile, labels, weight=weight, reduction=each)
        return units.sum(1) - own if each == "none" else units - own.sum()
    b, a = logits.shape[0], rows.shape[1]
    check_units("au_logits", au_logits, b, a)
    if not au_logits.is_floating_point():
        raise TypeError(f"au_logits must be floating, got {au_logits.dtype}: labels are passed as au_target=")
    if au_target is not None:
        check_units("au_target", au_target, b, a)
        check_unit_range("au_target", au_target)
        labels = au_target.to(dtype)
    if pos_weight is not None:
        pos_weight = pos_weight.to(dtype)
        if pos_weight.ndim == 2 and index is not None:
            pos_weight = F.embedding(index, F.pad(pos_weight, (0, 0, 0, 1)))
        elif pos_weight.ndim == 2:  # a mixture of targets costs the mixture of their losses
            mixed = _mix(target, rows[:-1] * pos_weight)
            pos_weight = torch.where(weight > 0, mixed / weight, 1)
    units = F.binary_cross_entropy_with_logits(
        au_logits.to(dtype), labels, weight=weight, pos_weight=pos_weight, reduction=each
    )
    return units.sum(1) if each == "none" else units


def _mix(probability: Tensor, rows: Tensor) -> Tensor:
    """The mixture of rows that a target of class probabilities stands for; not in autocast's 16 bits."""
    with torch.autocast(probability.device.type, enabled=False):
        return probability @ rows


def _own_entropy(weight: Tensor, labels: Tensor) -> Tensor:
    """``Σ_a w·H(z)`` of labels read as probabilities of presence, ``(n, a) -> (n,)``."""
    absent = 1 - labels
    return -(weight * (torch.xlogy(labels, labels) + torch.xlogy(absent, absent))).sum(1)
