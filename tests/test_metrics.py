import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

import mertools as mt
from mertools.metrics import all_scores


def draw(seed):
    """Random labels of which some classes are never true, or never predicted, or neither."""
    rng = np.random.default_rng(seed)
    e = int(rng.integers(2, 9))
    n = int(rng.integers(1, 60))
    truth = rng.choice(rng.permutation(e)[: rng.integers(1, e + 1)], n)
    guess = np.where(rng.random(n) < 0.5, truth, rng.choice(rng.permutation(e)[: rng.integers(1, e + 1)], n))
    return truth, guess, e


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_equal_to_scikit_learn(seed):
    truth, guess, e = draw(seed)
    every = list(range(e))
    confusion = mt.confusion_matrix(guess, truth, num_classes=e)
    assert confusion.tolist() == sk.confusion_matrix(truth, guess, labels=every).tolist()
    for arguments in ((guess, truth), (confusion,)):
        assert mt.uf1(*arguments) == pytest.approx(sk.f1_score(truth, guess, average="macro", zero_division=0))
        assert mt.uar(*arguments) == pytest.approx(sk.balanced_accuracy_score(truth, guess))
        assert mt.war(*arguments) == pytest.approx(sk.accuracy_score(truth, guess))
    zero = {"labels": every, "average": "macro", "zero_division": 0}
    assert mt.uf1(confusion, absent="zero") == pytest.approx(sk.f1_score(truth, guess, **zero))
    assert mt.uar(confusion, absent="zero") == pytest.approx(sk.recall_score(truth, guess, **zero))
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        truth, guess, labels=every, zero_division=np.nan
    )
    scores = mt.class_scores(confusion)
    assert scores.precision.numpy() == pytest.approx(precision, nan_ok=True)
    assert scores.recall.numpy() == pytest.approx(recall, nan_ok=True)
    assert scores.support.tolist() == support.tolist()
    there = (support > 0) | (np.bincount(guess, minlength=e) > 0)
    assert scores.f1.numpy()[there] == pytest.approx(f1[there])
    assert np.isnan(scores.f1.numpy()[~there]).all()


def test_many_matrices_at_once_are_the_same_one_by_one():
    counts = torch.randint(0, 4, (50, 5, 5)) * torch.randint(0, 2, (50, 5, 1))
    counts = counts[counts.sum((1, 2)) > 0]
    scores = all_scores(counts)
    for name in ("uf1", "uar", "war"):
        assert scores[name].tolist() == pytest.approx([getattr(mt, name)(one) for one in counts])


def test_written_out():
    """Rows negative, positive, surprise; surprise is never predicted, as in many a MEGC fold."""
    confusion = [[6, 2, 0], [1, 3, 0], [2, 2, 0]]
    f1 = (2 * 6 / (8 + 9), 2 * 3 / (4 + 7), 0)
    assert mt.uf1(confusion) == pytest.approx(sum(f1) / 3)
    assert mt.uar(confusion) == pytest.approx((6 / 8 + 3 / 4 + 0) / 3)
    assert mt.war(confusion) == pytest.approx(9 / 16)
    # Never predicted is not absent: it counts 0 under every policy.
    assert mt.uf1(confusion, absent="zero") == mt.uf1(confusion) == mt.uf1(confusion, absent="error")


def test_a_class_absent_from_a_fold_but_not_from_the_pool():
    first = torch.tensor([[4, 1, 0], [2, 3, 0], [0, 0, 0]])  # nobody is surprised
    second = torch.tensor([[2, 0, 2], [0, 1, 0], [1, 0, 3]])
    assert mt.uar(first) == pytest.approx((4 / 5 + 3 / 5) / 2)
    assert mt.uar(first, absent="zero") == pytest.approx((4 / 5 + 3 / 5) / 3)
    with pytest.raises(ValueError, match="uar is 0/0 for the classes 2"):
        mt.uar(first, absent="error")
    pooled = mt.uar(first + second)
    assert pooled == pytest.approx((6 / 9 + 4 / 6 + 3 / 4) / 3)
    assert pooled != pytest.approx((mt.uar(first) + mt.uar(second)) / 2, abs=1e-3)
    assert mt.uf1(first + second) != pytest.approx((mt.uf1(first) + mt.uf1(second)) / 2, abs=1e-3)


def test_a_class_that_is_only_predicted_has_an_f1_and_no_recall():
    confusion = [[3, 1], [0, 0]]
    assert mt.uf1(confusion) == pytest.approx((6 / 7 + 0) / 2)
    assert mt.uar(confusion) == 0.75
    assert mt.uf1(confusion, absent="error") == mt.uf1(confusion)
    for score in (mt.uar, mt.war):
        with pytest.raises(ValueError, match="0/0 for the classes 1"):
            score(confusion, absent="error")


def test_published_uar_was_a_precision():
    """Dividing the hits by the predictions of a class is another number."""
    confusion = torch.tensor([[8, 2], [5, 5]])
    precision = mt.class_scores(confusion).precision.mean()
    assert precision == pytest.approx((8 / 13 + 5 / 7) / 2)
    assert abs(precision - mt.uar(confusion)) > 0.01


