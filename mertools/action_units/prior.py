"""Action units as prior knowledge: which facial movements go with which expression (AU-DFER).

An action unit (AU) is a visible movement of a facial muscle: AU12 pulls the lip corners, AU04 lowers the brow. AU-DFER
quantifies, from large DFER sets, how much each unit contributes to each expression and puts the table as a weight ``W``
(e, a) in the loss. A second linear head ``au_logits = AUHead(features)`` predicts the units during training only::

    L = (1 − r)·CE(logits, y) + r·mean over b, a of [ s·W[y_b, a] · BCE(au_logits[b, a], au_target[b, a]; pos_weight) ]

with ``r = au_ratio`` (0.25) and ``s = prior_scale`` (5). BCE is on logits; ``pos_weight`` multiplies its positive term
only. The published scripts for three base models disagree on the rows of the tables: here a row is looked up by the
name of its expression, and what stays doubtful in the numbers is remarked in ``au_tables.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Literal

import torch
from torch import Tensor

from mertools._checks import check_choice, check_count, check_number
from mertools.action_units.expressions import EXPRESSIONS, canonical, class_key, class_names, near_names
from mertools.layers.buffers import real_device

__all__ = ["ACTION_UNITS", "au_pos_weight", "au_prior", "clip_au_labels", "estimate_au_prior", "estimate_pos_weight"]

ACTION_UNITS: tuple[str, ...] = (
    "AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU09", "AU10", "AU12",
    "AU14", "AU15", "AU17", "AU20", "AU23", "AU25", "AU26", "AU28", "AU45",
)  # fmt: skip
"""The 18 action units in the order of OpenFace's presence columns (``AU01_c`` ... ``AU45_c``)."""


def au_prior(
    classes: str | Sequence[str] = EXPRESSIONS,
    *,
    action_units: Sequence[str] = ACTION_UNITS,
    rows: Mapping[str, Tensor | str | Sequence[str]] | None = None,
    missing: Literal["error", "mean", "ignore"] = "error",
) -> Tensor:
    """How strongly each action unit goes with each expression: the prior ``W`` of AU-DFER, rows by name.

    The table ``(e, a)`` float32 in [0, 1] knows happy, sad, neutral, angry, surprise, disgust and fear. A class it does
    not know (contempt, repression, others, ...) gets a row from ``rows``, or what ``missing`` says; never silently some
    other row.

    Args:
        classes: your class names in the order of your labels, or a set of :data:`CLASS_SETS` such as ``"SAMM-5"``.
            Synonyms are understood ("happiness", "anger", ...).
        action_units: the units wanted, in order; any subset of :data:`ACTION_UNITS`.
        rows: rows for classes by name: an ``(a,)`` tensor, for instance of :func:`estimate_au_prior`, or the name
            (or names, averaged) of expressions that the table knows. They go before the table's; any synonym of a
            class names it.
        missing: for a class without a row: ``"error"``; ``"mean"``, the average of the table's rows; ``"ignore"``, a
            row of NaN, which leaves the class out of the AU term of :class:`AUPriorLoss`.

    Examples:
        >>> au_prior(["happy"], action_units=["AU12", "AU04"])  # a smile pulls the lip corners
        tensor([[0.8883, 0.2964]])
        >>> au_prior("MEGC2019", rows={"positive": "happy", "negative": ["angry", "disgust", "fear", "sad"]}).shape
        torch.Size([3, 18])

    Source: AU-DFER (arXiv 2507.07678), weight matrix of the AU loss.
    """
    columns = _unit_columns(action_units)
    check_choice("missing", missing, ("error", "mean", "ignore"))
    names = class_names(classes)
    given = _given_rows(rows, names, len(columns))
    table = _float32(_tables()["prior"])[:, columns]
    average = table.mean(0) if missing == "mean" else torch.full_like(table[0], torch.nan)
    prior, unknown = [], []
    for name in names:
        row, known = given.get(class_key(name)), canonical(name)
        if isinstance(row, Tensor):
            prior.append(row)
        elif row is not None:
            prior.append(table[[EXPRESSIONS.index(part) for part in row]].mean(0))
        elif known is not None:
            prior.append(table[EXPRESSIONS.index(known)])
        else:
            unknown.append(name)
            prior.append(average)
    if unknown and missing == "error":
        raise _no_row(unknown)
    return torch.stack(prior)


