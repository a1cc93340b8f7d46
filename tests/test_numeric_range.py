"""How far numbers may go: long clips, few bits, large logits, small movements, each against float64."""

import copy
import math

import pytest
import torch
from torch import nn

import mertools as mt

FRAMES = 100_000
DECAYS = {"default": None, "near 0": [1e-30, 1e-8], "near 1": [1 - 2**-16, 1 - 2**-22], "1": [1.0, 1.0]}
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BOUNDS = {"float32": 5e-4, "bfloat16": 0.1}
ROUNDING = {"float32": 1e-6, "bfloat16": 1e-2, "float16": 1e-3}


def error(got, expected):
    """Largest error relative to the largest expected value; infinity where one of them is not finite."""
    if not bool(torch.isfinite(got).all() & torch.isfinite(expected).all()):
        return math.inf
    largest = float((got.detach().double() - expected.detach()).abs().max())
    return largest / max(float(expected.detach().abs().max()), 1e-300)


# --- retention ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def check_retention(decay, kind, form, frames):
    """One form over many frames, against the chunks of float64 with the weights rounded to the type."""
    torch.manual_seed(0)
    layer = mt.Retention(8, 2, decay=DECAYS[decay]).to(TYPES[kind]).eval()
    x = torch.randn(1, frames, 8).to(TYPES[kind])
    expected = copy.deepcopy(layer).double()(x.double())
    if form == "steps":  # the last thousand frames one by one, from the memory of all before
        _, state = layer(x[:, :-1000], return_state=True)
        outputs = []
        for frame in x[:, -1000:].unbind(1):
            y, state = layer.step(frame, state)
            outputs.append(y)
        got, expected = torch.stack(outputs, 1), expected[:, -1000:]
    else:
        got = layer(x, mode=form)
    assert error(got, expected) < BOUNDS[kind]
    # The last frames still differ from each other as those of float64 do.
    assert abs(float(got[:, -1000:].double().std() / expected[:, -1000:].std()) - 1) < 0.02


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("decay", DECAYS)
def test_a_hundred_thousand_frames(decay, kind):
    check_retention(decay, kind, "auto", FRAMES)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize(("form", "frames"), [("parallel", 4000), ("steps", 6000)])
def test_other_forms_of_a_long_clip(form, frames, kind):
    check_retention("near 1", kind, form, frames)


