"""The house: rooms that import downwards only, without circles, each small enough to be seen through."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mertools"
# Lowest first; rooms on one floor know nothing of one another.
FLOORS = (
    ("_checks", "_files", "_text"),
    ("clips", "layers", "movement"),
    ("keyframes", "action_units", "retention"),
    ("annotations", "models", "spotting"),
    ("audit", "evaluation"),
    ("training",),
    ("plots", "cli", "__init__", "__main__"),
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imported(path):
    """Modules of the package that a file imports, wherever in it: in functions and for types alone as well."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            if node.module == "mertools":
                found |= {alias.name if (PACKAGE / f"{alias.name}.py").exists() else "__init__" for alias in node.names}
            elif (node.module or "").startswith("mertools."):
                name = node.module.removeprefix("mertools.")
                inside = PACKAGE.joinpath(*name.split("."))
                found |= {f"{name}.{alias.name}" for alias in node.names} if inside.is_dir() else {name}
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("mertools.") for alias in node.names if alias.name.startswith("mertools.")
            }
    return found


GRAPH = {module_name(path): imported(path) for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("module", GRAPH)
def test_imports_go_downwards(module):
    room = module.split(".")[0]
    for target in GRAPH[module]:
        other = target.split(".")[0]
        assert other == room or FLOOR[other] < FLOOR[room] or room in ("plots", "cli", "__init__", "__main__"), (
            f"{module} imports {target}, which stands beside it or above"
        )


def test_there_is_no_circle():
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_every_room_has_its_floor():
    assert {*ROOMS, *(path.stem for path in PACKAGE.glob("*.py"))} == set(FLOOR)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_small_and_says_what_it_is_for(room):
    files = [path for path in (PACKAGE / room).glob("*.py") if path.stem != "__init__"]
    assert 1 < len(files) <= 8
    (sign,) = ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8")).body  # it defines nothing
    words = sign.value.value
    assert 3 <= len(words.strip().splitlines()) <= 10
    for name in [word.strip("`.,:;()") for word in words.split() if ".py" in word]:
        assert (PACKAGE / room / name).exists(), f"{room}/__init__.py names {name}, which is not there"


def test_tests_stand_in_the_room_of_what_they_test():
    tests = Path(__file__).parent
    for folder in (path for path in tests.iterdir() if path.is_dir() and path.name in ROOMS):
        for path in folder.glob("test_*.py"):
            assert (PACKAGE / folder.name / f"{path.stem.removeprefix('test_')}.py").exists(), path
