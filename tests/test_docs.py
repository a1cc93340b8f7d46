"""Every Python and shell block of the README and the docs runs, in order, page by page, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mertools as mt

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page):
    """Language and text of each block that can be run."""
    return re.findall(r"^```(python|sh)\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def name_of(page):
    return str(page.relative_to(ROOT)).removeprefix("docs/")


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=name_of)
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")  # shell blocks speak from the repository's folder
    path = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    namespace = {}
    for language, block in blocks(page):
        if language == "sh":
            done = subprocess.run(["sh", "-ec", block], env=path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{block}\n{done.stderr}"
        else:
            if "export_onnx" in block:
                pytest.importorskip("onnxscript")  # an extra that needs a newer PyTorch than the rest
            exec(compile(block, page.name, "exec"), namespace)


def test_there_are_blocks_to_run():
    assert sum(len(blocks(page)) for page in PAGES) >= 40


def test_no_block_is_left_out_by_its_name():
    """Languages that are not run: differences, output and formulas (text), and the plain blocks of an installation."""
    for page in PAGES:
        languages = set(re.findall(r"^```(\w+)\n", page.read_text(), flags=re.MULTILINE))
        assert languages <= {"python", "sh", "diff", "text", "bibtex"}, page.name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pictures_are_there(page):
    """In a clone, what is not committed is missing; the builder of the site only remarks on it."""
    for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text()):
        link = link.partition("#")[0]
        assert link.startswith("http") or (page.parent / link).exists(), link
        twin = link.replace("-light.", "-dark.") if "-light." in link else link.replace("-dark.", "-light.")
        assert link.startswith("http") or (page.parent / twin).exists(), f"{link} has no twin for the other scheme"


def test_every_page_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES[1:]:
        assert name_of(page) in nav, f"{name_of(page)} is not in mkdocs.yml"


def test_the_reference_has_every_public_name_once(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    from reference_pages import reference_pages

    pages, nav = reference_pages(), (ROOT / "mkdocs.yml").read_text()
    listed = re.findall(r"^::: mertools\.(\w+)$", "\n".join(pages.values()), flags=re.MULTILINE)
    assert sorted(listed) == sorted(name for name in mt.__all__ if not name.startswith("__"))
    assert [room for room in pages if f"reference/{room}.md" not in nav] == []


def test_llms_txt_has_every_page():
    listed = re.findall(r"\]\(([^)]+)\.html\)", (ROOT / "docs" / "llms.txt").read_text())
    assert sorted(listed) == sorted(re.findall(r": (\S+)\.md", (ROOT / "mkdocs.yml").read_text()))


def test_drawings_are_those_of_their_script(tmp_path, monkeypatch):
    """The map of the package is drawn from its imports: `make figures` after a file was added or moved."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    import drawings

    drawings.write(tmp_path)
    for path in tmp_path.iterdir():
        assert (ROOT / "docs" / "figures" / path.name).read_text() == path.read_text(), path.name
