"""The training script for DFER, from the lists to the scores."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from ranks import alone, torchrun

import mertools as mt

SCRIPT = Path(__file__).parents[1] / "examples" / "train_dfer.py"
spec = importlib.util.spec_from_file_location("train_dfer", SCRIPT)
train_dfer = importlib.util.module_from_spec(spec)
sys.modules["train_dfer"] = train_dfer  # --encoder finds its modules by name
spec.loader.exec_module(train_dfer)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "people"
    made = mt.synthetic_dataset(root, layout="dfew", subjects=5, clips=2, size=32, num_frames=32)
    # Of DFEW's seven classes three are left: the protocol's name must not promise more.
    (root / "Clip" / ".keep").touch()
    return made


@pytest.fixture(autouse=True)
def three_classes(monkeypatch):
    monkeypatch.setitem(mt.PROTOCOLS, "dfew", train_dfer.MADE_UP)


def command(people, out, *more):
    return [
        "--table", people.table, "--frames", people.frames, "--out", out, "--size", "32", "--num-frames", "5",
        "--dims", "4", "8", "12", "16", "--depth", "1", "--heads", "2", "--epochs", "2", "--batch-size", "8",
        "--padding", "2", "--device", "cpu", *more,
    ]  # fmt: skip


def run(people, out, *more):
    return train_dfer.main(list(map(str, command(people, out, *more))))


def synthetic(out, *more):
    """The script's own subjects, so that it can run as a process of its own; two folds of a short run."""
    return ["--out", out, "--size", "32", "--num-frames", "4", "--dims", "4", "8", "12", "16", "--epochs", "2",
            "--folds", "1", "2", "--device", "cpu", *more]  # fmt: skip


def results(out):
    names = ("scores.json", "predictions.csv", "folds/1/log.jsonl", "folds/2/log.jsonl")
    return {name: (out / name).read_text() for name in names}


def test_five_folds_pooled_and_on_average(people, tmp_path, capsys):
    scores = run(people, tmp_path / "run")
    assert scores["clips"] == 30
    assert scores["folds"] == 5
    book = mt.ScoreBook.read_csv(tmp_path / "run" / "predictions.csv", classes=train_dfer.MADE_UP.classes)
    folds = book.per("fold")
    assert sorted(folds) == ["1", "2", "3", "4", "5"]
    assert scores["mean_of_folds"]["uar"] == pytest.approx(sum(s.uar for s in folds.values()) / 5, abs=1e-9)
    assert book.war() == pytest.approx(scores["war"], abs=1e-9)
    assert "mean of 5 folds" in capsys.readouterr().out


ENCODER = "import torch\ndef plain():\n    return torch.nn.Conv2d(3, 8, 5, stride=4)\n"


