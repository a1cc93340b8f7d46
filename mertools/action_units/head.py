"""The auxiliary AU head of AU-DFER, and how to give one to a model without touching its code.

``attach_au_head(model, "fc")`` taps what the named layer is fed, sends it through a second linear head, and returns a
module whose forward gives ``(what the model returned, au_logits)``. The model itself is not rewritten: its parameters,
names and checkpoints stay what they were, and ``detach_au_head`` returns the original model.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from threading import get_ident
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from mertools._checks import check_count, check_floating
from mertools.action_units.prior import ACTION_UNITS
from mertools.layers.arguments import records_arguments

__all__ = ["AUHead", "attach_au_head", "detach_au_head"]

TapPoint: TypeAlias = Literal["input", "output"] | Callable[[tuple[Any, ...], Any], Tensor]


@records_arguments
class AUHead(nn.Module):
    """The second linear head of AU-DFER: AU logits ``(..., a)`` from features ``(..., d)``, used in training only.

    Args:
        in_features: width of the features the classifier sees.
        num_aus: number of action units.
        device: where to create the parameters.
        dtype: their type.

    Examples:
        >>> AUHead(512)(torch.zeros(2, 512)).shape
        torch.Size([2, 18])

    Source: AU-DFER (arXiv 2507.07678).
    """

    def __init__(
        self,
        in_features: int,
        num_aus: int = len(ACTION_UNITS),
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        in_features, num_aus = check_count("in_features", in_features), check_count("num_aus", num_aus)
        self.linear = nn.Linear(in_features, num_aus, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw new weights."""
        self.linear.reset_parameters()

    def forward(self, features: Tensor) -> Tensor:
        """Action-unit logits of ``features``."""
        width = self.linear.in_features
        check_floating("features", features, f"(..., {width})")
        if features.ndim == 0 or features.shape[-1] != width:
            hint = f": build the head with AUHead(in_features={features.shape[-1]})" if features.ndim else ""
            raise ValueError(f"features must be (..., {width}), got shape {tuple(features.shape)}{hint}")
        logits: Tensor = self.linear(features)
        return logits


def attach_au_head(
    model: nn.Module,
    layer: str | nn.Module | None = None,
    *,
    tap: TapPoint = "input",
    num_aus: int = len(ACTION_UNITS),
    in_features: int | None = None,
) -> nn.Module:
    """Give any model an AU head beside its classifier.

    Returns a module whose forward gives ``(output of the model, au_logits)``, in training and evaluation: features
    ``(..., d)`` to AU logits ``(..., a)``; for a convolution, ``(b, d, ...)`` is averaged over its positions. Its state
    dict is the host's, names unchanged, plus ``au_head.*``; it also loads the host's own checkpoints strictly and keeps
    its head as it is then. Attributes of the host can be reached through it.

    Args:
        model: the host. Its forward must run ``layer`` exactly once. A network that another one runs several times gets
            its head first: ``TwoBranch(attach_au_head(net, "fc"))``.
        layer: where the features are, by name (``"fc"``, ``"head.fc"``) or as a module; None asks timm's models. With
            ``tap="input"`` it is the classifier: a Linear, a 1×1 convolution, or a Sequential that begins with one
            (after norms, activations, dropout).
        tap: ``"input"``, the head shares what the layer is fed; ``"output"``, it shares what the layer gives, for a
            host that compares features without a layer (cosines with text, as in DFER-CLIP); or a callable
            ``(inputs, output) -> features`` of the layer's positional inputs and its output.
        num_aus: number of action units.
        in_features: width of the features, where it can't be read off the layer; always with a callable.

    Examples:
        >>> host = nn.Sequential()
        >>> host.add_module("body", nn.Linear(5, 8))
        >>> host.add_module("fc", nn.Linear(8, 7))
        >>> model = attach_au_head(host, "fc")  # or attach_au_head(host, "body", tap="output")
        >>> logits, au_logits = model(torch.zeros(2, 5))
        >>> logits.shape, au_logits.shape
        (torch.Size([2, 7]), torch.Size([2, 18]))

    Source: AU-DFER (arXiv 2507.07678): a second linear head beside the classifier of three existing models.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    if any(isinstance(module, WithAUHead) for module in model.modules()):
        raise ValueError("model has an AU head already: detach_au_head(model) first")
    if tap not in ("input", "output") and not callable(tap):
        raise TypeError(f"tap must be 'input', 'output' or a callable (inputs, output) -> features, got {tap!r}")
    target = _find_layer(model, _classifier(model) if layer is None else layer)
    width, channels_first = _feature_width(target, tap)
    in_features = width if in_features is None else in_features
    if in_features is None:
        side = f"of its {tap}" if isinstance(tap, str) else "that the callable makes of it"
        raise ValueError(
            f"layer {_describe(model, target)} does not tell the width {side}: pass in_features=, or name the "
            "linear layer or 1x1 convolution that classifies"
        )
    like = next(target.parameters(), None)
    head = AUHead(in_features, num_aus)
    if like is not None and like.is_floating_point():
        head = head.to(like.device, like.dtype)
    return WithAUHead(model, target, head.train(model.training), tap, channels_first)


def detach_au_head(model: nn.Module) -> nn.Module:
    """Take the AU head off again: the original model, nothing left behind.

    ``model`` is what ``attach_au_head`` returned, also inside ``DistributedDataParallel`` or ``torch.compile``.

    Examples:
        >>> host = nn.Sequential(nn.Linear(5, 7))
        >>> detach_au_head(attach_au_head(host, "0"))(torch.zeros(2, 5)).shape
        torch.Size([2, 7])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    found = next((module for module in model.modules() if isinstance(module, WithAUHead)), None)
    if found is None:
        raise ValueError(f"model must be what attach_au_head returned, got {type(model).__name__} without an AU head")
    return found.release()


