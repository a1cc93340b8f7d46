"""Weights of others, in the names they were published under, into this library's models.

TSFmicro's and GAMDSS's code names parameters after its own modules: ``main_branch``, which is RMT's, and ``vit_pos``.
Each function says where each of our parameters is found, and what of theirs is never used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from mertools.models.tsfmicro import TSFmicro
from mertools.models.two_branch import TwoBranch
from mertools.retention.backbone import ManhattanRetNet
from mertools.retention.layer import Retention, default_decay
from mertools.retention.manhattan import ManhattanRetention
from mertools.retention.rotary import rotary_angles

__all__ = ["load_published", "load_rmt", "load_torchscale", "load_yet_another_retnet"]

Model = TypeVar("Model", bound=nn.Module)

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "g_proj")  # our in_proj, in this order
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


def load_published(model: Model, state_dict: Mapping[str, Tensor], *, antialias: bool | None = None) -> Model:
    """Load a state dict with the key names of TSFmicro's and GAMDSS's published code into ``model``, strictly.

    The model is left untouched when anything does not fit; a ValueError lists the keys.

    Args:
        model: a :class:`TSFmicro` of any ``fusion``, or a :class:`TwoBranch` around one, with the published widths.
        state_dict: as saved by the published code (``torch.load(path, weights_only=True)``); a ``module.`` prefix from
            ``DataParallel`` is understood. Constants (``Relpos.angle``, ``Relpos.decay``) may be missing; a different
            decay is taken over, a different angle refused.
        antialias: how the weights were trained to see the onset frame: False for the published checkpoints and with
            torchvision before 0.17, True with newer ones, whose resize low-passes. None leaves the model as built.

    Examples:
        >>> load_published(TSFmicro(5), {})
        Traceback (most recent call last):
        ValueError: state_dict lacks 197 keys that TSFmicro(fusion='parallel') needs: main_branch.patch_embed.proj...

    Source: parameter names of the published code of TSFmicro (arXiv 2505.16372) and GAMDSS (arXiv 2603.04766).
    """
    net = model.net if isinstance(model, TwoBranch) else model
    if not isinstance(net, TSFmicro):
        raise TypeError(f"model must be a TSFmicro, or a TwoBranch around one, got {type(model).__name__}")
    if net.temporal.stem_stride != 2:
        raise ValueError(
            f"model must have a stem of stride 2, as the published TSFmicro has, got {net.temporal.stem_stride}: the "
            "weights have the same shapes and would compute something else"
        )
    if antialias is not None and net.structure == "early":
        raise ValueError("antialias must be None for fusion='early', which has no spatial branch")
    theirs = _their_weights(state_dict)
    name = f"TSFmicro(fusion={net.structure!r})"
    sources = {key: _published_names(key, net.structure) for key in net.state_dict()}
    _take_over(net, sources, theirs, "main_branch.", _UNUSED[net.structure], name)
    if antialias is not None:
        net.spatial.antialias = antialias
        vars(net).get("_arguments", {})["antialias"] = antialias  # what save_model writes
    return model


def load_rmt(model: ManhattanRetNet, state_dict: Mapping[str, Tensor], *, stem_stride: int = 4) -> ManhattanRetNet:
    """Load the ImageNet weights of RMT, in any of its sizes, from the official checkpoints.

    Three lines to a micro-expression model that starts from them::

        weights = torch.load("RMT-S.pth", weights_only=True)["model"]
        backbone = load_rmt(ManhattanRetNet.preset("rmt-s"), weights)
        model = TSFmicro(5, backbone=backbone)

    Args:
        model: a backbone of the checkpoint's size, ``ManhattanRetNet.preset("rmt-s")``; ``features_only`` as you like.
            It is left untouched when anything does not fit.
        state_dict: the official one (under ``"model"`` in the file). The classifier (``proj``, ``norm``, ``head``,
            ``aux_head``) is left out. Stages without layer scale get one of 1 where the model has it.
        stem_stride: RMT's stem has stride 4, TSFmicro's 2, with weights of the same shapes ``(o, i, ...)``. Weights for
            one compute something else in the other, which must be asked for: ``stem_stride=2`` says that you want that.

    Examples:
        >>> load_rmt(ManhattanRetNet(), {})
        Traceback (most recent call last):
        ValueError: model must have a stem of stride 4, got 2: build ManhattanRetNet.preset("rmt-s"), ...

    Source: Fan et al., "RMT: Retentive Networks Meet Vision Transformers", CVPR 2024; names of
    https://github.com/qhfan/RMT.
    """
    if not isinstance(model, ManhattanRetNet):
        raise TypeError(f"model must be a ManhattanRetNet, got {type(model).__name__}: for a TSFmicro, its backbone")
    if model.stem_stride != stem_stride:
        raise ValueError(
            f"model must have a stem of stride {stem_stride}, got {model.stem_stride}: build "
            'ManhattanRetNet.preset("rmt-s"), or say stem_stride=2 to start a finer stem from RMT\'s weights'
        )
    theirs = _their_weights(state_dict)
    scaled = {key.split(".")[1] for key in theirs if key.endswith(".gamma_1")}
    sources = {key: _backbone_names(key) for key in model.state_dict()}
    for name in (names[0] for names in sources.values()):
        stage = name.split(".")[1]
        if ".gamma_" in name and stage not in scaled:
            theirs[name] = torch.ones(1, 1, 1, model.dims[int(stage)])
    _take_over(model, sources, theirs, "", ("proj.", "norm.", "head.", "aux_head."), "ManhattanRetNet as it is built")
    return model


def _their_weights(state_dict: object) -> dict[str, Tensor]:
    """A state dict of others, without the prefix of ``DataParallel``."""
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
    return theirs


def _take_over(
    net: nn.Module,
    sources: Mapping[str, list[str]],
    theirs: Mapping[str, Tensor],
    prefix: str,
    unused: tuple[str, ...],
    name: str,
) -> None:
    """Load ``theirs`` into ``net``, whose keys come from ``sources``; all of it or nothing."""
    own = net.state_dict()
    constants = {key for key in own if key.endswith("log_decay")}
    missing = [src for key, names in sources.items() if key not in constants for src in names if src not in theirs]
    if missing and own.keys() == theirs.keys():
        raise ValueError("state_dict has mertools' own key names: use model.load_state_dict(state_dict)")
    if missing:
        raise ValueError(f"state_dict lacks {len(missing)} keys that {name} needs: {_shown(missing)}")
    known = {src for names in sources.values() for src in names}
    known |= {src.replace("Relpos.decay", "Relpos.angle") for src in known}
    unknown = [key for key in theirs if key not in known and not key.startswith(unused)]
    if unknown:
        raise ValueError(f"state_dict holds {len(unknown)} keys that {name} does not know: {_shown(unknown)}")
    new = {}
    for key, names in sources.items():
        if key in constants and names[0] not in theirs:
            new[key] = own[key]
            continue
        new[key] = _ours(key, {src: theirs[src] for src in names}, own[key])
    _check_angles(net, theirs, prefix)
    net.load_state_dict(new)


def load_torchscale(layer: Retention, state_dict: Mapping[str, Tensor], *, prefix: str = "") -> Retention:
    """Load the weights of a ``MultiScaleRetention`` of torchscale into ``layer``, which then computes what that does.

    Our ``in_proj`` is their ``q_proj``, ``k_proj``, ``v_proj`` and ``g_proj`` one above the other, ``out_proj`` keeps
    its name. Their decays are RetNet's (our default) and no part of their layer's weights. Outputs equal those of their
    recurrent form to rounding. Their parallel form divides large scores once more, which weighs with its epsilon: 1e-5.

    Args:
        layer: a layer with a gate, rotary positions and the widths of the weights.
        state_dict: weights of the layer, or of a whole model.
        prefix: where in the model the layer is, such as ``"decoder.layers.0.retention."``.

    Examples:
        >>> theirs = {f"{name}_proj.weight": torch.eye(8) for name in ("q", "k", "v", "g", "out")}
        >>> load_torchscale(Retention(8, 2), theirs).out_proj.weight.diagonal().sum().item()
        8.0

    Source: Sun et al., "Retentive Network", 2023; https://github.com/microsoft/torchscale (the names of the weights).
    """
    weights = _retention_weights(layer, state_dict, prefix)
    if not layer.rotary:
        raise ValueError("layer must have gate=True and rotary=True, as torchscale's retention has")
    _check_decays(layer, default_decay(layer.num_heads), "RetNet's, the default")
    _set_projections(layer, weights)
    return layer


def load_yet_another_retnet(layer: Retention, state_dict: Mapping[str, Tensor], *, prefix: str = "") -> Retention:
    """Load the weights of a ``MultiScaleRetention`` of yet-another-retnet into ``layer``, as far as they can be equal.

    Its group norm subtracts each head's mean, ours does not. The mean of a head's output is the output of its values'
    mean, so that the rows of ``v_proj`` come here less their mean over the head: an RMS of that is their group norm.
    What remains is the epsilon, which does not grow with the row sum of D there: 3e-6 of the output at their
    initialisation, more where a head's output is as small as a thousandth.

    Args:
        layer: a layer with a gate and their decays, ``Retention(d, n, decay=1 - 2 ** -torch.linspace(5, 9, n))``;
            ``rotary`` as their ``relative_position``.
        state_dict: weights of the layer, or of a whole model; biases must be 0, as this layer has none.
        prefix: where in the model the layer is.

    Examples:
        >>> theirs = {f"{name}_proj.weight": torch.eye(8) for name in ("q", "k", "v", "g", "out")}
        >>> layer = Retention(8, 2, rotary=False, decay=1 - 2 ** -torch.linspace(5, 9, 2))
        >>> load_yet_another_retnet(layer, theirs).in_proj.weight[16:20].sum(0).abs().max().item()
        0.0

    Source: https://github.com/fkodom/yet-another-retnet (the names of the weights).
    """
    biases = tuple(f"{name}.bias" for name in (*_PROJECTIONS, "out_proj"))
    weights = _retention_weights(layer, state_dict, prefix, (*biases, "thetas"))
    for name in biases:
        if name in weights and bool(weights[name].any()):
            raise ValueError(f"{prefix}{name} must be 0: mertools.Retention has no biases, so it can't be equal")
    if layer.rotary != ("thetas" in weights):
        raise ValueError(f"layer must have rotary={not layer.rotary}, as the weights have")
    if layer.rotary:
        angle = rotary_angles(layer.dim // layer.num_heads // 2).repeat_interleave(2)
        if weights["thetas"].shape != angle.shape or not torch.allclose(weights["thetas"].double(), angle, rtol=1e-4):
            raise ValueError(f"{prefix}thetas must be 1 / 10000^linspace(0, 1, d/2), each twice; got other angles")
    theirs = 1 - 2 ** -torch.linspace(5, 9, layer.num_heads, dtype=torch.float64)
    _check_decays(layer, theirs, "theirs: decay=1 - 2 ** -torch.linspace(5, 9, num_heads)")
    values = weights["v_proj.weight"].view(layer.num_heads, -1, layer.dim)
    weights["v_proj.weight"] = (values - values.mean(1, keepdim=True)).flatten(0, 1)
    _set_projections(layer, weights)
    return layer


def _retention_weights(
    layer: Retention, state_dict: object, prefix: str, optional: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    """The weights of one retention layer of others, checked to be there and to fit."""
    if not isinstance(layer, Retention):
        raise TypeError(f"layer must be a Retention, got {type(layer).__name__}")
    if not isinstance(state_dict, Mapping) or not all(isinstance(key, str) for key in state_dict):
        raise TypeError(f"state_dict must map names to tensors, got {type(state_dict).__name__}")
    if not layer.gate:
        raise ValueError("layer must have gate=True, as the weights have")
    theirs = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    wanted = [f"{name}.weight" for name in (*_PROJECTIONS, "out_proj")]
    missing, unknown = (
        [key for key in wanted if key not in theirs],
        [key for key in theirs if key not in (*wanted, *optional)],
    )
    if missing or unknown:
        raise ValueError(
            f"state_dict must have just {', '.join(wanted)} under the prefix {prefix!r}: "
            f"missing {missing or 'none'}, not known {unknown or 'none'}"
        )
    for key, value in theirs.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{prefix}{key} must be a floating tensor, got {kind}")
    shapes = [(width, layer.dim) for width in layer.widths] + [(layer.dim, layer.value_dim)]
    for key, shape in zip(wanted, shapes, strict=True):
        if tuple(theirs[key].shape) != shape:
            raise ValueError(
                f"{prefix}{key} must be {shape} for this layer, got {tuple(theirs[key].shape)}: "
                "build it with the weights' dim and value_dim"
            )
    return theirs


def _check_decays(layer: Retention, gamma: Tensor, which: str) -> None:
    if layer.log_decay is None or not torch.allclose(layer.log_decay.exp().double().cpu(), gamma.cpu(), atol=1e-6):
        raise ValueError(f"layer must have the decays of the weights, which are {which}; got decay={layer.decay}")


def _set_projections(layer: Retention, weights: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        layer.in_proj.weight.copy_(torch.cat([weights[f"{name}.weight"] for name in _PROJECTIONS]))
        layer.out_proj.weight.copy_(weights["out_proj.weight"])


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
    if rest.startswith("stem.") and structure == "early":
        return [f"ConvStem_S.proj.{rest.removeprefix('stem.')}"]
    return [f"main_branch.{name}" for name in _backbone_names(rest)]


def _backbone_names(rest: str) -> list[str]:
    """Where a parameter of the backbone is found in RMT's names, which TSFmicro's are with a prefix."""
    if rest.startswith("stem."):
        return [f"patch_embed.proj.{rest.removeprefix('stem.').removeprefix('stride4.')}"]
    stage, kind, tail = rest.removeprefix("stages.").split(".", 2)
    prefix = f"layers.{stage}"
    if kind == "downsample":
        return [f"{prefix}.downsample." + tail.replace("0.", "reduction.", 1).replace("1.", "norm.", 1)]
    block, part = tail.split(".", 1)
    prefix_block = f"{prefix}.blocks.{block}"
    if part.endswith("_scale"):
        return [f"{prefix_block}.{'gamma_1' if part == 'retention_scale' else 'gamma_2'}"]
    part, leaf = part.split(".", 1)
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
    elif key.endswith("_scale"):
        shape = (1, 1, 1, *shape)
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
    return (value.mT if key.endswith("pos_embed") else value).reshape(like.shape)


def _check_angles(net: nn.Module, theirs: Mapping[str, Tensor], prefix: str) -> None:
    for name, module in net.named_modules():
        if not isinstance(module, ManhattanRetention):
            continue
        key = f"{prefix}layers.{name.split('stages.')[1].partition('.')[0]}.Relpos.angle"
        angle = rotary_angles(module.dim // module.num_heads // 2).repeat_interleave(2)
        if key in theirs and (
            theirs[key].shape != angle.shape or not torch.allclose(theirs[key].to(angle), angle, rtol=1e-4)
        ):
            raise ValueError(f"{key} must be 1 / 10000^linspace(0, 1, d/2), each twice; got other rotary angles")


def _shown(keys: list[str]) -> str:
    return ", ".join(keys[:6]) + (", ..." if len(keys) > 6 else "")
