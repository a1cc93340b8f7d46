"""Laws of the AU prior, its loss and the answers to rare classes, whatever the classes, units and clips."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st

import mertools as mt

SEEDS = st.integers(0, 2**32 - 1)
REDUCTIONS = st.sampled_from(["mean", "sum", "none"])
USES = st.sampled_from([1, 2, 3])  # without an AU head; with one; with one and labels
EXACT = {"rtol": 1e-10, "atol": 1e-10}


class Case:
    """A random problem in float64: classes, units, clips, and settings of the loss."""

    def __init__(self, seed, *, e=None, b=None, soft=None, missing=None):
        self.random = torch.Generator().manual_seed(seed)
        self.e = e or self.whole(2, 6)
        self.a, self.b = self.whole(1, 7), b or self.whole(1, 5)
        self.prior = self.uniform(self.e, self.a)
        if missing or (missing is None and self.chance()):
            self.prior[self.whole(0, self.e - 1)] = torch.nan
        self.logits, self.au_logits = 3 * self.normal(self.b, self.e), 3 * self.normal(self.b, self.a)
        self.au_target = (self.uniform(self.b, self.a) > 0.5).double()
        self.classes = torch.randint(0, self.e, (self.b,), generator=self.random)
        self.soft = self.chance() if soft is None else soft
        self.target = self.normal(self.b, self.e).softmax(1) if self.soft else self.classes
        self.pos_weight = None if self.chance() else 0.2 + 3 * self.uniform(*[self.e] * self.chance(), self.a)
        self.class_weight = None if self.chance() else 0.2 + self.uniform(self.e)
        self.au_ratio, self.prior_scale = (float(x) for x in self.uniform(2) * torch.tensor([1, 6]) + 1e-3)
        self.au_ratio = min(self.au_ratio, 1.0)
        self.label_smoothing = self.whole(0, 2) / 10

    def uniform(self, *shape):
        return torch.rand(*shape, generator=self.random, dtype=torch.float64)

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.random, dtype=torch.float64)

    def whole(self, low, high):
        return int(torch.randint(low, high + 1, (), generator=self.random))

    def chance(self):
        return bool(self.whole(0, 1))

    def settings(self, **changes):
        names = ("prior", "au_ratio", "prior_scale", "pos_weight", "class_weight", "label_smoothing")
        return {name: getattr(self, name) for name in names} | changes

    def inputs(self, use):
        return [self.logits, self.target, self.au_logits, self.au_target][: 1 + use]

    def loss(self, use, **changes):
        names = ("logits", "target", "au_logits", "au_target")
        inputs = [changes.pop(name, getattr(self, name)) for name in names][: 1 + use]
        return mt.AUPriorLoss(**self.settings(**changes))(*inputs)


def written_out(case, use, reduction):
    """The loss of the docs in plain Python, clip by clip, unit by unit."""
    each, total_weight = [], 0.0
    for b in range(case.b):
        share = case.target[b].tolist() if case.soft else F.one_hot(case.classes[b], case.e).tolist()
        log_p = case.logits[b].log_softmax(0).tolist()
        weight = [1.0] * case.e if case.class_weight is None else case.class_weight.tolist()
        smooth = case.label_smoothing
        ce = -sum(weight[i] * ((1 - smooth) * share[i] + smooth / case.e) * log_p[i] for i in range(case.e))
        total_weight += 1.0 if case.soft else weight[int(case.classes[b])]
        known = [not bool(row.isnan().any()) for row in case.prior]
        rows = case.prior.nan_to_num(0.0).tolist()
        there = sum(s for s, k in zip(share, known, strict=True) if k)
        exps = [math.exp(log_p[i]) if known[i] else 0.0 for i in range(case.e)]
        p = [x / sum(exps) for x in exps]
        units = 0.0
        for a in range(case.a):
            w = sum(share[i] * rows[i][a] for i in range(case.e))
            z = w / max(there, 1e-6) if case.soft and not all(known) else w
            if use == 1:
                q = sum(p[i] * rows[i][a] for i in range(case.e))
                divergence = sum(x * math.log(x / y) for x, y in ((z, q), (1 - z, 1 - q)) if x > 0)
                units += w * divergence
                continue
            z = case.au_target[b, a].item() if use == 3 else z
            x = case.au_logits[b, a].item()
            present, absent = -F.logsigmoid(torch.tensor(x)).item(), -F.logsigmoid(torch.tensor(-x)).item()
            if case.pos_weight is None:
                positive = w
            elif case.pos_weight.ndim == 1:
                positive = w * case.pos_weight[a].item()
            else:
                positive = sum(share[i] * rows[i][a] * case.pos_weight[i, a].item() for i in range(case.e))
            units += positive * z * present + w * (1 - z) * absent
        each.append((ce, case.prior_scale * units / case.a))
    r = case.au_ratio
    ces, units = ([pair[i] for pair in each] for i in range(2))
    if reduction == "none":
        return torch.tensor([(1 - r) * x + r * y for x, y in each], dtype=torch.float64)
    if reduction == "sum":
        return torch.tensor((1 - r) * sum(ces) + r * sum(units), dtype=torch.float64)
    return torch.tensor((1 - r) * sum(ces) / total_weight + r * sum(units) / case.b, dtype=torch.float64)


@given(SEEDS, USES, REDUCTIONS)
def test_equals_the_definition_written_out(seed, use, reduction):
    case = Case(seed)
    expected = written_out(case, use, reduction)
    torch.testing.assert_close(case.loss(use, reduction=reduction), expected, rtol=1e-6, atol=1e-6)


@given(SEEDS, USES, REDUCTIONS)
def test_is_cross_entropy_at_ratio_zero(seed, use, reduction):
    case = Case(seed)
    if not case.soft and case.chance():
        case.target[: case.whole(0, case.b - 1)] = -100
    expected = F.cross_entropy(
        case.logits, case.target, case.class_weight, label_smoothing=case.label_smoothing, reduction=reduction
    )
    torch.testing.assert_close(case.loss(use, reduction=reduction, au_ratio=0.0), expected, **EXACT)


@given(SEEDS, USES)
def test_reductions_are_one_loss(seed, use):
    case = Case(seed)
    each = case.loss(use, reduction="none", class_weight=None)
    assert each.shape == (case.b,)
    torch.testing.assert_close(case.loss(use, reduction="sum", class_weight=None), each.sum(), **EXACT)
    torch.testing.assert_close(case.loss(use, reduction="mean", class_weight=None), each.mean(), **EXACT)
    torch.testing.assert_close(case.loss(use, reduction="sum"), case.loss(use, reduction="none").sum(), **EXACT)


@given(SEEDS, USES, REDUCTIONS, st.randoms(use_true_random=False))
def test_names_and_order_of_classes_do_not_matter(seed, use, reduction, random):
    case = Case(seed)
    order = list(range(case.e))
    random.shuffle(order)
    place = torch.tensor(order).argsort()
    per_class = {"prior": case.prior[order]}
    if case.class_weight is not None:
        per_class["class_weight"] = case.class_weight[order]
    if case.pos_weight is not None and case.pos_weight.ndim == 2:
        per_class["pos_weight"] = case.pos_weight[order]
    target = case.target[:, order] if case.soft else place[case.target]
    shuffled = case.loss(use, logits=case.logits[:, order], target=target, reduction=reduction, **per_class)
    torch.testing.assert_close(shuffled, case.loss(use, reduction=reduction), **EXACT)


@given(SEEDS, st.sampled_from([2, 3]), st.randoms(use_true_random=False))
def test_the_order_of_units_does_not_matter(seed, use, random):
    case = Case(seed)
    order = list(range(case.a))
    random.shuffle(order)
    weight = None if case.pos_weight is None else case.pos_weight[..., order]
    shuffled = case.loss(
        use, prior=case.prior[:, order], pos_weight=weight, au_logits=case.au_logits[:, order],
        au_target=case.au_target[:, order],
    )  # fmt: skip
    torch.testing.assert_close(shuffled, case.loss(use), **EXACT)


@given(SEEDS, USES, st.randoms(use_true_random=False))
def test_a_clip_costs_the_same_in_any_batch(seed, use, random):
    case = Case(seed)
    order = list(range(case.b))
    random.shuffle(order)
    each = case.loss(use, reduction="none")
    criterion = mt.AUPriorLoss(**case.settings(reduction="none"))
    torch.testing.assert_close(criterion(*(x[order] for x in case.inputs(use))), each[order], **EXACT)
    alone = torch.cat([criterion(*(x[i : i + 1] for x in case.inputs(use))) for i in range(case.b)])
    torch.testing.assert_close(alone, each, **EXACT)


@given(SEEDS, USES, st.sampled_from(["sum", "none"]))
def test_certain_probabilities_are_classes(seed, use, reduction):
    case = Case(seed, soft=False)
    certain = F.one_hot(case.classes, case.e).double()
    each = case.loss(use, target=certain, reduction=reduction)
    torch.testing.assert_close(each, case.loss(use, reduction=reduction), rtol=1e-6, atol=1e-6)


@given(SEEDS, st.floats(0, 1, allow_subnormal=False))
def test_a_mixture_of_targets_costs_the_mixture_of_losses(seed, share):
    case = Case(seed, soft=True)
    other = case.normal(case.b, case.e).softmax(1)
    mixed = case.loss(3, target=share * case.target + (1 - share) * other, reduction="none")
    apart = share * case.loss(3, reduction="none") + (1 - share) * case.loss(3, target=other, reduction="none")
    torch.testing.assert_close(mixed, apart, **EXACT)


@given(SEEDS, USES, REDUCTIONS, st.floats(0, 1, allow_subnormal=False), st.floats(0.1, 10))
def test_the_ratio_mixes_two_terms_and_the_scale_one(seed, use, reduction, ratio, scale):
    case = Case(seed)

    def at(r, s=1.0):
        return case.loss(use, au_ratio=r, prior_scale=s, reduction=reduction)

    torch.testing.assert_close(at(ratio, scale), (1 - ratio) * at(0.0) + ratio * scale * at(1.0), **EXACT)


@given(SEEDS, REDUCTIONS, st.floats(-50, 50, allow_subnormal=False))
def test_logits_may_be_shifted_and_gradients_sum_to_zero(seed, reduction, shift):
    case = Case(seed)
    logits = case.logits.requires_grad_()
    loss = case.loss(1, reduction=reduction)
    torch.testing.assert_close(case.loss(1, logits=logits + shift, reduction=reduction), loss, rtol=1e-7, atol=1e-7)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(gradient.sum(1), torch.zeros(case.b, dtype=torch.float64), rtol=0, atol=1e-9)


@given(SEEDS)
def test_the_implied_profile_costs_nothing_where_it_is_right_and_never_less(seed):
    case = Case(seed, missing=False)
    assert bool((case.loss(1, au_ratio=1.0, reduction="none") >= -1e-9).all())
    certain = 400 * F.one_hot(case.classes, case.e).double()
    loss = case.loss(1, logits=certain, target=case.classes, au_ratio=1.0, reduction="none")
    torch.testing.assert_close(loss, torch.zeros_like(loss), rtol=0, atol=1e-5)


@given(SEEDS, USES, REDUCTIONS, st.sampled_from([-100, -1, 255]))
def test_ignored_clips_count_nowhere(seed, use, reduction, ignore_index):
    case = Case(seed, soft=False)
    keep = torch.rand(case.b, generator=case.random) > 0.5
    criterion = mt.AUPriorLoss(**case.settings(reduction=reduction, ignore_index=ignore_index))
    logits, _, *rest = (x.clone() for x in case.inputs(use))
    inputs = [x.requires_grad_() for x in (logits, *rest[:1])]
    loss = criterion(logits, torch.where(keep, case.target, ignore_index), *rest)
    alone = criterion(*(x[keep] for x in case.inputs(use))) if keep.any() else torch.zeros(0).double()
    if reduction == "none":
        assert not loss[~keep].any()
        loss = loss[keep]
    elif not keep.any():
        alone = alone.sum()
    torch.testing.assert_close(loss, alone, **EXACT)
    for gradient in torch.autograd.grad(loss.sum(), inputs):
        assert not gradient[~keep].any()


@given(
    SEEDS, USES, REDUCTIONS, st.sampled_from([1.0, 30.0, 1e4]),
    st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]), st.sampled_from([0.0, 1.0]),
)  # fmt: skip
@example(0, 1, "mean", 1e4, torch.float16, 1.0)
def test_finite_everywhere(seed, use, reduction, scale, dtype, edge):
    """Logits up to ±10⁴, priors of exactly 0 or 1: the loss and its gradients are numbers."""
    case = Case(seed)
    at_the_edge = case.uniform(case.e, case.a) > 0.5
    case.prior = torch.where(at_the_edge & ~case.prior.isnan(), edge, case.prior)
    logits, target, *rest = case.inputs(use)
    inputs = [(scale * x).clamp(-1e4, 1e4).to(dtype).requires_grad_() for x in (logits, *rest[:1])]
    loss = mt.AUPriorLoss(**case.settings(reduction=reduction))(inputs[0], target, *inputs[1:], *rest[1:])
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert bool(loss.isfinite().all())
    for gradient in torch.autograd.grad(loss.sum(), inputs):
        assert bool(gradient.isfinite().all())


# --- priors and weights from labels ---------------------------------------------------------------------------------


@given(SEEDS, st.floats(0.01, 5))
def test_an_estimated_prior_is_a_count(seed, smoothing):
    case = Case(seed)
    prior = mt.estimate_au_prior(case.au_target, case.classes, num_classes=case.e, smoothing=smoothing)
    weight = mt.estimate_pos_weight(case.au_target, case.classes, num_classes=case.e)
    for e in range(case.e):
        rows = [row for row, c in zip(case.au_target.tolist(), case.classes.tolist(), strict=True) if c == e]
        for a in range(case.a):
            there = sum(row[a] for row in rows)
            assert prior[e, a].item() == pytest.approx((there + smoothing) / (len(rows) + 2 * smoothing))
            assert weight[e, a].item() == pytest.approx((len(rows) - there + 1) / (there + 1))
    there = case.au_target.sum(0)
    torch.testing.assert_close(mt.estimate_pos_weight(case.au_target), (case.b - there + 1) / (there + 1))


@given(SEEDS, st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool]),
       st.integers(1, 800), st.integers(1, 20))  # fmt: skip
@example(0, torch.bfloat16, 601, 10)
@example(3, torch.float16, 4099, 10)
def test_clip_labels_are_a_vote_that_nothing_rounds(seed, dtype, frames, twentieths):
    """Present when present in at least the threshold's share of the frames, counted in whole numbers."""
    random = torch.Generator().manual_seed(seed)
    counts = torch.tensor([(twentieths * frames - 1) // 20, -(-twentieths * frames // 20), frames])
    presence = (torch.arange(frames)[:, None] < counts)[torch.randperm(frames, generator=random)]
    label = mt.clip_au_labels(presence.to(dtype), threshold=twentieths / 20)
    assert label.tolist() == [20 * n >= twentieths * frames for n in counts.tolist()]


@given(SEEDS, st.lists(st.sampled_from([*mt.EXPRESSIONS, "happiness", "anger"]), min_size=1, max_size=4))
def test_prior_rows_follow_their_names(seed, names):
    names = list({mt.EXPRESSIONS.index(n) if n in mt.EXPRESSIONS else n: n for n in names}.values())
    if len({*names} & {"happiness", "happy"}) == 2 or len({*names} & {"anger", "angry"}) == 2:
        with pytest.raises(ValueError, match="more than once"):
            mt.au_prior(names)
        return
    units = torch.randperm(18, generator=torch.Generator().manual_seed(seed))[:5]
    plain = {"happiness": "happy", "anger": "angry"}
    rows = [mt.EXPRESSIONS.index(plain.get(name, name)) for name in names]
    prior = mt.au_prior(names, action_units=[mt.ACTION_UNITS[i] for i in units])
    assert torch.equal(prior, mt.au_prior()[rows][:, units])


# --- rare classes ---------------------------------------------------------------------------------------------------


@given(SEEDS, REDUCTIONS)
def test_expression_terms_are_cross_entropy_where_they_do_nothing(seed, reduction):
    case = Case(seed)
    expected = F.cross_entropy(case.logits, case.target, reduction=reduction)
    counts = torch.full((case.e,), 7)
    for term in (
        mt.FocalLoss(0.0, reduction=reduction), mt.LogitAdjustedLoss(counts, reduction=reduction),
        mt.LogitAdjustedLoss(counts + torch.arange(case.e), tau=0.0, reduction=reduction),
    ):  # fmt: skip
        torch.testing.assert_close(term(case.logits, case.target), expected, rtol=1e-6, atol=1e-6)


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=8), st.floats(0, 0.9999, allow_subnormal=False))
def test_class_weights_have_mean_one_and_favour_the_rare(counts, beta):
    for weight in (mt.class_weights(counts), mt.class_weights(counts, method="effective", beta=beta)):
        assert weight.mean().item() == pytest.approx(1, rel=1e-5)
        order = sorted(range(len(counts)), key=lambda i: counts[i])
        assert all(weight[i] >= weight[j] - 1e-6 for i, j in itertools.pairwise(order))
    inverse = mt.class_weights(counts) * torch.tensor(counts)
    torch.testing.assert_close(inverse, inverse[:1].expand(len(counts)))
