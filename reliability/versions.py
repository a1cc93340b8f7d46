"""Does the suite pass on the oldest releases that pyproject.toml admits, and on the newest?

    python -m reliability.versions FOLDER [oldest onnx newest] [--processes 2] [--all]

Every environment is made in FOLDER with the Python named below (looked for among pyenv's and as `python3.N`), which
takes gigabytes: PyTorch's wheels for these come with CUDA. The suite's core runs there: all tests of the package, its
command line, and the examples in pages and docstrings, but not the long end-to-end runs (`LONG`) unless `--all` is
given. What came of it is added to reliability/versions.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from mertools._files import atomic_write

ROOT = Path(__file__).parents[1]
RECORD = Path(__file__).with_suffix(".json")

TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "coverage", "mypy", "ruff", "build", "twine")
"""What the tests need besides; of any version."""

OTHERS = (
    *("matplotlib", "pandas", "openpyxl", "xlrd", "tqdm", "scikit-learn", "safetensors", "huggingface-hub"),
    *("ipykernel", "nbclient", "nbformat"),
)
"""Extras, apart from those of ONNX, which have an environment of their own."""

ENVIRONMENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    # The lower bounds of pyproject.toml, all of them. Matplotlib 3.8 uses names that later pyparsings warn of.
    "oldest": (
        "3.10",
        (
            *("torch==2.5.0", "einops==0.7.0", "numpy==1.26.0", "opencv-python-headless==4.8.0.76", "scipy==1.11.1"),
            *("matplotlib==3.8.0", "pyparsing==3.1.0", "pandas==2.1.0", "openpyxl==3.1.0", "xlrd==2.0.1"),
            *("tqdm==4.66.0", "scikit-learn==1.4.0", "safetensors==0.4.3", "huggingface-hub==0.25.0"),
            *("ipykernel==6.29.0", "nbclient==0.10.0", "nbformat==5.10.0"),
        ),
    ),
    "onnx": ("3.11", ("torch==2.13.0", "onnx==1.23.2", "onnxscript==0.7.2", "onnxruntime==1.32.0", *OTHERS)),
    "newest": (
        "3.13",
        ("torch", "einops", "numpy", "opencv-python-headless", "scipy", *OTHERS, "onnx", "onnxscript", "onnxruntime"),
    ),
}

SHOWN = ("torch", "numpy", "einops", "opencv-python-headless", "scipy", "onnx", "onnxscript", "onnxruntime")

LONG = (
    "test_benchmarks",
    "test_notebooks",
    "test_train_mer",
    "test_train_dfer",
    "test_hosts",
    "test_corpus",
    "test_demo",
)
"""Runs from end to end; they say little about versions and take minutes."""


def find_python(version: str) -> str:
    """The interpreter of a minor version.

    Raises:
        FileNotFoundError: there is none.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    known = sorted(pyenv.glob(f"{version}.*/bin/python"))
    found = str(known[-1]) if known else shutil.which(f"python{version}")
    if found is None:
        raise FileNotFoundError(f"no Python {version}: install it, or leave its environment out")
    return found


def make(folder: Path, name: str) -> Path:
    """The environment's interpreter; the environment is made where it is missing."""
    version, pins = ENVIRONMENTS[name]
    python = folder / name / "bin" / "python"
    if not python.exists():
        subprocess.run([find_python(version), "-m", "venv", str(folder / name)], check=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, *pins, *TOOLS], check=True)
    subprocess.run([*pip, "--editable", str(ROOT)], check=True)  # fails if a pin is below what pyproject.toml admits
    return python


def run(python: Path, arguments: list[str]) -> dict[str, Any]:
    """Versions, and what the tests said."""
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True)
    versions = {entry["name"].lower(): entry["version"] for entry in json.loads(listed.stdout)}
    about = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.split()[1]
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": path}
    start = datetime.datetime.now(tz=datetime.timezone.utc)
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    print(done.stdout)
    counts = {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|xfailed|errors?)\b", done.stdout)}
    return {
        "python": about,
        "versions": {name: versions[name].partition("+")[0] for name in SHOWN if name in versions},
        "counts": counts,
        "failed": re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE),
        "seconds": round((datetime.datetime.now(tz=datetime.timezone.utc) - start).total_seconds()),
        "date": f"{start:%Y-%m-%d}",
    }


def main() -> int:
    """Make the environments, run the tests in each and write the record."""
    parser = argparse.ArgumentParser(description="The suite on other versions.")
    parser.add_argument("folder", type=Path, help="where the environments are made and found again")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(ENVIRONMENTS)}; all unless given")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--all", action="store_true", help="with the long runs from end to end")
    parser.add_argument("--record", type=Path, default=RECORD)
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in ENVIRONMENTS]
    if unknown:
        parser.error(f"{unknown[0]} is none of {', '.join(ENVIRONMENTS)}")
    args.folder.mkdir(parents=True, exist_ok=True)
    status = 0
    for name in args.names or ENVIRONMENTS:
        arguments = ["-n", str(args.processes), "--dist", "loadfile"]
        if name == "onnx":
            arguments += ["tests/models/test_onnx.py"]
        elif not args.all:
            arguments += [f"--ignore=tests/{test}.py" for test in LONG]
        arguments += ["--ignore=tests/test_versions.py"]  # compares the record with the pages
        if "onnx" not in " ".join(ENVIRONMENTS[name][1]):
            arguments += ["--deselect", "mertools/models/onnx.py::mertools.models.onnx.export_onnx"]
        found = run(make(args.folder, name), arguments)
        record = json.loads(args.record.read_text()) if args.record.exists() else {}
        atomic_write(args.record, (json.dumps(record | {name: found}, indent=1) + "\n").encode())
        print(name, found["python"], found["versions"], found["counts"])
        status |= bool(found["failed"]) or not found["counts"].get("passed")
    return status


if __name__ == "__main__":
    sys.exit(main())
