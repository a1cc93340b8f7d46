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
def synthetic(tmp_path_factory):
    return mt.synthetic_dataset(
        tmp_path_factory.mktemp("data") / "synthetic", subjects=3, clips=2, size=32, num_frames=32
    )


def command(synthetic, out, *more):
    return [
        "--table", synthetic.table, "--frames", synthetic.frames, "--protocol", "megc2019", "--out", out, "--size", "32",
        "--dims", "4", "8", "12", "16", "--hidden", "16", "--epochs", "3", "--batch-size", "6", "--drop-path", "0",
        "--padding", "2", "--lr", "3e-3", "--weight-decay", "0.05", "--device", "cpu", *more,
    ]  # fmt: skip


def run(synthetic, out, *more):
    return train_mer.main(list(map(str, command(synthetic, out, *more))))


def results(out):
    names = ("scores.json", "predictions.csv", "subjects.csv")
    logs = sorted(path for path in out.rglob("log.jsonl"))
    return {name: (out / name).read_text() for name in names} | {str(p.relative_to(out)): p.read_text() for p in logs}


@pytest.fixture(scope="module")
def reference(synthetic, tmp_path_factory):
    """One process, not disturbed."""
    out = tmp_path_factory.mktemp("reference") / "run"
    done = alone(SCRIPT, *command(synthetic, out))
    assert done.returncode == 0, done.stderr
    return out


def losses(out):
    return [
        json.loads(line)["loss"] for path in sorted(out.rglob("log.jsonl")) for line in path.read_text().splitlines()
    ]


def test_what_a_run_leaves(synthetic, reference):
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


def test_one_fold_over_several_processes_needs_gpus(synthetic, tmp_path, monkeypatch):
    monkeypatch.setattr(mt, "join_processes", lambda *_, **__: contextlib.nullcontext(TWO_ON_CPUS))
    with pytest.raises(ValueError, match="--folds-per-rank must be given with several processes on CPUs"):
        run(synthetic, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_folds_spread_over_two_processes_give_the_same_files(synthetic, reference, tmp_path):
    done = torchrun(SCRIPT, *command(synthetic, tmp_path / "run", "--folds-per-rank"))
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "run") == results(reference)


@pytest.mark.slow
def test_killed_and_resumed_ends_in_the_same_files(synthetic, reference, tmp_path):
    words = command(synthetic, tmp_path / "run", "--resume")
    draw = random.Random(time.time_ns())
    for first, last in ((3, 10), (1, 8)):  # of the 26 times that a run of its length waits for the disk
        moment = draw.randint(first, last)
        killed = alone(SCRIPT, *words, kill_at=moment)
        assert killed.returncode == -signal.SIGKILL, (moment, killed.stderr)
    done = alone(SCRIPT, *words)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "run") == results(reference)


def test_other_settings_are_not_a_resumption(synthetic, reference):
    with pytest.raises(FileExistsError, match="holds a run"):
        run(synthetic, reference)
    with pytest.raises(ValueError, match=r"other settings: lr was 0\.003, now 0\.1"):
        run(synthetic, reference, "--resume", "--lr", "0.1")


def test_the_held_out_subject_decides_nothing(synthetic, tmp_path):
    """Other labels for the held-out subject's clips: other scores, but the same weights."""
    lines = Path(synthetic.table).read_text().splitlines()
    swap = {"happiness": "surprise", "surprise": "disgust", "disgust": "happiness"}
    for i, line in enumerate(lines):
        if line.startswith("02,"):
            *cells, label = line.split(",")
            lines[i] = ",".join([*cells, swap[label]])
    other = tmp_path / "other.csv"
    other.write_text("\n".join(lines) + "\n")
    for select in ("last", "inner"):
        found = []
        for name, table in (("a", synthetic.table), ("b", other)):
            out = tmp_path / f"{select}-{name}"
            run(synthetic._replace(table=table), out, "--weights", "pt", "--select", select, "--epochs", "2")
            found.append(mt.load_weights(out / "folds" / "02" / "weights.pt"))
        assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_an_epoch_chosen_on_the_test_clips_is_named_in_every_output(synthetic, tmp_path, capsys):
    scores = run(synthetic, tmp_path / "run", "--select-on-test", "--epochs", "2", "--weights", "pt")
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


