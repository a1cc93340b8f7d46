import copy
import pickle
import re
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mertools as mt

E, A, B = 7, 18, 11


@pytest.fixture
def batch():
    return {
        "logits": torch.randn(B, E),
        "target": torch.randint(0, E, (B,)),
        "au_logits": torch.randn(B, A) * 3,
        "au_target": torch.randint(0, 2, (B, A)).float(),
    }


def published(logits, target, au_logits, au_target, *, prior, pos_weight=None, r=0.25, scale=5.0):
    """REFERENCE §2 written out, a clip at a time."""
    total = 0.0
    for b in range(len(target)):
        weight = None if pos_weight is None else pos_weight if pos_weight.ndim == 1 else pos_weight[target[b]]
        bce = F.binary_cross_entropy_with_logits(au_logits[b], au_target[b], pos_weight=weight, reduction="none")
        total = total + (scale * prior[target[b]] * bce).sum()
    return (1 - r) * F.cross_entropy(logits, target) + r * total / au_logits.numel()


@pytest.mark.parametrize("dataset", ["DFEW", "FERV39K"])
@pytest.mark.parametrize("mode", [None, "global", "distinct", "minor"])
def test_equals_the_published_formula(batch, dataset, mode):
    weight = None if mode is None else mt.au_pos_weight(dataset, mode)
    loss = mt.AUPriorLoss(pos_weight=weight)(**batch)
    expected = published(**batch, prior=mt.au_prior(), pos_weight=weight)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_gradient_is_that_of_the_published_formula(batch):
    weight = mt.au_pos_weight("DFEW", "distinct").double()
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
    for key in ("logits", "au_logits"):
        inputs[key].requires_grad_()
    ours = torch.autograd.grad(
        mt.AUPriorLoss(pos_weight=weight).double()(**inputs), [inputs["logits"], inputs["au_logits"]]
    )
    prior = mt.au_prior().double()
    theirs = torch.autograd.grad(
        published(**inputs, prior=prior, pos_weight=weight), [inputs["logits"], inputs["au_logits"]]
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_is_cross_entropy_at_ratio_zero(batch, reduction, smoothing, weighted, soft):
    weight = torch.rand(E) + 0.5 if weighted else None
    target = torch.rand(B, E).softmax(1) if soft else batch["target"]
    if not soft:
        target[3] = -100
    ours = mt.AUPriorLoss(au_ratio=0.0, class_weight=weight, label_smoothing=smoothing, reduction=reduction)
    theirs = torch.nn.CrossEntropyLoss(weight, label_smoothing=smoothing, reduction=reduction)
    torch.testing.assert_close(ours(batch["logits"], target), theirs(batch["logits"], target))


@pytest.mark.parametrize("use", [1, 2, 3])
@pytest.mark.parametrize("soft", [False, True])
def test_reductions_agree(batch, use, soft):
    target = torch.rand(B, E).softmax(1) if soft else batch["target"]
    rest = [batch["au_logits"], batch["au_target"]][: use - 1]
    each = mt.AUPriorLoss(reduction="none")(batch["logits"], target, *rest)
    assert each.shape == (B,)
    torch.testing.assert_close(mt.AUPriorLoss(reduction="sum")(batch["logits"], target, *rest), each.sum())
    torch.testing.assert_close(mt.AUPriorLoss()(batch["logits"], target, *rest), each.mean())


def test_head_without_labels_learns_the_prior_rows(batch):
    prior = mt.au_prior()
    loss = mt.AUPriorLoss()(batch["logits"], batch["target"], batch["au_logits"])
    expected = published(batch["logits"], batch["target"], batch["au_logits"], prior[batch["target"]], prior=prior)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def confused(true, taken, certainty=6.0):
    """The AU term for a clip of class ``true`` that the model is sure is ``taken``."""
    logits = torch.zeros(1, E)
    logits[0, mt.EXPRESSIONS.index(taken)] = certainty
    target = torch.tensor([mt.EXPRESSIONS.index(true)])
    return mt.AUPriorLoss(au_ratio=1.0)(logits, target).item()


def test_without_head_unlike_faces_cost_more_than_like_ones():
    prior = mt.au_prior()
    for true in mt.EXPRESSIONS:
        row = prior[mt.EXPRESSIONS.index(true)]
        gaps = {e: float((row - prior[i]).abs().mean()) for i, e in enumerate(mt.EXPRESSIONS) if e != true}
        near, far = min(gaps, key=gaps.get), max(gaps, key=gaps.get)
        assert confused(true, far) > 2 * confused(true, near)
        assert confused(true, true) < confused(true, near)


def test_without_head_a_certain_right_answer_costs_nothing():
    assert confused("fear", "fear", certainty=50.0) == pytest.approx(0, abs=1e-6)


def test_a_mixture_of_targets_costs_the_mixture_of_losses(batch):
    criterion = mt.AUPriorLoss(pos_weight=mt.au_pos_weight("DFEW", "distinct"))
    other = torch.randint(0, E, (B,))
    mixed = 0.3 * F.one_hot(batch["target"], E) + 0.7 * F.one_hot(other, E)
    rest = (batch["au_logits"], batch["au_target"])
    torch.testing.assert_close(
        criterion(batch["logits"], mixed, *rest),
        0.3 * criterion(batch["logits"], batch["target"], *rest) + 0.7 * criterion(batch["logits"], other, *rest),
    )


@pytest.mark.parametrize("use", [1, 2, 3])
def test_ignored_clips_count_in_neither_term(batch, use):
    rest = [batch["au_logits"], batch["au_target"]][: use - 1]
    target = batch["target"].clone()
    target[[2, 5]] = -100
    keep = target != -100
    torch.testing.assert_close(
        mt.AUPriorLoss()(batch["logits"], target, *rest),
        mt.AUPriorLoss()(batch["logits"][keep], target[keep], *(x[keep] for x in rest)),
    )


@pytest.mark.parametrize("use", [1, 2, 3])
def test_a_batch_of_nothing_but_ignored_clips_is_zero(batch, use):
    logits = batch["logits"].requires_grad_()
    rest = [batch["au_logits"].requires_grad_(), batch["au_target"]][: use - 1]
    loss = mt.AUPriorLoss()(logits, torch.full((B,), -100), *rest)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("scale", [1e4, -1e4])
@pytest.mark.parametrize("use", [1, 2, 3])
def test_huge_logits_stay_finite(batch, use, scale):
    logits = (batch["logits"].sign() * scale).requires_grad_()
    au_logits = (batch["au_logits"].sign() * scale).requires_grad_()
    loss = mt.AUPriorLoss()(logits, batch["target"], *[au_logits, batch["au_target"]][: use - 1])
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_inputs_are_computed_in_float32(batch, dtype):
    half = {k: v.to(dtype) if v.is_floating_point() else v for k, v in batch.items()}
    wide = {k: v.float() if v.is_floating_point() else v for k, v in half.items()}
    criterion = mt.AUPriorLoss(pos_weight=mt.au_pos_weight())
    assert torch.equal(criterion(**half), criterion(**wide))
    assert criterion(**half).dtype == torch.float32


def test_autocast_changes_nothing(batch):
    criterion = mt.AUPriorLoss()
    for use in range(3):
        rest = [batch["au_logits"], batch["au_target"]][:use]
        soft = torch.rand(B, E).softmax(1)
        plain = criterion(batch["logits"], soft, *rest)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(criterion(batch["logits"], soft, *rest), plain)


def test_module_equals_function_and_survives_copying(batch):
    criterion = mt.AUPriorLoss(pos_weight=mt.au_pos_weight(), au_ratio=0.4)
    expected = mt.au_prior_loss(**batch, prior=mt.au_prior(), pos_weight=mt.au_pos_weight(), au_ratio=0.4)
    assert torch.equal(criterion(**batch), expected)
    for other in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        assert torch.equal(other(**batch), expected)
    assert not criterion.state_dict()  # a checkpoint must not bring the rows of another class order along


@pytest.mark.parametrize("use", [1, 2, 3])
def test_gradcheck(use):
    torch.manual_seed(1)
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    au_logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    criterion = mt.AUPriorLoss(torch.rand(5, 4), pos_weight=torch.rand(5, 4) + 0.5).double()
    rest = [au_logits, torch.rand(3, 4, dtype=torch.float64)][: use - 1]
    target = torch.tensor([4, 0, 2])
    assert torch.autograd.gradcheck(lambda x, *y: criterion(x, target, *y), (logits, *rest))


def test_other_classes_and_units(batch):
    criterion = mt.AUPriorLoss(torch.rand(3, 5))
    assert criterion(torch.randn(2, 3), torch.tensor([0, 2]), torch.randn(2, 5), torch.rand(2, 5)).ndim == 0


def test_integer_and_boolean_labels_are_taken(batch):
    criterion = mt.AUPriorLoss()
    expected = criterion(**batch)
    for dtype in (torch.bool, torch.int64, torch.uint8):
        assert torch.equal(criterion(**{**batch, "au_target": batch["au_target"].to(dtype)}), expected)
    assert torch.equal(criterion(**{**batch, "target": batch["target"].int()}), expected)


def test_an_empty_batch_is_zero():
    loss = mt.AUPriorLoss()(torch.zeros(0, E), torch.zeros(0).long(), torch.zeros(0, A), torch.zeros(0, A))
    assert loss.item() == 0


def test_the_loss_of_a_host_model_falls(batch):
    host, head = torch.nn.Linear(13, E), mt.AUHead(13)
    features = torch.randn(B, 13)
    optimiser = torch.optim.SGD([*host.parameters(), *head.parameters()], lr=0.5)
    criterion, losses = mt.AUPriorLoss(), []
    for _ in range(30):
        loss = criterion(host(features), batch["target"], head(features), batch["au_target"])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("use", [1, 2, 3])
def test_a_class_without_a_row_has_no_au_term(batch, use):
    """SAMM's contempt and other: cross entropy only; and they draw nothing from the profile of the rest."""
    criterion = mt.AUPriorLoss(mt.au_prior("SAMM-5", missing="ignore"), reduction="none")
    logits, target = torch.randn(5, 5), torch.arange(5)
    au_logits, au_target = torch.randn(5, A), torch.rand(5, A)
    each = criterion(logits, target, *[au_logits, au_target][: use - 1])
    ce = 0.75 * F.cross_entropy(logits, target, reduction="none")
    assert torch.equal(each[[1, 4]], ce[[1, 4]])  # contempt, other
    assert (each[[0, 2, 3]] > ce[[0, 2, 3]]).all()
    known = [0, 2, 3]
    alone = mt.AUPriorLoss(mt.au_prior(["anger", "happiness", "surprise"]), reduction="none")
    au_only = alone(logits[known][:, known], torch.arange(3), *[au_logits[known], au_target[known]][: use - 1])
    ce_alone = 0.75 * F.cross_entropy(logits[known][:, known], torch.arange(3), reduction="none")
    torch.testing.assert_close((each - ce)[known], au_only - ce_alone)


@pytest.mark.parametrize("use", [1, 2, 3])
def test_a_mixture_with_a_class_without_a_row(use):
    """Half happy, half contempt: half the weight of happy, towards the whole face of happy."""
    criterion = mt.AUPriorLoss(mt.au_prior("SAMM-5", missing="ignore"), au_ratio=1.0)
    logits = torch.tensor([[0.3, -0.2, 0.9, 0.1, 0.4]])
    rest = [torch.randn(1, A), torch.rand(1, A)][: use - 1]
    mixed = criterion(logits, torch.tensor([[0.0, 0.5, 0.5, 0.0, 0.0]]), *rest)
    torch.testing.assert_close(mixed, criterion(logits, torch.tensor([2]), *rest) / 2)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_another_expression_term(batch, reduction):
    focal = mt.FocalLoss(2.0, reduction=reduction)
    criterion = mt.AUPriorLoss(expression_loss=focal, reduction=reduction)
    plain = mt.AUPriorLoss(reduction=reduction)
    ce = torch.nn.CrossEntropyLoss(reduction=reduction)(batch["logits"], batch["target"])
    torch.testing.assert_close(
        criterion(**batch) - plain(**batch), 0.75 * (focal(batch["logits"], batch["target"]) - ce)
    )


LOGITS, TARGET = torch.zeros(2, E), torch.tensor([0, 6])
LOSS = mt.AUPriorLoss()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: LOSS((LOGITS, 0), TARGET), TypeError, r"logits must be a torch.Tensor \(b, e\)"),
        (lambda: LOSS(LOGITS.long(), TARGET), TypeError, "logits must be floating"),
        (lambda: LOSS(torch.zeros(2, 5), TARGET), ValueError, r"logits must be \(b, 7\).*au_prior"),
        (lambda: LOSS(LOGITS, [0, 6]), TypeError, "target must be a torch.Tensor"),
        (lambda: LOSS(LOGITS, torch.tensor([0, 7])), ValueError, r"within 0\.\.6.*got 7 for clip 1"),
        (
            lambda: mt.AUPriorLoss(expression_loss=mt.FocalLoss())(LOGITS, torch.tensor([0, 7])),
            ValueError,
            r"within 0\.\.6.*got 7 for clip 1",
        ),
        (lambda: LOSS(LOGITS, torch.tensor([0])), ValueError, r"target must be \(2,\) classes or \(2, 7\)"),
        (lambda: LOSS(LOGITS, TARGET.float()), TypeError, "must hold integer class indices"),
        (lambda: LOSS(LOGITS, torch.zeros(2, E).long()), TypeError, "must hold floating probabilities"),
        (lambda: LOSS(LOGITS, torch.randn(2, E)), ValueError, r"target must lie in \[0, 1\]"),
        (lambda: LOSS(LOGITS, torch.full((2, E), 0.5)), ValueError, "target rows must sum to 1, got 3.5"),
        (
            lambda: LOSS(LOGITS, TARGET, torch.zeros(2, 17)),
            ValueError,
            r"au_logits must be \(2, 18\) to match the prior's 18 action units, got \(2, 17\): build the head with AUHead",
        ),
        (lambda: LOSS(LOGITS, TARGET, torch.zeros(2, A), torch.zeros(2, 17)), ValueError, r"au_target must be \(2, 18"),
        (lambda: LOSS(LOGITS, TARGET, torch.zeros(2, A), torch.ones(2, A) * 3), ValueError, r"in \[0, 1\].*3.0"),
        (lambda: LOSS(LOGITS, TARGET, torch.zeros(2, A), torch.full((2, A), torch.nan)), ValueError, "without NaN"),
        (lambda: LOSS(LOGITS, TARGET, None, torch.zeros(2, A)), ValueError, "au_target needs au_logits"),
        (lambda: LOSS(LOGITS, TARGET, [1.0]), TypeError, "au_logits must be a real torch.Tensor"),
        (lambda: LOSS(LOGITS, TARGET, torch.zeros(2, A).long()), TypeError, "labels are passed as au_target="),
        (lambda: mt.AUPriorLoss(torch.full((7, 18), torch.nan)), ValueError, "nothing but NaN"),
        (lambda: mt.AUPriorLoss(expression_loss=F.cross_entropy), TypeError, "expression_loss must be an nn.Module"),
        (
            lambda: mt.AUPriorLoss(expression_loss=mt.FocalLoss(), label_smoothing=0.1),
            ValueError,
            "give class_weight and label_smoothing to it",
        ),
        (
            lambda: mt.AUPriorLoss(expression_loss=mt.FocalLoss(reduction="none"))(LOGITS, TARGET),
            ValueError,
            r"expression_loss must return \(\) for reduction='mean', got \(2,\)",
        ),
        (lambda: mt.AUPriorLoss(au_ratio="a"), TypeError, "au_ratio must be a number"),
        (lambda: mt.AUPriorLoss(ignore_index=None), TypeError, "ignore_index must be an int"),
        (lambda: mt.au_prior_loss(LOGITS, TARGET, prior=None), TypeError, "prior must be a torch.Tensor"),
        (lambda: mt.au_prior_loss(LOGITS, TARGET, prior=mt.au_prior(), reduction="abc"), ValueError, "reduction"),
        (lambda: mt.au_prior_loss(LOGITS, TARGET, prior=mt.au_prior(), au_ratio=-1), ValueError, "au_ratio"),
        (lambda: mt.AUPriorLoss([[0.1]]), TypeError, "prior must be a torch.Tensor"),
        (lambda: mt.AUPriorLoss(torch.rand(7)), ValueError, r"prior must be floating \(e, a\)"),
        (lambda: mt.AUPriorLoss(5 * torch.ones(7, 18)), ValueError, r"prior must lie in \[0, 1\].*prior_scale"),
        (lambda: mt.AUPriorLoss(au_ratio=1.5), ValueError, "au_ratio"),
        (lambda: mt.AUPriorLoss(label_smoothing=-1), ValueError, "label_smoothing"),
        (lambda: mt.AUPriorLoss(prior_scale=0), ValueError, "prior_scale"),
        (lambda: mt.AUPriorLoss(reduction="avg"), ValueError, "reduction must be one of 'mean'"),
        (lambda: mt.AUPriorLoss(pos_weight=torch.ones(7)), ValueError, r"pos_weight must be \(18,\)"),
        (lambda: mt.AUPriorLoss(pos_weight=[1.0]), TypeError, "pos_weight must be a torch.Tensor"),
        (lambda: mt.AUPriorLoss(pos_weight=-torch.ones(18)), ValueError, "pos_weight must be finite"),
        (lambda: mt.AUPriorLoss(class_weight=torch.ones(6)), ValueError, r"class_weight must be \(7,\)"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- what is said, word for word ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: mt.AUPriorLoss(expression_loss=F.cross_entropy),
            "expression_loss must be an nn.Module, got function",
        ),
        *[
            (
                lambda call=call, settings=settings: call(**settings),
                "expression_loss takes the place of the cross entropy: give class_weight and label_smoothing to it",
            )
            for settings in ({"label_smoothing": 0.1}, {"class_weight": torch.ones(7)})
            for call in (
                partial(mt.AUPriorLoss, expression_loss=mt.FocalLoss()),
                partial(mt.au_prior_loss, LOGITS, TARGET, prior=mt.au_prior(), expression_loss=mt.FocalLoss()),
            )
        ],
        (
            lambda: LOSS(LOGITS, TARGET, torch.zeros(2, 5, A)),
            "au_logits must be (2, 18) to match the prior's 18 action units, got (2, 5, 18): it has a time axis "
            "(b, t, a), the loss takes one row per clip: au_logits.mean(1), or pool the features",
        ),
        (
            lambda: LOSS(LOGITS, TARGET, torch.zeros(2, A), torch.zeros(2, 5, A)),
            "au_target must be (2, 18) to match the prior's 18 action units, got (2, 5, 18): it has a time axis "
            "(b, t, a), the loss takes one row per clip: clip_au_labels(presence)",
        ),
        (
            lambda: LOSS(LOGITS, TARGET, None, torch.zeros(2, A)),
            "au_target needs au_logits: pass the output of AUHead(in_features), or leave both out",
        ),
        (
            lambda: LOSS(LOGITS, TARGET, torch.zeros(2, A).long()),
            "au_logits must be floating, got torch.int64: labels are passed as au_target=",
        ),
        (
            lambda: LOSS(LOGITS, TARGET, torch.zeros(2, 17)),
            "au_logits must be (2, 18) to match the prior's 18 action units, got (2, 17): build the head with "
            "AUHead(in_features, num_aus=18)",
        ),
        (
            lambda: LOSS(LOGITS, TARGET, torch.zeros(2, A), torch.zeros(2, 17)),
            "au_target must be (2, 18) to match the prior's 18 action units, got (2, 17)",
        ),
        (lambda: LOSS(LOGITS, TARGET, [1.0]), "au_logits must be a real torch.Tensor (2, 18), got list"),
        (
            lambda: LOSS(LOGITS, TARGET, torch.zeros(2, A, dtype=torch.complex64)),
            "au_logits must be a real torch.Tensor (2, 18), got torch.complex64",
        ),
        (
            lambda: LOSS(LOGITS, TARGET, torch.zeros(2, A), [1.0]),
            "au_target must be a real torch.Tensor (2, 18), got list",
        ),
        (
            lambda: LOSS(LOGITS, TARGET, torch.zeros(2, A), torch.ones(2, A) * 3),
            "au_target must lie in [0, 1] without NaN, got 3.0 to 3.0: drop clips without a face, binarise intensities",
        ),
        (
            lambda: LOSS(LOGITS, TARGET, torch.zeros(2, A), torch.ones(2, A) * -0.5),
            "au_target must lie in [0, 1] without NaN, got -0.5 to -0.5: drop clips without a face, binarise "
            "intensities",
        ),
        (
            lambda: LOSS(LOGITS, torch.full((2, E), 3.0)),
            "target must lie in [0, 1] without NaN, got 3.0 to 3.0: not logits",
        ),
        (lambda: LOSS(LOGITS, torch.full((2, E), 0.5)), "target rows must sum to 1, got 3.5 for clip 0"),
        (
            lambda: LOSS(LOGITS, torch.cat([torch.eye(E)[:1], torch.full((1, E), 0.125)])),
            "target rows must sum to 1, got 0.875 for clip 1",
        ),
        (
            lambda: LOSS(LOGITS, torch.tensor([0])),
            "target must be (2,) classes or (2, 7) probabilities, got shape (1,)",
        ),
        (
            lambda: LOSS(LOGITS, TARGET.float()),
            "target of shape (2,) must hold integer class indices, got torch.float32",
        ),
        (
            lambda: LOSS(LOGITS, TARGET > 0),
            "target of shape (2,) must hold integer class indices, got torch.bool",
        ),
        (
            lambda: LOSS(LOGITS, torch.zeros(2, E).long()),
            "target of shape (2, 7) must hold floating probabilities (one-hot rows: target.float()), got torch.int64",
        ),
        *[
            (
                lambda settings=settings: mt.AUPriorLoss(**settings)(LOGITS, torch.tensor([0, 7])),
                "target must lie within 0..6 (or be ignore_index=-100), got 7 for clip 1",
            )
            for settings in ({}, {"expression_loss": mt.FocalLoss()})
        ],
        (
            lambda: mt.AUPriorLoss(expression_loss=mt.FocalLoss(ignore_index=-7), ignore_index=-7)(
                LOGITS, torch.tensor([-7, -1])
            ),
            "target must lie within 0..6 (or be ignore_index=-7), got -1 for clip 1",
        ),
        (
            lambda: mt.AUPriorLoss(expression_loss=mt.FocalLoss(reduction="none"))(LOGITS, TARGET),
            "expression_loss must return () for reduction='mean', got (2,)",
        ),
        (
            lambda: mt.AUPriorLoss(expression_loss=mt.FocalLoss(), reduction="none")(LOGITS, TARGET),
            "expression_loss must return (2,) for reduction='none', got ()",
        ),
        (
            lambda: mt.au_prior_loss(LOGITS, TARGET, prior=mt.au_prior(), expression_loss=lambda *_: 3.0),
            "expression_loss must return () for reduction='mean', got float",
        ),
        (
            lambda: mt.AUPriorLoss(prior_scale=0),
            "prior_scale must be positive, got 0: au_ratio=0 leaves the AU term out",
        ),
        (lambda: mt.AUPriorLoss(prior_scale=-1), "prior_scale must be finite and at least 0, got -1"),
        (lambda: mt.AUPriorLoss(au_ratio=1.5), "au_ratio must be in [0, 1], got 1.5"),
        (lambda: mt.AUPriorLoss(au_ratio=-0.5), "au_ratio must be in [0, 1], got -0.5"),
        (lambda: mt.AUPriorLoss(label_smoothing=1.5), "label_smoothing must be in [0, 1], got 1.5"),
        (lambda: mt.AUPriorLoss(label_smoothing=-0.5), "label_smoothing must be in [0, 1], got -0.5"),
        (lambda: mt.AUPriorLoss(ignore_index=None), "ignore_index must be an int, got None"),
        (lambda: mt.AUPriorLoss(reduction="avg"), "reduction must be one of 'mean', 'sum', 'none', got 'avg'"),
        (
            lambda: mt.AUPriorLoss(pos_weight=torch.ones(7)),
            "pos_weight must be (18,) (one per action unit) or (7, 18) (a row per class) to match the prior, got shape "
            "(7,)",
        ),
        (
            lambda: mt.AUPriorLoss(pos_weight=[1.0]),
            "pos_weight must be a torch.Tensor (18,) (one per action unit) or (7, 18) (a row per class), got list",
        ),
        (
            lambda: mt.AUPriorLoss(class_weight=torch.ones(6)),
            "class_weight must be (7,) (one per class) to match the prior, got shape (6,)",
        ),
        *[
            (
                lambda value=value: mt.AUPriorLoss(torch.ones(1, 2), class_weight=torch.tensor([value])),
                f"class_weight must be finite and at least 0, got [{value}]",
            )
            for value in (-0.5, float("nan"), float("inf"))
        ],
        (
            lambda: mt.AUPriorLoss(torch.ones(1, 1), class_weight=torch.tensor([1j])),
            "class_weight must be finite and at least 0, got [1j]",
        ),
        (
            lambda: mt.AUPriorLoss([[0.1]]),
            "prior must be a torch.Tensor (e, a), got list: au_prior([class names]) makes one",
        ),
        *[
            (
                lambda prior=prior: mt.AUPriorLoss(prior),
                f"prior must be floating (e, a), a row per class, got {prior.dtype} {tuple(prior.shape)}",
            )
            for prior in (torch.rand(7), torch.ones(2, 3).long(), torch.ones(0, 3), torch.ones(3, 0))
        ],
        (
            lambda: mt.AUPriorLoss(torch.full((7, 18), torch.nan)),
            "prior must hold a row for at least one class, got nothing but NaN",
        ),
        *[
            (
                lambda rows=rows: mt.AUPriorLoss(torch.tensor(rows)),
                f"prior must lie in [0, 1], got values from {min(rows[0])} to {max(rows[0])}: put the scale of a weight "
                "matrix into prior_scale",
            )
            for rows in ([[0.5, 1.5]], [[-0.5, 0.5]])
        ],
        (
            lambda: LOSS((LOGITS, 0), TARGET),
            "logits must be a torch.Tensor (b, e), got tuple: a model that returns (logits, au_logits) is unpacked as "
            "loss(logits, target, au_logits)",
        ),
        (lambda: LOSS(LOGITS.long(), TARGET), "logits must be floating, got torch.int64"),
        *[
            (
                lambda shape=shape: LOSS(torch.zeros(shape), TARGET),
                f"logits must be (b, 7) to match the prior's 7 classes, got shape {shape}: for other classes pass "
                "AUPriorLoss(au_prior([your class names]))",
            )
            for shape in ((2, 5), (7,), (2, 7, 1))
        ],
        (
            lambda: LOSS(LOGITS, [0, 6]),
            "target must be a torch.Tensor of classes (b,) or probabilities (b, e), got [0, 6]",
        ),
    ],
)
def test_messages_in_full(call, message):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}$"):
        call()


