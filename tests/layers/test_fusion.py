import pytest
import torch
import torch.nn.functional as F

import mertools as mt


@pytest.mark.parametrize("num_classes", [None, 3])
def test_equals_the_definition(num_classes):
    fusion = mt.ParallelFusion(7, 11, num_classes=num_classes).eval()
    fusion.norm.running_mean.normal_()
    fusion.norm.running_var.uniform_(0.5, 2)
    how, where = torch.randn(2, 7, 3, 5), torch.randn(2, 7, 3, 5)
    lifted = (how + where).flatten(2).mT @ fusion.lift.weight.T + fusion.lift.bias
    norm = fusion.norm
    lifted = (lifted - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps) * norm.weight + norm.bias
    expected = F.silu(lifted).mean(1)
    if num_classes:
        expected = fusion.head(expected)
    torch.testing.assert_close(fusion(how, where), expected)
    assert fusion(how, where).shape == (2, num_classes or 11)


def test_training_normalises_over_batch_and_positions():
    fusion = mt.ParallelFusion(7, 11)
    maps = torch.randn(2, 7, 3, 5)
    lifted = fusion.lift((maps + maps).flatten(2).mT).flatten(0, 1)
    normal = (lifted - lifted.mean(0)) / torch.sqrt(lifted.var(0, unbiased=False) + 1e-5)
    torch.testing.assert_close(fusion(maps, maps), F.silu(normal).view(2, 15, 11).mean(1))


def test_gradcheck():
    fusion = mt.ParallelFusion(3, 5, num_classes=2).double()
    maps = [torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(fusion, maps)


MAP = torch.zeros(2, 7, 3, 5)
FUSION = mt.ParallelFusion(7)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: FUSION(MAP, MAP[..., :4]), ValueError, r"same shape, got \(2, 7, 3, 5\) and \(2, 7, 3, 4\).*grid="),
        (lambda: FUSION(MAP[:, :6], MAP[:, :6]), ValueError, r"maps must be \(b, 7, h, w\)"),
        (lambda: FUSION(MAP, None), TypeError, "spatial must be a torch.Tensor"),
        (lambda: mt.ParallelFusion(0), ValueError, "dim must be a positive integer"),
        (lambda: mt.ParallelFusion(num_classes=0), ValueError, "num_classes must be a positive integer"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
