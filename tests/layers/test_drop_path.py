import pytest
import torch

from mertools.layers.drop_path import DropPath


def test_drops_whole_samples_and_keeps_the_mean():
    x = torch.ones(20_000, 3, 2)
    y = DropPath(0.3)(x)
    kept = y[:, 0, 0] > 0
    assert torch.equal(y, torch.where(kept[:, None, None], x / 0.7, 0))
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.02)


def test_is_the_identity_in_evaluation_and_at_rate_zero():
    x = torch.rand(5, 3)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0)(x) is x


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_bad_rate(rate):
    with pytest.raises(ValueError, match="drop_path must be in"):
        DropPath(rate)