def au_pos_weight(
    dataset: str = "DFEW",
    mode: str = "global",
    *,
    classes: str | Sequence[str] = EXPRESSIONS,
    missing: Literal["error", "ones"] = "error",
) -> Tensor:
    """Weight of a present action unit against an absent one, positive float32, as published for DFEW and FERV39K.

    FERV39K's ``"global"`` row is kept as published: it equals the *surprise* row of the distinct table and is no
    statistic of the whole training set. :func:`estimate_pos_weight` computes that from your own AU labels.

    Args:
        dataset: ``"DFEW"`` or ``"FERV39K"``.
        mode: ``"global"``, one row ``(18,)`` for all expressions; ``"distinct"``, a row per expression, ``(e, 18)``;
            ``"minor"``, the distinct rows for the rare expressions disgust, fear and surprise and ones for the others.
        classes: your class names in the order of your labels, or a set's name (not used by ``"global"``).
        missing: for a class that the table does not know: ``"error"``, or ``"ones"`` (no weight).

    Examples:
        >>> au_pos_weight("DFEW", "minor", classes=["happy", "fear"])[0].unique()
        tensor([1.])

    Source: AU-DFER (arXiv 2507.07678), study of label imbalance; the weights are negatives / positives of each unit
    (``(n − n₊) / n₊``).
    """
    tables: dict[str, Any] = _tables()["pos_weight"]
    check_choice("dataset", dataset, tuple(tables))
    check_choice("mode", mode, ("global", "distinct", "minor"))
    check_choice("missing", missing, ("error", "ones"))
    names = class_names(classes)
    if mode == "global":
        return _float32(tables[dataset]["global"])
    found = [canonical(name) for name in names]
    unknown = [name for name, key in zip(names, found, strict=True) if key is None]
    if unknown and missing == "error":
        raise _no_row(unknown, "missing='ones' leaves them without weight, estimate_pos_weight makes your own table")
    table = _float32(tables[dataset]["distinct"])
    weight = table.new_ones(len(names), table.shape[1])
    for i, key in enumerate(found):
        if key is not None and (mode == "distinct" or key in _tables()["minor_expressions"]):
            weight[i] = table[EXPRESSIONS.index(key)]
    return weight


def estimate_au_prior(au_target: Tensor, target: Tensor, *, num_classes: int, smoothing: float = 1.0) -> Tensor:
    """A prior ``(e, a)`` in [0, 1] from your own labels: how often each unit is present in the clips of each class.

    ``W[e, a] = (clips of e with a + smoothing) / (clips of e + 2·smoothing)``, which keeps a unit that is never or
    always seen away from 0 and 1, and gives a class without clips 0.5 throughout.

    Args:
        au_target: AU labels of the clips ``(n, a)``, 0 or 1 (or probabilities).
        target: class of each clip, ``(n,)`` integers.
        num_classes: number of classes.
        smoothing: pseudo-count, not negative; 0 for the plain share of clips, which needs a clip of every class.

    Examples:
        >>> estimate_au_prior(torch.tensor([[1.0, 0], [1, 1]]), torch.tensor([0, 0]), num_classes=1)
        tensor([[0.7500, 0.5000]])
    """
    smoothing = check_number("smoothing", smoothing, 0)
    positive, total = _count(au_target, target, num_classes)
    if smoothing == 0 and bool((total == 0).any()):
        empty = (total[:, 0] == 0).nonzero().flatten().tolist()
        raise ValueError(f"target must hold every class when smoothing=0; classes without a clip: {empty}")
    return ((positive + smoothing) / (total + 2 * smoothing)).to(_float_dtype(au_target))