def test_the_epoch_of_an_inner_split(synthetic, tmp_path, monkeypatch):
    asked = []
    predict = train_mer.predict

    def watch(args, model, data, indices, fold, here):
        asked.append((fold, [data.clips.subjects[i] for i in indices]))
        return predict(args, model, data, indices, fold, here)

    monkeypatch.setattr(train_mer, "predict", watch)
    scores = run(synthetic, tmp_path / "run", "--select", "inner", "--epochs", "2", "--ema", "0.5")
    assert scores["selection"] == "inner split of the training subjects"
    for number, (fold, subjects) in enumerate(asked):
        last = number % 3 == 2
        assert (fold in subjects) == last
        assert set(subjects) == {fold} if last else len(set(subjects)) == 1


def test_a_loss_that_is_not_finite_stops_the_run(synthetic, tmp_path, monkeypatch):
    calls = []
    losses_of = train_mer.clip_losses

    def poisoned(*args):
        calls.append(1)
        return losses_of(*args) * (
            float("nan") if len(calls) > 8 else 1
        )  # two branches of two batches: the third epoch

    monkeypatch.setattr(train_mer, "clip_losses", poisoned)
    with pytest.raises(FloatingPointError, match=r"the loss is \[nan, .* for clips \['0[23]/EP0.*lower --lr"):
        run(synthetic, tmp_path / "run")
    fold = mt.RunFolder(tmp_path / "run").fold("01")
    state = fold.load()
    assert state["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    monkeypatch.setattr(train_mer, "clip_losses", losses_of)
    assert run(synthetic, tmp_path / "run", "--resume")["clips"] == 18


class NoGradient(torch.autograd.Function):
    """A finite loss whose gradient is not."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


def test_weights_that_are_not_finite_do_not_replace_the_checkpoint(synthetic, tmp_path, monkeypatch):
    calls = []
    losses_of = train_mer.clip_losses

    def poisoned(*args):
        calls.append(1)
        found = losses_of(*args)
        return NoGradient.apply(found) if len(calls) == 8 else found  # in the last step of the second epoch

    monkeypatch.setattr(train_mer, "clip_losses", poisoned)
    with pytest.raises(FloatingPointError, match=r"weights are not finite after epoch 1, .*lower --lr"):
        run(synthetic, tmp_path / "run")
    state = mt.RunFolder(tmp_path / "run").fold("01").load()
    assert state["epoch"] == 0
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_logits_that_are_not_finite_are_no_prediction(synthetic, tmp_path):
    args = train_mer.arguments(list(map(str, command(synthetic, tmp_path))))
    data = train_mer.Clips(args)
    model = train_mer.build(args, 3)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="must be logits without NaN"):
        train_mer.predict(args, model, data, [0, 1], "01", mt.Processes(0, 1, torch.device("cpu")))


def test_a_full_disk_leaves_the_last_checkpoint(synthetic, tmp_path, monkeypatch):
    def full(handle):
        if (tmp_path / "run/folds/01/log.jsonl").exists() and len(losses(tmp_path / "run")) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*01.checkpoint\.pt"):
        run(synthetic, tmp_path / "run")
    monkeypatch.undo()
    assert mt.RunFolder(tmp_path / "run").fold("01").load()["epoch"] == 0
    assert run(synthetic, tmp_path / "run", "--resume")["clips"] == 18


def test_a_class_without_training_clips(synthetic, tmp_path):
    lines = Path(synthetic.table).read_text().splitlines()
    table = tmp_path / "t.csv"
    table.write_text("\n".join(x for x in lines if "surprise" not in x or x.startswith("03,")) + "\n")
    with pytest.raises(ValueError, match=r"surprise"):
        run(synthetic._replace(table=table), tmp_path / "run")


@pytest.mark.parametrize(
    "settings",
    [
        ("--model", "tsfmicro", "--au", "none", "--class-weights", "--schedule", "cosine"),
        ("--au", "labels", "--precision", "bfloat16", "--accumulate", "2", "--workers", "1"),
        ("--folds", "5", "--reselect", "always", "--selector", "refine", "--weights", "safetensors"),
    ],
)
def test_other_settings(synthetic, tmp_path, settings):
    if settings[1] == "5":
        synthetic = mt.synthetic_dataset(tmp_path / "five", subjects=5, clips=1, size=32, num_frames=32)
    scores = run(synthetic, tmp_path / "run", "--epochs", "1", *settings)
    assert scores["clips"] in (15, 18)
    assert 0 <= scores["uf1"] <= 1


def test_accumulated_batches_weigh_every_clip_alike(synthetic, tmp_path, monkeypatch):
    """Without batch norm's statistics in the way, two batches of 6 to a step are one of 12."""
    monkeypatch.setattr(train_mer, "build", lambda args, e: mt.TwoBranch(Plain(e)))
    found = []
    for name, more in (("a", ("--batch-size", "12")), ("b", ("--batch-size", "6", "--accumulate", "2"))):
        run(synthetic, tmp_path / name, "--weights", "pt", "--epochs", "2", *more)
        found.append(mt.load_weights(tmp_path / name / "folds" / "01" / "weights.pt"))
    for key in found[0]:
        torch.testing.assert_close(found[0][key], found[1][key], rtol=1e-4, atol=1e-6)


class Plain(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = torch.nn.Linear(3 * 8 * 8, num_classes)

    def forward(self, static, motion):
        return self.fc(torch.nn.functional.adaptive_avg_pool2d(static + 5 * motion, 8).flatten(1))


def test_a_table_without_action_units(synthetic, tmp_path):
    lines = Path(synthetic.table).read_text().splitlines()
    table = tmp_path / "t.csv"
    table.write_text("\n".join([lines[0], *(",".join([*x.split(",")[:5], "", x.split(",")[6]]) for x in lines[1:])]))
    with pytest.raises(ValueError, match="--au must be none: .* names no action units"):
        run(synthetic._replace(table=table), tmp_path / "run")


def second_dataset(root):
    """Other subjects, their table and folders as SAMM's are: a subject 01 of another dataset is another person."""
    made = mt.synthetic_dataset(root, subjects=2, clips=2, size=32, num_frames=32, seed=1)
    header, *rows = Path(made.table).read_text().splitlines()
    header = "Subject,Filename,Onset Frame,Apex Frame,Offset Frame,Action Units,Estimated Emotion"
    table = root / "samm.csv"
    cells = [row.split(",") for row in rows]
    named = [[f"0{who}", f"0{who}_{clip[2:].replace('_', '')}_1", *rest] for who, clip, *rest in cells]
    table.write_text("\n".join([*["-,,,,,,"] * 13, header, *map(",".join, named)]) + "\n")
    for (who, clip, *_), (subject, name, *_) in zip(cells, named, strict=True):
        (made.frames / subject).mkdir(exist_ok=True)
        (made.frames / f"sub{who}" / clip).rename(made.frames / subject / name)
    for folder in made.frames.glob("sub*"):
        folder.rmdir()
    return made._replace(table=table, dataset="samm")


def test_a_composite_of_two_datasets(synthetic, tmp_path):
    other = second_dataset(tmp_path / "samm")
    words = command(synthetic, tmp_path / "run", "--folds", "lodo", "--epochs", "1", "--model", "tsfmicro")
    words += ["--table", synthetic.table, other.table, "--frames", synthetic.frames, other.frames]
    words = list(map(str, [*words, "--dataset", "casme2", "samm"]))
    args = train_mer.arguments(words)
    data = train_mer.Clips(args)
    folds = train_mer.named_folds(args, data.clips)
    assert {name: len(fold.test) for name, fold in folds.items()} == {"casme2": 18, "samm": 12}
    assert len(train_mer.named_folds(train_mer.arguments([*words, "--folds", "loso"]), data.clips)) == 5
    assert {Path(folder.path).parents[1] for folder in data.plain._folders} == {synthetic.frames, other.frames}
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
def test_settings_out_of_range(synthetic, tmp_path, capsys, words, message):
    with pytest.raises(SystemExit):
        run(synthetic, tmp_path / "run", *words)
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_another_table_of_the_same_name_is_not_a_resumption(synthetic, tmp_path, monkeypatch):
    table = tmp_path / "t.csv"
    table.write_text(Path(synthetic.table).read_text())
    monkeypatch.setattr(train_mer, "train_fold", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(synthetic._replace(table=table), tmp_path / "run")
    table.write_text(table.read_text().replace("surprise", "disgust", 1))
    with pytest.raises(ValueError, match="other settings: table_crc32 was"):
        run(synthetic._replace(table=table), tmp_path / "run", "--resume")


def test_a_typo_locks_no_folder(synthetic, tmp_path):
    out = tmp_path / "run"
    for wrong, error in (
        (("--protocol", "samm-5"), "protocol 'samm-5' is for samm, got a clip of 'casme2'"),
        (("--dims", "4", "8", "12", "15"), "dim"),
        (("--repair", "nonsense"), "nonsense"),
    ):
        with pytest.raises(ValueError, match=error):
            run(synthetic, out, *wrong)
        assert not (out / "settings.json").exists()
    assert run(synthetic, out, "--epochs", "1")["clips"] == 18


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--protocol", "casme2"), "--protocol must be one of casme2-5, samm-5, "),
        (("--table", "gone.csv"), "--table must be a file, there is none at gone.csv"),
        (("--frames", "gone"), "--frames must be a folder, there is none at gone"),
        (("--recipe", "gamdss"), "argument --recipe: invalid choice: 'gamdss'"),
        (("--epochs", "many"), "argument --epochs: invalid int value: 'many'"),
        (("--lr", "-1"), "--lr must not be negative, got -1.0"),
        (("--drop-path", "1"), "--drop-path must lie in [0, 1), got 1.0"),
        (("--timeout", "0"), "--timeout must be positive, got 0.0"),
        *([] if torch.cuda.is_available() else [(("--device", "cuda"), "there is no GPU here that PyTorch can use")]),
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


def test_an_error_on_the_way_is_one_line_too(synthetic, tmp_path):
    done = alone(SCRIPT, *command(synthetic, tmp_path / "run", "--protocol", "samm-5"))
    assert done.returncode == 1
    assert done.stderr.startswith("train_mer.py: error: protocol 'samm-5' is for samm")
    assert done.stderr.count("\n") == 1


def test_the_bar_says_which_fold_of_how_many(synthetic, tmp_path, capsys):
    run(synthetic, tmp_path / "run", "--epochs", "1")
    told = capsys.readouterr().err
    assert [f"fold {number} of 3, 0{number}" in told for number in (1, 2, 3)] == [True] * 3


# --- recipes of published experiments --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(synthetic, tmp_path_factory):
    """The reference's training with both scores: its folder, and what it printed."""
    out = tmp_path_factory.mktemp("both") / "run"
    done = alone(SCRIPT, *command(synthetic, out, "--published-protocol"))
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_both_protocols_on_one_training(reference, both):
    out, told = both
    scores = json.loads((out / "scores.json").read_text())
    plain, published = json.loads((reference / "scores.json").read_text()), scores.pop("published_protocol")
    assert scores == plain  # the second score decides nothing
    assert published["selection"] == "best epoch on the held-out subject: not a result"
    books = [mt.ScoreBook.read_json(out / "folds" / name / "published-protocol.json") for name in ("01", "02", "03")]
    book = sum(books)
    assert (published["uf1"], published["uar"], published["war"]) == (book.uf1(), book.uar(), book.war())
    assert published["war"] >= scores["war"]
    counts = book.confusion.double()
    precision = [float(counts[i, i] / counts[:, i].sum()) for i in range(3) if counts[:, i].sum()]
    assert published["uar_as_published"] == pytest.approx(sum(precision) / len(precision))
    lines = told.splitlines()
    table = lines[lines.index(next(line for line in lines if line.startswith("protocol "))) :]
    assert [row.split()[-3:] for row in table[1:4]] == [
        [f"{x:.4f}" for x in row]
        for row in (
            (scores["uf1"], scores["uar"], scores["war"]),
            (published["uf1"], published["uar"], published["war"]),
            (published["uf1"], published["uar_as_published"], published["war"]),
        )
    ]
    assert f"{published['uar'] - scores['uar']:+.4f} is the choice of the epoch" in table[4]


def test_the_published_score_outlives_a_resumption(synthetic, both, tmp_path, monkeypatch):
    args = train_mer.arguments(list(map(str, command(synthetic, tmp_path, "--published-protocol"))))
    data = train_mer.Clips(args)
    fold, folder = train_mer.named_folds(args, data.clips)["01"], mt.FoldFolder(tmp_path / "01")
    train_epoch, calls = train_mer.train_epoch, []

    def stopping(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train_epoch(*args)

    monkeypatch.setattr(train_mer, "train_epoch", stopping)
    here = mt.Processes(0, 1, torch.device("cpu"))
    with pytest.raises(KeyboardInterrupt):
        train_mer.train_fold(args, "01", fold, data, folder, here)
    train_mer.train_fold(args, "01", fold, data, folder, here)
    assert len(calls) == 4
    found, expected = (
        mt.ScoreBook.read_json(path / "published-protocol.json") for path in (folder.path, both[0] / "folds" / "01")
    )
    assert found == expected


def test_recipes_are_what_the_papers_code_sets(synthetic, tmp_path):
    data = ["--table", str(synthetic.table), "--frames", str(synthetic.frames), "--out", str(tmp_path / "run")]
    assert sorted(train_mer.RECIPES) == sorted(
        f"{paper}-{name}" for paper in ("gamdss", "tsfmicro")
        for name in ("casme2-5", "casme2-3", "samm-5", "samm-3", "casme3-7", "casme3-4")
    )  # fmt: skip
    args = train_mer.arguments([*data, "--recipe", "gamdss-samm-3"])
    assert (args.dataset, args.protocol, args.model, args.selector) == (["samm"], "megc2019", "two-branch", "full")
    assert (args.lr, args.weight_decay, args.epochs, args.schedule) == (8e-4, 0.6, 200, "exponential")
    assert (args.size, args.padding, args.folds, args.reselect, args.au) == (224, 15, "loso", "training", "none")
    assert train_mer.rate(args)(3) == 0.987**3
    assert train_mer.rate(args)(60) == 0.987**50
    other = train_mer.arguments([*data, "--recipe", "tsfmicro-casme3-7", "--epochs", "7", "--dataset", "casme3-a-v1"])
    assert (other.model, other.selector, other.protocol, other.epochs) == ("tsfmicro", "short", "casme3-7", 7)
    assert other.dataset == ["casme3-a-v1"]


@pytest.mark.parametrize("recipe", ["gamdss-casme2-5", "tsfmicro-samm-3"])
def test_recipes_on_the_synthetic_dataset(tmp_path, recipe, monkeypatch):
    small = mt.synthetic_dataset
    monkeypatch.setattr(
        mt, "synthetic_dataset", lambda root, **more: small(root, subjects=2, clips=1, num_frames=32, **more)
    )
    words = ["--out", tmp_path / "run", "--recipe", recipe, "--epochs", "2", "--size", "32", "--dims", "4", "8", "12", "16",
             "--hidden", "16", "--device", "cpu", "--published-protocol"]  # fmt: skip
    scores = train_mer.main(list(map(str, words)))
    assert scores["clips"] == 6
    assert scores["published_protocol"]["war"] >= scores["war"]
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert (settings["au"], settings["ema"], settings["protocol"]) == ("none", 0.0, "megc2019")
    assert settings["model"] == ("two-branch" if recipe.startswith("gamdss") else "tsfmicro")


def test_frames_are_needed_with_a_table(synthetic, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train_mer.main(["--table", str(synthetic.table), "--out", str(tmp_path / "run")])
    assert "--frames is needed" in capsys.readouterr().err


def test_without_a_table_a_synthetic_dataset_is_made(tmp_path):
    """The settings of a first try, cut short."""
    args = train_mer.arguments(["--out", str(tmp_path)])
    assert (args.protocol, args.size, args.epochs) == ("megc2019", 64, 30)
    assert train_mer.arguments(["--out", "x", "--epochs", "7"]).epochs == 7
