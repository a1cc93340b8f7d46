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
def synthetic(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "synthetic"
    made = mt.synthetic_dataset(root, layout="dfew", subjects=5, clips=2, size=32, num_frames=32)
    # Of DFEW's seven classes three are left: the protocol's name must not promise more.
    (root / "Clip" / ".keep").touch()
    return made


@pytest.fixture(autouse=True)
def three_classes(monkeypatch):
    monkeypatch.setitem(mt.PROTOCOLS, "dfew", train_dfer.SYNTHETIC_PROTOCOL)


def command(synthetic, out, *more):
    return [
        "--table", synthetic.table, "--frames", synthetic.frames, "--out", out, "--size", "32", "--num-frames", "5",
        "--dims", "4", "8", "12", "16", "--depth", "1", "--heads", "2", "--epochs", "2", "--batch-size", "8",
        "--padding", "2", "--device", "cpu", *more,
    ]  # fmt: skip


def run(synthetic, out, *more):
    return train_dfer.main(list(map(str, command(synthetic, out, *more))))


def own_dataset(out, *more):
    """The script's own subjects, so that it can run as a process of its own; two folds of a short run."""
    return ["--out", out, "--size", "32", "--num-frames", "4", "--dims", "4", "8", "12", "16", "--epochs", "2",
            "--folds", "1", "2", "--device", "cpu", *more]  # fmt: skip


def results(out):
    names = ("scores.json", "predictions.csv", "folds/1/log.jsonl", "folds/2/log.jsonl")
    return {name: (out / name).read_text() for name in names}


def test_five_folds_pooled_and_on_average(synthetic, tmp_path, capsys):
    scores = run(synthetic, tmp_path / "run")
    assert scores["clips"] == 30
    assert scores["folds"] == 5
    book = mt.ScoreBook.read_csv(tmp_path / "run" / "predictions.csv", classes=train_dfer.SYNTHETIC_PROTOCOL.classes)
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
    done = alone(SCRIPT, *own_dataset(one, *encoder))
    assert done.returncode == 0, done.stderr
    shutil.copytree(one / "synthetic", two / "synthetic")
    done = torchrun(SCRIPT, *own_dataset(two, *encoder))
    assert done.returncode == 0, done.stderr
    assert (two / "scores.json").read_text() == (one / "scores.json").read_text()
    assert (two / "predictions.csv").read_text() == (one / "predictions.csv").read_text()

    shutil.copytree(one / "synthetic", killed / "synthetic")
    dead = alone(SCRIPT, *own_dataset(killed, "--resume", *encoder), kill_at=6)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    assert not (killed / "scores.json").exists()
    done = alone(SCRIPT, *own_dataset(killed, "--resume", *encoder))
    assert done.returncode == 0, done.stderr
    assert results(killed) == results(one)


def test_one_fold_over_several_processes_needs_gpus_for_batch_norm(synthetic, tmp_path, monkeypatch):
    two = mt.Processes(0, 2, torch.device("cpu"))
    monkeypatch.setattr(mt, "join_processes", lambda *_, **__: contextlib.nullcontext(two))
    with pytest.raises(ValueError, match="--folds-per-rank must be given with several processes on CPUs"):
        run(synthetic, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(mt.Processes, "wait", lambda here: None)
    with pytest.raises(ValueError, match="--folds-per-rank must be given with several processes on CPUs"):
        run(synthetic, tmp_path / "run", "--encoder", "train_dfer:trained_encoder")


def test_a_clip_on_both_sides_stops_the_run(synthetic, tmp_path):
    table = tmp_path / "lists"
    shutil.copytree(synthetic.table, table)
    train, test = (table / f"{side}(single-labeled)" / "set_3.csv" for side in ("train", "test"))
    stolen = test.read_text().splitlines()[1]
    train.write_text(train.read_text() + stolen + "\n")
    with pytest.raises(ValueError, match=stolen.split(",")[0]):
        run(synthetic._replace(table=table), tmp_path / "run")
    assert not (tmp_path / "run" / "folds").exists()


def test_a_class_without_training_clips_stops_the_run(synthetic, tmp_path):
    table = tmp_path / "lists"
    shutil.copytree(synthetic.table, table)
    train = table / "train(single-labeled)" / "set_2.csv"
    train.write_text("\n".join(x for x in train.read_text().splitlines() if not x.endswith(",5")) + "\n")
    with pytest.raises(ValueError, match="surprise"):
        run(synthetic._replace(table=table), tmp_path / "run")


def test_settings_that_are_seldom_used(synthetic, tmp_path):
    units = torch.zeros(18)
    names = [path.name for path in synthetic.frames.iterdir() if path.is_dir()]
    labels = tmp_path / "au.txt"
    mt.write_au_labels(labels, {name: units.index_fill(0, torch.tensor([int(name) % 18]), 1) for name in names})
    scores = run(
        synthetic, tmp_path / "run", "--folds", "2", "5", "--au-labels", labels, "--select", "inner", "--ema", "0.5",
        "--precision", "bfloat16", "--accumulate", "2", "--weights", "safetensors", "--schedule", "exponential",
    )  # fmt: skip
    assert scores["folds"] == 2
    assert scores["selection"] == "inner split of the training clips"
    weights = mt.load_weights(tmp_path / "run/folds/5/weights.safetensors")
    assert "au_head.linear.weight" in weights
    lines = [json.loads(line) for line in (tmp_path / "run/folds/2/log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert all(0 <= line["uar"] <= 1 for line in lines)


def test_an_encoder_of_ones_own(synthetic, tmp_path):
    scores = run(
        synthetic, tmp_path / "run", "--folds", "1", "--encoder", "train_dfer:small_encoder", "--select-on-test"
    )
    assert scores["selection"] == "selected on test"


def small_encoder():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5, stride=4), torch.nn.ReLU())


train_dfer.small_encoder = small_encoder


def test_workers_do_not_change_what_dropout_draws(synthetic, tmp_path):
    found = []
    for workers in ("0", "1"):
        out = tmp_path / workers
        run(synthetic, out, "--folds", "1", "--encoder", "train_dfer:dropping_encoder", "--workers", workers)
        found.append((out / "folds/1/log.jsonl").read_text())
    assert found[0] == found[1]


def dropping_encoder():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5, stride=4), torch.nn.Dropout(0.5))


