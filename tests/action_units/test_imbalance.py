import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mertools as mt

LOGITS, TARGET = torch.randn(11, 5, generator=torch.Generator().manual_seed(0)), torch.arange(11) % 5
SOFT = torch.randn(11, 5, generator=torch.Generator().manual_seed(1)).softmax(1)


def test_weights():
    torch.testing.assert_close(mt.class_weights([1, 2, 4]), torch.tensor([1, 1 / 2, 1 / 4]) / (1.75 / 3))
    counts = torch.tensor([5.0, 50, 5000])
    expected = (1 - 0.99) / (1 - 0.99**counts)
    torch.testing.assert_close(mt.class_weights(counts, method="effective", beta=0.99), expected / expected.mean())
    assert torch.equal(mt.class_weights(counts, method="effective", beta=0.0), torch.ones(3))


@pytest.mark.parametrize("target", [TARGET, SOFT])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_both_are_cross_entropy_at_zero(target, reduction):
    expected = F.cross_entropy(LOGITS, target, reduction=reduction)
    torch.testing.assert_close(mt.FocalLoss(0.0, reduction=reduction)(LOGITS, target), expected)
    adjusted = mt.LogitAdjustedLoss([1, 2, 3, 4, 5], tau=0.0, reduction=reduction)
    torch.testing.assert_close(adjusted(LOGITS, target), expected)


def test_focal_is_its_formula():
    p = LOGITS.softmax(1)[torch.arange(11), TARGET]
    weight = torch.rand(5)
    expected = weight[TARGET] * (1 - p) ** 1.5 * -p.log()
    torch.testing.assert_close(mt.FocalLoss(1.5, class_weight=weight, reduction="none")(LOGITS, TARGET), expected)


def test_adjusted_is_its_formula():
    counts = torch.tensor([10.0, 20, 30, 40, 100])
    expected = F.cross_entropy(LOGITS + 0.7 * (counts / 200).log(), TARGET)
    torch.testing.assert_close(mt.LogitAdjustedLoss(counts, tau=0.7)(LOGITS, TARGET), expected)


@pytest.mark.parametrize("loss", [mt.FocalLoss(), mt.LogitAdjustedLoss([1, 2, 3, 4, 5])])
def test_ignored_clips_and_extreme_logits(loss):
    target = TARGET.clone()
    target[[2, 7]] = -100
    keep = target != -100
    torch.testing.assert_close(loss(LOGITS, target), loss(LOGITS[keep], target[keep]))
    logits = (LOGITS.sign() * 1e4).requires_grad_()
    loss(logits, target).backward()
    assert torch.isfinite(logits.grad).all()
    logits.grad = None
    ignored = loss(logits, torch.full((11,), -100))
    ignored.backward()
    assert ignored.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("loss", [mt.FocalLoss(), mt.LogitAdjustedLoss([1, 2, 3, 4, 5])])
def test_gradcheck(loss):
    logits = LOGITS.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss.double()(x, TARGET), (logits,))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mt.class_weights([3, 0]), ValueError, "counts must be one positive number per class"),
        (lambda: mt.class_weights("ab"), TypeError, "counts must be one number per class"),
        (lambda: mt.class_weights([1], method="sqrt"), ValueError, "method must be"),
        (lambda: mt.class_weights([1], method="effective", beta=1.0), ValueError, r"beta must be in \[0, 1\)"),
        (lambda: mt.class_weights([1], method="effective", beta="a"), TypeError, "beta must be a number"),
        (lambda: mt.FocalLoss(-1), ValueError, "gamma must be finite and at least 0"),
        (lambda: mt.FocalLoss("2"), TypeError, "gamma must be a number"),
        (lambda: mt.FocalLoss(ignore_index=0.5), TypeError, "ignore_index must be an int"),
        (lambda: mt.FocalLoss(class_weight=[1, 2]), TypeError, "class_weight must be a torch.Tensor"),
        (
            lambda: mt.FocalLoss(class_weight=torch.ones(2, 2)),
            ValueError,
            r"class_weight must be \(4,\) \(one per class\)",
        ),
        (lambda: mt.FocalLoss(class_weight=-torch.ones(5)), ValueError, "class_weight must be finite and at least 0"),
        (
            lambda: mt.FocalLoss(class_weight=torch.ones(4))(LOGITS, TARGET),
            ValueError,
            r"\(b, 4\) to match class_weight",
        ),
        (lambda: mt.FocalLoss()(LOGITS.tolist(), TARGET), TypeError, r"logits must be a torch.Tensor \(b, e\)"),
        (lambda: mt.FocalLoss()(LOGITS[0], TARGET), ValueError, r"logits must be \(b, e\), got shape \(5,\)"),
        (lambda: mt.LogitAdjustedLoss([1, 2], tau=float("nan")), ValueError, "tau must be finite"),
        (lambda: mt.FocalLoss(reduction="avg"), ValueError, "reduction must be"),
        (lambda: mt.LogitAdjustedLoss([1, 2])(LOGITS, TARGET), ValueError, r"logits must be \(b, 2\)"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "loss", [mt.FocalLoss(ignore_index=-7), mt.LogitAdjustedLoss([1, 2, 3, 4, 5], ignore_index=-7)]
)
@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (TARGET + 1, ValueError, r"target must lie within 0\.\.4 \(or be ignore_index=-7\), got 5 for clip 4"),
        (TARGET - 100, ValueError, r"target must lie within 0\.\.4 .*, got -100 for clip 0"),
        (TARGET[:3], ValueError, r"target must be \(11,\) classes or \(11, 5\) probabilities, got shape \(3,\)"),
        (TARGET.tolist(), TypeError, "target must be a torch.Tensor of classes"),
        (TARGET.float(), TypeError, "must hold integer class indices"),
        (2 * SOFT, ValueError, "target"),
    ],
)
def test_a_target_that_does_not_fit(loss, target, error, message):
    with pytest.raises(error, match=message):
        loss(LOGITS, target)


def test_settings_of_numpy_are_numbers():
    focal = mt.FocalLoss(np.float32(1.5), ignore_index=np.int64(2))
    assert (type(focal.gamma), type(focal.ignore_index)) == (float, int)
    assert torch.equal(focal(LOGITS, TARGET), mt.FocalLoss(1.5, ignore_index=2)(LOGITS, TARGET))
    counts = np.array([1, 2, 3, 4, 5])
    adjusted = mt.LogitAdjustedLoss(counts, tau=np.float64(0.5), ignore_index=torch.tensor(2))
    assert torch.equal(
        adjusted(LOGITS, TARGET), mt.LogitAdjustedLoss([1, 2, 3, 4, 5], tau=0.5, ignore_index=2)(LOGITS, TARGET)
    )
