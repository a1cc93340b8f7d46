"""What the AU prior loss accepts: settings are checked once, tensors in every call.

Shapes and types are always looked at. Values only on the CPU: on another device that would wait for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mertools._checks import check_choice, check_number


def check_settings(
    prior: Tensor,
    au_ratio: float,
    prior_scale: float,
    pos_weight: Tensor | None,
    class_weight: Tensor | None,
    label_smoothing: float,
    ignore_index: int,
    reduction: str,
) -> None:
    """The settings of a loss."""
    check_prior(prior)
    e, a = prior.shape
    check_number("au_ratio", au_ratio, 0, 1)
    check_number("label_smoothing", label_smoothing, 0, 1)
    check_number("prior_scale", prior_scale, 0)
    if prior_scale == 0:
        raise ValueError("prior_scale must be positive, got 0: au_ratio=0 leaves the AU term out")
    if not isinstance(ignore_index, int):
        raise TypeError(f"ignore_index must be an int, got {ignore_index!r}")
    check_choice("reduction", reduction, ("mean", "sum", "none"))
    check_weight("pos_weight", pos_weight, {(a,): "one per action unit", (e, a): "a row per class"})
    check_weight("class_weight", class_weight, {(e,): "one per class"})


def check_prior(prior: Tensor) -> None:
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


def check_weight(name: str, weight: Tensor | None, shapes: dict[tuple[int, ...], str]) -> None:
    """A weight of one of some shapes, finite and not negative."""
    if weight is None:
        return
    expected = " or ".join(f"{shape} ({meaning})" for shape, meaning in shapes.items())
    if not isinstance(weight, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor {expected}, got {type(weight).__name__}")
    if tuple(weight.shape) not in shapes:
        raise ValueError(f"{name} must be {expected} to match the prior, got shape {tuple(weight.shape)}")
    if weight.is_complex() or not bool((weight >= 0).all() & torch.isfinite(weight).all()):
        raise ValueError(f"{name} must be finite and at least 0, got {weight.tolist()}")


def check_logits(logits: Tensor, e: int) -> None:
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


def check_target(target: Tensor, logits: Tensor) -> Tensor:
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
    if soft:
        check_unit_range("target", target)
        if may_look(target):
            total = target.double().sum(1)
            if not bool(((total - 1).abs() < 1e-2).all()):
                worst = int((total - 1).abs().argmax())
                raise ValueError(f"target rows must sum to 1, got {total[worst].item():.4g} for clip {worst}")
        return target
    return target.long()


def check_expression(value: Tensor, logits: Tensor, reduction: str) -> Tensor:
    """What a replaced expression term returned."""
    shape = logits.shape[:1] if reduction == "none" else ()
    if not isinstance(value, Tensor) or value.shape != shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"expression_loss must return {tuple(shape)} for reduction={reduction!r}, got {got}")
    return value


def check_classes(target: Tensor, e: int, ignore_index: int) -> None:
    """Classes within range, or to be ignored."""
    unknown = ~((target >= 0) & (target < e) | (target == ignore_index))
    if bool(unknown.any()):
        raise ValueError(
            f"target must lie within 0..{e - 1} (or be ignore_index={ignore_index}), got {int(target[unknown][0])} "
            f"for clip {int(unknown.to(torch.uint8).argmax())}"
        )


def check_units(name: str, value: Tensor, b: int, a: int) -> None:
    """AU logits or labels ``(b, a)``."""
    if not isinstance(value, Tensor) or value.is_complex():
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a real torch.Tensor ({b}, {a}), got {got}")
    if value.shape != (b, a):
        hint = f": build the head with AUHead(in_features, num_aus={a})" if name == "au_logits" else ""
        raise ValueError(
            f"{name} must be ({b}, {a}) to match the prior's {a} action units, got {tuple(value.shape)}{hint}"
        )


def check_unit_range(name: str, value: Tensor) -> None:
    """Values within [0, 1], without NaN."""
    if not may_look(value) or not value.numel() or value.dtype == torch.bool:
        return
    low, high = (float(bound) for bound in value.detach().aminmax())
    if not (low >= 0 and high <= 1):  # NaN is neither
        hint = "drop clips without a face, binarise intensities" if name == "au_target" else "not logits"
        raise ValueError(f"{name} must lie in [0, 1] without NaN, got {low} to {high}: {hint}")


def may_look(value: Tensor) -> bool:
    """Whether values can be read: without a wait for a device, a graph break, or a vmap that has many of them."""
    if value.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    wrapped = getattr(getattr(torch._C, "_functorch", None), "is_functorch_wrapped_tensor", None)
    return wrapped is None or not wrapped(value)
