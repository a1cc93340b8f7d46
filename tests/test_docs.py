"""Every Python block of the README and the docs runs, in order, page by page."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_blocks_run(page):
    namespace = {}
    for block in blocks(page):
        exec(compile(block, page.name, "exec"), namespace)


def test_there_are_blocks_to_run():
    assert sum(len(blocks(page)) for page in PAGES) >= 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_are_there(page):
    """In a clone, what is not committed is missing; the builder of the site only remarks on it."""
    for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text()):
        assert link.startswith("http") or (page.parent / link).exists(), link