@pytest.mark.parametrize(
    "form", [list, tuple, np.array, torch.tensor, lambda x: np.array(x, np.uint8), lambda x: torch.tensor(x).double()]
)
def test_forms_of_labels(form):
    expected = [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert mt.confusion_matrix(form([0, 1, 1, 2]), form([0, 1, 2, 2])).tolist() == expected
    assert mt.confusion_matrix(form([0, 1, 1, 2]), [0, 1, 2, 2]).dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_logits(dtype):
    logits = torch.tensor([[9.0, 1, 1], [1, 9, 1], [-torch.inf, 3, 1], [1, 1, 9]], requires_grad=True).to(dtype)
    assert mt.confusion_matrix(logits, [0, 1, 2, 2]).tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert mt.war(logits.softmax(1), torch.tensor([0, 1, 2, 2])) == 0.75
    assert mt.confusion_matrix(logits, [0, 0, 0, 0]).shape == (3, 3)  # as many classes as logits


def test_strided_and_read_only_arrays():
    labels = np.array([0, 9, 1, 9, 1, 9], ">i4")[::2]
    labels.flags.writeable = False
    assert mt.war(labels, torch.tensor([[0, 1], [1, 0], [1, 1]])[:, 0]) == 1


def test_num_classes_keeps_room_for_the_last_class():
    assert mt.confusion_matrix([0], [0], num_classes=3).shape == (3, 3)
    assert mt.uf1([0, 1], [0, 1], num_classes=3, absent="zero") == pytest.approx(2 / 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_labels_on_two_devices():
    confusion = mt.confusion_matrix(torch.tensor([0, 1, 1]).cuda(), torch.tensor([0, 1, 0]))
    assert confusion.is_cuda
    assert confusion.tolist() == [[1, 1], [0, 1]]
    assert mt.uf1(confusion) == mt.uf1(confusion.cpu())


@pytest.mark.parametrize(
    ("predicted", "target", "settings", "error", "message"),
    [
        ([], [], {}, ValueError, r"predicted must be class indices \(n,\) or logits \(n, e\) of at least one clip"),
        ([0, 1], [0], {}, ValueError, "equally many, got 2 and 1"),
        ([0, -1], [0, 1], {}, ValueError, r"predicted\[1\] is -1"),
        ([0, 1], [0, -100], {}, ValueError, r"target\[1\] is -100: leave clips without a label out"),
        ([0, 3], [0, 1], {"num_classes": 3}, ValueError, r"below the number of classes, 3; predicted\[1\] is 3"),
        ([0, 1], [0, 3], {"num_classes": 3}, ValueError, r"target\[1\] is 3"),
        ([0, 0.5], [0, 1], {}, ValueError, r"predicted\[1\] is 0.5"),
        ([0, 1], [0.25, 1], {}, ValueError, r"target\[0\] is 0.25"),
        ([0, float("nan")], [0, 1], {}, ValueError, r"predicted\[1\] is nan"),
        ([0, float("inf")], [0, 1], {}, ValueError, r"predicted\[1\] is inf"),
        (torch.tensor([[0.1, 0.2], [0.1, torch.nan]]), [0, 1], {}, ValueError, "logits without NaN, row 1"),
        (torch.rand(2, 3), [0, 1], {"num_classes": 5}, ValueError, r"\(n, 5\) to match the classes, got logits of 3"),
        (torch.rand(2, 3), [0, 3], {}, ValueError, r"target\[1\] is 3"),
        (torch.eye(2).long(), [0, 1], {}, ValueError, r"got torch.int64 of shape \(2, 2\)"),
        (torch.rand(2, 3, 5), [0, 1], {}, ValueError, r"of shape \(2, 3, 5\)"),
        ([0, 1], torch.rand(2, 3), {}, ValueError, r"target must be class indices \(n,\), got"),
        (["happy"], [0], {}, TypeError, "map class names to indices first"),
        ([[0], [0, 1]], [0], {}, TypeError, "predicted must be class indices"),
        (None, [0], {}, TypeError, "predicted must be"),
        (torch.zeros(2, dtype=torch.complex64), [0, 1], {}, TypeError, "complex64"),
        ([0, 10**6], [0, 1], {}, ValueError, "is that a class"),
        ([0], [0], {"num_classes": 0}, ValueError, "num_classes must be a positive integer"),
    ],
)
def test_bad_labels(predicted, target, settings, error, message):
    with pytest.raises(error, match=message):
        mt.confusion_matrix(predicted, target, **settings)
    for score in (mt.uf1, mt.uar, mt.war):
        with pytest.raises(error, match=message):
            score(predicted, target, **settings)


@pytest.mark.parametrize(
    ("confusion", "error", "message"),
    [
        ([[0, 0], [0, 0]], ValueError, "at least one clip"),
        ([[1, 2, 3], [1, 2, 3]], ValueError, r"got shape \(2, 3\)"),
        ([0, 1, 1], ValueError, "pass target too"),
        ([[1, -1], [0, 2]], ValueError, "counts, got -1"),
        ([[0.5, 0.5], [0, 1]], ValueError, "got fractions"),
        ([[torch.nan, 1], [0, 1]], ValueError, "got fractions"),
        ([[torch.inf, 1], [0, 1]], ValueError, "got fractions"),
        ("confusion", TypeError, "confusion must be"),
    ],
)
def test_bad_counts(confusion, error, message):
    for score in (mt.uf1, mt.uar, mt.war, mt.class_scores):
        with pytest.raises(error, match=message):
            score(confusion)


def test_bad_settings():
    with pytest.raises(ValueError, match="absent must be one of 'skip', 'zero', 'error'"):
        mt.uf1([0], [0], absent="ignore")
    with pytest.raises(ValueError, match=r"to match num_classes, got 2"):
        mt.uf1([[1, 0], [0, 1]], num_classes=3)


def test_scores_need_no_scikit_learn():
    script = "import sys; sys.modules['sklearn'] = None; import mertools as mt; print(mt.uf1([0, 1], [0, 1]))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout == "1.0\n"
