import numpy as np
import pytest
import torch

import mertools as mt

SMALL = {"image_size": 32, "dims": (4, 8, 12, 16), "hidden": 24, "spatial_depth": 1, "spatial_heads": 2}
FUSIONS = ["parallel", "early", "s_to_t", "t_to_s"]


def small(**settings):
    return mt.TSFmicro(5, **SMALL, **settings).eval()


def images(n=3, b=2):
    return [torch.randn(b, 3, 32, 32) for _ in range(n)]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_structure_trains(fusion):
    model = small(fusion=fusion).train()
    onset, apex = images(2)
    logits = model(onset, apex)
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert unused == []


@pytest.mark.parametrize("fusion", FUSIONS)
def test_motion_and_place_both_matter(fusion):
    model = small(fusion=fusion)
    onset, apex = images(2)
    logits = model(onset, apex)
    torch.testing.assert_close(logits, model(onset, motion=apex - onset))
    assert not torch.allclose(model(onset, motion=apex), logits)
    assert not torch.allclose(model(apex, motion=apex - onset), logits)


def test_parallel_is_its_parts_put_together():
    model = small()
    onset, apex = images(2)
    assert torch.equal(model(onset, apex), model.fusion(model.temporal(apex - onset), model.spatial(onset)))


@pytest.mark.parametrize(
    "build",
    [
        lambda i: mt.TSFmicro(
            i(5), image_size=i(32), in_channels=i(3), dims=[i(4), i(8), i(12), i(16)], depths=[i(1)] * 4, num_heads=i(2),
            spatial_depth=i(1), spatial_heads=i(2), hidden=i(24),
        ),
        lambda i: mt.RetNetTemporal(i(12), i(1), i(3), value_dim=i(24)),
        lambda i: mt.ManhattanRetention(i(12), i(3)),
        lambda i: mt.ManhattanRetNet(dims=(i(4), i(8), i(12), i(16)), num_heads=[i(2)] * 4),
        lambda i: mt.FramePool("attention", dim=i(12)),
        lambda i: mt.AUHead(i(12), i(5)),
    ],
)  # fmt: skip
def test_numpy_integers_are_integers(build):
    """The same model, of Python's own numbers: what it prints, saves and computes with is no NumPy."""
    model, plain = build(np.int64), build(int)
    assert repr(model) == repr(plain)
    for part in model.modules():
        found = [v for value in vars(part).values() for v in (value if isinstance(value, (list, tuple)) else [value])]
        assert not [value for value in found if isinstance(value, np.generic)], part


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(6, 4, 3)

    def forward(self, static, motion):
        return self.conv(torch.cat([static, motion], 1)).mean((2, 3))


def test_two_branches_around_any_network():
    net = Net()
    model = mt.TwoBranch(net)
    onset, apex, offset = images()
    front, back = model(onset, apex, offset)
    assert torch.equal(front, net(onset, apex - onset))
    assert torch.equal(back, net(apex, apex - offset))
    assert list(model.parameters()) == list(net.parameters())


def test_two_branches_around_tsfmicro():
    net = small()
    onset, apex, offset = images()
    front, back = mt.TwoBranch(net)(onset, apex, offset)
    torch.testing.assert_close(front, net(onset, apex))
    assert torch.equal(back, net(apex, motion=apex - offset))


def test_two_branches_look_through_an_au_head():
    torch.manual_seed(7)
    net = mt.TSFmicro(5, image_size=32, dims=(4, 8, 12, 16), hidden=24).eval()
    onset, apex, offset = torch.randn(3, 2, 3, 32, 32)
    plain = mt.TwoBranch(net)(onset, apex, offset)
    for (logits, au_logits), wanted in zip(
        mt.TwoBranch(mt.attach_au_head(net, "fusion.head"))(onset, apex, offset), plain, strict=True
    ):
        torch.testing.assert_close(logits, wanted)
        assert au_logits.shape == (2, 18)


def test_two_branches_look_through_wrappers_and_call_them():
    net = small()
    onset, apex, offset = images()
    expected = mt.TwoBranch(net)(onset, apex, offset)
    wrapped = torch.nn.DataParallel(net)
    compiled = torch.compile(net, backend="eager")
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    for outer in (wrapped, compiled):
        for got, wanted in zip(mt.TwoBranch(outer)(onset, apex, offset), expected, strict=True):
            torch.testing.assert_close(got, wanted)
    assert len(calls) == 4
    assert torch.equal(mt.TwoBranch(net).front(onset, apex), expected[0])


def test_a_network_of_ones_own_around_tsfmicro_is_called_as_it_is():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = small()

        def forward(self, a, b):
            return self.module(a, motion=2 * b)

    net = Own()
    onset, apex, offset = images()
    assert torch.equal(mt.TwoBranch(net)(onset, apex, offset)[0], net(onset, apex - onset))


IMAGE = torch.zeros(1, 3, 32, 32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mt.TSFmicro(0), ValueError, "num_classes must be a positive integer"),
        (lambda: mt.TSFmicro(5, fusion="late"), ValueError, "fusion must be one of 'parallel'"),
        (lambda: mt.TSFmicro(5, image_size=100), ValueError, "image_size must be a multiple of 16"),
        (lambda: mt.TSFmicro(5, dims=(64, 512)), ValueError, "dims must be the widths of four stages"),
        (lambda: small()(IMAGE, IMAGE[:, :1]), ValueError, "onset and apex must have one shape"),
        (lambda: small()(IMAGE[..., :16], IMAGE[..., :16]), ValueError, r"onset must be \(b, 3, 32, 32\)"),
        (lambda: small()(IMAGE.byte(), IMAGE.byte()), TypeError, "onset must be floating, got torch.uint8"),
        (lambda: small()(IMAGE, None), TypeError, "apex must be a torch.Tensor"),
        (lambda: small()(IMAGE, IMAGE, motion=IMAGE), ValueError, "apex and motion were both given"),
        (lambda: small()(IMAGE), TypeError, "apex must be a torch.Tensor"),
        (lambda: mt.TwoBranch(Net())(IMAGE, IMAGE, None), TypeError, "offset must be .*got NoneType"),
        (lambda: mt.TwoBranch(lambda s, m: s), TypeError, "net must be an nn.Module"),
        (lambda: mt.TwoBranch(Net())(IMAGE.byte(), IMAGE, IMAGE), TypeError, "onset must be a floating"),
        (lambda: mt.TwoBranch(Net())(IMAGE, IMAGE, IMAGE[..., :5]), ValueError, "must have one shape"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
