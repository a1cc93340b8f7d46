"""Import everything, run the main functions, say what was opened elsewhere: ``python -m reliability.offline``.

No socket may be made, no process started, no pickle run and no file written elsewhere. Prints JSON: what was done, and
what was found.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import pkgutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
# Caches of the libraries themselves: matplotlib's fonts, PyTorch's compiler, Hugging Face's folder of settings.
CACHES = ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "HF_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")


def example(name: str) -> ModuleType:
    """A script of ``examples`` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def everything(folder: Path) -> list[str]:
    """Run it all below a folder; what was run, in order."""
    import mertools as mt

    done = []
    for module in pkgutil.walk_packages(mt.__path__, "mertools."):
        if module.name != "mertools.__main__":
            importlib.import_module(module.name)
    done.append("imports")

    import torch

    from mertools.cli import main

    made = example("made_dataset").make(folder / "made", subjects=2, clips_each=1, size=32)
    frames = next(path.parent for path in sorted((folder / "made").rglob("*.png")))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main(["select", str(frames), "--plot", str(folder / "keys.png")]) == 0
        table = ["audit", str(made), "--dataset", "casme2", "--frames", str(made.parent)]
        assert main([*table, "--out", str(folder / "corrected.csv"), "--workers", "0"]) == 0
    done += ["mertools select --plot", "mertools audit"]

    people = mt.synthetic_dataset(folder / "people", subjects=2, clips=2, size=32, num_frames=32)
    words = ["--table", people.table, "--frames", people.frames, "--protocol", "megc2019", "--out", folder / "run"]
    words += ["--size", "32", "--dims", "4", "8", "12", "16", "--hidden", "16", "--epochs", "1", "--device", "cpu"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        example("train_mer").main(list(map(str, words)))
    done.append("examples/train_mer.py")

    config = {"num_classes": 5, "image_size": 32, "dims": [4, 8, 12, 16], "hidden": 11, "spatial_depth": 1}
    model = mt.TSFmicro(**config)  # type: ignore[arg-type]
    mt.load_model(mt.save_model(model, folder / "model"))
    mt.save_checkpoint(folder / "checkpoint.pt", {"model": model.state_dict()})
    mt.load_checkpoint(folder / "checkpoint.pt")
    mt.save_weights(folder / "weights.pt", model)
    mt.load_weights(folder / "weights.pt")
    done += ["save_model, load_model", "save_checkpoint, load_checkpoint", "save_weights, load_weights"]
    if importlib.util.find_spec("onnxscript") is not None:  # an extra that needs a newer PyTorch than the rest
        mt.export_onnx(mt.FramePool("mean"), folder / "pool.onnx", torch.randn(2, 5, 7))
        done.append("export_onnx")
    return done


def main() -> None:
    """Watch a run of everything, and print what came of it."""
    from reliability.watch import watch

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tempfile.tempdir = name
        for cache in CACHES:
            os.environ[cache] = name
        import matplotlib.font_manager  # noqa: F401 (asks fc-list for the fonts, once after its installation)

        import mertools.cli

        mertools.cli.silence_decoders()
        with watch([folder]) as seen:
            done = everything(folder)
        print(json.dumps({"done": done, "found": sorted(set(seen.found))}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
