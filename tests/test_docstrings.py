"""Every public name says what it is for, names its arguments and shapes, and shows an example that runs."""

import ast
import dataclasses
import inspect
import itertools
import re
from pathlib import Path

import pytest
import torch

import mertools as mt

NAMES = [name for name in mt.__all__ if name != "__version__"]
CALLABLES = [name for name in NAMES if callable(getattr(mt, name))]
CONSTANTS = [name for name in NAMES if not callable(getattr(mt, name))]
SECTIONS = ("Args", "Attributes", "Shape", "Returns", "Raises", "Note", "Examples", "Source")
# What computes something says what, as a formula.
FORMULA = {
    "AUPriorLoss", "FocalLoss", "FramePool", "FrameSelector", "LogitAdjustedLoss", "ManhattanRetention", "ParallelFusion",
    "RetNetTemporal", "Retention", "TSFmicro", "TwoBranch", "au_pos_weight", "au_prior_loss", "class_weights",
    "clip_au_labels", "estimate_au_prior", "estimate_pos_weight", "magnify_motion", "optical_strain", "pairwise_distance",
    "pool_frames", "resample_clip", "select_keyframes",
}  # fmt: skip


# What a module form need not repeat of its function.
ELSEWHERE = re.compile(r"module form of :func:|documents the arguments")


def sections(name):
    """The parts of a docstring; what comes before the first section is ``""``."""
    doc = inspect.getdoc(getattr(mt, name)) or ""
    parts = re.split(rf"^({'|'.join(SECTIONS)}):", doc, flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def is_record(thing):
    """Holds values and checks nothing: a NamedTuple or dataclass without code of its own at its making."""
    plain = isinstance(thing, type) and (issubclass(thing, (tuple, list)) or dataclasses.is_dataclass(thing))
    return plain and not hasattr(thing, "__post_init__")


def parameters(thing):
    if isinstance(thing, type) and issubclass(thing, tuple):
        return dict.fromkeys(thing._fields)
    found = inspect.signature(thing).parameters
    return {name: p for name, p in found.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def annotations(thing):
    target = thing.__init__ if isinstance(thing, type) else thing
    return getattr(inspect.unwrap(target), "__annotations__", {})


def has_tensors(thing):
    """Takes or gives arrays: annotations are text, as everywhere in the package."""
    if isinstance(thing, type) and issubclass(thing, torch.nn.Module):
        return True
    told = thing.__annotations__ if is_record(thing) else annotations(thing)
    plain = (str(text).replace("Mapping[str, Tensor]", "") for text in told.values())  # weights have their own shapes
    return any(re.search(r"\bTensor\b|\bndarray\b", text) for text in plain)


def entries(text):
    """The names of a section's entries, ``name: what it is``; a name may stand beside others, ``onset, apex: ...``."""
    lines = re.findall(r"^    (?:- )?([^\s:][^:\n]*):", text, flags=re.MULTILINE)
    return {name.strip().strip("`") for line in lines for name in line.split(",")}


@pytest.mark.parametrize("name", CALLABLES)
def test_purpose(name):
    first = sections(name)[""].strip().split("\n\n")[0]
    assert first.endswith((".", "::", "...")), f"{name}: the first paragraph is no sentence"
    assert len(first.split()) >= 4, f"{name}: the first paragraph says too little"


@pytest.mark.parametrize("name", CALLABLES)
def test_every_argument_is_named(name):
    """In the text, wherever it reads best; an example alone explains nothing."""
    parts = sections(name)
    told = " ".join(text for part, text in parts.items() if part != "Examples")
    if not ELSEWHERE.search(parts[""]):
        silent = [p for p in parameters(getattr(mt, name)) if not re.search(rf"(?<!\w){re.escape(p)}(?!\w)", told)]
        assert not silent, f"{name} does not name {silent}"


@pytest.mark.parametrize("name", CALLABLES)
def test_no_argument_is_described_that_is_not_taken(name):
    wrong = entries(sections(name).get("Args", "")) - set(parameters(getattr(mt, name)))
    assert not wrong, f"{name} describes {sorted(wrong)}, which it does not take"


@pytest.mark.parametrize("name", CALLABLES)
def test_shapes(name):
    parts = sections(name)
    if has_tensors(getattr(mt, name)) and not ELSEWHERE.search(parts[""]):
        told = "".join(text for part, text in parts.items() if part != "Examples")
        assert "Shape" in parts or re.search(r"``\([a-z0-9. ]+(,[^)]*)?\)``", told), f"{name} names no shape"


@pytest.mark.parametrize("name", CALLABLES)
def test_example(name):
    assert ">>> " in sections(name).get("Examples", ""), f"{name} has no example"


@pytest.mark.parametrize("name", sorted(FORMULA))
def test_formula(name):
    if ELSEWHERE.search(sections(name)[""]):
        return
    text = "".join(text for part, text in sections(name).items() if part != "Examples")
    assert re.search(r"(``[^`]*[=·+/−‖(][^`]*``)|::\n", text), f"{name} has no formula"


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_have_a_docstring(name):
    """A string below the assignment, which the reference shows."""
    for module in (Path(mt.__file__).parent).rglob("*.py"):
        for node, after in itertools.pairwise(ast.parse(module.read_text()).body):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(t, ast.Name) and t.id == name for t in targets):
                assert isinstance(after, ast.Expr), name
                assert isinstance(after.value, ast.Constant), name
                return
    pytest.fail(f"{name} is assigned nowhere in the package")


@pytest.mark.parametrize("name", [n for n in CALLABLES if isinstance(getattr(mt, n), type)])
def test_public_methods_have_a_docstring(name):
    for attribute, member in vars(getattr(mt, name)).items():
        function = getattr(member, "fget", None) or getattr(member, "__func__", None) or member
        if not attribute.startswith("_") and inspect.isfunction(function):
            assert inspect.getdoc(function), f"{name}.{attribute}"
