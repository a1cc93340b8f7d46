"""The benchmarks still run; what they print is not judged here."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.scaling import ring_bytes


@pytest.mark.parametrize(
    "name",
    [
        "au_loss", "au_prior_effect", "audit", "audit_recovery", "corpus", "distance", "import_cost", "keyframes", "leakage",
        "reselection", "retention", "scaling",
    ],
)  # fmt: skip
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


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_bytes_of_a_ring_all_reduce(world):
    """Counted: every rank hands a chunk on until all have been added up everywhere, and the chunks sum up right."""
    chunks, width = 6, 4
    values = torch.randn(world, world, chunks, dtype=torch.float64)  # rank, chunk, numbers
    held, sent = values.clone(), torch.zeros(world)
    for way in ("reduce", "gather"):
        for step in range(world - 1):
            moves = [(rank, (rank - step + (way == "gather")) % world) for rank in range(world)]
            parcels = [held[rank, chunk].clone() for rank, chunk in moves]
            for (rank, chunk), parcel in zip(moves, parcels, strict=True):
                to = (rank + 1) % world
                held[to, chunk] = parcel + (held[to, chunk] if way == "reduce" else 0)
                sent[rank] += parcel.numel() * width
    torch.testing.assert_close(held, values.sum(0).expand_as(held))
    assert sent.unique().tolist() == [ring_bytes(world * chunks, world, width)]


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
