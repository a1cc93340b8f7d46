import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import mertools as mt
from mertools.evaluation.metrics import check_counts, macro_mean


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
            score(predicted=predicted, target=target, **settings)


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


def test_the_order_of_scikit_learn_is_no_other_score():
    truth, guess = [0, 0, 0, 1], [0, 0, 1, 1]
    assert mt.uar(predicted=guess, target=truth) == pytest.approx(5 / 6)
    assert mt.uar(predicted=truth, target=guess) == 0.75  # the mean precision, asked for by name
    for one, other in ((truth, guess), (guess, truth), (np.array(truth), torch.tensor(guess)), ([0], [0])):
        with pytest.raises(TypeError, match=r"does not say which .* Write uar\(predicted=..., target=...\)"):
            mt.uar(one, other)
    for score in (mt.uf1, mt.war):
        assert score(truth, guess) == score(guess, truth) == score(predicted=guess, target=truth)
    logits = torch.eye(2)[guess]
    assert (
        mt.uar(logits, truth) == mt.uar(logits, target=truth) == mt.uar(truth, predicted=guess) == pytest.approx(5 / 6)
    )
    assert mt.uar(guess, target=truth) == pytest.approx(5 / 6)
    with pytest.raises(ValueError, match="target must be class indices"):
        mt.uar(predicted=truth, target=logits)
    with pytest.raises(TypeError, match="got more than two values"):
        mt.uar(guess, predicted=guess, target=truth)
    with pytest.raises(TypeError, match="takes from 0 to 2 positional arguments"):
        mt.uar(guess, truth, guess)


def test_bad_settings():
    with pytest.raises(ValueError, match="absent must be one of 'skip', 'zero', 'error'"):
        mt.uf1([0], [0], absent="ignore")
    with pytest.raises(ValueError, match=r"to match num_classes, got 2"):
        mt.uf1([[1, 0], [0, 1]], num_classes=3)


def test_counts_may_be_whole_numbers_of_any_type_and_size():
    assert mt.uf1([[4.0, 1], [2, 3]]) == mt.uf1(np.array([[4, 1], [2, 3]], np.uint8)) == mt.uf1([[4, 1], [2, 3]])
    assert check_counts([[2**53 + 1, 0], [0, 1]])[0, 0].item() == 2**53 + 1


def test_two_thousand_classes_need_no_announcement():
    assert mt.confusion_matrix([1999], [0]).shape == (2000, 2000)
    assert mt.confusion_matrix([2000], [0], num_classes=2001).shape == (2001, 2001)


ABSENT = (
    "0/0 for the classes {}: no clip has them. absent='skip' leaves them out of the mean, absent='zero' counts them 0"
)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mt.uf1([[1, 0, 0], [0, 0, 0], [0, 0, 0]], absent="error"), f"uf1 is {ABSENT.format('1, 2')}"),
        (lambda: mt.uar([[1, 0, 0], [0, 0, 0], [0, 0, 0]], absent="error"), f"uar is {ABSENT.format('1, 2')}"),
        (lambda: mt.war([[1, 0, 0], [0, 0, 0], [0, 0, 0]], absent="error"), f"war is {ABSENT.format('1, 2')}"),
        (
            lambda: macro_mean("uf1", torch.ones(3), torch.tensor([1, 0, 0]), "error", ["sad", "fear", "disgust"]),
            f"uf1 is {ABSENT.format('fear, disgust')}",
        ),
        (
            lambda: mt.uf1([0, 1, 1]),
            "confusion must be (e, e) counts, rows true, got shape (3,): pass target too to score predictions",
        ),
        (lambda: mt.uf1([[0, 0], [0, 0]]), "confusion must count at least one clip, it is all zero"),
        (
            lambda: mt.uf1([[0.5, 0], [0, 0]]),
            "confusion must hold counts, got fractions: score the counts, not the normalised matrix",
        ),
        (
            lambda: mt.uf1("abc"),
            "confusion must be an (e, e) matrix of counts, got str: map class names to indices first",
        ),
        (
            lambda: mt.uf1(["sad"], [0]),
            "predicted must be class indices (n,) or logits (n, e), got list of <U3: map class names to indices first",
        ),
        (
            lambda: mt.confusion_matrix([2000], [0]),
            "the largest class index is 2000, is that a class? Pass num_classes=2001 if so",
        ),
    ],
)
def test_messages_in_full(call, message):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}$"):
        call()


def test_a_ragged_list_is_named_by_its_type():
    with pytest.raises(TypeError, match="^predicted must be class indices .*, got list: "):
        mt.confusion_matrix([[0], [0, 1]], [0])


def test_scores_need_no_scikit_learn():
    script = "import sys; sys.modules['sklearn'] = None; import mertools as mt; print(mt.uf1([0, 1], [0, 1]))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout == "1.0\n"


def test_numbers_of_classes_of_numpy_and_tensors():
    truth = np.array([0, 1, 2, 2])
    for classes in (truth.max() + 1, torch.tensor(truth).max() + 1, np.uint8(3)):
        assert mt.confusion_matrix(predicted=truth, target=truth, num_classes=classes).shape == (3, 3)
        assert mt.uf1([[1, 0, 0], [0, 1, 0], [0, 0, 0]], num_classes=classes, absent="zero") == pytest.approx(2 / 3)
    for classes in (True, 3.0, "3"):
        with pytest.raises(ValueError, match="num_classes must be a positive integer"):
            mt.uf1([[1, 0, 0], [0, 1, 0], [0, 0, 0]], num_classes=classes)
