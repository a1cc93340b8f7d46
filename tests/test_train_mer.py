"""The training script for micro-expressions, from the table to the scores, and what can happen on the way."""

import contextlib
import importlib.util
import json
import random
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from ranks import alone, torchrun

import mertools as mt
from mertools import _files as files

SCRIPT = Path(__file__).parents[1] / "examples" / "train_mer.py"
spec = importlib.util.spec_from_file_location("train_mer", SCRIPT)
train_mer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(train_mer)


TWO_ON_CPUS = mt.Processes(0, 2, torch.device("cpu"))


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return mt.synthetic_dataset(tmp_path_factory.mktemp("data") / "people", subjects=3, clips=2, size=32, num_frames=32)


def command(people, out, *more):
    return [
        "--table", people.table, "--frames", people.frames, "--protocol", "megc2019", "--out", out, "--size", "32",
        "--dims", "4", "8", "12", "16", "--hidden", "16", "--epochs", "3", "--batch-size", "6", "--drop-path", "0",
        "--padding", "2", "--lr", "3e-3", "--weight-decay", "0.05", "--device", "cpu", *more,
    ]  # fmt: skip


def run(people, out, *more):
    return train_mer.main(list(map(str, command(people, out, *more))))


def results(out):
    names = ("scores.json", "predictions.csv", "subjects.csv")
    logs = sorted(path for path in out.rglob("log.jsonl"))
    return {name: (out / name).read_text() for name in names} | {str(p.relative_to(out)): p.read_text() for p in logs}


@pytest.fixture(scope="module")
def reference(people, tmp_path_factory):
    """One process, not disturbed."""
    out = tmp_path_factory.mktemp("reference") / "run"
    done = alone(SCRIPT, *command(people, out))
    assert done.returncode == 0, done.stderr
    return out


def losses(out):
    return [
        json.loads(line)["loss"] for path in sorted(out.rglob("log.jsonl")) for line in path.read_text().splitlines()
    ]


def test_what_a_run_leaves(people, reference):
    scores = json.loads((reference / "scores.json").read_text())
    assert scores["clips"] == 18
    assert scores["subjects"] == 3
    assert scores["folds"] == 3
    assert scores["selection"] == "last of 3 epochs"
    assert scores["protocol"] == "megc2019"
    book = mt.ScoreBook.read_csv(reference / "predictions.csv", classes=("negative", "positive", "surprise"))
    assert book.uf1() == pytest.approx(scores["uf1"], abs=1e-9)
    assert all(row.fold == row.subject for row in book)
    assert sorted(path.name for path in reference.iterdir()) == [
        "confusion.png", "folds", "predictions.csv", "scores.json", "settings.json", "subjects.csv",
    ]  # fmt: skip
    assert sorted(path.name for path in (reference / "folds" / "01").iterdir()) == ["log.jsonl", "predictions.json"]
    assert len(losses(reference)) == 9


def test_one_fold_over_several_processes_needs_gpus(people, tmp_path, monkeypatch):
    monkeypatch.setattr(mt, "join_processes", lambda *_, **__: contextlib.nullcontext(TWO_ON_CPUS))
    with pytest.raises(ValueError, match="--folds-per-rank must be given with several processes on CPUs"):
        run(people, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_folds_spread_over_two_processes_give_the_same_files(people, reference, tmp_path):
    done = torchrun(SCRIPT, *command(people, tmp_path / "run", "--folds-per-rank"))
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "run") == results(reference)


@pytest.mark.slow
def test_killed_and_resumed_ends_in_the_same_files(people, reference, tmp_path):
    words = command(people, tmp_path / "run", "--resume")
    draw = random.Random(time.time_ns())
    for first, last in ((3, 10), (1, 8)):  # of the 26 times that a run of its length waits for the disk
        moment = draw.randint(first, last)
        killed = alone(SCRIPT, *words, kill_at=moment)
        assert killed.returncode == -signal.SIGKILL, (moment, killed.stderr)
    done = alone(SCRIPT, *words)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "run") == results(reference)


def test_other_settings_are_not_a_resumption(people, reference):
    with pytest.raises(FileExistsError, match="holds a run"):
        run(people, reference)
    with pytest.raises(ValueError, match=r"other settings: lr was 0\.003, now 0\.1"):
        run(people, reference, "--resume", "--lr", "0.1")


