"""What a release says of itself: one version, files that name it, tools pinned once."""

import re
from pathlib import Path

import pytest

import mertools as mt

ROOT = Path(__file__).parents[1]
yaml = pytest.importorskip("yaml")


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == mt.__version__
    assert f"Version {mt.__version__}." in (ROOT / "README.md").read_text()
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert headings[0] in ("Unreleased", mt.__version__)


def test_the_citation_names_the_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "license", "type"} <= citation.keys()
    numbers = {entry["value"] for paper in citation["references"] for entry in paper["identifiers"]}
    assert numbers == {"arXiv:2603.04766", "arXiv:2507.07678", "arXiv:2505.16372"}
    for paper in citation["references"]:
        assert paper["title"] in (ROOT / "README.md").read_text()


def test_hooks_run_the_tools_of_ci():
    """Hooks call what constraints.txt pins, in .venv: nothing is pinned a second time."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {"ruff", "mypy", "pytest"} <= pinned
    for hook in config["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")


def test_issue_forms_are_whole():
    if not (ROOT / ".github").exists():
        pytest.skip("an sdist has no forms")
    forms = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]
    assert len(forms) >= 4
    for path in forms:
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= form.keys(), path.name
        kinds = {"textarea", "input", "dropdown", "checkboxes", "markdown"}
        assert all(part["type"] in kinds and part["attributes"].get("label") for part in form["body"]), path.name
        identifiers = [part["id"] for part in form["body"]]
        assert len(identifiers) == len(set(identifiers)), path.name
