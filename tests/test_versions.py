"""What is said of versions is what was run: pyproject.toml, README and page against the record."""

import json
import re
from pathlib import Path

import pytest

from reliability import versions

ROOT = Path(__file__).parents[1]
RECORD = json.loads(versions.RECORD.read_text())
CORE = ("torch", "einops", "numpy", "opencv-python-headless", "scipy")


def project():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def lower_bounds(requirements):
    return dict(re.fullmatch(r"([\w-]+)>=([\d.]+)[^>]*", line).groups() for line in requirements)


def same(pin, bound):
    """A pin is the first release of what a bound names: 2.5.0 of 2.5."""
    return pin == bound or pin.startswith(f"{bound}.")


def test_lower_bounds_are_those_of_the_oldest_environment():
    about = project()
    extras = about["optional-dependencies"]
    needed = [line for name in ("plot", "data", "train", "hub", "notebooks") for line in extras[name]]
    bounds = lower_bounds([*about["dependencies"], *(line for line in needed if not line.startswith("mertools["))])
    pins = dict(pin.split("==") for pin in versions.ENVIRONMENTS["oldest"][1])
    assert set(CORE) <= bounds.keys() <= pins.keys()
    assert [name for name, bound in bounds.items() if not same(pins[name], bound)] == []
    of_onnx = dict(pin.split("==") for pin in versions.ENVIRONMENTS["onnx"][1] if "==" in pin)
    assert all(same(of_onnx[name], bound) for name, bound in lower_bounds(extras["onnx"]).items())


def test_the_record_is_of_these_environments():
    assert RECORD.keys() == versions.ENVIRONMENTS.keys()
    for name, (python, pins) in versions.ENVIRONMENTS.items():
        found = RECORD[name]
        assert found["python"].startswith(f"{python}.")
        assert found["failed"] == []
        assert found["counts"]["passed"] > 0
        wanted = dict(pin.split("==") for pin in pins if "==" in pin)
        assert all(
            found["versions"][package] == wanted.get(package, ours) for package, ours in found["versions"].items()
        )


def test_python_versions_are_those_that_ran():
    about = project()
    named = {line.rpartition(" ")[2] for line in about["classifiers"] if "Python :: 3." in line}
    assert named == {".".join(found["python"].split(".")[:2]) for found in RECORD.values()}
    assert about["requires-python"] == f">={versions.ENVIRONMENTS['oldest'][0]}"


@pytest.mark.parametrize("page", ["README.md", "docs/reliability.md"])
def test_pages_name_the_oldest_and_the_newest(page):
    text = (ROOT / page).read_text()
    for name in ("oldest", "newest"):
        for package in CORE:
            assert RECORD[name]["versions"][package] in text, (name, package)
        assert re.search(rf"Python {RECORD['oldest']['python']}|{RECORD['oldest']['python']}", text)


def test_the_page_has_the_counts():
    text = (ROOT / "docs" / "reliability.md").read_text()
    for name, found in RECORD.items():
        (row,) = re.findall(rf"^\| {name} \|.*$", text, re.MULTILINE)
        assert f" {found['counts']['passed']} " in row
        assert all(
            version in row for package, version in found["versions"].items() if package in CORE or name == "onnx"
        )
