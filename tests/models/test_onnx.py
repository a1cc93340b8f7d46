import io

import pytest
import torch
from contract import CASES, Keywords
from torch import nn

import mertools as mt

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

# TSFmicro has a test of its own below: PyTorch's translation of its full depth takes half a minute a structure.
EXPORTED = (
    "AUHead", "Retention", "Retention, two-sided", "Retention, learnable", "FramePool", "RetNetTemporal",
    "ManhattanRetention", "ManhattanRetention, time", "ManhattanRetention, decomposed", "SpatialTransformer",
    "ParallelFusion", "TwoBranch",
)  # fmt: skip


def module_of(name):
    module = CASES[name].make().eval()
    return module.module if isinstance(module, Keywords) else module


def inputs_of(name, b):
    inputs = CASES[name].inputs(b, 11)
    return inputs[:-1] if CASES[name].lengths else inputs


def run(path, *inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return [torch.from_numpy(y) for y in session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))]


@pytest.mark.parametrize("name", EXPORTED)
def test_every_module_in_onnxruntime(name, tmp_path):
    """Exported with a batch of 2, run with one of 5: the batch is free."""
    module = module_of(name)
    path = mt.export_onnx(module, tmp_path / "module.onnx", inputs_of(name, 2))
    inputs = inputs_of(name, 5)
    with torch.no_grad():
        expected = module(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for found, wanted in zip(run(path, *inputs), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_a_backbone_over_frames(tmp_path):
    """A ManhattanRetNet of two stages, one of each kind, by itself and as the stem of an encoder."""
    stem = mt.ManhattanRetNet(
        dims=(4, 28), depths=(1, 1), decomposed=(True, False), decay_init=(2, 2), decay_range=(4, 6)
    )
    encoder = mt.RetNetTemporal(28, 1, 7, stem=stem)
    x = torch.randn(2, 3, 3, 19, 13)
    path = mt.export_onnx(encoder, tmp_path / "encoder.onnx", x)
    with torch.no_grad():
        torch.testing.assert_close(run(path, x)[0], encoder.eval()(x), atol=1e-5, rtol=1e-4)
        path = mt.export_onnx(stem, tmp_path / "stem.onnx", x[:, 0])
        torch.testing.assert_close(run(path, x[:, 1])[0], stem(x[:, 1]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fusion", ["parallel", "early", "s_to_t", "t_to_s"])
def test_tsfmicro(fusion, tmp_path):
    model = mt.TSFmicro(
        5, fusion=fusion, image_size=32, dims=(4, 8, 12, 16), depths=(1, 1, 1, 1), hidden=11, spatial_depth=1
    )
    onset, apex = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32)
    path = mt.export_onnx(model, tmp_path / "model.onnx", (onset, apex))
    with torch.no_grad():
        expected = model.eval()(onset, apex)
    torch.testing.assert_close(run(path, onset, apex)[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
def test_clips_of_any_length(causal, tmp_path):
    encoder = mt.RetNetTemporal(14, 1, 7, causal=causal).eval()
    path = mt.export_onnx(encoder, tmp_path / "encoder.onnx", torch.randn(2, 11, 14), dynamic_shapes=[{0: "b", 1: "t"}])
    x = torch.randn(3, 157, 14)
    with torch.no_grad():
        torch.testing.assert_close(run(path, x)[0], encoder(x), atol=1e-4, rtol=1e-4)


def test_an_exported_program_leaves_the_batch_free():
    """The other interchange format, PyTorch's own: written, read back, and run on another batch."""
    batch = torch.export.Dim("b", min=2)
    for name in ("Retention", "TwoBranch", "TwoBranch of TSFmicro"):
        module, inputs = module_of(name), inputs_of(name, 2)
        program = torch.export.export(module, inputs, dynamic_shapes=tuple({0: batch} for _ in inputs))
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        loaded = torch.export.load(file).module()
        others = inputs_of(name, 5)
        found, wanted = loaded(*others), module(*others)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_the_graph_is_that_of_evaluation_and_the_mode_stays(tmp_path):
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))
    model[1].eval()
    path = mt.export_onnx(model, tmp_path / "model.onnx", torch.randn(2, 3))
    assert [part.training for part in model] == [True, False, True]
    x = torch.randn(7, 3)
    torch.testing.assert_close(run(path, x)[0], model.eval()(x).detach(), atol=1e-6, rtol=1e-5)


class Doubled(nn.Module):
    """Computes one thing in a graph and another outside."""

    def forward(self, x):
        return x * (3 if torch.compiler.is_compiling() else 2)


def test_a_difference_is_an_error_and_nothing_is_written(tmp_path):
    with pytest.raises(RuntimeError, match=r"output 0 differs by 1 between onnxruntime and PyTorch"):
        mt.export_onnx(Doubled(), tmp_path / "model.onnx", torch.ones(2, 3))
    assert list(tmp_path.iterdir()) == []


class Fork(nn.Module):
    """Goes a way that depends on the values it is given, which a graph can't."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_what_onnx_can_not_say(tmp_path):
    with pytest.raises(RuntimeError, match="Fork can't be expressed in ONNX: "):
        mt.export_onnx(Fork(), tmp_path / "model.onnx", torch.ones(2, 3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((object(), "m.onnx", torch.ones(2, 3)), TypeError, "model must be an nn.Module, got object"),
        ((nn.Linear(3, 2), "m.onnx", ()), ValueError, "inputs must hold an example for each argument"),
        ((nn.Linear(3, 2), "m.onnx", [3]), TypeError, r"inputs\[0\] must be a torch.Tensor, got int"),
        ((nn.Linear(3, 2), "m.onnx", torch.ones(1, 3)), ValueError, r"two samples or more .*, got \(1, 3\)"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        mt.export_onnx(*arguments)


def test_bad_settings(tmp_path):
    with pytest.raises(ValueError, match="dynamic_shapes must name the free axes of 1 inputs, got 2 entries"):
        mt.export_onnx(nn.Linear(3, 2), tmp_path / "m.onnx", torch.ones(2, 3), dynamic_shapes=[{0: "b"}, {}])
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        mt.export_onnx(nn.Linear(3, 2), tmp_path / "gone" / "m.onnx", torch.ones(2, 3))


def test_a_missing_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"onnx and onnxscript and onnxruntime: pip install 'mertools\[onnx\]'"):
        mt.export_onnx(nn.Linear(3, 2), tmp_path / "m.onnx", torch.ones(2, 3))


def test_an_older_pytorch_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(RuntimeError, match=r"needs PyTorch 2\.13 or newer, got 2\.9\.1"):
        mt.export_onnx(nn.Linear(3, 2), tmp_path / "m.onnx", torch.ones(2, 3))
    assert not any(tmp_path.iterdir())
