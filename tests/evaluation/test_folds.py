import subprocess
import sys

import numpy as np
import pytest
import torch

import mertools as mt


def table(n=90, subjects=9, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return [f"s{rng.integers(subjects) + 1:02d}" for _ in range(n)], rng.integers(classes, size=n).tolist()


def whose(indices, names):
    return {names[i] for i in indices}


@pytest.mark.parametrize("form", [list, np.array, tuple])
def test_leave_one_subject_out(form):
    subjects, _ = table()
    folds = mt.loso_folds(form(subjects))
    assert [subjects[fold.test[0]] for fold in folds] == sorted(set(subjects))
    for train, test in folds:
        assert len(whose(test, subjects)) == 1
        assert not whose(train, subjects) & whose(test, subjects)
        assert sorted(train + test) == list(range(90))
        assert train == sorted(train)
        assert {type(i) for i in train + test} == {int}


def test_subjects_may_be_numbers():
    assert mt.loso_folds([10, 2, 10]) == [mt.Fold([0, 2], [1]), mt.Fold([1], [0, 2])]
    assert mt.loso_folds(torch.tensor([10, 2, 10])) == mt.loso_folds([np.int64(10), 2, 10])


def test_leave_one_dataset_out():
    datasets = ["samm", "smic", "casme2", "samm"]
    folds = mt.lodo_folds(datasets, ["samm/06", "smic/06", "casme2/06", "samm/07"])
    assert folds == [mt.Fold([0, 1, 3], [2]), mt.Fold([1, 2], [0, 3]), mt.Fold([0, 2, 3], [1])]
    with pytest.raises(ValueError, match="1 subject on both sides: '06'"):
        mt.lodo_folds(datasets, ["06", "06", "06", "07"])


def test_the_seed_shuffles_groups():
    subjects, targets = table()
    assert len({str(mt.group_folds(subjects, targets, folds=3, seed=seed)) for seed in range(5)}) > 1


def test_a_class_with_fewer_clips_than_folds_is_no_error():
    subjects = [f"s{i}" for i in range(12)]
    folds = mt.group_folds(subjects, [0] * 10 + [1, 1], folds=4)
    assert sum(any(i >= 10 for i in fold.test) for fold in folds) <= 2


def test_a_class_of_one_subject_cannot_be_trained_without():
    with pytest.raises(ValueError, match="training has no clip of class 'fear'"):
        mt.group_folds(["a", "b", "c", "d"], ["joy", "joy", "joy", "fear"], folds=2)


# --- the folds of datasets -----------------------------------------------------------------------------------------


def dfew(tmp_path, folds=5, count=35):
    clips = []
    for fold in range(1, folds + 1):
        for split in ("train", "test"):
            folder = tmp_path / f"{split}(single-labeled)"
            folder.mkdir(exist_ok=True)
            rows = [i for i in range(count) if (i % folds + 1 == fold) == (split == "test")]
            lines = [f"{i + 1:05d},{i // folds % 7 + 1}" for i in rows]
            (folder / f"set_{fold}.csv").write_text("video_name,label\n" + "\n".join(lines))
    clips = mt.read_annotations(tmp_path, "dfew")
    return mt.apply_protocol(clips, "dfew")


def test_five_folds_of_dfew(tmp_path):
    clips = dfew(tmp_path)
    folds = mt.fixed_folds(clips)
    assert list(folds) == ["1", "2", "3", "4", "5"]
    tested = []
    for name, (train, test) in folds.items():
        parts = clips.split(fold=int(name))
        assert clips.take(train) == parts[0]
        assert clips.take(test) == parts[1]
        assert (len(train), len(test)) == (28, 7)
        tested += [clips.clips[i].clip for i in test]
    assert sorted(tested) == [f"{i:05d}" for i in range(1, 36)]


def test_the_split_of_ferv39k(tmp_path):
    for split, numbers in (("train", range(3, 9)), ("test", range(3))):
        (tmp_path / f"{split}_All.csv").write_text("\n".join(f"Action/Happy/{i:04d} Happy" for i in numbers))
    clips = mt.apply_protocol(mt.read_annotations(tmp_path, "ferv39k"), "ferv39k")
    (fold,) = mt.fixed_folds(clips).values()
    assert {clips.clips[i].split for i in fold.train} == {"train"}
    assert {clips.clips[i].clip for i in fold.test} == {f"Action/Happy/{i:04d}" for i in range(3)}


def test_folds_may_count_from_0():
    entries = [("", str(i), "happy", split, fold) for fold in (0, 1) for i, split in enumerate(("train", "test"))]
    assert mt.fixed_folds(rows(*entries)) == {"0": mt.Fold([0], [1]), "1": mt.Fold([2], [3])}


def rows(*entries, dataset="dfew"):
    clips = [mt.ClipAnnotation(dataset, subject, clip, label=label, split=split, fold=fold)
             for subject, clip, label, split, fold in entries]  # fmt: skip
    return mt.apply_protocol(clips, "dfew" if dataset == "dfew" else "ferv39k")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("", "1", "happy", "train", 2), ("", "1", "happy", "test", 2)], "fold 2 of dfew: fold has 1 clip on both sides: 'dfew/1' "),
        ([("x", "1", "happy", "train", 1), ("x", "2", "happy", "test", 1)], "1 subject on both sides: 'x' "),
        ([("", "1", "happy", "train", 1), ("", "2", "fear", "test", 1)], "training has no clip of class 'fear'"),
        ([("", "1", "happy", "train", 1)], "fold 1 of dfew: test is empty"),
        ([("", "1", "happy", "train", 1), ("", "2", "happy", None, 1)], "1 of the 2 clips of dfew know no split"),
        ([("", "1", "happy", "train", 1), ("", "2", "happy", "test", None)], r"a fold or none, got folds \[None, 1\]"),
        ([], "0 of the 0 clips of dfew know no split"),
    ],
)  # fmt: skip
def test_bad_fixed_folds(entries, message):
    with pytest.raises(ValueError, match=message):
        mt.fixed_folds(rows(*entries))
    with pytest.raises(TypeError, match="clips must be ProtocolClips"):
        mt.fixed_folds([])


