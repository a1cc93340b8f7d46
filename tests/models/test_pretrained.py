"""The published networks, by their published weights: every entry of the fixtures."""

import pytest
import torch
import torch.nn.functional as F

import mertools as mt


def assert_met(got, expected):
    """To 1e-4, relative to the largest value of the entry."""
    assert got.shape == expected.shape
    assert float((got.detach() - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


@pytest.fixture(scope="module")
def frames(parity):
    return {name: parity.image(name) for name in ("onset", "apex", "offset")}


@pytest.fixture(scope="module")
def two_branch(parity):
    return mt.load_published(mt.TwoBranch(mt.TSFmicro(5, drop_path=0.0)), parity.state_dict("gamdss")).eval()


@pytest.mark.parametrize("network", ["tsfmicro", "s_to_t", "t_to_s", "early"])
@torch.no_grad()
def test_tsfmicro_logits(parity, frames, network):
    fusion = "parallel" if network == "tsfmicro" else network
    model = mt.load_published(mt.TSFmicro(5, fusion=fusion), parity.state_dict(network)).eval()
    assert_met(model(frames["onset"], frames["apex"]), parity.expected(f"{network}.logits0"))


@torch.no_grad()
def test_two_branch_logits(parity, frames, two_branch):
    front, back = two_branch(**frames)
    assert_met(front, parity.expected("gamdss.logits0"))
    assert_met(back, parity.expected("gamdss.logits1"))


@torch.no_grad()
def test_maps_of_the_front_branch(parity, frames, two_branch):
    where = two_branch.net.spatial(frames["onset"])
    how = two_branch.net.temporal(frames["apex"] - frames["onset"])
    assert_met(where[:, ::64], parity.expected("gamdss.spatial_map"))
    assert_met(how[:, ::64], parity.expected("gamdss.temporal_map"))


def constants():
    """The published constants, computed from REFERENCE §3."""
    out = {}
    for i, (dim, spread) in enumerate(zip((64, 128, 256, 512), (4, 4, 6, 6), strict=True)):
        angle = 1 / 10000 ** torch.linspace(0, 1, dim // 4)
        out[f"main_branch.layers.{i}.Relpos.angle"] = angle.repeat_interleave(2)
        out[f"main_branch.layers.{i}.Relpos.decay"] = torch.log(1 - 2.0 ** (-2 - spread * torch.arange(2.0) / 2))
    return out


def test_constants_are_checked_and_taken_over(parity):
    weights = parity.state_dict("tsfmicro") | constants()
    model = mt.load_published(mt.TSFmicro(5), weights)
    weights["main_branch.layers.2.Relpos.decay"] = torch.tensor([-0.5, -0.25])
    mt.load_published(model, weights)
    assert [b.retention.log_decay.tolist() for b in model.temporal.stages[2].blocks] == [[-0.5, -0.25]] * 2
    weights["main_branch.layers.1.Relpos.angle"] = torch.ones(64)
    with pytest.raises(ValueError, match="layers.1.Relpos.angle must be"):
        mt.load_published(model, weights)


def test_prefix_of_a_data_parallel_run(parity):
    weights = {f"module.{key}": value for key, value in parity.state_dict("early").items()}
    mt.load_published(mt.TSFmicro(5, fusion="early"), weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("main_branch.proj.weight"), "lacks 1 keys that .*: main_branch.proj.weight"),
        (
            lambda w: w.update({"main_branch.layers.1.blocks.0.retention.k_proj.weight": torch.ones(0, 128)}),
            r"k_proj.weight must be \(128, 128\), got \(0, 128\)",
        ),
        (lambda w: w.update({"main_branch.layers.0.Relpos.decay": torch.ones(2)}), "Relpos.decay must be negative"),
        (lambda w: w.update({"module.main_branch.head.bias": torch.ones(5)}), "with and without the prefix"),
        (lambda w: w.update({"main_branch.head.bias": torch.ones(5).long()}), "head.bias must be torch.float32"),
        (lambda w: w.update({"main_branch.extra": torch.ones(1)}), "holds 1 keys that .*: main_branch.extra"),
        (
            lambda w: w.update({"main_branch.head.bias": torch.ones(7)}),
            r"main_branch.head.bias must be \(5,\), got \(7,\)",
        ),
    ],
)
def test_loading_is_strict_and_all_or_nothing(parity, change, message):
    weights = parity.state_dict("tsfmicro")
    change(weights)
    model = mt.TSFmicro(5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        mt.load_published(model, weights)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_bad_kinds():
    with pytest.raises(TypeError, match="model must be a TSFmicro"):
        mt.load_published(torch.nn.Linear(2, 2), {})
    for state in (5, None):
        with pytest.raises(TypeError, match="state_dict must map names to tensors"):
            mt.load_published(mt.TSFmicro(5), state)
    with pytest.raises(TypeError, match="state_dict must map names to tensors"):
        mt.load_published(mt.TSFmicro(5), {1: torch.ones(1)})
    with pytest.raises(ValueError, match="use model.load_state_dict"):
        mt.load_published(mt.TSFmicro(5), mt.TSFmicro(5).state_dict())
    with pytest.raises(TypeError, match="under a key such as"):
        mt.load_published(mt.TSFmicro(5), {"state_dict": {}, "epoch": 3})


def test_training_step(parity, frames):
    """Loss and gradient norm of one training step without drop path."""
    model = mt.load_published(mt.TwoBranch(mt.TSFmicro(5, drop_path=0.0)), parity.state_dict("gamdss")).train()
    front, back = model(**frames)
    target = torch.tensor([1, 3])
    loss = F.cross_entropy(front, target) + F.cross_entropy(back, target)
    loss.backward()
    norm = torch.stack([p.grad.double().square().sum() for p in model.parameters() if p.grad is not None]).sum().sqrt()
    assert_met(loss.double(), parity.expected("gamdss.train_loss"))
    assert_met(norm, parity.expected("gamdss.train_gradnorm"))


# --- torchscale's retention from its formulas (sums in the denominator and all), and its weights in ours -----------------

DIM, HEADS, VALUE = 12, 3, 24


def weights(prefix="", scale=1.0):
    shapes = {"q": (DIM, DIM), "k": (DIM, DIM), "v": (VALUE, DIM), "g": (VALUE, DIM), "out": (DIM, VALUE)}
    return {f"{prefix}{k}_proj.weight": torch.randn(shape, dtype=torch.float64) * scale for k, shape in shapes.items()}


def theirs(w, x):
    b, t, _ = x.shape
    dk = DIM // HEADS
    q, k, v, g = (x @ w[f"{name}_proj.weight"].T for name in "qkvg")
    q, k, v = (y.view(b, t, HEADS, -1).transpose(1, 2) for y in (q, k * dk**-0.5, v))
    angle = (1 / 10000 ** torch.linspace(0, 1, dk // 2, dtype=torch.float64)).repeat_interleave(2)
    theta = torch.arange(t, dtype=torch.float64)[:, None] * angle

    def turned(y):
        swapped = torch.stack((-y[..., 1::2], y[..., 0::2]), -1).flatten(-2)
        return y * theta.cos() + swapped * theta.sin()

    apart = torch.arange(t)[:, None] - torch.arange(t)
    gamma = 1 - 2 ** (-5 - torch.arange(HEADS, dtype=torch.float64))
    mask = torch.where(apart >= 0, gamma[:, None, None] ** apart.clamp(min=0), 0)
    mask = mask / mask.sum(-1, keepdim=True).sqrt()
    scores = turned(q) @ turned(k).mT * mask
    scores = scores / scores.detach().abs().sum(-1, keepdim=True).clamp(min=1)
    y = (scores @ v).transpose(1, 2)
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-12)
    return (F.silu(g) * y.reshape(b, t, -1)) @ w["out_proj.weight"].T


def test_loaded_weights_compute_what_torchscale_does():
    w = weights()
    layer = mt.load_torchscale(mt.Retention(DIM, HEADS, value_dim=VALUE).double(), w)
    x = torch.randn(2, 17, DIM, dtype=torch.float64)
    torch.testing.assert_close(layer(x), theirs(w, x), atol=1e-5, rtol=1e-5)


def test_out_of_a_whole_model():
    w = weights("decoder.layers.0.retention.")
    layer = mt.Retention(DIM, HEADS, value_dim=VALUE)
    mt.load_torchscale(layer, w | {"decoder.norm.weight": torch.ones(3)}, prefix="decoder.layers.0.retention.")
    torch.testing.assert_close(layer.out_proj.weight.double(), w["decoder.layers.0.retention.out_proj.weight"])


@pytest.mark.parametrize(
    ("layer", "state", "message"),
    [
        (mt.Retention(DIM, HEADS, value_dim=VALUE, gate=False), weights(), "gate=True"),
        (mt.Retention(DIM, HEADS), weights(), r"v_proj.weight must be \(12, 12\)"),
        (mt.Retention(DIM, HEADS, value_dim=VALUE), weights("x."), "missing"),
        (mt.Retention(DIM, HEADS, value_dim=VALUE), weights() | {"q_proj.bias": torch.ones(12)}, "q_proj.bias"),
    ],
)
def test_refuses_what_does_not_fit(layer, state, message):
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        mt.load_torchscale(layer, state)
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