train_dfer.dropping_encoder = dropping_encoder


train_dfer.trained_encoder = lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5), torch.nn.BatchNorm2d(8))


def test_a_trained_encoder_is_not_changed_by_asking_for_its_width(synthetic, tmp_path):
    args = train_dfer.arguments(list(map(str, command(synthetic, tmp_path, "--encoder", "train_dfer:trained_encoder"))))
    norm = train_dfer.build(args, 3).encoder[1]
    assert int(norm.num_batches_tracked) == 0
    assert not norm.running_mean.any()
    assert norm.training


def test_missing_folds_and_labels(synthetic, tmp_path):
    with pytest.raises(ValueError, match="--folds must be among 1, 2, 3, 4, 5, got 6"):
        run(synthetic, tmp_path / "a", "--folds", "6")
    labels = tmp_path / "au.txt"
    mt.write_au_labels(labels, {"00001": torch.zeros(18)})
    with pytest.raises(ValueError, match="--au-labels has no line for 29 clips: 00002"):
        run(synthetic, tmp_path / "b", "--au-labels", labels)
    # A typo locks nothing: the next call may have other settings.
    assert not (tmp_path / "a" / "settings.json").exists()
    assert not (tmp_path / "b").exists()


def test_both_protocols_on_one_training(synthetic, tmp_path, capsys):
    plain = run(synthetic, tmp_path / "plain", "--folds", "1", "2", "--epochs", "3")
    capsys.readouterr()
    scores = run(synthetic, tmp_path / "both", "--folds", "1", "2", "--epochs", "3", "--published-protocol")
    told = capsys.readouterr().out
    published = scores.pop("published_protocol")
    assert scores == plain  # the second score decides nothing
    assert published["selection"] == "best epoch on the test clips: not a result"
    assert published["war"] >= scores["war"]
    books = [mt.ScoreBook.read_json(tmp_path / "both" / "folds" / name / "published-protocol.json") for name in "12"]
    assert sum(books).war() == published["war"]
    rows = [
        line for line in told.splitlines() if line.startswith(("this run (last of 3 epochs)", published["selection"]))
    ]
    assert [float(row.split()[-1]) for row in rows] == pytest.approx(
        [scores["mean_of_folds"]["war"], published["mean_of_folds"]["war"]], abs=1e-4
    )


