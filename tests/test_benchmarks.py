"""The benchmarks still run; what they print is not judged here."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "au_loss",
        "au_prior_effect",
        "audit",
        "audit_recovery",
        "distance",
        "keyframes",
        "leakage",
        "reselection",
        "retention",
    ],
)
def test_quick_mode(name):
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n|") >= 7


@pytest.mark.parametrize(("name", "page"), [("leakage", "leakage.md"), ("reselection", "training.md")])
def test_the_page_has_the_figures(name, page):
    table = importlib.import_module(f"benchmarks.{name}").table
    docs = Path(__file__).parents[1] / "docs"
    assert table(json.loads((docs / f"{name}.json").read_text())) in (docs / page).read_text()


def test_streaming_example():
    script = Path(__file__).parents[1] / "examples" / "stream.py"
    done = subprocess.run([sys.executable, str(script), "--steps", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "whole clip at once: the same labels" in done.stdout


def test_examples_of_the_au_prior():
    script = Path(__file__).parents[1] / "examples" / "au_prior.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("loss after three steps") == 3