@pytest.mark.slow
def test_two_processes_and_a_kill_end_in_the_same_scores(tmp_path, monkeypatch):
    """An encoder without batch norm: on CPUs one fold over several processes is for these."""
    one, two, killed = tmp_path / "one", tmp_path / "two", tmp_path / "killed"
    (tmp_path / "encoders.py").write_text(ENCODER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    encoder = ("--encoder", "encoders:plain")
    done = alone(SCRIPT, *synthetic(one, *encoder))
    assert done.returncode == 0, done.stderr
    shutil.copytree(one / "people", two / "people")
    done = torchrun(SCRIPT, *synthetic(two, *encoder))
    assert done.returncode == 0, done.stderr
    assert (two / "scores.json").read_text() == (one / "scores.json").read_text()
    assert (two / "predictions.csv").read_text() == (one / "predictions.csv").read_text()

    shutil.copytree(one / "people", killed / "people")
    dead = alone(SCRIPT, *synthetic(killed, "--resume", *encoder), kill_at=6)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    assert not (killed / "scores.json").exists()
    done = alone(SCRIPT, *synthetic(killed, "--resume", *encoder))
    assert done.returncode == 0, done.stderr
    assert results(killed) == results(one)


def test_one_fold_over_several_processes_needs_gpus_for_batch_norm(people, tmp_path, monkeypatch):
    two = mt.Processes(0, 2, torch.device("cpu"))
    monkeypatch.setattr(mt, "join_processes", lambda *_, **__: contextlib.nullcontext(two))
    with pytest.raises(ValueError, match="--folds-per-rank must be given with several processes on CPUs"):
        run(people, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(mt.Processes, "wait", lambda here: None)
    with pytest.raises(ValueError, match="--folds-per-rank must be given with several processes on CPUs"):
        run(people, tmp_path / "run", "--encoder", "train_dfer:trained_encoder")


def test_a_clip_on_both_sides_stops_the_run(people, tmp_path):
    table = tmp_path / "lists"
    shutil.copytree(people.table, table)
    train, test = (table / f"{side}(single-labeled)" / "set_3.csv" for side in ("train", "test"))
    stolen = test.read_text().splitlines()[1]
    train.write_text(train.read_text() + stolen + "\n")
    with pytest.raises(ValueError, match=stolen.split(",")[0]):
        run(people._replace(table=table), tmp_path / "run")
    assert not (tmp_path / "run" / "folds").exists()


def test_a_class_without_training_clips_stops_the_run(people, tmp_path):
    table = tmp_path / "lists"
    shutil.copytree(people.table, table)
    train = table / "train(single-labeled)" / "set_2.csv"
    train.write_text("\n".join(x for x in train.read_text().splitlines() if not x.endswith(",5")) + "\n")
    with pytest.raises(ValueError, match="surprise"):
        run(people._replace(table=table), tmp_path / "run")


def test_settings_that_are_seldom_used(people, tmp_path):
    units = torch.zeros(18)
    names = [path.name for path in people.frames.iterdir() if path.is_dir()]
    labels = tmp_path / "au.txt"
    mt.write_au_labels(labels, {name: units.index_fill(0, torch.tensor([int(name) % 18]), 1) for name in names})
    scores = run(
        people, tmp_path / "run", "--folds", "2", "5", "--au-labels", labels, "--select", "inner", "--ema", "0.5",
        "--precision", "bfloat16", "--accumulate", "2", "--weights", "safetensors", "--schedule", "exponential",
    )  # fmt: skip
    assert scores["folds"] == 2
    assert scores["selection"] == "inner split of the training clips"
    weights = mt.load_weights(tmp_path / "run/folds/5/weights.safetensors")
    assert "au_head.linear.weight" in weights
    lines = [json.loads(line) for line in (tmp_path / "run/folds/2/log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert all(0 <= line["uar"] <= 1 for line in lines)


def test_an_encoder_of_ones_own(people, tmp_path):
    scores = run(people, tmp_path / "run", "--folds", "1", "--encoder", "train_dfer:small_encoder", "--select-on-test")
    assert scores["selection"] == "selected on test"


def small_encoder():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5, stride=4), torch.nn.ReLU())


train_dfer.small_encoder = small_encoder


def test_workers_do_not_change_what_dropout_draws(people, tmp_path):
    found = []
    for workers in ("0", "1"):
        out = tmp_path / workers
        run(people, out, "--folds", "1", "--encoder", "train_dfer:dropping_encoder", "--workers", workers)
        found.append((out / "folds/1/log.jsonl").read_text())
    assert found[0] == found[1]


def dropping_encoder():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5, stride=4), torch.nn.Dropout(0.5))


train_dfer.dropping_encoder = dropping_encoder


train_dfer.trained_encoder = lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5), torch.nn.BatchNorm2d(8))


def test_a_trained_encoder_is_not_changed_by_asking_for_its_width(people, tmp_path):
    args = train_dfer.arguments(list(map(str, command(people, tmp_path, "--encoder", "train_dfer:trained_encoder"))))
    norm = train_dfer.build(args, 3).encoder[1]
    assert int(norm.num_batches_tracked) == 0
    assert not norm.running_mean.any()
    assert norm.training


def test_missing_folds_and_labels(people, tmp_path):
    with pytest.raises(ValueError, match="--folds must be among 1, 2, 3, 4, 5, got 6"):
        run(people, tmp_path / "a", "--folds", "6")
    labels = tmp_path / "au.txt"
    mt.write_au_labels(labels, {"00001": torch.zeros(18)})
    with pytest.raises(ValueError, match="--au-labels has no line for 29 clips: 00002"):
        run(people, tmp_path / "b", "--au-labels", labels)
