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
from mertools.layers.arguments import CLASS, RECORDED, recorded_arguments

__all__ = ["load_model", "save_model"]

Model = TypeVar("Model", bound=nn.Module)

_LARGEST, _MODULES = 1 << 20, 10_000
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_NEXT = ".config.json.next"  # while a model is being saved


def save_model(model: nn.Module, folder: str | os.PathLike[str], config: Mapping[str, Any] | None = None) -> Path:
    """Write a model's weights, and the arguments that build it: :func:`load_model` needs nothing else.

    The modules of this library remember what they were built with. Tied weights are written once.

    Args:
        model: the model; no code of it is saved, so its class must be at hand when it is loaded.
        folder: made if it is not there, and returned; a model in it is replaced.
        config: the constructor's arguments by name, for a class of yours. One with ``PyTorchModelHubMixin`` remembers
            them itself.

    Examples:
        >>> import tempfile
        >>> from mertools import AUHead
        >>> folder = save_model(AUHead(8, num_aus=5), tempfile.mkdtemp())
        >>> load_model(folder)(torch.zeros(2, 8)).shape
        torch.Size([2, 5])
    """
    safetensors = _safetensors("save_model")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    text = json.dumps(_config_of(model, config), indent=2)
    weights = _untied(model)
    try:
        with torch.device("meta") if type(model) in RECORDED.values() else contextlib.nullcontext():
            _check_fit(_build(type(model), json.loads(text)), weights, _WEIGHTS)
    except ValueError as error:
        raise ValueError(f"the arguments of {type(model).__name__} build another model: {error}") from error
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    # Memory of its own for each: safetensors refuses tensors that share theirs.
    data = safetensors.save(
        {name: value.detach().cpu().clone().contiguous() for name, value in weights.items()}, metadata={"format": "pt"}
    )
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

    It has the type that its weights were saved in. A ValueError where the config or the weights do not fit.

    Args:
        folder: what :func:`save_model` wrote, or ``save_pretrained`` of a class with ``PyTorchModelHubMixin``.
        model_class: the model's class. Default: the one of this library that the config names.

    Examples:
        >>> import tempfile
        >>> from mertools import AUHead
        >>> load_model(save_model(AUHead(8), tempfile.mkdtemp()), AUHead).linear.in_features
        8
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
    _load(model, weights)
    return model.eval()


def _config_of(model: nn.Module, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments that build a model: those it recorded, its hub mixin's, or those that were given."""
    name = type(model).__name__
    if given is not None and (not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given)):
        raise TypeError(f"config must be a mapping of the constructor's arguments by name, got {given!r}")
    recorded = recorded_arguments(model)
    if recorded is None:
        given = getattr(model, "_hub_mixin_config", None) if given is None else given
        if given is None:
            raise TypeError(
                f"the arguments that built this {name} are not known: pass them, save_model(model, folder, "
                f"{{...}}), or derive {name} from huggingface_hub.PyTorchModelHubMixin"
            )
        recorded, given = {**given, CLASS: name}, None
    try:
        plain: dict[str, Any] = json.loads(json.dumps(recorded))
        for key, value in {} if given is None else json.loads(json.dumps(dict(given))).items():
            if plain.get(key) != value and not isinstance(value, dict):
                raise ValueError(f"{name} was built with {key}={plain.get(key)!r}, config has {value!r}")
    except TypeError as error:
        raise TypeError(f"config must hold what JSON can write: {error}") from error
    return plain


def _untied(model: nn.Module) -> dict[str, Tensor]:
    """The state dict, a tied weight under the first of its names only, as the hub's mixin writes it."""
    tied = {name for names in _tied(model) for name in names[1:]}
    return {name: value for name, value in model.state_dict().items() if name not in tied}


def _tied(model: nn.Module) -> list[list[str]]:
    """Names of parameters that are one and the same."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [same for same in names.values() if len(same) > 1]


def _load(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Weights in the type they were saved in; what the model ties stays tied, whatever name it was saved under."""
    weights = dict(weights)
    for names in _tied(model):
        first = next(name for name in names if name in weights)
        shared = nn.Parameter(weights[first], model.get_parameter(first).requires_grad)
        weights |= dict.fromkeys(names, shared)
    model.load_state_dict(weights, assign=True)


def _check_fit(model: nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> None:
    own = model.state_dict()
    twice = {name for names in _tied(model) if any(name in weights for name in names) for name in names}
    missing, unknown = sorted(own.keys() - weights.keys() - twice), sorted(weights.keys() - own.keys())
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
            f"of another shape {sorted(wrong)[:3] or 'none'} or kind of number"
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
    arguments = {name: value for name, value in config.items() if name != CLASS}
    named = config.get(CLASS)
    if model_class is None:
        if not isinstance(named, str) or named not in RECORDED:
            raise ValueError(
                f"config names the class {named!r}, which is none of {', '.join(sorted(RECORDED))}: pass model_class="
            )
        model_class = RECORDED[named]
    elif named not in (None, model_class.__name__):
        raise ValueError(f"config is that of a {named}, not of {model_class.__name__}")
    for name, value in arguments.items():
        if isinstance(value, dict) and CLASS in value:
            arguments[name] = _build(None, value)
    try:
        with torch.random.fork_rng(devices=[]):
            return model_class(**arguments)
    except Exception as error:  # a config from somebody else holds anything, and constructors stumble in any way
        raise ValueError(f"config does not fit {model_class.__name__}: {error}") from error


def _safetensors(caller: str) -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(f"{caller} needs safetensors: pip install 'mertools[hub]'") from error
    return safetensors.torch
