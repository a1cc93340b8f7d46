import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed

import mertools as mt

CLASSES = ("negative", "positive", "surprise")


def table(n=60, subjects=7, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    guess = np.where(rng.random(n) < 0.6, truth, rng.integers(0, 3, n))
    people = [f"s{i % subjects + 1}" for i in range(n)]
    return truth, guess, people, [f"{who}/{i}" for i, who in enumerate(people)]


def filled(rows=slice(None), selection="last epoch", **settings):
    truth, guess, people, clips = (np.asarray(column)[rows] for column in table(**settings))
    book = mt.ScoreBook(CLASSES, selection=selection)
    book.add(guess, truth, clips=clips, subjects=people, datasets="smic", fold="1")
    return book


def test_pooled_scores_are_those_of_all_predictions():
    truth, guess, people, clips = table()
    book = mt.ScoreBook(CLASSES)
    for who in sorted(set(people)):
        rows = [i for i, name in enumerate(people) if name == who]
        book.add(
            torch.tensor(guess[rows]), truth[rows].tolist(), clips=[clips[i] for i in rows], subjects=who, fold=who
        )
    assert len(book) == 60
    assert torch.equal(book.confusion, mt.confusion_matrix(guess, truth, num_classes=3))
    assert (book.uf1(), book.uar(), book.war()) == (
        mt.uf1(guess, truth),
        mt.uar(predicted=guess, target=truth),
        mt.war(guess, truth),
    )
    by_fold = book.per("fold")
    assert list(by_fold) == [f"s{i}" for i in range(1, 8)]
    rows = [i for i, name in enumerate(people) if name == "s3"]
    assert by_fold["s3"] == mt.Scores(
        mt.uf1(guess[rows], truth[rows]),
        mt.uar(predicted=guess[rows], target=truth[rows]),
        mt.war(guess[rows], truth[rows]),
        len(rows),
    )
    assert book.uf1() != pytest.approx(np.mean([scores.uf1 for scores in by_fold.values()]), abs=1e-4)


def test_names_of_numpy_are_strings():
    assert {type(name) for row in filled() for name in row[:4]} == {str}


def test_logits_are_predictions():
    book = mt.ScoreBook(CLASSES)
    book.add(torch.eye(3)[[0, 2]], [0, 1], clips=["a", "b"], subjects=None)
    assert list(book) == [mt.Prediction("a", "", "", "", 0, 0), mt.Prediction("b", "", "", "", 1, 2)]


def test_a_class_that_nobody_shows():
    book = mt.ScoreBook(CLASSES)
    book.add([0, 1], [0, 1], clips=["a", "b"], subjects=["s1", "s2"])
    assert book.uf1() == book.uar() == 1
    assert book.uf1(absent="zero") == book.uar(absent="zero") == pytest.approx(2 / 3)
    for score in (book.uf1, book.uar, book.war):
        with pytest.raises(ValueError, match="0/0 for the classes surprise"):
            score(absent="error")
    assert np.isnan(book.per_class()["surprise"]["recall"])
    assert book.per_class()["negative"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1}
    assert book.summary()["absent_classes"] == ["surprise"]
    assert book.summary()["per_class"]["surprise"] == {"precision": None, "recall": None, "f1": None, "support": 0}
    assert "without clips, left out of UAR: surprise" in str(book)


def test_rows_do_not_depend_on_the_order_they_came_in(tmp_path):
    whole = filled()
    backwards = filled(slice(None, None, -1))
    assert whole == backwards
    assert list(whole) == list(backwards)
    assert [row.subject for row in whole][:: len(whole) - 1] == ["s1", "s7"]
    whole.write_json(tmp_path / "a.json")
    backwards.write_json(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_merging():
    parts = [filled(slice(i, None, 3)) for i in range(3)]
    assert sum(parts) == parts[0] + parts[1] + parts[2] == filled()
    assert len(parts[0]) == 20  # a sum leaves its parts alone
    assert parts[0].merge(parts[1]) is parts[0]
    assert len(parts[0]) == 40
    with pytest.raises(TypeError):
        parts[0] + 3
    with pytest.raises(TypeError, match="other must be a ScoreBook, got dict"):
        parts[0].merge({})


def test_unlike_books_do_not_merge():
    with pytest.raises(ValueError, match="unlike selection can't be pooled: 'last epoch' and 'selected on test'"):
        filled(slice(0, 2)).merge(filled(slice(2, 4), selection="selected on test"))
    other = mt.ScoreBook(CLASSES[::-1], selection="last epoch")
    with pytest.raises(ValueError, match="unlike classes can't be pooled"):
        filled() + other


def test_a_clip_counts_once():
    book = filled()
    before = list(book)
    with pytest.raises(
        ValueError,
        match=r"clip 's1/0' is predicted twice \(subject 's1', dataset 'smic', fold '1', and subject 's9', fold '2'\)",
    ):
        book.add([0, 1], [0, 1], clips=["new", "s1/0"], subjects=["s9", "s9"], fold="2")  # fmt: skip
    with pytest.raises(ValueError, match="clip 'x' is predicted twice"):
        book.add([0, 1], [0, 1], clips=["x", "x"], subjects=["s9", "s9"])
    with pytest.raises(ValueError, match="predicted twice"):
        book.merge(filled(slice(0, 1)))
    assert list(book) == before  # nothing of a refused call is kept


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"predicted": [0, 3]}, ValueError, r"predicted\[1\] is 3"),
        ({"predicted": torch.rand(2, 5)}, ValueError, r"\(n, 3\) to match the classes"),
        ({"target": [0]}, ValueError, "equally many, got 2 and 1"),
        ({"clips": ["a"]}, ValueError, "clips must be one per prediction, got 1 for 2"),
        ({"subjects": ["a", "b", "c"]}, ValueError, "subjects must be one per prediction, got 3 for 2"),
        ({"datasets": ["a"]}, ValueError, "datasets must be one per prediction"),
        ({"clips": "ab"}, TypeError, "clips must be a sequence of names, one per clip, got 'ab'"),
        ({"clips": None}, TypeError, "clips must be a sequence of names"),
        ({"clips": [1, 2]}, TypeError, "clips must be strings, got 1"),
        ({"clips": 3}, TypeError, "clips must be a sequence of strings, got int"),
        ({"clips": ["a", ""]}, ValueError, r"clips\[1\] is empty"),
        ({"clips": ["a", "b\n"]}, ValueError, "without control characters"),
        ({"subjects": ["a", "b\ud800"]}, ValueError, "without control characters"),
        ({"fold": 3}, TypeError, "fold must be strings, got 3"),
    ],
)
def test_bad_predictions(change, error, message):
    book = mt.ScoreBook(CLASSES)
    arguments = {"predicted": [0, 1], "target": [0, 1], "clips": ["a", "b"], "subjects": ["s", "s"]} | change
    with pytest.raises(error, match=message):
        book.add(arguments.pop("predicted"), arguments.pop("target"), **arguments)
    assert len(book) == 0


