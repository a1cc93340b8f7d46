"""The notebooks run, in order, in a fresh kernel, and say what they said when they were kept."""

import json
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def said(notebook):
    """Text of each code cell's output, and how many pictures."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [
        (
            "".join("".join(output.get("text", "")) for output in cell["outputs"]),
            sum("image/png" in output.get("data", {}) for output in cell["outputs"]),
        )
        for cell in cells
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_says_the_same(path):
    fresh = runpy.run_path(str(FOLDER / "run.py"))["executed"](path)
    kept = said(json.loads(path.read_text()))
    assert [pictures for _, pictures in said(fresh)] == [pictures for _, pictures in kept]
    for (now, _), (then, _) in zip(said(fresh), kept, strict=True):
        assert now.split("recall")[0] == then.split("recall")[0]  # trained numbers differ in a digit between machines


def test_there_are_three_and_they_were_run():
    assert [path.stem for path in NOTEBOOKS] == ["au_prior", "key_frames", "tsfmicro"]
    for path in NOTEBOOKS:
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), path.name
        assert sum(pictures for _, pictures in said({"cells": cells})) >= 1, path.name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cell_installs_from_the_one_address(path):
    """On Colab mertools is missing; the address has its one place in pyproject.toml."""
    run = runpy.run_path(str(FOLDER / "run.py"))
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert "".join(cells[0]["source"]) == run["SETUP"].format(address=run["address"]())
    assert 'REPOSITORY = "https://x/y"' in run["SETUP"].format(address="https://x/y")
    assert '%pip install --quiet "mertools[plot] @ git+{REPOSITORY}"' in run["SETUP"].format(address="")


def test_the_first_cell_says_so_where_there_is_no_address_yet(monkeypatch):
    source = runpy.run_path(str(FOLDER / "run.py"))["SETUP"].format(address="")
    python = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith("%"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="no public address yet"):
        exec(python, {})
    monkeypatch.undo()
    exec(python, {})  # it is installed here: nothing happens
