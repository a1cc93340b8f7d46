import numpy as np
import pytest
import torch

import mertools as mt


def brute_force(frames):
    """Double loop in float64, one clip at a time."""
    b, t = frames.shape[:2]
    values = frames.double().flatten(2).numpy()
    out = np.zeros((b, t, t))
    for n in range(b):
        for i in range(t):
            for j in range(t):
                out[n, i, j] = np.linalg.norm(values[n, i] - values[n, j])
    return torch.from_numpy(out)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 5, 3, 7, 11), (3, 7, 13), (1, 2, 1), (1, 3, 3, 61, 59), (1, 5, 8193)])
def test_equals_a_double_loop_in_float64(dtype, shape):
    frames = torch.randint(0, 256, shape).to(dtype)
    d = mt.pairwise_distance(frames)
    assert d.dtype == torch.float64
    torch.testing.assert_close(d, brute_force(frames), rtol=1e-9, atol=0)
    assert torch.equal(d, d.mT)
    assert not d.diagonal(dim1=1, dim2=2).any()


def test_uint8_is_exact_where_it_would_wrap():
    frames = torch.zeros(1, 2, 3, 200, 251, dtype=torch.uint8)
    frames[0, 0], frames[0, 1] = 1, 0  # −1 in every value, 255 in uint8 arithmetic
    assert mt.pairwise_distance(frames)[0, 0, 1] == torch.tensor(3 * 200 * 251, dtype=torch.float64).sqrt()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.float64])
def test_one_grey_level_in_one_of_150_000_values(dtype):
    clip = torch.randint(1, 255, (1, 1, 3, 224, 224)).expand(1, 5, 3, 224, 224).clone()
    clip[0, 2, 1, 100, 17] += 1
    clip[0, 0] = 0  # and an outlier in the first place
    d = mt.pairwise_distance((clip if dtype == torch.uint8 else clip / 256).to(dtype))
    step = 1 if dtype == torch.uint8 else 1 / 256
    torch.testing.assert_close(d[0, 1, 2].item(), float(step), rtol=1e-6, atol=0)
    assert d[0, 1, 3] == 0


def test_equal_floating_frames_are_exactly_zero_apart():
    frame = torch.rand(1, 1, 3, 37, 41)
    d = mt.pairwise_distance(frame.expand(1, 7, 3, 37, 41))
    assert not d.any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_without_the_int8_product_the_numbers_are_the_same(monkeypatch, dtype):
    frames = torch.randint(0, 256, (2, 5, 3, 53, 61)).to(dtype)
    expected = mt.pairwise_distance(frames)
    monkeypatch.delattr(torch, "_int_mm", raising=False)
    assert torch.equal(mt.pairwise_distance(frames), expected)


def test_padding_is_never_read():
    frames = torch.rand(2, 7, 5)
    frames[1, 4:] = torch.nan
    d = mt.pairwise_distance(frames, lengths=[7, 4])
    torch.testing.assert_close(d[1, :4, :4], brute_force(frames[1:, :4])[0])
    assert not d[1, 4:].any()
    assert not d[1, :, 4:].any()


def test_views_are_read_as_they_look():
    frames = torch.randint(0, 256, (2, 3, 5, 11, 13), dtype=torch.uint8)
    torch.testing.assert_close(mt.pairwise_distance(frames.transpose(1, 2)), brute_force(frames.transpose(1, 2)))


def test_an_empty_batch_gives_an_empty_result():
    assert mt.pairwise_distance(torch.zeros(0, 5, 3)).shape == (0, 5, 5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mt.pairwise_distance([1, 2]), TypeError, "frames must be a torch.Tensor"),
        (lambda: mt.pairwise_distance(torch.zeros(1, 2, 3, dtype=torch.int32)), TypeError, "uint8 or floating"),
        (lambda: mt.pairwise_distance(torch.zeros(2, 3)), ValueError, r"needs a batch axis, frames\[None\]"),
        (lambda: mt.pairwise_distance(torch.zeros(2, 0, 3)), ValueError, "must not be empty"),
        (lambda: mt.pairwise_distance(torch.zeros(2, 5, 3), lengths=[5, 6]), ValueError, "1..5.*got 6 for clip 1"),
        (lambda: mt.pairwise_distance(torch.zeros(2, 5, 3), lengths=[5, 0]), ValueError, "got 0 for clip 1"),
        (lambda: mt.pairwise_distance(torch.zeros(2, 5, 3), lengths=[5]), ValueError, r"lengths must be \(2,\)"),
        (lambda: mt.pairwise_distance(torch.zeros(2, 5, 3), lengths=torch.ones(2)), TypeError, "integers"),
        (lambda: mt.pairwise_distance(torch.zeros(2, 5, 3), lengths="ab"), TypeError, "lengths must be"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("t", [1, 2, 127, 128, 129, 257, 300])
@pytest.mark.parametrize("p", [1, 2, 16383, 16384, 16385])
def test_integer_sums_are_exact_at_every_edge_of_the_blocks(t, p):
    frames = torch.randint(0, 256, (t, p), dtype=torch.uint8, generator=torch.Generator().manual_seed(t * p))
    frames[0], frames[-1] = 0, 255
    values = frames.numpy().astype("int64")
    energy = (values * values).sum(1)
    square = energy[:, None] + energy - 2 * (values.astype("float64") @ values.T.astype("float64"))
    expected = torch.from_numpy(square).sqrt()
    assert torch.equal(mt.pairwise_distance(frames[None])[0], expected)