def test_bad_books(tmp_path):
    with pytest.raises(ValueError, match="once, got happy more than once"):
        mt.ScoreBook(["happy", "happiness"])
    with pytest.raises(TypeError, match="selection must be strings, got None"):
        mt.ScoreBook(CLASSES, selection=None)
    empty = mt.ScoreBook(CLASSES)
    assert empty.confusion.tolist() == torch.zeros(3, 3).tolist()
    assert str(empty) == repr(empty) == "ScoreBook(3 classes, selection='': 0 clips of 0 subjects)"
    path = tmp_path / "empty"
    for ask in (empty.uf1, empty.war, empty.per_class, empty.summary, empty.interval, lambda: empty.per("fold"),
                lambda: empty.write_json(path), lambda: empty.write_csv(path)):  # fmt: skip
        with pytest.raises(ValueError, match="no predictions yet"):
            ask()
    assert not path.exists()
    with pytest.raises(ValueError, match="group must be one of 'subject', 'fold', 'dataset'"):
        filled().per("clip")


def test_the_selection_is_everywhere(tmp_path):
    book = filled(selection="selected on test")
    book.write_json(tmp_path / "scores.json")
    book.write_csv(tmp_path / "scores.csv")
    assert json.loads((tmp_path / "scores.json").read_text())["selection"] == "selected on test"
    assert all(line.endswith(",selected on test") for line in (tmp_path / "scores.csv").read_text().splitlines()[1:])
    for text in (repr(book), str(book), mt.plot_confusion(book).get_suptitle()):
        assert "selected on test" in text
    assert book.summary()["selection"] == "selected on test"
    assert "selection: not stated" in str(filled(selection=""))


# --- intervals -----------------------------------------------------------------------------------------------------


