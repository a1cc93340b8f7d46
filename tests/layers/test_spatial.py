import pytest
import torch
import torch.nn.functional as F

import mertools as mt


def naive(net, x):
    """REFERENCE §3 written out with explicit attention matrices."""
    g, heads = net.grid, net.blocks[0].num_heads
    x = F.interpolate(x, (g, g), mode="bilinear", align_corners=False)
    tokens = (net.embed(x) + net.pos_embed).flatten(2).mT
    for block in net.blocks:
        y = F.layer_norm(tokens, tokens.shape[-1:], block.attention_norm.weight, block.attention_norm.bias, 1e-6)
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in block.qkv(y).chunk(3, -1))
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        tokens = tokens + block.out_proj((weights @ v).transpose(1, 2).flatten(2))
        tokens = tokens + block.mlp(block.mlp_norm(tokens))
    return net.norm(tokens).mT.unflatten(2, (g, g))


def test_equals_the_definition():
    net = mt.SpatialTransformer(12, 2, 3, grid=5, in_channels=2).double()
    x = torch.randn(3, 2, 17, 23, dtype=torch.float64)
    torch.testing.assert_close(net(x), naive(net, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(14, 14), (7, 31), (224, 224), (1, 1)])
def test_any_size_and_aspect(size):
    net = mt.SpatialTransformer(12, 1, 3, grid=7)
    assert net(torch.randn(2, 3, *size)).shape == (2, 12, 7, 7)


def test_depth_zero_is_the_embedding():
    net = mt.SpatialTransformer(12, 0, 3, grid=7)
    assert net(torch.randn(2, 3, 9, 9)).shape == (2, 12, 7, 7)


def test_position_embedding_of_another_grid_is_interpolated():
    small, large = mt.SpatialTransformer(12, 1, 3, grid=5), mt.SpatialTransformer(12, 1, 3, grid=11)
    large.load_state_dict(small.state_dict())
    expected = F.interpolate(small.pos_embed, (11, 11), mode="bicubic", align_corners=False)
    torch.testing.assert_close(large.pos_embed, expected)
    wrapped = torch.nn.ModuleDict({"spatial": mt.SpatialTransformer(12, 1, 3, grid=11)})
    wrapped.load_state_dict({f"spatial.{k}": v for k, v in small.state_dict().items()})
    torch.testing.assert_close(wrapped["spatial"].pos_embed, expected)
    assert small.state_dict()["pos_embed"].shape == (1, 12, 5, 5)


def test_antialias_sees_what_lies_between():
    plain, smooth = (mt.SpatialTransformer(12, 0, 3, grid=2, antialias=a) for a in (False, True))
    x = torch.zeros(1, 3, 64, 64)
    changed = x.clone()
    changed[..., 3, 3] = 9.0  # far from the four pixels that a plain resize reads
    assert torch.equal(plain(x), plain(changed))
    assert not torch.equal(smooth(x), smooth(changed))


def test_gradcheck():
    net = mt.SpatialTransformer(4, 1, 2, grid=2).double()
    assert torch.autograd.gradcheck(net, (torch.randn(1, 3, 3, 5, dtype=torch.float64, requires_grad=True),))


def test_norm_is_the_users():
    net = mt.SpatialTransformer(12, 1, 3, norm=torch.nn.RMSNorm)
    assert isinstance(net.norm, torch.nn.RMSNorm)
    assert isinstance(net.blocks[0].mlp_norm, torch.nn.RMSNorm)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mt.SpatialTransformer(10, num_heads=4), ValueError, "dim must be a multiple of num_heads=4"),
        (lambda: mt.SpatialTransformer(grid=0), ValueError, "grid must be a positive integer"),
        (lambda: mt.SpatialTransformer(depth=-1), ValueError, "depth must be an integer of at least 0"),
        (lambda: mt.SpatialTransformer(12, 1, 3)(torch.zeros(1, 4, 8, 8)), ValueError, r"x must be \(b, 3, h, w\)"),
        (lambda: mt.SpatialTransformer(12, 1, 3)(torch.zeros(1, 3, 8, 8).byte()), TypeError, "x must be floating"),
        (lambda: mt.SpatialTransformer(12, 1, 3)("x"), TypeError, "x must be a torch.Tensor"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
