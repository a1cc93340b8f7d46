"""What a release says of itself: one version, files that name it, tools pinned once."""

import importlib.util
import re
import shutil
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


def release():
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_release_is_refused_until_it_says_what_it_is(tmp_path):
    for name in ("CHANGELOG.md", "CITATION.cff", "README.md", "mertools/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)

    def said(status="", tag=""):
        return release().complaints(tmp_path, lambda *words: status if words[0] == "status" else tag)

    changes = tmp_path / "CHANGELOG.md"
    dated = f"## [{mt.__version__}] - 2027-01-31"
    changes.write_text(re.sub(r"^## .*", dated, changes.read_text(), count=1, flags=re.MULTILINE))
    assert said() == []
    changes.write_text(changes.read_text().replace(dated, "## [Unreleased]"))
    (wrong,) = said()
    assert f"must begin with '## [{mt.__version__}] - YYYY-MM-DD', it begins with '## [Unreleased]'" in wrong
    assert said(status=" M README.md")[1] == "1 files are not committed: README.md, ..."
    assert "there is a tag v" in said(tag=f"v{mt.__version__}")[1]
    for name in ("CITATION.cff", "README.md"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace(mt.__version__, "9.9.9"))
        assert name in said()[1]
        (tmp_path / name).write_text(text)


def test_a_release_uploads_nothing():
    recipe = (ROOT / "Makefile").read_text().split("release: ")[1].split("\n\n")[0]
    assert "twine" not in recipe
    assert "push" not in recipe
    assert "check" in recipe


def test_ci_calls_the_script_and_pins_what_make_pins():
    file = ROOT / ".github" / "workflows" / "ci.yml"
    if not file.exists():
        pytest.skip("an sdist has no workflows")
    jobs = yaml.safe_load(file.read_text())["jobs"]
    assert ".ci/run" in [step.get("run") for step in jobs["check"]["steps"]]
    matrix = jobs["tests"]["strategy"]["matrix"]
    assert matrix["os"] == ["macos-latest", "windows-latest"]
    named = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert set(named) <= set(matrix["python"]) == {"3.10", "3.11", "3.12", "3.13"}
    steps = [step["run"] for step in jobs["tests"]["steps"] if "run" in step]
    assert steps[0] == 'python -m pip install --constraint constraints.txt --editable ".[dev]"'
    assert steps[1].removeprefix("python -m ") in (ROOT / "Makefile").read_text()