class _Tap:
    """Remembers a layer's features while its owner's forward runs, and whether with gradient; per thread."""

    def __init__(self, point: TapPoint) -> None:
        self.point = point
        self.caught: dict[int, list[tuple[Any, bool]]] = {}

    def hook(self, layer: nn.Module) -> Any:
        if self.point == "input":
            return layer.register_forward_pre_hook(self)
        return layer.register_forward_hook(self)

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any = None) -> None:
        caught = self.caught.get(_thread())
        if caught is None or (self.point == "input" and not inputs):
            return
        if callable(self.point):
            features: Any = self.point(inputs, output)
        else:
            features = inputs[0] if self.point == "input" else output
        caught.append((features, torch.is_grad_enabled()))

    def __deepcopy__(self, memo: dict[int, Any]) -> _Tap:
        memo[id(self)] = tap = _Tap(self.point)
        return tap

    def __reduce__(self) -> tuple[type[_Tap], tuple[TapPoint]]:
        return _Tap, (self.point,)


def _thread() -> int:
    return 0 if torch.compiler.is_compiling() else get_ident()  # a graph is traced by one thread


class WithAUHead(nn.Module):
    """A host model with an AU head. Its state dict has the host's names, not prefixed ones."""

    def __init__(self, host: nn.Module, layer: nn.Module, head: AUHead, point: TapPoint, channels_first: bool) -> None:
        super().__init__()
        self.host = host
        self.au_head = head
        self.channels_first = channels_first
        self.tap = _Tap(point)
        self.handle = self.tap.hook(layer)
        self.training = host.training
        register: Any = self.register_state_dict_post_hook  # PyTorch gives it no types
        register(_without_prefix)

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Any, Tensor]:
        thread = _thread()
        caught: list[tuple[Any, bool]] = []
        self.tap.caught[thread] = caught
        try:
            output = self.host(*args, **kwargs)
        finally:
            # Closed, so that a checkpoint's recomputation in the backward leaves nothing behind.
            del self.tap.caught[thread]
        if len(caught) != 1:
            times = "not called" if not caught else f"called {len(caught)} times"
            hint = "attach the head to the layer that classifies, or use AUHead by hand"
            if caught:
                hint = (
                    "give a network its head before what runs it several times, TwoBranch(attach_au_head(net, layer))"
                )
            raise RuntimeError(f"the layer of the AU head was {times} in this forward, once is needed: {hint}")
        features, with_grad = caught[0]
        if not isinstance(features, Tensor):
            raise TypeError(
                f"the tap must give a tensor of features, got {type(features).__name__}: pick one with "
                "tap=lambda inputs, output: output[0], say, and in_features="
            )
        if torch.is_grad_enabled() and not with_grad:
            raise RuntimeError(
                "the layer of the AU head runs under a reentrant checkpoint or no_grad, which would cut the AU loss "
                "off from the model: use torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
            )
        if self.channels_first:
            features = features.flatten(2).mean(2) if features.ndim > 2 else features
        return output, self.au_head(features)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("host"), name)

    def release(self) -> nn.Module:
        self.handle.remove()
        return self.host

    def _fqn_modifiers(self) -> dict[str, str]:
        """For torch.distributed.checkpoint: what has these names in the state dict is a part of the host."""
        return dict.fromkeys([*self.host._modules, *self.host._parameters, *self.host._buffers], "host")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take the host's names; a checkpoint of the host alone leaves the head as it is.

        Those of ``named_parameters`` are understood, too: an average of weights is loaded by them.
        """
        head, names = f"{prefix}au_head.", self.host.state_dict(keep_vars=True).keys()
        for key in [key for key in state_dict if key.startswith(prefix) and not key.startswith(head)]:
            name = key[len(prefix) :]
            if name in names or name.removeprefix("host.") not in names:
                state_dict[f"{prefix}host.{name}"] = state_dict.pop(key)
        if not any(key.startswith(head) for key in state_dict):
            state_dict.update(self.au_head.state_dict(prefix=head))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _without_prefix(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    """State dict hook: ``host.fc.weight`` is written as ``fc.weight``."""
    for key in [key for key in state if key.startswith(f"{prefix}host.")]:
        state[prefix + key[len(prefix) + len("host.") :]] = state.pop(key)


def _classifier(model: nn.Module) -> nn.Module:
    """What a model says classifies, as timm's and those made after them do."""
    ask = getattr(model, "get_classifier", None)
    found = ask() if callable(ask) else None
    if not isinstance(found, nn.Module) or isinstance(found, nn.Identity):
        raise ValueError(
            f"layer must be given for a {type(model).__name__}, by name such as 'fc': only models with timm's "
            "get_classifier() tell which one classifies"
        )
    return found


