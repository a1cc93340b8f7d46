"""What is said of versions: the oldest that are tried are the lower bounds, and the pages name them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OLDEST = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / ".ci" / "oldest.txt").read_text(), re.MULTILINE))
CORE = ("torch", "einops", "numpy", "opencv-python-headless", "scipy")


def project():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_lower_bounds_are_those_that_are_tried():
    about = project()
    extras = about["optional-dependencies"]
    needed = [
        *about["dependencies"],
        *(x for name in ("plot", "data", "train", "hub", "notebooks") for x in extras[name]),
    ]
    bounds = dict(
        re.fullmatch(r"([\w-]+)>=([\d.]+)(?:; .*)?", line).groups() for line in needed if "mertools[" not in line
    )
    assert set(CORE) <= bounds.keys() <= OLDEST.keys()
    # A pin is the first release of what a bound names: 2.5.0 of 2.5.
    assert [name for name, bound in bounds.items() if not f"{OLDEST[name]}.".startswith(f"{bound}.")] == []
    assert about["requires-python"] == ">=3.10"


@pytest.mark.parametrize("page", ["README.md", "docs/reliability.md"])
def test_pages_name_the_oldest(page):
    text = (ROOT / page).read_text()
    assert [name for name in CORE if OLDEST[name] not in text] == []
    named = {line.rpartition(" ")[2] for line in project()["classifiers"] if "Python :: 3." in line}
    assert [version for version in named if not re.search(rf"\b{re.escape(version)}\b", text)] == []
