import json
import subprocess
import sys

import pytest

from mertools.audit.journal import Journal

SURE = {
    "keys": [1, 2, 3], "estimate": [1, 2, 4], "evidence": 0.75, "spread": [1.0, 0.0, 1.25],
    "intervals": [[0, 2], [1, 3], [2, 5]], "plateau": [2, 2],
}  # fmt: skip


def test_how_sure_a_search_was_is_there_again_to_the_last_digit(tmp_path):
    entry = {"annotated": [1, 2, 3], "robust": SURE | {"evidence": 0.1 + 0.2}}
    with Journal(tmp_path / "work", "a") as journal:
        journal.add(3, entry)
    with Journal(tmp_path / "work", "a") as journal:
        assert journal.done == {3: entry}


@pytest.mark.parametrize(
    "change",
    [
        {"keys": [1, 2]}, {"keys": [1.0, 2, 3]}, {"estimate": None}, {"evidence": 1}, {"evidence": float("nan")},
        {"evidence": None}, {"spread": [1.0, 2.0]}, {"spread": [1, 2, 3]}, {"intervals": [[0, 2], [1, 3]]},
        {"intervals": [[0, 2], [1, 3], 5]}, {"plateau": [1]}, {"plateau": True}, {"further": 1},
    ],
)  # fmt: skip
def test_an_entry_of_another_form_is_searched_again(tmp_path, change):
    with Journal(tmp_path / "work", "a") as journal:
        journal.add(0, {"robust": SURE})
    path = tmp_path / "work" / "journal.jsonl"
    with path.open("a") as file:
        file.write(json.dumps({"clip": 1, "robust": SURE | change}) + "\n")
        file.write(json.dumps({"clip": 2, "robust": {name: SURE[name] for name in SURE if name not in change}}) + "\n")
    with Journal(tmp_path / "work", "a") as journal:
        assert 1 not in journal.done
        assert list(journal.done) == [0, 2] if "further" in change else [0]


def test_what_was_added_is_there_again(tmp_path):
    with Journal(tmp_path / "work", "a") as journal:
        journal.add(3, {"robust": [1, 2, 3]})
        journal.add(5, {"error": "no frames"})
    with Journal(tmp_path / "work", "a") as journal:
        assert journal.done == {3: {"robust": [1, 2, 3]}, 5: {"error": "no frames"}}
        journal.finish()
    assert list(tmp_path.iterdir()) == []


def test_half_a_line_is_forgotten(tmp_path):
    with Journal(tmp_path / "work", "a") as journal:
        journal.add(3, {"robust": [1, 2, 3]})
        journal.add(4, {"robust": [1, 2, 3]})
    path = tmp_path / "work" / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    with Journal(tmp_path / "work", "a") as journal:
        assert list(journal.done) == [3]
        journal.add(4, {"robust": [4, 5, 6]})
    with Journal(tmp_path / "work", "a") as journal:
        assert journal.done[4] == {"robust": [4, 5, 6]}


@pytest.mark.parametrize("left", [0, 5, 13])
def test_a_run_killed_at_its_start(tmp_path, left):
    path = tmp_path / "work" / "journal.jsonl"
    path.parent.mkdir()
    path.write_bytes(b'{"run": "a"}\n'[:left])
    with Journal(tmp_path / "work", "b") as journal:
        assert journal.done == {}


def test_another_run_is_refused(tmp_path):
    with Journal(tmp_path / "work", "a") as journal:
        journal.add(0, {})
    with pytest.raises(ValueError, match=r"start anew \(restart=True, --restart\)"), Journal(tmp_path / "work", "b"):
        pass
    with Journal(tmp_path / "work", "a") as journal:  # and leaves no lock behind
        assert journal.done == {0: {}}
    with Journal(tmp_path / "work", "b", restart=True) as journal:
        assert journal.done == {}
        journal.add(1, {})
    with Journal(tmp_path / "work", "b") as journal:
        assert journal.done == {1: {}}


def test_a_run_that_did_nothing_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), Journal(tmp_path / "work", "a"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_are_refused(tmp_path):
    script = (
        "import sys, pathlib\nfrom mertools.audit.journal import Journal\n"
        "try:\n    Journal(pathlib.Path(sys.argv[1]), 'a').__enter__()\nexcept RuntimeError as error:\n    print(error)"
    )

    def other():
        return subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "work")], capture_output=True, text=True, check=True
        ).stdout

    with Journal(tmp_path / "work", "a"):
        said = other()
        assert "is in use by another process" in said
        assert "two runs on the same output would mix" in said
    assert other() == ""  # the lock of a process that is gone holds nobody up