def test_gradients_through_a_long_clip():
    """Backward over 10⁴ frames of decays near 0 and 1, against float64."""
    slopes = []
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        layer = mt.Retention(8, 2, decay=[1e-8, 1 - 2**-16]).to(dtype)
        x = torch.randn(1, 10_000, 8, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
        layer(x).square().mean().backward()
        slopes.append([x.grad, layer.in_proj.weight.grad, layer.out_proj.weight.grad])
    assert all(error(got, expected) < 1e-3 for got, expected in zip(*slopes, strict=True))


def test_an_encoder_of_a_long_clip_in_bfloat16():
    torch.manual_seed(0)
    encoder = mt.RetNetTemporal(16, 2, 4).eval()
    x = torch.randn(1, 20_000, 16)
    with torch.no_grad():
        expected = encoder.double()(x.double())
        encoder.float()
        assert error(encoder(x), expected) < 1e-4
        with torch.autocast("cpu", torch.bfloat16):
            assert error(encoder(x), expected) < 0.05


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_the_mean_of_a_long_clip_in_16_bits(kind):
    """1/t rounded to 16 bits, and sums in them, used to put the mean off; under autocast that of float32 as well."""
    x = torch.randn(2, 10_007, 3, generator=torch.Generator().manual_seed(0)) + 5
    expected = x.double().mean(1)
    with torch.autocast("cpu", TYPES[kind]):
        torch.testing.assert_close(mt.pool_frames(x).double(), expected, rtol=1e-5, atol=0)
    few = x.to(TYPES[kind])
    torch.testing.assert_close(mt.pool_frames(few), few.double().mean(1).to(few.dtype), rtol=2**-8, atol=0)
    scores = torch.zeros(2, 10_007, dtype=few.dtype)
    torch.testing.assert_close(
        mt.pool_frames(few, how="attention", scores=scores), few.double().mean(1).to(few.dtype), rtol=2**-8, atol=0
    )


# --- losses ---------------------------------------------------------------------------------------------------------

LOGITS = [
    [1e4, -1e4, 0, 0, 0, 0, 0], [-1e4, 1e4, 1e4, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1e4], [1e4] * 7, [-1e4, 0, 0, 0, 0, 0, -1e4],
]  # fmt: skip
LOSSES = {  # how to make it; how many of AU logits and AU labels it takes
    "AUPriorLoss, no head": (mt.AUPriorLoss, 0),
    "AUPriorLoss, a prior of 0 and 1": (lambda: mt.AUPriorLoss(torch.eye(7, 18)), 0),
    "AUPriorLoss, head": (mt.AUPriorLoss, 1),
    "AUPriorLoss, head and labels": (lambda: mt.AUPriorLoss(pos_weight=mt.au_pos_weight()), 2),
    "FocalLoss, γ = 2": (lambda: mt.FocalLoss(2.0), 0),
    "FocalLoss, γ = 0.5": (lambda: mt.FocalLoss(0.5), 0),
    "LogitAdjustedLoss, 1 of 10⁹": (lambda: mt.LogitAdjustedLoss([1, 10**9, 3, 4, 5, 6, 7]), 0),
}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_logits_of_ten_thousand(name, kind):
    """Value and gradients with logits of a type, against float64 with the same logits."""
    make, extra = LOSSES[name]
    au = torch.full((5, 18), 1e4)
    au[1::2] = -1e4
    inputs = [torch.tensor(LOGITS), torch.tensor([1, 0, 6, 3, 0]), au, torch.rand(5, 18).round(decimals=2)][: 2 + extra]
    results = []
    for dtype in (TYPES[kind], torch.float64):
        given = [x.to(TYPES[kind]).to(dtype) if i in (0, 2) else x for i, x in enumerate(inputs)]
        leaves = [x.detach().requires_grad_() for i, x in enumerate(given) if i in (0, 2)]
        value = make()(leaves[0], given[1], *leaves[1:], *given[3:])
        results.append([value, *torch.autograd.grad(value, leaves)])
    value, *slopes = (error(got, expected) for got, expected in zip(*results, strict=True))
    assert value < 1e-6  # the loss itself is computed in float32
    assert max(slopes) < ROUNDING[kind]


@pytest.mark.parametrize("gamma", [0.3, 0.5, 2.0, 5.0])
def test_focal_loss_of_a_clip_that_is_right(gamma):
    """``1 − p`` was clamped at 10⁻⁶, in float64, too: the loss of a sure answer was far too large."""
    for gap in (5.0, 12.0, 16.0):
        logits = torch.tensor([[gap, 0.0]], dtype=torch.float64, requires_grad=True)
        loss = mt.FocalLoss(gamma)(logits, torch.tensor([0]))
        others = 1 / (1 + math.exp(gap))
        torch.testing.assert_close(loss.item(), others**gamma * math.log1p(math.exp(-gap)), rtol=1e-6, atol=0)
        slope = -(others ** (gamma + 1)) * (1 + gamma * (1 - others) * math.log1p(math.exp(-gap)) / others)
        (got,) = torch.autograd.grad(loss, logits)
        torch.testing.assert_close(got[0, 0].item(), slope, rtol=1e-5, atol=1e-300)


@pytest.mark.parametrize(
    "criterion", [nn.CrossEntropyLoss(), mt.AUPriorLoss(), mt.FocalLoss(), mt.LogitAdjustedLoss([1] * 7)]
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_give_a_loss_of_nan(criterion, value):
    """As cross entropy does, so that a GradScaler skips the step. The AU term used to stop with an error."""
    logits = torch.zeros(3, 7)
    logits[1, 2] = value
    assert torch.isnan(criterion(logits, torch.tensor([0, 1, 2])))


# --- key frames -----------------------------------------------------------------------------------------------------


def movements():
    """Clips, and where their key frames are."""
    truth = (10, 18, 30)
    clip = mt.synthetic_clip(num_frames=40, onset=10, apex=18, offset=30, size=96, amplitude=0.5).frames[None].float()
    for scale in (1e-30, 1e-6, 1 / 255, 1.0, 1e6, 1e30):
        yield f"float32, 8-bit values times {scale:.3g}", lambda scale=scale: clip * scale, truth
    # One grey level, in a still patch of a textured picture: a step in 8 bits, a smooth movement in float.
    patch = torch.zeros(96, 96)
    patch[40:60, 30:66] = 1
    extent = torch.sin(torch.pi * ((torch.arange(40) - 10) / 20).clamp(0, 1)).view(-1, 1, 1)
    picture = torch.randint(60, 190, (96, 96), generator=torch.Generator().manual_seed(0)) + extent * patch
    grey = picture[None, :, None].expand(1, 40, 3, 96, 96)
    yield "one grey level, 8 bits", lambda: grey.round().to(torch.uint8), (13, 14, 27)  # it rounds to the next level
    yield "one grey level, float in [0, 1]", lambda: grey / 255, (10, 20, 30)


def still_clips():
    """Clips in which nothing moves."""
    for value in (0, 128, 255):
        yield f"constant {value}, 8 bits", torch.full((1, 20, 3, 64, 64), value, dtype=torch.uint8)
    for level in (0.0, 1e-6, 1.0, 1e30):
        yield f"constant {level:g}", torch.full((1, 20, 3, 64, 64), level)
    ramp = torch.arange(20, dtype=torch.uint8).view(1, 20, 1, 1, 1)
    yield "a plain colour that gets lighter", ramp.expand(1, 20, 3, 64, 64).contiguous()


@pytest.mark.parametrize(("clip", "truth"), [pytest.param(*m[1:], id=m[0]) for m in movements()])
def test_small_and_large_values_of_a_movement(clip, truth):
    assert tuple(map(int, mt.select_keyframes(clip())[:3])) == truth


@pytest.mark.parametrize(("name", "clip"), [pytest.param(*m, id=m[0]) for m in still_clips()])
def test_nothing_moves(name, clip):
    assert tuple(map(int, mt.select_keyframes(clip)[:3])) == (0, 10, 19)
    for refine in (False, True):
        keys = mt.select_keyframes(clip, 3, 9, 15, refine=refine)
        if "lighter" not in name:
            assert keys.score.item() == 0
        if refine or "lighter" not in name:
            assert [int(key) for key in keys[:3]] == [3, 9, 15]


def test_one_grey_level_within_annotated_windows():
    """A single value that rises by 1 of 255: the apex moves to the frame in which it does."""
    frames = torch.full((1, 21, 3, 37, 29), 128, dtype=torch.uint8)
    frames[0, 9:, 1, 5, 7] += 1
    keys = mt.select_keyframes(frames, 0, 10, 20)
    assert (int(keys.apex), float(keys.score)) == (10, 1.0)  # a tie with the annotation, which stays
    frames[0, 10:, 1, 5, 7] -= 1
    assert int(mt.select_keyframes(frames, 0, 10, 20).apex) == 9


def test_values_too_large_are_refused():
    frames = torch.rand(2, 9, 3, 37, 37, dtype=torch.float64)
    frames[1] *= 1e200
    for marks in ((), (0, 4, 8)):
        with pytest.raises(ValueError, match="those of clip 1 are too large: scale them down"):
            mt.select_keyframes(frames, *marks)


def test_distances_and_strain_over_the_range():
    torch.manual_seed(0)
    frames = torch.randn(1, 5, 3, 7, dtype=torch.float64)
    flow = torch.randn(2, 7, 5, dtype=torch.float64)
    for scale in (1e-30, 1e-6, 1e6, 1e30):
        torch.testing.assert_close(
            mt.pairwise_distance(frames * scale) / scale, mt.pairwise_distance(frames), rtol=1e-9, atol=1e-12
        )
    for scale in (1e-15, 1e-6, 1e6, 1e15):
        strain = mt.optical_strain((flow * scale).float()).double()
        torch.testing.assert_close(strain / scale, mt.optical_strain(flow), rtol=1e-5, atol=0)
    few = (flow * 1e-3).half()  # squares of which float16 does not hold
    torch.testing.assert_close(mt.optical_strain(few).double(), mt.optical_strain(few.double()), rtol=2e-3, atol=0)


# --- one clip, one frame, one class ---------------------------------------------------------------------------------


def test_one_clip_in_training():
    """Batch norm over the places of one map is fine; over one value per channel PyTorch says what is wrong."""
    model = mt.TSFmicro(5, image_size=32, dims=(4, 8, 12, 16), hidden=11).train()
    model(torch.randn(1, 3, 32, 32), torch.randn(1, 3, 32, 32)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    fusion = mt.ParallelFusion(7, 11).train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        fusion(torch.randn(1, 7, 1, 1), torch.randn(1, 7, 1, 1))


def test_one_frame():
    for causal in (True, False):
        layer = mt.Retention(14, 7, causal=causal).double()
        x = torch.randn(2, 1, 14, dtype=torch.float64)
        torch.testing.assert_close(layer(x), layer(torch.cat([x, x], 1), lengths=[1, 1])[:, :1])
    pool = mt.FramePool("attention", dim=3)
    x = torch.randn(2, 1, 3)
    torch.testing.assert_close(pool(x), x[:, 0])
    assert torch.equal(mt.pool_frames(x), x[:, 0])
    assert torch.equal(mt.resample_clip(x[0], 5, mode="cubic"), x[0].expand(5, 3))
    with pytest.raises(ValueError, match="at least 2 frames"):
        mt.select_keyframes(x)
    with pytest.raises(ValueError, match="at least 4 frames"):
        mt.magnify_motion(torch.rand(1, 3, 19, 17), factor=2, fps=25, low=1, high=5)


def test_a_frame_that_is_not_finite():
    """It spreads as the page says: never to other clips, and frame by frame not to what came before."""
    layer = mt.Retention(14, 7)
    x = torch.randn(2, 150, 14)
    expected = layer(x)
    x[0, 100] = math.nan
    for mode in ("parallel", "chunkwise", "recurrent"):
        got = layer(x, mode=mode)
        torch.testing.assert_close(got[1], expected[1], atol=1e-5, rtol=1e-5)
        assert got[0, 100:].isnan().all()
        if mode == "recurrent":
            torch.testing.assert_close(got[0, :100], expected[0, :100], atol=1e-5, rtol=1e-5)


def test_one_class():
    target = torch.zeros(3, dtype=torch.int64)
    assert mt.class_weights([17]).tolist() == [1.0]
    assert (mt.uf1(target, target), mt.uar(predicted=target, target=target), mt.war(target, target)) == (1, 1, 1)
    assert mt.uar(predicted=target, target=target, num_classes=3, absent="zero") == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="0/0 for the classes 1, 2"):
        mt.uf1(target, target, num_classes=3, absent="error")
    logits = torch.randn(3, 1, requires_grad=True)
    for criterion in (mt.LogitAdjustedLoss([17]), mt.FocalLoss(), mt.AUPriorLoss(mt.au_prior(["fear"]))):
        loss = criterion(logits, target)
        (slope,) = torch.autograd.grad(loss, logits)
        assert abs(loss.item()) < 1e-6
        assert slope.abs().max() < 1e-6
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    prior = mt.estimate_au_prior(labels, target, num_classes=3)
    torch.testing.assert_close(prior, torch.tensor([[4 / 5, 2 / 5], [0.5, 0.5], [0.5, 0.5]]))
    assert torch.isfinite(mt.estimate_pos_weight(labels, target, num_classes=3)).all()


def test_counts_that_are_no_counts():
    for wrong in (math.inf, math.nan, 0, -1):
        with pytest.raises(ValueError, match="one positive number per class"):
            mt.class_weights([3.0, wrong])
    weight = mt.class_weights([1, 10**12], method="effective", beta=1 - 1e-9)
    torch.testing.assert_close(weight[0] / weight[1], torch.tensor(1e9), rtol=1e-5, atol=0)
