"""The reference: a page for each room of the package, from the imports of ``mertools/__init__.py``."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "mertools"
TITLES = {
    "keyframes": "Key frames", "spotting": "Spotting", "action_units": "Action units",
    "retention": "Retention", "layers": "Layers",
    "models": "Models and files", "clips": "Clips", "annotations": "Annotations", "audit": "Audit",
    "evaluation": "Scores and folds", "training": "Training runs", "plots": "Figures",
}  # fmt: skip


def public_names() -> dict[str, list[str]]:
    """The public names of each room, in the order in which the room's docstring names their files."""
    ranked: dict[str, list[tuple[int, str]]] = {}
    for node in ast.parse((PACKAGE / "__init__.py").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            _, room, *file = str(node.module).split(".")
            place = description(room).find(f"{file[0]}.py") if file else 0
            ranked.setdefault(room, []).extend((place % 10_000, alias.name) for alias in node.names)  # not named: last
    return {room: [name for _, name in sorted(names, key=lambda pair: pair[0])] for room, names in ranked.items()}


def description(room: str) -> str:
    """What a room, or a file beside the rooms, says about itself."""
    inside = PACKAGE / room / "__init__.py"
    return ast.get_docstring(ast.parse((inside if inside.exists() else PACKAGE / f"{room}.py").read_text())) or ""


def reference_pages() -> dict[str, str]:
    """Markdown of the reference, a page a room."""
    pages = {}
    for room, names in public_names().items():
        about = re.sub(r"``(.+?)``", r"`\1`", description(room))
        entries = "\n\n".join(f"::: mertools.{name}" for name in names)
        pages[room] = f"---\nsearch:\n  boost: 2\n---\n\n# {TITLES[room]}\n\n{about}\n\n{entries}\n"
    return pages
