import pytest
import torch

import mertools as mt

X = torch.randn(3, 5, 7, dtype=torch.float64)
LENGTHS = [5, 1, 3]


def padded():
    x = X.clone()
    for i, n in enumerate(LENGTHS):
        x[i, n:] = torch.nan
    return x


@pytest.mark.parametrize("how", ["mean", "last"])
@pytest.mark.parametrize("shape", [(7,), (7, 2, 3), ()])
def test_padding_has_no_part(how, shape):
    x = torch.randn(3, 5, *shape, dtype=torch.float64)
    expected = [x[i, :n].mean(0) if how == "mean" else x[i, n - 1] for i, n in enumerate(LENGTHS)]
    for i, n in enumerate(LENGTHS):
        x[i, n:] = torch.nan
    torch.testing.assert_close(mt.pool_frames(x, LENGTHS, how=how), torch.stack(expected))
    torch.testing.assert_close(mt.FramePool(how)(x, LENGTHS), torch.stack(expected))


def test_attention_is_a_weighted_mean_of_the_valid_frames():
    scores = torch.randn(3, 5, dtype=torch.float64)
    got = mt.pool_frames(padded(), LENGTHS, how="attention", scores=scores)
    for i, n in enumerate(LENGTHS):
        torch.testing.assert_close(got[i], scores[i, :n].softmax(0) @ X[i, :n])


def test_layer_learns_its_scores():
    pool = mt.FramePool("attention", dim=7).double()
    expected = mt.pool_frames(X, LENGTHS, how="attention", scores=pool.score(X)[..., 0])
    torch.testing.assert_close(pool(X, LENGTHS), expected)
    pool(X, LENGTHS).sum().backward()
    assert pool.score.weight.grad.abs().sum() > 0


def test_gradients_of_padding_are_zero():
    x = padded().requires_grad_()
    mt.pool_frames(x, LENGTHS).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert not x.grad[1, 1:].any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mt.pool_frames(X, how="max"), "how must be one of"),
        (lambda: mt.pool_frames(X[:, :0]), "at least one frame"),
        (lambda: mt.pool_frames(X, [5, 0, 3]), "got 0 for clip 1"),
        (lambda: mt.pool_frames(X, how="attention"), "scores must be given"),
        (lambda: mt.pool_frames(X, scores=X[..., 0]), "scores must be given"),
        (lambda: mt.pool_frames(X, how="attention", scores=X), r"scores must be \(3, 5\)"),
        (lambda: mt.FramePool("attention"), "dim must be given"),
        (lambda: mt.FramePool("mean", dim=7), "dim must be given"),
        (lambda: mt.FramePool("attention", dim=6)(X), r"x must be \(b, t, 6\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
