"""The benchmarks still run; what they print is not judged here."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "name",
    ["au_loss", "au_prior_effect", "audit", "audit_recovery", "distance", "import_cost", "keyframes", "retention"],
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