# --- the inner split -----------------------------------------------------------------------------------------------


def test_inner_splits_are_even():
    """Of the possible draws one near the share of every class is taken, unlike a plain draw of groups."""
    from sklearn.model_selection import GroupShuffleSplit

    def uneven(test, targets, share):
        return np.abs(np.bincount([targets[i] for i in test], minlength=3) / np.bincount(targets) - share).sum()

    ours, plain = [], []
    for seed in range(10):
        subjects, targets = table(n=200, subjects=20, seed=seed)
        ours.append(uneven(mt.inner_split(range(200), subjects, targets, seed=seed).test, targets, 0.2))
        ((_, test),) = GroupShuffleSplit(1, test_size=0.2, random_state=seed).split(targets, groups=subjects)
        plain.append(uneven(test, targets, 0.2))
    assert np.mean(ours) < 0.5 * np.mean(plain)


def test_who_alone_shows_a_class_stays_in_training():
    subjects = ["a", "a", "b", "b", "c", "c", "d"]
    targets = ["joy", "fear", "joy", "rage", "joy", "joy", "joy"]
    for seed in range(10):
        inner = mt.inner_split(range(7), subjects, targets, share=0.5, seed=seed)
        assert {"a", "b"} <= whose(inner.train, subjects)
    with pytest.raises(
        ValueError,
        match=r"no subject of train can be held out, each alone shows a class: 'fear' \('a'\), 'rage' \('b'\)",
    ):
        mt.inner_split([0, 1, 2, 3], subjects, targets)  # fmt: skip


def test_all_that_can_be_held_out_is_less_than_the_share():
    # Any two of the three would take a class away; one never does.
    subjects, targets = ["a", "a", "b", "b", "c", "c"], [0, 1, 1, 2, 2, 0]
    inner = mt.inner_split(range(6), subjects, targets, share=0.6)
    assert len(whose(inner.test, subjects)) == 1
    assert len({str(mt.inner_split(range(6), subjects, targets, share=0.6, seed=seed)) for seed in range(9)}) == 3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"train": []}, ValueError, "train is empty"),
        ({"train": [0, 1]}, ValueError, "at least 2 subjects to hold one out, got 1"),
        ({"train": [0, 9]}, ValueError, "train must lie within the 6 clips, got index 9"),
        ({"train": [0, 0, 2]}, ValueError, "every index once, got 0 more than once"),
        ({"train": [0.0, 2.0]}, TypeError, r"train\[0\] is 0.0"),
        ({"train": [True, False]}, TypeError, r"train\[0\] is True"),
        ({"share": 0}, ValueError, "share must lie in"),
        ({"share": 1}, ValueError, "share must be in"),
        ({"seed": -1}, ValueError, "seed must be"),
        ({"targets": [0]}, ValueError, "targets must be one per clip, got 1 for 6"),
    ],
)
def test_bad_inner_splits(change, error, message):
    arguments = {"train": range(6), "subjects": ["a", "a", "b", "b", "c", "c"], "targets": [0, 1] * 3} | change
    with pytest.raises(error, match=message):
        mt.inner_split(arguments.pop("train"), arguments.pop("subjects"), arguments.pop("targets"), **arguments)


# --- the guard -----------------------------------------------------------------------------------------------------

PEOPLE = ["s1", "s1", "s2", "s2", "s3"]


def test_a_fold_that_is_fine():
    assert mt.check_fold(([0, 1], [2, 3]), PEOPLE, targets=[0, 1, 1, 0, 2]) is None
    mt.check_fold((torch.tensor([0, 1]), np.array([4])), PEOPLE)
    mt.check_fold(mt.Fold([0, 7], [5]))


