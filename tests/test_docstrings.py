"""Every public name is documented in full: a part that is missing fails here, with the name and the part."""

import ast
import dataclasses
import importlib
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
# A number says what it counts, or between what it lies.
MEASURE = re.compile(
    r"\[0, 1\]|\(0, 1\]|in \[|pixels|frames|fraction|probability|bytes|Hz|degrees|per second|multiple|positive|share|weight"
    r"|scale|grey levels|relative|standard deviation|stochastic depth|largest|smallest|see |log γ|α|γ",
)


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
    """``name: what it is`` of a section, by name; a name may stand beside others, ``onset, apex: ...``."""
    found = {}
    for line in re.findall(r"^    (?:- )?([^\s:][^:\n]*):((?:.*)(?:\n {6,}.*)*)", text, flags=re.MULTILINE):
        for name in line[0].split(","):
            found[name.strip().strip("`")] = line[1]
    return found


@pytest.mark.parametrize("name", CALLABLES)
def test_purpose(name):
    first = sections(name)[""].strip().split("\n\n")[0]
    assert first.endswith((".", "::", "...")), f"{name}: the first paragraph is no sentence"
    assert len(first.split()) >= 4, f"{name}: the first paragraph says too little"


@pytest.mark.parametrize("name", CALLABLES)
def test_every_argument_is_described(name):
    parts = sections(name)
    wanted = set(parameters(getattr(mt, name)))
    if not wanted or "documents the arguments" in parts[""]:
        return
    told = entries(parts.get("Args", "")) | entries(parts.get("Attributes", "")) | entries(parts.get("Shape", ""))
    assert not wanted - told.keys(), f"{name} does not describe {sorted(wanted - told.keys())}"
    args = set(entries(parts.get("Args", "")))
    assert not args - wanted, f"{name} describes {sorted(args - wanted)}, which it does not take"


@pytest.mark.parametrize("name", CALLABLES)
def test_numbers_have_a_range_or_a_unit(name):
    told = entries(sections(name).get("Args", ""))
    for parameter, text in annotations(getattr(mt, name)).items():
        if re.search(r"\bfloat\b", str(text)) and parameter in told:
            assert MEASURE.search(told[parameter]), f"{name}: of what unit or range is {parameter}? {told[parameter]}"


@pytest.mark.parametrize("name", CALLABLES)
def test_shapes(name):
    parts = sections(name)
    if has_tensors(getattr(mt, name)) and "documents the arguments" not in parts[""]:
        text = parts.get("Shape", "") + parts.get("Returns", "") + parts.get("Args", "")
        assert "Shape" in parts or re.search(r"``\([a-z0-9. ]+(,[^)]*)?\)``", text), f"{name} names no shape"


@pytest.mark.parametrize("name", CALLABLES)
def test_what_comes_back(name):
    thing, parts = getattr(mt, name), sections(name)
    if isinstance(thing, type) or annotations(thing).get("return") in (None, "None"):
        return
    said = "Returns" in parts or "output" in parts.get("Shape", "") or "documents the arguments" in parts[""]
    assert said, f"{name} does not say what it returns"


@pytest.mark.parametrize("name", CALLABLES)
def test_errors(name):
    thing, parts = getattr(mt, name), sections(name)
    if is_record(thing) or "documents the arguments" in parts[""]:
        return
    assert re.search(r"^    \w*Error: \w", parts.get("Raises", ""), re.MULTILINE), f"{name} does not say what it raises"


@pytest.mark.parametrize("name", CALLABLES)
def test_example(name):
    assert ">>> " in sections(name).get("Examples", ""), f"{name} has no example"


@pytest.mark.parametrize("name", CALLABLES)
def test_source(name):
    assert len(sections(name).get("Source", "").split()) >= 1, f"{name} does not say where it comes from"


@pytest.mark.parametrize("name", sorted(FORMULA))
def test_formula(name):
    text = sections(name)[""] + sections(name).get("Args", "") + sections(name).get("Shape", "")
    assert re.search(r"(``[^`]*[=·+/−‖(][^`]*``)|::\n", text), f"{name} has no formula"


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_have_a_docstring(name):
    """A string below the assignment, which the reference shows."""
    for module in ("action_units.prior", "action_units.expressions", "annotations.protocols"):
        body = ast.parse(inspect.getsource(importlib.import_module(f"mertools.{module}"))).body
        for node, after in itertools.pairwise(body):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(t, ast.Name) and t.id == name for t in targets):
                assert isinstance(after, ast.Expr), name
                assert isinstance(after.value, ast.Constant), name
                return
    pytest.fail(f"{name} was not found: name its module here")


@pytest.mark.parametrize("name", [n for n in CALLABLES if isinstance(getattr(mt, n), type)])
def test_public_methods_have_a_docstring(name):
    for attribute, member in vars(getattr(mt, name)).items():
        function = getattr(member, "fget", None) or getattr(member, "__func__", None) or member
        if not attribute.startswith("_") and inspect.isfunction(function):
            assert inspect.getdoc(function), f"{name}.{attribute}"


def test_the_reference_has_every_name():
    text = (Path(__file__).parents[1] / "docs" / "reference.md").read_text()
    listed = re.findall(r"^::: mertools\.(\w+)$", text, flags=re.MULTILINE)
    assert sorted(listed) == sorted(NAMES)
