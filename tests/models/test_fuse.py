import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from tests.test_models import FUSIONS, SMALL, Net, images
from torch import nn

import mertools as mt
from mertools.models.fuse import FusedBlock, FusedConv2d, FusedLinear, FusedTransformerBlock, fold_batch_norm


def trained(model):
    """Norms with statistics and weights of their own, as after training."""
    g = torch.Generator().manual_seed(5)
    for part in model.modules():
        if isinstance(part, (nn.BatchNorm2d, nn.LayerNorm)):
            part.weight.data.uniform_(0.5, 2, generator=g)
            part.bias.data.normal_(generator=g)
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(generator=g)
            part.running_var.uniform_(0.5, 2, generator=g)
    return model.eval()


def assert_same(got, expected):
    got, expected = got.detach(), expected.detach()
    torch.testing.assert_close(got, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-5)


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_structure_is_equal(fusion, context):
    model = trained(mt.TSFmicro(5, fusion=fusion, **SMALL))
    onset, apex = images(2)
    with context():
        fused = mt.fuse(model)
        assert_same(fused(onset, apex), model(onset, apex))
    assert not [part for part in fused.modules() if isinstance(part, nn.BatchNorm2d)]
    assert any(isinstance(part, FusedBlock) for part in fused.modules())


def test_published_networks_fused(parity):
    """Logits of the published two-branch network, from the fused model, to the tolerance of the fixtures."""
    model = mt.load_published(mt.TwoBranch(mt.TSFmicro(5)), parity.state_dict("gamdss"))
    frames = [parity.image(name) for name in ("onset", "apex", "offset")]
    with torch.no_grad():
        outputs = mt.fuse(model)(*frames)
    for i, got in enumerate(outputs):
        expected = parity.expected(f"gamdss.logits{i}")
        assert float((got - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def test_the_model_is_left_as_it_is():
    model = trained(mt.TSFmicro(5, **SMALL)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kinds = [type(part) for part in model.modules()]
    fused = mt.fuse(model)
    assert model.training
    assert not any(part.training for part in fused.modules())
    assert not any(p.requires_grad for p in fused.parameters())
    assert all(p.requires_grad for p in model.parameters())
    fused(*images(2))
    assert kinds == [type(part) for part in model.modules()]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_batch_norm_folds_to_its_definition():
    norm = trained(nn.BatchNorm2d(5)).double()
    conv = nn.Conv2d(3, 5, 3, bias=False).double()
    x = torch.randn(2, 3, 7, 11, dtype=torch.float64)
    weight, bias = fold_batch_norm(conv.weight, None, norm)
    torch.testing.assert_close(F.conv2d(x, weight, bias), norm(conv(x)), rtol=0, atol=1e-12)
    plain = nn.BatchNorm2d(5, affine=False).double().eval()
    plain.running_var.fill_(4)
    weight, bias = fold_batch_norm(conv.weight, torch.ones(5), plain)
    torch.testing.assert_close(F.conv2d(x, weight, bias), plain(conv(x) + 1), rtol=0, atol=1e-12)


def test_a_network_of_ones_own():
    """What is ours inside is made faster, sequences of convolution, norm and GELU as well; the rest is left alone."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.front = nn.Sequential(
                nn.Conv2d(3, 6, 3, stride=2, padding="valid"), nn.BatchNorm2d(6), nn.ReLU(),
                nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=3, padding_mode="reflect"), nn.BatchNorm2d(6), nn.GELU(),
                nn.Conv2d(6, 3, 1), nn.GELU(approximate="tanh"),
                nn.Conv2d(3, 3, 1), nn.GELU(),
            )  # fmt: skip
            self.stem = mt.ManhattanRetNet(dims=(4, 8, 12, 16))
            self.norm = nn.BatchNorm2d(16)

        def forward(self, x):
            return self.norm(self.stem(self.front(x))).mean((2, 3))

    model = trained(Own())
    fused = mt.fuse(model)
    x = torch.randn(2, 3, 67, 71)
    with torch.no_grad():
        assert_same(fused(x), model(x))
    assert [type(part).__name__ for part in fused.front] == [
        "FusedConv2d", "Identity", "ReLU", "FusedConv2d", "Identity", "Identity", "FusedConv2d", "GELU",
        "FusedConv2d", "Identity",
    ]  # fmt: skip
    assert isinstance(fused.norm, nn.BatchNorm2d)


@pytest.mark.parametrize("fast", [True, False])
def test_layers_with_and_without_onednn(monkeypatch, fast):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: fast)
    g = torch.Generator().manual_seed(0)
    linear, x, other = FusedLinear(7, 5), torch.randn(2, 3, 7, generator=g), torch.randn(2, 3, 5, generator=g)
    conv, image = FusedConv2d(3, 4, 3, padding=1), torch.randn(2, 3, 5, 7, generator=g)
    with torch.no_grad():
        plain = F.linear(x, linear.weight, linear.bias)
        torch.testing.assert_close(linear(x), plain)
        torch.testing.assert_close(linear(x, other), other + plain)
        linear.activation = conv.activation = "gelu"
        torch.testing.assert_close(linear(x), F.gelu(plain))
        torch.testing.assert_close(conv(image), F.gelu(F.conv2d(image, conv.weight, conv.bias, padding=1)))
        assert linear(x[:0]).shape == (0, 3, 5)
    assert repr(linear) == "FusedLinear(in_features=7, out_features=5, bias=True, activation=gelu)"


def test_a_layer_put_in_by_the_user_stays():
    """An adapter in the place of a linear layer, or a hook on one, is not lost: that block is left alone."""

    class Adapter(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = trained(mt.TSFmicro(5, **SMALL))
    model.backbone.stages[0].blocks[0].ffn.fc1 = Adapter(4, 12).eval()
    model.spatial.blocks[0].mlp[1] = nn.ReLU()
    seen = []
    model.backbone.stages[1].blocks[0].ffn.fc2.register_forward_hook(lambda *_: seen.append(1))
    fused = mt.fuse(model)
    onset, apex = images(2)
    with torch.no_grad():
        assert_same(fused(onset, apex), model(onset, apex))
    assert len(seen) == 2
    kinds = [type(stage.blocks[0]).__name__ for stage in fused.backbone.stages]
    assert kinds == ["Block", "Block", "FusedBlock", "FusedBlock"]
    assert not isinstance(fused.spatial.blocks[0], FusedTransformerBlock)


def test_copies_types_compilers_and_gradients():
    model = trained(mt.TSFmicro(5, **SMALL))
    fused = mt.fuse(model)
    onset, apex = images(2)
    with torch.no_grad():
        expected = model(onset, apex)
        assert_same(copy.deepcopy(fused)(onset, apex), expected)
        assert_same(pickle.loads(pickle.dumps(fused))(onset, apex), expected)
        compiled = torch.compile(fused, fullgraph=True, backend="aot_eager", dynamic=False)
        assert_same(compiled(onset, apex), expected)
        assert_same(torch.export.export(fused, (onset, apex)).module()(onset, apex), expected)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(fused(onset, apex).float(), expected, atol=0.1, rtol=0.1)
        assert_same(mt.fuse(model.double())(onset.double(), apex.double()).float(), expected)
        assert fused(onset[:0], apex[:0]).shape == (0, 5)
    model.float()
    grads = []
    for net in (fused, model):  # gradients to the images, for saliency maps
        x = apex.clone().requires_grad_()
        net(onset, x).square().sum().backward()
        grads.append(x.grad)
    assert_same(*grads)


def test_other_modules():
    net = Net().eval()
    frames = images()
    assert torch.equal(mt.fuse(mt.TwoBranch(net))(*frames)[1], mt.TwoBranch(net)(*frames)[1])
    with pytest.raises(TypeError, match=r"model must be an nn.Module, got dict"):
        mt.fuse({})


def test_methods_are_the_function():
    model = trained(mt.TSFmicro(5, **SMALL))
    onset, apex = images(2)
    with torch.no_grad():
        assert torch.equal(model.fuse()(onset, apex), mt.fuse(model)(onset, apex))
        front, _ = mt.TwoBranch(model).fuse()(onset, apex, onset)
        assert_same(front, model(onset, apex))
