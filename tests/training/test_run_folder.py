import csv
import json

import numpy as np
import pytest
import torch

import mertools as mt


def book(selection="last of 3 epochs"):
    found = mt.ScoreBook(("a", "b"), selection=selection)
    found.add([0, 1, 1], [0, 1, 0], clips=["x", "y", "z"], subjects=["s1", "s1", "s2"], fold="s1")
    return found


def test_another_run_is_not_written_over(tmp_path):
    run = mt.RunFolder(tmp_path / "run")
    run.begin({"lr": 0.1, "dims": (1, 2)})
    with pytest.raises(FileExistsError, match=r"holds a run: resume it \(--resume\) or choose another folder"):
        run.begin({"lr": 0.1, "dims": (1, 2)})
    run.begin({"lr": 0.1, "dims": (1, 2)}, resume=True)
    with pytest.raises(ValueError, match=r"other settings: dims was \[1, 2\], now None; lr was 0\.1, now 0\.2"):
        run.begin({"lr": 0.2}, resume=True)
    (run.path / "settings.json").write_text("[")
    with pytest.raises(ValueError, match="can't be read as JSON"):
        run.begin({"lr": 0.1}, resume=True)


def test_a_fold_from_first_to_last(tmp_path):
    run = mt.RunFolder(tmp_path / "run")
    run.begin({}, resume=True)  # there is nothing to resume: a job script may always say --resume
    fold = run.fold("casme2/01 ü")
    assert fold.path.parent == tmp_path / "run" / "folds"
    assert fold.load() is None
    assert not fold.done
    for epoch in range(3):
        fold.log(epoch=epoch, loss=0.5)
        fold.save({"epoch": epoch})
    assert fold.load() == {"epoch": 2}
    fold.finish(book())
    assert fold.done
    assert fold.load() is None
    assert fold.book() == book()


def test_what_kills_left_is_removed_on_resumption(tmp_path):
    run = mt.RunFolder(tmp_path / "run")
    run.begin({})
    done, going_on = run.fold("s1"), run.fold("s2")
    done.finish(book())
    done.save({"epoch": 2})  # killed between the predictions and the removal of the checkpoint
    going_on.save({"epoch": 1})
    (going_on.path / ".checkpoint.pt-0123456789abcdef.part").write_bytes(b"half")
    run.begin({}, resume=True)
    assert [path.name for path in done.path.iterdir()] == ["predictions.json"]
    assert [path.name for path in going_on.path.iterdir()] == ["checkpoint.pt"]
    assert going_on.load() == {"epoch": 1}


@pytest.mark.parametrize("resume", [False, True])
def test_folds_without_their_settings_are_not_pooled_with_others(tmp_path, resume):
    run = mt.RunFolder(tmp_path / "run")
    run.begin({"lr": 0.1})
    run.fold("s1").finish(book())
    (run.path / "settings.json").unlink()
    with pytest.raises(FileExistsError, match=r"folds of a run whose settings\.json is gone"):
        run.begin({"lr": 0.2}, resume=resume)


def test_folds_of_like_names_have_folders_of_their_own(tmp_path):
    run = mt.RunFolder(tmp_path)
    names = ["a/b", "a-b", "a%2Fb", "..", "A b", ""]
    folders = {run.fold(name).path for name in names[:5]}
    assert len(folders) == 5
    assert all(folder.parent == tmp_path / "folds" for folder in folders)
    with pytest.raises(ValueError, match="name of a fold must not be empty"):
        run.fold("")


def test_rewinding_drops_what_will_be_written_again(tmp_path):
    fold = mt.FoldFolder(tmp_path)
    fold.rewind(0)
    for epoch in range(4):
        fold.log(epoch=epoch)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"epoch": 4, "lo')
    fold.rewind(2)
    assert (tmp_path / "log.jsonl").read_text() == '{"epoch": 0}\n{"epoch": 1}\n'


def test_nan_does_not_go_into_the_log(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        mt.FoldFolder(tmp_path).log(loss=float("nan"))


def test_every_output_says_how_the_epoch_was_selected(tmp_path):
    run = mt.RunFolder(tmp_path / "run")
    run.begin({})
    written = run.finish(book("selected on test"), notes={"seed": 3})
    assert written["selection"] == "selected on test"
    assert written["seed"] == 3
    assert json.loads((run.path / "scores.json").read_text()) == written
    for name in ("predictions.csv", "subjects.csv"):
        with (run.path / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["selection"] for row in rows} == {"selected on test"}


def test_the_table_of_subjects(tmp_path):
    run = mt.RunFolder(tmp_path / "run")
    run.begin({})
    run.finish(book())
    with (run.path / "subjects.csv").open(newline="") as file:
        rows = {row["subject"]: row for row in csv.DictReader(file)}
    assert rows["s1"]["clips"] == "2"
    assert float(rows["s1"]["war"]) == 1
    assert float(rows["s2"]["war"]) == 0


def test_numbers_of_numpy_and_of_torch_are_plain_values(tmp_path):
    run = mt.RunFolder(tmp_path / "run")
    run.begin({"seed": np.int64(3), "lr": torch.tensor(0.5)})
    run.begin({"seed": 3, "lr": 0.5}, resume=True)
    run.fold("s1").log(epoch=np.int32(0), loss=torch.tensor(0.25))
    assert (run.fold("s1").path / "log.jsonl").read_text() == '{"epoch": 0, "loss": 0.25}\n'
    assert run.finish(book(), notes={"seed": np.int64(3)})["seed"] == 3


def test_what_is_no_plain_value_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"must be plain values, got (Posix|Windows)Path"):
        mt.RunFolder(tmp_path / "run").begin({"out": tmp_path})
    assert not (tmp_path / "run").exists()
