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
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