def test_interval_by_brute_force():
    book = filled(n=120, subjects=12)
    rows = {}
    for row in book:
        rows.setdefault(row.subject, []).append(row)
    rng = np.random.default_rng(5)
    found = {"uf1": [], "uar": [], "war": []}
    for _ in range(1500):
        drawn = [row for who in rng.choice(sorted(rows), len(rows)) for row in rows[who]]
        for name, values in found.items():
            values.append(
                getattr(mt, name)(predicted=[row.predicted for row in drawn], target=[row.target for row in drawn])
            )
    for name, values in found.items():
        low, high = book.interval(name, level=0.9)
        assert low < getattr(book, name)() < high
        assert (low, high) == pytest.approx(np.quantile(values, [0.05, 0.95]), abs=0.012)


def test_intervals_can_be_repeated():
    book = filled()
    assert book.interval("uar", repeats=300) == filled(slice(None, None, -1)).interval("uar", repeats=300)
    assert book.interval("uar", repeats=300) != book.interval("uar", repeats=300, seed=1)
    narrow, wide = book.interval(level=0.5), book.interval(level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert book.summary()["intervals"]["uf1"] == list(book.interval())


def test_alike_clips_of_one_subject_make_wide_intervals():
    """Every subject is all right or all wrong: clips in the bootstrap would claim to know far more."""
    book = mt.ScoreBook(CLASSES)
    for i in range(10):
        book.add([i % 2] * 40, [0] * 40, clips=[f"{i}/{j}" for j in range(40)], subjects=f"s{i}")
    subjects, clips = book.interval("war"), book.interval("war", over="clip")
    assert subjects[1] - subjects[0] > 4 * (clips[1] - clips[0])


def test_interval_without_a_class_in_some_resamples():
    book = mt.ScoreBook(CLASSES)
    book.add([0, 0, 2], [0, 0, 2], clips=list("abc"), subjects=["s1", "s2", "s3"])
    assert book.interval("uf1", level=0.99) == (1.0, 1.0)


def test_bad_intervals():
    one = mt.ScoreBook(CLASSES)
    one.add([0, 1], [0, 1], clips=["a", "b"], subjects="s1")
    with pytest.raises(ValueError, match="at least 2 subjects to draw from, got 1"):
        one.interval()
    assert one.summary()["intervals"] is None
    one.add([0], [0], clips=["c"], subjects=None)
    with pytest.raises(ValueError, match=r"1 have none \('c'\): pass subjects to add, or over='clip'"):
        one.interval()
    assert one.summary()["intervals"] is None  # neither by subjects nor by clips
    assert len(one.interval(over="clip")) == 2
    for settings, message in (({"score": "f1"}, "score must be one of"), ({"over": "fold"}, "over must be one of")):
        with pytest.raises(ValueError, match=message):
            filled().interval(**settings)


def test_a_dataset_without_subjects_has_intervals_over_clips():
    book = mt.ScoreBook(CLASSES)
    book.add([0, 1, 2, 0], [0, 1, 2, 1], clips=list("abcd"), subjects=None)
    assert book.summary()["intervals"]["over"] == "clip"
    assert "95 % intervals over 4 clips" in str(book)
    assert "4 clips, subjects unknown, 3 classes" in str(book)


def test_comparing_two_models():
    truth, guess, people, clips = table(n=200, subjects=20)
    good, better = mt.ScoreBook(CLASSES), mt.ScoreBook(CLASSES, selection="inner split")
    good.add(guess, truth, clips=clips, subjects=people)
    mended = np.where(np.arange(200) % 5 == 0, truth, guess)
    better.add(mended, truth, clips=clips, subjects=people)
    difference, low, high = better.compare(good, "uar")
    assert difference == pytest.approx(better.uar() - good.uar())
    assert 0 < low < difference < high
    assert good.compare(better, "uar") == pytest.approx((-difference, -high, -low), abs=0.01)
    assert good.compare(good) == (0, 0, 0)
    # Pairing matters: the difference is known better than either score.
    assert high - low < np.diff(good.interval("uar"))[0]
    with pytest.raises(ValueError, match=r"same clips compare, these differ in 200"):
        good.compare(filled(n=200, subjects=20))
    assert good.war() == filled(n=200, subjects=20).war()  # only the dataset differs
    with pytest.raises(ValueError, match="same classes"):
        good.compare(mt.ScoreBook(["a", "b"]))
    with pytest.raises(TypeError, match="other must be a ScoreBook"):
        good.compare(0.5)


# --- several processes ---------------------------------------------------------------------------------------------


def shard(rank, ranks, n=61):
    """What a rank predicts under DistributedSampler: every `ranks`-th clip, the first ones again to fill up."""
    order = list(range(n)) + list(range(-n % ranks))
    return filled(order[rank::ranks], n=n)


def gather_in_a_process(rank, ranks, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    try:
        whole = shard(rank, ranks).gather()
        whole.write_json(f"{folder}/{rank}.json")
        book = filled(slice(rank, rank + 1), selection=f"rank {rank}")
        try:
            book.gather()
        except ValueError as error:
            Path(f"{folder}/{rank}.txt").write_text(str(error))
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("ranks", [2, 3])
def test_gathering_over_processes(tmp_path, ranks):
    torch.multiprocessing.spawn(gather_in_a_process, (ranks, str(tmp_path)), ranks)
    filled(n=61).write_json(tmp_path / "one.json")
    expected = (tmp_path / "one.json").read_bytes()
    for rank in range(ranks):
        assert (tmp_path / f"{rank}.json").read_bytes() == expected
        assert "unlike selection" in (tmp_path / f"{rank}.txt").read_text()


def test_gathering_in_one_process():
    book = filled()
    assert book.gather() is book


@pytest.fixture
def world(monkeypatch):
    """Two ranks in one process: gather sees the books that are given."""

    def of(*books):
        def all_gather(found, mine, group=None):
            found[:] = [(book.classes, book.selection, book.rows) for book in books]

        monkeypatch.setattr(distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(distributed, "get_rank", lambda group=None: -1 if group == "others" else 0)
        monkeypatch.setattr(distributed, "get_world_size", lambda group=None: len(books))
        monkeypatch.setattr(distributed, "all_gather_object", all_gather)
        return books[0]

    return of


def test_padding_counts_once(world):
    first, second = shard(0, 2, n=5), shard(1, 2, n=5)
    assert len(first) + len(second) == 6
    assert world(first, second).gather() == filled(n=5)


def test_a_rank_without_clips(world):
    assert world(filled(), mt.ScoreBook(CLASSES, selection="last epoch")).gather() == filled()


def test_two_predictions_for_one_clip(world):
    other = mt.ScoreBook(CLASSES, selection="last epoch")
    row = next(iter(filled()))
    other.add(
        [(row.predicted + 1) % 3], [row.target], clips=[row.clip], subjects=row.subject, datasets="smic", fold="1"
    )
    with pytest.raises(
        ValueError, match=r"clip 's1/0' comes from two processes with different predictions .*evaluation mode"
    ):
        world(filled(), other).gather()


def test_a_group_of_others(world):
    with pytest.raises(ValueError, match="group must be one that this process belongs to"):
        world(filled()).gather("others")


# --- the summary ----------------------------------------------------------------------------------------------------


def test_the_table():
    book = mt.ScoreBook(["negative", "positive"], selection="inner split")
    for i in range(4):
        book.add([0, i % 2], [0, 1], clips=[f"{i}/a", f"{i}/b"], subjects=f"s{i}")
    low, high = book.interval("uf1")
    assert str(book).splitlines() == [
        "8 clips, 4 subjects, 2 classes",
        "selection: inner split",
        "",
        f"UF1  0.7333  [{low:.4f}, {high:.4f}]",
        "UAR  0.7500  [0.5000, 1.0000]",
        "WAR  0.7500  [0.5000, 1.0000]",
        "95 % intervals over 4 subjects",
        "",
        "class     precision  recall      F1  clips",
        "negative     0.6667  1.0000  0.8000      4",
        "positive     1.0000  0.5000  0.6667      4",
        "",
        "true \\ predicted  negative  positive",
        "negative                 4         0",
        "positive                 2         2",
    ]


def test_a_summary_with_other_settings():
    book = mt.ScoreBook(["a", "b", "c"])
    book.add([0, 1], [0, 1], clips=["x", "y"], subjects=["s1", "s2"])
    summary = book.summary(absent="zero", level=0.5, repeats=10, seed=3)
    assert (summary["uf1"], summary["absent"]) == (book.uf1(absent="zero"), "zero")
    assert {key: summary["intervals"][key] for key in ("over", "units", "level", "repeats", "seed")} == {
        "over": "subject", "units": 2, "level": 0.5, "repeats": 10, "seed": 3,
    }  # fmt: skip


def test_settings_of_numpy_are_written_as_numbers(tmp_path):
    book = filled()
    given = book.summary(level=np.float32(0.5), repeats=np.int64(10), seed=torch.tensor(3))
    assert json.loads(json.dumps(given)) == json.loads(json.dumps(book.summary(level=0.5, repeats=10, seed=3)))
    assert book.interval(repeats=np.int64(10), seed=np.uint8(3)) == book.interval(repeats=10, seed=3)
