"""For mkdocs: pages that are made from what the repository holds, and links.

- a reference page for every room of the package, from the imports of ``mertools/__init__.py``;
- the notebooks as pages, with what they showed when they were last run (`make notebooks`);
- pictures that open at full size, and the roles of docstrings as links.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from reference_pages import public_names, reference_pages

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference, and a page and its pictures for each notebook."""
    for room, text in reference_pages().items():
        files.append(File.generated(config, f"reference/{room}.md", content=text))
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        name = f"notebooks/{path.stem}"
        text, pictures = as_page(json.loads(path.read_text()), path.stem)
        files.append(File.generated(config, f"{name}.md", content=text))
        files.append(File.generated(config, f"{name}.ipynb", content=path.read_text()))
        for number, picture in enumerate(pictures):
            files.append(File.generated(config, f"{name}-{number}.png", content=picture))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Roles of docstrings (``:func:`name```) link to the name's entry; a picture opens at full size."""
    rooms = {name: room for room, names in public_names().items() for name in names}
    here = page.file.src_uri.removeprefix("reference/").removesuffix(".md")

    def link(found: re.Match[str]) -> str:
        name = found[1].removeprefix("~").removeprefix("mertools.")
        code, room = f"<code>{name}</code>", rooms.get(name.partition(".")[0])
        if room is None or not page.file.src_uri.startswith("reference/"):
            return code
        return f'<a href="{"" if room == here else f"{room}.html"}#mertools.{name}">{code}</a>'

    html = re.sub(r":(?:func|class|meth):<code>([~\w.]+)</code>", link, html)
    return re.sub(r'(<img [^>]*?src="([^"]+)"[^>]*>)(?!</a>)', r'<a class="enlarge" href="\2">\1</a>', html)


def colab(stem: str) -> list[str]:
    """A link that opens a notebook on Colab, once pyproject.toml has an address on GitHub."""
    found = re.search(
        r'^Repository = "https://github.com/(.+?)/?"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    notebook = f"blob/main/notebooks/{stem}.ipynb"
    return [f"[Open in Colab](https://colab.research.google.com/github/{found[1]}/{notebook})"] if found else []


def as_page(notebook: dict[str, Any], stem: str) -> tuple[str, list[bytes]]:
    """Markdown of a notebook, and its pictures in order."""
    parts: list[str] = []
    pictures: list[bytes] = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            if len(parts) == 1:
                parts.append(" · ".join([f"[Download this page as a notebook]({stem}.ipynb)", *colab(stem)]))
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
