"""The AU prior loss: cross entropy plus what the face of each expression looks like (AU-DFER).

Three ways of use, from nothing to what the paper did:

1. ``loss(logits, target)``: the predicted expressions imply an AU profile ``softmax(logits) @ W``, which is pulled
   towards the target's row. A confusion between expressions with unlike faces costs more than one between like faces.
2. ``loss(logits, target, au_logits)``: an AU head learns the rows of the prior as soft labels.
3. ``loss(logits, target, au_logits, au_target)``: an AU head learns AU labels (OpenFace, FACS codes), each unit
   weighted by how much it matters for the clip's expression: the loss of the paper; see ``prior.py`` for the formula.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mertools._checks import as_integer, check_choice, check_number
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
    prior: Tensor,
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
    """
    settings = _Settings(au_ratio, prior_scale, label_smoothing, ignore_index, expression_loss, reduction)
    settings = _checked_settings(settings, prior, pos_weight, class_weight)
    return _loss(logits, target, au_logits, au_target, _PriorTable.of(prior), pos_weight, class_weight, settings)


class AUPriorLoss(ConfigurationBuffers):
    """Put in the place of ``nn.CrossEntropyLoss()``; knows which facial movements go with which expression.

    ``L = (1 − r)·CE(logits, y) + r·mean_ba[ s·W[y_b, a]·BCE(au_logits[b, a], au_target[b, a]; pos_weight) ]``

    Without ``au_target`` the prior rows ``W[y]`` are the soft AU targets. Without ``au_logits`` too, the AU term is the
    divergence between the profile that the predicted probabilities imply and the target's row,
    ``s·W[y, a]·KL(W[y, a] ‖ (softmax(logits) @ W)[a])``, which is 0 for a confident correct prediction; ``pos_weight``
    plays no part in it. Values are checked on the CPU only: on other devices that would wait for them.

    Args:
        prior: ``(e, a)`` in [0, 1], a row per class; a row of NaN leaves its class out of the AU term. Default
            :func:`au_prior`, for 7 classes in the order happy, sad, neutral, angry, surprise, disgust, fear. Another
            order or other classes: ``au_prior(["anger", "happiness", ...])``.
        au_ratio: ``r`` in [0, 1], share of the AU term (the paper's λ). With 0 the loss is cross entropy.
        prior_scale: ``s``, scale of the prior as a weight; the paper's weight matrix is ``prior_scale * prior``.
        pos_weight: weight of a present unit against an absent one, ``(a,)`` or ``(e, a)``; see :func:`au_pos_weight`.
        class_weight: ``(e,)`` weights of the cross entropy.
        label_smoothing: of the cross entropy, in [0, 1]; the AU term uses the target as it is.
        ignore_index: a class index whose clips count in neither term. A batch of nothing else gives 0, not NaN.
        expression_loss: a module in the place of the cross entropy, called as ``(logits, target)``, with the same
            ``reduction``; for instance :class:`FocalLoss` or :class:`LogitAdjustedLoss`. It has weights of its own, so
            ``class_weight`` and ``label_smoothing`` are refused beside it.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` (one value per clip).

    Shape:
        - logits: ``(b, e)``; target: ``(b,)`` class indices, or ``(b, e)`` probabilities (mixup): then the same mixture
        - au_logits: ``(b, a)``; au_target: ``(b, a)`` in [0, 1], any dtype
        - output: scalar, or ``(b,)`` for ``reduction="none"``; float32 for 16-bit inputs

    Examples:
        >>> criterion = AUPriorLoss()  # was: nn.CrossEntropyLoss()
        >>> logits, target = torch.zeros(2, 7), torch.tensor([0, 6])
        >>> criterion(logits, target)  # no AU labels, no AU head
        tensor(1.5177)
        >>> au_logits, au_target = torch.zeros(2, 18), torch.ones(2, 18)
        >>> criterion(logits, target, au_logits, au_target)  # the paper's loss
        tensor(1.7661)

    Source: AU-DFER (arXiv 2507.07678).
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
        if expression_loss is not None and not isinstance(expression_loss, nn.Module):
            raise TypeError(f"expression_loss must be an nn.Module, got {type(expression_loss).__name__}")
        settings = _Settings(au_ratio, prior_scale, label_smoothing, ignore_index, expression_loss, reduction)
        settings = _checked_settings(settings, prior, pos_weight, class_weight)
        # Configuration, not state: a checkpoint must not bring the rows of another class order along.
        for name, table in _PriorTable.of(prior.detach())._asdict().items():
            self.register_configuration(name, table)
        self.register_configuration("pos_weight", pos_weight)
        self.register_configuration("class_weight", class_weight)
        self.au_ratio = settings.au_ratio
        self.prior_scale = settings.prior_scale
        self.label_smoothing = settings.label_smoothing
        self.ignore_index = settings.ignore_index
        self.expression_loss = expression_loss
        self.reduction: Reduction = reduction

    def forward(
        self, logits: Tensor, target: Tensor, au_logits: Tensor | None = None, au_target: Tensor | None = None
    ) -> Tensor:
        """The loss of a batch; see the class for the three ways of use."""
        table = _PriorTable(self.rows, self.entropy, self.known)
        expression_loss: Callable[[Tensor, Tensor], Tensor] | None = self.expression_loss
        settings = _Settings(
            self.au_ratio, self.prior_scale, self.label_smoothing, self.ignore_index, expression_loss, self.reduction
        )
        return _loss(logits, target, au_logits, au_target, table, self.pos_weight, self.class_weight, settings)

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


class _Settings(NamedTuple):
    """The settings of a loss that are no tensors."""

    au_ratio: float
    prior_scale: float
    label_smoothing: float
    ignore_index: int
    expression_loss: Callable[[Tensor, Tensor], Tensor] | None
    reduction: Reduction


class _PriorTable(NamedTuple):
    """The prior, laid out for looking rows up."""

    rows: Tensor  # (e + 1, a): the prior, 0 for classes without a row, and a last row of 0 for ignored clips
    entropy: Tensor  # (e + 1,): what each row, weighted by itself, has of cross entropy with itself
    known: Tensor | None  # (e,) bool: which classes have a row; None when all do

    @classmethod
    def of(cls, prior: Tensor) -> _PriorTable:
        known = ~prior.isnan().any(1)
        rows = F.pad(prior.nan_to_num(0.0), (0, 0, 0, 1))
        return cls(rows, _own_entropy(rows, rows), None if bool(known.all()) else known)


def _loss(
    logits: Tensor,
    target: Tensor,
    au_logits: Tensor | None,
    au_target: Tensor | None,
    table: _PriorTable,
    pos_weight: Tensor | None,
    class_weight: Tensor | None,
    settings: _Settings,
) -> Tensor:
    """The loss of a batch under checked settings."""
    e, a = table.rows.shape[0] - 1, table.rows.shape[1]
    _check_logits(logits, e)
    target = check_target(target, logits)
    _check_action_units(au_logits, au_target, logits.shape[0], a)
    # 16-bit inputs are computed in float32: half precision would round away what the loss is made of.
    dtype = logits.dtype if logits.dtype in (torch.float32, torch.float64) else torch.float32
    logits = logits.to(dtype)
    hard = not target.is_floating_point()
    target = target if hard else target.to(dtype)
    valid = target != settings.ignore_index if hard else None
    count: Tensor | int = max(logits.shape[0], 1) if valid is None else valid.sum().clamp(min=1)
    if settings.expression_loss is not None:
        check_classes(target, e, settings.ignore_index)
        expression = _check_expression(settings.expression_loss(logits, target), logits, settings.reduction)
    else:
        expression = _cross_entropy(logits, target, class_weight, settings)
        if settings.reduction == "mean":
            weight = None if class_weight is None else class_weight.to(dtype)
            expression = expression / (count if weight is None or valid is None else _weighted(weight, target, valid))
    if settings.au_ratio == 0:
        return expression
    units = _au_term(logits, target, valid, au_logits, au_target, table, pos_weight, settings.reduction)
    if settings.reduction == "mean":
        units = units / count
    return torch.add((1 - settings.au_ratio) * expression, units, alpha=settings.au_ratio * settings.prior_scale / a)


def _cross_entropy(logits: Tensor, target: Tensor, class_weight: Tensor | None, settings: _Settings) -> Tensor:
    """Cross entropy per clip or summed. A class out of range is found there on the CPU, and explained here."""
    try:
        return F.cross_entropy(
            logits,
            target,
            weight=None if class_weight is None else class_weight.to(logits.dtype),
            ignore_index=settings.ignore_index,
            label_smoothing=settings.label_smoothing,
            reduction="none" if settings.reduction == "none" else "sum",
        )
    except IndexError:
        check_classes(target, logits.shape[1], settings.ignore_index)
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
    table: _PriorTable,
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
    if au_target is not None:
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


# --- checks ---------------------------------------------------------------------------------------------------------
# Shapes and types are always looked at. Values only on the CPU: on another device that would wait for it.


def _checked_settings(settings: _Settings, prior: Any, pos_weight: Any, class_weight: Any) -> _Settings:
    _check_prior(prior)
    e, a = prior.shape
    checked = _Settings(
        au_ratio=check_number("au_ratio", settings.au_ratio, 0, 1),
        prior_scale=check_number("prior_scale", settings.prior_scale, 0),
        label_smoothing=check_number("label_smoothing", settings.label_smoothing, 0, 1),
        ignore_index=check_ignore_index(settings.ignore_index),
        expression_loss=settings.expression_loss,
        reduction=settings.reduction,
    )
    if checked.prior_scale == 0:
        raise ValueError("prior_scale must be positive, got 0: au_ratio=0 leaves the AU term out")
    check_choice("reduction", checked.reduction, ("mean", "sum", "none"))
    check_weight("pos_weight", pos_weight, {(a,): "one per action unit", (e, a): "a row per class"}, "the prior")
    check_weight("class_weight", class_weight, {(e,): "one per class"}, "the prior")
    if checked.expression_loss is not None and (class_weight is not None or checked.label_smoothing):
        raise ValueError(
            "expression_loss takes the place of the cross entropy: give class_weight and label_smoothing to it"
        )
    return checked


def check_ignore_index(ignore_index: object) -> int:
    """A class index, of which negative ones are the usual."""
    index = as_integer(ignore_index)
    if index is None:
        raise TypeError(f"ignore_index must be an int, got {ignore_index!r}")
    return index


def _check_prior(prior: Any) -> None:
    """A prior: ``(e, a)`` in [0, 1], whole rows of NaN allowed."""
    if not isinstance(prior, Tensor):
        raise TypeError(
            f"prior must be a torch.Tensor (e, a), got {type(prior).__name__}: au_prior([class names]) makes one"
        )
    if prior.ndim != 2 or not prior.is_floating_point() or 0 in prior.shape:
        raise ValueError(f"prior must be floating (e, a), a row per class, got {prior.dtype} {tuple(prior.shape)}")
    missing = prior.isnan().all(1)
    if bool(missing.all()):
        raise ValueError("prior must hold a row for at least one class, got nothing but NaN")
    rows = prior[~missing]
    if not bool(((rows >= 0) & (rows <= 1)).all()):
        raise ValueError(
            f"prior must lie in [0, 1], got values from {float(rows.min())} to "
            f"{float(rows.max())}: put the scale of a weight matrix into prior_scale"
        )


def check_weight(name: str, weight: Any, shapes: dict[tuple[int, ...], str], match: str) -> None:
    """A weight of one of some shapes, finite and not negative; ``match`` is what it goes with, for the message."""
    if weight is None:
        return
    expected = " or ".join(f"{shape} ({meaning})" for shape, meaning in shapes.items())
    if not isinstance(weight, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor {expected}, got {type(weight).__name__}")
    if tuple(weight.shape) not in shapes:
        raise ValueError(f"{name} must be {expected} to match {match}, got shape {tuple(weight.shape)}")
    if weight.is_complex() or not bool((weight >= 0).all() & torch.isfinite(weight).all()):
        raise ValueError(f"{name} must be finite and at least 0, got {weight.tolist()}")


def _check_logits(logits: Any, e: int) -> None:
    """Class logits ``(b, e)``."""
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"logits must be a torch.Tensor (b, e), got {type(logits).__name__}: "
            "a model that returns (logits, au_logits) is unpacked as loss(logits, target, au_logits)"
        )
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating, got {logits.dtype}")
    if logits.ndim != 2 or logits.shape[1] != e:
        raise ValueError(
            f"logits must be (b, {e}) to match the prior's {e} classes, got shape {tuple(logits.shape)}: "
            "for other classes pass AUPriorLoss(au_prior([your class names]))"
        )


def check_target(target: Any, logits: Tensor) -> Tensor:
    """Classes ``(b,)``, as int64, or class probabilities ``(b, e)``."""
    b, e = logits.shape
    if not isinstance(target, Tensor):
        raise TypeError(f"target must be a torch.Tensor of classes (b,) or probabilities (b, e), got {target!r}")
    if target.shape not in ((b,), (b, e)):
        raise ValueError(f"target must be ({b},) classes or ({b}, {e}) probabilities, got shape {tuple(target.shape)}")
    soft = target.ndim == 2
    if soft != target.is_floating_point() or target.dtype == torch.bool or target.is_complex():
        wanted = "floating probabilities (one-hot rows: target.float())" if soft else "integer class indices"
        raise TypeError(f"target of shape {tuple(target.shape)} must hold {wanted}, got {target.dtype}")
    if not soft:
        return target.long()
    _check_unit_range("target", target)
    if _may_look(target):
        total = target.double().sum(1)
        if not bool(((total - 1).abs() < 1e-2).all()):
            worst = int((total - 1).abs().argmax())
            raise ValueError(f"target rows must sum to 1, got {total[worst].item():.4g} for clip {worst}")
    return target


def check_classes(target: Tensor, e: int, ignore_index: int) -> None:
    """Classes within range, or to be ignored; probabilities pass."""
    if target.is_floating_point() or not _may_look(target):
        return
    unknown = ~((target >= 0) & (target < e) | (target == ignore_index))
    if bool(unknown.any()):
        raise ValueError(
            f"target must lie within 0..{e - 1} (or be ignore_index={ignore_index}), got {int(target[unknown][0])} "
            f"for clip {int(unknown.to(torch.uint8).argmax())}"
        )


def _check_action_units(au_logits: Any, au_target: Any, b: int, a: int) -> None:
    """AU logits and labels, each ``(b, a)`` or left out."""
    if au_logits is None and au_target is not None:
        raise ValueError("au_target needs au_logits: pass the output of AUHead(in_features), or leave both out")
    for name, value in (("au_logits", au_logits), ("au_target", au_target)):
        if value is None:
            continue
        if not isinstance(value, Tensor) or value.is_complex():
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{name} must be a real torch.Tensor ({b}, {a}), got {got}")
        if value.shape != (b, a):
            raise ValueError(
                f"{name} must be ({b}, {a}) to match the prior's {a} action units, got {tuple(value.shape)}"
                f"{_shape_hint(name, value, b, a)}"
            )
        if name == "au_logits" and not value.is_floating_point():
            raise TypeError(f"au_logits must be floating, got {value.dtype}: labels are passed as au_target=")
    if au_target is not None:
        _check_unit_range("au_target", au_target)


def _shape_hint(name: str, value: Tensor, b: int, a: int) -> str:
    if value.ndim == 3 and value.shape[0] == b and value.shape[2] == a:
        instead = "clip_au_labels(presence)" if name == "au_target" else "au_logits.mean(1), or pool the features"
        return f": it has a time axis (b, t, a), the loss takes one row per clip: {instead}"
    return f": build the head with AUHead(in_features, num_aus={a})" if name == "au_logits" else ""


def _check_unit_range(name: str, value: Tensor) -> None:
    """Values within [0, 1], without NaN."""
    if not _may_look(value) or not value.numel() or value.dtype == torch.bool:
        return
    low, high = (float(bound) for bound in value.detach().aminmax())
    if not (low >= 0 and high <= 1):  # NaN is neither
        hint = "drop clips without a face, binarise intensities" if name == "au_target" else "not logits"
        raise ValueError(f"{name} must lie in [0, 1] without NaN, got {low} to {high}: {hint}")


def _check_expression(value: Any, logits: Tensor, reduction: str) -> Tensor:
    """What a replaced expression term returned."""
    shape = logits.shape[:1] if reduction == "none" else ()
    if not isinstance(value, Tensor) or value.shape != shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"expression_loss must return {tuple(shape)} for reduction={reduction!r}, got {got}")
    return value


def _may_look(value: Tensor) -> bool:
    """Whether values can be read: without a wait for a device, a graph break, or a vmap that has many of them."""
    if value.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    wrapped = getattr(getattr(torch._C, "_functorch", None), "is_functorch_wrapped_tensor", None)
    return wrapped is None or not wrapped(value)
