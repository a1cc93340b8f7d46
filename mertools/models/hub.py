"""A model in a folder: its weights as safetensors and the arguments that build it, as the Hugging Face hub has them.

``config.json`` holds the constructor's arguments, ``model.safetensors`` the state dict. Nothing in either can run code:
a folder from somebody else is read as numbers and names, and a class is looked up among this library's own, never
imported by a path. ``PyTorchModelHubMixin`` of huggingface_hub reads and writes the same two files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from mertools._files import atomic_write, json_object, reading
from mertools.action_units.head import AUHead
from mertools.layers.fusion import ParallelFusion
from mertools.layers.pooling import FramePool
from mertools.layers.spatial import SpatialTransformer
from mertools.models.tsfmicro import TSFmicro
from mertools.models.two_branch import TwoBranch
from mertools.retention.backbone import ManhattanRetNet
from mertools.retention.layer import Retention
from mertools.retention.manhattan import ManhattanRetention
from mertools.retention.temporal import RetNetTemporal

__all__ = ["load_model", "save_model"]

Model = TypeVar("Model", bound=nn.Module)

_CLASSES: dict[str, type[nn.Module]] = {
    cls.__name__: cls
    for cls in (
        AUHead, FramePool, ManhattanRetNet, ManhattanRetention, ParallelFusion, RetNetTemporal, Retention,
        SpatialTransformer, TSFmicro, TwoBranch,
    )
}  # fmt: skip
_LARGEST, _MODULES = 1 << 20, 10_000
_CLASS, _CONFIG, _WEIGHTS = "class", "config.json", "model.safetensors"
_NEXT = ".config.json.next"  # while a model is being saved


def save_model(model: nn.Module, folder: str | os.PathLike[str], config: Mapping[str, Any]) -> Path:
    """Write a model's weights and the arguments that build it.

    The config is tried first: a model is built from it, and must have the same parts, settings, and names and shapes of
    weights as the one given. A forgotten ``num_heads=`` is an error now, not other numbers later.

    Args:
        model: the model; no code of it is saved, so its class must be at hand when it is loaded.
        folder: made if it is not there; a model in it is replaced.
        config: the constructor's arguments by name, of types that JSON knows. A part that is a module, such as
            ``net`` of :class:`TwoBranch` or ``stem`` of :class:`RetNetTemporal`, is written as its own config with
            its class: ``{"net": {"class": "TSFmicro", "num_classes": 5}}``.

    Returns:
        The folder.

    Raises:
        ImportError: safetensors is missing.
        TypeError: config is no mapping by name, or holds what JSON can't.
        ValueError: the config builds another model than this one; the message names the first difference.

    Examples:
        >>> import tempfile
        >>> config = {"in_features": 8, "num_aus": 5}
        >>> folder = save_model(AUHead(**config), tempfile.mkdtemp(), config)
        >>> sorted(path.name for path in folder.iterdir())
        ['config.json', 'model.safetensors']

    Source: the layout of ``PyTorchModelHubMixin``, https://huggingface.co/docs/huggingface_hub.
    """
    safetensors = _safetensors("save_model")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    if not isinstance(config, Mapping) or not all(isinstance(key, str) for key in config):
        raise TypeError(f"config must be a mapping of the constructor's arguments by name, got {config!r}")
    try:
        text = json.dumps({**config, _CLASS: type(model).__name__}, indent=2)
    except TypeError as error:
        raise TypeError(f"config must hold what JSON can write: {error}") from error
    difference = _difference(model, _build(type(model), json.loads(text)))
    if difference:
        raise ValueError(f"config must build the model that is saved, but {difference}: complete the config")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    data = safetensors.save(weights, metadata={"format": "pt"})
    # Two files can't be replaced at once. Until both are, the new config lies beside them with a digest of the weights
    # that it is for, so that whoever reads them after a kill does not build the old model around the new weights.
    atomic_write(target / _NEXT, json.dumps({"weights": _digest(data), "config": text}).encode())
    atomic_write(target / _WEIGHTS, data)
    atomic_write(target / _CONFIG, text.encode())
    (target / _NEXT).unlink()
    return target


@overload
def load_model(folder: str | os.PathLike[str]) -> nn.Module: ...


@overload
def load_model(folder: str | os.PathLike[str], model_class: type[Model]) -> Model: ...


def load_model(folder: str | os.PathLike[str], model_class: type[nn.Module] | None = None) -> nn.Module:
    """Build the model of a folder and load its weights, strictly; it is on the CPU and in evaluation.

    Args:
        folder: what :func:`save_model` wrote, or ``save_pretrained`` of a class with ``PyTorchModelHubMixin``.
        model_class: the model's class. Default: the one of this library that the config names.

    Returns:
        The model, in the dtype that its weights were saved in.

    Raises:
        ImportError: safetensors is missing.
        FileNotFoundError: the folder has no ``config.json`` or no ``model.safetensors``.
        ValueError: the config names no class of this library or another one than ``model_class``, does not fit the
            constructor, or the weights do not fit the model.

    Examples:
        >>> import tempfile
        >>> folder = save_model(AUHead(8, 5), tempfile.mkdtemp(), {"in_features": 8, "num_aus": 5})
        >>> load_model(folder)(torch.zeros(2, 8)).shape
        torch.Size([2, 5])

    Source: as for :func:`save_model`.
    """
    safetensors = _safetensors("load_model")
    path = Path(folder)
    for name in (_CONFIG, _WEIGHTS):
        if not (path / name).is_file() and not (name == _CONFIG and (path / _NEXT).is_file()):
            raise FileNotFoundError(f"{path} holds no {name}: is it a folder that save_model wrote?")
    try:
        config = json_object(_config_of_weights(path), path / _CONFIG)
    except ValueError as error:
        raise ValueError(
            f"{path / _CONFIG} is no JSON object, it must hold the constructor's arguments by name: {error}"
        ) from None
    try:
        weights = safetensors.load_file(path / _WEIGHTS)
    except Exception as error:  # safetensors raises its own type, which is a bare Exception
        raise ValueError(f"{path / _WEIGHTS} can't be read: {error}") from error
    try:
        if model_class is None:  # the config decides: without memory first, it may ask for more than there is
            _check_sizes(config)
            with torch.device("meta"), _counted_modules():
                _check_fit(_build(None, config), weights, path / _WEIGHTS)
        model = _build(model_class, config)
    except ValueError as error:
        raise ValueError(f"{path / _CONFIG}: {error}") from error.__cause__
    _check_fit(model, weights, path / _WEIGHTS)
    model.load_state_dict(weights, assign=True)
    return model.eval()


def _check_fit(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    wrong = [
        name
        for name in own.keys() & weights.keys()
        if own[name].shape != weights[name].shape
        or own[name].is_floating_point() != weights[name].is_floating_point()
        or weights[name].is_complex()
    ]
    if missing or unknown or wrong:
        raise ValueError(
            f"{path} does not fit {type(model).__name__} as {_CONFIG} builds it: missing "
            f"{missing[:3] or 'none'}, not known {unknown[:3] or 'none'}, "
            f"of another shape {wrong[:3] or 'none'} or kind of number"
        )


def _check_sizes(value: object) -> None:
    if isinstance(value, (int, float)) and not abs(value) <= _LARGEST:
        raise ValueError(f"config holds {str(value)[:20]}, sizes of a model of this library are at most {_LARGEST}")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_sizes(part)


@contextlib.contextmanager
def _counted_modules() -> Iterator[None]:
    """Stop a constructor that a hostile depth keeps busy."""
    count = 0

    def add(*_: object) -> None:
        nonlocal count
        count += 1
        if count > _MODULES:
            raise ValueError(f"it builds more than {_MODULES} modules")

    handle = register_module_module_registration_hook(add)
    try:
        yield
    finally:
        handle.remove()


def _config_of_weights(folder: Path) -> bytes:
    """The config that belongs to the weights: the one beside them, or the next if a kill came between the two."""
    with reading(folder):
        if (folder / _NEXT).is_file():
            waiting = json_object((folder / _NEXT).read_bytes(), folder / _NEXT)
            if waiting.get("weights") == _digest((folder / _WEIGHTS).read_bytes()):
                return str(waiting.get("config")).encode()
        return (folder / _CONFIG).read_bytes()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _build(model_class: type[nn.Module] | None, config: Mapping[str, Any]) -> nn.Module:
    """The model that a config describes, with new weights; the random state is left as it was."""
    arguments = {name: value for name, value in config.items() if name != _CLASS}
    named = config.get(_CLASS)
    if model_class is None:
        if not isinstance(named, str) or named not in _CLASSES:
            raise ValueError(
                f"config names the class {named!r}, which is none of {', '.join(_CLASSES)}: pass model_class="
            )
        model_class = _CLASSES[named]
    elif named not in (None, model_class.__name__):
        raise ValueError(f"config is that of a {named}, not of {model_class.__name__}")
    for name, value in arguments.items():
        if isinstance(value, dict) and _CLASS in value:
            arguments[name] = _build(None, value)
    try:
        with torch.random.fork_rng(devices=[]):
            return model_class(**arguments)
    except Exception as error:  # a config from somebody else holds anything, and constructors stumble in any way
        raise ValueError(f"config does not fit {model_class.__name__}: {error}") from error


def _difference(model: nn.Module, built: nn.Module) -> str:
    """The first thing in which two models differ, weights' values aside; empty when there is none."""
    ours, theirs = dict(model.named_modules()), dict(built.named_modules())
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        place = name or type(model).__name__
        if name not in ours or name not in theirs:
            return f"{place} is only in the {'model' if name in ours else 'one that it builds'}"
        if type(ours[name]) is not type(theirs[name]):
            return f"{place} is {type(ours[name]).__name__}, not {type(theirs[name]).__name__}"
        settings, others = _settings(ours[name]), _settings(theirs[name])
        for key in sorted(settings.keys() | others.keys()):
            if settings.get(key) != others.get(key):
                return f"{place}.{key} is {settings.get(key)!r}, not {others.get(key)!r}"
    weights, others = model.state_dict(), built.state_dict()
    for name in [*weights, *(name for name in others if name not in weights)]:
        shapes = [tuple(state[name].shape) if name in state else None for state in (weights, others)]
        if shapes[0] != shapes[1]:
            return f"{name} is {shapes[0]}, not {shapes[1]}"
    return ""


def _settings(module: nn.Module) -> dict[str, Any]:
    """What a module was told at its construction, as far as plain values tell."""
    return {
        key: list(value) if isinstance(value, tuple) else value  # JSON knows no tuples
        for key, value in vars(module).items()
        if not key.startswith("_") and key != "training" and _is_plain(value)
    }


def _is_plain(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _safetensors(caller: str) -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(f"{caller} needs safetensors: pip install 'mertools[hub]'") from error
    return safetensors.torch
