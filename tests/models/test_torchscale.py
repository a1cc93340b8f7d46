"""torchscale's retention from its formulas (sums in the denominator and all), and its weights in ours."""

import pytest
import torch
import torch.nn.functional as F

import mertools as mt

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
