"""Checkpoints and weights that survive what happens to long runs: written atomically, read without running any code.

A checkpoint is a plain mapping of state dicts, numbers and names. The random state of PyTorch, NumPy and Python goes
along, so that a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import io
import os
import pickle
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mertools._files import atomic_write, reading

__all__ = ["load_checkpoint", "load_weights", "save_checkpoint", "save_weights"]

_RANDOM = "random_state"


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write the state of a run and the random state to ``path``; the last one is replaced when the new one is whole.

    ``state`` holds state dicts, tensors, numbers, strings, and lists and dicts of them; a TypeError where it holds
    something that could not be read back without running code.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "checkpoint.pt"
        >>> save_checkpoint(path, {"model": torch.nn.Linear(2, 3).state_dict(), "epoch": 7})
        >>> before = torch.rand(1)
        >>> state = load_checkpoint(path)
        >>> state["epoch"], torch.equal(torch.rand(1), before)
        (7, True)
    """
    data = _pack({**state, _RANDOM: _random_state()})
    try:
        # What can't be read back safely must fail now, not when the run is to be resumed.
        torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TypeError(f"state must hold tensors, numbers, strings, lists and dicts only: {error}") from None
    atomic_write(Path(path), data)


def load_checkpoint(
    path: str | os.PathLike[str], *, map_location: str | torch.device = "cpu", restore_random: bool = True
) -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote, and set the random state to what it was then.

    Args:
        path: the file. Nothing in it is run: it is read with ``weights_only=True``. A ValueError says that it is
            damaged or no checkpoint; the random generators are then as they were before.
        map_location: device of the tensors.
        restore_random: False leaves the random generators alone.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "checkpoint.pt"
        >>> save_checkpoint(path, {"epoch": 7, "best": 0.5})
        >>> load_checkpoint(path)
        {'epoch': 7, 'best': 0.5}
    """
    state = _unpack(_bytes(path), path, map_location)
    if not isinstance(state, dict) or _RANDOM not in state:
        raise ValueError(f"{path} is not a checkpoint of save_checkpoint: weights are read with load_weights")
    drawn = state.pop(_RANDOM)
    if restore_random:
        before = _random_state()
        try:
            _set_random_state(drawn)
        except Exception as error:  # whatever PyTorch, NumPy and Python make of a damaged state
            _set_random_state(before)
            raise ValueError(
                f"{path} holds a random state that can't be set ({type(error).__name__}): read it with "
                "restore_random=False"
            ) from None
    return state


def save_weights(path: str | os.PathLike[str], model: torch.nn.Module) -> None:
    """Write a ``model``'s ``state_dict`` to ``path``, all of it or nothing, from whatever device.

    As safetensors (extra ``train``) where the name ends so, else by ``torch.save``.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.pt"
        >>> save_weights(path, torch.nn.Linear(2, 3))
        >>> sorted(load_weights(path))
        ['bias', 'weight']
    """
    path = Path(path)
    weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    if path.suffix == ".safetensors":
        # Its own memory for each: safetensors refuses tensors that share theirs.
        data = _safetensors().save({name: value.clone().contiguous() for name, value in weights.items()})
    else:
        data = _pack(weights)
    atomic_write(path, data)


def load_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read what :func:`save_weights`, safetensors, or ``torch.save(model.state_dict(), path)`` wrote; nothing is run.

    Tensors ``(...)`` by name, as they were saved, on the CPU. A ValueError where ``path`` is damaged or holds something
    else than weights.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.pt"
        >>> save_weights(path, torch.nn.Linear(2, 3))
        >>> load_weights(path)["weight"].shape
        torch.Size([3, 2])
    """
    data = _bytes(path)
    if Path(path).suffix == ".safetensors":
        module = _safetensors()
        try:
            return dict(module.load(data))
        except Exception as error:  # safetensors has an error type of its own, made in Rust
            raise ValueError(f"{path} can't be read as safetensors, it may be damaged: {error}") from None
    weights = _unpack(data, path, "cpu")
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()
    ):
        raise ValueError(f"{path} must hold the weights of a model, it holds {type(weights).__name__} of other things")
    return weights


def _pack(state: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def _bytes(path: str | os.PathLike[str]) -> bytes:
    """The file, read by ourselves: PyTorch takes a disk that fails for a damaged file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with reading(path):
        return Path(path).read_bytes()


def _unpack(data: bytes, path: str | os.PathLike[str], map_location: str | torch.device) -> Any:
    file = io.BytesIO(data)
    try:
        if zipfile.is_zipfile(file):
            # PyTorch compresses nothing, and a megabyte of compressed parts can unfold to a gigabyte.
            for part in zipfile.ZipFile(file).infolist():
                if part.compress_type != zipfile.ZIP_STORED or part.file_size != part.compress_size:
                    raise ValueError(f"its part {part.filename!r} is compressed, which torch.save never does")
        file.seek(0)
        return torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:  # a damaged file brings up whatever the unpickler stumbles over
        raise ValueError(f"{path} can't be read, damaged or more than plain values: {error}") from None


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            "safetensors is needed for .safetensors files: pip install 'mertools[train]', or name the file .pt"
        ) from error
    return safetensors.torch


def _random_state() -> dict[str, Any]:
    numpy: dict[str, Any] = np.random.get_state(legacy=False)  # noqa: NPY002 (the global one is what others may use)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [numpy["bit_generator"], torch.from_numpy(numpy["state"]["key"].astype(np.int64)),
                  int(numpy["state"]["pos"]), int(numpy["has_gauss"]), float(numpy["gauss"])],
        "python": list(random.getstate()),
    }  # fmt: skip


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
    name, key, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, key.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, numbers, gauss_next = state["python"]
    random.setstate((version, tuple(numbers), gauss_next))