def test_the_held_out_subject_decides_nothing(people, tmp_path):
    """Other labels for the held-out subject's clips: other scores, but the same weights."""
    lines = Path(people.table).read_text().splitlines()
    swap = {"happiness": "surprise", "surprise": "disgust", "disgust": "happiness"}
    for i, line in enumerate(lines):
        if line.startswith("02,"):
            *cells, label = line.split(",")
            lines[i] = ",".join([*cells, swap[label]])
    other = tmp_path / "other.csv"
    other.write_text("\n".join(lines) + "\n")
    for select in ("last", "inner"):
        found = []
        for name, table in (("a", people.table), ("b", other)):
            out = tmp_path / f"{select}-{name}"
            run(people._replace(table=table), out, "--weights", "pt", "--select", select, "--epochs", "2")
            found.append(mt.load_weights(out / "folds" / "02" / "weights.pt"))
        assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_an_epoch_chosen_on_the_test_clips_is_named_in_every_output(people, tmp_path, capsys):
    scores = run(people, tmp_path / "run", "--select-on-test", "--epochs", "2", "--weights", "pt")
    assert scores["selection"] == "selected on test"
    assert "selected on test" in capsys.readouterr().out
    told = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and path.name != "confusion.png"]
    weights = [path for path in told if path.suffix == ".pt"]
    assert {path.name for path in weights} == {"weights-selected-on-test.pt"}
    told = [path for path in told if path not in weights]
    for path in told:
        text = path.read_text()
        assert "selected on test" in text or ("select_on_test" in text and path.name == "settings.json"), path
    assert len(told) == 4 + 3 * 2


def test_the_epoch_of_an_inner_split(people, tmp_path, monkeypatch):
    asked = []
    predict = train_mer.predict

    def watch(args, model, data, indices, fold, here):
        asked.append((fold, [data.clips.subjects[i] for i in indices]))
        return predict(args, model, data, indices, fold, here)

    monkeypatch.setattr(train_mer, "predict", watch)
    scores = run(people, tmp_path / "run", "--select", "inner", "--epochs", "2", "--ema", "0.5")
    assert scores["selection"] == "inner split of the training subjects"
    for number, (fold, subjects) in enumerate(asked):
        last = number % 3 == 2
        assert (fold in subjects) == last
        assert set(subjects) == {fold} if last else len(set(subjects)) == 1


