"""For mkdocs: the notebooks as pages, with what they showed when they were last run (`make notebooks`), and links."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page and its pictures for each notebook."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        name = f"notebooks/{path.stem}"
        text, pictures = as_page(json.loads(path.read_text()), path.stem)
        files.append(File.generated(config, f"{name}.md", content=text))
        files.append(File.generated(config, f"{name}.ipynb", content=path.read_text()))
        for number, picture in enumerate(pictures):
            files.append(File.generated(config, f"{name}-{number}.png", content=picture))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The roles of docstrings (``:func:`name```) as links to the name, where the page has it."""

    def link(found: re.Match[str]) -> str:
        name = found[1].removeprefix("~").removeprefix("mertools.")
        code = f"<code>{name}</code>"
        return f'<a href="#mertools.{name}">{code}</a>' if f'id="mertools.{name}"' in html else code

    return re.sub(r":(?:func|class|meth):<code>([~\w.]+)</code>", link, html)


def as_page(notebook: dict[str, Any], stem: str) -> tuple[str, list[bytes]]:
    """Markdown of a notebook, and its pictures in order."""
    parts: list[str] = []
    pictures: list[bytes] = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            if len(parts) == 1:
                parts.append(f"[This page as a notebook]({stem}.ipynb)")
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                parts.append(f"![Output of the cell above]({stem}-{len(pictures)}.png)")
                pictures.append(base64.b64decode(data["image/png"]))
            else:
                text = "".join(output.get("text") or data.get("text/plain", ""))
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n", pictures