@pytest.mark.parametrize("recipe", ["audfer-dfew", "audfer-dfew-distinct", "audfer-ferv39k-global"])
def test_recipes_set_the_published_loss(tmp_path, recipe):
    words = ["--out", tmp_path, "--recipe", recipe, "--device", "cpu", "--size", "32"]
    args = train_dfer.arguments(list(map(str, words)))
    assert (args.au_ratio, args.prior_scale, args.epochs, args.num_frames) == (0.25, 5.0, 10, 8)
    train_dfer.make_synthetic(args)
    data = train_dfer.Clips(args)
    loss = train_dfer.loss_of(args, data, [0, 1])
    classes = train_dfer.SYNTHETIC_PROTOCOL.classes
    assert torch.equal(loss.prior, mt.au_prior(classes))
    if recipe == "audfer-dfew":
        assert loss.pos_weight is None
    else:
        assert torch.equal(loss.pos_weight, mt.au_pos_weight("DFEW", recipe.split("-")[-1], classes=classes))
    assert train_dfer.arguments([*map(str, words), "--au-ratio", "0.5"]).au_ratio == 0.5


def test_a_recipe_from_the_command_line_to_the_scores(tmp_path):
    words = own_dataset(tmp_path / "run", "--recipe", "audfer-dfew-minor", "--published-protocol", "--epochs", "1")
    scores = train_dfer.main(list(map(str, words)))
    assert scores["folds"] == 2
    assert scores["published_protocol"]["war"] == scores["war"]  # of one epoch


def test_published_tables_by_the_dataset(tmp_path):
    words = ["--out", tmp_path, "--table", tmp_path, "--frames", tmp_path, "--recipe", "audfer-ferv39k-global"]
    labels = tmp_path / "au.txt"
    mt.write_au_labels(labels, {"a": torch.zeros(18)})
    args = train_dfer.arguments(list(map(str, [*words, "--au-labels", labels])))
    assert (args.dataset, args.pos_weight) == ("ferv39k", "global")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--table", "gone"), "--table must be a list or a folder of lists, there is none at gone"),
        (("--frames", "gone"), "--frames must be a folder, there is none at gone"),
        (("--au-labels", "gone"), "--au-labels must be a file, there is none at gone"),
        (("--recipe", "audfer-dfew"), "--recipe needs --au-labels"),
        (("--recipe", "audfer"), "argument --recipe: invalid choice: 'audfer'"),
        (("--encoder", "resnet"), "--encoder must be retnet or MODULE:NAME, got 'resnet'"),
        (("--prior-scale", "0"), "--prior-scale must be positive, got 0.0"),
        (("--au-ratio", "2"), "--au-ratio must lie in"),
        (("--lr", "-1"), "--lr must not be negative"),
        (("--heads", "0"), "--heads must be at least 1"),
    ],
)
def test_settings_are_refused_in_one_line(synthetic, tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        run(synthetic, tmp_path / "run", *words)
    told = capsys.readouterr().err
    assert stopped.value.code == 2
    assert told.count("\n") == 1
    assert message in told
    assert not (tmp_path / "run").exists()
