"""Laws of scores, score books and folds, whatever the predictions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

import mertools as mt
from mertools.evaluation.metrics import all_scores


@st.composite
def labels(draw, size=40):
    """Predicted and true classes, and how many there are; some never occur."""
    e = draw(st.integers(1, 8))
    some = st.lists(st.integers(0, e - 1), min_size=1, unique=True)
    truth, guess = (draw(st.lists(st.sampled_from(draw(some)), min_size=n, max_size=n))
                    for n in [draw(st.integers(1, size))] * 2)  # fmt: skip
    return np.array(guess), np.array(truth), e


@settings(max_examples=2 * settings.default.max_examples)
@given(labels())
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_equal_to_scikit_learn(drawn):
    guess, truth, e = drawn
    every = list(range(e))
    confusion = mt.confusion_matrix(guess, truth, num_classes=e)
    assert confusion.tolist() == sk.confusion_matrix(truth, guess, labels=every).tolist()
    support, predicted = (np.bincount(x, minlength=e) for x in (truth, guess))
    assert mt.uar(predicted=guess, target=truth) == pytest.approx(sk.balanced_accuracy_score(truth, guess))
    for arguments in ((guess, truth), (truth, guess), (confusion,)):
        assert mt.uf1(*arguments) == pytest.approx(sk.f1_score(truth, guess, average="macro", zero_division=0))
        for absent in ("skip", "zero"):
            assert mt.war(*arguments, absent=absent) == pytest.approx(sk.accuracy_score(truth, guess))
    assert mt.uar(confusion) == pytest.approx(sk.balanced_accuracy_score(truth, guess))
    zero = {"labels": every, "average": "macro", "zero_division": 0}
    assert mt.uf1(confusion, absent="zero") == pytest.approx(sk.f1_score(truth, guess, **zero))
    assert mt.uar(confusion, absent="zero") == pytest.approx(sk.recall_score(truth, guess, **zero))
    for score, absent in ((mt.uf1, support + predicted), (mt.uar, support), (mt.war, support)):
        missing = np.flatnonzero(absent == 0)
        if not len(missing):
            assert score(confusion, absent="error") == score(confusion)
            continue
        with pytest.raises(ValueError, match=f"0/0 for the classes {', '.join(map(str, missing))}:"):
            score(confusion, absent="error")
    precision, recall, f1, count = sk.precision_recall_fscore_support(truth, guess, labels=every, zero_division=np.nan)
    scores = mt.class_scores(confusion)
    assert scores.precision.numpy() == pytest.approx(precision, nan_ok=True)
    assert scores.recall.numpy() == pytest.approx(recall, nan_ok=True)
    assert scores.support.tolist() == count.tolist()
    there = support + predicted > 0
    assert scores.f1.numpy()[there] == pytest.approx(f1[there])
    assert np.isnan(scores.f1.numpy()[~there]).all()


@given(labels(), st.randoms(use_true_random=False))
def test_neither_the_order_of_clips_nor_that_of_classes_counts(drawn, random):
    guess, truth, e = drawn
    confusion = mt.confusion_matrix(guess, truth, num_classes=e)
    clips, classes = list(range(len(truth))), list(range(e))
    random.shuffle(clips)
    random.shuffle(classes)
    renamed = np.array(classes)
    shuffled = mt.confusion_matrix(renamed[guess[clips]], renamed[truth[clips]], num_classes=e)
    assert torch.equal(shuffled[renamed][:, renamed], confusion)
    for score in (mt.uf1, mt.uar, mt.war):
        for absent in ("skip", "zero"):
            assert score(shuffled, absent=absent) == pytest.approx(score(confusion, absent=absent))
            assert 0 <= score(confusion, absent=absent) <= 1
    scores, turned = mt.class_scores(confusion), mt.class_scores(confusion.T)
    for one, other in ((scores.precision, turned.recall), (scores.recall, turned.precision), (scores.f1, turned.f1)):
        torch.testing.assert_close(one, other, equal_nan=True)


@given(st.lists(labels(10), min_size=1, max_size=4))
def test_counts_add_up_and_many_at_once_are_the_same_one_by_one(parts):
    e = max(part[2] for part in parts)
    counts = torch.stack([mt.confusion_matrix(guess, truth, num_classes=e) for guess, truth, _ in parts])
    pooled = (np.concatenate([part[i] for part in parts]) for i in range(2))
    assert torch.equal(counts.sum(0), mt.confusion_matrix(*pooled, num_classes=e))
    scores = all_scores(counts)
    for name in ("uf1", "uar", "war"):
        assert scores[name].tolist() == pytest.approx([getattr(mt, name)(one) for one in counts])


@given(labels(), st.integers(0, 2**32 - 1), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_logits_are_the_class_they_favour(drawn, seed, dtype):
    guess, truth, e = drawn
    noise = torch.rand(len(truth), e, generator=torch.Generator().manual_seed(seed))
    logits = (noise + 2 * torch.nn.functional.one_hot(torch.tensor(guess), e)).to(dtype)
    expected = mt.confusion_matrix(guess, truth, num_classes=e)
    assert torch.equal(mt.confusion_matrix(logits, truth), expected)
    assert torch.equal(mt.confusion_matrix(logits.softmax(1), torch.tensor(truth)), expected)


# --- score books ----------------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)


@st.composite
def books(draw):
    """Classes with any names, and rows ``(clip, subject, dataset, fold, target, predicted)`` with any too."""
    classes = draw(st.lists(NAMES.filter(str.strip), min_size=1, max_size=4, unique_by=lambda c: c.strip().casefold()))
    index = st.integers(0, len(classes) - 1)
    rows = draw(st.lists(
        st.tuples(NAMES.filter(bool), NAMES, NAMES, NAMES, index, index), min_size=1, max_size=12, unique_by=lambda r: r[0]
    ))  # fmt: skip
    try:
        mt.ScoreBook(classes)
    except ValueError:  # two spellings of one expression
        assume(False)
    return classes, draw(NAMES), rows


def filled(classes, selection, rows):
    book = mt.ScoreBook(classes, selection=selection)
    for clip, subject, dataset, fold, target, predicted in rows:
        book.add([predicted], [target], clips=[clip], subjects=[subject], datasets=[dataset], fold=fold)
    return book


@given(books())
def test_a_book_comes_back_from_its_files(tmp_path_factory, drawn):
    classes, selection, rows = drawn
    book = filled(*drawn)
    folder = tmp_path_factory.mktemp("book")
    book.write_json(folder / "book.json")
    book.write_csv(folder / "book.csv")
    for found in (
        mt.ScoreBook.read_json(folder / "book.json"), mt.ScoreBook.read_csv(folder / "book.csv", classes=classes),
    ):  # fmt: skip
        assert found == book
        assert (found.classes, found.selection) == (tuple(classes), selection)
        assert sorted(tuple(row) for row in found) == sorted(rows)


@given(books(), st.randoms(use_true_random=False), st.integers(0, 12))
def test_a_book_is_its_rows_in_whatever_parts_they_came(drawn, random, cut):
    classes, selection, rows = drawn
    whole = filled(*drawn)
    shuffled = list(rows)
    random.shuffle(shuffled)
    parts = [filled(classes, selection, part) for part in (shuffled[:cut], shuffled[cut:])]
    assert parts[0] + parts[1] == parts[1] + parts[0] == sum(parts) == whole
    assert list(parts[0].merge(parts[1])) == list(whole)
    counts = mt.confusion_matrix([row[5] for row in rows], [row[4] for row in rows], num_classes=len(classes))
    assert torch.equal(whole.confusion, counts)
    for score in ("uf1", "uar", "war"):
        for absent in ("skip", "zero"):
            assert getattr(whole, score)(absent=absent) == getattr(mt, score)(counts, absent=absent)
    for group in ("subject", "fold", "dataset"):
        assert sum(scores.clips for scores in whole.per(group).values()) == len(rows)
    with pytest.raises(ValueError, match="predicted twice"):
        whole.merge(filled(classes, selection, rows[:1]))
    assert len(whole) == len(rows)


@settings(max_examples=settings.default.max_examples // 2)
@given(books(), st.sampled_from(["uf1", "uar", "war"]), st.floats(0.1, 0.9))
def test_an_interval_holds_scores(drawn, score, level):
    assume(len(drawn[2]) > 1)
    book = filled(*drawn)
    low, high = book.interval(score, level=level, repeats=50, over="clip")
    wide = book.interval(score, level=min(level + 0.09, 0.99), repeats=50, over="clip")
    assert 0 <= wide[0] <= low <= high <= wide[1] <= 1
    if len({(row[4], row[5]) for row in drawn[2]}) == 1:
        assert low == high == getattr(book, score)()
    assert book.compare(book, score, repeats=20, over="clip") == (0, 0, 0)


# --- folds ----------------------------------------------------------------------------------------------------------


@st.composite
def people(draw, most=40):
    """Who is seen in each clip and what is shown, by names or numbers."""
    n = draw(st.integers(4, most))
    who = draw(st.lists(st.integers(0, 6), min_size=n, max_size=n).filter(lambda found: len(set(found)) > 2))
    shown = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    return ([f"s{i}" for i in who] if draw(st.booleans()) else who), shown


def whose(indices, names):
    return {names[i] for i in indices}


def apart(fold, subjects, clips):
    """Nobody and nothing on both sides, and all of it on one."""
    assert sorted(fold.train + fold.test) == sorted(clips)
    assert fold.train == sorted(fold.train)
    assert fold.test == sorted(fold.test)
    assert fold.train
    assert fold.test
    assert not whose(fold.train, subjects) & whose(fold.test, subjects)


@given(people())
def test_leaving_one_out_tests_everybody_once(drawn):
    subjects, _ = drawn
    folds = mt.loso_folds(subjects)
    assert [whose(fold.test, subjects) for fold in folds] == [{name} for name in sorted(set(subjects))]
    assert folds == mt.lodo_folds(subjects) == mt.loso_folds(np.array(subjects))
    for fold in folds:
        apart(fold, subjects, range(len(subjects)))


@settings(max_examples=settings.default.max_examples // 2)
@given(people(), st.integers(2, 4), st.integers(0, 99))
def test_group_folds_test_every_clip_once(drawn, count, seed):
    subjects, shown = drawn
    if len(set(subjects)) < count or max(map(shown.count, shown)) < count:
        with pytest.raises(ValueError, match="folds must not be more than"):
            mt.group_folds(subjects, shown, folds=count, seed=seed)
        return
    try:
        folds = mt.group_folds(subjects, shown, folds=count, seed=seed)
    except ValueError:  # a class of one subject, or of fewer than there are folds, leaves some training without it
        alone = [c for c in set(shown) if len({s for s, x in zip(subjects, shown, strict=True) if x == c}) < count]
        assert alone or len(set(subjects)) < 2 * count
        return
    assert len(folds) == count
    assert sorted(i for fold in folds for i in fold.test) == list(range(len(subjects)))
    for fold in folds:
        apart(fold, subjects, range(len(subjects)))
        assert whose(fold.train, shown) == set(shown)
    assert folds == mt.group_folds(np.array(subjects), torch.tensor(shown), folds=count, seed=seed)


@given(people(), st.floats(0.05, 0.95), st.integers(0, 99), st.data())
def test_an_inner_split_keeps_every_class_and_leaks_nobody(drawn, share, seed, data):
    subjects, shown = drawn
    train = data.draw(st.lists(st.integers(0, len(subjects) - 1), min_size=2, unique=True))
    who = whose(train, subjects)
    alone = {c: {subjects[i] for i in train if shown[i] == c} for c in whose(train, shown)}
    free = who - {next(iter(names)) for names in alone.values() if len(names) == 1}
    if len(who) < 2 or not free:
        with pytest.raises(ValueError, match="at least 2 subjects|no subject of train can be held out"):
            mt.inner_split(train, subjects, shown, share=share, seed=seed)
        return
    inner = mt.inner_split(train, subjects, shown, share=share, seed=seed)
    apart(inner, subjects, train)
    assert whose(inner.train, shown) == whose(train, shown)
    assert whose(inner.test, subjects) <= free
    assert len(whose(inner.test, subjects)) <= max(round(share * len(who)), 1)
    assert inner == mt.inner_split(train[::-1], subjects, shown, share=share, seed=seed)


@given(people(), st.data())
def test_the_guard_lets_pass_what_shares_nobody(drawn, data):
    subjects, _ = drawn
    test = data.draw(st.sets(st.integers(0, len(subjects) - 1), min_size=1, max_size=len(subjects) - 1))
    train = [i for i in range(len(subjects)) if i not in test]
    both = whose(train, subjects) & whose(test, subjects)
    if not both:
        assert mt.check_fold((train, sorted(test)), subjects) is None
        return
    with pytest.raises(ValueError, match=f"fold has {len(both)} subject"):
        mt.check_fold((train, sorted(test)), subjects)


@given(st.lists(st.floats(0, 1, allow_subnormal=False), min_size=2, max_size=6))
def test_scores_of_nothing_but_hits_are_one(shares):
    counts = torch.diag(torch.tensor([math.ceil(10 * share) for share in shares]))
    assume(bool(counts.any()))
    assert mt.uf1(counts) == mt.uar(counts) == mt.war(counts) == 1