def _find_layer(model: nn.Module, layer: str | nn.Module) -> nn.Module:
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if isinstance(layer, nn.Module):
        if not any(module is layer for module in modules.values()):
            raise ValueError(
                f"layer must be a part of model, this {type(layer).__name__} is not: pass model.fc or 'fc'"
            )
        return layer
    if not isinstance(layer, str):
        raise TypeError(f"layer must be the name of a layer or the layer itself, got {type(layer).__name__}")
    if layer not in modules or layer == "":
        names = [name for name in modules if name]
        near = difflib.get_close_matches(layer, names, n=3, cutoff=0.4)
        near += [name for name in names if name.split(".")[-1] == layer.split(".")[-1] and name not in near]
        shown = f"did you mean {', '.join(map(repr, near[:4]))}?" if near else f"the last ones are {names[-3:]}"
        raise ValueError(f"layer must be the name of a layer of model, got {layer!r}: {shown}")
    return modules[layer]


def _first_weighted(layer: nn.Module) -> nn.Module | None:
    """The first module inside that has weights of its own, norms aside."""
    passed = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    for module in layer.modules():
        if next(module.parameters(recurse=False), None) is not None and not isinstance(module, passed):
            return module
    return None


def _feature_width(layer: nn.Module, tap: TapPoint) -> tuple[int | None, bool]:
    """Width of the features where the layer tells it, and whether their channels come second."""
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    if tap == "input":
        module = _first_weighted(layer)
        if isinstance(module, nn.Linear):
            return module.in_features, False
        if isinstance(module, convolutions):
            return (module.in_channels if all(size == 1 for size in module.kernel_size) else None), True
        return None, False
    if tap != "output" or (next(layer.children(), None) is not None and not isinstance(layer, nn.Sequential)):
        return None, False  # the order of children need not be that of the forward
    for module in reversed(list(layer.modules())):
        if isinstance(module, nn.Linear):
            return module.out_features, False
        if isinstance(module, convolutions):
            return module.out_channels, True
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            return module.num_features, True
        if isinstance(module, nn.LayerNorm):
            return module.normalized_shape[-1], False
        if next(module.parameters(recurse=False), None) is not None:
            break
    return None, False


def _describe(model: nn.Module, layer: nn.Module) -> str:
    name = next((name for name, module in model.named_modules() if module is layer), "")
    return f"{name!r} ({type(layer).__name__})"