def test_a_loss_that_is_not_finite_stops_the_run(people, tmp_path, monkeypatch):
    calls = []
    losses_of = train_mer.clip_losses

    def poisoned(*args):
        calls.append(1)
        return losses_of(*args) * (
            float("nan") if len(calls) > 8 else 1
        )  # two branches of two batches: the third epoch

    monkeypatch.setattr(train_mer, "clip_losses", poisoned)
    with pytest.raises(FloatingPointError, match=r"the loss is \[nan, .* for clips \['0[23]/EP0.*lower --lr"):
        run(people, tmp_path / "run")
    fold = mt.RunFolder(tmp_path / "run").fold("01")
    state = fold.load()
    assert state["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    monkeypatch.setattr(train_mer, "clip_losses", losses_of)
    assert run(people, tmp_path / "run", "--resume")["clips"] == 18


class NoGradient(torch.autograd.Function):
    """A finite loss whose gradient is not."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


def test_weights_that_are_not_finite_do_not_replace_the_checkpoint(people, tmp_path, monkeypatch):
    calls = []
    losses_of = train_mer.clip_losses

    def poisoned(*args):
        calls.append(1)
        found = losses_of(*args)
        return NoGradient.apply(found) if len(calls) == 8 else found  # in the last step of the second epoch

    monkeypatch.setattr(train_mer, "clip_losses", poisoned)
    with pytest.raises(FloatingPointError, match=r"weights are not finite after epoch 1, .*lower --lr"):
        run(people, tmp_path / "run")
    state = mt.RunFolder(tmp_path / "run").fold("01").load()
    assert state["epoch"] == 0
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_logits_that_are_not_finite_are_no_prediction(people, tmp_path):
    args = train_mer.arguments(list(map(str, command(people, tmp_path))))
    data = train_mer.Clips(args)
    model = train_mer.build(args, 3)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="must be logits without NaN"):
        train_mer.predict(args, model, data, [0, 1], "01", mt.Processes(0, 1, torch.device("cpu")))


def test_a_full_disk_leaves_the_last_checkpoint(people, tmp_path, monkeypatch):
    def full(handle):
        if (tmp_path / "run/folds/01/log.jsonl").exists() and len(losses(tmp_path / "run")) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*01.checkpoint\.pt"):
        run(people, tmp_path / "run")
    monkeypatch.undo()
    assert mt.RunFolder(tmp_path / "run").fold("01").load()["epoch"] == 0
    assert run(people, tmp_path / "run", "--resume")["clips"] == 18


def test_a_class_without_training_clips(people, tmp_path):
    lines = Path(people.table).read_text().splitlines()
    table = tmp_path / "t.csv"
    table.write_text("\n".join(x for x in lines if "surprise" not in x or x.startswith("03,")) + "\n")
    with pytest.raises(ValueError, match=r"surprise"):
        run(people._replace(table=table), tmp_path / "run")


@pytest.mark.parametrize(
    "settings",
    [
        ("--model", "tsfmicro", "--au", "none", "--class-weights", "--schedule", "cosine"),
        ("--au", "labels", "--precision", "bfloat16", "--accumulate", "2", "--workers", "1"),
        ("--folds", "5", "--reselect", "always", "--selector", "refine", "--weights", "safetensors"),
    ],
)
def test_other_settings(people, tmp_path, settings):
    if settings[1] == "5":
        people = mt.synthetic_dataset(tmp_path / "five", subjects=5, clips=1, size=32, num_frames=32)
    scores = run(people, tmp_path / "run", "--epochs", "1", *settings)
    assert scores["clips"] in (15, 18)
    assert 0 <= scores["uf1"] <= 1


def test_accumulated_batches_weigh_every_clip_alike(people, tmp_path, monkeypatch):
    """Without batch norm's statistics in the way, two batches of 6 to a step are one of 12."""
    monkeypatch.setattr(train_mer, "build", lambda args, e: mt.TwoBranch(Plain(e)))
    found = []
    for name, more in (("a", ("--batch-size", "12")), ("b", ("--batch-size", "6", "--accumulate", "2"))):
        run(people, tmp_path / name, "--weights", "pt", "--epochs", "2", *more)
        found.append(mt.load_weights(tmp_path / name / "folds" / "01" / "weights.pt"))
    for key in found[0]:
        torch.testing.assert_close(found[0][key], found[1][key], rtol=1e-4, atol=1e-6)


class Plain(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = torch.nn.Linear(3 * 8 * 8, num_classes)

    def forward(self, static, motion):
        return self.fc(torch.nn.functional.adaptive_avg_pool2d(static + 5 * motion, 8).flatten(1))


def test_a_table_without_action_units(people, tmp_path):
    lines = Path(people.table).read_text().splitlines()
    table = tmp_path / "t.csv"
    table.write_text("\n".join([lines[0], *(",".join([*x.split(",")[:5], "", x.split(",")[6]]) for x in lines[1:])]))
    with pytest.raises(ValueError, match="--au must be none: .* names no action units"):
        run(people._replace(table=table), tmp_path / "run")


def second_dataset(root):
    """Other subjects, their table and folders as SAMM's are: a subject 01 of another dataset is another person."""
    made = mt.synthetic_dataset(root, subjects=2, clips=2, size=32, num_frames=32, seed=1)
    header, *rows = Path(made.table).read_text().splitlines()
    header = "Subject,Filename,Onset Frame,Apex Frame,Offset Frame,Action Units,Estimated Emotion"
    table = root / "samm.csv"
    table.write_text("\n".join([*["-,,,,,,"] * 13, header, *(f"0{row}" for row in rows)]) + "\n")
    for folder in made.frames.iterdir():
        folder.rename(folder.with_name(folder.name.replace("sub", "0")))
    return made._replace(table=table, dataset="samm")


def test_a_composite_of_two_datasets(people, tmp_path):
    other = second_dataset(tmp_path / "samm")
    words = command(people, tmp_path / "run", "--folds", "lodo", "--epochs", "1", "--model", "tsfmicro")
    words += ["--table", people.table, other.table, "--frames", people.frames, other.frames]
    words = list(map(str, [*words, "--dataset", "casme2", "samm"]))
    args = train_mer.arguments(words)
    data = train_mer.Clips(args)
    folds = train_mer.named_folds(args, data.clips)
    assert {name: len(fold.test) for name, fold in folds.items()} == {"casme2": 18, "samm": 12}
    assert len(train_mer.named_folds(train_mer.arguments([*words, "--folds", "loso"]), data.clips)) == 5
    assert {Path(folder.path).parents[1] for folder in data.plain._folders} == {people.frames, other.frames}
    scores = train_mer.main(words)
    assert scores["clips"] == 30
    assert scores["subjects"] == 5
    book = mt.ScoreBook.read_csv(tmp_path / "run" / "predictions.csv", classes=data.clips.classes)
    assert set(book.per("dataset")) == set(book.per("fold")) == {"casme2", "samm"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dataset", "casme2", "samm"), "--table, --dataset and --frames must be equally many, got 1, 2 and 1"),
        (("--accumulate", "0"), "--accumulate must be at least 1, got 0"),
        (("--checkpoint-every", "0"), "--checkpoint-every must be at least 1, got 0"),
        (("--ema", "1"), r"--ema must lie in \[0, 1\), got 1.0"),
    ],
)
def test_settings_out_of_range(people, tmp_path, capsys, words, message):
    with pytest.raises(SystemExit):
        run(people, tmp_path / "run", *words)
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_another_table_of_the_same_name_is_not_a_resumption(people, tmp_path, monkeypatch):
    table = tmp_path / "t.csv"
    table.write_text(Path(people.table).read_text())
    monkeypatch.setattr(train_mer, "train_fold", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(people._replace(table=table), tmp_path / "run")
    table.write_text(table.read_text().replace("surprise", "disgust", 1))
    with pytest.raises(ValueError, match="other settings: table_crc32 was"):
        run(people._replace(table=table), tmp_path / "run", "--resume")


def test_frames_are_needed_with_a_table(people, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train_mer.main(["--table", str(people.table), "--out", str(tmp_path / "run")])
    assert "--frames is needed" in capsys.readouterr().err


def test_without_a_table_subjects_are_synthetic(tmp_path):
    """The settings of a first try, cut short."""
    args = train_mer.arguments(["--out", str(tmp_path)])
    assert (args.protocol, args.size, args.epochs) == ("megc2019", 64, 30)
    assert train_mer.arguments(["--out", "x", "--epochs", "7"]).epochs == 7
