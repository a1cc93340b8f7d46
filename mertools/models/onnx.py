"""Models as ONNX files, for runtimes without PyTorch. Needs the extra ``onnx``, imported when a model is exported."""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mertools._checks import check_number
from mertools._files import atomic_write

__all__ = ["export_onnx"]

_OLDEST = 2, 13
"""What was tested. With PyTorch 2.9 and onnxruntime 1.20 some parts were refused by the latter; older ones fail."""


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    inputs: Tensor | Sequence[Tensor],
    *,
    dynamic_shapes: Sequence[Mapping[int, str]] | None = None,
    tolerance: float = 1e-4,
) -> Path:
    """Write a model as an ONNX file, and only after onnxruntime computed the same with it.

    The graph is the one of evaluation, whatever mode the model is in. Before the file is written, onnxruntime runs the
    graph on ``inputs``, and the largest difference to what PyTorch computes must satisfy
    ``|onnx − torch| <= tolerance * max(1, max|torch|)``; a RuntimeError where it does not, and nothing is written.

    Args:
        model: any module whose ``forward`` takes tensors by position and returns a tensor or a tuple of them.
        path: the file to write, which is returned; its folder must be there. A file of that name is replaced.
        inputs: example inputs ``(b, ...)``, one tensor per argument of ``forward``, whose names the file's inputs
            carry. With a batch of one PyTorch may take the 1 for a constant: give two samples or more.
        dynamic_shapes: per input, the axes that stay free, with a name each: ``[{0: "b", 1: "t"}]`` for clips of any
            length. Default: the first axis of every input, ``"b"``.
        tolerance: largest difference allowed, relative to the outputs' largest value where that exceeds 1.

    Examples:
        >>> import tempfile
        >>> from mertools import AUHead
        >>> path = export_onnx(AUHead(8), Path(tempfile.mkdtemp()) / "head.onnx", torch.zeros(2, 8))
        >>> path.name
        'head.onnx'

    Source: ONNX, https://onnx.ai; the translation is :func:`torch.onnx.export` with ``dynamo=True``.
    """
    _check_installed()
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    examples = _check_inputs(inputs)
    check_number("tolerance", tolerance, 0)
    batch: Mapping[int, str] = {0: "b"}
    axes = [batch] * len(examples) if dynamic_shapes is None else list(dynamic_shapes)
    if len(axes) != len(examples):
        raise ValueError(f"dynamic_shapes must name the free axes of {len(examples)} inputs, got {len(axes)} entries")
    target = Path(path)
    with _evaluating(model), torch.no_grad():
        graph = _translate(model, examples, axes)
        expected = model(*examples)
    _compare(graph, examples, expected if isinstance(expected, (tuple, list)) else (expected,), tolerance)
    atomic_write(target, graph)
    return target


def _check_installed() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"export_onnx needs {' and '.join(missing)}: pip install 'mertools[onnx]'")
    if tuple(map(int, torch.__version__.split(".")[:2])) < _OLDEST:
        raise RuntimeError(f"export_onnx needs PyTorch {_OLDEST[0]}.{_OLDEST[1]} or newer, got {torch.__version__}")


def _translate(model: nn.Module, examples: tuple[Tensor, ...], axes: list[Mapping[int, str]]) -> bytes:
    exporter = logging.getLogger("torch.onnx")  # remarks on the operators of torchvision, which nothing here uses
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Of PyTorch about itself, and about one name for the batch of all inputs, which is what is meant.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            warnings.filterwarnings("ignore", message="# The axis name")
            program = torch.onnx.export(model, examples, dynamo=True, verbose=False, dynamic_shapes=tuple(axes))
    except torch.onnx.OnnxExporterError as error:
        raise RuntimeError(f"{type(model).__name__} can't be expressed in ONNX: {_last_cause(error)}") from error
    finally:
        exporter.setLevel(level)
    if program is None:
        raise RuntimeError(f"{type(model).__name__} can't be expressed in ONNX: PyTorch returned no program")
    return bytes(program.model_proto.SerializeToString())


def _compare(graph: bytes, examples: tuple[Tensor, ...], expected: Sequence[Any], tolerance: float) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    if len(names) != len(examples):
        raise RuntimeError(f"the graph has the inputs {names}, but {len(examples)} were given: one is never read")
    found = session.run(None, {name: x.cpu().numpy() for name, x in zip(names, examples, strict=True)})
    for i, (ours, theirs) in enumerate(zip(expected, found, strict=True)):
        wanted = ours.detach().cpu()
        got = torch.from_numpy(theirs)
        if got.shape != wanted.shape:
            raise RuntimeError(f"output {i} is {tuple(got.shape)} in onnxruntime and {tuple(wanted.shape)} in PyTorch")
        limit = tolerance * max(1.0, float(wanted.abs().max())) if wanted.numel() else 0.0
        error = float((got.double() - wanted.double()).abs().max()) if wanted.numel() else 0.0
        if not error <= limit:
            raise RuntimeError(
                f"output {i} differs by {error:.2g} between onnxruntime and PyTorch, more than {limit:.2g}: "
                "raise tolerance= if that will do"
            )


def _check_inputs(inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    examples = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    if not examples:
        raise ValueError("inputs must hold an example for each argument of forward, got none")
    for i, x in enumerate(examples):
        if not isinstance(x, Tensor):
            raise TypeError(f"inputs[{i}] must be a torch.Tensor, got {type(x).__name__}")
        if x.ndim == 0 or x.shape[0] < 2:
            raise ValueError(f"inputs[{i}] must have two samples or more to leave the batch free, got {tuple(x.shape)}")
    return examples


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Every part in evaluation, and back to where it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _last_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().split("\n")[0]