def estimate_pos_weight(au_target: Tensor, target: Tensor | None = None, *, num_classes: int | None = None) -> Tensor:
    """Negatives over positives of each action unit, ``(a,)`` over all clips, or ``(e, a)`` per class.

    ``(n − n₊ + 1) / (n₊ + 1)``: a unit that is never or always present keeps a finite, positive weight.

    Args:
        au_target: AU labels of the clips ``(n, a)``, 0 or 1 (or probabilities).
        target: class of each clip, ``(n,)`` integers, for a row per class; needs ``num_classes``.
        num_classes: number of classes.

    Examples:
        >>> estimate_pos_weight(torch.tensor([[1.0], [0], [0], [0], [0]]))  # 4 negatives, 1 positive: (4 + 1) / (1 + 1)
        tensor([2.5000])
    """
    if (target is None) != (num_classes is None):
        raise ValueError("target and num_classes must be given together (a row per class) or not at all (one row)")
    if target is None or num_classes is None:
        _check_au_labels(au_target, 2)
        whole = torch.zeros(au_target.shape[0], dtype=torch.long, device=au_target.device)
        positive, total = _count(au_target, whole, 1)
        return ((total - positive + 1) / (positive + 1))[0].to(_float_dtype(au_target))
    positive, total = _count(au_target, target, num_classes)
    return ((total - positive + 1) / (positive + 1)).to(_float_dtype(au_target))


def clip_au_labels(presence: Tensor, *, threshold: float = 0.5) -> Tensor:
    """AU labels of a clip from those of its frames: present when present in at least ``threshold`` of them.

    ``label = Σ_t presence ≥ threshold·t``, AU-DFER's majority vote.

    Args:
        presence: 0/1 per frame, ``(..., t, a)``. NaN marks a frame without a face; it counts neither way, and where no
            frame had a face the label ``(..., a)`` is NaN.
        threshold: share of the frames, in (0, 1].

    Examples:
        >>> clip_au_labels(torch.tensor([[1, 0], [0, 0], [1, 1], [0, 0]]))  # two of four is enough, one of four is not
        tensor([1., 0.])
    """
    _require_tensor("presence", presence)
    threshold = check_number("threshold", threshold, 0, 1)
    if threshold == 0:
        raise ValueError(f"threshold must lie in (0, 1], got {threshold}")
    if presence.ndim < 2 or presence.shape[-2] == 0:
        raise ValueError(f"presence must be (..., t, a) with at least one frame, got shape {tuple(presence.shape)}")
    values = presence.to(_float_dtype(presence))
    if values.is_floating_point() and not bool(((values >= 0) & (values <= 1) | values.isnan()).all()):
        raise ValueError("presence must hold 0 and 1 (or NaN, no face): binarise intensities first")
    # Sums in many bits, not means: 3 of 5 frames is at least 0.6 of them, and no rounding may say otherwise.
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    seen = (~values.isnan()).sum(-2)
    present = values.nan_to_num(0.0).sum(-2, dtype=wide)
    label = (present + 1e-6 >= threshold * seen.to(wide)).to(values.dtype)
    return label.masked_fill(seen == 0, torch.nan)


# --- tables and counts ----------------------------------------------------------------------------------------------


@cache
def _tables() -> dict[str, Any]:
    tables: dict[str, Any] = json.loads(resources.files("mertools").joinpath("au_tables.json").read_text("utf-8"))
    return tables


def _float32(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=real_device())


