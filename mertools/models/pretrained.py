"""Weights in the published key names, into this library's models.

The published training code of TSFmicro and GAMDSS names its parameters after its own modules (``main_branch``,
``vit_pos``). The table below says where each of ours is found, and what of theirs is never used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from mertools.models.tsfmicro import TSFmicro
from mertools.models.two_branch import TwoBranch
from mertools.retention.layer import Retention
from mertools.retention.manhattan import ManhattanRetention
from mertools.retention.rotary import rotary_angles

__all__ = ["load_published", "load_torchscale"]

Model = TypeVar("Model", bound=nn.Module)

_TORCHSCALE_PARTS = ("q_proj", "k_proj", "v_proj", "g_proj")  # our in_proj, in this order
# Present in published checkpoints, read by nothing: a class token, a second head, a mask layer, and what the other
# structures inherit from the parallel one without using it.
_UNUSED = {
    "parallel": ("vit_pos.cls_token", "vit_pos.head.", "vit_pos.to_Mask."),
    "s_to_t": ("vit_pos.cls_token", "vit_pos.head.", "vit_pos.to_Mask."),
    "t_to_s": (
        "vit_pos.cls_token", "vit_pos.head.", "vit_pos.to_Mask.",
        "main_branch.proj.", "main_branch.norm.", "main_branch.head.",
    ),
    "early": ("main_branch.patch_embed.",),
}  # fmt: skip


def load_published(model: Model, state_dict: Mapping[str, Tensor]) -> Model:
    """Load a state dict with the published key names, strictly.

    Args:
        model: a :class:`TSFmicro` of any ``fusion``, or a :class:`TwoBranch` around one, with the published widths.
        state_dict: as saved by the published code (``torch.load(path, weights_only=True)``); a ``module.`` prefix from
            ``DataParallel`` is understood. Constants (``Relpos.angle``, ``Relpos.decay``) may be missing; a different
            decay is taken over, a different angle refused.

    Returns:
        The model, with the weights in place. It is left untouched when anything does not fit.

    Raises:
        TypeError: the model is neither, or the state dict is no mapping of names to tensors.
        ValueError: keys are missing, unknown or of the wrong shape; the message lists them.

    Examples:
        >>> load_published(TSFmicro(5), {})
        Traceback (most recent call last):
        ValueError: state_dict lacks 197 keys that TSFmicro(fusion='parallel') needs: main_branch.patch_embed.proj...

    Source: parameter names of the published code of TSFmicro (arXiv 2505.16372) and GAMDSS (arXiv 2603.04766).
    """
    net = model.net if isinstance(model, TwoBranch) else model
    if not isinstance(net, TSFmicro):
        raise TypeError(f"model must be a TSFmicro, or a TwoBranch around one, got {type(model).__name__}")
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict must map names to tensors, got {type(state_dict).__name__}")
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state_dict.items()):
        raise TypeError(
            "state_dict must map names to tensors: a checkpoint of a training run holds it under a key such as "
            f"'state_dict' or 'model'; got one with {list(state_dict)[:5]}"
        )
    theirs = {key.removeprefix("module."): value for key, value in state_dict.items()}
    if len(theirs) != len(state_dict):
        raise ValueError("state_dict holds keys both with and without the prefix 'module.': which ones are meant?")
    name = f"TSFmicro(fusion={net.structure!r})"
    own = net.state_dict()
    sources = {key: _published_names(key, net.structure) for key in own}
    constants = {key for key in own if key.endswith("log_decay")}

    missing = [src for key, names in sources.items() if key not in constants for src in names if src not in theirs]
    if missing and own.keys() == theirs.keys():
        raise ValueError("state_dict has mertools' own key names: use model.load_state_dict(state_dict)")
    if missing:
        raise ValueError(f"state_dict lacks {len(missing)} keys that {name} needs: {_shown(missing)}")
    known = {src for names in sources.values() for src in names}
    angles = {f"main_branch.layers.{i}.Relpos.angle" for i in range(len(net.temporal.stages))}
    unknown = [key for key in theirs if key not in known | angles and not key.startswith(_UNUSED[net.structure])]
    if unknown:
        raise ValueError(f"state_dict holds {len(unknown)} keys that {name} does not know: {_shown(unknown)}")

    new = {}
    for key, names in sources.items():
        if key in constants and names[0] not in theirs:
            new[key] = own[key]
            continue
        new[key] = _ours(key, {src: theirs[src] for src in names}, own[key])
    _check_angles(net, theirs)
    net.load_state_dict(new)
    return model


def load_torchscale(layer: Retention, state_dict: Mapping[str, Tensor], *, prefix: str = "") -> Retention:
    """Load the weights of a ``MultiScaleRetention`` of torchscale; the layer then computes what that does.

    Our ``in_proj`` is their ``q_proj``, ``k_proj``, ``v_proj`` and ``g_proj`` one above the other, ``out_proj`` keeps
    its name. Their decays are RetNet's (our default) and no part of their layer's weights. They divide scores by sums
    that the normalisation of each head takes out again, so that outputs agree up to its epsilon.

    Args:
        layer: a layer with a gate, rotary positions and the widths of the weights.
        state_dict: weights of the layer, or of a whole model.
        prefix: where in the model the layer is, such as ``"decoder.layers.0.retention."``.

    Returns:
        The layer, loaded in place.

    Raises:
        TypeError: no layer, or no mapping of names to tensors.
        ValueError: the layer is built otherwise, weights are missing or left over, or a shape differs.

    Examples:
        >>> theirs = {f"{name}_proj.weight": torch.eye(8) for name in ("q", "k", "v", "g", "out")}
        >>> load_torchscale(Retention(8, 2), theirs).out_proj.weight.diagonal().sum().item()
        8.0

    Source: Sun et al., "Retentive Network", 2023; https://github.com/microsoft/torchscale (the names of the weights).
    """
    if not isinstance(layer, Retention):
        raise TypeError(f"layer must be a Retention, got {type(layer).__name__}")
    if not isinstance(state_dict, Mapping) or not all(isinstance(key, str) for key in state_dict):
        raise TypeError(f"state_dict must map names to tensors, got {type(state_dict).__name__}")
    if not layer.gate or not layer.rotary:
        raise ValueError("layer must have gate=True and rotary=True, as torchscale's retention has")
    theirs = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    wanted = [f"{name}.weight" for name in (*_TORCHSCALE_PARTS, "out_proj")]
    missing, unknown = [key for key in wanted if key not in theirs], [key for key in theirs if key not in wanted]
    if missing or unknown:
        raise ValueError(
            f"state_dict must have just {', '.join(wanted)} under the prefix {prefix!r}: "
            f"missing {missing or 'none'}, not known {unknown or 'none'}"
        )
    for key in wanted:
        if not isinstance(theirs[key], Tensor) or not theirs[key].is_floating_point():
            kind = theirs[key].dtype if isinstance(theirs[key], Tensor) else type(theirs[key]).__name__
            raise TypeError(f"{prefix}{key} must be a floating tensor, got {kind}")
    shapes = [(width, layer.dim) for width in layer.widths] + [(layer.dim, layer.value_dim)]
    for key, shape in zip(wanted, shapes, strict=True):
        if tuple(theirs[key].shape) != shape:
            raise ValueError(
                f"{prefix}{key} must be {shape} for this layer, got {tuple(theirs[key].shape)}: "
                "build it with the weights' dim and value_dim"
            )
    weights = [theirs[key] for key in wanted]
    with torch.no_grad():
        layer.in_proj.weight.copy_(torch.cat(weights[:-1]))
        layer.out_proj.weight.copy_(weights[-1])
    return layer


def _published_names(key: str, structure: str) -> list[str]:
    """Where one of our parameters is found in a published state dict; several names for a fused matrix."""
    part, _, rest = key.partition(".")
    if part == "spatial":
        return _spatial_names(rest)
    if part == "spatial_stem":
        return [f"ConvStem_T.proj.{rest}"]  # the published names of the two stems are exchanged: "T" reads the onset
    if part == "upsample":
        index, leaf = rest.split(".")
        return [f"transposed_conv{int(index) + 1}.{leaf}"]
    if part == "fusion":
        prefix = "" if structure == "t_to_s" else "main_branch."
        return [prefix + rest.replace("lift.", "proj.")]
    if rest.startswith("stem."):
        prefix = "ConvStem_S" if structure == "early" else "main_branch.patch_embed"
        return [f"{prefix}.proj.{rest.removeprefix('stem.')}"]
    return _stage_names(rest.removeprefix("stages."))


def _stage_names(rest: str) -> list[str]:
    stage, kind, tail = rest.split(".", 2)
    prefix = f"main_branch.layers.{stage}"
    if kind == "downsample":
        return [f"{prefix}.downsample." + tail.replace("0.", "reduction.", 1).replace("1.", "norm.", 1)]
    block, part, leaf = tail.split(".", 2)
    prefix_block = f"{prefix}.blocks.{block}"
    if leaf == "log_decay":
        return [f"{prefix}.Relpos.decay"]
    if part == "retention" and leaf.startswith("qkv."):
        return [f"{prefix_block}.retention.{q}_proj.{leaf.removeprefix('qkv.')}" for q in "qkv"]
    places = {
        "position": f"pos.conv.{leaf}",
        "retention_norm": f"retention_layer_norm.{leaf}",
        "ffn_norm": f"final_layer_norm.{leaf}",
        "retention": f"retention.{leaf.replace('local.', 'lepe.conv.')}",
        "ffn": f"ffn.{leaf.replace('local.', 'dwconv.conv.')}",
    }
    return [f"{prefix_block}.{places[part]}"]


def _spatial_names(rest: str) -> list[str]:
    parts = {
        "embed.": "patch_embed.proj.",
        "attention_norm.": "norm1.",
        "mlp_norm.": "norm2.",
        ".qkv.": ".attn.qkv.",
        ".out_proj.": ".attn.proj.",
        "mlp.0.": "mlp.fc1.",
        "mlp.2.": "mlp.fc2.",
    }
    if not rest.startswith("pos_embed"):
        for ours, theirs in parts.items():
            rest = rest.replace(ours, theirs)
    return [f"vit_pos.{rest}"]


def _ours(key: str, values: dict[str, Tensor], like: Tensor) -> Tensor:
    """The published value in our shape, checked."""
    shape = tuple(like.shape)
    if key.endswith("pos_embed"):
        shape = (1, shape[2] * shape[3], shape[1])
    elif len(values) > 1:
        shape = (shape[0] // len(values), *shape[1:])
    for name, value in values.items():
        if tuple(value.shape) != shape:
            raise ValueError(
                f"{name} must be {shape}, got {tuple(value.shape)}: "
                "build the model with the checkpoint's num_classes and widths"
            )
        if value.is_floating_point() != like.is_floating_point() or value.is_complex():
            raise ValueError(f"{name} must be {like.dtype}, got {value.dtype}")
        if key.endswith("log_decay") and not bool((value < 0).all()):
            raise ValueError(f"{name} must be negative (the logarithm of a decay below 1), got {value.tolist()}")
    value = torch.cat(list(values.values())) if len(values) > 1 else next(iter(values.values()))
    return value.mT.reshape(like.shape) if key.endswith("pos_embed") else value


def _check_angles(net: TSFmicro, theirs: Mapping[str, Tensor]) -> None:
    for name, module in net.temporal.stages.named_modules():
        if not isinstance(module, ManhattanRetention):
            continue
        key = f"main_branch.layers.{name.partition('.')[0]}.Relpos.angle"
        angle = rotary_angles(module.dim // module.num_heads // 2).repeat_interleave(2)
        if key in theirs and (
            theirs[key].shape != angle.shape or not torch.allclose(theirs[key].to(angle), angle, rtol=1e-4)
        ):
            raise ValueError(f"{key} must be 1 / 10000^linspace(0, 1, d/2), each twice; got other rotary angles")


def _shown(keys: list[str]) -> str:
    return ", ".join(keys[:6]) + (", ..." if len(keys) > 6 else "")
