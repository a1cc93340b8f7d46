"""Run the notebooks in place, each in a fresh kernel, and keep what they show: `make notebooks`.

The first code cell of each installs mertools where it is missing, as on Colab, from the repository's address. The
address has one place, ``[project.urls]`` in pyproject.toml; the cell is written from there.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

HERE = Path(__file__).parent
SETUP = '''# Installs mertools where it is missing, as on Colab.
import importlib.util

REPOSITORY = "{address}"
if importlib.util.find_spec("mertools") is None:
    if not REPOSITORY:
        raise ModuleNotFoundError("mertools is missing and has no public address yet: install it from a clone")
    %pip install --quiet "mertools[plot] @ git+{{REPOSITORY}}"'''


def address() -> str:
    """The repository's address in pyproject.toml, or nothing."""
    found = re.search(r'^Repository = "(.+)"', (HERE.parent / "pyproject.toml").read_text(), re.MULTILINE)
    return found[1] if found else ""


def set_up(notebook: nbformat.NotebookNode) -> None:
    """Write the first code cell anew, or put one in front."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if not cells[0].source.startswith(SETUP.partition("\n")[0]):
        cells[0:0] = [nbformat.v4.new_code_cell()]
        notebook.cells.insert(1, cells[0])  # below the title
    cells[0].source = SETUP.format(address=address())


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook with its cells run in order.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    set_up(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    # Not over TCP where there is something else: on a busy machine another process may take the port first.
    config = Config(KernelManager={"transport": "tcp" if os.name == "nt" else "ipc"})
    NotebookClient(notebook, timeout=300, startup_timeout=300, kernel_name="python3", config=config).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def main() -> int:
    """Run all of them, or those named."""
    for path in [Path(name) for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        text = nbformat.writes(executed(path), indent=1)
        path.write_text(text if text.endswith("\n") else text + "\n")
        print(path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