def _given_rows(
    rows: Mapping[str, Tensor | str | Sequence[str]] | None, names: tuple[str, ...], a: int
) -> dict[str, Tensor | list[str]]:
    """The caller's rows by :func:`class_key`, checked: ``(a,)`` tensors, or names that the table knows."""
    if rows is None:
        return {}
    if not isinstance(rows, Mapping):
        raise TypeError(f"rows must map class names to rows, got {type(rows).__name__}")
    wanted = {class_key(name) for name in names}
    given: dict[str, Tensor | list[str]] = {}
    for name, row in rows.items():
        key = class_key(str(name))
        if key not in wanted:
            raise ValueError(f"rows must be for classes among {list(names)}, got one for {name!r}")
        if key in given:
            raise ValueError(f"rows must name each class once, got {key} more than once: {list(rows)}")
        if isinstance(row, Tensor):
            if row.shape != (a,) or not bool(((row >= 0) & (row <= 1)).all()):
                raise ValueError(f"rows[{name!r}] must be ({a},) in [0, 1], got shape {tuple(row.shape)}: {row}")
            given[key] = row.float()
            continue
        parts = [row] if isinstance(row, str) or not isinstance(row, Iterable) else list(row)
        unknown = [part for part in parts if not isinstance(part, str) or canonical(part) is None]
        if unknown or not parts:
            raise ValueError(
                f"rows[{name!r}] must name expressions among {', '.join(EXPRESSIONS)}, or be an ({a},) tensor, "
                f"got {parts}"
            )
        given[key] = [str(canonical(part)) for part in parts]
    return given


def _no_row(unknown: list[str], hint: str = "") -> ValueError:
    hint = hint or (
        "give each a row with rows={name: ...}, from estimate_au_prior on your own AU labels or as a mixture of known "
        "expressions, or choose missing='mean' or missing='ignore'"
    )
    return ValueError(
        f"classes must be among {', '.join(EXPRESSIONS)} (or a synonym) to have a row in the table; "
        f"got {', '.join(map(repr, unknown))}{near_names(unknown)}: {hint}"
    )


def _unit_columns(action_units: Sequence[str]) -> list[int]:
    if isinstance(action_units, str) or not isinstance(action_units, Sequence) or not action_units:
        raise TypeError(f"action_units must be a sequence of names, got {action_units!r}")
    unknown = [unit for unit in action_units if unit not in ACTION_UNITS]
    if unknown:
        raise ValueError(f"action_units must be among {', '.join(ACTION_UNITS)}; got {', '.join(map(repr, unknown))}")
    return [ACTION_UNITS.index(unit) for unit in action_units]


def _count(au_target: Tensor, target: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Present units per class ``(e, a)`` and clips per class ``(e, 1)``, float64."""
    _check_au_labels(au_target, 2)
    _require_tensor("target", target)
    if target.is_floating_point() or target.dtype == torch.bool:
        raise TypeError(f"target must hold class indices (integers), got {target.dtype}")
    if target.shape != au_target.shape[:1]:
        raise ValueError(
            f"target must be ({au_target.shape[0]},), one class per row of au_target, got {tuple(target.shape)}"
        )
    num_classes = check_count("num_classes", num_classes)
    if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < num_classes:
        raise ValueError(
            f"target must lie within 0..{num_classes - 1}, got {int(target.min())}..{int(target.max())}: "
            "drop ignored clips first"
        )
    positive = torch.zeros(num_classes, au_target.shape[1], dtype=torch.float64, device=au_target.device)
    positive.index_add_(0, target.long(), au_target.double())
    total = torch.bincount(target, minlength=num_classes).double()[:, None]
    return positive, total


def _check_au_labels(au_target: Tensor, ndim: int) -> None:
    _require_tensor("au_target", au_target)
    if au_target.ndim != ndim:
        raise ValueError(f"au_target must be (n, a), got shape {tuple(au_target.shape)}")
    if au_target.numel() and not bool(((au_target >= 0) & (au_target <= 1)).all()):
        raise ValueError("au_target must lie in [0, 1] without NaN: drop clips without a face, binarise intensities")


def _require_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")


def _float_dtype(like: Tensor) -> torch.dtype:
    return like.dtype if like.is_floating_point() else torch.get_default_dtype()
