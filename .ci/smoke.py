"""The installed package with nothing but what it requires: run by an empty environment's Python, warnings as errors."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
import tempfile
from pathlib import Path

import cv2
import torch

import mertools as mt
from mertools.cli import main

where = Path(mt.__file__)
assert "site-packages" in where.parts, f"not the installed package: {where}"
for extra in ("matplotlib", "pandas", "openpyxl", "safetensors", "onnx", "huggingface_hub", "pytest"):
    assert importlib.util.find_spec(extra) is None, f"{extra} is here: this environment is not empty"

torch.manual_seed(0)
clip = mt.synthetic_clip(num_frames=40, onset=10, apex=18, offset=30, size=64)
keys = mt.FrameSelector()(clip.frames[None])
assert (int(keys.onset), int(keys.apex), int(keys.offset)) == (10, 18, 30), keys

images = [frame.float() / 255 for frame in keys.gather(clip.frames[None])]
model = mt.TwoBranch(mt.TSFmicro(7, image_size=64, dims=(8, 16, 24, 32), hidden=48))
criterion, target = mt.AUPriorLoss(), torch.tensor([0])
front, back = model(*images)
(criterion(front, target) + criterion(back, target)).backward()

encoder = mt.RetNetTemporal(16, 1, 2).eval()
tokens, state = torch.randn(1, 5, 16), None
for token in tokens.unbind(1):
    y, state = encoder.step(token, state)
torch.testing.assert_close(y, encoder(tokens)[:, -1], atol=1e-5, rtol=1e-5)

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    for i, frame in enumerate(clip.frames):
        cv2.imwrite(str(folder / f"{i}.png"), frame.permute(1, 2, 0).numpy()[..., ::-1].copy())
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["select", str(folder)]) == 0
    assert "10" in said.getvalue(), said.getvalue()
    assert "18" in said.getvalue(), said.getvalue()

with tempfile.TemporaryDirectory() as name:
    table = Path(name) / "table.xlsx"
    table.write_bytes(b"PK")
    for call, extra in (
        (lambda: mt.plot_au_prior(), "plot"),
        (lambda: mt.save_model(mt.AUHead(2), name), "hub"),
        (lambda: mt.export_onnx(mt.AUHead(2), "m.onnx", torch.zeros(2, 2)), "onnx"),
        (lambda: mt.read_annotations(table, "casme2"), "data"),
    ):
        try:
            call()
        except ImportError as error:
            assert f"mertools[{extra}]" in str(error), error
        else:
            raise AssertionError(f"the extra {extra} is missing and nothing said so")

print(f"mertools {mt.__version__} on Python {sys.version.split()[0]}, PyTorch {torch.__version__}: key frames, models,")
print("losses, streaming and the command line work with the five dependencies alone")
