"""The figures on the page are those of the records."""

from pathlib import Path

import pytest

from reliability.tables import load, mutants_table, properties_table

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_the_page_says_how_many_examples_were_tried():
    record = load("properties")
    assert properties_table(record) in PAGE
    groups = {path.stem.removeprefix("test_properties_") for path in (ROOT / "tests").glob("test_properties_*.py")}
    assert set(record["groups"]) == groups
    for group, numbers in record["groups"].items():
        text = (ROOT / "tests" / f"test_properties_{group}.py").read_text(encoding="utf-8")
        assert numbers["properties"] == text.count("@given("), f"python -m reliability.properties {group}"
        assert numbers["failed"] == 0


def test_the_page_says_how_many_mutants_were_killed():
    record, equivalent = load("mutants"), load("mutants_equivalent")
    assert mutants_table(record, equivalent) in PAGE
    for numbers in record["files"].values():
        assert numbers["killed"] + len(numbers["lived"]) == numbers["mutants"]
        for key in ("mutants", "killed"):
            assert numbers["code"][key] + numbers["strings"][key] == numbers[key]
    for name, reasons in equivalent.items():
        alive = {mutant["key"] for mutant in record["files"][name]["lived"]}
        assert set(reasons) <= alive, f"{name}: killed after all, so not equivalent: {set(reasons) - alive}"
        assert all(reasons.values())


@pytest.mark.parametrize("name", load("mutants")["files"])
def test_tests_notice_what_they_are_meant_to(name):
    numbers = load("mutants")["files"][name]
    assert numbers["killed"] >= 0.85 * numbers["mutants"]


def test_together_they_notice_as_much():
    files = load("mutants")["files"].values()
    assert sum(found["killed"] for found in files) >= 0.85 * sum(found["mutants"] for found in files)
