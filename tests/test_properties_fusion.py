"""Laws of the spatial branch and of fusion, whatever the sizes."""

import torch
from hypothesis import given
from hypothesis import strategies as st

import mertools as mt

SEEDS = st.integers(0, 2**32 - 1)
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def fusion(seed, dim, **settings):
    """In evaluation, with running statistics that are not those of a new layer."""
    torch.manual_seed(seed)
    layer = mt.ParallelFusion(dim, 7, **settings).double().eval()
    layer.norm.running_mean.normal_()
    layer.norm.running_var.uniform_(0.5, 2)
    return layer


@given(SEEDS, st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.sampled_from([None, 3]))
def test_fusion_does_not_see_neighbours_order_or_place(seed, b, h, w, num_classes):
    layer = fusion(seed, 5, num_classes=num_classes)
    temporal, spatial = torch.randn(2, b, 5, h, w, dtype=torch.float64)
    whole = layer(temporal, spatial)
    assert whole.shape == (b, num_classes or 7)
    alone = torch.cat([layer(temporal[i : i + 1], spatial[i : i + 1]) for i in range(b)])
    torch.testing.assert_close(whole, alone, **CLOSE)
    torch.testing.assert_close(layer(spatial, temporal), whole, **CLOSE)
    order = torch.randperm(h * w)
    elsewhere = (x.flatten(2)[..., order].view_as(x) for x in (temporal, spatial))
    torch.testing.assert_close(layer(*elsewhere), whole, **CLOSE)
    wider = (x.repeat_interleave(2, 2).repeat_interleave(3, 3) for x in (temporal, spatial))
    torch.testing.assert_close(layer(*wider), whole, **CLOSE)


@given(SEEDS, st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(1, 5), st.booleans())
def test_the_spatial_branch_takes_any_image_one_by_one(seed, b, h, w, grid, antialias):
    torch.manual_seed(seed)
    branch = mt.SpatialTransformer(8, 1, 2, grid=grid, in_channels=2, antialias=antialias).double().eval()
    x = torch.randn(b, 2, h, w, dtype=torch.float64)
    y = branch(x)
    assert y.shape == (b, 8, grid, grid)
    torch.testing.assert_close(y, torch.cat([branch(x[i : i + 1]) for i in range(b)]), **CLOSE)
    torch.testing.assert_close(y, branch.to_map(branch.tokens(x)), **CLOSE)


@given(SEEDS, st.integers(1, 30), st.integers(1, 30), st.floats(-3, 3, allow_subnormal=False))
def test_an_image_of_one_colour_looks_the_same_at_any_size(seed, h, w, value):
    torch.manual_seed(seed)
    branch = mt.SpatialTransformer(8, 1, 2, grid=3, in_channels=2).double().eval()
    one = branch(torch.full((1, 2, 3, 3), value, dtype=torch.float64))
    torch.testing.assert_close(branch(torch.full((1, 2, h, w), value, dtype=torch.float64)), one, **CLOSE)


@given(SEEDS, st.integers(1, 6), st.integers(1, 6))
def test_a_position_embedding_survives_a_detour(seed, small, large):
    """From grid to grid: the same grid changes nothing, and a constant embedding stays one on any."""
    torch.manual_seed(seed)
    first = mt.SpatialTransformer(8, 0, 2, grid=small)
    same = mt.SpatialTransformer(8, 0, 2, grid=small)
    same.load_state_dict(first.state_dict())
    assert torch.equal(same.pos_embed, first.pos_embed)
    torch.nn.init.constant_(first.pos_embed, 0.7)
    other = mt.SpatialTransformer(8, 0, 2, grid=large)
    other.load_state_dict(first.state_dict())
    torch.testing.assert_close(other.pos_embed.data, torch.full((1, 8, large, large), 0.7))
