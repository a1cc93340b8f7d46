"""The benchmarks still run, all of them, and their figures come out as data and as a page; no time is judged here."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as runner
from benchmarks import au_loss, distance, measure, models
from benchmarks.scaling import ring_bytes

ROOT = Path(__file__).parents[1]


def benchmark(*args):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, args)], capture_output=True, text=True, check=False, cwd=ROOT
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", runner.scripts())
def test_quick_mode(name, tmp_path):
    results, page = tmp_path / "results.json", tmp_path / "page.md"
    done = benchmark(name, "--quick", "--results", results, "--page", page)
    assert done.returncode == 0, done.stderr
    found = json.loads(results.read_text())[name]
    tables = [block for block in found["blocks"] if "rows" in block]
    assert sum(len(block["rows"]) for block in tables) >= 3
    assert all(len(row) == len(block["header"]) for block in tables for row in block["rows"])
    assert found["machine"]["PyTorch"] == torch.__version__
    assert all("| " + " | ".join(row) + " |" in page.read_text() for block in tables for row in block["rows"])


def test_every_script_says_how_it_measures():
    for name, script in runner.scripts().items():
        about = ast.get_docstring(script)
        assert f"python -m benchmarks.{name}" in about, name
        assert "Method" in about, name
        assert isinstance(runner.constant(script, "SLOW", False), bool)


PRINTED = """PyTorch 2
2 threads

Times

| | ms | × |
|---|---|---|
| ours | 3 | 1 |
| theirs |  | 2.5 |
text behind it
"""


def test_what_is_printed_becomes_data_and_a_page():
    blocks = runner.parse(PRINTED)
    assert blocks == [
        {"text": "PyTorch 2\n2 threads"},
        {"text": "Times"},
        {"header": ["", "ms", "×"], "rows": [["ours", "3", "1"], ["theirs", "", "2.5"]]},
        {"text": "text behind it"},
    ]
    one, other = {"processor": "a"}, {"processor": "b"}
    found = {"command": "c", "about": "What it costs.\n\n    python -m x\n\nMethod: so.", "date": "d", "seconds": 7}
    page = runner.render(
        {
            "zz": found | {"machine": one, "blocks": blocks},
            "models": found | {"machine": other, "blocks": []},
            "distance": found | {"machine": one, "blocks": []},
        }
    )
    assert page.index("# Benchmarks") < page.index("| processor | a |") < page.index("## What it costs")
    assert (
        '\n\n`c`\n\n??? note "Method"\n\n    Method: so.\n\nPyTorch 2\n2 threads\n\nTimes\n\n|  | ms | × |\n| --- |'
        in page
    )
    assert page.count("*Measured on d in 7 s.*") == 2
    assert page.count("*Measured on d in 7 s, on b.*") == 1
    assert page.index("on b.*") < page.index("text behind it")
    assert "python -m x" not in page


def test_one_script_takes_the_place_of_its_figures(tmp_path, monkeypatch):
    results, page = tmp_path / "r.json", tmp_path / "p.md"
    kept = {"command": "k", "about": "Kept.", "date": "d", "seconds": 1, "machine": {}, "blocks": []}
    results.write_text(json.dumps({"distance": kept, "au_loss": kept | {"about": "Earlier."}}))
    monkeypatch.setattr(runner, "run", lambda name, script, quick: kept | {"about": f"{name} again.", "quick": quick})
    monkeypatch.setattr(sys, "argv", ["benchmarks", "au_loss", "--results", str(results), "--page", str(page)])
    runner.main()
    found = json.loads(results.read_text())
    assert [found["distance"]["about"], found["au_loss"]["about"]] == ["Kept.", "au_loss again."]
    assert "## Kept" in page.read_text()
    assert "## au_loss again" in page.read_text()
    monkeypatch.setattr(sys, "argv", ["benchmarks", "nothing"])
    with pytest.raises(SystemExit):
        runner.main()


def test_a_failing_script_is_an_error(monkeypatch):
    monkeypatch.setattr(
        runner.subprocess, "run", lambda *args, **kw: subprocess.CompletedProcess(args, 3, "", "no such luck")
    )
    with pytest.raises(RuntimeError, match="au_loss failed with 3:\nno such luck"):
        runner.run("au_loss", runner.scripts()["au_loss"], quick=True)
    with pytest.raises(RuntimeError, match="a measured process failed:\nno such luck"):
        measure.fresh_process("")


def test_turns_and_ratios():
    calls = []
    times = measure.in_turn({n: lambda n=n: calls.append(n) for n in "abc"}, 2, once=("c",))
    assert calls == ["a", "b", "a", "b", "a", "b", "c"]
    assert [len(values) for values in times.values()] == [2, 2, 1]
    assert measure.ratio([2.0, 9.0, 8.0], [1.0, 3.0, 2.0]) == 3.0
    assert measure.ratio([5.0, 6.0], [3.0]) == 2.0


def test_the_tables_of_a_device_on_the_cpu(capsys, monkeypatch):
    """What runs on a GPU, with the device a parameter."""
    monkeypatch.setattr(models, "print_equality", lambda device: None)  # as in the quick mode above, and slow
    distance.print_device("cpu", 8, 1)
    au_loss.measure(4, 1, 1, device="cpu")
    models.on_device("cpu", 1, 1, compiled=False)
    printed = capsys.readouterr().out
    for row in ("select_keyframes", "published way", "plain, TF32", "TSFmicro, bfloat16", "Training on cpu"):
        assert row in printed
    assert not torch.backends.cuda.matmul.allow_tf32


def test_flops_are_those_of_the_network():
    """The count against the formula of the products of one linear layer and one convolution within it."""
    forward, both = models.count_flops(1)
    assert both == 3 * forward
    spatial = 2 * 2 * 196 * 512 * 12 * 512  # its linear layers: 12 · 512² multiplications a token and block
    stem = 2 * 9 * (112 * 112) * (3 * 32 + 32 * 32 + 32 * 64 + 64 * 64)
    assert spatial + stem < forward < 6 * (spatial + stem)


@pytest.mark.parametrize("name", ["leakage", "reselection"])
def test_the_page_has_the_figures(name):
    table = importlib.import_module(f"benchmarks.{name}").table
    docs = Path(__file__).parents[1] / "docs"
    header, _, *rows = table(json.loads((docs / f"{name}.json").read_text())).strip().splitlines()
    page = (docs / "benchmarks.md").read_text().splitlines()
    assert [row for row in (header, *rows) if row not in page] == []


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
    script = ROOT / "examples" / "stream.py"
    done = subprocess.run([sys.executable, str(script), "--steps", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "whole clip at once: the same labels" in done.stdout


def test_examples_of_the_au_prior():
    script = ROOT / "examples" / "au_prior.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("loss after three steps") == 3