def test_edges_are_settings_too():
    """0 and 1 are in [0, 1], weights of 0 weigh nothing, and an empty row of a mixture needs no face."""
    mt.AUPriorLoss(au_ratio=1, label_smoothing=1, pos_weight=torch.zeros(18), class_weight=torch.ones(7))
    assert mt.AUPriorLoss(class_weight=torch.zeros(7))(LOGITS, TARGET).isfinite()
    assert mt.AUPriorLoss(torch.tensor([[0.0, 1.0]]))(torch.zeros(2, 1), torch.tensor([0, 0])).isfinite()
    nearly = torch.eye(E)[:2] * 1.009
    assert LOSS(LOGITS, nearly.clamp(max=1)).isfinite()


def test_defaults_are_those_of_the_paper(batch):
    loss = mt.AUPriorLoss()
    assert (loss.au_ratio, loss.prior_scale, loss.label_smoothing, loss.ignore_index) == (0.25, 5.0, 0.0, -100)
    assert (loss.reduction, loss.pos_weight, loss.class_weight, loss.expression_loss) == ("mean", None, None, None)
    assert torch.equal(loss.prior, mt.au_prior())
    assert torch.equal(mt.au_prior_loss(**batch, prior=mt.au_prior()), loss(**batch))
    batch["target"][3] = -100
    assert torch.equal(mt.au_prior_loss(**batch, prior=mt.au_prior()), loss(**batch))
    assert repr(loss) == (
        "AUPriorLoss(classes=7, action_units=18, au_ratio=0.25, prior_scale=5.0, label_smoothing=0.0, reduction='mean')"
    )
    partly = mt.au_prior("SAMM-5", missing="ignore")
    assert torch.equal(mt.AUPriorLoss(partly).prior.isnan(), partly.isnan())


