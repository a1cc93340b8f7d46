import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import mertools as mt

ROOT = Path(__file__).parents[1]
NAMES = (Path(__file__).parent / "public_names.txt").read_text().split()


def test_the_public_surface_is_the_list():
    assert sorted(mt.__all__) == NAMES
    assert all(hasattr(mt, name) for name in NAMES)


def test_no_public_name_shadows_a_submodule():
    """``import mertools.retention as m`` gives the room, never a function of that name."""
    for info in pkgutil.walk_packages(mt.__path__, "mertools."):
        if info.name != "mertools.__main__":
            parent, _, name = info.name.rpartition(".")
            importlib.import_module(info.name)
            assert getattr(sys.modules[parent], name) is sys.modules[info.name], info.name


def test_modules_say_what_they_offer():
    """Every name of a module's ``__all__`` exists, and every public name comes from one."""
    offered = {"__version__"}
    for info in pkgutil.walk_packages(mt.__path__, "mertools."):
        if info.name != "mertools.__main__":
            module = importlib.import_module(info.name)
            assert all(hasattr(module, name) for name in getattr(module, "__all__", []))
            offered |= set(getattr(module, "__all__", []))
    assert set(NAMES) <= offered


def run(script):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, check=True, text=True
    ).stdout


def test_importing_is_silent_and_takes_no_extra_along():
    script = (
        "import os, sys, torch\nenviron = dict(os.environ)\nbefore = set(sys.modules)\nthreads = torch.get_num_threads(), torch.get_default_dtype()\n"
        "state = torch.get_rng_state()\nimport mertools\n"
        "assert (torch.get_num_threads(), torch.get_default_dtype()) == threads\n"
        "assert torch.equal(torch.get_rng_state(), state)\n"
        "assert dict(os.environ) == environ\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    loaded = set(run(script).split())
    extras = {"matplotlib", "pandas", "openpyxl", "sklearn", "tqdm", "torchvision", "torchmetrics", "safetensors"}
    assert not loaded & extras


def test_core_dependencies_are_the_five():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [dependency.split(">")[0] for dependency in project["dependencies"]]
    assert names == ["torch", "einops", "numpy", "opencv-python-headless", "scipy"]
    assert {"plot", "data", "train", "docs", "dev"} <= set(project["optional-dependencies"])
    assert project["scripts"] == {"mertools": "mertools.cli:main"}
    assert (ROOT / "mertools" / "py.typed").exists()
    assert "version" in project["dynamic"]