@pytest.mark.parametrize(
    ("fold", "settings", "error", "message"),
    [
        (([0, 2], [1, 3]), {}, ValueError, r"2 subjects on both sides: 's1' \(1 clip in training, 1 in test\), 's2' \(1 clip"),
        (([0, 1, 2], [2, 4]), {}, ValueError, "1 clip on both sides: index 2"),
        (([0, 1], [5]), {}, ValueError, "test must lie within the 5 clips, got index 5"),
        (([0, -1], [4]), {}, ValueError, "train must lie within the 5 clips, got index -1"),
        (([0, 0], [4]), {}, ValueError, "train must hold every index once, got 0 more than once"),
        (([], [4]), {}, ValueError, "train is empty"),
        (([0], []), {}, ValueError, "test is empty"),
        (([0, 1], [4]), {"targets": [0, 0, 0, 0, 1]}, ValueError, "training has no clip of class 1: the model cannot"),
        (([0, 1], [4]), {"targets": [0, 0, 0, 0, 0], "classes": ["joy", "fear"]}, ValueError, "no clip of class 'fear'"),
        (([0, 1], [4]), {"targets": [0, 0, 0, 0, 7], "classes": ["joy", "fear"]}, ValueError, "targets must be among the 2 classes, got 7"),
        (([0, 1], [4]), {"targets": ["joy"] * 5, "classes": ["joy", "fear"]}, ValueError, "no clip of class 'fear'"),
        (([0, 1], [4]), {"targets": [0]}, ValueError, "targets must be one per clip, got 1 for 5"),
        ([0, 1, 2], {}, TypeError, "fold must be a Fold, or two lists"),
        (([0, 1], ["4"]), {}, TypeError, "test must be indices, got '4'"),
    ],
)  # fmt: skip
def test_the_guard_refuses(fold, settings, error, message):
    with pytest.raises(error, match=message):
        mt.check_fold(fold, PEOPLE, **settings)


@pytest.mark.parametrize(("one", "other"), [("spNO.1", "spNo.1"), ("01", "1"), ("sub 03", " sub  3"), ("S010", "s10")])
def test_one_person_under_two_spellings(one, other):
    with pytest.raises(ValueError, match="1 subject on both sides: .* = "):
        mt.check_fold(([0], [1]), [one, other])
    with pytest.raises(ValueError, match="on both sides"):
        mt.loso_folds([one, other, "else"])


@pytest.mark.parametrize(("one", "other"), [("s1", "s10"), ("1", "10"), ("s100", "s10"), ("a/01", "b/01")])
def test_two_people(one, other):
    mt.check_fold(([0], [1]), [one, other])


def test_many_leaks_are_counted():
    people = [f"s{i}" for i in range(9)] * 2
    with pytest.raises(ValueError, match="9 subjects on both sides: 's0' .* and 4 more"):
        mt.check_fold((range(9), range(9, 18)), people)


@pytest.mark.parametrize(
    ("subjects", "error", "message"),
    [
        (["s1", "s1"], ValueError, r"subjects must be at least 2 to leave one out, got 1: \['s1'\]"),
        ([], ValueError, "subjects must be at least 2"),
        (["s1", ""], ValueError, r"subjects must be names, subjects\[1\] is empty"),
        (["s1", None], TypeError, r"subjects\[1\] is None"),
        (["s1", float("nan")], TypeError, r"subjects\[1\] is nan"),
        (["s1", 2], TypeError, "all strings or all integers"),
        ("s1", TypeError, "subjects must be a sequence, one per clip, got 's1'"),
        (3, TypeError, "subjects must be a sequence, one per clip, got int"),
        (torch.tensor(3), TypeError, "subjects must be a sequence, one per clip, got 3"),
    ],
)
def test_bad_subjects(subjects, error, message):
    with pytest.raises(error, match=message):
        mt.loso_folds(subjects)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 10}, "folds must not be more than the subjects, got 10 folds of 9 subjects"),
        ({"folds": 1}, "folds must be an integer of at least 2"),
        ({"seed": None}, "seed must be"),
    ],
)
def test_bad_group_folds(settings, message):
    subjects, targets = table()
    with pytest.raises(ValueError, match=message):
        mt.group_folds(subjects, targets, **settings)
    with pytest.raises(ValueError, match="clips of the largest class, 2, got 3"):
        mt.group_folds(["a", "b", "c", "d"], [0, 0, 1, 1], folds=3)


def test_without_scikit_learn_the_extra_is_named():
    script = """
import sys
sys.modules["sklearn"] = None
import mertools as mt
mt.check_fold(([0], [1]), ["a", "b"])
try:
    mt.loso_folds(["a", "b"])
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "folds need scikit-learn: pip install 'mertools[train]'"


def test_numbers_of_numpy_and_tensors():
    subjects, targets = [f"s{i % 9}" for i in range(90)], [i % 3 for i in range(90)]
    expected = mt.group_folds(subjects, targets, folds=3, seed=2)
    inner = mt.inner_split(expected[0].train, subjects, targets, share=0.5, seed=2)
    for kind in (np.int64, np.uint8, torch.tensor):
        assert mt.group_folds(subjects, targets, folds=kind(3), seed=kind(2)) == expected
        train = [kind(i) for i in expected[0].train]
        assert mt.inner_split(train, subjects, targets, share=np.float64(0.5), seed=kind(2)) == inner
        assert {type(i) for fold in (inner, *mt.loso_folds([kind(i % 3) for i in range(9)])) for i in fold[0]} == {int}