def test_tables_are_copies_and_no_part_of_a_checkpoint(batch):
    prior, pos_weight, class_weight = mt.au_prior(), torch.rand(18), torch.rand(7)
    loss = mt.AUPriorLoss(prior, pos_weight=pos_weight, class_weight=class_weight)
    before = loss(**batch)
    for table in (prior, pos_weight, class_weight):
        table.fill_(0.5)
    assert torch.equal(loss(**batch), before)
    assert not loss.state_dict()
    assert {name for name, _ in loss.named_buffers()} == {"rows", "entropy", "pos_weight", "class_weight"}
    partly = mt.AUPriorLoss(mt.au_prior("SAMM-5", missing="ignore"))
    assert {name for name, _ in partly.named_buffers()} == {"rows", "entropy", "known"}
    assert not partly.state_dict()


@pytest.mark.parametrize("use", [1, 2, 3])
def test_settings_of_numpy_are_numbers(batch, use):
    rest = [batch["au_logits"], batch["au_target"]][: use - 1]
    settings = {"au_ratio": 0.5, "prior_scale": 2.0, "label_smoothing": 0.25, "ignore_index": 3}
    expected = mt.AUPriorLoss(**settings)(batch["logits"], batch["target"], *rest)
    for kind in (np.float32, np.float64):
        given = {name: kind(value) for name, value in settings.items()}
        for index in (np.int64(3), np.uint8(3), torch.tensor(3)):
            given["ignore_index"] = index
            loss = mt.AUPriorLoss(**given)
            assert torch.equal(loss(batch["logits"], batch["target"], *rest), expected)
            assert {type(getattr(loss, name)) for name in given} == {float, int}
            function = mt.au_prior_loss(batch["logits"], batch["target"], *rest, prior=mt.au_prior(), **given)
            assert torch.equal(function, expected)
    for index in (True, np.bool_(True), 3.0, torch.tensor(True)):
        with pytest.raises(TypeError, match="ignore_index must be an int"):
            mt.AUPriorLoss(ignore_index=index)
